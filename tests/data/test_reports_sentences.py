"""Sentence boundaries: `|` marks the wanted ones in hand-written cases."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.reports.sentences import sentence_spans

CASES = """
The lungs are clear. |No effusion.
There is a 1.2 cm nodule. |It is stable.
A nodule of 1.2 cm. |L4-5 shows a bulge.
Fracture of T1. |L4-5 disc bulge.
Lesion at L5. |The S1 level is normal.
Seen by Dr. Smith. |No change.
Compared with the study of Dr. J. Smith on Monday. |Stable.
Small cysts, e.g. in the liver. |Stable.
Multiple cysts (i.e. more than 10). |No stones.
No nodule vs. scar is seen. |Stable.
Nodule measures approx. 5 mm. |Stable.
1. No effusion. |2. Stable nodule. |3. Follow up in 6 months.
1.Very mild dilatation. |2.Normal appendix.
1) Nodule. |2) Effusion.
(1) Nodule is seen. |(2) Effusion is seen.
The mass measures 3.4 x 2.1 x 1.0 cm. |There is edema.
Density is 0.5. |No fat.
See fig. 3 for details. |Normal.
St. Jude valve is present. |No leak.
Is there a nodule? |No.
Stable! |No change.
Post op. changes are noted. |Stable.
Dose was 12.3 mGy. |DLP was 450.5 mGy-cm.
The heart, aorta, etc. are normal. |No effusion.
Grade II. |Stage III disease.
Images 1-3. |Series 4.
The right lobe is normal. |The left lobe is small (1.5 cm). |No mass.
"No change." |Stable.
Lung-RADS 2. |Continue annual screening.
Segment 4a. |Segment 8 is clear.
Given 100 mL Isovue-300 i.v. without reaction. |No leak.
No. 3 catheter is seen. |Stable.
There is no mass. |no effusion is seen.
Heart size normal.|The aorta is ectatic.
Findings were called at 3 p.m. on Monday. |Thanks.
Mild atrophy; no bleed. |No shift.
CT of [DATE]. |Compared with [DATE].
Effusion, 17 mm. |Nodule, 3 mm.
Nodule is 3 mm (previously 2 mm). |Stable.
Ratio of 0.53. |Heart is enlarged.
"""
LINES = [
    ("The lungs are\nclear. No mass.", ["The lungs are\nclear.", "No mass."]),
    ("No fracture\nNo effusion", ["No fracture", "No effusion"]),
    ("Normal.\n\nStable", ["Normal.", "Stable"]),
    ("- nodule\n- effusion", ["- nodule", "- effusion"]),
    ("1. Nodule\n2. Effusion\n   of 3 cm", ["1. Nodule", "2. Effusion\n   of 3 cm"]),
    (
        "The mass in the right\r\nupper lobe is 1.2\r\ncm.",
        ["The mass in the right\r\nupper lobe is 1.2\r\ncm."],
    ),
    ("LIVER:\nNormal in size.", ["LIVER:", "Normal in size."]),
    ("1.\nNodule.", ["1.\nNodule."]),
    ("...", []),
    ("", []),
]


@pytest.mark.parametrize("case", [case for case in CASES.splitlines() if case])
def test_boundaries(case: str) -> None:
    wanted = [part.strip() for part in case.split("|")]
    text = case.replace("|", "")
    assert [text[start:end] for start, end in sentence_spans(text)] == wanted


@pytest.mark.parametrize(("text", "wanted"), LINES)
def test_line_breaks(text: str, wanted: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == wanted


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("aB1. \n,;:!?()T-\r"), max_size=120))
def test_nothing_but_punctuation_is_lost(text: str) -> None:
    spans = sentence_spans(text)
    assert all(start < end for start, end in spans)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(spans))
    outside = list(text)
    for start, end in spans:
        outside[start:end] = [""] * (end - start)
    assert not any(char.isalnum() for char in outside)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # the quick way must agree with the slow one: short words, capitals, numbers, the numbers of items
        ("Small effusion is 12 mm. 2 nodules are seen.", ["Small effusion is 12 mm.", "2 nodules are seen."]),
        ("The nodule is 5 cm. It is new.", ["The nodule is 5 cm.", "It is new."]),
        ("Mild Emphysema. None else.", ["Mild Emphysema.", "None else."]),
        ("IV. Contrast was given.", ["IV. Contrast was given."]),
        ("viii. No effusion.", ["viii.", "No effusion."]),
        ("Seen by Dr. Graves. No effusion.", ["Seen by Dr. Graves.", "No effusion."]),
        ("Effusion (see no. 3).\n\nNo nodule.\n", ["Effusion (see no. 3).", "No nodule."]),
        ("No effusion.\n", ["No effusion."]),
        ("No effusion!?", ["No effusion!?"]),
    ],
)
def test_usual_ends_are_told_quickly(text: str, wanted: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == wanted
