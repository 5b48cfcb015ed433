"""Write the report from the volume: next-token prediction by a causal decoder over image tokens."""

from __future__ import annotations

from typing import cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from components.objectives import OBJECTIVES
from components.objectives._decoder import CausalDecoder, DecoderParams, grid_waves, waves
from components.objectives._gather import mean_over_processes, total_count
from components.objectives._reconstruction import pool_grid
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    check_scale,
    full_precision,
    num_paired,
)

PIECES_AT_A_TIME = 1024


@OBJECTIVES.register("report_generation")
class ReportGeneration(Objective):
    """COLIPRI's R: `-sum_n log p(w_n | w_<n, volume)`, over the pieces of the paired reports.

    The paper names the objective only; the decoder is our choice and is dropped after training: six causal layers
    of 768, cross-attention to one scale's tokens, projected and averaged to at most `grid`^3. It has its own
    embedding of the encoder's vocabulary, which is also its output layer unless `tied` is false. A report is
    predicted as it is tokenised, with its sentence markers, and ends with `[SEP]`.
    """

    class Params(DecoderParams):
        """Our choice, every value."""

        grid: int = Field(default=6, ge=1)
        tied: bool = True

    needs = frozenset({"volume", "text"})

    def __init__(self, params: Params, model: Model) -> None:
        """`model.text.vocab_size`, `model.tokenizer.sep_id` and the width of the chosen vision scale."""
        super().__init__()
        check_scale(params.scale, len(model.vision.channels))
        self.params = params
        self._end = int(model.tokenizer.sep_id)
        vocab_size = model.text.vocab_size
        self.project = nn.Linear(model.vision.channels[params.scale], params.hidden)
        self.memory_norm = nn.LayerNorm(params.hidden)
        self.embedding = nn.Embedding(vocab_size, params.hidden)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.decoder = CausalDecoder(params)
        self.output_bias = nn.Parameter(torch.zeros(vocab_size))
        self.output = None if params.tied else nn.Linear(params.hidden, vocab_size, bias=False)

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean cross-entropy over the pieces of all processes' reports."""
        device = batch["volume"].device
        ids, valid, targets = self.sequences(batch)
        num_total = total_count(int(valid.sum()), device)
        if num_total == 0:
            return {}
        total = torch.zeros((), device=device)
        if num_paired(batch):
            hidden = self.states(ids, self.memory(features))
            total = self.cross_entropy(hidden[valid], targets[valid])
        return {"report_generation": mean_over_processes(total, num_total)}

    def sequences(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Input ids, which of them count (bool) and the next ids, each `[n, L]`."""
        ids, valid = batch["text"].input_ids, batch["text"].attention_mask > 0
        targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], self._end)], dim=1)
        after = torch.cat([valid[:, 1:], torch.zeros_like(valid[:, :1])], dim=1)
        last = valid & ~after
        return ids, valid, targets.masked_fill(last, self._end)

    def memory(self, features: FeaturesLike) -> Tensor:
        """Image tokens `[n, N, H]` of the paired rows, with a code of their place."""
        scale = features.paired_volume().scales[self.params.scale]
        grid = [min(self.params.grid, side) for side in scale.shape[2:]]
        pooled = pool_grid(full_precision(scale), grid).flatten(2).transpose(1, 2)
        tokens = self.project(pooled)
        return self.memory_norm(tokens + grid_waves(grid, self.params.hidden, tokens))

    def states(self, ids: Tensor, memory: Tensor) -> Tensor:
        """The decoder's states `[n, L, H]`; state t is made of the ids up to t."""
        embedded = self.embedding(ids) * self.params.hidden**0.5
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.decoder(embedded + waves(places, self.params.hidden).to(embedded), memory)

    def logits(self, states: Tensor) -> Tensor:
        """States `[..., H]` -> float32 logits over the vocabulary `[..., V]`."""
        weight = self.embedding.weight if self.output is None else self.output.weight
        return full_precision(F.linear(states, weight, self.output_bias.to(weight)))

    def cross_entropy(self, states: Tensor, targets: Tensor) -> Tensor:
        """The sum over `[m, H]` states; 1,024 at a time, so that no `[m, V]` matrix is kept for the backward pass."""

        def part(some: Tensor, ids: Tensor) -> Tensor:
            return F.cross_entropy(self.logits(some), ids, reduction="sum")

        if len(states) <= PIECES_AT_A_TIME:
            return part(states, targets)
        sums = [
            cast("Tensor", checkpoint(part, some, ids, use_reentrant=False))
            for some, ids in zip(states.split(PIECES_AT_A_TIME), targets.split(PIECES_AT_A_TIME), strict=True)
        ]
        return torch.stack(sums).sum()
