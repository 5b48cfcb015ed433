"""The preprocessing contract: what a voxel means to a model, the same for training, evaluation and serving.

`to_store` puts a CT on the contract's grid (int16 HU, kept in the store); `model_input` turns that into the
tensor that an encoder sees. NumPy and SciPy only: a server that imports this needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator, model_validator

from components.base.config import Config, fingerprint, parse
from components.base.config import difference as _leaf_difference
from components.base.errors import ContractError, InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Hu = npt.NDArray[np.int16]
    Input = npt.NDArray[np.float32]

AIR_HU = -1024
"""The lowest value of the CT scale; padding and everything below it are stored as this."""
MAX_HU = 3071
"""The highest value of the 12-bit CT scale; metal above it is stored as this."""

GRID_FIELDS = ("orientation", "spacing_mm", "antialias", "convention")
"""What the store depends on."""
PREPROCESSING_FIELDS = (*GRID_FIELDS, "size", "hu_window", "output_range", "padding", "view")
"""What a tensor depends on: the fields in which data and model must agree."""
CONTRACT_FILE = "contract.json"


class Contract(Config):
    """How a CT becomes a model's input, and which text and data the model was made with.

    `size` counts voxels along [X, Y, Z]; `hu_window` is mapped linearly to `output_range` and clipped.
    `view` "crop_or_pad" keeps the scale (centre crop or pad, as COLIPRI); "area" squeezes the whole volume
    into `size` (z by picking slices, the plane by area averaging, as VELVET-Med). `antialias` smooths before
    down-sampling; COLIPRI was trained without. `convention` settles what is left open: "velvet" takes the number of
    voxels that comes nearest to the old extent, and an odd voxel of a crop or pad is at the end; "torchio" stays inside
    the old extent and has it at the start, as COLIPRI's processor (TorchIO 1.1 and 1.2). The hashes are None until the
    stage that knows them fills them in.
    """

    orientation: Literal["RAS"] = "RAS"
    spacing_mm: tuple[float, float, float]
    antialias: bool = True
    convention: Literal["velvet", "torchio"] = "velvet"
    size: tuple[int, int, int]
    hu_window: tuple[float, float]
    output_range: tuple[float, float]
    padding: Literal["minimum"] = "minimum"
    view: Literal["crop_or_pad", "area"] = "crop_or_pad"
    report_fields: tuple[str, ...] = ("findings", "impression")
    tokenizer_hash: str | None = None
    prompt_set: str | None = None
    data_hash: str | None = None

    @field_validator("spacing_mm")
    @classmethod
    def _spacing(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(0.1 <= item <= 20.0 for item in value):
            raise ValueError("every spacing must lie in [0.1, 20] mm")
        return value

    @field_validator("size")
    @classmethod
    def _size(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(8 <= item <= 1024 for item in value):
            raise ValueError("every size must lie in [8, 1024] voxels")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Contract:
        for name in ("hu_window", "output_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise ValueError(f"{name} must grow, for instance [-1000, 1000]")
        return self

    @property
    def like_torchio(self) -> bool:
        """Whether grids and centres are TorchIO's."""
        return self.convention == "torchio"

    def part(self, fields: tuple[str, ...] = PREPROCESSING_FIELDS) -> dict[str, Any]:
        """The named fields as plain data."""
        plain = self.model_dump(mode="json")
        return {name: plain[name] for name in fields}

    def fingerprint(self, fields: tuple[str, ...] = PREPROCESSING_FIELDS) -> str:
        """16 hex digits for the preprocessing (not for the text and data hashes)."""
        return fingerprint(self.part(fields))

    def save(self, folder: Path) -> None:
        """Write contract.json into `folder`, atomically."""
        from components.base.files import write_json

        write_json(folder / CONTRACT_FILE, self.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> Contract:
        """Read contract.json from `folder` (or the file itself); raises `InputError` or `ConfigError`."""
        from components.base.files import read_json

        path = folder / CONTRACT_FILE if folder.is_dir() else folder
        values = read_json(path)
        if not isinstance(values, dict):
            raise InputError(
                f"{path.name} is not a contract", rule="contract.format", fix="run preprocess again"
            )
        return parse(cls, values, "contract")


def difference(
    expected: Contract, found: Contract, fields: tuple[str, ...] = PREPROCESSING_FIELDS
) -> list[str]:
    """Lines `key: expected -> found` for every field in which two contracts disagree."""
    return _leaf_difference(expected.part(fields), found.part(fields))


def require_same(expected: Contract, found: Contract, fields: tuple[str, ...] = PREPROCESSING_FIELDS) -> None:
    """Raise `ContractError` that shows the difference, unless both contracts agree in `fields`."""
    lines = difference(expected, found, fields)
    if lines:
        raise ContractError(
            f"the data were not prepared as the model expects ({'; '.join(lines)})",
            rule="contract.mismatch",
            fix="prepare the data with the model's contract.json, or use the model made for these data",
        )


def to_store(array: npt.NDArray[Any], affine: npt.NDArray[Any], contract: Contract) -> Hu:
    """A CT on the contract's grid: RAS, `spacing_mm`, int16 HU clipped to [-1024, 3071], [X, Y, Z].

    `array` is [I, J, K] in HU with any orientation, `affine` [4, 4] maps its voxels to RAS+ millimetres.
    Down-sampling is anti-aliased as the contract says. Raises `InputError` for an affine without an orientation.
    """
    import numpy as np

    from components.volumes.resampling import reorient, resample, spacing_of

    volume = reorient(array, affine)
    spacing = spacing_of(affine, reoriented=True)
    hu = resample(
        volume,
        spacing,
        contract.spacing_mm,
        clip=(AIR_HU, MAX_HU),
        antialias=contract.antialias,
        inside=contract.like_torchio,
    )
    return np.ascontiguousarray(np.clip(np.rint(hu), AIR_HU, MAX_HU).astype(np.int16))


def mask_to_store(
    mask: npt.NDArray[Any], affine: npt.NDArray[Any], contract: Contract
) -> npt.NDArray[np.uint8]:
    """A label map on the same grid as `to_store` of its volume (nearest neighbour), uint8 [X, Y, Z]."""
    import numpy as np

    from components.volumes.resampling import nearest, reorient, spacing_of

    spacing = spacing_of(affine, reoriented=True)
    labels = nearest(reorient(mask, affine), spacing, contract.spacing_mm, contract.like_torchio)
    return np.ascontiguousarray(labels.astype(np.uint8))


def scale(hu: npt.NDArray[Any], contract: Contract) -> Input:
    """HU of any shape to the contract's output range: float32, clipped."""
    import numpy as np

    (low, high), (out_low, out_high) = contract.hu_window, contract.output_range
    values = np.clip(hu.astype(np.float32), np.float32(low), np.float32(high))
    values -= np.float32(low)
    values *= np.float32((out_high - out_low) / (high - low))
    values += np.float32(out_low)
    return values


def model_input(hu: npt.NDArray[Any], contract: Contract) -> Input:
    """The global view of a volume from the store: float32 [1, *size] in `output_range`."""
    import numpy as np

    from components.volumes.resampling import area_view, centre_crop, centre_pad

    if hu.ndim != 3 or 0 in hu.shape:
        raise InputError(
            f"a volume has three axes, this array has the shape {list(hu.shape)}",
            rule="volume.dimensions",
            fix="give one [X, Y, Z] array from to_store",
        )
    if contract.view == "crop_or_pad":
        # scaled before it is padded: the padding is the range's minimum even if the window begins below air
        late = contract.like_torchio
        view = scale(centre_crop(hu, contract.size, late), contract)
        return np.ascontiguousarray(centre_pad(view, contract.size, contract.output_range[0], late))[None]
    return area_view(hu, contract.size, lambda slab: scale(slab, contract))[None]


def mask_input(mask: npt.NDArray[Any], contract: Contract) -> npt.NDArray[np.uint8]:
    """A stored label map on the grid of `model_input`: uint8 [*size], 0 outside."""
    import numpy as np

    from components.volumes.resampling import centre_crop, centre_pad, nearest_view

    if contract.view == "crop_or_pad":
        late = contract.like_torchio
        cropped = centre_crop(mask, contract.size, late).astype(np.uint8)
        return np.ascontiguousarray(centre_pad(cropped, contract.size, 0, late))
    return np.ascontiguousarray(nearest_view(mask, contract.size).astype(np.uint8))
