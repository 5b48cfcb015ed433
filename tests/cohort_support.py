"""What the tests of the cohort share: small volumes, a table of studies, a DICOM series, and running `ingest`."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from components.base.volume_files import write_nifti
from components.cohort.ingest import STEP
from components.cohort.manifest import read_rows

AFFINE = np.array([[-1.5, 0, 0, 40.0], [0, -1.5, 0, 30.0], [0, 0, 3.0, -200.0], [0, 0, 0, 1]])
COLUMNS = [
    "patient_id",
    "patient_name",
    "sex",
    "study_id",
    "study_date",
    "series_id",
    "modality",
    "image",
    "mask",
    "report",
    "region",
    "side",
]


def ct(seed: int = 0, shape: tuple[int, int, int] = (24, 20, 16)) -> np.ndarray:
    """A body of water with noise in air, int16 HU."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:2]), indexing="ij")
    body = (x**2 + y**2 < 0.5)[:, :, None]
    hu = np.where(body, 40.0, -1000.0) + rng.normal(0, 12, shape)
    return np.rint(hu).clip(-1024, 3071).astype(np.int16)


def make_archive(folder: Path, num_patients: int = 4) -> list[dict[str, str]]:
    """A folder for `nifti_csv`: one study a patient, the last one without a report; returns the rows."""
    rows = []
    for number in range(num_patients):
        image, mask, report = f"volumes/v{number}.nii.gz", f"masks/m{number}.nii.gz", f"reports/r{number}.txt"
        hu = ct(number)
        write_nifti(hu, AFFINE, folder / image)
        write_nifti((hu > 60).astype(np.uint8), AFFINE, folder / mask)
        text = f"Patient: Ada Stone{number}\r\nFINDINGS: Nodule {number}.\r\nIMPRESSION: Nodule.\r\n"
        (folder / "reports").mkdir(parents=True, exist_ok=True)
        (folder / report).write_bytes(text.encode())
        last = number == num_patients - 1
        values = [
            f"77001{number}",
            f"Stone{number}^Ada",
            "F",
            f"ACC900{number}",
            "03/04/2019",
            f"SER500{number}",
        ]
        values += ["CT", image, mask, "" if last else report, "hip" if number % 2 else "thigh", "left"]
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    write_table(folder / "studies.csv", rows)
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write rows as CSV with the columns of the first."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def project(root: Path, archive: Path, sources: list[dict[str, Any]], **changes: Any) -> Path:
    """A project's root whose params.yaml ingests `archive`; returns the root."""
    root.mkdir(parents=True, exist_ok=True)
    block = {
        "seed": 7,
        "root": str(archive),
        "sources": sources,
        "max_quarantined_fraction": 0.5,
        "workers": 1,
    }
    (root / "params.yaml").write_text(yaml.safe_dump({"ingest": {**block, **changes}}), encoding="utf-8")
    return root


def ingest(root: Path) -> int:
    """Run the stage as its command does; returns the exit code."""
    code = STEP.main(["--root", str(root)])
    for handler in list(logging.getLogger("velvet.ingest").handlers):
        handler.flush()
    return code


def rows_of(root: Path, name: str) -> list[dict[str, Any]]:
    """The rows of one of ingest's tables."""
    return read_rows(root / "restricted" / "ingest" / f"{name}.parquet", name)


def rules_of(root: Path) -> list[str]:
    """The rules in ingest's quarantine, sorted."""
    return sorted(row["rule"] for row in rows_of(root, "quarantine"))


def tree_bytes(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_dicom(
    folder: Path,
    hu: np.ndarray,
    change: Callable[[Any, int], None] | None = None,
    *,
    series: str = "1.2.3.4.5",
    suffix: str = ".dcm",
) -> list[Path]:
    """Write [X, Y, Z] HU as an axial CT series (3 mm apart) with PHI; `change(dataset, index)` may spoil slices."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(hu.shape[2]):
        item = Dataset()
        item.file_meta = FileMetaDataset()
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = CTImageStorage
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID = f"{series}.{index + 1}"
        item.Modality, item.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.PatientName, item.PatientID, item.PatientSex = "Quist^Amara^Jo", "MRN770099", "F"
        item.PatientBirthDate, item.StudyDate = "19500720", "20190304"
        item.AccessionNumber, item.ReferringPhysicianName = "ACC424242", "Okafor^Ines"
        item.InstitutionName = "Lakeside General Hospital"
        item.StudyInstanceUID, item.SeriesInstanceUID = "1.2.3.4", series
        item.InstanceNumber = hu.shape[2] - index  # not to be trusted
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.ImagePositionPatient = [-18.0, -15.0, -200.0 + 3.0 * index]
        item.PixelSpacing, item.RescaleSlope, item.RescaleIntercept = [1.25, 1.5], 1, -1024
        item.Rows, item.Columns = hu.shape[1], hu.shape[0]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 0
        item.PixelData = (hu[:, :, index].T.astype(np.int32) + 1024).astype("<u2").tobytes()
        if change is not None:
            change(item, index)
        path = folder / f"{(index * 7) % hu.shape[2]:03d}{suffix}"  # names in another order than places
        while path.exists():
            path = path.with_stem(path.stem + "x")
        pydicom.dcmwrite(path, item, enforce_file_format=True)
        paths.append(path)
    return paths
