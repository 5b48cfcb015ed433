"""Safe files of volumes: read to the last byte with limits, written with the same bytes every time.

`read_volume` reads .nii, .nii.gz, .mha and .nrrd. A gzip or zlib stream is read to its end, so that its
checksum is verified; sizes must match the header to the last byte; what the header announces is held against
`Limits` before memory is taken. An uncompressed file has no checksum of its own: give `sha256`, which the
manifest has.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from components.base.errors import InputError
from components.base.files import atomic_path
from components.base.volume_headers import (
    Layout,
    NiftiGeometry,
    damaged,
    metaimage_layout,
    nifti_layout,
    nrrd_layout,
)

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd")
GZIP_LEVEL = 1  # on CT noise level 6 is five times slower for a few per cent
_PIECE = 1 << 22


@dataclass(frozen=True)
class Limits:
    """What a file may announce: bytes per compressed byte, voxels, and slices along any axis."""

    max_ratio: float = 200.0
    max_voxels: int = 1_000_000_000
    max_slices: int = 4096

    def for_labels(self, num_voxels: int) -> Limits:
        """Limits for a volume's label map: nearly empty (any ratio), but no larger than the volume."""
        return replace(self, max_ratio=float("inf"), max_voxels=min(num_voxels, self.max_voxels))


@dataclass(frozen=True)
class Volume:
    """Voxels as they lie in the file (scaled by the header's slope and intercept) and where they lie.

    Attributes:
        array: [X, Y, Z], native byte order; integers stay integers where slope and intercept are whole.
        affine: 4 x 4 float64, voxel indices -> RAS+ in mm (may hold NaN: geometry rules judge it).
        geometry: the NIfTI header's geometry fields as stored; None for the other formats.
        slope, intercept: the header's scaling, already applied.
        stored_dtype: NumPy's name of the type in the file.
    """

    array: NDArray
    affine: NDArray[np.float64]
    geometry: NiftiGeometry | None = None
    slope: float = 1.0
    intercept: float = 0.0
    stored_dtype: str = ""


