"""Findings of the lungs and pleura, each drawn where its specification says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from components.cohort.phantom import spec
from components.cohort.phantom.canvas import F32, Bool, Box, Canvas, Region
from components.cohort.phantom.catalogue import LOBES, lobe_side
from components.cohort.phantom.chest import HILUM, LOBE_TARGET, draw_bronchus
from components.cohort.phantom.spec import Finding
from components.cohort.phantom.torso import FLUID, WHOLE, lobe_of

GRADE = {"mild": 0, "moderate": 1, "severe": 2}
_LOBE_PART = {"upper": 0, "middle": 1, "lower": 2, "lingula": 1}


def in_lobe(canvas: Canvas, box: Box, lobe: str) -> Bool:
    """Where a box is lung of the named lobe (the lingula is the lower part of the left upper lobe)."""
    part = next(value for word, value in _LOBE_PART.items() if word in lobe)
    return canvas.lung(box, lobe_side(lobe)) & (lobe_of(canvas, box) == part)


def lumpy(canvas: Canvas, region: Region, rng: np.random.Generator, cell_mm: float, depth: float) -> F32:
    """A region's value with a bumpy surface; below 1 inside."""
    return region.value + depth * canvas.field(rng, cell_mm, region.box)


def zone_weight(z: F32, place: str) -> F32:
    """1 in the named zone of the lungs and 0 outside, with a soft border."""
    if place == "diffuse":
        return np.ones_like(z)
    height = (z - 12) / 12 if place == "upper" else (12 - z) / 12
    return np.asarray(1 / (1 + np.exp(-height)), dtype=np.float32)


def draw_mosaic(canvas: Canvas, item: Finding) -> None:
    """Geographic areas of lower and higher attenuation."""
    rng = np.random.default_rng(item.seed)
    _, _, z = canvas.mesh()
    strength = (0.8, 1.0, 1.25)[GRADE[item.severity]]
    pattern = canvas.field(rng, 30.0)
    weight = zone_weight(z, item.place)
    lung = canvas.lung(WHOLE) & (canvas.hu < -600) & (weight > 0.5)
    bright, dark = lung & (pattern > 0.15), lung & (pattern < -0.15)
    canvas.hu[bright] += 190 * strength
    canvas.hu[dark] -= 75 * strength
    canvas.paint(WHOLE, bright, None, finding=spec.MOSAIC)
    canvas.paint(WHOLE, dark, None, finding=spec.MOSAIC)


def draw_emphysema(canvas: Canvas, item: Finding) -> None:
    """Round areas without lung tissue, within the lobules or along the pleura."""
    rng = np.random.default_rng(item.seed)
    x, y, z = canvas.mesh()
    holes = canvas.field(rng, 9.0)
    limit = (0.85, 0.55, 0.2)[GRADE[item.severity]]
    weight = zone_weight(z, item.place)
    if item.variant == "paraseptal":
        edge = np.abs(x / 118) ** 2.3 + np.abs(y / 80) ** 2.3
        weight = weight * np.clip((edge - 0.34) / 0.2, 0, 1)
        limit -= 0.55
    lung = canvas.lung(WHOLE) & (weight > 0.4)
    where = lung & (holes > limit + 0.5 * (1 - weight))
    canvas.paint(WHOLE, where, -985.0, finding=spec.EMPHYSEMA)


def draw_septal(canvas: Canvas, item: Finding) -> None:
    """A network of thickened septa in the outer lung of a zone."""
    rng = np.random.default_rng(item.seed)
    x, y, z = canvas.mesh()
    sheets = np.abs(canvas.field(rng, 10.0))
    np.minimum(sheets, np.abs(canvas.field(rng, 12.0)), out=sheets)
    width = (0.12, 0.16, 0.2)[GRADE[item.severity]]
    outer = np.abs(x / 118) ** 2 + np.abs(y / 80) ** 2 > 0.36
    zone = zone_weight(z, item.place) > 0.5
    where = canvas.lung(WHOLE, item.side) & outer & zone & (sheets < width)
    canvas.paint(WHOLE, where, -120.0, finding=spec.SEPTAL)


def draw_opacity(canvas: Canvas, item: Finding) -> None:
    """Ground-glass attenuation through which vessels remain visible."""
    rng = np.random.default_rng(item.seed)
    patchy = item.variant == "patchy"
    radius = item.size_mm / 2
    for index in range(4 if patchy else 1):
        shift = rng.normal(0, 0.5 * radius, 3) if patchy and index else (0, 0, 0)
        size = radius * (0.62 if patchy else 1.0)
        region = canvas.ellipsoid(canvas.template(item.centre, shift), (size, size, size))
        where = (lumpy(canvas, region, rng, 13.0, 0.28) < 1) & in_lobe(canvas, region.box, item.place)
        where &= canvas.hu[region.box] < -390
        glass = -400 + 30 * canvas.field(rng, 8.0, region.box)
        canvas.paint(region.box, where, glass, finding=spec.OPACITY)


