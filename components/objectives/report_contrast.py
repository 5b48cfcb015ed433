"""Whole volumes against whole reports: CLIP's softmax with label smoothing, or SigLIP's sigmoid."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_count, gather_rows, mean_over_processes, own_rows
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    exactly,
    num_paired,
    projected_reports,
    projected_volumes,
)


def clip_loss(volumes: Tensor, reports: Tensor, temperature: Tensor, label_smoothing: float) -> Tensor:
    """`0.5 CE(s, I) + 0.5 CE(s^T, I)` with `s_ij = v_i . t_j / temperature`.

    Args:
        volumes, reports: L2-normalised `[n, P]`, row i of one belongs to row i of the other.
        temperature: a positive scalar to divide by (it is learnt as it is, not as a logarithm).
        label_smoothing: share of the target spread over all columns.

    Source: CLIP (arXiv 2103.00020) with VELVET-Med's label smoothing of 0.1 and temperature of 0.07.
    """
    with exactly(volumes):
        logits = volumes @ reports.T / temperature
    target = torch.arange(len(logits), device=logits.device)
    forward = F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    backward = F.cross_entropy(logits.T, target, label_smoothing=label_smoothing)
    return (forward + backward) / 2


def sigmoid_terms(volumes: Tensor, reports: Tensor, temperature: Tensor, bias: Tensor, first: int) -> Tensor:
    """`-log sigmoid(z_ij (v_i . t_j / temperature + bias))` summed over j, `[n]`; z is 1 for a pair, else -1.

    `volumes` `[n, P]` belong to the rows `first`.. of `reports` `[N, P]`; all are L2-normalised.
    Source: SigLIP (arXiv 2303.15343), whose loss is the sum over i, divided by N.
    """
    with exactly(volumes):
        logits = volumes @ reports.T / temperature + bias
    rows = torch.arange(len(volumes), device=logits.device)
    sign = torch.full_like(logits, -1.0)
    sign[rows, rows + first] = 1.0
    return -F.logsigmoid(sign * logits).sum(-1)


@OBJECTIVES.register("report_contrast")
class ReportContrast(Objective):
    """CLIP (or SigLIP) on the encoders' own projections, over the paired rows of all processes.

    Uses `model.volume_projection`, `model.report_projection` and the learnt temperature `model.tau`, so that
    what is trained here is what `encode_volume` and `encode_text` give. Under world size > 1 the negatives
    are the paired rows of every process and the gradient is that of one process with the whole batch: with the
    sigmoid each process holds only its own rows of the matrix. With fewer than two pairs in all there is no
    negative and the answer is empty.
    """

    class Params(ObjectiveParams):
        """VELVET-Med's values; `initial_bias` is SigLIP's and is learnt, with the form "sigmoid" only."""

        form: Literal["softmax", "sigmoid"] = "softmax"
        label_smoothing: float = Field(default=0.1, ge=0, lt=1)
        initial_bias: float = -10.0

    needs = frozenset({"volume", "text"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model` is kept outside the module tree: its parameters are the encoder's, not the objective's."""
        super().__init__()
        self.params = params
        self._model = (model,)
        if params.form == "sigmoid":
            self.bias = nn.Parameter(torch.tensor(params.initial_bias))

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The softmax contrast is the mean of both directions; the sigmoid knows no direction."""
        counts = gather_count(num_paired(batch), batch["volume"].device)
        if sum(counts) < 2:
            return {}
        model = self._model[0]
        volumes, reports = projected_volumes(features, model), projected_reports(features, model)
        temperature = model.tau.to(volumes.dtype)
        if self.params.form == "sigmoid":
            terms = sigmoid_terms(
                volumes, gather_rows(reports), temperature, self.bias, own_rows(counts).start
            )
            return {"report_contrast": mean_over_processes(terms.sum(), sum(counts))}
        loss = clip_loss(gather_rows(volumes), gather_rows(reports), temperature, self.params.label_smoothing)
        return {"report_contrast": loss}
