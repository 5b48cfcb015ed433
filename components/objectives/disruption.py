"""Undo low-level damage: noise, lost resolution and missing embedding channels (disruptive autoencoding)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._hooks import changed_embedding, patch_embedding
from components.objectives._reconstruction import deconvolutions, enlarge, pool_grid, strides_of
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
    stream,
)


@dataclass(frozen=True)
class Disrupted:
    """`inputs` `[B, 1, X, Y, Z]`: noisy and blurred; `factors`: by how much each row's resolution fell."""

    inputs: Tensor
    factors: list[int]


def disrupt(batch: Batch, noise: float, factors: tuple[int, ...]) -> Disrupted:
    """Every crop with Gaussian noise of deviation U(0, `noise`), then averaged over blocks of a random side.

    Each row draws from its own study's stream.
    """
    rows, chosen = [], []
    for row, key in zip(batch["crop"], batch["study_key"], strict=True):
        source = stream(batch, "disruption", key)
        factor = factors[int(torch.randint(len(factors), (1,), generator=source))]
        deviation = float(torch.rand(1, generator=source)) * noise
        noisy = row + deviation * torch.randn(row.shape, generator=source).to(row)
        coarse = pool_grid(noisy, [-(-side // factor) for side in row.shape[1:]])
        rows.append(enlarge(coarse, row.shape[1:]))
        chosen.append(factor)
    return Disrupted(torch.stack(rows), chosen)


def channel_mask(batch: Batch, shape: torch.Size, share: float) -> Tensor:
    """bool `[B, C, *S]`, true where a channel of a position is dropped: a random `share` at every position."""
    rows = []
    for key in batch["study_key"]:
        draws = torch.rand(shape[1:], generator=stream(batch, "disruption.channels", key))
        rows.append(draws < share)
    return torch.stack(rows)


class MultiScaleHead(nn.Module):
    """All scales, brought to the finest by linear maps and repetition, summed, then enlarged to voxels."""

    def __init__(self, channels: tuple[int, ...], dim: int, strides: tuple[int, int, int]) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv3d(width, dim, 1) for width in channels)
        self.voxels = deconvolutions(dim, strides)

    def forward(self, scales: tuple[Tensor, ...]) -> Tensor:
        """`[B, C_i, *S_i]`, finest first -> `[B, 1, *size]`."""
        finest = scales[0].shape[2:]
        maps = [enlarge(layer(scale), finest) for layer, scale in zip(self.laterals, scales, strict=True)]
        return self.voxels(F.gelu(torch.stack(maps).sum(0)))


@OBJECTIVES.register("disruption")
class Disruption(Objective):
    """L1 between the rebuilt and the undamaged crop (disruptive autoencoders, arXiv 2307.16896).

    Written from the description: noise and down-sampling of the volume, and a local mask that drops channels of the
    embedding at every position; the damage is undone by a light head on all scales. Every value is our choice. Its
    contrast between modalities is left out, as all volumes are CT. No volume is turned or mirrored.
    """

    class Params(ObjectiveParams):
        """`noise` in units of the output range's width, `factors` the sides of blocks (1: none), `mask` a share."""

        noise: float = Field(default=0.1, ge=0)
        factors: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1)
        mask: float = Field(default=0.3, ge=0, lt=1)
        dim: int = Field(default=64, ge=1)

    needs = frozenset({"crop"})
    row_wise = True

    def __init__(self, params: Params, model: Model) -> None:
        """The finest scale's stride follows from one empty pass at `model.contract.size`."""
        super().__init__()
        self.params = params
        self._vision = (model.vision,)
        self._width = float(model.contract.output_range[1] - model.contract.output_range[0])
        strides = strides_of(model.vision, tuple(model.contract.size), scale=0)
        self.head = MultiScaleHead(tuple(model.vision.channels), params.dim, strides)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean absolute error over the voxels of all processes' crops."""
        crop: Tensor = batch["crop"]
        num_total = total_count(len(crop), crop.device)
        if num_total == 0:
            return {}
        vision = self._vision[0]
        damaged = disrupt(batch, self.params.noise * self._width, self.params.factors).inputs

        def drop(embedded: Tensor) -> Tensor:
            dropped = channel_mask(batch, embedded.shape, self.params.mask).to(embedded.device)
            return embedded.masked_fill(dropped, 0.0)

        with changed_embedding(patch_embedding(vision), drop):
            scales = vision(damaged).scales
        rebuilt = full_precision(self.head(scales))
        if rebuilt.shape != crop.shape:
            rebuilt = enlarge(rebuilt, crop.shape[2:])
        errors = (rebuilt - crop).abs().flatten(1).mean(1)
        return {"disruption": mean_over_processes(errors.sum(), num_total)}
