"""Masked language modelling: what is hidden, what never is, and the loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from components.objectives import OBJECTIVES
from components.objectives._masking import all_text, mask_tokens, masked_text
from components.pretraining.features import Features
from tests.objectives_support import SPECIAL, VOCAB, Dual, made, make_batch, trimmed


def masks(batch: dict[str, Any], *args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    text, keys = all_text(batch)
    return mask_tokens(text, keys, batch, *args)


def test_shares_and_what_is_never_touched() -> None:
    model = Dual()
    batch = make_batch([400] * 40)
    ids = batch["text"].input_ids
    masked, chosen = masks(batch, model.tokenizer, VOCAB, 0.15)
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
    _, chosen = masks(batch, model.tokenizer, VOCAB, 0.9)
    assert not bool(chosen[:, 1::2].any())
    assert bool(chosen.any())


def test_the_loss_is_the_cross_entropy_at_the_chosen_places() -> None:
    model, kind = Dual(), OBJECTIVES.get("masked_language")
    objective = kind(kind.Params(probability=0.5), model)
    batch = make_batch([6, None, 9])
    loss = objective(batch, Features(model, batch))["masked_language"]
    masked, chosen = masks(batch, model.tokenizer, VOCAB, 0.5)
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
    """What is hidden depends on the study and the step, not on the other rows nor on the padding."""
    model = Dual()
    both, alone = make_batch([30, 90]), make_batch([30])
    alone["text"] = trimmed(both["text"].subset([0]))
    length = alone["text"].input_ids.shape[1]
    assert length < both["text"].input_ids.shape[1]
    ids, chosen = masks(both, model.tokenizer, VOCAB, 0.3)
    single_ids, single = masks(alone, model.tokenizer, VOCAB, 0.3)
    assert torch.equal(chosen[:1, :length], single)
    assert torch.equal(ids[:1, :length], single_ids)
    assert not torch.equal(chosen[0, :length], chosen[1, :length])


def test_reports_without_a_volume_take_part() -> None:
    model, objective = made("masked_language", probability=0.5)
    batch = make_batch([6, None, 9], text_only=[4, 30])
    loss = objective(batch, Features(model, batch))["masked_language"]
    text, keys = all_text(batch)
    assert keys == [batch["study_key"][0], batch["study_key"][2], *batch["text_only_key"]]
    assert text.input_ids.shape == (4, batch["text_only"].input_ids.shape[1])
    assert torch.equal(text.input_ids[2:], batch["text_only"].input_ids)
    assert int(text.attention_mask[:2].sum()) == int(batch["text"].attention_mask.sum())
    masked, chosen = masks(batch, model.tokenizer, VOCAB, 0.5)
    assert bool(chosen[2:].any())
    logits = objective.head(model.text.hidden_states(text.with_ids(masked))[chosen])
    expected = F.cross_entropy(logits, text.input_ids[chosen])
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    only = make_batch([None, None], text_only=[12])
    assert list(objective(only, Features(model, only))) == ["masked_language"]


def test_p18_hidden_pieces_are_the_predicted_ones_in_both_objectives() -> None:
    """The multimodal objective reads the same masked reports, through the same pass of the text layers."""
    model, alone = made("masked_language", probability=0.4)
    both = made("multimodal_masked_language", model, probability=0.4)[1]
    batch = make_batch([9, None, 14], text_only=[20])
    features = Features(model, batch)
    model.text.calls = 0
    assert alone(batch, features)
    assert both(batch, features)
    masked = masked_text(batch, features, model, 0.4)
    assert model.text.calls == 1
    assert masked is not None
    changed = masked.text.input_ids != masked.targets
    assert not bool((changed & ~masked.chosen).any())
    assert bool(changed.any())
    assert masked.chosen.shape[0] == 3


def test_multimodal_masked_language_is_the_cross_entropy_at_the_chosen_places() -> None:
    model, objective = made("multimodal_masked_language", probability=0.5)
    batch = make_batch([6, None, 9], text_only=[5])
    features = Features(model, batch)
    loss = objective(batch, features)["multimodal_masked_language"]
    masked = masked_text(batch, features, model, 0.5)
    tokens = model.vision(batch["volume"][batch["paired"]]).scales[-1].flatten(2).transpose(1, 2)
    tokens = objective.adapter.norm(objective.adapter.linear(tokens))
    total = count = 0
    for row in range(2):
        text = masked.text.subset([row])
        hidden = model.text.multimodal(model.text.hidden_states(text), text, tokens[row : row + 1])
        for place in masked.chosen[row].nonzero().flatten().tolist():
            logits = objective.head(hidden[0, place])
            total -= float(logits.log_softmax(-1)[masked.targets[row, place]])
            count += 1
    assert count > 3
    assert float(loss.detach()) == pytest.approx(total / count, rel=1e-5)
