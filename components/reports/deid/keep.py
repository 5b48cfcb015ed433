"""The lexicon that protects: eponyms, RADS, vertebral levels, measurements, series and image numbers, doses.

A protected interval wins over every detector that reasons from form or context; it does not win over a
label (`MRN: ...`) or over a full known value. A tag that is already in the text is always kept whole.
"""

from __future__ import annotations

import re
from functools import cache

from components.reports.deid.note import Note
from components.reports.deid.span import Span
from components.reports.lexicon import entries, mapping

TAG = re.compile(r"\[[A-Z][A-Z_]{1,19}\]")
MASKED = re.compile("█+")  # what the action `mask` leaves
_NUMBER = r"\d{1,6}(?:[.,]\d{1,4})?"
_UNITS = (
    r"mm|cm|m|ml|mL|cc|dl|l|mg|g|kg|mcg|µg|lbs?|hu|HU|hounsfield|mgy|mGy|mgy-cm|mGy-cm|mGy\*cm|"
    r"msv|mSv|gy|Gy|mci|mCi|mbq|MBq|kvp?|kVp?|mas?|mAs?|bpm|mmhg|mmHg|iu|units?|"
    r"seconds?|secs?|s|ms|msec|hz|khz|mhz|degrees?|%|percent|gauge|french|fr|Fr|weeks?|wks?|"
    r"months?|days?|hours?|mins?|minutes?|slices?|images?|sections?|views?|rows?|detectors?|"
    r"channels?"
)
_MEASURE = re.compile(
    rf"(?<![\w./-]){_NUMBER}(?: ?(?:x|×|by|X|\*) ?{_NUMBER}(?: ?(?:mm|cm))?){{0,3}}(?: ?(?:-|"
    rf"to) ?{_NUMBER})?[ -]?(?:{_UNITS})(?:/(?:s|sec|min|h|kg|ml|mL|dl|dL|m2))?(?![\w-])"
)
_GRID = re.compile(rf"(?<![\w.]){_NUMBER} ?[x×X] ?{_NUMBER}(?: ?[x×X] ?{_NUMBER})?(?!\w)")
_PLACE = re.compile(
    r"\b(?:series|image|images|img|im|se|slice|slices|sequence|frame|station|page|phase|axial|"
    r"coronal|sagittal)s?\.?,? ?(?:number|no\.?|nos\.?|#|:)? ?\d{1,5}(?:(?:[/:,&-]| and | to |"
    r" through | of |, ?(?:image|im|slice|series) ?#?)? ?\d{1,5}){0,4}(?![\w/])",
    re.IGNORECASE,
)
_LEVEL = re.compile(
    r"(?<![\w-])[CTLSctls](?:1[0-2]|[1-9])(?:(?: ?[-/–] ?| through | to |"
    r" and )[CTLSctls]?(?:1[0-2]|[1-9]))?(?!\w)(?! ?(?:cm|mm))"
)
_RADS = re.compile(
    r"\b[A-Za-z]{1,5}[- ]?RADS(?:[ :]{0,2}(?:category|score|assessment|v\.?\d{4}|"
    r"version)? ?\d{1,4}[A-Za-z]?(?:\.\d)?)?",
    re.IGNORECASE,
)
_STAGE = re.compile(
    r"\b(?:[cpy]{0,2}T[0-4][a-d]?N[0-3][a-c]?M[01X][a-c]?|(?:stage|grade|type|segment|level|zone|"
    r"station|category|class|Bosniak|Fazekas|Modic|ASPECTS|Gleason|Agatston|score of|"
    r"phase) (?:[IVX]{1,5}[A-C]?|\d{1,2}[A-Ra-r]?)(?:[-/] ?(?:[IVX]{1,5}|\d{1,2}))?)(?!\w)"
)


@cache
def _eponyms() -> dict[str, tuple[str, ...]]:
    return mapping("eponyms")


@cache
def _terms() -> re.Pattern[str]:
    ordered = sorted(entries("keep_terms"), key=lambda term: (-len(term), term))
    return re.compile(
        r"(?<![\w-])(?:" + "|".join(map(re.escape, ordered)) + r")(?:-\d{2,3})?(?!\w)", re.IGNORECASE
    )


def _eponym_spans(text: Note) -> list[tuple[int, int]]:
    table, found = _eponyms(), []
    total = len(text.words)
    for number, word in enumerate(text.words):
        followers = table.get(word)
        if followers is None:
            continue
        start, last = text.starts[number], number
        possessive = number + 1 < total and text.words[number + 1] == "s" and text.gap(number) == "'"
        after = number + (2 if possessive else 1)
        if followers == ("*",):
            found.append((start, text.ends[number]))
            continue
        if (
            after < total
            and "\n\n" not in text.gap(after - 1)
            and len(text.gap(after - 1)) <= 2
            and "." not in text.gap(after - 1)
        ):
            follower = text.words[after]
            options = {option.removeprefix("'s ").split()[0].split("-")[0] for option in followers}
            if follower in options:
                last = after
        if last > number:
            found.append((start, text.ends[last]))
    return found


def protected(text: Note) -> list[tuple[int, int]]:
    """Intervals of the view that are terms of radiology."""
    view = text.view
    found = _eponym_spans(text)
    patterns = [_MEASURE, _PLACE, _LEVEL, _STAGE, _terms()]
    if "ads" in view or "ADS" in view:
        patterns.append(_RADS)
    if "x" in view or "X" in view:
        patterns.append(_GRID)
    for pattern in patterns:
        found += [match.span() for match in pattern.finditer(view)]
    return sorted(found)


_OVERRIDES = (
    "id.",
    "date.known",
    "name.full",
    "value.",
    "name.title",
    "name.label",
    "name.by",
    "phone.labelled",
    "email",
    "url",
)


def _yields(span: Span) -> bool:
    """Whether a span gives way to the lexicon: what rests on a label or a full known value does not."""
    if span.rule in ("id.mixed", "id.digits", "id.dashed", "id.accession"):
        return True
    return not span.rule.startswith(_OVERRIDES)


def split_protected(text: Note, spans: list[Span]) -> tuple[list[Span], list[Span]]:
    """Spans that stay, and spans that the lexicon overrules (for review); tags in the text are cut out."""
    kept, dropped = [], []
    intervals = protected(text) if any(map(_yields, spans)) else []
    tags = [match.span() for match in TAG.finditer(text.view)] if "[" in text.view else []
    if "█" in text.view:
        tags = sorted([*tags, *(match.span() for match in MASKED.finditer(text.view))])
    for span in sorted(spans):
        if _yields(span) and _inside(intervals, span):
            dropped.append(span)
            continue
        kept += _without(span, tags)
    return kept, dropped


def _inside(intervals: list[tuple[int, int]], span: Span) -> bool:
    from bisect import bisect_right

    place = bisect_right(intervals, (span.start, 1 << 62)) - 1
    for start, end in reversed(intervals[max(0, place - 4) : place + 1]):
        if start <= span.start and span.end <= end:
            return True
    return False


def _without(span: Span, tags: list[tuple[int, int]]) -> list[Span]:
    """The pieces of a span outside the tags."""
    pieces, start = [], span.start
    for begin, end in tags:
        if end <= start or begin >= span.end:
            continue
        if begin > start:
            pieces.append((start, begin))
        start = max(start, end)
    if start < span.end:
        pieces.append((start, span.end))
    return [Span(a, b, span.kind, span.layer, span.rule, span.score) for a, b in pieces]
