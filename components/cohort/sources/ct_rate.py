"""CT-RATE's folders and tables: dataset/SPLIT/PATIENT/SCAN/VOLUME.nii.gz, reports, metadata and 18 labels.

    dataset/train/train_1/train_1_a/train_1_a_1.nii.gz
    dataset/radiology_text_reports/train_reports.csv            VolumeName, ..._EN
    dataset/metadata/train_metadata.csv                         VolumeName, RescaleSlope, XYSpacing, ...
    dataset/multi_abnormality_labels/train_predicted_labels.csv VolumeName, 18 columns of 0 and 1

A patient has scans (a, b, ...: the studies), a scan has reconstructions (1, 2, ...: the series) with one report.

**Rescaling.** The first release stores values that need the metadata's slope and intercept, the second is in HU
already; rescaling it again moves air to -2024 HU. Every CT of a person holds air, so `rescale: detect` counts voxels
in the air band (-1100 to -800 HU), the lowest value left out because padding may have it: where at least 2 % of the
stored values lie there, they are HU; else where 2 % of the rescaled values do, those are; else the series is refused.
Stored values of the first release begin at 0 (air at about 24), so that none of them lies in the band.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError, IntegrityError
from components.base.volume_files import Volume, read_volume
from components.cohort._evaluation_set import Candidate, evaluation_set
from components.cohort._people import age_years, date_forms
from components.cohort._tables import Row, below, check_cell, check_text, read_csv, read_text, refuse
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Refused, Source

Rescale = Literal["detect", "apply", "never"]
NAME = re.compile(r"(?P<patient>[A-Za-z]+_\d+)_(?P<scan>[A-Za-z]+)_(?P<series>\d+)\.nii\.gz")
REPORT_COLUMNS = {
    "ClinicalInformation_EN": "CLINICAL INFORMATION",
    "Technique_EN": "TECHNIQUE",
    "Findings_EN": "FINDINGS",
    "Impressions_EN": "IMPRESSION",
}
AIR_HU = (-1100.0, -800.0)
MIN_AIR_FRACTION = 0.02
SPACING_TOLERANCE = 0.01  # relative


@dataclass(frozen=True)
class CtRateSeries(RawSeries):
    """One reconstruction, with what the metadata table says of its values and spacing."""

    image: Path = Path()
    slope: float | None = None
    intercept: float | None = None
    spacing_mm: tuple[float, float, float] | None = None
    rescale: Rescale = "detect"

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Read the file to its last byte, bring its values to HU once, and write it."""
        from components.cohort._writing import save_volume

        read = read_volume(self.image)
        hu = to_hu(read.array, self.slope, self.intercept, self.rescale)
        affine, changed = with_spacing(read, self.spacing_mm)
        save_volume(hu, affine, volume, None if changed else read.geometry)
        return []


def air_fraction(values: NDArray, slope: float = 1.0, intercept: float = 0.0) -> float:
    """The share of voxels that are air as `slope * value + intercept` HU, the lowest value left out."""
    low, high = sorted((edge - intercept) / slope for edge in AIR_HU)
    air = (values >= low) & (values <= high) & (values > values.min())
    return float(np.count_nonzero(air)) / values.size


def to_hu(values: NDArray, slope: float | None, intercept: float | None, rescale: Rescale) -> NDArray:
    """HU from stored values by the rule in this module's docstring; `IntegrityError` where no reading fits."""
    in_hu = air_fraction(values) >= MIN_AIR_FRACTION
    if rescale == "never" or (rescale == "detect" and in_hu):
        return values
    if slope is None or intercept is None or slope == 0:
        raise IntegrityError(
            "the stored values are not HU and the metadata has no rescale slope and intercept",
            rule="ct_rate.rescale_absent",
            fix="add the series to the metadata table",
        )
    if (slope, intercept) == (1.0, 0.0):
        return values
    if in_hu:
        raise IntegrityError(
            "the stored values are HU already; rescaling them would do it twice",
            rule="volume.double_rescale",
            fix="set the option rescale to detect",
        )
    if rescale == "detect" and air_fraction(values, slope, intercept) < MIN_AIR_FRACTION:
        raise IntegrityError(
            "neither the stored nor the rescaled values hold the air that every CT has",
            rule="ct_rate.rescale_unclear",
            fix="look at the series; set the option rescale if you know how it is stored",
        )
    return (values.astype(np.float64) * slope + intercept).astype(np.float32)


