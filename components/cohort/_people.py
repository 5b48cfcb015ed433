"""What is known of a person: ages to bands, sexes to codes, and the forms in which a name may be written."""

from __future__ import annotations

import math
import re

_UNIT_YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
OLDEST_BAND = "90+"  # ages over 89 identify a person (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C))


def age_years(text: str) -> float | None:
    """Years from a number or a DICOM age string ("047Y", "18M"); None where it is neither."""
    found = re.fullmatch(r"\s*(\d{1,3}(?:\.\d+)?)\s*([YMWD]?)\s*", text.upper())
    return float(found[1]) * _UNIT_YEARS[found[2] or "Y"] if found else None


def age_band(years: float | None) -> str | None:
    """A ten-year band ("40-49"), "90+" over 89, None for an unknown or impossible age."""
    if years is None or not math.isfinite(years) or not 0 <= years <= 130:
        return None
    low = int(years) // 10 * 10
    return OLDEST_BAND if low >= 90 else f"{low}-{low + 9}"


def sex_code(text: str | None) -> str | None:
    """ "M", "F" or "O"; None for anything that is not plainly one of them."""
    word = (text or "").strip().upper()
    return {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "O": "O", "OTHER": "O"}.get(word)


def name_forms(name: str) -> list[str]:
    """A person's name as given and, for DICOM's Family^Given^Middle, in the two orders that reports use."""
    parts = [part.strip() for part in name.split("=")[0].split("^")]
    family, given = parts[0], " ".join(part for part in parts[1:3] if part)
    forms = [name.strip()]
    if family and given:
        forms += [f"{given} {family}", f"{family}, {given}"]
    return list(dict.fromkeys(form for form in forms if form))


def date_forms(date: str) -> list[str]:
    """A date as given and, for DICOM's YYYYMMDD, with dashes."""
    date = date.strip()
    forms = [date] if date else []
    if re.fullmatch(r"\d{8}", date):
        forms.append(f"{date[:4]}-{date[4:6]}-{date[6:]}")
    return forms
