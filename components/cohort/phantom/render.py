"""Draw a study: anatomy, findings, the scanner's blur and noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.cohort.phantom import spec
from components.cohort.phantom.canvas import F32, OUTSIDE_HU, Canvas
from components.cohort.phantom.chest import draw_heart, draw_lung_vessels, draw_mediastinum
from components.cohort.phantom.chest_findings import CHEST_FINDINGS
from components.cohort.phantom.lung_findings import LUNG_FINDINGS, draw_pleural_effusion
from components.cohort.phantom.spec import PhantomStudy
from components.cohort.phantom.streams import stream
from components.cohort.phantom.torso import draw_abdomen, draw_skeleton, draw_trunk

LOWEST_HU, HIGHEST_HU = -1024, 3071


@dataclass(frozen=True)
class Rendered:
    """A study's arrays `[X, Y, Z]` in RAS order with the affine of RAS+ scanner millimetres.

    `hu` is int16; `organs` and `findings` are uint8 label maps (`spec.ORGAN_VALUES`, `spec.FINDING_VALUES`).
    """

    hu: NDArray[np.int16]
    affine: NDArray[np.float64]
    organs: NDArray[np.uint8]
    findings: NDArray[np.uint8]


def render(study: PhantomStudy) -> Rendered:
    """Draw a study; the same specification gives the same arrays, whatever was drawn before."""
    canvas = Canvas(study.body, study.acquisition)
    draw_trunk(canvas)
    draw_skeleton(canvas)
    draw_abdomen(canvas)
    draw_lung_vessels(canvas)
    for label, draw_lung in LUNG_FINDINGS.items():
        if (item := study.finding(label)) is not None:
            draw_lung(canvas, item)
    draw_heart(canvas, study)
    draw_mediastinum(canvas)
    if (item := study.finding(spec.PLEURAL_EFFUSION)) is not None:
        draw_pleural_effusion(canvas, item)
    for label, draw in CHEST_FINDINGS.items():
        if (item := study.finding(label)) is not None:
            draw(canvas, study, item)
    return Rendered(_scan(canvas, study), _affine(study), canvas.organs, canvas.findings)


def _affine(study: PhantomStudy) -> NDArray[np.float64]:
    scan = study.acquisition
    affine = np.diag([*scan.spacing_mm, 1.0])
    extent = (np.asarray(scan.matrix) - 1) * np.asarray(scan.spacing_mm)
    affine[:3, 3] = np.round(np.asarray(scan.origin_mm) - extent / 2, 4)
    return affine


def _scan(canvas: Canvas, study: PhantomStudy) -> NDArray[np.int16]:
    """Blur by the kernel, add correlated noise, cut to the field of view and to the range of CT."""
    from scipy.ndimage import gaussian_filter1d

    scan = study.acquisition
    sharp = scan.kernel == "sharp"
    hu: F32 = canvas.hu
    for axis in (0, 1):
        hu = gaussian_filter1d(hu, 0.42 if sharp else 0.62, axis=axis, truncate=2.5)
    noise = _noise(study, canvas.shape, sharp)
    noise[canvas.hu == OUTSIDE_HU] *= 0.4  # less is absorbed on the way to air outside the patient
    hu = hu + noise
    np.clip(np.rint(hu), LOWEST_HU, HIGHEST_HU, out=hu)
    result = hu.astype(np.int16)
    half = canvas.shape[0] / 2
    x, y = np.ogrid[: canvas.shape[0], : canvas.shape[1]]
    result[(x - half + 0.5) ** 2 + (y - half + 0.5) ** 2 > half**2] = LOWEST_HU
    return result


def _noise(study: PhantomStudy, shape: tuple[int, int, int], sharp: bool) -> F32:
    """Noise of the study's standard deviation: high-pass in the plane for a sharp kernel, low-pass for a soft."""
    from scipy.ndimage import gaussian_filter1d

    rng = stream(study.seed, "noise", study.patient_index, study.study_index)
    white: F32 = rng.standard_normal(shape, dtype=np.float32)
    smooth = white
    for axis in (0, 1):
        smooth = gaussian_filter1d(smooth, 0.9 if sharp else 0.55, axis=axis, truncate=2.5)
    noise = white - 0.8 * smooth if sharp else smooth
    scale = study.acquisition.noise_hu / float(noise[::4, ::4, ::4].std())
    return np.asarray(noise * np.float32(scale), dtype=np.float32)
