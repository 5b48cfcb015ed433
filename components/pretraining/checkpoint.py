"""Checkpoints that are whole or absent, hold no pickle, and are verified before they are used.

A run's folder is `.velvet/checkpoints/RUNHASH/`, outside the stage's output (which DVC clears before a run).
A checkpoint is a folder `step-00000100` with `weights.safetensors`, `optimizer.safetensors`, perhaps
`best.safetensors`, and `state.json`: the step, the resolved config, the data's and the contract's hash, the
curves so far, the loss scaler's state (16-mixed only) and the SHA-256 of the other files. Generator states are not
needed: every random number of a step is a function of (seed, step) and, for dropout, of the rank.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.config import difference, fingerprint
from components.base.errors import InputError, TrainingError
from components.base.files import atomic_folder, clean_orphans, read_json, sha256_file, write_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "velvet.checkpoint/1"
STATE = "state.json"
KEPT = 2
Identity = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """What a resumed run goes on from: `step` steps are done."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor] | None
    best_loss: float | None
    curves: list[tuple[int, str, float]]
    scaler: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run below `root`/.velvet/checkpoints.

    `identity` is what must be equal for a run to go on: {"params", "contract", "data_hash"}.
    """

    root: Path
    identity: Identity
    run_hash: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "run_hash", fingerprint(self.identity))

    @property
    def base(self) -> Path:
        """Where the folders of all runs are."""
        return self.root / ".velvet" / "checkpoints"

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.base / self.run_hash

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint atomically, then drop all but the newest two; raises `StorageError`."""
        target = self.folder / f"step-{checkpoint.step:08d}"
        with atomic_folder(target) as temp:
            parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
            if checkpoint.best is not None:
                parts["best"] = checkpoint.best
            for name, tensors in parts.items():
                _save_tensors(temp / f"{name}.safetensors", tensors)
            state = {
                "format": FORMAT,
                "step": checkpoint.step,
                "identity": self.identity,
                "best_loss": checkpoint.best_loss,
                "curves": checkpoint.curves,
                "scaler": checkpoint.scaler,
                "sha256": {name: sha256_file(temp / f"{name}.safetensors") for name in parts},
            }
            write_json(temp / STATE, state)
        for old in self._steps()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a save that was cut off left behind."""
        clean_orphans(self.folder)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; a damaged one is passed over for the one before it."""
        for folder in reversed(self._steps()):
            try:
                return _load(folder)
            except InputError:
                continue
        return None

    def remove(self) -> None:
        """Drop the run's checkpoints (when it is done)."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def require(self, run_hash: str) -> None:
        """Refuse to go on with a run whose parameters or data are not these, showing the difference."""
        if run_hash == self.run_hash:
            return
        known = identities(self.base / run_hash)
        if not known:
            raise TrainingError(
                f"there is no interrupted run {run_hash}",
                rule="pretrain.resume",
                fix="set pretrain.resume to auto",
            )
        lines = difference(known[0], self.identity)
        raise TrainingError(
            f"the run {run_hash} was made otherwise ({'; '.join(lines[:6])})",
            rule="pretrain.resume",
            fix="restore these values, or set pretrain.resume to never to start afresh",
        )

    def _steps(self) -> list[Path]:
        return _steps(self.folder)


def identities(folder: Path) -> list[Identity]:
    """What the checkpoints in a run's folder say that they were made with, newest first."""
    found = []
    for step in reversed(_steps(folder)):
        try:
            found.append(read_json(step / STATE)["identity"])
        except (InputError, KeyError, TypeError):
            continue
    return found


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
    except SafetensorError as error:  # how the library reports a full disk
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else errno.EIO, str(error)) from error


def _load(folder: Path) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state = read_json(folder / STATE)
    try:
        if state["format"] != FORMAT:
            raise ValueError(state["format"])
        tensors = {}
        for name, expected in state["sha256"].items():
            path = folder / f"{name}.safetensors"
            if sha256_file(path) != expected:
                raise ValueError(name)
            tensors[name] = load_file(path)
        curves = [(int(step), str(name), float(value)) for step, name, value in state["curves"]]
        return Checkpoint(
            int(state["step"]),
            tensors["weights"],
            tensors["optimizer"],
            tensors.get("best"),
            state["best_loss"],
            curves,
            dict(state.get("scaler", {})),
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        raise InputError(
            f"the checkpoint {folder.name} is damaged", rule="checkpoint.damaged", fix="start afresh"
        ) from None
