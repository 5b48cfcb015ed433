"""Rules on a volume's geometry and HU, each with an id: what is wrong is refused, what is harmless is noted.

Refused (an `InputError` whose rule is the id):

| id | what |
|---|---|
| volume.dimensions | not three axes, or an axis with too few voxels |
| volume.affine | an affine that is not finite or is singular |
| volume.spacing | a voxel size that is NaN, zero, negative or outside `spacing_mm` |
| volume.shear | in-plane axes that are not at right angles |
| volume.gantry_tilt | slices stacked at an angle |
| volume.qform_sform | qform and sform both set and different |
| volume.extent | a field of view that no scanner has |
| volume.not_finite | NaN or infinite voxels |
| volume.constant | one value everywhere (all-zero is the usual case) |
| volume.duplicate_slice | two neighbouring slices with the same voxels |
| volume.hu_range | values that no CT has |
| volume.not_hu | no air, fat or lung: stored values without their rescale intercept, or a picture |
| volume.double_rescale | HU that were rescaled a second time (CT-CLIP did so to CT-RATE v2) |

Noted: padding below -1024 HU (clipped to it), metal above 3071 HU (clipped), orientation (turned to RAS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from components.base.config import Config
from components.base.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from components.base.volume_files import Volume

    Array = npt.NDArray[Any]

LOWEST_HU, HIGHEST_HU = -1024, 3071
AIR_BELOW_HU = -150
"""Air, lung and fat lie below this; a CT that has none of them does not hold HU."""
TISSUE_HU = (-250.0, 400.0)
"""Fat to soft tissue with contrast."""
SHIFTED_TISSUE_HU = (-1274.0, -850.0)
"""Where fat and soft tissue lie after an intercept of -1024 was added twice."""


class GeometryRules(Config):
    """The bounds of the rules; `max_above_fraction` is the share of voxels that may lie above 3071 HU."""

    min_voxels_per_axis: int = 8
    spacing_mm: tuple[float, float] = (0.1, 12.0)
    extent_mm: tuple[float, float] = (20.0, 2500.0)
    max_cosine: float = 0.01
    max_form_difference_mm: float = 0.5
    max_above_fraction: float = 0.02
    hu_limit: float = 32767.0
    min_air_fraction: float = 1e-4
    min_tissue_fraction: float = 0.005
    allow_duplicate_slices: bool = False


def check(volume: Volume, rules: GeometryRules) -> list[str]:
    """Notes on what will be mended; raises `InputError` with the id of the first rule that is broken."""
    check_grid(volume, rules)
    return check_values(volume.array, volume.affine, rules)


def _refuse(what: str, rule: str, fix: str = "export the series again, or leave it out") -> InputError:
    return InputError(what, rule=f"volume.{rule}", fix=fix)


def check_grid(volume: Volume, rules: GeometryRules) -> None:
    """The rules on shape, affine and header; raises `InputError`."""
    shape = volume.array.shape
    if len(shape) != 3 or min(shape) < rules.min_voxels_per_axis:
        raise _refuse(
            f"the volume's shape is {list(shape)}; three axes of at least {rules.min_voxels_per_axis} are needed",
            "dimensions",
        )
    matrix = np.asarray(volume.affine, dtype=np.float64)
    _check_pixdim(volume)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise _refuse("the volume's affine holds NaN or infinity", "affine")
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    low, high = rules.spacing_mm
    if not ((lengths >= low) & (lengths <= high)).all():
        shown = " x ".join(f"{item:.3g}" for item in lengths)
        raise _refuse(f"the spacing is {shown} mm, allowed is {low:g} to {high:g} mm", "spacing")
    _check_angles(matrix[:3, :3] / lengths, rules)
    extent = lengths * np.array(shape)
    low, high = rules.extent_mm
    if not ((extent >= low) & (extent <= high)).all():
        shown = " x ".join(f"{item:.0f}" for item in extent)
        raise _refuse(f"the field of view is {shown} mm, allowed is {low:g} to {high:g} mm", "extent")
    _check_forms(volume, rules)


def _check_pixdim(volume: Volume) -> None:
    """The NIfTI header's voxel sizes must be positive even where the sform is used instead of them."""
    if volume.geometry is not None:
        sizes = np.array(volume.geometry.pixdim[1:4], dtype=np.float64)
        if not (np.isfinite(sizes) & (sizes > 0)).all():
            raise _refuse("the header's voxel sizes are not all positive numbers", "spacing")


