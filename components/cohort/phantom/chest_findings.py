"""Findings outside the lungs: nodes, hernia, calcifications and medical material."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from components.cohort.phantom import spec
from components.cohort.phantom.canvas import Canvas
from components.cohort.phantom.chest import AORTA, AORTA_MM, Heart, heart_of
from components.cohort.phantom.spec import Finding, PhantomStudy, Point
from components.cohort.phantom.torso import CAVITY, SHELL, spine_y

METAL, CALCIUM = 2900.0, 950.0
STATIONS: dict[str, Point] = {
    "right paratracheal": (20, 0, 68),
    "prevascular": (-6, 42, 58),
    "subcarinal": (4, -20, 22),
    "right hilar": (44, -4, 20),
    "left hilar": (-46, -8, 24),
    "right axillary": (116, 8, 84),
    "left axillary": (-116, 8, 84),
}
# The stretch of the aorta (first and last point of its path) at each level.
LEVELS: dict[str, tuple[int, int]] = {
    "ascending aorta": (0, 2),
    "aortic arch": (2, 4),
    "descending thoracic aorta": (5, 6),
    "upper abdominal aorta": (6, 8),
}
CORONARIES: dict[str, tuple[tuple[float, float], ...]] = {
    "left anterior descending": ((120, 0.72), (118, 0.45), (124, 0.15), (132, -0.15), (140, -0.45)),
    "left circumflex": ((150, 0.7), (185, 0.6), (215, 0.42), (232, 0.15), (240, -0.15)),
    "right coronary": ((62, 0.75), (36, 0.55), (18, 0.2), (12, -0.2), (24, -0.55)),
}
_COUNT = {"mild": 2, "moderate": 4, "severe": 6}


def draw_nodes(canvas: Canvas, study: PhantomStudy, item: Finding) -> None:
    """A cluster of enlarged nodes at a station; the largest has the reported short axis."""
    rng = np.random.default_rng(item.seed)
    radius = item.size_mm / 2
    hu = 78.0 if canvas.scan.contrast else 48.0
    for index in range(4):
        size = radius * (1.0 if index == 0 else float(rng.uniform(0.55, 0.85)))
        shift = (0, 0, 0) if index == 0 else tuple(rng.normal(0, 1.1 * radius, 3))
        node = canvas.ellipsoid(
            canvas.template(STATIONS[item.place], shift), (size, size, 1.3 * size), float(rng.uniform(0, 90))
        )
        inside_body = canvas.hu[node.box] > -990
        free = canvas.free(node.box, "aorta", "trachea", "spine", "ribs") & inside_body
        canvas.paint(node.box, node.inside & free, hu, organ="", finding=spec.LYMPHADENOPATHY)


def draw_hernia(canvas: Canvas, study: PhantomStudy, item: Finding) -> None:
    """Stomach above the diaphragm behind the heart, with fluid below gas."""
    radius = item.size_mm / 2
    centre = (-6.0, -34.0 + 0.15 * radius, -40.0 + 0.25 * radius)
    sac = canvas.ellipsoid(centre, (radius, 0.72 * radius, radius))
    free = canvas.free(sac.box, "aorta", "spine", "ribs")
    canvas.paint(sac.box, sac.inside & free, 46.0, organ="", finding=spec.HIATAL_HERNIA)
    inner = canvas.ellipsoid(centre, (radius - 4, 0.72 * radius - 4, radius - 4))
    free = canvas.free(inner.box, "aorta", "spine", "ribs")
    where = inner.inside & free
    canvas.paint(inner.box, where, 14.0, finding=spec.HIATAL_HERNIA)
    gas = where & (canvas.mesh(inner.box)[1] > centre[1] - 0.05 * radius)
    canvas.paint(inner.box, gas, -960.0, finding=spec.HIATAL_HERNIA)


def draw_arterial(canvas: Canvas, study: PhantomStudy, item: Finding) -> None:
    """Calcified plaques along the wall of a stretch of the aorta."""
    rng = np.random.default_rng(item.seed)
    first, last = LEVELS[item.place]
    for _ in range(2 * _COUNT[item.severity]):
        step = int(rng.integers(first, last))
        at = float(rng.uniform(0.0, 0.55 if item.place == "upper abdominal aorta" and step == 7 else 1.0))
        a, b = np.asarray(AORTA[step], float), np.asarray(AORTA[step + 1], float)
        axis = (b - a) / np.linalg.norm(b - a)
        around = np.cross(axis, rng.normal(0, 1, 3))
        around *= (AORTA_MM[step] + 1) / np.linalg.norm(around)
        spot = canvas.template(a + at * (b - a), around)
        along = axis * rng.uniform(4, 9)
        across = np.cross(axis, around) * rng.uniform(0.2, 0.45)
        for shift in (along, across):
            start, stop = canvas.template(spot, -shift), canvas.template(spot, shift)
            plaque = canvas.tube(start, stop, 2.6, 2.6)
            canvas.paint(plaque.box, plaque.inside, CALCIUM, finding=spec.ARTERIAL_CALCIFICATION)


def draw_coronary(canvas: Canvas, study: PhantomStudy, item: Finding) -> None:
    """Calcified segments of the coronary arteries in the fat on the heart's surface."""
    rng, heart = np.random.default_rng(item.seed), heart_of(study)
    named = CORONARIES if item.place == "three-vessel" else {item.place: CORONARIES[item.place]}
    for course in named.values():
        points = [heart.surface(canvas, azimuth, height, 1.04) for azimuth, height in course]
        segments = list(itertools.pairwise(points))
        start = int(rng.integers(0, 2)) if item.severity == "mild" else 0
        for p, q in segments[start : start + _COUNT[item.severity]]:
            _beads(canvas, p, q, 2.5, CALCIUM, spec.CORONARY_CALCIFICATION)


