"""Linear probe: what a frozen encoder's features hold, read out by the probe that `classification` fitted.

Weights, strength and thresholds come from train and validation; here nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.downstream.probe import Probe
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, ScoredLabel, enough, summarise, write_predictions

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs


class LinearProbeParams(ProtocolParams):
    """How many positives and negatives a label needs in test."""

    min_test: int = Field(ge=1)


@PROTOCOLS.register("linear_probe")
class LinearProbe:
    """The protocol `linear_probe`."""

    Params: ClassVar[type[Config]] = LinearProbeParams

    @staticmethod
    def evaluate(
        params: LinearProbeParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write predictions and ROC points; AUROC, AUPRC, F1 and balanced accuracy by label and macro."""
        probe = Probe.load(inputs.artifact("finetune", "classification"))
        studies = inputs.studies("test")
        embeddings = inputs.embeddings(probe.resolution)
        features = embeddings.rows([row.study_key for row in studies], probe.features)
        logits, known = probe.logits(features), inputs.labels(probe.label_source)
        scored, left_out = [], {}
        for column, name in enumerate(probe.labels):
            values = known.get(name, {})
            rows = np.array([at for at, row in enumerate(studies) if row.study_key in values], dtype=np.intp)
            target = np.array([values[studies[at].study_key] for at in rows], dtype=np.int64)
            reason = enough(target, params.min_test)
            if reason:
                left_out[name] = reason
            else:
                logit = logits[rows, column]
                scored.append(ScoredLabel(name, rows, target, logit, probe.thresholds[column]))
        write_predictions(context.out, studies, scored)
        return {
            **summarise(params, studies, scored),
            "left_out": {
                **{name: "not in the probe" for name in known if name not in probe.labels},
                **left_out,
            },
            "features": probe.features,
            "resolution": probe.resolution,
            "label_source": probe.label_source,
        }
