"""Primus: a plain vision transformer on 3D patches, the image encoder of COLIPRI.

Source: Wald et al. 2025 (Primus, arXiv:2503.01835), COLIPRI (arXiv:2510.15042). The defaults are Primus-M with
patches of 8 voxels and COLIPRI's projector and pool: 144,085,536 + 664,320 + 2,362,368 parameters, 864@24^3 from
192^3 and a pooled vector of 768 in the space that it shares with the reports.
A transformer has one grid. `levels` adds coarser scales, each the mean of 2x2x2 positions of the one before, for
objectives and decoders that want several; they have no weights.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from components.base.config import Config
from components.encoders.eva import AXES, Eva, take
from components.encoders.features import VolumeFeatures
from components.encoders.interfaces import PatchEncoder
from components.encoders.pooling import PoolingKind, make_pool
from components.encoders.vision import VISION


class PrimusParams(Config):
    """Sizes of Primus; `projection_dim` null leaves the projector out and pools tokens of `width`.

    With a projector the pooled vector is made for the shared space: the encoder's `embed_dim` must be equal.
    """

    patch: int = Field(8, ge=1)
    width: int = Field(864, ge=1)
    depth: int = Field(16, ge=1)
    heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(8 / 3, gt=0)
    layer_scale: float = Field(0.1, gt=0)
    drop_path: float = Field(0.2, ge=0, lt=1)
    projection_dim: int | None = Field(768, ge=1)
    pooling: PoolingKind = "mean_query"
    pool_heads: int = Field(12, ge=1)
    levels: int = Field(1, ge=1, le=6)
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _heads_turn_with_three_axes(self) -> PrimusParams:
        if self.width % self.heads or (self.width // self.heads) % (2 * AXES):
            raise ValueError(
                f"width {self.width} is not {self.heads} heads of a multiple of {2 * AXES} channels"
            )
        return self


class Backbone(nn.Module):
    """Patches to tokens: names of the weights as in `dynamic-network-architectures`."""

    def __init__(self, params: PrimusParams) -> None:
        super().__init__()
        first = nn.Conv3d(1, params.width, params.patch, stride=params.patch)
        nn.init.kaiming_normal_(first.weight, a=1e-2)
        nn.init.zeros_(first.bias)  # type: ignore[arg-type]
        self.down_projection = nn.ModuleDict({"proj": first})
        self.eva = Eva(
            params.width,
            params.depth,
            params.heads,
            mlp_ratio=params.mlp_ratio,
            layer_scale=params.layer_scale,
            drop_path=params.drop_path,
            checkpointing=params.gradient_checkpointing,
        )

    def forward(self, volume: Tensor, keep: Tensor | None = None) -> Tensor:
        """volume [B, 1, X, Y, Z] -> tokens [B, N, C], or of the patches `keep` int64 [B, K] alone [B, K, C]."""
        patches = self.down_projection["proj"](volume)
        tokens = patches.flatten(2).transpose(1, 2)
        if keep is not None:
            tokens = take(tokens, keep)
        return self.eva(tokens, patches.shape[2:], keep)


def halved(grid: Tensor) -> Tensor:
    """[B, C, X, Y, Z] -> means of 2x2x2 positions, each side rounded up; a last odd position stands for itself.

    The library's own average pooling has no deterministic backward pass on a GPU.
    """
    for axis in (2, 3, 4):
        count = grid.shape[axis] // 2
        pairs = grid.narrow(axis, 0, 2 * count).unflatten(axis, (count, 2)).mean(axis + 1)
        rest = grid.narrow(axis, 2 * count, grid.shape[axis] - 2 * count)
        grid = torch.cat([pairs, rest], dim=axis)
    return grid


@VISION.register("primus")
class PrimusEncoder(PatchEncoder):
    """Scales of strides patch * (1, 2, 4, ...), all of `width` channels; pooled from the finest.

    Works on any size that is a multiple of the patch: rotary positions count on beyond the size of training.
    """

    Params: ClassVar[type[Config]] = PrimusParams

    def __init__(self, params: PrimusParams) -> None:
        super().__init__()
        self.params = params
        self.patch, self.width, self.heads = params.patch, params.width, params.heads
        self.channels = (params.width,) * params.levels
        self.embed_dim = params.projection_dim or params.width
        self.joint = params.projection_dim is not None
        self.backbone = Backbone(params)
        self.projector = nn.Conv3d(params.width, self.embed_dim, 1) if self.joint else nn.Identity()
        self.pooling = make_pool(params.pooling, self.embed_dim, params.pool_heads)

    def forward(self, volume: Tensor) -> VolumeFeatures:
        """volume [B, 1, X, Y, Z] -> scales and the pooled vector [B, E]."""
        if volume.ndim != 5 or volume.shape[1] != 1:
            raise ValueError(f"a volume batch is [B, 1, X, Y, Z], not {tuple(volume.shape)}")
        grid = self.grid(volume.shape[2:])
        scales = [self.backbone(volume).transpose(1, 2).unflatten(2, grid)]
        for _ in range(1, self.params.levels):
            scales.append(halved(scales[-1]))
        return VolumeFeatures(tuple(scales), self.pool(tuple(scales)))

    def visible(self, volume: Tensor, keep: Tensor) -> Tensor:
        """volume [B, 1, X, Y, Z], keep int64 [B, K] patch numbers -> [B, K, C] from these patches alone."""
        self.grid(volume.shape[2:])
        return self.backbone(volume, keep)

    def pool(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales -> [B, E]: the finest, projected and pooled."""
        return self.pooling.of_grid(self.projector(scales[0]))

    def dense(self, scales: tuple[Tensor, ...]) -> Tensor:
        """Scales -> [B, E, *S] on the finest grid."""
        return self.pooling.to_dense(self.projector(scales[0]))
