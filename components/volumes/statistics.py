"""What the index says of a stored volume: HU statistics, the box of the body, the average hash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Hu = npt.NDArray[np.int16]

AIR_HU_BELOW = -850
SOFT_HU = (-150, 300)
BODY_HU_ABOVE = -500
HASH_CELLS = 8
HASH_LEVELS_HU = (-700, -300, -60, 60)
"""Air or lung / mixed / fat / water and soft tissue / denser: where a cell's mean is cut into bits."""


def describe(hu: Hu) -> dict[str, Any]:
    """The index's columns for int16 HU [X, Y, Z]: extremes, mean, fractions, body box, average hash."""
    start, stop = body_box(hu)
    return {
        "hu_min": int(hu.min()),
        "hu_max": int(hu.max()),
        "hu_mean": round(float(hu.mean(dtype="float64")), 3),
        "air_fraction": round(float((hu < AIR_HU_BELOW).mean()), 5),
        "soft_fraction": round(float(((hu > SOFT_HU[0]) & (hu < SOFT_HU[1])).mean()), 5),
        "body_start": start,
        "body_stop": stop,
        "average_hash": average_hash(hu),
    }


def body_box(hu: Hu) -> tuple[list[int], list[int]]:
    """First and one-past-last voxel of what is denser than -500 HU along [X, Y, Z]; all if nothing is."""
    import numpy as np

    body = hu > BODY_HU_ABOVE
    starts, stops = [], []
    for axis in range(3):
        others = tuple(item for item in range(3) if item != axis)
        # a plane counts when 1 % of it is body: the table and noise do not stretch the box
        filled = np.flatnonzero(body.mean(axis=others) > 0.01)
        starts.append(int(filled[0]) if filled.size else 0)
        stops.append(int(filled[-1]) + 1 if filled.size else int(hu.shape[axis]))
    return starts, stops


def average_hash(hu: Hu) -> str:
    """512 hex digits: the mean HU of 8 x 8 x 8 cells, each against four levels (a thermometer code).

    The Hamming distance of two hashes is the sum over cells of how many levels their means lie apart: noise,
    another kernel, a shift below a voxel or another spacing move few bits; another body moves many.
    """
    import numpy as np

    from components.volumes.resampling import area_mean

    cells = np.clip(hu, -1000, 1000).astype(np.float64)
    for axis in range(3):
        cells = area_mean(cells, HASH_CELLS, axis)
    bits = cells[..., None] > np.array(HASH_LEVELS_HU, dtype=np.float64)
    return np.packbits(bits.ravel()).tobytes().hex()
