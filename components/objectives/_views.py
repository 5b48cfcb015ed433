"""Two augmented views of each local crop, built once a step and shared by the vision objectives.

The recipe is the self-supervision of Swin UNETR (arXiv 2111.14791) as VELVET-Med uses it: a random quarter
turn, then a cut-out of random cuboids filled with noise, then cuboids overwritten by another sample of the
batch. Each row draws from a stream of its own study, so the views do not depend on the order of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from components.base.config import Config, fingerprint
from components.base.errors import ConfigError
from components.objectives._shared import Batch, FeaturesLike, stream

CUBOIDS_DRAWN = 64


class ViewParams(Config):
    """How views are made; objectives with equal values share them.

    `plane` are the two spatial axes (0, 1, 2) that turn; in the paper the last two.
    """

    plane: tuple[int, int] = (1, 2)
    max_covered: float = Field(default=0.3, ge=0, lt=1)
    min_side: float = Field(default=0.05, gt=0, le=1)
    max_side: float = Field(default=0.25, gt=0, le=1)


@dataclass(frozen=True)
class Views:
    """Two views of B crops, stacked: rows 0..B-1 are the first view, B..2B-1 the second.

    `inputs` are turned, cut and mixed, `targets` only turned: `[2B, 1, X, Y, Z]`; `turns` `[2B]` counts
    quarter turns.
    """

    inputs: Tensor
    targets: Tensor
    turns: Tensor


def views_of(batch: Batch, features: FeaturesLike, params: ViewParams) -> Views:
    """The step's views, built by the first objective that asks."""
    return features.memo(f"views.{fingerprint(params)}", lambda: make_views(batch, params))


def encoded_views(batch: Batch, features: FeaturesLike, params: ViewParams, vision: nn.Module) -> Tensor:
    """The deepest scale `[2B, C, *S]` of both views, from one pass through the vision encoder."""

    def encode() -> Tensor:
        return vision(views_of(batch, features, params).inputs).scales[-1]

    return features.memo(f"views.encoded.{fingerprint(params)}", encode)


def make_views(batch: Batch, params: ViewParams) -> Views:
    """Build both views of `batch["crop"]` `[B, 1, X, Y, Z]`; `study_key` names each row's stream."""
    crop: Tensor = batch["crop"]
    plane = (params.plane[0] + 1, params.plane[1] + 1)
    if plane[0] == plane[1] or crop.shape[1 + plane[0]] != crop.shape[1 + plane[1]]:
        raise ConfigError(
            "quarter turns need two different axes of equal length",
            rule="objective.views",
            fix="give crop_size equal sides or change views.plane",
        )
    halves = [_one_view(batch, view, params, plane) for view in ("first", "second")]
    inputs, targets, turns = (torch.cat(parts) for parts in zip(*halves, strict=True))
    return Views(inputs, targets, turns)


def _one_view(
    batch: Batch, view: str, params: ViewParams, plane: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    crop, keys = batch["crop"], list(batch["study_key"])
    streams = [stream(batch, f"views.{view}", key) for key in keys]
    turns = [int(torch.randint(4, (1,), generator=source)) for source in streams]
    targets = torch.stack([torch.rot90(row, k, plane) for row, k in zip(crop, turns, strict=True)])
    inputs = targets.clone()
    by_key = sorted(range(len(keys)), key=keys.__getitem__)
    for row, source in enumerate(streams):
        _fill_noise(inputs[row], source, params, crop[row])
        partner = by_key[int(torch.randint(len(keys), (1,), generator=source))]
        if partner != row:
            for box in cuboids(tuple(crop.shape[2:]), source, params):
                inputs[row][box] = targets[partner][box]
    return inputs, targets, torch.tensor(turns, device=crop.device)


def _fill_noise(row: Tensor, source: torch.Generator, params: ViewParams, original: Tensor) -> None:
    """Overwrite cuboids of `row` `[1, X, Y, Z]` with Gaussian noise scaled to the crop's own range."""
    low, high = original.amin(), original.amax()
    for box in cuboids(tuple(row.shape[1:]), source, params):
        noise = torch.randn(row[box].shape, generator=source)
        span = (noise.amax() - noise.amin()).clamp(min=1e-6)
        unit = ((noise - noise.amin()) / span).to(row)
        row[box] = low + unit * (high - low)


def cuboids(
    size: tuple[int, ...], source: torch.Generator, params: ViewParams
) -> list[tuple[slice, slice, slice, slice]]:
    """Random boxes (with a leading channel slice) until U(0, max_covered) of the voxels is covered.

    Overlaps count twice, as in the recipe; a side is `min_side` to `max_side` of the axis, at least 1 voxel.
    """
    extent = torch.tensor(size, dtype=torch.float64)
    voxels = float(extent.prod())
    budget = float(torch.rand(1, generator=source, dtype=torch.float64)) * params.max_covered * voxels
    boxes: list[tuple[slice, slice, slice, slice]] = []
    covered = 0.0
    while covered < budget:
        draw = torch.rand((CUBOIDS_DRAWN, 2, 3), generator=source, dtype=torch.float64)
        share = params.min_side + draw[:, 0] * (params.max_side - params.min_side)
        sides = (share * extent).long().clamp(min=1)
        starts = (draw[:, 1] * (extent - sides + 1)).long()
        for start, side in zip(starts.tolist(), sides.tolist(), strict=True):
            if covered >= budget:
                break
            x, y, z = (slice(first, first + length) for first, length in zip(start, side, strict=True))
            boxes.append((slice(None), x, y, z))
            covered += float(side[0] * side[1] * side[2])
    return boxes
