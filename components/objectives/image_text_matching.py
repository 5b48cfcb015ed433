"""Does this report belong to this volume? Pairs against hard negatives, through the multimodal layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._gather import (
    gather_count,
    gather_padded,
    gather_plain,
    gather_rows,
    mean_over_processes,
    own_rows,
    total_count,
)
from components.objectives._multimodal import ImageAdapter
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    exactly,
    full_precision,
    num_paired,
    paired_keys,
    projected_reports,
    projected_volumes,
    stream,
)
from components.objectives._text import map_fields

NONE = -1


def hard_negatives(
    logits: Tensor, allowed: Tensor, keys: Sequence[str], streams: Sequence[torch.Generator]
) -> Tensor:
    """One candidate a row, drawn with probability softmax(logits) over the allowed ones.

    Args:
        logits: similarity / temperature `[n, m]`; allowed: bool `[n, m]`.
        keys: names of the m candidates: each row goes through them in the order of their names, so that the draw
            does not depend on the order of the batch.
        streams: a generator a row.

    Returns:
        int64 `[n]`, -1 for a row with no candidate. A candidate that is not allowed is never drawn, however
        small the others' probabilities are (the draw is made on logits: the largest of logit + Gumbel noise).
    """
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    uniform = torch.stack([torch.rand(len(keys), generator=item, dtype=torch.float64) for item in streams])
    gumbel = torch.empty_like(uniform)
    gumbel[:, order] = -(-uniform.clamp(min=1e-300).log()).log()
    scores = logits.detach().double().cpu() + gumbel
    scores = scores.masked_fill(~allowed.cpu(), -torch.inf)
    best = scores.argmax(-1)
    best[~allowed.any(-1).cpu()] = NONE
    return best.to(logits.device)


@OBJECTIVES.register("image_text_matching")
class ImageTextMatching(Objective):
    """Binary matching on `[CLS]` of the top multimodal layer (ALBEF, arXiv 2107.07651; VELVET-Med's ITM).

    A pair is one positive; for its report one volume and for its volume one report are drawn as negatives from
    softmax(report similarity / temperature), never itself and never a report with the very same words (half of
    the normal studies share one). Under world size > 1 the candidates are those of all processes. Fewer than two
    pairs in all have no negative: the answer is empty.
    """

    Params = ObjectiveParams
    needs = frozenset({"volume", "text"})

    def __init__(self, params: ObjectiveParams, model: Model) -> None:
        """`model.text` must have `multimodal`."""
        super().__init__()
        self.params = params
        self._model = (model,)
        self.adapter = ImageAdapter(model)
        self.head = nn.Linear(model.text.hidden_size, 2)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over positives and negatives (1 + 2 a pair)."""
        device = batch["volume"].device
        counts = gather_count(num_paired(batch), device)
        if sum(counts) < 2:
            return {}
        model = self._model[0]
        tokens = gather_rows(self.adapter(features))
        hidden = gather_padded(features.text().hidden)
        text = map_fields([batch["text"]], lambda fields, fill: gather_padded(fields[0], fill))
        reports, volumes, labels = self.examples(batch, features, text.input_ids, counts)
        fused = model.text.multimodal(hidden[reports], text.subset(reports), tokens[volumes])
        logits = full_precision(self.head(fused[:, 0]))
        num_total = total_count(len(labels), device)
        total = F.cross_entropy(logits, labels, reduction="sum")
        return {"image_text_matching": mean_over_processes(total, num_total)}

    def examples(
        self, batch: Batch, features: FeaturesLike, ids: Tensor, counts: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Reports, volumes (rows of all processes' pairs) and labels of this process's examples.

        The similarities are only looked at: no gradient flows through a draw.
        """
        model = self._model[0]
        volumes = projected_volumes(features, model).detach()
        reports = projected_reports(features, model).detach()
        tau = model.tau.detach()
        keys = [key for part in gather_plain(paired_keys(batch), ids.device) for key in part]
        own = torch.tensor(list(own_rows(counts)), device=ids.device)
        different = (ids[own][:, None] != ids[None]).any(-1)  # a row is not different from itself
        drawn = []
        for purpose, queries, candidates in (
            ("volume", reports, gather_rows(volumes)),
            ("report", volumes, gather_rows(reports)),
        ):
            streams = [stream(batch, f"matching.{purpose}", keys[row]) for row in own.tolist()]
            with exactly(queries):
                logits = queries @ candidates.T / tau
            drawn.append(hard_negatives(logits, different, keys, streams))
        other_volume, other_report = drawn
        chosen_reports = torch.cat([own, own, other_report])
        chosen_volumes = torch.cat([own, other_volume, own])
        labels = torch.cat([torch.ones_like(own), torch.zeros_like(own), torch.zeros_like(own)])
        found = (chosen_reports != NONE) & (chosen_volumes != NONE)
        return chosen_reports[found], chosen_volumes[found], labels[found]
