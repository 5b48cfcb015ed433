"""CT-RATE's layout: folders, the three tables, reports under headings, and rescaling exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.base.errors import IntegrityError
from components.base.volume_files import read_volume, write_nifti
from components.cohort.sources.ct_rate import CtRate, to_hu
from components.cohort.study import RawSeries, Refused
from tests.cohort_support import AFFINE, ct, ingest, project, rows_of, rules_of, write_table

NAMES = ["train_1_a_1", "train_1_a_2", "train_2_a_1", "train_10_a_1"]


def make_tree(root: Path, *, offset: int = 0) -> Path:
    """A training split of three patients and a validation split of one; values are HU + `offset`."""
    dataset = root / "dataset"
    reports, metadata, labels = [], [], []
    for number, name in enumerate([*NAMES, "valid_1_a_1"]):
        split, patient, scan, _ = name.split("_")
        folder = dataset / split / f"{split}_{patient}" / f"{split}_{patient}_{scan}"
        write_nifti(ct(number) + np.int16(offset), AFFINE, folder / f"{name}.nii.gz")
        study = f"{split}_{patient}_{scan}"
        cells = ("Cough.", "Non-contrast.", f"Nodule in {study}.", "" if number == 2 else "Nodule.")
        columns = ("ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
        reports.append({"VolumeName": f"{name}.nii.gz", **dict(zip(columns, cells, strict=True))})
        metadata.append(
            {
                "VolumeName": f"{name}.nii.gz",
                "RescaleSlope": "1",
                "RescaleIntercept": "-1024",
                "XYSpacing": "[1.5, 1.5]",
                "ZSpacing": "3.0",
                "PatientSex": "M",
                "PatientAge": "047Y",
                "StudyDate": "20190304",
            }
        )
        labels.append({"VolumeName": f"{name}.nii.gz", "Lung nodule": "1", "Cardiomegaly": "0"})
    for rows, folder, names in (
        (reports, "radiology_text_reports", ("train_reports.csv", "validation_reports.csv")),
        (metadata, "metadata", ("train_metadata.csv", "validation_metadata.csv")),
        (labels, "multi_abnormality_labels", ("train_predicted_labels.csv", "valid_predicted_labels.csv")),
    ):
        (dataset / folder).mkdir()
        write_table(dataset / folder / names[0], rows[:-1])
        write_table(dataset / folder / names[1], rows[-1:])
    return root


def listed(root: Path, **options: Any) -> list[RawSeries | Refused]:
    """What the source lists of a tree."""
    return list(CtRate(CtRate.Params(**options), root, 0).series())


def test_ingest(tmp_path: Path) -> None:
    make_tree(tmp_path / "archive")
    root = project(tmp_path / "project", tmp_path / "archive", [{"source": "ct_rate"}])
    assert ingest(root) == 0
    assert rules_of(root) == []
    rows = rows_of(root, "manifest")
    assert (
        len(rows),
        len({row["study_key"] for row in rows}),
        len({row["patient_key"] for row in rows}),
    ) == (5, 4, 4)
    for row in rows:
        assert (row["sex"], row["age_band"]) == ("M", "40-49")
        assert row["labels"] == [{"name": "Cardiomegaly", "value": 0}, {"name": "Lung nodule", "value": 1}]
        assert read_volume(root / row["volume_path"]).array.min() < -900
    assert ("DATE", "2019-03-04") in {(row["kind"], row["value"]) for row in rows_of(root, "identities")}


def test_reports_are_composed_under_headings(tmp_path: Path) -> None:
    found = {item.series: item for item in listed(make_tree(tmp_path))}
    assert list(found) == [*NAMES, "valid_1_a_1"]  # numbers sort as numbers
    assert found["train_1_a_1"].report == (  # type: ignore[union-attr]
        "CLINICAL INFORMATION:\nCough.\n\nTECHNIQUE:\nNon-contrast.\n\n"
        "FINDINGS:\nNodule in train_1_a.\n\nIMPRESSION:\nNodule."
    )
    assert "IMPRESSION" not in found["train_2_a_1"].report  # type: ignore[union-attr, operator]
    assert found["train_1_a_1"].study == found["train_1_a_2"].study == "train_1_a"


def test_both_releases_give_the_same_hu(tmp_path: Path) -> None:
    """P13: the first release stores values, the second HU; rescaling happens once or not at all."""
    volumes = []
    for number, offset in enumerate((0, 1024)):
        (first, *_) = listed(make_tree(tmp_path / str(number), offset=offset))
        assert isinstance(first, RawSeries)
        first.write(tmp_path / f"{number}.nii.gz", tmp_path, "x")
        volumes.append(read_volume(tmp_path / f"{number}.nii.gz").array)
    np.testing.assert_array_equal(volumes[0], ct(0))
    np.testing.assert_array_equal(volumes[1], ct(0))


def test_rescaling_rules() -> None:
    hu = ct(3)
    stored = (hu + 1024).astype(np.int16)
    padded = np.where(np.arange(24)[:, None, None] < 2, -2000, stored).astype(np.int16)
    np.testing.assert_array_equal(to_hu(hu, 1, -1024, "detect"), hu)
    np.testing.assert_array_equal(to_hu(stored, 1, -1024, "detect"), hu)
    np.testing.assert_array_equal(to_hu(padded, 1, -1024, "detect")[2:], hu[2:])
    np.testing.assert_array_equal(to_hu(stored, 1, -1024, "never"), stored)
    np.testing.assert_array_equal(to_hu(hu, None, None, "detect"), hu)
    for values, slope, intercept, rescale, rule in [
        (hu, 1, -1024, "apply", "volume.double_rescale"),
        (stored, None, None, "detect", "ct_rate.rescale_absent"),
        (np.full_like(hu, 40), 1, -1024, "detect", "ct_rate.rescale_unclear"),
    ]:
        with pytest.raises(IntegrityError) as caught:
            to_hu(values, slope, intercept, rescale)  # type: ignore[arg-type]
        assert caught.value.rule == rule


def test_the_metadata_corrects_a_wrong_spacing(tmp_path: Path) -> None:
    make_tree(tmp_path)
    path = tmp_path / "dataset/train/train_1/train_1_a/train_1_a_1.nii.gz"
    write_nifti(ct(0), np.diag([-1.0, -1.0, 1.0, 1.0]), path)
    (first, *_) = listed(tmp_path)
    assert isinstance(first, RawSeries)
    first.write(tmp_path / "out.nii.gz", tmp_path, "x")
    np.testing.assert_allclose(read_volume(tmp_path / "out.nii.gz").affine, np.diag([-1.5, -1.5, 3.0, 1.0]))


def test_volumes_without_rows_and_with_odd_names(tmp_path: Path) -> None:
    make_tree(tmp_path)
    folder = tmp_path / "dataset/train/train_1/train_1_a"
    write_nifti(ct(8), AFFINE, folder / "train_1_a_3.nii.gz")
    write_nifti(ct(9), AFFINE, folder / "other.nii.gz")
    found = {item.series.rpartition("/")[2]: item for item in listed(tmp_path, splits=("train",))}
    assert found["train_1_a_3"].report is None  # type: ignore[union-attr]
    assert found["train_1_a_3"].labels == {}  # type: ignore[union-attr]
    assert found["other.nii.gz"].rule == "ct_rate.name"  # type: ignore[union-attr]
    assert len(listed(tmp_path, splits=("train",), max_patients=1)) >= 3


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("PatientSex", "=1+1", "table.formula"),
        ("Findings_EN", "=cmd|x", "table.formula"),
        ("Cardiomegaly", "2", "gold.labels"),
    ],
)
def test_poisoned_cells(tmp_path: Path, column: str, value: str, rule: str) -> None:
    make_tree(tmp_path)
    tables = {
        "PatientSex": "metadata/train_metadata.csv",
        "Findings_EN": "radiology_text_reports/train_reports.csv",
    }
    name = tables.get(column, "multi_abnormality_labels/train_predicted_labels.csv")
    path = tmp_path / "dataset" / name
    header, first, *others = path.read_text().splitlines()
    cells = dict(zip(header.split(","), [cell.strip('"') for cell in first.split(",")], strict=False))
    cells[column] = value
    fixed = {key: cells[key] for key in header.split(",")}
    write_table(path, [fixed])
    with path.open("a") as stream:
        stream.write("\n".join(others) + "\n")
    found = listed(tmp_path, splits=("train",))
    assert [item.rule for item in found if isinstance(item, Refused)] == [rule]
