"""A volume lies nearer to what is true of it than to the opposite: COLIPRI's opposite-sentence loss."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import gather_plain, mean_over_processes, total_count
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    exactly,
    full_precision,
    num_paired,
    projected_volumes,
    stream,
)
from components.objectives._text import encode_texts
from components.reports.negation import negate

PADDED = -1
Told = Sequence[tuple[str, Mapping[str, Sequence[str]]]]
"""Patient and positive sentences by region, for every report of the batch."""


@dataclass(frozen=True)
class Pair:
    """A sentence and its opposite; `true` when the sentence holds for the volume."""

    sentence: str
    opposite: str
    true: bool


def choose_pairs(
    patient: str, positives: Mapping[str, Sequence[str]], told: Told, num_pairs: int, draw: random.Random
) -> list[Pair]:
    """Up to ceil(K/2) true and up to floor(K/2) false pairs for one report.

    True sentences are this report's positive ones. False ones are positive in reports of other patients, in a
    region where no report of this patient says anything positive.
    """
    own = sorted({sentence for sentences in positives.values() for sentence in sentences})
    taken = {
        region
        for other, regions in [*told, (patient, positives)]
        if other == patient
        for region, sentences in regions.items()
        if sentences
    }
    foreign = sorted(
        {
            sentence
            for other, regions in told
            if other != patient
            for region, sentences in regions.items()
            if region not in taken
            for sentence in sentences
        }
        - set(own)
    )
    true = draw.sample(own, min(len(own), -(-num_pairs // 2)))
    false = draw.sample(foreign, min(len(foreign), num_pairs // 2))
    return [
        *(Pair(sentence, negate(sentence), True) for sentence in true),
        *(Pair(sentence, negate(sentence), False) for sentence in false),
    ]


def opposite_terms(
    volumes: Tensor, sentences: Tensor, opposites: Tensor, truth: Tensor, temperature: Tensor
) -> Tensor:
    """Cross-entropy of every pair, `[n, K]`, 0 where there is none.

    Args:
        volumes: unit vectors `[n, P]`; sentences, opposites: unit vectors `[n, K, P]`.
        truth: int64 `[n, K]`: 1 the sentence holds, 0 its opposite does, -1 padding.
        temperature: a positive scalar to divide by.
    """
    both = torch.stack([sentences, opposites], dim=2)
    with exactly(volumes):
        logits = torch.einsum("np,nkcp->nkc", volumes, both) / temperature
    target = torch.where(truth == PADDED, truth, 1 - truth)
    terms = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PADDED, reduction="none")
    return terms.view_as(truth)


@OBJECTIVES.register("opposite_sentence")
class OppositeSentence(Objective):
    """Cross-entropy between a sentence and its negation for a volume (COLIPRI's OSL).

    The mechanics follow a public re-implementation; `num_pairs` 8, the weight 0.5 and the negation by rules
    (`components.reports.negation`) are our choice: the paper's are not known. The sentences come from
    `batch["structured"]`; those of other patients from the reports of all processes. All sentences of a batch go
    through the text encoder together, each once.
    """

    class Params(ObjectiveParams):
        """Our choice: K = 8 pairs a report, weight 0.5."""

        weight: float = Field(default=0.5, ge=0)
        num_pairs: int = Field(default=8, ge=1)

    needs = frozenset({"volume", "text", "structured"})

    def __init__(self, params: Params, model: Model) -> None:
        """Uses the encoder's own projections, temperature and tokenizer; has no weights of its own."""
        super().__init__()
        self.params = params
        self._model = (model,)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean over the pairs of all processes; empty without structured reports or without any pair."""
        if batch.get("structured") is None:
            return {}
        device = batch["volume"].device
        pairs = self.pairs(batch)
        num_total = total_count(sum(map(len, pairs)), device)
        if num_total == 0:
            return {}
        if not any(pairs):
            return {"opposite_sentence": mean_over_processes(torch.zeros((), device=device), num_total)}
        model = self._model[0]
        rows = [row for row, found in enumerate(pairs) if found]
        sentences, opposites, truth = self.embed([pairs[row] for row in rows], device)
        volumes = projected_volumes(features, model)[torch.tensor(rows, device=device)]
        terms = opposite_terms(volumes, sentences, opposites, truth, model.tau.to(volumes.dtype))
        return {"opposite_sentence": mean_over_processes(terms.sum(), num_total)}

    def pairs(self, batch: Batch) -> list[list[Pair]]:
        """The pairs of every paired row; each row draws from its own study's stream."""
        rows = batch["paired"].tolist()
        mine: list[Any] = [
            [
                batch["patient_key"][row],
                {region: list(said.get("positive", ())) for region, said in told.items()},
            ]
            for row, told in zip(rows, batch["structured"], strict=True)
        ]
        assert len(mine) == num_paired(batch)
        told = [entry for part in gather_plain(mine, batch["volume"].device) for entry in part]
        found = []
        for row, (patient, positives) in zip(rows, mine, strict=True):
            seed = stream(batch, "opposite_sentence", batch["study_key"][row]).initial_seed()
            found.append(choose_pairs(patient, positives, told, self.params.num_pairs, random.Random(seed)))
        return found

    def embed(self, pairs: list[list[Pair]], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Unit vectors `[n, K, P]` of sentences and opposites, padded, and `truth` `[n, K]`."""
        model = self._model[0]
        texts = sorted({text for found in pairs for pair in found for text in (pair.sentence, pair.opposite)})
        place = {text: number for number, text in enumerate(texts)}
        vectors = model.report_projection(encode_texts(model, [[text] for text in texts], device))
        vectors = F.normalize(full_precision(vectors), dim=-1)
        width = max(map(len, pairs))

        def padded(values: list[list[int]], fill: int) -> Tensor:
            filled = [[*row, *[fill] * (width - len(row))] for row in values]
            return torch.tensor(filled, dtype=torch.int64, device=device)

        sentences = padded([[place[pair.sentence] for pair in found] for found in pairs], 0)
        opposites = padded([[place[pair.opposite] for pair in found] for found in pairs], 0)
        truth = padded([[int(pair.true) for pair in found] for found in pairs], PADDED)
        return vectors[sentences], vectors[opposites], truth
