"""Frozen probing by a grid: the probe that `probe_grid` chose on validation, measured on the test split.

Source: COLIPRI's probing protocol (see the task). Pooling, learning rate and thresholds come from validation; here
nothing is chosen. AUPRC, AUROC, F1 and balanced accuracy by label and macro, with patient-level intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from components.base.config import Config
from components.downstream.grid import GridProbe
from components.downstream.reading import Accelerator, DenseFeatures
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, score_probe, summarise, write_predictions

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs


class ProbeGridParams(ProtocolParams):
    """How many positives and negatives a label needs in test; `accelerator` is for the encoder.

    `label_map` is for a cohort with other labels than the probe's.
    """

    min_test: int = Field(ge=1)
    label_map: str | None = None
    accelerator: Accelerator


@PROTOCOLS.register("probe_grid")
class ProbeGrid:
    """The protocol `probe_grid`."""

    Params: ClassVar[type[Config]] = ProbeGridParams

    @staticmethod
    def evaluate(
        params: ProbeGridParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write predictions and ROC points; AUPRC, AUROC, F1 and balanced accuracy by label and macro."""
        probe = GridProbe.load(inputs.artifact("finetune", "probe_grid"))
        studies = inputs.studies("test")
        dense = DenseFeatures(inputs, probe.scale, probe.resolution)
        dense.prepare(
            [row.study_key for row in studies],
            params.accelerator,
            lambda done, total: context.progress(done, total, "volumes"),
        )
        logits = probe.logits(lambda row: dense.read(studies[row].study_key), len(studies))
        scored, left_out = score_probe(
            studies,
            inputs.labels(probe.label_source),
            (probe.labels, logits, probe.thresholds),
            params.min_test,
            params.label_map,
        )
        write_predictions(context.out, studies, scored)
        return {
            **summarise(params, studies, scored),
            "left_out": left_out,
            "label_map": params.label_map,
            "pooling": probe.pooling,
            "learning_rate": probe.learning_rate,
            "scale": probe.scale,
            "resolution": probe.resolution,
            "label_source": probe.label_source,
        }
