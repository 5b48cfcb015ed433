"""Guess hidden word pieces of a report from the rest of it: BERT's masked language modelling."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._masking import language_head, masked_text
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
)


@OBJECTIVES.register("masked_language")
class MaskedLanguage(Objective):
    """Cross-entropy at the chosen pieces (BERT, arXiv 1810.04805; VELVET-Med's text self-supervision).

    Every report of the batch takes part, also one whose study has no volume (`text_only`). The head is computed at
    the chosen places only. When chance chooses nothing in any process (a batch of very short reports) the answer
    is empty, never NaN.
    """

    class Params(ObjectiveParams):
        """The paper's share of masked pieces."""

        probability: float = Field(default=0.15, gt=0, lt=1)

    needs = frozenset({"text"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model.text.hidden_size` and `.vocab_size` give the head; `model.tokenizer` the special ids."""
        super().__init__()
        self.params = params
        self._model = (model,)
        self.head = language_head(model.text.hidden_size, model.text.vocab_size)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over the chosen pieces of all processes."""
        masked = masked_text(batch, features, self._model[0], self.params.probability)
        device = batch["text"].input_ids.device
        num_total = total_count(int(masked.chosen.sum()) if masked else 0, device)
        if num_total == 0:
            return {}
        total = torch.zeros((), device=device)
        if masked is not None:
            logits = full_precision(self.head(masked.hidden[masked.chosen]))
            total = F.cross_entropy(logits, masked.targets[masked.chosen], reduction="sum")
        return {"masked_language": mean_over_processes(total, num_total)}
