"""Downstream tasks and their evaluation on the encoders at hand."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.run import run


@flow(name="finetune", persist_result=False)
def finetune(preset: str | None = None, overrides: dict[str, Any] | None = None) -> dict[str, str]:
    """Run the stages `finetune` to `evaluate`.

    Args:
        preset: a named set of overrides from params.yaml, or none for the values in force.
        overrides: dotted parameters for this run only, for instance `{"pretrain.num_steps": 100}`.
    """
    return run("finetune", "evaluate", preset=preset, overrides=overrides)