def with_spacing(
    volume: Volume, spacing_mm: tuple[float, float, float] | None
) -> tuple[NDArray[np.float64], bool]:
    """The affine with the metadata's spacing where the header's differs by over 1 %, and whether it did."""
    lengths = np.linalg.norm(volume.affine[:3, :3], axis=0)
    if spacing_mm is None or not np.isfinite(lengths).all() or (lengths == 0).any():
        return volume.affine, False
    wanted = np.array(spacing_mm)
    if (np.abs(lengths - wanted) <= SPACING_TOLERANCE * wanted).all():
        return volume.affine, False
    affine = volume.affine.copy()
    affine[:3, :3] *= wanted / lengths
    return affine, True


@SOURCES.register("ct_rate")
class CtRate(Source):
    """The data set CT-RATE (huggingface.co/datasets/ibrahimhamamci/CT-RATE) as it is downloaded."""

    class Params(Config):
        """Options of the source `ct_rate`."""

        folder: str = "dataset"
        splits: tuple[str, ...] = ("train", "valid")  # folders below it (or train_fixed, valid_fixed)
        rescale: Rescale = "detect"
        max_patients: Annotated[int, Field(ge=1)] | None = None  # of each split
        evaluation_splits: tuple[
            str, ...
        ] = ()  # of these only the evaluation set (components.cohort._evaluation_set)
        leave_out: str | None = (
            None  # a list of volumes or studies below `folder` (no_chest_valid.txt), for those splits
        )

    def series(self) -> Iterator[RawSeries | Refused]:
        """One item for each volume of each split, in the order of their paths."""
        params: CtRate.Params = self.params  # type: ignore[assignment]
        folder = below(self.root, params.folder)
        for split in params.splits:
            base = below(folder, split)
            if not base.is_dir():
                raise refuse(f"there is no folder of the split {split}", "ct_rate.split", "correct `splits`")
            tables = [self._table(folder, kind, split) for kind in TABLES]
            others = self._not_evaluated(base, tables) if split in params.evaluation_splits else {}
            patients: set[str] = set()
            for path in sorted(base.rglob("*.nii.gz"), key=_order):
                found = NAME.fullmatch(path.name)
                name = path.relative_to(self.root).as_posix()
                if found:
                    patients.add(found["patient"])
                if params.max_patients is not None and len(patients) > params.max_patients:
                    break
                if path.name in others and found:
                    yield Refused(*_ids(found), "left_out.evaluation_set", others[path.name])
                    continue
                try:
                    yield self._series(path, found, tables, params.rescale)
                except InputError as error:
                    yield Refused(*(_ids(found) if found else (name,) * 3), error.rule, error.what)

    def _not_evaluated(self, base: Path, tables: list[dict[str, Row]]) -> dict[str, str]:
        """The volumes of a split that are not in the evaluation set, and why."""
        params: CtRate.Params = self.params  # type: ignore[assignment]
        names: list[str] = []
        if params.leave_out is not None:
            listed = read_text(below(below(self.root, params.folder), params.leave_out)) or ""
            names = [line.strip() for line in listed.splitlines() if line.strip()]
        volumes = []
        for path in base.rglob("*.nii.gz"):
            found = NAME.fullmatch(path.name)
            if found:
                report, metadata = (table.get(path.name) for table in tables[:2])
                spacing = _plane(metadata.cells) if metadata else None
                text = report.get("Findings_EN") if report else ""
                volumes.append(Candidate(path.name, _ids(found)[1], spacing, text))
        return evaluation_set(volumes, names)

    def _table(self, folder: Path, kind: str, split: str) -> dict[str, Row]:
        """The rows of a split's table by VolumeName; a table that is not there is empty, reports excepted."""
        word = split.split("_")[0]
        names = sorted((folder / kind).glob(f"{word}*.csv"))
        if len(names) > 1 or (not names and TABLES[kind]):
            raise refuse(
                f"{kind} holds {len(names)} tables of the split {split}, not one",
                "ct_rate.tables",
                "keep one CSV file for each split whose name begins with the split's",
            )
        rows: dict[str, Row] = {}
        for path in names:
            table = below(folder, path.relative_to(folder).as_posix())
            for row in read_csv(table, ["VolumeName", *TABLES[kind]]):
                name = row.get("VolumeName")
                if name in rows:
                    raise refuse(f"row {row.number} of {kind} names a volume again", "ct_rate.row_duplicate")
                rows[name] = row
        return rows

    def _series(
        self, path: Path, found: re.Match[str] | None, tables: list[dict[str, Row]], rescale: Rescale
    ) -> CtRateSeries:
        if found is None:
            raise refuse("a volume's name is not PATIENT_SCAN_SERIES.nii.gz", "ct_rate.name", "rename it")
        below(self.root, path.relative_to(self.root).as_posix())
        report, metadata, labels = (table.get(path.name) for table in tables)
        cells = {name: check_cell(cell, name) for name, cell in (metadata.cells if metadata else {}).items()}
        dates = date_forms(cells.get("StudyDate", ""))
        return CtRateSeries(
            *_ids(found),
            report=compose(report) if report else None,
            sex=cells.get("PatientSex"),
            age_years=age_years(cells.get("PatientAge", "")),
            labels=_labels(labels) if labels else {},
            identities=tuple(("DATE", form) for form in dates),
            image=path,
            slope=_number(cells, "RescaleSlope"),
            intercept=_number(cells, "RescaleIntercept"),
            spacing_mm=_spacing(cells),
            rescale=rescale,
        )


