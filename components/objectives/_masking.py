"""Masked reports, made and read by the text encoder once a step for all objectives that guess hidden pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from components.objectives._shared import Batch, FeaturesLike, Model, paired_keys, stream
from components.objectives._text import join

SHARE_MASKED, SHARE_RANDOM = 0.8, 0.1


@dataclass(frozen=True)
class MaskedText:
    """`text` with hidden pieces, `chosen` bool `[N, L]`, `targets` (the ids before) and `hidden` `[N, L, H]`.

    The rows are those of `batch["text"]`, then those of `batch["text_only"]`.
    """

    text: Any
    chosen: Tensor
    targets: Tensor
    hidden: Tensor


def all_text(batch: Batch) -> tuple[Any, list[str]]:
    """The reports of the paired rows and of the studies without a volume, with their study keys."""
    text, keys = batch["text"], paired_keys(batch)
    alone = batch.get("text_only")
    if alone is None or len(alone) == 0:
        return text, keys
    return join([text, alone]) if len(text) else alone, [*keys, *batch["text_only_key"]]


def mask_tokens(
    text: Any, keys: list[str], batch: Batch, tokenizer: Any, vocab_size: int, probability: float
) -> tuple[Tensor, Tensor]:
    """Hide `probability` of the word pieces: 80 % become the mask, 10 % a random piece, 10 % stay.

    Specials and padding (`word_index` -1 or an id of `tokenizer.special_ids`) are never chosen and never put
    in as a random piece. Each row draws from its own study's stream, position by position, so that what is
    hidden depends neither on the other rows nor on the length to which the batch is padded.

    Returns:
        masked ids and chosen (bool), both `[N, L]`.
    """
    ids: Tensor = text.input_ids
    special = torch.tensor(sorted(tokenizer.special_ids), device=ids.device)
    eligible = (text.word_index >= 0) & (text.attention_mask > 0) & ~torch.isin(ids, special)
    ordinary = torch.ones(vocab_size, dtype=torch.bool)
    ordinary[special.cpu()] = False
    pieces = ordinary.nonzero().flatten()
    draws = torch.stack([_draws(batch, key, ids.shape[1]) for key in keys]).to(ids.device)
    random_ids = pieces.to(ids)[(draws[..., 2] * len(pieces)).long().clamp(max=len(pieces) - 1)]
    chosen = eligible & (draws[..., 0] < probability)
    hidden = chosen & (draws[..., 1] < SHARE_MASKED)
    swapped = chosen & (draws[..., 1] >= SHARE_MASKED) & (draws[..., 1] < SHARE_MASKED + SHARE_RANDOM)
    masked = torch.where(hidden, torch.full_like(ids, tokenizer.mask_id), ids)
    return torch.where(swapped, random_ids, masked), chosen


def _draws(batch: Batch, key: str, length: int) -> Tensor:
    """`[length, 3]` uniform numbers: a longer draw begins with a shorter one's."""
    return torch.rand((length, 3), generator=stream(batch, "masked_language", key), dtype=torch.float64)


def masked_text(batch: Batch, features: FeaturesLike, model: Model, probability: float) -> MaskedText | None:
    """The step's masked reports and what the text layers make of them; None without any report."""

    def make() -> MaskedText | None:
        text, keys = all_text(batch)
        if not keys:
            return None
        masked, chosen = mask_tokens(text, keys, batch, model.tokenizer, model.text.vocab_size, probability)
        changed = text.with_ids(masked)
        return MaskedText(changed, chosen, text.input_ids, model.text.hidden_states(changed))

    return features.memo(f"masked_text.{probability}", make)


def language_head(width: int, vocab_size: int) -> nn.Sequential:
    """Linear, GELU, LayerNorm, Linear to the vocabulary: BERT's head for hidden pieces."""
    return nn.Sequential(
        nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, vocab_size)
    )
