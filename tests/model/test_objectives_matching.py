"""Image-text matching: which negatives are drawn, how often, and the loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.objectives.image_text_matching import NONE, hard_negatives
from components.pretraining.features import Features
from tests.objectives_support import made, make_batch


def generators(count: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed * 1000 + row) for row in range(count)]


def test_negatives_are_a_multinomial_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, 0.5]])
    allowed = torch.tensor([[False, True, True, True]])
    counts = torch.zeros(4)
    for seed in range(4000):
        counts[hard_negatives(logits, allowed, "abcd", generators(1, seed))] += 1
    expected = logits.masked_fill(~allowed, -torch.inf).softmax(-1)[0]
    assert float(counts[0]) == 0
    torch.testing.assert_close(counts / 4000, expected, atol=0.03, rtol=0)


def test_what_is_not_allowed_is_never_drawn_however_likely() -> None:
    logits = torch.full((5, 5), -1e4)
    logits.fill_diagonal_(1e4)
    allowed = ~torch.eye(5, dtype=torch.bool)
    for seed in range(50):
        drawn = hard_negatives(logits, allowed, "abcde", generators(5, seed))
        assert all(int(found) != row for row, found in enumerate(drawn))
    allowed[2] = False
    drawn = hard_negatives(logits, allowed, "abcde", generators(5, 0))
    assert int(drawn[2]) == NONE
    assert int((drawn == NONE).sum()) == 1


def test_a_draw_follows_names_not_places() -> None:
    logits = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    allowed = torch.ones(3, 6, dtype=torch.bool)
    order = [4, 0, 5, 2, 1, 3]
    for seed in range(20):
        first = hard_negatives(logits, allowed, "abcdef", generators(3, seed))
        names = [("abcdef"[place]) for place in order]
        second = hard_negatives(logits[:, order], allowed, names, generators(3, seed))
        assert ["abcdef"[place] for place in first] == [names[place] for place in second]


def test_examples_are_a_pair_and_two_negatives_never_on_the_diagonal() -> None:
    model, objective = made("image_text_matching")
    for seed in range(20):
        batch = make_batch([9, None, 5, 12, 7], seed=seed)
        features = Features(model, batch)
        reports, volumes, labels = objective.examples(batch, features, batch["text"].input_ids, [4])
        assert torch.equal(reports[:4], torch.arange(4))
        assert torch.equal(volumes[:4], torch.arange(4))
        assert labels.tolist() == [1] * 4 + [0] * 8
        assert not bool((reports[4:] == volumes[4:]).any())
        assert torch.equal(reports[4:8], torch.arange(4))  # a report and a volume that is not its own
        assert torch.equal(volumes[8:], torch.arange(4))  # a volume and a report that is not its own


def test_reports_with_the_same_words_are_no_negatives() -> None:
    model, objective = made("image_text_matching")
    batch = make_batch([6, 6, 6, 6])
    batch["text"] = batch["text"].subset([0, 0, 2, 0])  # rows 0, 1 and 3 say the same
    features = Features(model, batch)
    reports, volumes, labels = objective.examples(batch, features, batch["text"].input_ids, [4])
    alike = {0, 1, 3}
    for report, volume, label in zip(reports.tolist(), volumes.tolist(), labels.tolist(), strict=True):
        assert label == 1 or not {report, volume} <= alike
    batch["text"] = batch["text"].subset([0, 0, 0, 0])  # all say the same: positives only, still finite
    features = Features(model, batch)
    _, _, labels = objective.examples(batch, features, batch["text"].input_ids, [4])
    assert labels.tolist() == [1] * 4
    assert torch.isfinite(objective(batch, features)["image_text_matching"])


def test_the_loss_is_the_cross_entropy_over_the_examples() -> None:
    model, objective = made("image_text_matching")
    batch = make_batch([9, None, 5, 12])
    features = Features(model, batch)
    loss = objective(batch, features)["image_text_matching"]
    reports, volumes, labels = objective.examples(batch, features, batch["text"].input_ids, [3])
    tokens = objective.adapter(features)
    total = 0.0
    for report, volume, label in zip(reports.tolist(), volumes.tolist(), labels.tolist(), strict=True):
        text = batch["text"].subset([report])
        fused = model.text.multimodal(model.text.hidden_states(text), text, tokens[volume][None])
        total -= float(F.log_softmax(objective.head(fused[0, 0]), -1)[label])
    assert len(labels) == 9
    assert float(loss.detach()) == pytest.approx(total / 9, rel=1e-5)


@pytest.mark.parametrize("lengths", [[5], [5, None], [None, None]])
def test_one_pair_has_no_negative(lengths: list[int | None]) -> None:
    model, objective = made("image_text_matching")
    batch = make_batch(lengths)
    assert objective(batch, Features(model, batch)) == {}
