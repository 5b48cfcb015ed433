"""Selecting and assembling slices: what is no axial CT is left out, what is no complete stack is refused.

Positions are projected on the slices' normal (PS3.3 C.7.6.2.1.1); instance numbers and file names are not trusted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.cohort.dicom.headers import FIX, MAX_SIDE, Slice

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DOSE_WORDS = ("DOSE", "DOSE_INFO", "DOSE INFO", "DOSE REPORT", "PATIENT_PROTOCOL", "PATIENT_INFO", "PROTOCOL")
SCREEN_WORDS = ("SCREEN SAVE", "SCREEN_SAVE", "SCREENSAVE", "SCREEN CAPTURE", "REF_SURVIEW", "RESULTS")
PROJECTION_WORDS = ("MIP", "MINIP", "MIN_IP", "PROJECTION IMAGE", "VOLUME RENDERING", "VRT", "SSD")
SAME_PLACE_MM = 0.01
LEFT_OUT = "left_out."


class AssemblyRules(Config):
    """Tolerances of the rules about a stack of slices."""

    min_slices: Annotated[int, Field(ge=2)] = 3
    max_tilt_deg: Annotated[float, Field(ge=0)] = 0.5  # between the stack's direction and the normal
    max_spacing_difference: Annotated[float, Field(ge=0)] = 0.05  # of the median distance of slices
    max_cosine_difference: Annotated[float, Field(ge=0)] = 1e-3


@dataclass(frozen=True)
class Stack:
    """Slices in order along the normal, and the affine of their volume [columns, rows, slices]."""

    slices: tuple[Slice, ...]
    affine: NDArray[np.float64]  # 4 x 4, voxel indices -> RAS+ mm


def left_out(item: Slice) -> tuple[str, str] | None:
    """The rule and reason for which a file is no slice of a CT volume; None if it is one."""
    words = item.image_type
    if item.modality != "CT":
        known = item.modality if re.fullmatch("[A-Z]{2,8}", item.modality) else "missing"
        return LEFT_OUT + "modality", f"the modality is {known}, not CT"
    if "LOCALIZER" in words or "SCOUT" in words:
        return LEFT_OUT + "localizer", "a localizer"
    if any(word in DOSE_WORDS for word in words):
        return LEFT_OUT + "dose_page", "a page with dose or patient text"
    if item.burned_in or item.samples != 1 or any(word in SCREEN_WORDS for word in words):
        return LEFT_OUT + "screen_capture", "a screen capture, or an image with burned-in text"
    if item.sop_class.startswith(SECONDARY_CAPTURE) or item.converted:
        return LEFT_OUT + "secondary_capture", "a secondary capture"
    if any(word in PROJECTION_WORDS for word in words):
        return LEFT_OUT + "projection", "a projection or rendering, not slices"
    if item.sop_class != CT_IMAGE and item.sop_class not in ENHANCED_CT:
        return LEFT_OUT + "not_image", "no CT image"
    return None


def _refused(what: str, rule: str) -> InputError:
    return InputError(what, rule=f"dicom.{rule}", fix=FIX)


def assemble(slices: Sequence[Slice], rules: AssemblyRules) -> Stack:
    """Order the slices of one series and compute their affine; a stack that is not whole is an `InputError`."""
    _check_each(slices)
    if len(slices) < rules.min_slices:
        raise _refused(
            f"the series has {len(slices)} slices, at least {rules.min_slices} are needed", "few_slices"
        )
    axes = np.array([item.orientation for item in slices], dtype=np.float64)
    if np.abs(axes - axes[0]).max() > rules.max_cosine_difference:
        raise _refused("the slices have different orientations", "orientation_mixed")
    right, down = axes[0, :3], axes[0, 3:]
    if (
        abs(np.linalg.norm(right) - 1) > 0.01
        or abs(np.linalg.norm(down) - 1) > 0.01
        or abs(right @ down) > 0.01
    ):
        raise _refused("the slices' axes are not perpendicular unit vectors", "orientation")
    normal = np.cross(right, down)
    positions = np.array([item.position for item in slices], dtype=np.float64)
    places = positions @ normal
    order = np.lexsort((np.array([item.sop_instance for item in slices]), places))
    ordered, positions, places = [slices[index] for index in order], positions[order], places[order]
    gaps = np.diff(places)
    if gaps.min() < SAME_PLACE_MM:
        raise _refused("two slices lie at the same place", "slice_duplicate")
    step = float(np.median(gaps))
    if np.abs(gaps - step).max() > rules.max_spacing_difference * step:
        raise _refused("the slices are not equally far apart: at least one is missing", "slice_missing")
    travel = positions[-1] - positions[0]
    tilt = np.degrees(np.arccos(np.clip(travel @ normal / np.linalg.norm(travel), -1, 1)))
    if tilt > rules.max_tilt_deg:
        raise _refused(f"the gantry was tilted by {tilt:.1f} degrees", "gantry_tilt")
    spacing = ordered[0].spacing
    assert spacing is not None  # _check_each
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = right * spacing[1], down * spacing[0]
    affine[:3, 2], affine[:3, 3] = travel / (len(ordered) - 1), positions[0]
    return Stack(tuple(ordered), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _check_each(slices: Sequence[Slice]) -> None:
    """Rules about each slice's own header, and about values that all must share."""
    for item in slices:
        if item.frames != 1 or item.sop_class in ENHANCED_CT:
            raise _refused("multi-frame (enhanced) CT is not supported", "multiframe")
        if item.orientation is None or item.position is None or item.spacing is None:
            raise _refused("a slice lacks its position, orientation or pixel spacing", "geometry_absent")
        if (
            not np.isfinite([*item.orientation, *item.position, *item.spacing]).all()
            or min(item.spacing) <= 0
        ):
            raise _refused("a slice has a geometry that is not finite and positive", "geometry_malformed")
        if item.slope is None or item.intercept is None or item.slope == 0:
            raise _refused(
                "a slice has no rescale slope or intercept: its values are not HU", "rescale_absent"
            )
        if item.rescale_type not in {"", "HU"}:
            raise _refused("the rescaled values are not HU", "rescale_type")
        if not 1 <= item.rows <= MAX_SIDE or not 1 <= item.columns <= MAX_SIDE:
            raise _refused("a slice has an impossible number of rows or columns", "size")
    if len({(item.rows, item.columns, item.spacing) for item in slices}) > 1:
        raise _refused("the slices have different sizes or pixel spacings", "size_mixed")
    instances = Counter(item.sop_instance for item in slices)
    if any(count > 1 for count in instances.values()):
        raise _refused("a slice is there twice", "slice_duplicate")
