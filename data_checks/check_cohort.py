"""Check the manifest: keys, files, people and duplicates, before anything is made of it.

    python -m data_checks.check_cohort

Reads restricted/ingest; writes restricted/check_cohort/{manifest,quarantine}.parquet and
artifacts/check_cohort/{result.json,index.html}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    from data_checks.suite import Check

KEY = "_[0-9a-f]{16}$"
COLUMNS: tuple[str, ...] = (
    "study_key",
    "patient_key",
    "series_key",
    "modality",
    "source",
    "provenance",
    "volume_path",
)
COLUMNS += ("volume_sha256", "report", "sex", "age_band")
REQUIRED: tuple[str, ...] = ("study_key", "patient_key", "series_key", "modality", "source", "provenance")
REQUIRED += ("volume_path", "volume_sha256")
SHARED_KINDS = frozenset({"MRN", "ACCESSION"})


class Params(Config):
    """Bounds of the suite."""

    min_patients: int = Field(default=1, ge=1)
    min_report_fraction: float = Field(default=0.0, ge=0.0, le=1.0)
    min_volume_bytes: int = Field(default=1000, ge=1)
    max_volume_bytes: int = Field(default=4_000_000_000, ge=1)
    max_report_chars: int = Field(default=200_000, ge=1)
    max_quarantined_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Check, set rows aside, write what is left; returns counts."""
    from components.cohort.manifest import read_rows, write_rows
    from components.cohort.quarantine import Quarantine
    from data_checks.page import publish, result_of, shown_key
    from data_checks.suite import failed_rows, frame_of, require_cohort, run_suite

    ingest = context.restricted("ingest")
    rows = sorted(read_rows(ingest / "manifest.parquet", "manifest"), key=_order)
    identities = read_rows(ingest / "identities.parquet", "identities")
    quarantine = Quarantine("check_cohort", context.log)
    if not rows:
        quarantine.close(context.restricted_out / "quarantine.parquet", total=0, limit=0.0)
    frame = frame_of(rows, COLUMNS)
    for name, values in _derived(rows, identities, context).items():
        frame[name] = values
    verdicts = run_suite("cohort", frame, checks(params, context))
    keys = [shown_key(row["series_key"], number) for number, row in enumerate(rows)]
    result = result_of(verdicts, keys, params.max_quarantined_fraction)
    publish(context.out, "Cohort checks", "series", result)
    for verdict in verdicts:
        for number in () if verdict.cohort else verdict.rows:
            study = shown_key(rows[number]["study_key"], number)
            quarantine.add(study, keys[number], verdict.rule, f"not so: {verdict.title}")
    quarantine.close(
        context.restricted_out / "quarantine.parquet",
        total=len(rows),
        limit=params.max_quarantined_fraction,
    )
    require_cohort("check_cohort", verdicts)
    failed = failed_rows(verdicts)
    kept = [row for number, row in enumerate(rows) if number not in failed]
    write_rows(context.restricted_out / "manifest.parquet", "manifest", kept)
    return _metrics(kept, len(failed), verdicts)


def _order(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("patient_key", "study_key", "series_key", "volume_path"))


def _derived(
    rows: Sequence[Mapping[str, Any]], identities: Sequence[Mapping[str, Any]], context: StepContext
) -> dict[str, list[Any]]:
    """Columns that the suite judges and the manifest does not hold."""
    from pathlib import Path

    from data_checks.files import is_file_inside

    patients = {row["study_key"]: (row["source"], row["patient_key"]) for row in rows}
    owners: dict[tuple[str, str, str], set[str]] = {}
    for item in identities:
        if item["kind"] in SHARED_KINDS and item["study_key"] in patients:
            source, patient = patients[item["study_key"]]
            owners.setdefault((source, item["kind"], item["value"]), set()).add(patient)
    shared = {
        item["study_key"]
        for item in identities
        if item["study_key"] in patients
        and len(owners.get((patients[item["study_key"]][0], item["kind"], item["value"]), ())) > 1
    }

    def size_of(relative: Any) -> int:
        return (Path(context.root) / relative).stat().st_size if is_file_inside(context.root, relative) else 0

    return {
        "volume_bytes": [size_of(row["volume_path"]) for row in rows],
        "mask_paths": [[mask["path"] for mask in row["masks"] or []] for row in rows],
        "identifiers_shared": [row["study_key"] in shared for row in rows],
        "has_report": [int(row["report"] is not None) for row in rows],
    }


def checks(params: Params, context: StepContext) -> list[Check]:
    """The suite, in the order of the page."""
    return [*_fields(), *_contents(params, str(context.root)), *_duplicates(), *_whole_cohort(params)]


