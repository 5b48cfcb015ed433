"""Predict the next patches of a crop from those before them: an autoregressive objective on 3D patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from components.base.errors import ConfigError
from components.objectives import OBJECTIVES
from components.objectives._decoder import CausalDecoder, DecoderParams, grid_waves
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._reconstruction import enlarge, pool_grid
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    check_scale,
    full_precision,
    scale_at,
    stream,
)


@dataclass(frozen=True)
class Sequence:
    """Patches in the order in which they are predicted.

    `patches` `[B, n, q^3]` averaged voxels; `places` int64 `[B, n]` their numbers in the grid; `starts` int64 `[B]`:
    the first `start` patches are given, the others are to be predicted; `prefix` `[B, 1, X, Y, Z]`: the crop with
    the others blanked.
    """

    patches: Tensor
    places: Tensor
    starts: Tensor
    prefix: Tensor


def split_patches(crop: Tensor, grid: int) -> Tensor:
    """`[B, 1, X, Y, Z]` -> `[B, grid^3, X / grid, Y / grid, Z / grid]`, in the order of flatten."""
    sides = [side // grid for side in crop.shape[2:]]
    if any(side * grid != whole or side == 0 for side, whole in zip(sides, crop.shape[2:], strict=True)):
        raise ConfigError(
            f"a crop of {list(crop.shape[2:])} cannot be cut into {grid} equal parts along every axis",
            rule="objective.patches",
            fix="set autoregressive_patches.grid to a divisor of crop_size",
        )
    x, y, z = sides
    parts = crop[:, 0].unflatten(3, (grid, z)).unflatten(2, (grid, y)).unflatten(1, (grid, x))
    return parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(1, 3)


def join_patches(patches: Tensor, grid: int) -> Tensor:
    """The inverse of `split_patches`."""
    parts = patches.unflatten(1, (grid, grid, grid)).permute(0, 1, 4, 2, 5, 3, 6)
    return parts.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, None]


def make_sequence(batch: Batch, grid: int, detail: int, order: str, blank: float) -> Sequence:
    """Order and cut the crops; every row draws where its prediction starts from its own study's stream."""
    crop: Tensor = batch["crop"]
    whole = split_patches(crop, grid)
    number = grid**3
    places = torch.arange(number, device=crop.device).expand(len(crop), -1)
    if order == "contrast":
        places = whole.flatten(2).mean(-1).argsort(dim=-1, stable=True)
    starts = [
        1 + int(torch.randint(number - 1, (1,), generator=stream(batch, "autoregressive_patches", key)))
        for key in batch["study_key"]
    ]
    first = torch.tensor(starts, device=crop.device)
    rank = places.argsort(dim=-1)
    hidden = rank >= first[:, None]
    prefix = join_patches(whole.masked_fill(hidden[..., None, None, None], blank), grid)
    coarse = pool_grid(full_precision(whole), [min(detail, side) for side in whole.shape[2:]])
    small = enlarge(coarse, (detail,) * 3).flatten(2)
    ordered = small.gather(1, places[..., None].expand_as(small))
    return Sequence(ordered, places, first, prefix)


@OBJECTIVES.register("autoregressive_patches")
class AutoregressivePatches(Objective):
    """Next-patch prediction with a random start (autoregressive sequence modelling, for any vision encoder).

    An encoder whose tokens see each other would give the answer away. So it sees the crop with every patch from a
    random start on blanked, and a small causal decoder, which reads the encoder's tokens, predicts each patch from
    there on from the true patches before it. Patches come in spatial order or by their mean intensity
    ("contrast"); the decoder knows where the next one lies. The loss is the mean squared error of a patch's
    averaged voxels. No volume is turned or mirrored. Every value is our choice.
    """

    class Params(DecoderParams):
        """Our choice: `grid` patches along an axis, `detail` voxels along a predicted patch's axis."""

        layers: int = Field(default=2, ge=1)
        hidden: int = Field(default=192, ge=6)
        heads: int = Field(default=6, ge=1)
        ffn: int = Field(default=768, ge=1)
        dropout: float = Field(default=0.0, ge=0, lt=1)
        grid: int = Field(default=4, ge=2)
        detail: int = Field(default=4, ge=1)
        order: Literal["spatial", "contrast"] = "spatial"

    needs = frozenset({"crop"})
    row_wise = True

    def __init__(self, params: Params, model: Model) -> None:
        """`model.vision.channels[scale]` gives the width of what the decoder reads."""
        super().__init__()
        check_scale(params.scale, len(model.vision.channels))
        self.params = params
        self._vision = (model.vision,)
        low, high = (float(value) for value in model.contract.output_range)
        self._blank, self._middle, self._half = low, (low + high) / 2, (high - low) / 2
        self.project = nn.Linear(model.vision.channels[params.scale], params.hidden)
        self.memory_norm = nn.LayerNorm(params.hidden)
        self.embed = nn.Linear(params.detail**3, params.hidden)
        self.here = nn.Linear(params.hidden, params.hidden)
        self.there = nn.Linear(params.hidden, params.hidden)
        self.decoder = CausalDecoder(params)
        self.output = nn.Linear(params.hidden, params.detail**3)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean over all processes' crops of the mean over a crop's predicted patches."""
        num_total = total_count(len(batch["crop"]), batch["crop"].device)
        if num_total == 0:
            return {}
        size = self.params
        sequence = make_sequence(batch, size.grid, size.detail, size.order, self._blank)
        errors, counted = self.errors(sequence)
        means = (errors * counted).sum(-1) / counted.sum(-1)
        return {"autoregressive_patches": mean_over_processes(means.sum(), num_total)}

    def errors(self, sequence: Sequence) -> tuple[Tensor, Tensor]:
        """Mean squared errors `[B, n - 1]` of the patches 1.. and which of them count (bool)."""
        encoded = self._vision[0](sequence.prefix)
        spatial = encoded.scales[self.params.scale].shape[2:]
        tokens = self.project(scale_at(encoded, self.params.scale))
        memory = self.memory_norm(tokens + grid_waves(spatial, self.params.hidden, tokens))
        predicted = full_precision(self.predict(sequence, memory))
        target = sequence.patches[:, 1:]
        counted = torch.arange(1, sequence.patches.shape[1], device=target.device) >= sequence.starts[:, None]
        return (predicted - target).square().mean(-1), counted

    def predict(self, sequence: Sequence, memory: Tensor) -> Tensor:
        """`[B, n - 1, q^3]`: position t is made of the patches up to t and of the place of patch t + 1."""
        grid = (self.params.grid,) * 3
        embedded = self.embed((sequence.patches[:, :-1] - self._middle) / self._half)
        code = grid_waves(grid, self.params.hidden, embedded)[sequence.places]
        states = self.decoder(embedded + self.here(code[:, :-1]) + self.there(code[:, 1:]), memory)
        return self._middle + self._half * self.output(states)
