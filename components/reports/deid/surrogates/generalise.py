"""What Safe Harbor and a limited data set leave of dates, ages and places.

45 CFR 164.514(b)(2)(i): (B) of geography the State and the first three digits of a ZIP code, 000 where the
units with these three digits hold 20,000 people or fewer; (C) of dates the year, of ages over 89 "90 or older", and
no year that tells such an age. 164.514(e)(2)(ii) leaves town, State and ZIP code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from components.reports.deid.note import fold
from components.reports.deid.policy import DATE_KINDS
from components.reports.deid.shift import DateContext, find_dates, year_of
from components.reports.deid.span import Span
from components.reports.deid.surrogates import listed

# Three digits whose area had 20,000 people or fewer in the census of 2000 (HHS guidance on de-identification, 2012).
SMALL_ZIP_AREAS = frozenset(
    [
        "036",
        "059",
        "063",
        "102",
        "203",
        "556",
        "692",
        "790",
        "821",
        "823",
        "830",
        "831",
        "878",
        "879",
        "884",
        "890",
    ]
) | {"893"}
OLDEST_NAMED_AGE = 89
_STATE_ZIP = re.compile(r"(?<!\w)([A-Z]{2}),? {1,2}(\d{5})(?:-\d{4})?$")
_TOWN = re.compile(r"(?:^|, ?|\n)([A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}),? $")
_BIRTH = re.compile(r"(?:\bdob|\bbirth(?:day| ?date)?|\bborn|\bd\.o\.b\.?)[^\n]{0,12}$", re.IGNORECASE)


def zip_left(text: str) -> str | None:
    """The first three digits of a ZIP code, or 000 where few people live; None for what is no ZIP code."""
    match = re.fullmatch(r"\s*(\d{3})\d{2}(?:-?\d{4})?\s*", fold(text))
    if match is None:
        return None
    return "000" if match[1] in SMALL_ZIP_AREAS else match[1]


def state_and_zip(text: str) -> str | None:
    """`NV 895` of an address that ends in a State and a ZIP code."""
    match = _STATE_ZIP.search(fold(text).strip())
    if match is None or match[1] not in listed("states"):
        return None
    return f"{match[1]} {zip_left(match[2])}"


def locality(text: str) -> str | None:
    """The town, State and ZIP code at the end of an address, as written; None where they are not told apart."""
    folded = fold(text)
    if len(folded) != len(text) or folded != folded.strip():
        return None
    match = _STATE_ZIP.search(folded)
    if match is None or match[1] not in listed("states"):
        return None
    town = _TOWN.search(folded[: match.start()])
    street = town is not None and town[1].split()[-1].lower().rstrip(".") in listed("street")
    return text[town.start(1) if town and not street else match.start() :]


class YearLimits(NamedTuple):
    """Which years may stay: none before `oldest` (0: nothing is known), those of birth only where `births` says so."""

    oldest: int
    births: bool


def year_limits(raw: str, spans: Sequence[Span], known: Iterable[int]) -> YearLimits:
    """The years that tell of no age over 89, by the latest year of the note and of the known dates.

    A date of birth says nothing of the present: where there are only such dates, or the note states an age over 89,
    the year of birth must go.
    """
    dated = [span for span in spans if span.kind in DATE_KINDS]
    births = [span for span in dated if is_birth(raw, span)]
    years = set()
    for span in dated:
        if span not in births:
            texts = (item.text.get("y", "") for item in find_dates(fold(raw[span.start : span.end])))
            years |= {int(year) for year in texts if len(year) == 4}
    known_years = sorted(set(known))
    if known_years and (len(known_years) > 1 or not births):
        years.add(known_years[-1])
    aged = any(span.kind == "AGE" for span in spans)
    return YearLimits(max(years) - OLDEST_NAMED_AGE if years else 0, bool(years) and not aged)


def is_birth(raw: str, span: Span) -> bool:
    """Whether a date span is labelled as a date of birth."""
    return span.kind in ("BIRTH_DATE", "DOB") or bool(
        _BIRTH.search(fold(raw[max(0, span.start - 40) : span.start]))
    )


def date_left(raw: str, span: Span, dates: DateContext, limits: YearLimits) -> str | None:
    """The years of a date span; None where no year may stay, and a tag for each date of several whose may not."""
    left = []
    for item in find_dates(fold(raw[span.start : span.end])):
        year = year_of(item.text["y"], dates) if "y" in item.text else 0
        may_stay = year and year >= limits.oldest and (limits.births or not is_birth(raw, span))
        left.append(str(year) if may_stay else f"[{span.kind}]")
    return ", ".join(dict.fromkeys(left)) if any(map(str.isdigit, left)) else None
