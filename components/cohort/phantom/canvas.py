"""A voxel grid on which anatomy is painted: shapes in patient millimetres, each within its bounding box.

Positions are template millimetres (see `spec`); radii and lengths of shapes are real millimetres unless said
otherwise, so that a nodule of 12 mm is 12 mm in a small and in a tall patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.cohort.phantom.spec import FINDING_VALUES, ORGAN_VALUES, Acquisition, Body, Point

OUTSIDE_HU = -1000.0  # air around the patient
F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Mesh = tuple[F32, F32, F32]
Vector = Sequence[float] | NDArray[Any]  # three coordinates


@dataclass
class Region:
    """A bounding box on a canvas with a field inside it that is below 1 within the shape."""

    box: Box
    value: F32

    @property
    def inside(self) -> Bool:
        """Where the shape is."""
        mask: Bool = self.value < 1
        return mask


class Canvas:
    """HU, organ labels and finding labels of one study in RAS order, `[X, Y, Z]`."""

    def __init__(self, body: Body, scan: Acquisition) -> None:
        self.body, self.scan = body, scan
        self.shape = scan.matrix
        self.scale = np.asarray(body.scale, dtype=np.float32)
        axes = []
        for axis, (count, spacing) in enumerate(zip(scan.matrix, scan.spacing_mm)):
            centre = (0.0, -8.0, -12.0)[axis] + scan.offset_mm[axis]
            physical = (np.arange(count) - (count - 1) / 2) * spacing + centre
            axes.append((physical / body.scale[axis]).astype(np.float32))
        self.axes: Mesh = (axes[0], axes[1], axes[2])
        self.hu = np.full(self.shape, OUTSIDE_HU, dtype=np.float32)
        self.organs = np.zeros(self.shape, dtype=np.uint8)
        self.findings = np.zeros(self.shape, dtype=np.uint8)
        self.thinnest_mm = 0.5 * max(scan.spacing_mm)

    def mesh(self, box: Box | None = None) -> Mesh:
        """Open coordinate arrays `[X,1,1]`, `[1,Y,1]`, `[1,1,Z]` of a box (or of all)."""
        x, y, z = (axis[part] for axis, part in zip(self.axes, box)) if box else self.axes
        return x[:, None, None], y[None, :, None], z[None, None, :]

    def box(self, low: Vector, high: Vector) -> Box:
        """The voxels between two template points; an empty box if they lie outside the grid."""
        parts = []
        for axis, start, stop in zip(self.axes, low, high):
            first, last = np.searchsorted(axis, (start, stop))
            parts.append(slice(int(first), int(last)))
        return parts[0], parts[1], parts[2]

    def ellipsoid(
        self, centre: Vector, radii_mm: Vector, turn_deg: float = 0.0, power: float = 2.0
    ) -> Region:
        """An ellipsoid turned about the z axis; `power` above 2 makes it box-like."""
        radii = np.asarray(radii_mm, dtype=np.float32) / self.scale
        reach = radii.copy()
        if turn_deg:
            reach[:2] = float(np.hypot(radii[0], radii[1])) if power > 2 else max(radii[0], radii[1])
        box = self.box(np.asarray(centre) - reach, np.asarray(centre) + reach)
        x, y, z = self.mesh(box)
        dx, dy, dz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
        if turn_deg:
            cos, sin = np.float32(np.cos(np.radians(turn_deg))), np.float32(np.sin(np.radians(turn_deg)))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        if power == 2.0:
            value = (dx / radii[0]) ** 2 + (dy / radii[1]) ** 2 + (dz / radii[2]) ** 2
        else:
            value = sum(np.abs(delta / radius) ** power for delta, radius in zip((dx, dy, dz), radii))
        return Region(box, np.asarray(value, dtype=np.float32))

    def tube(self, start: Vector, stop: Vector, first_mm: float, last_mm: float) -> Region:
        """A capsule whose radius goes from `first_mm` to `last_mm`; its value is distance / radius."""
        first, last = max(first_mm, self.thinnest_mm), max(last_mm, self.thinnest_mm)
        p = np.asarray(start, dtype=np.float32)
        q = np.asarray(stop, dtype=np.float32)
        reach = max(first, last) / self.scale
        box = self.box(np.minimum(p, q) - reach, np.maximum(p, q) + reach)
        mesh = self.mesh(box)
        offset = [(axis - p[i]) * self.scale[i] for i, axis in enumerate(mesh)]
        direction = (q - p) * self.scale
        length2 = np.float32(max(float(direction @ direction), 1e-6))
        along = (offset[0] * direction[0] + offset[1] * direction[1] + offset[2] * direction[2]) / length2
        t = np.clip(along, 0, 1)
        dist2 = (offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2) + t * (t - 2 * along) * length2
        radius = first + (last - first) * t
        return Region(box, np.sqrt(np.maximum(dist2, 0)) / radius)

    def path(self, points: Sequence[Vector], first_mm: float, last_mm: float) -> list[Region]:
        """Tubes along a polyline, tapering from `first_mm` to `last_mm`."""
        radii = np.linspace(first_mm, last_mm, len(points))
        pairs = zip(points, points[1:], radii, radii[1:])
        return [self.tube(p, q, float(a), float(b)) for p, q, a, b in pairs]

    def field(self, rng: np.random.Generator, cell_mm: float, box: Box | None = None) -> F32:
        """A smooth random field of unit variance with bumps of about `cell_mm`, on a box or on all.

        It is defined on the patient, not on the grid: the same stream gives the same field on any grid.
        """
        nodes = [int(np.ceil(400 / cell_mm)) + 4] * 3
        grid = rng.standard_normal(nodes, dtype=np.float32)
        parts = box or (slice(None),) * 3
        weights = []
        for axis, part, scale, count in zip(self.axes, parts, self.scale, nodes):
            weights.append(_spline_weights(axis[part] * scale, cell_mm, count))
        used = [np.flatnonzero(matrix.sum(axis=0)) for matrix in weights]
        low = [int(index[0]) if index.size else 0 for index in used]
        high = [int(index[-1]) + 1 if index.size else 1 for index in used]
        grid = grid[tuple(slice(a, b) for a, b in zip(low, high))]
        x, y, z = (matrix[:, a:b] for matrix, a, b in zip(weights, low, high))
        half = np.tensordot(y, np.tensordot(x, grid, (1, 0)), (1, 1))  # [Y, X, nz]
        result = np.matmul(half.transpose(1, 0, 2), z.T)
        return np.asarray(result / np.float32(0.332), dtype=np.float32)  # (151/315)^(3/2) of a cubic B-spline

    def paint(
        self,
        box: Box,
        where: Bool,
        hu: float | F32 | None,
        *,
        organ: str | None = None,
        finding: str | None = None,
        clear: bool = False,
    ) -> None:
        """Set HU (and labels) where `where` is true in a box; `clear` removes finding labels there."""
        if hu is not None:
            if isinstance(hu, np.ndarray):
                np.copyto(self.hu[box], hu, where=where)
            else:
                self.hu[box][where] = hu
        if organ is not None:
            self.organs[box][where] = ORGAN_VALUES[organ] if organ else 0
        if finding is not None:
            self.findings[box][where] = FINDING_VALUES[finding]
        elif clear:
            self.findings[box][where] = 0

    def lung(self, box: Box, side: str = "bilateral") -> Bool:
        """Where a box is lung of a side."""
        organs = self.organs[box]
        left, right = ORGAN_VALUES["lung_left"], ORGAN_VALUES["lung_right"]
        if side == "bilateral":
            return (organs == left) | (organs == right)
        return organs == (left if side == "left" else right)

    def free(self, box: Box, *organs: str) -> Bool:
        """Where a box is none of the named organs."""
        return np.isin(self.organs[box], [ORGAN_VALUES[name] for name in organs], invert=True)

    def template(self, point: Vector, shift_mm: Vector) -> Point:
        """A template point moved by real millimetres."""
        x, y, z = (float(p + s / c) for p, s, c in zip(point, shift_mm, self.scale))
        return x, y, z


def _spline_weights(position_mm: F32, cell_mm: float, count: int) -> F32:
    """Cubic B-spline weights `[n, count]` of positions in [-200, 200] mm on nodes `cell_mm` apart."""
    u = np.clip((position_mm + 200) / cell_mm, 0, 400 / cell_mm) + 1
    base = np.floor(u).astype(np.int64)
    t = (u - base).astype(np.float32)
    basis = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((len(u), count), dtype=np.float32)
    for shift, value in enumerate(basis):
        weights[np.arange(len(u)), np.minimum(base + shift - 1, count - 1)] += value / 6
    return weights
