"""Let out only what passes: gate, package, and (when asked for) promotion to champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger

from flows.environment import project_root
from flows.run import run


@task(name="promote", persist_result=False, tags=["velvet", "promote"])
def promote_task(root: str) -> str:
    """Make the gated candidate the champion (if it is not already); returns its model hash."""
    from components.evaluation.gate import require_model
    from components.release.champion import promote, read_champion

    verdict = require_model(Path(root))
    known = read_champion(Path(root))
    if known is not None and known.model_sha256 == verdict["candidate"]:
        get_run_logger().info("the candidate is the champion already")
        return known.model_sha256
    champion = promote(Path(root), verdict)
    get_run_logger().info(
        "champion is now %s; commit infra/champion.json to keep it", champion.model_sha256[:16]
    )
    return champion.model_sha256


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
