"""Let out only what passes: gate, package, and (when asked for) promotion to champion."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger

from flows.environment import project_root
from flows.run import run


@task(name="promote", persist_result=False, tags=["velvet", "promote"])
def promote_task(root: str) -> str:
    """Make the gated candidate the champion; returns its model hash."""
    from pathlib import Path

    from components.release.champion import promote

    model_hash = promote(Path(root))
    get_run_logger().info("champion is now %s; commit infra/champion.json to keep it", model_hash[:16])
    return model_hash


@flow(name="release", persist_result=False)
def release(
    preset: str | None = None, overrides: dict[str, Any] | None = None, promote: bool = True
) -> dict[str, str]:
    """Run `gate` and `package`; with `promote` the candidate becomes the champion.

    Args:
        preset: a named set of overrides from params.yaml, or none for the values in force.
        overrides: dotted parameters for this run only.
        promote: whether infra/champion.json is to name this model from now on.
    """
    outcomes = run("gate", "package", preset=preset, overrides=overrides)
    if promote:
        outcomes["champion"] = promote_task(str(project_root()))
    return outcomes
