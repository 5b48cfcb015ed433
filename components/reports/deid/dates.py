"""Layer 2a: dates in every form, partial dates and, on request, times of day."""

from __future__ import annotations

import re
from typing import NamedTuple

from components.reports.deid.note import Note, fold
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import mapping, word_set


def _months() -> dict[str, int]:
    found: dict[str, int] = {}
    for number in range(1, 13):
        for name in mapping("months")[str(number)]:
            found.setdefault(name, number)
    return found


MONTHS = _months()
_WORDLIKE = frozenset(mapping("months")["wordlike"])
_ENGLISH = frozenset(mapping("months")["english"])
_ONLY_MONTHS = frozenset({"mei", "mai", "maj", "mars", "mart", "marts", "juin", "juni", "juli"})
_OTHERWISE = frozenset(
    {"aralik", "marca", "marco", "nisan", "kasim", "leden", "listopad"}
)  # words or names as well
_MONTH = "(?:" + "|".join(sorted(MONTHS, key=lambda name: (-len(name), name))) + r")(?![^\W\d_])"
_YEAR = r"(?:(?:19|20)\d\d(?!\d)|'\d\d(?!\d))"
_SHORT_YEAR = r"(?:(?:19|20)\d\d(?!\d)|'?\d\d(?!\d))"
_LINK = r"(?:of |de |del |d')?"
_NOT_UNIT = r"(?!\d|[.,:/%-]\d| ?(?:mm|cm|ml|mg|hu|y|h|%|x|years?|hours?|minutes?|images?|slices?)\b)"
_I = re.IGNORECASE

_ISO = re.compile(
    r"((?:19|20)\d\d) ?([-/.]) ?(\d{1,2}) ?\2 ?(\d{1,2})(?!\d)(?:T\d\d:?\d\d(?::?\d\d)?(?:\.\d{1,6})?Z?)?", _I
)
_NUMERIC = re.compile(r"(\d{1,2}) ?([-/.]) ?(\d{1,2}) ?\2 ?((?:1[34]|19|20)\d\d|'?\d\d)(?![\d%])(?!\.\d)")
_GLUED = re.compile(r"(?<=[A-Za-z])[0-3]?\d([/-])[0-3]?\d\1(?:19|20)\d\d(?!\d)")
_COMPACT = re.compile(r"((?:19|20)\d\d)(\d\d)(\d\d)(?:[T_ -]?\d{4,6})?(?!\d)")
_DAY_MONTH = re.compile(
    rf"(\d{{1,2}})(?:st|nd|rd|th|er|[.\u00ba])?[ \-./,]{{0,3}}{_LINK}({_MONTH})\.?(?:(?:[ "
    rf",]{{0,3}}{_LINK}{_YEAR})|"
    rf"[\-./]{_SHORT_YEAR}|(?: ?\d{{4}}(?!\d))|(?: ?\d{{2}}{_NOT_UNIT}))?",
    _I,
)
_MONTH_DAY = re.compile(
    rf"({_MONTH})\.?[ \-./,]{{0,3}}(?:(?:the )?(\d{{1,2}})(?:st|nd|rd|th)?(?![\d:]|"
    rf"\.\d)(?:[ ,]{{1,3}}(?:of )?{_YEAR}|"
    rf"[\-./]{{1,2}}{_SHORT_YEAR}|, ?\d\d(?![\d./-]))?|(?:of |de )?{_YEAR})",
    _I,
)
_MONTH_YEAR_SHORT = re.compile(rf"({_MONTH})[-/]\d\d(?!\d)", _I)
_YEAR_MONTH = re.compile(rf"(?:19|20)\d\d[ \-/]({_MONTH})(?:[ \-/]\d{{1,2}}(?!\d))?", _I)
_MONTH_YEAR = re.compile(r"(\d{1,2})[/.-]((?:19|20)\d\d)(?![\d.]\d|\d)")
_ISO_MONTH = re.compile(r"((?:19|20)\d\d)[-/](\d\d)(?![\d-])")
_PARTIAL = re.compile(
    r"(\d{1,2})/(\d{1,2})(?![\d/]|\.\d)(?! ?(?:mm|cm|images?|series|slices?|ribs?|%|strength)\b)", _I
)
_DAY_POINT = re.compile(r"(0[1-9]|[12]\d|3[01])\.(0[1-9]|1[0-2])\.(?!\d)")
_SHORT_DAY = re.compile(
    r"(\d\d)([/.-])(\d\d)(?![\d/]|[.,-]\d| ?(?:mm|cm|m|ml|x|%|images?|slices?|hu|msv|kg)\b)", _I
)
_ORDINAL = re.compile(
    r"\d{1,2}(?:st|nd|rd|th)(?: inst)?(?! ?(?:\w*ribs?|costal|floor|percentile|toe|finger|digit))", _I
)
_VIETNAMESE = re.compile(r"(?:ngay )?(\d{1,2}) thang (\d{1,2})(?: nam ((?:19|20)\d\d)(?!\d))?", _I)
_EAST = re.compile(
    r"(?:19|20)\d\d ?[\u5e74\ub144\ub144] ?\d{1,2} ?[\u6708\uc6d4](?: ?\d{1,2} ?[\u65e5\uc77c])?"
)
_SPACED = re.compile(r"(\d{2}) (\d{2}) ((?:19|20)\d\d)(?!\d)")
_TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?(?: ?[ap]\.?m\b\.?)?(?: ?hours| ?hrs?)?", _I)
_WEEKDAY = re.compile(
    r"(?<![A-Za-z])(?:mon|tues?|wed(?:nes)?|thu(?:rs?)?|fri|sat(?:ur)?|sun)(?:day)?\.?,? (?:the )?$", _I
)
_CUES_PARTIAL = word_set("dates.cues_partial")
_YEAR_ENDS = re.compile(
    r"(?=$|[\s.;)\]\"'?]|[,:/-](?!\d)|,? (?:to|and|&) (?:19|20)\d\d|-(?:19|20)\d\d|, (?:19|20)\d\d)"
    r"(?! ?-?(?:mm|cm|ml|cc|mg|g|hu|ms|msec|mgy|mbq|images?|slices?|iu|units?|volts?|hours?|steps)\b)",
    _I,
)
_EDITIONS = word_set("dates.editions")
_AMOUNTS = word_set("dates.amounts")
_PART_OF_YEAR = frozenset(["early", "late", "mid", "summer", "winter", "spring", "autumn", "fall", "circa"])
_CUES_DAY = word_set("dates.cues_day")
_HOUR_AFTER = re.compile(r",? (?:(?:um|kl|godz|ore|saat|at|a las|alle)\.? )?[0-2]?\d[:.hH][0-5]\d")
_MONTHS_LATER = re.compile(r"[1-9]\d?/(?:12|52|7)(?!\d)")
_LATER = frozenset(
    {"in", "for", "x", "repeat", "every", "after", "over", "film", "next", "within", "past", "last"}
)
_CUES_SHORT = word_set("dates.cues_short")
_NO_DAY = word_set("dates.no_day")
_CUES_MONTH = word_set("dates.cues_month")
_MONTH_WORDS = frozenset(MONTHS) | {"ngay"}

