"""The trunk: outline, fat, muscle, lungs, skeleton and the organs of the upper abdomen."""

from __future__ import annotations

import numpy as np

from components.cohort.phantom.canvas import F32, Bool, Box, Canvas
from components.cohort.phantom.spec import ORGAN_VALUES, Point

FAT, MUSCLE, FLUID, AIR, SOFT = -98.0, 52.0, 8.0, -990.0, 42.0
CAVITY = (118.0, 80.0)  # half-width and half-depth of the inner chest wall, template mm
SHELL = 14.0  # thickness of the layer that holds the ribs, template mm
POWER = 2.3
WHOLE: Box = (slice(None), slice(None), slice(None))


def spine_y(canvas: Canvas, z: F32) -> F32:
    """The y of the vertebral bodies' centres at a height, with the patient's kyphosis."""
    y = -64.0 - canvas.body.kyphosis_mm * (1 - ((z - 25) / 110) ** 2 * 0.9)
    return np.asarray(y, dtype=np.float32)


def apex_factor(z: F32) -> F32:
    """How the chest narrows towards the apex: 1 below z = 30, 0 at z = 128."""
    return np.clip(1 - (np.clip(z - 30, 0, None) / 98) ** 2.2, 0, 1)


def outline(canvas: Canvas, half_x: float, half_y: float, top: bool) -> F32:
    """A field that is below 1 inside an upright super-elliptic cylinder; `top` closes it at the apex."""
    x, y, z = canvas.mesh()
    flat = np.abs(x / half_x) ** POWER + np.abs(y / half_y) ** POWER
    factor = np.maximum(apex_factor(z), 1e-3) if top else 1 - 0.22 * np.clip((z - 70) / 70, 0, 1) ** 2
    return np.asarray(flat / factor, dtype=np.float32)


def diaphragm(canvas: Canvas) -> F32:
    """The height of the diaphragm `[X, Y, 1]`: two domes and the central tendon beneath the heart."""
    x, y, _ = canvas.mesh()
    breath = canvas.scan.breath_mm
    right = -30 - 48 * ((x - 58) / 58) ** 2 - 44 * ((y - 8) / 85) ** 2
    left = -40 - 44 * ((x + 60) / 58) ** 2 - 44 * ((y - 8) / 85) ** 2
    centre = -48 - 42 * ((x + 10) / 60) ** 2 - 46 * ((y - 22) / 72) ** 2
    height = np.maximum(np.maximum(right, left), centre) + breath
    return np.asarray(np.maximum(height, -92 + breath), dtype=np.float32)


def medial_border(y: F32) -> F32:
    """Half the width of the mediastinum at a y: wide at the spine, narrow behind the sternum."""
    return np.asarray(np.interp(y, (-80, -50, -20, 20, 50, 78), (26, 24, 20, 17, 9, 12)), dtype=np.float32)


def lobe_of(canvas: Canvas, box: Box) -> F32:
    """The lobe at each voxel of a box: 0 upper, 1 middle or lingula, 2 lower; fissures are planes."""
    x, y, z = canvas.mesh(box)
    lower = z < -0.86 * y
    middle = (z < 10) & ~lower
    return np.where(lower, 2, np.where(middle, 1, 0)) + np.zeros_like(x)


