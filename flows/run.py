"""What every flow does around its stages: lock the workspace, apply parameters, keep the run as an experiment."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.logging import get_run_logger

from components.base.errors import VelvetError
from flows.environment import project_root
from flows.overrides import applied
from flows.reproduce import StageFailed, dvc
from flows.tasks import run_chain
from flows.workspace import exclusive


class ShortReasons(logging.Filter):
    """Takes the traceback off a refusal that Prefect logs: its reason says all that a person needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every record, without the traceback where the exception is one of ours."""
        if record.exc_info and isinstance(record.exc_info[1], (StageFailed, VelvetError)):
            record.exc_info = record.exc_text = None
        return True


def shorten_reasons() -> None:
    """Put `ShortReasons` on the loggers of flow and task runs, once."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(item, ShortReasons) for item in logger.filters):
            logger.addFilter(ShortReasons())


def run(
    first: str, last: str, *, preset: str | None = None, overrides: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """Run stages `first` to `last` with a preset and overrides; returns what became of each stage."""
    shorten_reasons()
    root = project_root()
    with exclusive(root), applied(root, preset, overrides or {}) as values:
        outcomes = run_chain(root, values, first, last)
        if preset or overrides:
            outcomes["experiment"] = keep_experiment(root, preset, overrides or {})
    return outcomes


def keep_experiment(root: Path, preset: str | None, overrides: Mapping[str, Any]) -> str:
    """Save params, lock file and metrics as a DVC experiment (`dvc exp show` lists it); returns its name."""
    from components.base.config import fingerprint

    stem = re.sub(r"[^a-z0-9]+", "-", (preset or "run").lower()).strip("-")
    name = f"{stem}-{fingerprint({'preset': preset, 'overrides': dict(overrides)})[:8]}"
    message = ", ".join([preset or "", *(f"{key}={value}" for key, value in sorted(overrides.items()))])
    code, output = dvc(root, "exp", "save", "--force", "--name", name, "--message", message.strip(", "))
    if code != 0:
        lines = [line for line in output.splitlines() if line.startswith("ERROR")]
        get_run_logger().warning("the run could not be kept as an experiment: %s", (lines or ["?"])[-1])
        return ""
    return name
