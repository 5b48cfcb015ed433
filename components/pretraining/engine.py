"""The training loop: Lightning Fabric for devices and precision, everything else a function of the step.

Fabric rather than the Trainer, because exact resume needs the loop to know which step it is at: order, rate
and random numbers follow from the step alone, so a run goes on from a checkpoint by starting to count there
(the Trainer fetches a batch ahead and restores its loops' counters, loaders and generators apart).
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

from components.base.errors import TrainingError
from components.pretraining.checkpoint import (
    Checkpoint,
    CheckpointStore,
    load_optimizer,
    optimizer_tensors,
    weight_tensors,
)
from components.pretraining.module import PretrainModule, parameter_groups

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.pretraining.settings import Params

TERMINATED = 143
Batches = Callable[[int], Iterator[dict[str, Any]]]
Validate = Callable[[PretrainModule, Callable[[Any], Any]], dict[str, float]]


@dataclass
class Outcome:
    """What training leaves: the curves, the last losses and the validation of the kept weights."""

    curves: list[tuple[int, str, float]] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    kept_step: int = 0


def learning_rate(step: int, params: Params) -> float:
    """The rate of a step (from 0): linear growth over the warm-up, then a cosine to the final rate."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.num_steps - 1 - params.warmup_steps)
    share = (1 + math.cos(math.pi * min(1.0, done))) / 2
    return params.final_learning_rate + (params.learning_rate - params.final_learning_rate) * share


