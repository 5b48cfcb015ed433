"""Rows of every process, with gradients: the negatives of a contrastive loss under world size > 1.

Every process computes the loss over all rows. The backward pass of the gather sums what all processes ask
of a row, which is W times the gradient of the one global loss; averaging over processes (DDP) divides by W.
So one process and W processes have the same loss and the same gradient on every parameter.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

_ALONE = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block losses take the rows of this process only: validation, which all processes see whole."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def world_size() -> int:
    """How many processes train together; 1 without a process group and within `alone`."""
    if _ALONE.get() or not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


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


def total_count(count: int, device: torch.device | str = "cpu") -> int:
    """The rows of all processes. Every process must ask, before any of them answers "nothing to do"."""
    return sum(gather_count(count, device))


def own_rows(counts: list[int]) -> range:
    """Which of the gathered rows are those of this process."""
    start = sum(counts[: dist.get_rank()]) if len(counts) > 1 else 0
    return range(start, start + counts[dist.get_rank() if len(counts) > 1 else 0])


def gather_padded(rows: Tensor, value: float = 0) -> Tensor:
    """`gather_rows` for `[n, L, ...]` whose L differs between processes: padded with `value` to the longest."""
    if world_size() == 1:
        return rows
    missing = max(gather_count(rows.shape[1], rows.device)) - rows.shape[1]
    return gather_rows(F.pad(rows, [0, 0] * (rows.dim() - 2) + [0, missing], value=value))


def gather_plain(value: Any, device: torch.device | str = "cpu") -> list[Any]:
    """Plain data of every process, in order of rank; it travels as JSON, never as a pickle."""
    if world_size() == 1:
        return [value]
    data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    parts = gather_rows(data).cpu().split(gather_count(len(data), device))
    return [json.loads(part.numpy().tobytes()) for part in parts]


def mean_over_processes(total: Tensor, num_total: int) -> Tensor:
    """A sum over this process's terms -> the mean over the terms of all processes, with its exact gradient.

    Args:
        total: the sum of this process's terms (0 where it has none).
        num_total: how many terms all processes have (`total_count`), above 0.

    The value is that of one process with the whole batch; so is the gradient, once DDP has averaged it. A mean of
    the processes' own means would weigh a term by how few others its process has.
    """
    if world_size() == 1:
        return total / num_total
    own = total * (world_size() / num_total)
    value = total.detach().clone()
    dist.all_reduce(value)
    return own + (value / num_total - own.detach())
