"""Bare initials of who typed, read or took part: after a label (`typist: jk`), at the end of a line (`JR/km`).

Two or three letters say nothing by themselves, so that only their place decides: behind a word of `scribes.labels`,
or behind (between) a slash, a colon or a point at the end of a line in the last third of a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.reports.deid.cues import cues
from components.reports.deid.runs import Scan
from components.reports.deid.span import Span
from components.reports.deid.wordlists import FOREIGN, STOP, default_lists
from components.reports.lexicon import terms, word_set

_LETTERS = r"(?:[A-Z]{2,4}|[a-z]{2,3})"
_ENDS = (
    r"(?=[ \t]*(?:$|[;,.)|]|-? ?\d|\b[DT]:? ?\d)|[ \t]{2,}| - | cc\b| [A-Z][A-Za-z]{0,14}:|"
    r" (?:on|d|den|am|le|il)\b)"
)
_PAIR = rf"({_LETTERS}(?: ?[/:.,] ?{_LETTERS}){{1,2}})"
_LABELLED = re.compile(
    rf"[ \t]*(?:by|par|por|pelo|pela|da|af|av|von|durch|door|przez|sekr\.?)?[ \t]*[:.=]?[ \t]*"
    rf"({_LETTERS}(?: ?/ ?{_LETTERS})?)(?![\w'@])(?!\.\w){_ENDS}",
    re.MULTILINE,
)
_ALONE = re.compile(
    rf"^[ \t]*(?:[DTdt]{{1,2}}:[^\n]{{0,60}}? |job[^\n]{{0,20}}? )?{_PAIR}(?![\w/]){_ENDS}", re.MULTILINE
)
_LAST = re.compile(rf"(?:^|[ \t])/{{1,2}} ?([a-z]{{2,3}}(?:/[a-z]{{2,3}})?)(?![\w/]){_ENDS}", re.MULTILINE)
_BEHIND = re.compile(
    rf"[ \t]{{2,}}(?:[dt]{{2}}:[^\n]{{0,24}}[ \t]+)*{_PAIR}[ \t]*$", re.MULTILINE | re.IGNORECASE
)
_END = re.compile(r"[.;)] ([A-Z]{2,3}[:/][A-Z]{2,3})\s*\Z")
_POINTED = re.compile(r"([A-Z]\. ?[A-Z]\.)[ \t]*$", re.MULTILINE)
_BY = re.compile(r"(?:[,;:/]| (?:par|by|von|da|door|av|af|przez)) ?$")
_LABELS = word_set("scribes.labels")
_STRICT = word_set("scribes.strict")
_SURE = frozenset({"transcribed", "typed", "typist", "transcriptionist", "scribe", "dictated", "initials"})
_DEGREES = frozenset({"md", "do", "rn", "np", "pa", "by", "in", "on", "at"})
_NO_INITIALS = word_set("company.no_initials") | word_set("company.teams")
_UNITS = word_set("suspects.units")
_LABEL_START = word_set("scribes.linking")


def scribe_spans(scan: Scan, layer: str) -> list[Span]:
    """Initials that their label or their line gives away."""
    found = [Span(*place, "STAFF", layer, "name.initials", 0.7) for place in _labelled(scan)]
    view = scan.view
    if not any(mark in view for mark in "/:."):
        return found
    late = len(view) * 2 // 3 if len(view) > 240 else 0
    begin = max(0, view.rfind("\n", 0, late))
    wide, slash = view.find("  ", begin) >= 0, view.find("/", begin) >= 0
    for pattern, possible in ((_ALONE, True), (_BEHIND, wide), (_LAST, slash), (_END, True)):
        first = begin if pattern is not _END else max(begin, len(view.rstrip()) - 12)
        for match in pattern.finditer(view, first) if possible else ():
            last = not view[match.end(1) :].strip()
            if _initials(match[1], pattern is _ALONE, last):
                found.append(Span(*match.span(1), "STAFF", layer, "name.typist", 0.6))
    for match in _POINTED.finditer(view, late):
        if _BY.search(view[max(0, match.start() - 8) : match.start()]):
            found.append(Span(*match.span(1), "STAFF", layer, "name.typist", 0.6))
    return found


def _labelled(scan: Scan) -> Iterator[tuple[int, int]]:
    for word in scan.note.places.keys() & (_LABELS | _STRICT):
        for number in scan.note.places[word]:
            match = _LABELLED.match(scan.view, scan.ends[number])
            if match is None or not match.group().strip(" .:=") or match.start(1) == scan.ends[number]:
                continue
            between = scan.view[scan.ends[number] : match.start(1)]
            if word in _STRICT and not (":" in between and match[1].isupper()):
                continue
            sure = word in _SURE and match[1].isupper() and match[1].lower() not in _DEGREES
            if sure or (match[1].lower() not in _LABEL_START and not _plain(match[1])):
                yield match.span(1)


def _plain(letters: str) -> bool:
    """Whether letters behind a label are a word: `typed and`, `dictated in`, `tech: MRI`."""
    flags, upper = default_lists().flags, letters.isupper()
    for part in re.split(r"[^a-z]+", letters.lower()):
        mark = flags(part)
        if part in _NO_INITIALS or part in cues().titles or part in terms() or (part in _UNITS and not upper):
            return True
        if mark & STOP or (mark & FOREIGN and len(part) > 2):
            return True
    return False


def _initials(written: str, alone: bool, last: bool) -> bool:
    """Whether a pair at a line's end can be two people: `JR/km`, but not `mg/dl`, `n/a`, `his/her`, `AP/PA`."""
    parts = [part for part in re.split(r"[ /:.,]+", written) if part]
    taken = [_taken(part.lower()) for part in parts]
    mixed = parts[0].isupper() and parts[-1].islower()
    if "," in written or ("." in written and not mixed):
        return False
    if len(parts) == 1:
        return not taken[0]
    if mixed:
        return alone or not taken[-1]
    return not all(taken) if last else not any(taken)


def _taken(part: str) -> bool:
    return (
        part in _NO_INITIALS or part in _UNITS or part in terms() or bool(default_lists().flags(part) & STOP)
    )
