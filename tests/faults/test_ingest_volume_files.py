"""Damaged, truncated, oversized and lying volume files are refused with a rule, fast and within memory."""

from __future__ import annotations

import gzip
import os
import resource
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from components.base.errors import InputError, IntegrityError
from components.base.files import sha256_file
from components.base.volume_files import read_volume, write_nifti
from tests.cohort_support import AFFINE, ct


def _write(folder: Path, suffix: str) -> Path:
    path = folder / f"v{suffix}"
    if suffix.startswith(".nii"):
        write_nifti(ct(), AFFINE, path)
        return path
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(ct().transpose(2, 1, 0)), str(path), useCompression=True)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_truncation_at_20_points(tmp_path: Path, suffix: str) -> None:
    path = _write(tmp_path, suffix)
    data = path.read_bytes()
    rules = set()
    for point in np.linspace(0, len(data) - 1, 20).astype(int):
        path.write_bytes(data[:point])
        with pytest.raises(IntegrityError) as caught:
            read_volume(path)
        rules.add(caught.value.rule)
        assert path.name not in caught.value.render()
    assert rules <= {"volume.truncated", "volume.header", "volume.corrupt", "volume.ratio"}
    path.write_bytes(data + b"\1")
    with pytest.raises(IntegrityError):
        read_volume(path)


def test_bit_flips(tmp_path: Path) -> None:
    """1,000 flips: the recorded SHA-256 finds each; without it no flip gives other voxels.

    gzip's own header and the padding after its last block carry no voxels, and no checksum covers them.
    """
    path = _write(tmp_path, ".nii.gz")
    digest, data = sha256_file(path), path.read_bytes()
    unseen = 0
    for bit in np.random.default_rng(3).integers(0, len(data) * 8, 1000):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        with pytest.raises(IntegrityError):
            read_volume(path, sha256=digest)
        try:
            read = read_volume(path)
        except IntegrityError:
            continue
        unseen += 1
        np.testing.assert_array_equal(read.array, ct())
        np.testing.assert_array_equal(read.affine, AFFINE)
    assert unseen <= 10
    path.write_bytes(data)
    np.testing.assert_array_equal(read_volume(path, sha256=digest).array, ct())


def test_bit_flips_of_an_uncompressed_file_need_the_recorded_hash(tmp_path: Path) -> None:
    path = _write(tmp_path, ".nii")
    digest, data = sha256_file(path), bytearray(path.read_bytes())
    data[400] ^= 4
    path.write_bytes(data)
    assert not np.array_equal(read_volume(path).array, ct())  # nothing in the file itself can tell
    with pytest.raises(IntegrityError, match=r"volume\.sha256"):
        read_volume(path, sha256=digest)


def _header(shape: tuple[int, int, int], folder: Path) -> bytearray:
    write_nifti(ct(), AFFINE, folder / "h.nii")
    header = bytearray((folder / "h.nii").read_bytes()[:352])
    header[40:56] = np.array([3, *shape, 1, 1, 1, 1], "<i2").tobytes()
    return header


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((2048, 2048, 256), "volume.too_large"),
        ((4097, 2, 2), "volume.too_large"),
        ((512, 512, 512), "volume.ratio"),
    ],
)
def test_bombs_are_refused_at_once(tmp_path: Path, shape: tuple[int, int, int], rule: str) -> None:
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb") as stream:
        stream.write(_header(shape, tmp_path))
        for _ in range(32):
            stream.write(bytes(1 << 20))
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(IntegrityError) as caught:
        read_volume(path)
    assert caught.value.rule == rule
    assert time.monotonic() - started < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_stream_longer_than_its_header_says_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "long.nii.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(_header((16, 16, 16), tmp_path))
        for _ in range(300):
            stream.write(bytes(1 << 20))
    started = time.monotonic()
    with pytest.raises(IntegrityError, match=r"volume\.trailing"):
        read_volume(path)
    assert time.monotonic() - started < 1


def test_a_zlib_bomb_in_a_metaimage(tmp_path: Path) -> None:
    path = tmp_path / "b.mha"
    text = "ObjectType = Image\nNDims = 3\nDimSize = 1000 1000 1000\nElementType = MET_SHORT\n"
    text += "CompressedData = True\nElementDataFile = LOCAL\n"
    path.write_bytes(text.encode() + zlib.compress(bytes(1 << 24)))
    with pytest.raises(IntegrityError, match=r"volume\.ratio"):
        read_volume(path)


@pytest.mark.parametrize(
    ("position", "value", "rule"),
    [
        (40, np.int16(9), "volume.dimensions"),
        (42, np.int16(0), "volume.dimensions"),
        (42, np.int16(-5), "volume.dimensions"),
        (70, np.int16(128), "volume.dtype"),  # RGB
        (72, np.int16(8), "volume.header"),  # bitpix
        (108, np.float32(np.nan), "volume.header"),  # vox_offset
        (108, np.float32(12), "volume.header"),
        (108, np.float32(1e12), "volume.header"),
        (344, np.int32(0), "volume.header"),  # magic
        (0, np.int32(7), "volume.header"),
    ],
)
def test_lying_headers(tmp_path: Path, position: int, value: np.generic, rule: str) -> None:
    path = _write(tmp_path, ".nii")
    data = bytearray(path.read_bytes())
    raw = value.tobytes()
    data[position : position + len(raw)] = raw
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        read_volume(path)
    assert caught.value.rule == rule


def test_detached_and_unknown_files(tmp_path: Path) -> None:
    meta = "NDims = 3\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = ../../secret.raw\n"
    (tmp_path / "a.mha").write_text(meta)
    nrrd = "NRRD0005\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/passwd\n\n"
    (tmp_path / "a.nrrd").write_text(nrrd)
    for name in ("a.mha", "a.nrrd"):
        with pytest.raises(IntegrityError, match=r"volume\.detached"):
            read_volume(tmp_path / name)
    (tmp_path / "a.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"volume\.format"):
        read_volume(tmp_path / "a.npy")


def test_links_pipes_folders_and_nothing(tmp_path: Path) -> None:
    path = _write(tmp_path, ".nii.gz")
    (tmp_path / "link.nii.gz").symlink_to(path)
    (tmp_path / "folder.nii.gz").mkdir()
    os.mkfifo(tmp_path / "pipe.nii.gz")
    wanted = {
        "link": "volume.link",
        "folder": "volume.unreadable",
        "pipe": "volume.unreadable",
        "no": "volume.missing",
    }
    for name, rule in wanted.items():
        with pytest.raises(InputError) as caught:
            read_volume(tmp_path / f"{name}.nii.gz")
        assert caught.value.rule == rule


def test_reading_safely_costs_little(tmp_path: Path) -> None:
    """At most 1.3 times unpacking the file with Python's gzip; the best of five, 4 MiB of CT-like noise."""
    path = tmp_path / "v.nii.gz"
    digest = write_nifti(ct(shape=(128, 128, 128)), AFFINE, path)

    def best(function: object) -> float:
        times = []
        for _ in range(5):
            started = time.process_time()
            function()  # type: ignore[operator]
            times.append(time.process_time() - started)
        return min(times)

    plain = best(lambda: np.frombuffer(gzip.decompress(path.read_bytes())[352:], "<i2").copy())
    safe = best(lambda: read_volume(path, sha256=digest))
    assert safe <= 1.3 * plain + 0.01
