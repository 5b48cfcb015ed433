"""Guess hidden word pieces of a report from the rest of it and from its volume."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._masking import language_head, masked_text
from components.objectives._multimodal import ImageAdapter
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
    num_paired,
)


@OBJECTIVES.register("multimodal_masked_language")
class MultimodalMaskedLanguage(Objective):
    """Masked language modelling through the multimodal layers (VELVET-Med's MMLM).

    The masked ids and their pass through the text layers are those of `masked_language` when both have the same
    `probability`: only the multimodal layers are added. The head is its own, as in the paper.
    """

    class Params(ObjectiveParams):
        """The paper's share of masked pieces."""

        probability: float = Field(default=0.15, gt=0, lt=1)

    needs = frozenset({"volume", "text"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model.text` must have `multimodal`."""
        super().__init__()
        self.params = params
        self._model = (model,)
        self.adapter = ImageAdapter(model)
        self.head = language_head(model.text.hidden_size, model.text.vocab_size)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over the chosen pieces of the paired rows of all processes."""
        model, rows = self._model[0], num_paired(batch)
        masked = masked_text(batch, features, model, self.params.probability) if rows else None
        device = batch["volume"].device
        num_total = total_count(int(masked.chosen[:rows].sum()) if masked else 0, device)
        if num_total == 0:
            return {}
        total = torch.zeros((), device=device)
        if masked is not None:
            text = masked.text.subset(torch.arange(rows, device=device))
            hidden = model.text.multimodal(masked.hidden[:rows], text, self.adapter(features))
            chosen = masked.chosen[:rows]
            logits = full_precision(self.head(hidden[chosen]))
            total = F.cross_entropy(logits, masked.targets[:rows][chosen], reduction="sum")
        return {"multimodal_masked_language": mean_over_processes(total, num_total)}