def _check_angles(directions: Array, rules: GeometryRules) -> None:
    cosines = np.abs(directions.T @ directions)
    if cosines[0, 1] > rules.max_cosine:
        raise _refuse(f"the in-plane axes are sheared (cosine {cosines[0, 1]:.3f})", "shear")
    tilt = max(cosines[0, 2], cosines[1, 2])
    if tilt > rules.max_cosine:
        raise _refuse(
            f"the slices are stacked at an angle (cosine {tilt:.3f})",
            "gantry_tilt",
            "correct the gantry tilt by resampling, then ingest again",
        )
    if abs(np.linalg.det(directions)) < 0.9:
        raise _refuse("the volume's affine is singular", "affine")


def _check_forms(volume: Volume, rules: GeometryRules) -> None:
    geometry = volume.geometry
    if geometry is None or geometry.qform_code <= 0 or geometry.sform_code <= 0:
        return
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(volume.array.shape) - 1
    apart = np.linalg.norm(((geometry.qform() - geometry.sform()) @ corners.T)[:3], axis=0).max()
    if not apart <= rules.max_form_difference_mm:
        raise _refuse(
            f"qform and sform place a corner {apart:.1f} mm apart",
            "qform_sform",
            "decide which one holds and write it to both",
        )


def check_values(array: Array, affine: Array, rules: GeometryRules) -> list[str]:
    """The rules on voxel values; returns notes, raises `InputError`."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise _refuse("the volume holds NaN or infinite voxels", "not_finite")
    lowest, highest = float(array.min()), float(array.max())
    if lowest == highest:
        raise _refuse(f"every voxel is {lowest:g}", "constant")
    if max(-lowest, highest) > rules.hu_limit + 1:
        raise _refuse(f"values from {lowest:g} to {highest:g} are not HU", "hu_range")
    sample = array[tuple(slice(None, None, max(1, size // 96)) for size in array.shape)]
    _check_scale(sample, lowest, rules)
    if not rules.allow_duplicate_slices:
        _check_slices(array)
    notes = []
    if lowest < LOWEST_HU:
        notes.append(f"padding: values down to {lowest:g} HU were clipped to {LOWEST_HU}")
    if highest > HIGHEST_HU:
        notes.append(f"metal: values up to {highest:g} HU were clipped to {HIGHEST_HU}")
    codes = orientation_codes(affine)
    if codes != "RAS":
        notes.append(f"orientation: {codes} was turned to RAS")
    return notes


def _check_scale(sample: Array, lowest: float, rules: GeometryRules) -> None:
    """Are these HU? `sample` is a regular part of the voxels, `lowest` the minimum of all."""
    above = float((sample > HIGHEST_HU).mean())
    if above > rules.max_above_fraction:
        raise _refuse(f"{above:.0%} of the voxels lie above {HIGHEST_HU} HU", "hu_range")
    tissue = float(((sample > TISSUE_HU[0]) & (sample < TISSUE_HU[1])).mean())
    if tissue < rules.min_tissue_fraction:
        shifted = (sample > SHIFTED_TISSUE_HU[0]) & (sample < SHIFTED_TISSUE_HU[1])
        twice = lowest < 2 * LOWEST_HU + 100 and float(shifted.mean()) >= rules.min_tissue_fraction
        # clipped to -1024 after the second rescale: nothing but air and a trace of bone is left
        clipped = lowest >= LOWEST_HU and float((sample <= -850).mean()) > 0.9
        if twice or clipped:
            raise _refuse(
                "soft tissue lies near -1000 HU: slope and intercept were applied twice",
                "double_rescale",
                "read the stored values once; the source holds HU already",
            )
        raise _refuse(f"only {tissue:.2%} of the voxels are fat or soft tissue", "not_hu")
    air = float((sample < AIR_BELOW_HU).mean())
    if air < rules.min_air_fraction:
        raise _refuse(
            "no voxel is air, lung or fat: the rescale intercept is missing, or this is not a CT",
            "not_hu",
            "apply the DICOM rescale slope and intercept when the series is converted",
        )


def _check_slices(array: Array) -> None:
    """Two equal neighbours along the slowest axis mean a duplicated slice, unless they are empty."""
    previous = np.ascontiguousarray(array[:, :, 0])
    for index in range(1, array.shape[2]):
        current = np.ascontiguousarray(array[:, :, index])
        # a coarse look first: different noise shows in a few rows
        if np.array_equal(previous[::16], current[::16]) and np.array_equal(previous, current):
            values = np.unique(current)
            if values.size > 2 and float((current > AIR_BELOW_HU).mean()) > 0.01:
                raise _refuse(f"slices {index - 1} and {index} are the same", "duplicate_slice")
        previous = current


def orientation_codes(affine: Array) -> str:
    """Three letters for the directions in which the array's axes grow ("LPS", ...)."""
    from components.volumes.resampling import axes_of

    order, signs = axes_of(affine)
    letters = ["", "", ""]
    for world, axis in enumerate(order):
        letters[axis] = ("LR", "PA", "IS")[world][signs[world] > 0]
    return "".join(letters)
