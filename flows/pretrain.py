"""From the archive to a packaged encoder: every stage in order."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.run import run


@flow(name="pretrain", persist_result=False)
def pretrain(preset: str | None = None, overrides: dict[str, Any] | None = None) -> dict[str, str]:
    """Run the stages `ingest` to `package`.

    Args:
        preset: a named set of overrides from params.yaml, or none for the values in force.
        overrides: dotted parameters for this run only, for instance `{"pretrain.num_steps": 100}`.
    """
    return run("ingest", "package", preset=preset, overrides=overrides)
