"""DICOM trees: series are assembled by place, HU are exact, what is no CT volume is left out with a reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.base.volume_files import read_volume
from components.cohort.sources.dicom import DicomFolder, DicomSeries
from components.cohort.study import RawSeries, Refused
from tests.cohort_support import ct, ingest, project, rows_of, rules_of, write_dicom, write_table

ENTRY = {"source": "dicom"}


def listed(folder: Path, **options: Any) -> list[RawSeries | Refused]:
    """What the source lists of a folder."""
    return list(DicomFolder(DicomFolder.Params(**options), folder, 0).series())


def test_series_become_volumes_in_hu(tmp_path: Path) -> None:
    write_dicom(tmp_path / "archive" / "study", ct())
    root = project(tmp_path / "project", tmp_path / "archive", [ENTRY])
    assert ingest(root) == 0
    (row,) = rows_of(root, "manifest")
    volume = read_volume(root / row["volume_path"])
    np.testing.assert_array_equal(volume.array, ct())
    wanted = [[-1.5, 0, 0, 18.0], [0, -1.25, 0, 15.0], [0, 0, 3.0, -200.0], [0, 0, 0, 1]]
    np.testing.assert_allclose(volume.affine, wanted, atol=1e-5)
    assert (row["sex"], row["age_band"], row["report"]) == ("F", "60-69", None)


def test_agrees_with_simpleitk(tmp_path: Path) -> None:
    import SimpleITK as sitk

    axes, _ = np.linalg.qr(np.array([[1, 0.2, 0.1], [-0.1, 1, 0.3], [0.05, -0.3, 1]]))
    axes *= np.sign(np.linalg.det(axes))
    right, down, normal = axes.T

    def oblique(item: Any, index: int) -> None:
        item.ImageOrientationPatient = [round(float(value), 9) for value in (*right, *down)]
        item.ImagePositionPatient = [round(float(value), 9) for value in index * 2.5 * normal + 10]

    write_dicom(tmp_path / "s", ct(), oblique)
    (found,) = listed(tmp_path)
    assert isinstance(found, DicomSeries)
    found.write(tmp_path / "out.nii.gz", tmp_path, "out")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "s")))
    image = reader.Execute()
    volume = read_volume(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    for index in [(0, 0, 0), (5, 3, 2), (23, 19, 15)]:
        place = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        np.testing.assert_allclose((volume.affine @ [*index, 1])[:3], place, atol=1e-3)


def test_slope_padding_and_signed_values(tmp_path: Path) -> None:
    def change(item: Any, index: int) -> None:
        stored = np.full((item.Rows, item.Columns), 100 + index, "<i2")
        stored[0] = -2000
        item.PixelRepresentation, item.PixelPaddingValue = 1, -2000
        item.RescaleSlope, item.RescaleIntercept = 2, -10
        item.PixelData = stored.tobytes()

    write_dicom(tmp_path / "s", ct(), change)
    (found,) = listed(tmp_path)
    assert isinstance(found, DicomSeries)
    found.write(tmp_path / "out.nii.gz", tmp_path, "out")
    array = read_volume(tmp_path / "out.nii.gz").array
    assert (array[:, 0, :] == -1024).all()
    np.testing.assert_array_equal(array[0, 1, :], 2 * (100 + np.arange(16)) - 10)


def test_known_phi_of_the_header(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    def change(item: Any, _index: int) -> None:
        nested = Dataset()
        nested.RequestingPhysician = "Engel^Hiro"
        item.RequestAttributesSequence = [nested]

    write_dicom(tmp_path / "s", ct(), change)
    (found,) = listed(tmp_path)
    assert isinstance(found, DicomSeries)
    assert {
        ("PATIENT", "Quist^Amara^Jo"),
        ("PATIENT", "Amara Jo Quist"),
        ("PATIENT", "Quist, Amara Jo"),
        ("MRN", "MRN770099"),
        ("ACCESSION", "ACC424242"),
        ("STAFF", "Ines Okafor"),
        ("STAFF", "Engel, Hiro"),
        ("HOSPITAL", "Lakeside General Hospital"),
        ("DATE", "19500720"),
        ("DATE", "2019-03-04"),
    } <= set(found.identities)


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        ("left_out.modality", {"Modality": "MR"}),
        ("left_out.modality", {"Modality": ""}),
        ("left_out.localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        ("left_out.dose_page", {"ImageType": ["DERIVED", "SECONDARY", "DOSE_INFO"]}),
        ("left_out.screen_capture", {"BurnedInAnnotation": "YES"}),
        ("left_out.screen_capture", {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}),
        ("left_out.secondary_capture", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}),
        ("left_out.secondary_capture", {"ConversionType": "WSD"}),
        ("left_out.projection", {"ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
        ("left_out.not_image", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}),
    ],
)
def test_left_out(tmp_path: Path, rule: str, values: dict[str, Any]) -> None:
    def change(item: Any, _index: int) -> None:
        for name, value in values.items():
            setattr(item, name, value)

    write_dicom(tmp_path / "archive" / "ct", ct())
    write_dicom(tmp_path / "archive" / "other", ct(1), change, series="1.2.3.4.6")
    root = project(tmp_path / "project", tmp_path / "archive", [ENTRY], max_quarantined_fraction=0.0)
    assert ingest(root) == 0  # what is left out does not count as bad
    assert rules_of(root) == [rule]
    assert len(rows_of(root, "manifest")) == 1


def test_a_localizer_inside_a_series_is_dropped(tmp_path: Path) -> None:
    def change(item: Any, index: int) -> None:
        if index == 15:
            item.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            item.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    write_dicom(tmp_path / "s", ct(), change)
    (found,) = listed(tmp_path)
    assert isinstance(found, DicomSeries)
    assert found.stack is not None
    assert len(found.stack.slices) == 15


def test_reports_beside_the_study_in_it_and_in_a_table(tmp_path: Path) -> None:
    for number, place in enumerate(["beside.txt", "inside/report.txt"]):
        folder = tmp_path / f"t{number}"
        write_dicom(folder / Path(place).with_suffix("").parts[0], ct(), suffix="")
        (folder / place).write_text("FINDINGS: None.\n")
        (found,) = listed(folder, reports="text")
        assert found.report == "FINDINGS: None.\n"  # type: ignore[union-attr]
    write_dicom(tmp_path / "t3" / "s", ct())
    rows = [{"study_id": "ACC424242", "report": "FINDINGS:\nClear."}, {"study_id": "other", "report": "x"}]
    write_table(tmp_path / "t3" / "reports.csv", rows)
    (found,) = listed(tmp_path / "t3", reports="table")
    assert found.report == "FINDINGS:\nClear."  # type: ignore[union-attr]
    (found,) = listed(tmp_path / "t3")
    assert found.report is None  # type: ignore[union-attr]


def test_two_series_of_one_study_share_patient_and_study(tmp_path: Path) -> None:
    write_dicom(tmp_path / "archive" / "a", ct(0))
    write_dicom(tmp_path / "archive" / "b", ct(1), series="1.2.3.4.9")
    (tmp_path / "archive" / "DICOMDIR.txt").write_text("an index")
    root = project(tmp_path / "project", tmp_path / "archive", [ENTRY], workers=2)
    assert ingest(root) == 0
    rows = rows_of(root, "manifest")
    assert len(rows) == 2
    assert len({row["study_key"] for row in rows}) == len({row["patient_key"] for row in rows}) == 1


@pytest.mark.real_data
def test_real_archives(tmp_path: Path, real_data: Path) -> None:
    names = ["ct_sts51_ibsi/dicom", "ct_head_dcm_qa_ct", "dicom_phi"]
    root = project(tmp_path / "project", real_data, [{**ENTRY, "path": name} for name in names])
    assert ingest(root) == 0
    rows = rows_of(root, "manifest")
    shapes = {read_volume(root / row["volume_path"]).array.shape[2] for row in rows}
    assert shapes == {51, 28, 3}
    for row in rows:
        volume = read_volume(root / row["volume_path"])
        assert volume.array.dtype == np.int16
        assert -1100 < np.percentile(volume.array, 5) < -900
    rules = Counter(rules_of(root))
    assert rules == {
        "left_out.modality": 5 + 3 + 3,  # MR, PET and three RTSTRUCT; SEG, RTSTRUCT, RTPLAN; photographs
        "left_out.localizer": 2,
        "left_out.screen_capture": 2,  # exam summaries, one with burned-in patient text
        "dicom.few_slices": 1,
    }
    names_known = {row["value"] for row in rows_of(root, "identities") if row["kind"] == "PATIENT"}
    assert names_known == {"STS_008", "HEAD", "JANCT000"}


def test_a_phantom_study_survives_dicom(tmp_path: Path) -> None:
    import nibabel as nib

    from components.cohort.phantom import PhantomParams, cohort, render, write_dicom_series

    (study, *_) = cohort(PhantomParams(num_patients=1, in_plane_mm=(4, 4), slice_mm=(8, 8)), seed=3)
    drawn = render(study)
    write_dicom_series(study, tmp_path / "s", drawn)
    (found,) = listed(tmp_path)
    assert isinstance(found, DicomSeries)
    found.write(tmp_path / "out.nii.gz", tmp_path, "out")
    volume = read_volume(tmp_path / "out.nii.gz")
    images = (
        nib.Nifti1Image(item[0].astype(np.int16), item[1])
        for item in ((volume.array, volume.affine), (drawn.hu, drawn.affine))
    )
    ours, theirs = (nib.as_closest_canonical(image) for image in images)
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=0.01)
    assert {value for kind, value in study.identities if kind in {"MRN", "ACCESSION"}} <= {
        value for _, value in found.identities
    }
