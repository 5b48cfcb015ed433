"""The engine's edges: no steps at all, half precision, what is timed and where it is written, prefetching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.config import parse
from components.base.errors import ConfigError
from components.base.files import read_json, sha256_folder
from components.pretraining.settings import Params
from tests.pretraining_support import PARAMS, TEXT, context_at, write_cohort


def train(root: Path, values: dict[str, Any]) -> dict[str, Any]:
    from components.pretraining import pretrain

    return dict(pretrain.run(parse(Params, values, "pretrain"), context_at(root)))


def test_no_steps_save_the_encoder_as_it_was_made(tmp_path: Path) -> None:
    """The arm of random weights: figures of the validation split, no training."""
    from components.encoders import from_pretrained

    write_cohort(tmp_path)
    metrics = train(tmp_path, {**PARAMS, "num_steps": 0, "warmup_steps": 5, "keep": "best"})
    assert metrics["num_steps"] == metrics["kept_step"] == metrics["num_volumes_seen"] == 0
    assert not [name for name in metrics if name.startswith("train_")]
    assert {"validation_total", "validation_volume_to_report_r1"} <= metrics.keys()
    out = tmp_path / "artifacts" / "pretrain"
    rows = (out / "curves.csv").read_text().splitlines()[1:]
    assert rows
    assert all(row.startswith("0,validation.") for row in rows)
    first = from_pretrained(out / "encoder").state_dict()
    train(tmp_path, {**PARAMS, "num_steps": 1, "warmup_steps": 0, "learning_rate": 1e-30})
    for name, value in from_pretrained(out / "encoder").state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-8, msg=name)
    with pytest.raises(ConfigError, match="warmup_steps"):
        parse(Params, {**PARAMS, "num_steps": 5, "warmup_steps": 5}, "pretrain")


def test_precision_is_that_of_the_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one device too, where Fabric leaves methods other than forward alone."""
    from components.objectives import OBJECTIVES

    kind = OBJECTIVES.get("rotation")
    forward, seen = kind.forward, []

    def noting(self: Any, batch: Any, features: Any) -> Any:
        seen.append(torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"))
        return forward(self, batch, features)

    monkeypatch.setattr(kind, "forward", noting)
    write_cohort(tmp_path)
    short = {**PARAMS, "num_steps": 2, "warmup_steps": 0}
    half = train(tmp_path, {**short, "precision": "bf16-mixed"})
    assert set(seen) == {torch.bfloat16}
    seen.clear()
    full = train(tmp_path, short)
    assert set(seen) == {False}
    for name in ("train_total", "validation_total"):
        assert half[name] == pytest.approx(full[name], rel=0.05)
        assert half[name] != full[name]


def test_times_are_logged_and_are_no_artifact(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    train(tmp_path, {**PARAMS, "num_steps": 4})
    timing = read_json(tmp_path / "logs" / "pretrain.timing.json")
    assert timing["steps"] == 4
    assert timing["step_s"] > 0
    assert timing["step_cpu_s"] > 0
    shares = [value for name, value in timing.items() if name.endswith("_share")]
    assert sum(shares) == pytest.approx(1, abs=0.01)
    assert {"data_share", "forward_share", "backward_share", "optimiser_share"} <= timing.keys()
    assert timing["validation_s"] > 0
    progress = read_json(tmp_path / "logs" / "pretrain.progress.json")
    assert {"step_s", "data_wait_share", "forward_share", "backward_share"} <= progress.keys()
    names = {path.name for path in (tmp_path / "artifacts" / "pretrain").rglob("*") if path.is_file()}
    assert not any("timing" in name or "progress" in name for name in names)


def test_reading_ahead_changes_no_bit(tmp_path: Path) -> None:
    hashes = set()
    for name, changes in (
        ("none", {"prefetch_batches": 0}),
        ("one", {"prefetch_batches": 1}),
        ("three", {"prefetch_batches": 3, "cache_bytes": 0}),
        ("workers", {"num_workers": 2}),
    ):
        root = tmp_path / name
        write_cohort(root)
        train(root, {**PARAMS, "num_steps": 6, **changes})
        hashes.add(sha256_folder(root / "artifacts" / "pretrain"))
    assert len(hashes) == 1


def test_every_rank_has_its_own_dropout() -> None:
    """Ranks see other rows; equal dropout patterns on them would be a needless dependence."""
    from components.pretraining.module import PretrainModule

    drawn = []

    class Noting(torch.nn.Module):
        def forward(self, batch: Any, features: Any) -> dict[str, torch.Tensor]:
            drawn.append((float(torch.rand(())), batch["generator"].initial_seed()))
            return {"noting": torch.zeros((), requires_grad=True)}

    for rank, step in ((0, 1), (1, 1), (0, 1), (0, 2)):
        module = PretrainModule(torch.nn.Identity(), torch.nn.ModuleDict({"noting": Noting()}), 3, rank=rank)
        module({"step": step, "study_key": [], "paired": []})
    assert drawn[0] == drawn[2]
    assert drawn[0][0] != drawn[1][0]
    assert drawn[0][1] == drawn[1][1]
    assert drawn[0] != drawn[3]


def test_sixteen_bit_floats_keep_their_scale_in_the_checkpoint(tmp_path: Path) -> None:
    from components.pretraining.checkpoint import Checkpoint, CheckpointStore

    store = CheckpointStore(tmp_path, {"params": {}})
    scaler = {"scale": 1024.0, "growth_factor": 2.0, "_growth_tracker": 7.0}
    store.save(Checkpoint(1, {"a": torch.ones(2)}, {}, None, None, [], scaler))
    found = store.latest()
    assert found is not None
    assert found.scaler == scaler


def test_dropout_is_off_in_validation(tmp_path: Path) -> None:
    """Two validations of one state agree to the bit although dropout is high."""
    write_cohort(tmp_path)
    values = {**PARAMS, "text": {**TEXT, "dropout": 0.5}, "num_steps": 2, "validate_every_steps": 1}
    train(tmp_path, {**values, "warmup_steps": 0, "learning_rate": 1e-30, "final_learning_rate": 0.0})
    rows = [line.split(",") for line in (tmp_path / "artifacts/pretrain/curves.csv").read_text().splitlines()]
    found = {
        step: {row[1]: row[2] for row in rows if row[0] == step and row[1].startswith("validation.")}
        for step in "01"
    }
    assert found["0"]
    assert found["0"] == found["1"]
