"""The validation split during training: mean losses and retrieval, in evaluation mode, always the same batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

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
    module: PretrainModule,
    batches: Iterator[dict[str, Any]],
    move: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, float]:
    """Mean losses by name (weighted by rows), their weighted sum `total`, and R@1 of both directions.

    A loss that no batch has is left out; retrieval is left out with fewer than two pairs.
    """
    training = module.training
    module.eval()
    sums: dict[str, float] = {}
    rows: dict[str, int] = {}
    volumes, reports = [], []
    for batch in map(move, batches):
        count = len(batch["study_key"])
        for name, value in module(batch, "validation").items():
            sums[name] = sums.get(name, 0.0) + float(value) * count
            rows[name] = rows.get(name, 0) + count
        if len(batch["paired"]):
            encoder: Any = module.encoder
            volumes.append(encoder.encode_volume(batch["volume"][batch["paired"]]).float().cpu())
            reports.append(encoder.encode_text(batch["text"]).float().cpu())
    module.train(training)
    means = {name: sums[name] / rows[name] for name in sums}
    if means:
        means["total"] = sum(value * module.weight(name) for name, value in means.items())
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
