"""Which studies make the batch of a step: a pure function of (seed, step), so any step can be the first.

Paired and image-only studies are two streams. Each goes through its own permutation an epoch, in batches
without repetition; what does not fill a batch at the end of an epoch waits for the next permutation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from components.base.errors import InputError

PAIRED, IMAGE_ONLY = 0, 1


class Draw(NamedTuple):
    """One row of a batch: the number of a study as it is drawn in an `epoch` of its stream, for `step`."""

    step: int
    epoch: int
    study: int


@dataclass(frozen=True)
class Schedule:
    """The order of studies in training; studies 0..num_paired-1 are paired, the rest image-only.

    Args:
        image_only_fraction: the share of a batch that is image-only, where there are such studies.
        world: how many processes share a step; each gets `batch_size` rows of its own.
    """

    seed: int
    num_paired: int
    num_image_only: int
    batch_size: int
    image_only_fraction: float
    world: int = 1

    def __post_init__(self) -> None:
        if self.num_paired + self.num_image_only < self.world:
            raise InputError(
                "the train split has too few studies to train on",
                rule="pretrain.empty",
                fix="see the quarantine tables of the checks, or bring more studies",
            )

    @property
    def rows(self) -> tuple[int, int]:
        """Paired and image-only rows a process has in a step."""
        alone = 0
        if self.num_image_only and self.image_only_fraction > 0:
            alone = max(1, round(self.batch_size * self.image_only_fraction))
        if not self.num_paired:
            alone = self.batch_size
        paired = min(self.batch_size - alone, self.num_paired // self.world)
        return paired, min(alone, self.num_image_only // self.world)

    def batch(self, step: int, rank: int = 0) -> list[Draw]:
        """The rows of one process in one step, paired ones first."""
        paired, alone = self.rows
        first = self._stream(PAIRED, self.num_paired, paired, step, rank)
        second = self._stream(IMAGE_ONLY, self.num_image_only, alone, step, rank)
        return [*first, *(Draw(step, epoch, self.num_paired + study) for _, epoch, study in second)]

    def _stream(self, kind: int, count: int, rows: int, step: int, rank: int) -> list[Draw]:
        if not rows:
            return []
        epoch, position = divmod(step, count // (rows * self.world))
        order = np.random.default_rng([self.seed, kind, epoch]).permutation(count)
        start = (position * self.world + rank) * rows
        return [Draw(step, epoch, int(study)) for study in order[start : start + rows]]


@dataclass(frozen=True)
class ScheduledBatches:
    """The batches of steps `start` to `stop`, for a `DataLoader`'s `batch_sampler`."""

    schedule: Schedule
    start: int
    stop: int
    rank: int = 0

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        return (self.schedule.batch(step, self.rank) for step in range(self.start, self.stop))
