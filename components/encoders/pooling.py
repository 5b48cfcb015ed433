"""Tokens to one vector: average, attention with the mean as its query (COLIPRI), or learnt queries.

A pool leaves padding out, and `to_dense` puts every position of a grid where a volume that held this position
alone would be put: a similarity map is made of the same weights as a similarity.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.base.errors import ConfigError

PoolingKind = Literal["average", "mean_query", "learned_queries"]
TextPoolingKind = Literal["cls", "average", "mean_query", "learned_queries"]
NUM_QUERIES = 4


def make_pool(kind: str, width: int, heads: int) -> Pool:
    """A pool by its name; `heads` must divide `width` where there is attention.

    Raises `ConfigError` for an unknown name or heads that do not divide.
    """
    kinds: dict[str, type[Pool]] = {
        "cls": FirstPool,
        "average": AveragePool,
        "mean_query": MeanQueryPool,
        "learned_queries": LearnedQueriesPool,
    }
    attends = kind in kinds and issubclass(kinds[kind], MeanQueryPool)
    if kind not in kinds or (attends and (heads < 1 or width % heads)):
        raise ConfigError(
            f"there is no pooling {kind!r} of width {width} with {heads} heads",
            rule="encoder.pooling",
            fix=f"use one of {', '.join(kinds)} and a number of heads that divides the width",
        )
    return kinds[kind](width, heads)


class Pool(nn.Module):
    """tokens [B, N, C] and an optional mask bool [B, N] of what is there -> [B, C]."""

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """One vector a row; a row without any token is pooled as if all were there, so that it is finite."""
        raise NotImplementedError

    def of_grid(self, grid: Tensor) -> Tensor:
        """grid [B, C, *S] -> [B, C], every position a token."""
        return self(grid.flatten(2).transpose(1, 2))

    def to_dense(self, grid: Tensor) -> Tensor:
        """grid [B, C, *S] -> [B, C, *S]: each position pooled by itself."""
        raise NotImplementedError


class FirstPool(Pool):
    """The first token, `[CLS]` of a report; it has no weights."""

    def __init__(self, width: int, heads: int = 1) -> None:
        """Both arguments are for the sake of a common form."""
        super().__init__()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The vector at position 0."""
        return tokens[:, 0]

    def to_dense(self, grid: Tensor) -> Tensor:
        """The grid itself."""
        return grid


class AveragePool(Pool):
    """The mean of the tokens; it has no weights."""

    def __init__(self, width: int, heads: int = 1) -> None:
        """Both arguments are for the sake of a common form."""
        super().__init__()

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean over the tokens that are there."""
        return _mean(tokens, _present(mask))

    def of_grid(self, grid: Tensor) -> Tensor:
        """The mean over the positions."""
        return grid.mean(dim=(2, 3, 4))

    def to_dense(self, grid: Tensor) -> Tensor:
        """The grid itself."""
        return grid


class MeanQueryPool(Pool):
    """Multi-head attention whose only query is the mean of the tokens (COLIPRI's `AttentionPool1D`).

    The weights have the names and shapes of `torch.nn.MultiheadAttention` below `attn`.
    """

    def __init__(self, width: int, heads: int) -> None:
        """`heads` divides `width`."""
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def queries(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        """[B, Q, C]: here the mean."""
        return _mean(tokens, present)[:, None]

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean of what the queries find."""
        present = _present(mask)
        attention, heads = self.attn, self.attn.num_heads
        weights = attention.in_proj_weight.chunk(3)
        biases = attention.in_proj_bias.chunk(3)
        sources = (self.queries(tokens, present), tokens, tokens)
        query, key, value = (
            F.linear(source, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
            for source, weight, bias in zip(sources, weights, biases, strict=True)
        )
        allowed = None if present is None else present[:, None, None, :]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
        return attention.out_proj(found.transpose(1, 2).flatten(2)).mean(1)

    def to_dense(self, grid: Tensor) -> Tensor:
        """The value and the output projection as two 1x1x1 convolutions: attention with one key."""
        attention = self.attn
        steps = (
            (attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]),
            (attention.out_proj.weight, attention.out_proj.bias),
        )
        for weight, bias in steps:
            grid = F.conv3d(grid, weight[:, :, None, None, None], bias)
        return grid


class LearnedQueriesPool(MeanQueryPool):
    """Attention with four learnt queries, averaged (COLIPRI's `MultiLearnedQueryAttentionPool1D`)."""

    def __init__(self, width: int, heads: int) -> None:
        """Queries begin with deviation width^-0.5."""
        super().__init__(width, heads)
        self.query = nn.Parameter(torch.randn(1, NUM_QUERIES, width) / width**0.5)

    def queries(self, tokens: Tensor, present: Tensor | None) -> Tensor:
        """[B, 4, C], the same for every row."""
        return self.query.expand(len(tokens), -1, -1)


def _present(mask: Tensor | None) -> Tensor | None:
    """bool [B, N] with rows that lack every token opened: their softmax would be NaN."""
    if mask is None:
        return None
    mask = mask.bool()
    return mask | ~mask.any(-1, keepdim=True)


def _mean(tokens: Tensor, present: Tensor | None) -> Tensor:
    if present is None:
        return tokens.mean(1)
    weights = present.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(1) / weights.sum(1)
