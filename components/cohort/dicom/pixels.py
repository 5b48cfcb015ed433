"""From a stack's files to HU: every file's pixels to the last byte, padding as air, exact integers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.base.volume_files import Limits
from components.cohort.dicom.assembly import Stack
from components.cohort.dicom.headers import Slice, broken, read_dataset

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

AIR_HU = -1024.0


def read_hu(stack: Stack) -> NDArray[np.float32]:
    """The stack's HU as float32 [columns, rows, slices]; a file with too few or many pixels is refused."""
    first, limits = stack.slices[0], Limits()
    shape = (first.columns, first.rows, len(stack.slices))
    if int(np.prod([int(size) for size in shape])) > limits.max_voxels or max(shape) > limits.max_slices:
        raise broken("the series has more voxels or slices than the limit", "volume.too_large")
    volume = np.empty(shape, dtype=np.float32, order="F")
    for index, item in enumerate(stack.slices):
        volume[:, :, index] = _slice_hu(item).T
    return volume


def _slice_hu(item: Slice) -> NDArray[np.float64]:
    """HU [rows, columns] of one file."""
    dataset = read_dataset(item.path, pixels=True)
    if "PixelData" not in dataset:
        raise broken("a slice has no pixels: the file is cut short", "volume.truncated")
    _check_length(dataset, item)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stored = dataset.pixel_array
        except (NotImplementedError, RuntimeError):
            raise broken(
                "no decoder for the slices' compression is installed", "dicom.transfer_syntax"
            ) from None
        except Exception as error:
            raise broken(
                f"a slice's pixels cannot be decoded ({type(error).__name__})", "volume.corrupt"
            ) from None
    if stored.shape != (item.rows, item.columns):
        raise broken("a slice has another size than its header says", "volume.truncated")
    assert item.slope is not None
    assert item.intercept is not None  # `assemble` has refused the others
    hu = stored.astype(np.float64) * item.slope + item.intercept
    padding = dataset.get("PixelPaddingValue")
    if isinstance(padding, int):
        last = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((padding, last if isinstance(last, int) else padding))
        hu[(stored >= low) & (stored <= high)] = AIR_HU
    return hu


def _check_length(dataset: Dataset, item: Slice) -> None:
    """Uncompressed pixels must fill the image exactly (one byte may pad them to an even length)."""
    if (
        dataset.file_meta.TransferSyntaxUID.is_compressed
        and not dataset.file_meta.TransferSyntaxUID.is_deflated
    ):
        return
    expected = item.rows * item.columns * (int(dataset.get("BitsAllocated") or 0) // 8)
    length = len(dataset.PixelData)
    if length not in {expected, expected + expected % 2}:
        short = length < expected
        raise broken(
            f"a slice has {'fewer' if short else 'more'} pixels than its header announces",
            "volume.truncated" if short else "volume.trailing",
        )
