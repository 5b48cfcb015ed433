"""Headers of the volume formats that are read: NIfTI-1 and -2, MetaImage and NRRD, each into one `Layout`.

Sources: nifti1.h (nifti.nimh.nih.gov), MetaIO's documentation, the NRRD 5 format (teem.sourceforge.net).
Every check that protects memory uses Python integers from the header, before anything is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from components.base.errors import IntegrityError

FIX = "export the series again from its source"
MAX_HEADER_BYTES = 1 << 20
NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8"}
META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
NRRD_TYPES = {
    "i1": "signed char|int8|int8_t",
    "u1": "uchar|unsigned char|uint8|uint8_t",
    "i2": "short|short int|signed short|signed short int|int16|int16_t",
    "u2": "ushort|unsigned short|unsigned short int|uint16|uint16_t",
    "i4": "int|signed int|int32|int32_t",
    "u4": "uint|unsigned int|uint32|uint32_t",
    "i8": "longlong|long long|signed long long|int64|int64_t",
    "f4": "float",
    "f8": "double",
}
TO_RAS = {"LPS": (-1.0, -1.0, 1.0), "LAS": (-1.0, 1.0, 1.0), "RAS": (1.0, 1.0, 1.0)}
MILLIMETRES = {1: 1000.0, 3: 0.001}  # NIfTI's xyzt_units for metres and micrometres


@dataclass(frozen=True)
class NiftiGeometry:
    """The geometry fields of a NIfTI header as they stand in the file, so that rules can judge them.

    `pixdim` has eight values (0 is qfac), `quaternion` is (b, c, d), `srow` is 3 x 4, in the file's units.
    """

    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    quaternion: tuple[float, float, float]
    qoffset: tuple[float, float, float]
    srow: tuple[tuple[float, ...], ...]
    xyzt_units: int

    @property
    def unit_mm(self) -> float:
        """Millimetres in one of the file's length units (an unknown unit counts as millimetres)."""
        return MILLIMETRES.get(self.xyzt_units & 7, 1.0)

    def qform(self) -> NDArray[np.float64]:
        """The 4 x 4 matrix of the quaternion fields in mm; NaN where they are not a rotation."""
        b, c, d = self.quaternion
        rest = 1.0 - (b * b + c * c + d * d)
        a = math.sqrt(max(rest, 0.0)) if rest > -1e-5 else math.nan
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        qfac = -1.0 if self.pixdim[0] < 0 else 1.0
        scale = np.array([self.pixdim[1], self.pixdim[2], self.pixdim[3] * qfac])
        return _affine(rotation * scale * self.unit_mm, np.array(self.qoffset) * self.unit_mm)

    def sform(self) -> NDArray[np.float64]:
        """The 4 x 4 matrix of the srow fields in mm."""
        rows = np.array(self.srow, dtype=np.float64) * self.unit_mm
        return _affine(rows[:, :3], rows[:, 3])

    def affine(self) -> NDArray[np.float64]:
        """The matrix that the standard prefers: sform, else qform, else the bare spacing."""
        if self.sform_code > 0:
            return self.sform()
        if self.qform_code > 0:
            return self.qform()
        return _affine(np.diag(self.pixdim[1:4]) * self.unit_mm, np.zeros(3))


