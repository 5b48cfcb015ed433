"""Two augmented views of one crop attract, views of other crops repel: NT-Xent."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_count, gather_rows
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    exactly,
    full_precision,
)
from components.objectives._views import ViewParams, encoded_views


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy of SimCLR (arXiv 2002.05709), mean over 2B.

    `l_i = -log exp(cos(z_i, z_pos(i)) / t) / sum_{k != i} exp(cos(z_i, z_k) / t)`, `z = [first; second]`,
    both `[B, D]`, of any length; B >= 1 (with B = 1 it is 0: there is no negative).
    """
    rows = F.normalize(torch.cat([first, second]), dim=-1)
    with exactly(rows):
        logits = rows @ rows.T / temperature
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    logits = logits.masked_fill(itself, -torch.inf)
    partner = torch.arange(len(rows), device=rows.device).roll(len(first))
    return F.cross_entropy(logits, partner)


@OBJECTIVES.register("vision_contrast")
class VisionContrast(Objective):
    """NT-Xent on the pooled deepest scale of both views.

    Under world size > 1 the negatives are the crops of every process, with the gradient of one process that
    has them all (`_gather`). With a single crop in all there is no negative and the answer is empty.
    """

    class Params(ObjectiveParams):
        """VELVET-Med's values: 512 dimensions, a fixed temperature of 0.5."""

        dim: int = Field(default=512, gt=0)
        temperature: float = Field(default=0.5, gt=0)
        views: ViewParams = ViewParams()

    needs = frozenset({"crop"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model.vision.channels[-1]` is the width of the deepest scale."""
        super().__init__()
        self.params = params
        self._vision = (model.vision,)
        self.projection = nn.Linear(model.vision.channels[-1], params.dim)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The loss over all crops, paired or not."""
        count = len(batch["crop"])
        if sum(gather_count(count, batch["crop"].device)) < 2:
            return {}
        deepest = encoded_views(batch, features, self.params.views, self._vision[0])
        rows = full_precision(self.projection(deepest.flatten(2).mean(-1)))
        first, second = gather_rows(rows[:count]), gather_rows(rows[count:])
        return {"vision_contrast": nt_xent(first, second, self.params.temperature)}
