"""Window attention that never holds all windows' attention matrices: a few at a time, computed again backwards.

At 96^3 with patches of 2 the matrices of one block are 0.3 GB a volume and are kept two or three times over; they,
not the weights, fill the memory of a CPU, and moving them takes most of its time. A few windows fit into the cache.
The formula is MONAI's (Swin's: softmax(q k / sqrt(d) + relative bias + mask) v), so are the names of the weights.
Measured for a batch of 250 windows of 343 tokens on one core: 1.37 s forward and backward, against 1.81 s for
recomputing the whole with a checkpoint and 1.09 s for keeping it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor, nn

CACHE_BYTES = 2 << 20
LEAN_FROM_BYTES = 64 << 20
"""Matrices below this are kept: that is faster, and they do no harm."""


class LeanAttention(nn.Module):
    """Takes over a `WindowAttention`; on a CPU in training it saves memory where there is much to save."""

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.register_buffer("relative_position_index", cast("Tensor", attention.relative_position_index))
        self.num_heads, self.scale = attention.num_heads, attention.scale

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [windows, n, C] with the windows of a volume in a row, mask [windows of a volume, n, n] or None."""
        count, n, channels = x.shape
        qkv = self.qkv(x).reshape(count, n, 3, self.num_heads, channels // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        index = cast("Tensor", self.relative_position_index)[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].reshape(n, n, -1).permute(2, 0, 1).contiguous()
        query = query * self.scale
        matrices = count * self.num_heads * n * n * query.element_size()
        if torch.is_grad_enabled() and x.device.type == "cpu" and matrices >= LEAN_FROM_BYTES:
            parts = (part.contiguous() for part in (query, key, value))
            mixed = cast("Tensor", _Lean.apply(*parts, bias.to(query.dtype), mask))
        else:
            scores = query @ key.transpose(-2, -1) + bias
            if mask is not None:
                scores = scores.view(-1, len(mask), self.num_heads, n, n) + mask[None, :, None]
                scores = scores.view(-1, self.num_heads, n, n)
            mixed = scores.softmax(-1).to(value.dtype) @ value
        return self.proj(mixed.transpose(1, 2).reshape(count, n, channels))


class _Lean(torch.autograd.Function):
    """softmax(q k + bias + mask) v of `[N, h, n, d]`, in chunks of windows; bias `[h, n, n]` has a gradient."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, mask: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, bias, mask)
        mixed = torch.empty_like(value)
        for part in _chunks(query):
            torch.bmm(_weights(query, key, bias, mask, part), _flat(value, part), out=_flat(mixed, part))
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        query, key, value, bias, mask = ctx.saved_tensors
        upper = gradients[0].contiguous()
        for_query, for_key, for_value = (torch.empty_like(part) for part in (query, key, value))
        for_bias = torch.zeros_like(bias)
        for part in _chunks(query):
            weights = _weights(query, key, bias, mask, part)
            torch.bmm(weights.mT, _flat(upper, part), out=_flat(for_value, part))
            inner = torch.bmm(_flat(upper, part), _flat(value, part).mT)
            scores = torch._softmax_backward_data(inner, weights, -1, weights.dtype)
            for_bias += scores.unflatten(0, (-1, len(bias))).sum(0)
            torch.bmm(scores, _flat(key, part), out=_flat(for_query, part))
            torch.bmm(scores.mT, _flat(query, part), out=_flat(for_key, part))
        return for_query, for_key, for_value, for_bias, None


def _chunks(query: Tensor) -> list[slice]:
    count, heads, n, _ = query.shape
    step = max(1, CACHE_BYTES // (heads * n * n * query.element_size()))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def _flat(value: Tensor, part: slice) -> Tensor:
    """A view `[windows of the chunk * h, n, d]`."""
    return value[part].flatten(0, 1)


def _weights(query: Tensor, key: Tensor, bias: Tensor, mask: Tensor | None, part: slice) -> Tensor:
    """The attention weights of a chunk, `[windows * h, n, n]`."""
    added = bias.expand(part.stop - part.start, *bias.shape)
    if mask is not None:
        own = torch.arange(part.start, part.stop, device=mask.device) % len(mask)
        added = added + mask[own][:, None].to(bias.dtype)
    return torch.baddbmm(added.flatten(0, 1), _flat(query, part), _flat(key, part).mT).softmax(-1)
