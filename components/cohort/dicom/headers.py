"""DICOM headers, read within limits: what assembling a series needs, and the PHI that a header holds.

A deflated file can unpack to a thousand times its size even where only its header is wanted, so it is unpacked
within a limit first. Tag names and value types: DICOM PS3.6; modules: PS3.3 C.7.6 and C.8.2.
"""

from __future__ import annotations

import logging
import re
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, IntegrityError
from components.base.volume_files import open_regular
from components.cohort._people import age_years, date_forms, name_forms

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

PREAMBLE_BYTES = 132
DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_FILE_BYTES = 1 << 30
MAX_INFLATED_BYTES = 1 << 28
MAX_RATIO = 200
MAX_SIDE = 4096  # rows or columns
FIX = "send the study again from its archive"
UNREADABLE = "dicom.unreadable"

DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "PatientBirthDate")
IDENTITY_TAGS = {
    "PatientID": "MRN",
    "OtherPatientIDs": "MRN",
    "AccessionNumber": "ACCESSION",
    "StudyID": "ACCESSION",
    "InstitutionName": "HOSPITAL",
    "InstitutionAddress": "ADDRESS",
    "PatientAddress": "ADDRESS",
    "PatientTelephoneNumbers": "PHONE",
    "ReferringPhysicianTelephoneNumbers": "PHONE",
    "StationName": "ID",
    "DeviceSerialNumber": "ID",
    "StudyInstanceUID": "ID",
    "SeriesInstanceUID": "ID",
}
PATIENT_NAMES = ("PatientName", "OtherPatientNames", "PatientBirthName", "PatientMotherBirthName")


@dataclass(frozen=True)
class Slice:
    """The header of one file, as far as selecting and assembling slices needs it."""

    path: Path
    patient: str
    study: str
    series: str
    modality: str
    sop_class: str
    sop_instance: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples: int
    converted: bool
    burned_in: bool
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    slope: float | None
    intercept: float | None
    rescale_type: str


@dataclass(frozen=True)
class Description:
    """What a header says of the person and the study: known PHI as (kind, value), and the study's numbers."""

    identities: frozenset[tuple[str, str]]
    study_numbers: tuple[str, ...]  # StudyInstanceUID, AccessionNumber, StudyID
    sex: str
    age_years: float | None


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble; a file that ends inside it is none."""
    with open_regular(path) as stream:
        return stream.read(PREAMBLE_BYTES)[128:] == b"DICM"


def broken(what: str, rule: str = UNREADABLE) -> IntegrityError:
    """The error for a DICOM file that cannot be used; `what` holds no value of its header."""
    return IntegrityError(what, rule=rule, fix=FIX)


def read_dataset(path: Path, *, pixels: bool) -> Dataset:
    """Read a file with its size checked, with or without its pixels; a broken one is an `IntegrityError`.

    pydicom's warnings quote the values that they complain about, so they are not let through.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    size = path.lstat().st_size
    if size > MAX_FILE_BYTES:
        raise broken("a file is larger than 1 GiB", "dicom.too_large")
    try:
        with warnings.catch_warnings(), open_regular(path) as stream:
            warnings.simplefilter("ignore")
            meta = pydicom.filereader.read_file_meta_info(path)
            if str(meta.get("TransferSyntaxUID", "")) == DEFLATED:
                _check_inflated(path, size)
            return pydicom.dcmread(stream, stop_before_pixels=not pixels)
    except InputError:
        raise
    except (InvalidDicomError, OSError, zlib.error) as error:
        raise broken(f"a file is not readable DICOM ({type(error).__name__})") from None
    except Exception as error:  # pydicom raises almost anything on damaged bytes
        raise broken(f"a file is damaged DICOM ({type(error).__name__})") from None


def _check_inflated(path: Path, size: int) -> None:
    """Unpack a deflated data set, keeping nothing, to see that it stays within the limits."""
    with path.open("rb") as stream:
        stream.seek(_meta_end(stream))
        inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
        limit = min(MAX_INFLATED_BYTES, MAX_RATIO * size)
        data = stream.read(1 << 16)
        while data and not inflater.eof:
            total += len(inflater.decompress(data, 1 << 20))
            if total > limit:
                raise broken("a deflated file unpacks to more than the limit", "dicom.bomb")
            data = inflater.unconsumed_tail or stream.read(1 << 16)


