"""Scheduled retraining: only where data, code or parameters changed, and released only where the gates pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger

from flows.environment import project_root
from flows.overrides import applied
from flows.release import promote_task
from flows.reproduce import StageFailed, dvc
from flows.run import run
from flows.workspace import exclusive


@task(name="changes", persist_result=False, tags=["velvet", "changes"])
def changes_task(root: str) -> list[str]:
    """The stages that DVC would run, with what changed: one line each, empty if nothing did."""
    code, output = dvc(Path(root), "status", "--json")
    start = output.find("{")
    if code != 0 or start < 0:
        raise StageFailed("changes", "dvc status failed; run it by hand to see why", code, True)
    state: dict[str, list[Any]] = json.loads(output[start:])
    lines = [f"{stage}: {_describe(found)}" for stage, found in sorted(state.items())]
    for line in lines:
        get_run_logger().info("%s", line)
    return lines


def _describe(found: list[Any]) -> str:
    parts: list[str] = []
    for entry in found:
        if not isinstance(entry, dict):
            parts.append(str(entry))
            continue
        for what, names in entry.items():
            shown = names if isinstance(names, str) else ", ".join(f"{k} {v}" for k, v in names.items())
            parts.append(f"{what} ({shown})")
    return "; ".join(parts)


@flow(name="retrain", persist_result=False)
def retrain(
    preset: str | None = None, overrides: dict[str, Any] | None = None, promote: bool = True
) -> dict[str, str]:
    """Retrain if something changed; promote what the gate lets through.

    Args:
        preset: a named set of overrides from params.yaml, or none for the values in force.
        overrides: dotted parameters for this run only.
        promote: whether a model that passes becomes the champion.
    """
    root = project_root()
    with exclusive(root), applied(root, preset, overrides or {}):
        changed = changes_task(str(root))
    if not changed:
        get_run_logger().info("nothing changed since the last run: no retraining")
        return {"retrain": "unchanged"}
    outcomes = run("ingest", "package", preset=preset, overrides=overrides)
    if promote:
        outcomes["champion"] = promote_task(str(root))
    return outcomes
