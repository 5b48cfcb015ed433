"""The opposite-sentence loss: which pairs are chosen, what they cost, what padding costs."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from components.objectives.opposite_sentence import PADDED, choose_pairs, opposite_terms
from components.pretraining.features import Features
from components.reports.negation import negate
from tests.objectives_support import made, make_batch

TOLD = [
    ("a", {"lungs": ["There is consolidation."], "heart": []}),
    ("b", {"lungs": ["There is a nodule."], "heart": ["The heart is enlarged."]}),
    ("c", {"abdomen": ["There is a cyst in the liver.", "There is ascites."]}),
    ("a", {"bones": ["There is a fracture."]}),  # another study of the first patient
]


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(shape, generator=source, dtype=torch.float64), dim=-1)


def test_false_pairs_come_from_other_patients_and_from_regions_without_positives() -> None:
    """methods: never the same patient, never a region where this patient has positives."""
    seen = set()
    for seed in range(100):
        pairs = choose_pairs("a", TOLD[0][1], TOLD, 8, random.Random(seed))
        assert [pair.sentence for pair in pairs if pair.true] == ["There is consolidation."]
        false = [pair.sentence for pair in pairs if not pair.true]
        assert len(false) == len(set(false)) == 3
        seen |= set(false)
        assert all(pair.opposite == negate(pair.sentence) != pair.sentence for pair in pairs)
    assert seen == {"The heart is enlarged.", "There is a cyst in the liver.", "There is ascites."}


def test_at_most_half_of_the_pairs_are_of_a_kind_and_the_draw_is_even() -> None:
    own = {"lungs": [f"There is finding {number}." for number in range(9)]}
    others = [("z", {"heart": [f"There is sign {number}." for number in range(9)]})]
    counts: dict[str, int] = {}
    for seed in range(600):
        pairs = choose_pairs("a", own, others, 5, random.Random(seed))
        assert [pair.true for pair in pairs] == [True] * 3 + [False] * 2
        for pair in pairs:
            counts[pair.sentence] = counts.get(pair.sentence, 0) + 1
    assert len(counts) == 18
    assert all(130 < counts[sentence] < 270 for sentence in own["lungs"])  # 600 / 3 = 200


def test_a_patient_with_positives_everywhere_or_alone_has_true_pairs_only() -> None:
    alone = choose_pairs("a", TOLD[0][1], [TOLD[0], TOLD[3]], 8, random.Random(0))
    assert [pair.true for pair in alone] == [True]
    assert choose_pairs("z", {}, [], 8, random.Random(0)) == []


def test_terms_equal_a_slow_loop_and_padding_costs_nothing() -> None:
    volumes, sentences, opposites = unit(3, 5), unit(3, 4, 5, seed=1), unit(3, 4, 5, seed=2)
    truth = torch.tensor([[1, 0, -1, -1], [1, 1, 0, 0], [-1, -1, -1, -1]])
    tau = torch.tensor(0.2, dtype=torch.float64)
    terms = opposite_terms(volumes, sentences, opposites, truth, tau)
    for row in range(3):
        for k in range(4):
            positive = math.exp(float(volumes[row] @ sentences[row, k]) / 0.2)
            negative = math.exp(float(volumes[row] @ opposites[row, k]) / 0.2)
            chosen = {1: positive, 0: negative}.get(int(truth[row, k]))
            wanted = -math.log(chosen / (positive + negative)) if chosen else 0.0
            assert float(terms[row, k]) == pytest.approx(wanted, rel=1e-9)
    noisy = torch.where((truth == PADDED)[..., None], 7.0, sentences)
    assert torch.equal(opposite_terms(volumes, noisy, opposites, truth, tau), terms)


def test_permuting_k_leaves_the_loss_unchanged() -> None:
    volumes, sentences, opposites = unit(2, 5), unit(2, 6, 5, seed=1), unit(2, 6, 5, seed=2)
    truth = torch.tensor([[1, 1, 0, 0, 0, -1], [1, 0, -1, -1, -1, -1]])
    tau = torch.tensor(0.07, dtype=torch.float64)
    order = torch.tensor([3, 5, 0, 2, 4, 1])
    first = opposite_terms(volumes, sentences, opposites, truth, tau)
    second = opposite_terms(volumes, sentences[:, order], opposites[:, order], truth[:, order], tau)
    torch.testing.assert_close(second, first[:, order])
    assert float(second.sum()) == pytest.approx(float(first.sum()), rel=1e-12)


def test_closed_form_and_gradient() -> None:
    """A volume equal to the sentence and opposite to its denial: log(1 + e^(-2 / tau))."""
    v = unit(1, 4)
    loss = opposite_terms(v, v[:, None], -v[:, None], torch.tensor([[1]]), torch.tensor(0.5))
    assert float(loss) == pytest.approx(math.log1p(math.exp(-4)), rel=1e-9)
    truth = torch.tensor([[1, 0, -1]])
    inputs = tuple(
        value.requires_grad_() for value in (unit(1, 3), unit(1, 3, 3, seed=1), unit(1, 3, 3, seed=2))
    )
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, s, o, t: opposite_terms(v, s, o, truth, t), (*inputs, tau))


def reported(batch: dict[str, Any]) -> dict[str, Any]:
    """Three pairs whose reports say different things, two of them of one patient."""
    batch["structured"] = [
        {region: {"positive": sentences, "negative": []} for region, sentences in told.items()}
        for _, told in TOLD[:3]
    ]
    batch["patient_key"] = ["pat_a", "pat_b", "pat_a"]
    return batch


def test_the_objective_is_the_mean_over_its_pairs() -> None:
    model, objective = made("opposite_sentence", num_pairs=8)
    batch = reported(make_batch([5, 6, 7]))
    features = Features(model, batch)
    loss = objective(batch, features)["opposite_sentence"]
    pairs = objective.pairs(batch)
    assert "There is a cyst in the liver." not in [p.sentence for p in pairs[0] if not p.true]
    volumes = F.normalize(model.volume_projection(model.vision(batch["volume"]).pooled), dim=-1)
    terms = []
    for volume, found in zip(volumes, pairs, strict=True):
        for pair in found:
            two = torch.cat([embedded(model, pair.sentence), embedded(model, pair.opposite)])
            terms.append(-float(F.log_softmax(two @ volume / 0.07, -1)[0 if pair.true else 1]))
    assert len(terms) == sum(map(len, pairs)) > 5
    assert float(loss.detach()) == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def embedded(model: Any, sentence: str) -> torch.Tensor:
    from components.encoders.features import TextBatch

    batch = TextBatch.from_arrays(model.tokenizer.encode([[sentence]]))
    return F.normalize(model.report_projection(model.text.report(batch)), dim=-1)


def test_all_sentences_go_through_the_text_encoder_once_and_together() -> None:
    model, objective = made("opposite_sentence", num_pairs=8)
    batch = reported(make_batch([5, 6, 7]))
    model.text.calls = 0
    objective(batch, Features(model, batch))
    assert model.text.calls == 1


def test_reports_without_positives_and_without_pairs() -> None:
    """P5: rows that give no pair are left out; no pair at all is no loss."""
    model, objective = made("opposite_sentence")
    batch = reported(make_batch([5, 6, 7]))
    batch["structured"][1] = {"lungs": {"positive": [], "negative": ["The lungs are clear."]}}
    assert torch.isfinite(objective(batch, Features(model, batch))["opposite_sentence"])
    batch["structured"] = [{}, {}, {}]
    assert objective(batch, Features(model, batch)) == {}


def test_training_turns_volumes_towards_what_is_true() -> None:
    """The idea's margin: cos(volume, "X") above cos(volume, "no X") where X is there, below where it is not."""
    model, objective = made("opposite_sentence", num_pairs=8)
    batch = reported(make_batch([5, 6, 7]))
    batch["volume"] = batch["volume"] * 0.1 + torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(120):
        loss = objective(batch, Features(model, batch))["opposite_sentence"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        volumes = F.normalize(model.volume_projection(model.vision(batch["volume"]).pooled), dim=-1)
        for volume, found in zip(volumes, objective.pairs(batch), strict=True):
            for pair in found:
                margin = float((embedded(model, pair.sentence) - embedded(model, pair.opposite)) @ volume)
                assert (margin > 0) == pair.true
