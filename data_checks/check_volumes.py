"""Check the store of preprocessed volumes: shapes, HU, duplicates and files.

    python -m data_checks.check_volumes

Reads artifacts/preprocess; writes artifacts/check_volumes/{accepted,quarantine}.parquet, result.json and
index.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext
from components.volumes.contract import AIR_HU, MAX_HU, Contract

if TYPE_CHECKING:
    from data_checks.suite import Check

COLUMNS: tuple[str, ...] = (
    "study_key",
    "patient_key",
    "series_key",
    "content_sha256",
    "hu_min",
    "hu_max",
    "hu_mean",
)
COLUMNS += ("air_fraction", "soft_fraction", "average_hash")


class Params(Config):
    """Bounds of the suite, on the contract's grid: voxels, HU, fractions of voxels."""

    min_voxels_per_axis: int = Field(default=8, ge=1)
    max_voxels_per_axis: int = Field(default=2048, ge=1)
    hu_mean: tuple[float, float] = (-1000.0, 500.0)
    min_hu_range: float = Field(default=300.0, ge=0.0)
    max_air_fraction: float = Field(default=0.98, ge=0.0, le=1.0)
    min_soft_fraction: float = Field(default=0.005, ge=0.0, le=1.0)
    min_volumes: int = Field(default=1, ge=1)
    cohort_hu_mean: tuple[float, float] = (-950.0, 200.0)
    max_quarantined_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Check, set series aside, write the accepted ones; returns counts."""
    import pyarrow as pa

    from components.base.files import read_table, write_table
    from components.cohort.quarantine import Quarantine
    from data_checks.page import publish, result_of, shown_key
    from data_checks.suite import failed_rows, frame_of, require_cohort, run_suite

    folder = context.artifacts("preprocess")
    rows = sorted(read_table(folder / "index.parquet").to_pylist(), key=lambda row: str(row["series_key"]))
    contract = Contract.load(folder)
    quarantine = Quarantine("check_volumes", context.log)
    if not rows:
        quarantine.close(context.out / "quarantine.parquet", total=0, limit=0.0)
    frame = frame_of(rows, COLUMNS)
    for name, values in _derived(rows, contract, context).items():
        frame[name] = values
    verdicts = run_suite("volumes", frame, checks(params, context))
    keys = [shown_key(row["series_key"], number) for number, row in enumerate(rows)]
    publish(
        context.out, "Volume checks", "volumes", result_of(verdicts, keys, params.max_quarantined_fraction)
    )
    for verdict in verdicts:
        for number in () if verdict.cohort else verdict.rows:
            study = shown_key(rows[number]["study_key"], number)
            quarantine.add(study, keys[number], verdict.rule, f"not so: {verdict.title}")
    quarantine.close(
        context.out / "quarantine.parquet", total=len(rows), limit=params.max_quarantined_fraction
    )
    require_cohort("check_volumes", verdicts)
    failed = failed_rows(verdicts)
    accepted = [row["series_key"] for number, row in enumerate(rows) if number not in failed]
    schema = pa.schema([("series_key", pa.string())])
    write_table(context.out / "accepted.parquet", pa.table({"series_key": accepted}, schema=schema))
    return {
        "volumes": len(rows),
        "accepted": len(accepted),
        "refused": len(failed),
        "checks": len(verdicts),
        "checks_passed": sum(verdict.passed for verdict in verdicts),
        "hu_mean": round(sum(row["hu_mean"] for row in rows) / len(rows), 2),
    }


def _derived(
    rows: Sequence[Mapping[str, Any]], contract: Contract, context: StepContext
) -> dict[str, list[Any]]:
    """Columns that the suite judges and the index does not hold as plain values."""
    import json

    def files(row: Mapping[str, Any]) -> list[str]:
        folder = f"artifacts/preprocess/store/{row['series_key']}"
        return [
            f"{folder}.b2nd",
            *(f"{folder}.{name}.b2nd" for name in sorted(json.loads(row["masks_json"]))),
        ]

    context.log.debug("the contract of the store is %s", contract.fingerprint())
    every = [files(row) for row in rows]
    # an expectation passes over missing values and takes NaN for one: completeness is a check of its own
    needed = [*COLUMNS, "shape", "file_sha256", "spacing_mm", "masks_json"]
    return {
        "complete": [all(_given(row.get(name)) for name in needed) for row in rows],
        "shortest": [min(row["shape"]) for row in rows],
        "longest": [max(row["shape"]) for row in rows],
        "on_grid": [list(row["spacing_mm"]) == list(contract.spacing_mm) for row in rows],
        "hu_range": [row["hu_max"] - row["hu_min"] for row in rows],
        "files": every,
        "files_whole": [_whole(row, paths, context) for row, paths in zip(rows, every)],
    }


def _given(value: Any) -> bool:
    """Whether a value is there and, if it is a number, finite."""
    import math

    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _whole(row: Mapping[str, Any], paths: Sequence[str], context: StepContext) -> bool:
    """Whether the files of a series have the bytes that the index records."""
    import json

    from components.base.files import sha256_file
    from data_checks.files import is_file_inside

    masks = json.loads(row["masks_json"])
    expected = [row["file_sha256"], *(masks[name]["file_sha256"] for name in sorted(masks))]
    return all(
        is_file_inside(context.root, path) and sha256_file(context.root / path) == digest
        for path, digest in zip(paths, expected)
    )


def checks(params: Params, context: StepContext) -> list[Check]:
    """The suite, in the order of the page."""
    import great_expectations.expectations as gxe

    from data_checks.expectations import ExpectFilesBelowRoot, ExpectOneValueForEach
    from data_checks.suite import Check

    between, regex = gxe.ExpectColumnValuesToBeBetween, gxe.ExpectColumnValuesToMatchRegex
    unique, one_of = gxe.ExpectColumnValuesToBeUnique, gxe.ExpectColumnValuesToBeInSet

    def bounds(rule: str, title: str, column: str, low: float | None, high: float | None) -> Check:
        return Check(rule, title, between(column=column, min_value=low, max_value=high))

    low, high = params.hu_mean
    found = [
        Check(
            f"volume.{name}",
            f"{name} is a keyed id",
            regex(column=name, regex=f"^{name[:3]}_[0-9a-f]{{16}}$"),
        )
        for name in ("study_key", "patient_key", "series_key")
    ]
    return [
        Check(
            "volume.complete",
            "Every value is given and finite",
            one_of(column="complete", value_set=[True]),
        ),
        *found,
        Check("volume.series_unique", "A series is in the store once", unique(column="series_key")),
        Check(
            "volume.files",
            "The files of the series are there",
            ExpectFilesBelowRoot(column="files", root=str(context.root)),
        ),
        Check(
            "volume.whole",
            "The files have the recorded bytes",
            one_of(column="files_whole", value_set=[True]),
        ),
        Check("volume.grid", "The spacing is the contract's", one_of(column="on_grid", value_set=[True])),
        bounds("volume.small", "No axis is too short", "shortest", params.min_voxels_per_axis, None),
        bounds("volume.large", "No axis is too long", "longest", None, params.max_voxels_per_axis),
        bounds("volume.hu_min", f"No voxel lies below {AIR_HU} HU", "hu_min", AIR_HU, None),
        bounds("volume.hu_max", f"No voxel lies above {MAX_HU} HU", "hu_max", None, MAX_HU),
        bounds("volume.hu_range", "The HU span air and tissue", "hu_range", params.min_hu_range, None),
        bounds("volume.hu_mean", "The mean HU is a body's and finite", "hu_mean", low, high),
        bounds("volume.air", "The volume is not all air", "air_fraction", 0.0, params.max_air_fraction),
        bounds(
            "volume.tissue", "The volume holds soft tissue", "soft_fraction", params.min_soft_fraction, 1.0
        ),
        Check(
            "volume.average_hash",
            "The average hash is given",
            regex(column="average_hash", regex="^[0-9a-f]{512}$"),
        ),
        Check(
            "volume.content_unique",
            "A volume's content is in the store once",
            unique(column="content_sha256"),
            keep_first=("content_sha256", "patient_key"),
        ),
        Check(
            "volume.content_two_patients",
            "A volume's content has one patient",
            ExpectOneValueForEach(column_A="content_sha256", column_B="patient_key"),
        ),
        *_whole_store(params),
    ]


def _whole_store(params: Params) -> list[Check]:
    """What must hold of the store as a whole."""
    import great_expectations.expectations as gxe

    from data_checks.suite import Check

    return [
        Check(
            "volumes.count",
            f"There are at least {params.min_volumes} volumes",
            gxe.ExpectTableRowCountToBeBetween(min_value=params.min_volumes),
            cohort=True,
        ),
        Check(
            "volumes.hu_mean",
            "The cohort's mean HU is plausible",
            gxe.ExpectColumnMeanToBeBetween(
                column="hu_mean", min_value=params.cohort_hu_mean[0], max_value=params.cohort_hu_mean[1]
            ),
            cohort=True,
        ),
    ]


STEP = Step("check_volumes", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
