"""Layer 2a: dates in every form, partial dates and, on request, times of day."""

from __future__ import annotations

import re
from typing import NamedTuple

from components.reports.deid.note import Note, fold
from components.reports.deid.span import Span, StudyContext

_NAMES = (
    "january jan januar enero janvier ocak|february feb februar febrero fevrier subat|"
    "march mar marz marzo mars mart|"
    "april apr abril avril nisan|may mai mayo mayis|june jun juni junio juin haziran|"
    "july jul juli julio juillet temmuz|"
    "august aug agosto aout agustos|september sep sept septiembre septembre eylul|"
    "october oct oktober octubre octobre okt ekim|"
    "november nov noviembre novembre kasim|december dec dezember diciembre decembre dez dic aralik"
)
MONTHS = {name: number for number, names in enumerate(_NAMES.split("|"), 1) for name in names.split()}
_WORDLIKE = frozenset({"may", "mar", "march", "mai", "mars", "mart", "jan", "dic", "dez"})
_MONTH = "(?:" + "|".join(sorted(MONTHS, key=lambda name: (-len(name), name))) + r")(?![^\W\d_])"
_YEAR = r"(?:(?:19|20)\d\d(?!\d)|'\d\d(?!\d))"
_SHORT_YEAR = r"(?:(?:19|20)\d\d(?!\d)|'?\d\d(?!\d))"
_CLOCK = r"(?:[T ]{1,2}\d{1,2}:\d\d(?::\d\d(?:\.\d{1,6})?)?Z?)"
_I = re.IGNORECASE

_ISO = re.compile(
    r"((?:19|"
    r"20)\d\d) ?([-/.]) ?(\d{1,2}) ?\2 ?(\d{1,2})(?!\d)(?:T\d\d:?\d\d(?::?\d\d)?(?:\.\d{1,6})?Z?)?"
)
_NUMERIC = re.compile(r"(\d{1,2}) ?([-/.]) ?(\d{1,2}) ?\2 ?((?:19|20)\d\d|'?\d\d)(?![\d%])(?!\.\d)")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)(?:[T_ -]?\d{4,6})?(?!\d)")
_DAY_MONTH = re.compile(
    rf"(\d{{1,2}})(?:st|nd|rd|th)?[ \-./,]{{0,3}}(?:of |de )?({_MONTH})\.?(?:(?:[ ,]{{0,3}}(?:of |"
    rf"de )?{_YEAR})|[\-./]{_SHORT_YEAR}|(?: ?\d{{4}}))?",
    _I,
)
_MONTH_DAY = re.compile(
    rf"({_MONTH})\.?[ \-./,]{{0,3}}(?:(?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?![\d:]|"
    rf"\.\d)(?:[ ,]{{1,3}}(?:of )?{_YEAR}|[\-./]{{1,2}}{_SHORT_YEAR})?|(?:of )?{_YEAR})",
    _I,
)
_MONTH_YEAR_SHORT = re.compile(rf"({_MONTH})[-/]\d\d(?!\d)", _I)
_YEAR_MONTH = re.compile(rf"(?:19|20)\d\d[ \-/]({_MONTH})[ \-/]\d{{1,2}}(?!\d)", _I)
_MONTH_YEAR = re.compile(r"(\d{1,2})[/-]((?:19|20)\d\d)(?!\d)")
_ISO_MONTH = re.compile(r"((?:19|20)\d\d)-(\d\d)(?![\d-])")
_PARTIAL = re.compile(
    r"(\d{1,2})/(\d{1,2})(?![\d/]|\.\d)(?! ?(?:mm|cm|images?|series|slices?|ribs?|%|strength)\b)", _I
)
_TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]\.?m\b\.?)?(?: ?hours| ?hrs?)?", _I)
_CUES_YEAR = frozenset(
    {
        "in",
        "since",
        "dated",
        "year",
        "circa",
        "summer",
        "winter",
        "spring",
        "fall",
        "autumn",
        "early",
        "late",
        "mid",
    }
)
_CUES_PARTIAL = frozenset(
    {
        "in",
        "on",
        "since",
        "dated",
        "date",
        "until",
        "till",
        "through",
        "from",
        "ct",
        "mri",
        "study",
        "exam",
        "scan",
        "examination",
        "film",
        "pet",
        "cxr",
        "of",
    }
)
_CUES_DAY = frozenset({"on", "dated", "date", "since", "until", "till", "through"})


_MONTH_WORDS = frozenset(MONTHS)


class Day(NamedTuple):
    """A calendar day as read from a text."""

    year: int
    month: int
    day: int