@dataclass(frozen=True)
class Layout:
    """Where and how a file's voxels lie: `offset` bytes into the unpacked stream, first axis fastest."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    offset: int
    compression: Literal["", "zlib", "gzip"]
    affine: NDArray[np.float64]
    slope: float = 1.0
    intercept: float = 0.0
    geometry: NiftiGeometry | None = None

    @property
    def num_voxels(self) -> int:
        """How many voxels the header announces."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """How many bytes the voxels take."""
        return self.num_voxels * self.dtype.itemsize


def damaged(what: str, rule: str = "volume.header") -> IntegrityError:
    """The error for a file whose bytes cannot be used; `what` names no file."""
    return IntegrityError(what, rule=rule, fix=FIX)


def _affine(matrix: NDArray[np.float64], origin: NDArray[np.float64]) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix, origin
    return affine


def read_exactly(stream: BinaryIO, count: int) -> bytes:
    """`count` bytes of a stream that may answer in pieces; fewer is an `IntegrityError`."""
    pieces: list[bytes] = []
    while count > 0:
        piece = stream.read(min(count, 1 << 20))
        if not piece:
            raise damaged("the file ends inside its header", "volume.truncated")
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def nifti_layout(stream: BinaryIO) -> Layout:
    """Read a NIfTI-1 or -2 single-file header from the start of a decompressed stream."""
    from nibabel import nifti1, nifti2

    block = read_exactly(stream, 4)
    sizes = {int.from_bytes(block, order): order for order in ("little", "big")}
    size = next((size for size in (348, 540) if size in sizes), None)
    if size is None:
        raise damaged("the file is not a NIfTI volume")
    block += read_exactly(stream, size - 4)
    kind = nifti1.header_dtype if size == 348 else nifti2.header_dtype
    order: Literal["<", ">"] = "<" if sizes[size] == "little" else ">"
    header = np.frombuffer(block, dtype=kind.newbyteorder(order))[0]
    if not bytes(header["magic"]).startswith(b"n+1" if size == 348 else b"n+2"):
        raise damaged("the NIfTI header does not hold its voxels in the same file")
    dims = [int(value) for value in header["dim"]]
    if not 3 <= dims[0] <= 7 or any(value != 1 for value in dims[4 : dims[0] + 1]) or min(dims[1:4]) < 1:
        raise damaged(f"the volume has {dims[0]} dimensions or an empty axis", "volume.dimensions")
    code = int(header["datatype"])
    if code not in NIFTI_TYPES:
        raise damaged(f"the voxel type {code} is not a scalar number", "volume.dtype")
    dtype = np.dtype(order + NIFTI_TYPES[code])
    if int(header["bitpix"]) != dtype.itemsize * 8:
        raise damaged("the NIfTI header contradicts itself about the voxel type")
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset != int(offset) or not size <= offset <= MAX_HEADER_BYTES:
        raise damaged("the NIfTI header announces its voxels at an impossible place")
    read_exactly(stream, int(offset) - size)
    geometry = NiftiGeometry(
        pixdim=tuple(float(value) for value in header["pixdim"]),
        qform_code=int(header["qform_code"]),
        sform_code=int(header["sform_code"]),
        quaternion=(float(header["quatern_b"]), float(header["quatern_c"]), float(header["quatern_d"])),
        qoffset=(float(header["qoffset_x"]), float(header["qoffset_y"]), float(header["qoffset_z"])),
        srow=tuple(tuple(float(value) for value in header[f"srow_{axis}"]) for axis in "xyz"),
        xyzt_units=int(header["xyzt_units"]),
    )
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        slope, intercept = 1.0, 0.0
    shape = (dims[1], dims[2], dims[3])
    return Layout(shape, dtype, int(offset), "", geometry.affine(), slope, intercept, geometry)


def _lines(stream: BinaryIO, last: str) -> list[str]:
    """Header lines up to and including the one that begins with `last` ("" = an empty line)."""
    lines: list[str] = []
    left = MAX_HEADER_BYTES
    while left > 0:
        line = stream.readline(min(left, 65536))
        left -= len(line)
        if not line.endswith(b"\n"):
            break
        lines.append(line.decode("latin-1").strip())
        if (not lines[-1]) if not last else lines[-1].startswith(last):
            return lines
    raise damaged("the file ends inside its header", "volume.truncated")


def _numbers(text: str, count: int, name: str) -> list[float]:
    try:
        values = [float(part) for part in text.replace("(", " ").replace(")", " ").replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise damaged(f"the header field {name} does not hold {count} numbers")
    return values


def _shape(text: str, name: str) -> tuple[int, int, int]:
    values = _numbers(text, 3, name)
    if any(not math.isfinite(value) or value != int(value) or value < 1 for value in values):
        raise damaged("the volume has an empty axis", "volume.dimensions")
    return int(values[0]), int(values[1]), int(values[2])


def metaimage_layout(stream: BinaryIO) -> Layout:
    """Read the header of a MetaImage with its voxels in the same file (.mha); its coordinates are LPS."""
    fields: dict[str, str] = {}
    lines = _lines(stream, "ElementDataFile")
    for line in lines:
        name, _, value = line.partition("=")
        fields[name.strip()] = value.strip()
    if fields.get("ElementDataFile", "").upper() != "LOCAL":
        raise damaged("the MetaImage keeps its voxels in another file", "volume.detached")
    if fields.get("NDims") != "3" or fields.get("ElementNumberOfChannels", "1") != "1":
        raise damaged("the MetaImage is not one scalar volume", "volume.dimensions")
    code = META_TYPES.get(fields.get("ElementType", ""))
    if code is None:
        raise damaged("the voxel type of the MetaImage is not a scalar number", "volume.dtype")
    big = _flag(fields, "BinaryDataByteOrderMSB") or _flag(fields, "ElementByteOrderMSB")
    spacing = np.array(_numbers(fields.get("ElementSpacing", "1 1 1"), 3, "ElementSpacing"))
    axes = _first(fields, ("TransformMatrix", "Rotation", "Orientation"), "1 0 0 0 1 0 0 0 1")
    directions = (
        np.array(_numbers(axes, 9, "TransformMatrix")).reshape(3, 3).T
    )  # a row in the file is an axis
    origin = np.array(_numbers(_first(fields, ("Offset", "Position", "Origin"), "0 0 0"), 3, "Offset"))
    flip = np.array(TO_RAS["LPS"])
    return Layout(
        shape=_shape(fields.get("DimSize", ""), "DimSize"),
        dtype=np.dtype((">" if big else "<") + code),
        offset=stream.tell(),
        compression="zlib" if _flag(fields, "CompressedData") else "",
        affine=_affine(directions * spacing * flip[:, None], origin * flip),
    )


def _flag(fields: Mapping[str, str], name: str) -> bool:
    return fields.get(name, "False").lower() == "true"


def _first(fields: Mapping[str, str], names: tuple[str, ...], default: str) -> str:
    return next((fields[name] for name in names if name in fields), default)


def nrrd_layout(stream: BinaryIO) -> Layout:
    """Read the header of an attached NRRD volume; without a `space` it is taken as LPS, as ITK does."""
    lines = _lines(stream, "")
    if not lines[0].startswith("NRRD000"):
        raise damaged("the file is not an NRRD volume")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[name.strip().lower()] = value.strip()
    if {"data file", "datafile"} & set(fields) or fields.get("byte skip", "0") != "0":
        raise damaged("the NRRD keeps its voxels elsewhere", "volume.detached")
    if fields.get("dimension") != "3" or fields.get("line skip", "0") != "0":
        raise damaged("the NRRD is not one scalar volume", "volume.dimensions")
    kind = fields.get("type", "").lower()
    code = next((code for code, names in NRRD_TYPES.items() if kind in names.split("|")), None)
    if code is None:
        raise damaged("the voxel type of the NRRD is not a scalar number", "volume.dtype")
    compression: Literal["", "gzip"]
    encoding = fields.get("encoding", "").lower()
    if encoding in {"gzip", "gz"}:
        compression = "gzip"
    elif encoding == "raw":
        compression = ""
    else:
        raise damaged("the NRRD has an encoding other than raw and gzip", "volume.encoding")
    words = fields.get("space", "left-posterior-superior").split("-")
    space = "".join(word[:1] for word in words).upper() if len(words) == 3 else words[0].upper()
    if space not in TO_RAS:
        raise damaged("the NRRD lies in a space that is not anatomical", "volume.space")
    flip = np.array(TO_RAS[space])
    if "space directions" in fields:
        matrix = np.array(_numbers(fields["space directions"], 9, "space directions")).reshape(3, 3).T
    else:
        matrix = np.diag(_numbers(fields.get("spacings", "1 1 1"), 3, "spacings"))
    origin = np.array(_numbers(fields.get("space origin", "0 0 0"), 3, "space origin"))
    return Layout(
        shape=_shape(fields.get("sizes", ""), "sizes"),
        dtype=np.dtype((">" if fields.get("endian", "little").lower() == "big" else "<") + code),
        offset=stream.tell(),
        compression=compression,
        affine=_affine(matrix * flip[:, None], origin * flip),
    )
