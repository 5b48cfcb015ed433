"""Known PHI survives in no spelling, whatever stands around it; another study's values change nothing."""

from __future__ import annotations

import re
import unicodedata
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.reports.deid.engine import Deidentifier
from components.reports.deid.known import spellings
from components.reports.deid.note import fold
from components.reports.deid.span import StudyContext

deidentify = Deidentifier()
GIVEN = ("Zsófia", "İbrahim", "Søren", "Anne-Marie", "Jürgen", "Thuỷ", "Łukasz", "Íñigo", "O'Malley", "Işıl")
FAMILY = (
    "Müllerová",
    "Strauß",
    "Jørgensen",
    "Gökçe",
    "Nguyễn",
    "D'Angelo",
    "Wójcikiewicz",
    "Åkesson",
    "Kowalczyk",
    "Ibáñez",
)
BEFORE = ("The scan of ", "FINDINGS: Seen with ", "reviewed by ", "\n", "prior of ", "(")
AFTER = (" was compared.", "\nNormal.", ", unchanged", "'s prior study", ").", " 3 cm nodule")


def _letters(text: str) -> str:
    return re.sub(r"[\W_]+", "", fold(text).lower())


def _spread(word: str, step: int) -> str:
    return " ".join(word[k : k + step] for k in range(0, len(word), step))


NAME_FORMS = {
    "as it is": lambda g, f: f"{g} {f}",
    "swapped": lambda g, f: f"{f}, {g}",
    "no comma": lambda g, f: f"{f} {g}",
    "caret": lambda g, f: f"{f}^{g}",
    "capitals": lambda g, f: f"{g} {f}".upper(),
    "lower case": lambda g, f: f"{g} {f}".lower(),
    "plain letters": lambda g, f: f"{fold(g)} {fold(f)}",
    "decomposed": lambda g, f: unicodedata.normalize("NFD", f"{g} {f}"),
    "initial": lambda g, f: f"{g[0]}. {f}",
    "initial after": lambda g, f: f"{f}, {g[0]}.",
    "glued": lambda g, f: f"{g}{f}",
    "line break": lambda g, f: f"{g}\n{f}",
    "broken word": lambda g, f: f"{g} {_spread(f, 4)}",
    "hyphenated at the end of a line": lambda g, f: f"{g} {f[:4]}-\n{f[4:]}",
    "possessive": lambda g, f: f"{g} {f}'s",
    "family name": lambda g, f: f,
    "invisible": lambda g, f: f"{g[0]}\u200b{g[1:]} {f}",
}


@settings(max_examples=150, deadline=None)
@given(*(st.sampled_from(x) for x in (GIVEN, FAMILY, sorted(NAME_FORMS), BEFORE, AFTER)))
def test_no_spelling_of_a_name_survives(
    given_name: str, family: str, form: str, before: str, after: str
) -> None:
    study = StudyContext((("PATIENT", f"{family}^{given_name}"),))
    text = deidentify(before + NAME_FORMS[form](given_name, family) + after, study).text
    assert _letters(family) not in _letters(text), text


@pytest.mark.parametrize(
    ("known", "written"),
    [
        ("Müller^Jörg", "Joerg Mueller"),
        ("Mueller^Joerg", "Jörg Müller"),
        ("Strauß^Ida", "Ida Strauss"),
        ("Strauss^Ida", "IDA STRAUß"),
        ("Sørensen^Bo", "Bo Soerensen"),
        ("Soerensen^Bo", "Bo Sørensen"),
        ("Åkesson^Lars", "Lars Aakesson"),
        ("Yıldız^Işıl", "ISIL YILDIZ"),
        ("YILDIZ^ISIL", "Işıl Yıldız"),
        ("Smith^John^Robert", "John R. Smith"),
        ("Smith^John^Robert", "J. R. Smith"),
        ("Smith^John^Robert", "Smith, John R"),
        ("Zaborowska^Ewa", "E.Z."),
        ("Garcia-Lopez^Ana", "Ana Garcialopez"),
    ],
)
def test_letters_written_out_and_initials(known: str, written: str) -> None:
    result = deidentify(f"The scan of {written} was compared.", StudyContext((("PATIENT", known),)))
    assert result.text.replace("].", "]") == "The scan of [PATIENT] was compared."
    assert len(spellings("Müller")) > 1


SEPARATORS = st.sampled_from(("", "-", " ", ".", "/", " - ", "\n", "\u2013", "\u200b"))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(10_000, 99_999_999),
    st.lists(SEPARATORS, min_size=8, max_size=8),
    st.sampled_from(("", "MRN", "mrn ", "# ")),
)
def test_no_spelling_of_a_number_survives(number: int, gaps: list[str], label: str) -> None:
    digits = str(number)
    written = "".join(digit + gap for digit, gap in zip(digits, [*gaps[: len(digits) - 1], ""]))
    study = StudyContext((("MRN", f"MR-{number:08d}"),))
    text = deidentify(f"Prior of {label}{written} was seen", study).text
    assert digits not in _letters(text), text


DATE_FORMS = (
    *(
        "%Y-%m-%d",
        "%d.%m.%Y",
        "%m/%d/%Y",
        "%m/%d/%y",
        "%Y%m%d",
        "%d%m%Y",
        "%d-%b-%Y",
        "%B %d, %Y",
        "%d %B %Y",
    ),
    *(
        "%b %d %y",
        "%d/%m/%Y",
        "%Y/%m/%d",
        "%d. %B %Y",
        "%dth of %B %Y",
        "%B %Y",
        "%m/%Y",
        "%Y-%m-%dT%H:%M:%S",
    ),
    *("%A, %B %d, %Y", "%d%b%Y", "%d %b '%y", "%Y.%m.%d", "%m-%d-%Y"),
)


@settings(max_examples=200, deadline=None)
@given(st.dates(date(1930, 1, 1), date(2029, 12, 31)), st.sampled_from(DATE_FORMS))
def test_no_form_of_a_date_survives(day: date, form: str) -> None:
    study = StudyContext((("DATE", day.isoformat()),))
    text = deidentify(f"Compared with the study of {day.strftime(form)} there is no change.", study).text
    rest = text.replace("[DATE]", "")
    assert str(day.year) not in rest, text
    assert not re.search(r"\d", rest) or re.search(r"[T ]\d\d:\d\d", rest), text


@settings(max_examples=60, deadline=None)
@given(*(st.sampled_from(x) for x in (GIVEN, FAMILY, GIVEN, FAMILY)))
def test_another_studys_values_change_nothing(
    given_a: str, family_a: str, given_b: str, family_b: str
) -> None:
    text = f"Patient: {family_a}, {given_a}\nFINDINGS: A 4 mm nodule. Discussed with Dr. Roe."
    study = StudyContext((("PATIENT", f"{family_a}^{given_a}"),))
    alone = Deidentifier()(text, study)
    shared = Deidentifier()
    shared(
        f"Patient: {family_b}, {given_b}. MRN 1234567", StudyContext((("PATIENT", f"{family_b}^{given_b}"),))
    )
    assert shared(text, study) == alone
