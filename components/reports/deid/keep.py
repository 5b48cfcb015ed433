"""The lexicon that protects: eponyms, RADS, vertebral levels, measurements, series and image numbers, doses.

A protected interval wins over every detector that reasons from form or context; it does not win over a
label (`MRN: ...`) or over a full known value. A tag that is already in the text is always kept whole.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence, Set
from functools import cache

from components.reports.deid.note import Note
from components.reports.deid.span import Span
from components.reports.deid.wordlists import EPONYM, GIVEN, NAME, STOP, WORD, default_lists
from components.reports.lexicon import entries, mapping, word_set

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
    r"\b(?:series|image|images|img(?!\d{5})|im(?!\d{5})|se|slice|slices|sequence|frame|station|page|phase|axial|"
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
_STANDARD = re.compile(  # codes of DICOM and LOINC: the same in every hospital
    r"\(\d{4,6}, ?DCM\b|(?<![\d.])1\.2\.840\.10008(?:\.\d{1,10})+|(?<!\w)\d{4,5}-\d\^[^|^\n]{2,40}\^LN\b",
    re.IGNORECASE,
)
_STAGE = re.compile(
    r"\b(?:[cpy]{0,2}T[0-4][a-d]?N[0-3][a-c]?M[01X][a-c]?|(?:stage|grade|type|segment|level|zone|"
    r"station|category|class|Bosniak|Fazekas|Modic|ASPECTS|Gleason|Agatston|score of|"
    r"phase) (?:[IVX]{1,5}[A-C]?|\d{1,2}[A-Ra-r]?)(?:[-/] ?(?:[IVX]{1,5}|\d{1,2}))?)(?!\w)"
)


_AGENT = re.compile(
    r"\b[A-Za-z][a-z]{4,}(?:-[A-Za-z]{3,})? ?-?(?:\d{3}|\d{1,4}(?:\.\d)? ?(?:mg|mcg|ml|mL|mCi|units?))(?!\w)"
)


@cache
def _eponyms() -> dict[str, tuple[str, ...]]:
    return mapping("eponyms")


@cache
def _nouns() -> tuple[frozenset[str], frozenset[str]]:
    """Nouns of eponyms that follow the name, and those before `of`."""
    table = mapping("eponym_nouns")
    return frozenset(table["after"]), frozenset(table["before"])


@cache
def _term_starts() -> frozenset[str]:
    """The first words of the terms."""
    return frozenset(re.findall(r"[^\W_]+", term.lower())[0] for term in entries("keep_terms"))


@cache
def _terms() -> re.Pattern[str]:
    ordered = sorted(entries("keep_terms"), key=lambda term: (-len(term), term))
    return re.compile(
        r"(?<![\w-])(?:" + "|".join(map(re.escape, ordered)) + r")(?:-\d{2,3})?(?!\w)", re.IGNORECASE
    )


def _eponym_spans(text: Note) -> list[tuple[int, int]]:
    """Names that what stands around them makes eponyms or products: listed ones, and any before or after a noun."""
    table, found = _eponyms(), []
    nouns, before = _nouns()
    flags = default_lists().flags
    total, words, places = len(text.words), text.words, text.places
    chosen = sorted(number for word in places.keys() & _starters() for number in places[word])
    for number in chosen:
        word = words[number]
        followers = table.get(word)
        if followers is not None:
            found += _listed_eponym(text, number, followers)
        if (word in nouns or word in ("iii", "iv", "ii")) and number:
            first = _names_before(text, number)
            if first < number:
                found.append((text.starts[first], text.ends[number]))
        if word in before and number + 2 < total and words[number + 1] in ("of", "di", "de", "von"):
            at = number + 2
            if text.gap(number + 1) == " " and not flags(words[at]) & STOP:
                last = at
                while last + 1 < total and text.gap(last) == "-" and last - at < 3:
                    last += 1
                found.append((text.starts[number], text.ends[last]))
    return found


@cache
def _starters() -> frozenset[str]:
    nouns, before = _nouns()
    return frozenset(_eponyms()) | nouns | before | {"ii", "iii", "iv"}


def _listed_eponym(text: Note, number: int, followers: tuple[str, ...]) -> list[tuple[int, int]]:
    total, start, last = len(text.words), text.starts[number], number
    if followers == ("*",):
        return [(start, text.ends[number])]
    possessive = number + 1 < total and text.words[number + 1] == "s" and text.gap(number) == "'"
    after = number + (2 if possessive else 1)
    if (
        after < total
        and "\n\n" not in text.gap(after - 1)
        and len(text.gap(after - 1)) <= 2
        and "." not in text.gap(after - 1)
    ):
        options = {option.removeprefix("'s ").split()[0].split("-")[0] for option in followers}
        last = after if text.words[after] in options else number
    return [(start, text.ends[last])] if last > number else []


_SMALL = word_set("keep.small")


def _names_before(text: Note, noun: int) -> int:
    """The first of the words before a noun that its eponym may consist of: `Osler-Weber-Rendu`, `Hunt and Hess`."""
    flags = default_lists().flags
    place, first, names = noun - 1, noun, 0
    while place >= 0 and noun - place <= 7:
        word, gap = text.words[place], text.gap(place)
        if gap not in (" ", "-", "'", "' ", "  "):
            break
        if word in _SMALL or (word.isdigit() and len(word) < 3):
            place -= 1
            continue
        mark = flags(word)
        if not word.isalpha() or mark & STOP or (mark & WORD and not mark & (NAME | EPONYM)):
            break
        near = gap in ("-", "'") or text.words[place + 1] in _SMALL
        if names and not near and not (names == 1 and mark & GIVEN and flags(text.words[noun]) & WORD):
            break
        first, names, place = place, names + 1, place - 1
    return first


def _product_spans(text: Note) -> list[tuple[int, int]]:
    """Models after a maker's name (`GE Revolution Apex`): capitals and numbers up to the next plain word."""
    found, vendors = [], frozenset(mapping("eponym_nouns")["vendors"])
    flags, number, total = default_lists().flags, 0, len(text.words)
    if vendors.isdisjoint(text.places):
        return []
    while number < total:
        if text.words[number] not in vendors:
            number += 1
            continue
        last, place = number, number + 1
        while place < total and place - number <= 5 and text.gap(place - 1) in (" ", "-", ".", "_"):
            written = text.token(place)
            if not (
                written[0].isupper()
                or written[0].isdigit()
                or text.words[place] in vendors
                or written[-1].isupper()
                or (written.isalpha() and not flags(text.words[place]) & (WORD | STOP))
            ):
                break
            if flags(text.words[place]) & STOP or (written.isdigit() and len(written) > 4):
                break
            last, place = place, place + 1
        found.append((text.starts[number], text.ends[last]))
        number = last + 1
    return found


