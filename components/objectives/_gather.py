"""Rows of every process, with gradients: the negatives of a contrastive loss under world size > 1.

Every process computes the loss over all rows. The backward pass of the gather sums what all processes ask
of a row, which is W times the gradient of the one global loss; averaging over processes (DDP) divides by W.
So one process and W processes have the same loss and the same gradient on every parameter.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F


def world_size() -> int:
    """How many processes train together; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather_rows(rows: Tensor) -> Tensor:
    """`[n, ...]` of this process -> `[sum of n, ...]` in order of rank, differentiable; n may differ."""
    if world_size() == 1:
        return rows
    counts = gather_count(len(rows), rows.device)
    padding = [0, 0] * (rows.dim() - 1) + [0, max(counts) - len(rows)]
    stacked = cast("Tensor", _Gather.apply(F.pad(rows, padding).contiguous()))
    return torch.cat([part[:count] for part, count in zip(stacked, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """`[m, ...]` -> `[W, m, ...]`; backward sums every process's gradient and takes the own part."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(world_size())]
        dist.all_gather(parts, rows)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def gather_count(count: int, device: torch.device | str = "cpu") -> list[int]:
    """The number of rows that each process has, in order of rank."""
    if world_size() == 1:
        return [count]
    own = torch.tensor([count], device=device)
    all_counts = [torch.zeros_like(own) for _ in range(world_size())]
    dist.all_gather(all_counts, own)
    return [int(value) for value in all_counts]