def make_fabric(params: Params) -> Fabric:
    """Devices and precision; the bar of progress and the folders of the Trainer do not come with it."""
    fabric = Fabric(accelerator=params.accelerator, devices=params.devices, precision=params.precision)
    if params.num_threads:
        torch.set_num_threads(params.num_threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return fabric


@contextmanager
def termination() -> Iterator[threading.Event]:
    """An event that SIGTERM sets instead of ending the process; the old handler comes back at the end."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


class Trainer:
    """One run: steps, validation, checkpoints, progress. `run` returns the outcome, weights are in `module`."""

    def __init__(
        self,
        module: PretrainModule,
        params: Params,
        store: CheckpointStore,
        context: StepContext,
        fabric: Fabric | None = None,
    ) -> None:
        self.params, self.store, self.context = params, store, context
        self.fabric = fabric or make_fabric(params)
        self.module = module
        optimizer = torch.optim.AdamW(
            parameter_groups(module, params.weight_decay), lr=params.learning_rate, betas=params.betas
        )
        self.wrapped: Any
        self.wrapped, self.optimizer = self.fabric.setup(module, optimizer)
        self.wrapped.mark_forward_method("training_step")
        self.outcome = Outcome()
        self.best: dict[str, Tensor] | None = None
        self.best_loss: float | None = None
        self._waited = self._busy = 0.0

    def run(self, batches: Batches, validate: Validate) -> Outcome:
        """Train to the last step, from the newest checkpoint if there is one.

        Args:
            batches: from a first step to an iterator over the batches from that step on.
            validate: from the module and a function that moves a batch to its device to numbers by name.

        Raises:
            SystemExit: 143 after SIGTERM, when the step is finished and a checkpoint is written.
            TrainingError: a loss or gradient that is not finite.
        """
        start = self._resume()
        self._started, self._first = time.monotonic(), start
        self.module.train()
        with termination() as stop:
            stream = batches(start)
            for step in range(start, self.params.num_steps):
                before = time.monotonic()
                batch = self._move(next(stream))
                self._waited += time.monotonic() - before
                self._step(step, batch)
                self._busy += time.monotonic() - before
                done = step + 1
                if done % self.params.validate_every_steps == 0 or done == self.params.num_steps:
                    self._validate(done, validate)
                self._report(done, len(batch["study_key"]))
                if stop.is_set():
                    self._save(done)
                    self.context.log.warning("SIGTERM: a checkpoint of step %d is written", done)
                    raise SystemExit(TERMINATED)
                if done % self.params.checkpoint_every_steps == 0 and done < self.params.num_steps:
                    self._save(done)
        return self._finish()

    def _step(self, step: int, batch: dict[str, Any]) -> None:
        rate = learning_rate(step, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = self.wrapped.training_step(batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(losses["total"])
        if self.params.clip_gradient:
            norm = self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=self.params.clip_gradient, error_if_nonfinite=False
            )
            if norm is not None and not bool(torch.isfinite(norm)):
                raise TrainingError(
                    f"the gradient is not finite at step {step}",
                    rule="pretrain.finite",
                    fix="lower learning_rate, or set precision to 32-true",
                )
        self.optimizer.step()
        values = {name: float(value.detach()) for name, value in losses.items()}
        self.outcome.losses |= values
        if step % self.params.log_every_steps == 0 or step == self.params.num_steps - 1:
            values |= {"temperature": float(self.module.encoder.tau.detach()), "learning_rate": rate}
            self.outcome.curves += [(step, f"train.{name}", value) for name, value in sorted(values.items())]

    def _validate(self, done: int, validate: Validate) -> None:
        found = validate(self.module, self._move)
        self.outcome.curves += [
            (done - 1, f"validation.{name}", value) for name, value in sorted(found.items())
        ]
        shown = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
        self.context.log.info("step %d validation: %s", done, shown or "no study")
        self.outcome.validation, self.outcome.kept_step = found, done
        total = found.get("total")
        better = total is not None and (self.best_loss is None or total < self.best_loss)
        if self.params.keep == "best" and better:
            self.best, self.best_loss = weight_tensors(self.module), total

    def _report(self, done: int, rows: int) -> None:
        elapsed, steps = time.monotonic() - self._started, done - self._first
        extra = {f"loss_{name}": round(value, 4) for name, value in self.outcome.losses.items()}
        extra["volumes_per_s"] = round(rows * self.fabric.world_size * steps / max(elapsed, 1e-9), 2)
        extra["data_wait_share"] = round(self._waited / max(self._busy, 1e-9), 3)
        extra["remaining_s"] = round(elapsed / steps * (self.params.num_steps - done), 1)
        self.context.progress(done, self.params.num_steps, "steps", **extra)
        every = max(1, self.params.num_steps // 20)
        if done % every == 0 or done == self.params.num_steps:
            self.context.log.info(
                "step %d/%d  total %.4f  %.1f volumes/s  data wait %.0f %%  %.0f s left",
                done,
                self.params.num_steps,
                self.outcome.losses["total"],
                extra["volumes_per_s"],
                100 * extra["data_wait_share"],
                extra["remaining_s"],
            )

    def _move(self, batch: dict[str, Any]) -> dict[str, Any]:
        moved = (Tensor, type(batch["text"]))
        device = self.fabric.device
        return {key: value.to(device) if isinstance(value, moved) else value for key, value in batch.items()}

    def _resume(self) -> int:
        if self.params.resume == "never":
            self.store.remove()
        elif self.params.resume != "auto":
            self.store.require(self.params.resume)
        found = self.store.latest()
        if found is None:
            return 0
        self.module.load_state_dict(found.weights)
        load_optimizer(self.optimizer, found.optimizer)
        self.best, self.best_loss = found.best, found.best_loss
        self.outcome.curves = found.curves
        self.context.log.info("run %s goes on after step %d", self.store.run_hash, found.step)
        return found.step

    def _save(self, done: int) -> None:
        if self.fabric.is_global_zero:
            checkpoint = Checkpoint(
                done,
                weight_tensors(self.module),
                optimizer_tensors(self.optimizer),
                self.best,
                self.best_loss,
                self.outcome.curves,
            )
            self.store.save(checkpoint)
        self.fabric.barrier()

    def _finish(self) -> Outcome:
        if self.best is not None:
            self.module.load_state_dict(self.best)
            total = [row for row in self.outcome.curves if row[1] == "validation.total"]
            step = min(total, key=lambda row: row[2])[0]
            self.outcome.kept_step = step + 1
            self.outcome.validation = {
                name.removeprefix("validation."): value
                for at, name, value in self.outcome.curves
                if at == step and name.startswith("validation.")
            }
        return self.outcome
