"""Moved dates (D9): one offset a patient, intervals to the day, in every form, the same in DICOM headers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta

import pytest

from components.base.errors import InputError
from components.base.keys import KeyRing
from components.cohort.dicom.shift import patient_offset, shift_date, shift_header
from components.reports.deid.dates import MONTHS
from components.reports.deid.shift import DateContext, context_of, shift_text, widen
from components.reports.deid.surrogates.calendars import calendar, month_names

RING = KeyRing(b"a" * 32)
ENGLISH = calendar()["en"]


def month(language: str, day: date, key: str = "months") -> str:
    return str(calendar()[language][key][day.month - 1])


def ordinal(number: int) -> str:
    return f"{number}{'th' if number in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


FORMS: dict[str, Callable[[date], str]] = {
    "iso": lambda d: d.isoformat(),
    "iso slashes": lambda d: f"{d:%Y/%m/%d}",
    "compact": lambda d: f"{d:%Y%m%d}",
    "us": lambda d: f"{d:%m/%d/%Y}",
    "us hyphens": lambda d: f"{d:%m-%d-%Y}",
    "us short year": lambda d: f"{d:%m/%d/%y}",
    "clock": lambda d: f"{d.isoformat()}T14:32:10",
    "month day year": lambda d: f"{d:%B} {d.day}, {d.year}",
    "capitals": lambda d: f"{d:%B} {d.day}, {d.year}".upper(),
    "ordinal": lambda d: f"{d:%B} {ordinal(d.day)}, {d.year}",
    "day month year": lambda d: f"{d.day} {d:%B} {d.year}",
    "oracle": lambda d: f"{d:%d}-{ENGLISH['short'][d.month - 1].upper()}-{d.year}",
    "oracle short": lambda d: f"{d:%d}-{ENGLISH['short'][d.month - 1]}-{d:%y}",
    "of": lambda d: f"{ordinal(d.day)} of {d:%B} {d.year}",
    "weekday": lambda d: f"{d:%A}, {d:%B} {d.day}, {d.year}",
    "short weekday": lambda d: f"{d:%a} {d:%m/%d/%Y}",
    "turkish": lambda d: f"{d.day} {month('tr', d)} {d.year}",
    "spanish": lambda d: f"{d.day} de {month('es', d)} de {d.year}",
    "french": lambda d: f"{d.day} {month('fr', d)} {d.year}",
    "german": lambda d: f"{d.day}. {month('de', d)} {d.year}",
    "german weekday": lambda d: (
        f"{calendar()['de']['weekdays'][d.weekday()]}, den {d.day}. {month('de', d)} {d.year}"
    ),
    "italian": lambda d: f"{d.day} {month('it', d)} {d.year}",
    "portuguese": lambda d: f"{d.day} de {month('pt', d)} de {d.year}",
    "dutch": lambda d: f"{d.day} {month('nl', d)} {d.year}",
    "polish": lambda d: f"{d.day} {month('pl', d)} {d.year}",
    "vietnamese": lambda d: f"ngày {d.day} tháng {d.month} năm {d.year}",
    "vietnamese short": lambda d: f"{d.day} tháng {d.month} {d.year}",
}
DAY_FIRST: dict[str, Callable[[date], str]] = {
    "eu points": lambda d: f"{d:%d.%m.%Y}",
    "eu slashes": lambda d: f"{d:%d/%m/%Y}",
    "eu short": lambda d: f"{d:%d.%m.%y}",
}
PARTIAL: dict[str, Callable[[date], str]] = {
    "month year": lambda d: f"{d:%B} {d.year}",
    "month short year": lambda d: f"{ENGLISH['short'][d.month - 1]} '{d:%y}",
    "number year": lambda d: f"{d:%m/%Y}",
    "year month": lambda d: f"{d:%Y-%m}",
    "year": lambda d: f"{d.year}",
    "short year": lambda d: f"'{d:%y}",
}


def language_of(form: str) -> dict[str, int]:
    names = {"turkish": "tr", "spanish": "es", "french": "fr", "german": "de", "german weekday": "de"}
    names |= {"italian": "it", "portuguese": "pt", "dutch": "nl", "polish": "pl"}
    return {names[form]: 1} if form in names else {}


def violations(count: int, seed: int) -> list[str]:
    """What is wrong among `count` random dates of random patients, two forms of two dates each."""
    rng, wrong = random.Random(seed), []
    for number in range(count):
        days = patient_offset(RING, f"pat_{number}")
        reference = date(2024, 12, 31)
        one = date(1990, 1, 1) + timedelta(rng.randrange(12_700))
        if rng.random() < 0.05:
            one = date(rng.choice([1992, 2000, 2012, 2016, 2024]), 2, 29)
        new = one + timedelta(days)
        form = rng.choice(sorted(FORMS))
        context = DateContext(
            days, "mdy", reference=reference, languages=language_of(form), plain_letters=False
        )
        found = shift_text(FORMS[form](one), context)
        wrong += [f"{form} {one}: {found}"] if found is None or found[0] != FORMS[form](new) else []
        form = rng.choice(sorted(DAY_FIRST))
        found = shift_text(DAY_FIRST[form](one), DateContext(days, "dmy", reference=reference))
        wrong += [f"{form} {one}: {found}"] if found is None or found[0] != DAY_FIRST[form](new) else []
        form = rng.choice(sorted(PARTIAL))
        written = PARTIAL[form](one)
        middle = (
            date(one.year, 7, 2) if "month" not in form and form != "number year" else one.replace(day=15)
        )
        found = shift_text(written, DateContext(days, reference=reference))
        want = PARTIAL[form](middle + timedelta(days))
        if form == "month short year" and one.month == 5:  # `May` may be the full form too
            want = f"{middle + timedelta(days):%B '%y}"
        wrong += [f"{form} {one}: {found}"] if found is None or found[0] != want or want == written else []
        if shift_date(f"{one:%Y%m%d}", days) != f"{new:%Y%m%d}":
            wrong.append(f"dicom {one}")
        yearless = f"{one:%B} {one.day}"
        if (one.month, one.day) != (2, 29):
            moved = one.replace(year=reference.year) + timedelta(days)
            found = shift_text(yearless, DateContext(days, reference=reference))
            want = f"{moved:%B} {moved.day}"
            wrong += (
                [f"yearless {one}: {found}"] if found is None or found[0] != want or want == yearless else []
            )
    return wrong


def test_a_thousand_dates_in_every_form() -> None:
    assert violations(1000, 5) == []


@pytest.mark.slow
def test_ten_thousand_dates() -> None:
    assert violations(10_000, 2028) == []


def test_every_form_once_on_leap_days() -> None:
    for one in (date(2016, 2, 29), date(2020, 2, 29), date(2000, 2, 29), date(2019, 12, 31)):
        for form, write in FORMS.items():
            context = DateContext(-200, reference=one, languages=language_of(form), plain_letters=False)
            assert shift_text(write(one), context) == (write(one - timedelta(200)), ""), form


def test_an_offset_is_the_patients_and_the_keys() -> None:
    offsets = {patient_offset(RING, f"pat_{number}") for number in range(3000)}
    assert all(-730 <= days <= -184 for days in offsets)
    assert not {days for days in offsets if 363 <= -days <= 368}
    assert len(offsets) > 500
    assert patient_offset(RING, "pat_1") == patient_offset(RING, "pat_1")
    differ = [
        patient_offset(RING, f"p{n}") != patient_offset(KeyRing(b"b" * 32), f"p{n}") for n in range(200)
    ]
    assert sum(differ) > 190


@pytest.mark.parametrize(
    ("others", "known", "order", "detail"),
    [
        ([], ["2015-03-04"], "mdy", "mdy by a known date"),
        ([], ["2015-04-03"], "dmy", "dmy by a known date"),
        (["25/12/2014"], [], "dmy", "dmy by the note"),
        (["12/25/2014"], [], "mdy", "mdy by the note"),
        (["25.12.2014"], [], "mdy", "mdy by the policy"),
        ([], [], "mdy", "mdy by the policy"),
    ],
)
def test_an_ambiguous_date_is_read_by_evidence(
    others: list[str], known: list[str], order: str, detail: str
) -> None:
    days = [date.fromisoformat(day) for day in known]
    context = context_of(-200, "mdy", "", ["03/04/2015", *others], days)
    form = "%m/%d/%Y" if order == "mdy" else "%d/%m/%Y"
    moved = datetime.strptime("03/04/2015", form) - timedelta(200)
    assert shift_text("03/04/2015", context) == (f"{moved:{form}}", detail)


def test_points_mean_the_day_first_and_the_policy_decides_the_rest() -> None:
    assert shift_text("03.04.2015", DateContext(-200)) == ("15.09.2014", "dmy by the separator")
    assert shift_text("03/04/2015", DateContext(-200, "dmy")) == ("15/09/2014", "dmy by the policy")
    assert shift_text("03/03/2015", DateContext(-200)) == ("08/15/2014", "")


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("3/4/2015", "8/16/2014"),
        ("03/04/15", "08/16/14"),
        ("May 5, 2021", "October 17, 2020"),
        ("05-MAY-2021", "17-OCT-2020"),
        ("Sept. 9, 2021", "Feb. 21, 2021"),
        ("2019-03-04, 2019-03-05", "2018-08-16, 2018-08-17"),
        ("20190304_143210", "20180816_143210"),
        ("201903041432", "201808161432"),
        ("1er mars 2019", "13 août 2018"),
        ("4 Mart 2019", "16 Ağustos 2018"),
        ("4 MART 2019", "16 AĞUSTOS 2018"),
        ("1st of January 2020", "15th of June 2019"),
        ("04032019", "09152018"),
        ("Mon 3/4/2019", "Thu 8/16/2018"),
        ("03/04/2019 (Monday)", "08/16/2018 (Thursday)"),
        ("2019年3月4日", "2018年8月16日"),
        ("04 03 2019", "09 15 2018"),
        ("4 března 2019", "16 srpna 2018"),
        ("4. maaliskuuta 2019", "16. elokuuta 2018"),
        ("Mar 4, 19", "Aug 16, 18"),
        ("4 Mar 19", "16 Aug 18"),
        ("2019 March", "2018 August"),
    ],
)
def test_forms_are_kept(text: str, want: str) -> None:
    languages = (
        {"fr": 1} if "mars" in text else {"tr": 1} if "ar" in text.lower()[2:] and "2019" in text else {}
    )
    found = shift_text(
        text, DateContext(-200, reference=date(2021, 12, 31), languages=languages, plain_letters=False)
    )
    assert found is not None
    assert found[0] == want


@pytest.mark.parametrize(
    "text", ["13/13/2015", "the day after", "32 March 2019", "Feb 3, 4 and 5, 2019", "March 40", "17", ""]
)
def test_what_cannot_be_read_is_not_moved(text: str) -> None:
    assert shift_text(text, DateContext(-200)) is None


def test_a_day_and_month_take_the_year_of_the_last_one_before_the_reference() -> None:
    context = DateContext(-200, reference=date(2020, 3, 15))
    assert shift_text("March 1", context) == (
        "August 14",
        "year from the reference date",
    )  # 2020: over a leap day
    assert shift_text("March 20", context) == ("September 1", "year from the reference date")  # 2019
    assert shift_text("Feb 29", context) == ("Aug 13", "year from the reference date")


def test_every_month_that_is_detected_can_be_moved() -> None:
    assert set(MONTHS) <= set(month_names())
    for name, number in MONTHS.items():
        assert number in {option.number for option in month_names()[name]}, name


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("seen Monday, 3/4/2019 at noon", "Monday, 3/4/2019"),
        ("on Thu. 3/4/2019 (Thursday).", "Thu. 3/4/2019 (Thursday)"),
        ("Montag, den 3/4/2019", "Montag, den 3/4/2019"),
        ("so 3/4/2019 it is", "3/4/2019"),
        ("Monday.\n3/4/2019", "3/4/2019"),
    ],
)
def test_a_weekday_beside_a_date_belongs_to_it(text: str, want: str) -> None:
    start = text.index("3/4")
    first, last = widen(text, start, start + 8, 0, len(text))
    assert text[first:last] == want


def test_a_weekday_keeps_its_neighbours_bounds() -> None:
    text = "Monday, 3/4/2019"
    assert widen(text, 8, 16, 3, 16) == (8, 16)


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("20190304", "20180816"),
        ("20190304143210.123456+0100", "20180816143210.123456+0100"),
        ("201903", "201808"),
        ("2019", "2018"),
        ("2019.03.04", "20180816"),
        ("20190304-20190305", "20180816-20180817"),
        ("20190304-", "20180816-"),
        ("", ""),
    ],
)
def test_dicom_dates_and_times(value: str, want: str) -> None:
    assert shift_date(value, -200) == want


@pytest.mark.parametrize("value", ["20191304", "yesterday", "2019-03-04x", "00000000"])
def test_a_dicom_date_that_is_none_never_passes(value: str) -> None:
    with pytest.raises(InputError) as refused:
        shift_date(value, -200)
    assert value not in str(refused.value)


def test_headers_move_with_the_report() -> None:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    header, inner = Dataset(), Dataset()
    header.StudyDate, header.PatientBirthDate, header.StudyTime = "20190304", "19481231", "143210"
    header.AcquisitionDateTime = "20190304143210"
    header.DateOfLastCalibration = ["20190101", "20190201"]
    inner.DateOfSecondaryCapture = "20190305"
    header.RequestAttributesSequence = Sequence([inner])
    days = patient_offset(RING, "pat_7")
    shift_header(header, days)
    moved = date(2019, 3, 4) + timedelta(days)
    text = shift_text("March 4, 2019", DateContext(days))
    assert text is not None
    assert datetime.strptime(text[0], "%B %d, %Y").date() == moved
    assert header.StudyDate == f"{moved:%Y%m%d}"
    assert header.AcquisitionDateTime == f"{moved:%Y%m%d}143210"
    assert header.StudyTime == "143210"
    assert inner.DateOfSecondaryCapture == f"{moved + timedelta(1):%Y%m%d}"
    assert list(header.DateOfLastCalibration) == [
        f"{date(2019, month, 1) + timedelta(days):%Y%m%d}" for month in (1, 2)
    ]
    born = datetime.strptime(str(header.PatientBirthDate), "%Y%m%d").date()
    assert moved - born == date(2019, 3, 4) - date(1948, 12, 31)
    assert not re.search("2019", str(header.StudyDate))
