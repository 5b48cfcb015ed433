"""Orientation, resampling (anti-aliased or plain) and the two views, each the same for any number of threads.

Resampling is separable and linear: along every axis one banded matrix holds the Gaussian prefilter and the
linear interpolation together, so that a voxel's value depends neither on slabs nor on threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from scipy.sparse import csr_matrix

    Array = npt.NDArray[Any]

FWHM_TO_SIGMA = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
SLAB_VOXELS = 1 << 22
"""How many voxels are converted to float32 at a time: bounds the memory of a large series."""


def axes_of(affine: Array) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Which array axis runs along x, y and z (RAS+), and its sign; raises `InputError` without an answer."""
    from itertools import permutations

    import numpy as np

    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    lengths = np.linalg.norm(columns, axis=0) if np.isfinite(columns).all() else np.zeros(3)
    if not (lengths > 0).all():
        raise InputError(
            "the volume's affine gives no orientation",
            rule="volume.affine",
            fix="export the series again with its geometry",
        )
    cosines = columns / lengths
    # rounded, so that a tie at 45 degrees is settled by the order of permutations and not by the last bit
    order = max(permutations(range(3)), key=lambda axes: round(sum(abs(cosines[range(3), axes])), 6))
    signs = [1 if cosines[world, axis] >= 0 else -1 for world, axis in enumerate(order)]
    return (order[0], order[1], order[2]), (signs[0], signs[1], signs[2])


def reorient(array: Array, affine: Array) -> Array:
    """A view of [I, J, K] as [X, Y, Z] in RAS+ (the nearest axes; an oblique volume stays oblique)."""
    import numpy as np

    order, signs = axes_of(affine)
    turned = np.transpose(array, order)
    return turned[tuple(slice(None, None, sign) for sign in signs)]


def spacing_of(affine: Array, *, reoriented: bool = False) -> tuple[float, float, float]:
    """Voxel sizes in millimetres along the array's axes, or along [X, Y, Z] when `reoriented`."""
    import numpy as np

    lengths = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    order = axes_of(affine)[0] if reoriented else (0, 1, 2)
    return (float(lengths[order[0]]), float(lengths[order[1]]), float(lengths[order[2]]))


def grid_size(num: int, spacing: float, target: float, inside: bool = False) -> int:
    """How many voxels of `target` mm come nearest to `num` voxels of `spacing` mm; at least one.

    With `inside` they never reach beyond the old extent (TorchIO's rule: rounded down).
    """
    return max(1, int(num * spacing / target + (1e-6 if inside else 0.5)))


def _weights(num: int, spacing: float, target: float, antialias: bool, inside: bool = False) -> csr_matrix:
    """[new, num] matrix: Gaussian prefilter (down-sampling, if wanted) and linear interpolation at voxel centres.

    The new grid is centred on the old one's extent. The prefilter's width is that of Cardoso et al. 2015
    (scale factor estimation): sigma^2 = (f^2 - 1) / (8 ln 2) in old voxels for a factor f > 1. Rows sum to 1.
    """
    import numpy as np
    from scipy.sparse import csr_matrix

    new, factor = grid_size(num, spacing, target, inside), target / spacing
    centres = (np.arange(new) - (new - 1) / 2) * factor + (num - 1) / 2
    centres = np.clip(centres, 0, num - 1)
    sigma = math.sqrt(max(factor * factor - 1.0, 0.0)) * FWHM_TO_SIGMA if antialias else 0.0
    reach = math.ceil(4.0 * sigma)
    lags = np.arange(-reach, reach + 1)
    blur = np.exp(-0.5 * (lags / sigma) ** 2) if reach else np.ones(1)
    below = np.floor(centres).astype(np.int64)
    part = (centres - below)[:, None]
    taps = below[:, None] + np.arange(-reach, reach + 2)[None, :]
    # the blurred signal at `below` and at `below + 1`, mixed linearly
    weight = (1.0 - part) * np.append(blur, 0.0)[None, :] + part * np.append(0.0, blur)[None, :]
    weight[(taps < 0) | (taps >= num)] = 0.0
    weight /= weight.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(new), taps.shape[1])
    keep = weight.ravel() > 0
    return csr_matrix(
        (weight.ravel()[keep].astype(np.float32), (rows[keep], taps.ravel()[keep])), shape=(new, num)
    )


