"""Estimates: exact ties, chance for knowledge-free scores, and intervals that cover the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from components.downstream.thresholds import best_threshold
from components.evaluation import statistics as st

ONES = np.ones((1, 200))


def value(metric, n: int) -> float:
    return float(metric(np.ones((1, n)))[0])


def targets(n: int, seed: int) -> np.ndarray:
    target = np.random.default_rng(seed).integers(0, 2, n)
    target[:2] = (0, 1)
    return target


@settings(max_examples=60, deadline=None)
@given(some.integers(0, 10_000), some.integers(4, 40), some.integers(1, 12))
def test_areas_agree_with_scikit_learn_with_and_without_ties(seed, n, levels):
    target, score = targets(n, seed), np.random.default_rng(seed + 1).integers(0, levels, n) / levels
    assert value(st.auroc(target, score), n) == pytest.approx(roc_auc_score(target, score), abs=1e-12)
    assert value(st.average_precision(target, score), n) == pytest.approx(
        average_precision_score(target, score), abs=1e-12
    )


@settings(max_examples=30, deadline=None)
@given(some.integers(0, 10_000))
def test_weights_are_repeats(seed):
    rng = np.random.default_rng(seed)
    target, score, weights = targets(12, seed), rng.integers(0, 5, 12) / 5, rng.integers(0, 4, 12)
    rows = np.repeat(np.arange(12), weights)
    for make in (st.auroc, st.average_precision):
        weighted = float(make(target, score)(weights[None].astype(float))[0])
        repeated = value(make(target[rows], score[rows]), len(rows)) if len(rows) else math.nan
        assert weighted == pytest.approx(repeated, abs=1e-12, nan_ok=True)
    called = (score > 0.5).astype(int)
    f1 = float(st.f1_score(target, called)(weights[None].astype(float))[0])
    if len(rows) and (target[rows] + called[rows]).any():
        assert f1 == pytest.approx(f1_score(target[rows], called[rows]), abs=1e-12)


@pytest.mark.parametrize(
    "scores", [np.zeros(200), np.full(200, 0.3) + np.random.default_rng(0).normal(0, 1e-9, 200)]
)
def test_constant_scores_are_chance_even_with_rounding_noise(scores):
    target = targets(200, 3)
    assert value(st.auroc(target, scores), 200) == 0.5
    assert value(st.average_precision(target, scores), 200) == pytest.approx(target.mean())


def test_an_undefined_metric_is_not_a_number():
    assert math.isnan(value(st.auroc([1, 1, 1], [0.1, 0.2, 0.3]), 3))
    estimate = st.Bootstrap(200, 1).estimate(
        st.auroc([1, 1], [0.1, 0.2]), ["a", "b"], chance=0.5, unit="auroc"
    )
    assert math.isnan(estimate.value)
    assert math.isnan(estimate.low)
    empty = st.Bootstrap(200, 1).estimate(st.weighted_mean(np.zeros(0)), [], chance=0.5, unit="recall")
    assert (empty.n, empty.n_patients) == (0, 0)
    assert math.isnan(empty.value)


def test_a_patients_studies_are_drawn_together():
    weights = st.Bootstrap(500, 7).weights(["b", "a", "b", "c", "a"])
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert np.array_equal(weights[:, 0] + weights[:, 1] + weights[:, 3], np.full(500, 3.0))


def test_the_interval_has_width_is_seeded_and_grows_with_clustering():
    rng = np.random.default_rng(5)
    values = np.repeat(rng.normal(size=40), 5) + rng.normal(0, 0.05, 200)
    metric = st.weighted_mean(values)
    clustered = st.Bootstrap(1000, 1).estimate(
        metric, [f"p{at // 5}" for at in range(200)], chance=None, unit="x"
    )
    apart = st.Bootstrap(1000, 1).estimate(metric, [f"p{at}" for at in range(200)], chance=None, unit="x")
    again = st.Bootstrap(1000, 1).estimate(
        metric, [f"p{at // 5}" for at in range(200)], chance=None, unit="x"
    )
    assert clustered == again
    assert 0 < apart.high - apart.low < clustered.high - clustered.low
    assert (clustered.n, clustered.n_patients) == (200, 40)


def test_intervals_cover_the_truth_about_95_times_in_100():
    """Simulated cohorts of 60 patients with correlated studies; the truth is known (P7)."""
    covered, widths, runs = {"mean": 0, "auroc": 0}, [], 300
    for run in range(runs):
        rng = np.random.default_rng([11, run])
        patients = [f"p{at}" for at in range(60) for _ in range(2)]
        shared = np.repeat(rng.normal(size=60), 2)
        noisy = shared + rng.normal(size=120)
        target = np.repeat(rng.random(60) < 0.5, 2).astype(int)
        score = (
            target * 1.0
            + np.repeat(rng.normal(size=60), 2) * math.sqrt(0.5)
            + rng.normal(size=120) * math.sqrt(0.5)
        )
        bootstrap = st.Bootstrap(400, run)
        mean = bootstrap.estimate(st.weighted_mean(noisy), patients, chance=None, unit="x")
        area = bootstrap.estimate(st.auroc(target, score), patients, chance=0.5, unit="auroc")
        covered["mean"] += mean.low <= 0.0 <= mean.high
        covered["auroc"] += area.low <= 0.76025 <= area.high  # Phi(1 / sqrt(2))
        widths += [mean.high - mean.low, area.high - area.low]
    assert min(widths) > 0
    for name, count in covered.items():
        assert 0.90 <= count / runs <= 0.98, (name, count / runs)


def test_macro_is_the_mean_over_labels_and_skips_those_undefined():
    first, second = st.auroc([1, 0], [0.9, 0.1]), st.auroc([1, 0, 1], [0.2, 0.2, 0.2])
    both = st.macro([(first, np.array([0, 1])), (second, np.array([1, 2, 3]))])
    assert float(both(np.ones((1, 4)))[0]) == 0.75
    assert float(both(np.array([[1.0, 0.0, 1.0, 1.0]]))[0]) == 0.5
    assert math.isnan(float(st.macro([])(np.ones((1, 2)))[0]))


def test_weighted_median_matches_numpy_on_repeats():
    values, weights = np.array([5.0, 1.0, 3.0, 9.0]), np.array([[1, 1, 1, 1], [2, 0, 1, 0], [0, 3, 0, 1]])
    found = st.weighted_median(values)(weights.astype(float))
    expected = [np.median(np.repeat(values, row)) for row in weights]
    assert np.allclose(found, expected)


@pytest.mark.parametrize(
    ("better", "right", "wrong"), [(0, 1, 4), (2, 1, 0), (1, 2, 3), (0, 3, 0), (3, 2, 2)]
)
def test_hits_among_ties_equal_the_mean_over_all_orders(better, right, wrong):
    items = [True] * right + [False] * wrong
    orders = list(set(itertools.permutations(items)))
    firsts = [better + order.index(True) + 1 for order in orders]
    assert st.first_hit_rank(better, right, wrong) == pytest.approx(np.mean(firsts))
    for k in range(1, better + right + wrong + 1):
        expected = np.mean([first <= k for first in firsts])
        assert st.first_hit_recall(better, right, wrong, k) == pytest.approx(expected)


def test_the_median_rank_of_chance():
    assert st.chance_median_rank([(1, 9)] * 10) == 5.0
    assert st.chance_median_rank([(5, 5)]) == 1.0
    assert math.isnan(st.chance_median_rank([]))


@pytest.mark.parametrize("rule", ["f1", "youden"])
def test_the_threshold_is_the_best_there_is(rule):
    rng = np.random.default_rng(2)
    target, score = targets(40, 2), rng.integers(0, 9, 40) / 9

    def quality(threshold: float) -> float:
        called = score >= threshold
        if rule == "f1":
            return f1_score(target, called)
        return float(called[target == 1].mean() - called[target == 0].mean())

    best = max(quality(level) for level in np.unique(score))
    assert quality(best_threshold(target, score, rule)) == pytest.approx(best)
    with pytest.raises(ValueError):
        best_threshold([1, 1], [0.2, 0.4], rule)


def test_roc_points_run_from_corner_to_corner():
    points = st.roc_points([1, 0, 1, 0], [0.9, 0.9, 0.4, 0.1])
    assert points == [(0.0, 0.0), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)]
