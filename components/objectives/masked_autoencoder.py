"""Rebuild dropped patches of a volume from those that are left: a masked autoencoder.

Source: He et al. 2022 (arXiv:2111.06377); COLIPRI's vision-only objective (arXiv:2510.15042), whose settings are
not public. Ours: three quarters of the patches are dropped, two EVA blocks of the encoder's own width rebuild them
at their rotary positions, one linear layer gives the voxels, and the loss is the mean squared error over the voxels
of dropped patches alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from components.base.errors import ConfigError
from components.encoders.eva import AXES, Eva, take
from components.encoders.interfaces import PatchEncoder
from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
    stream,
)

VIEWS = {"global": "volume", "crop": "crop"}


def choose(batch: Batch, num_patches: int, ratio: float) -> tuple[Tensor, Tensor]:
    """The numbers of kept and of dropped patches, int64 [B, K] and [B, D], each in growing order.

    Every row draws from a stream of its own study; at least one patch is kept.
    """
    num_kept = max(1, num_patches - round(ratio * num_patches))
    orders = [
        torch.randperm(num_patches, generator=stream(batch, "masked_autoencoder", key))
        for key in batch["study_key"]
    ]
    order = torch.stack(orders) if orders else torch.empty(0, num_patches, dtype=torch.int64)
    return order[:, :num_kept].sort(1).values, order[:, num_kept:].sort(1).values


def patches_of(volume: Tensor, grid: Sequence[int], patch: int) -> Tensor:
    """volume [B, 1, X, Y, Z] -> [B, N, patch^3]: patches and the voxels in them, both in C order."""
    x, y, z = grid
    parts = volume.reshape(len(volume), x, patch, y, patch, z, patch)
    return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)


@OBJECTIVES.register("masked_autoencoder")
class MaskedAutoencoder(Objective):
    """Mean squared error over the voxels of dropped patches; every row takes part, with a report or without.

    Only a `PatchEncoder` can leave patches out, so that it never computes what is hidden from it; with any other
    encoder this is a `ConfigError`.
    """

    class Params(ObjectiveParams):
        """Our choices; `width` and `heads` null are the encoder's, `view` "crop" is the random local crop."""

        view: Literal["global", "crop"] = "global"
        ratio: float = Field(default=0.75, gt=0, lt=1)
        depth: int = Field(default=2, ge=1)
        width: int | None = Field(default=None, ge=1)
        heads: int | None = Field(default=None, ge=1)
        layer_scale: float = Field(default=0.1, gt=0)

    needs = frozenset({"volume", "crop"})
    row_wise = True

    def __init__(self, params: Params, model: Model) -> None:
        """`model.vision` is a `PatchEncoder`."""
        super().__init__()
        vision = model.vision
        if not isinstance(vision, PatchEncoder):
            raise ConfigError(
                "the vision encoder cannot leave patches out",
                rule="objective.masked_autoencoder",
                fix="use the vision encoder primus, or leave masked_autoencoder out",
            )
        width, heads = params.width or vision.width, params.heads or vision.heads
        if width % (2 * AXES * heads):
            raise ConfigError(
                f"the decoder's width {width} is not {heads} heads of a multiple of {2 * AXES} channels",
                rule="objective.masked_autoencoder",
                fix="change masked_autoencoder.width or .heads",
            )
        self.params = params
        self._vision = (vision,)
        self.embed = nn.Linear(vision.width, width) if width != vision.width else nn.Identity()
        self.mask_token = nn.Parameter(torch.empty(width))
        self.decoder = Eva(width, params.depth, heads, layer_scale=params.layer_scale)
        self.head = nn.Linear(width, vision.patch**3)
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean over the dropped voxels of all processes."""
        volume, vision = batch[VIEWS[self.params.view]], self._vision[0]
        grid = vision.grid(volume.shape[2:])
        keep, dropped = (part.to(volume.device) for part in choose(batch, math.prod(grid), self.params.ratio))
        num_voxels = dropped.shape[1] * vision.patch**3
        num_total = total_count(len(volume), volume.device) * num_voxels
        if num_total == 0:
            return {}
        predicted = full_precision(self.rebuild(vision.visible(volume, keep), keep, dropped, grid))
        target = take(patches_of(volume, grid, vision.patch), dropped).to(predicted.dtype)
        total = (predicted - target).square().sum()
        return {"masked_autoencoder": mean_over_processes(total, num_total)}

    def rebuild(self, visible: Tensor, keep: Tensor, dropped: Tensor, grid: Sequence[int]) -> Tensor:
        """visible [B, K, C] of the patches `keep` -> voxels [B, D, patch^3] of the patches `dropped`."""
        tokens = self.embed(visible)
        hidden = self.mask_token.to(tokens.dtype).expand(*dropped.shape, -1)
        place = torch.cat([keep, dropped], dim=1).argsort(dim=1)
        whole = take(torch.cat([tokens, hidden], dim=1), place)
        return self.head(take(self.decoder(whole, grid), dropped))