def _beads(canvas: Canvas, p: Point, q: Point, radius: float, hu: float, finding: str) -> None:
    """A tube over most of the way from p to q."""
    a, b = np.asarray(p), np.asarray(q)
    tube = canvas.tube(a, a + 0.82 * (b - a), radius, radius)
    canvas.paint(tube.box, tube.inside, hu, finding=finding)


def _wire(canvas: Canvas, points: Sequence[Point], radius: float, hu: float = METAL) -> None:
    for tube in canvas.path(points, radius, radius):
        canvas.paint(tube.box, tube.inside, hu, finding=spec.MEDICAL_MATERIAL)


def _front_y(canvas: Canvas, x: float) -> float:
    """The y of the front of the muscle layer at an x."""
    depth = SHELL * 0.5 + canvas.body.muscle_mm
    half_x, half_y = CAVITY[0] + depth, CAVITY[1] + depth
    return half_y * (1 - (abs(x) / half_x) ** 2.3) ** (1 / 2.3)


def _pacemaker(canvas: Canvas, heart: Heart) -> None:
    spot = (-70.0, _front_y(canvas, -70) + 1.0, 60.0)
    can = canvas.ellipsoid(spot, (23, 6.5, 19), turn_deg=24, power=3.0)
    canvas.paint(can.box, can.inside, METAL, finding=spec.MEDICAL_MATERIAL)
    atrium, ventricle = heart.surface(canvas, 10, 0.05, 0.6), heart.surface(canvas, 110, -0.6, 0.85)
    _wire(canvas, (spot, (-62, 44, 96), (-24, 22, 100), (26, 10, 84), (24, 6, 20), atrium, ventricle), 1.8)


def _port(canvas: Canvas, heart: Heart) -> None:
    spot = (66.0, _front_y(canvas, 66) + 2.0, 66.0)
    chamber = canvas.ellipsoid(spot, (15, 7, 15), turn_deg=-24)
    canvas.paint(chamber.box, chamber.inside, METAL, finding=spec.MEDICAL_MATERIAL)
    _wire(canvas, (spot, (58, 50, 104), (34, 16, 110), (28, 8, 80), (26, 6, 26)), 2.0, 1400.0)


def _central_line(canvas: Canvas, heart: Heart) -> None:
    _wire(canvas, ((44, 22, 150), (38, 16, 112), (29, 8, 88), (28, 6, 50), (24, 6, 12)), 2.6, 1500.0)


def _sternal_wires(canvas: Canvas, heart: Heart) -> None:
    for z in (70.0, 52.0, 34.0, 14.0, -6.0):
        ring = [(11 * np.cos(a), 84 + 9 * np.sin(a), z) for a in np.linspace(0, 2 * np.pi, 9)]
        _wire(canvas, ring, 1.8)


def _spinal_rods(canvas: Canvas, heart: Heart) -> None:
    for x in (-17.0, 17.0):
        heights = np.array((34.0, 10.0, -14.0, -38.0, -62.0), dtype=np.float32)
        levels = [(x, y - 24, z) for y, z in zip(spine_y(canvas, heights).tolist(), heights.tolist())]
        _wire(canvas, levels, 3.0)
        for px, y, z in levels:
            _wire(canvas, ((px, y, z), (px * 0.55, y + 26, z)), 2.6)


def _valve(canvas: Canvas, heart: Heart) -> None:
    ring = [
        (7 + 13 * np.cos(a), 17 + 11 * np.sin(a), 22 + 3 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 11)
    ]
    _wire(canvas, ring, 2.4)


_DEVICES: dict[str, Callable[[Canvas, Heart], None]] = {
    "pacemaker": _pacemaker,
    "port": _port,
    "central venous catheter": _central_line,
    "sternal wires": _sternal_wires,
    "spinal rods": _spinal_rods,
    "aortic valve": _valve,
}


def draw_material(canvas: Canvas, study: PhantomStudy, item: Finding) -> None:
    """A device or implant of metal (or of radio-opaque plastic)."""
    _DEVICES[item.variant](canvas, heart_of(study))


CHEST_FINDINGS: dict[str, Callable[[Canvas, PhantomStudy, Finding], None]] = {
    spec.HIATAL_HERNIA: draw_hernia,
    spec.LYMPHADENOPATHY: draw_nodes,
    spec.ARTERIAL_CALCIFICATION: draw_arterial,
    spec.CORONARY_CALCIFICATION: draw_coronary,
    spec.MEDICAL_MATERIAL: draw_material,
}
