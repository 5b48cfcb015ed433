"""Text beside the reports themselves: joined batches, single sentences, and what a report says of a region."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from components.encoders.features import TextBatch
from components.objectives._shared import Batch, FeaturesLike, Model
from components.reports.findings import mentions

Structured = Mapping[str, Mapping[str, Sequence[str]]]
PADDING = {"input_ids": 0, "token_type_ids": 0, "attention_mask": 0, "word_index": -1}
TEXTS_AT_A_TIME = 256
SHORTEST = 32


def map_fields(texts: Sequence[TextBatch], function: Callable[[list[Tensor], int], Tensor]) -> TextBatch:
    """A `TextBatch` whose every field is `function(that field of all texts, its padding value)`."""
    return TextBatch(
        **{name: function([getattr(text, name) for text in texts], fill) for name, fill in PADDING.items()}
    )


def join(texts: Sequence[TextBatch]) -> TextBatch:
    """The rows of several batches in one, padded to the longest."""
    length = max(text.input_ids.shape[1] for text in texts)

    def stack(fields: list[Tensor], fill: int) -> Tensor:
        return torch.cat([F.pad(field, [0, length - field.shape[1]], value=fill) for field in fields])

    return map_fields(texts, stack)


def encode_texts(model: Model, texts: Sequence[Sequence[str]], device: torch.device) -> Tensor:
    """Report vectors `[N, H]` of N > 0 texts (lists of sentences).

    Texts of up to 32 positions go through the encoder together, then those of up to 64, 128 and so on: a long one
    does not make the short ones longer. At most 256 go at a time.
    """
    batch = TextBatch.from_arrays(model.tokenizer.encode(texts))
    lengths = batch.attention_mask.sum(1).clamp(min=1)
    classes = (lengths / SHORTEST).log2().ceil().clamp(min=0)
    order, parts = [], []
    for number in classes.unique().tolist():
        for rows in (classes == number).nonzero().flatten().split(TEXTS_AT_A_TIME):
            order.append(rows)
            some = trimmed(batch.subset(rows), int(lengths[rows].max()))
            parts.append(model.text.report(some.to(device)))
    return torch.cat(parts)[torch.cat(order).argsort().to(device)]


def trimmed(text: TextBatch, length: int) -> TextBatch:
    """The first `length` positions of every row."""
    return map_fields([text], lambda fields, _: fields[0][:, :length])


@lru_cache(maxsize=65536)
def findings_of(sentence: str) -> tuple[str, ...]:
    """The findings that a sentence asserts or suspects."""
    return tuple(found.finding for found in mentions(sentence) if found.status in ("present", "uncertain"))


@dataclass(frozen=True)
class RegionText:
    """What the report of the paired row `row` says of `region`: its sentences, positive ones first.

    `normal`: nothing positive is said. `findings`: the named findings of the positive sentences, sorted.
    """

    row: int
    region: str
    sentences: tuple[str, ...]
    normal: bool
    findings: tuple[str, ...]


def region_texts(batch: Batch) -> list[RegionText]:
    """One entry for every region that a paired row's report (`batch["structured"]`) says something of."""
    found = []
    for row, regions in enumerate(batch.get("structured") or ()):
        for region in sorted(regions):
            positive, negative = (tuple(regions[region].get(sign, ())) for sign in ("positive", "negative"))
            if positive or negative:
                named = sorted({name for sentence in positive for name in findings_of(sentence)})
                found.append(RegionText(row, region, (*positive, *negative), not positive, tuple(named)))
    return found


def region_vectors(
    batch: Batch, features: FeaturesLike, model: Model
) -> tuple[list[RegionText], Tensor | None]:
    """The batch's region texts and their vectors `[M, H]`; equal texts are encoded once, all in one pass."""

    def encode() -> tuple[list[RegionText], Tensor | None]:
        texts = region_texts(batch)
        if not texts:
            return texts, None
        unique = sorted({text.sentences for text in texts})
        place = {sentences: number for number, sentences in enumerate(unique)}
        vectors = encode_texts(model, unique, batch["volume"].device)
        rows = torch.tensor([place[text.sentences] for text in texts], device=vectors.device)
        return texts, vectors.index_select(0, rows)

    return features.memo("region_vectors", encode)
