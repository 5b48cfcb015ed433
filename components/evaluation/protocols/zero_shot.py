"""Zero-shot classification by prompts: one forward pass a volume, any number of prompts.

Source: CT-CLIP's protocol (a pair of prompts, softmax at the model's temperature), with thresholds from
validation instead of test. Labels `group=value` compete within their group: one softmax over the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.base.files import write_json
from components.downstream.inputs import groups_of
from components.downstream.reading import Resolution
from components.downstream.thresholds import ThresholdRule, best_threshold
from components.evaluation import statistics as st
from components.evaluation.label_maps import Known, label_map, mapped
from components.evaluation.prompts import PromptSet, prompt_set
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import (
    ProtocolParams,
    ScoredLabel,
    enough,
    sigmoid,
    summarise,
    write_predictions,
)

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs, StudyRow

Array = npt.NDArray[np.float64]


class ZeroShotParams(ProtocolParams):
    """Which labels and prompts, and how thresholds are chosen on validation."""

    labels: Literal["gold", "report"]
    prompt_set: str
    resolution: Resolution = "training"
    label_map: str | None = None
    threshold: ThresholdRule
    min_validation: int = Field(ge=1)
    min_test: int = Field(ge=1)


def prompt_logits(encoder: Any, volumes: Array, names: Sequence[str], prompts: PromptSet) -> dict[str, Array]:
    """Each label's logit of being present, [N], for unit volume embeddings [N, P].

    A finding's pair: (cos with `present` - cos with `absent`) / temperature. A group's value: its log-odds
    under the softmax over the group's values. Prompt ensembles are means of unit vectors.
    """
    groups = groups_of(list(names))
    grouped = {name: group for group, members in groups.items() for name in members}
    wanted: list[list[str]] = []
    for name in names:
        wanted += [prompts.value(name.partition("=")[2])] if name in grouped else [*prompts.pair(name)]
    texts = [text for texts in wanted for text in texts]
    vectors = np.asarray(encoder.embed_reports(texts).cpu().numpy(), dtype=np.float64)
    ends = np.cumsum([len(texts) for texts in wanted])
    means = np.stack([part.mean(0) for part in np.split(vectors, ends[:-1])])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    similar = volumes @ means.T / float(encoder.tau.detach())
    logits: dict[str, Array] = {}
    raw: dict[str, Array] = {}
    column = 0
    for name in names:
        if name in grouped:
            raw[name] = similar[:, column]
            column += 1
        else:
            logits[name] = similar[:, column] - similar[:, column + 1]
            column += 2
    for members in groups.values():
        stacked = np.stack([raw[name] for name in members], 1)
        for at, name in enumerate(members):
            others = np.delete(stacked, at, axis=1)
            logits[name] = (
                stacked[:, at] - np.logaddexp.reduce(others, axis=1) if others.size else stacked[:, at]
            )
    return {name: logits[name] for name in names}


def class_logits(
    encoder: Any, volumes: Array, names: Sequence[str], prompts: PromptSet, map_name: str | None
) -> dict[str, Array]:
    """As `prompt_logits`; a class that a label map merges of several has the highest logit of these."""
    parts = {name: label_map(map_name).parts(name) if map_name else (name,) for name in names}
    asked = sorted({part for several in parts.values() for part in several})
    logits = prompt_logits(encoder, volumes, asked, prompts)
    return {name: np.max([logits[part] for part in several], axis=0) for name, several in parts.items()}


def _scored(
    labels: Known, inputs: DownstreamInputs, logits: dict[str, dict[str, Array]], split: str
) -> list[tuple[str, npt.NDArray[np.intp], npt.NDArray[np.int64], Array]]:
    keys = [row.study_key for row in inputs.studies(split)]
    found = []
    for name, known in labels.items():
        rows = np.array([at for at, key in enumerate(keys) if key in known], dtype=np.intp)
        target = np.array([known[keys[at]] for at in rows], dtype=np.int64)
        found.append((name, rows, target, logits[split][name][rows]))
    return found


def _thresholds(
    params: ZeroShotParams, labels: Known, inputs: DownstreamInputs, logits: dict[str, dict[str, Array]]
) -> dict[str, float | None]:
    """Each label's threshold on the logit, from validation only; None where validation lacks a kind."""
    chosen: dict[str, float | None] = {}
    for name, _, target, logit in _scored(labels, inputs, logits, "validation"):
        few = not len(target) or min(target.sum(), (1 - target).sum()) < params.min_validation
        chosen[name] = None if few else best_threshold(target, logit, params.threshold)
    return chosen


