"""Point estimates with 95 % intervals: every metric is a function of study weights, so one bootstrap serves all.

A bootstrap resample of patients is a vector of weights (how often each patient was drawn), shared by all of a
patient's studies. A metric takes weights `[B, N]` and answers `[B]`; weights of one give the point estimate.
Ties are averaged exactly: constant scores get chance, never better (AUROC 0.5, precision = prevalence).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]
Metric: TypeAlias = Callable[[Array], Array]
SCORE_DECIMALS = 6  # a matrix product rounds equal rows differently in the last bits: below this is a tie


@dataclass(frozen=True)
class Estimate:
    """A metric's value with its percentile interval, chance level and sample sizes."""

    value: float
    low: float
    high: float
    chance: float | None
    n: int
    n_patients: int
    unit: str

    def as_dict(self) -> dict[str, Any]:
        """The mapping that metrics.json holds; what is not finite becomes null there."""
        return dict(vars(self))


@dataclass(frozen=True)
class Bootstrap:
    """A seeded patient-level bootstrap: `resamples` draws of patients with replacement."""

    resamples: int = 1000
    seed: int = 0
    level: float = 0.95

    def weights(self, patients: Sequence[str]) -> Array:
        """Weights `[resamples, N]` of the studies whose patients are given, in that order."""
        _, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
        count = int(index.max()) + 1 if len(index) else 0
        if count == 0:
            return np.zeros((self.resamples, 0))
        generator = np.random.default_rng(self.seed)
        drawn = generator.multinomial(count, np.full(count, 1.0 / count), size=self.resamples)
        return drawn.astype(np.float64)[:, index]

    def estimate(
        self,
        metric: Metric,
        patients: Sequence[str],
        *,
        chance: float | None,
        unit: str,
        resampled: Metric | None = None,
    ) -> Estimate:
        """The metric on all studies and its percentile interval over resampled patients.

        `resampled` stands for the metric in the resamples where more than patients is drawn (seeds, say).

        Resamples in which the metric is undefined (no positive drawn, say) are left out; if fewer than half
        are defined the interval is not a number, so that a gate refuses it.
        """
        n = len(patients)
        if n == 0:
            return Estimate(math.nan, math.nan, math.nan, chance, 0, 0, unit)
        value = float(metric(np.ones((1, n)))[0])
        draws = (resampled or metric)(self.weights(patients))
        draws = draws[np.isfinite(draws)]
        low = high = math.nan
        if math.isfinite(value) and len(draws) * 2 >= self.resamples:
            tail = (1 - self.level) / 2 * 100
            low, high = (float(bound) for bound in np.percentile(draws, [tail, 100 - tail]))
        return Estimate(value, low, high, chance, n, len(set(patients)), unit)


def weighted_mean(values: Array) -> Metric:
    """The mean of per-study `values` [N] (NaN = not defined for that study) as a metric."""
    defined = np.isfinite(values)
    filled = np.where(defined, values, 0.0)

    def metric(weights: Array) -> Array:
        return _ratio(weights @ filled, weights @ defined.astype(np.float64))

    return metric


def weighted_median(values: Array) -> Metric:
    """The median of per-study `values` [N]: the mean of the lower and upper weighted medians."""
    order = np.argsort(values, kind="stable")
    ranked = np.asarray(values, dtype=np.float64)[order]

    def metric(weights: Array) -> Array:
        total = np.cumsum(weights[:, order], axis=1)
        half = total[:, -1:] / 2
        lower = ranked[np.argmax(total >= half, axis=1)]
        upper = ranked[np.argmax(total > half, axis=1)]
        return np.where(total[:, -1] > 0, (lower + upper) / 2, np.nan)

    return metric


def auroc(target: npt.ArrayLike, score: npt.ArrayLike) -> Metric:
    """Area under the ROC curve of binary `target` [N] by `score` [N]; a tied pair counts one half."""
    groups = _grouped(target, score)

    def metric(weights: Array) -> Array:
        positive, negative = groups(weights)
        below = np.cumsum(negative, axis=1) - negative
        wins = (positive * (negative.sum(1, keepdims=True) - below - 0.5 * negative)).sum(1)
        return _ratio(wins, positive.sum(1) * negative.sum(1))

    return metric


def average_precision(target: npt.ArrayLike, score: npt.ArrayLike) -> Metric:
    """Area under the precision-recall curve (average precision); tied scores share one threshold."""
    groups = _grouped(target, score)

    def metric(weights: Array) -> Array:
        positive, negative = groups(weights)
        hits, false = np.cumsum(positive, axis=1), np.cumsum(negative, axis=1)
        precision = np.divide(hits, hits + false, out=np.zeros_like(hits), where=hits + false > 0)
        return _ratio((positive * precision).sum(1), positive.sum(1))

    return metric


