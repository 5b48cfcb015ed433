"""An organ's part of the volume against what the report says of it, with false negatives corrected."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_plain, gather_rows
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    check_scale,
    exactly,
    full_precision,
)
from components.objectives._soft import soft_contrast
from components.objectives._text import RegionText, region_vectors
from components.reports.findings import region


@lru_cache(maxsize=4096)
def region_of(organ: str) -> str:
    """The report region of a label's name: "lung_left" is of the lungs, "liver" of the abdomen."""
    return region(organ.replace("_", " "))


def region_weights(
    labels: Tensor, names: Mapping[int, str], regions: Sequence[str], grid: Sequence[int]
) -> Tensor:
    """How many voxels of each region lie at each position of a coarser grid.

    Args:
        labels: a label map uint8 `[X, Y, Z]`; names: what its values mean, 0 is nothing.
        regions: the report regions that are asked for.
        grid: the positions along each axis; a voxel belongs to the one that holds it.

    Returns:
        float32 `[len(regions), *grid]`.
    """
    table = torch.zeros(256, dtype=torch.int64)
    for value, organ in names.items():
        if region_of(organ) in regions:
            table[int(value)] = 1 + regions.index(region_of(organ))
    cells = math.prod(grid)
    key = table.to(labels.device)[labels.long()] * cells
    for axis, (side, steps) in enumerate(zip(labels.shape, grid, strict=True)):
        place = torch.arange(side, device=labels.device) * steps // side * math.prod(grid[axis + 1 :])
        key = key + place.view([-1 if other == axis else 1 for other in range(3)])
    counts = torch.bincount(key.flatten(), minlength=(1 + len(regions)) * cells)
    return counts.view(1 + len(regions), *grid)[1:].float()


def mask_mean(features: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of features `[C, *grid]` under each of `[R, *grid]` weights.

    Returns:
        `[R, C]` and bool `[R]`: whether the mask holds anything (0 where it does not).
    """
    with exactly(features):
        flat = weights.to(features).flatten(1)
        amount = flat.sum(-1)
        return flat @ features.flatten(1).T / amount.clamp(min=1)[:, None], amount > 0


def soft_positives(texts: Sequence[Mapping[str, Any]], share: float) -> tuple[Tensor, Tensor]:
    """Targets `[M, M]` and groups bool `[M, M]`: a group is a region.

    An entry's own partner counts 1; another entry of the region counts `share` if both are normal or both say the
    same (they are no negatives), else 0. Rows are divided by their sum.
    """
    regions = [text["region"] for text in texts]
    number = {name: place for place, name in enumerate(sorted(set(regions)))}
    group = torch.tensor([number[name] for name in regions])
    same = group[:, None] == group[None]
    said: dict[str, int] = {}
    words = torch.tensor([said.setdefault("\n".join(text["sentences"]), len(said)) for text in texts])
    normal = torch.tensor([bool(text["normal"]) for text in texts])
    alike = same & ((normal[:, None] & normal[None]) | (words[:, None] == words[None]))
    targets = alike.float() * share
    targets.fill_diagonal_(1.0)
    return targets / targets.sum(-1, keepdim=True), same


@OBJECTIVES.register("organ_contrast")
class OrganContrast(Objective):
    """Mask-pooled visual tokens against region texts (CT-GLIP, arXiv 2404.15272; fVLM, arXiv 2501.14548).

    For every paired row with a label map (`batch["organ_masks"]`, on the grid of the global view) and for every
    region that the map shows and the report speaks of: the mean visual token under the region's organs against the
    vector of the region's sentences, among all rows of all processes that have this region. Two normal ones, or two
    that say the same, are soft positives of each other, not negatives. Regions of a single row, empty masks and
    rows without a map are left out. Regions and values are our choice.
    """

    class Params(ObjectiveParams):
        """Our choice: `soft_positive` is the share of a false negative's target; `scale` counts finest first."""

        scale: int = 1
        dim: int = Field(default=512, gt=0)
        temperature: float = Field(default=0.07, gt=0)
        soft_positive: float = Field(default=1.0, ge=0, le=1)

    needs = frozenset({"volume", "text", "structured", "organ_masks"})

    def __init__(self, params: Params, model: Model) -> None:
        """Two projections: of the chosen vision scale and of report vectors."""
        super().__init__()
        check_scale(params.scale, len(model.vision.channels))
        self.params = params
        self._model = (model,)
        self.organ_projection = nn.Linear(model.vision.channels[params.scale], params.dim)
        self.text_projection = nn.Linear(model.text.hidden_size, params.dim)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean over regions with at least two rows, each the mean over its rows and both directions."""
        if batch.get("organ_masks") is None or batch.get("structured") is None:
            return {}
        texts, vectors = region_vectors(batch, features, self._model[0])
        device = batch["volume"].device
        organs, kept = self.organs(batch, features, texts)
        mine = [
            {"region": texts[at].region, "sentences": texts[at].sentences, "normal": texts[at].normal}
            for at in kept
        ]
        entries = [entry for part in gather_plain(mine, device) for entry in part]
        count = {
            name: sum(entry["region"] == name for entry in entries) for name in sorted(_regions(entries))
        }
        usable = [number for number, entry in enumerate(entries) if count[entry["region"]] > 1]
        if not usable:
            return {}
        words = (
            vectors[kept] if vectors is not None else organs.new_zeros((0, self.text_projection.in_features))
        )
        first, second = (
            gather_rows(F.normalize(full_precision(layer(rows)), dim=-1))[usable]
            for layer, rows in ((self.organ_projection, organs), (self.text_projection, words))
        )
        chosen = [entries[number] for number in usable]
        targets, same = (value.to(device) for value in soft_positives(chosen, self.params.soft_positive))
        terms = soft_contrast(first, second, targets.to(first), same, self.params.temperature)
        weights = torch.tensor([1.0 / count[entry["region"]] for entry in chosen]).to(first)
        return {"organ_contrast": (terms * weights).sum() / len(_regions(chosen))}

    def organs(
        self, batch: Batch, features: FeaturesLike, texts: Sequence[RegionText]
    ) -> tuple[Tensor, list[int]]:
        """Visual tokens `[K, C]` of the region texts whose mask holds anything, and which texts those are."""
        tokens: list[Tensor] = []
        kept: list[int] = []
        if not texts:
            return batch["volume"].new_zeros((0, self.organ_projection.in_features)), kept
        scale = full_precision(features.paired_volume().scales[self.params.scale])
        for row, place in enumerate(batch["paired"].tolist()):
            numbers = [number for number, text in enumerate(texts) if text.row == row]
            names = batch["organ_names"][place]
            if not numbers or not names:
                continue
            wanted = [texts[number].region for number in numbers]
            weights = region_weights(batch["organ_masks"][place], names, wanted, scale.shape[2:])
            means, there = mask_mean(scale[row], weights)
            tokens.append(means[there])
            kept += [number for number, found in zip(numbers, there.tolist(), strict=True) if found]
        return (torch.cat(tokens) if tokens else scale.new_zeros((0, scale.shape[1]))), kept


def _regions(entries: Sequence[Mapping[str, Any]]) -> set[str]:
    return {entry["region"] for entry in entries}