def _groups(
    params: ZeroShotParams, studies: list[StudyRow], labels: Known, logits: dict[str, Array]
) -> dict[str, Any]:
    """Top-1 and balanced accuracy of every group of labels on the studies whose value is known."""
    metrics: dict[str, Any] = {}
    for group, members in groups_of(list(labels)).items():
        truth = {
            key: at for at, name in enumerate(members) for key, value in labels[name].items() if value == 1
        }
        rows = [at for at, row in enumerate(studies) if row.study_key in truth]
        if not rows or len(members) < 2:
            continue
        target = np.array([truth[studies[at].study_key] for at in rows])
        predicted = np.stack([logits[name][rows] for name in members], 1).argmax(1)
        patients = [studies[at].patient_key for at in rows]
        estimate = params.bootstrap().estimate
        right = st.weighted_mean((target == predicted).astype(np.float64))
        share = float(np.bincount(target).max() / len(target))
        seen = len(np.unique(target))
        metrics[group] = {
            "values": len(members),
            "top1_accuracy": estimate(right, patients, chance=share, unit="accuracy").as_dict(),
            "balanced_accuracy": estimate(
                st.balanced_accuracy(target, predicted), patients, chance=1 / seen, unit="balanced_accuracy"
            ).as_dict(),
        }
    return metrics


@PROTOCOLS.register("zero_shot")
class ZeroShot:
    """The protocol `zero_shot`."""

    Params: ClassVar[type[Config]] = ZeroShotParams

    @staticmethod
    def evaluate(params: ZeroShotParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write predictions, ROC points and `thresholds.json`; AUROC, AUPRC, F1 and balanced accuracy."""
        prompts, labels = prompt_set(params.prompt_set), inputs.labels(params.labels)
        if labels:
            labels = mapped(labels, params.label_map)
        else:
            raise InputError(
                f"there are no {params.labels} labels",
                rule="zero_shot.labels",
                fix="use labels of another source",
            )
        embeddings, encoder = inputs.embeddings(params.resolution), inputs.encoder()
        logits = {
            split: class_logits(
                encoder,
                embeddings.rows([row.study_key for row in inputs.studies(split)]).astype(np.float64),
                list(labels),
                prompts,
                params.label_map,
            )
            for split in ("validation", "test")
        }
        thresholds = _thresholds(params, labels, inputs, logits)
        studies = inputs.studies("test")
        scored, left_out = [], {}
        for name, rows, target, logit in _scored(labels, inputs, logits, "test"):
            reason = enough(target, params.min_test)
            if reason:
                left_out[name] = reason
            else:
                scored.append(ScoredLabel(name, rows, target, logit, thresholds[name]))
        write_predictions(context.out, studies, scored)
        write_json(
            context.out / "thresholds.json",
            {
                "prompt_set": prompts.name,
                "temperature": float(encoder.tau.detach()),
                "rule": params.threshold,
                "chosen_on": "validation",
                "logit": thresholds,
                "probability": {
                    name: None if value is None else sigmoid(value) for name, value in thresholds.items()
                },
            },
        )
        return {
            **summarise(params, studies, scored),
            "groups": _groups(params, studies, labels, logits["test"]),
            "left_out": left_out,
            "prompt_set": prompts.name,
            "label_source": params.labels,
            "resolution": params.resolution,
            "label_map": params.label_map,
        }