def draw_fibrotic(canvas: Canvas, item: Finding) -> None:
    """A stellate scar: strands from a dense core to the pleura, with a few calcified points."""
    rng = np.random.default_rng(item.seed)
    reach = item.size_mm / 2
    core = canvas.ellipsoid(item.centre, (0.22 * item.size_mm,) * 3)
    where = (lumpy(canvas, core, rng, 7.0, 0.4) < 1) & canvas.lung(core.box)
    canvas.paint(core.box, where, 45.0, finding=spec.FIBROTIC_SEQUELA)
    for _ in range((7, 11)[GRADE[item.severity]]):
        direction = rng.normal(0, 1, 3) + np.array((0.35 * np.sign(item.centre[0]), 0, 0))
        direction *= reach * rng.uniform(0.8, 1.15) / np.linalg.norm(direction)
        strand = canvas.tube(item.centre, canvas.template(item.centre, direction), 2.6, 1.8)
        canvas.paint(strand.box, strand.inside & canvas.lung(strand.box), 20.0, finding=spec.FIBROTIC_SEQUELA)
    for _ in range(3):
        spot = canvas.template(item.centre, rng.normal(0, 0.16 * item.size_mm, 3))
        grain = canvas.ellipsoid(spot, (canvas.thinnest_mm + 0.6,) * 3)
        where = grain.inside & canvas.lung(grain.box)
        canvas.paint(grain.box, where, 520.0, finding=spec.FIBROTIC_SEQUELA)


def draw_peribronchial(canvas: Canvas, item: Finding) -> None:
    """Cuffs of soft tissue around the bronchi from the hilum outwards."""
    wall = (2.8, 3.6, 4.4)[GRADE[item.severity]]
    for lobe in LOBES:
        side = lobe_side(lobe)
        if item.side not in (side, "bilateral"):
            continue
        hilum, target = np.asarray(HILUM[side]), np.asarray(LOBE_TARGET[lobe])
        start, stop = hilum + 0.1 * (target - hilum), hilum + 0.62 * (target - hilum)
        for shift in (np.array((0, -9, 5)), np.array((0, 9, -4))):
            a, b = start + shift, stop + 1.8 * shift
            draw_bronchus(canvas, a, b, 2.6, 2.0, wall, spec.PERIBRONCHIAL, 30.0)


def draw_bronchiectasis(canvas: Canvas, item: Finding) -> None:
    """Dilated, thick-walled airways in a lobe: tubes, beaded tubes, or clustered cysts."""
    rng = np.random.default_rng(item.seed)
    grade, centre = GRADE[item.severity], np.asarray(item.centre)
    outward = centre - np.asarray(HILUM[item.side])
    outward = outward / np.linalg.norm(outward)
    if item.variant == "cystic":
        for _ in range((5, 7, 10)[grade]):
            spot = canvas.template(item.centre, rng.normal(0, 11, 3))
            size = rng.uniform(4.5, 7.0)
            draw_bronchus(canvas, spot, spot, size, size, 2.2, spec.BRONCHIECTASIS, 20.0)
        return
    lumen = (3.4, 4.2, 5.0)[grade]
    for _ in range((4, 5, 6)[grade]):
        spread = rng.normal(0, 11, 3)
        start = canvas.template(item.centre, tuple(-24 * outward + 0.4 * spread))
        stop = canvas.template(item.centre, tuple(20 * outward + spread))
        draw_bronchus(canvas, start, stop, lumen, lumen, 2.2, spec.BRONCHIECTASIS, 20.0)
        if item.variant == "varicose":
            for t in (0.35, 0.7, 1.0):
                bead = tuple(np.asarray(start) + t * (np.asarray(stop) - np.asarray(start)))
                draw_bronchus(canvas, bead, bead, lumen * 1.4, lumen * 1.4, 2.2, spec.BRONCHIECTASIS, 20.0)


