"""The stages `deidentify` and `section` on tables: what they write, once a study, the same for any workers."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from components.base.files import read_table
from components.base.step import StepContext
from components.cohort.manifest import read_rows, write_rows
from components.reports import deidentify, section
from components.reports.text import model_text, regional, report_sentences

REPORT = (
    "PATIENT NAME: OKAFOR, JANE\nMRN: 4482913\n\nTECHNIQUE: Helical CT.\n\nFINDINGS: There is a "
    "small left pleural effusion. No nodule. Seen by Dr. Lindqvist.\n\nIMPRESSION: Small left "
    "pleural effusion."
)


def context_at(root: Path, stage: str = "deidentify") -> StepContext:
    return StepContext(root, stage, None, logging.getLogger(f"test.{stage}"))


def write_inputs(
    root: Path,
    texts: dict[str, str | None],
    identities: tuple[tuple[str, str, str], ...] = (),
    gold: tuple[tuple[str, int, int, str], ...] = (),
    series_per_study: int = 1,
) -> None:
    rows = []
    for study, text in texts.items():
        for number in range(series_per_study):
            row: dict[str, Any] = {
                "study_key": study,
                "patient_key": f"pat_{study}",
                "series_key": f"ser_{study}_{number}",
            }
            row |= {
                "modality": "CT",
                "source": "test",
                "provenance": "synthetic",
                "volume_path": "v.nii.gz",
                "volume_sha256": "0",
            }
            row |= {
                "masks": [],
                "report": text,
                "sex": None,
                "age_band": None,
                "labels": [{"name": "Pleural effusion", "value": 1}],
            }
            rows.append(row)
    write_rows(root / "restricted/check_cohort/manifest.parquet", "manifest", rows)
    known = [dict(zip(("study_key", "kind", "value"), row, strict=True)) for row in identities]
    write_rows(root / "restricted/ingest/identities.parquet", "identities", known)
    spans = [dict(zip(("study_key", "start", "end", "kind"), row, strict=True)) for row in gold]
    write_rows(root / "restricted/ingest/gold_spans.parquet", "gold_spans", spans)


def digests(root: Path) -> dict[str, str]:
    folders = ("artifacts/deidentify", "restricted/deidentify", "artifacts/section")
    files = [file for folder in folders for file in sorted((root / folder).glob("*.parquet"))]
    return {
        file.relative_to(root).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }


def test_the_tables_of_deidentify(tmp_path: Path) -> None:
    start = REPORT.index("OKAFOR")
    gold = (
        ("stu_a", start, start + len("OKAFOR, JANE"), "PATIENT"),
        ("stu_a", REPORT.index("4482913"), REPORT.index("4482913") + 7, "MRN"),
    )
    gold += (("stu_a", REPORT.index("Lindqvist"), REPORT.index("Lindqvist") + 9, "STAFF"),)
    write_inputs(
        tmp_path,
        {"stu_a": REPORT, "stu_b": None},
        (("stu_a", "PATIENT", "Okafor^Jane"),),
        gold,
        series_per_study=2,
    )
    context = context_at(tmp_path)
    metrics = deidentify.run(deidentify.Params(), context)
    out = context.artifacts("deidentify")
    manifest = read_rows(out / "manifest.parquet", "deidentified_manifest")
    assert [row["series_key"] for row in manifest] == [
        "ser_stu_a_0",
        "ser_stu_a_1",
        "ser_stu_b_0",
        "ser_stu_b_1",
    ]
    (report,) = read_rows(out / "reports.parquet", "reports")
    assert report["text"].startswith("PATIENT NAME: [PATIENT]\nMRN: [MRN]\n")
    assert len(read_rows(out / "labels.parquet", "labels")) == 2
    audit = read_rows(out / "audit.parquet", "audit")
    assert [report["text"][row["start"] : row["end"]] for row in audit] == [
        f"[{row['kind']}]" for row in audit
    ]
    assert "OKAFOR" not in json.dumps(audit)
    offsets = read_table(tmp_path / "restricted/deidentify/offsets.parquet").to_pylist()
    text = report["text"]
    for row in reversed(offsets):
        text = text[: row["new_start"]] + row["original"] + text[row["new_end"] :]
    assert text == REPORT
    assert (tmp_path / "restricted/deidentify").stat().st_mode & 0o077 == 0
    assert (metrics["num_reports"], metrics["num_studies"], metrics["num_series"]) == (1, 2, 4)
    assert (metrics["token_recall"], metrics["token_precision"], metrics["notes_with_leak"]) == (
        1.0,
        1.0,
        0.0,
    )
    assert metrics["spans_by_kind"] == {"MRN": 1, "PATIENT": 1, "STAFF": 1}


def test_a_report_does_not_depend_on_the_others(tmp_path: Path) -> None:
    texts: dict[str, str | None] = {
        f"stu_{i}": f"Seen by Dr. Quux{chr(97 + i)}. White matter is normal." for i in range(4)
    }
    write_inputs(tmp_path / "all", texts, (("stu_1", "PATIENT", "White^Matter"),))
    write_inputs(tmp_path / "one", {"stu_2": texts["stu_2"]})
    found = []
    for name in ("all", "one"):
        deidentify.run(deidentify.Params(), context_at(tmp_path / name))
        rows = read_rows(tmp_path / name / "artifacts/deidentify/reports.parquet", "reports")
        found.append(next(row["text"] for row in rows if row["study_key"] == "stu_2"))
    assert found[0] == found[1]


def test_series_of_a_study_with_different_reports_are_refused(tmp_path: Path) -> None:
    write_inputs(tmp_path, {f"stu_{i}": "Normal." for i in range(9)})
    path = tmp_path / "restricted/check_cohort/manifest.parquet"
    rows = read_rows(path, "manifest")
    write_rows(path, "manifest", [*rows, rows[0] | {"series_key": "ser_x", "report": "Another text."}])
    deidentify.run(deidentify.Params(), context_at(tmp_path))
    refused = read_rows(tmp_path / "artifacts/deidentify/quarantine.parquet", "quarantine")
    assert {(row["study_key"], row["rule"]) for row in refused} == {("stu_0", "deidentify.two_reports")}
    assert len(refused) == 2


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    texts: dict[str, str | None] = {f"stu_{i:03d}": f"{REPORT}\nCase {i}." for i in range(150)}
    for workers in (1, 2):
        root = tmp_path / str(workers)
        write_inputs(root, texts)
        deidentify.run(deidentify.Params(workers=workers), context_at(root))
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_sections_sentences_findings(tmp_path: Path) -> None:
    write_inputs(tmp_path, {"stu_a": REPORT, "stu_b": "Lungs clear. No effusion.", "stu_c": None})
    deidentify.run(deidentify.Params(), context_at(tmp_path))
    metrics = section.run(section.Params(), context_at(tmp_path, "section"))
    out = tmp_path / "artifacts/section"
    text = {
        row["study_key"]: row["text"]
        for row in read_rows(tmp_path / "artifacts/deidentify/reports.parquet", "reports")
    }
    sections = read_table(out / "sections.parquet").to_pylist()
    assert [row["name"] for row in sections if row["study_key"] == "stu_a"] == [
        "header",
        "header",
        "technique",
        "findings",
        "impression",
    ]
    assert [(row["name"], row["confidence"]) for row in sections if row["study_key"] == "stu_b"] == [
        ("findings", "low")
    ]
    table = read_table(out / "sentences.parquet")
    for row in [*sections, *table.to_pylist()]:
        assert text[row["study_key"]][row["start"] : row["end"]] == row["text"]
    found = report_sentences(table)
    assert found["stu_a"] == [
        "There is a small left pleural effusion.",
        "No nodule.",
        "Seen by Dr. [STAFF].",
        "Small left pleural effusion.",
    ]
    assert report_sentences(table, ("impression", "findings"))["stu_a"][0] == "Small left pleural effusion."
    assert report_sentences(table, ("impression",)) == {"stu_a": ["Small left pleural effusion."]}
    assert model_text(text["stu_a"]) == found["stu_a"]
    findings = {
        (row["study_key"], row["finding"]): row for row in read_table(out / "findings.parquet").to_pylist()
    }
    assert len(findings) == 36
    assert findings["stu_a", "Pleural effusion"]["status"] == "present"
    assert findings["stu_a", "Lung nodule"]["status"] == "absent"
    assert findings["stu_b", "Cardiomegaly"]["sentence_order"] is None
    assert (metrics["num_reports"], metrics["share_with_findings"], metrics["share_with_impression"]) == (
        2,
        1.0,
        0.5,
    )
    assert metrics["gold"]["by_label"]["Pleural effusion"] == {"accuracy": 0.5, "f1": 0.666667, "n": 2}
    structured = regional((r["study_key"], r["region"], r["polarity"], r["text"]) for r in table.to_pylist())
    assert "There is a small left pleural effusion." in structured["stu_a"]["pleura"]["positive_findings"]
    assert structured["stu_a"]["lungs"]["negative_findings"] == ["No nodule."]


def test_an_empty_cohort_of_reports_is_no_error(tmp_path: Path) -> None:
    write_inputs(tmp_path, {"stu_a": None})
    assert deidentify.run(deidentify.Params(), context_at(tmp_path))["num_reports"] == 0
    metrics = section.run(section.Params(), context_at(tmp_path, "section"))
    assert (metrics["num_reports"], metrics["share_with_findings"]) == (0, None)
    assert report_sentences(read_table(tmp_path / "artifacts/section/sentences.parquet")) == {}
