"""What stands at the edges of names and institutions: posts, wards and labels stay, particles and genitives go."""

from __future__ import annotations

import pytest

from components.reports.deid.engine import Deidentifier
from components.reports.deid.span import StudyContext

deidentify = Deidentifier()

STAYS = (
    ("Requested by: Penrose, Sarah (Dr)     Location: MAU\nExam: CT thorax", "MAU"),
    ("Requested by: Penrose, Sarah (Dr)     Location: MAU\nExam: CT thorax", "(Dr)"),
    ("Requesting Dr : Tarek Mansour\nClinic : Pulmonology\nNo effusion.", "Pulmonology"),
    ("Reported: Niall Fitzgibbon (SpR)\nNo effusion.", "(SpR)"),
    ("Patient: Wisniewski, Torben, geb. 15.09.2003\nKein Erguss.", "geb"),
    ("Zuweiser: Markus Temmel, Interne Ambulanz\nUntersuchung: CT Abdomen", "Interne Ambulanz"),
    ("Name: Venkatesh Goud  Hosp ID: MR21164324\nNo effusion.", "Hosp ID"),
    ("1. 7 MM PART-SOLID NODULE. FOLLOW-UP CT IN 3 MONTHS.", "NODULE. FOLLOW-UP CT IN 3 MONTHS"),
    ("Ward: 4B     Age: 34\nNo effusion.", "4B"),
    ("There is a St. Jude valve in place.", "St. Jude valve"),
    ("Reviewed by ER, then discussed with ID.", "ER, then discussed with ID"),
    ("The report was read by MR on call.", "MR"),
)
GOES = (
    ("Compared with films from St. Luke's Global, the nodule is stable.", "St. Luke"),
    ("Operiert in Bruck an der Mur, seither stabil.", "an der"),
    ("CT head normal. Report to follow from HA.", "HA"),
    ("Images discussed with JT at 10.", "JT"),
    ("Tumor board 3/5 with Tess Holloway.", "3/5"),
    ("Episode PET-34-4771 is filed.", "PET-34-4771"),
    ("Her home is 18 Jalan Kembangan, near the market.", "Kembangan"),
    ("Chute chemin du Moulin, Brignais, hier.", "chemin du Moulin"),
)


@pytest.mark.parametrize(("text", "kept"), STAYS)
def test_what_is_no_name_at_an_edge_stays(text: str, kept: str) -> None:
    assert kept in deidentify(text, StudyContext()).text


@pytest.mark.parametrize(("text", "gone"), GOES)
def test_what_belongs_between_or_before_goes(text: str, gone: str) -> None:
    assert gone not in deidentify(text, StudyContext()).text


@pytest.mark.parametrize(("text", "kept"), STAYS)
def test_the_name_beside_an_edge_still_goes(text: str, kept: str) -> None:
    names = ("Penrose", "Mansour", "Fitzgibbon", "Wisniewski", "Temmel", "Venkatesh")
    written = deidentify(text, StudyContext()).text
    assert not [name for name in names if name in written]
