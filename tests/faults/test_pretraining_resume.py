"""Killed, terminated, full disk, changed parameters, losses that blow up: what a training run does then."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from components.base.config import parse
from components.base.errors import CheckError, ConfigError, StorageError, TrainingError
from components.base.files import sha256_folder
from tests.pretraining_support import PARAMS, context_at, write_cohort

EACH_STEP = {**PARAMS, "checkpoint_every_steps": 1, "validate_every_steps": 7, "keep": "best"}
PRELOADED = [
    "lightning.fabric",
    "components.encoders.dual",
    "components.encoders.vision.swin",
    "components.encoders.text.tribert",
    "components.pretraining.engine",
    "components.pretraining.module",
    "components.pretraining.data",
    "blosc2",
    "tokenizers",
]


def train(root: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Run the stage in this process."""
    from components.pretraining import pretrain

    return dict(pretrain.run(parse(pretrain.Params, values, "pretrain"), context_at(root)))


def child(root: str, values: dict[str, Any]) -> None:
    """What a process that may be killed runs."""
    try:
        train(Path(root), values)
    except SystemExit as stop:
        os._exit(int(stop.code or 0))
    os._exit(0)


@pytest.fixture(scope="module")
def spawn() -> Any:
    """Start `child` in a process of its own that need not import anything first."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED, __name__])
    return lambda root, values: context.Process(target=child, args=(str(root), values))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    write_cohort(root)
    train(root, EACH_STEP)
    return root


def same_result(first: Path, second: Path) -> None:
    """Curves (losses, rates, validation) and weights agree to the last bit."""
    one, two = (root / "artifacts" / "pretrain" for root in (first, second))
    assert (one / "curves.csv").read_bytes() == (two / "curves.csv").read_bytes()
    assert sha256_folder(one / "encoder") == sha256_folder(two / "encoder")


def kill_at_random(spawn: Any, root: Path, times: int, seed: int, longest: float = 0.3) -> int:
    """Kill -9 a run at random moments until it has been killed `times` times or is done; returns how often."""
    rng = random.Random(seed)
    killed = 0
    while killed < times:
        steps = root / ".velvet" / "checkpoints"
        process = spawn(root, EACH_STEP)
        process.start()
        before = {path.name for path in steps.glob("*/step-*")}
        deadline = time.monotonic() + 120
        while process.is_alive() and time.monotonic() < deadline:
            if {path.name for path in steps.glob("*/step-*")} - before:  # it is at work: any moment will do
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, longest))
        if not process.is_alive():
            assert process.exitcode == 0
            return killed
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += 1
    return killed


def test_killed_runs_go_on_to_the_same_bits(tmp_path: Path, spawn: Any, uninterrupted: Path) -> None:
    """R8, a few kills; `test_pretraining_saves` does fifty, inside saves too."""
    write_cohort(tmp_path)
    assert kill_at_random(spawn, tmp_path, 3, seed=1) == 3
    assert list((tmp_path / ".velvet" / "checkpoints").glob("*/step-*"))
    metrics = train(tmp_path, EACH_STEP)
    assert metrics["num_steps"] == 20
    same_result(tmp_path, uninterrupted)
    assert not list((tmp_path / ".velvet" / "checkpoints").iterdir())


def test_sigterm_saves_and_exits_143(tmp_path: Path, spawn: Any, uninterrupted: Path) -> None:
    """R15; and the run that follows ends as if nothing had been."""
    write_cohort(tmp_path)
    values = {**EACH_STEP, "checkpoint_every_steps": 1000}
    process = spawn(tmp_path, values)
    process.start()
    progress = tmp_path / "logs" / "pretrain.progress.json"
    deadline = time.monotonic() + 120
    while not progress.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    asked = time.monotonic()
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143
    assert time.monotonic() - asked < 30
    assert len(list((tmp_path / ".velvet" / "checkpoints").glob("*/step-*"))) == 1
    train(tmp_path, values)
    same_result(tmp_path, uninterrupted)


class Stop(Exception):
    """Ends a run in the middle."""


def interrupted(root: Path, monkeypatch: pytest.MonkeyPatch, at: int, values: dict[str, Any]) -> str:
    """Run until the checkpoint of step `at` is written; returns the run's hash."""
    from components.pretraining.checkpoint import CheckpointStore

    write_cohort(root)
    save = CheckpointStore.save
    hashes = []

    def stop_after(self: CheckpointStore, checkpoint: Any) -> None:
        save(self, checkpoint)
        hashes.append(self.run_hash)
        if checkpoint.step == at:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", stop_after)
        with pytest.raises(Stop):
            train(root, values)
    return hashes[-1]


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    """R10: at each kind of write, a StorageError with its own exit code; the run goes on from before."""
    from components.pretraining import checkpoint

    interrupted(tmp_path, monkeypatch, 5, EACH_STEP)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for name, fails_at in (("_save_tensors", 1), ("_save_tensors", 2), ("write_json", 1)):
        original, calls = getattr(checkpoint, name), []

        def refuse(
            *args: Any, original: Any = original, calls: Any = calls, fails_at: int = fails_at
        ) -> None:
            calls.append(1)
            if len(calls) == fails_at:
                raise full
            original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, refuse)
            with pytest.raises(StorageError, match="No space left") as caught:
                train(tmp_path, EACH_STEP)
        assert caught.value.exit_code == 10
        steps = sorted(path.name for path in (tmp_path / ".velvet" / "checkpoints").glob("*/*"))
        assert steps == ["step-00000004", "step-00000005"]
    train(tmp_path, EACH_STEP)
    same_result(tmp_path, uninterrupted)


