"""The report taken apart: one contrast an aspect (a region), with soft targets from an ontology of findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_plain, gather_rows
from components.objectives._ontology import text_distance
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
)
from components.objectives._soft import soft_contrast
from components.objectives._text import region_vectors


def ontology_targets(entries: Sequence[Mapping[str, Any]], temperature: float) -> tuple[Tensor, Tensor]:
    """Targets `[M, M]` = softmax(-distance / temperature) within a region, and the groups bool `[M, M]`.

    Rows sum to 1. As the temperature goes to 0 all weight goes to the entries at distance 0: the entry itself, and
    those that say the same. Two texts with the same words are at distance 0 whatever the ontology knows of them.
    """
    regions = [entry["region"] for entry in entries]
    rows = []
    for i, entry in enumerate(entries):
        distances = []
        for j, other in enumerate(entries):
            alike = i == j or list(entry["sentences"]) == list(other["sentences"])
            both = (bool(entry["normal"]), bool(other["normal"]))
            distances.append(0.0 if alike else text_distance(entry["findings"], other["findings"], both))
        rows.append(distances)
    same = torch.tensor([[first == second for second in regions] for first in regions])
    scores = -torch.tensor(rows, dtype=torch.float64) / temperature
    return scores.masked_fill(~same, -torch.inf).softmax(-1), same


@OBJECTIVES.register("aspect_contrast")
class AspectContrast(Objective):
    """Contrast of whole volumes with each aspect of their reports (the idea of O-MAKE).

    An aspect is a region of the structured report. For each there is one contrast, among the rows of all processes
    whose reports speak of it, with soft targets: the nearer two texts' findings are in an ontology
    (`_ontology`), the more they count as each other's partners. The volume's vector goes through one linear map, the
    region text's through another. Aspects of a single row are left out. Every value is our choice.
    """

    class Params(ObjectiveParams):
        """Our choice: `ontology_temperature` is that of the targets, `temperature` that of the similarities."""

        dim: int = Field(default=512, gt=0)
        temperature: float = Field(default=0.07, gt=0)
        ontology_temperature: float = Field(default=0.2, gt=0)

    needs = frozenset({"volume", "text", "structured"})

    def __init__(self, params: Params, model: Model) -> None:
        """Two projections: of the pooled volume and of report vectors."""
        super().__init__()
        self.params = params
        self._model = (model,)
        self.volume_projection = nn.Linear(model.vision.embed_dim, params.dim)
        self.text_projection = nn.Linear(model.text.hidden_size, params.dim)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean over aspects with at least two rows, each the mean over its rows and both directions."""
        if batch.get("structured") is None:
            return {}
        device = batch["volume"].device
        texts, vectors = region_vectors(batch, features, self._model[0])
        mine = [
            {
                "region": text.region,
                "sentences": text.sentences,
                "normal": text.normal,
                "findings": text.findings,
            }
            for text in texts
        ]
        entries = [entry for part in gather_plain(mine, device) for entry in part]
        count: dict[str, int] = {}
        for entry in entries:
            count[entry["region"]] = count.get(entry["region"], 0) + 1
        usable = [number for number, entry in enumerate(entries) if count[entry["region"]] > 1]
        if not usable:
            return {}
        rows = torch.tensor([text.row for text in texts], dtype=torch.int64, device=device)
        volumes = features.paired_volume().pooled.index_select(0, rows)
        words = vectors if vectors is not None else volumes.new_zeros((0, self.text_projection.in_features))
        first, second = (
            gather_rows(F.normalize(full_precision(layer(values)), dim=-1))[usable]
            for layer, values in ((self.volume_projection, volumes), (self.text_projection, words))
        )
        chosen = [entries[number] for number in usable]
        targets, same = ontology_targets(chosen, self.params.ontology_temperature)
        terms = soft_contrast(first, second, targets.to(first), same.to(device), self.params.temperature)
        weights = torch.tensor([1.0 / count[entry["region"]] for entry in chosen]).to(first)
        return {"aspect_contrast": (terms * weights).sum() / len({entry["region"] for entry in chosen})}
