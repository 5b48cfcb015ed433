"""Guess hidden word pieces of a report from the rest of it: BERT's masked language modelling."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
    num_paired,
    stream,
)

SHARE_MASKED, SHARE_RANDOM = 0.8, 0.1


def mask_tokens(batch: Batch, tokenizer: Any, vocab_size: int, probability: float) -> tuple[Tensor, Tensor]:
    """Hide `probability` of the word pieces: 80 % become the mask, 10 % a random piece, 10 % stay.

    Specials and padding (`word_index` -1 or an id of `tokenizer.special_ids`) are never chosen and never put
    in as a random piece. Each row draws from its own study's stream.

    Returns:
        masked ids and chosen (bool), both `[n, L]`.
    """
    ids: Tensor = batch["text"].input_ids
    special = torch.tensor(sorted(tokenizer.special_ids), device=ids.device)
    eligible = (batch["text"].word_index >= 0) & (batch["text"].attention_mask > 0)
    eligible &= ~torch.isin(ids, special)
    ordinary = torch.ones(vocab_size, dtype=torch.bool)
    ordinary[special.cpu()] = False
    pieces = ordinary.nonzero().flatten()
    draws, replacements = [], []
    for row in batch["paired"].tolist():
        source = stream(batch, "masked_language", batch["study_key"][row])
        draws.append(torch.rand((2, ids.shape[1]), generator=source))
        replacements.append(pieces[torch.randint(len(pieces), (ids.shape[1],), generator=source)])
    chance = torch.stack(draws).to(ids.device)
    random_ids = torch.stack(replacements).to(ids)
    chosen = eligible & (chance[:, 0] < probability)
    hidden = chosen & (chance[:, 1] < SHARE_MASKED)
    swapped = chosen & (chance[:, 1] >= SHARE_MASKED) & (chance[:, 1] < SHARE_MASKED + SHARE_RANDOM)
    masked = torch.where(hidden, torch.full_like(ids, tokenizer.mask_id), ids)
    return torch.where(swapped, random_ids, masked), chosen


@OBJECTIVES.register("masked_language")
class MaskedLanguage(Objective):
    """Cross-entropy at the chosen pieces (BERT, arXiv 1810.04805; VELVET-Med's text self-supervision).

    Head: Linear, GELU, LayerNorm, Linear to the vocabulary, computed at the chosen places only. When chance
    chooses nothing (a batch of very short reports) the answer is empty, never NaN.
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
        width = model.text.hidden_size
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, model.text.vocab_size)
        )

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over the chosen pieces of the paired rows."""
        if num_paired(batch) == 0:
            return {}
        model = self._model[0]
        masked, chosen = mask_tokens(batch, model.tokenizer, model.text.vocab_size, self.params.probability)
        if not bool(chosen.any()):
            return {}
        hidden = model.text.hidden_states(batch["text"].with_ids(masked))
        logits = full_precision(self.head(hidden[chosen]))
        return {"masked_language": F.cross_entropy(logits, batch["text"].input_ids[chosen])}
