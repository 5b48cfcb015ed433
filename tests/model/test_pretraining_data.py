"""Items and batches: the same for any number of workers, sides kept, reports joined to their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.encoders.tokenization import ReportTokenizer
from components.pretraining.data import StudyDataset, collator, jitter, keep_some, kept_box
from components.pretraining.schedule import Draw, Schedule, ScheduledBatches
from components.pretraining.settings import Augment
from components.pretraining.studies import Study, group_studies, read_cohort
from components.volumes.contract import Contract
from components.volumes.store import VolumeStore
from tests.pretraining_support import CONTRACT, context_at, write_cohort

STRONG = Augment(cut=0.3, gain=0.3, offset=0.1, noise=0.1, keep_sentences=0.3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder)
    return folder


def dataset(root: Path, augment: Augment | None = STRONG, **changes: Any) -> StudyDataset:
    cohort = read_cohort(context_at(root), ("findings",))
    store = VolumeStore(root / "artifacts" / "preprocess")
    values = {"crop_size": (16, 16, 16), "seed": 1, "augment": augment, "cache_bytes": 0}
    return StudyDataset(
        cohort.splits["train"], store, Contract.model_validate(CONTRACT), **{**values, **changes}
    )


def test_the_cohort_groups_series_and_orders_studies(root: Path) -> None:
    cohort = read_cohort(context_at(root), ("findings",))
    train = cohort.splits["train"]
    assert [study.paired for study in train] == [True] * 15 + [False] * 4
    assert len(cohort.splits["validation"]) == 3
    assert train[0].sentences[0].startswith("There is a dense nodule")
    assert read_cohort(context_at(root), ("impression",)).count("train", paired=True) == 0
    rows = [
        {
            "study_key": "s",
            "patient_key": "p",
            "series_key": key,
            "split": "train",
            "paired": True,
            "provenance": "real",
        }
        for key in ("b", "a")
    ]
    told = [
        {"study_key": "s", "section": "findings", "order": order, "start": 0, "text": text}
        for order, text in ((2, "Second."), (1, "First."), (3, " "))
    ]
    assert group_studies(rows, told, ("findings",))["train"] == (
        Study("s", "p", ("a", "b"), ("First.", "Second."), "real"),
    )


def test_the_data_hash_follows_the_training_text(root: Path, tmp_path: Path) -> None:
    first = read_cohort(context_at(root), ("findings",)).data_hash
    assert first == read_cohort(context_at(root), ("findings",)).data_hash
    assert first != read_cohort(context_at(root), ("impression",)).data_hash
    write_cohort(tmp_path, num_paired=17)
    assert first != read_cohort(context_at(tmp_path), ("findings",)).data_hash


def test_items_are_the_same_for_any_number_of_workers(root: Path) -> None:
    from torch.utils.data import DataLoader

    data = dataset(root)
    tokenizer = ReportTokenizer.train(data.studies[0].sentences, 100)
    schedule = Schedule(1, 15, 4, 5, 0.2)
    batches = []
    for workers in (0, 1, 2):
        loader = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=ScheduledBatches(schedule, 0, 6),
            collate_fn=collator(tokenizer),
            num_workers=workers,
        )
        batches.append(list(loader))
    for first, second in [*zip(*batches[:2], strict=True), *zip(*batches[1:], strict=True)]:
        assert first["study_key"] == second["study_key"]
        for name in ("volume", "crop", "paired"):
            assert torch.equal(first[name], second[name])
        assert torch.equal(first["text"].input_ids, second["text"].input_ids)
        assert len(first["text"].input_ids) == len(first["paired"])
        assert set(first) >= {"step", "volume", "crop", "text", "paired", "study_key", "patient_key"}


def test_an_item_depends_on_seed_epoch_and_study(root: Path) -> None:
    data, other = dataset(root), dataset(root, seed=2)
    first = data[Draw(0, 0, 3)]["volume"]
    assert np.array_equal(first, data[Draw(9, 0, 3)]["volume"])
    assert not np.array_equal(first, data[Draw(0, 1, 3)]["volume"])
    assert not np.array_equal(first, other[Draw(0, 0, 3)]["volume"])


def test_paired_volumes_are_never_mirrored_nor_turned(root: Path) -> None:
    """P12: the ball stays on the side that the report names, whatever the augmentation draws."""
    data = dataset(root, Augment(cut=0.15, gain=0.05, offset=0.02))
    for study in range(15):
        for epoch in range(12):
            item = data[Draw(0, epoch, study)]
            volume = item["volume"][0]
            bright = np.argwhere(volume > 0.92 * volume.max())  # the ball, 600 HU above the body
            left = "left" in item["sentences"][0]
            middle = np.median(np.argwhere(volume > 0.5 * volume.max())[:, 0])
            assert (np.median(bright[:, 0]) < middle) == left
            level = next(name for name in ("upper", "middle", "lower") if name in item["sentences"][1])
            height = {"upper": 22, "middle": 16, "lower": 8}[level]
            assert abs(np.median(bright[:, 2]) - height) < 8


def test_validation_items_are_plain(root: Path) -> None:
    from components.volumes.contract import model_input

    data = dataset(root, None)
    item, again = data[Draw(0, 0, 2)], data[Draw(7, 0, 2)]
    study = data.studies[2]
    assert np.array_equal(item["volume"], model_input(data.store.read(study.series[0]), data.contract))
    assert item["sentences"] == list(study.sentences)
    assert np.array_equal(item["crop"], again["crop"])


def test_crops_lie_inside_and_small_volumes_are_padded_with_air(root: Path) -> None:
    data = dataset(root, crop_size=(40, 16, 40))
    item = data[Draw(0, 0, 1)]
    assert item["crop"].shape == (1, 40, 16, 40)
    assert float(item["crop"][0, :2].max()) == 0.0  # 36 voxels in the middle of 40
    assert float(item["crop"].max()) > 0.5


def test_the_cache_gives_the_same_items_within_its_limit(root: Path) -> None:
    plain, cached = dataset(root), dataset(root, cache_bytes=200_000)
    for draw in [Draw(0, epoch, study) for epoch in (0, 1) for study in range(6)]:
        assert np.array_equal(plain[draw]["volume"], cached[draw]["volume"])
    assert 0 < sum(value.nbytes for value in cached._cache.values()) <= 200_000
    assert not plain._cache


def test_cut_keep_and_jitter_stay_within_their_limits() -> None:
    rng = np.random.default_rng(0)
    hu = np.arange(20 * 30 * 40, dtype=np.int16).reshape(20, 30, 40)
    for _ in range(50):
        part = hu[kept_box(hu.shape, 0.25, rng)]
        assert all(have >= 0.75 * whole for have, whole in zip(part.shape, hu.shape, strict=True))
        assert part.strides == hu.strides
    sentences = [str(number) for number in range(10)]
    kept = [keep_some(sentences, 0.4, rng) for _ in range(100)]
    assert all(4 <= len(some) <= 10 and some == sorted(some) for some in kept)
    assert min(map(len, kept)) < max(map(len, kept))
    assert keep_some([], 0.4, rng) == []
    assert keep_some(["one"], 0.1, rng) == ["one"]
    volume = rng.random((1, 4, 4, 4), dtype=np.float32)
    changed = jitter(volume, STRONG, (0.0, 1.0), rng)
    assert changed.dtype == np.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert np.array_equal(jitter(volume, Augment(), (0.0, 1.0), rng), volume)
