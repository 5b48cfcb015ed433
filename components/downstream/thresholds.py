"""Decision thresholds, chosen on validation data only."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

ThresholdRule: TypeAlias = Literal["f1", "youden"]


def best_threshold(target: npt.ArrayLike, score: npt.ArrayLike, rule: ThresholdRule) -> float:
    """The score at or above which a study is called positive: highest F1 (`f1`) or Youden's J (`youden`).

    `target` [N] is binary with at least one of each kind. Candidates lie midway between neighbouring distinct
    scores; of equally good ones the middle one is taken.
    """
    truth, values = np.asarray(target, dtype=bool), np.asarray(score, dtype=np.float64)
    if truth.all() or not truth.any():
        raise ValueError("a threshold needs positives and negatives")
    levels = np.unique(values)[::-1]
    called = values[None, :] >= levels[:, None]
    hits, false = (called & truth).sum(1), (called & ~truth).sum(1)
    if rule == "youden":
        quality = hits / truth.sum() - false / (~truth).sum()
    else:
        quality = 2 * hits / (hits + false + truth.sum())
    best = np.flatnonzero(np.isclose(quality, quality.max(), rtol=0, atol=1e-12))
    at = int(best[(len(best) - 1) // 2])
    return float((levels[at] + levels[at + 1]) / 2 if at + 1 < len(levels) else levels[at])
