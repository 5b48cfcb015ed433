"""Write what TorchIO makes of small CTs by COLIPRI's chain: the reference that our contract is tested against.

    python tests/preprocessing_reference.py tests/golden/colipri_preprocessing.safetensors

Run it with an interpreter that has torchio>=1.1,<2 (an environment of its own: the project does not need it). The chain
is that of the package `colipri` 0.1.3: ToOrientation RAS, Resample to an isotropic spacing (linear, no antialiasing),
Clamp, RescaleIntensity, CropOrPad with the minimum.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Case:
    """A CT of `shape` voxels whose array axes run along `order` (of x, y, z) with these signs and mm."""

    name: str
    shape: tuple[int, int, int]
    order: tuple[int, int, int]
    signs: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    target_mm: float
    size: int

    def affine(self) -> npt.NDArray[np.float64]:
        """Voxels to RAS+ millimetres."""
        affine = np.eye(4)
        affine[:3, :3] = 0
        for axis in range(3):
            affine[self.order[axis], axis] = self.signs[axis] * self.spacing_mm[axis]
        affine[:3, 3] = (-11.0, 7.5, 130.0)
        return affine

    def array(self) -> npt.NDArray[np.int16]:
        """HU from -1024 to 2000, smooth and rough parts, without any symmetry."""
        rng = np.random.default_rng(sum(self.shape))
        grid = np.indices(self.shape).astype(np.float64)
        waves = np.sin(grid[0] / 5) + np.cos(grid[1] / 7 + grid[2] / 11) + grid[2] / self.shape[2]
        hu = 500 * waves - 400 + rng.integers(-150, 150, self.shape)
        hu[: self.shape[0] // 4, :, -self.shape[2] // 3 :] = 1800
        x, y, z = (side // 2 for side in self.shape)
        hu[
            x - 6 : x + 6, y - 6 : y + 6, z - 6 : z + 6
        ] = -1024  # the air that every CT has: the minimum to pad with
        return np.clip(np.rint(hu), -1024, 2000).astype(np.int16)


CASES = (
    Case("lps_thin_slices", (60, 52, 34), (0, 1, 2), (-1, -1, 1), (0.9, 0.9, 1.5), 2.0, 24),
    Case("sar_thick_slices", (16, 50, 44), (2, 1, 0), (1, 1, 1), (3.3, 0.8, 1.1), 2.0, 24),
    Case("ras_already_2_mm", (20, 30, 24), (0, 1, 2), (1, 1, 1), (2.0, 2.0, 2.0), 2.0, 24),
    Case("pir_at_1_mm", (40, 31, 37), (1, 2, 0), (-1, -1, 1), (0.7, 1.7, 0.9), 1.0, 32),
)


def reference(case: Case) -> npt.NDArray[np.float32]:
    """The case by TorchIO, float32 [1, size, size, size]."""
    import torch
    import torchio as tio

    hu = torch.from_numpy(
        case.array().astype(np.float32)
    )  # of whole numbers TorchIO would make whole numbers again
    image = tio.ScalarImage(tensor=hu[None], affine=case.affine())
    chain = tio.Compose(
        [
            tio.ToOrientation("RAS"),
            tio.Resample(case.target_mm, image_interpolation="linear", antialias=False),
            tio.Clamp(-1000, 1000),
            tio.RescaleIntensity(out_min_max=(-1, 1), in_min_max=(-1000, 1000)),
            tio.CropOrPad(case.size, padding_mode="minimum"),
        ]
    )
    made: npt.NDArray[np.float32] = chain(image).data.numpy().astype(np.float32)
    return made


def main() -> None:
    """Write the file named on the command line."""
    from safetensors.numpy import save_file

    save_file({case.name: np.ascontiguousarray(reference(case)) for case in CASES}, sys.argv[1])


if __name__ == "__main__":
    main()
