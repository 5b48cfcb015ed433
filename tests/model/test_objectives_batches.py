"""What every objective must do with any batch: order, gradient, partial batches, half precision.

Every registered objective takes part by its name alone: a new one is tested here without an edit.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch

from components.base.errors import ConfigError
from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from tests.objectives_support import NAMES, in_double, made, make_batch, permuted

KEYS = {"volume", "crop", "text", "structured", "organ_masks"}
NEED_TWO = {
    "report_contrast",
    "sentence_region",
    "word_patch",
    "vision_contrast",
    "image_text_matching",
    "organ_contrast",
    "aspect_contrast",
}
READS_NO_TEXT = {"report_generation"}
"""Objectives that need a report but give the text encoder no gradient."""
FULL: list[int | None] = [9, None, 5, 12, 7]


def value(name: str, model: Any, objective: Any, batch: dict[str, Any]) -> torch.Tensor:
    losses = objective(batch, Features(model, batch))
    assert list(losses) == [name]
    loss = losses[name]
    assert loss.ndim == 0
    return loss


@pytest.mark.parametrize("name", NAMES)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    """P4."""
    model, objective = made(name)
    batch = make_batch(FULL, text_only=[6, 3])
    first = value(name, model, objective, batch)
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        second = value(name, model, objective, permuted(batch, order))
        assert float(second.detach()) == pytest.approx(float(first.detach()), rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [[8], [8, 6], [8, 6, None], [None], [None, None, None], [9, 5, 4, 3, 8]])
def test_any_batch_gives_a_finite_loss_with_gradients_or_none(name: str, lengths: list[int | None]) -> None:
    """P5, P9: B = 1, partial batches, and batches without the rows that the objective needs."""
    model, objective = made(name)
    needs = OBJECTIVES.get(name).needs
    batch = make_batch(lengths)
    losses = objective(batch, Features(model, batch))
    paired = [length for length in lengths if length is not None]
    rows = len(paired) if "text" in needs else len(lengths)
    if rows < (2 if name in NEED_TWO else 1):
        assert losses == {}
        return
    assert list(losses) == [name]
    loss = losses[name]
    assert math.isfinite(float(loss.detach()))
    loss.backward()
    towers = [model.vision] if needs & {"volume", "crop"} else []
    towers += [model.text] if "text" in needs and name not in READS_NO_TEXT else []
    assert towers
    for tower in towers:
        gradients = [value.grad for value in tower.parameters() if value.grad is not None]
        assert gradients
        assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        assert any(float(gradient.abs().sum()) > 0 for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_agrees_with_differences(name: str) -> None:
    """In double, along random directions through every weight of both encoders and of the objective."""
    model, objective = made(name)
    batch = in_double(model, objective, make_batch([9, None, 5, 4], text_only=[4]))
    parameters = [*{id(p): p for p in [*model.parameters(), *objective.parameters()]}.values()]
    gradients = torch.autograd.grad(value(name, model, objective, batch), parameters, allow_unused=True)
    kept = [parameter.detach().clone() for parameter in parameters]
    step = 1e-6
    for seed in (0, 1):
        source = torch.Generator().manual_seed(seed)
        ways = [torch.randn(p.shape, generator=source, dtype=torch.float64) for p in parameters]
        found = []
        for sign in (1, -1):
            with torch.no_grad():
                for parameter, old, way in zip(parameters, kept, ways, strict=True):
                    parameter.copy_(old + sign * step * way)
                found.append(float(value(name, model, objective, batch)))
        slope = (found[0] - found[1]) / (2 * step)
        expected = sum(
            float((gradient * way).sum())
            for gradient, way in zip(gradients, ways, strict=True)
            if gradient is not None
        )
        assert abs(expected) > 1e-6
        assert slope == pytest.approx(expected, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_is_finite_and_near(name: str) -> None:
    model, objective = made(name)
    batch = make_batch(FULL)
    exact = value(name, model, objective, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = value(name, model, objective, batch)
    assert rough.dtype == torch.float32
    assert math.isfinite(float(rough.detach()))
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.1, abs=0.1)
    rough.backward()
    gradients = [p.grad for p in [*model.parameters(), *objective.parameters()] if p.grad is not None]
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_s_draws_do_not_depend_on_the_others(name: str) -> None:
    """Switching objectives off must not change those that stay on: streams, not a shared generator."""
    model, alone = made(name)
    batch = make_batch([9, 6, 5], text_only=[4])
    expected = float(value(name, model, alone, batch).detach())
    features = Features(model, batch)
    for other in NAMES:
        if other != name:
            with contextlib.suppress(ConfigError):  # one that wants another encoder
                made(other, model)[1](batch, features)
    assert float(alone(batch, features)[name].detach()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_optional_keys_may_be_absent(name: str) -> None:
    """Without structured reports or label maps an objective that reads them answers nothing, the others go on."""
    model, objective = made(name)
    batch = make_batch(FULL)
    for key in ("structured", "organ_masks", "organ_names"):
        del batch[key]
    losses = objective(batch, Features(model, batch))
    assert (losses == {}) == bool(OBJECTIVES.get(name).needs & {"structured", "organ_masks"})


@pytest.mark.parametrize("name", NAMES)
def test_needs_are_keys_of_a_batch(name: str) -> None:
    kind = OBJECTIVES.get(name)
    assert kind.needs
    assert kind.needs <= KEYS
    assert kind.__doc__
    assert kind.Params().weight > 0


@pytest.mark.parametrize("name", [name for name in NAMES if OBJECTIVES.get(name).row_wise])
def test_a_row_wise_loss_is_the_mean_over_rows(name: str) -> None:
    model, objective = made(name)
    batch = make_batch(FULL)
    whole = float(value(name, model, objective, batch).detach())
    rows = [float(value(name, model, objective, permuted(batch, [row])).detach()) for row in range(len(FULL))]
    assert sum(rows) / len(rows) == pytest.approx(whole, rel=1e-5)
