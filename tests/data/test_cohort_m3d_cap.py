"""M3D-Cap's layout: slices in integer order, 8-bit grey mapped on a window, short series left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.base.errors import ConfigError
from components.base.volume_files import read_volume
from components.cohort.sources.m3d_cap import M3dCap
from components.cohort.study import RawSeries, Refused
from tests.cohort_support import ingest, project, rows_of, rules_of

DEPTH = 48


def make_series(
    folder: Path, depth: int = DEPTH, *, suffix: str = ".png", side: int = 32, seed: int = 0
) -> None:
    """Slices named 0 to depth - 1 whose first pixel is the slice's number."""
    folder.mkdir(parents=True)
    for index in range(depth):
        grey = np.random.default_rng(seed + index).integers(0, 256, (side, side + 4), dtype=np.uint8)
        grey[0, 0] = index
        Image.fromarray(grey).save(folder / f"{index}{suffix}")


def make_tree(root: Path) -> Path:
    """Two cases: one study with a long and a short series, one with a long one and without text."""
    case = root / "ct_case" / "000006" / "Study_1"
    make_series(case / "Axial_lung")
    make_series(case / "Short", 20)
    (case / "text.txt").write_text("There is a 4 mm nodule in the left upper lobe.")
    make_series(root / "ct_case" / "000010" / "Study_1" / "Axial", seed=900)
    return root


def listed(root: Path, **options: Any) -> list[RawSeries | Refused]:
    """What the source lists of a tree."""
    return list(M3dCap(M3dCap.Params(**options), root, 0).series())


def written(item: RawSeries | Refused, folder: Path) -> Any:
    """The volume that a series writes."""
    assert isinstance(item, RawSeries)
    item.write(folder / "out.nii.gz", folder, "x")
    return read_volume(folder / "out.nii.gz")


def test_ingest(tmp_path: Path) -> None:
    make_tree(tmp_path / "archive")
    root = project(
        tmp_path / "project", tmp_path / "archive", [{"source": "m3d_cap"}], max_quarantined_fraction=0.0
    )
    assert ingest(root) == 0
    assert rules_of(root) == ["left_out.depth"]
    rows = rows_of(root, "manifest")
    assert sorted(bool(row["report"]) for row in rows) == [False, True]
    assert all(row["labels"] == [{"name": "intensity=8_bit", "value": 1}] for row in rows)


def test_grey_orientation_and_order(tmp_path: Path) -> None:
    (first, *_) = listed(make_tree(tmp_path), hu_window=(-1000.0, 1550.0), spacing_mm=(0.5, 0.6, 2.0))
    volume = written(first, tmp_path)
    assert volume.array.shape == (36, 32, DEPTH)  # columns, rows, slices
    np.testing.assert_array_equal(volume.array[0, 0, :], np.arange(DEPTH) * 10 - 1000)
    np.testing.assert_allclose(volume.affine, np.diag([-0.5, -0.6, -2.0, 1.0]), atol=1e-6)
    grey = np.random.default_rng(7).integers(0, 256, (32, 36), dtype=np.uint8)
    np.testing.assert_array_equal(volume.array[3:, 5:, 7], (grey[5:, 3:].T.astype(int) * 10 - 1000))
    (first, *_) = listed(tmp_path, first_slice="inferior")
    assert written(first, tmp_path).affine[2, 2] == 1.0


def test_slices_of_another_size_are_dropped(tmp_path: Path) -> None:
    make_tree(tmp_path)
    folder = tmp_path / "ct_case/000006/Study_1/Axial_lung"
    Image.new("L", (9, 9)).save(folder / "100.png")
    Image.new("RGB", (36, 32), (9, 9, 9)).save(folder / "101.png")
    (first, *_) = listed(tmp_path, hu_window=(0.0, 255.0))
    volume = written(first, tmp_path)
    assert volume.array.shape[2] == DEPTH + 1
    assert (volume.array[:, :, -1] == 9).all()  # colour becomes grey


def test_the_number_of_slices_after_dropping_counts(tmp_path: Path) -> None:
    make_tree(tmp_path / "archive")
    folder = tmp_path / "archive/ct_case/000006/Study_1/Axial_lung"
    Image.new("L", (9, 9)).save(folder / "5.png")
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "m3d_cap"}])
    assert ingest(root) == 0
    assert rules_of(root) == ["left_out.depth", "m3d_cap.sizes_mixed"]


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_damaged_slices(tmp_path: Path, suffix: str) -> None:
    make_series(tmp_path / "archive/ct_case/1/S/A", suffix=suffix)
    make_series(tmp_path / "archive/ct_case/2/S/A", suffix=suffix, seed=99)
    path = tmp_path / f"archive/ct_case/1/S/A/7{suffix}"
    data = path.read_bytes()
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "m3d_cap"}])
    for point in np.linspace(0, len(data) - 3, 6).astype(int):
        path.write_bytes(data[:point])
        assert ingest(root) == 0
        assert rules_of(root) == ["volume.corrupt"]
    if suffix == ".png":
        for place in np.linspace(20, len(data) - 13, 12).astype(int):
            flipped = bytearray(data)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            assert ingest(root) == 0
            assert rules_of(root) == ["volume.corrupt"], place


@pytest.mark.parametrize(
    ("name", "rule"), [("scout.png", "m3d_cap.slice_name"), ("007.png", "m3d_cap.slice_duplicate")]
)
def test_odd_names(tmp_path: Path, name: str, rule: str) -> None:
    make_tree(tmp_path)
    Image.new("L", (36, 32)).save(tmp_path / "ct_case/000006/Study_1/Axial_lung" / name)
    (first, *_) = listed(tmp_path)
    assert isinstance(first, Refused)
    assert first.rule == rule


def test_a_decompression_bomb(tmp_path: Path) -> None:
    make_series(tmp_path / "archive/ct_case/1/S/A")
    make_series(tmp_path / "archive/ct_case/2/S/A", seed=9)
    Image.new("L", (30000, 9000)).save(tmp_path / "archive/ct_case/1/S/A/3.png")
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "m3d_cap"}])
    assert ingest(root) == 0
    assert rules_of(root) == ["volume.too_large"]


def test_options_are_checked(tmp_path: Path) -> None:
    from components.base.config import parse

    for options in ({"hu_window": [10, -10]}, {"spacing_mm": [1, 0, 1]}, {"min_slice": 3}):
        with pytest.raises(ConfigError):
            parse(M3dCap.Params, options, "ingest.sources.0.options")