Found = tuple[int, int, str, float]


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
            elif word == "ngay" and (match := _VIETNAMESE.match(text.view, start)):
                found = start, match.end(), "vietnamese", 1.0
            if found:
                begin, end, rule, score = found
                kind = "TIME" if rule == "time" else "DATE"
                begin = begin if kind == "TIME" else _with_weekday(text.view, begin)
                rule = rule if kind == "TIME" else f"date.{rule}"
                spans.append(Span(begin, end, kind, self.name, rule, score))
                done = end
        for number in text.with_digit:  # `SERVICE08/15/2018`
            if words[number][0].isalpha() and text.view[text.ends[number] : text.ends[number] + 1] in "/-":
                glued = _GLUED.search(text.view, starts[number], text.ends[number] + 9)
                if glued:
                    spans.append(Span(*glued.span(), "DATE", self.name, "date.glued", 0.9))
        return spans

    def _named(self, text: Note, number: int) -> Found | None:
        start = text.starts[number]
        match = _MONTH_DAY.match(text.view, start) or _MONTH_YEAR_SHORT.match(text.view, start)
        if not match:
            return self._lone_month(text, number)
        written = match.group(1)
        has_year = len(re.findall(r"\d", match.group())) > 2 or "'" in match.group()
        short = match.re is _MONTH_YEAR_SHORT
        dashed = match.group()[len(written) : len(written) + 1] == "-" and len(written) == 3
        if not has_year and not short and not dashed and not _is_month(text, number, written):
            return None
        if short and written.lower() in _WORDLIKE - {"may", "mar", "jan"} and not written[0].isupper():
            return None
        if not has_year and match.lastindex == 2 and match[2] and int(match[2]) > 31:
            return None
        return start, match.end(), "month_first", 1.0 if has_year else 0.8

    @staticmethod
    def _lone_month(text: Note, number: int) -> Found | None:
        """`since March`, `in early June`, `studies: May, July 2016`: a month alone, of which a cue makes a date."""
        word = text.words[number]
        foreign = len(word) > 4 and word not in _WORDLIKE | _OTHERWISE and bool(text.languages)
        if not foreign and (word not in _ENGLISH or (len(word) < 4 and word != "may")):
            return None
        written = text.token(number)
        cue = text.words[number - 1] if number and text.gap(number - 1) in (" ", ": ") else ""
        upper = written[0].isupper()
        if word in ("may", "march"):
            ok = cue in _CUES_MONTH - {"of", "for", "by", "from"} and (
                upper or cue in ("since", "until", "last", "early", "late")
            )
            ok = ok or (cue in ("in", "for") and _lower(text) and _ends_phrase(text, number))
            ok = ok or (upper and word == "may" and number > 0 and _listed_month(text, number))
        else:
            ok = True
        return (text.starts[number], text.ends[number], "month", 0.7) if ok else None

    def _numeric(self, text: Note, number: int, study: StudyContext) -> Found | None:
        view, start = text.view, text.starts[number]
        before = view[start - 1] if start else " "
        if before == "'" and text.ends[number] - start == 2 and (start < 2 or not view[start - 2].isalnum()):
            return start - 1, text.ends[number], "short_year", 0.8
        if before in "./-" and start > 1 and view[start - 2].isdigit():
            return None
        if word_ends(text, number):
            return None
        size, year = text.ends[number] - start, view[start : start + 2] in ("19", "20")
        if year and (match := _ISO.match(view, start)):
            return (start, match.end(), "iso", 1.0) if _valid(int(match[3]), int(match[4])) else None
        if size < 3 and (match := _NUMERIC.match(view, start)):
            first, second = int(match[1]), int(match[3])
            if _valid(first, second) or _valid(second, first):
                return start, match.end(), "numeric", 1.0
            return None
        if (
            year
            and size > 7
            and (match := _COMPACT.match(view, start))
            and _valid(int(match[2]), int(match[3]))
        ):
            return start, match.end(), "compact", 0.9
        if (
            size == 2
            and (match := _SPACED.match(view, start))
            and (_valid(int(match[1]), int(match[2])) or _valid(int(match[2]), int(match[1])))
        ):
            return start, match.end(), "spaced", 0.8
        if found := self._day_first(text, number):
            return found
        if year and (match := _YEAR_MONTH.match(view, start)):
            return start, match.end(), "year_first", 1.0
        if match := _VIETNAMESE.match(view, start) if size < 3 else _EAST.match(view, start):
            return start, match.end(), "native", 1.0
        return self._partial(text, number, before, study)

    @staticmethod
    def _day_first(text: Note, number: int) -> Found | None:
        view, start = text.view, text.starts[number]
        match = _DAY_MONTH.match(view, start) if _month_near(text, number) else None
        if not match or not 1 <= int(match[1]) <= 31:
            return None
        named, tail = match[2], view[match.end(2) : match.end()]
        bare = not re.search(r"\d", tail)
        weekday = _WEEKDAY.search(view, max(0, start - 16), start) is not None
        if weekday and named.lower() in _ENGLISH:
            return start, match.end(), "day_first", 0.9
        own = named.lower() in _ONLY_MONTHS and bool(text.languages)  # `19 mei`: no other word after a number
        if named.lower() in _WORDLIKE and bare and not named[0].isupper() and not own:
            return None
        if bare and named.lower() not in _ENGLISH and len(named) < 4 and not own:
            return None
        if (
            named.lower() not in _ENGLISH
            and len(named) < 4
            and not own
            and not re.search(r"\d{4}|'", tail)
            and not named[0].isupper()
        ):
            return None
        return start, match.end(), "day_first", 0.8 if bare else 1.0

    def _partial(self, text: Note, number: int, before: str, study: StudyContext) -> Found | None:
        view, start, word = text.view, text.starts[number], text.words[number]
        cue = text.words[number - 1] if number and "\n" not in text.gap(number - 1) else ""
        if (match := _MONTH_YEAR.match(view, start)) and 1 <= int(match[1]) <= 12:
            return start, match.end(), "month_year", 0.9
        if (match := _ISO_MONTH.match(view, start)) and 1 <= int(match[2]) <= 12:
            return start, match.end(), "month_year", 0.9
        if cue in _LATER and _MONTHS_LATER.match(view, start):
            return None  # `6/12`: six months, as British doctors write
        if before in " (\n" and (match := _PARTIAL.match(view, start)):
            first, second = int(match[1]), int(match[2])
            is_day = cue in _CUES_DAY and (_valid(first, second) or _valid(second, first))
            is_month = cue in _CUES_PARTIAL and 1 <= first <= 12 and len(match[2]) == 2
            full = len(match[1]) == len(match[2]) == 2 and (_valid(first, second) or _valid(second, first))
            is_month = is_month or (cue in _CUES_PARTIAL and full)
            if (is_day or is_month) and not _ratio_before(text, number):
                return start, match.end(), "partial", 0.7
        if found := _without_year(text, number, before, cue):
            return found
        if len(word) == 4 and word[:2] in ("19", "20") and word.isdigit() and _year(text, number):
            begin = text.starts[number - 1] if cue in _PART_OF_YEAR else start
            return begin, text.ends[number], "year", 0.6
        if (
            cue == "the"
            and number > 1
            and text.words[number - 2] in _CUES_DAY
            and (match := _ORDINAL.match(view, start))
        ):
            return start, match.end(), "ordinal", 0.6
        if (
            study.tag_times
            and (match := _TIME.match(view, start))
            and int(view[start : view.index(":", start)]) < 25
        ):
            return start, match.end(), "time", 0.8
        return None