def _meta_end(stream: Any) -> int:
    """Where the file meta information ends: after its group length element (0002,0000)."""
    stream.seek(PREAMBLE_BYTES)
    element = stream.read(12)
    if len(element) < 12 or element[:6] != b"\x02\x00\x00\x00UL":
        raise broken("a deflated file has no group length")
    return PREAMBLE_BYTES + 12 + int.from_bytes(element[8:12], "little")


def read_slice(path: Path) -> tuple[Slice, Dataset]:
    """The header of one file; one that names no patient's series or SOP class is an `IntegrityError`."""
    dataset = read_dataset(path, pixels=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _slice(path, dataset)
    except InputError:
        raise
    except Exception as error:  # a value that does not parse
        raise broken(f"a header holds a malformed value ({type(error).__name__})") from None
    return found, dataset


def _slice(path: Path, dataset: Dataset) -> Slice:
    study, series = _text(dataset, "StudyInstanceUID"), _text(dataset, "SeriesInstanceUID")
    sop_class = _text(dataset, "SOPClassUID")
    if not study or not series or not sop_class:
        raise broken("a file does not say to which series it belongs")
    image_type = dataset.get("ImageType") or ()
    words = (image_type,) if isinstance(image_type, str) else tuple(image_type)
    return Slice(
        path=path,
        patient=_text(dataset, "PatientID") or _text(dataset, "PatientName") or study,
        study=study,
        series=series,
        modality=_text(dataset, "Modality").upper(),
        sop_class=sop_class,
        sop_instance=_text(dataset, "SOPInstanceUID"),
        image_type=tuple(str(word).upper() for word in words),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or 1),
        converted=bool(_text(dataset, "ConversionType")),
        burned_in=_text(dataset, "BurnedInAnnotation").upper() == "YES",
        orientation=_floats(dataset, "ImageOrientationPatient", 6),
        position=_floats(dataset, "ImagePositionPatient", 3),
        spacing=_floats(dataset, "PixelSpacing", 2),
        slope=_number(dataset, "RescaleSlope"),
        intercept=_number(dataset, "RescaleIntercept"),
        rescale_type=_text(dataset, "RescaleType").upper(),
    )


def _text(dataset: Dataset, name: str) -> str:
    value = dataset.get(name)
    return "" if value is None else str(value).strip()


def _number(dataset: Dataset, name: str) -> float | None:
    value = dataset.get(name)
    return None if value is None or str(value).strip() == "" else float(value)


def _floats(dataset: Dataset, name: str, count: int) -> tuple[float, ...] | None:
    value = dataset.get(name)
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    return tuple(float(item) for item in value)


def describe(dataset: Dataset) -> Description:
    """The person and the study of a header; one whose PHI cannot be listed is an `IntegrityError`."""
    try:
        with warnings.catch_warnings():  # values are parsed only now; pydicom's warnings quote them
            warnings.simplefilter("ignore")
            numbers = (_text(dataset, name) for name in ("StudyInstanceUID", "AccessionNumber", "StudyID"))
            return Description(
                identities=frozenset(_identities(dataset)),
                study_numbers=tuple(number for number in numbers if number),
                sex=_text(dataset, "PatientSex"),
                age_years=_age_years(dataset),
            )
    except Exception as error:
        raise broken(f"a header holds a malformed value ({type(error).__name__})") from None


def _identities(dataset: Dataset) -> set[tuple[str, str]]:
    """(kind, value) of the PHI in a header, nested sequences included; names and dates in several forms."""
    found: set[tuple[str, str]] = set()
    for element in dataset.iterall():
        values = element.value if element.VM > 1 else [element.value]
        texts = [str(value).strip() for value in values if value is not None and str(value).strip()]
        if element.VR == "PN":
            kind = "PATIENT" if element.keyword in PATIENT_NAMES else "STAFF"
            found |= {(kind, form) for text in texts for form in name_forms(text)}
        elif element.keyword in IDENTITY_TAGS:
            found |= {(IDENTITY_TAGS[element.keyword], text) for text in texts}
        elif element.keyword in DATES or element.VR == "DA":
            found |= {("DATE", form) for text in texts for form in date_forms(text)}
    return found


def _age_years(dataset: Dataset) -> float | None:
    """The patient's age at the study in years: from PatientAge, else from the two dates."""
    years = age_years(_text(dataset, "PatientAge"))
    dates = [_text(dataset, name) for name in ("PatientBirthDate", "StudyDate")]
    if years is None and all(re.fullmatch(r"\d{8}", date) for date in dates):
        birth, study = (int(date) for date in dates)
        years = float((study - birth) // 10000)
    return years
