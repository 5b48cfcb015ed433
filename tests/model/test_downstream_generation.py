"""Report generation: decoding, the decoder, learning four reports by heart, and the stage on a small project."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from components.base.errors import ConfigError, InputError, IntegrityError, TrainingError
from components.base.files import read_json, read_table, write_json, write_table
from components.downstream.decoder import Decoder
from components.downstream.decoding import decode, repeating
from components.downstream.fitting import fit
from components.downstream.image_tokens import device_of, image_tokens, pooled, token_statistics
from components.downstream.report_writer import (
    ReportWriter,
    load_writer,
    padded,
    readable,
    sentences_of,
    target_ids,
)
from components.downstream.settings import DecodingParams
from components.downstream.tasks.report_generation import clinical_f1
from components.encoders.tokenization import ReportTokenizer
from tests.evaluation_support import context_at, run_stage, tree_hashes
from tests.generation_support import GREEDY, REPORTS, decoder, fitting, generative_project, inputs_of


class Chain:
    """A language model whose next token depends on the last one: a table of log-probabilities [V, V]."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.log_softmax(torch.as_tensor(table, dtype=torch.float64), -1)

    def step(self, ids, state):
        return self.table[ids]

    def reorder(self, state, rows):
        return state


def settings(**changes) -> DecodingParams:
    return DecodingParams(
        **{"beams": 1, "no_repeat_ngram": 0, "length_penalty": 0.0, "max_tokens": 4, **changes}
    )


START, END = 0, 1


def exhaustive(table: torch.Tensor, length: int) -> list[int]:
    """The most probable ended text of at most `length` tokens, `END` among them, by trying all."""
    best, found = -math.inf, []
    for size in range(length):
        for ids in itertools.product(range(2, table.shape[0]), repeat=size):
            path = [START, *ids, END]
            score = sum(float(table[a, b]) for a, b in itertools.pairwise(path))
            if score > best:
                best, found = score, list(ids)
    return found


def test_wide_beams_find_the_most_probable_text_and_greedy_takes_the_next_best_token():
    for seed in range(5):
        chain = Chain(np.random.default_rng(seed).normal(0, 2, (5, 5)))
        wide = decode(chain, None, 1, START, END, settings(beams=60), {START})
        assert wide == [exhaustive(chain.table, 4)]
    table = np.full((4, 4), -9.0)
    table[0, 2], table[2, 3], table[3, 1] = 0, 0, 0
    assert decode(Chain(table), None, 3, START, END, settings(), {START}) == [[2, 3]] * 3


def test_beams_see_past_a_greedy_mistake():
    table = np.log(
        np.array([[1e-9, 1e-9, 0.55, 0.45], [1, 1, 1, 1], [1e-9, 0.4, 0.3, 0.3], [1e-9, 1, 1e-9, 1e-9]])
    )
    assert decode(Chain(table), None, 1, START, END, settings(), {START}) == [[2]]
    assert decode(Chain(table), None, 1, START, END, settings(beams=3), {START}) == [[3]]


def test_an_ngram_comes_once_and_banned_tokens_never():
    table = np.full((5, 5), -9.0)
    table[0, 2], table[2, 3], table[3, 2], table[2, 4], table[4, 1] = 0, 0, 0, -3, 0
    free = decode(Chain(table), None, 1, START, END, settings(max_tokens=7), {START})[0]
    assert free == [2, 3, 2, 3, 2, 3, 2]
    once = decode(Chain(table), None, 1, START, END, settings(max_tokens=7, no_repeat_ngram=2), {START})[0]
    pairs = list(itertools.pairwise(once))
    assert len(pairs) == len(set(pairs))
    assert once == [2, 3, 2, 4]
    assert 3 not in decode(Chain(table), None, 1, START, END, settings(), {START, 3})[0]
    assert repeating([5, 6, 5], 2) == [6]
    assert repeating([5, 6], 1) == [5, 6]


def test_ties_are_broken_the_same_way_for_any_number_of_rows():
    chain = Chain(np.zeros((6, 6)))
    one = decode(chain, None, 1, START, END, settings(beams=2), {START, END})
    assert decode(chain, None, 3, START, END, settings(beams=2), {START, END}) == one * 3


