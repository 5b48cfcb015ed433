"""Rebuild the whole view from the deepest scale: masked volume inpainting."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._shared import (
    Batch,
    FeaturesLike,
    Model,
    Objective,
    ObjectiveParams,
    full_precision,
)
from components.objectives._views import ViewParams, encoded_views, views_of

MIN_CHANNELS = 4


def strides_of(vision: nn.Module, size: Sequence[int]) -> tuple[int, int, int]:
    """Voxels of the input per position of the deepest scale along each axis (rounded up), from one empty pass."""
    training = vision.training
    weight = next(vision.parameters())
    probe = torch.zeros((1, 1, *size), dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        deepest = vision.eval()(probe).scales[-1].shape[2:]
    vision.train(training)
    x, y, z = (-(-whole // part) for whole, part in zip(size, deepest, strict=True))
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


@OBJECTIVES.register("inpainting")
class Inpainting(Objective):
    """L1 over the whole volume between the rebuilt view and the turned but uncut crop (Swin UNETR's recipe).

    A chain of transposed convolutions without norm or activation, resized only where the crop is no multiple
    of the encoder's stride; any number of rows works.
    """

    class Params(ObjectiveParams):
        """How the views are made."""

        views: ViewParams = ViewParams()

    needs = frozenset({"crop"})

    def __init__(self, params: Params, model: Model) -> None:
        """The head's strides follow from one empty pass of `model.vision` at `model.contract.size`."""
        super().__init__()
        self.params = params
        self._vision = (model.vision,)
        self.head = deconvolutions(
            model.vision.channels[-1], strides_of(model.vision, tuple(model.contract.size))
        )

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """The mean absolute error over every voxel of 2B views."""
        if len(batch["crop"]) == 0:
            return {}
        deepest = encoded_views(batch, features, self.params.views, self._vision[0])
        target = views_of(batch, features, self.params.views).targets
        rebuilt = full_precision(self.head(deepest))
        if rebuilt.shape != target.shape:
            rebuilt = F.interpolate(rebuilt, size=target.shape[2:], mode="trilinear", align_corners=False)
        return {"inpainting": F.l1_loss(rebuilt, target.to(rebuilt.dtype))}
