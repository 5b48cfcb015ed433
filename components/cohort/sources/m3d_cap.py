"""M3D-Cap's folders: ct_case/CASE/STUDY/SERIES/SLICE.png (or .jpg) with one text.txt for each study.

The slices are 8-bit pictures: there are no Hounsfield units in them, and no spacing. Grey 0 to 255 is mapped
linearly on `hu_window`, which is an assumption about how the pictures were windowed; every series carries the label
`intensity=8_bit`, so that it can be told apart. Slices are ordered by the integer in their names; slices of another
size than most are dropped; a series of fewer than `min_slices` is left out (48 as in the authors' code).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from components.base.config import Config
from components.base.errors import InputError, IntegrityError
from components.base.volume_files import open_regular
from components.cohort._tables import below, read_text
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Refused, Source

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
ENDS = (b"IEND\xaeB`\x82", b"\xff\xd9")  # PNG's last chunk and JPEG's end of image
MAX_SIDE = 4096
LABEL = "intensity=8_bit"


@dataclass(frozen=True)
class PictureSeries(RawSeries):
    """Pictures in the order of the slices."""

    pictures: tuple[Path, ...] = ()
    hu_window: tuple[float, float] = (0.0, 0.0)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    first_slice: Literal["superior", "inferior"] = "superior"
    min_slices: int = 1

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Read the pictures, drop those of another size, map grey on HU and write the volume.

        Columns run to the patient's left and rows to the back, as radiological pictures are shown.
        """
        from components.cohort._writing import save_volume

        sizes = Counter(picture_size(path) for path in self.pictures)
        (columns, rows), count = min(sizes.items(), key=lambda entry: (-entry[1], entry[0]))
        if count < self.min_slices:
            raise IntegrityError(
                f"only {count} slices have the same size", rule="m3d_cap.sizes_mixed", fix="check the series"
            )
        grey = np.empty((columns, rows, count), dtype=np.uint8, order="F")
        same = [path for path in self.pictures if picture_size(path) == (columns, rows)]
        for index, path in enumerate(same):
            grey[:, :, index] = read_grey(path).T
        low, high = self.hu_window
        hu = np.rint(np.linspace(low, high, 256)).astype(np.int16)[grey]
        up = -1.0 if self.first_slice == "superior" else 1.0
        x, y, z = self.spacing_mm
        save_volume(hu, np.diag([-x, -y, up * z, 1.0]), volume)
        return []


def picture_size(path: Path) -> tuple[int, int]:
    """(columns, rows) from a picture's header; an impossible or unreadable one is an `IntegrityError`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with open_regular(path) as stream, Image.open(stream, formats=FORMATS) as picture:
            size = picture.size
    except Image.DecompressionBombError:
        size = (MAX_SIDE + 1, MAX_SIDE + 1)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        raise _damaged("a slice is not a readable picture") from None
    if max(size) > MAX_SIDE:
        raise IntegrityError(
            f"a slice has a side over {MAX_SIDE} pixels", rule="volume.too_large", fix="check the series"
        )
    return size


def read_grey(path: Path) -> NDArray[np.uint8]:
    """A picture as grey values [rows, columns]; PNG checksums are verified, a cut file is refused."""
    from PIL import Image

    try:
        with open_regular(path) as stream:
            if not stream.read().rstrip(b"\0").endswith(ENDS):
                raise _damaged("a slice is cut short")
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as picture:
                picture.verify()
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as picture:
                return np.asarray(picture.convert("L"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        raise _damaged("a slice is damaged or cut short") from None


def _damaged(what: str) -> IntegrityError:
    return IntegrityError(what, rule="volume.corrupt", fix="fetch the series again")


@SOURCES.register("m3d_cap")
class M3dCap(Source):
    """The data set M3D-Cap (huggingface.co/datasets/GoodBaiBai88/M3D-Cap) as it is downloaded."""

    class Params(Config):
        """Options of the source `m3d_cap`."""

        folder: str = "ct_case"
        hu_window: tuple[float, float] = (-160.0, 240.0)  # HU of grey 0 and 255: an assumption
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)  # unknown; the authors' convention is 1
        first_slice: Literal["superior", "inferior"] = "superior"
        min_slices: Annotated[int, Field(ge=1)] = 48
        max_cases: Annotated[int, Field(ge=1)] | None = None  # the first cases only

        @model_validator(mode="after")
        def _check(self) -> M3dCap.Params:
            low, high = self.hu_window
            if not -32768 <= low < high <= 32767:
                raise ValueError("hu_window must rise, within int16")
            if min(self.spacing_mm) <= 0:
                raise ValueError("spacing_mm must be positive")
            return self

    def series(self) -> Iterator[RawSeries | Refused]:
        """One item for each series folder, ordered by case, study and series."""
        params: M3dCap.Params = self.params  # type: ignore[assignment]
        base = below(self.root, params.folder)
        if not base.is_dir():
            raise InputError(
                "the source has no folder of cases", rule="m3d_cap.folder", fix="correct the option `folder`"
            )
        for case in _folders(base)[: params.max_cases]:
            for study in _folders(case):
                for series in _folders(study):
                    ids = (case.name, f"{case.name}/{study.name}", f"{case.name}/{study.name}/{series.name}")
                    try:
                        yield self._series(ids, study, series, params)
                    except InputError as error:
                        yield Refused(*ids, error.rule, error.what)

    def _series(
        self, ids: tuple[str, str, str], study: Path, series: Path, params: M3dCap.Params
    ) -> PictureSeries:
        below(self.root, series.relative_to(self.root).as_posix())
        pictures = [path for path in series.iterdir() if path.suffix.lower() in SUFFIXES]
        if any(not path.stem.isdecimal() for path in pictures):
            raise InputError(
                "a slice's name is not an integer",
                rule="m3d_cap.slice_name",
                fix="rename or remove the slice",
            )
        numbers = Counter(int(path.stem) for path in pictures)
        if any(count > 1 for count in numbers.values()):
            raise InputError(
                "two slices have the same number", rule="m3d_cap.slice_duplicate", fix="remove one of them"
            )
        if len(pictures) < params.min_slices:
            raise InputError(
                f"the series has {len(pictures)} slices, fewer than {params.min_slices}",
                rule="left_out.depth",
                fix="lower min_slices to take it",
            )
        text = below(self.root, (study / "text.txt").relative_to(self.root).as_posix())
        return PictureSeries(
            *ids,
            report=read_text(text) if text.exists() else None,
            labels={LABEL: 1},
            pictures=tuple(sorted(pictures, key=lambda path: int(path.stem))),
            hu_window=params.hu_window,
            spacing_mm=params.spacing_mm,
            first_slice=params.first_slice,
            min_slices=params.min_slices,
        )


def _folders(path: Path) -> list[Path]:
    """The folders in a folder: those with integer names by number, then the others by name."""

    def order(folder: Path) -> tuple[bool, int, str]:
        number = folder.name.isdecimal()
        return not number, int(folder.name) if number else 0, folder.name

    return sorted((item for item in path.iterdir() if item.is_dir()), key=order)