def test_writing_token_by_token_is_the_decoder_on_the_whole_text():
    torch.manual_seed(0)
    model = Decoder(decoder(layers=2), vocab_size=30, channels=5).eval()
    memory, ids = torch.randn(2, 6, 5), torch.randint(0, 30, (2, 9))
    allowed = torch.ones(2, 6, dtype=torch.bool)
    allowed[1, 4:] = False
    whole = model(ids, memory, allowed)
    state = model.begin(memory, allowed)
    steps = torch.stack([model.step(ids[:, at], state) for at in range(9)], dim=1)
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=1e-4)
    changed = memory.clone()
    changed[1, 4:] = 99
    torch.testing.assert_close(model(ids, changed, allowed), whole)
    later = ids.clone()
    later[:, 5:] = 3
    torch.testing.assert_close(model(later, memory, allowed)[:, :5], whole[:, :5])


@pytest.fixture(scope="module")
def tokenizer() -> ReportTokenizer:
    told = [sentence for report in REPORTS for sentence in report]
    return ReportTokenizer.train(told * 3, 200, max_length=64, max_sentences=8, max_sentence_pieces=40)


@pytest.fixture(scope="module")
def learnt(tokenizer, tmp_path_factory):
    """A writer that learnt four reports by heart, with their image tokens."""
    tokens = np.random.default_rng(0).normal(size=(4, 8, 6)).astype(np.float32)
    mean, scale = token_statistics(tokens)
    model = ReportWriter(decoder(), tokenizer.vocab_size, mean, scale, seed=1)
    ids, targets = padded(target_ids(REPORTS, tokenizer), tokenizer.pad_id, 40)
    images = torch.from_numpy(tokens)

    def loss_of(generator):
        return model.loss(images, ids, targets, 0.0)

    params = fitting(steps=150, warmup_steps=10, validate_every_steps=50)
    context = context_at(tmp_path_factory.mktemp("fit"), "finetune", "report_generation")
    fit(
        model,
        loss_of,
        lambda: float(model.loss(images, ids, targets, 0.0)),
        params,
        context,
        "report_generation",
    )
    return model, tokens


def test_four_reports_are_reproduced_by_greedy_and_beam_search(learnt, tokenizer):
    model, tokens = learnt
    assert model.write(tokens, tokenizer, GREEDY) == REPORTS
    beams = GREEDY.model_copy(update={"beams": 3, "no_repeat_ngram": 5})
    assert model.write(tokens, tokenizer, beams) == REPORTS
    assert model.write(tokens[2:3], tokenizer, GREEDY) == REPORTS[2:3], "whatever else is in the batch"


def test_other_images_make_other_reports(learnt, tokenizer):
    """Shuffled images destroy CE-F1: what is written comes from the image."""
    model, tokens = learnt
    right = model.write(tokens, tokenizer, GREEDY)
    wrong = model.write(np.roll(tokens, 1, axis=0), tokenizer, GREEDY)
    assert clinical_f1(right, REPORTS) == 1.0
    assert clinical_f1(wrong, REPORTS) == 0.0
    blank = model.write(np.repeat(tokens.mean(0, keepdims=True), 4, 0), tokenizer, GREEDY)
    assert len({tuple(one) for one in blank}) == 1, "without an image all reports are one"


def test_a_saved_writer_writes_the_same_and_another_encoders_is_refused(learnt, tokenizer, tmp_path):
    model, tokens = learnt
    model.save(tmp_path, scale=0, grid=2, model_sha256="a" * 64, seed=1)
    again, about = load_writer(tmp_path, tokenizer.vocab_size, "a" * 64)
    assert about["grid"] == 2
    assert again.write(tokens, tokenizer, GREEDY) == REPORTS
    with pytest.raises(IntegrityError, match=r"report_generation\.model"):
        load_writer(tmp_path, tokenizer.vocab_size, "b" * 64)
    with pytest.raises(IntegrityError, match=r"report_generation\.format"):
        load_writer(tmp_path, tokenizer.vocab_size + 1, "a" * 64)


