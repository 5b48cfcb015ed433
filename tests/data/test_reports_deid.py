"""De-identification without known PHI: what is found, what radiology keeps, and what always holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.reports.deid.engine import Deidentifier, Refusal, Result, restore
from components.reports.deid.keep import TAG
from components.reports.deid.score import Tally, score
from components.reports.deid.span import StudyContext

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NOTHING_KNOWN = StudyContext()
deidentify = Deidentifier()

# «...» is what must go; everything else must stay.
MARKED = """
findings discussed with dr. «smith» by phone at 5 pm on «3/14/2019».
patient: «john doe-ramirez», mrn «00482913», dob «1948-02-03».
Dr.«White»/«xy» dictated this on «20190412». White matter changes are mild.
Discussed with Dr. «Graves» on «4/5/19». Graves disease is known. Mr. «Head» was seen in «'16».
Pt «Nguyễn Thị Hoa», referred by Dr. «Trần Văn Minh».
Hasta: «Ayşe Yılmaz» TCKN: «12345678901» tarih «12 Ekim 2018».
Paciente: «María-José García López», Médico: Dr. «Íñigo Núñez».
pager «p12345» or ext. «4521» call «555-123-4567».
A «94»-year-old woman. 101 mm lesion. Aged «92». Patient is a «101» y.o. male. He is 88 years old.
«ninety-one» year old female from «Mercy General Hospital», prior «Jan '16».
compared to study of «10/2017» and ct from «march 2, 2018».
electronically signed by «l. o'connor», md «12.03.2020» 14:32
The findings were called to «Sarah Whitfield» RN in the ED at 14:00.
«MILLER, JAMES T» | MRN «A-4482913» | DOB «07/04/51»
cc: «Robert Lung», MD; «hassan al-rashid», MD
Seen by «K. Andersson», PA-C. Reviewed with resident Dr. «Mark Foley». Foley catheter in place.
SSN «123-45-6789». Email «jane.roe@hosp.example.org».
IMPRESSION: STABLE. DICTATED BY: «ANNE-MARIE DUBOIS», M.D. «MAY 5, 2021».
transferred from «st. mary's hospital». Patient lives at «12 Oak Lane, Reno, NV 89501».
Accession «CT-2019-004821» Study performed «03/04/2024» at «Klinikum Großhadern».
Findings conveyed to Dr. «Patel» via secure message. «Patel» acknowledged.
MRN#«7781234» Acc:«9912345» FIN «20391-44»
COMPARISON: «Sept 2015», «2/14», and «11-2016». Prior from «Lakeview Imaging Center».
Referring: «de la Cruz, Maria». Technologist: «BJ». Resident: «Xiu Li».
PATIENT NAME: «HEAD, PRIYA»
No significant MR. Mitral inflow is normal. MR angiography. 30 ms. Somnolent patient, alert.
"""
KEPT = """
Graves disease;Hodgkin lymphoma;Crohn's disease;Baker's cyst;Foley catheter;Kerley B lines;Schmorl's nodes
Chance fracture;Colles fracture;Swan-Ganz catheter;Roux-en-Y anatomy;Whipple procedure;Chiari malformation
Dandy-Walker variant;Hounsfield units;Fleischner Society guidelines;Bosniak IIF cyst;Couinaud segment VII
Hartmann pouch;Riedel's lobe;Morison pouch;Meckel's diverticulum;Paget disease;Ewing sarcoma;Cobb angle
Pott disease;Barrett esophagus;Schatzki ring;Zenker diverticulum;Virchow node;Marfan syndrome;Wilms tumor
Ann Arbor stage;Gleason score 7;Agatston score of 245;Budd-Chiari;Lung-RADS 4A;LI-RADS 5;BI-RADS 2
PI-RADS 3;TI-RADS TR4;CAD-RADS 3;CO-RADS 5;RECIST 1.1;T1;T12-L1;L4-5;L5-S1;C5/6;T1-T2;S1 nerve root
C3 through C7;L1 compression fracture;3.4 x 2.1 cm;4.4 x 3.2 x 2.1 cm;1.5 mm;12 x 8 mm;5-7 mm
1.25 mm slices;45 HU;-12 HU;120 kVp;DLP 1045 mGy-cm;CTDIvol 12.3 mGy;100 mL of Isovue-300
75 mL Omnipaque 350;10000 units of heparin;series 4 image 102;image 33/68;(series 3, image 45)
images 12-18;axial image 57;series 2/45;SUV 5.6;segment 7/8;5/5 strength;2/3 of the vessel;grade 3/4
T2N1M0;stage IIIA;512 x 512 matrix;15 French catheter;6-12 months;in 3 months;50%;2.5-mm sections
64-slice scanner;Siemens Somatom Force;pitch of 0.9;level II nodes;station 4R;F-18 FDG;COVID-19;p53
May represent a cyst
""".replace("\n", ";")


def _unmark(line: str) -> tuple[str, list[tuple[int, int]]]:
    raw, gold = "", []
    for part in re.split(r"(«[^»]*»)", line):
        if part.startswith("«"):
            gold.append((len(raw), len(raw) + len(part) - 2))
            part = part[1:-1]
        raw += part
    return raw, gold


@pytest.mark.parametrize("line", [line for line in MARKED.splitlines() if line])
def test_phi_goes_and_the_rest_stays(line: str) -> None:
    raw, gold = _unmark(line)
    result = deidentify(raw, NOTHING_KNOWN)
    tally = score(raw, gold, [(change.old_start, change.old_end) for change in result.changes])
    assert (tally.missed, tally.extra) == (0, 0), result.text
    assert restore(result.text, result.changes) == raw


@pytest.mark.parametrize("term", [term for term in KEPT.split(";") if term])
def test_terms_of_radiology_are_kept(term: str) -> None:
    for text in (f"There is {term} on this study.", f"FINDINGS: {term}."):
        assert deidentify(text, NOTHING_KNOWN).text == text


def test_an_eponym_is_kept_even_when_it_is_the_patients_name() -> None:
    study = StudyContext((("PATIENT", "Graves^Linda"), ("STAFF", "Baker, Tom")))
    text = deidentify(
        "Ms. Graves has Graves disease and a Baker cyst. Linda Graves; seen by Dr. Baker.", study
    ).text
    assert "Graves disease" in text
    assert "Baker cyst" in text
    assert text.count("Graves") == 1
    assert text.count("Baker") == 1
    assert "Linda" not in text


def test_times_are_tagged_on_request_only() -> None:
    text = "Called at 14:32 by telephone."
    assert deidentify(text, NOTHING_KNOWN).text == text
    assert deidentify(text, StudyContext(tag_times=True)).text == "Called at [TIME] by telephone."


def test_the_tags_are_the_kinds() -> None:
    text = deidentify(
        "Mr. Okafor, MRN: 4482913, seen 3/4/2024 at Mercy General Hospital by Dr. Lindqvist, tel: "
        "555-123-4567.",
        NOTHING_KNOWN,
    ).text
    assert text == "Mr. [PATIENT], MRN: [MRN], seen [DATE] at [HOSPITAL] by Dr. [STAFF], tel: [PHONE]."


def outcome(text: str, study: StudyContext) -> Result | None:
    """The result, or None where the text's encoding is refused."""
    try:
        return deidentify(text, study)
    except Refusal as refusal:
        if refusal.rule != "deidentify.encoding":
            raise
        return None


