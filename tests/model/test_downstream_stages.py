"""finetune, evaluate and gate as commands on a small project: what they write, refuse and repeat."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from components.base.errors import GateError, InputError, IntegrityError
from components.base.files import read_json, read_table, write_bytes, write_json
from components.downstream.inputs import DownstreamInputs, groups_of
from components.downstream.probe import Probe
from components.evaluation.gate import require_model
from components.evaluation.summary import render_text, results_table
from components.release.champion import promote
from tests.evaluation_support import build_project, run_stage, tree_hashes

STEPS = [
    ("finetune", "classification"),
    ("finetune", "retrieval"),
    ("finetune", "segmentation"),
    ("evaluate", "zero_shot"),
    ("evaluate", "linear_probe"),
    ("evaluate", "retrieval"),
    ("evaluate", "segmentation"),
    ("gate", None),
]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on which every stage has run."""
    root = build_project(tmp_path_factory.mktemp("project"))
    for stage, item in STEPS:
        assert run_stage(root, stage, item) == 0, (stage, item)
    return root


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(done, tmp_path / "copy")
    return tmp_path / "copy"


def metrics(root: Path, stage: str, item: str) -> dict:
    return read_json(root / "artifacts" / stage / item / "metrics.json")


def test_the_same_inputs_give_the_same_bytes(done: Path, copy: Path):
    for stage in ("finetune", "evaluate", "gate"):
        shutil.rmtree(copy / "artifacts" / stage)
    shutil.rmtree(copy / ".velvet")
    for stage, item in STEPS:
        assert run_stage(copy, stage, item) == 0
    assert tree_hashes(copy / "artifacts") == tree_hashes(done / "artifacts")