def draw_consolidation(canvas: Canvas, item: Finding) -> None:
    """Airspace filling with air bronchograms."""
    rng = np.random.default_rng(item.seed)
    radius = item.size_mm / 2
    region = canvas.ellipsoid(item.centre, (radius * 1.15, radius, radius * 1.1))
    where = (lumpy(canvas, region, rng, 16.0, 0.22) < 1) & in_lobe(canvas, region.box, item.place)
    canvas.paint(region.box, where, 38 + 8 * canvas.field(rng, 8.0, region.box), finding=spec.CONSOLIDATION)
    hilum = np.asarray(HILUM[item.side])
    outward = np.asarray(item.centre) - hilum
    for _ in range(3):
        stop = np.asarray(item.centre) + 0.3 * radius * rng.normal(0, 1, 3)
        tube = canvas.tube(np.asarray(item.centre) - 0.4 * outward, stop, 2.4, 1.8)
        airway = tube.inside & (canvas.findings[tube.box] == spec.FINDING_VALUES[spec.CONSOLIDATION])
        canvas.paint(tube.box, airway, -850.0)


def draw_atelectasis(canvas: Canvas, item: Finding) -> None:
    """Collapsed lung: a plate, or a wedge with its base on the pleura."""
    rng = np.random.default_rng(item.seed)
    reach = item.size_mm / 2
    box = canvas.ellipsoid(item.centre, (reach,) * 3).box
    axes = (axis - c for axis, c in zip(canvas.mesh(box), item.centre))
    dx, dy, dz = (delta * scale for delta, scale in zip(axes, canvas.scale))
    tilt = rng.uniform(-0.35, 0.35, 2)
    height = dz - tilt[0] * dx - tilt[1] * dy + 2.5 * canvas.field(rng, 22.0, box)
    radial = dx**2 + dy**2 + dz**2 < reach**2
    if item.variant == "plate-like":
        half = max(4.2, canvas.thinnest_mm)
        where = radial & (np.abs(height) < half)
    else:
        lateral = dx * np.sign(item.centre[0]) + reach
        where = radial & (np.abs(height) < 3.5 + 0.26 * lateral) & (np.abs(dy) < 6 + 0.3 * lateral)
    where = where & in_lobe(canvas, box, item.place)
    canvas.paint(box, where, 48.0, finding=spec.ATELECTASIS)


def draw_nodule(canvas: Canvas, item: Finding) -> None:
    """A solid, part-solid, calcified or spiculated nodule."""
    rng = np.random.default_rng(item.seed)
    radius = item.size_mm / 2
    region = canvas.ellipsoid(item.centre, (radius,) * 3)
    lung = canvas.lung(region.box)
    value = lumpy(canvas, region, rng, 0.8 * radius + 4, 0.1)
    hu = {"solid": 45.0, "spiculated": 38.0, "calcified": 420.0, "part-solid": -430.0}[item.variant]
    canvas.paint(region.box, (value < 1) & lung, hu, finding=spec.NODULE)
    if item.variant == "part-solid":
        canvas.paint(region.box, (value < 0.3) & lung, 40.0, finding=spec.NODULE)
    if item.variant == "spiculated":
        for _ in range(12):
            direction = rng.normal(0, 1, 3)
            direction *= radius * 1.65 / np.linalg.norm(direction)
            tip = canvas.template(item.centre, tuple(direction))
            spike = canvas.tube(item.centre, tip, 2.0, 0.8)
            canvas.paint(spike.box, spike.inside & canvas.lung(spike.box), -40.0, finding=spec.NODULE)


def draw_pleural_effusion(canvas: Canvas, item: Finding) -> None:
    """Fluid that layers along the back of a pleural space, deeper at its base."""
    _, y, z = canvas.mesh()
    depth = item.size_mm / canvas.scale[1]
    level = -80 + depth * (1 - np.clip((z + 75) / 260, 0, 0.7))
    where = canvas.lung(WHOLE, item.side) & (y < level)
    canvas.paint(WHOLE, where, FLUID + 4, organ="", finding=spec.PLEURAL_EFFUSION)


Draw = Callable[[Canvas, Finding], None]
# In this order: what is diffuse first, what is focal over it, fluid last.
LUNG_FINDINGS: dict[str, Draw] = {
    spec.MOSAIC: draw_mosaic,
    spec.EMPHYSEMA: draw_emphysema,
    spec.SEPTAL: draw_septal,
    spec.OPACITY: draw_opacity,
    spec.FIBROTIC_SEQUELA: draw_fibrotic,
    spec.PERIBRONCHIAL: draw_peribronchial,
    spec.BRONCHIECTASIS: draw_bronchiectasis,
    spec.CONSOLIDATION: draw_consolidation,
    spec.ATELECTASIS: draw_atelectasis,
    spec.NODULE: draw_nodule,
}
