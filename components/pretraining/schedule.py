"""Which studies make the batch of a step: a pure function of (seed, step), so any step can be the first.

Paired, image-only and text-only studies are three streams. Each goes through its own permutation an epoch, in
batches without repetition; what does not fill a batch at the end of an epoch waits for the next permutation.
With weights (`class_weights`) the paired stream is balanced: an epoch has as many rows as ever, but a study of a rare
finding comes more than once in it, never twice in one batch, and one of a common finding may not come at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from components.base.errors import InputError

PAIRED, IMAGE_ONLY, TEXT_ONLY = 0, 1, 2
BALANCED = 3
NOTHING = "no finding"


class Draw(NamedTuple):
    """One row of a batch: the number of a study as it is drawn in an `epoch` of its stream, for `step`."""

    step: int
    epoch: int
    study: int


@dataclass(frozen=True)
class Schedule:
    """The order of studies in training: paired ones have the first numbers, then image-only, then text-only ones.

    Args:
        image_only_fraction: the share of a batch that is image-only, where there are such studies.
        world: how many processes share a step; each gets `batch_size` rows of its own.
        text_only_fraction: how many reports without a volume come with a batch, as a share of its size; they come
            on top of it.
        weights: how often each paired study is wanted, relative to the others; None: equally.
    """

    seed: int
    num_paired: int
    num_image_only: int
    batch_size: int
    image_only_fraction: float
    world: int = 1
    num_text_only: int = 0
    text_only_fraction: float = 0.0
    weights: tuple[float, ...] | None = None

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

    @property
    def text_rows(self) -> int:
        """Reports without a volume that a process has in a step, beside its rows."""
        if not self.num_text_only or self.text_only_fraction <= 0:
            return 0
        return min(max(1, round(self.batch_size * self.text_only_fraction)), self.num_text_only // self.world)

    def batch(self, step: int, rank: int = 0) -> list[Draw]:
        """The rows of one process in one step: paired ones, image-only ones, text-only ones."""
        paired, alone = self.rows
        streams = (
            (PAIRED, 0, self.num_paired, paired),
            (IMAGE_ONLY, self.num_paired, self.num_image_only, alone),
            (TEXT_ONLY, self.num_paired + self.num_image_only, self.num_text_only, self.text_rows),
        )
        return [
            Draw(step, epoch, first + study)
            for kind, first, count, rows in streams
            for _, epoch, study in self._stream(kind, count, rows, step, rank)
        ]

    def _stream(self, kind: int, count: int, rows: int, step: int, rank: int) -> list[Draw]:
        if not rows:
            return []
        together = rows * self.world
        epoch, position = divmod(step, count // together)
        if kind == PAIRED and self.weights is not None:
            rng = np.random.default_rng([self.seed, BALANCED, epoch])
            order = balanced_order(self.weights, count // together, together, rng)
        else:
            order = np.random.default_rng([self.seed, kind, epoch]).permutation(count)
        start = position * together + rank * rows
        return [Draw(step, epoch, int(study)) for study in order[start : start + rows]]


def class_weights(labels: Sequence[Sequence[str]], strength: float) -> tuple[float, ...]:
    """How often each study is wanted so that every class (finding, or none) comes about equally often.

    A study's weight is the mean over its classes of 1 / (how many studies have the class), to the power of `strength`:
    0 wants all studies equally, 1 balances fully. With one class a study, the classes' shares become equal.
    """
    classes = [tuple(dict.fromkeys(names)) or (NOTHING,) for names in labels]
    count = Counter(name for names in classes for name in names)
    raw = [sum(1 / count[name] for name in names) / len(names) for names in classes]
    return tuple(float(value) for value in np.power(raw, strength))


def balanced_order(
    weights: Sequence[float], num_batches: int, batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Study numbers of one epoch, `num_batches` batches in a row, each of `batch` different studies.

    Every study comes floor or ceil of (its share of the weights) x (rows of the epoch) times, at most once a batch:
    what the heaviest cannot take goes to the others. Systematic sampling, so that the shares are met in every
    epoch and not only on average.
    """
    wanted = expected_counts(np.asarray(weights, dtype=np.float64), num_batches * batch, num_batches)
    order = rng.permutation(len(wanted))
    edges = np.floor(np.round(np.cumsum(wanted[order]), 6) + rng.random()).astype(np.int64)
    counts = np.diff(edges, prepend=0)
    counts[-1] += num_batches * batch - edges[-1]
    while counts.max() > num_batches:  # a rounding error of the sums
        counts[counts.argmax()] -= 1
        counts[counts.argmin()] += 1
    copies = np.repeat(order, counts)
    dealt = copies.reshape(
        batch, num_batches
    ).T  # copies of a study are neighbours: each lands in another batch
    return rng.permuted(dealt[rng.permutation(num_batches)], axis=1).reshape(-1)


def expected_counts(weights: np.ndarray, total: int, most: int) -> np.ndarray:
    """Non-negative counts in proportion to `weights` that add up to `total`, none above `most`.

    There must be at least `total` / `most` studies.
    """
    counts = np.zeros(len(weights))
    free = np.ones(len(weights), dtype=bool)
    while True:
        rest = total - most * (~free).sum()
        share = weights[free] / weights[free].sum()
        counts[free] = rest * share
        over = free & (counts > most + 1e-9)
        if not over.any():
            return np.minimum(counts, most)
        counts[over] = most
        free &= ~over


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
