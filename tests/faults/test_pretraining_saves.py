"""What happens inside a save: the process is killed, or the disk is full, at every one of its operations."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base import files
from components.base.errors import StorageError
from components.pretraining import checkpoint
from components.pretraining.checkpoint import Checkpoint, CheckpointStore
from components.pretraining.launch import MALLOC
from tests.faults.test_pretraining_resume import (
    EACH_STEP,
    kill_at_random,
    same_result,
    spawn,
    train,
    uninterrupted,
)
from tests.pretraining_support import PARAMS, context_at, write_cohort

__all__ = ["spawn", "uninterrupted"]  # fixtures
ROOT = Path(__file__).resolve().parents[2]


def at_operation(patch: pytest.MonkeyPatch, happen: Callable[[int], None]) -> None:
    """Call `happen` with 1, 2, 3, ... before every operation of a save that reaches the disk."""
    count = 0

    def before(function: Any) -> Any:
        def operation(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            happen(count)
            return function(*args, **kwargs)

        return operation

    patch.setattr(checkpoint, "_save_tensors", before(checkpoint._save_tensors))
    patch.setattr(checkpoint, "write_json", before(checkpoint.write_json))
    patch.setattr(files.os, "fsync", before(os.fsync))
    patch.setattr(Path, "rename", before(Path.rename))
    patch.setattr(Path, "replace", before(Path.replace))
    patch.setattr(Path, "mkdir", before(Path.mkdir))


def example(step: int, seed: int) -> Checkpoint:
    source = torch.Generator().manual_seed(seed)
    tensors = {"a": torch.rand(3, 4, generator=source), "b": torch.rand(5, generator=source)}
    return Checkpoint(step, tensors, {"0.step": torch.tensor(1.0)}, tensors, 0.5, [(0, "train.total", 1.5)])


def equal(first: Checkpoint, second: Checkpoint) -> bool:
    return first.step == second.step and all(
        torch.equal(value, second.weights[name]) for name, value in first.weights.items()
    )


def operations_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    numbers: list[int] = []
    store = CheckpointStore(tmp_path / "count", {"params": {}})
    store.save(example(1, 1))
    with monkeypatch.context() as patch:
        at_operation(patch, numbers.append)
        store.save(example(2, 2))
    return len(numbers)


def test_a_full_disk_at_every_operation_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R10 and R9: the checkpoint before is intact, or the new one is whole; nothing half is left."""
    total = operations_of_a_save(tmp_path, monkeypatch)
    assert total >= 10
    kept_old = 0
    for number in range(1, total + 1):
        store = CheckpointStore(tmp_path / str(number), {"params": {}})
        store.save(example(1, 1))

        def refuse(count: int, number: int = number) -> None:
            if count == number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            at_operation(patch, refuse)
            with pytest.raises((StorageError, OSError), match="No space left") as caught:
                store.save(example(2, 2))
        assert isinstance(caught.value, StorageError), number
        assert caught.value.exit_code == 10
        found = store.latest()
        assert found is not None
        assert equal(found, example(found.step, found.step)), number
        kept_old += found.step == 1
        assert not [path for path in store.folder.iterdir() if path.name.startswith(".part-")]
        store.save(example(3, 3))
        assert equal(store.latest(), example(3, 3))  # type: ignore[arg-type]
    assert kept_old >= total - 2  # only the flush after the rename comes too late to matter


def killed_in_save(root: str, values: dict[str, Any], save: int, operation: int) -> None:
    """A run that is killed at an operation of its save number `save`."""
    original, saves = CheckpointStore.save, []

    def counted(self: CheckpointStore, found: Checkpoint) -> None:
        saves.append(1)
        if len(saves) != save:
            original(self, found)
            return
        with pytest.MonkeyPatch.context() as patch:
            at_operation(patch, lambda count: count == operation and os.kill(os.getpid(), signal.SIGKILL))
            original(self, found)

    CheckpointStore.save = counted  # type: ignore[method-assign]
    train(Path(root), values)


def kill_in_save(root: Path, save: int, operation: int) -> int | None:
    """Its exit code: -9, or 0 if the run was done before."""
    import multiprocessing

    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=killed_in_save, args=(str(root), EACH_STEP, save, operation))
    process.start()
    process.join(120)
    return process.exitcode


@pytest.mark.parametrize("operations", [[2, 7, 12], pytest.param(range(1, 14), marks=pytest.mark.slow)])
def test_killed_at_an_operation_of_a_save(
    operations: Any, tmp_path: Path, spawn: Any, uninterrupted: Path
) -> None:
    """R8 inside a save: wherever it was cut off, the run goes on to the same bits."""
    write_cohort(tmp_path)
    for operation in operations:
        assert kill_in_save(tmp_path, 2, operation) in (-signal.SIGKILL, 0)
    train(tmp_path, EACH_STEP)
    same_result(tmp_path, uninterrupted)
    assert not list((tmp_path / ".velvet" / "checkpoints").iterdir())


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path, spawn: Any, uninterrupted: Path) -> None:
    """R8 in full: fifty kills, at any moment or at a random operation of a save; every run ends in the same bits."""
    rng = random.Random(50)
    killed = in_a_save = runs = 0
    while killed < 50:
        root = tmp_path / str(runs)
        write_cohort(root)
        for _ in range(rng.randint(3, 8)):
            if killed < 50 and rng.random() < 0.5:
                found = kill_in_save(root, rng.randint(1, 2), rng.randint(1, 13)) == -signal.SIGKILL
                in_a_save += found
            else:
                found = kill_at_random(spawn, root, 1, seed=rng.randint(0, 10**6)) == 1
            killed += found
        train(root, EACH_STEP)
        same_result(root, uninterrupted)
        runs += 1
    assert in_a_save >= 10
    assert killed - in_a_save >= 10


