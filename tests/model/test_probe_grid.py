"""The grid of frozen probes: its arithmetic against plain loops, its choices, what it refuses and repeats."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional as F

from components.base.config import load_params, with_preset
from components.base.errors import ConfigError, InputError, IntegrityError
from components.base.files import read_json, read_table, write_bytes, write_json
from components.downstream.grid import POOLINGS, Grid, GridProbe, Recipe, batches, fixed_features, pooled
from components.downstream.inputs import DownstreamInputs
from components.downstream.reading import DenseFeatures, device_of
from components.downstream.tasks.probe_grid import both_kinds, macro_auprc, targets, thresholds
from tests.conftest import ROOT
from tests.evaluation_support import build_project, params, run_stage, tree_hashes

RATES = (0.1, 0.03, 0.01, 0.003)


def small(**changes: Any) -> dict[str, Any]:
    """params.yaml with the preset `probing`, but few steps."""
    block = dict(load_params(ROOT / "params.yaml")["presets"]["probing"]["finetune.probe_grid"])
    block |= {"steps": 12, "scale": 1, "accelerator": "cpu", **changes}
    values = params()
    values["finetune"]["probe_grid"] = block
    values["evaluate"]["probe_grid"] = {
        "resamples": 200,
        "seed": 3,
        "min_slice_patients": 3,
        "min_test": 2,
        "accelerator": "cpu",
    }
    return values


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose grid was fitted and measured."""
    root = build_project(tmp_path_factory.mktemp("project"))
    write_json(root / "params.yaml", small())
    for stage in ("finetune", "evaluate"):
        assert run_stage(root, stage, "probe_grid") == 0
    return root


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(done, tmp_path / "copy")
    return tmp_path / "copy"


def test_poolings_by_slow_loops() -> None:
    tokens = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).double()
    queries = torch.randn(4, 5, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(pooled("average", tokens), sum(tokens) / 7)
    torch.testing.assert_close(pooled("max", tokens), torch.stack([max(column) for column in tokens.T]))

    def found(query: torch.Tensor) -> torch.Tensor:
        weights = [math.exp(float(query @ token) / math.sqrt(5)) for token in tokens]
        return sum(w * token for w, token in zip(weights, tokens, strict=True)) / sum(weights)

    torch.testing.assert_close(pooled("average_query", tokens), found(tokens.mean(0)))
    torch.testing.assert_close(pooled("learned_query", tokens, queries[:1]), found(queries[0]))
    wanted = sum(found(query) for query in queries) / 4
    torch.testing.assert_close(pooled("learned_queries", tokens, queries), wanted)


def probe_by_torch(kind: str, rate: float, recipe: Recipe, start: Grid, at: int, data: Any) -> list:
    """One probe of the grid trained alone with PyTorch's own SGD and cosine."""
    tokens, target = data
    _, _, weights = start.probe(at)
    held = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in weights.items()}
    optimizer = torch.optim.SGD(held.values(), lr=rate, momentum=recipe.momentum, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    for rows in batches(len(target), recipe):
        vectors = torch.stack([pooled(kind, tokens[row], held.get("query")) for row in rows])
        logits, truth = vectors @ held["weight"].T + held["bias"], torch.from_numpy(target[rows])
        known = truth.isfinite()
        loss = F.binary_cross_entropy_with_logits(logits[known], truth[known])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return [held[name].detach().numpy() for name in weights]


def test_every_probe_of_the_stack_is_what_sgd_makes_of_it_alone() -> None:
    recipe = Recipe(POOLINGS, RATES, 0.95, 25, 4, 3)
    rng = np.random.default_rng(0)
    tokens = torch.from_numpy(rng.normal(size=(9, 6, 5)).astype(np.float32))
    target = (rng.random((9, 2)) < 0.5).astype(np.float32)
    target[2, 0] = target[5, 1] = np.nan
    grid, start = (Grid(recipe, 5, 2, "cpu") for _ in range(2))
    grid.train(
        fixed_features(POOLINGS, lambda row: tokens[row].numpy(), 9, "cpu"),
        lambda row: tokens[row].numpy(),
        target,
    )
    for at, (kind, rate) in enumerate((kind, rate) for kind in POOLINGS for rate in RATES):
        alone = probe_by_torch(kind, rate, recipe, start, at, (tokens, target))
        pooling, of, weights = grid.probe(at)
        assert (pooling, of) == (kind, rate)
        for mine, theirs in zip(weights.values(), alone, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=2e-5)
        assert not np.allclose(weights["weight"], start.probe(at)[2]["weight"], atol=1e-3), "it has learnt"


def test_batches_are_whole_epochs_in_another_order() -> None:
    recipe = Recipe(POOLINGS, RATES, 0.95, 6, 4, 3)
    drawn = list(batches(8, recipe))
    for first in (0, 2, 4):
        assert sorted(np.concatenate(drawn[first : first + 2])) == list(range(8))
    assert any(not np.array_equal(drawn[0], other) for other in drawn[2::2])
    assert [len(rows) for rows in batches(3, recipe)] == [3] * 6


def test_a_probe_that_diverges_leaves_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(8, 3, 4)).astype(np.float32) * 100
    target = (rng.random((8, 2)) < 0.5).astype(np.float32)
    weights = []
    for rates in ((1e-5,), (1e-5, 1e38)):
        grid = Grid(Recipe(("average",), rates, 0.9, 40, 8, 0), 4, 2, "cpu")
        fixed = fixed_features(("average",), lambda row: values[row], 8, "cpu")
        grid.train(fixed, lambda row: values[row], target)
        weights.append(grid.probe(0)[2]["weight"])
        logits = grid.scores(fixed, lambda row: values[row])
    np.testing.assert_allclose(*weights, rtol=1e-5)
    judged = both_kinds(target, 1)
    assert macro_auprc(logits[0], target, judged) is not None
    assert macro_auprc(logits[1], target, judged) is None


