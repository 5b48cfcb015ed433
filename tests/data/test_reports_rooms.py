"""Notes of invented reading rooms, codes by their company and places by the frame of a sentence."""

from __future__ import annotations

import pytest

from components.reports.deid.engine import Deidentifier
from components.reports.deid.span import StudyContext
from components.reports.measuring.desk_notes import SETS, desk_notes, desks
from components.reports.measuring.evaluate import evaluate, own_detector
from components.reports.measuring.hard_notes import GoldNote

NOTHING_KNOWN = StudyContext()
deidentify = Deidentifier()

GOES = (
    ("HETU: 988811A625B is on the card.", "988811A625B"),
    ("Acquired on the new unit (asset AQ-909-3) today.", "AQ-909-3"),
    ("Workstation ID: DSMC-RAD-11", "DSMC-RAD-11"),
    ("Medicare 2955 61045 8 was given.", "2955 61045 8"),
    ("The study CT69727/2042 was reviewed.", "CT69727/2042"),
    ("Patient: Sipho Zulu (IALCH-4897905)", "IALCH-4897905"),
    ("Tube warm up delayed exam. mrn 36-25-83", "36-25-83"),
    ("Oncology was bleeped (5821) at once.", "5821"),
    ("Employer's contact: Hafiz Tan, 6956 5240.", "6956 5240"),
    ("Callback 512-711-3647 x537 please.", "x537"),
    ("Dr. Juárez Celman\nM.P. 99214 M.E. 2713", "2713"),
    ("The disc was registered here as CT1450.", "CT1450"),
    ("No change.\n\nWE:PN  D 04/16/17 T 01/05/07", "WE:PN"),
    ("LUCID SCAN CENTRE\nH.No 6-3-783, Somajiguda, Hyderabad 500082", "Somajiguda"),
    ("GEM IMAGING\n520 S Eagle Rd, Meridian, Idaho 83642", "Idaho"),
    ("She lives at 3502 Speedway Apt 11 now.", "Speedway"),
    ("Secrétariat\nSaint-Herblain, le 3 août 2004\n\nScanner du thorax.", "Herblain"),
    ("Knappschaftskrankenhaus Lütgendortmund\nRadiologie", "Lütgendortmund"),
    ("Referred from Hillcrest MDR unit for assessment.", "Hillcrest"),
    ("she was seen at st luke's after the fall.", "luke"),
    ("Hospital No.   : HRN 91-35-17", "91-35-17"),
    ("Plain CT was done at Perpetual Help in the morning.", "Perpetual Help"),
    ("Outside films from Lorma, read again.", "Lorma"),
    ("Compared with 24/11/21 (Barringtons).", "Barringtons"),
    ("She lives at 12/22 Nathan Tce Yeerongpilly.", "Yeerongpilly"),
    ("The patient moved here from Kibera.", "Kibera"),
    ("Met vriendelijke groet,\nRuurd Boersma", "Boersma"),
    ("Stable disease.\n\nSigned 2021-03-04 J. Wikmark", "Wikmark"),
    ("CHI 6491870331  BEGG, Hamish\nThe lungs are clear and the heart is normal.", "Hamish"),
)
STAYS = (
    "Vitals: BP142/71, HR68, RR18.",
    "Wet read at 0531h, final below.",
    "ST elevation in II, III and aVF; the ST segment is normal.",
    "Findings, 12 mm nodule in the left upper lobe.",
    "The left renal unit drains; the right stroke unit bed is free.",
    "Aortic root: 3.4 cm, DLP: 1045, CTDIvol: 12.3.",
    "Station: 3-4step gait.",
    "Contrast arises from Vater and drains at Treitz.",
    "Compared with the prior study from the outside hospital.",
    "Films from Siemens Somatom, series 3 image 45.",
    "The node at station 4R measures 12 mm (image #69-70, 135).",
    "The patient lives alone with her husband.",
)


@pytest.mark.parametrize(("text", "gone"), GOES)
def test_codes_and_places_go_by_what_stands_around_them(text: str, gone: str) -> None:
    assert gone not in deidentify(text, NOTHING_KNOWN).text


@pytest.mark.parametrize("text", STAYS)
def test_measures_and_anatomy_stay(text: str) -> None:
    assert deidentify(text, NOTHING_KNOWN).text == text


@pytest.mark.parametrize("part", SETS)
def test_notes_of_rooms_are_repeatable_and_marked(part: str) -> None:
    notes = desk_notes(60, 3, part)
    assert notes == desk_notes(60, 3, part)
    assert notes != desk_notes(60, 4, part)
    assert len(desks(part)) > 10
    for note in notes:
        assert "{" not in note.text
        assert all(note.text[start:end].strip() for start, end, _ in note.spans)
        assert list(note.spans) == sorted(note.spans)


def test_sets_of_rooms_share_no_institution() -> None:
    first, second = (
        {
            note.text[a:b].lower()
            for note in desk_notes(120, 1, part)
            for a, b, kind in note.spans
            if kind == "HOSPITAL"
        }
        for part in ("first", "second")
    )
    assert not first & second


@pytest.mark.parametrize(
    ("part", "recall"), [("first", 0.96), ("second", 0.89), ("third", 0.95), ("fourth", 0.9)]
)
def test_rooms_are_measured_with_intervals(part: str, recall: float) -> None:
    notes = desk_notes(52, 8, part)
    metrics = evaluate(notes, own_detector(deidentify)).metrics()
    assert metrics["token_recall"] >= recall
    assert metrics["token_precision"] >= 0.92
    assert metrics["gold_spans"] == sum(len(note.spans) for note in notes)
    low, high = metrics["intervals_95"]["token_recall"]
    assert low <= metrics["token_recall"] <= high
    assert metrics["refused"] == {}


def test_intervals_need_two_notes() -> None:
    note = GoldNote("a", "Seen by Dr. Roe.", ((12, 15, "STAFF"),))
    assert evaluate([note], own_detector(deidentify)).metrics()["intervals_95"] == {}


def test_a_second_run_changes_nothing() -> None:
    for part in SETS:
        for note in desk_notes(40, 11, part):
            for study in (NOTHING_KNOWN, StudyContext(note.identities)):
                text = deidentify(note.text, study).text
                assert deidentify(text, study).text == text
