"""Damaged DICOM and stacks that are not whole are refused with a rule; nothing is quietly shortened."""

from __future__ import annotations

import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.base.errors import IntegrityError
from components.cohort._jobs import Failed, Job, write_series
from components.cohort.dicom.headers import read_slice
from components.cohort.sources.dicom import DicomFolder, DicomSeries
from components.cohort.study import RawSeries, Refused
from tests.cohort_support import ct, ingest, project, rows_of, rules_of, write_dicom


def listed(folder: Path, **options: Any) -> list[RawSeries | Refused]:
    """What the source lists of a folder."""
    return list(DicomFolder(DicomFolder.Params(**options), folder, 0).series())


def refused_rules(folder: Path, out: Path) -> set[str]:
    """The rules for which the series of a folder are refused, when listed or when written."""
    rules = set()
    for item in listed(folder):
        if isinstance(item, Refused):
            rules.add(item.rule)
        else:
            outcome = write_series(Job(item, "ser_x", out))
            rules.add(outcome.rule if isinstance(outcome, Failed) else "accepted")
    return rules


@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("victim", [0, 15])
def test_truncation_at_20_points(tmp_path: Path, suffix: str, victim: int) -> None:
    path = write_dicom(tmp_path / "s", ct(), suffix=suffix)[victim]
    data = path.read_bytes()
    for point in np.linspace(0, len(data) - 1, 20).astype(int):
        path.write_bytes(data[:point])
        rules = refused_rules(tmp_path / "s", tmp_path / "out")
        assert rules
        assert "accepted" not in rules, point
    path.write_bytes(data)
    assert refused_rules(tmp_path / "s", tmp_path / "out") == {"accepted"}


def _shift(axis: int, millimetres: float) -> Callable[[Any, int], None]:
    def change(item: Any, index: int) -> None:
        place = [float(value) for value in item.ImagePositionPatient]
        place[axis] += millimetres * index
        item.ImagePositionPatient = place

    return change


def _in_one(index: int, **values: Any) -> Callable[[Any, int], None]:
    def change(item: Any, number: int) -> None:
        if number == index:
            for name, value in values.items():
                setattr(item, name, value)

    return change


def _without(name: str) -> Callable[[Any, int], None]:
    def change(item: Any, index: int) -> None:
        if index == 4:
            delattr(item, name)

    return change


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("dicom.gantry_tilt", _shift(1, 0.5)),
        ("dicom.slice_missing", _in_one(7, ImagePositionPatient=[-18, -15, -178.0])),
        ("dicom.slice_duplicate", _in_one(7, ImagePositionPatient=[-18, -15, -182.0])),
        ("dicom.slice_duplicate", _in_one(7, SOPInstanceUID="1.2.3.4.5.7")),
        ("dicom.orientation_mixed", _in_one(3, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])),
        ("dicom.rescale_absent", _without("RescaleSlope")),
        ("dicom.rescale_absent", _without("RescaleIntercept")),
        ("dicom.rescale_absent", _in_one(2, RescaleSlope=0)),
        ("dicom.rescale_type", _in_one(2, RescaleType="US")),
        ("dicom.geometry_absent", _without("ImagePositionPatient")),
        ("dicom.geometry_absent", _without("ImageOrientationPatient")),
        ("dicom.geometry_absent", _without("PixelSpacing")),
        ("dicom.geometry_malformed", _in_one(2, PixelSpacing=[0, 1.5])),
        ("dicom.size_mixed", _in_one(2, PixelSpacing=[1.25, 1.6])),
        ("dicom.size_mixed", _in_one(2, Rows=10)),
        ("dicom.size", _in_one(2, Rows=0)),
        ("dicom.multiframe", _in_one(2, NumberOfFrames=3)),
        ("volume.truncated", _in_one(2, PixelData=bytes(100))),
        ("volume.trailing", _in_one(2, PixelData=bytes(24 * 20 * 2 + 64))),
        ("volume.truncated", _without("PixelData")),
    ],
)
def test_stacks_that_are_not_whole(tmp_path: Path, rule: str, change: Callable[[Any, int], None]) -> None:
    write_dicom(tmp_path / "s", ct(), change)
    assert refused_rules(tmp_path / "s", tmp_path / "out") == {rule}
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_removed_slice_and_a_copied_one(tmp_path: Path) -> None:
    paths = write_dicom(tmp_path / "a", ct())
    paths[8].unlink()
    assert refused_rules(tmp_path / "a", tmp_path / "out") == {"dicom.slice_missing"}
    paths = write_dicom(tmp_path / "b", ct())
    (tmp_path / "b" / "copy.dcm").write_bytes(paths[3].read_bytes())
    assert refused_rules(tmp_path / "b", tmp_path / "out") == {"dicom.slice_duplicate"}