def draw_trunk(canvas: Canvas) -> None:
    """Paint the body's outline, fat, muscle, the chest's fat, both lungs and the table."""
    body, (half_x, half_y) = canvas.body, CAVITY
    muscle, fat = body.muscle_mm + SHELL * 0.5, body.fat_mm
    skin = outline(canvas, half_x + muscle + fat + 6, half_y + muscle + fat + 6, top=False) < 1
    if body.sex == "F":
        for side in (-1, 1):
            front = half_y + muscle + fat * 0.2
            breast = canvas.ellipsoid((60 * side, front, 8), (58, 20 + fat, 58))
            skin[breast.box] |= breast.inside
    canvas.hu[skin] = FAT
    wall = outline(canvas, half_x + muscle, half_y + muscle, top=False) < 1
    canvas.hu[wall & skin] = MUSCLE
    x, y, z = canvas.mesh()
    axilla = wall & (outline(canvas, half_x + 4, half_y + 8, top=True) > 1) & (z > 45) & (np.abs(x) > 86)
    canvas.hu[axilla & (np.abs(y) < 52)] = FAT
    cavity = outline(canvas, half_x, half_y, top=True) < 1
    canvas.hu[cavity] = FAT
    if body.sex == "F":
        for side in (-1, 1):
            gland = canvas.ellipsoid((62 * side, half_y + muscle + fat * 0.7, 6), (26, 9 + fat * 0.5, 26))
            canvas.paint(gland.box, gland.inside & ~wall[gland.box] & skin[gland.box], 25.0)
    _draw_lungs(canvas, cavity, x, y, z)
    if canvas.scan.table:
        depth = -(half_y + muscle + fat + 14)
        bed = (np.abs(y - depth - 0.0012 * x**2) < 4.5) & (np.abs(x) < 150)
        canvas.hu[np.broadcast_to(bed, canvas.shape) & ~skin] = -120.0


def _draw_lungs(canvas: Canvas, cavity: Bool, x: F32, y: F32, z: F32) -> None:
    border = medial_border(y)
    above = cavity & (z > diaphragm(canvas))
    lungs = above & ((x > border) | (x < -border))
    base = canvas.body.lung_hu - 12 * canvas.scan.breath_mm / 6
    texture = canvas.field(np.random.default_rng(canvas.body.seed), 11.0)
    np.copyto(canvas.hu, base - 0.35 * y + 14 * texture, where=lungs)
    right = np.broadcast_to(x > 0, canvas.shape)
    canvas.paint(WHOLE, lungs & right, None, organ="lung_right")
    canvas.paint(WHOLE, lungs & ~right, None, organ="lung_left")


def draw_skeleton(canvas: Canvas) -> None:
    """Paint vertebrae, ribs, sternum and scapulae."""
    _draw_spine(canvas)
    _draw_ribs(canvas)
    for z_top, z_low in ((78, 44), (42, -38)):
        bone = canvas.ellipsoid((0, 84, (z_top + z_low) / 2), (19, 6.5, (z_top - z_low) / 2), power=4)
        canvas.paint(bone.box, bone.inside, 260.0)
    for side in (-1, 1):
        blade = canvas.ellipsoid((96 * side, -82, 52), (34, 4.5, 44), turn_deg=24 * side)
        canvas.paint(blade.box, blade.inside & (canvas.hu[blade.box] > -150), 380.0)


def _draw_spine(canvas: Canvas) -> None:
    box = canvas.box((-46, -112, -400), (46, -40, 400))
    x, y, z = canvas.mesh(box)
    centre = spine_y(canvas, z)
    back = y - centre
    level = np.mod(z + 4, 24.0)
    column = (x / 18) ** 2 + (back / 15) ** 2
    canvas.paint(box, column + 0 * z < 1, 75.0, organ="spine")  # discs
    vertebra = (column < 1) & (level < 19)
    rim = vertebra & ((column > 0.72) | (level < 2.5) | (level > 16.5))
    canvas.paint(box, vertebra, 165.0)
    canvas.paint(box, rim, 420.0)
    arch = (np.abs(x) < 15) & (back < -13) & (back > -32) & (level < 15)
    process = (np.abs(x) < 4) & (back < -24) & (back > -46) & (level < 11)
    transverse = (np.abs(x) < 38) & (np.abs(back + 20) < 5) & (level < 9)
    bone = arch | process | transverse
    canvas.paint(box, bone, 340.0, organ="spine")
    canal = (x / 9) ** 2 + ((back + 22) / 8) ** 2 + 0 * z < 1
    canvas.paint(box, canal, 28.0, organ="spine")


