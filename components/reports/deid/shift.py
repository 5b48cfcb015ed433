"""Dates of a report moved by the patient's offset, each in the form in which it was written.

A date in full moves by exactly the offset. A month moves from its middle, a year from its middle, a day and month from
the year that the note's reference date gives them. 03/04/2015 is read as the study's known dates say, else as
the note's other dates do, else by its separator, else as the policy says; the order stays and the audit names it. What
cannot be read is not shifted: the caller tags it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from typing import NamedTuple

from components.reports.deid.note import Note, fold
from components.reports.deid.surrogates import like, listed
from components.reports.deid.surrogates.calendars import (
    month_names,
    month_style,
    read_month,
    read_weekday,
    weekday_names,
    written_like,
)

_TWO_ORDERS = ("numeric", "spaced", "compact_year_last")  # forms in which day or month comes first
NO_REFERENCE = date(2015, 7, 2)  # for a day and month without a year in a note without any year
_CLOCK = re.compile(r"(?<!\d)[T_-]?(\d{1,2}):?(\d\d)(?::?\d\d(?:\.\d{1,6})?)?Z?(?!\d)")


@cache
def _forms() -> tuple[tuple[str, re.Pattern[str]], ...]:
    month = (
        "(?P<mon>"
        + "|".join(sorted(map(re.escape, month_names()), key=lambda x: (-len(x), x)))
        + r")(?![^\W\d_])"
    )
    year = r"(?P<y>(?:1[6-9]|2[01])\d\d(?!\d)|'\d\d(?!\d)|(?<=[-./,])\d\d(?!\d)|(?<=, )\d\d(?!\d))"
    late = year[:-1] + r"|(?<= )\d\d(?!\d))"
    ordinal = r"(?P<ord>st|nd|rd|th|er|[ºª]|\.(?= ))?"
    of = r"(?:of |de |del |the |d')?"
    forms = {
        "iso": r"(?P<y>(?:1[6-9]|2[01])\d\d) ?[-/.] ?(?P<m>\d\d?) ?[-/.] ?(?P<d>\d\d?)(?!\d)",
        "year_first": rf"(?P<y>\d{{4}})[ \-/.]{{1,2}}{month}\.?[ \-/.]{{1,2}}(?P<d>\d\d?)(?!\d)",
        "year_month_name": rf"(?P<y>(?:1[6-9]|2[01])\d\d)[ \-/]{month}",
        "east": r"(?P<y>\d{4}) ?[年년ᄂ] ?(?P<m>\d\d?) ?[月월ᄋ](?: ?(?P<d>\d\d?) ?[日일ᄋ])?",
        "numeric": r"(?P<a>\d\d?) ?[-/.] ?(?P<b>\d\d?) ?[-/.] ?(?P<y>(?:1[6-9]|2[01])\d\d|'?\d\d)(?!\d)",
        "compact": r"(?P<y>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<d>0[1-9]|[12]\d|3[01])(?=\D|$|\d{4}(?:\d\d)?(?!\d))",
        "spaced": r"(?P<a>\d\d) (?P<b>\d\d) (?P<y>(?:19|20)\d\d)(?!\d)",
        "compact_year_last": r"(?P<a>\d\d)(?P<b>\d\d)(?P<y>(?:19|20)\d\d)(?!\d)",
        "vietnamese": r"(?:(?:ngay )?(?P<d>\d\d?) )?thang (?P<m>\d\d?)(?:(?: nam |[ /-])(?P<y>\d{4}))?(?!\d)",
        "day_first": rf"(?P<d>\d\d?){ordinal}[ \-./,]*{of}{month}(?:\.?[ ,\-./]*{of}{late})?",
        "month_year": rf"{month}\.?[ ,\-./]*{of}{year}(?![/.-]\d)",
        "month_first": rf"{month}\.?[ \-./,]*(?:the )?(?P<d>\d\d?){ordinal}(?![\d:])(?:[ ,\-./]*{of}{year})?",
        "month_number_year": r"(?P<m>\d\d?)[-/.](?P<y>(?:1[6-9]|2[01])\d\d)(?!\d)",
        "year_month": r"(?P<y>(?:1[6-9]|2[01])\d\d)[-/.](?P<m>\d\d)(?!\d)",
        "partial": r"(?P<a>\d\d?)[/.-](?P<b>\d\d)(?!\d)|(?P<a1>\d\d?)[/.-](?P<b1>\d)(?!\d)",
        "year": r"(?P<y>(?:1[6-9]|2[01])\d\d(?!\d)|'\d\d(?!\d))",
        "month": month,
    }
    return tuple((name, re.compile(rule, re.IGNORECASE)) for name, rule in forms.items())


class Found(NamedTuple):
    """A date in a view: its form, its place, and the places of its parts by the forms' names."""

    form: str
    written: str
    start: int
    end: int
    parts: dict[str, tuple[int, int]]
    text: dict[str, str]

    @property
    def between(self) -> str:
        """The first mark between two numbers of a numeric date."""
        first = self.parts.get("a", (self.start, self.start))[1]
        return self.written[first - self.start :].lstrip()[:1]


