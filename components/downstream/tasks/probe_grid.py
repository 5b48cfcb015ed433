"""Frozen probing by a grid: five poolings of the encoder's positions times learning rates, chosen on validation.

Source: COLIPRI's protocol as DALE-CT replicates it: {mean, maximum, one learnt query, the mean as query, four learnt
queries} x {0.1, 0.03, 0.01, 0.003}, one linear layer, binary cross-entropy, SGD with momentum 0.95 and no weight decay,
cosine, 12,500 steps of 16 volumes; the probe with the highest macro AUPRC on validation is kept, and a threshold a
label that maximises F1 there. The last step's weights are judged (our choice). Never reads the test split.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from components.base.config import Config
from components.base.errors import InputError, TrainingError
from components.downstream.grid import Grid, GridProbe, PoolingName, Recipe, fixed_features
from components.downstream.reading import Accelerator, DenseFeatures, Resolution, device_of
from components.downstream.tasks import TASKS
from components.downstream.thresholds import ThresholdRule, best_threshold

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs

Labels = Mapping[str, Mapping[str, int]]


class ProbeGridParams(Config):
    """Which probes, on what, trained how long; `accelerator` is for the encoder and the probes."""

    labels: Literal["gold", "report"]
    scale: int
    resolution: Resolution
    poolings: tuple[PoolingName, ...] = Field(min_length=1)
    learning_rates: tuple[float, ...] = Field(min_length=1)
    momentum: float = Field(ge=0, lt=1)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    threshold: ThresholdRule
    min_train: int = Field(ge=1)
    min_validation: int = Field(ge=1)
    accelerator: Accelerator
    seed: int = Field(ge=0)

    @field_validator("learning_rates", "poolings")
    @classmethod
    def _once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value) or any(isinstance(rate, float) and rate <= 0 for rate in value):
            raise ValueError("every pooling and learning rate once, rates above 0")
        return value

    def recipe(self) -> Recipe:
        """The part that says how probes are trained."""
        return Recipe(
            self.poolings, self.learning_rates, self.momentum, self.steps, self.batch_size, self.seed
        )


def targets(labels: Labels, names: list[str], studies: list[str]) -> np.ndarray:
    """Targets float32 [n, L]: 1, 0, or NaN where a study does not carry a label."""
    rows = [[float(labels[name].get(study, math.nan)) for name in names] for study in studies]
    return np.array(rows, dtype=np.float32).reshape(len(studies), len(names))


def both_kinds(target: np.ndarray, least: int) -> np.ndarray:
    """bool [L]: which columns of [n, L] hold at least `least` positives and negatives."""
    enough: np.ndarray = np.minimum((target == 1).sum(0), (target == 0).sum(0)) >= least
    return enough


def macro_auprc(logits: np.ndarray, target: np.ndarray, judged: np.ndarray) -> float | None:
    """The mean average precision of logits [n, L] over the judged labels; None for a probe that diverged."""
    from sklearn.metrics import average_precision_score

    if not np.isfinite(logits).all():
        return None
    values = []
    for column in np.flatnonzero(judged):
        known = np.isfinite(target[:, column])
        values.append(average_precision_score(target[known, column], logits[known, column]))
    return float(np.mean(values))


def thresholds(
    logits: np.ndarray, target: np.ndarray, judged: np.ndarray, rule: ThresholdRule
) -> tuple[float | None, ...]:
    """A threshold a label on its logit; None where validation lacks a kind."""
    found: list[float | None] = []
    for column, use in enumerate(judged):
        known = np.isfinite(target[:, column])
        found.append(best_threshold(target[known, column], logits[known, column], rule) if use else None)
    return tuple(found)


class _Part:
    """A split's studies with any of the labels: their positions, and targets."""

    def __init__(self, dense: DenseFeatures, labels: Labels, names: list[str], studies: list[str]) -> None:
        self.studies = [study for study in studies if any(study in labels[name] for name in names)]
        self.dense, self.target = dense, targets(labels, names, self.studies)

    def read(self, row: int) -> np.ndarray:
        """The positions [N, C] of a study."""
        return self.dense.read(self.studies[row])