def test_labels_of_one_kind_or_unknown() -> None:
    labels = {"a": {"s1": 1, "s2": 0}, "b": {"s1": 0, "s2": 0, "s3": 0}, "c": {"s3": 1, "s2": 0}}
    target = targets(labels, list(labels), ["s1", "s2", "s3"])
    np.testing.assert_array_equal(target, [[1, 0, np.nan], [0, 0, 0], [np.nan, 0, 1]])
    judged = both_kinds(target, 1)
    assert judged.tolist() == [True, False, True]
    logits = np.array([[2.0, 0.0, -9.0], [1.0, 0.0, 3.0], [9.0, 0.0, 1.0]])
    assert macro_auprc(logits, target, judged) == pytest.approx((1.0 + 0.5) / 2)
    assert thresholds(logits, target, judged, "f1") == (1.5, None, 1.0)


def test_what_the_stages_write(done: Path) -> None:
    fitted = read_json(done / "artifacts" / "finetune" / "probe_grid" / "metrics.json")
    assert fitted["probes"] == 20
    assert {name: list(row) for name, row in fitted["grid"].items()} == {
        name: ["0.003", "0.01", "0.03", "0.1"] for name in POOLINGS
    }
    assert fitted["validation_macro_auprc"] == max(max(row.values()) for row in fitted["grid"].values())
    assert (
        fitted["grid"][fitted["pooling"]][f"{fitted['learning_rate']:g}"] == fitted["validation_macro_auprc"]
    )
    assert fitted["left_out"] == {"hernia": "0 positive and 17 negative in train, 1 of each needed"}
    measured = read_json(done / "artifacts" / "evaluate" / "probe_grid" / "metrics.json")
    for name in ("auprc", "auroc", "f1", "balanced_accuracy"):
        metric = measured[f"macro_{name}"]
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert (metric["n"], metric["n_patients"]) == (15, 10)
        assert 0 < metric["chance"] < 1
    assert measured["left_out"] == {"hernia": "not in the probe"}
    probe = GridProbe.load(done / "artifacts" / "finetune" / "probe_grid")
    table = read_table(done / "artifacts" / "evaluate" / "probe_grid" / "predictions.parquet").to_pylist()
    assert {row["label"] for row in table} == set(probe.labels)
    for row in table:
        threshold = dict(zip(probe.labels, probe.thresholds, strict=True))[row["label"]]
        assert row["predicted"] == (row["score"] >= 1 / (1 + math.exp(-threshold)))


def test_the_test_split_is_never_read_by_the_task(copy: Path) -> None:
    from components.volumes.store import VolumeStore

    inputs = DownstreamInputs(copy)
    for row in inputs.studies("test"):
        (copy / "artifacts" / "preprocess" / "store" / f"{row.series_key}.b2nd").unlink()
    before = tree_hashes(copy / "artifacts" / "finetune")
    shutil.rmtree(copy / ".velvet")
    assert run_stage(copy, "finetune", "probe_grid") == 0
    assert tree_hashes(copy / "artifacts" / "finetune") == before
    with pytest.raises(IntegrityError):
        VolumeStore(copy / "artifacts" / "preprocess").read(inputs.studies("test")[0].series_key)


