"""Dates moved by one keyed offset a patient, in DICOM's own forms: the same days as in the patient's reports.

No header passes on from `ingest` (volumes become NIfTI without dates, the manifest has age bands), so nothing there
can disagree with a report. Who writes headers of their own calls `shift_header` with `patient_offset`.
Value representations DA and DT: DICOM PS3.5, table 6.2-1.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError
from components.base.keys import KeyRing

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LEAST_DAYS, MOST_DAYS = 184, 730
_YEARLY = frozenset(days + turn for days in (365, 730, 1096, 1461) for turn in range(-2, 4))
_DA = re.compile(r"(\d{4})(\d{2})(\d{2})")
_DT = re.compile(r"(\d{4})(?:(\d{2})(?:(\d{2})((?:\d{2}){0,3}(?:\.\d{1,6})?)?)?)?([+-]\d{4})?")


def patient_offset(ring: KeyRing, patient_key: str, least: int = LEAST_DAYS, most: int = MOST_DAYS) -> int:
    """The days by which all dates of a patient move: -`most` to -`least`, keyed, never close to whole years.

    At least half a year, so that a lone month or a lone year changes too; never about whole years, so that a
    day and month without a year changes.
    """
    choices = [days for days in range(least, most + 1) if days % 1461 not in _YEARLY and days % 1461 > 3]
    return -choices[ring.seed("date-shift", patient_key) % len(choices)]


def shift_date(value: str, days: int) -> str:
    """A DICOM date or date-time (DA, DT) moved by `days`; a missing month or day stays missing.

    Raises `InputError` (without the value) for what is neither: it must not pass.
    """
    text = value.strip()
    if not text:
        return value
    if "-" in text and (parts := text.split("-")) and all(not p or _DA.fullmatch(p) for p in parts):
        return "-".join(shift_date(part, days) if part else "" for part in parts)  # a range of a query
    match = _DT.fullmatch(text.replace(".", "") if re.fullmatch(r"\d{4}\.\d\d\.\d\d", text) else text)
    if match is None:
        raise _malformed()
    year, month, day, clock, zone = match.groups()
    try:
        middle = date(int(year), int(month or 7), int(day or (15 if month else 2)))
        moved = middle + timedelta(days)
    except (ValueError, OverflowError):
        raise _malformed() from None
    shown = (
        f"{moved.year:04d}" + (f"{moved.month:02d}" if month else "") + (f"{moved.day:02d}" if day else "")
    )
    return shown + (clock or "") + (zone or "")


def shift_header(dataset: Dataset, days: int) -> None:
    """Move every date and date-time of a data set in place, in nested sequences too; times of day stay."""
    for element in dataset.iterall():
        if element.VR not in ("DA", "DT") or element.value in (None, ""):
            continue
        values: Any = element.value if element.VM > 1 else [element.value]
        moved = [shift_date(str(value), days) for value in values]
        element.value = moved if element.VM > 1 else moved[0]


def _malformed() -> InputError:
    return InputError(
        "a header holds a date that is none",
        rule="dicom.date",
        fix="correct the header at its source, or leave the study out",
    )
