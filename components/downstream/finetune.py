"""Fit one downstream task on the pre-trained encoder.

python -m components.downstream.finetune --task classification
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.base.config import Config
from components.base.step import Step, StepContext


def params_of(task: str) -> type[Config]:
    """The parameters of the task called `task`."""
    from components.downstream.tasks import TASKS

    kind: type[Config] = TASKS.get(task).Params
    return kind


def run(params: Config, context: StepContext) -> Mapping[str, Any]:
    """Fit the task into `artifacts/finetune/TASK/` and return its metrics."""
    from components.downstream.inputs import DownstreamInputs
    from components.downstream.tasks import TASKS

    metrics: Mapping[str, Any] = TASKS.get(str(context.item)).fit(
        params, DownstreamInputs.of(context), context
    )
    return metrics


STEP = Step("finetune", params_of, run, item="task")

if __name__ == "__main__":
    raise SystemExit(STEP.main())
