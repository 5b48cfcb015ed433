"""The evaluation protocols and the gate on the models at hand."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.run import run


@flow(name="evaluate", persist_result=False)
def evaluate(preset: str | None = None, overrides: dict[str, Any] | None = None) -> dict[str, str]:
    """Run the stages `evaluate` to `gate`.

    Args:
        preset: a named set of overrides from params.yaml, or none for the values in force.
        overrides: dotted parameters for this run only, for instance `{"pretrain.num_steps": 100}`.
    """
    return run("evaluate", "gate", preset=preset, overrides=overrides)
