"""What a source hands to `ingest`: one series with its raw identifiers, and how to write its files.

A `RawSeries` holds identifiable data and never leaves `ingest`. It is picklable, so that series are
written by several processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from components.base.config import Config


@dataclass(frozen=True)
class Mask:
    """A label map that was written beside a volume: its name, file and value -> label names."""

    name: str
    path: Path
    labels: Mapping[int, str]


@dataclass(frozen=True)
class RawSeries(ABC):
    """One series of a study as its source knows it.

    `patient`, `study` and `series` are the raw identifiers, unique within the source. `labels` are gold labels
    (1 present, 0 absent). `identities` are (kind, value) pairs of known PHI; `gold_spans` are
    (start, end, kind) on `report`. A `report` of None means image-only.
    """

    patient: str
    study: str
    series: str
    modality: str = "CT"
    provenance: str = "real"
    report: str | None = None
    sex: str | None = None
    age_years: float | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    identities: tuple[tuple[str, str], ...] = ()
    gold_spans: tuple[tuple[int, int, str], ...] = ()

    @abstractmethod
    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Write the volume to the file `volume` (.nii.gz, HU) and its label maps to `masks/STEM.NAME.nii.gz`.

        Returns the masks. Raises `InputError` (or `IntegrityError`) with a rule when the series cannot be used;
        `ingest` then quarantines it.
        """


@dataclass(frozen=True)
class Refused:
    """A series (or a whole folder) that a source leaves out, with the rule and a reason without PHI."""

    patient: str
    study: str
    series: str
    rule: str
    reason: str


class Source(ABC):
    """A data source; each in a file of its own, registered with `SOURCES.register(name)`."""

    Params: ClassVar[type[Config]]

    def __init__(self, params: Config, root: Path, seed: int) -> None:
        """`root` is the folder of this source's data (unused by a generator)."""
        self.params, self.root, self.seed = params, root, seed

    @abstractmethod
    def series(self) -> Iterator[RawSeries | Refused]:
        """Every series of the source in a fixed order; what is left out comes as `Refused`."""