def _grouped(target: npt.ArrayLike, score: npt.ArrayLike) -> Callable[[Array], tuple[Array, Array]]:
    """Weights [B, N] -> weighted positives and negatives [B, G] per distinct score, highest first."""
    truth = np.asarray(target, dtype=np.float64)
    rounded = np.round(np.asarray(score, dtype=np.float64), SCORE_DECIMALS)
    order = np.argsort(-rounded, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(rounded[order]) != 0]) if len(order) else np.zeros(0, int)
    truth = truth[order]

    def groups(weights: Array) -> tuple[Array, Array]:
        ranked = weights[:, order]
        positive = np.add.reduceat(ranked * truth, starts, axis=1)
        return positive, np.add.reduceat(ranked * (1 - truth), starts, axis=1)

    return groups


def f1_score(target: npt.ArrayLike, predicted: npt.ArrayLike) -> Metric:
    """F1 of the positive class of binary predictions [N]; undefined without any positive at all."""
    truth, said = np.asarray(target, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return lambda weights: _ratio(2 * (weights @ (truth * said)), weights @ (truth + said))


def balanced_accuracy(target: npt.ArrayLike, predicted: npt.ArrayLike) -> Metric:
    """The mean recall over the classes of `target` [N] (whole numbers); chance is 1 / classes."""
    truth, said = np.asarray(target), np.asarray(predicted)
    classes = np.unique(truth)

    def metric(weights: Array) -> Array:
        right = (truth == said).astype(np.float64)
        recalls = []
        for one in classes:
            member = (truth == one).astype(np.float64)
            recalls.append(_ratio(weights @ (member * right), weights @ member))
        return np.mean(recalls, axis=0) if recalls else np.full(len(weights), np.nan)

    return metric


def macro(metrics: Iterable[tuple[Metric, npt.NDArray[np.intp]]]) -> Metric:
    """The mean over labels; each metric sees the columns of the studies that its label is defined for.

    A label that is undefined in a resample is left out of that resample's mean.
    """
    parts = list(metrics)

    def metric(weights: Array) -> Array:
        values = np.stack([one(weights[:, columns]) for one, columns in parts])
        defined = np.isfinite(values)
        return _ratio(np.where(defined, values, 0.0).sum(0), defined.sum(0).astype(np.float64))

    if parts:
        return metric
    return lambda weights: np.full(len(weights), np.nan)


def _ratio(top: Array, bottom: Array) -> Array:
    out = np.full(np.shape(top), np.nan)
    return np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0)


def roc_points(target: npt.ArrayLike, score: npt.ArrayLike) -> list[tuple[float, float]]:
    """The ROC curve's (fpr, tpr) corners from (0, 0) to (1, 1), one a distinct score."""
    positive, negative = _grouped(target, score)(np.ones((1, len(np.asarray(target)))))
    tpr = np.cumsum(positive[0]) / max(positive.sum(), 1e-12)
    fpr = np.cumsum(negative[0]) / max(negative.sum(), 1e-12)
    return [(0.0, 0.0), *zip(fpr.tolist(), tpr.tolist())]


def first_hit_recall(better: int, tied_right: int, tied_wrong: int, k: int) -> float:
    """P(a right item is among the first k) when ties are broken at random: hypergeometric, exact.

    `better` wrong items score above the best right one; `tied_right` right and `tied_wrong` wrong share its score.
    With every item tied this is the chance level.
    """
    slots = k - better
    if slots <= 0 or tied_right == 0:
        return 0.0
    if slots > tied_wrong:
        return 1.0
    return 1.0 - math.comb(tied_wrong, slots) / math.comb(tied_wrong + tied_right, slots)


def first_hit_rank(better: int, tied_right: int, tied_wrong: int) -> float:
    """The expected rank (from 1) of the first right item when ties are broken at random."""
    return better + (tied_right + tied_wrong + 1) / (tied_right + 1)


def chance_median_rank(pools: Sequence[tuple[int, int]]) -> float:
    """The median, over queries, of the first right item's rank in random order; pools are (right, wrong)."""
    if not pools:
        return math.nan
    for rank in range(1, max(right + wrong for right, wrong in pools) + 1):
        reached = float(np.mean([first_hit_recall(0, right, wrong, rank) for right, wrong in pools]))
        if reached >= 0.5:
            return float(rank)
    return math.nan


def slice_rows(values: Mapping[str, Sequence[str | None]]) -> list[tuple[str, str, npt.NDArray[np.intp]]]:
    """(attribute, value, row numbers) for every value of every attribute, sorted; null values are left out."""
    found = []
    for attribute in sorted(values):
        column = values[attribute]
        for one in sorted({value for value in column if value is not None}):
            rows = np.flatnonzero(np.asarray([value == one for value in column]))
            found.append((attribute, one, rows))
    return found