def test_targets_end_and_reports_without_words_make_none(tokenizer):
    first, empty = target_ids([REPORTS[0], []], tokenizer)
    assert (first[0], first[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
    assert sentences_of(first[1:-1], tokenizer) == REPORTS[0]
    assert empty == []
    ids, targets = padded([first, first[:6]], tokenizer.pad_id, 8)
    assert ids.shape == (2, 8)
    assert targets[0].tolist() == first[1:9]
    assert targets[1].tolist() == [*first[1:6], -100, -100, -100]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ("no 3 . 5 mm nodule .", "No 3.5 mm nodule."),
        ("ground - glass opacity ( 4 cm ) , new", "Ground-glass opacity (4 cm), new"),
        ("l1 / l2 : normal", "L1/l2: normal"),
    ],
)
def test_pieces_are_set_as_text(pieces: str, text: str):
    assert readable(pieces) == text


def test_the_step_that_validates_best_is_kept_and_a_broken_loss_stops(tmp_path):
    weight = torch.nn.Linear(1, 1)
    values = iter([5.0, 1.0, 3.0])
    kept = []

    def validate() -> float:
        kept.append(weight.weight.item())
        return next(values)

    context = context_at(tmp_path, "finetune", "vqa")
    fitted = fit(weight, lambda g: weight(torch.ones(1, 1)).sum(), validate, fitting(steps=7), context, "vqa")
    assert (fitted.best_step, fitted.best_value) == (6, 1.0)
    assert weight.weight.item() == kept[1] != kept[2]
    assert not weight.training
    assert fitted.csv().splitlines()[0] == "step,name,value"
    with pytest.raises(TrainingError, match=r"vqa\.loss"):
        fit(weight, lambda g: weight.weight.sum() * math.nan, validate, fitting(), context, "vqa")


def test_tokens_are_means_of_the_grid_and_statistics_leave_equal_studies_nothing():
    features = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    tokens = pooled(features, 2)
    assert tokens.shape == (1, 8, 1)
    assert tokens[0, 0, 0] == features[0, 0, :2, :2, :2].mean()
    assert pooled(features, 9).shape == (1, 64, 1)
    one = np.random.default_rng(0).normal(size=(1, 8, 3)).astype(np.float32)
    mean, scale = token_statistics(np.repeat(one, 7, 0))
    assert np.array_equal(mean, one[0])
    assert scale.tolist() == [1.0, 1.0, 1.0]


