"""Heads that rebuild voxels: strides of an encoder, chains of transposed convolutions, pooling to a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MIN_CHANNELS = 4


def strides_of(vision: nn.Module, size: Sequence[int], scale: int = -1) -> tuple[int, int, int]:
    """Voxels of the input per position of a scale along each axis (rounded up), from one empty pass."""
    training = vision.training
    weight = next(vision.parameters())
    probe = torch.zeros((1, 1, *size), dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        found = vision.eval()(probe).scales[scale].shape[2:]
    vision.train(training)
    x, y, z = (-(-whole // part) for whole, part in zip(size, found, strict=True))
    return x, y, z


def deconvolutions(channels: int, strides: Sequence[int]) -> nn.Sequential:
    """Transposed convolutions from `channels` to 1 that enlarge each axis by its stride.

    Steps of 2 (kernel 2, stride 2) halve the channels; an axis that is done keeps its length; an odd rest is
    one last step of that size. A stride of 32 and 768 channels give 768, 384, 192, 96, 48, 1: VELVET-Med's.
    """
    remaining = list(strides)
    factors: list[list[int]] = []
    while any(value > 1 for value in remaining):
        step = [math.gcd(value, 2) for value in remaining]
        if all(value == 1 for value in step):
            step = list(remaining)
        factors.append(step)
        remaining = [value // part for value, part in zip(remaining, step, strict=True)]
    factors = factors or [[1, 1, 1]]
    widths = [max(MIN_CHANNELS, channels >> index) for index in range(len(factors))]
    outputs = [*widths[1:], 1]
    return nn.Sequential(
        *(
            nn.ConvTranspose3d(before, after, (x, y, z), (x, y, z))
            for before, after, (x, y, z) in zip([channels, *widths[1:]], outputs, factors, strict=True)
        )
    )


def bin_means(size: int, bins: int, like: Tensor) -> Tensor:
    """`[bins, size]` whose row i averages [floor(i size / bins), ceil((i + 1) size / bins))."""
    index = torch.arange(bins)
    starts, stops = index * size // bins, -((-(index + 1) * size) // bins)
    place = torch.arange(size)
    member = ((place >= starts[:, None]) & (place < stops[:, None])).to(like)
    return member / member.sum(1, keepdim=True)


def pool_grid(volume: Tensor, grid: Sequence[int]) -> Tensor:
    """Adaptive average pooling `[..., X, Y, Z]` -> `[..., *grid]` as three matrix products.

    The library's own has no deterministic backward pass on a GPU.
    """
    for axis, bins in zip((-3, -2, -1), grid, strict=True):
        means = bin_means(volume.shape[axis], bins, volume)
        volume = torch.movedim(torch.movedim(volume, axis, -1) @ means.T, -1, axis)
    return volume


def enlarge(volume: Tensor, size: Sequence[int]) -> Tensor:
    """`[..., X, Y, Z]` -> `[..., *size]`, each voxel from the one that holds its centre (nearest)."""
    for axis, wanted in zip((-3, -2, -1), size, strict=True):
        have = volume.shape[axis]
        if have != wanted:
            index = (torch.arange(wanted, device=volume.device) * 2 + 1) * have // (2 * wanted)
            volume = volume.index_select(axis, index)
    return volume
