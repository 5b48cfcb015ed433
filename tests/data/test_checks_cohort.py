"""check_cohort: every planted fault is set aside by its key and rule; cohort faults stop the stage; no PHI shows."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from components.base.errors import CheckError
from components.base.files import read_table
from components.base.step import StepContext
from components.base.volume_files import write_nifti
from components.cohort.manifest import read_rows, write_rows
from data_checks import check_cohort
from data_checks.files import is_file_inside
from data_checks.page import shown_key

PARAMS = check_cohort.Params(min_volume_bytes=50, max_quarantined_fraction=0.6)


def key(kind: str, number: int) -> str:
    return f"{kind}_{number:016x}"


def make(root: Path, count: int = 12) -> tuple[list[dict], list[dict]]:
    rows, identities = [], []
    for number in range(count):
        path = root / f"restricted/ingest/volumes/{key('ser', number)}.nii.gz"
        array = np.random.default_rng(number).integers(-1000, 500, (8, 8, 8)).astype(np.int16)
        rows.append(
            {
                "study_key": key("stu", number),
                "patient_key": key("pat", number),
                "series_key": key("ser", number),
                "modality": "CT",
                "source": "phantom",
                "provenance": "synthetic",
                "volume_path": path.relative_to(root).as_posix(),
                "volume_sha256": write_nifti(array, np.eye(4), path),
                "masks": [],
                "report": f"FINDINGS: A nodule of {number} mm.",
                "sex": "F",
                "age_band": "60-69",
                "labels": [],
            }
        )
        identities.append({"study_key": key("stu", number), "kind": "MRN", "value": f"9{number:06d}"})
    return rows, identities


def run(root: Path, rows: list[dict], identities: list[dict], params: check_cohort.Params = PARAMS) -> dict:
    write_rows(root / "restricted/ingest/manifest.parquet", "manifest", rows)
    write_rows(root / "restricted/ingest/identities.parquet", "identities", identities)
    context = StepContext(root, "check_cohort", None, logging.getLogger("test.check_cohort"))
    return dict(check_cohort.run(params, context))


def refused(root: Path) -> set[tuple[str, str]]:
    rows = read_table(root / "restricted/check_cohort/quarantine.parquet").to_pylist()
    return {(row["series_key"], row["rule"].partition(".")[2]) for row in rows}


def test_a_sound_cohort_passes_with_equal_bytes(tmp_path: Path) -> None:
    rows, identities = make(tmp_path)
    rows[3] |= {"report": None, "sex": None, "age_band": None}
    rows[4] |= {"age_band": "90+", "report": "\n\n  ** FINDINGS: none"}
    metrics = run(tmp_path, rows, identities)
    assert metrics["refused"] == 0
    assert metrics["checks"] == metrics["checks_passed"]
    assert metrics["image_only_studies"] == 1
    assert len(read_rows(tmp_path / "restricted/check_cohort/manifest.parquet", "manifest")) == 12
    folder = tmp_path / "artifacts/check_cohort"
    before = {name: (folder / name).read_bytes() for name in ("result.json", "index.html")}
    run(tmp_path, rows[::-1], identities)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert json.loads(before["result.json"])["success"] is True


def test_planted_faults_are_named(tmp_path: Path) -> None:
    rows, identities = make(tmp_path, 24)
    rows[0]["modality"] = "MR"
    rows[1]["provenance"] = "guessed"
    rows[2]["volume_sha256"] = "abc"
    (tmp_path / rows[3]["volume_path"]).unlink()
    rows[4]["volume_path"] = "restricted/ingest/volumes/../../../etc/passwd"
    rows[5]["report"] = " \n\t "
    rows[6]["sex"] = "male"
    rows[7]["age_band"] = "67"
    rows[8]["patient_key"] = "Smith^John"
    rows[9]["source"] = "nowhere"
    rows[11]["study_key"] = rows[10]["study_key"]
    rows[13]["volume_sha256"] = rows[12]["volume_sha256"]
    rows[13]["patient_key"] = rows[12]["patient_key"]
    identities[15]["value"] = identities[14]["value"]
    link = tmp_path / rows[16]["volume_path"]
    link.rename(tmp_path / "elsewhere.nii.gz")
    link.symlink_to(tmp_path / "elsewhere.nii.gz")
    rows[17]["masks"] = [{"name": "m", "path": "restricted/none.nii.gz", "sha256": "0", "labels_json": "{}"}]
    rows[20]["modality"] = None
    rows[21]["provenance"] = None
    rows[19] |= {"patient_key": rows[18]["patient_key"], "sex": "M"}
    run(tmp_path, rows, identities, PARAMS.model_copy(update={"max_quarantined_fraction": 0.9}))
    expected = {
        (0, "modality"),
        (1, "provenance"),
        (2, "sha256"),
        (3, "volume_file"),
        (4, "volume_path"),
        (5, "report_blank"),
        (6, "sex"),
        (7, "age_band"),
        (8, "patient_key"),
        (9, "source"),
        (10, "study_two_patients"),
        (11, "study_two_patients"),
        (10, "study_two_reports"),
        (13, "volume_unique"),
        (14, "identifier_two_patients"),
        (15, "identifier_two_patients"),
        (16, "volume_file"),
        (17, "mask_files"),
        (18, "patient_two_sexes"),
        (19, "patient_two_sexes"),
        (20, "modality_missing"),
        (21, "provenance_missing"),
    }
    found = refused(tmp_path)
    assert {(key("ser", number), rule) for number, rule in expected} <= found
    assert {series for series, _ in found} == {key("ser", number) for number, _ in expected}
    kept = read_rows(tmp_path / "restricted/check_cohort/manifest.parquet", "manifest")
    assert {row["series_key"] for row in kept} == {key("ser", n) for n in (12, 22, 23)}


def test_raw_identifiers_never_show(tmp_path: Path) -> None:
    rows, identities = make(tmp_path)
    rows[0]["series_key"] = "SMITH^JOHN-1960"
    rows[1]["study_key"] = "ACC-SECRET-77"
    rows[2]["report"] = "Patient Quintus Maximus " * 20000
    run(tmp_path, rows, identities)
    shown = (tmp_path / "restricted/check_cohort/quarantine.parquet").read_bytes()
    for file in (tmp_path / "artifacts").rglob("*.*"):
        shown += file.read_bytes()
    for secret in (b"SMITH", b"ACC-SECRET", b"Quintus", str(tmp_path).encode()):
        assert secret not in shown
    assert {rule for _, rule in refused(tmp_path)} >= {"series_key", "study_key", "report_length"}
    assert shown_key("SMITH", 4) == "row_4"
    assert shown_key(key("ser", 1), 4) == key("ser", 1)


def test_duplicates_keep_one_and_conflicts_none(tmp_path: Path) -> None:
    rows, identities = make(tmp_path)
    rows.append(dict(rows[0]))  # listed twice
    rows.append({**rows[1], "volume_sha256": rows[2]["volume_sha256"], "volume_path": rows[2]["volume_path"]})
    run(tmp_path, rows, identities)
    kept = read_rows(tmp_path / "restricted/check_cohort/manifest.parquet", "manifest")
    keys = [row["series_key"] for row in kept]
    assert keys.count(key("ser", 0)) == 1
    assert key("ser", 1) not in keys  # one key, two volumes: nobody knows which
    assert key("ser", 2) not in keys  # one volume, two patients


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"min_patients": 13}, r"cohort\.patients"),
        ({"min_report_fraction": 0.95}, r"cohort\.reports"),
        ({"max_volume_bytes": 60}, r"check_cohort\.empty"),
    ],
)
def test_faults_of_the_whole_cohort_stop_the_stage(tmp_path: Path, change: dict, rule: str) -> None:
    rows, identities = make(tmp_path)
    rows[0]["report"] = None
    with pytest.raises(CheckError, match=rule) as caught:
        run(tmp_path, rows, identities, PARAMS.model_copy(update=change))
    assert len(str(caught.value).splitlines()) < 5
    assert json.loads((tmp_path / "artifacts/check_cohort/result.json").read_text())["success"] is False
    assert "The stage failed." in (tmp_path / "artifacts/check_cohort/index.html").read_text()
    assert not (tmp_path / "restricted/check_cohort/manifest.parquet").exists()


def test_too_much_refused_and_an_empty_cohort(tmp_path: Path) -> None:
    rows, identities = make(tmp_path)
    for row in rows[:3]:
        row["modality"] = "PT"
    with pytest.raises(CheckError, match=r"quarantine\.max_fraction"):
        run(tmp_path, rows, identities, PARAMS.model_copy(update={"max_quarantined_fraction": 0.2}))
    with pytest.raises(CheckError, match=r"check_cohort\.empty"):
        run(tmp_path, [], [])


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    rows, identities = make(tmp_path)
    rows[0]["modality"] = "MR"
    run(tmp_path, rows, identities)
    page = (tmp_path / "artifacts/check_cohort/index.html").read_text()
    assert key("ser", 0) in page
    assert "FAIL" in page
    for forbidden in ("<script", "http://", "https://", "<img", "<link", "url(", "@import"):
        assert forbidden not in page


def test_a_check_that_cannot_run_fails_closed() -> None:
    import great_expectations.expectations as gxe
    import pandas as pd

    from data_checks.suite import Check, run_suite

    frame = pd.DataFrame({"a": ["x", "y"], "row_number": [0, 1]})
    missing = Check("test.missing", "A column is there", gxe.ExpectColumnValuesToNotBeNull(column="none"))
    with pytest.raises(CheckError, match=r"check\.error"):
        run_suite("test", frame, [missing])


def test_paths_stay_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    good = {"in/file": True, "in": False, "link/file": False, "../in/file": False, "/etc/passwd": False}
    good |= {"in\\file": False, "": False, "in/none": False, "in/fi\0le": False}
    assert {path: is_file_inside(tmp_path, path) for path in good} == good
    assert not is_file_inside(tmp_path, None)
