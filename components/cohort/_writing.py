"""Writing volumes and masks below restricted/: clean headers, HU in the smallest exact type, matching grids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.base.errors import IntegrityError
from components.base.volume_files import Limits, Volume, read_volume, write_nifti
from components.base.volume_headers import NiftiGeometry
from components.cohort.study import Mask

MASK_NAME = re.compile(r"[a-z][a-z0-9_]*")
AFFINE_TOLERANCE_MM = 0.01


def compact(array: NDArray) -> NDArray:
    """The same values in int16 where that is exact, else int32, else float32 (NaN stays, for the rules)."""
    if array.dtype.kind == "f":
        whole = np.isfinite(array).all() and bool((array == np.rint(array)).all())
        if not whole:
            return array.astype(np.float32, copy=False)
    low, high = int(array.min()), int(array.max())
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype, copy=False)
    return array.astype(np.float32)


def save_volume(
    array: NDArray, affine: NDArray[np.float64], path: Path, geometry: NiftiGeometry | None = None
) -> None:
    """Write HU [X, Y, Z] with nothing in the header but geometry."""
    write_nifti(compact(array), affine, path, geometry=geometry)


def copy_volume(source: Path, target: Path) -> Volume:
    """Read a volume to its last byte, write it anew without its header's texts, and return it."""
    volume = read_volume(source)
    save_volume(volume.array, volume.affine, target, volume.geometry)
    return volume


def copy_mask(
    source: Path, masks: Path, stem: str, name: str, labels: Mapping[int, str], volume: Volume
) -> Mask:
    """Read a label map, hold it against its volume's grid and its labels, and write it as uint8."""
    limits = Limits().for_labels(volume.array.size)
    mask = read_volume(source, limits)
    if mask.array.shape != volume.array.shape or not np.allclose(
        mask.affine, volume.affine, atol=AFFINE_TOLERANCE_MM, equal_nan=True
    ):
        raise IntegrityError(
            "a mask does not lie on its volume's grid",
            rule="mask.grid",
            fix="resample the mask on its volume",
        )
    return save_mask(mask.array, masks, stem, name, labels, volume)


def save_mask(
    array: NDArray, masks: Path, stem: str, name: str, labels: Mapping[int, str], volume: Volume
) -> Mask:
    """Write a label map on its volume's grid as masks/STEM.NAME.nii.gz; a value without a name is refused."""
    values = np.unique(array)
    unnamed = [value for value in values.tolist() if value != 0 and value not in labels]
    if unnamed or any(not 0 < value < 256 for value in labels):
        raise IntegrityError(
            f"a mask holds {len(unnamed)} values without a name, or names outside 1..255",
            rule="mask.labels",
            fix="name every value of the mask in the source's options",
        )
    path = masks / f"{stem}.{name}.nii.gz"
    write_nifti(array.astype(np.uint8), volume.affine, path, geometry=volume.geometry)
    return Mask(name, path, dict(labels))
