"""Where a random local crop lies: chosen by a NumPy generator that the caller passes in.

A crop is drawn inside the box of the body, as `CropForeground` followed by a random crop would be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from components.volumes.contract import Contract, Input
    from components.volumes.store import VolumeStore

Box = tuple[int, int, int]


def random_start(
    shape: Sequence[int],
    size: Sequence[int],
    generator: np.random.Generator,
    body: tuple[Sequence[int], Sequence[int]] | None = None,
) -> Box:
    """The first voxel of a crop of `size` in a volume of `shape`, uniform over where it may lie.

    With `body` (start, stop) the crop lies inside that box, or covers it where the box is smaller but stays in
    the volume. Where the volume is smaller than the crop, the crop is centred on it (a negative start).
    """
    first, last = body if body is not None else ([0, 0, 0], shape)
    starts = []
    for have, want, low, high in zip(shape, size, first, last):
        if have <= want:
            generator.integers(1)  # one draw an axis, whatever the shape: streams stay aligned
            starts.append(-((want - have) // 2))
            continue
        if high - low >= want:
            least, most = low, high - want
        else:
            least, most = max(0, high - want), min(low, have - want)
        starts.append(int(generator.integers(least, most + 1)))
    return (starts[0], starts[1], starts[2])


def local_crop(
    store: VolumeStore,
    series: str,
    size: Box,
    contract: Contract,
    generator: np.random.Generator,
) -> Input:
    """A random crop of a stored volume in the contract's range: float32 [1, *size]; reads its blocks only."""
    from components.volumes.contract import scale

    row = store.row(series)
    start = random_start(store.shape(series), size, generator, (row["body_start"], row["body_stop"]))
    return scale(store.read_box(series, start, size), contract)[None]


def global_view(store: VolumeStore, series: str, contract: Contract) -> Input:
    """The contract's view of a stored volume: float32 [1, *size]; reads only what the view shows."""

    from components.volumes.contract import model_input

    shape, size = store.shape(series), contract.size
    if contract.view == "area":
        return model_input(store.read(series), contract)
    late = contract.like_torchio
    starts = tuple(max(0, (have - want + late) // 2) for have, want in zip(shape, size))
    counts = tuple(min(have, want) for have, want in zip(shape, size))
    hu: npt.NDArray[np.int16] = store.read_box(series, (starts[0], starts[1], starts[2]), counts)  # type: ignore[arg-type]
    return model_input(hu, contract)
