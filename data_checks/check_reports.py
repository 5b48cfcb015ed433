"""Check the de-identified, sectioned reports: whole, in sections, and without PHI that is known or has a form.

    python -m data_checks.check_reports

Reads artifacts/deidentify, artifacts/section and, for the known identities and the originals of surrogates,
restricted/ingest and restricted/deidentify; writes artifacts/check_reports/{accepted,quarantine}.parquet, result.json
and index.html. A report that is set aside leaves its study image-only: `split` pairs only the accepted ones. More
reports with PHI than `max_residual_fraction` stop the flow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    from data_checks.suite import Check

MOJIBAKE = r"\ufffd|Ã[\u0080-\u00bf]|Â[\u0080-\u00bf]|â€|[\x00-\x08\x0e-\x1f\x7f]"
LATIN_LETTER = r"[^\W\d_]"


class Params(Config):
    """Bounds of the suite; lengths in characters. `content_sections` are those of which one must have text."""

    min_chars: int = Field(default=20, ge=1)
    max_chars: int = Field(default=100_000, ge=1)
    content_sections: tuple[str, ...] = ("findings", "impression")
    max_repeated_fraction: float = Field(default=0.5, ge=0.0, le=1.0)
    max_quarantined_fraction: float = Field(default=0.1, ge=0.0, le=1.0)
    max_residual_fraction: float = Field(default=0.0, ge=0.0, le=1.0)


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Check, set reports aside, write the accepted studies; returns counts."""
    import pyarrow as pa

    from components.base.files import write_table
    from components.cohort.manifest import read_rows, write_rows
    from components.cohort.quarantine import Quarantine
    from data_checks.page import publish, result_of, shown_key
    from data_checks.suite import failed_rows, frame_of, library, require_cohort, run_suite

    source = context.artifacts("deidentify")
    reports = sorted(read_rows(source / "reports.parquet", "reports"), key=lambda row: str(row["study_key"]))
    manifest = read_rows(source / "manifest.parquet", "deidentified_manifest")
    schema = pa.schema([("study_key", pa.string())])
    if not reports:  # an image-only cohort is a legitimate one
        library()
        publish(context.out, "Report checks", "reports", {**result_of([], [], 0.0), "success": True})
        write_rows(context.out / "quarantine.parquet", "quarantine", [])
        write_table(context.out / "accepted.parquet", schema.empty_table())
        return {"reports": 0, "accepted": 0, "refused": 0, "checks": 0, "checks_passed": 0}
    frame = frame_of(reports, ("study_key", "text"))
    for name, values in _joined(reports, context).items():
        frame[name] = values
    known = {row["study_key"] for row in manifest}
    verdicts = run_suite("reports", frame, checks(params, known))
    keys = [shown_key(row["study_key"], number) for number, row in enumerate(reports)]
    result = result_of(verdicts, keys, params.max_quarantined_fraction)
    publish(context.out, "Report checks", "reports", result)
    quarantine = Quarantine("check_reports", context.log)
    series = {
        row["study_key"]: row["series_key"] for row in sorted(manifest, key=lambda row: row["series_key"])
    }
    for verdict in verdicts:
        for number in () if verdict.cohort else verdict.rows:
            # one row a report: the study's series, so that the limit counts reports
            one = series.get(reports[number]["study_key"], keys[number])
            quarantine.add(keys[number], one, verdict.rule, f"not so: {verdict.title}")
    quarantine.close(
        context.out / "quarantine.parquet", total=len(reports), limit=params.max_quarantined_fraction
    )
    require_cohort("check_reports", verdicts)
    failed = failed_rows(verdicts)
    accepted = [row["study_key"] for number, row in enumerate(reports) if number not in failed]
    write_table(context.out / "accepted.parquet", pa.table({"study_key": accepted}, schema=schema))
    return {
        "reports": len(reports),
        "accepted": len(accepted),
        "refused": len(failed),
        "checks": len(verdicts),
        "checks_passed": sum(verdict.passed for verdict in verdicts),
    }


