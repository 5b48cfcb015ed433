"""Phantom studies as files: NIfTI in any orientation and DICOM give the drawn HU back, in the right place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from components.cohort.phantom import PhantomParams, cohort, render, write_dicom_series, write_nifti
from components.cohort.phantom.sampling import ORIENTATIONS
from components.cohort.sources import SOURCES

COARSE = {"in_plane_mm": (2.5, 2.5), "slice_mm": (5.0, 5.0)}


@pytest.fixture(scope="module")
def study():
    return next(cohort(PhantomParams(num_patients=1, **COARSE), 5))


@pytest.fixture(scope="module")
def drawn(study):
    return render(study)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_on_disk_is_the_same_patient(study, drawn, tmp_path, orientation):
    turned = replace(study, acquisition=replace(study.acquisition, orientation=orientation))
    path = tmp_path / "volume.nii.gz"
    write_nifti(turned, path, drawn)
    image = nib.load(path)
    assert "".join(nib.aff2axcodes(image.affine)) == orientation
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert image.get_data_dtype() == np.int16
    back = nib.as_closest_canonical(image)
    assert np.array_equal(np.asarray(back.dataobj), drawn.hu)
    assert np.allclose(back.affine, drawn.affine, atol=1e-3)


def test_the_same_study_gives_the_same_bytes(study, tmp_path):
    digests = set()
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(study, tmp_path / name)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == b"\0\0\0\0"  # no time in the gzip header


def test_a_series_of_the_default_size_is_small_and_brings_its_masks(tmp_path):
    kind = SOURCES.get("phantom")
    series = next(kind(kind.Params(num_patients=1), Path(), 7).series())
    masks = series.write(tmp_path / "v.nii.gz", tmp_path, "ser_1")
    assert (tmp_path / "v.nii.gz").stat().st_size < 2.2e6
    assert [mask.name for mask in masks] == ["organs", "findings"]
    volume = nib.load(tmp_path / "v.nii.gz")
    for mask in masks:
        assert mask.path == tmp_path / f"ser_1.{mask.name}.nii.gz"
        image = nib.load(mask.path)
        assert image.shape == volume.shape
        assert np.allclose(image.affine, volume.affine)
        assert image.get_data_dtype() == np.uint8
        values = set(np.unique(np.asarray(image.dataobj)).tolist()) - {0}
        assert values
        assert values <= set(mask.labels)
        assert json.loads(json.dumps(dict(mask.labels)))
    found = {masks[1].labels[v] for v in np.unique(np.asarray(nib.load(masks[1].path).dataobj)) if v}
    assert found == {label for label, value in series.labels.items() if value}


def test_dicom_gives_the_drawn_volume_back(study, drawn, tmp_path):
    import SimpleITK as sitk

    files = write_dicom_series(study, tmp_path, drawn)
    assert len(files) == drawn.hu.shape[2]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = sitk.DICOMOrient(reader.Execute(), "RAS")
    hu = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    assert np.array_equal(hu, drawn.hu)
    assert np.allclose(image.GetSpacing(), study.acquisition.spacing_mm, atol=1e-4)
    lps = np.array(image.GetOrigin())
    assert np.allclose(lps * (-1, -1, 1), drawn.affine[:3, 3], atol=1e-3)


def test_dicom_headers_carry_the_identity_and_the_geometry(study, drawn, tmp_path):
    files = write_dicom_series(study, tmp_path, drawn)
    heads = [pydicom.dcmread(path) for path in files[:3]]
    first = heads[0]
    assert first.SOPClassUID == first.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert len({head.SOPInstanceUID for head in heads}) == 3
    assert {head.SeriesInstanceUID for head in heads} == {study.visit.series_uid}
    assert str(first.PatientName) == f"{study.person.family}^{study.person.given}"
    assert first.PatientID == study.person.mrn
    assert first.AccessionNumber == study.visit.accession
    assert first.StudyDate == study.visit.day.strftime("%Y%m%d")
    assert first.private_block(0x0011, "VELVET PHANTOM")[0x01].value == study.person.name
    positions = [float(head.ImagePositionPatient[2]) for head in heads]
    assert np.allclose(np.diff(positions), -study.acquisition.spacing_mm[2], atol=1e-3)
    assert first.pixel_array.dtype == np.int16
    assert first.pixel_array.min() >= 0
    assert all(len(str(uid)) <= 64 for uid in (first.SOPInstanceUID, first.FrameOfReferenceUID))
