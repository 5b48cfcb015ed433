"""The anatomical parts of a findings section: `LUNGS:`, `Liver -`, `BONES` alone on its line, `L4-5:`.

They lie inside a section and never end it; each carries the region of `lexicon/subheadings.txt`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from components.reports.headings import subheading_region

_INLINE = re.compile(
    r"(?:(?<=[\r\n])|^|(?<=[.;!?)\]] )|(?<=[.;!?)\]]  ))[ \t]*(?:[-*\u2022#]+ ?|\(?\d{1,2}[.)] ?)?"
    r"(?P<words>[^\W\d_][^\W\d_.:;!?]*(?:[ /&,-]{1,3}[^\W\d_]+){0,5}) ?[*_]{0,2} ?"
    r"(?P<stop>:[*_]{0,2}| [-\u2013\u2014] )"
)
_ALONE = re.compile(
    r"(?:(?<=[\r\n])|^)[ \t]*[*_#=]{0,4} ?(?P<words>[^\W\d_]+(?:[ /&,-]{1,3}[^\W\d_]+){0,5})"
    r"[ \t]*[*_=]{0,4}[ \t]*(?=[\r\n])"
)
_LEVEL = re.compile(
    r"(?:(?<=[\r\n])|^|(?<=[.;] ))[ \t]*[CTLS]\d{1,2}(?:[-/, ]{1,3}(?:[CTLS]?\d{1,2})){0,8}(?= ?:)"
)


@dataclass(frozen=True)
class Subsection:
    """A part of a section: its heading begins at `heading_start`, its body is `[start, end)`, untrimmed."""

    region: str
    heading_start: int
    start: int
    end: int


def subsections(text: str, start: int, end: int) -> list[Subsection]:
    """The anatomical parts of the section body `[start, end)`, in order; text before the first is in none."""
    body = text[start:end]
    marks: dict[int, tuple[int, str]] = {}
    for match in _INLINE.finditer(body) if ":" in body or " - " in body or "\u2013" in body else ():
        region = subheading_region(match["words"])
        if region and (":" in match["stop"] or match["words"].isupper()):
            marks[match.start("words")] = match.end(), region
    for match in _ALONE.finditer(body) if "\n" in body or "\r" in body else ():
        region = subheading_region(match["words"])
        if region and (match["words"][0].isupper()):
            marks.setdefault(match.start("words"), (match.end(), region))
    for match in _LEVEL.finditer(body) if ":" in body else ():
        marks.setdefault(match.end() - len(match.group().lstrip()), (match.end() + 1, "bones"))
    places = sorted(marks)
    found = []
    for number, place in enumerate(places):
        limit = places[number + 1] if number + 1 < len(places) else len(body)
        after, region = marks[place]
        found.append(Subsection(region, start + place, start + min(after, limit), start + limit))
    return found


def subsection_of(parts: Sequence[Subsection], start: int, end: int) -> Subsection | None:
    """The part of the sentence `[start, end)`: whose heading is in it (`2. LIVER: normal`), or that holds it."""
    place = bisect_left(parts, start, key=lambda part: part.heading_start)
    if place < len(parts) and parts[place].heading_start < end:
        return parts[place]
    return parts[place - 1] if place and start < parts[place - 1].end else None