def test_too_few_slices(tmp_path: Path) -> None:
    write_dicom(tmp_path / "s", ct()[:, :, :2])
    assert refused_rules(tmp_path / "s", tmp_path / "out") == {"dicom.few_slices"}


def test_a_folder_of_garbage_beside_a_good_series(tmp_path: Path) -> None:
    write_dicom(tmp_path / "archive" / "good", ct())
    (tmp_path / "archive" / "bad").mkdir()
    rng = np.random.default_rng(0)
    (tmp_path / "archive" / "bad" / "a.dcm").write_bytes(rng.bytes(4000))
    (tmp_path / "archive" / "bad" / "b.dcm").write_bytes(bytes(128) + b"DICM" + rng.bytes(4000))
    (tmp_path / "archive" / "bad" / "c.dcm").symlink_to(tmp_path / "archive" / "good" / "000.dcm")
    root = project(
        tmp_path / "project", tmp_path / "archive", [{"source": "dicom"}], max_quarantined_fraction=0.8
    )
    assert ingest(root) == 0
    assert rules_of(root) == ["dicom.unreadable", "dicom.unreadable", "volume.link"]
    assert len(rows_of(root, "manifest")) == 1


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    """200 files with 20 random bytes each in the header: an `IntegrityError` or a header, never anything else."""
    (path, *_) = write_dicom(tmp_path / "s", ct())
    data = path.read_bytes()
    rng = np.random.default_rng(5)
    refused = []
    for _ in range(200):
        spoiled = bytearray(data)
        for place in rng.integers(132, 1400, 20):
            spoiled[place] = rng.integers(256)
        path.write_bytes(spoiled)
        try:
            read_slice(path)
        except IntegrityError as error:
            refused.append(error.render())
    assert len(refused) > 20
    assert not [text for text in refused if "Quist" in text]


def test_a_deflated_bomb(tmp_path: Path) -> None:
    """A small deflated file that unpacks to 512 MiB is refused without unpacking it into memory."""
    (path, *_) = write_dicom(tmp_path / "s", ct()[:, :, :3])
    data = path.read_bytes()
    meta_length = int.from_bytes(data[140:144], "little")
    meta = data[: 144 + meta_length].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta[:140] + (meta_length + 2).to_bytes(4, "little") + meta[144:]
    place = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: place - 2] + (22).to_bytes(2, "little") + meta[place:]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(data[144 + meta_length :])
    zeros = bytes(1 << 22)
    body += b"".join(packer.compress(zeros) for _ in range(128)) + packer.flush()
    path.write_bytes(meta + body)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(IntegrityError, match=r"dicom\.bomb"):
        read_slice(path)
    assert time.process_time() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(meta + packer.compress(data[144 + meta_length :]) + packer.flush())
    assert read_slice(path)[0].rows == 20  # an honest deflated file is read


def test_warnings_that_quote_phi_are_not_let_through(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = write_dicom(tmp_path / "s", ct())[0]
    data = path.read_bytes()
    path.write_bytes(data.replace(b"19500720", b"Stone^Ab"))  # a date that is none
    found = listed(tmp_path / "s")
    assert [item for item in found if isinstance(item, DicomSeries)]
    assert not [str(warning.message) for warning in recwarn if "Stone" in str(warning.message)]
