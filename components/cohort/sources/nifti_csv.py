"""A folder of volumes with a table: one CSV row a series, reports as text files, masks and gold spans optional."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.cohort._people import age_years, date_forms, name_forms
from components.cohort._tables import Row, below, check_cell, check_id, read_csv, read_text, refuse
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Refused, Source


class Columns(Config):
    """Which column holds what; null for a column that the table does not have."""

    patient: str = "patient_id"
    patient_name: str | None = "patient_name"
    sex: str | None = "sex"
    age: str | None = None  # years, or a DICOM age string
    study: str = "study_id"
    study_date: str | None = "study_date"
    series: str = "series_id"
    modality: str = "modality"
    image: str = "image"
    mask: str | None = "mask"
    report: str | None = "report"

    def used(self) -> list[str]:
        """The names of the columns that the table must have."""
        return [name for name in self.model_dump().values() if name]


@dataclass(frozen=True)
class TableSeries(RawSeries):
    """A volume file with at most one mask file on its grid."""

    image: Path = Path()
    mask: Path | None = None
    mask_name: str = "mask"
    mask_labels: Mapping[int, str] = field(default_factory=dict)

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Read both files to the last byte and write them without their headers' texts."""
        from components.cohort._writing import copy_mask, copy_volume

        read = copy_volume(self.image, volume)
        if self.mask is None:
            return []
        return [copy_mask(self.mask, masks, stem, self.mask_name, self.mask_labels, read)]


def binary_columns(header: Iterable[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Label -> its columns: the one of its name, or those of its name and a place (`hernia*abdomen`, RAD-ChestCT's)."""
    found = {name: [column for column in header if column.partition("*")[0] == name] for name in names}
    for name, columns in found.items():
        if not columns:
            raise refuse(
                f"the table has no column for the label {name}", "table.columns", "correct binary_columns"
            )
    return found


def binary_labels(row: Row, columns: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Label -> 1 where any of its columns is 1, 0 where one is 0 and none 1; without a value it is unlabelled."""
    labels: dict[str, int] = {}
    for name, members in columns.items():
        cells = [row.get(column) for column in members]
        if any(cell not in {"", "0", "1", "0.0", "1.0"} for cell in cells):
            raise refuse(f"the label {name} is neither 0 nor 1", "gold.labels")
        values = [int(float(cell)) for cell in cells if cell]
        if values:
            labels[name] = max(values)
    return labels


@SOURCES.register("nifti_csv")
class NiftiCsv(Source):
    """Volumes, masks and reports that a table lists by paths relative to its folder."""

    class Params(Config):
        """Options of the source `nifti_csv`."""

        table: str = "studies.csv"
        columns: Columns = Columns()
        label_columns: tuple[str, ...] = ()  # categories become gold labels "COLUMN=VALUE"
        binary_columns: tuple[
            str, ...
        ] = ()  # 0/1 become gold labels "COLUMN"; columns "COLUMN*PLACE" count as it
        identity_columns: dict[str, str] = Field(
            default_factory=dict
        )  # further columns with PHI: column -> kind ("STAFF", ...)
        mask_name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "tumour"
        mask_labels: dict[int, str] = Field(default_factory=lambda: {1: "tumour"})
        gold: str = "gold.jsonl"  # PHI spans of the reports; used where it exists
        max_patients: Annotated[int, Field(ge=1)] | None = None  # the first patients of the table only

    def series(self) -> Iterator[RawSeries | Refused]:
        """One item for each row of the table, in its order."""
        params: NiftiCsv.Params = self.params  # type: ignore[assignment]
        columns = [*params.columns.used(), *params.label_columns, *params.identity_columns]
        rows = list(read_csv(below(self.root, params.table), columns))
        binary = binary_columns(rows[0].cells if rows else {}, params.binary_columns)
        categories = {
            column: sorted({row.get(column) for row in rows} - {""}) for column in params.label_columns
        }
        gold = self._gold(params.gold)
        patients: set[str] = set()
        for row in rows:
            patients.add(row.get(params.columns.patient))
            if params.max_patients is not None and len(patients) > params.max_patients:
                return
            try:
                yield self._series(row, params, categories, binary, gold)
            except InputError as error:
                number = f"row {row.number}"
                yield Refused(
                    row.get(params.columns.patient) or number,
                    row.get(params.columns.study) or number,
                    row.get(params.columns.series) or number,
                    error.rule,
                    error.what,
                )

    def _series(
        self,
        row: Row,
        params: NiftiCsv.Params,
        categories: Mapping[str, list[str]],
        binary: Mapping[str, list[str]],
        gold: Mapping[str, tuple[tuple[int, int, str], ...]],
    ) -> TableSeries:
        columns = params.columns
        for name in [*columns.used(), *params.label_columns, *params.identity_columns]:
            check_cell(row.get(name), name)
        patient, study, series, image = (
            check_id(row.get(name), name)
            for name in (columns.patient, columns.study, columns.series, columns.image)
        )
        mask, report = row.get(columns.mask), row.get(columns.report)
        labels = {
            f"{column}={value}": int(row.get(column) == value)
            for column in params.label_columns
            if row.get(column)
            for value in categories[column]
        }
        labels |= binary_labels(row, binary)
        identities = [("MRN", patient), ("ACCESSION", study), ("ID", series)]
        identities += [("PATIENT", form) for form in name_forms(row.get(columns.patient_name))]
        identities += [("DATE", form) for form in date_forms(row.get(columns.study_date))]
        identities += [("ID", Path(path).name.split(".")[0]) for path in (image, mask, report) if path]
        identities += [(kind, row.get(column)) for column, kind in params.identity_columns.items()]
        return TableSeries(
            patient=patient,
            study=study,
            series=series,
            modality=row.get(columns.modality),
            report=read_text(below(self.root, report)) if report else None,
            sex=row.get(columns.sex),
            age_years=age_years(row.get(columns.age)),
            labels=labels,
            identities=tuple(dict.fromkeys(pair for pair in identities if pair[1])),
            gold_spans=gold.get(report, ()),
            image=below(self.root, image),
            mask=below(self.root, mask) if mask else None,
            mask_name=params.mask_name,
            mask_labels=params.mask_labels,
        )

    def _gold(self, name: str) -> dict[str, tuple[tuple[int, int, str], ...]]:
        """The gold spans of each report, by the report's path in the table; empty without a file."""
        path = below(self.root, name)
        if not path.exists():
            return {}
        found: dict[str, tuple[tuple[int, int, str], ...]] = {}
        try:
            for line in path.read_text(encoding="utf-8").splitlines():
                entry: dict[str, Any] = json.loads(line)
                spans = ((int(start), int(end), str(kind)) for start, end, kind in entry["spans"])
                found[entry["report"]] = tuple(spans)
        except (ValueError, KeyError, TypeError):
            raise refuse(
                f"{path.name} does not hold a report and spans on every line", "gold.malformed", "correct it"
            ) from None
        return found
