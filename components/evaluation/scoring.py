"""From scored labels to metrics, slices, predictions and ROC points; shared by the classification protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.base.config import Config
from components.evaluation import statistics as st

if TYPE_CHECKING:
    from pathlib import Path

    from components.downstream.inputs import StudyRow

METRICS = ("auroc", "auprc", "f1", "balanced_accuracy")


class ProtocolParams(Config):
    """What every protocol has: its bootstrap, and how many patients a slice needs."""

    resamples: int = Field(ge=100)
    seed: int
    min_slice_patients: int = Field(ge=2)

    def bootstrap(self) -> st.Bootstrap:
        """The patient-level bootstrap with these settings."""
        return st.Bootstrap(self.resamples, self.seed)


@dataclass(frozen=True)
class ScoredLabel:
    """One label on the studies `rows` (numbers into the protocol's studies) that carry it.

    `logit` [n] ranks (a probability saturates, its logit does not); a study is called positive where
    `logit >= threshold`, a threshold from validation, or None if none could be chosen there.
    """

    name: str
    rows: npt.NDArray[np.intp]
    target: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float64]
    threshold: float | None

    def metric(self, name: str) -> st.Metric | None:
        """The metric called `name` on this label's own columns; None where it needs a threshold."""
        if name == "auroc":
            return st.auroc(self.target, self.logit)
        if name == "auprc":
            return st.average_precision(self.target, self.logit)
        if self.threshold is None:
            return None
        function = st.f1_score if name == "f1" else st.balanced_accuracy
        return function(self.target, (self.logit >= self.threshold).astype(np.int64))

    def chance(self, name: str) -> float:
        """What no knowledge reaches: a coin, or for F1 the answer `present` for every study."""
        share = float(self.target.mean())
        return {"auroc": 0.5, "auprc": share, "f1": 2 * share / (1 + share), "balanced_accuracy": 0.5}[name]

    def within(self, rows: npt.NDArray[np.intp]) -> ScoredLabel | None:
        """The label on some studies only; None unless both kinds are among them."""
        kept = np.isin(self.rows, rows)
        target = self.target[kept]
        if not len(target) or target.min() == target.max():
            return None
        return ScoredLabel(self.name, self.rows[kept], target, self.logit[kept], self.threshold)


def enough(target: npt.NDArray[np.int64], least: int) -> str | None:
    """Why a label cannot be scored on the test split, or None if it can."""
    positive, negative = int(target.sum()), int((1 - target).sum())
    if min(positive, negative) >= least:
        return None
    return f"{positive} positive and {negative} negative in test, {least} of each needed"


def score_probe(
    studies: Sequence[StudyRow],
    known: Mapping[str, Mapping[str, int]],
    probe: tuple[Sequence[str], npt.NDArray[np.float64], Sequence[float | None]],
    least: int,
    map_name: str | None,
) -> tuple[list[ScoredLabel], dict[str, str]]:
    """The labels of a probe (names, logits [n, L], thresholds) on the studies that carry them, and who is left out.

    `known` is the cohort's labels; `map_name` names the map that turns them into the probe's, or is None.
    """
    from components.evaluation.label_maps import mapped, merged_column

    scored, left_out = [], {}
    for name, values in mapped(known, map_name).items():
        column = merged_column(name, *probe, map_name)
        if column is None:
            left_out[name] = "not in the probe"
            continue
        logits, threshold = column
        rows = np.array([at for at, row in enumerate(studies) if row.study_key in values], dtype=np.intp)
        target = np.array([values[studies[at].study_key] for at in rows], dtype=np.int64)
        reason = enough(target, least)
        if reason:
            left_out[name] = reason
        else:
            scored.append(ScoredLabel(name, rows, target, logits[rows], threshold))
    return scored, left_out


def summarise(
    params: ProtocolParams, studies: Sequence[StudyRow], labels: Sequence[ScoredLabel]
) -> dict[str, Any]:
    """`macro_*` and per-label estimates, and `slices` of the macro AUROC."""
    bootstrap = params.bootstrap()
    metrics: dict[str, Any] = {f"macro_{name}": _macro(bootstrap, studies, labels, name) for name in METRICS}
    metrics["labels"] = {
        label.name: {
            name: bootstrap.estimate(
                metric, [studies[row].patient_key for row in label.rows], chance=label.chance(name), unit=name
            ).as_dict()
            for name in METRICS
            if (metric := label.metric(name)) is not None
        }
        for label in labels
    }
    metrics["slices"] = by_slice(
        params,
        studies,
        lambda rows: _macro(
            bootstrap, studies, [part for label in labels if (part := label.within(rows))], "auroc"
        ),
    )
    return metrics


def _macro(
    bootstrap: st.Bootstrap, studies: Sequence[StudyRow], labels: Sequence[ScoredLabel], name: str
) -> dict[str, Any]:
    """The mean over labels of a metric; the studies are those that carry any of the labels."""
    used = [(label, metric) for label in labels if (metric := label.metric(name)) is not None]
    rows = np.unique(np.concatenate([label.rows for label, _ in used])) if used else np.zeros(0, np.intp)
    parts = [(metric, np.searchsorted(rows, label.rows)) for label, metric in used]
    chance = float(np.mean([label.chance(name) for label, _ in used])) if used else None
    patients = [studies[int(row)].patient_key for row in rows]
    found = bootstrap.estimate(st.macro(parts), patients, chance=chance, unit=name).as_dict()
    return {**found, "labels": len(used)}


def by_slice(
    params: ProtocolParams,
    studies: Sequence[StudyRow],
    measure: Callable[[npt.NDArray[np.intp]], Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
    """A metric for every sex, age band, source and provenance with enough patients."""
    from components.downstream.inputs import DESCRIBED

    columns = {name: [getattr(row, name) for row in studies] for name in DESCRIBED}
    slices: dict[str, dict[str, Any]] = {}
    for attribute, value, rows in st.slice_rows(columns):
        if len({studies[row].patient_key for row in rows}) >= params.min_slice_patients:
            slices.setdefault(attribute, {})[value] = dict(measure(rows))
    return slices


def write_predictions(folder: Path, studies: Sequence[StudyRow], labels: Sequence[ScoredLabel]) -> None:
    """`predictions.parquet` (keyed ids, targets, probabilities, calls) and `roc.csv` (`label,fpr,tpr`)."""
    import pyarrow as pa

    from components.base.files import write_table, write_text

    rows = [
        {
            "study_key": studies[row].study_key,
            "patient_key": studies[row].patient_key,
            "label": label.name,
            "target": int(target),
            "score": sigmoid(logit),
            "predicted": None if label.threshold is None else bool(logit >= label.threshold),
        }
        for label in labels
        for row, target, logit in zip(label.rows, label.target, label.logit, strict=True)
    ]
    text = pa.string()
    fields = [("study_key", text), ("patient_key", text), ("label", text), ("target", pa.int8())]
    schema = pa.schema([*fields, ("score", pa.float64()), ("predicted", pa.bool_())])
    write_table(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=schema))
    lines = [
        f"{label.name},{fpr:.6f},{tpr:.6f}"
        for label in labels
        for fpr, tpr in st.roc_points(label.target, label.logit)
    ]
    write_text(folder / "roc.csv", "\n".join(["label,fpr,tpr", *lines]) + "\n")


def sigmoid(logit: float) -> float:
    """1 / (1 + exp(-logit)), without overflow."""
    return float(0.5 * (1.0 + np.tanh(0.5 * logit)))