@TASKS.register("probe_grid")
class ProbeGrid:
    """The task `probe_grid`."""

    Params: ClassVar[type[Config]] = ProbeGridParams

    @staticmethod
    def fit(params: ProbeGridParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write `probe.safetensors` and `probe.json` of the chosen probe; the metrics are the validation split's.

        A label of which train lacks a kind is left out; one of which validation does is learnt without threshold.
        """
        labels = inputs.labels(params.labels)
        keys = {part: [row.study_key for row in inputs.studies(part)] for part in ("train", "validation")}
        known = targets(labels, list(labels), keys["train"])
        kept = both_kinds(known, params.min_train)
        names = [name for name, use in zip(labels, kept, strict=True) if use]
        dense = DenseFeatures(inputs, params.scale, params.resolution)
        train, validation = (_Part(dense, labels, names, keys[part]) for part in ("train", "validation"))
        judged = both_kinds(validation.target, params.min_validation)
        if not judged.any():
            raise InputError(
                f"no label of {len(labels)} has enough positives and negatives in train and validation",
                rule="probe_grid.labels",
                fix="lower finetune.probe_grid.min_train or min_validation, or use more studies",
            )
        new = dense.prepare(
            [*train.studies, *validation.studies],
            params.accelerator,
            lambda done, total: context.progress(done, total, "volumes"),
        )
        context.log.info(
            "dense features: %d volumes encoded, the others were kept from before (%d positions)",
            new,
            len(train.read(0)),
        )
        grid, scored = _train(params, train, validation, context)
        values = [macro_auprc(logits, validation.target, judged) for logits in scored]
        best = max(range(len(values)), key=lambda probe: (values[probe] or -1.0, -probe))
        if values[best] is None:
            raise TrainingError(
                "every probe diverged",
                rule="probe_grid.diverged",
                fix="lower finetune.probe_grid.learning_rates",
            )
        pooling, rate, tensors = grid.probe(best)
        GridProbe(
            labels=tuple(names),
            thresholds=thresholds(scored[best], validation.target, judged, params.threshold),
            label_source=params.labels,
            scale=params.scale,
            resolution=params.resolution,
            pooling=pooling,
            learning_rate=rate,
            tensors=tensors,
        ).save(context.out)
        return {
            "pooling": pooling,
            "learning_rate": rate,
            "validation_macro_auprc": values[best],
            "grid": _table(params, values),
            "probes": len(values),
            "diverged": sum(value is None for value in values),
            "labels": len(names),
            "labels_without_threshold": int((~judged).sum()),
            "left_out": _left_out(labels, known, kept, params.min_train),
            "train": len(train.studies),
            "validation": len(validation.studies),
            "positions": len(train.read(0)),
        }


def _train(
    params: ProbeGridParams, train: _Part, validation: _Part, context: StepContext
) -> tuple[Grid, np.ndarray]:
    """The trained grid and its logits [P, n, L] on validation."""
    device = device_of(params.accelerator)
    fixed = {
        part: fixed_features(params.poolings, part.read, len(part.studies), device)
        for part in (train, validation)
    }
    channels = train.read(0).shape[1]
    grid = Grid(params.recipe(), channels, train.target.shape[1], device)
    grid.train(
        fixed[train],
        train.read,
        train.target,
        lambda done, total: context.progress(done, total, "steps"),
    )
    return grid, grid.scores(fixed[validation], validation.read)


def _table(params: ProbeGridParams, values: list[float | None]) -> dict[str, dict[str, float | None]]:
    """Validation scores by pooling and learning rate; null for a probe that diverged."""
    rates = params.learning_rates
    return {
        pooling: {f"{rate:g}": values[row * len(rates) + column] for column, rate in enumerate(rates)}
        for row, pooling in enumerate(params.poolings)
    }


def _left_out(labels: Labels, known: np.ndarray, kept: np.ndarray, least: int) -> dict[str, str]:
    found = {}
    for column, name in enumerate(labels):
        if not kept[column]:
            positive, negative = int((known[:, column] == 1).sum()), int((known[:, column] == 0).sum())
            found[name] = f"{positive} positive and {negative} negative in train, {least} of each needed"
    return found
