"""Layer 3a: header fields of any layout - `Label: value`, `Label = value`, `| Label | value |`, `Label ..... value`,
a label alone above its value, and tables whose first line holds the labels - in many languages.

A label says what its value is, so that a value needs no likeness to a known name. Labels are data
(`lexicon/labels.txt`); labels that are words of sentences too count only before a colon or an equals sign.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from components.reports.deid.keep import TAG
from components.reports.deid.note import fold
from components.reports.deid.runs import PARTICLES, Scan, degree_at
from components.reports.deid.span import Span
from components.reports.deid.wordlists import NAME, STOP, WORD
from components.reports.lexicon import mapping, word_set

PEOPLE = frozenset({"PATIENT", "STAFF", "PERSON"})
NUMBERS = frozenset({"MRN", "SSN", "ACCESSION", "ID", "DEVICE", "PHONE"})
_SEPARATOR = re.compile(
    r"\.? {0,12}(?:\([^()\n]{0,14}\) ?|/ ?[\w' ]{1,24}(?=[:=]))?\.?(?::{1,2}|=|>|#|\.{3,}:?|\u2026|-(?= )|"
    r"\uff1a)[ \t*_]{0,12}"
)
_STRICT = re.compile(r"\.? {0,12}(?:\([^()\n]{0,14}\) ?)?\.?(?:::?|=|>|\uff1a|\.{3,}:?)[ \t*_]{0,12}")
_SPACE = re.compile(r" {1,3}(?=[^\W\d_])")
_NAME_LABELS = frozenset(
    {("family", "name"), ("given", "name"), ("first", "name"), ("last", "name"), ("surname",)}
)
_BOXED = re.compile(r"\]:? {0,3}")
_NEXT_CELL = re.compile(r"(?<=\S) {2,}[^\W\d_][\w./ -]{1,24}:")
_PIPE = re.compile(r"[ *_]{0,8}\|[ *_]{0,8}")
_WIDE = re.compile(r" {3,40}(?=\S)")
_NUMBER = re.compile(r"#? ?(?:[A-Za-z]{1,8}[-. ]?)?[A-Za-z0-9][\w./-]*(?: (?=[A-Z]{0,2}\d)[\w./-]+){0,6}")
_DAY = re.compile(r"\d{1,2}([-/.])\d{1,2}\1(?:19|20)?\d\d(?!\w)|(?:19|20)\d\d([-/.])\d{1,2}\2\d{1,2}(?!\w)")
_YEAR = re.compile(r"(?:[\w., /-]{0,24}?)((?:19|20)\d\d)(?!\d)")
_CELLS = re.compile(r"(?:[^|\t\n ]| (?! ))+")
_LINE_WORD = re.compile(r"[^\W\d_]+")
_KEEP_VALUES = word_set("headers.keep_values")


class Label(NamedTuple):
    """A label's words, the kind of its value, and whether it needs a strict separator."""

    words: tuple[str, ...]
    kind: str
    weak: bool


@cache
def labels() -> dict[str, tuple[Label, ...]]:
    """Labels by their first word, the longest first."""
    table: dict[str, list[Label]] = {}
    weak = set(mapping("labels")["weak"])
    kinds = {"PATIENT": ("name", "re", "subject"), "STAFF": tuple(sorted(weak - {"name", "re", "subject"}))}
    for kind, phrases in mapping("labels").items():
        for phrase in phrases if kind != "weak" else ():
            parts = tuple(re.findall(r"[^\W_]+", fold(phrase).lower()))
            table.setdefault(parts[0], []).append(Label(parts, kind, False))
    for kind, phrases in kinds.items():
        for phrase in phrases:
            table.setdefault(phrase, []).append(Label((phrase,), kind, True))
    return {
        first: tuple(sorted(options, key=lambda label: (-len(label.words), label.weak)))
        for first, options in table.items()
    }


def label_at(scan: Scan, number: int) -> Label | None:
    """The longest label that begins at token `number`, or None."""
    for label in labels().get(scan.words[number], ()):
        size = len(label.words)
        if size == 1 or tuple(scan.words[number : number + size]) == label.words:
            if size > 1 and "\n" in scan.view[scan.starts[number] : scan.ends[number + size - 1]]:
                continue
            return label
    return None


