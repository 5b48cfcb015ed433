"""A second look for PHI in de-identified text, on purpose plainer than the de-identifier and written apart from it.

It answers only whether something is left, never what: the check sets the report aside by its keyed id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any, NamedTuple

STRUCTURED: Mapping[str, re.Pattern[str]] = {
    "email": re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}"),
    "url": re.compile(r"\b(?:https?://|www\.)\S{4,}", re.IGNORECASE),
    "phone": re.compile(r"(?<![\d.])(?:\+\d{1,2}[ .-]?)?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[ .-]\d{4}(?![\d.]\d)"),
    "ssn": re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"),
    "record_number": re.compile(
        r"\b(?:MRN|medical record(?: number| no\.?)?|accession(?: number| no\.?)?|acc(?:ession)? ?#|patient id)"
        r"\s{0,3}[:#=-]?\s{0,3}[A-Z]{0,4}-?\d{4,}",
        re.IGNORECASE,
    ),
    "birth_date": re.compile(
        r"\b(?:DOB|date of birth|born(?: on)?)\s{0,3}[:=]?\s{0,3}\d{1,4}[/.-]\d{1,2}[/.-]\d{1,4}",
        re.IGNORECASE,
    ),
    "iso_date": re.compile(r"(?<![\d-])(?:19|20)\d{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])(?![\d-])"),
    "uid": re.compile(r"(?<![\d.])[0-2](?:\.\d{1,39}){6,}"),
}
NAMES = frozenset({"PATIENT", "STAFF", "PERSON", "NAME", "PHYSICIAN", "OPERATOR", "RELATIVE"})
DATES = frozenset({"DATE", "BIRTH_DATE", "DOB", "STUDY_DATE"})
IGNORED = frozenset({"SEX", "AGE", "MODALITY"})
DATE_INPUTS = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
DATE_OUTPUTS: tuple[str, ...] = (
    "%Y-%m-%d",
    "%Y%m%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%m-%d-%Y",
    "%d %B %Y",
    "%B %d, %Y",
)
DATE_OUTPUTS += ("%d-%b-%Y", "%d %b %Y", "%b %d, %Y", "%m/%d/%y", "%Y/%m/%d")
SHORTEST = 4
LONG_NUMBER = re.compile(r"\d{6,}")
REALISTIC = frozenset({"surrogate", "shift"})  # actions whose result looks like what it replaced
PEOPLE = "review"  # the layer of a person's decisions: they excuse no known PHI


class Spot(NamedTuple):
    """A span of the audit on the new text; `original` is known only to checks that may read restricted data."""

    start: int
    end: int
    kind: str = ""
    layer: str = ""
    action: str = "tag"
    original: str | None = None


def structured_hits(text: str, spots: Sequence[Spot]) -> list[str]:
    """The names of the patterns that match outside the spans which the de-identifier wrote or let stay."""
    found = []
    for name, pattern in STRUCTURED.items():
        if any(not _touching(spots, match) for match in pattern.finditer(text)):
            found.append(name)
    return found


def known_hits(text: str, identities: Sequence[tuple[str, str]], spots: Sequence[Spot] = ()) -> list[str]:
    """The kinds of the study's own identities that are still in its text.

    What the policy lets stay is not counted, and no date inside a date that was moved (two of a patient's dates
    may meet by chance): whether it was moved is for `unchanged_hits` to say.
    """
    found = []
    for kind, value in identities:
        upper = kind.upper()
        if upper in IGNORED:
            continue
        excused = {"keep", "locality"} | ({"shift", "generalise"} if upper in DATES else set())
        may_stay = [spot for spot in spots if spot.action in excused and spot.layer != PEOPLE]
        matches = (match for pattern in _patterns(upper, value.strip()) for match in pattern.finditer(text))
        if any(not _touching(may_stay, match) for match in matches):
            found.append(upper)
    return sorted(set(found))


def unchanged_hits(text: str, spots: Sequence[Spot]) -> list[str]:
    """The kinds of the spans that were to be replaced by something realistic and still hold their original."""
    found = set()
    for spot in spots:
        if spot.action in REALISTIC:
            new, old = _bare(text[spot.start : spot.end]), _bare(spot.original or "")
            if not old or new == old or (spot.action == "surrogate" and len(old) >= SHORTEST and old in new):
                found.add(spot.kind)
    return sorted(found)


def residual_hits(text: str, identities: Sequence[tuple[str, str]], spots: Sequence[Spot]) -> list[str]:
    """Everything that is left, by what finds it."""
    return [*structured_hits(text, spots), *known_hits(text, identities, spots), *unchanged_hits(text, spots)]


def _touching(spots: Sequence[Spot], match: re.Match[str]) -> bool:
    return any(spot.start < match.end() and match.start() < spot.end for spot in spots)


def _bare(text: str) -> str:
    return "".join(char for char in text.casefold() if char.isalnum())


def _patterns(kind: str, value: str) -> Iterator[re.Pattern[str]]:
    if len(value) < SHORTEST:
        return
    if kind in NAMES:
        yield from _name(value)
    elif kind in DATES:
        day = _day(value)
        forms = [day.strftime(form) for form in DATE_OUTPUTS] if day else [value]
        yield _phrase("|".join(re.escape(form) for form in dict.fromkeys(forms)))
    elif any(char.isdigit() for char in value):
        yield _phrase(re.escape(value))
        numbers = LONG_NUMBER.findall(value)
        if len(numbers) == 1 and "." not in value:  # the number of MR-0048291, but no part of a UID
            yield _phrase(numbers[0])
    elif len(value.split()) > 1:
        yield _phrase(r"\s+".join(re.escape(part) for part in value.split()))


def _phrase(body: str, flags: int = re.IGNORECASE) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{body})(?![\w-])", flags)


def _name(value: str) -> Iterator[re.Pattern[str]]:
    """A full name in both orders, in any case; its longer parts where they are capitalised and no common word."""
    parts = [part for part in re.split(r"[\s,^=]+", value) if len(part) > 1]
    if len(parts) > 1:
        gap = r"[\s,^]{1,3}"
        orders = [parts, parts[::-1], [parts[0], parts[-1]], [parts[-1], parts[0]]]
        yield _phrase("|".join(gap.join(map(re.escape, order)) for order in orders))
    for part in parts:
        if len(part) < SHORTEST or part.lower() in _words():
            continue
        if part.lower() in _english():  # `Frame rate`: only a capital inside a sentence tells of a person
            yield re.compile(rf"(?<=[a-z,] ){re.escape(part.capitalize())}(?![\w-])")
        else:
            forms = dict.fromkeys((part.capitalize(), part, part.upper()))
            yield _phrase("|".join(map(re.escape, forms)), 0)


@cache
def _words() -> frozenset[str]:
    """Words of radiology and of everyday English that are names too: alone they prove nothing."""
    from components.reports.lexicon import words

    return frozenset(words("ambiguous")) | frozenset(words("stop"))


@cache
def _english() -> frozenset[str]:
    """Words of English and of radiology reports."""
    from components.reports.lexicon import words

    return words("english_words") | words("radiology_words")


def _day(value: str) -> date | None:
    for form in DATE_INPUTS:
        try:
            return datetime.strptime(value, form).date()  # a day has no time zone
        except ValueError:
            continue
    return None


def spots_of(
    audit: Sequence[Mapping[str, Any]], offsets: Sequence[Mapping[str, Any]] = ()
) -> dict[str, list[Spot]]:
    """The audit's spans by study, with the originals that the restricted table of offsets gives them."""
    originals = {(row["study_key"], row["new_start"], row["new_end"]): row["original"] for row in offsets}
    found: dict[str, list[Spot]] = {}
    for row in audit:
        original = originals.get((row["study_key"], row["start"], row["end"]))
        action = row["action"] or "tag"
        spot = Spot(row["start"], row["end"], row["kind"], row["layer"], action, original)
        found.setdefault(row["study_key"], []).append(spot)
    return found