def _valid(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31


def parse_day(value: str) -> Day | None:
    """The day of a date written in a common form (month before day where both are possible), or None."""
    text = fold(value).strip()
    match = _ISO.match(text) or _COMPACT.match(text)
    if match:
        numbers = [int(group) for group in match.groups() if group and group.isdigit()]
        return Day(*numbers[:3]) if _valid(numbers[1], numbers[2]) else None
    if match := _NUMERIC.match(text):
        first, second, year = int(match[1]), int(match[3]), int(match[4].lstrip("'"))
        year += 0 if year > 99 else (2000 if year < 50 else 1900)
        month, day = (first, second) if first <= 12 else (second, first)
        return Day(year, month, day) if _valid(month, day) else None
    years = re.findall(r"(?:19|20)\d\d", text)
    if years and (match := _DAY_MONTH.match(text)):
        return Day(int(years[0]), MONTHS[match[2].lower()], int(match[1]))
    if years and (match := _MONTH_DAY.match(text)) and match[2]:
        return Day(int(years[0]), MONTHS[match[1].lower()], int(match[2]))
    return None


class Dates:
    """Finds dates by rules; a lone year is left, unless a cue makes it the date of something."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of dates (and of times where the study asks for them)."""
        spans: list[Span] = []
        done = 0
        words, starts = text.words, text.starts
        for number in text.select(_MONTH_WORDS):
            word, start = words[number], starts[number]
            if start < done:
                continue
            found = None
            if word[0].isdigit():
                found = self._numeric(text, number, study)
            elif word in MONTHS:
                found = self._named(text, number)
            if found:
                begin, end, rule, score = found
                kind = "TIME" if rule == "time" else "DATE"
                spans.append(
                    Span(begin, end, kind, self.name, f"date.{rule}" if kind == "DATE" else rule, score)
                )
                done = end
        return spans

    def _named(self, text: Note, number: int) -> tuple[int, int, str, float] | None:
        start = text.starts[number]
        match = _MONTH_DAY.match(text.view, start) or _MONTH_YEAR_SHORT.match(text.view, start)
        if not match:
            return None
        written = match.group(1)
        has_year = len(re.findall(r"\d", match.group())) > 2
        if not has_year and written.lower() in _WORDLIKE and not written[0].isupper():
            return None
        if not has_year and match.lastindex == 2 and match[2] and int(match[2]) > 31:
            return None
        return start, match.end(), "month_first", 1.0 if has_year else 0.8

    def _numeric(self, text: Note, number: int, study: StudyContext) -> tuple[int, int, str, float] | None:
        view, start = text.view, text.starts[number]
        before = view[start - 1] if start else " "
        if before == "'" and text.ends[number] - start == 2 and (start < 2 or not view[start - 2].isalnum()):
            return start - 1, text.ends[number], "short_year", 0.8
        if before in "./-" and start > 1 and view[start - 2].isdigit():
            return None
        if match := _ISO.match(view, start):
            return (start, match.end(), "iso", 1.0) if _valid(int(match[3]), int(match[4])) else None
        if match := _NUMERIC.match(view, start):
            first, second = int(match[1]), int(match[3])
            if _valid(first, second) or _valid(second, first):
                return start, match.end(), "numeric", 1.0
            return None
        if (match := _COMPACT.match(view, start)) and _valid(int(match[2]), int(match[3])):
            return start, match.end(), "compact", 0.9
        if match := _DAY_MONTH.match(view, start):
            named = match[2]
            bare = not re.search(r"\d", view[match.end(2) : match.end()])
            if 1 <= int(match[1]) <= 31 and not (
                bare and named.lower() in _WORDLIKE and not named[0].isupper()
            ):
                return start, match.end(), "day_first", 0.8 if bare else 1.0
        if match := _YEAR_MONTH.match(view, start):
            return start, match.end(), "year_first", 1.0
        return self._partial(text, number, before, study)

    def _partial(
        self, text: Note, number: int, before: str, study: StudyContext
    ) -> tuple[int, int, str, float] | None:
        view, start, word = text.view, text.starts[number], text.words[number]
        cue = text.words[number - 1] if number and "\n" not in text.gap(number - 1) else ""
        if (match := _MONTH_YEAR.match(view, start)) and 1 <= int(match[1]) <= 12:
            return start, match.end(), "month_year", 0.9
        if (match := _ISO_MONTH.match(view, start)) and 1 <= int(match[2]) <= 12:
            return start, match.end(), "month_year", 0.9
        if before in " (\n" and (match := _PARTIAL.match(view, start)):
            first, second = int(match[1]), int(match[2])
            is_day = cue in _CUES_DAY and (_valid(first, second) or _valid(second, first))
            is_month = cue in _CUES_PARTIAL and 1 <= first <= 12 and len(match[2]) == 2
            if is_day or is_month:
                return start, match.end(), "partial", 0.7
        if len(word) == 4 and word[:2] in ("19", "20") and word.isdigit() and cue in _CUES_YEAR:
            return start, text.ends[number], "year", 0.6
        if (
            study.tag_times
            and (match := _TIME.match(view, start))
            and int(view[start : view.index(":", start)]) < 25
        ):
            return start, match.end(), "time", 0.8
        return None
