"""Two augmented views of each local crop, built once a step and shared by the vision objectives.

The recipe is the self-supervision of Swin UNETR (arXiv 2111.14791) as VELVET-Med uses it: a random quarter
turn, then a cut-out of random cuboids filled with noise, then cuboids overwritten by another sample of the
batch. Each row draws from a stream of its own study, so the views do not depend on the order of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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
    by_key = sorted(range(len(keys)), key=keys.__getitem__)
    size = tuple(crop.shape[2:])
    rows = []
    for row, source in enumerate(streams):
        cut = covered(size, source, params).to(crop.device)
        changed = torch.where(cut, _noise(crop[row], source), targets[row])
        partner = by_key[int(torch.randint(len(keys), (1,), generator=source))]
        if partner != row:
            mixed = covered(size, source, params).to(crop.device)
            changed = torch.where(mixed, targets[partner], changed)
        rows.append(changed)
    return torch.stack(rows), targets, torch.tensor(turns, device=crop.device)


def _noise(row: Tensor, source: torch.Generator) -> Tensor:
    """Gaussian noise of the shape of `row`, scaled to the row's own range."""
    noise = torch.randn(row.shape, generator=source).to(row)
    low, high = torch.aminmax(row)
    least, most = torch.aminmax(noise)
    return low + (noise - least) / (most - least).clamp(min=1e-6) * (high - low)


def covered(size: tuple[int, ...], source: torch.Generator, params: ViewParams) -> Tensor:
    """bool `[X, Y, Z]`: the union of `cuboids`."""
    mask = np.zeros(size, dtype=bool)
    for box in cuboids(size, source, params):
        mask[box] = True
    return torch.from_numpy(mask)


def cuboids(
    size: tuple[int, ...], source: torch.Generator, params: ViewParams
) -> list[tuple[slice, slice, slice]]:
    """Random boxes until U(0, max_covered) of the voxels is covered.

    Overlaps count twice, as in the recipe; a side is `min_side` to `max_side` of the axis, at least 1 voxel.
    """
    extent = np.array(size, dtype=np.float64)
    budget = float(torch.rand(1, generator=source, dtype=torch.float64)) * params.max_covered * extent.prod()
    boxes: list[tuple[slice, slice, slice]] = []
    filled = 0
    while filled < budget:
        draw = torch.rand((CUBOIDS_DRAWN, 2, 3), generator=source, dtype=torch.float64).numpy()
        share = params.min_side + draw[:, 0] * (params.max_side - params.min_side)
        sides = np.maximum(1, (share * extent).astype(np.int64))
        starts = (draw[:, 1] * (extent - sides + 1)).astype(np.int64)
        for start, side in zip(starts.tolist(), sides.tolist(), strict=True):
            if filled >= budget:
                break
            x, y, z = (slice(first, first + length) for first, length in zip(start, side, strict=True))
            boxes.append((x, y, z))
            filled += side[0] * side[1] * side[2]
    return boxes
