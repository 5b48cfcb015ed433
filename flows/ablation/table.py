"""From the predictions of an ablation's cells to a table: means over seeds, patient-level intervals, differences.

Every cell was measured on the same test studies, so a resample of patients is shared by all seeds and arms: a
metric is computed for each seed and averaged. An arm's difference to the baseline is paired by patient, and its
resamples draw the seeds too, each arm's by itself: two arms that differ only by the luck of their runs do not differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from components.base.errors import InputError
from components.base.files import read_json, read_table
from components.evaluation import statistics as st

RECALLS = (1, 5, 10)
DIRECTIONS = {"report_to_volume": "r2v", "volume_to_report": "v2r"}


@dataclass(frozen=True)
class Column:
    """One measure of one cell: a metric over the studies of `patients`, its chance level and sizes."""

    metric: st.Metric
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    chance: float | None


def columns(cells: Sequence[Path]) -> dict[str, Column]:
    """The measures in `artifacts/evaluate` of the folds of one arm and seed, their predictions pooled."""
    found: dict[str, Column] = {}
    folders = [cell / "artifacts" / "evaluate" for cell in cells]
    if (folders[0] / "retrieval").exists():
        found |= _retrieval([folder / "retrieval" for folder in folders])
    for protocol in ("zero_shot", "linear_probe"):
        if (folders[0] / protocol / "predictions.parquet").exists():
            found[f"{protocol}.auroc"] = _auroc([folder / protocol for folder in folders])
    if (folders[0] / "segmentation" / "predictions.parquet").exists():
        found["segmentation.dice"] = _dice([folder / "segmentation" for folder in folders])
    return found


def _rows(folders: Sequence[Path]) -> list[dict[str, Any]]:
    return [row for folder in folders for row in read_table(folder / "predictions.parquet").to_pylist()]


def _studies(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Study -> patient, in the order of the studies' keys."""
    return dict(sorted({row["study_key"]: row["patient_key"] for row in rows}.items()))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _retrieval(folders: Sequence[Path]) -> dict[str, Column]:
    rows, metrics = _rows(folders), [read_json(folder / "metrics.json") for folder in folders]
    known = _studies(rows)
    found = {}
    for direction, short in DIRECTIONS.items():
        ranks = {row["study_key"]: row["rank"] for row in rows if row["direction"] == direction}
        order = np.array([ranks[key] for key in known], dtype=np.float64)
        for k in RECALLS:
            if not all(f"recall_at_{k}" in fold[direction] for fold in metrics):
                continue
            chance = _mean(fold[direction][f"recall_at_{k}"]["chance"] for fold in metrics)
            metric = st.weighted_mean((order <= k).astype(np.float64))
            found[f"retrieval.{short}.r{k}"] = Column(metric, tuple(known.values()), tuple(known), chance)
    return found


def _auroc(folders: Sequence[Path]) -> Column:
    rows = _rows(folders)
    known = _studies(rows)
    place = {key: at for at, key in enumerate(known)}
    parts: list[tuple[st.Metric, npt.NDArray[np.intp]]] = []
    for label in sorted({row["label"] for row in rows}):
        own = sorted((row for row in rows if row["label"] == label), key=lambda row: row["study_key"])
        where = np.array([place[row["study_key"]] for row in own], dtype=np.intp)
        target = [row["target"] for row in own]
        parts.append((st.auroc(target, [row["score"] for row in own]), where))
    return Column(st.macro(parts), tuple(known.values()), tuple(known), 0.5)


def _dice(folders: Sequence[Path]) -> Column:
    rows, metrics = _rows(folders), [read_json(folder / "metrics.json") for folder in folders]
    known = _studies(rows)
    classes = sorted({row["class"] for row in rows})
    values = np.full((len(known), len(classes)), np.nan)
    place = {key: at for at, key in enumerate(known)}
    for row in rows:
        if row["dice"] is not None:
            values[place[row["study_key"]], classes.index(row["class"])] = row["dice"]
    everyone = np.arange(len(known))
    metric = st.macro([(st.weighted_mean(values[:, at]), everyone) for at in range(len(classes))])
    chance = _mean(fold["mean_dice"]["chance"] for fold in metrics)
    return Column(metric, tuple(known.values()), tuple(known), chance)