def volume_suffix(path: Path) -> str:
    """The format's suffix of a file name (`.nii.gz`, ...), or "" if it is no volume."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading; a link, a folder, a pipe or nothing is an `InputError`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError("a file is not there", rule="volume.missing", fix="restore the file") from None
    except OSError as error:
        link = path.is_symlink()
        raise InputError(
            "a file is a symbolic link" if link else f"a file cannot be opened: {error.strerror}",
            rule="volume.link" if link else "volume.unreadable",
            fix="put the file itself in place of the link" if link else "check the file's permissions",
        ) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InputError("a path leads to no regular file", rule="volume.unreadable", fix="give a file")
    with os.fdopen(handle, "rb") as stream:
        yield stream


def read_volume(path: Path, limits: Limits = Limits(), *, sha256: str | None = None) -> Volume:
    """Read a volume to its last byte.

    Raises `IntegrityError` (rules `volume.truncated`, `.trailing`, `.corrupt`, `.header`, `.dtype`,
    `.dimensions`, `.too_large`, `.ratio`, `.sha256`, `.detached`, `.encoding`, `.space`) or `InputError`
    (`volume.missing`, `.link`, `.unreadable`, `.format`). No message holds the file's name: it may identify
    a patient.
    """
    suffix = volume_suffix(path)
    if not suffix:
        raise InputError(
            "a file is in no format that is read",
            rule="volume.format",
            fix=f"use one of {', '.join(SUFFIXES)}",
        )
    with open_regular(path) as raw:
        size = os.fstat(raw.fileno()).st_size
        if sha256 is not None and hashlib.file_digest(raw, "sha256").hexdigest() != sha256:
            raise damaged("the bytes are not those that were recorded", "volume.sha256")
        raw.seek(0)
        try:
            array, layout = _read(raw, size, suffix, limits)
        except (zlib.error, gzip.BadGzipFile):
            raise damaged("the compressed stream is damaged", "volume.corrupt") from None
        except EOFError:
            raise damaged("the compressed stream ends too early", "volume.truncated") from None
    array = _scaled(array, layout.slope, layout.intercept)
    return Volume(array, layout.affine, layout.geometry, layout.slope, layout.intercept, layout.dtype.name)


def _read(raw: BinaryIO, size: int, suffix: str, limits: Limits) -> tuple[NDArray, Layout]:
    stream: BinaryIO = raw
    if suffix == ".nii.gz":
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))
    if suffix.startswith(".nii"):
        layout = nifti_layout(stream)
    else:
        layout = metaimage_layout(raw) if suffix == ".mha" else nrrd_layout(raw)
    _check_limits(layout, size, limits)
    if not layout.compression and suffix != ".nii.gz" and size != layout.offset + layout.num_bytes:
        short = size < layout.offset + layout.num_bytes
        raise damaged(
            f"the file has {'fewer' if short else 'more'} bytes than its header announces",
            "volume.truncated" if short else "volume.trailing",
        )
    if layout.compression == "gzip":
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw, mode="rb"))
    elif layout.compression == "zlib":
        stream = cast(BinaryIO, _ZlibStream(raw))
    return _voxels(stream, layout), layout


def _check_limits(layout: Layout, size: int, limits: Limits) -> None:
    if layout.num_voxels > limits.max_voxels or max(layout.shape) > limits.max_slices:
        raise damaged(
            f"the volume announces {layout.num_voxels} voxels, {max(layout.shape)} along one axis; "
            f"the limits are {limits.max_voxels} and {limits.max_slices}",
            "volume.too_large",
        )
    if layout.num_bytes > limits.max_ratio * size:
        raise damaged(
            f"the volume unpacks to more than {limits.max_ratio:g} times its file (or the file is cut short)",
            "volume.ratio",
        )


def _voxels(stream: BinaryIO, layout: Layout) -> NDArray:
    """Fill an array from the stream and read on to its end, where the checksum stands."""
    array = np.empty(layout.num_voxels, dtype=layout.dtype)
    target = array.view(np.uint8)
    filled = 0
    while filled < layout.num_bytes:
        piece = stream.read(min(_PIECE, layout.num_bytes - filled))
        if not piece:
            raise damaged("the file has fewer voxels than its header announces", "volume.truncated")
        target[filled : filled + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        filled += len(piece)
    if stream.read(1):
        raise damaged("the file has more bytes than its header announces", "volume.trailing")
    if not layout.dtype.isnative:
        array = array.astype(layout.dtype.newbyteorder("="))
    return array.reshape(layout.shape, order="F")


class _ZlibStream:
    """A zlib stream (MetaImage's compression) as a file: nothing may follow it, its checksum must hold."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw, self.inflater, self.left = raw, zlib.decompressobj(), b""

    def read(self, count: int) -> bytes:
        while not self.inflater.eof:
            data = self.left or self.raw.read(1 << 20)
            if not data:
                raise EOFError
            piece = self.inflater.decompress(data, count)
            self.left = self.inflater.unconsumed_tail
            if piece:
                return piece
        if self.inflater.unused_data or self.raw.read(1):
            raise damaged("bytes follow the compressed stream", "volume.trailing")
        return b""


def _scaled(array: NDArray, slope: float, intercept: float) -> NDArray:
    """Stored values to HU: exact integers where slope and intercept are whole, else float32."""
    if slope == 1.0 and intercept == 0.0:
        return array
    if (
        array.dtype.kind in "iu"
        and slope.is_integer()
        and intercept.is_integer()
        and array.dtype.itemsize <= 4
    ):
        ends = [int(end) * int(slope) + int(intercept) for end in (array.min(), array.max())]
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
                return (array.astype(np.int64) * int(slope) + int(intercept)).astype(dtype)
    return (array.astype(np.float64) * slope + intercept).astype(np.float32)


def write_nifti(
    array: NDArray, affine: NDArray[np.float64], path: Path, *, geometry: NiftiGeometry | None = None
) -> str:
    """Write [X, Y, Z] as .nii.gz or .nii atomically, mode 0600, always the same bytes; returns the SHA-256.

    The header holds geometry only: no description, no extension, no time. `geometry` (of a NIfTI that was
    read) keeps the header's own geometry fields, odd ones included, for the rules that judge them; else qform
    and sform both hold `affine` (RAS+, mm). 64-bit integers are refused: store a type that readers share.
    """
    suffix = volume_suffix(path)
    if suffix not in {".nii.gz", ".nii"} or array.ndim != 3:
        raise ValueError("write_nifti takes a 3D array and a path that ends in .nii.gz or .nii")
    header = _nifti_header(array, affine, geometry)
    data = np.asfortranarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    payload = data.reshape(-1, order="F").view(np.uint8).data
    with atomic_path(path, mode=0o600) as temp:
        with temp.open("wb") as raw:
            if suffix == ".nii":
                raw.write(header)
                raw.write(payload)
            else:
                with gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as stream:
                    stream.write(header)
                    stream.write(payload)
        with temp.open("rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
    return digest


def _nifti_header(array: NDArray, affine: NDArray[np.float64], geometry: NiftiGeometry | None) -> bytes:
    from nibabel import nifti1

    codes = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768}
    kind = array.dtype.kind + str(array.dtype.itemsize)
    if kind not in codes:
        raise ValueError(f"write_nifti does not store {array.dtype.name}")
    header = np.zeros((), dtype=nifti1.header_dtype.newbyteorder("<"))
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = [3, *array.shape, 1, 1, 1, 1]
    header["datatype"], header["bitpix"] = codes[kind], array.dtype.itemsize * 8
    header["scl_slope"] = 1.0
    if geometry is None:
        canonical = nifti1.Nifti1Header()
        canonical.set_data_shape(array.shape)
        canonical.set_sform(affine, code=1)
        canonical.set_qform(affine, code=1, strip_shears=True)
        for name in ("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"):
            header[name] = canonical[name]
        for axis in "xyz":
            header[f"qoffset_{axis}"], header[f"srow_{axis}"] = (
                canonical[f"qoffset_{axis}"],
                canonical[f"srow_{axis}"],
            )
        header["pixdim"][4:] = 0
        header["xyzt_units"] = 2
    else:
        header["pixdim"], header["xyzt_units"] = geometry.pixdim, geometry.xyzt_units
        header["qform_code"], header["sform_code"] = geometry.qform_code, geometry.sform_code
        for name, value, axis, shift, row in zip(
            "bcd", geometry.quaternion, "xyz", geometry.qoffset, geometry.srow, strict=True
        ):
            header[f"quatern_{name}"], header[f"qoffset_{axis}"], header[f"srow_{axis}"] = value, shift, row
    return header.tobytes() + b"\0\0\0\0"
