"""Where a run's time goes: seconds by part of a step. For logs and progress only, never for an artifact.

Wall-clock seconds say what a user waits; the processor's seconds are of use where something else runs beside.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

PARTS = ("data", "forward", "backward", "optimiser", "validation", "checkpoint")
OF_A_STEP = ("data", "forward", "backward", "optimiser")


@dataclass
class Clock:
    """Seconds spent in each part, over `steps` steps of this process (not of the run before a resume)."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    steps: int = 0
    cpu_seconds: float = 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the time of a block to `part`."""
        before, cpu_before = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - before
            if part in OF_A_STEP:
                self.cpu_seconds += time.process_time() - cpu_before

    @property
    def step_s(self) -> float:
        """Mean seconds of a step, the wait for its data included."""
        return sum(self.seconds[part] for part in OF_A_STEP) / max(1, self.steps)

    def shares(self) -> dict[str, float]:
        """The share of each part in the time of steps, rounded."""
        total = max(1e-9, sum(self.seconds[part] for part in OF_A_STEP))
        return {f"{part}_share": round(self.seconds[part] / total, 3) for part in OF_A_STEP}

    def summary(self, rows_in_step: int, world_size: int) -> dict[str, float | int]:
        """What `logs/pretrain.timing.json` holds; `rows_in_step` are those of all processes."""
        return {
            "steps": self.steps,
            "world_size": world_size,
            "step_s": round(self.step_s, 5),
            "step_cpu_s": round(self.cpu_seconds / max(1, self.steps), 5),
            "volumes_per_s": round(rows_in_step / max(1e-9, self.step_s), 3) if self.steps else 0.0,
            **self.shares(),
            **{f"{part}_s": round(seconds, 3) for part, seconds in self.seconds.items()},
        }
