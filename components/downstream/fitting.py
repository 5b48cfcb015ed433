"""One training loop for small heads on frozen features: AdamW, warm-up and cosine, the best step by validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from components.base.errors import TrainingError
from components.downstream.settings import FittingParams

if TYPE_CHECKING:
    from components.base.step import StepContext


@dataclass
class Fitted:
    """What a training did: the curve as `step,name,value`, and the step whose weights were kept."""

    curve: list[tuple[int, str, float]]
    best_step: int
    best_value: float

    def csv(self) -> str:
        """The curve as a CSV file's text."""
        lines = [f"{step},{name},{value:.6f}" for step, name, value in self.curve]
        return "\n".join(["step,name,value", *lines]) + "\n"


def fit(
    model: nn.Module,
    loss_of: Callable[[np.random.Generator], Tensor],
    validate: Callable[[], float],
    params: FittingParams,
    context: StepContext,
    name: str,
) -> Fitted:
    """Train in place; the model ends in evaluation mode with the weights of the step that validated best.

    Args:
        loss_of: the loss of a step, given that step's generator.
        validate: the value to make small, with the model in evaluation mode; asked every `validate_every_steps`
            and at the end; of equal values the earlier step is kept. Where it is not finite (nothing to validate
            on) the last step is kept.
        name: the curve's name, and that of errors.
    """
    weights = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=params.learning_rate, betas=(0.9, 0.99), weight_decay=params.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, params))
    fitted = Fitted([], params.steps, math.inf)
    best: dict[str, Tensor] | None = None
    forked = [torch.cuda.current_device()] if params.device == "cuda" else []
    with torch.random.fork_rng(devices=forked):
        torch.manual_seed(params.seed)
        for step in range(1, params.steps + 1):
            model.train()
            loss = loss_of(np.random.default_rng([params.seed, 1, step]))
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the loss of {name} is not finite at step {step}",
                    rule=f"{name}.loss",
                    fix=f"lower finetune.{name}.learning_rate",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(weights, params.clip_gradient)
            optimizer.step()
            schedule.step()
            fitted.curve.append((step, name, float(loss.detach())))
            context.progress(step, params.steps, "steps", loss=round(float(loss.detach()), 4))
            if step % params.validate_every_steps == 0 or step == params.steps:
                value = _validated(model, validate)
                if math.isfinite(value):
                    fitted.curve.append((step, f"validation.{name}", value))
                    if value < fitted.best_value:
                        fitted.best_step, fitted.best_value = step, value
                        best = copy.deepcopy(model.state_dict())
    if best is not None:
        model.load_state_dict(best)
    model.eval()
    return fitted


def _validated(model: nn.Module, validate: Callable[[], float]) -> float:
    model.eval()
    with torch.no_grad():
        return validate()


def _rate(step: int, params: FittingParams) -> float:
    """The share of the learning rate at a step: linear warm-up, then a cosine to 0."""
    if step < params.warmup_steps:
        return (step + 1) / params.warmup_steps
    left = max(params.steps - params.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min((step - params.warmup_steps) / left, 1.0)))
