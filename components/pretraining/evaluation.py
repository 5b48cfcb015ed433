"""The validation split during training: mean losses and retrieval, in evaluation mode, always the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from components.objectives._gather import alone
from components.pretraining.module import EMBEDDINGS, Held
from components.pretraining.schedule import Draw

if TYPE_CHECKING:
    from components.pretraining.data import StudyDataset
    from components.pretraining.module import PretrainModule

Collate = Callable[[Sequence[Any]], dict[str, Any]]


def fixed_batches(dataset: StudyDataset, collate: Collate, batch_size: int) -> Iterator[dict[str, Any]]:
    """The studies of `dataset` in their order, each once; the last batch may be smaller."""
    for number, start in enumerate(range(0, len(dataset), batch_size)):
        rows = range(start, min(start + batch_size, len(dataset)))
        yield collate([dataset[Draw(number, 0, study)] for study in rows])


@torch.no_grad()
def validate(
    module: Any,
    batches: Iterator[dict[str, Any]],
    move: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, float]:
    """Mean losses by name (weighted by rows), their weighted sum `total`, and R@1 of both directions.

    `module` is a `PretrainModule` or what Fabric made of it. A loss that no batch has is left out; retrieval is left
    out with fewer than two pairs. Every process sees every batch, and its rows are the only ones in a loss: the
    figures are those of one process.
    """
    own: PretrainModule = getattr(module, "module", module)
    training = own.training
    own.eval()
    sums: dict[str, float] = {}
    rows: dict[str, int] = {}
    embeddings: dict[str, list[Tensor]] = {name: [] for name in EMBEDDINGS}
    try:
        with alone():
            for batch in map(move, batches):
                count = len(batch["study_key"])
                for name, value in module(Held(batch), "validation").items():
                    if name in embeddings:
                        embeddings[name].append(value.float().cpu())
                        continue
                    sums[name] = sums.get(name, 0.0) + float(value) * count
                    rows[name] = rows.get(name, 0) + count
    finally:
        own.train(training)
    means = {name: sums[name] / rows[name] for name in sums}
    if means:
        means["total"] = sum(value * own.weight(name) for name, value in means.items())
    volumes, reports = embeddings.values()
    if sum(map(len, volumes)) > 1:
        similarity = torch.cat(volumes) @ torch.cat(reports).T
        means["volume_to_report_r1"] = recall_at_1(similarity)
        means["report_to_volume_r1"] = recall_at_1(similarity.T)
    return means


def recall_at_1(similarity: Tensor) -> float:
    """The share of rows of `[N, N]` whose diagonal entry is above every other; a tie counts as a miss."""
    own = similarity.diagonal()[:, None]
    better = (similarity >= own).sum(-1) - 1
    return float((better == 0).float().mean())
