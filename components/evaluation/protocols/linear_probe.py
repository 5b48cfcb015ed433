"""Linear probe: what a frozen encoder's features hold, read out by the probe that `classification` fitted.

Weights, strength and thresholds come from train and validation; here nothing is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from components.base.config import Config
from components.downstream.probe import Probe
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, score_probe, summarise, write_predictions

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs


class LinearProbeParams(ProtocolParams):
    """How many positives and negatives a label needs in test; `label_map` for a cohort with other labels."""

    min_test: int = Field(ge=1)
    label_map: str | None = None


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
        scored, left_out = score_probe(
            studies,
            inputs.labels(probe.label_source),
            (probe.labels, probe.logits(features), probe.thresholds),
            params.min_test,
            params.label_map,
        )
        write_predictions(context.out, studies, scored)
        return {
            **summarise(params, studies, scored),
            "left_out": left_out,
            "label_map": params.label_map,
            "features": probe.features,
            "resolution": probe.resolution,
            "label_source": probe.label_source,
        }