def _begins_field(scan: Scan, number: int) -> bool:
    """Whether a label may stand here: at the beginning of a line, a cell or a phrase, or after another value."""
    if number == 0:
        return True
    gap = scan.gap(number - 1)
    return "\n" in gap or any(mark in gap for mark in "|;,.:*#(/[-") or len(gap) > 1


class Field(NamedTuple):
    """A label with where its value may begin and must end."""

    label: Label
    number: int
    start: int
    end: int


def fields(scan: Scan) -> list[Field]:
    """The header fields of a note, in order."""
    table, found = labels(), []
    view, done = scan.view, 0
    places = scan.note.places
    for number in sorted(n for word in places.keys() & table.keys() for n in places[word]):
        boxed = view[scan.starts[number] - 1 : scan.starts[number]] == "["
        tagged = boxed and bool(TAG.match(view, scan.starts[number] - 1))
        label = label_at(scan, number) if number >= done and not tagged else None
        if label is None:
            continue
        last = number + len(label.words) - 1
        match = _BOXED.match(view, scan.ends[last]) if boxed else None
        match = match or (_STRICT if label.weak or not _begins_field(scan, number) else _SEPARATOR).match(
            view, scan.ends[last]
        )
        if match is None and _line_start(view, scan.starts[number]):
            match = _PIPE.match(view, scan.ends[last])
            if match is None and not label.weak and len(label.words) + len(label.words[0]) > 3:
                match = _WIDE.match(view, scan.ends[last])
        if (
            match is None
            and not label.weak
            and "|" in view[max(0, scan.starts[number] - 3) : scan.starts[number]]
        ):
            match = _PIPE.match(view, scan.ends[last])
        if match is None and label.words in _NAME_LABELS and _begins_field(scan, number):
            match = _SPACE.match(view, scan.ends[last])
        if match is None:
            continue
        start = match.end()
        if start < len(view) and view[start] == "\n" and not label.weak:
            below = start + 1
            start = below if _looks_value(view, below) else start
        end = _value_end(view, start, label.kind in PEOPLE)
        if boxed and (cut := view.find("[", start, end)) >= 0:
            end = cut
        found.append(Field(label, number, start, end))
        done = last + 1
    starts = [scan.starts[field.number] for field in found]
    return [
        field._replace(end=min(field.end, next_start if next_start > field.start else field.end))
        for field, next_start in zip(found, [*starts[1:], len(view)])
    ]


def _line_start(view: str, place: int) -> bool:
    line = view.rfind("\n", max(0, place - 12), place)
    return place == 0 or (line >= 0 and not view[line + 1 : place].strip(" |*#>-_"))


def _looks_value(view: str, start: int) -> bool:
    """Whether the line below a lone label is a value: short, and no label itself."""
    line = view[start : start + 62].partition("\n")[0]
    return 1 < len(line.strip()) < 60 and ":" not in line


def _value_end(view: str, start: int, people: bool) -> int:
    end = len(view)
    for mark in ("\n", "|", "\t") if people else ("\n", ";", "|", "\t"):
        place = view.find(mark, start, start + 200)
        end = min(end, place if place >= 0 else end)
    end = min(end, start + 200)
    cell = _NEXT_CELL.search(view, start, end) if people else None
    return cell.start() if cell else end


def field_spans(scan: Scan, layer: str) -> list[Span]:
    """PHI in the values of header fields and in tables."""
    spans: list[Span] = []
    for field in fields(scan):
        spans += _value(scan, field, layer)
    if scan.view.count("|") > 1 or "   " in scan.view or "\t" in scan.note.raw:
        spans += _tables(scan, layer)
    return spans


