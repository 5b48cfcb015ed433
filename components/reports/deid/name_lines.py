"""Names that the layout gives away: signature lines, letterheads, `Family^Given`; and echoes."""

from __future__ import annotations

import re
from bisect import bisect_left

from components.reports.deid.cues import cues
from components.reports.deid.known import in_capitals, is_person_here
from components.reports.deid.note import Note
from components.reports.deid.runs import DEGREE, PARTICLES, Scan, degree_at
from components.reports.deid.scribes import scribe_spans
from components.reports.deid.span import Span
from components.reports.deid.wordlists import FOREIGN, NAME, STOP, TERM, WORD, Lists

_CARET = re.compile(
    r"(?<![\w^])(?:(?:[Dd]e|[Vv]an|[Vv]on|[Dd]i|[Dd]el|[Ll]a|[Ll]o|[Tt]er|[Dd]os|DE|VAN|VON|DI|LA|LO|TER|DOS|"
    r"'[Tt]|[^\W\d_][\w'-]{1,20}(?= (?:da|de|do|DA|DE|DO) )) ){0,3}"
    r"[^\W\d_][\w'.-]{0,40}(?:\^{1,3}[^\W\d_][\w'.-]{0,40}(?: [^\W\d_][\w'.-]{0,40}(?=\^|"
    r" ?[\n;|,]|$))?){1,4}"
)
_SAID = re.compile(
    r"^[ \[(]{0,3}(?:\d{1,2}/\d{1,2} )?\d{1,2}[h:.]\d\d[\])]?[ -]{1,4}([^\W\d_][\w'-]{2,20})(>|:(?= ))",
    re.MULTILINE,
)
_AFTER_SLASH = re.compile(r" ?/ ?[A-Za-z]{2,3}(?![\w/])")


def layout_spans(scan: Scan, layer: str) -> list[Span]:
    """Names that their line or their marks give away."""
    view = scan.view
    spans = _lines(scan, layer)
    if "^" in view:
        spans += [Span(*match.span(), "PERSON", layer, "name.caret", 0.9) for match in _CARET.finditer(view)]
    return spans + _chat(scan, layer) + scribe_spans(scan, layer)


def _chat(scan: Scan, layer: str) -> list[Span]:
    """Who writes in a log of messages: `21h36  Denis> ...`, `11:59  Haddad: ...`, on two lines or more."""
    found = list(_SAID.finditer(scan.view))
    spans = []
    for match in found if len(found) > 1 else ():
        first = bisect_left(scan.starts, match.start(1))
        flags = scan.flags[first]
        surely = match[2] == ">" and not flags & TERM
        if surely or (flags & NAME and not flags & (WORD | STOP | TERM)):
            spans.append(Span(*match.span(1), "STAFF", layer, "name.chat", 0.8))
    return spans


def _lines(scan: Scan, layer: str) -> list[Span]:
    """Lines that hold a name and nothing else (signatures, letterheads), or begin with a name and a number."""
    spans: list[Span] = []
    view, place, total = scan.view, 0, len(scan.view)
    lines = view.split("\n")
    for order, line in enumerate(lines):
        bare = line.strip(" \t*_|-/")
        if 4 < len(bare) < 60 and (order < 4 or place > total * 0.5 or total < 600):
            at = bisect_left(scan.starts, place + line.find(bare[0]))
            stop = bisect_left(scan.starts, place + len(line))
            spans += _line_name(scan, layer, at, stop, order)
        elif order < 4 and 4 < len(bare) < 200 and any(map(str.isdigit, bare[:60])):
            at = bisect_left(scan.starts, place + line.find(bare[0]))
            spans += _line_name(scan, layer, at, bisect_left(scan.starts, place + len(line)), order)
        place += len(line) + 1
    return spans


