"""What every objective must do with any batch: order, partial batches, image-only rows, half precision."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from tests.objectives_support import NAMES, Dual, make_batch, permuted

NEED_TWO = {"report_contrast", "sentence_region", "word_patch", "vision_contrast"}
NEED_TEXT = {"report_contrast", "sentence_region", "word_patch", "masked_language"}
SMALL: dict[str, dict[str, Any]] = {"sentence_region": {"dim": 8}, "word_patch": {"dim": 8}}


def made(name: str, model: Dual) -> torch.nn.Module:
    kind = OBJECTIVES.get(name)
    torch.manual_seed(1)
    return kind(kind.Params(**SMALL.get(name, {})), model)


def test_the_folder_holds_these_objectives() -> None:
    assert tuple(OBJECTIVES.names()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    """P4."""
    model = Dual()
    objective = made(name, model)
    batch = make_batch([9, None, 5, 12, 7])
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        other = permuted(batch, order)
        first = objective(batch, Features(model, batch))[name]
        second = objective(other, Features(model, other))[name]
        assert float(second.detach()) == pytest.approx(float(first.detach()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [[8], [8, 6], [8, 6, None], [None], [None, None, None], [9, 5, 4, 3, 8]])
def test_any_batch_gives_a_finite_loss_with_gradients_or_none(name: str, lengths: list[int | None]) -> None:
    """P5, P9: B = 1, partial batches, and batches without the rows that the objective needs."""
    model = Dual()
    objective = made(name, model)
    batch = make_batch(lengths)
    losses = objective(batch, Features(model, batch))
    rows = len([length for length in lengths if length is not None]) if name in NEED_TEXT else len(lengths)
    if rows < (2 if name in NEED_TWO else 1):
        assert losses == {}
        return
    assert list(losses) == [name]
    loss = losses[name]
    assert loss.ndim == 0
    assert math.isfinite(float(loss.detach()))
    loss.backward()
    tower = model.vision if name != "masked_language" else model.text
    gradients = [value.grad for value in tower.parameters() if value.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(value).all()) for value in gradients)
    assert any(float(value.abs().sum()) > 0 for value in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_finite_and_near(name: str) -> None:
    model = Dual()
    objective = made(name, model)
    batch = make_batch([9, None, 5, 12, 7])
    exact = objective(batch, Features(model, batch))[name]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = objective(batch, Features(model, batch))[name]
    assert rough.dtype == torch.float32
    assert math.isfinite(float(rough.detach()))
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.1, abs=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_s_draws_do_not_depend_on_the_others(name: str) -> None:
    """Switching objectives off must not change those that stay on: streams, not a shared generator."""
    model = Dual()
    alone, others = made(name, model), [made(other, model) for other in NAMES if other != name]
    batch = make_batch([9, 6, 5])
    expected = float(alone(batch, Features(model, batch))[name].detach())
    features = Features(model, batch)
    for other in others:
        other(batch, features)
    assert float(alone(batch, features)[name].detach()) == pytest.approx(expected, rel=1e-6)


def test_features_are_shared_and_image_only_rows_cost_no_global_pass() -> None:
    model = Dual()
    batch = make_batch([9, None, 5])
    objectives = [made(name, model) for name in ("report_contrast", "sentence_region", "word_patch")]
    model.vision.calls = model.text.calls = 0
    features = Features(model, batch)
    for objective in objectives:
        objective(batch, features)
    assert (model.vision.calls, model.text.calls) == (1, 1)
    assert features.paired_volume().pooled.shape[0] == 2
    whole = features.volume("global").pooled
    torch.testing.assert_close(whole[[0, 2]], features.paired_volume().pooled)


@pytest.mark.parametrize("name", NAMES)
def test_needs_are_keys_of_a_batch(name: str) -> None:
    assert OBJECTIVES.get(name).needs <= {"volume", "crop", "text"}