def find_dates(view: str) -> list[Found]:
    """The dates of a short text (a span that a detector took for a date), in order."""
    found, place = [], 0
    while place < len(view):
        if view[place].isalnum() or view[place] == "'":
            for name, form in _forms():
                match = form.match(view, place)
                if match:
                    parts = {
                        key.rstrip("1"): match.span(key) for key, value in match.groupdict().items() if value
                    }
                    text = {key: view[slice(*span)] for key, span in parts.items()}
                    if _plausible(name, text):
                        found.append(Found(name, match.group(), match.start(), match.end(), parts, text))
                        place = match.end()
                        break
            else:  # no date begins here: on behind this word or mark
                place += 1
                while place < len(view) and view[place - 1].isalnum() and view[place].isalnum():
                    place += 1
        else:
            place += 1
    return found


def _plausible(form: str, text: Mapping[str, str]) -> bool:
    if "m" in text and not 1 <= int(text["m"]) <= 12:
        return False
    if "d" in text and not 1 <= int(text["d"]) <= 31:
        return False
    if form in _TWO_ORDERS:
        first, second = int(text["a"]), int(text["b"])
        return 1 <= min(first, second) <= 12 and max(first, second) <= 31
    if form == "partial":
        return 1 <= int(text["a"]) <= 31 and int(text["b"]) >= 1
    return True


@dataclass(frozen=True)
class DateContext:
    """What the dates of one note are read and moved by."""

    days: int
    order: str = "mdy"
    known: frozenset[date] = frozenset()
    reference: date | None = None
    orders: Mapping[str, int] = field(default_factory=dict)  # the note's clear dates by separator and order
    languages: Mapping[str, int] = field(default_factory=dict)
    plain_letters: bool = True


def context_of(days: int, order: str, raw: str, spans: Iterable[str], known: Iterable[date]) -> DateContext:
    """The context of a note from its date spans and the study's known dates."""
    dates = frozenset(known)
    orders: Counter[str] = Counter()
    languages: Counter[str] = Counter()
    years: list[date] = []
    for text in spans:
        for item in find_dates(fold(text)):
            if item.form in _TWO_ORDERS and (clear := _order_of(item.text, dates)):
                orders[_separator(item) + clear] += 1
            if "mon" in item.text:
                options = {option.language for option in month_names()[item.text["mon"].lower()]}
                if len(options) == 1:
                    languages.update(options)
            year = item.text.get("y", "")
            if len(year) == 4:
                years.append(date(int(year), 12, 31))
    reference = max(dates) if dates else (max(years) if years else None)
    return DateContext(days, order, dates, reference, dict(orders), dict(languages), raw.isascii())


def shift_text(raw: str, context: DateContext) -> tuple[str, str] | None:
    """A date span moved: the new text and what the audit says of it; None where it cannot be read in full."""
    note = Note(raw)
    found = find_dates(note.view)
    new: list[tuple[int, int, str]] = []
    details: list[str] = []
    covered = [False] * len(note.view)
    for item in found:
        moved = _moved(item, context, note.view)
        if moved is None:
            return None
        slots, detail = moved
        new += slots
        details += [detail] if detail else []
        covered[item.start : item.end] = [True] * (item.end - item.start)
    for match in re.finditer(r"[^\W\d_]+(?:-feira)?", note.view):
        if match.group().lower() in weekday_names() and not any(covered[match.start() : match.end()]):
            new.append((*match.span(), _moved_weekday(match.group(), context)))
            covered[match.start() : match.end()] = [True] * (match.end() - match.start())
    if not found or not _rest_is_harmless(note.view, covered):
        return None
    pieces, place = [], 0
    for start, end, text in sorted(new):
        first, last = note.raw_span(start, end)
        pieces += [raw[place:first], text]
        place = last
    return "".join([*pieces, raw[place:]]), "; ".join(dict.fromkeys(details))