PIECES = st.sampled_from(
    [
        "Dr. ",
        "Mr. ",
        "Smith",
        "SMITH, JOHN",
        "john doe",
        "patient: ",
        "MRN: ",
        "12345678",
        "3/4/2024",
        " on ",
        "March ",
        "'16",
        "\n",
        " ",
        ", ",
        ". ",
        "[DATE]",
        "[PATIENT]",
        "[",
        "]",
        "Foley catheter",
        "image 3/45",
        "discussed with ",
        "signed by ",
        "Hospital",
        "Mercy ",
        "St. ",
        "L4-5",
        "x1234",
        "a@b.org",
        "94",
        "-year-old",
        "\u200b",
        "é",
        "\u202e",
        "İ",
        "ß",
        "(",
        ")",
        "|",
        "^",
        "/",
        ":",
        "cc: ",
        "MD",
        "12 Oak Street",
        "tel ",
        "555-123-4567",
    ]
)


@settings(max_examples=250, deadline=None)
@given(
    st.one_of(
        st.lists(PIECES, max_size=25).map("".join),
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=120),
    )
)
def test_it_is_idempotent_and_reversible(text: str) -> None:
    study = StudyContext((("PATIENT", "Smith^John"), ("DATE", "2024-03-04"), ("MRN", "12345678")))
    result = outcome(text, study)
    if result is None:
        return
    assert deidentify(result.text, study).text == result.text
    assert restore(result.text, result.changes) == text
    for change in result.changes:
        assert TAG.fullmatch(result.text[change.new_start : change.new_end])
        assert text[change.old_start : change.old_end] == change.original


@pytest.mark.real_data
def test_annotated_ct_reports() -> None:
    source = DATA / "phi_ct_reports" / "dev.jsonl"
    if not source.exists():
        pytest.skip("the annotated reports are not beside the project (../shared/data/phi_ct_reports)")
    total = Tally()
    for row in map(json.loads, source.read_text(encoding="utf-8").splitlines()):
        changes = deidentify(row["text"], NOTHING_KNOWN).changes
        gold = [(span["start"], span["end"]) for span in row["spans"]]
        total += score(row["text"], gold, [(change.old_start, change.old_end) for change in changes])
    metrics = total.metrics()
    assert metrics["token_recall"] == 1.0
    assert metrics["token_precision"] >= 0.97
    assert metrics["over_redaction"] <= 0.005
    assert metrics["notes_with_leak"] == 0.0


@pytest.mark.real_data
def test_the_real_cohorts_texts() -> None:
    source = DATA / "sts_cohort"
    if not source.exists():
        pytest.skip("the real cohort is not beside the project (../shared/data/sts_cohort)")
    total = Tally()
    for row in map(json.loads, (source / "gold.jsonl").read_text(encoding="utf-8").splitlines()):
        text = (source / row["report"]).read_text(encoding="utf-8")
        changes = deidentify(text, NOTHING_KNOWN).changes
        total += score(
            text, [tuple(span[:2]) for span in row["spans"]], [(c.old_start, c.old_end) for c in changes]
        )
    assert total.metrics()["token_recall"] == 1.0
    assert total.metrics()["token_precision"] >= 0.97
