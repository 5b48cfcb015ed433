"""Ingest: read the sources of studies into one manifest with keyed ids.

    python -m components.cohort.ingest

Reads the archive below `ingest.root`; writes restricted/ingest (mode 0700): volumes and masks as clean NIfTI,
`manifest`, `identities`, `gold_spans` and `quarantine` as Parquet. The manifest is written last: while it is
missing the folder is not complete. The bytes do not depend on the number of workers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from components.base.config import Config, parse
from components.base.errors import InputError
from components.base.step import Step, StepContext
from components.cohort.quarantine import Quarantine
from components.cohort.study import RawSeries, Refused, Source

FOLDERS = ("volumes", "masks")
OTHER_MODALITIES = re.compile("CR|DX|ECG|IO|MG|MR|NM|OT|PT|PX|RF|RTDOSE|RTPLAN|RTSTRUCT|SC|SEG|SR|US|XA|XC")
NUMBER_KINDS = frozenset({"MRN", "ACCESSION", "ID"})
SHORTEST_NUMBER = 4  # a shorter number ("1") is found everywhere and identifies nobody


class SourceParams(Config):
    """One source: its registered name, its folder below `root` and its own options."""

    source: str
    path: str = "."
    site: str = ""  # identifiers are unique within a site; default: the source's name
    population: str = ""  # whom the data are of ("Turkey, one hospital"), for the model card
    options: dict[str, Any] = Field(default_factory=dict)


class Params(Config):
    """The block `ingest` of params.yaml."""

    seed: Annotated[int, Field(ge=0)]
    root: str  # folder of the archive, from the project's root
    sources: Annotated[tuple[SourceParams, ...], Field(min_length=1)]
    max_quarantined_fraction: Annotated[float, Field(ge=0, le=1)]
    workers: Annotated[int, Field(ge=1, le=256)]


@dataclass(frozen=True)
class Keyed:
    """A series with its keyed ids and the name of its source."""

    source: str
    patient_key: str
    study_key: str
    series_key: str
    raw: RawSeries | Refused

    @property
    def order(self) -> tuple[str, str, str]:
        """The order of rows in every table."""
        return self.patient_key, self.study_key, self.series_key


def open_sources(params: Params, root: Path) -> list[tuple[SourceParams, Source]]:
    """The sources with their options checked; an unknown source or option is a `ConfigError`."""
    from components.cohort._tables import below
    from components.cohort.sources import SOURCES

    archive = root / params.root
    if not archive.is_dir():
        raise InputError(
            "the folder ingest.root does not exist", rule="ingest.root", fix="set ingest.root to the archive"
        )
    opened = []
    for number, entry in enumerate(params.sources):
        kind = SOURCES.get(entry.source)
        options = parse(kind.Params, entry.options, f"ingest.sources.{number}.options")
        folder = archive if entry.path == "." else below(archive, entry.path)
        if not folder.is_dir():
            raise InputError(
                f"the folder of source {number} ({entry.source}) does not exist",
                rule="ingest.source_folder",
                fix=f"set ingest.sources.{number}.path to a folder below ingest.root",
            )
        opened.append((entry, kind(options, folder, params.seed)))
    return opened


def list_series(sources: Sequence[tuple[SourceParams, Source]]) -> list[Keyed]:
    """Every series of every source with its keyed ids, in the order of rows."""
    from components.base.keys import KeyRing

    ring = KeyRing.load()
    found = []
    for entry, source in sources:
        site = entry.site or entry.source
        for raw in source.series():
            patient = ring.id("patient", f"{site}:{raw.patient}")
            study = ring.id("study", f"{site}:{raw.study}")
            series = ring.id("series", f"{site}:{raw.series}")
            found.append(Keyed(entry.source, patient, study, series, raw))
    return sorted(found, key=lambda item: item.order)


def problem_of(raw: RawSeries) -> tuple[str, str] | None:
    """The rule and the reason for which a single series cannot be taken, judged without its voxels."""
    modality = raw.modality.strip().upper()
    if modality != "CT":
        known = OTHER_MODALITIES.fullmatch(modality)
        name = modality if known else "unknown"
        return ("modality.not_ct" if known else "modality.unknown"), f"the modality is {name}, not CT"
    if raw.provenance not in {"real", "synthetic"}:
        return "provenance.unknown", "the provenance is neither real nor synthetic"
    length = len(raw.report or "")
    if any(not 0 <= start < end <= length for start, end, _ in raw.gold_spans):
        return "gold.spans", "a gold span lies outside the report"
    if any(value not in {0, 1} for value in raw.labels.values()):
        return "gold.labels", "a gold label is neither 0 nor 1"
    return None


def conflicts(items: Sequence[Keyed]) -> dict[tuple[str, str, str], tuple[str, str]]:
    """Rules about several rows together: `Keyed.order` of every series concerned -> (rule, reason)."""
    by_study: defaultdict[str, list[Keyed]] = defaultdict(list)
    for item in items:
        by_study[item.study_key].append(item)
    found: dict[tuple[str, str, str], tuple[str, str]] = {}
    for group in by_study.values():
        reports = {item.raw.report for item in group if isinstance(item.raw, RawSeries)}
        times = Counter(item.series_key for item in group if isinstance(item.raw, RawSeries))
        for item in group:
            if len({other.patient_key for other in group}) > 1:
                found[item.order] = ("study.two_patients", "the study is listed under two patients")
            elif times[item.series_key] > 1:
                found[item.order] = ("study.duplicate", "the study lists this series more than once")
            elif len(reports) > 1:
                found[item.order] = ("study.two_reports", "the series of the study have different reports")
    return found


def select(items: Sequence[Keyed], quarantine: Quarantine) -> list[Keyed]:
    """What may be written; everything else goes to quarantine, each series once for each rule."""
    clashes = conflicts(items)
    chosen = []
    told: set[tuple[str, str]] = set()
    for item in items:
        if isinstance(item.raw, Refused):
            problem: tuple[str, str] | None = (item.raw.rule, item.raw.reason)
        else:
            problem = problem_of(item.raw) or clashes.get(item.order)
        if problem is None:
            chosen.append(item)
        elif (item.series_key, problem[0]) not in told:
            told.add((item.series_key, problem[0]))
            quarantine.add(item.study_key, item.series_key, *problem)
    refused = quarantine.series()
    return [item for item in chosen if item.series_key not in refused]


def write_all(chosen: Sequence[Keyed], params: Params, context: StepContext) -> Iterator[Any]:
    """Write the chosen series, several at a time, and yield the outcomes in the given order."""
    from components.cohort._jobs import Job, run_jobs

    folder = context.restricted_out
    jobs = [Job(item.raw, item.series_key, folder) for item in chosen if isinstance(item.raw, RawSeries)]
    for done, outcome in enumerate(run_jobs(jobs, params.workers), start=1):
        context.progress(done, len(jobs), unit="series")
        yield outcome


def manifest_row(item: Keyed, written: Any) -> dict[str, Any]:
    """The manifest's row of a series that was written."""
    from components.cohort._people import age_band, sex_code

    raw, folder = item.raw, "restricted/ingest"
    assert isinstance(raw, RawSeries)
    masks = [
        {
            "name": mask.name,
            "path": f"{folder}/masks/{item.series_key}.{mask.name}.nii.gz",
            "sha256": mask.sha256,
            "labels_json": json.dumps({str(value): name for value, name in sorted(mask.labels.items())}),
        }
        for mask in written.masks
    ]
    return {
        "study_key": item.study_key,
        "patient_key": item.patient_key,
        "series_key": item.series_key,
        "modality": "CT",
        "source": item.source,
        "provenance": raw.provenance,
        "volume_path": f"{folder}/volumes/{item.series_key}.nii.gz",
        "volume_sha256": written.sha256,
        "masks": masks,
        "report": raw.report,
        "sex": sex_code(raw.sex),
        "age_band": age_band(raw.age_years),
        "labels": [{"name": name, "value": int(value)} for name, value in sorted(raw.labels.items())],
    }


