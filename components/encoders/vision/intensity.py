"""Simple intensity features without anything learned: the floor that a trained encoder must clear.

A cumulative histogram of the volume and the mean of every cell of a coarse grid, as one vector. A probe on it tells
what brightness and its rough place already say about a label.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from components.base.config import Config
from components.encoders.features import VolumeFeatures
from components.encoders.interfaces import VisionEncoder
from components.encoders.vision import VISION


class IntensityParams(Config):
    """`bins` thresholds between `low` and `high` (the contract's output range), and a grid of `grid`^3 cells."""

    bins: int = Field(32, ge=1)
    grid: int = Field(4, ge=1)
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> IntensityParams:
        if self.high <= self.low:
            raise ValueError("high must be above low")
        return self


@VISION.register("intensity")
class IntensityEncoder(VisionEncoder):
    """One scale, the means of the grid's cells [B, 1, G, G, G]; pooled is shares above thresholds, then means."""

    Params: ClassVar[type[Config]] = IntensityParams
    thresholds: Tensor

    def __init__(self, params: IntensityParams) -> None:
        super().__init__()
        self.params = params
        self.channels = (1,)
        self.embed_dim = params.bins + params.grid**3
        inner = torch.linspace(params.low, params.high, params.bins + 2, dtype=torch.float64)[1:-1]
        self.register_buffer("thresholds", inner.float())

    def forward(self, volume: Tensor) -> VolumeFeatures:
        """volume [B, 1, X, Y, Z] -> the scale and the pooled vector [B, bins + grid^3]."""
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"a volume batch is [B, 1, X, Y, Z], not {tuple(volume.shape)}")
        shares = [(volume > threshold).float().mean(dim=(1, 2, 3, 4)) for threshold in self.thresholds]
        cells = torch.nn.functional.adaptive_avg_pool3d(volume, self.params.grid)
        return VolumeFeatures((cells,), torch.cat([torch.stack(shares, 1), cells.flatten(1)], dim=1))
