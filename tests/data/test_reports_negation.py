"""Opposite sentences both ways: labels, hedges, lists, clauses, normal words; and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.reports.findings import polarity
from components.reports.negation import affirm, negate, opposite


@pytest.mark.parametrize(
    ("sentence", "denied"),
    [
        ("Possible small effusion.", "No small effusion."),
        ("A small effusion cannot be excluded.", "No small effusion is present."),
        ("Nodules and atelectasis in both lungs.", "No nodules or atelectasis in both lungs."),
        ("Emphysema without bullae.", "No emphysema."),
        ("Heart is enlarged.", "Heart is not enlarged."),
        ("The nodule has increased in size.", "The nodule has not increased in size."),
        ("Scattered nodules are stable.", "No scattered nodules are stable."),
        ("The mass abuts the aorta.", "The mass does not abut the aorta."),
        (
            "The heart is enlarged; there is a small effusion.",
            "The heart is not enlarged; there is no small effusion.",
        ),
        ("Heart: enlarged.", "Heart: not enlarged."),
        ("Pleura: effusion is present.", "Pleura: no effusion is present."),
        ("THE HEART IS ENLARGED.", "THE HEART IS NOT ENLARGED."),
        ("No effusion.", "Effusion is present."),
        ("The liver is abnormal.", "The liver is normal."),
        ("Opacity may represent pneumonia.", "No opacity is pneumonia."),
    ],
)
def test_negate(sentence: str, denied: str) -> None:
    assert negate(sentence) == denied


@pytest.mark.parametrize(
    ("sentence", "affirmed"),
    [
        ("The lungs are clear.", "The lungs are not clear."),
        ("The liver is unremarkable.", "The liver is abnormal."),
        ("Normal heart size.", "Abnormal heart size."),
        ("Clear lungs.", "Lungs are not clear."),
        ("Heart size is within normal limits.", "Heart size is abnormal."),
        ("No effusion or pneumothorax.", "Effusion and pneumothorax are present."),
        ("Neither effusion nor nodule is seen.", "Effusion and nodule are present."),
        (
            "No enlarged lymph nodes in the mediastinum.",
            "Enlarged lymph nodes in the mediastinum are present.",
        ),
        ("The lungs are free of consolidation.", "The lungs show consolidation."),
        ("The effusion has resolved.", "The effusion is present."),
        ("The lungs show no consolidation.", "The lungs show consolidation."),
        ("No fracture; no lytic lesion.", "Fracture is present; lytic lesion is present."),
        ("NO PLEURAL EFFUSION", "PLEURAL EFFUSION IS PRESENT."),
        ("Pleura: clear.", "Pleura: not clear."),
        ("Mediastinum is midline.", "Mediastinum is not midline."),
        ("Bones are intact.", "Bones are not intact."),
        ("1. No effusion.", "Effusion is present."),
    ],
)
def test_affirm(sentence: str, affirmed: str) -> None:
    assert affirm(sentence) == affirmed


SUBJECTS = st.sampled_from(
    ["pleural effusion", "nodule", "consolidation", "lymphadenopathy", "hiatal hernia"]
)
ORGANS = st.sampled_from(["heart", "aorta", "spleen", "liver"])


@given(ORGANS, st.sampled_from(["enlarged", "dilated", "calcified", "abnormal"]))
def test_round_trip_of_a_property(organ: str, word: str) -> None:
    sentence = f"The {organ} is {word}."
    if word != "abnormal":
        assert affirm(negate(sentence)) == sentence
    assert negate(negate(sentence)) == sentence


@given(SUBJECTS, st.sampled_from(["No {}.", "There is no {}.", "No {} is seen.", "No evidence of {}."]))
def test_round_trip_of_a_denial(subject: str, form: str) -> None:
    sentence = form.format(subject)
    positive = affirm(sentence)
    assert polarity(positive) == "positive"
    assert polarity(negate(positive)) == "negative"
    assert opposite(sentence, "negative") == positive


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("abNo is are not no The ,;.:-1()?\n"), max_size=60))
def test_never_equal_and_never_empty(text: str) -> None:
    for turn in (negate, affirm):
        found = turn(text)
        if any(char.isalnum() for char in text):
            assert found.strip()
            assert found != text
