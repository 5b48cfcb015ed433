"""Words and codes that no rule took, judged by their surroundings."""

from __future__ import annotations

import json
import math

import pytest

from components.base.config import parse
from components.base.errors import ConfigError
from components.reports.deid.engine import Deidentifier
from components.reports.deid.layers import default_layers
from components.reports.deid.note import Note
from components.reports.deid.runs import scan_of
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.surroundings import Surroundings, features
from components.reports.deid.suspects import MODEL, suspects, weights
from components.reports.deid.wordlists import default_lists
from components.reports.deidentify import Job, Params, handle
from components.reports.measuring.desk_notes import desk_notes
from components.reports.measuring.train_suspects import TAUGHT, collect, train

NOTHING_KNOWN = StudyContext()
deidentify = Deidentifier()
rules_only = Deidentifier(default_layers(suspects=False))

GOES = (
    ("She came by bus from Quarrendon and was scanned at once.", "Quarrendon"),
    ("Scan done at Thornaby, then sent to us for review.", "Thornaby"),
    ("The result was given to Osgood by telephone.", "Osgood"),
    ("Copies to Dr Fenwick and to the Brackwater clinic.", "Brackwater"),
    ("CT HEAD\n\nNo bleed. Findings discussed with Tarrant in the emergency department.", "Tarrant"),
)
STAYS = (
    "No evidence of Vesparin toxicity.",
    "Status post Corvexa placement, unchanged.",
    "The Halden classification does not apply.",
    "MRI LEFT KNEE WITHOUT CONTRAST",
    "EKG: NSR, LBBB. CXR and UA were unremarkable.",
    "Gait: Unsteady. Coord: FNF intact. Reflexes: 2+ Ankles.",
    "BP142/82, HR76, received 5040 cGy in 28 fractions.",
    "Right ICA PSV 92 cm/s, Left ECA PSV 71 cm/s.",
)


@pytest.mark.parametrize(("text", "gone"), GOES)
def test_people_and_places_go_by_their_surroundings(text: str, gone: str) -> None:
    assert gone not in deidentify(text, NOTHING_KNOWN).text


@pytest.mark.parametrize("text", STAYS)
def test_products_scales_and_shorthand_stay(text: str) -> None:
    assert deidentify(text, NOTHING_KNOWN).text == text


def test_the_layer_finds_more_than_the_rules_and_can_be_left_out() -> None:
    notes = desk_notes(42, 6, "fourth")
    both = [deidentify(note.text, NOTHING_KNOWN) for note in notes]
    plain = [rules_only(note.text, NOTHING_KNOWN) for note in notes]
    flagged = [change.span for result in both for change in result.changes if change.span.layer == "suspects"]
    assert len(flagged) > 20
    assert all(span.rule.startswith("suspect.") and 0 < span.score < 1 for span in flagged)
    assert not any(change.span.layer == "suspects" for result in plain for change in result.changes)


def test_what_was_written_is_not_judged_again() -> None:
    for note in desk_notes(60, 5, "third"):
        once = deidentify(note.text, NOTHING_KNOWN).text
        assert deidentify(once, NOTHING_KNOWN).text == once


def test_a_higher_threshold_flags_less_and_one_nothing() -> None:
    texts = [note.text for note in desk_notes(30, 6, "fourth")]
    counts = []
    for threshold in (0.2, 0.6, 1.0):
        layers = default_layers(suspects=threshold)
        found = [Deidentifier(layers)(text, NOTHING_KNOWN).changes for text in texts]
        counts.append(sum(change.span.layer == "suspects" for changes in found for change in changes))
    assert counts[0] > counts[1] > counts[2] == 0


def test_the_stage_takes_the_parameters_and_refuses_a_threshold_that_is_no_share() -> None:
    text = GOES[0][0]
    on, off = (
        handle([Job("stu_a", text, (), False, 5.0)]),
        handle([Job("stu_a", text, (), False, 5.0, suspects=False)]),
    )
    assert on[0].result is not None
    assert "Quarrendon" not in on[0].result.text
    assert off[0].result is not None
    assert len(off[0].result.changes) <= len(on[0].result.changes)
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError):
            parse(Params, {"suspects_threshold": wrong}, "deidentify")


def test_no_word_of_a_report_is_a_feature() -> None:
    note = Note("Brought in from Zubrowka by Miklosh Zentner.\nSeen at Varkand, code QX-4471.")
    scan = scan_of(note, default_lists())
    around = Surroundings(scan, [])
    chosen = suspects(around, range(len(scan.words)))
    assert {scan.words[number] for number in chosen} >= {"zubrowka", "zentner", "varkand"}
    names = {name for number in chosen for name in features(around.context(number))}
    assert names
    for word in ("zubrowka", "miklosh", "zentner", "varkand", "4471", "qx"):
        assert not any(word in name for name in names)


def test_a_span_and_its_tag_are_the_same_surroundings() -> None:
    raw, tagged = "Seen by Anna Lind at Varkand.", "Seen by [STAFF] at Varkand."
    contexts = []
    for text, spans in ((raw, [Span(8, 17, "STAFF", "names", "name.by", 0.9)]), (tagged, [])):
        scan = scan_of(Note(text), default_lists())
        number = scan.words.index("varkand")
        contexts.append(Surroundings(scan, spans).context(number))
    assert contexts[0] == contexts[1]


def test_the_stored_weights_are_finite_and_of_known_features() -> None:
    table = json.loads(MODEL.read_text(encoding="utf-8"))
    assert set(table) == {"bias", "phi", "person_bias", "person", "threshold"}
    assert 0 < table["threshold"] < 1
    values = [*table["phi"].values(), *table["person"].values(), table["bias"], table["person_bias"]]
    assert len(values) > 1000
    assert all(math.isfinite(value) for value in values)
    assert weights().phi == table["phi"]


def test_training_is_repeatable_and_never_sees_the_set_to_be_measured() -> None:
    assert "second" not in TAUGHT
    rooms = {"third": (39, 4)}
    first, table = train(collect(rooms, 12))
    again, _ = train(collect(rooms, 12))
    assert first == again
    assert first["phi"]
    assert first["person"]
    assert [row["threshold"] for row in table] == sorted((row["threshold"] for row in table), reverse=True)
    assert all(0 <= row["found"] <= row["missed_before"] for row in table)
    assert table[-1]["found"] >= table[0]["found"]
