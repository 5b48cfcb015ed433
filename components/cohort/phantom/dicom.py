"""Write a phantom study as a DICOM series (CT Image Storage) with its invented PHI in the header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from components.base.files import atomic_path
from components.cohort.phantom.render import LOWEST_HU, Rendered, render
from components.cohort.phantom.spec import PhantomStudy

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileDataset

INTERCEPT = LOWEST_HU  # stored values begin at 0


def write_dicom_series(study: PhantomStudy, folder: Path, rendered: Rendered | None = None) -> list[Path]:
    """Write one file a slice (explicit little endian, int16 with slope 1 and intercept -1024) to `folder`.

    Slices are axial in the patient's LPS frame; file numbers run from the head down, so that their order is
    not that of the positions. Names are `IM00001.dcm` and so on; the paths are returned in file order.
    """
    drawn = rendered or render(study)
    paths = []
    count = drawn.hu.shape[2]
    for number, k in enumerate(reversed(range(count)), start=1):
        path = folder / f"IM{number:05d}.dcm"
        with atomic_path(path) as temp:
            _slice(study, drawn, k, number).save_as(temp, enforce_file_format=True)
        paths.append(path)
    return paths


def _decimal(value: float) -> str:
    """A DS value of at most 16 characters."""
    return f"{round(float(value), 5):.10g}"


def _slice(study: PhantomStudy, drawn: Rendered, k: int, number: int) -> FileDataset:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    uid = UID(f"{study.visit.series_uid}.{number}")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, uid
    _identify(data, study)
    _describe(data, study)
    shape, spacing = drawn.hu.shape, study.acquisition.spacing_mm
    corner = drawn.affine @ np.array([shape[0] - 1, shape[1] - 1, k, 1.0])
    data.InstanceNumber = number
    data.ImagePositionPatient = [_decimal(-corner[0]), _decimal(-corner[1]), _decimal(corner[2])]
    data.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data.SliceLocation = _decimal(corner[2])
    data.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
    data.SliceThickness = _decimal(spacing[2])
    stored = (drawn.hu[::-1, ::-1, k].T.astype(np.int32) - INTERCEPT).astype("<i2")
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = str(INTERCEPT), "1", "HU"
    data.WindowCenter, data.WindowWidth = "40", "400"
    data.PixelData = stored.tobytes()
    return data


def _identify(data: Dataset, study: PhantomStudy) -> None:
    """The patient's and the visit's identifiers, also in free text and in a private block."""
    person, visit = study.person, study.visit
    day = visit.day.strftime("%Y%m%d")
    data.SpecificCharacterSet = "ISO_IR 192"
    data.PatientName = f"{person.family}^{person.given}"
    data.PatientID, data.PatientSex = person.mrn, person.sex
    data.PatientBirthDate = person.birth.strftime("%Y%m%d")
    data.PatientAge = f"{int(study.age_years):03d}Y"
    data.AccessionNumber, data.StudyID = visit.accession, visit.accession[-6:]
    data.StudyInstanceUID, data.SeriesInstanceUID = visit.study_uid, visit.series_uid
    data.FrameOfReferenceUID = f"{visit.series_uid}.0"
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(data, keyword, day)
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(data, keyword, f"{8 + study.patient_index % 10:02d}{study.study_index * 7 % 60:02d}15")
    data.ReferringPhysicianName = f"{visit.referring[1]}^{visit.referring[0]}"
    data.NameOfPhysiciansReadingStudy = f"{visit.reading[1]}^{visit.reading[0]}"
    data.InstitutionName = visit.hospital
    data.StationName = f"CT{study.patient_index % 4 + 1}"
    data.PatientComments = f"Call {person.name} at {visit.phone}"
    block: Any = data.private_block(0x0011, "VELVET PHANTOM", create=True)
    block.add_new(0x01, "LO", person.name)


def _describe(data: Dataset, study: PhantomStudy) -> None:
    """How the study was scanned."""
    scan = study.acquisition
    data.Modality, data.PatientPosition = "CT", "HFS"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.Manufacturer, data.ManufacturerModelName = scan.manufacturer, scan.model
    data.KVP, data.ConvolutionKernel = str(scan.kvp), {"sharp": "B60", "soft": "B30"}[scan.kernel]
    data.BodyPartExamined = "CHEST"
    data.StudyDescription = "CT CHEST"
    data.SeriesDescription = f"CHEST {scan.kernel.upper()} {'CE' if scan.contrast else 'NATIVE'}"
    data.SeriesNumber, data.AcquisitionNumber = 2, 1
    if scan.contrast:
        data.ContrastBolusAgent = "IODINATED"