def protected(text: Note, near: Sequence[Span] | None = None) -> list[tuple[int, int]]:
    """Intervals of the view that are terms of radiology; those about the spans `near` only, where given."""
    view = text.view
    found = _eponym_spans(text) + _product_spans(text)
    rads = "rads" in text.lower
    patterns = [_AGENT, _PLACE, _STAGE, _RADS] if rads else [_AGENT, _PLACE, _STAGE]
    if "10008" in text.lower or "dcm" in text.places or "ln" in text.places:
        patterns.append(_STANDARD)
    for start, end in [(0, len(view))] if near is None else _windows(near, len(view)):
        for pattern in patterns:
            found += [match.span() for match in pattern.finditer(view, start, end)]
        first, last = bisect_left(text.starts, start), bisect_left(text.starts, end)
        digits = text.with_digit
        for pattern in (_MEASURE, _LEVEL, _GRID):
            found += _at_tokens(
                text, digits[bisect_left(digits, first) : bisect_left(digits, last)], pattern, end
            )
        found += _at_tokens(text, range(first, last), _terms(), end, _term_starts())
    return sorted(found)


def _at_tokens(
    text: Note, numbers: Sequence[int], pattern: re.Pattern[str], end: int, words: Set[str] | None = None
) -> list[tuple[int, int]]:
    """Matches of a pattern that can begin at these tokens only (of `words`, where given), none within another."""
    found: list[tuple[int, int]] = []
    done = 0
    for number in numbers:
        start = text.starts[number]
        if start < done or (words is not None and text.words[number] not in words):
            continue
        if match := pattern.match(text.view, start, end):
            found.append(match.span())
            done = match.end()
    return found


def _windows(spans: Sequence[Span], length: int) -> list[tuple[int, int]]:
    """The text within 60 characters of each span, joined where they meet."""
    found: list[tuple[int, int]] = []
    for span in sorted(spans):
        start, end = max(0, span.start - 60), min(length, span.end + 60)
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


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
    "place.",
    "address.street",
    "address.city",
)


_BY_FORM = frozenset(
    (
        "id.mixed",
        "id.marked",
        "id.digits",
        "id.dashed",
        "id.accession",
        "id.beside",
        "id.field",
        "id.groups",
        "id.slashed",
        "id.prefixed",
        "id.shape",
    )
)


def _yields(span: Span) -> bool:
    """Whether a span gives way to the lexicon: what rests on a label or a full known value does not."""
    if span.rule in _BY_FORM:
        return True
    return not span.rule.startswith(_OVERRIDES)


def split_protected(text: Note, spans: list[Span]) -> tuple[list[Span], list[Span]]:
    """Spans that stay, and spans that the lexicon overrules (for review); tags in the text are cut out."""
    kept, dropped = [], []
    yielding = [span for span in spans if _yields(span)]
    intervals = protected(text, yielding) if yielding else []
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
