"""Bad archives: each bad study is quarantined by its keyed id with a rule, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.base.volume_files import write_nifti
from tests.cohort_support import (
    AFFINE,
    ct,
    ingest,
    make_archive,
    project,
    rows_of,
    rules_of,
    tree_bytes,
    write_table,
)

Rows = list[dict[str, str]]
Capture = pytest.CaptureFixture[str]


def spoiled(tmp_path: Path, spoil: Callable[[Path, Rows], None], **changes: object) -> tuple[Path, int]:
    """Ingest an archive of four patients after `spoil` changed it; returns the root and the exit code."""
    archive = tmp_path / "archive"
    rows = make_archive(archive)
    spoil(archive, rows)
    write_table(archive / "studies.csv", rows)
    root = project(tmp_path / "project", archive, [{"source": "nifti_csv"}], **changes)
    return root, ingest(root)


def _truncate(archive: Path, rows: Rows) -> None:
    path = archive / rows[0]["image"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(archive: Path, rows: Rows) -> None:
    path = archive / rows[0]["image"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def _set(**cells: str) -> Callable[[Path, Rows], None]:
    def change(_archive: Path, rows: Rows) -> None:
        rows[0] |= cells

    return change


def _mask_elsewhere(archive: Path, rows: Rows) -> None:
    shifted = AFFINE + np.array([[0, 0, 0, 5.0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    write_nifti((ct(0) > 60).astype(np.uint8), shifted, archive / rows[0]["mask"])


def _mask_unnamed(archive: Path, rows: Rows) -> None:
    write_nifti((ct(0) > 60).astype(np.uint8) * 3, AFFINE, archive / rows[0]["mask"])


def _not_utf8(archive: Path, rows: Rows) -> None:
    (archive / rows[0]["report"]).write_bytes(b"Befund: M\xfcller\n")


CASES: list[tuple[str, Callable[[Path, Rows], None]]] = [
    ("volume.truncated", _truncate),
    ("volume.corrupt", _flip),
    ("volume.missing", _set(image="volumes/none.nii.gz")),
    ("volume.format", _set(image="studies.csv")),
    ("report.missing", _set(report="reports/none.txt")),
    ("report.encoding", _not_utf8),
    ("report.encoding", _set(report="reports")),
    ("modality.unknown", _set(modality="XYZ")),
    ("modality.unknown", _set(modality="")),
    ("modality.not_ct", _set(modality="MR")),
    ("mask.grid", _mask_elsewhere),
    ("mask.labels", _mask_unnamed),
    ("table.empty", _set(patient_id="")),
    ("path.traversal", _set(image="../secret.nii.gz")),
    ("path.traversal", _set(report="reports/../../secret.txt")),
    ("path.absolute", _set(image="/etc/passwd")),
    ("path.absolute", _set(image="C:/data/v.nii.gz")),
    ("path.absolute", _set(image="~/v.nii.gz")),
    ("path.unc", _set(image="\\\\host\\share\\v.nii.gz")),
    ("path.unc", _set(image="//host/share/v.nii.gz")),
    ("path.separator", _set(image="volumes\\v0.nii.gz")),
    ("table.control", _set(image="volumes/v0.nii.gz\r\nX: y")),
    ("table.control", _set(patient_id="77\n88")),
    ("table.control", _set(report="reports/r0.txt\0")),
    ("table.formula", _set(patient_id="=HYPERLINK(1)")),
    ("table.formula", _set(patient_name="@SUM(A1)")),
    ("table.formula", _set(study_id="+cmd|' /C calc'!A0")),
    ("table.formula", _set(image="-2+3")),
]


@pytest.mark.parametrize(("rule", "spoil"), CASES)
def test_one_bad_study(
    tmp_path: Path, rule: str, spoil: Callable[[Path, Rows], None], capsys: Capture
) -> None:
    root, code = spoiled(tmp_path, spoil)
    assert code == 0
    assert rules_of(root) == [rule]
    (row,) = rows_of(root, "quarantine")
    assert row["stage"] == "ingest"
    kept = rows_of(root, "manifest")
    assert len(kept) == 3
    assert row["series_key"] not in {other["series_key"] for other in kept}
    names = {path.name for path in (root / "restricted/ingest/volumes").iterdir()}
    assert names == {f"{other['series_key']}.nii.gz" for other in kept}  # nothing half-written
    told = capsys.readouterr().err + row["reason"]
    assert row["series_key"] in told
    for token in (
        "Stone0",
        "770010",
        "ACC9000",
        "SER5000",
        "v0.nii",
        "passwd",
        "HYPERLINK",
        "secret",
        "host",
    ):
        assert token not in told


def test_a_link_in_the_archive(tmp_path: Path) -> None:
    def spoil(archive: Path, rows: Rows) -> None:
        path = archive / rows[0]["image"]
        target = tmp_path / "outside.nii.gz"
        path.rename(target)
        path.symlink_to(target)
        (archive / "linked").symlink_to(tmp_path)
        rows[1]["image"] = "linked/outside.nii.gz"

    root, code = spoiled(tmp_path, spoil)
    assert code == 0
    assert rules_of(root) == ["path.link", "path.link"]


def test_duplicates_are_refused_as_a_whole(tmp_path: Path) -> None:
    root, code = spoiled(tmp_path, lambda _archive, rows: rows.append(dict(rows[0])))
    assert code == 0
    assert rules_of(root) == ["study.duplicate"]
    assert len(rows_of(root, "manifest")) == 3


def test_a_study_under_two_patients(tmp_path: Path) -> None:
    root, code = spoiled(tmp_path, lambda _archive, rows: rows[0].update(study_id=rows[1]["study_id"]))
    assert code == 0
    assert rules_of(root) == ["study.two_patients"] * 2
    assert len(rows_of(root, "manifest")) == 2


def test_series_of_a_study_with_different_reports(tmp_path: Path) -> None:
    def spoil(_archive: Path, rows: Rows) -> None:
        rows[0] |= {"study_id": rows[1]["study_id"], "patient_id": rows[1]["patient_id"]}

    root, code = spoiled(tmp_path, spoil)
    assert code == 0
    assert rules_of(root) == ["study.two_reports"] * 2


def test_the_same_voxels_twice(tmp_path: Path) -> None:
    root, code = spoiled(tmp_path, lambda _archive, rows: rows[0].update(image=rows[1]["image"], mask=""))
    assert code == 0
    assert rules_of(root) == ["volume.two_patients"] * 2

    def same_patient(_archive: Path, rows: Rows) -> None:
        rows[0] |= {"image": rows[1]["image"], "mask": "", "patient_id": rows[1]["patient_id"]}

    root, code = spoiled(tmp_path / "second", same_patient)
    assert code == 0
    assert rules_of(root) == ["volume.duplicate"]


def test_gold_outside_the_report(tmp_path: Path) -> None:
    def spoil(archive: Path, rows: Rows) -> None:
        line = f'{{"report": "{rows[0]["report"]}", "spans": [[5, 9999, "DATE"]]}}\n'
        (archive / "gold.jsonl").write_text(line)

    root, code = spoiled(tmp_path, spoil)
    assert code == 0
    assert rules_of(root) == ["gold.spans"]


def test_too_much_is_refused(tmp_path: Path, capsys: Capture) -> None:
    root, code = spoiled(tmp_path, _truncate, max_quarantined_fraction=0.2)
    assert code == 6
    error = capsys.readouterr().err.split("error: ")[-1]
    assert "refused 1 of 4 series, more than 20%" in error
    assert error.count("\n") < 5
    assert rules_of(root) == ["volume.truncated"]  # the reasons are there to read
    assert not (root / "restricted/ingest/manifest.parquet").exists()


@pytest.mark.parametrize(
    ("changes", "code", "rule"),
    [
        ({"sources": []}, 3, "params.too_short"),
        ({"sources": [{"source": "nifti_cvs"}]}, 3, "registry.data source"),
        ({"sources": [{"source": "nifti_csv", "options": {"tabel": "x"}}]}, 3, "params.unknown"),
        ({"sources": [{"source": "nifti_csv", "path": "../elsewhere"}]}, 4, "path.traversal"),
        ({"sources": [{"source": "nifti_csv", "path": "none"}]}, 4, "ingest.source_folder"),
        ({"sources": [{"source": "nifti_csv", "options": {"table": "none.csv"}}]}, 4, "table.missing"),
        ({"sources": [{"source": "nifti_csv", "options": {"label_columns": ["organ"]}}]}, 4, "table.columns"),
        ({"sources": [{"source": "nifti_csv", "options": {"table": "../../x.csv"}}]}, 4, "path.traversal"),
        ({"root": "no/such/folder"}, 4, "ingest.root"),
        ({"workers": 0}, 3, "params.greater_than_equal"),
        ({"max_quarantined_fraction": 1.5}, 3, "params.less_than_equal"),
        ({"sources": [{"source": "volume_folder", "options": {"include": ["**/*.dcm"]}}]}, 4, "ingest.empty"),
    ],
)
def test_wrong_parameters_leave_what_was_there(
    tmp_path: Path, changes: dict[str, object], code: int, rule: str, capsys: Capture
) -> None:
    make_archive(tmp_path / "archive", 2)
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "nifti_csv"}])
    assert ingest(root) == 0
    before = tree_bytes(root / "restricted")
    archive = root / str(changes["root"]) if "root" in changes else tmp_path / "archive"
    merged: dict[str, object] = {"sources": [{"source": "nifti_csv"}], **changes}
    merged.pop("root", None)
    project(root, archive, **merged)  # type: ignore[arg-type]
    capsys.readouterr()
    assert ingest(root) == code
    error = capsys.readouterr().err.split("error: ")[-1]
    assert f"rule: {rule}" in error
    assert len(error.splitlines()) < 5
    assert tree_bytes(root / "restricted") == before


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"", "table.columns"),
        (b"patient_id,patient_id\n1,2\n", "table.columns"),
        (b"\xff\xfe\x00bad", "table.encoding"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, data: bytes, rule: str, capsys: Capture) -> None:
    make_archive(tmp_path / "archive", 1)
    (tmp_path / "archive" / "studies.csv").write_bytes(data)
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "nifti_csv"}])
    assert ingest(root) == 4
    assert f"rule: {rule}" in capsys.readouterr().err


def test_an_empty_table(tmp_path: Path, capsys: Capture) -> None:
    make_archive(tmp_path / "archive", 1)
    table = tmp_path / "archive" / "studies.csv"
    table.write_bytes(table.read_bytes().splitlines()[0] + b"\r\n")
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "nifti_csv"}])
    assert ingest(root) == 4
    assert "the sources hold no study" in capsys.readouterr().err


def test_a_parser_that_fails_is_reported_by_place_only(tmp_path: Path) -> None:
    from components.cohort._jobs import Failed, Job, write_series
    from components.cohort.study import Mask, RawSeries

    class Broken(RawSeries):
        def write(self, volume: Path, masks: Path, stem: str) -> list[Mask]:
            volume.parent.mkdir(parents=True)
            volume.write_bytes(b"half")
            raise ValueError("could not parse 'Stone^Oskar'")

    outcome = write_series(Job(Broken("p", "s", "t"), "ser_1", tmp_path))
    assert isinstance(outcome, Failed)
    assert outcome.rule == "series.unexpected"
    assert "ValueError" in outcome.reason
    assert "Stone" not in outcome.reason
    assert not list((tmp_path / "volumes").iterdir())


def test_a_full_disk_stops_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_archive(tmp_path / "archive", 2)
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "nifti_csv"}])

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("components.base.volume_files.gzip.GzipFile.write", full)
    assert ingest(root) == 10
    assert not (root / "restricted/ingest/manifest.parquet").exists()
    assert not list((root / "restricted/ingest/volumes").iterdir())