def identity_rows(item: Keyed) -> set[tuple[Any, ...]]:
    """(study_key, kind, value) of the known PHI of a series, its raw identifiers included."""
    raw = item.raw
    pairs = {("MRN", raw.patient), ("ACCESSION", raw.study), ("ID", raw.series)}
    pairs |= {(kind, value.strip()) for kind, value in getattr(raw, "identities", ())}
    return {
        (item.study_key, kind, value)
        for kind, value in pairs
        if len(value) >= (SHORTEST_NUMBER if kind in NUMBER_KINDS else 2)
        and (kind != "ID" or re.search(r"\d", value))
    }


def span_rows(item: Keyed) -> set[tuple[Any, ...]]:
    """(study_key, start, end, kind) of the gold PHI spans on a series' report."""
    return {(item.study_key, *span) for span in getattr(item.raw, "gold_spans", ())}


def drop_same_voxels(kept: list[tuple[Keyed, Any]], quarantine: Quarantine) -> list[tuple[Keyed, Any]]:
    """Refuse a volume that was delivered twice; under two patients it is refused everywhere."""
    groups: defaultdict[str, list[Keyed]] = defaultdict(list)
    for item, written in kept:
        groups[written.sha256].append(item)
    for group in groups.values():
        doubtful = len({item.patient_key for item in group}) > 1
        for item in group if doubtful else group[1:]:
            reason = "the same voxels are listed " + ("under two patients" if doubtful else "more than once")
            rule = "volume.two_patients" if doubtful else "volume.duplicate"
            quarantine.add(item.study_key, item.series_key, rule, reason)
    refused = quarantine.series()
    return [(item, written) for item, written in kept if item.series_key not in refused]