def _draw_ribs(canvas: Canvas) -> None:
    half_x, half_y = CAVITY
    shell = outline(canvas, half_x + SHELL * 0.72, half_y + SHELL * 0.72, top=False) < 1
    shell &= outline(canvas, half_x + 1.5, half_y + 1.5, top=True) > 1
    _, _, z = canvas.mesh()
    shell &= (z < 118) & (z > -128)
    index = np.nonzero(shell)
    x, y, z = (axis[part] for axis, part in zip(canvas.axes, index))
    inside = (np.abs(x / (half_x + SHELL)) ** POWER + np.abs(y / (half_y + SHELL)) ** POWER) > (
        0.62 * apex_factor(z)
    )
    spacing = canvas.body.rib_spacing_mm
    phase = np.mod(z + 0.52 * (y + 80), spacing)
    rib = (phase < 0.46 * spacing) & (np.abs(x) > 18) & inside
    thick = np.abs(phase / (0.46 * spacing) - 0.5) > 0.3
    value = np.where(y > 58, 110.0, np.where(thick, 520.0, 300.0)).astype(np.float32)
    chosen = tuple(part[rib] for part in index)
    canvas.hu[chosen] = value[rib]
    canvas.organs[chosen] = ORGAN_VALUES["ribs"]


def draw_abdomen(canvas: Canvas) -> None:
    """Paint liver, spleen, stomach, kidneys and bowel below the diaphragm."""
    contrast, body = canvas.scan.contrast, canvas.body
    box = canvas.box((-400, -400, -400), (400, 400, -20))
    x, y, z = canvas.mesh(box)
    below = z < diaphragm(canvas)[box[0], box[1]] - 3
    half_x, half_y = CAVITY
    wall = np.abs(x / (half_x - 3)) ** POWER + np.abs(y / (half_y - 3)) ** POWER < 1
    room = below & wall & (canvas.organs[box] == 0) & (canvas.hu[box] < 0)
    noise = 4 * canvas.field(np.random.default_rng(body.seed + 1), 9.0, box)

    def organ(centre: Point, radii: Point, hu: float, name: str | None = None, power: float = 2.0) -> None:
        region = canvas.ellipsoid(centre, radii, power=power)
        part = tuple(slice(max(a.start, b.start or 0), max(a.stop, a.start)) for a, b in zip(region.box, box))
        part = (part[0], part[1], slice(region.box[2].start, min(region.box[2].stop, box[2].stop)))
        where = region.inside[:, :, : max(part[2].stop - part[2].start, 0)]
        inner = (part[0], part[1], slice(part[2].start - box[2].start, part[2].stop - box[2].start))
        where = where & room[inner]
        canvas.paint((part[0], part[1], part[2]), where, hu + noise[inner], organ=name)

    bowel = np.random.default_rng(body.seed + 2)
    for _ in range(7):
        spot = (float(bowel.uniform(-70, 70)), float(bowel.uniform(5, 58)), float(bowel.uniform(-170, -125)))
        organ(spot, (17, 14, 17), 30.0)
    grow = body.liver_scale
    organ((58, 4, -104), (76 * grow, 82, 84 * grow), 118.0 if contrast else 58.0, "liver", 2.4)
    organ((-2, 36, -80), (54 * grow, 34, 38 * grow), 118.0 if contrast else 58.0, "liver")
    organ((-56, 20, -88), (34, 40, 36), 36.0, "stomach")
    grow = body.spleen_scale
    organ((-90, -38, -80), (26 * grow, 42 * grow, 40 * grow), 128.0 if contrast else 50.0, "spleen")
    gas = canvas.ellipsoid((-56, 20, -88), (30, 36, 32))
    level = (canvas.mesh(gas.box)[1] > 36) & gas.inside
    canvas.paint(gas.box, level & ~canvas.free(gas.box, "stomach"), AIR + 20)
    for name, spot in (("kidney_right", (53, -46, -146)), ("kidney_left", (-55, -46, -138))):
        organ((spot[0], spot[1], spot[2]), (27, 25, 54), 165.0 if contrast else 34.0, name)
        pelvis = canvas.ellipsoid((spot[0] * 0.92, spot[1] + 4, spot[2] - 6), (9, 10, 26))
        canvas.paint(pelvis.box, pelvis.inside & (canvas.organs[pelvis.box] != 0), 60.0 if contrast else 10.0)
