"""Read what a request brings: a scan as a file or as NPY, and lists of texts. Nothing is fetched, nothing unpickled.

A scan is told by its first bytes, never by its name, and its name is never kept: it may identify a patient.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, IntegrityError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from starlette.requests import Request

    from components.base.volume_files import Limits, Volume

MAX_VOXELS = 400_000_000
MAX_TEXTS, MAX_CHARACTERS = 64, 50_000
MAX_JSON_BYTES = 4 << 20
MAX_FIELD_BYTES = 1 << 20
PIECE = 1 << 20
RAW_TYPES = {"application/x-npy", "application/gzip", "application/x-gzip", "application/octet-stream"}
FORMS = "one file in the multipart field `volume` (.nii.gz, .nii or .npy), or its bytes as the body"


@dataclass
class Scan:
    """An uploaded scan on disk, and the form's other fields."""

    path: Path
    fields: dict[str, list[str]] = field(default_factory=dict)


def refuse(what: str, rule: str, fix: str) -> InputError:
    """An error about a request; it never quotes what was sent."""
    return InputError(what, rule=f"request.{rule}", fix=fix)


def media_type(request: Request) -> str:
    """The bare Content-Type, lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@asynccontextmanager
async def uploaded(request: Request) -> AsyncIterator[Scan]:
    """The request's scan in a temporary folder that is gone afterwards.

    Takes multipart/form-data with one file `volume`, or the file's bytes as the body. Raises `InputError`.
    """
    kind = media_type(request)
    with tempfile.TemporaryDirectory(prefix="velvet-") as folder:
        raw = Path(folder) / "upload"
        if kind == "multipart/form-data":
            fields = await _read_form(request, raw)
        elif kind in RAW_TYPES:
            fields = {name: request.query_params.getlist(name) for name in request.query_params}
            with raw.open("wb") as stream:
                async for piece in request.stream():
                    stream.write(piece)
        else:
            raise refuse("a volume does not come in this Content-Type", "type", f"send {FORMS}")
        yield Scan(raw.rename(raw.with_name("upload" + _suffix(raw))), fields)


async def _read_form(request: Request, target: Path) -> dict[str, list[str]]:
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException

    try:
        form = await request.form(max_files=1, max_fields=MAX_TEXTS + 8, max_part_size=MAX_FIELD_BYTES)
    except (HTTPException, MultiPartException, KeyError, ValueError, AssertionError):
        raise refuse("the form cannot be read", "form", f"send {FORMS}") from None
    try:
        scan = form.get("volume")
        if not isinstance(scan, UploadFile):
            raise refuse(
                "the field `volume` is not a file" if scan else "the form has no file `volume`",
                "volume",
                f"send {FORMS}",
            )
        with target.open("wb") as stream:
            while piece := await scan.read(PIECE):
                stream.write(piece)
        fields: dict[str, list[str]] = {}
        for name, value in form.multi_items():
            if isinstance(value, str):
                fields.setdefault(name, []).append(value)
        return fields
    finally:
        await form.close()


def _suffix(path: Path) -> str:
    """The suffix that the first bytes of a file call for."""
    with path.open("rb") as stream:
        start = stream.read(8)
    if start[:2] == b"\x1f\x8b":
        return ".nii.gz"
    if start[:6] == b"\x93NUMPY":
        return ".npy"
    if int.from_bytes(start[:4], "little") in (348, 540) or int.from_bytes(start[:4], "big") in (348, 540):
        return ".nii"
    raise refuse(
        "the file is empty" if not start else "the file is neither NIfTI nor NPY", "format", f"send {FORMS}"
    )


def read_scan(scan: Scan, limits: Limits) -> Volume:
    """Voxels in HU [X, Y, Z] and the RAS+ affine in mm; every byte is read. Blocking: call it off the loop.

    A NIfTI brings its affine; an NPY needs the field `affine` (16 numbers) or `spacing_mm` (3, axes in RAS+).
    """
    from components.base.volume_files import Volume, read_volume

    limits = replace(limits, max_voxels=min(limits.max_voxels, MAX_VOXELS))
    if scan.path.suffix == ".npy":
        return Volume(read_npy(scan.path), _affine(scan.fields))
    return read_volume(scan.path, limits)


def read_npy(path: Path) -> npt.NDArray[Any]:
    """A numeric [X, Y, Z] array from NPY bytes, whose header must announce exactly the bytes that follow."""
    import numpy as np
    from numpy.lib import format as npy

    def damaged(what: str, rule: str) -> IntegrityError:
        return IntegrityError(
            what, rule=f"volume.{rule}", fix="save HU as int16 or float32 [X, Y, Z] with numpy.save"
        )

    with path.open("rb") as stream:
        try:
            version = npy.read_magic(stream)
            reader = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
            shape, fortran, dtype = reader(stream)
        except Exception:  # numpy's parser raises many kinds for a malformed header
            raise damaged("the NPY header cannot be read", "header") from None
        if dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype.names:
            raise damaged("the NPY array does not hold plain numbers", "dtype")
        if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > MAX_VOXELS:
            raise damaged("the NPY array is not one [X, Y, Z] volume of a possible size", "dimensions")
        left = path.stat().st_size - stream.tell()
        if left != math.prod(shape) * dtype.itemsize:
            raise damaged("the NPY header announces another number of bytes than follow it", "truncated")
        flat = np.fromfile(stream, dtype=dtype)
    array = flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise damaged("the NPY array holds NaN or infinity", "finite")
    return array


def _affine(fields: dict[str, list[str]]) -> npt.NDArray[np.float64]:
    import numpy as np

    for name, count in (("affine", 16), ("spacing_mm", 3)):
        if name in fields:
            try:
                values = [
                    float(part)
                    for part in fields[name][0].strip("[] ").replace("[", "").replace("]", "").split(",")
                ]
            except ValueError:
                values = []
            if len(values) != count or not all(map(math.isfinite, values)):
                raise refuse(
                    f"`{name}` does not hold {count} finite numbers", name, "send them with commas between"
                )
            affine = np.diag([*values, 1.0]) if count == 3 else np.array(values).reshape(4, 4)
            if count == 3 and min(values) <= 0:
                raise refuse(
                    "`spacing_mm` holds a number that is not positive", name, "send millimetres along X, Y, Z"
                )
            return affine
    raise refuse(
        "an NPY volume came without its geometry", "geometry", "add `affine` (16 numbers) or `spacing_mm` (3)"
    )


async def read_texts(request: Request, name: str) -> list[str]:
    """The list of texts called `name` in a JSON body `{name: [...]}`."""
    if media_type(request) != "application/json":
        raise refuse("texts come as application/json", "type", f'send {{"{name}": ["...", "..."]}}')
    pieces: list[bytes] = []
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > MAX_JSON_BYTES:
            raise refuse(
                f"the JSON body has more than {MAX_JSON_BYTES >> 20} MiB",
                "size",
                "send fewer texts at a time",
            )
        pieces.append(piece)
    try:
        body: Any = json.loads(b"".join(pieces))
    except (ValueError, RecursionError):
        raise refuse("the body is not JSON", "json", f'send {{"{name}": ["...", "..."]}}') from None
    if not isinstance(body, dict) or set(body) != {name}:
        raise refuse(
            f"the JSON body is not an object with the one key `{name}`", "json", f'send {{"{name}": ["..."]}}'
        )
    return checked_texts(body[name], name)


def form_texts(fields: dict[str, list[str]], name: str) -> list[str]:
    """A list of texts from a form: one field with a JSON list, or one field for each text."""
    values: Any = fields.get(name, [])
    if len(values) == 1 and values[0].lstrip().startswith("["):
        try:
            values = json.loads(values[0])
        except (ValueError, RecursionError):
            raise refuse(
                f"the field `{name}` is not a JSON list", "json", f'send `{name}` as ["...", "..."]'
            ) from None
    return checked_texts(values, name)


def checked_texts(values: Any, name: str) -> list[str]:
    """A list of 1 to 64 non-empty strings of a bearable length, else an `InputError`."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise refuse(f"`{name}` is not a list of strings", name, f'send `{name}` as ["...", "..."]')
    if not 1 <= len(values) <= MAX_TEXTS:
        raise refuse(f"`{name}` holds {len(values)} texts", name, f"send 1 to {MAX_TEXTS} at a time")
    for number, value in enumerate(values):
        if not value.strip() or len(value) > MAX_CHARACTERS:
            problem = "is empty" if not value.strip() else f"is longer than {MAX_CHARACTERS} characters"
            raise refuse(f"text {number} of `{name}` {problem}", name, "leave it out or shorten it")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise refuse(f"text {number} of `{name}` is not valid Unicode", name, "send UTF-8 text")
    return values