def _fields() -> list[Check]:
    """What a value must look like."""
    import great_expectations.expectations as gxe

    from components.cohort.sources import SOURCES
    from data_checks.suite import Check

    regex, one_of = gxe.ExpectColumnValuesToMatchRegex, gxe.ExpectColumnValuesToBeInSet
    present = gxe.ExpectColumnValuesToNotBeNull
    found = [Check(f"manifest.{name}_missing", f"{name} is given", present(column=name)) for name in REQUIRED]
    found += [
        Check(f"manifest.{name}", f"{name} is a keyed id", regex(column=name, regex=f"^{name[:3]}{KEY}"))
        for name in ("study_key", "patient_key", "series_key")
    ]
    volume = r"^restricted/ingest/volumes/ser_[0-9a-f]{16}\.nii(\.gz)?$"
    return [
        *found,
        Check("manifest.modality", "The modality is CT", one_of(column="modality", value_set=["CT"])),
        Check(
            "manifest.source",
            "The source is a registered one",
            one_of(column="source", value_set=SOURCES.names()),
        ),
        Check(
            "manifest.provenance",
            "The provenance is real or synthetic",
            one_of(column="provenance", value_set=["real", "synthetic"]),
        ),
        Check(
            "manifest.sex", "The sex is M, F, O or unknown", one_of(column="sex", value_set=["M", "F", "O"])
        ),
        Check(
            "manifest.age_band",
            "The age is a band of ten years, 90+ or unknown",
            regex(column="age_band", regex=r"^([0-8]?0-[0-8]?9|90\+)$"),
        ),
        Check(
            "manifest.volume_path",
            "The volume lies in the ingest folder",
            regex(column="volume_path", regex=volume),
        ),
        Check(
            "manifest.sha256", "The hash is a SHA-256", regex(column="volume_sha256", regex="^[0-9a-f]{64}$")
        ),
    ]


def _contents(params: Params, root: str) -> list[Check]:
    """Files that must be there, reports that must have text."""
    import great_expectations.expectations as gxe

    from data_checks.expectations import ExpectFilesBelowRoot
    from data_checks.suite import Check

    between, regex = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToMatchRegex
    return [
        Check(
            "manifest.volume_file",
            "The volume's file is there",
            ExpectFilesBelowRoot(column="volume_path", root=root),
        ),
        Check(
            "manifest.mask_files",
            "The label maps are there",
            ExpectFilesBelowRoot(column="mask_paths", root=root),
        ),
        Check(
            "manifest.volume_bytes",
            "The file has a plausible size",
            between(
                column="volume_bytes", min_value=params.min_volume_bytes, max_value=params.max_volume_bytes
            ),
        ),
        Check(
            "manifest.report_blank",
            "A report that is given has text",
            regex(column="report", regex=r"[^\W_]"),
        ),
        Check(
            "manifest.report_length",
            "A report has a plausible length",
            gxe.ExpectColumnValueLengthsToBeBetween(column="report", max_value=params.max_report_chars),
        ),
    ]


def _duplicates() -> list[Check]:
    """What may be listed once, and what belongs to one."""
    import great_expectations.expectations as gxe

    from data_checks.expectations import ExpectOneValueForEach
    from data_checks.suite import Check

    def functional(rule: str, title: str, first: str, second: str) -> Check:
        return Check(rule, title, ExpectOneValueForEach(column_A=first, column_B=second))

    return [
        Check(
            "manifest.series_unique",
            "A series is listed once",
            gxe.ExpectColumnValuesToBeUnique(column="series_key"),
            keep_first=("series_key", "volume_sha256"),
        ),
        Check(
            "manifest.volume_unique",
            "A volume is listed once",
            gxe.ExpectColumnValuesToBeUnique(column="volume_sha256"),
            keep_first=("volume_sha256", "patient_key"),
        ),
        functional("manifest.series_conflict", "A series has one volume", "series_key", "volume_sha256"),
        functional(
            "manifest.volume_two_patients", "A volume has one patient", "volume_sha256", "patient_key"
        ),
        functional("manifest.study_two_patients", "A study has one patient", "study_key", "patient_key"),
        functional("manifest.study_two_reports", "A study has one report", "study_key", "report"),
        functional("manifest.patient_two_sexes", "A patient has one sex", "patient_key", "sex"),
        Check(
            "manifest.identifier_two_patients",
            "A record or accession number has one patient",
            gxe.ExpectColumnValuesToBeInSet(column="identifiers_shared", value_set=[False]),
        ),
    ]


def _whole_cohort(params: Params) -> list[Check]:
    """What must hold of the table as a whole."""
    import great_expectations.expectations as gxe

    from data_checks.suite import Check

    return [
        Check(
            "cohort.patients",
            f"There are at least {params.min_patients} patients",
            gxe.ExpectColumnUniqueValueCountToBeBetween(column="patient_key", min_value=params.min_patients),
            cohort=True,
        ),
        Check(
            "cohort.reports",
            f"At least {params.min_report_fraction:.0%} of the series have a report",
            gxe.ExpectColumnMeanToBeBetween(column="has_report", min_value=params.min_report_fraction),
            cohort=True,
        ),
    ]


def _metrics(kept: Sequence[Mapping[str, Any]], refused: int, verdicts: Sequence[Any]) -> dict[str, Any]:
    return {
        "series": len(kept),
        "studies": len({row["study_key"] for row in kept}),
        "patients": len({row["patient_key"] for row in kept}),
        "image_only_studies": len({row["study_key"] for row in kept if row["report"] is None}),
        "refused": refused,
        "checks": len(verdicts),
        "checks_passed": sum(verdict.passed for verdict in verdicts),
    }


STEP = Step("check_cohort", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
