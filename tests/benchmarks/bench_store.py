"""Figures of the store: seconds a volume to preprocess, bytes, and volumes read a second.

    python tests/benchmarks/bench_store.py [--root FOLDER] [--repeats 5] [--size 512 512 300]

With --root it reads that project's store (after preprocess); it always measures one invented full-resolution
series through read, geometry, resampling and writing. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components.base.volume_files import read_volume, write_nifti
from components.volumes.contract import Contract, to_store
from components.volumes.geometry import GeometryRules, check
from components.volumes.store import VolumeStore, write_array
from components.volumes.views import global_view, local_crop


def best_ms(action: Callable[[], Any], repeats: int) -> float:
    """The least of `repeats` wall times in milliseconds: other work on the machine only adds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return round(min(times) * 1000, 2)


def full_resolution(size: tuple[int, int, int], repeats: int) -> dict[str, Any]:
    """One noisy body of `size` voxels at 0.7 x 0.7 x 1.0 mm to 5 mm and to 2 mm."""
    generator = np.random.default_rng(0)
    hu = generator.normal(-1000, 15, size).astype(np.int16)
    inner = tuple(slice(length // 6, -length // 6) for length in size)
    hu[inner] += 1040
    found: dict[str, Any] = {"voxels": list(size)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_nifti(hu, np.diag([-0.7, -0.7, 1.0, 1.0]), path)
        found["read_ms"] = best_ms(lambda: read_volume(path), repeats)
        volume = read_volume(path)
        found["geometry_ms"] = best_ms(lambda: check(volume, GeometryRules()), repeats)
        for spacing in (5.0, 2.0):
            contract = Contract(
                spacing_mm=(spacing,) * 3, size=(64, 64, 64), hu_window=(-1000, 1000), output_range=(0, 1)
            )
            stored = to_store(volume.array, volume.affine, contract)
            target = Path(folder) / "volume.b2nd"
            found[f"to_{spacing:g}mm"] = {
                "resample_ms": best_ms(lambda c=contract: to_store(volume.array, volume.affine, c), repeats),
                "write_ms": best_ms(lambda s=stored, t=target: write_array(t, s, {}), repeats),
                "shape": list(stored.shape),
                "ratio": round(stored.nbytes / target.stat().st_size, 2),
            }
    return found


def store_figures(folder: Path, repeats: int) -> dict[str, Any]:
    """Reading speed of a store: whole volumes, global views and crops, first with and then without checking."""
    keys = VolumeStore(folder).keys()
    contract = Contract.load(folder)
    size = tuple(max(8, length * 3 // 4) for length in contract.size)
    found: dict[str, Any] = {"volumes": len(keys)}
    first = best_ms(lambda: [VolumeStore(folder).read(key) for key in keys], repeats)
    found["open_and_verify_volumes_per_s"] = round(len(keys) / first * 1000, 1)
    store, generator = VolumeStore(folder), np.random.default_rng(0)
    readers: dict[str, Callable[[str], Any]] = {
        "read": store.read,
        "global_view": lambda key: global_view(store, key, contract),
        "local_crop": lambda key: local_crop(store, key, (size[0], size[1], size[2]), contract, generator),
    }
    for name, reader in readers.items():
        spent = best_ms(lambda read=reader: [read(key) for key in keys], repeats)
        found[f"{name}_per_s"] = round(len(keys) / spent * 1000, 1)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Figures of the volume store")
    parser.add_argument("--root", type=Path, help="a project with artifacts/preprocess")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 300])
    args = parser.parse_args()
    x, y, z = args.size
    figures: dict[str, Any] = {"full_resolution": full_resolution((x, y, z), args.repeats)}
    if args.root:
        figures["store"] = store_figures(args.root / "artifacts/preprocess", args.repeats)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
