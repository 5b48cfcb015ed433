"""Linear probe on frozen features: one logistic regression a label, everything chosen on validation.

Source: the probing protocols of CT-CLIP's and COLIPRI's evaluations (standardise on train, one linear layer,
select on an internal validation split, thresholds from it too). Never reads the test split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.downstream.probe import Probe
from components.downstream.reading import Resolution
from components.downstream.tasks import TASKS
from components.downstream.thresholds import ThresholdRule, best_threshold

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs

MIN_SCALE = 1e-6


class ClassificationParams(Config):
    """What the probe learns from, and how its strength and thresholds are chosen."""

    labels: Literal["gold", "report"]
    features: Literal["pooled", "projected", "scales"]
    resolution: Resolution = "training"
    inverse_regularisation: tuple[float, ...] = Field(min_length=1)
    selection: Literal["auroc", "auprc"]
    threshold: ThresholdRule
    balanced: bool
    min_train: int = Field(ge=1)
    min_validation: int = Field(ge=1)
    max_iterations: int = Field(ge=1)


class _Data:
    """Standardised features of train and validation, and each label's rows in them."""

    def __init__(self, params: ClassificationParams, inputs: DownstreamInputs) -> None:
        self.keys = {
            part: [row.study_key for row in inputs.studies(part)] for part in ("train", "validation")
        }
        embeddings = inputs.embeddings(params.resolution)
        raw = {
            part: embeddings.rows(keys, params.features).astype(np.float64)
            for part, keys in self.keys.items()
        }
        if not len(raw["train"]):
            raise InputError(
                "the training split is empty", rule="classification.empty", fix="see the split's metrics"
            )
        self.mean = raw["train"].mean(0)
        spread = raw["train"].std(0)
        self.scale = np.where(spread > MIN_SCALE, spread, 1.0)
        self.x = {part: (values - self.mean) / self.scale for part, values in raw.items()}
        self.labels = inputs.labels(params.labels)

    def of(self, label: str, part: str) -> tuple[np.ndarray, np.ndarray]:
        """The features [n, E] and targets [n] of the studies of a split that carry the label."""
        known = self.labels[label]
        rows = [row for row, key in enumerate(self.keys[part]) if key in known]
        return self.x[part][rows], np.array([known[self.keys[part][row]] for row in rows], dtype=np.int64)


def usable_labels(params: ClassificationParams, data: _Data) -> tuple[list[str], dict[str, str]]:
    """The labels that can be learnt from the training split, and why the others cannot."""
    kept, left_out = [], {}
    for label in data.labels:
        positive, negative = _counts(data, label, "train")
        if min(positive, negative) >= params.min_train:
            kept.append(label)
        else:
            left_out[label] = (
                f"{positive} positive and {negative} negative in train, {params.min_train} of each needed"
            )
    return kept, left_out


def _counts(data: _Data, label: str, part: str) -> tuple[int, int]:
    target = data.of(label, part)[1]
    return int(target.sum()), int((1 - target).sum())


def _fit(
    params: ClassificationParams, data: _Data, labels: list[str], strength: float
) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    weights, biases = [], []
    for label in labels:
        model = LogisticRegression(
            C=strength,
            class_weight="balanced" if params.balanced else None,
            max_iter=params.max_iterations,
            solver="lbfgs",
        )
        model.fit(*data.of(label, "train"))
        weights.append(model.coef_[0])
        biases.append(model.intercept_[0])
    return np.stack(weights), np.array(biases)


def _validation_score(
    params: ClassificationParams, data: _Data, labels: Mapping[str, int], weight: np.ndarray, bias: np.ndarray
) -> float:
    """The macro score on validation of the labels (name -> row) that have both kinds there."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    measure = roc_auc_score if params.selection == "auroc" else average_precision_score
    values = []
    for label, row in labels.items():
        features, target = data.of(label, "validation")
        values.append(float(measure(target, features @ weight[row] + bias[row])))
    return float(np.mean(values))


@TASKS.register("classification")
class Classification:
    """The task `classification`."""

    Params: ClassVar[type[Config]] = ClassificationParams

    @staticmethod
    def fit(
        params: ClassificationParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write `probe.safetensors` and `probe.json`; the metrics are the validation split's.

        A label that validation lacks positives or negatives of is learnt, but has no threshold.
        """
        data = _Data(params, inputs)
        labels, left_out = usable_labels(params, data)
        judged = {
            label: row
            for row, label in enumerate(labels)
            if min(_counts(data, label, "validation")) >= params.min_validation
        }
        if not judged:
            raise InputError(
                f"no label of {len(data.labels)} has enough positives and negatives in train and validation",
                rule="classification.labels",
                fix="lower finetune.classification.min_train, or use more studies",
            )
        tried: list[tuple[float, float, np.ndarray, np.ndarray]] = []
        grid = sorted(set(params.inverse_regularisation))
        for done, strength in enumerate(grid, 1):
            weight, bias = _fit(params, data, labels, strength)
            tried.append((strength, _validation_score(params, data, judged, weight, bias), weight, bias))
            context.progress(done, len(grid), "strengths")
        strength, score, weight, bias = max(tried, key=lambda entry: (entry[1], -entry[0]))
        thresholds: list[float | None] = []
        for row, label in enumerate(labels):
            features, target = data.of(label, "validation")
            logit = features @ weight[row] + bias[row]
            thresholds.append(best_threshold(target, logit, params.threshold) if label in judged else None)
        Probe(
            labels=tuple(labels),
            thresholds=tuple(thresholds),
            features=params.features,
            label_source=params.labels,
            strength=strength,
            mean=data.mean,
            scale=data.scale,
            weight=weight,
            bias=bias,
            resolution=params.resolution,
        ).save(context.out)
        return {
            "labels": len(labels),
            "labels_without_threshold": len(labels) - len(judged),
            "left_out": left_out,
            "inverse_regularisation": strength,
            f"validation_macro_{params.selection}": score,
            "grid": {str(entry[0]): entry[1] for entry in tried},
            "train": len(data.keys["train"]),
            "validation": len(data.keys["validation"]),
        }