def test_dense_features_are_computed_once_and_again_when_damaged(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = DownstreamInputs(copy)
    dense = DenseFeatures(inputs, 1, "training")
    studies = list(inputs.split())
    assert dense.prepare(studies) == 0, "train, validation and test were kept by the two stages"
    first = np.array(dense.read(studies[3]))
    assert first.dtype == np.float16
    encoded: list[str] = []
    real = DenseFeatures._encode
    monkeypatch.setattr(
        DenseFeatures, "_encode", lambda self, *rest: (encoded.append(rest[1]), real(self, *rest))[1]
    )
    path = dense._path(studies[3])
    kept = path.read_bytes()
    write_bytes(path, kept[: len(kept) // 2])
    assert dense.prepare(studies) == 1
    assert encoded == [studies[3]]
    assert path.read_bytes() == kept
    with torch.inference_mode():
        volume = torch.from_numpy(dense.reading.volume(inputs.split()[studies[3]].series_key))[None]
        wanted = inputs.encoder().vision(volume).scales[1][0].flatten(1).T.numpy()
    np.testing.assert_allclose(first, wanted, atol=2e-3, rtol=2e-3)
    assert DenseFeatures(inputs, 0, "training").folder != dense.folder


def test_another_encoder_or_contract_is_another_cache(copy: Path) -> None:
    dense = DenseFeatures(DownstreamInputs(copy), 1, "training")
    card = copy / "artifacts" / "pretrain" / "encoder" / "config.json"
    card.write_text(card.read_text() + "\n")
    assert DenseFeatures(DownstreamInputs(copy), 1, "training").folder != dense.folder


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"scale": 7}, ConfigError, "no scale 7"),
        ({"min_train": 50}, InputError, "enough positives and negatives"),
        ({"resolution": "evaluation"}, InputError, "preprocess.evaluation"),
    ],
)
def test_what_it_refuses(
    copy: Path,
    changes: dict[str, Any],
    error: type[Exception],
    match: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_json(copy / "params.yaml", small(**changes))
    assert run_stage(copy, "finetune", "probe_grid") == error("", rule="", fix="").exit_code
    assert match in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="no GPU"):
        device_of("gpu")
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")


def test_a_damaged_probe_is_refused(copy: Path) -> None:
    folder = copy / "artifacts" / "finetune" / "probe_grid"
    settings = read_json(folder / "probe.json")
    write_json(folder / "probe.json", {**settings, "labels": settings["labels"][1:]})
    with pytest.raises(IntegrityError, match="do not fit"):
        GridProbe.load(folder)
    write_json(folder / "probe.json", {**settings, "pooling": "median"})
    with pytest.raises(IntegrityError, match="do not fit"):
        GridProbe.load(folder)


@pytest.mark.parametrize("preset", ["probing", "velvet+probing", "colipri/crm+probing"])
def test_the_preset_goes_with_every_other(preset: str) -> None:
    from components.base.validate import check_blocks

    values = with_preset(load_params(ROOT / "params.yaml"), preset)
    check_blocks(values)
    block = values["finetune"]["probe_grid"]
    assert (tuple(block["poolings"]), tuple(block["learning_rates"])) == (POOLINGS, RATES)
    assert (block["steps"], block["batch_size"], block["momentum"]) == (12_500, 16, 0.95)
    assert values["pretrain"]["vision"]["name"] == ("primus" if "colipri" in preset else "swin")
    assert "probe_grid" not in load_params(ROOT / "params.yaml")["finetune"], "not in the default chain"


def test_a_new_item_is_a_block_and_a_typo_is_not_taken() -> None:
    from components.base.config import with_overrides
    from components.base.validate import check_blocks

    values = load_params(ROOT / "params.yaml")
    with pytest.raises(ConfigError, match="unknown parameter"):
        with_overrides(values, {"finetune.probe_gird": 3})
    with pytest.raises(ConfigError, match="unknown parameter"):
        with_overrides(values, {"finetune.probe_gird.steps": 3})
    block = yaml.safe_load("{steps: 3}")
    with pytest.raises(ConfigError, match="probe_grid"):
        check_blocks(with_overrides(values, {"finetune.probe_gird": block}))
    with pytest.raises(ConfigError, match="unknown parameter"):
        with_preset(values, "velvet+probin")
