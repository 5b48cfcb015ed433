"""Protocols on embeddings whose answer is known: chance for no knowledge, 1 for perfect knowledge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from components.base.errors import ConfigError
from components.downstream.inputs import StudyRow
from components.evaluation.prompts import PROMPT_SETS, in_words, prompt_set
from components.evaluation.protocols.retrieval import label_overlap, rank
from components.evaluation.protocols.segmentation import surface_scores
from components.evaluation.protocols.zero_shot import prompt_logits
from components.evaluation.scoring import ProtocolParams, ScoredLabel, summarise, write_predictions

PROTOCOL = ProtocolParams(resamples=300, seed=1, min_slice_patients=3)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    values = rng.normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def studies(count: int) -> list[StudyRow]:
    return [
        StudyRow(
            f"stu_{at}",
            f"pat_{at // 2}",
            f"ser_{at}",
            "test",
            True,
            "synthetic",
            "MF"[at % 4 // 2],
            None,
            "phantom",
        )
        for at in range(count)
    ]


@pytest.mark.parametrize("copies", [1, 2])
def test_random_embeddings_score_chance_in_retrieval(copies):
    """Mean over 60 random galleries of 40; P6 was 0.99 at K=1 for random embeddings."""
    reports = np.arange(40) // copies
    right = reports[:, None] == reports[None]
    recalls, chances, ranks = [], [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        ranked = rank(unit(rng, 40, 16) @ unit(rng, 40, 16).T, right)
        recalls.append([ranked.recall(k).mean() for k in (1, 5, 10)])
        chances.append([ranked.chance(k) for k in (1, 5, 10)])
        ranks.append(ranked.rank().mean())
    assert np.allclose(np.mean(recalls, 0), np.mean(chances, 0), atol=0.02)
    assert np.allclose(np.mean(ranks), 41 / (copies + 1), rtol=0.05)
    if copies == 1:
        assert np.allclose(chances[0], [1 / 40, 5 / 40, 10 / 40])


def test_constant_embeddings_score_chance_exactly_in_retrieval():
    one = unit(np.random.default_rng(0), 1, 33).astype(np.float32)
    volume, report = np.repeat(one, 41, 0), np.repeat(one[:, ::-1], 41, 0)
    ranked = rank((report @ volume.T).astype(np.float64), np.eye(41, dtype=bool))
    for k in (1, 5, 10):
        assert ranked.recall(k).mean() == pytest.approx(k / 41)
    assert np.all(ranked.rank() == 21)


def test_perfect_embeddings_are_found_first_and_equal_reports_all_count():
    vectors = np.eye(6)
    vectors[5] = vectors[4]
    same = np.eye(6, dtype=bool)
    same[4, 5] = same[5, 4] = True
    ranked = rank(vectors @ vectors.T, same)
    assert ranked.recall(1).tolist() == [1.0] * 6
    apart = rank(vectors @ vectors.T, np.eye(6, dtype=bool))
    assert apart.recall(1).tolist() == [1.0, 1.0, 1.0, 1.0, 0.5, 0.5]


def test_label_overlap_is_the_jaccard_index():
    vectors = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=np.int8)
    assert label_overlap(vectors)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])
    assert label_overlap(vectors)[2, 3] == 1.0


class FakeText:
    """A text tower that knows its prompts: the sum of two coordinates, finding and presence."""

    tau = torch.tensor(0.07)

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed_reports(self, texts):
        self.calls.append(list(texts))
        rows = []
        for text in texts:
            negative = " no " in f" {text.lower()}" or " not " in text
            axis = 0 if "nodule" in text else 2 if "chest" in text else 3 if "pelvis" in text else 1
            row = np.zeros(8)
            row[axis] = -1 if negative else 1
            row[7] = 1
            rows.append(row / np.linalg.norm(row))
        return torch.tensor(np.array(rows), dtype=torch.float32)


def test_one_call_scores_any_number_of_prompts():
    """P14: volumes are encoded once; prompts cost text only."""
    text, volumes = FakeText(), unit(np.random.default_rng(1), 9, 8)
    names = ["effusion", "lung_nodule", *(f"finding_{at}" for at in range(40))]
    logits = prompt_logits(text, volumes, names, prompt_set("reports-1"))
    assert len(text.calls) == 1
    assert list(logits) == names
    assert all(values.shape == (9,) for values in logits.values())


def test_prompt_pairs_and_groups_follow_their_definition():
    text, volumes = FakeText(), np.eye(8)[[0, 1, 2, 3]]
    names = ["lung_nodule", "region=chest", "region=pelvis"]
    logits = prompt_logits(text, volumes, names, prompt_set("ct-clip"))
    cosine = 1 / np.sqrt(2)
    assert logits["lung_nodule"].tolist() == pytest.approx([2 * cosine / 0.07, 0, 0, 0], abs=1e-5)
    chest, pelvis = logits["region=chest"], logits["region=pelvis"]
    assert chest[2] > 0 > chest[3]
    probability = 1 / (1 + np.exp(-chest)) + 1 / (1 + np.exp(-pelvis))
    assert np.allclose(probability, 1.0)


def test_constant_volumes_score_chance_in_classification():
    rows, rng = studies(80), np.random.default_rng(4)
    logits = prompt_logits(
        FakeText(), np.repeat(unit(rng, 1, 8), 80, 0), ["a_b", "lung_nodule"], prompt_set("short-1")
    )
    labels = [
        ScoredLabel(name, np.arange(80), rng.integers(0, 2, 80), logits[name], threshold=0.0)
        for name in logits
    ]
    found = summarise(PROTOCOL, rows, labels)
    assert found["macro_auroc"]["value"] == 0.5
    assert found["macro_auroc"]["low"] == found["macro_auroc"]["high"] == 0.5
    assert found["macro_balanced_accuracy"]["value"] == 0.5
    assert found["macro_auprc"]["value"] == pytest.approx(found["macro_auprc"]["chance"])


def test_random_scores_are_within_chance_and_perfect_ones_are_not(tmp_path: Path):
    rows, rng = studies(120), np.random.default_rng(9)
    target = rng.integers(0, 2, 120)
    random = ScoredLabel("random", np.arange(120), target, rng.normal(size=120), threshold=0.0)
    perfect = ScoredLabel("perfect", np.arange(120), target, target - 0.5, threshold=0.0)
    found = summarise(PROTOCOL, rows, [random, perfect])
    assert found["labels"]["random"]["auroc"]["low"] < 0.5 < found["labels"]["random"]["auroc"]["high"]
    assert found["labels"]["perfect"]["f1"]["value"] == 1.0
    assert found["macro_auroc"]["value"] == pytest.approx(
        np.mean([found["labels"][name]["auroc"]["value"] for name in ("random", "perfect")])
    )
    assert (found["macro_auroc"]["n"], found["macro_auroc"]["n_patients"]) == (120, 60)
    assert set(found["slices"]) == {"sex", "source", "provenance"}
    assert found["slices"]["sex"]["F"]["n_patients"] == 30
    write_predictions(tmp_path, rows, [random, perfect])
    lines = (tmp_path / "roc.csv").read_text().splitlines()
    assert lines[0] == "label,fpr,tpr"
    assert lines[-3:] == [
        "perfect,0.000000,0.000000",
        "perfect,0.000000,1.000000",
        "perfect,1.000000,1.000000",
    ]


def test_a_label_without_a_threshold_has_no_f1_but_an_auroc():
    label = ScoredLabel("x", np.arange(6), np.array([0, 1, 0, 1, 0, 1]), np.arange(6.0), threshold=None)
    found = summarise(PROTOCOL, studies(6), [label])
    assert set(found["labels"]["x"]) == {"auroc", "auprc"}
    assert np.isnan(found["macro_f1"]["value"])


def test_surface_scores_know_a_shift_and_empty_classes():
    target = np.zeros((24, 24, 24), dtype=np.int64)
    target[6:14, 6:14, 6:14] = 1
    shifted = np.roll(target, 2, axis=2)
    target[0, 0, 0] = 2
    nsd, hd95 = surface_scores(shifted, target, 3, (1.0, 1.0, 3.0), 2.0)
    assert hd95[0] == pytest.approx(6.0)
    assert 0 < nsd[0] < 1
    assert (nsd[1], np.isnan(hd95[1])) == (0.0, True)
    assert np.isnan(nsd[2])
    assert np.isnan(hd95[2])
    perfect, distance = surface_scores(target, target, 2, (1.0, 1.0, 3.0), 2.0)
    assert perfect.tolist() == [1.0, 1.0]
    assert distance.tolist() == [0.0, 0.0]


def test_prompts_are_sentences_and_sets_are_named():
    for name, one in PROMPT_SETS.items():
        present, absent = one.pair("lung_nodule")
        assert name == one.name
        assert all("lung nodule" in text.lower() and text[0].isupper() for text in [*present, *absent])
        assert not set(present) & set(absent)
        assert len(present) == len(absent)
    assert in_words("Pleural_effusion ") == "pleural effusion"
    with pytest.raises(ConfigError):
        prompt_set("none")
