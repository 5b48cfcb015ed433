"""Frozen image tokens: one scale of the vision encoder, averaged to a small grid, for whole splits.

Computed in fixed batches, once; kept in `.velvet/cache/image_tokens/` under the hash of all that they depend on and
read back without being loaded whole. A damaged file there is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.base.errors import ConfigError, InputError
from components.base.files import sha256_file
from components.downstream.inputs import BATCH_VOXELS, MAX_BATCH

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from components.downstream.inputs import DownstreamInputs, StudyRow

Tokens = npt.NDArray[np.float32]
VERSION = 1  # part of the cache's name: raise it when what is computed changes
MIN_SCALE = 1e-6


def image_tokens(
    inputs: DownstreamInputs, rows: Sequence[StudyRow], scale: int, grid: int, device: torch.device
) -> Tokens:
    """Tokens float32 [N, T, C] of the studies `rows`: T <= grid^3 positions in C order of [X, Y, Z].

    `scale` counts the encoder's scales, finest first (-1: the coarsest). The array is read-only.
    """
    if not rows:
        return np.zeros((0, 1, 1), dtype=np.float32)
    folder = inputs.root / ".velvet" / "cache" / "image_tokens"
    path = folder / f"{_cache_key(inputs, rows, scale, grid)}.npy"
    found = _read(path, len(rows))
    if found is None:
        _write(path, inputs, rows, scale, grid, device)
        found = _read(path, len(rows))
    if found is None:
        raise InputError(
            "the image tokens could not be read back",
            rule="image_tokens.cache",
            fix="look at the disk, delete .velvet/cache/image_tokens and run the stage again",
        )
    return found


def _cache_key(inputs: DownstreamInputs, rows: Sequence[StudyRow], scale: int, grid: int) -> str:
    folder, index = inputs.encoder_folder(), inputs.index()
    files = {
        name: sha256_file(folder / name) for name in ("model.safetensors", "config.json", "contract.json")
    }
    volumes = [index[row.series_key]["content_sha256"] for row in rows]
    parts = [VERSION, MAX_BATCH, BATCH_VOXELS, files, volumes, scale, grid]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(path: Path, count: int) -> Tokens | None:
    try:
        found: Tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    whole = found.ndim == 3 and len(found) == count and found.dtype == np.float32
    return found if whole else None


def _write(
    path: Path,
    inputs: DownstreamInputs,
    rows: Sequence[StudyRow],
    scale: int,
    grid: int,
    device: torch.device,
) -> None:
    import torch

    from components.base.files import atomic_path
    from components.volumes.contract import model_input

    encoder, store = inputs.encoder(), inputs.store()
    if not -len(encoder.vision.channels) <= scale < len(encoder.vision.channels):
        raise ConfigError(
            f"the vision encoder has {len(encoder.vision.channels)} scales, scale {scale} was asked for",
            rule="image_tokens.scale",
            fix="set the task's scale to one that the encoder has; -1 is the coarsest",
        )
    size = max(1, min(MAX_BATCH, BATCH_VOXELS // math.prod(encoder.contract.size)))
    kept: Any = None
    vision = encoder.vision.to(device)
    with atomic_path(path) as temp, torch.inference_mode():
        for start in range(0, len(rows), size):
            volumes = [
                model_input(store.read(row.series_key), encoder.contract)
                for row in rows[start : start + size]
            ]
            features = vision(torch.from_numpy(np.stack(volumes)).to(device)).scales[scale]
            tokens = pooled(features.float(), grid).cpu().numpy()
            if not np.isfinite(tokens).all():
                raise InputError(
                    "the encoder gives image tokens that are not finite",
                    rule="image_tokens.finite",
                    fix="look at the curves of pretrain; train again with a lower learning rate",
                )
            if kept is None:
                shape = (len(rows), *tokens.shape[1:])
                kept = np.lib.format.open_memmap(temp, mode="w+", dtype=np.float32, shape=shape)
            kept[start : start + len(tokens)] = tokens
        kept.flush()
    encoder.vision.to("cpu")


def pooled(features: torch.Tensor, grid: int) -> torch.Tensor:
    """A scale [B, C, *S] averaged to at most grid positions an axis -> tokens [B, T, C]."""
    from torch.nn.functional import adaptive_avg_pool3d

    across, along, up = (min(grid, side) for side in features.shape[2:])
    if tuple(features.shape[2:]) != (across, along, up):
        features = adaptive_avg_pool3d(features, (across, along, up))
    return features.flatten(2).transpose(1, 2).contiguous()


def token_statistics(tokens: Tokens) -> tuple[Tokens, Tokens]:
    """The mean [T, C] over training studies, a position each, and the deviation [C] around it.

    With the mean taken off, what is left of a study is what sets it apart; equal studies leave exactly 0.
    """
    total = np.zeros(tokens.shape[1:], dtype=np.float64)
    for row in tokens:
        total += row
    mean = (total / max(len(tokens), 1)).astype(np.float32)
    spread = np.zeros(tokens.shape[2], dtype=np.float64)
    for row in tokens:
        spread += ((row - mean).astype(np.float64) ** 2).mean(0)
    scale = np.sqrt(spread / max(len(tokens), 1))
    return mean, np.where(scale > MIN_SCALE, scale, 1.0).astype(np.float32)


def device_of(name: str) -> torch.device:
    """The device called `cpu` or `cuda`; `ConfigError` where there is no such device here."""
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "there is no CUDA device here", rule="downstream.device", fix="set the task's device to cpu"
        )
    return torch.device(name)
