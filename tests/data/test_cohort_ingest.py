"""Ingest end to end on small archives: keys, tables, files, determinism, sources side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from components.base.files import sha256_file
from components.base.volume_files import Limits, read_volume
from tests.cohort_support import (
    AFFINE,
    ct,
    ingest,
    make_archive,
    project,
    rows_of,
    tree_bytes,
)

TABLE = {"source": "nifti_csv", "options": {"label_columns": ["region", "side"]}}


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A project whose archive of four patients was ingested."""
    make_archive(tmp_path / "archive")
    root = project(tmp_path / "project", tmp_path / "archive", [TABLE])
    assert ingest(root) == 0
    return root


def test_manifest(done: Path) -> None:
    rows = rows_of(done, "manifest")
    keys = [(row["patient_key"], row["study_key"], row["series_key"]) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == 4
    for row in rows:
        assert row["volume_path"] == f"restricted/ingest/volumes/{row['series_key']}.nii.gz"
        assert sha256_file(done / row["volume_path"]) == row["volume_sha256"]
        assert (row["modality"], row["source"], row["provenance"]) == ("CT", "nifti_csv", "real")
        assert (row["sex"], row["age_band"]) == ("F", None)
        (mask,) = row["masks"]
        assert json.loads(mask["labels_json"]) == {"1": "tumour"}
        assert sha256_file(done / mask["path"]) == mask["sha256"]
        volume = read_volume(done / row["volume_path"])
        labels = read_volume(done / mask["path"], Limits().for_labels(volume.array.size))
        np.testing.assert_array_equal(labels.array, (volume.array > 60).astype(np.uint8))
        np.testing.assert_allclose(volume.affine, AFFINE)
        one_hot = {label["name"]: label["value"] for label in row["labels"]}
        assert one_hot["region=hip"] + one_hot["region=thigh"] == 1
        assert one_hot["side=left"] == 1
    voxels = [read_volume(done / row["volume_path"]).array for row in rows]
    assert all(any(np.array_equal(ct(number), found) for found in voxels) for number in range(4))


def test_reports_are_kept_to_the_character(done: Path) -> None:
    reports = sorted(row["report"] or "" for row in rows_of(done, "manifest"))
    assert reports[0] == ""
    assert reports[1] == "Patient: Ada Stone0\r\nFINDINGS: Nodule 0.\r\nIMPRESSION: Nodule.\r\n"


def test_known_identities(done: Path) -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for row in rows_of(done, "identities"):
        found.setdefault(row["study_key"], set()).add((row["kind"], row["value"]))
    first = next(values for values in found.values() if ("MRN", "770010") in values)
    assert {
        ("ACCESSION", "ACC9000"),
        ("DATE", "03/04/2019"),
        ("PATIENT", "Stone0^Ada"),
        ("PATIENT", "Ada Stone0"),
        ("PATIENT", "Stone0, Ada"),
        ("ID", "SER5000"),
    } <= first
    assert len(found) == 4


def test_metrics_and_modes(done: Path) -> None:
    metrics = json.loads((done / "artifacts/ingest/metrics.json").read_text())
    assert metrics["num_patients"] == metrics["num_studies"] == metrics["num_series"] == 4
    assert (metrics["num_paired"], metrics["num_image_only"], metrics["num_quarantined"]) == (3, 1, 0)
    assert metrics["num_series_by_source"] == {"nifti_csv": 4}
    folder = done / "restricted" / "ingest"
    for path in (folder.parent, folder, folder / "volumes", folder / "masks"):
        assert path.stat().st_mode & 0o777 == 0o700
    files = list((folder / "volumes").iterdir()) + list((folder / "masks").iterdir())
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert metrics["num_bytes"] == sum(path.stat().st_size for path in files)


def test_no_phi_outside_restricted(done: Path) -> None:
    tokens = [b"Stone", b"77001", b"ACC900", b"SER500", b"03/04/2019", b"Nodule"]
    for folder in ("artifacts", "logs"):
        for name, data in tree_bytes(done / folder).items():
            assert not [token for token in tokens if token in data], name
    for path in (done / "restricted").rglob("*"):
        assert not [token for token in tokens if token.decode() in path.name]


def test_same_bytes_for_any_number_of_workers_and_on_a_second_run(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive")
    outputs = []
    for workers in (1, 2, 3):
        root = project(tmp_path / f"p{workers}", tmp_path / "archive", [TABLE], workers=workers)
        assert ingest(root) == 0
        outputs.append(tree_bytes(root / "restricted") | tree_bytes(root / "artifacts"))
    assert outputs[0] == outputs[1] == outputs[2]
    (root / "restricted/ingest/volumes/ser_stale.nii.gz").write_bytes(b"left by an earlier run")
    assert ingest(root) == 0
    assert tree_bytes(root / "restricted") | tree_bytes(root / "artifacts") == outputs[0]


def test_two_sources_share_no_key_unless_they_share_a_site(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive" / "a", 1)
    rows = make_archive(tmp_path / "archive" / "b", 2)
    from components.base.volume_files import write_nifti

    for number in range(2):  # other voxels under the same identifiers
        write_nifti(ct(50 + number), AFFINE, tmp_path / "archive" / "b" / rows[number]["image"])
        write_nifti(
            (ct(50 + number) > 60).astype(np.uint8), AFFINE, tmp_path / "archive/b" / rows[number]["mask"]
        )
    entries = [{**TABLE, "path": "a", "site": "north"}, {**TABLE, "path": "b", "site": "south"}]
    root = project(tmp_path / "project", tmp_path / "archive", entries)
    assert ingest(root) == 0
    assert len({row["patient_key"] for row in rows_of(root, "manifest")}) == 3


def test_volume_folder(tmp_path: Path) -> None:
    import SimpleITK as sitk

    folder = tmp_path / "archive" / "lung"
    folder.mkdir(parents=True)
    for number, name in enumerate(["a.mha", "b.nrrd", "c.nii.gz", "c_mask.nii.gz"]):
        sitk.WriteImage(sitk.GetImageFromArray(ct(number).transpose(2, 1, 0)), str(folder / name))
    (folder / "notes.txt").write_text("no volume")
    (folder / "link.nii.gz").symlink_to(folder / "c.nii.gz")
    entry = {"source": "volume_folder", "options": {"exclude": ["**/*mask*"]}}
    root = project(tmp_path / "project", tmp_path / "archive", [entry])
    assert ingest(root) == 0
    rows = rows_of(root, "manifest")
    assert len(rows) == len({row["patient_key"] for row in rows}) == 3
    assert all(row["report"] is None and row["masks"] == [] for row in rows)
    assert [row["rule"] for row in rows_of(root, "quarantine")] == ["path.link"]


def test_max_patients_takes_the_first_ones(tmp_path: Path) -> None:
    make_archive(tmp_path / "archive")
    entry = {"source": "nifti_csv", "options": {"max_patients": 2, "label_columns": ["region"]}}
    root = project(tmp_path / "project", tmp_path / "archive", [entry])
    assert ingest(root) == 0
    assert {row["value"] for row in rows_of(root, "identities") if row["kind"] == "MRN"} == {
        "770010",
        "770011",
    }
    labels = {label["name"] for row in rows_of(root, "manifest") for label in row["labels"]}
    assert labels == {"region=hip", "region=thigh"}  # the categories of the whole table


def test_gold_spans_follow_their_report(tmp_path: Path) -> None:
    rows = make_archive(tmp_path / "archive", 2)
    line = {"report": rows[0]["report"], "spans": [[9, 19, "PATIENT"]]}
    (tmp_path / "archive" / "gold.jsonl").write_text(json.dumps(line) + "\n")
    root = project(tmp_path / "project", tmp_path / "archive", [TABLE])
    assert ingest(root) == 0
    (span,) = rows_of(root, "gold_spans")
    report = {row["study_key"]: row["report"] for row in rows_of(root, "manifest")}[span["study_key"]]
    assert report[span["start"] : span["end"]] == "Ada Stone0"


def test_help_is_fast(root: Path) -> None:
    started = time.process_time()
    command = [sys.executable, "-X", "importtime", "-m", "components.cohort.ingest", "--help"]
    shown = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "ingest" in shown.stdout.splitlines()[0]
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert not imported & {"numpy", "pyarrow", "nibabel", "pydicom", "torch", "pandas", "PIL"}
    assert time.process_time() - started < 0.5


@pytest.mark.real_data
def test_four_real_patients_and_unpaired_volumes(tmp_path: Path, real_data: Path) -> None:
    entries = [
        {
            "source": "nifti_csv",
            "path": "sts_cohort",
            "options": {"max_patients": 4, "label_columns": ["region", "side"]},
        },
        {
            "source": "volume_folder",
            "options": {
                "include": ["ct_chest*/*", "ct_abdomen*/example_ct.nii.gz"],
                "exclude": ["**/*mask*", "**/*label*", "**/*segmentation*", "**/*nodule*", "**/breast1*"],
            },
        },
    ]
    root = project(tmp_path / "project", real_data, entries, workers=2, max_quarantined_fraction=0.0)
    assert ingest(root) == 0
    rows = rows_of(root, "manifest")
    paired = [row for row in rows if row["report"]]
    assert len(paired) == 4
    assert all(row["source"] == "nifti_csv" and row["masks"] for row in paired)
    unpaired = [row for row in rows if not row["report"]]
    assert len(unpaired) == 4  # two chests, a lung in MetaImage, an abdomen; neither masks nor the MR crop
    reports = {row["study_key"]: row["report"] for row in paired}
    known = {(row["study_key"], row["value"]) for row in rows_of(root, "identities")}
    spans = rows_of(root, "gold_spans")
    assert len(spans) >= 4 * 5
    for span in spans:
        text = reports[span["study_key"]][span["start"] : span["end"]]
        if span["kind"] in {"MRN", "ACCESSION"}:
            assert (span["study_key"], text) in known
    for row in rows:
        volume = read_volume(root / row["volume_path"], sha256=row["volume_sha256"])
        assert volume.array.dtype == np.int16
        assert volume.array.min() < -900


def test_a_source_is_added_by_one_file(tmp_path: Path, root: Path) -> None:
    """A plugin's file is found by its name, in the worker processes too; nothing else is edited."""
    folder = tmp_path / "plugins" / "hospital" / "cohort" / "sources"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent, folder.parent.parent):
        (package / "__init__.py").touch()
    (folder / "zeros.py").write_text(
        """
from dataclasses import dataclass

import numpy as np

from components.base.config import Config
from components.base.volume_files import write_nifti
from components.cohort.sources import SOURCES
from components.cohort.study import RawSeries, Source


@dataclass(frozen=True)
class Ramp(RawSeries):
    def write(self, volume, masks, stem):
        write_nifti(np.full((4, 4, 4), int(self.series), np.int16), np.eye(4), volume)
        return []


@SOURCES.register("zeros")
class Zeros(Source):
    class Params(Config):
        count: int

    def series(self):
        yield from (Ramp(f"p{n}", f"s{n}", str(n), age_years=93.0) for n in range(self.params.count))
"""
    )
    (tmp_path / "archive").mkdir()
    home = project(
        tmp_path / "p", tmp_path / "archive", [{"source": "zeros", "options": {"count": 3}}], workers=2
    )
    paths = os.pathsep.join([str(tmp_path / "plugins"), str(root)])
    environment = {**os.environ, "VELVET_PLUGINS": "hospital", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "components.cohort.ingest", "--root", str(home)]
    subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True)
    rows = rows_of(home, "manifest")
    assert [(row["source"], row["age_band"]) for row in rows] == [("zeros", "90+")] * 3


@pytest.mark.parametrize(
    ("age", "band"),
    [
        *[("047Y", "40-49"), ("89", "80-89"), ("90", "90+"), ("101Y", "90+"), ("18M", "0-9"), ("9.5", "0-9")],
        *[("", None), ("old", None), ("131", None), ("400D", "0-9"), ("-3", None)],
    ],
)
def test_age_bands(age: str, band: str | None) -> None:
    from components.cohort._people import age_band, age_years

    assert age_band(age_years(age)) == band