def test_a_save_that_was_cut_off_leaves_an_orphan_that_the_next_start_removes(
    tmp_path: Path, spawn: Any, uninterrupted: Path
) -> None:
    write_cohort(tmp_path)
    assert kill_in_save(tmp_path, 3, 4) == -signal.SIGKILL
    folder = next((tmp_path / ".velvet" / "checkpoints").iterdir())
    assert [path.name for path in folder.iterdir() if path.name.startswith(".part-")]
    store = CheckpointStore(tmp_path, {})
    object.__setattr__(store, "run_hash", folder.name)
    store.clean()
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000001", "step-00000002"]


def test_sigterm_during_validation_is_answered_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    """R15: validation is given up, the step is saved, and the next start makes up for it."""
    from components.pretraining.pretrain import Data

    write_cohort(tmp_path)
    original, calls = Data.validate, []

    def interrupting(self: Data, module: Any, move: Any) -> dict[str, float]:
        calls.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, module, move)

    with monkeypatch.context() as patch:
        patch.setattr(Data, "validate", interrupting)
        with pytest.raises(SystemExit) as stop:
            train(tmp_path, EACH_STEP)
    assert stop.value.code == 143
    assert calls == [1]
    newest = max((tmp_path / ".velvet" / "checkpoints").glob("*/step-*"))
    assert newest.name == "step-00000007"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(tmp_path, EACH_STEP)
    same_result(tmp_path, uninterrupted)


def test_sigterm_at_the_last_step_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    from components.pretraining.engine import Trainer

    write_cohort(tmp_path)
    step = Trainer._step

    def last(self: Trainer, number: int, batch: Any) -> None:
        step(self, number, batch)
        if number == 19:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", last)
        with pytest.raises(SystemExit):
            train(tmp_path, EACH_STEP)
    metrics = train(tmp_path, EACH_STEP)
    assert {f"train_{name}" for name in (*PARAMS["objectives"], "total")} <= metrics.keys()
    same_result(tmp_path, uninterrupted)


def test_a_refused_write_is_exit_code_10_of_the_real_command(tmp_path: Path) -> None:
    """R10 from outside: the process may not write files of more than 20 kB."""
    write_cohort(tmp_path)
    found = subprocess.run(
        [sys.executable, "-m", "components.pretraining.pretrain", "--root", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **MALLOC, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        timeout=120,
    )
    assert found.returncode == 10, found.stderr
    error = [line for line in found.stderr.splitlines() if line.startswith(("error", "  rule", "  fix"))]
    assert len(error) == 3
    assert "storage.write" in error[1]
    assert not list((tmp_path / ".velvet" / "checkpoints").glob("*/*"))


def test_a_full_disk_at_the_end_keeps_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    from components.pretraining import pretrain

    write_cohort(tmp_path)

    def refuse(*_: Any) -> None:
        raise StorageError("could not write curves.csv", rule="storage.write", fix="free disk space")

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "write_curves", refuse)
        with pytest.raises(StorageError):
            train(tmp_path, EACH_STEP)
    assert list((tmp_path / ".velvet" / "checkpoints").glob("*/step-00000019"))
    train(tmp_path, EACH_STEP)
    same_result(tmp_path, uninterrupted)


def test_a_checkpoint_says_what_it_belongs_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Config, contract and data hash in plain JSON; no state of a generator, as none is needed."""
    from tests.faults.test_pretraining_resume import interrupted

    interrupted(tmp_path, monkeypatch, 2, EACH_STEP)
    newest = max((tmp_path / ".velvet" / "checkpoints").glob("*/step-*"))
    state = files.read_json(newest / "state.json")
    assert state["identity"]["params"]["learning_rate"] == EACH_STEP["learning_rate"]
    assert state["identity"]["contract"]["spacing_mm"] == [4.0, 4.0, 4.0]
    assert re.fullmatch("[0-9a-f]{16}", state["identity"]["data_hash"])
    assert state["step"] == 2
    shutil.rmtree(newest)
    assert context_at(tmp_path).root == tmp_path


def test_nothing_in_the_project_reads_a_pickle(root: Path) -> None:
    """No `weights_only=False`, no `torch.load`, no pickle module in what the project ships."""
    forbidden = re.compile(
        r"weights_only\s*=\s*False|torch\.load\(|^\s*(import|from)\s+(pickle|dill|cloudpickle|joblib)\b"
        r"|allow_pickle\s*=\s*True",
        re.MULTILINE,
    )
    sources = [
        path
        for folder in ("components", "flows", "serving", "data_checks")
        for path in (root / folder).rglob("*.py")
    ]
    assert len(sources) > 50
    assert not [path.name for path in sources if forbidden.search(path.read_text(encoding="utf-8"))]