def _moved_weekday(written: str, context: DateContext) -> str:
    day = read_weekday(written, context.languages)
    style = "short_weekdays" if day.short else "weekdays"
    number = (day.number - 1 + context.days) % 7 + 1
    return written_like(written, day.language, style, number, context.plain_letters)


def _rest_is_harmless(view: str, covered: list[bool]) -> bool:
    """Whether what no date covers is a time of day after a date, joining words or punctuation."""
    rest = "".join(" " if done else char for char, done in zip(view, covered))
    for match in _CLOCK.finditer(rest):
        hour, minute = int(match[1]), int(match[2])
        if any(covered[: match.start()]) and hour < 25 and minute < 60:
            rest = rest[: match.start()] + " " * (match.end() - match.start()) + rest[match.end() :]
    return all(word.lower() in listed("date_joiners") for word in re.findall(r"[^\W_]+", rest))


def _moved(item: Found, context: DateContext, view: str) -> tuple[list[tuple[int, int, str]], str] | None:
    """The new texts of a date's parts, and the detail for the audit."""
    parts, text = dict(item.parts), dict(item.text)
    detail = ""
    if item.form in _TWO_ORDERS:
        order, detail = _order(item, context)
        first, second = ("d", "m") if order == "dmy" else ("m", "d")
        for old, name in (("a", first), ("b", second)):
            parts[name], text[name] = parts.pop(old), text.pop(old)
    elif item.form == "partial":
        first, second, detail = _partial(text, context)
        for old, name in (("a", first), ("b", second)):
            parts[name], text[name] = parts.pop(old), text.pop(old)
    named = read_month(text["mon"], context.languages) if "mon" in text else None
    month = named.number if named else int(text["m"]) if "m" in text else None
    day = int(text["d"]) if "d" in text else None
    year, guessed = _year(text.get("y"), month, day, context)
    try:
        old_day = date(year, month or 7, day or (15 if month else 2))
        new_day = old_day + timedelta(context.days)
    except (ValueError, OverflowError):
        return None
    if guessed:
        detail = "; ".join(part for part in (detail, "year from the reference date") if part)
    slots = []
    width = _width(item)
    for key, span in parts.items():
        if key == "y":
            old = text["y"]
            shown = f"{new_day.year:04d}" if len(old) == 4 else f"{new_day.year % 100:02d}"
            slots.append((*span, ("'" if old.startswith("'") else "") + shown))
        elif key in ("m", "d"):
            number = new_day.month if key == "m" else new_day.day
            slots.append((*span, f"{number:0{width}d}"))
        elif key == "mon" and named:
            beside = view[max(0, span[0] - 1) : span[0]] + view[span[1] : span[1] + 1]
            style = month_style(text["mon"], named, beside)
            slots.append(
                (
                    *span,
                    written_like(text["mon"], named.language, style, new_day.month, context.plain_letters),
                )
            )
        elif key == "ord":
            slots.append((*span, _ordinal(text["ord"], new_day.day)))
    return slots, detail


def _order_of(text: Mapping[str, str], known: frozenset[date]) -> str:
    """The order of a numeric date that its numbers or the known dates decide, else ""."""
    first, second = int(text["a"]), int(text["b"])
    if first > 12 or second > 12:
        return "dmy" if first > 12 else "mdy"
    short = int(text["y"][-2:])
    years = [int(text["y"])] if len(text["y"]) == 4 else [1900 + short, 2000 + short]
    month_first = any(date(year, first, second) in known for year in years)
    day_first = any(date(year, second, first) in known for year in years)
    return "" if month_first == day_first else "mdy" if month_first else "dmy"


def _separator(item: Found) -> str:
    """ "." for dates with points, "" for all others: a point is a habit of its own."""
    return "." if item.between == "." else ""


