"""Inside the chest: airways, vessels of the lungs, heart, great vessels and oesophagus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.cohort.phantom import spec
from components.cohort.phantom.canvas import Canvas, Region, Vector
from components.cohort.phantom.catalogue import LINGULA, LLL, LOBES, LUL, RLL, RML, RUL, lobe_side
from components.cohort.phantom.spec import PhantomStudy, Point
from components.cohort.phantom.torso import AIR, FAT, diaphragm

CARINA: Point = (2, -12, 44)
HILUM: dict[str, Point] = {"right": (32, -10, 22), "left": (-34, -12, 26)}
# Where the bronchus and artery of each lobe lead, template mm.
LOBE_TARGET: dict[str, Point] = {
    RUL: (66, 4, 66),
    RML: (72, 42, -6),
    RLL: (72, -36, -22),
    LUL: (-66, 4, 66),
    LINGULA: (-86, 38, 2),
    LLL: (-74, -38, -26),
}
AORTA: tuple[Point, ...] = (
    (6, 16, 22),
    (15, 20, 46),
    (8, 8, 66),
    (-9, -14, 72),
    (-22, -34, 62),
    (-27, -42, 34),
    (-27, -44, -36),
    (-18, -42, -92),
    (-9, -40, -200),
)
AORTA_MM = (15.0, 14.5, 14.0, 13.0, 12.5, 12.0, 11.5, 11.0, 10.0)
VESSELS: tuple[tuple[tuple[Point, ...], float], ...] = (
    (((28, 8, 88), (28, 4, 50), (24, 6, 14)), 8.5),  # superior vena cava
    (((18, -8, -30), (20, -18, -70), (18, -22, -190)), 8.5),  # inferior vena cava
    (((-12, 34, 26), (-12, 14, 36), (-10, 0, 34)), 11.0),  # pulmonary trunk
    (((-10, 0, 34), (12, -2, 28), (36, -4, 22)), 11.0),
    (((-10, 4, 36), (-24, -6, 34), (-38, -10, 28)), 11.0),
)
ESOPHAGUS: tuple[Point, ...] = ((-2, -30, 140), (-3, -32, 40), (-6, -30, -20), (-14, -22, -52))
AIRWAYS: tuple[tuple[tuple[Point, ...], float], ...] = (
    (((0, -6, 160), (1, -9, 90), CARINA), 8.5),
    ((CARINA, (18, -11, 30), HILUM["right"]), 6.5),
    ((CARINA, (-18, -13, 32), HILUM["left"]), 6.0),
)
HEART_MM: Point = (50.0, 40.0, 44.0)
NORMAL_HEART_WIDTH_MM = 100.0
THORAX_WIDTH_MM = 236.0


@dataclass(frozen=True)
class Heart:
    """The heart's ellipsoid: template centre, real radii, and rotation about z."""

    centre: Point
    radii_mm: Point
    turn_deg: float

    def surface(self, canvas: Canvas, azimuth_deg: float, height: float, factor: float = 1.0) -> Point:
        """A template point on the surface: azimuth from the patient's right, `height` in [-1, 1]."""
        ring = float(np.sqrt(1 - height**2))
        angle, turn = np.radians(azimuth_deg), np.radians(self.turn_deg)
        local_x = self.radii_mm[0] * ring * np.cos(angle - turn) * factor
        local_y = self.radii_mm[1] * ring * np.sin(angle - turn) * factor
        x = np.cos(turn) * local_x - np.sin(turn) * local_y
        y = np.sin(turn) * local_x + np.cos(turn) * local_y
        shift = (float(x), float(y), self.radii_mm[2] * height * factor)
        return canvas.template(self.centre, shift)


def heart_of(study: PhantomStudy, enlarged: bool = True) -> Heart:
    """The heart as drawn, or as it would be without cardiomegaly."""
    body, finding = study.body, study.finding(spec.CARDIOMEGALY)
    grow = body.heart_scale
    if finding is not None and enlarged:
        grow = finding.size_mm / NORMAL_HEART_WIDTH_MM
    extra = max(grow - 1, 0)
    centre = (-20 - 16 * extra, 25 - 4 * extra, -9 + 4 * extra)
    depth = 1 + 0.5 * (grow - 1)  # the sternum and the spine leave less room than the lungs do
    radii = (HEART_MM[0] * grow, HEART_MM[1] * depth, HEART_MM[2] * depth)
    return Heart(centre, radii, -body.heart_angle_deg / 2)


def cardiothoracic_ratio(study: PhantomStudy) -> float:
    """The transverse heart diameter over the inner diameter of the thorax, as a report gives it."""
    finding = study.finding(spec.CARDIOMEGALY)
    width = finding.size_mm if finding else NORMAL_HEART_WIDTH_MM * study.body.heart_scale
    return round(width / (THORAX_WIDTH_MM * study.body.scale[0]), 2)


def blood_hu(canvas: Canvas) -> float:
    """HU of blood in the heart and great vessels."""
    return 190.0 if canvas.scan.contrast else 44.0


def draw_lung_vessels(canvas: Canvas) -> None:
    """Paint arteries and bronchi from the hila into each lobe, within the lungs only."""
    rng = np.random.default_rng(canvas.body.seed + 3)
    for lobe in LOBES:
        side = lobe_side(lobe)
        hilum, target = np.asarray(HILUM[side]), np.asarray(LOBE_TARGET[lobe])
        trunk = hilum + 0.45 * (target - hilum) + rng.normal(0, 3, 3)
        vessels = [(hilum, trunk, 6.5, 4.5)]
        for _ in range(4):
            middle = trunk + 0.75 * (target - trunk) + rng.normal(0, 15, 3)
            vessels.append((trunk, middle, 3.8, 2.4))
            for _ in range(2):
                outward = middle - hilum
                end = middle + 0.5 * outward + rng.normal(0, 14, 3)
                vessels.append((middle, end, 2.2, 1.2))
        for start, stop, first, last in vessels:
            tube = canvas.tube(start, stop, first, last)
            where = tube.inside & canvas.lung(tube.box)
            weight = min(1.0, (first + last) / (2 * canvas.thinnest_mm))
            canvas.paint(tube.box, where, (40.0 if weight >= 1 else -800 + 840 * weight))
        draw_bronchus(canvas, hilum + np.array((0, -4, 4)), trunk + np.array((0, -7, 4)), 3.2, 2.0, 1.6)


