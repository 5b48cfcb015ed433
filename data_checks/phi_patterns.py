"""A second look for PHI in de-identified text, on purpose plainer than the de-identifier and written apart from it.

It answers only whether something is left, never what: the check sets the report aside by its keyed id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any

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
DATE_OUTPUTS = ("%Y-%m-%d", "%Y%m%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d %B %Y", "%B %d, %Y")
SHORTEST = 4


def structured_hits(text: str, replaced: Sequence[tuple[int, int]]) -> list[str]:
    """The names of the patterns that match outside the spans which the de-identifier put in itself."""
    found = []
    for name, pattern in STRUCTURED.items():
        for match in pattern.finditer(text):
            if not any(start < match.end() and match.start() < end for start, end in replaced):
                found.append(name)
                break
    return found


def known_hits(text: str, identities: Sequence[tuple[str, str]]) -> list[str]:
    """The kinds of the study's own identities that are still in its text."""
    found = []
    for kind, value in identities:
        upper = kind.upper()
        if upper not in IGNORED and any(pattern.search(text) for pattern in _patterns(upper, value.strip())):
            found.append(upper)
    return sorted(set(found))


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
        if len(part) >= SHORTEST and part.lower() not in _words():
            yield _phrase(f"{re.escape(part.capitalize())}|{re.escape(part)}", 0)


@cache
def _words() -> frozenset[str]:
    """Words of radiology and of everyday English that are names too: alone they prove nothing."""
    from components.reports.lexicon import words

    return frozenset(words("ambiguous")) | frozenset(words("stop"))


def _day(value: str) -> date | None:
    for form in DATE_INPUTS:
        try:
            return datetime.strptime(value, form).date()  # a day has no time zone
        except ValueError:
            continue
    return None


def spans_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """The replaced spans by study from rows of the audit table."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        spans.setdefault(row["study_key"], []).append((row["start"], row["end"]))
    return spans
