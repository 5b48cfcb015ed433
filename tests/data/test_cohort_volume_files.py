"""Volumes are read as other readers read them, and written with the same bytes every time."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from components.base.volume_files import Limits, read_volume, volume_suffix, write_nifti
from tests.cohort_support import AFFINE, ct

OBLIQUE = np.array([[0.9, -0.3, 0.1, 12.0], [0.4, 1.4, -0.2, -7.0], [-0.05, 0.3, 2.9, 55.0], [0, 0, 0, 1]])


def _orthogonal() -> np.ndarray:
    axes, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = axes * np.array([0.8, 1.3, 2.5])
    return affine


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_round_trip(tmp_path: Path, dtype: type, suffix: str) -> None:
    array = (ct() // 8 + 128).astype(dtype)
    write_nifti(array, _orthogonal(), tmp_path / f"a{suffix}")
    read = read_volume(tmp_path / f"a{suffix}")
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, array)
    np.testing.assert_allclose(read.affine, _orthogonal(), atol=1e-5)
    assert read.geometry is not None
    np.testing.assert_allclose(read.geometry.qform(), _orthogonal(), atol=1e-4)


def test_same_bytes_under_another_name(tmp_path: Path) -> None:
    first = write_nifti(ct(), AFFINE, tmp_path / "stone_oskar.nii.gz")
    second = write_nifti(ct(), AFFINE, tmp_path / "deep" / "b.nii.gz")
    assert first == second
    data = (tmp_path / "stone_oskar.nii.gz").read_bytes()
    assert data == (tmp_path / "deep" / "b.nii.gz").read_bytes()
    assert data[3] == 0  # no file name in gzip's header
    assert data[4:8] == b"\0\0\0\0"  # no time
    assert (tmp_path / "stone_oskar.nii.gz").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.nii", "a.nii.gz"])
@pytest.mark.parametrize("compressed", [True, False])
def test_agrees_with_simpleitk(tmp_path: Path, name: str, compressed: bool) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(ct().transpose(2, 1, 0))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ _orthogonal()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / name), useCompression=compressed)
    read = read_volume(tmp_path / name)
    np.testing.assert_array_equal(read.array, ct())
    np.testing.assert_allclose(read.affine, _orthogonal(), atol=1e-4)


def test_agrees_with_nibabel_on_scaling_and_byte_order(tmp_path: Path) -> None:
    import nibabel as nib

    raw = (ct() + 1024).astype(">i2")
    for number, (slope, intercept) in enumerate([(1.0, -1024.0), (2.0, 5.0), (0.5, 0.25)]):
        image = nib.Nifti1Image(raw, AFFINE, nib.Nifti1Header(endianness=">"))
        image.header.set_data_dtype(">i2")
        image.header.set_slope_inter(slope, intercept)
        path = tmp_path / f"s{number}.nii"
        with path.open("wb") as stream:  # nibabel would rescale what it stores
            header = image.header.copy()
            header["vox_offset"] = 352
            header["magic"] = b"n+1"
            header["scl_slope"], header["scl_inter"] = slope, intercept
            stream.write(header.binaryblock + b"\0\0\0\0" + raw.tobytes(order="F"))
        read = read_volume(path)
        np.testing.assert_allclose(read.array, nib.load(path).get_fdata(), atol=1e-6)
        assert (read.slope, read.intercept) == (slope, intercept)
        assert read.array.dtype == (np.float32 if slope == 0.5 else np.int16)
        assert read.array.dtype.isnative


def test_odd_geometry_survives_a_copy(tmp_path: Path) -> None:
    write_nifti(ct(), AFFINE, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[80:84] = np.float32(np.nan).tobytes()  # pixdim[1]
    data[268:272] = np.float32(99.0).tobytes()  # qoffset_x: qform != sform
    (tmp_path / "a.nii").write_bytes(data)
    read = read_volume(tmp_path / "a.nii")
    write_nifti(read.array, read.affine, tmp_path / "b.nii.gz", geometry=read.geometry)
    again = read_volume(tmp_path / "b.nii.gz")
    assert again.geometry is not None
    assert np.isnan(again.geometry.pixdim[1])
    assert again.geometry.qoffset[0] == 99.0
    np.testing.assert_allclose(again.geometry.sform(), AFFINE)


def test_header_texts_are_not_copied(tmp_path: Path) -> None:
    write_nifti(ct(), AFFINE, tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[148:160] = b"Stone^Oskar "  # descrip
    (tmp_path / "a.nii").write_bytes(data)
    read = read_volume(tmp_path / "a.nii")
    write_nifti(read.array, read.affine, tmp_path / "b.nii.gz", geometry=read.geometry)
    assert b"Stone" not in gzip.decompress((tmp_path / "b.nii.gz").read_bytes())


def test_metres_become_millimetres(tmp_path: Path) -> None:
    write_nifti(ct(), AFFINE / 1000 + np.diag([0, 0, 0, 0.999]), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    data[123] = 1  # xyzt_units: metres
    (tmp_path / "a.nii").write_bytes(data)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii").affine, AFFINE, rtol=1e-5)


def test_an_almost_empty_mask_needs_the_limits_of_labels(tmp_path: Path) -> None:
    mask = np.zeros((128, 128, 64), np.uint8)
    mask[3, 4, 5] = 1
    write_nifti(mask, AFFINE, tmp_path / "m.nii.gz")
    with pytest.raises(Exception, match=r"volume\.ratio"):
        read_volume(tmp_path / "m.nii.gz")
    read = read_volume(tmp_path / "m.nii.gz", Limits().for_labels(mask.size))
    assert read.array.sum() == 1
    with pytest.raises(Exception, match=r"volume\.too_large"):
        read_volume(tmp_path / "m.nii.gz", Limits().for_labels(mask.size - 1))


def test_suffixes() -> None:
    names = {
        "a.NII.GZ": ".nii.gz",
        "b.nii": ".nii",
        "c.mha": ".mha",
        "d.nrrd": ".nrrd",
        "e.mhd": "",
        "f.gz": "",
    }
    assert {name: volume_suffix(Path(name)) for name in names} == names


def test_writes_are_refused_that_readers_would_not_share(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int64"):
        write_nifti(ct().astype(np.int64), AFFINE, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="3D"):
        write_nifti(ct()[0], AFFINE, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())