def _order(item: Found, context: DateContext) -> tuple[str, str]:
    """Whether day or month comes first in a numeric date, and why where both are possible."""
    first, second = int(item.text["a"]), int(item.text["b"])
    if first == second:
        return context.order, ""
    if order := _order_of(item.text, context.known):
        return order, "" if max(first, second) > 12 else f"{order} by a known date"
    mark = _separator(item)
    mdy, dmy = context.orders.get(f"{mark}mdy", 0), context.orders.get(f"{mark}dmy", 0)
    if mdy != dmy:
        order = "mdy" if mdy > dmy else "dmy"
        return order, f"{order} by the note"
    return ("dmy", "dmy by the separator") if mark else (context.order, f"{context.order} by the policy")


def _partial(text: Mapping[str, str], context: DateContext) -> tuple[str, str, str]:
    """What the two numbers of `3/14` are."""
    first, second = int(text["a"]), int(text["b"])
    if second > 31 or (second > 12 and first > 12):
        return "m", "y", "month and year"
    if first > 12:
        return "d", "m", ""
    if second > 12:
        return "m", "d", "month and day"
    dmy = sum(count if order.endswith("dmy") else -count for order, count in context.orders.items())
    day_first = dmy > 0 or (dmy == 0 and context.order == "dmy")
    why = "the note" if dmy else "the policy"
    return ("d", "m", f"dm by {why}") if day_first else ("m", "d", f"md by {why}")


def _year(text: str | None, month: int | None, day: int | None, context: DateContext) -> tuple[int, bool]:
    """The year of a date; of one without a year, the last in which it was not after the reference."""
    reference = context.reference or NO_REFERENCE
    if text is not None:
        return year_of(text, context), False
    year = reference.year
    for _ in range(9):
        try:
            if date(year, month or 7, day or 15) <= reference:
                break
        except ValueError:  # the 29th of February of a common year
            pass
        year -= 1
    return year, True


def year_of(text: str, context: DateContext) -> int:
    """A year of four or two digits; of two, the last such year that is not well after the reference."""
    if len(text) == 4:
        return int(text)
    reference = (context.reference or NO_REFERENCE).year
    late = reference - reference % 100 + int(text[-2:])
    return late if late <= reference + 1 else late - 100


def _width(item: Found) -> int:
    """2 where the date's numbers are padded; beside a month's name only where a 0 or a hyphen says so."""
    numbers = [item.text[key] for key in ("a", "b", "m", "d") if key in item.text]
    if any(len(number) == 1 for number in numbers):
        return 1
    named = ("mon" in item.text or item.form in ("vietnamese", "east")) and not any(
        number.startswith("0") for number in numbers
    )
    return 1 if named and "-" not in item.written else 2


def _ordinal(written: str, day: int) -> str:
    if written.lower() in ("st", "nd", "rd", "th"):
        ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
        return like(written, ending)
    if written.lower() == "er":
        return written if day == 1 else ""
    return written


@cache
def _weekday_rules() -> tuple[re.Pattern[str], re.Pattern[str]]:
    long = sorted((name for name in weekday_names() if len(name) > 2), key=lambda x: (-len(x), x))
    short = sorted(name for name in weekday_names() if len(name) == 2)
    name = (
        rf"(?:(?i:{'|'.join(map(re.escape, long))})|(?:{'|'.join(x.capitalize() for x in short)}))(?![^\W_])"
    )
    article = r"(?:(?:the|den|der|le|el|ngay) )?"
    return (
        re.compile(rf"(?<![^\W_]){name}\.?[ ,]{{1,2}}{article}$"),
        re.compile(rf" ?(?:, ?|\( ?){name}\)?"),
    )


def widen(raw: str, start: int, end: int, least: int, most: int) -> tuple[int, int]:
    """A date span with the weekday that stands beside it; it stays within `[least, most)`."""
    before, after = _weekday_rules()
    left = max(least, start - 24, raw.rfind("\n", 0, start) + 1)
    window = fold(raw[left:start])
    if len(window) == start - left and (match := before.search(window)):
        start = left + match.start()
    window = raw[end : min(most, end + 20)]
    folded = fold(window)
    if len(folded) == len(window) and (match := after.match(folded)):
        end += match.end()
    return start, end