@dataclass(frozen=True)
class Row:
    """An arm's line: estimates and paired differences to the baseline by measure, processor seconds a step."""

    arm: str
    seeds: tuple[int, ...]
    estimates: Mapping[str, st.Estimate]
    spread: Mapping[str, float]
    differences: Mapping[str, st.Estimate]
    step_s: float | None


Measured: TypeAlias = dict[str, list[tuple[int, dict[str, Column]]]]


def mean_metric(parts: Sequence[st.Metric]) -> st.Metric:
    """The mean of several metrics in every resample."""
    return lambda weights: np.mean([part(weights) for part in parts], axis=0)


def drawn_mean(parts: Sequence[st.Metric], seed: int) -> st.Metric:
    """The mean of as many parts as there are, drawn with replacement in every resample; reproducible by `seed`."""

    def metric(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        values = np.stack([part(weights) for part in parts])
        drawn = np.random.default_rng(seed).integers(0, len(parts), size=values.shape)
        return np.take_along_axis(values, drawn, axis=0).mean(axis=0)

    return metric


def _difference(
    own: Sequence[Column], reference: Sequence[Column], bootstrap: st.Bootstrap, name: str
) -> st.Estimate:
    ours, theirs = ([part.metric for part in parts] for parts in (own, reference))
    value, other = mean_metric(ours), mean_metric(theirs)
    drawn, drawn_other = drawn_mean(ours, 2 * bootstrap.seed), drawn_mean(theirs, 2 * bootstrap.seed + 1)
    return bootstrap.estimate(
        lambda weights: value(weights) - other(weights),
        own[0].patients,
        chance=0.0,
        unit=name,
        resampled=lambda weights: drawn(weights) - drawn_other(weights),
    )


def aggregate(
    cells: Sequence[tuple[Mapping[str, Any], Path]], baseline: str, bootstrap: st.Bootstrap
) -> list[Row]:
    """Rows in the order of the arms' first cells.

    Raises `InputError` if two cells were measured on different studies: their figures cannot be compared.
    """
    measured = _measure(cells)
    _require_same_studies(measured)
    rows = []
    for arm, found in measured.items():
        names = sorted(set.intersection(*(set(part) for _, part in found)))
        estimates, spread, differences = {}, {}, {}
        for name in names:
            parts = [part[name] for _, part in found]
            metric = mean_metric([part.metric for part in parts])
            estimates[name] = bootstrap.estimate(metric, parts[0].patients, chance=parts[0].chance, unit=name)
            values = [float(part.metric(np.ones((1, len(part.patients))))[0]) for part in parts]
            spread[name] = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
            reference = [part[name] for _, part in measured.get(baseline, []) if name in part]
            if reference and arm != baseline:
                differences[name] = _difference(parts, reference, bootstrap, name)
        times = [float(one["step_s"]) for one, _ in cells if one["arm"] == arm and one["step_s"]]
        step_s = float(np.median(times)) if times else None
        seeds = tuple(seed for seed, _ in found)
        rows.append(Row(arm, seeds, estimates, spread, differences, step_s))
    return rows


def _measure(cells: Sequence[tuple[Mapping[str, Any], Path]]) -> Measured:
    """Arm -> (seed, measures) with the folds of a seed pooled, in the order of the cells."""
    folds: dict[tuple[str, int], list[Path]] = {}
    for result, folder in cells:
        folds.setdefault((str(result["arm"]), int(result["seed"])), []).append(folder)
    measured: Measured = {}
    for (arm, seed), folders in folds.items():
        measured.setdefault(arm, []).append((seed, columns(folders)))
    return measured


def _require_same_studies(measured: Measured) -> None:
    seen: dict[str, tuple[str, ...]] = {}
    for arm, found in measured.items():
        for _, part in found:
            for name, column in part.items():
                if seen.setdefault(name, column.studies) != column.studies:
                    raise InputError(
                        f"{name} of arm {arm} was measured on other studies than that of the arms before it",
                        rule="ablation.studies",
                        fix="give every arm the same labels and splits",
                    )
