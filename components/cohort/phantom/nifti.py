"""Write a phantom study as NIfTI: the same study gives the same bytes (gzip without a time stamp)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.base.files import write_bytes
from components.cohort.phantom.render import Rendered, render
from components.cohort.phantom.spec import FINDING_VALUES, ORGAN_VALUES, PhantomStudy

LEVEL = 4  # of gzip: a third larger files at level 1, twice the time at level 6


def _bytes(array: NDArray[Any], affine: NDArray[np.float64], orientation: str) -> bytes:
    """A gzipped NIfTI-1 file of an RAS array, stored in another orientation."""
    import nibabel as nib
    from nibabel.orientations import axcodes2ornt, ornt_transform

    image = nib.Nifti1Image(array, affine)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(orientation))
    stored = image.as_reoriented(turn)
    stored.set_sform(stored.affine, code="scanner")
    stored.set_qform(stored.affine, code="scanner")
    stored.header.set_xyzt_units("mm")
    if array.dtype == np.int16:
        stored.header.set_slope_inter(1.0, 0.0)
    return gzip.compress(stored.to_bytes(), compresslevel=LEVEL, mtime=0)


def write_nifti(study: PhantomStudy, path: Path, rendered: Rendered | None = None) -> Rendered:
    """Write a study's volume (int16 HU, in the study's orientation) to `path` (.nii.gz); returns what was drawn."""
    drawn = rendered or render(study)
    write_bytes(path, _bytes(drawn.hu, drawn.affine, study.acquisition.orientation))
    return drawn


def write_masks(
    study: PhantomStudy, rendered: Rendered, folder: Path, stem: str
) -> list[tuple[str, Path, dict[int, str]]]:
    """Write `STEM.organs.nii.gz` and `STEM.findings.nii.gz` on the volume's grid.

    Returns name, path and value -> label for each.
    """
    written: list[tuple[str, Path, dict[int, str]]] = []
    for name, array, values in (
        ("organs", rendered.organs, ORGAN_VALUES),
        ("findings", rendered.findings, FINDING_VALUES),
    ):
        path = folder / f"{stem}.{name}.nii.gz"
        write_bytes(path, _bytes(array, rendered.affine, study.acquisition.orientation))
        written.append((name, path, {value: label for label, value in values.items()}))
    return written