def _value(scan: Scan, field: Field, layer: str) -> list[Span]:
    kind, view = field.label.kind, scan.view
    rule = f"{'id' if kind in NUMBERS else 'name' if kind in PEOPLE else 'field'}.label"
    if kind in PEOPLE:
        runs = people(scan, field.start, field.end, field.label.weak, field.label.words == ("cc",))
        return [Span(a, b, kind, layer, rule, 0.9) for a, b in runs]
    text = view[field.start : field.end]
    value = text.split("   ")[0].rstrip(" .,")
    if not value.strip() or value.strip().lower() in _KEEP_VALUES:
        return []
    start = field.start + len(text) - len(text.lstrip())
    if kind in NUMBERS:
        if kind in ("ACCESSION", "ID") and _DAY.match(view, start):
            return []
        match = _NUMBER.match(view, start, field.start + len(value))
        if match and sum(map(str.isdigit, match.group())) >= (3 if kind != "PHONE" else 4):
            last = max(place for place, char in enumerate(match.group()) if char.isdigit())
            stop = re.compile(r"[\w]*").match(view, match.start() + last + 1)
            if _is_measure(view, match.end()):
                return []
            return [Span(match.start(), stop.end() if stop else match.end(), kind, layer, rule, 0.95)]
        return []
    if kind == "DATE":
        match = _YEAR.match(view, start, min(field.end, start + 30))
        return [Span(match.start(1), match.end(1), kind, layer, "date.label", 0.9)] if match else []
    if kind == "ADDRESS" and sum(map(str.isalnum, value)) > 2:
        return [Span(start, field.start + len(value), kind, layer, "address.label", 0.9)]
    return []


def _is_measure(view: str, end: int) -> bool:
    return bool(re.compile(r" ?(?:mm|cm|ml|mg|hu|%|years?|yrs?)\b", re.IGNORECASE).match(view, end))


def people(
    scan: Scan, start: int, end: int, strict: bool = False, copies: bool = False
) -> list[tuple[int, int]]:
    """Names in `[start, end)` of a value: all words that may be names, in runs; what is plainly text ends it."""
    from bisect import bisect_left

    number = bisect_left(scan.starts, start)
    runs: list[tuple[int, int]] = []
    first = last = -1
    count = 0
    tokens = bisect_left(scan.starts, end) - number
    while number < len(scan.words) and scan.ends[number] <= end:
        word, flags = scan.words[number], scan.flags[number]
        gap = scan.gap(number - 1) if number else ""
        if ("\n" in gap or "(" in gap) and scan.starts[number] > start + 1:
            break
        if not word.isalpha():
            break
        plain = degree_at(scan, number) and count > 0
        joined = first >= 0 and _joins(gap, scan.words[last] if last >= 0 else "")
        if (word == "s" and gap == "'") or word == "born":
            break
        title = (
            word in _LEADS
            and not (len(word) == 1 and first >= 0 and joined)
            and (first < 0 or not joined or scan.view[scan.ends[number] : scan.ends[number] + 1] == ".")
        )
        if (
            first >= 0
            and not joined
            and gap[:1] == "."
            and not title
            and scan.words[number - 1] not in _LEADS
        ):
            break
        if word in PARTICLES and len(word) > 1 and (joined if first >= 0 else _particle_first(scan, number)):
            first, last = (number if first < 0 else first), number
        elif (
            plain
            or title
            or (flags & STOP and not _named_stop(scan, number, tokens))
            or (word in ("d", "m") and not gap.strip() and not joined)
        ):
            if first >= 0:
                runs.append((first, last))
                first = -1
            if not (plain or word in _LEADS or word in ("and", "und", "y", "et", "e", "i", "ve")):
                break
        elif flags & WORD and not flags & NAME and not _allowed(scan, number, tokens, count):
            break
        else:
            if first >= 0 and not joined:
                runs.append((first, last))
                first = -1
            first = number if first < 0 else first
            last, count = number, count + 1
        if count > 12:
            break
        number += 1
    if first >= 0:
        runs.append((first, last))
    return _kept_runs(scan, runs, strict, copies)


def _kept_runs(scan: Scan, runs: list[tuple[int, int]], strict: bool, copies: bool) -> list[tuple[int, int]]:
    """The runs of a value that may be names, as offsets; plain words are left out where the label is weak."""
    found = []
    for a, b in runs:
        while b > a and scan.words[b] in PARTICLES and len(scan.words[b]) > 1 and scan.shape(b) == "l":
            b -= 1
        only = a == b
        if only and len(scan.words[a]) == 1:
            continue
        if strict and only and scan.shape(a) == "l":
            continue
        if (
            copies
            and not any(scan.listed(k) or scan.strange(k) or scan.abbreviation(k) for k in range(a, b + 1))
            and (
                not (len(runs) > 1 or b > a)
                or all(scan.flags[k] & WORD and not scan.flags[k] & NAME for k in range(a, b + 1))
            )
        ):
            continue
        if copies and only and scan.abbreviation(a):
            continue
        if strict and all(scan.flags[k] & WORD and not scan.flags[k] & NAME for k in range(a, b + 1)):
            continue
        found.append((scan.starts[a], scan.ends[b]))
    return found