def _without_year(text: Note, number: int, before: str, cue: str) -> Found | None:
    """`31.05.`, `16/06`, `op 26-07`: day and month, two digits each, one of them with a nought or behind a cue."""
    view, start = text.view, text.starts[number]
    if before not in " (\n" or text.ends[number] - start != 2:
        return None
    if match := _DAY_POINT.match(view, start):
        return start, match.end(), "partial", 0.7
    match = _SHORT_DAY.match(view, start)
    if match is None or cue in _NO_DAY or _ratio_before(text, number):
        return None
    first, second = int(match[1]), int(match[3])
    if not (_valid(first, second) or _valid(second, first)):
        return None
    padded = "0" in (match[1][0], match[3][0])
    told = cue in _CUES_DAY or cue in _CUES_SHORT or _HOUR_AFTER.match(view, match.end())
    sure = (told and (padded or match[2] == "/")) or (padded and match[2] == "/" and first != second)
    return (start, match.end(), "partial", 0.7) if sure else None


def _lower(text: Note) -> bool:
    """Whether the note has no capitals, so that `march` and `may` say nothing by theirs."""
    return text.view[:2000].islower()


def _ends_phrase(text: Note, number: int) -> bool:
    return text.view[text.ends[number] : text.ends[number] + 1] in ("", ".", ",", ";", "\n", ")")


