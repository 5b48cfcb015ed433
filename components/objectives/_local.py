"""The local contrastive loss between regions of volumes and tokens of reports, in the form of GLoRIA.

For volume b with L2-normalised regions v_r and report i with L2-normalised tokens t_k (methods of
VELVET-Med, section "hierarchical contrastive learning"):

    a_rk = softmax_k(v_r . t_k / attention_temperature)     w_kr = softmax_r(region_sharpness * a_rk)
    c_k  = sum_r w_kr v_r          S(b, i) = scale * log agg_k exp(token_sharpness * cos(t_k, c_k))
    loss = (CE(S, diagonal) + CE(S^T, diagonal)) / 2

`attention_temperature` is 1 in the paper. With unit vectors and 100 words a_rk is then 1 / 100 within a factor of e,
the weights of all regions are equal to some tenths of a percent, and c_k is the volume's mean whatever the word
(measured in docs/ablation.md); 0.1 makes the attention local. GLoRIA has no such parameter, but multiplies raw vectors.
`agg` "sum" is the paper's and favours long reports by scale * ln(number of tokens); "mean" does not.
Under world size > 1 every process scores its own volumes against the reports of all (tokens are gathered, the far
larger regions are not), and the rows of S are gathered: the loss and its gradient are those of one process with
the whole batch. In the paper negatives come from the own process only: `gather` false.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from components.objectives._gather import gather_padded, gather_rows, total_count
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    check_scale,
    exactly,
    full_precision,
    num_paired,
    scale_at,
)

MAX_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Of the largest tensor of a chunk: what a CPU's cache holds takes it half the time; a GPU wants much at once."""
SHORTEST = 1e-8
"""Length of a context vector below which it has no direction."""
Aggregation = Literal["sum", "mean"]


class LocalParams(ObjectiveParams):
    """Parameters of a local contrast.

    `scale` is the index of the vision scale, finest first; `gather`: the reports of all processes are negatives.
    `region_sharpness` is an exponent's factor: above 40 it would leave the range of float32. `attention_temperature`
    divides the cosines before the softmax over tokens.
    """

    scale: int
    dim: int = Field(default=512, gt=0)
    attention_temperature: float = Field(default=1.0, gt=0)
    region_sharpness: float = Field(default=4.0, gt=0, le=40)
    token_sharpness: float = Field(default=5.0, gt=0)
    logit_scale: float = Field(default=10.0, gt=0)
    aggregation: Aggregation = "sum"
    gather: bool = True