def _particle_first(scan: Scan, number: int) -> bool:
    """`de la Cruz, Maria`: a particle that begins a family name."""
    follow = number + 1
    if follow >= len(scan.words) or scan.gap(number) not in (" ", "-"):
        return False
    if scan.words[follow] in PARTICLES:
        follow += 1
    return follow < len(scan.words) and bool(scan.flags[follow] & NAME) and scan.shape(follow) != "l"


_LEADS = word_set("headers.leads")


def _named_stop(scan: Scan, number: int, tokens: int) -> bool:
    """A stop word that is a name here: `HEAD, PRIYA`, `Long, Chris`."""
    flags, word = scan.flags[number], scan.words[number]
    if number and scan.gap(number - 1) == "-" and flags & NAME and len(word) > 2:
        return True
    if word in _LEADS or not flags & NAME or len(word) < 3:
        return False
    after = scan.view[scan.ends[number] : scan.ends[number] + 2]
    before = scan.gap(number - 1) if number else ""
    if scan.shape(number) == "l":
        return False
    follow = number + 1
    named = follow < len(scan.words) and bool(scan.flags[follow] & NAME) and not scan.flags[follow] & STOP
    if named and tokens < 8 and scan.gap(number) == " " and before != " ":
        return True
    return after == ", " or after[:1] == "^" or (before in (" ", ", ", "^") and tokens <= 3 and number > 0)


def _allowed(scan: Scan, number: int, tokens: int, count: int) -> bool:
    """An ordinary word that no list calls a name, in a place where only a name may stand."""
    if tokens <= 3 and scan.shape(number) != "l":
        return True
    if scan.shape(number) == "C":
        return tokens <= 5 or count > 0
    return tokens <= 2


def _joins(gap: str, before: str) -> bool:
    if gap in (" ", "  ", "-", "'", ", ", ",", "^", " , ", "^^", " - "):
        return True
    return gap in (". ", ".", "., ") and (len(before) == 1 or before in PARTICLES or before in ("jr", "sr"))


def _tables(scan: Scan, layer: str) -> list[Span]:
    """Values below a line of labels: `Patient Name   DOB   MRN` and the line after it."""
    view, spans = scan.view, []
    heads: list[tuple[int, int, str]] = []
    place = 0
    for line in view.split("\n"):
        cells = _cells(line)
        if heads and cells:
            spans += _row(scan, layer, place, cells, heads)
            heads = []
        elif len(cells) >= 2:
            kinds = [(a, b, _label_kind(line[a:b])) for a, b in cells]
            if sum(1 for _, _, kind in kinds if kind) >= 2 and all(
                kind or len(line[a:b]) < 20 for a, b, kind in kinds
            ):
                heads = kinds
        if heads and not line.strip(" |-+=:") and line.strip():
            pass
        place += len(line) + 1
    return spans


def _cells(line: str) -> list[tuple[int, int]]:
    if not line.strip(" |-+=:"):
        return []
    if "|" not in line and "  " not in line and "\t" not in line:
        return []
    if len(line) > 400:
        return []
    return [match.span() for match in _CELLS.finditer(line) if any(map(str.isalnum, match.group()))]


def _label_kind(cell: str) -> str:
    parts = tuple(re.findall(r"[^\W_]+", fold(cell).lower()))
    if not parts or "[" in cell:
        return ""
    for label in labels().get(parts[0], ()):
        if label.words == parts:
            return label.kind
    return ""


def _row(
    scan: Scan, layer: str, place: int, cells: list[tuple[int, int]], heads: list[tuple[int, int, str]]
) -> list[Span]:
    spans = []
    for order, (a, b) in enumerate(cells):
        kind = (
            heads[order][2]
            if len(cells) == len(heads)
            else next((k for x, y, k in heads if x < b and y > a), "")
        )
        start, end = place + a, place + b
        if kind in PEOPLE:
            spans += [Span(x, y, kind, layer, "name.label", 0.9) for x, y in people(scan, start, end)]
        elif kind in NUMBERS and sum(map(str.isdigit, scan.view[start:end])) >= 3:
            spans.append(Span(start, end, kind, layer, "id.label", 0.9))
        elif kind in ("ADDRESS", "HOSPITAL"):
            spans.append(Span(start, end, kind, layer, "field.label", 0.8))
    return spans
