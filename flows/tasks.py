"""A Prefect task a stage: DVC does the work, the task adds retries, time-outs, limits, progress and artifacts."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.logging import get_run_logger

from components.base.stages import STAGES
from flows.artifacts import publish
from flows.environment import EMBEDDED, TRAINING_LIMIT
from flows.reproduce import StageFailed, reproduce

RETRY_DELAYS_S = [2.0, 10.0]
LONG_STAGES = {"ingest", "preprocess", "pretrain", "finetune"}
TRAINING_STAGES = {"pretrain", "finetune"}


@dataclass(frozen=True)
class Limits:
    """How often a stage is tried again and how long it may take."""

    retries: int = 1
    timeout_s: float = 3600.0


LIMITS: Mapping[str, Limits] = {
    "ingest": Limits(retries=2, timeout_s=48 * 3600.0),
    "preprocess": Limits(retries=2, timeout_s=48 * 3600.0),
    "pretrain": Limits(retries=2, timeout_s=14 * 24 * 3600.0),
    "finetune": Limits(retries=2, timeout_s=4 * 24 * 3600.0),
    "evaluate": Limits(retries=1, timeout_s=24 * 3600.0),
    "gate": Limits(retries=0),
}


def retry_helps(task: Task[..., Any], task_run: Any, state: Any) -> bool:
    """Whether a failed stage should be tried again: never for a user's mistake, a check or a gate."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, StageFailed) or error.retryable


@contextlib.contextmanager
def _training_slot(stage: str) -> Iterator[None]:
    """At most one training run at a time on a Prefect server where the limit exists.

    The embedded API runs no service that takes back the slot of a killed run; there the workspace's lock is enough.
    """
    if stage not in TRAINING_STAGES or os.environ.get(EMBEDDED) == "1":
        yield
        return
    from prefect.concurrency.sync import concurrency

    with concurrency(TRAINING_LIMIT, occupy=1, lease_duration=60, strict=False):
        yield


def _progress_artifact(target: str) -> Callable[[dict[str, float]], None]:
    """A function that shows progress as a Prefect artifact, at most every two seconds."""
    key = f"progress-{target.replace('_', '-').replace('@', '-').lower()}"
    artifact: list[Any] = []
    last = [0.0]

    def show(state: dict[str, float]) -> None:
        share = 100.0 * state["done"] / max(state["total"], 1)
        now = time.monotonic()
        if artifact and share < 100.0 and now - last[0] < 2.0:
            return
        last[0] = now
        if artifact:
            update_progress_artifact(artifact[0], progress=share)
        else:
            description = f"{target}: share of {state.get('unit', 'work')} done"
            artifact.append(create_progress_artifact(progress=share, key=key, description=description))

    return show


def run_stage(target: str, root: str, force: bool = False) -> str:
    """Reproduce one stage (`STAGE` or `STAGE@ITEM`); returns why it ran or did not."""
    log = get_run_logger()
    stage = target.partition("@")[0]
    progress = _progress_artifact(target) if stage in LONG_STAGES else (lambda state: None)
    with _training_slot(stage):
        outcome = reproduce(Path(root), target, show=log.info, progress=progress, force=force)
    publish(Path(root), target)
    log.info("%s %s", target, outcome.describe())
    return outcome.status


def stage_task(stage: str) -> Task[..., str]:
    """The Prefect task of a stage, under the stage's own name."""
    limits = LIMITS.get(stage, Limits())
    make: Any = task(
        name=stage,
        task_run_name="{target}",
        retries=limits.retries,
        retry_delay_seconds=RETRY_DELAYS_S[: max(limits.retries, 1)],
        retry_condition_fn=retry_helps,
        timeout_seconds=limits.timeout_s,
        tags=["velvet", stage],
        persist_result=False,
    )
    made: Task[..., str] = make(run_stage)
    return made


def run_chain(root: Path, values: Mapping[str, Any], first: str, last: str) -> dict[str, str]:
    """Run the stages from `first` to `last` in order, one task each (one an item for stages with items).

    Returns what became of each. The gate's verdict is enforced between `gate` and whatever follows it.
    """
    names = [stage.name for stage in STAGES]
    chosen = STAGES[names.index(first) : names.index(last) + 1]
    outcomes: dict[str, str] = {}
    for stage in chosen:
        items: Sequence[str | None] = list(values[stage.name]) if stage.item else [None]
        for item in items:
            target = f"{stage.name}@{item}" if item else stage.name
            outcomes[target] = stage_task(stage.name)(target, str(root))
        if stage.name == "gate":
            enforce_gate(root)
    return outcomes


def enforce_gate(root: Path) -> None:
    """Raise `GateError` with the gate's reasons unless the verdict is yes and of the weights at hand."""
    from components.evaluation.gate import require_model

    require_model(root)
