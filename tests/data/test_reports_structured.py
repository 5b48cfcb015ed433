"""Structured reports: region and polarity of each statement, sub-sections, and what the stage writes."""

from __future__ import annotations

import itertools

import pytest

from components.reports.section import analyse
from components.reports.structured import REGION_NAMES, clauses, statements, structured_reports
from components.reports.subsections import Subsection, subsection_of, subsections

REPORT = """EXAM: CT chest.

FINDINGS:
LUNGS AND AIRWAYS: No consolidation, but a small nodule is seen in the left upper lobe. Emphysema without bullae.
PLEURA: Clear.
HEART
Normal.

BONES: 1. Fracture of T5. 2. No lytic lesion.
The liver is unremarkable. Follow-up is advised.

IMPRESSION:
1. Left upper lobe nodule.
2. No effusion; mild atelectasis.
"""


def rows(text: str = REPORT) -> list[dict]:
    return analyse("stu_1", text, ("findings", "impression"))["structured"]


def said(region: str, polarity: str, section: str = "findings") -> list[str]:
    wanted = (region, polarity, section)
    return [row["text"] for row in rows() if (row["region"], row["polarity"], row["section"]) == wanted]


def test_statements_by_region_and_polarity() -> None:
    assert said("lungs", "positive") == ["A small nodule is seen in the left upper lobe.", "Emphysema."]
    assert said("lungs", "negative") == ["No consolidation.", "No bullae."]
    assert said("pleura", "negative") == ["Pleura: clear."]
    assert said("heart", "negative") == ["Normal."]
    assert said("bones", "positive") == ["Fracture of T5."]
    assert said("bones", "negative") == ["No lytic lesion."]
    assert said("abdomen", "negative") == ["The liver is unremarkable."]
    assert said("lungs", "positive", "impression") == ["Left upper lobe nodule.", "Mild atelectasis."]
    assert said("pleura", "negative", "impression") == ["No effusion."]
    assert not any("advised" in row["text"] for row in rows())


@pytest.mark.parametrize(
    ("sentence", "polarity"),
    [
        ("No gas is seen within the mass.", "negative"),
        ("There is no calcification in the nodule.", "negative"),
        ("No change in the nodule.", "positive"),
        ("No nodule but a mass.", "positive"),
        ("Gas is seen within the mass.", "positive"),
    ],
)
def test_what_is_denied_of_a_thing_is_negative(sentence: str, polarity: str) -> None:
    found = rows(f"FINDINGS: {sentence}")
    assert polarity in {row["polarity"] for row in found}
    assert len(found) == (2 if " but " in sentence else 1)


def test_rows_are_ordered_by_region_then_polarity_then_place() -> None:
    found = rows()
    ranks = [
        (REGION_NAMES.index(row["region"]), row["polarity"] == "negative", row["order"]) for row in found
    ]
    assert ranks == sorted(ranks)
    assert {row["polarity"] for row in found} == {"positive", "negative"}
    sentences = {
        row["order"]: row for row in analyse("stu_1", REPORT, ("findings", "impression"))["sentences"]
    }
    for row in found:
        assert sentences[row["order"]]["section"] == row["section"]


def test_grouped_for_the_opposite_sentence_loss() -> None:
    doubled = REPORT.replace("IMPRESSION:", "IMPRESSION:\n0. Emphysema.")
    grouped = structured_reports(rows(doubled))["stu_1"]
    assert grouped["lungs"]["positive"].count("Emphysema.") == 1
    assert "bones" not in structured_reports(rows(), ("impression",))["stu_1"]


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("No nodule or mass.", ["No nodule or mass."]),
        ("No nodule, mass, or large effusion.", ["No nodule, mass, or large effusion."]),
        ("No consolidation; small effusion.", ["No consolidation.", "Small effusion."]),
        (
            "The lungs are clear, however there is an effusion.",
            ["The lungs are clear.", "There is an effusion."],
        ),
        ("Nodule and effusion are seen.", ["Nodule and effusion are seen."]),
        ("Emphysema with no bullae.", ["Emphysema.", "No bullae."]),
        ("No nodule, and there is mild atelectasis.", ["No nodule.", "There is mild atelectasis."]),
        ("Nodule, unchanged without growth.", ["Nodule, unchanged without growth."]),
        ("", []),
    ],
)
def test_clauses_split_where_polarity_turns(sentence: str, wanted: list[str]) -> None:
    assert clauses(sentence) == wanted


def test_a_list_number_and_a_heading_are_no_part_of_a_statement() -> None:
    part = Subsection("abdomen", 3, 9, 30)
    (only,) = statements("2. LIVER: Cyst is present.", "findings", 4, part, 0)
    assert (only.region, only.polarity, only.order) == ("abdomen", "positive", 4)
    assert only.text == "Liver: cyst is present."


def test_subsections_cover_from_the_first_heading_on() -> None:
    body = "Technique is good.\nLUNGS: Clear. Liver: Normal.\nBones - none\nHEART\nNormal. L4-5: Bulge."
    found = subsections(body, 0, len(body))
    assert [part.region for part in found] == ["lungs", "abdomen", "heart", "bones"]
    assert body[found[0].heading_start : found[0].start] == "LUNGS:"
    assert found[-1].end == len(body)
    assert all(left.end == right.heading_start for left, right in itertools.pairwise(found))
    at = body.index("Normal.\nBones")
    assert subsection_of(found, at, at + 7) == found[1]
    assert subsection_of(found, 0, 5) is None


@pytest.mark.parametrize(
    ("heading", "region"),
    [
        ("Lungs", "lungs"),
        ("LUNGS/PLEURA", "lungs"),
        ("Akciğerler", "lungs"),
        ("Corazón", "heart"),
        ("Leber", "abdomen"),
        ("Poumons", "lungs"),
        ("Màng phổi", "pleura"),
        ("Liver, spleen, pancreas", "abdomen"),
    ],
)
def test_subheadings_of_other_languages_and_lists(heading: str, region: str) -> None:
    text = f"{heading}: Normal."
    assert [part.region for part in subsections(text, 0, len(text))] == [region]


def test_a_sentence_below_a_subheading_takes_its_region() -> None:
    found = analyse("k", "FINDINGS:\nSPLEEN: Enlarged.\nLUNGS: No effusion.", ("findings",))["sentences"]
    assert [row["region"] for row in found] == ["abdomen", "pleura"]
