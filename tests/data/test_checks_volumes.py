"""check_volumes: an index that is implausible, files that changed, and copies are set aside."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from components.base.errors import CheckError
from components.base.files import read_table, write_table
from components.base.step import StepContext
from components.volumes.contract import Contract
from components.volumes.preprocess import index_schema
from components.volumes.statistics import describe
from components.volumes.store import array_sha256, write_array
from data_checks import check_volumes

CONTRACT = Contract(spacing_mm=(4, 4, 4), size=(16, 16, 16), hu_window=(-1000, 1000), output_range=(0, 1))
PARAMS = check_volumes.Params(max_quarantined_fraction=0.9)


def key(kind: str, number: int) -> str:
    return f"{kind}_{number:016x}"


def make(root: Path, count: int = 10) -> list[dict]:
    rows = []
    for number in range(count):
        generator = np.random.default_rng(number)
        hu = np.full((20, 18, 16), -1000.0)
        hu[3:16, 3:14] = 40
        hu = np.rint(np.maximum(hu + generator.normal(0, 20, hu.shape), -1024)).astype(np.int16)
        path = root / f"artifacts/preprocess/store/{key('ser', number)}.b2nd"
        ids = {f"{name}_key": key(name[:3], number) for name in ("study", "patient", "series")}
        row = {**ids, "shape": list(hu.shape), "content_sha256": array_sha256(hu, CONTRACT)}
        row |= {"file_sha256": write_array(path, hu, {}), "spacing_mm": [4.0, 4.0, 4.0], "masks_json": "{}"}
        rows.append(
            {**row, **describe(hu), "native_shape": [1, 1, 1], "native_spacing_mm": [1.0], "notes": []}
        )
    CONTRACT.save(root / "artifacts/preprocess")
    return rows


def run(root: Path, rows: list[dict], params: check_volumes.Params = PARAMS) -> dict:
    table = pa.Table.from_pylist(rows, schema=index_schema())
    write_table(root / "artifacts/preprocess/index.parquet", table)
    context = StepContext(root, "check_volumes", None, logging.getLogger("test.check_volumes"))
    return dict(check_volumes.run(params, context))


def refused(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in read_table(root / "artifacts/check_volumes/quarantine.parquet").to_pylist():
        found.setdefault(row["series_key"], set()).add(row["rule"])
    return found


def test_a_sound_store_passes(tmp_path: Path) -> None:
    metrics = run(tmp_path, make(tmp_path))
    assert metrics["accepted"] == 10
    assert metrics["checks"] == metrics["checks_passed"]
    column = read_table(tmp_path / "artifacts/check_volumes/accepted.parquet").column("series_key")
    assert column.to_pylist() == [key("ser", n) for n in range(10)]


def test_planted_faults_are_named(tmp_path: Path) -> None:
    rows = make(tmp_path, 18)
    store = tmp_path / "artifacts/preprocess/store"
    (store / f"{key('ser', 0)}.b2nd").unlink()
    path = store / f"{key('ser', 1)}.b2nd"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    rows[2]["spacing_mm"] = [4.0, 4.0, 5.0]
    rows[3]["shape"] = [20, 18, 3]
    rows[4]["hu_min"] = -3024
    rows[5]["hu_max"] = 9000
    rows[6]["hu_max"] = rows[6]["hu_min"] + 5
    rows[7]["hu_mean"] = float("nan")
    rows[8]["air_fraction"] = 0.999
    rows[15]["hu_mean"] = 900.0
    rows[9]["soft_fraction"] = 0.0
    rows[10]["average_hash"] = "zz"
    rows[12] |= {"content_sha256": rows[11]["content_sha256"], "patient_key": rows[11]["patient_key"]}
    rows[14]["content_sha256"] = rows[13]["content_sha256"]
    run(tmp_path, rows)
    expected = {
        0: "volume.files",
        1: "volume.whole",
        2: "volume.grid",
        3: "volume.small",
        4: "volume.hu_min",
        5: "volume.hu_max",
        6: "volume.hu_range",
        7: "volume.complete",
        8: "volume.air",
        9: "volume.tissue",
        10: "volume.average_hash",
        12: "volume.content_unique",
        13: "volume.content_two_patients",
        14: "volume.content_two_patients",
        15: "volume.hu_mean",
    }
    found = refused(tmp_path)
    assert set(found) == {key("ser", number) for number in expected}
    for number, rule in expected.items():
        assert rule in found[key("ser", number)], (number, found[key("ser", number)])


def test_faults_of_the_whole_store_stop_the_stage(tmp_path: Path) -> None:
    rows = make(tmp_path, 4)
    with pytest.raises(CheckError, match=r"volumes\.count"):
        run(tmp_path, rows, PARAMS.model_copy(update={"min_volumes": 5}))
    with pytest.raises(CheckError, match=r"volumes\.hu_mean"):
        run(tmp_path, rows, PARAMS.model_copy(update={"cohort_hu_mean": (100.0, 200.0)}))
    with pytest.raises(CheckError, match=r"check_volumes\.empty"):
        run(tmp_path, [])
