"""A stage of MONAI's Swin with the same weights, names and output, but a cheap mask for shifted windows.

MONAI writes the mask with 27 slice assignments a stage and pass. Here it is a dozen operations, and none where no
window is shifted.
"""

from __future__ import annotations

from typing import cast

import torch
from monai.networks.nets.swin_unetr import BasicLayer, WindowAttention, get_window_size, window_partition
from torch import Tensor, nn

from components.encoders.vision._window import LeanAttention

MASKED = -100.0


def shift_mask(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], device: torch.device
) -> Tensor:
    """[windows, n, n]: 0 between tokens of one region of the rolled grid, -100 between others.

    `grid` is padded to whole windows, n is the product of `window`.
    """
    region = torch.zeros((1,) * 3, dtype=torch.int64, device=device)
    for axis, (length, side, step) in enumerate(zip(grid, window, shift, strict=True)):
        place = torch.arange(length, device=device)
        part = (place >= length - side).long() + (place >= length - step).long()
        region = region * 3 + part.reshape([-1 if i == axis else 1 for i in range(3)])
    tokens = window_partition(region[None, ..., None], window).squeeze(-1)
    return (tokens[:, None, :] != tokens[:, :, None]).float() * MASKED


class Stage(nn.Module):
    """Takes over the blocks and the merging of a `BasicLayer`."""

    def __init__(self, layer: BasicLayer) -> None:
        super().__init__()
        self.blocks, self.downsample = layer.blocks, layer.downsample
        self.window_size, self.shift_size = layer.window_size, layer.shift_size
        for block in self.blocks:
            block.attn = LeanAttention(cast("WindowAttention", block.attn))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, X, Y, Z] -> [B, 2 C, X / 2, Y / 2, Z / 2], each side rounded up."""
        sides = tuple(x.shape[2:])
        window, shift = get_window_size(sides, self.window_size, self.shift_size)
        mask = None
        if any(shift):
            padded = tuple(-(-side // width) * width for side, width in zip(sides, window, strict=True))
            mask = shift_mask(padded, window, shift, x.device)
        x = x.permute(0, 2, 3, 4, 1).contiguous()
        for block in self.blocks:
            x = block(x, mask)
        if self.downsample is not None:
            x = self.downsample(x)
        return x.permute(0, 4, 1, 2, 3)
