"""A folder of volume files without reports: each file is an image-only study of a patient of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.base.config import Config
from components.base.volume_files import SUFFIXES, volume_suffix
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Refused, Source


@dataclass(frozen=True)
class FileSeries(RawSeries):
    """One volume file."""

    image: Path = Path()

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Read the file to its last byte and write it without its header's texts."""
        from components.cohort._writing import copy_volume

        copy_volume(self.image, volume)
        return []


@SOURCES.register("volume_folder")
class VolumeFolder(Source):
    """Every .nii, .nii.gz, .mha and .nrrd file of a tree that the options let in.

    A folder holds label maps and MR beside CT, and nothing in such a file says which it is: leave them out with
    `exclude`. Patterns are on the path from the source's folder; `*` stays within a name, `**` does not.
    """

    class Params(Config):
        """Options of the source `volume_folder`."""

        include: tuple[str, ...] = tuple(f"**/*{suffix}" for suffix in SUFFIXES)
        exclude: tuple[str, ...] = ()
        provenance: Literal["real", "synthetic"] = "real"

    def series(self) -> Iterator[RawSeries | Refused]:
        """One item for each file, in the order of their paths."""
        params: VolumeFolder.Params = self.params  # type: ignore[assignment]
        include, exclude = (_any(patterns) for patterns in (params.include, params.exclude))
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if path.is_dir() or not volume_suffix(path):
                continue
            if not include.fullmatch(name) or exclude.fullmatch(name):
                continue
            if path.is_symlink():
                yield Refused(name, name, name, "path.link", "the volume is a symbolic link")
                continue
            yield FileSeries(name, name, name, provenance=params.provenance, image=path)


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _any(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One expression for all patterns; without a pattern it matches nothing."""
    parts = (re.split(r"(\*\*/|\*\*|\*|\?)", pattern) for pattern in patterns)
    texts = ("".join(_WILD.get(part, re.escape(part)) for part in split) for split in parts)
    return re.compile("|".join(texts) or r"(?!)")
