"""Whole volumes against whole reports: the softmax contrast of CLIP with label smoothing."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_count, gather_rows
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
    num_paired,
)


def clip_loss(volumes: Tensor, reports: Tensor, temperature: Tensor, label_smoothing: float) -> Tensor:
    """`0.5 CE(s, I) + 0.5 CE(s^T, I)` with `s_ij = v_i . t_j / temperature`.

    Args:
        volumes, reports: L2-normalised `[n, P]`, row i of one belongs to row i of the other.
        temperature: a positive scalar to divide by (it is learnt as it is, not as a logarithm).
        label_smoothing: share of the target spread over all columns.

    Source: CLIP (arXiv 2103.00020) with VELVET-Med's label smoothing of 0.1 and temperature of 0.07.
    """
    logits = volumes @ reports.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    backward = F.cross_entropy(logits.T, target, label_smoothing=label_smoothing)
    return (forward + backward) / 2


@OBJECTIVES.register("report_contrast")
class ReportContrast(Objective):
    """CLIP on the encoders' own projections, over the paired rows of all processes.

    Uses `model.volume_projection`, `model.report_projection` and the learnt temperature `model.tau`, so that
    what is trained here is what `encode_volume` and `encode_text` give. Under world size > 1 the negatives
    are the paired rows of every process and the gradient is that of one process with the whole batch.
    With fewer than two pairs in all there is no negative and the answer is empty.
    """

    class Params(ObjectiveParams):
        """The paper's values."""

        label_smoothing: float = Field(default=0.1, ge=0, lt=1)

    needs = frozenset({"volume", "text"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model` is kept outside the module tree: its parameters are the encoder's, not the objective's."""
        super().__init__()
        self.params = params
        self._model = (model,)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean of both directions of the contrast."""
        if sum(gather_count(num_paired(batch), batch["volume"].device)) < 2:
            return {}
        model = self._model[0]
        volumes = model.volume_projection(features.paired_volume().pooled)
        reports = model.report_projection(features.text().report)
        volumes, reports = (F.normalize(full_precision(value), dim=-1) for value in (volumes, reports))
        volumes, reports = gather_rows(volumes), gather_rows(reports)
        loss = clip_loss(volumes, reports, model.tau.to(volumes.dtype), self.params.label_smoothing)
        return {"report_contrast": loss}
