"""A small causal transformer that reads image tokens: what writes a report, or the next patches of a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from components.objectives._shared import ObjectiveParams

SLOWEST = 10000.0


class DecoderParams(ObjectiveParams):
    """Sizes of the decoder; `scale` is the index of the vision scale that it reads, finest first."""

    scale: int = -1
    layers: int = Field(default=6, ge=1)
    hidden: int = Field(default=768, ge=6)
    heads: int = Field(default=12, ge=1)
    ffn: int = Field(default=3072, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> DecoderParams:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} does not divide by {self.heads} heads")
        return self


class CausalDecoder(nn.Module):
    """Pre-norm transformer layers: causal self-attention, cross-attention to a memory, feed-forward."""

    def __init__(self, params: DecoderParams) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(
                params.hidden,
                params.heads,
                params.ffn,
                params.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,
            )
            for _ in range(params.layers)
        )
        self.norm = nn.LayerNorm(params.hidden)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x `[B, L, H]`, memory `[B, N, H]` -> `[B, L, H]`; position t sees positions up to t."""
        length = x.shape[1]
        later = torch.ones((length, length), dtype=torch.bool, device=x.device).triu(1)
        for layer in self.layers:
            x = layer(x, memory, tgt_mask=later, tgt_is_causal=True)
        return self.norm(x)


def waves(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions `[...]` at `width` / 2 rates from 1 to 1/10,000: `[..., width]`."""
    rates = torch.exp(torch.arange(0, width, 2, device=places.device) * (-math.log(SLOWEST) / max(width, 1)))
    angles = places[..., None].float() * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def grid_waves(grid: Sequence[int], width: int, like: Tensor) -> Tensor:
    """A position code `[X * Y * Z, width]` of a 3D grid: a third of the channels an axis, in the order of flatten."""
    shares = [width - 2 * (width // 3), width // 3, width // 3]
    axes = [torch.arange(length, device=like.device) for length in grid]
    places = torch.meshgrid(*axes, indexing="ij")
    code = [waves(place.flatten(), share) for place, share in zip(places, shares, strict=True)]
    return torch.cat(code, dim=-1).to(like)
