"""Layer 2g: codes by their shape alone, and log-ins: letters and digits joined by points, hyphens and slashes.

What stands without any blank around a digit is one code. Its shape decides: which parts are letters, which digits, how
many of them. Dates, measures, ratios, TNM, levels and isotopes have other shapes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.reports.deid.dates import parse_day
from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import terms, word_set

_JOINTS = ".-/"
_LETTERED = re.compile(
    r"(?:[A-Za-z]{2,5}[./-]){1,2}(?:[A-Za-z]{1,3})?\d{2,9}(?:[./-]\w{1,9}){0,4}$|\d{2,9}(?:/\d+)*/[A-Z]{2,}.*$"
)
_TRAILED = re.compile(r"[A-Za-z]?\d{5,9}[-/](?:\d{1,3}|[A-Za-z])$|\d{1,4}[-/]\d{5,9}(?:[-/]\d{1,3})?$")
_THOUSANDS = re.compile(r"\d{1,3}(?:\.\d{3}){2,3}(?:-[\dkK])?$")
_MANY = re.compile(r"\d{1,7}(?:[./-]\d{1,7}){2,5}$")
_BRIEF = re.compile(r"([A-Za-z]{2,4})[-/](?!(?:19|20)\d\d)\d{4}(?:[A-Za-z]|[-/]\w{1,3})?$")
_FILED = re.compile(r"(?!19|20)\d{3}[1-9]/\d\d$")  # `5873/27`; round numbers are times of a sequence (TR/TE)
_PAIRS = re.compile(r"\d\d-\d\d-\d\d$")
_HOURS = re.compile(r"(?:[01]?\d|2[0-3])\.[0-5]\d-(?:[01]?\d|2[0-3])\.[0-5]\d$")
_GASES = re.compile(r"[67]\.\d{1,2}/")  # pH/pCO2/pO2
_NHI = re.compile(r"[A-Z]{3}\d\d[A-Z]{2}$", re.IGNORECASE)
_WOVEN = re.compile(r"[A-Za-z]{1,3}\d{1,4}[A-Za-z]{1,2}\d{3,6}$")
_LOGIN = re.compile(r"(?: ?(?:name|id))?(?: for [a-z]+)?(?: is| was)? ?[:=]? ?([A-Za-z][\w.]{2,20})(?![\w@])")
_LOGINS = word_set("shapes.logins")
_WITHIN = re.compile(r"[^\n;|]{0,20}?(?<![\w-])([A-Za-z]{3,12}\d{1,4})(?![\w-])")
_PLACED = re.compile(r"[ .:=#'-]{1,4}([A-Za-z]{2,12}(?:-?[A-Za-z\d]{1,10}){0,3}-?\d{1,3})(?![\w-])")
_STATIONS = word_set("shapes.stations")
_TRAIL = re.compile(
    r"\d\d:\d\d(?::\d\d)?[ |]{1,12}(?:([A-Za-z]{3,12}\d{0,3})(?:[ ]{2,10}|[ ]?[@|][ ]?)"
    r"([A-Za-z][A-Za-z\d]{1,12}(?:-[A-Za-z\d]{1,8}){0,2}-?\d{1,3})(?![\w-])|([A-Za-z]{4,12}\d{1,3})(?![\w.]))"
)
_UNITS = word_set("suspects.units") | word_set("shapes.units")
_MEASURED = word_set("codes.measured")


class Shapes:
    """Finds codes that nothing but their shape gives away, and the names that people log in by."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of codes."""
        spans = [
            Span(start, end, "ID", self.name, "id.shape", 0.75)
            for start, end, first, last in _wholes(text)
            if _is_code(text.view[start:end]) and not _measured(text, first, last)
        ]
        spans += [Span(*place, "ID", self.name, "id.login", 0.75) for place in _of_machines(text)]
        for word in text.places.keys() & _LOGINS:
            for number in text.places[word]:
                match = _LOGIN.match(text.view, text.ends[number])
                if (
                    match
                    and match.start(1) > text.ends[number]
                    and any(char in "._0123456789" for char in match[1].rstrip("."))
                ):
                    spans.append(Span(*match.span(1), "ID", self.name, "id.login", 0.75))
        return spans


def _of_machines(text: Note) -> Iterator[tuple[int, int]]:
    """Log-ins and workstations: beside their words, and in the lines of an audit trail (time, log-in, station)."""
    if not text.with_digit:
        return
    for word in text.places.keys() & (_LOGINS | _STATIONS):
        pattern = _WITHIN if word in _LOGINS else _PLACED
        for number in text.places[word]:
            match = pattern.match(text.view, text.ends[number])
            if match and not _known(match[1]):
                yield match.span(1)
    if ":" in text.view:
        for match in _TRAIL.finditer(text.view):
            if match[2]:
                yield match.span(1)
                yield match.span(2)
            elif not _known(match[3]):
                yield match.span(3)


def _known(written: str) -> bool:
    """Whether letters before digits are a term or a unit: `gcs15`, `fdg18`."""
    letters = written.lower().rstrip("0123456789-")
    return letters in terms() or letters in _UNITS


def _wholes(text: Note) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, first token, last token) of everything joined without a blank that holds a digit."""
    done = -1
    for number in text.with_digit:
        if number <= done:
            continue
        first = last = number
        while first and text.gap(first - 1) in _JOINTS and text.gap(first - 1):
            first -= 1
        while last + 1 < len(text.words) and text.gap(last) in _JOINTS and text.gap(last):
            last += 1
        done = last
        if text.ends[last] - text.starts[first] < 40:
            yield text.starts[first], text.ends[last], first, last


def _is_code(written: str) -> bool:
    digits = sum(map(str.isdigit, written))
    if _NHI.match(written):
        return True
    if _PAIRS.match(written):
        return parse_day(written) is None
    if _GASES.match(written) or _HOURS.match(written):
        return False
    if brief := _BRIEF.match(written):
        return brief[1].lower() not in terms() and brief[1].lower() not in _UNITS
    if _FILED.match(written):
        return True
    if digits < 5 or parse_day(written) is not None:
        return bool(digits == 4 and len(written) > 6 and _WOVEN.match(written))
    if _LETTERED.match(written):
        return not any(part.lower().lstrip("0123456789") in _UNITS for part in re.split(r"[./-]", written))
    if _TRAILED.match(written) or _THOUSANDS.match(written):
        return digits > 5
    groups = [len(part) for part in re.split(r"[./-]", written)]
    many = _MANY.match(written) and digits > 7 and (len(groups) > 3 or max(groups) > 4)
    return bool(many or _WOVEN.match(written))


def _measured(text: Note, first: int, last: int) -> bool:
    """Whether a number is measured: a unit behind it, or the word of a measurement before it."""
    after = text.words[last + 1] if last + 1 < len(text.words) and text.gap(last) in (" ", "") else ""
    before = text.words[first - 1] if first and "\n" not in text.gap(first - 1) else ""
    glued = text.view[text.starts[first] - 1 : text.starts[first]] if text.starts[first] else ""
    return after in _UNITS or before in _MEASURED or before == "bp" or glued in ("@", "_", ":", "+")
