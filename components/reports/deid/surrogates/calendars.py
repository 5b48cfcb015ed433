"""The names of months and weekdays in several languages: reading one, and writing another in the same form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from components.reports.deid.note import fold
from components.reports.deid.surrogates import FOLDER, like


class CalendarName(NamedTuple):
    """A month (1 to 12) or weekday (1, Monday, to 7) as a language writes it, and whether the form is a short one."""

    language: str
    number: int
    short: bool


@cache
def calendar() -> Mapping[str, Mapping[str, Any]]:
    """Names of months and weekdays by language, full and short."""
    found: dict[str, Mapping[str, Any]] = json.loads((FOLDER / "calendar.json").read_text(encoding="utf-8"))
    return found


def _by_name(full: str, short: str, also: str) -> Mapping[str, tuple[CalendarName, ...]]:
    found: dict[str, dict[tuple[str, int], CalendarName]] = {}
    for language, names in calendar().items():
        forms = [(name, number, False) for number, name in enumerate(names[full], 1)]
        forms += [(name, number, True) for number, name in enumerate(names[short], 1)]
        forms += [(name, number, True) for name, number in names[also].items()]
        forms += [(name, number, False) for name, number in names.get(f"{also}_full", {}).items()]
        for name, number, is_short in forms:
            options = found.setdefault(fold(name).lower(), {})
            options.setdefault((language, number), CalendarName(language, number, is_short))
    return {name: tuple(options.values()) for name, options in found.items()}


@cache
def month_names() -> Mapping[str, tuple[CalendarName, ...]]:
    """Every month's name in plain lower case -> what it may be, in the order of the languages."""
    return _by_name("months", "short", "also")


@cache
def weekday_names() -> Mapping[str, tuple[CalendarName, ...]]:
    """Every weekday's name in plain lower case -> what it may be."""
    return _by_name("weekdays", "short_weekdays", "also_weekdays")


def _best(options: tuple[CalendarName, ...], languages: Mapping[str, int]) -> CalendarName:
    """The option of the language that the note's other dates are in; else of the first one listed."""
    return min(options, key=lambda option: -languages.get(option.language, 0))


def read_month(word: str, languages: Mapping[str, int]) -> CalendarName:
    """What a month's name (a key of `month_names()` in any case) is, given how often languages are met."""
    return _best(month_names()[word.lower()], languages)


def read_weekday(word: str, languages: Mapping[str, int]) -> CalendarName:
    """What a weekday's name is."""
    return _best(weekday_names()[word.lower()], languages)


def month_style(word: str, name: CalendarName, beside: str) -> str:
    """The list that a month's name is from; `May` is both, and short where a hyphen, slash or point touches it."""
    both = fold(calendar()[name.language]["short"][name.number - 1]).lower() == word.lower()
    return "short" if name.short or (both and set(beside) & set("-/.")) else "months"


def written_like(written: str, language: str, style: str, number: int, plain_letters: bool) -> str:
    """Entry `number` of a language's list in the case of `written`; folded to plain letters on request."""
    name = str(calendar()[language][style][number - 1])
    if language == "tr" and written.isupper():
        name = name.replace("i", "İ").replace("ı", "I").upper()
    else:
        name = like(written, name[:1].upper() + name[1:])
    return fold(name) if plain_letters else name