def draw_bronchus(
    canvas: Canvas,
    start: Vector,
    stop: Vector,
    first_mm: float,
    last_mm: float,
    wall_mm: float,
    finding: str | None = None,
    wall_hu: float = 10.0,
) -> None:
    """A bronchus inside the lung: a wall of `wall_mm` around a lumen of the given radii."""
    outer = canvas.tube(start, stop, first_mm + wall_mm, last_mm + wall_mm)
    lung = canvas.lung(outer.box)
    canvas.paint(outer.box, outer.inside & lung, wall_hu, finding=finding)
    if min(first_mm, last_mm) >= canvas.thinnest_mm * 0.8:
        inner = canvas.tube(start, stop, first_mm, last_mm)
        canvas.paint(inner.box, inner.inside & canvas.lung(inner.box), AIR, finding=finding)


def draw_heart(canvas: Canvas, study: PhantomStudy) -> None:
    """Paint pericardial fat, an effusion if there is one, myocardium and chambers."""
    heart = heart_of(study)
    plain = heart_of(study, enlarged=False)
    effusion = study.finding(spec.PERICARDIAL_EFFUSION)
    fat_mm = 4.0
    if effusion is not None:
        thick = effusion.size_mm
        sunk = canvas.template(heart.centre, (0, 0, -0.45 * thick))
        radii = tuple(radius + fat_mm + grow * thick for radius, grow in zip(heart.radii_mm, (1, 1, 0.55)))
        bag = canvas.ellipsoid(sunk, radii, heart.turn_deg)
        where = bag.inside & _above_diaphragm(canvas, bag)
        canvas.paint(bag.box, where, 6.0, organ="", finding=spec.PERICARDIAL_EFFUSION)
    coat = _heart_region(canvas, heart, fat_mm)
    canvas.paint(coat.box, coat.inside & _above_diaphragm(canvas, coat), FAT, organ="", clear=True)
    muscle = _heart_region(canvas, heart, 0.0)
    where = muscle.inside & _above_diaphragm(canvas, muscle)
    canvas.paint(muscle.box, where, 95.0 if canvas.scan.contrast else 46.0, organ="heart", clear=True)
    if study.finding(spec.CARDIOMEGALY):
        normal = np.zeros(canvas.shape, dtype=bool)
        inner = _heart_region(canvas, plain, 0.0)
        normal[inner.box] = inner.inside
        canvas.paint(muscle.box, where & ~normal[muscle.box], None, finding=spec.CARDIOMEGALY)
    # right atrium, left ventricle, right ventricle, left atrium
    for azimuth, height, size in ((10, 0.05, 0.38), (170, -0.15, 0.42), (85, -0.2, 0.38), (-95, 0.3, 0.36)):
        spot = heart.surface(canvas, azimuth, height, 0.46)
        radii = tuple(radius * size for radius in heart.radii_mm)
        chamber = canvas.ellipsoid(spot, radii, heart.turn_deg)
        canvas.paint(chamber.box, chamber.inside & ~canvas.free(chamber.box, "heart"), blood_hu(canvas))


def _heart_region(canvas: Canvas, heart: Heart, grow_mm: float) -> Region:
    radii = tuple(radius + grow_mm for radius in heart.radii_mm)
    return canvas.ellipsoid(heart.centre, radii, heart.turn_deg)


def _above_diaphragm(canvas: Canvas, region: Region) -> np.ndarray:
    height = diaphragm(canvas)[region.box[0], region.box[1]]
    above: np.ndarray = canvas.mesh(region.box)[2] > height
    return above & canvas.free(region.box, "spine", "ribs")


def draw_mediastinum(canvas: Canvas) -> None:
    """Paint the aorta, caval veins, pulmonary arteries, oesophagus, trachea and main bronchi."""
    blood = blood_hu(canvas)
    for p, q, first, last in zip(AORTA, AORTA[1:], AORTA_MM, AORTA_MM[1:]):
        tube = canvas.tube(p, q, first, last)
        canvas.paint(
            tube.box, tube.inside & canvas.free(tube.box, "spine"), blood + 10, organ="aorta", clear=True
        )
    for points, size in VESSELS:
        for tube in canvas.path(points, size, size * 0.85):
            keep = canvas.free(tube.box, "heart", "aorta", "liver", "spine")
            canvas.paint(tube.box, tube.inside & keep, blood, organ="", clear=True)
    for tube in canvas.path(ESOPHAGUS, 7, 7):
        keep = canvas.free(tube.box, "aorta", "liver", "spine")
        canvas.paint(tube.box, tube.inside & keep, 38.0, organ="esophagus")
    for points, size in AIRWAYS:
        for tube in canvas.path(points, size + 2, size + 1.5):
            keep = canvas.free(tube.box, "aorta", "spine")
            canvas.paint(tube.box, tube.inside & keep, 30.0, organ="trachea", clear=True)
    for points, size in AIRWAYS:
        for tube in canvas.path(points, size, size - 0.5):
            canvas.paint(tube.box, tube.inside & canvas.free(tube.box, "aorta"), AIR, organ="trachea")
