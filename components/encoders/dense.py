"""Dense maps in the space of the reports, and volumes larger than the encoder's own, read by windows.

A map says where a volume is like a text: the pool's value and output projections, applied to every position, put
it where a volume that held this position alone would be put (MaskCLIP's reading of an attention pool,
arXiv:2112.01071). Probabilities are a softmax over the prompts, never over an axis of the volume.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from components.base.config import parse
from components.base.errors import ConfigError
from components.encoders.features import VolumeFeatures
from components.encoders.interfaces import VisionEncoder
from components.volumes.contract import Contract


def features_of(vision: VisionEncoder, volume: Tensor, window: Sequence[int] | None) -> VolumeFeatures:
    """The features of volumes [B, 1, X, Y, Z]; with `window` (voxels) each window is encoded by itself.

    The scales of the windows are put side by side, then pooled as one: memory grows with the window, not with the
    volume (COLIPRI's evaluation: 384^3 at 1 mm in eight windows of 192^3). A single window is the direct way.
    """
    return vision(volume) if window is None else windowed(vision, volume, window)


def windowed(vision: VisionEncoder, volume: Tensor, window: Sequence[int]) -> VolumeFeatures:
    """See `features_of`; `ConfigError` unless whole windows fill the volume and grids fill the windows."""
    size = tuple(volume.shape[2:])
    if len(window) != 3 or any(width < 1 or side % width for side, width in zip(size, window, strict=True)):
        raise ConfigError(
            f"windows of {_times(window)} voxels do not fill a volume of {_times(size)}",
            rule="encoder.window",
            fix="crop or pad the volume to a multiple of the window",
        )
    counts = [side // width for side, width in zip(size, window, strict=True)]
    scales: list[Tensor] | None = None
    for place in itertools.product(*map(range, counts)):
        x, y, z = _box(place, window)
        found = vision(volume[:, :, x, y, z]).scales
        if scales is None:
            scales = [
                scale.new_empty(
                    (*scale.shape[:2], *(s * n for s, n in zip(scale.shape[2:], counts, strict=True)))
                )
                for scale in found
            ]
        for whole, part in zip(scales, found, strict=True):
            x, y, z = _box(place, part.shape[2:])
            whole[:, :, x, y, z] = part
    together = tuple(scales or ())
    return VolumeFeatures(together, vision.pool(together))


def finer_contract(contract: Contract, factor: int) -> Contract:
    """The contract of the same field of view at `factor` times the resolution, to be read in windows of `size`.

    COLIPRI's evaluation is that with factor 2: 384^3 voxels of 1 mm in windows of 192^3, for an encoder that was
    trained on 192^3 voxels of 2 mm. `ConfigError` where the volume would be out of bounds.
    """
    values = contract.model_dump()
    values["spacing_mm"] = tuple(spacing / factor for spacing in contract.spacing_mm)
    values["size"] = tuple(side * factor for side in contract.size)
    return parse(type(contract), values, "contract")


def similarity_maps(dense: Tensor, prompts: Tensor, temperature: Tensor | float) -> Tensor:
    """Logits [B, K, *S] of a dense map [B, P, *S] against K prompts [K, P], all of unit length."""
    return torch.einsum("bpxyz,kp->bkxyz", dense, prompts) / temperature


def prompt_maps(logits: Tensor, size: Sequence[int] | None = None) -> Tensor:
    """Logits [B, K, *S] -> probabilities over the K prompts, enlarged to `size` voxels where given.

    Probabilities are interpolated (trilinear, voxel centres), so that they still add up to 1 everywhere.
    """
    probabilities = logits.softmax(dim=1)
    if size is None or tuple(size) == tuple(logits.shape[2:]):
        return probabilities
    return F.interpolate(probabilities, size=tuple(size), mode="trilinear", align_corners=False)


def _box(place: Sequence[int], sides: Sequence[int]) -> list[slice]:
    """The slices of the box that is number `place` along each axis."""
    return [slice(n * side, (n + 1) * side) for n, side in zip(place, sides, strict=True)]


def _times(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in size)