TABLES: Mapping[str, tuple[str, ...]] = {
    "radiology_text_reports": tuple(REPORT_COLUMNS),
    "metadata": (),
    "multi_abnormality_labels": (),
}


def _order(path: Path) -> tuple[str | int, ...]:
    """Numbers in names sort as numbers, so that `max_patients` takes train_1 to train_n."""
    parts = re.split(r"(\d+)", path.as_posix())
    return tuple(int(part) if part.isdigit() else part for part in parts)


def _ids(found: re.Match[str]) -> tuple[str, str, str]:
    study = f"{found['patient']}_{found['scan']}"
    return found["patient"], study, f"{study}_{found['series']}"


def compose(row: Row) -> str | None:
    """The report: the four columns that are not empty, each under its heading."""
    parts = []
    for column, heading in REPORT_COLUMNS.items():
        text = check_text(row.get(column), column)
        if text and text.lower() not in {"nan", "none"}:
            parts.append(f"{heading}:\n{text}")
    return "\n\n".join(parts) or None


def _labels(row: Row) -> dict[str, int]:
    found = {}
    for name, cell in row.cells.items():
        if name == "VolumeName" or not cell:
            continue
        if cell not in {"0", "1", "0.0", "1.0"}:
            raise refuse(f"the label {name} is neither 0 nor 1", "gold.labels")
        found[name] = int(float(cell))
    return found


def _number(cells: Mapping[str, str], name: str) -> float | None:
    try:
        value = float(cells.get(name, ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _spacing(cells: Mapping[str, str]) -> tuple[float, float, float] | None:
    """(x, y, z) in mm from XYSpacing ("[0.7, 0.7]") and ZSpacing; None unless all are positive."""
    plane, depth = _plane(cells), _number(cells, "ZSpacing")
    return (*plane, depth) if plane and depth is not None and depth > 0 else None


def _plane(cells: Mapping[str, str]) -> tuple[float, float] | None:
    """(x, y) in mm from XYSpacing; None unless both are positive."""
    found = re.findall(r"\d+\.?\d*(?:[eE][+-]?\d+)?", cells.get("XYSpacing", ""))
    if len(found) != 2:
        return None
    values = (float(found[0]), float(found[1]))
    return values if min(values) > 0 else None
