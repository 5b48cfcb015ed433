"""The stage `deidentify` under the policy of research: one patient in several studies, any workers, any neighbours."""

from __future__ import annotations

import hashlib
import logging
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from components.base.errors import ConfigError
from components.base.files import read_table
from components.base.keys import KeyRing, key_file
from components.base.step import StepContext
from components.cohort.dicom.shift import patient_offset, shift_date
from components.cohort.manifest import read_rows, write_rows
from components.reports import deidentify

PARAMS = deidentify.Params(policy="research_internal")
FIRST = (
    "Patient: OKAFOR, JANE MRN: 4482913\nEXAM DATE: 03/14/2019\nFINDINGS: Seen by Dr. Lindqvist. No nodule."
)
SECOND = (
    "Ms. Okafor (Jane) again, MRN 4482913, on 2019-05-20, compared with March 14, 2019.\n"
    "FINDINGS: Dr. Lindqvist agrees."
)
OTHER = "Mr. Smith on 03/14/2019.\nFINDINGS: Seen by Dr. Lindqvist. Normal."
STUDIES = {"stu_a": ("pat_1", FIRST), "stu_b": ("pat_1", SECOND), "stu_c": ("pat_2", OTHER)}
KNOWN = [
    ("stu_a", "PATIENT", "Okafor^Jane"),
    ("stu_a", "DATE", "2019-03-14"),
    ("stu_b", "DATE", "2019-05-20"),
    ("stu_b", "MRN", "4482913"),
]


def write(root: Path, studies: dict[str, tuple[str, str]], known: list[tuple[str, str, str]]) -> None:
    rows: list[dict[str, Any]] = [
        {
            "study_key": study,
            "patient_key": patient,
            "series_key": f"ser_{study}",
            "modality": "CT",
            "source": "test",
            "provenance": "synthetic",
            "volume_path": "v.nii.gz",
            "volume_sha256": "0",
            "masks": [],
            "report": text,
            "sex": "F" if patient == "pat_1" else None,
            "age_band": None,
            "labels": [],
        }
        for study, (patient, text) in studies.items()
    ]
    write_rows(root / "restricted/check_cohort/manifest.parquet", "manifest", rows)
    identities = [dict(zip(("study_key", "kind", "value"), row, strict=True)) for row in known]
    write_rows(root / "restricted/ingest/identities.parquet", "identities", identities)
    write_rows(root / "restricted/ingest/gold_spans.parquet", "gold_spans", [])


def run(root: Path, params: deidentify.Params = PARAMS) -> dict[str, str]:
    context = StepContext(root, "deidentify", None, logging.getLogger("test.surrogates"))
    deidentify.run(params, context)
    rows = read_rows(root / "artifacts/deidentify/reports.parquet", "reports")
    return {row["study_key"]: row["text"] for row in rows}


def digests(root: Path) -> dict[str, str]:
    folders = ("artifacts/deidentify", "restricted/deidentify")
    files = [path for folder in folders for path in (root / folder).glob("*.parquet")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_patient_is_one_person_in_all_studies(tmp_path: Path) -> None:
    write(tmp_path, STUDIES, KNOWN)
    text = run(tmp_path)
    header = re.search(r"Patient: ([A-Z]+), ([A-Z]+) MRN: (\d{7})", text["stu_a"])
    again = re.search(r"Ms\. (\w+) \((\w+)\) again, MRN (\d{7})", text["stu_b"])
    assert header is not None
    assert again is not None
    assert [part.upper() for part in again.groups()] == list(header.groups())
    staff = {re.search(r"Dr\. (\w+)", text[study])[1] for study in ("stu_a", "stu_b")}  # type: ignore[index]
    assert len(staff) == 1
    assert staff.isdisjoint(re.findall(r"\w+", text["stu_c"])), (
        "another patient's notes have other surrogates"
    )


def test_intervals_are_kept_and_dicom_agrees(tmp_path: Path) -> None:
    write(tmp_path, STUDIES, KNOWN)
    text = run(tmp_path)
    offset = patient_offset(KeyRing.load(), "pat_1", *PARAMS.shift_days)
    month, day, year = map(int, re.search(r"EXAM DATE: (\d\d)/(\d\d)/(\d{4})", text["stu_a"]).groups())  # type: ignore[union-attr]
    second = date.fromisoformat(re.search(r"on (\d{4}-\d\d-\d\d)", text["stu_b"])[1])  # type: ignore[index]
    assert second - date(year, month, day) == date(2019, 5, 20) - date(2019, 3, 14)
    assert f"{date(year, month, day):%Y%m%d}" == shift_date("20190314", offset)
    assert f"{date(year, month, day):%B} {day}, {year}" in text["stu_b"]


def test_another_patients_reports_change_nothing(tmp_path: Path) -> None:
    write(tmp_path / "all", STUDIES, KNOWN)
    alone = {key: value for key, value in STUDIES.items() if key != "stu_c"}
    write(tmp_path / "alone", alone, KNOWN)
    changed = {**STUDIES, "stu_c": ("pat_2", "Patient: OKAFOR, JANE seen by Dr. Lindqvist on 01/01/2001.")}
    write(tmp_path / "changed", changed, KNOWN)
    found = [run(tmp_path / name) for name in ("all", "alone", "changed")]
    for study in ("stu_a", "stu_b"):
        assert len({text[study] for text in found}) == 1


def test_another_report_of_the_patient_changes_nothing_either(tmp_path: Path) -> None:
    write(tmp_path / "both", STUDIES, KNOWN)
    changed = {**STUDIES, "stu_b": ("pat_1", "Ms. Quispe and Dr. Yamamoto, 2001-01-01.")}
    write(tmp_path / "changed", changed, KNOWN)
    assert run(tmp_path / "both")["stu_a"] == run(tmp_path / "changed")["stu_a"]


def test_another_key_gives_another_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, STUDIES, KNOWN)
    first = run(tmp_path)
    assert run(tmp_path) == first
    assert key_file().exists()
    monkeypatch.setenv("VELVET_KEY_FILE", str(tmp_path / "other.key"))
    assert all(text != first[study] for study, text in run(tmp_path).items())


def test_the_audit_and_the_way_back(tmp_path: Path) -> None:
    write(tmp_path, STUDIES, KNOWN)
    text = run(tmp_path)
    audit = read_rows(tmp_path / "artifacts/deidentify/audit.parquet", "audit")
    assert {row["action"] for row in audit} == {"surrogate", "shift"}
    assert {row["detail"] for row in audit} == {""}
    offsets = read_table(tmp_path / "restricted/deidentify/offsets.parquet").to_pylist()
    for study, (_, raw) in STUDIES.items():
        back = text[study]
        for row in reversed([row for row in offsets if row["study_key"] == study]):
            back = back[: row["new_start"]] + row["original"] + back[row["new_end"] :]
        assert back == raw
    assert [(row["study_key"], row["start"]) for row in audit] == [
        (row["study_key"], row["new_start"]) for row in offsets
    ]


def test_a_policy_that_does_not_fit_stops_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run(tmp_path, deidentify.Params(policy="safe_harbor", actions={"PATIENT": "keep"}))


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path) -> None:
    studies = {
        f"stu_{number:03d}": (f"pat_{number // 2}", f"{(FIRST, SECOND, OTHER)[number % 3]}\nCase {number}.")
        for number in range(150)
    }
    known = [(study, "PATIENT", "Okafor^Jane") for study in studies]
    for workers in (1, 2):
        write(tmp_path / str(workers), studies, known)
        run(tmp_path / str(workers), PARAMS.model_copy(update={"workers": workers}))
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