def _clear(folder: Path) -> None:
    """Remove what an earlier run left, the manifest first."""
    from components.base.files import clean_orphans, restricted_folder

    for name in ("manifest", "identities", "gold_spans", "quarantine"):
        (folder / f"{name}.parquet").unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        restricted_folder(folder / name)
    clean_orphans(folder)


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Ingest every source; returns counts of patients, studies, series and what was refused."""
    from components.cohort._jobs import Failed, remove_files
    from components.cohort.manifest import schemas, write_rows

    items = list_series(open_sources(params, context.root))
    if not items:
        raise InputError(
            "the sources hold no study",
            rule="ingest.empty",
            fix="check ingest.root, and path and options of sources",
        )
    folder = context.restricted_out
    _clear(folder)
    quarantine = Quarantine("ingest", context.log)
    chosen = select(items, quarantine)
    kept: list[tuple[Keyed, Any]] = []
    for item, outcome in zip(chosen, write_all(chosen, params, context), strict=True):
        if isinstance(outcome, Failed):
            quarantine.add(item.study_key, item.series_key, outcome.rule, outcome.reason)
        else:
            kept.append((item, outcome))
    kept = drop_same_voxels(kept, quarantine)
    accepted = {item.series_key for item, _ in kept}
    for item in chosen:
        if item.series_key not in accepted:
            remove_files(folder, item.series_key)
    total = len({item.series_key for item in items})
    quarantine.close(folder / "quarantine.parquet", total=total, limit=params.max_quarantined_fraction)
    rows = [manifest_row(item, written) for item, written in kept]
    for name, found in (("identities", identity_rows), ("gold_spans", span_rows)):
        columns = schemas()[name].names
        values = sorted(set().union(*(found(item) for item, _ in kept)))
        write_rows(folder / f"{name}.parquet", name, (dict(zip(columns, value)) for value in values))
    write_rows(folder / "manifest.parquet", "manifest", rows)
    return summary(rows, quarantine, sum(written.num_bytes for _, written in kept))


def summary(rows: Sequence[Mapping[str, Any]], quarantine: Quarantine, num_bytes: int) -> dict[str, Any]:
    """The stage's metrics: counts only."""
    studies = {row["study_key"]: row["report"] is not None for row in rows}
    rules = Counter(row["rule"] for row in quarantine.rows)
    return {
        "num_patients": len({row["patient_key"] for row in rows}),
        "num_studies": len(studies),
        "num_series": len(rows),
        "num_paired": sum(studies.values()),
        "num_image_only": len(studies) - sum(studies.values()),
        "num_masks": sum(len(row["masks"]) for row in rows),
        "num_bytes": num_bytes,
        "num_series_by_source": dict(Counter(row["source"] for row in rows)),
        "num_quarantined": len(quarantine.counted()),
        "num_left_out": len(quarantine.series() - quarantine.counted()),
        "num_refused_by_rule": dict(rules),
    }


STEP = Step("ingest", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