def _listed_month(text: Note, number: int) -> bool:
    """`Apr-08, May and`: after another date of a list."""
    return (
        text.gap(number - 1) == ", "
        and text.words[number - 1].isdigit()
        and len(text.words[number - 1]) in (2, 4)
    )


def _month_near(text: Note, number: int) -> bool:
    """Whether a month can stand behind a number: as one of the next two words, or within a word with a digit."""
    near = text.words[number : number + 3]
    return not MONTHS.keys().isdisjoint(near) or not all(word.isdigit() or word.isalpha() for word in near)


def word_ends(text: Note, number: int) -> bool:
    """Whether a short number before a mark or a word that is no month can be no date (cheap to tell)."""
    word, end = text.words[number], text.ends[number]
    if len(word) > 2 or not word.isdigit() or number + 1 >= len(text.words):
        return False
    after = text.view[end]
    if after == " ":
        follow = text.words[number + 1]
        return not (
            follow in MONTHS
            or follow in ("of", "de", "thang")
            or follow[0].isdigit()
            or text.view[end + 1] in "-./"
        )
    return after in ",;)(%\n" and text.words[number + 1] not in MONTHS


def _is_month(text: Note, number: int, written: str) -> bool:
    """Whether a month before a day without a year is one: `May 5`, `mar 3`, but not `may 2 nodules`."""
    lower = written.lower()
    if lower in _ENGLISH:
        return lower not in _WORDLIKE or written[0].isupper() or _lower(text)
    return len(lower) > 3 and (lower not in _WORDLIKE or written[0].isupper())


def _ratio_before(text: Note, number: int) -> bool:
    """`image 3/45`, `of 2/3`: the number before or the word says that this is a share or a place."""
    return (
        number > 0
        and text.words[number - 1] in ("of", "from")
        and number > 1
        and text.words[number - 2]
        in (
            "image",
            "images",
            "series",
            "proximal",
            "distal",
            "out",
        )
    )


def _year(text: Note, number: int) -> bool:
    """Whether four digits are the year of something: not of a guideline (`Fleischner 2017`), and no amount."""
    view, start, end = text.view, text.starts[number], text.ends[number]
    before = view[start - 1] if start else "\n"
    cue = text.words[number - 1] if number else ""
    if (before not in " (\n/,;&" and cue not in _PART_OF_YEAR) or not _YEAR_ENDS.match(view, end):
        return False
    near = text.words[max(0, number - 4) : number]
    if number + 1 < len(text.words) and text.gap(number) in (" ", " (", ") "):
        near = [*near, *text.words[number + 1 : number + 3]]
    return _EDITIONS.isdisjoint(near) and cue not in _AMOUNTS


def _with_weekday(view: str, start: int) -> int:
    match = _WEEKDAY.search(view, max(0, start - 16), start) if start and view[start - 1] == " " else None
    return match.start() if match else start
