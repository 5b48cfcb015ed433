"""Masked language modelling: what is hidden, what never is, and the loss."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives.masked_language import mask_tokens
from components.pretraining.features import Features
from tests.objectives_support import SPECIAL, VOCAB, Dual, make_batch


def test_shares_and_what_is_never_touched() -> None:
    model = Dual()
    batch = make_batch([400] * 40)
    ids = batch["text"].input_ids
    masked, chosen = mask_tokens(batch, model.tokenizer, VOCAB, 0.15)
    ordinary = batch["text"].word_index >= 0
    assert not bool(chosen[~ordinary].any())
    assert torch.equal(masked[~chosen], ids[~chosen])
    total, picked = int(ordinary.sum()), int(chosen.sum())
    assert picked / total == pytest.approx(0.15, abs=0.01)
    hidden = int((masked[chosen] == model.tokenizer.mask_id).sum())
    kept = int((masked[chosen] == ids[chosen]).sum())
    assert hidden / picked == pytest.approx(0.8, abs=0.03)
    assert kept / picked == pytest.approx(0.1 + 0.1 / 30, abs=0.03)
    put_in = masked[chosen & (masked != ids) & (masked != model.tokenizer.mask_id)]
    assert not set(put_in.tolist()) & SPECIAL


def test_special_ids_inside_words_are_not_chosen() -> None:
    model = Dual()
    batch = make_batch([50, 50])
    batch["text"].input_ids[:, 1::2] = 3  # an unknown piece, special though it stands for a word
    _, chosen = mask_tokens(batch, model.tokenizer, VOCAB, 0.9)
    assert not bool(chosen[:, 1::2].any())
    assert bool(chosen.any())


def test_the_loss_is_the_cross_entropy_at_the_chosen_places() -> None:
    model, kind = Dual(), OBJECTIVES.get("masked_language")
    objective = kind(kind.Params(probability=0.5), model)
    batch = make_batch([6, None, 9])
    loss = objective(batch, Features(model, batch))["masked_language"]
    masked, chosen = mask_tokens(batch, model.tokenizer, VOCAB, 0.5)
    logits = objective.head(model.text.hidden_states(batch["text"].with_ids(masked)))
    targets = torch.where(chosen, batch["text"].input_ids, torch.full_like(masked, -100))
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    loss.backward()
    assert float(model.text.embedding.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("lengths", [[0, 0], [None, None]])
def test_nothing_to_mask_is_no_loss(lengths: list[int | None]) -> None:
    model, kind = Dual(), OBJECTIVES.get("masked_language")
    batch = make_batch(lengths)
    assert kind(kind.Params(), model)(batch, Features(model, batch)) == {}


def test_rows_draw_from_their_own_stream() -> None:
    model = Dual()
    both, alone = make_batch([30, 30]), make_batch([30])
    alone["text"] = both["text"].subset([0])
    _, chosen = mask_tokens(both, model.tokenizer, VOCAB, 0.3)
    _, single = mask_tokens(alone, model.tokenizer, VOCAB, 0.3)
    assert torch.equal(chosen[:1], single)
    assert not torch.equal(chosen[0], chosen[1])
