"""Paired, image-only and text-only studies in one run; structured reports, label maps, class balance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.base.errors import ConfigError, InputError
from components.base.files import write_table
from components.encoders.tokenization import ReportTokenizer
from components.objectives import OBJECTIVES
from components.pretraining.data import StudyDataset, collator, require_inputs
from components.pretraining.schedule import (
    Draw,
    Schedule,
    ScheduledBatches,
    balanced_order,
    class_weights,
    expected_counts,
)
from components.pretraining.settings import Augment
from components.pretraining.studies import Study, read_cohort
from components.volumes.contract import Contract, model_input
from components.volumes.store import VolumeStore
from tests.pretraining_support import CONTRACT, context_at, write_cohort

NUM_PAIRED, NUM_IMAGE_ONLY = 18, 4
EXTRA = {
    "ok": (
        "pat_new",
        "A report of its own kind, the spleen is large and the liver small, nothing else is told here.",
    ),
    "of_a_test_patient": (
        "pat_0000000000000005",
        "Words that nobody else has written about any organ at all.",
    ),
    "copy_of_a_test_report": ("pat_copy", None),
    "not_accepted": (
        "pat_bad",
        "This one was refused by the checks and so must not be read by anything here.",
    ),
}


def add_text_only(root: Path) -> None:
    """Reports whose volume was refused: in the manifest and in `section`, but not in the split."""
    import pyarrow as pa

    from components.base.files import read_table
    from components.cohort.manifest import read_rows, write_rows

    section, deidentify = root / "artifacts" / "section", root / "artifacts" / "deidentify"
    sentences, sections = (read_table(section / f"{name}.parquet") for name in ("sentences", "sections"))
    reports = read_rows(deidentify / "reports.parquet", "reports")
    held_out = reports[5]["text"]  # study 5 is of the validation split
    manifest, more = [], {"sentences": [], "sections": []}
    for row in range(NUM_PAIRED):
        manifest.append({"study_key": f"stu_{row:016x}", "patient_key": f"pat_{row:016x}"})
    for study, (patient, text) in EXTRA.items():
        words = held_out if text is None else text
        manifest.append({"study_key": study, "patient_key": patient})
        reports.append({"study_key": study, "text": words})
        more["sections"].append({"study_key": study, "order": 0, "name": "findings", "text": words})
        place = {"order": 0, "start": 0, "end": len(words), "text": words}
        more["sentences"].append({"study_key": study, "section": "findings", **place})
    for name, table in (("sentences", sentences), ("sections", sections)):
        rows = [*table.to_pylist(), *more[name]]
        write_table(section / f"{name}.parquet", pa.Table.from_pylist(rows, table.schema))
    write_rows(deidentify / "reports.parquet", "reports", reports)
    write_table(
        deidentify / "manifest.parquet",
        pa.Table.from_pylist([{**row, "provenance": "synthetic"} for row in manifest]),
    )
    accepted = [{"study_key": row["study_key"]} for row in manifest if row["study_key"] != "not_accepted"]
    write_table(root / "artifacts" / "check_reports" / "accepted.parquet", pa.Table.from_pylist(accepted))


def add_findings(root: Path) -> None:
    """`structured.parquet` and `findings.parquet`: a nodule in every report, an effusion in every third."""
    import pyarrow as pa

    structured, findings = [], []
    for row in range(NUM_PAIRED):
        study = f"stu_{row:016x}"
        said = {"study_key": study, "section": "findings", "order": 0}
        structured.append(
            {**said, "region": "lungs", "polarity": "positive", "text": "There is a dense nodule."}
        )
        structured.append({**said, "region": "heart", "polarity": "negative", "text": "The heart is normal."})
        structured.append(
            {**said, "section": "history", "region": "bones", "polarity": "positive", "text": "Fracture."}
        )
        findings.append({"study_key": study, "finding": "Lung nodule", "status": "present"})
        status = "uncertain" if row % 3 == 0 else "absent"
        findings.append({"study_key": study, "finding": "Pleural effusion", "status": status})
    section = root / "artifacts" / "section"
    write_table(section / "structured.parquet", pa.Table.from_pylist(structured))
    write_table(section / "findings.parquet", pa.Table.from_pylist(findings))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    write_cohort(folder, NUM_PAIRED, NUM_IMAGE_ONLY)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    write_cohort(folder, NUM_PAIRED, NUM_IMAGE_ONLY)
    add_text_only(folder)
    add_findings(folder)
    return folder


def dataset(root: Path, **changes: Any) -> StudyDataset:
    cohort = read_cohort(context_at(root), ("findings",))
    store = VolumeStore(root / "artifacts" / "preprocess")
    values = {"crop_size": (16, 16, 16), "seed": 1, "augment": None, "cache_bytes": 0}
    return StudyDataset(
        cohort.splits["train"], store, Contract.model_validate(CONTRACT), **{**values, **changes}
    )


def test_reports_without_a_volume_join_training_and_leak_nothing(root: Path, plain: Path) -> None:
    """Neither a patient of validation or test, nor a copy of a report there, nor what the checks refused."""
    cohort = read_cohort(context_at(root), ("findings",))
    kinds = [study.kind for study in cohort.splits["train"]]
    assert kinds == ["paired"] * 15 + ["image_only"] * 4 + ["text_only"]
    last = cohort.splits["train"][-1]
    assert (last.study_key, last.series, last.paired) == ("ok", (), False)
    assert last.sentences == (EXTRA["ok"][1],)
    assert not any(study.kind == "text_only" for study in cohort.splits["validation"])
    counts = [cohort.count_kind("train", kind) for kind in ("paired", "image_only", "text_only")]
    assert counts == [15, 4, 1]
    assert cohort.count("train", paired=False) == 4
    assert read_cohort(context_at(plain), ("findings",)).count_kind("train", "text_only") == 0
    assert cohort.data_hash != read_cohort(context_at(plain), ("findings",)).data_hash


def test_a_batch_holds_all_three_kinds(root: Path) -> None:
    data = dataset(root, augment=Augment(cut=0.2, noise=0.05, keep_sentences=0.5))
    tokenizer = ReportTokenizer.train([text for study in data.studies for text in study.sentences], 200)
    batch = collator(tokenizer)([data[Draw(0, 0, study)] for study in (2, 16, 19, 0)])
    assert batch["study_key"] == [data.studies[number].study_key for number in (2, 16, 0)]
    assert batch["paired"].tolist() == [0, 2]
    assert batch["volume"].shape == (3, 1, 32, 32, 32)
    assert batch["crop"].shape == (3, 1, 16, 16, 16)
    assert (len(batch["text"]), len(batch["text_only"]), batch["text_only_key"]) == (2, 1, ["ok"])
    assert len(batch["structured"]) == 2
    told = {"lungs": {"positive": ["There is a dense nodule."], "negative": []}}
    told |= {"heart": {"positive": [], "negative": ["The heart is normal."]}}
    assert batch["structured"][0] == told  # of the chosen sections only
    only = collator(tokenizer)([data[Draw(0, 0, 19)]])
    assert (len(only["volume"]), len(only["text"]), len(only["text_only"])) == (0, 0, 1)


def test_without_the_tables_there_are_no_such_keys(plain: Path) -> None:
    data = dataset(plain)
    tokenizer = ReportTokenizer.train(data.studies[0].sentences, 100)
    batch = collator(tokenizer)([data[Draw(0, 0, study)] for study in (0, 16)])
    assert not {"structured", "organ_masks", "organ_names", "text_only", "text_only_key"} & set(batch)
    assert data.studies[0].structured is None
    assert data.studies[0].findings == ()


def test_findings_are_what_is_present_or_suspected(root: Path) -> None:
    studies = read_cohort(context_at(root), ("findings",)).splits["train"]
    assert studies[0].findings == ("Lung nodule", "Pleural effusion")
    assert studies[1].findings == ("Lung nodule",)


def test_all_objectives_see_what_they_can_use(root: Path) -> None:
    """One batch of the three kinds: contrasts read pairs, vision objectives rows, masked language every report."""
    from components.pretraining.features import Features
    from tests.objectives_support import made

    data = dataset(root)
    tokenizer = ReportTokenizer.train([text for study in data.studies for text in study.sentences], 40)
    batch = collator(tokenizer)([data[Draw(0, 0, study)] for study in (2, 16, 19, 0)])
    batch["generator"] = torch.Generator().manual_seed(0)
    for name in ("report_contrast", "rotation", "masked_language", "image_text_matching"):
        model, objective = made(name)
        model.text.embedding = torch.nn.Embedding(tokenizer.vocab_size, 6)
        model.text.vocab_size = tokenizer.vocab_size
        objective = type(objective)(objective.params, model)
        features = Features(model, batch)
        assert torch.isfinite(objective(batch, features)[name])
        if name == "masked_language":
            with torch.no_grad():
                model.text.embedding.weight[batch["text_only"].input_ids.unique()] += 1.0
            assert len(features.memo("masked_text.0.15", lambda: None).targets) == 3


class OneMask:
    """A store of one volume and its label map, which marks the voxels above 300 HU as 2 and the others as 1."""

    def __init__(self, hu: np.ndarray, names: dict[str, dict[int, str]]) -> None:
        self.hu, self.names, self.reads = hu, names, 0

    def shape(self, series: str) -> tuple[int, ...]:
        return self.hu.shape

    def read(self, series: str) -> np.ndarray:
        return self.hu

    def masks(self, series: str) -> dict[str, dict[int, str]]:
        return self.names

    def read_mask(self, series: str, name: str) -> np.ndarray:
        self.reads += 1
        assert name == "organs"
        return np.where(self.hu > 300, 2, 1).astype(np.uint8)


@pytest.mark.parametrize("view", ["crop_or_pad", "area"])
def test_label_maps_lie_on_the_grid_of_the_augmented_view(view: str) -> None:
    """Cut like the volume, whatever the augmentation draws: bright voxels are those that the map marks."""
    contract = Contract.model_validate({**CONTRACT, "view": view})
    rng = np.random.default_rng(0)
    hu = np.zeros((40, 36, 30), np.int16)
    for _ in range(6):
        x, y, z = (int(rng.integers(side - 8)) for side in hu.shape)
        hu[x : x + 8, y : y + 8, z : z + 8] = 1000
    store = OneMask(hu, {"organs": {1: "liver", 2: "heart"}, "findings": {1: "x"}})
    study = Study("s", "p", ("series",), ("Text.",), "real")
    data = StudyDataset(
        [study], store, contract, (8, 8, 8), 3, Augment(cut=0.3), 1_000_000, organ_mask="organs"
    )
    shares = []
    for epoch in range(8):
        item = data[Draw(0, epoch, 0)]
        bright, marked = item["volume"][0] > 0.7, item["organ_masks"] == 2
        assert item["organ_masks"].shape == contract.size
        assert item["organ_names"] == {1: "liver", 2: "heart"}
        overlap = (bright & marked).sum() / (bright | marked).sum()
        assert overlap == 1 if view == "crop_or_pad" else overlap > 0.7
        shares.append(int(marked.sum()))
    assert len(set(shares)) > 1  # the cuts differ
    assert store.reads == 1  # kept in memory after the first time
    if view == "crop_or_pad":
        plain = StudyDataset([study], store, contract, (8, 8, 8), 3, None)
        assert np.array_equal(plain[Draw(0, 0, 0)]["volume"], model_input(hu, contract))


def test_rows_without_a_label_map_are_empty() -> None:
    contract = Contract.model_validate(CONTRACT)
    store = OneMask(np.zeros((32, 32, 32), np.int16), {})
    study = Study("s", "p", ("series",), ("Text.",), "real")
    item = StudyDataset([study], store, contract, (8, 8, 8), 3, None, organ_mask="organs")[Draw(0, 0, 0)]
    assert item["organ_names"] == {}
    assert not item["organ_masks"].any()


def test_reading_label_maps_changes_no_volume(root: Path) -> None:
    augment = Augment(cut=0.2, gain=0.1, noise=0.05, keep_sentences=0.5)
    with_masks, without = (dataset(root, augment=augment, organ_mask=name) for name in ("organs", None))
    for number in (0, 3, 16):
        first, second = with_masks[Draw(0, 1, number)], without[Draw(0, 1, number)]
        assert np.array_equal(first["volume"], second["volume"])
        assert first["sentences"] == second["sentences"]
        assert first["organ_names"] == {}


def test_text_only_reports_come_on_top_of_a_batch() -> None:
    schedule = Schedule(3, 20, 5, 8, 0.25, 1, num_text_only=6, text_only_fraction=0.25)
    assert (schedule.rows, schedule.text_rows) == ((6, 2), 2)
    for step in range(30):
        studies = [draw.study for draw in schedule.batch(step)]
        assert len(set(studies)) == len(studies) == 10
        assert [study >= 25 for study in studies] == [False] * 8 + [True] * 2
    without = Schedule(3, 20, 5, 8, 0.25)
    assert [d[:3] for d in schedule.batch(4)[:8]] == [d[:3] for d in without.batch(4)]
    assert Schedule(3, 20, 5, 8, 0.25, 1, 6, 0.0).text_rows == 0
    assert Schedule(3, 20, 5, 8, 0.25, 2, 1, 0.5).text_rows == 0  # one report, two processes


@pytest.fixture(scope="module")
def labels() -> list[list[str]]:
    """300 studies of one class each: 70 % nothing, 20 %, 8 % and 2 % of three findings."""
    names = [[]] * 210 + [["common"]] * 60 + [["rare"]] * 24 + [["rarest"]] * 6
    return [names[number] for number in np.random.default_rng(0).permutation(300)]


def frequencies(schedule: Schedule, labels: list[list[str]], steps: int) -> dict[str, float]:
    drawn = Counter(
        (labels[d.study] or ["nothing"])[0] for step in range(steps) for d in schedule.batch(step)
    )
    return {name: count / sum(drawn.values()) for name, count in sorted(drawn.items())}


def test_class_balance_makes_classes_equally_frequent(labels: list[list[str]]) -> None:
    weights = class_weights(labels, 1.0)
    epoch = 300 // 12
    found = frequencies(Schedule(5, 300, 0, 12, 0.0, weights=weights), labels, 4 * epoch)
    assert found == pytest.approx(dict.fromkeys(("common", "nothing", "rare", "rarest"), 0.25), abs=0.01)
    half = frequencies(Schedule(5, 300, 0, 12, 0.0, weights=class_weights(labels, 0.5)), labels, 4 * epoch)
    plain = frequencies(Schedule(5, 300, 0, 12, 0.0), labels, 4 * epoch)
    assert plain["rarest"] == pytest.approx(0.02, abs=0.002)
    assert plain["rarest"] < half["rarest"] < found["rarest"]
    assert class_weights(labels, 0.0) == (1.0,) * 300


def test_a_study_of_several_findings_counts_for_each() -> None:
    weights = class_weights([["a", "b"], ["a"], ["a"], []], 1.0)
    assert weights == pytest.approx(((1 / 3 + 1) / 2, 1 / 3, 1 / 3, 1.0))


def test_balanced_batches_follow_the_seed_and_go_on_anywhere(labels: list[list[str]]) -> None:
    weights = class_weights(labels, 1.0)
    first, again, other = (Schedule(seed, 300, 10, 16, 0.1, weights=weights) for seed in (5, 5, 6))
    whole = list(ScheduledBatches(first, 0, 60))
    assert whole == list(ScheduledBatches(again, 0, 60))
    assert whole[37:] == list(ScheduledBatches(first, 37, 60))
    assert whole != list(ScheduledBatches(other, 0, 60))
    assert whole[0] != whole[300 // 14]  # the next epoch is another one
    assert max(draw.epoch for draw in whole[0] if draw.study < 300) == 0


@given(
    weights=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=40),
    batch=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_a_balanced_epoch_is_full_and_no_batch_repeats_a_study(
    weights: list[float], batch: int, seed: int
) -> None:
    batch = min(batch, len(weights))
    batches = len(weights) // batch
    order = balanced_order(weights, batches, batch, np.random.default_rng(seed))
    assert len(order) == batches * batch
    for start in range(0, len(order), batch):
        assert len(set(order[start : start + batch].tolist())) == batch
    wanted = expected_counts(np.array(weights), batches * batch, batches)
    assert wanted.sum() == pytest.approx(batches * batch)
    assert wanted.max() <= batches
    counts = np.bincount(order, minlength=len(weights))
    assert np.abs(counts - wanted).max() <= 1 + 1e-6


def test_balanced_processes_share_a_step_without_overlap(labels: list[list[str]]) -> None:
    schedule = Schedule(5, 300, 0, 8, 0.0, 2, weights=class_weights(labels, 1.0))
    for step in range(40):
        first, second = ({draw.study for draw in schedule.batch(step, rank)} for rank in (0, 1))
        assert not first & second
        assert len(first) == len(second) == 8


def test_sentences_are_shortened_and_shuffled_without_moving_a_voxel(root: Path) -> None:
    """COLIPRI's text augmentation: drawn apart from the volume's, the same for the same study and epoch."""
    told = (
        "There is a 9 mm nodule in the left upper lobe, unchanged from the previous study.",
        "The heart is normal in size.",
        "No pleural effusion is seen.",
        "Again noted is a small hiatal hernia (series 3, image 41).",
    )
    plain = dataset(root, augment=Augment(cut=0.2, noise=0.05, keep_sentences=0.5))
    words = dataset(
        root,
        augment=Augment(cut=0.2, noise=0.05, keep_sentences=0.5, shorten_sentences=1, shuffle_sentences=1),
    )
    for data in (plain, words):
        data.studies = [Study(s.study_key, s.patient_key, s.series, told, "real") for s in data.studies[:15]]
    orders, lengths = set(), set()
    for epoch in range(12):
        first, second = plain[Draw(0, epoch, 4)], words[Draw(0, epoch, 4)]
        assert np.array_equal(first["volume"], second["volume"])
        assert np.array_equal(first["crop"], second["crop"])
        assert set(first["sentences"]) <= set(told)
        assert len(first["sentences"]) == len(second["sentences"])
        assert second["sentences"] == words[Draw(5, epoch, 4)]["sentences"]
        assert sum("left" in text for text in first["sentences"]) == sum(
            "left" in text for text in second["sentences"]
        )
        orders.add(tuple(second["sentences"]))
        lengths.add(sum(map(len, first["sentences"])) - sum(map(len, second["sentences"])))
    assert len(orders) > 5
    assert max(lengths) > 0
    assert min(lengths) >= 0


def test_an_objective_without_its_input_is_refused(root: Path, plain: Path) -> None:
    """Not left out in silence: the message names the objective and what to do."""
    needs = {name: OBJECTIVES.get(name).needs for name in ("report_contrast", "opposite_sentence")}
    with_table, without = dataset(root).studies, dataset(plain).studies
    require_inputs(needs, with_table, None)
    require_inputs({"rotation": OBJECTIVES.get("rotation").needs}, without, None)
    with pytest.raises(InputError, match="opposite_sentence reads structured reports"):
        require_inputs(needs, without, None)
    organs = {"organ_contrast": OBJECTIVES.get("organ_contrast").needs}
    require_inputs(organs, with_table, "organs")
    with pytest.raises(ConfigError, match="organ_contrast reads label maps"):
        require_inputs(organs, with_table, None)


def test_a_run_of_all_kinds_goes_through_the_stage(root: Path, tmp_path: Path) -> None:
    """Text-only reports, structured reports, class balance and label maps, from params to the saved encoder."""
    import shutil

    from components.base.config import parse
    from components.pretraining import pretrain
    from tests.pretraining_support import PARAMS

    shutil.copytree(root, tmp_path / "run")
    objectives = {name: {} for name in ("report_contrast", "masked_language", "opposite_sentence")}
    objectives |= {"image_text_matching": {}, "multimodal_masked_language": {}, "aspect_contrast": {"dim": 8}}
    values = {
        **PARAMS,
        "objectives": objectives,
        "num_steps": 3,
        "validate_every_steps": 3,
        "text_only_fraction": 0.25,
        "class_balance": 1.0,
        "organ_mask": "organs",
        "augment": {**PARAMS["augment"], "shorten_sentences": 0.5, "shuffle_sentences": 0.5},
    }
    context = context_at(tmp_path / "run")
    metrics = pretrain.run(parse(pretrain.Params, values, "pretrain"), context)
    assert {f"train_{name}" for name in objectives} <= set(metrics)
    assert (context.out / "encoder" / "model.safetensors").is_file()
