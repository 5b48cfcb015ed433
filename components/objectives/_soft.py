"""Contrast with soft targets inside groups: cross-entropy to a distribution instead of to one partner."""

from __future__ import annotations

import torch
from torch import Tensor

from components.objectives._shared import exactly


def group_log_softmax(logits: Tensor, same: Tensor) -> Tensor:
    """log softmax of `[M, M]` along rows over the columns of a row's own group (`same` bool); 0 elsewhere."""
    return logits.masked_fill(~same, -torch.inf).log_softmax(-1).masked_fill(~same, 0.0)


def soft_contrast(first: Tensor, second: Tensor, targets: Tensor, same: Tensor, temperature: float) -> Tensor:
    """The mean of both directions of the soft cross-entropy, one term a row: `[M]`.

    Args:
        first, second: unit vectors `[M, P]`, row i of one belongs to row i of the other.
        targets: `[M, M]`, rows sum to 1 within `same`, the groups (bool `[M, M]`, the diagonal true).
        temperature: what similarities are divided by.
    """
    with exactly(first):
        logits = first @ second.T / temperature
    forward = -(targets * group_log_softmax(logits, same)).sum(-1)
    backward = -(targets * group_log_softmax(logits.T, same)).sum(-1)
    return (forward + backward) / 2
