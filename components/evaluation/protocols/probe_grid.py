"""Frozen probing by a grid: the probe that `probe_grid` chose on validation, measured on the test split.

Source: COLIPRI's probing protocol (see the task). Pooling, learning rate and thresholds come from validation; here
nothing is chosen. AUPRC, AUROC, F1 and balanced accuracy by label and macro, with patient-level intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.downstream.grid import GridProbe
from components.downstream.reading import Accelerator, DenseFeatures
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, ScoredLabel, enough, summarise, write_predictions

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs


class ProbeGridParams(ProtocolParams):
    """How many positives and negatives a label needs in test; `accelerator` is for the encoder."""

    min_test: int = Field(ge=1)
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
        known, studies = inputs.labels(probe.label_source), inputs.studies("test")
        dense = DenseFeatures(inputs, probe.scale, probe.resolution)
        dense.prepare(
            [row.study_key for row in studies],
            params.accelerator,
            lambda done, total: context.progress(done, total, "volumes"),
        )
        logits = probe.logits(lambda row: dense.read(studies[row].study_key), len(studies))
        scored, left_out = [], {}
        for column, name in enumerate(probe.labels):
            values = known.get(name, {})
            rows = np.array([at for at, row in enumerate(studies) if row.study_key in values], dtype=np.intp)
            target = np.array([values[studies[at].study_key] for at in rows], dtype=np.int64)
            reason = enough(target, params.min_test)
            if reason:
                left_out[name] = reason
            else:
                scored.append(ScoredLabel(name, rows, target, logits[rows, column], probe.thresholds[column]))
        write_predictions(context.out, studies, scored)
        return {
            **summarise(params, studies, scored),
            "left_out": {
                **{name: "not in the probe" for name in known if name not in probe.labels},
                **left_out,
            },
            "pooling": probe.pooling,
            "learning_rate": probe.learning_rate,
            "scale": probe.scale,
            "resolution": probe.resolution,
            "label_source": probe.label_source,
        }