def test_the_library_s_own_error_is_a_storage_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors reports a full disk by an error of its own class, which is no OSError."""
    import safetensors.torch
    from safetensors import SafetensorError

    from components.pretraining.checkpoint import Checkpoint, CheckpointStore

    def refuse(*args: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", refuse)
    store = CheckpointStore(tmp_path, {"params": {}})
    with pytest.raises(StorageError, match="No space left"):
        store.save(Checkpoint(1, {}, {}, None, None, []))
    assert not list(store.folder.iterdir())
    assert store.latest() is None


def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    run_hash = interrupted(tmp_path, monkeypatch, 6, EACH_STEP)
    newest = tmp_path / ".velvet" / "checkpoints" / run_hash / "step-00000006" / "weights.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(bytes(data))
    (newest.parent.parent / ".part-999-step-00000007").mkdir()
    train(tmp_path, EACH_STEP)
    same_result(tmp_path, uninterrupted)


def test_checkpoints_hold_no_pickle_and_no_key_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path, monkeypatch, 3, EACH_STEP)
    files = [path for path in (tmp_path / ".velvet").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    for path in files:
        content = path.read_bytes()
        assert b"stu_0" not in content
        assert b"pat_0" not in content
        assert str(tmp_path).encode() not in content


def test_another_configuration_starts_afresh_or_is_refused_with_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R17."""
    run_hash = interrupted(tmp_path, monkeypatch, 2, EACH_STEP)
    changed = {**EACH_STEP, "learning_rate": 0.002, "num_steps": 4, "warmup_steps": 1}
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, {**changed, "resume": run_hash})
    assert "params.learning_rate: 0.001 -> 0.002" in str(caught.value)
    assert "params.num_steps: 20 -> 4" in str(caught.value)
    assert len(caught.value.render().splitlines()) < 5
    with pytest.raises(TrainingError, match="no interrupted run"):
        train(tmp_path, {**changed, "resume": "0123456789abcdef"})
    assert train(tmp_path, changed)["num_volumes_seen"] == 16
    rows = (tmp_path / "artifacts" / "pretrain" / "curves.csv").read_text().splitlines()
    assert rows[1].startswith("0,")
    assert (tmp_path / ".velvet" / "checkpoints" / run_hash).is_dir()


def test_how_a_run_goes_is_no_part_of_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    """More workers or rarer checkpoints do not stop a resume, nor change a bit of the result."""
    interrupted(tmp_path, monkeypatch, 3, EACH_STEP)
    train(tmp_path, {**EACH_STEP, "num_workers": 2, "checkpoint_every_steps": 50, "cache_bytes": 0})
    same_result(tmp_path, uninterrupted)


@pytest.mark.parametrize("name", ["rotation", "masked_language"])
def test_a_loss_that_is_not_finite_stops_within_the_step_and_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12."""
    import torch

    from components.objectives import OBJECTIVES

    kind = OBJECTIVES.get(name)
    forward, calls = kind.forward, []

    def spoilt(self: Any, batch: Any, features: Any) -> Any:
        calls.append(batch["step"])
        losses = forward(self, batch, features)
        return {key: value * (torch.inf if batch["step"] == 2 else 1) for key, value in losses.items()}

    monkeypatch.setattr(kind, "forward", spoilt)
    write_cohort(tmp_path)
    with pytest.raises(TrainingError, match=f"the loss {name} is not finite at step 2") as caught:
        train(tmp_path, PARAMS)
    assert calls == [0, 1, 2]
    assert caught.value.exit_code == 11
    assert not (tmp_path / "artifacts" / "pretrain" / "encoder").exists()


def test_unknown_names_and_values_say_so() -> None:
    from components.pretraining.settings import Params

    for change, message in (
        ({"objectives": {"rotate": {}}}, "no objective called 'rotate'"),
        ({"objectives": {"rotation": {"weight": 0}}}, "no objective has a weight"),
        ({"warmup_steps": 20}, "warmup_steps must be below"),
        ({"batchsize": 4}, "did you mean 'batch_size'"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse(Params, {**PARAMS, **change}, "pretrain")


def test_a_leak_stops_training_before_it_starts(tmp_path: Path) -> None:
    """R5: one patient in two splits, put there by hand."""
    from components.cohort.manifest import read_rows, write_rows

    write_cohort(tmp_path)
    table = tmp_path / "artifacts" / "split" / "split.parquet"
    rows = read_rows(table, "split")
    rows[5]["patient_key"] = rows[4]["patient_key"]
    assert {rows[4]["split"], rows[5]["split"]} == {"train", "validation"}
    write_rows(table, "split", rows)
    with pytest.raises(CheckError, match="1 leaks between the splits"):
        train(tmp_path, PARAMS)
    assert not (tmp_path / "artifacts" / "pretrain").exists()