def _joined(reports: Sequence[Mapping[str, Any]], context: StepContext) -> dict[str, list[Any]]:
    """For every report: its sections, what is known of its PHI, and its text to compare with others."""
    from components.base.files import read_table
    from components.cohort.manifest import read_rows
    from data_checks.phi_patterns import REALISTIC, spots_of

    sections: defaultdict[str, list[Any]] = defaultdict(list)
    for row in read_table(context.artifacts("section") / "sections.parquet").to_pylist():
        sections[row["study_key"]].append(row)
    audit = read_rows(context.artifacts("deidentify") / "audit.parquet", "audit")
    offsets: list[dict[str, Any]] = []
    if any(row["action"] in REALISTIC for row in audit):
        offsets = read_table(context.restricted("deidentify") / "offsets.parquet").to_pylist()
    spots = spots_of(audit, offsets)
    known: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_rows(context.restricted("ingest") / "identities.parquet", "identities"):
        known[row["study_key"]].append((row["kind"], row["value"]))
    studies = [row["study_key"] for row in reports]
    texts = {}
    for row in reports:
        texts[row["study_key"]] = " ".join((row["text"] or "").split()).casefold()
    return {
        "sections": [sections.get(study, []) for study in studies],
        "phi": [{"identities": known.get(study, []), "spots": spots.get(study, [])} for study in studies],
        "normalised": [texts[study] for study in studies],
    }


def checks(params: Params, known_studies: set[str]) -> list[Check]:
    """The suite, in the order of the page; `known_studies` are the manifest's keys."""
    import great_expectations.expectations as gxe

    from data_checks.expectations import ExpectSectionNamed, ExpectSectionsToCoverText
    from data_checks.suite import Check

    names = " or ".join(params.content_sections)
    return [
        Check(
            "report.key_missing",
            "The study's key is given",
            gxe.ExpectColumnValuesToNotBeNull(column="study_key"),
        ),
        Check(
            "report.study_key",
            "The report's study is in the manifest",
            gxe.ExpectColumnValuesToBeInSet(column="study_key", value_set=sorted(known_studies)),
        ),
        Check(
            "report.study_unique",
            "A study has one report",
            gxe.ExpectColumnValuesToBeUnique(column="study_key"),
        ),
        Check("report.missing", "The text is given", gxe.ExpectColumnValuesToNotBeNull(column="text")),
        Check(
            "report.words",
            "The text holds letters",
            gxe.ExpectColumnValuesToMatchRegex(column="text", regex=LATIN_LETTER),
        ),
        Check(
            "report.length",
            f"The text has {params.min_chars} to {params.max_chars} characters",
            gxe.ExpectColumnValueLengthsToBeBetween(
                column="text", min_value=params.min_chars, max_value=params.max_chars
            ),
        ),
        Check(
            "report.encoding",
            "The text has no trace of a wrong encoding and no control characters",
            gxe.ExpectColumnValuesToNotMatchRegex(column="text", regex=MOJIBAKE),
        ),
        Check(
            "report.sections_cover",
            "The sections tile the text and their offsets give back their texts",
            ExpectSectionsToCoverText(column_A="text", column_B="sections"),
        ),
        Check(
            "report.content",
            f"A section called {names} has text",
            ExpectSectionNamed(column="sections", names=list(params.content_sections)),
        ),
        *phi_checks(params),
        Check(
            "reports.repeated",
            f"At most {params.max_repeated_fraction:.0%} of the reports repeat another's text",
            gxe.ExpectColumnProportionOfUniqueValuesToBeBetween(
                column="normalised", min_value=1.0 - params.max_repeated_fraction
            ),
            cohort=True,
        ),
    ]


def phi_checks(params: Params) -> list[Check]:
    """The checks for PHI that is left: each report's, and the whole cohort's that stops the flow."""
    from data_checks.expectations import (
        ExpectAllReplaced,
        ExpectNoKnownPhi,
        ExpectNoResidualPhi,
        ExpectNoStructuredPhi,
    )
    from data_checks.suite import Check

    return [
        Check(
            "report.structured_phi",
            "No e-mail, telephone, date of birth, record number, URL or UID is left",
            ExpectNoStructuredPhi(column_A="text", column_B="phi"),
        ),
        Check(
            "report.known_phi",
            "None of the study's known identities is left",
            ExpectNoKnownPhi(column_A="text", column_B="phi"),
        ),
        Check(
            "report.not_replaced",
            "No surrogate and no moved date is what it replaced",
            ExpectAllReplaced(column_A="text", column_B="phi"),
        ),
        Check(
            "reports.no_residual_phi",
            f"No residual PHI: at most {params.max_residual_fraction:.0%} of the reports hold any",
            ExpectNoResidualPhi(column_A="text", column_B="phi", mostly=1.0 - params.max_residual_fraction),
            cohort=True,
        ),
    ]


STEP = Step("check_reports", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