def _along(
    weights: csr_matrix, array: Array, axis: int, clip: tuple[float, float] | None
) -> npt.NDArray[np.float32]:
    """Apply a [new, num] matrix along one axis, slab by slab; `clip` is applied to the input first."""
    import numpy as np

    new, num = weights.shape
    other = max((item for item in range(3) if item != axis), key=lambda item: array.shape[item])
    shape = [new if item == axis else array.shape[item] for item in range(3)]
    out = np.empty(shape, dtype=np.float32)
    step = max(1, SLAB_VOXELS * array.shape[other] // max(array.size, 1))
    for start in range(0, array.shape[other], step):
        where = tuple(slice(start, start + step) if item == other else slice(None) for item in range(3))
        slab = np.moveaxis(array[where], axis, 0).astype(np.float32)
        if clip is not None:
            np.clip(slab, *clip, out=slab)
        flat = weights @ np.ascontiguousarray(slab).reshape(num, -1)
        out[where] = np.moveaxis(flat.reshape(new, *slab.shape[1:]), 0, axis)
    return out


def resample(
    array: Array,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    clip: tuple[float, float] | None = None,
    antialias: bool = True,
    inside: bool = False,
) -> npt.NDArray[np.float32]:
    """[X, Y, Z] from `spacing` to `target` mm: linear, float32, anti-aliased or not; `clip` bounds the input first.

    Clipping comes first so that a scanner's padding of -3024 is not smeared into the body's edge.
    """
    import numpy as np

    done: Array = array
    order = sorted(range(3), key=lambda axis: spacing[axis] / target[axis])  # most shrinking first
    for axis in order:
        if math.isclose(spacing[axis], target[axis], rel_tol=1e-4):
            continue
        done = _along(
            _weights(array.shape[axis], spacing[axis], target[axis], antialias, inside), done, axis, clip
        )
        clip = None
    result = done.astype(np.float32)
    return np.clip(result, *clip) if clip is not None else result


def nearest(
    array: Array,
    spacing: tuple[float, float, float],
    target: tuple[float, float, float],
    inside: bool = False,
) -> Array:
    """Labels [X, Y, Z] on the grid of `resample`, by nearest neighbour."""
    import numpy as np

    picked = array
    for axis in range(3):
        num = array.shape[axis]
        new = grid_size(num, spacing[axis], target[axis], inside)
        factor = target[axis] / spacing[axis]
        if math.isclose(spacing[axis], target[axis], rel_tol=1e-4):
            continue
        centres = (np.arange(new) - (new - 1) / 2) * factor + (num - 1) / 2
        index = np.clip(np.floor(centres + 0.5).astype(np.int64), 0, num - 1)
        picked = np.take(picked, index, axis=axis)
    return picked


def centre_crop(array: Array, size: tuple[int, int, int], late: bool = False) -> Array:
    """A view of the centre of [X, Y, Z], at most `size` along every axis; `late`: an odd voxel goes at the start."""
    starts = [max(0, (have - want + late) // 2) for have, want in zip(array.shape, size)]
    return array[tuple(slice(start, start + want) for start, want in zip(starts, size))]


def centre_pad(array: Array, size: tuple[int, int, int], fill: float, late: bool = False) -> Array:
    """[X, Y, Z] padded around its centre with `fill` to at least `size`; `late`: an odd voxel comes at the start."""
    import numpy as np

    before = [(max(0, want - have) + late) // 2 for have, want in zip(array.shape, size)]
    after = [max(0, want - have - left) for have, want, left in zip(array.shape, size, before)]
    if not any(before) and not any(after):
        return array
    return np.pad(array, list(zip(before, after)), constant_values=fill)


def area_mean(array: Array, size: int, axis: int) -> Array:
    """Adaptive average pooling along one axis: bin i is the mean of [floor(i n/m), ceil((i+1) n/m))."""
    import numpy as np

    num = array.shape[axis]
    index = np.arange(size)
    starts, stops = index * num // size, -(-(index + 1) * num // size)
    total = np.cumsum(array, axis=axis, dtype=np.float64)
    zero = np.zeros_like(np.take(total, [0], axis=axis))
    total = np.concatenate([zero, total], axis=axis)
    counts = (stops - starts).reshape([-1 if item == axis else 1 for item in range(array.ndim)])
    return (np.take(total, stops, axis=axis) - np.take(total, starts, axis=axis)) / counts


def slice_indices(num: int, size: int) -> npt.NDArray[np.int64]:
    """`size` slice numbers spread evenly over `num` slices: round(linspace(0, num - 1, size))."""
    import numpy as np

    return np.rint(np.linspace(0, num - 1, size)).astype(np.int64)


def area_view(
    hu: Array, size: tuple[int, int, int], scale: Callable[[Array], Array]
) -> npt.NDArray[np.float32]:
    """The whole volume squeezed into `size`: slices picked along z, the plane averaged by area; [*size].

    `scale` maps HU to the model's range before the average, as VELVET-Med's loader does.
    """
    import numpy as np

    out = np.empty(size, dtype=np.float32)
    for new, old in enumerate(slice_indices(hu.shape[2], size[2])):
        plane = scale(hu[:, :, old])
        out[:, :, new] = area_mean(area_mean(plane, size[0], 0), size[1], 1)
    return out


def nearest_view(mask: Array, size: tuple[int, int, int]) -> Array:
    """Labels on the grid of `area_view`, by nearest neighbour."""
    import numpy as np

    picked = mask
    for axis in (0, 1):
        centres = (np.arange(size[axis]) + 0.5) * mask.shape[axis] / size[axis]
        picked = np.take(picked, np.minimum(centres.astype(np.int64), mask.shape[axis] - 1), axis=axis)
    return picked[:, :, slice_indices(mask.shape[2], size[2])]
