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
from components.base.files import write_json
from components.pretraining.checkpoint import Checkpoint, CheckpointStore
from components.pretraining.clock import Clock
from components.pretraining.devices import (
    clip_split,
    is_split,
    load_optimizer,
    load_weights,
    make_fabric,
    optimizer_tensors,
    weight_tensors,
    whole,
)
from components.pretraining.module import Held, PretrainModule, parameter_groups
from components.pretraining.prefetch import prefetched

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.pretraining.settings import Params

TERMINATED = 143
Batch = dict[str, Any]
Batches = Callable[[int], Iterator[Batch]]
Validate = Callable[[Any, Callable[[Batch], Batch]], dict[str, float]]


class Interrupted(Exception):
    """SIGTERM came during validation."""


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
        if (
            self.fabric.device.type == "cpu"
        ):  # a transformer's tokens then need no copy after the patch embedding
            module.encoder.vision.to(memory_format=torch.channels_last_3d)
        self.wrapped: Any = self.fabric.setup_module(module)
        self.optimizer: Any = self.fabric.setup_optimizers(
            torch.optim.AdamW(
                parameter_groups(module, params.weight_decay),
                lr=params.learning_rate,
                betas=params.betas,
                fused=params.precision != "16-mixed"
                and not is_split(module),  # the scaler clips unfused ones
            )
        )
        self.outcome = Outcome()
        self.best: dict[str, Tensor] | None = None
        self.best_loss: float | None = None
        self.clock = Clock()
        self._stop = threading.Event()
        self._rows = 0

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
        with termination() as self._stop:
            if self._validation_due(start) and not self._is_validated(start):
                self._validate(start, validate)  # SIGTERM came before this validation, or there is no step
            stream = prefetched(
                batches(start), 0 if self.params.num_workers else self.params.prefetch_batches
            )
            try:
                for step in range(start, self.params.num_steps):
                    with self.clock("data"):
                        batch = self._move(next(stream))
                    self._step(step, batch)
                    self._after(step + 1, len(batch["study_key"]), validate)
            finally:
                stream.close()  # type: ignore[attr-defined]
        self._write_timing()
        return self._finish()

    def _after(self, done: int, rows: int, validate: Validate) -> None:
        """What follows step number `done`: validation, progress, a checkpoint, the end if SIGTERM came."""
        self._report(done, rows)
        stopped = self._stopped()
        if not stopped and self._validation_due(done):
            try:
                self._validate(done, validate)
            except Interrupted:
                stopped = True
        if stopped:
            self._save(done)
            self._write_timing()
            self.context.log.warning("SIGTERM: a checkpoint of step %d is written", done)
            raise SystemExit(TERMINATED)
        if done % self.params.checkpoint_every_steps == 0 and done < self.params.num_steps:
            self._save(done)

    def _step(self, step: int, batch: Batch) -> None:
        rate = learning_rate(step, self.params)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.clock("forward"):
            losses = self.wrapped(Held(batch))
            losses = {**losses, "total": self.module.total(losses, step)}
        with self.clock("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            self.fabric.backward(losses["total"])
            if self.fabric.device.type == "cuda":
                torch.cuda.synchronize()
        with self.clock("optimiser"):
            self._clip(step)
            self.optimizer.step()
            stacked = torch.stack([value.detach().double() for value in losses.values()])
            values = dict(zip(losses, stacked.tolist(), strict=True))
        self.clock.steps += 1
        self.outcome.losses |= values
        if step % self.params.log_every_steps == 0 or step == self.params.num_steps - 1:
            tau = self.module.encoder.tau
            values |= {"temperature": float(whole(tau.detach())), "learning_rate": rate}
            self.outcome.curves += [(step, f"train.{name}", value) for name, value in sorted(values.items())]

    def _clip(self, step: int) -> None:
        if not self.params.clip_gradient:
            return
        limit = self.params.clip_gradient
        if is_split(self.module):
            norm: Tensor | None = clip_split(self.module.parameters(), limit)
        else:
            norm = self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=limit, error_if_nonfinite=False
            )
        skipped = self.params.precision == "16-mixed"  # the scaler leaves such a step out and scales less
        if norm is not None and not skipped and not bool(torch.isfinite(norm)):
            raise TrainingError(
                f"the gradient is not finite at step {step}",
                rule="pretrain.finite",
                fix="lower learning_rate, or set precision to 32-true",
            )

    def _validation_due(self, done: int) -> bool:
        return done == self.params.num_steps or (done > 0 and done % self.params.validate_every_steps == 0)

    def _is_validated(self, done: int) -> bool:
        return any(at == done - 1 and name.startswith("validation.") for at, name, _ in self.outcome.curves)

    def _validate(self, done: int, validate: Validate) -> None:
        def move(batch: Batch) -> Batch:
            if self._stopped():
                raise Interrupted
            return self._move(batch)

        with self.clock("validation"):
            found = validate(self.wrapped, move)
        at = max(0, done - 1)
        self.outcome.curves += [(at, f"validation.{name}", value) for name, value in sorted(found.items())]
        shown = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
        self.context.log.info("step %d validation: %s", done, shown or "no study")
        self.outcome.validation, self.outcome.kept_step = found, done
        total = found.get("total")
        better = total is not None and (self.best_loss is None or total < self.best_loss)
        if self.params.keep == "best" and better:
            self.best, self.best_loss = weight_tensors(self.module), total

    def _stopped(self) -> bool:
        """Whether SIGTERM reached any process: all must agree, or the others would wait for one that left."""
        if self.fabric.world_size == 1:
            return self._stop.is_set()
        flag = torch.tensor(float(self._stop.is_set()), device=self.fabric.device)
        total: Any = self.fabric.all_reduce(flag, reduce_op="sum")
        return float(total) > 0

    def _report(self, done: int, rows: int) -> None:
        if not self.fabric.is_global_zero:
            return
        elapsed, steps = time.monotonic() - self._started, done - self._first
        self._rows = rows * self.fabric.world_size
        extra = {f"loss_{name}": round(value, 4) for name, value in self.outcome.losses.items()}
        extra |= {"step_s": round(self.clock.step_s, 4), **self.clock.shares()}
        extra["volumes_per_s"] = round(self._rows * steps / max(elapsed, 1e-9), 2)
        extra["data_wait_share"] = extra.pop("data_share")
        extra["remaining_s"] = round(elapsed / steps * (self.params.num_steps - done), 1)
        self.context.progress(done, self.params.num_steps, "steps", **extra)
        every = max(1, self.params.num_steps // 20)
        if done % every == 0 or done == self.params.num_steps:
            self._write_timing()
            self.context.log.info(
                "step %d/%d  total %.4f  %.1f volumes/s  data wait %.0f %%  %.0f s left",
                done,
                self.params.num_steps,
                self.outcome.losses["total"],
                extra["volumes_per_s"],
                100 * extra["data_wait_share"],
                extra["remaining_s"],
            )

    def _write_timing(self) -> None:
        """`logs/pretrain.timing.json`: beside the logs, as times differ between runs that are equal."""
        if self.fabric.is_global_zero:
            path = self.context.root / "logs" / f"{self.context.label}.timing.json"
            write_json(path, self.clock.summary(self._rows, self.fabric.world_size))

    def _move(self, batch: Batch) -> Batch:
        device = self.fabric.device
        if device.type == "cpu":
            return batch
        moved = (Tensor, type(batch["text"]))
        return {
            key: value.to(device, non_blocking=True) if isinstance(value, moved) else value
            for key, value in batch.items()
        }

    def _resume(self) -> int:
        if self.params.resume == "never":
            if self.fabric.is_global_zero:
                self.store.remove()
            self.fabric.barrier()
        elif self.params.resume != "auto":
            self.store.require(self.params.resume)
        if self.fabric.is_global_zero:
            self.store.clean()
        self.fabric.barrier()
        found = self.store.latest()
        if found is None:
            return 0
        load_weights(self.module, found.weights)
        load_optimizer(self.optimizer.optimizer, found.optimizer)
        if found.scaler:
            self.fabric.strategy.precision.load_state_dict(found.scaler)
        self.best, self.best_loss = found.best, found.best_loss
        self.outcome.curves = found.curves
        self.outcome.losses = {
            name.removeprefix("train."): value
            for at, name, value in found.curves
            if at == found.step - 1 and name.startswith("train.")
        }
        for name in ("temperature", "learning_rate"):
            self.outcome.losses.pop(name, None)
        self.context.log.info("run %s goes on after step %d", self.store.run_hash, found.step)
        return found.step

    def _save(self, done: int) -> None:
        with self.clock("checkpoint"):
            if self.fabric.is_global_zero or is_split(
                self.module
            ):  # split weights take all processes to collect
                checkpoint = Checkpoint(
                    done,
                    weight_tensors(self.module),
                    optimizer_tensors(self.optimizer.optimizer),
                    self.best,
                    self.best_loss,
                    self.outcome.curves,
                    self.fabric.strategy.precision.state_dict(),
                )
                if self.fabric.is_global_zero:
                    self.store.save(checkpoint)
            self.fabric.barrier()

    def _finish(self) -> Outcome:
        if self.best is not None:
            load_weights(self.module, self.best)
            total = [row for row in self.outcome.curves if row[1] == "validation.total"]
            step = min(total, key=lambda row: row[2])[0]
            self.outcome.kept_step = min(step + 1, self.params.num_steps)
            self.outcome.validation = {
                name.removeprefix("validation."): value
                for at, name, value in self.outcome.curves
                if at == step and name.startswith("validation.")
            }
        return self.outcome