def _line_name(scan: Scan, layer: str, at: int, stop: int, order: int) -> list[Span]:
    """A name at the beginning of a line that a number, a degree or the line's end follows."""
    end, names, commas = at, 0, 0
    if at < stop and scan.words[at] == "dear":
        return []
    while end < stop and end - at < 5:
        word, flags = scan.words[end], scan.flags[end]
        if not word.isalpha() or degree_at(scan, end) or (scan.shape(end) == "l" and word not in PARTICLES):
            break
        if end > at:
            gap = scan.gap(end - 1)
            commas += "," in gap
            if gap not in (" ", ", ", ",", "-", "'") and not (
                gap in (". ", ".") and len(scan.words[end - 1]) == 1
            ):
                break
        if flags & STOP and len(word) > 1 and not (flags & NAME and len(word) > 2):
            return []
        if (
            len(word) > 1
            and flags & (WORD | FOREIGN)
            and not flags & NAME
            and not (scan.shape(end) == "C" and commas)
        ):
            return []
        names += (
            scan.listed(end) or (scan.familiar and scan.strange(end)) or bool(flags & NAME and commas == 1)
        )
        end += 1
    size = end - at
    if _role_below(scan, stop) and 2 <= size <= 4 and end == stop:
        named = (scan.flags[k] & NAME or scan.strange(k) or len(scan.words[k]) == 1 for k in range(at, end))
        if all(named):
            return [Span(scan.starts[at], scan.ends[end - 1], "STAFF", layer, "name.line", 0.7)]
    if (
        not 2 <= size <= 5
        or commas > 1
        or names < (1 if commas or size > 2 else 2) + (0 if scan.familiar else 1)
    ):
        return []
    rest = scan.view[
        scan.ends[end - 1] : scan.starts[stop] if stop < len(scan.words) else len(scan.view)
    ].partition("\n")[0]
    tail = rest.strip(" .,|-*_")
    role = re.match(r", ?(?:[^\W\d_]+ ){0,2}([^\W\d_]+)", rest)
    if tail and not (
        DEGREE.match(rest)
        or (order >= 4 and role and not set(role.group().lower().strip(", ").split()).isdisjoint(cues().role))
        or (order < 4 and re.match(r"[\s|,.(#-]{1,6}(?:[A-Z]{0,4}[-.]?\d|mrn|dob|\()", rest, re.I))
    ):
        return []
    return [
        Span(
            scan.starts[at], scan.ends[end - 1], "PATIENT" if order < 4 else "STAFF", layer, "name.line", 0.7
        )
    ]


def _role_below(scan: Scan, stop: int) -> bool:
    """Whether the next line names a role (`Consultant Radiologist`)."""
    return any(word in cues().role for word in scan.words[stop : stop + 3])


def extend_slash(view: str, spans: list[Span]) -> list[Span]:
    """`Dr.Name/xy`: the initials of who wrote it down belong to the name."""
    found = []
    for span in spans:
        slash = (
            _AFTER_SLASH.match(view, span.end)
            if span.rule in ("name.title", "name.by", "name.label")
            else None
        )
        if slash and slash.group().strip(" /").lower() not in ("md", "rn", "np", "pa", "do"):
            span = Span(span.start, slash.end(), span.kind, span.layer, span.rule, span.score)
        found.append(span)
    return found


_NO_ECHO = PARTICLES | frozenset(cues().titles) | cues().chain


def echo(text: Note, spans: list[Span], layer: str, lists: Lists) -> list[Span]:
    """Other places of the parts of names found with confidence, so that one cue protects a whole note."""
    parts: dict[str, str] = {}
    lower_too: set[str] = set()
    for span in spans:
        if span.score < 0.8 or not span.rule.startswith("name."):
            continue
        for piece in re.findall(r"[^\W\d_]+", text.view[span.start : span.end].partition("/")[0]):
            if len(piece) > 2 and not lists.flags(piece.lower()) & STOP and piece.lower() not in _NO_ECHO:
                parts.setdefault(piece.lower(), span.kind)
                if piece.islower():
                    lower_too.add(piece)
    if not parts:
        return []
    found: list[Span] = []
    covered = sorted((span.start, span.end) for span in spans)
    cursor = 0
    for number, word in enumerate(text.words):
        kind = parts.get(word)
        if kind is None:
            continue
        start, end = text.starts[number], text.ends[number]
        while cursor < len(covered) and covered[cursor][1] <= start:
            cursor += 1
        if cursor < len(covered) and covered[cursor][0] <= start < covered[cursor][1]:
            continue
        flags = lists.flags(word)
        plain = flags & (WORD | FOREIGN)
        if text.token(number).islower() and (plain or word not in lower_too):
            continue
        if plain and (not is_person_here(text, number) or in_capitals(text, number)):
            continue
        found.append(Span(start, end, kind, layer, "name.echo", 0.75))
    return found
