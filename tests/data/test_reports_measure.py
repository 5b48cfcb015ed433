"""The measuring command: what it reads, what it counts, where text may go; and the hard notes it measures on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from components.base.errors import ConfigError, InputError
from components.reports.deid.engine import Deidentifier
from components.reports.deid.layers import default_layers
from components.reports.deid.wordlists import default_lists
from components.reports.measure import main
from components.reports.measuring.evaluate import evaluate, own_detector
from components.reports.measuring.fresh_notes import SETS, all_names_of, fresh_notes
from components.reports.measuring.gold import read_gold
from components.reports.measuring.hard_notes import GoldNote, hard_notes, templates
from components.reports.measuring.people import HALVES, all_names, half_of
from components.reports.measuring.tools import run_tool

TEXT = "Seen by Dr. Roe on 3/4/2020. Normal."
ROW = {"text": TEXT, "spans": [[12, 15, "STAFF"], [19, 27, "DATE"]]}
SAME = [
    ROW,
    {
        "full_text": TEXT,
        "entities": [{"start": 12, "end": 15, "type": "STAFF"}, {"start": 19, "end": 27, "kind": "DATE"}],
    },
    {
        "note": TEXT,
        "phi": [
            {"start_position": 12, "end_position": 15, "entity_type": "STAFF"},
            {"begin": 19, "stop": 27, "label": "DATE"},
        ],
    },
    {"report": "notes/a.txt", "annotations": ROW["spans"]},
]


def written(folder: Path, rows: list[object], array: bool = False) -> Path:
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "a.txt").write_text(TEXT, encoding="utf-8")
    path = folder / "gold.jsonl"
    path.write_text(json.dumps(rows) if array else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("array", [False, True])
def test_every_form_of_a_row_is_one_note(array: bool, tmp_path: Path) -> None:
    notes = read_gold(written(tmp_path, list(SAME), array))
    assert {(note.text, note.spans) for note in notes} == {(TEXT, ((12, 15, "STAFF"), (19, 27, "DATE")))}


@pytest.mark.parametrize(
    "row",
    [
        "no mapping",
        {"text": TEXT},
        {"spans": []},
        {"text": TEXT, "spans": [[12, 99, "STAFF"]]},
        {"text": TEXT, "spans": [[15, 12, "STAFF"]]},
        {"text": TEXT, "spans": ["3/4/2020"]},
        {"report": "../secret.txt", "spans": []},
    ],
)
def test_a_bad_row_is_named_without_its_text(row: object, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_gold(written(tmp_path, [ROW, row]))
    assert "row 2" in error.value.what
    assert "Roe" not in error.value.render()


def test_figures_and_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = written(tmp_path, [ROW, {"text": "Carrier of a zorb, 3/4/2020.", "spans": [[13, 17, "PATIENT"]]}])
    spans = tmp_path / "restricted" / "misses.jsonl"
    arguments = ["--gold", str(gold), "--root", str(tmp_path), "--spans", str(spans)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    figures = json.loads(shown)["velvet"]
    assert figures["gold_notes"] == 2
    assert figures["recall_by_kind"]["PATIENT"] == {"recall": 0.0, "tokens": 1}
    assert figures["recall_by_kind"]["DATE"] == {"recall": 1.0, "tokens": 3}
    assert figures["notes_with_leak"] == 0.5
    assert figures["precision_by_layer"]["patterns"] == {"precision": 0.5, "tokens": 6}
    assert "zorb" not in shown
    assert [json.loads(line)["text"] for line in spans.read_text().splitlines()] == ["zorb", "3/4/2020"]


def test_text_goes_nowhere_but_the_restricted_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = written(tmp_path, [ROW])
    for place in ("misses.jsonl", "restricted/../misses.jsonl", "artifacts/misses.jsonl"):
        arguments = ["--gold", str(gold), "--root", str(tmp_path), "--spans", str(tmp_path / place)]
        assert main(arguments) == ConfigError.exit_code
    assert "restricted" in capsys.readouterr().err
    assert not list(tmp_path.rglob("misses.jsonl"))


def test_a_refused_note_is_counted_and_leaks_nothing() -> None:
    notes = [GoldNote("a", TEXT, ((12, 15, "STAFF"),)), GoldNote("b", "M\ufffdller", ((0, 6, "PATIENT"),))]
    metrics = evaluate(notes, own_detector(Deidentifier())).metrics()
    assert metrics["refused"] == {"deidentify.encoding": 1}
    assert metrics["gold_notes"] == 1


def test_a_tool_that_is_not_there_is_said_to_be_missing() -> None:
    note = [GoldNote("a", TEXT, ())]
    with pytest.raises(ConfigError) as error:
        run_tool("philter", note, sys.executable)
    assert "philter" in error.value.what
    with pytest.raises(ConfigError):
        run_tool("presidio", note, "/no/such/python")
    with pytest.raises(ConfigError):
        run_tool("grep", note)


def test_hard_notes_are_repeatable_and_their_halves_share_nothing() -> None:
    assert hard_notes(5, 3, "development") == hard_notes(5, 3, "development")
    assert hard_notes(5, 3, "development") != hard_notes(5, 4, "development")
    assert [note.id for note in hard_notes(8, 3, "held_out")[:5]] == [
        note.id for note in hard_notes(5, 3, "held_out")
    ]
    blocks = [{block for found in templates(half).values() for block in found} for half in HALVES]
    assert not blocks[0] & blocks[1]
    assert half_of("Müller") == half_of("MULLER")
    for half in HALVES:
        for note in hard_notes(40, 5, half):
            assert all(note.text[start:end].strip() for start, end, _ in note.spans)
            assert list(note.spans) == sorted(note.spans)


@pytest.mark.parametrize(("half", "recall"), [("development", 0.985), ("held_out", 0.97)])
def test_hard_notes_reach_the_bar(half: str, recall: float) -> None:
    metrics = evaluate(hard_notes(120, 11, half), own_detector(Deidentifier())).metrics()
    assert metrics["token_recall"] >= recall
    assert metrics["token_precision"] >= 0.97
    assert metrics["over_redaction"] <= 0.005
    known = evaluate(hard_notes(60, 11, half), own_detector(Deidentifier(), True)).metrics()
    assert known["recall_by_kind"]["MRN"]["recall"] == 1.0


def test_names_that_no_list_holds_are_found_by_context() -> None:
    lists = default_lists().without(all_names("held_out"))
    detector = own_detector(Deidentifier(default_layers(lists)))
    metrics = evaluate(hard_notes(80, 12, "held_out"), detector).metrics()
    assert metrics["token_recall"] >= 0.9


@pytest.mark.parametrize(("part", "recall"), [("fresh", 0.95), ("last", 0.9)])
def test_further_sets_are_repeatable_and_measured(part: str, recall: float) -> None:
    notes = fresh_notes(60, 4242, part)
    assert notes == fresh_notes(60, 4242, part)
    assert all(note.text[start:end].strip() for note in notes for start, end, _ in note.spans)
    assert len(all_names_of(part) & all_names_of(SETS[1 - SETS.index(part)])) < 10
    metrics = evaluate(notes, own_detector(Deidentifier())).metrics()
    assert metrics["token_recall"] >= recall
    assert metrics["token_precision"] >= 0.97
