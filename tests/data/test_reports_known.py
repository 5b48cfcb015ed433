"""Known PHI: every spelling of a study's identities is found, words that merely look alike are not."""

from __future__ import annotations

import pytest

from components.reports.deid.engine import Deidentifier, restore
from components.reports.deid.known import KnownPhi
from components.reports.deid.note import Note
from components.reports.deid.span import StudyContext

IDENTITIES = (
    ("PATIENT", "Çelik^Ayşe Nur"),
    ("PATIENT", "O'Neill-Garcia, Maria"),
    ("STAFF", "Dr. Peter White"),
    ("MRN", "MR-0048291"),
    ("ACCESSION", "CT2019004821"),
    ("DATE", "2019-03-14"),
    ("HOSPITAL", "St. Brigid Medical Center"),
)
STUDY = StudyContext(IDENTITIES)


def found(text: str, study: StudyContext = STUDY) -> list[str]:
    note = Note(text)
    return [text[slice(*note.raw_span(s.start, s.end))] for s in KnownPhi().detect(note, study)]


@pytest.mark.parametrize(
    "spelling",
    [
        "Ayşe Nur Çelik",
        "CELIK, AYSE NUR",
        "celik ayse nur",
        "Ayşe Çelik",
        "A. Çelik",
        "Çelik, A.",
        "çelik",
        "CELIKAYSENUR".lower(),
        "Maria O'Neill-Garcia",
        "oneill garcia maria",
        "O\u2019NEILL\u2013GARCIA",
        "M. Garcia",
        "Garcia",
        "Peter White",
        "WHITE^PETER",
        "P. White",
        "MR-0048291",
        "MR0048291",
        "0048291",
        "48291",
        "ct2019004821",
        "2019004821",
        "CT-2019004821",
        "2019-03-14",
        "14.03.2019",
        "3/14/19",
        "03/14/2019",
        "20190314",
        "14-MAR-2019",
        "March 14, 2019",
        "14th of March",
        "14 Mart 2019",
        "Mar 14",
        "St. Brigid Medical Center",
        "ST BRIGID MEDICAL CENTER",
        "Ay\u200bse Nur Ce\u0327lik",
    ],
)
def test_every_spelling_is_found(spelling: str) -> None:
    text = f"Seen again was {spelling} for follow-up."
    result = Deidentifier()(text, STUDY)
    assert "[" in result.text
    kept = result.text.removeprefix("Seen again was ").removesuffix(" for follow-up.")
    assert not any(char.isalnum() for char in kept.replace("CT-", "").split("[")[0]), result.text
    assert kept.startswith("[") or kept.startswith("CT-[")
    assert kept.rstrip(".").endswith("]")
    assert restore(result.text, result.changes) == text


def test_a_name_that_is_a_word_needs_a_sign_of_a_person() -> None:
    assert found("White matter is normal. There is white matter disease.") == []
    assert found("Discussed with Dr. White at noon; White agreed.") == ["White"] or "White" in found(
        "Discussed with Dr. White."
    )


def test_initials_need_capitals() -> None:
    assert found("a white area and p white noise") == []
    assert found("reviewed with P. White today") == ["P. White"]


def test_age_and_sex_are_not_looked_up() -> None:
    assert found("A 45 year old F", StudyContext((("AGE", "45"), ("SEX", "F")))) == []


def test_blank_values_find_nothing() -> None:
    assert (
        found(
            "Normal chest CT.", StudyContext((("PATIENT", "  "), ("MRN", ""), ("DATE", "not a date at all")))
        )
        == []
    )


def test_another_studys_identities_do_not_matter() -> None:
    text = "Compared with the report of Xiomara Quispe."
    assert found(text, STUDY) == []