def test_embeddings_are_computed_once_and_again_when_damaged(copy: Path):
    cache = copy / ".velvet" / "cache" / "embeddings"
    (kept,) = cache.iterdir()
    before = kept.read_bytes()
    first = DownstreamInputs(copy).embeddings()
    assert np.allclose(np.linalg.norm(first.projected, axis=1), 1, atol=1e-5)
    assert np.allclose(np.linalg.norm(first.report, axis=1), 1, atol=1e-5)
    write_bytes(kept, before[: len(before) // 2])
    again = DownstreamInputs(copy).embeddings()
    assert np.array_equal(first.scales, again.scales)
    assert kept.read_bytes() == before


def test_embeddings_follow_the_encoder_the_volumes_and_the_text(copy: Path):
    from components.downstream.embeddings import cache_key

    before = cache_key(DownstreamInputs(copy))
    changed = DownstreamInputs(copy)
    study = next(iter(changed.sentences()))
    changed.sentences()[study].append("One more sentence.")
    assert cache_key(changed) != before
    other = DownstreamInputs(copy)
    series = next(iter(other.split().values())).series_key
    other.index()[series]["content_sha256"] = "0" * 64
    assert cache_key(other) != before
    contract = copy / "artifacts" / "pretrain" / "encoder" / "contract.json"
    write_json(contract, {**read_json(contract), "data_hash": "1" * 16})
    assert cache_key(DownstreamInputs(copy)) != before


def test_every_estimate_is_complete_and_says_what_data_it_is_of(done: Path):
    for _, item in STEPS[3:7]:
        found = metrics(done, "evaluate", item)
        assert found["provenance"]["synthetic"] is True
        assert found["provenance"]["test"] == {"synthetic": 15}
        assert len(found["model_sha256"]) == 64
    rows = results_table(done)
    assert {row["metric"].split(".")[0] for row in rows} == {item for _, item in STEPS[3:7]}
    for row in rows:
        assert set(row) == {"metric", "value", "low", "high", "chance", "n", "n_patients", "unit"}
        assert row["n_patients"] <= row["n"]
    lines = render_text(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert lines[0].split()[:2] == ["metric", "value"]
    assert "no results" in render_text([])


def test_a_finding_that_features_show_is_probed_and_labels_that_cannot_be_are_named(done: Path):
    found = metrics(done, "evaluate", "linear_probe")
    assert found["labels"]["lung_nodule"]["auroc"]["value"] > 0.8
    assert found["macro_auroc"]["low"] > 0.5
    assert found["left_out"] == {"hernia": "not in the probe"}
    assert "0 positive" in metrics(done, "finetune", "classification")["left_out"]["hernia"]
    zero = metrics(done, "evaluate", "zero_shot")
    assert "0 positive" in zero["left_out"]["hernia"]
    assert zero["groups"]["region"]["balanced_accuracy"]["chance"] == 0.5


def test_predictions_hold_keyed_ids_only(done: Path):
    for _, item in STEPS[3:7]:
        table = read_table(done / "artifacts" / "evaluate" / item / "predictions.parquet")
        assert table.num_rows > 0
        for name in ("study_key", "patient_key"):
            assert all(re.fullmatch(r"(stu|pat)_[0-9a-f]{16}", value) for value in table[name].to_pylist())
    test = {row.study_key for row in DownstreamInputs(done).studies("test")}
    scored = read_table(done / "artifacts" / "evaluate" / "zero_shot" / "predictions.parquet")
    assert set(scored["study_key"].to_pylist()) <= test


def test_nothing_is_chosen_on_the_test_split(done: Path, copy: Path):
    """Turning every test label round changes neither the probe nor any threshold (P8)."""
    import pyarrow as pa

    path = copy / "artifacts" / "deidentify" / "labels.parquet"
    test = {row.study_key for row in DownstreamInputs(copy).studies("test")}
    table = read_table(path)
    rows = [
        {**row, "value": 1 - row["value"]} if row["study_key"] in test and "=" not in row["name"] else row
        for row in table.to_pylist()
    ]
    from components.base.files import write_table

    write_table(path, pa.Table.from_pylist(rows, schema=table.schema))
    for stage, item in (STEPS[0], STEPS[3], STEPS[4]):
        assert run_stage(copy, stage, item) == 0
    for name in ("probe.json", "probe.safetensors"):
        kept = Path("artifacts") / "finetune" / "classification" / name
        assert (copy / kept).read_bytes() == (done / kept).read_bytes()
    kept = Path("artifacts") / "evaluate" / "zero_shot" / "thresholds.json"
    assert (copy / kept).read_bytes() == (done / kept).read_bytes()
    turned = metrics(copy, "evaluate", "linear_probe")["labels"]["lung_nodule"]["auroc"]["value"]
    straight = metrics(done, "evaluate", "linear_probe")["labels"]["lung_nodule"]["auroc"]["value"]
    assert turned == pytest.approx(1 - straight)


def test_labels_can_come_from_the_reports(copy: Path):
    inputs = DownstreamInputs(copy)
    said = inputs.labels("report")
    assert list(said) == ["lung_nodule"]
    assert all(
        inputs.labels("gold")["lung_nodule"][key] == value for key, value in said["lung_nodule"].items()
    )
    assert (
        run_stage(copy, "finetune", "classification", "--set", "finetune.classification.labels=report") == 0
    )
    assert metrics(copy, "finetune", "classification")["labels"] == 1


def test_a_present_group_value_makes_the_others_absent(tmp_path: Path):
    inputs = DownstreamInputs(tmp_path)
    inputs._kept["split"] = dict.fromkeys(["a", "b"])
    inputs._kept["deidentify/labels.parquet"] = [
        {"study_key": "a", "name": "region=head", "value": 1},
        {"study_key": "b", "name": "region=pelvis", "value": 1},
        {"study_key": "c", "name": "region=pelvis", "value": 1},
    ]
    assert inputs.labels() == {"region=head": {"a": 1, "b": 0}, "region=pelvis": {"b": 1, "a": 0}}
    assert groups_of(["region=head", "nodule"]) == {"region": ["region=head"]}


def test_the_random_arm_is_another_network_of_the_same_size(done: Path, copy: Path):
    assert run_stage(copy, "finetune", "segmentation", "--set", "finetune.segmentation.init=random") == 0
    found = {
        name: metrics(root, "finetune", "segmentation") for name, root in (("pre", done), ("random", copy))
    }
    assert found["pre"]["parameters"] == found["random"]["parameters"]
    assert (found["pre"]["init"], found["random"]["init"]) == ("pretrained", "random")
    assert found["pre"]["loss_first"] != found["random"]["loss_first"]
    assert found["pre"]["training_volumes"] == 8
    arrays = load_file(done / "artifacts" / "finetune" / "segmentation" / "segmenter.safetensors")
    assert any(name.startswith("vision.") for name in arrays)


def test_a_part_of_the_test_studies_gets_the_scores_that_it_has_among_all(done: Path, copy: Path):
    import pyarrow.parquet as pq

    whole = pq.read_table(
        done / "artifacts" / "evaluate" / "segmentation" / "predictions.parquet"
    ).to_pylist()
    assert run_stage(copy, "evaluate", "segmentation", "--set", "evaluate.segmentation.max_studies=2") == 0
    part = pq.read_table(copy / "artifacts" / "evaluate" / "segmentation" / "predictions.parquet").to_pylist()
    assert len({row["study_key"] for row in part}) == 2 < len({row["study_key"] for row in whole})
    expected = {(row["study_key"], row["class"]): row for row in whole}
    assert all(row == expected[row["study_key"], row["class"]] for row in part)
    assert metrics(copy, "evaluate", "segmentation")["mean_dice"]["n"] == 2


def test_a_network_fits_encoders_of_any_scales(tmp_path: Path):
    """A Swin-like pyramid, a plain ViT's single scale, and one whose coarsest scale is a single voxel."""
    import torch

    from components.downstream.segmenter import Segmenter, load_segmenter

    class Fake(torch.nn.Module):
        def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
            super().__init__()
            self.channels, self.strides = channels, strides
            self.mix = torch.nn.ModuleList(torch.nn.Conv3d(1, count, 1) for count in channels)

        def forward(self, volume: torch.Tensor) -> SimpleNamespace:
            pooled = [torch.nn.functional.avg_pool3d(volume, stride) for stride in self.strides]
            return SimpleNamespace(scales=[mix(one) for mix, one in zip(self.mix, pooled, strict=True)])

    for channels, strides in (((4, 8, 16), (2, 4, 16)), ((12,), (8,)), ((6, 6), (4, 4)), ((5, 7), (3, 6))):
        size = (18, 18, 18) if strides[0] == 3 else (16, 24, 16) if strides[-1] == 8 else (16, 16, 16)
        for full in (True, False):
            model = Segmenter(Fake(channels, strides), size, ("a", "b"), 4, full)
            volume = torch.rand(2, 1, *size)
            logits = model(volume)
            assert logits.shape == (2, 3, *size)
            logits.sum().backward()
            assert all(value.grad is not None for value in model.parameters())
            assert model.eval().segment(torch.rand(20, 25, 17), 0.25).shape == (20, 25, 17)
            model.save(tmp_path, mask="organs")
            again, settings = load_segmenter(tmp_path, Fake(channels, strides))
            assert settings["mask"] == "organs"
            assert torch.equal(again(volume), model(volume))


def test_the_verdict_is_written_and_the_model_may_be_promoted_once(copy: Path):
    verdict = require_model(copy)
    assert verdict["passed"] is True
    promote(copy, verdict)
    assert run_stage(copy, "gate") == 0
    again = read_json(copy / "artifacts" / "gate" / "verdict.json")
    assert again["candidate_is_champion"] is True
    rule = "gate.rules={linear_probe.macro_auroc: {min: 1.5}}"
    assert run_stage(copy, "gate", None, "--set", rule) == 0
    page = (copy / "artifacts" / "gate" / "report.html").read_text()
    assert "The gate refused this model" in page
    with pytest.raises(GateError, match=r"below the minimum 1\.5"):
        require_model(copy)


class Page(HTMLParser):
    """Collects what a page would load, its text, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images = self.described = 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in {"meta", "img", "br", "line", "circle", "rect", "polyline"}:
            self.open.append(tag)
        self.loads += [value for name in ("src", "href") if (value := found.get(name))]
        self.images += tag == "img" or (tag == "svg")
        self.described += bool(found.get("alt") or found.get("aria-label")) and tag in {"img", "svg"}

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag in self.open[-1:]:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag


def test_the_report_is_one_page_that_loads_nothing(done: Path):
    text = (done / "artifacts" / "gate" / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.images == page.described > 20
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in page.loads)
    anchors = {value[1:] for value in page.loads if value.startswith("#")}
    assert all(f'id="{anchor}"' in text for anchor in anchors)
    for word in ("http:", "https:", "<script", "@import", str(done), "undefined", "nan"):
        assert word not in re.sub(r'"data:image[^"]+"', "", text), word
    for told in (
        "Research use, synthetic data",
        "15 synthetic studies",
        "✓ right",
        "lung nodule",
        "coronal, predicted",
    ):
        assert told in text
    assert read_json(done / "artifacts" / "gate" / "verdict.json")["candidate"] in text


def test_the_report_is_written_for_an_empty_project(tmp_path: Path):
    from components.evaluation.report import render

    page = render(tmp_path, {}, 3)
    assert "No protocol has run." in page
    assert "The gate has not run." in page


def test_a_missing_stage_above_is_named(tmp_path: Path, done: Path, capsys: pytest.CaptureFixture[str]):
    shutil.copy(done / "params.yaml", tmp_path / "params.yaml")
    assert run_stage(tmp_path, "evaluate", "linear_probe") == 4
    assert "does not exist" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"stage\.input"):
        DownstreamInputs(tmp_path).encoder()


def test_artifacts_of_another_model_or_damaged_ones_are_refused(copy: Path):
    gallery = copy / "artifacts" / "finetune" / "retrieval" / "gallery.json"
    write_json(gallery, {**read_json(gallery), "model_sha256": "0" * 64})
    assert run_stage(copy, "evaluate", "retrieval") == IntegrityError.exit_code
    tensors = copy / "artifacts" / "finetune" / "classification" / "probe.safetensors"
    write_bytes(tensors, tensors.read_bytes()[:-8])
    with pytest.raises(IntegrityError, match=r"probe\.format"):
        Probe.load(tensors.parent)
    network = copy / "artifacts" / "finetune" / "segmentation" / "segmenter.safetensors"
    write_bytes(network, b"\xff" * 64)
    assert run_stage(copy, "evaluate", "segmentation") == IntegrityError.exit_code


@pytest.mark.parametrize(
    ("stage", "item", "change", "words"),
    [
        ("finetune", "segmentation", "finetune.segmentation.mask=organz", "label map"),
        ("finetune", "classification", "finetune.classification.min_train=500", "enough positives"),
        ("finetune", "classification", "finetune.classification.max_iteration=5", "unknown parameter"),
        ("evaluate", "zero_shot", "evaluate.zero_shot.prompt_set=mine", "prompt set"),
        ("evaluate", "zero_short", "evaluate.zero_shot.seed=1", "unknown parameter"),
    ],
)
def test_mistakes_are_told_in_under_five_lines(done: Path, capsys, stage, item, change, words):
    step = {"finetune": "components.downstream.finetune", "evaluate": "components.evaluation.evaluate"}[stage]
    import importlib

    module = importlib.import_module(step)
    assert module.STEP.main([f"--{module.STEP.item}", item, "--root", str(done), "--set", change]) != 0
    told = [line for line in capsys.readouterr().err.splitlines() if re.match(r"error:|  (rule|fix):", line)]
    assert 2 <= len(told) < 5
    assert words in " ".join(told)
