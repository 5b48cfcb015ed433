"""A start that suits the data: the first convolution begins as if its input were standardised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from components.base.errors import ConfigError

MIN_DEVIATION = 1e-6


@torch.no_grad()
def standardise_input(vision: nn.Module, volumes: Tensor) -> tuple[float, float]:
    """Change the first 3D convolution so that `f(x)` becomes `f((x - mean) / deviation)`; returns both numbers.

    `volumes` is a sample `[N, 1, X, Y, Z]` of the training split. A CT window in 0..1 is mostly one constant, which the
    layer norms of a transformer spend long on; folding the shift and the scale into the weights leaves the contract,
    and so every later input, as it is. Raises `ConfigError` for an encoder that does not begin with a convolution of
    one channel that has a bias and no padding.
    """
    first = next((layer for layer in vision.modules() if isinstance(layer, nn.Conv3d)), None)
    if first is None or first.in_channels != 1 or first.bias is None or any(first.padding):
        raise ConfigError(
            "the vision encoder does not begin with a convolution that can take up the input's scale",
            rule="pretrain.standardise_input",
            fix="set pretrain.standardise_input to false",
        )
    mean = float(volumes.double().mean())
    deviation = max(float(volumes.double().std()), MIN_DEVIATION)
    first.weight.div_(deviation)
    first.bias.sub_(first.weight.sum(dim=(1, 2, 3, 4)) * mean)
    return mean, deviation