def test_a_device_that_is_not_there_is_told():
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            device_of("cuda")
    assert device_of("cpu").type == "cpu"


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A project on which the task and its protocol have run."""
    root = generative_project(tmp_path_factory.mktemp("generation"))
    for stage in ("finetune", "evaluate"):
        assert run_stage(root, stage, "report_generation") == 0
    return root


def test_every_test_report_is_written_for_and_every_metric_is_complete(done: Path):
    found = read_json(done / "artifacts" / "evaluate" / "report_generation" / "metrics.json")
    inputs = inputs_of(done)
    test = {row.study_key for row in inputs.studies("test", paired=True)}
    table = read_table(done / "artifacts" / "evaluate" / "report_generation" / "predictions.parquet")
    assert set(table["study_key"].to_pylist()) == test
    assert found["studies"] == table.num_rows == len(test)
    estimates = {**found["clinical"], **found["surface"]}
    assert {
        "ce_f1_macro",
        "ce_f1_micro",
        "gold_ce_f1_macro",
        "crg",
        "positive_statement_f1",
        "statement_f1",
    } <= set(found["clinical"])
    assert {"bleu_1", "bleu_4", "rouge_l", "meteor", "cider_d"} == set(found["surface"]) - {
        "bleu_2",
        "bleu_3",
    }
    for name, one in estimates.items():
        assert one["n"] == len(test), name
        levels = [one["chance_random_report"], one["chance_constant_report"]]
        assert one["chance"] == max((level for level in levels if level is not None), default=None), name
    assert all(name.partition(".")[2] in found["clinical"] for name in found["rank_by"])
    assert "no local model" in found["bertscore"]
    assert found["slice_metric"] == "ce_f1_micro"


def test_training_never_sees_the_test_split_and_repeats_to_the_byte(done: Path, tmp_path: Path):
    """With every test report replaced, on a fresh cache, the same bytes are trained."""
    import pyarrow as pa

    shutil.copytree(done, tmp_path / "copy")
    copy = tmp_path / "copy"
    shutil.rmtree(copy / ".velvet")
    inputs = inputs_of(copy)
    test = {row.study_key for row in inputs.studies("test")}
    train = {row.patient_key for row in inputs.studies("train")}
    assert train.isdisjoint(row.patient_key for row in inputs.studies("test"))
    path = copy / "artifacts" / "section" / "sentences.parquet"
    table = read_table(path)
    rows = [{**row, "text": "Leaked."} if row["study_key"] in test else row for row in table.to_pylist()]
    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))
    before = tree_hashes(done / "artifacts" / "finetune" / "report_generation")
    shutil.rmtree(copy / "artifacts" / "finetune" / "report_generation")
    assert run_stage(copy, "finetune", "report_generation") == 0
    assert tree_hashes(copy / "artifacts" / "finetune" / "report_generation") == before


def test_the_checkpoint_may_be_chosen_by_what_is_written(done: Path, tmp_path: Path):
    shutil.copytree(done, tmp_path / "copy")
    options = ("selection=ce_f1", "steps=2", "validate_every_steps=1", "decoder.max_length=12")
    changes = [part for one in options for part in ("--set", f"finetune.report_generation.{one}")]
    assert run_stage(tmp_path / "copy", "finetune", "report_generation", *changes) == 0
    found = read_json(tmp_path / "copy" / "artifacts" / "finetune" / "report_generation" / "metrics.json")
    assert found["selection"] == "ce_f1"
    assert -1 <= found["validation_value"] <= 0
    assert found["reports_cut"] > 0


def test_image_tokens_are_kept_and_made_again_when_damaged(done: Path):
    inputs = inputs_of(done)
    rows = inputs.studies("validation")[:2]
    first = np.array(image_tokens(inputs, rows, 0, 2, torch.device("cpu")))
    kept = {path: path.stat().st_mtime_ns for path in (done / ".velvet" / "cache" / "image_tokens").iterdir()}
    assert np.array_equal(image_tokens(inputs, rows, 0, 2, torch.device("cpu")), first)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert np.array_equal(image_tokens(inputs, rows, 0, 2, torch.device("cpu")), first)
    assert image_tokens(inputs, [], 0, 2, torch.device("cpu")).shape[0] == 0
    with pytest.raises(ConfigError, match="scale 9"):
        image_tokens(inputs, rows, 9, 2, torch.device("cpu"))


def test_mistakes_are_typed(done: Path, tmp_path: Path):
    shutil.copytree(done, tmp_path / "copy")
    copy = tmp_path / "copy"
    long = ("--set", "finetune.report_generation.decoder.max_length=500")
    assert run_stage(copy, "finetune", "report_generation", *long) == ConfigError.exit_code
    settings = copy / "artifacts" / "finetune" / "report_generation" / "writer.json"
    write_json(settings, {**read_json(settings), "model_sha256": "0" * 64})
    assert run_stage(copy, "evaluate", "report_generation") == IntegrityError.exit_code
    settings.unlink()
    assert run_stage(copy, "evaluate", "report_generation") == InputError.exit_code


def test_the_preset_adds_stages_and_only_the_preset() -> None:
    from components.base.config import load_params, with_preset
    from components.base.validate import check_blocks
    from tests.conftest import ROOT

    values = load_params(ROOT / "params.yaml")
    added = with_preset(values, "downstream")
    check_blocks(added)
    for stage in ("finetune", "evaluate"):
        assert set(added[stage]) - set(values[stage]) == {"report_generation", "vqa"}
        assert {name: added[stage][name] for name in values[stage]} == values[stage]
