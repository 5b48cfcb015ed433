"""The sentence attention mask, and the sentence and word vectors of a batch of reports.

Sums run as a product with a membership matrix: one call for a whole batch, and the same bits every time
on a GPU, where scatter_add's atomics are not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.encoders.features import TextBatch


def marker_positions(token_type_ids: Tensor) -> Tensor:
    """bool [B, L]: where `[SEN_i]` stands, from token types int64 [B, L] alone.

    A marker is the first position of its type; `[CLS]`, which shares type 1, stands before the first one.
    """
    previous = F.pad(token_type_ids[:, :-1], (1, 0), value=0)
    starts = (token_type_ids > 0) & (token_type_ids != previous)
    second = torch.arange(token_type_ids.shape[1], device=token_type_ids.device) == 1
    first = torch.arange(token_type_ids.shape[1], device=token_type_ids.device) == 0
    return (starts | (second & (token_type_ids > 0))) & ~first


def sentence_mask(token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """bool [B, 1, L, L], true where a query row may see a key.

    The row of `[SEN_i]` sees `[CLS]` and its own sentence; every other row sees all that is not padding.
    """
    present = (attention_mask > 0)[:, None, :]
    own = token_type_ids[:, :, None] == token_type_ids[:, None, :]
    cls = (torch.arange(token_type_ids.shape[1], device=token_type_ids.device) == 0)[None, None, :]
    markers = marker_positions(token_type_ids)[:, :, None]
    return (present & (~markers | own | cls)).unsqueeze(1)


def _width(index: Tensor) -> int:
    """One more than the largest index, at least 1."""
    return max(int(index.max()) + 1, 1) if index.numel() else 1


def _membership(index: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """index int64 [B, L] (negative = nowhere) -> [B, width, L] of ones and zeros."""
    slots = torch.arange(width, device=index.device)
    return (index[:, None, :] == slots[None, :, None]).to(dtype)


def pool_words(hidden: Tensor, batch: TextBatch) -> tuple[Tensor, Tensor]:
    """Sum the pieces of every word: hidden [B, L, H] -> words [B, W, H], mask bool [B, W]."""
    member = _membership(batch.word_index, _width(batch.word_index), hidden.dtype)
    return member @ hidden, member.sum(-1) > 0


def pool_sentences(hidden: Tensor, batch: TextBatch, markers: bool = True) -> tuple[Tensor, Tensor]:
    """The mean of `[SEN_i]` and the words of sentence i: [B, L, H] -> [B, S, H], mask bool [B, S].

    A word counts once however many pieces it has, as its pieces are summed first. `markers` False leaves
    `[SEN_i]` out; a sentence without words is then absent.
    """
    index = batch.token_type_ids * batch.attention_mask - 1
    if not markers:
        index = index.masked_fill(marker_positions(batch.token_type_ids), -1)
    index = torch.cat([torch.full_like(index[:, :1], -1), index[:, 1:]], dim=1)
    member = _membership(index, _width(index), hidden.dtype)
    word = batch.word_index
    starts = (word >= 0) & (word != F.pad(word[:, :-1], (1, 0), value=-1))
    counted = (starts | marker_positions(batch.token_type_ids) if markers else starts).to(hidden.dtype)
    count = (member * counted[:, None, :]).sum(-1)
    return (member @ hidden) / count.clamp(min=1).unsqueeze(-1), count > 0
