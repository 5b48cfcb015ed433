"""A segmentation network on any vision encoder: a UNETR-like decoder on the encoder's scales.

Source: Hatamizadeh et al. 2022 (Swin-UNETR, arXiv:2201.01266); residual blocks and up-sampling by MONAI. The
decoder asks the encoder for its scales and builds itself to fit: Swin's five or a plain ViT's one.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, get_conv_layer
from monai.networks.layers.factories import Act
from torch import Tensor, nn

from components.base.errors import IntegrityError

TENSORS, SETTINGS = "segmenter.safetensors", "segmenter.json"
WINDOW_VOXELS = 4 * 64**3
"""As many windows as these are computed at once: with one thread PyTorch is slow at a single one."""


def scale_sizes(vision: nn.Module, size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The spatial size of every scale for an input of `size`, finest first (one forward pass of zeros)."""
    training = vision.training
    vision.eval()
    with torch.no_grad():
        features = vision(torch.zeros(1, 1, *size))
    vision.train(training)
    return [tuple(scale.shape[2:]) for scale in features.scales]


class _Up(nn.Module):
    """Up-sample [B, C_in, *S] to a given size and, with a skip [B, C_skip, *size], merge the two."""

    def __init__(
        self, channels: int, skip: int, out: int, small: tuple[int, ...], large: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.size = large
        factors = {have / had for had, have in zip(small, large, strict=True)}
        factor = factors.pop() if len(factors) == 1 else 0.0
        if factor > 1 and factor == int(factor):
            self.up: nn.Module = get_conv_layer(
                3, channels, out, int(factor), int(factor), conv_only=True, is_transposed=True, bias=True
            )
        else:
            self.up = nn.Conv3d(channels, out, 1)
        self.merge = _block(out + skip, out, large)

    def forward(self, value: Tensor, skip: Tensor | None) -> Tensor:
        value = self.up(value)
        if tuple(value.shape[2:]) != self.size:
            value = nn.functional.interpolate(value, size=self.size, mode="trilinear", align_corners=False)
        return self.merge(value if skip is None else torch.cat([value, skip], 1))


def _block(channels: int, out: int, size: tuple[int, ...], stride: int = 1) -> nn.Module:
    """A residual block; one voxel has no statistics of its own, so there the norm is over channels."""
    norm: Any = "instance" if math.prod(size) > 1 else ("group", {"num_groups": 1})
    act = (Act.LEAKYRELU, {"inplace": True, "negative_slope": 0.01})
    return UnetResBlock(3, channels, out, kernel_size=3, stride=stride, norm_name=norm, act_name=act)


class Segmenter(nn.Module):
    """volume [B, 1, *size] -> logits [B, classes, *size]; class 0 is background.

    Args:
        vision: a vision encoder; a copy is taken.
        size: the input's spatial size, the contract's.
        classes: the names of the classes after background.
        width: channels at the finest level of the decoder.
        full_resolution: True decodes at the input's resolution, as Swin-UNETR; False stops at half of it and
            interpolates the logits, for a small part of the time. Either merges a block on the input itself.
    """

    def __init__(
        self,
        vision: nn.Module,
        size: tuple[int, ...],
        classes: tuple[str, ...],
        width: int,
        full_resolution: bool,
    ) -> None:
        super().__init__()
        self.vision = copy.deepcopy(vision)
        self.size, self.classes, self.width = tuple(size), tuple(classes), width
        self.full_resolution = full_resolution
        sizes = scale_sizes(vision, self.size)
        channels: tuple[int, ...] = vision.channels  # type: ignore[assignment]
        self.skips = nn.ModuleList(
            _block(count, count, shape) for count, shape in zip(channels, sizes, strict=True)
        )
        self.ups = nn.ModuleList(
            _Up(channels[at + 1], channels[at], channels[at], sizes[at + 1], sizes[at])
            for at in reversed(range(len(channels) - 1))
        )
        finest = self.size if full_resolution else tuple(-(-side // 2) for side in self.size)
        self.steps = nn.ModuleList()
        current, count = sizes[0], channels[0]
        while max(large / small for large, small in zip(finest, current, strict=True)) > 2:
            larger = tuple(min(2 * side, full) for side, full in zip(current, finest, strict=True))
            narrower = max(width, count // 2)
            self.steps.append(_Up(count, 0, narrower, current, larger))
            current, count = larger, narrower
        self.stem = _block(1, width, finest, stride=1 if full_resolution else 2)
        self.last = _Up(count, width, width, current, finest)
        self.head = UnetOutBlock(3, width, len(self.classes) + 1)

    def forward(self, volume: Tensor) -> Tensor:
        """The logits of a batch of volumes."""
        scales = self.vision(volume).scales
        skipped = [skip(scale) for skip, scale in zip(self.skips, scales, strict=True)]
        value = skipped[-1]
        for up, skip in zip(self.ups, reversed(skipped[:-1]), strict=True):
            value = up(value, skip)
        for step in self.steps:
            value = step(value, None)
        logits: Tensor = self.head(self.last(value, self.stem(volume)))
        if tuple(logits.shape[2:]) != self.size:
            logits = nn.functional.interpolate(logits, size=self.size, mode="trilinear", align_corners=False)
        return logits

    @torch.no_grad()
    def segment(self, volume: Tensor, overlap: float) -> Tensor:
        """Label map uint8 [*S] of a scaled volume float32 [*S] of any size, by Gaussian sliding windows."""
        from monai.inferers import sliding_window_inference

        at_once = max(1, WINDOW_VOXELS // math.prod(self.size))
        logits = sliding_window_inference(
            volume[None, None],
            self.size,
            at_once,
            self,
            overlap=overlap,
            mode="gaussian",
            cval=float(volume.min()),
        )
        return torch.as_tensor(logits).argmax(1)[0].to(torch.uint8)

    def save(self, folder: Path, **settings: Any) -> None:
        """Write `segmenter.safetensors` (encoder and decoder) and `segmenter.json`."""
        from safetensors.torch import save

        from components.base.files import write_bytes, write_json

        state = {name: value.detach().cpu().contiguous() for name, value in sorted(self.state_dict().items())}
        write_bytes(folder / TENSORS, save(state))
        write_json(
            folder / SETTINGS,
            {
                "classes": self.classes,
                "size": self.size,
                "width": self.width,
                "full_resolution": self.full_resolution,
                **settings,
            },
        )


def load_segmenter(folder: Path, vision: nn.Module) -> tuple[Segmenter, dict[str, Any]]:
    """The network that `save` wrote, in evaluation mode, and its settings; `vision` gives the architecture."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from components.base.files import missing_input, read_json

    settings = read_json(folder / SETTINGS)
    if not (folder / TENSORS).exists():
        raise missing_input(folder / TENSORS)
    try:
        with torch.random.fork_rng(devices=[]):
            model = Segmenter(
                vision,
                tuple(settings["size"]),
                tuple(settings["classes"]),
                settings["width"],
                settings["full_resolution"],
            )
        model.load_state_dict(load_file(folder / TENSORS), strict=True)
    except (SafetensorError, RuntimeError, KeyError, TypeError):
        raise IntegrityError(
            "the segmentation network's files do not fit the encoder",
            rule="segmentation.format",
            fix="run finetune --task segmentation again",
        ) from None
    return model.eval(), dict(settings)