def local_similarity(regions: Tensor, tokens: Tensor, mask: Tensor, params: LocalParams) -> Tensor:
    """S of every volume against every report.

    Args:
        regions: `[B, R, D]`, any length of vector; normalised here.
        tokens: `[N, T, D]`; mask: bool `[N, T]`, true for tokens that are there, at least one a row.
        params: the sharpnesses and the aggregation.

    Returns:
        `[B, N]` in float32 (or float64 for float64 input). Volumes are taken in chunks so that the
        `[chunk, N, R, T]` tensor stays below `MAX_ELEMENTS`; with several chunks the backward pass computes
        them again.
    """
    regions, tokens = (F.normalize(full_precision(value), dim=-1) for value in (regions, tokens))
    most = MAX_ELEMENTS.get(regions.device.type, MAX_ELEMENTS["cuda"])
    rows = max(1, most // max(1, regions.shape[1] * tokens.shape[0] * tokens.shape[1]))
    if rows >= regions.shape[0]:
        return _similarity(regions, tokens, mask, params)
    parts = [
        checkpoint(_similarity, part, tokens, mask, params, use_reentrant=False)
        for part in regions.split(rows)
    ]
    return torch.cat(parts)


def _similarity(regions: Tensor, tokens: Tensor, mask: Tensor, params: LocalParams) -> Tensor:
    """The formula; all tokens of all reports stand in one row, so that every product is one matrix product."""
    words = tokens.reshape(-1, tokens.shape[-1]).to(regions.dtype)
    with exactly(regions):
        match = cast("Tensor", _Match.apply(regions, words, mask, params)).view(len(regions), *mask.shape)
        powers = (params.token_sharpness * match).masked_fill(~mask, -torch.inf)
        total = powers.logsumexp(-1)
        if params.aggregation == "mean":
            total = total - mask.sum(-1).to(total.dtype).log()
        return params.logit_scale * total


class _Match(torch.autograd.Function):
    """Unit regions `[B, R, D]`, unit words `[N * T, D]`, mask `[N, T]` -> cos(c_k, t_k) `[B, N * T]`.

    A cosine does not see the length of c_k, so w_kr is left undivided: exp(sharpness * a) instead of a second softmax
    over the largest tensor. Of the tensors of that size `[B, R, N * T]` only a is kept for the backward pass, of those
    of `[B, N * T, D]` only the direction of c_k; the backward pass works in place.
    """

    @staticmethod
    def forward(ctx: Any, regions: Tensor, words: Tensor, mask: Tensor, params: LocalParams) -> Tensor:
        absent = torch.zeros(mask.shape, dtype=regions.dtype, device=mask.device).masked_fill(
            ~mask, -torch.inf
        )
        dots = F.linear(regions, words / params.attention_temperature, absent.flatten())
        attention = dots.view(*regions.shape[:2], *mask.shape).softmax(-1).view_as(dots)
        del dots
        context = (attention * params.region_sharpness).exp_().transpose(1, 2) @ regions
        length = context.norm(dim=-1, keepdim=True).clamp_min_(SHORTEST)
        direction = context.div_(length)
        cosine = (direction * words).sum(-1)
        ctx.save_for_backward(regions, words, attention, direction, length, cosine)
        ctx.shape, ctx.sharpness = mask.shape, params.region_sharpness
        ctx.temperature = params.attention_temperature
        return cosine

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        regions, words, attention, direction, length, cosine = ctx.saved_tensors
        flow_in = gradients[0].unsqueeze(-1)
        of_words = (direction * flow_in).sum(0)
        gradient = torch.addcmul(words, direction, cosine.unsqueeze(-1), value=-1).mul_(flow_in / length)
        weights = (attention * ctx.sharpness).exp_()
        of_regions = weights @ gradient
        flow = (regions @ gradient.transpose(1, 2)).mul_(weights).mul_(ctx.sharpness)
        del weights, gradient
        grouped, shares = (value.view(*regions.shape[:2], *ctx.shape) for value in (flow, attention))
        grouped.sub_((grouped * shares).sum(-1, keepdim=True)).mul_(shares)
        of_regions += flow @ (words / ctx.temperature)
        of_words += flow.flatten(0, 1).T @ regions.flatten(0, 1) / ctx.temperature
        return of_regions, of_words, None, None


def diagonal_loss(similarity: Tensor) -> Tensor:
    """Cross-entropy to the diagonal of `[B, B]` logits, the mean of both directions."""
    target = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2


class LocalContrast(Objective):
    """Common part of `sentence_region` and `word_patch`: two projections and the local loss.

    Reports without a token of the kind take no part, nor do their volumes; with fewer than two left there
    is nothing to contrast and the answer is empty.
    """

    name: str
    needs = frozenset({"volume", "text"})

    def __init__(self, params: LocalParams, model: Model) -> None:
        """`model` gives the widths: `vision.channels[scale]` and `text.hidden_size`."""
        super().__init__()
        check_scale(params.scale, len(model.vision.channels))
        self.params = params
        self.region_projection = nn.Linear(model.vision.channels[params.scale], params.dim)
        self.token_projection = nn.Linear(model.text.hidden_size, params.dim)

    def tokens(self, features: FeaturesLike) -> tuple[Tensor, Tensor]:
        """Token vectors `[N, T, H]` and their mask `[N, T]`."""
        raise NotImplementedError

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean of both directions of the local contrast over the paired rows."""
        device = batch["volume"].device
        if self.params.gather:
            if total_count(num_paired(batch), device) < 2:
                return {}
        elif num_paired(batch) < 2:
            return {}
        tokens, mask = self.tokens(features)
        mask = mask.bool()
        rows = mask.any(-1)
        count = int(rows.sum())
        if (total_count(count, device) if self.params.gather else count) < 2:
            return {}
        regions = self.region_projection(scale_at(features.paired_volume(), self.params.scale)[rows])
        tokens, mask = self.token_projection(tokens[rows]), mask[rows]
        if self.params.gather:
            tokens, mask = gather_padded(tokens), gather_padded(mask.byte()).bool()
        similarity = local_similarity(regions, tokens, mask, self.params)
        return {self.name: diagonal_loss(gather_rows(similarity) if self.params.gather else similarity)}
