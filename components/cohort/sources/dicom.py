"""A tree of DICOM studies: series are assembled from their slices, whatever is no CT volume is left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Literal

from components.base.config import Config
from components.base.errors import InputError
from components.cohort._tables import below, check_cell, check_text, read_csv, read_text
from components.cohort.dicom.assembly import AssemblyRules, Stack, assemble, left_out
from components.cohort.dicom.headers import UNREADABLE, Description, Slice, describe, is_dicom, read_slice
from components.cohort.sources import SOURCES
from components.cohort.study import Mask, RawSeries, Refused, Source

SUFFIXES = (".dcm", ".ima", ".dicom")
NOT_DICOM = (UNREADABLE, "a file is named as the slices are, but is not DICOM")
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # a DICOMDIR


@dataclass(frozen=True)
class DicomSeries(RawSeries):
    """A stack of CT slices."""

    stack: Stack | None = None

    def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
        """Read every slice's pixels and write HU."""
        from components.cohort._writing import save_volume
        from components.cohort.dicom.pixels import read_hu

        assert self.stack is not None
        save_volume(read_hu(self.stack), self.stack.affine, volume)
        return []


@dataclass
class _Found:
    """What a walk through the tree found of one series: its slices and what the first header says."""

    slices: list[Slice]
    about: Description


Key = tuple[str, str, str]


@SOURCES.register("dicom")
class DicomFolder(Source):
    """Every DICOM file below the folder, whatever the names of files and folders."""

    class Params(Config):
        """Options of the source `dicom`."""

        rules: AssemblyRules = AssemblyRules()
        # text: STUDY_FOLDER.txt beside the study's folder, or report.txt in it; table: a CSV file
        reports: Literal["none", "text", "table"] = "none"
        table: str = "reports.csv"
        table_id: str = "study_id"  # a StudyInstanceUID, AccessionNumber or StudyID
        table_report: str = "report"

    def series(self) -> Iterator[RawSeries | Refused]:
        """Every series of the tree, ordered by its three UIDs, then every file that could not be read."""
        params: DicomFolder.Params = self.params  # type: ignore[assignment]
        found, damaged = self._walk()
        reports = self._table(params) if params.reports == "table" else {}
        folders = _study_folders(found)
        known: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        for (_, study, _), series in found.items():
            known[study] |= series.about.identities
        marred = {path.parent for path in damaged}
        for key in sorted(found):
            series = found[key]
            problems = [left_out(item) for item in series.slices]
            if None not in problems:
                yield Refused(*key, *(problems[0] or ("", "")))
            elif marred & {item.path.parent for item in series.slices}:
                yield Refused(*key, "dicom.folder_damaged", "a damaged file lies beside the series")
            else:
                yield self._series(key, series, params, reports, folders[key[1]], known[key[1]])
        for path in sorted(damaged):
            name = path.relative_to(self.root).as_posix()
            yield Refused(name, name, name, *damaged[path])

    def _walk(self) -> tuple[dict[Key, _Found], dict[Path, tuple[str, str]]]:
        """Slices by (patient, study, series), and (rule, reason) of the files that are damaged."""
        found: dict[Key, _Found] = {}
        damaged: dict[Path, tuple[str, str]] = {}
        suspects: list[Path] = []
        for path in sorted(self.root.rglob("*")):
            if path.is_dir() and not path.is_symlink():
                continue
            try:
                if not is_dicom(path):
                    if path.suffix.lower() in SUFFIXES:
                        damaged[path] = NOT_DICOM
                    elif _is_bare(path):
                        suspects.append(path)
                    continue
                item, header = read_slice(path)
                key = (item.patient, item.study, item.series)
                if key not in found:
                    found[key] = _Found([], describe(header))
                found[key].slices.append(item)
            except InputError as error:
                if not _is_directory_file(path):
                    damaged[path] = (error.rule, error.what)
        files = (item.path for series in found.values() for item in series.slices)
        folders = {path.parent for path in files if _is_bare(path)}
        damaged |= {path: NOT_DICOM for path in suspects if path.parent in folders}
        return found, damaged

    def _series(
        self,
        key: Key,
        found: _Found,
        params: DicomFolder.Params,
        reports: Mapping[str, str | None],
        folder: Path,
        known: set[tuple[str, str]],
    ) -> RawSeries | Refused:
        try:
            stack = assemble([item for item in found.slices if left_out(item) is None], params.rules)
            report = self._report(found.about, params, reports, folder)
        except InputError as error:
            return Refused(*key, error.rule, error.what)
        names = {("ID", folder.name), ("ID", stack.slices[0].path.stem)}
        return DicomSeries(
            *key,
            report=report,
            sex=found.about.sex,
            age_years=found.about.age_years,
            identities=tuple(sorted(known | names)),
            stack=stack,
        )

    def _report(
        self, about: Description, params: DicomFolder.Params, reports: Mapping[str, str | None], folder: Path
    ) -> str | None:
        if params.reports == "text":
            for path in (folder / "report.txt", folder.parent / f"{folder.name}.txt"):
                relative = path.relative_to(self.root).as_posix() if self.root in path.parents else ""
                if relative and path.exists():
                    return read_text(below(self.root, relative))
        return next((reports[number] for number in about.study_numbers if number in reports), None)

    def _table(self, params: DicomFolder.Params) -> dict[str, str | None]:
        """The reports of the table by study; a study that is there twice is an `InputError`."""
        found: dict[str, str | None] = {}
        for row in read_csv(below(self.root, params.table), [params.table_id, params.table_report]):
            study = check_cell(row.get(params.table_id), params.table_id)
            if study in found:
                raise InputError(
                    f"the table of reports has the study of row {row.number} twice",
                    rule="report.duplicate",
                    fix="keep one row for each study",
                )
            found[study] = check_text(row.get(params.table_report), params.table_report)
        return found


def _is_bare(path: Path) -> bool:
    """Whether a name has no suffix but a number, as many archives name slices (`I10`, `1.2.840.7`)."""
    return not path.suffix or path.suffix[1:].isdecimal()


def _study_folders(found: Mapping[Key, _Found]) -> dict[str, Path]:
    """The deepest folder that holds all of a study's files, by StudyInstanceUID."""
    parents: defaultdict[str, set[str]] = defaultdict(set)
    for (_, study, _), series in found.items():
        parents[study] |= {str(item.path.parent) for item in series.slices}
    return {study: Path(commonpath(sorted(paths))) for study, paths in parents.items()}


def _is_directory_file(path: Path) -> bool:
    """Whether a file is a DICOM directory, which lists files and is no image."""
    import pydicom

    try:
        meta = pydicom.filereader.read_file_meta_info(path)
    except Exception:
        return False
    return str(meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY_CLASS
