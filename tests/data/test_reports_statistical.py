"""The optional statistical layer: a tiny model made here, and everything that must stop the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

from components.base.errors import ConfigError
from components.reports.deid.engine import Deidentifier, Refusal
from components.reports.deid.layers import default_layers
from components.reports.deid.note import Note
from components.reports.deid.span import StudyContext
from components.reports.deid.statistical import Statistical, kind_of
from components.reports.deidentify import Job, handle

WORDS = ["[UNK]", "the", "friend", "zanzo", "quib", "of", "94", "12", "seen"]
LABELS = ["O", "B-PER", "I-PER", "B-AGE"]
TEXT = "the friend zanzo quib of 94 seen"


def make_model(folder: Path, rows: int = len(WORDS), labels: list[str] | None = None) -> Path:
    """A model that answers by the word alone: an embedding whose rows are the logits."""
    folder.mkdir(parents=True)
    labels = labels or LABELS
    table = np.full((rows, len(labels)), -4.0, dtype=np.float32)
    table[:, 0] = 4.0
    for word, label in (("zanzo", 1), ("quib", 2), ("94", 3), ("12", 3)):
        table[WORDS.index(word)] = -4.0
        table[WORDS.index(word), label] = 4.0
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["logits"], axis=0)],
        "words",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, None])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, None, len(labels)])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"id2label": {str(k): label for k, label in enumerate(labels)}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_what_the_model_knows_is_found(tmp_path: Path) -> None:
    layer = Statistical(make_model(tmp_path / "model"))
    found = [(TEXT[s.start : s.end], s.kind) for s in layer.detect(Note(TEXT), StudyContext())]
    assert found == [("zanzo quib", "PERSON"), ("94", "AGE")]
    assert layer.detect(Note("of 12 seen"), StudyContext()) == []


def test_long_notes_are_read_in_overlapping_windows(tmp_path: Path) -> None:
    layer = Statistical(make_model(tmp_path / "model"))
    text = "the of seen " * 700 + "zanzo quib"
    (span,) = layer.detect(Note(text), StudyContext())
    assert text[span.start : span.end] == "zanzo quib"
    assert layer.detect(Note(""), StudyContext()) == []


def test_it_joins_the_other_layers(tmp_path: Path) -> None:
    folder = str(make_model(tmp_path / "model"))
    text = "the friend zanzo quib seen on 3/4/2020"
    rules = Deidentifier(default_layers(suspects=False))
    assert rules(text, StudyContext()).text == "the friend zanzo quib seen on [DATE]"
    deidentify = Deidentifier(default_layers(model=folder, suspects=False))
    assert deidentify(text, StudyContext()).text == "the friend [PERSON] seen on [DATE]"
    (outcome,) = handle([Job("stu_1", text, (), False, 5.0, detector=folder)])
    assert outcome.result is not None
    assert "zanzo" not in outcome.result.text


@pytest.mark.parametrize("lost", ["model.onnx", "tokenizer.json", "config.json", None])
def test_an_incomplete_folder_is_no_detector(lost: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if lost:
        (make_model(folder) / lost).unlink()
    with pytest.raises(ConfigError) as error:
        default_layers(model=str(folder))
    assert error.value.rule == "deidentify.detector"


def test_a_damaged_model_and_one_without_phi_labels_are_refused(tmp_path: Path) -> None:
    (make_model(tmp_path / "damaged") / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ConfigError):
        Statistical(tmp_path / "damaged")
    with pytest.raises(ConfigError):
        Statistical(make_model(tmp_path / "other", labels=["O", "B-GENE", "I-GENE", "B-CELL"]))
    with pytest.raises(ConfigError):
        Statistical(make_model(tmp_path / "good"), threshold=0.0)


def test_an_error_on_a_note_refuses_the_note(tmp_path: Path) -> None:
    """The model knows fewer words than the tokenizer: looking one up fails in the runtime."""
    folder = str(make_model(tmp_path / "short", rows=8))
    deidentify = Deidentifier(default_layers(model=folder, suspects=False))
    assert deidentify("the friend of", StudyContext()).text == "the friend of"
    with pytest.raises(Refusal) as refused:
        deidentify("the friend seen", StudyContext())
    assert refused.value.rule == "deidentify.detector"
    (outcome,) = handle([Job("stu_1", "zanzo seen", (), False, 5.0, detector=folder)])
    assert (outcome.result, outcome.rule) == (None, "deidentify.detector")
    assert "zanzo" not in outcome.reason


def test_labels_are_understood_in_the_usual_schemes() -> None:
    assert [kind_of(label) for label in ("B-PER", "I_PATIENT", "HOSP", "L-LOC", "O", "B-DISEASE")] == [
        *("PERSON", "PATIENT", "HOSPITAL", "ADDRESS"),
        None,
        None,
    ]
