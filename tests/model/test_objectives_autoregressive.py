"""Autoregressive patches: order, what the encoder sees, what the decoder sees, what is compared."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from components.base.errors import ConfigError
from components.objectives.autoregressive_patches import join_patches, make_sequence, split_patches
from components.pretraining.features import Features
from tests.objectives_support import SIZE, Dual, made, make_batch, permuted


def test_patches_are_the_boxes_of_the_grid() -> None:
    batch = make_batch([None, None])
    crop = batch["crop"][:, :, :, :8]  # unequal sides
    parts = split_patches(crop, 4)
    assert parts.shape == (2, 64, 4, 2, 4)
    for x, y, z in ((0, 0, 0), (1, 2, 3), (3, 0, 2)):
        box = crop[:, 0, 4 * x : 4 * x + 4, 2 * y : 2 * y + 2, 4 * z : 4 * z + 4]
        assert torch.equal(parts[:, 16 * x + 4 * y + z], box)
    assert torch.equal(join_patches(parts, 4), crop)
    with pytest.raises(ConfigError, match="equal parts"):
        split_patches(batch["crop"], 5)


@pytest.mark.parametrize("order", ["spatial", "contrast"])
def test_p18_the_encoder_sees_exactly_the_patches_before_the_start(order: str) -> None:
    batch = make_batch([None] * 12)
    sequence = make_sequence(batch, 4, 2, order, -1.0)
    seen = split_patches((sequence.prefix != -1.0).float(), 4).flatten(2)
    assert bool(((seen == 0) | (seen == 1)).all())
    for row in range(12):
        start, places = int(sequence.starts[row]), sequence.places[row].tolist()
        assert sorted(places) == list(range(64))
        assert sorted(seen[row].all(-1).nonzero().flatten().tolist()) == sorted(places[:start])
        assert not bool(seen[row][places[start:]].any())
        whole = split_patches(batch["crop"], 4)[row, places]
        means = whole.reshape(64, 2, 2, 2, 2, 2, 2).mean((2, 4, 6)).flatten(1)
        torch.testing.assert_close(sequence.patches[row], means)
        if order == "contrast":
            assert torch.equal(whole.flatten(1).mean(-1), whole.flatten(1).mean(-1).sort().values)
    assert 1 <= int(sequence.starts.min()) < int(sequence.starts.max()) <= 63
    assert len(set(sequence.starts.tolist())) > 5


def test_starts_depend_on_study_and_step_not_on_order() -> None:
    batch = make_batch([None] * 5)
    starts = make_sequence(batch, 4, 2, "spatial", 0.0).starts
    order = [3, 1, 4, 0, 2]
    assert torch.equal(make_sequence(permuted(batch, order), 4, 2, "spatial", 0.0).starts, starts[order])
    later = {**batch, "generator": torch.Generator().manual_seed(5)}
    assert not torch.equal(make_sequence(later, 4, 2, "spatial", 0.0).starts, starts)


def test_later_patches_do_not_reach_earlier_predictions() -> None:
    """The causal mask does not leak: a changed patch changes no error before it (and does change later ones)."""
    objective = made("autoregressive_patches", layers=2)[1]
    batch = make_batch([None, None])
    sequence = make_sequence(batch, 4, 2, "spatial", 0.0)
    sequence = dataclasses.replace(sequence, starts=torch.tensor([5, 9]))
    whole = split_patches(batch["crop"], 4)
    blanked = whole.clone()
    blanked[0, 5:], blanked[1, 9:] = 0.0, 0.0
    sequence = dataclasses.replace(sequence, prefix=join_patches(blanked, 4))
    before, counted = objective.errors(sequence)
    assert counted.sum(-1).tolist() == [59, 55]
    for place in (20, 40, 63):
        patches = sequence.patches.clone()
        patches[:, place] += 1.0
        after, _ = objective.errors(dataclasses.replace(sequence, patches=patches))
        torch.testing.assert_close(after[:, : place - 1], before[:, : place - 1])
        assert bool((after[:, place - 1] != before[:, place - 1]).all())  # its own target
        if place < 63:
            assert bool((after[:, place:] != before[:, place:]).any())


def test_voxels_after_the_start_do_not_reach_the_encoder() -> None:
    model = Dual()
    batch = make_batch([None])
    sequence = make_sequence(batch, 4, 2, "spatial", 0.0)
    start = int(sequence.starts[0])
    crop = batch["crop"].clone().requires_grad_()
    prefix = make_sequence({**batch, "crop": crop}, 4, 2, "spatial", 0.0).prefix
    model.vision(prefix).pooled.sum().backward()
    reached = split_patches((crop.grad != 0).float(), 4)[0].flatten(1).any(-1)
    assert reached.tolist() == [number < start for number in range(64)]


def test_the_loss_is_the_mean_over_rows_of_the_mean_squared_errors() -> None:
    model, objective = made("autoregressive_patches")
    batch = make_batch([None, 4, None])
    features = Features(model, batch)
    loss = objective(batch, features)["autoregressive_patches"]
    errors, _ = objective.errors(make_sequence(batch, 4, 2, "spatial", 0.0))
    starts = make_sequence(batch, 4, 2, "spatial", 0.0).starts.tolist()
    means = [float(errors[row, start - 1 :].mean()) for row, start in enumerate(starts)]
    assert float(loss.detach()) == pytest.approx(sum(means) / 3, rel=1e-5)


def test_detail_finer_than_a_patch() -> None:
    model, objective = made("autoregressive_patches", grid=8, detail=3)
    batch = make_batch([None, None])
    assert torch.isfinite(objective(batch, Features(model, batch))["autoregressive_patches"])


def test_training_beats_predicting_the_mean() -> None:
    """The field's check, on crops with a gradient in a direction of their own."""
    source = torch.Generator().manual_seed(0)
    batch = make_batch([None] * 8)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-0.5, 0.5, SIZE)] * 3, indexing="ij"))
    ways = torch.rand((8, 3, 1, 1, 1), generator=source) - 0.5
    batch["crop"] = 0.5 + (ways * grid).sum(1, keepdim=True)
    model, objective = made("autoregressive_patches", hidden=24, layers=1)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.005)
    for step in range(130):
        batch["generator"] = torch.Generator().manual_seed(step)
        loss = objective(batch, Features(model, batch))["autoregressive_patches"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    baseline = float((batch["crop"] - batch["crop"].mean()).square().mean())
    batch["generator"] = torch.Generator().manual_seed(1000)
    with torch.no_grad():
        assert float(objective(batch, Features(model, batch))["autoregressive_patches"]) < 0.5 * baseline
