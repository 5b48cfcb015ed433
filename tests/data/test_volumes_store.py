"""preprocess and the store: bytes, reuse after a kill, quarantine, partial reads, damage, no PHI."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from components.base.errors import CheckError, InputError, IntegrityError
from components.base.step import StepContext
from components.base.volume_files import write_nifti
from components.cohort.manifest import write_rows
from components.volumes import preprocess
from components.volumes.contract import Contract, model_input
from components.volumes.statistics import average_hash, describe
from components.volumes.store import VolumeStore, array_sha256, read_meta, write_array
from components.volumes.views import global_view, local_crop

CONTRACT = Contract(spacing_mm=(3, 3, 3), size=(24, 24, 24), hu_window=(-1000, 1000), output_range=(0, 1))
PARAMS = preprocess.Params(contract=CONTRACT, workers=1, max_quarantined_fraction=0.5)


def body(seed: int, shape: tuple[int, int, int] = (44, 40, 36)) -> np.ndarray:
    generator = np.random.default_rng(seed)
    hu = np.full(shape, -1000.0)
    low = generator.integers(4, 10, 3)
    hu[low[0] : 38, low[1] : 34, low[2] : 33] = -90
    hu[low[0] + 4 : 34, low[1] + 4 : 30, low[2] : 33] = 45
    return np.rint(np.maximum(hu + generator.normal(0, 10, shape), -1024)).astype(np.int16)


def key(kind: str, number: int) -> str:
    return f"{kind}_{number:016x}"


def make_root(root: Path, count: int = 3, *, with_mask: bool = True) -> list[dict]:
    """A project root with `count` series as deidentify leaves them."""
    rows = []
    affine = np.diag([-2.0, -2.0, 2.5, 1.0])
    for number in range(count):
        series, hu = key("ser", number), body(number)
        volume = root / f"restricted/ingest/volumes/{series}.nii.gz"
        mask = root / f"restricted/ingest/masks/{series}.organs.nii.gz"
        sha256, masks = write_nifti(hu, affine, volume), []
        if with_mask:
            digest = write_nifti((hu > 0).astype(np.uint8), affine, mask)
            path = mask.relative_to(root).as_posix()
            masks = [{"name": "organs", "path": path, "sha256": digest, "labels_json": '{"1": "soft"}'}]
        rows.append(
            {
                "study_key": key("stu", number),
                "patient_key": key("pat", number),
                "series_key": series,
                "modality": "CT",
                "source": "phantom",
                "provenance": "synthetic",
                "volume_path": volume.relative_to(root).as_posix(),
                "volume_sha256": sha256,
                "masks": masks,
                "sex": None,
                "age_band": None,
            }
        )
    write_manifest(root, rows)
    return rows


def write_manifest(root: Path, rows: list[dict]) -> None:
    write_rows(root / "artifacts/deidentify/manifest.parquet", "deidentified_manifest", rows)


def run(root: Path, params: preprocess.Params = PARAMS) -> dict:
    context = StepContext(root, "preprocess", None, logging.getLogger("test.preprocess"))
    return dict(preprocess.run(params, context))


def digests(root: Path) -> dict[str, str]:
    folder = root / "artifacts/preprocess"
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_bytes_for_any_number_of_workers_and_order_of_rows(tmp_path: Path) -> None:
    rows = make_root(tmp_path / "a")
    make_root(tmp_path / "b")
    write_manifest(tmp_path / "b", rows[::-1])
    metrics = run(tmp_path / "a")
    run(tmp_path / "b", PARAMS.model_copy(update={"workers": 2}))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert metrics["volumes"] == 3
    assert metrics["compression_ratio_mean"] > 1
    assert metrics["raw_bytes"] > metrics["store_bytes"]


def test_reading_whole_boxes_masks_and_views(tmp_path: Path) -> None:
    make_root(tmp_path)
    run(tmp_path)
    store = VolumeStore(tmp_path / "artifacts/preprocess")
    series = store.keys()[1]
    whole = store.read(series)
    assert whole.dtype == np.int16
    assert whole.shape == store.shape(series) == (29, 27, 30)
    np.testing.assert_array_equal(store.read_box(series, (3, 4, 5), (8, 7, 6)), whole[3:11, 4:11, 5:11])
    outside = store.read_box(series, (-2, 20, 28), (8, 12, 6))
    np.testing.assert_array_equal(outside[2:, :7, :2], whole[:6, 20:, 28:])
    assert (outside[:2] == -1024).all()
    assert (store.read_box(series, (100, 0, 0), (4, 4, 4)) == -1024).all()
    mask = store.read_mask(series, "organs")
    assert mask.dtype == np.uint8
    assert store.masks(series) == {"organs": {1: "soft"}}
    np.testing.assert_array_equal(
        store.read_mask_box(series, "organs", (0, 0, 0), (9, 9, 9)), mask[:9, :9, :9]
    )
    np.testing.assert_array_equal(global_view(store, series, CONTRACT), model_input(whole, CONTRACT))
    crop = local_crop(store, series, (12, 12, 12), CONTRACT, np.random.default_rng(5))
    assert crop.shape == (1, 12, 12, 12)
    again = pickle.loads(pickle.dumps(store))  # noqa: S301 - as a spawned data-loader worker gets it
    np.testing.assert_array_equal(
        crop, local_crop(again, series, (12, 12, 12), CONTRACT, np.random.default_rng(5))
    )
    with pytest.raises(InputError, match=r"store\.mask"):
        store.read_mask(series, "heart")
    with pytest.raises(InputError, match=r"store\.unknown"):
        store.read("ser_ffffffffffffffff")


def test_the_index_describes_the_array(tmp_path: Path) -> None:
    make_root(tmp_path)
    run(tmp_path)
    store = VolumeStore(tmp_path / "artifacts/preprocess")
    row = store.row(store.keys()[0])
    hu = store.read(row["series_key"])
    assert row["content_sha256"] == array_sha256(hu, CONTRACT)
    assert {name: row[name] for name in describe(hu)} == describe(hu)
    assert row["native_shape"] == [44, 40, 36]
    assert row["native_spacing_mm"] == [2.0, 2.0, 2.5]
    assert row["notes"] == ["orientation: LPS was turned to RAS"]
    assert store.contract.data_hash is not None
    assert store.contract.fingerprint() == CONTRACT.fingerprint()


def test_the_content_hash_covers_the_contract() -> None:
    hu = body(0)
    other = CONTRACT.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})
    window = CONTRACT.model_copy(update={"hu_window": (-160.0, 240.0)})
    assert array_sha256(hu, CONTRACT) != array_sha256(hu, other)
    assert array_sha256(hu, CONTRACT) == array_sha256(hu, window)  # the grid is what the store depends on
    assert array_sha256(hu, CONTRACT) != array_sha256(hu.reshape(-1, 36, 44), CONTRACT)


def test_finished_files_are_kept_and_changed_ones_are_made_anew(tmp_path: Path, monkeypatch) -> None:
    from components.volumes import process

    rows = make_root(tmp_path)
    run(tmp_path)
    before = digests(tmp_path)
    made: list[str] = []
    real = process._make

    def counted(job):
        made.append(job.series_key)
        return real(job)

    monkeypatch.setattr(process, "_make", counted)
    run(tmp_path)
    assert made == []
    assert digests(tmp_path) == before
    # killed half-way: no index, one file missing, one half-written, an orphan
    folder = tmp_path / "artifacts/preprocess"
    (folder / "index.parquet").unlink()
    (folder / "store" / f"{key('ser', 0)}.b2nd").unlink()
    damaged = folder / "store" / f"{key('ser', 1)}.b2nd"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    (folder / "store" / ".part-1-x.b2nd").write_bytes(b"x")
    run(tmp_path)
    assert made == [key("ser", 0), key("ser", 1)]
    assert digests(tmp_path) == before
    # another volume under the same name, another grid
    made.clear()
    path = tmp_path / rows[2]["volume_path"]
    rows[2]["volume_sha256"] = write_nifti(body(77), np.diag([-2.0, -2.0, 2.5, 1.0]), path)
    rows[2]["masks"] = []
    write_manifest(tmp_path, rows)
    run(tmp_path)
    assert made == [key("ser", 2)]
    assert not (folder / "store" / f"{key('ser', 2)}.organs.b2nd").exists()
    made.clear()
    coarse = CONTRACT.model_copy(update={"spacing_mm": (4.0, 4.0, 4.0)})
    run(tmp_path, PARAMS.model_copy(update={"contract": coarse}))
    assert len(made) == 3


def test_bad_series_are_quarantined_by_rule_and_the_rest_goes_on(tmp_path: Path) -> None:
    from components.base.files import read_table

    rows = make_root(tmp_path, 8)
    truncated = tmp_path / rows[0]["volume_path"]
    data = truncated.read_bytes()[:-200]
    truncated.write_bytes(data)
    rows[0]["volume_sha256"] = hashlib.sha256(data).hexdigest()
    flipped = bytearray((tmp_path / rows[1]["volume_path"]).read_bytes())
    flipped[len(flipped) // 2] ^= 4
    (tmp_path / rows[1]["volume_path"]).write_bytes(bytes(flipped))
    shifted = np.diag([-2.0, -2.0, 2.5, 1.0])
    shifted[0, 3] = 30
    mask = rows[2]["masks"][0]
    mask["sha256"] = write_nifti((body(2) > 0).astype(np.uint8), shifted, tmp_path / mask["path"])
    rows[3]["volume_path"] = "../outside.nii.gz"
    rows[4]["masks"][0]["labels_json"] = "{}"
    write_manifest(tmp_path, rows)
    metrics = run(tmp_path, PARAMS.model_copy(update={"max_quarantined_fraction": 0.7}))
    found = read_table(tmp_path / "artifacts/preprocess/quarantine.parquet").to_pylist()
    assert {row["series_key"]: row["rule"] for row in found} == {
        key("ser", 0): "volume.truncated",
        key("ser", 1): "volume.sha256",
        key("ser", 2): "mask.grid",
        key("ser", 3): "volume.path",
        key("ser", 4): "mask.labels",
    }
    assert metrics["volumes"] == 3
    assert VolumeStore(tmp_path / "artifacts/preprocess").keys() == [key("ser", n) for n in (5, 6, 7)]
    with pytest.raises(CheckError, match=r"quarantine\.max_fraction"):
        run(tmp_path)


def test_damage_of_the_store_is_refused(tmp_path: Path) -> None:
    make_root(tmp_path, 1)
    run(tmp_path)
    folder = tmp_path / "artifacts/preprocess"
    path = folder / "store" / f"{key('ser', 0)}.b2nd"
    good = path.read_bytes()
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(good), 60):
        broken = bytearray(good)
        broken[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(broken))
        with pytest.raises(IntegrityError, match=r"store\.damaged"):
            VolumeStore(folder).read_box(key("ser", 0), (0, 0, 0), (2, 2, 2))
    for length in (0, 10, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(IntegrityError):
            VolumeStore(folder).read(key("ser", 0))
        with pytest.raises(IntegrityError):
            VolumeStore(folder, verify=False).read(key("ser", 0))
    path.unlink()
    with pytest.raises(IntegrityError):
        VolumeStore(folder).read(key("ser", 0))


def test_nothing_of_a_header_reaches_the_store(tmp_path: Path) -> None:
    """A NIfTI with PHI in its description: the store holds the same bytes as without it."""
    rows = make_root(tmp_path / "a", 1)
    make_root(tmp_path / "b", 1)
    import gzip

    path = tmp_path / "b" / rows[0]["volume_path"]
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[148 : 148 + 24] = b"SMITH^JOHN MRN 123456789"
    path.write_bytes(gzip.compress(bytes(raw), mtime=0))
    rows[0]["volume_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_manifest(tmp_path / "b", rows)
    run(tmp_path / "a")
    run(tmp_path / "b")
    stores = [VolumeStore(tmp_path / name / "artifacts/preprocess") for name in "ab"]
    np.testing.assert_array_equal(*(store.read(key("ser", 0)) for store in stores))
    for file in (tmp_path / "b/artifacts").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert b"SMITH" not in content
            assert str(tmp_path).encode() not in content


def test_average_hash_is_near_for_the_same_body_and_far_for_another() -> None:
    generator = np.random.default_rng(1)
    hu = body(1)

    def distance(other: np.ndarray) -> int:
        first, second = (int(average_hash(item), 16) for item in (hu, other))
        return (first ^ second).bit_count()

    assert distance(hu + generator.normal(0, 20, hu.shape)) <= 24
    assert distance(hu + 3) <= 24
    assert distance(body(2)) > 60
    assert len(average_hash(hu)) == 512


def test_an_empty_manifest_and_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"stage\.input"):
        run(tmp_path)
    write_manifest(tmp_path, [])
    with pytest.raises(CheckError, match=r"preprocess\.empty"):
        run(tmp_path)


def test_metadata_of_a_strange_file_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.b2nd").write_bytes(b"no frame")
    assert read_meta(tmp_path / "x.b2nd") is None
    write_array(tmp_path / "y.b2nd", np.zeros((3, 4, 5), np.uint8), {"key": "k"})
    assert read_meta(tmp_path / "y.b2nd") == {"key": "k"}
    assert json.dumps(read_meta(tmp_path / "y.b2nd"))
