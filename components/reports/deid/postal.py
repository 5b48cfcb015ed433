"""Layer 2d, lines: a whole line that is an address, and the rest of a line of which an address was found.

`H.No 6-3-783, Somajiguda, Hyderabad 500082`: parts between commas, capitals, a postcode or a town at the end. What
stands on such a line beside a street found by `addresses.py` (a village, a landmark, a State in full) belongs to it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from components.reports.deid.note import Note
from components.reports.deid.span import Span
from components.reports.deid.wordlists import STOP, WORD, default_lists, towns
from components.reports.lexicon import terms, word_set, words

_POSTCODE = re.compile(
    r"[^\W\d_]{3,}(?: ?- ?|,? )(?:[A-Z]{1,2}-)?(?:\d{5,6}|\d{3} \d{2,3}|\d{5}-\d{3,4}|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|"
    r"[A-Z]\d[A-Z] \d[A-Z]\d|[A-Z]\d\d [A-Z0-9]{4})(?:,? [^\W\d_]{3,20})?$",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"^[ \t]*([^\W\d_][\w'-]{2,24}(?:[ -][^\W\d_][\w'-]{1,24}){0,3}), (?:(?:le|den|dne|il|li|em|el|a|am|the|on) )?"
    r"(?=\d{1,2}(?:st|nd|rd|th|er|\.)?[ ./-][^\n:,;]{1,18}\d\d$)",
    re.MULTILINE | re.IGNORECASE,
)
_BELOW = re.compile(
    r",?[ ]*\n[ ]*((?:[a-z]{1,2}-)?\d{2}(?:-\d{3}|\d{2,3})(?: ?[a-z]{2})? [^\W\d_][\w'.-]{1,24}"
    r"(?:[ -][^\W\d_][\w'.-]{1,24}){0,3}(?: ?\([a-z]{2}\))?|(?:[^\W\d_][\w'.-]{1,24},? ){1,4}"
    r"(?:[a-z]\d[a-z] \d[a-z]\d|[a-z]{1,2}\d[a-z\d]? \d[a-z]{2}|\d{5}(?:-\d{3,4})?|\d{2}-\d{3}|\d{3} ?\d{2,3})|"
    r"[a-z]{1,2}\d[a-z\d]? \d[a-z]{2})(?=[ ]*[\n,.;]|[ ]{2}|$)",
    re.IGNORECASE,
)
_CUT = re.compile(r"[:|]| {3,}|\t")
_SMALL = word_set("postal.small")
_WIDEST = 110


def postal_lines(text: Note) -> Iterator[tuple[int, int, str]]:
    """Lines that hold a postcode after a town and nothing but parts of an address."""
    if not text.with_digit:
        return
    view, done = text.view, -1
    for number in text.with_digit:
        if len(text.words[number]) < 3 or text.starts[number] < done:
            continue
        begin = view.rfind("\n", 0, text.starts[number]) + 1
        end = view.find("\n", text.starts[number])
        done = end = end if end >= 0 else len(view)
        if not 8 < end - begin < _WIDEST or "," not in view[begin:end] or _CUT.search(view, begin, end):
            continue
        line = view[begin:end].rstrip(" .")
        found = _POSTCODE.search(line)
        if found and _parts(text, begin, begin + len(line)):
            yield begin + len(line) - len(line.lstrip()), begin + len(line), "line"


def letter_towns(text: Note) -> Iterator[tuple[int, int, str]]:
    """The town before the date of a letter: `Saint-Herblain, le 3 aout 2004` on a line of its own."""
    if not text.with_digit:
        return
    flags = default_lists().flags
    for match in _LETTER.finditer(text.view):
        found = re.findall(r"[^\W\d_]+", match[1].lower())
        if not words("stop").isdisjoint(found):
            continue
        if any(
            word not in terms(text.languages) and (word in towns() or not flags(word) & (WORD | STOP))
            for word in found
        ):
            yield match.start(1), match.end(1), "town"


def rest_of_line(text: Note, span: Span) -> Span:
    """A street's span with what is left of its line, where that is made of parts of an address too."""
    view = text.view
    begin = view.rfind("\n", 0, span.start) + 1
    end = view.find("\n", span.end)
    end = end if end >= 0 else len(view)
    cell = max([begin, *(match.end() for match in _CUT.finditer(view, begin, span.start))])
    cut = _CUT.search(view, span.end, end)
    if cut:
        end = cut.start() if cut.group()[0] not in ":" else end
    before, after = view[cell : span.start], view[span.end : end].rstrip(" .,;")
    if (not before.strip() and not after) or end - cell > _WIDEST or ":" in view[span.end : end]:
        return span
    whole = _parts(text, cell, span.end + len(after)) and not re.search(r"(?:[^\W\d_]{4,}|\d)\. |^\. ", after)
    if not whole or (before.strip() and not before.rstrip().endswith(",")):
        return span
    return span._replace(start=cell + len(before) - len(before.lstrip()), end=span.end + len(after))


def line_below(view: str, span: Span) -> tuple[int, int] | None:
    """The line under a street that holds its postcode and town: `10271 SAN JARANDO (CC)`, `Gull Island NL A0B 2N6`."""
    match = _BELOW.match(view, span.end)
    return match.span(1) if match else None


def _parts(text: Note, begin: int, end: int) -> bool:
    """Whether every word of a piece may be of an address: a capital, a number, a short word between names."""
    first, last = bisect_left(text.starts, begin), bisect_left(text.starts, end)
    flags, lower = default_lists().flags, text.view[:2000].islower()
    proper = terms = 0
    for number in range(first, last):
        word, written = text.words[number], text.token(number)
        if any(map(str.isdigit, word)) or word in _SMALL or len(word) < 3:
            continue
        if word in words("radiology_words") and word not in towns():
            terms += 1 if written[0].isupper() and not written.isupper() else 2
        mark = flags(word)
        if mark & STOP or (written[0].islower() and (not lower or (mark & WORD and word not in towns()))):
            return False
        proper += not mark & WORD or word in towns() or (written[0].isupper() and not written.isupper())
    return proper > 0 and terms < 2
