"""Disruption: what is damaged, what is dropped, and that the damage can be undone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.base.errors import ConfigError
from components.objectives._hooks import changed_embedding, patch_embedding
from components.objectives._reconstruction import enlarge, pool_grid
from components.objectives.disruption import channel_mask, disrupt
from components.pretraining.features import Features
from tests.objectives_support import SIZE, Dual, made, make_batch, permuted


def test_damage_is_noise_and_lost_resolution() -> None:
    batch = make_batch([None] * 30)
    clean = disrupt(batch, 0.0, (1, 2, 4))
    assert set(clean.factors) == {1, 2, 4}
    for row, factor in enumerate(clean.factors):
        expected = enlarge(pool_grid(batch["crop"][row], [SIZE // factor] * 3), [SIZE] * 3)
        torch.testing.assert_close(clean.inputs[row], expected)
        blocks = clean.inputs[row].unfold(1, factor, factor).unfold(2, factor, factor)
        assert float((blocks.amax((-1, -2)) - blocks.amin((-1, -2))).abs().max()) < 1e-6
    noisy = disrupt(batch, 0.2, (1,))
    spread = (noisy.inputs - batch["crop"]).flatten(1).std(1)
    assert 0 < float(spread.min()) < float(spread.max()) < 0.21
    assert len(set(spread.tolist())) == 30


def test_damage_depends_on_study_and_step_not_on_order() -> None:
    batch = make_batch([None] * 4)
    order = [2, 0, 3, 1]
    first, second = disrupt(batch, 0.2, (1, 2)), disrupt(permuted(batch, order), 0.2, (1, 2))
    assert torch.equal(second.inputs, first.inputs[order])
    later = {**batch, "generator": torch.Generator().manual_seed(5)}
    assert not torch.equal(disrupt(later, 0.2, (1, 2)).inputs, first.inputs)


def test_sides_that_no_factor_divides() -> None:
    batch = make_batch([None, None], size=10)
    assert disrupt(batch, 0.1, (4,)).inputs.shape == batch["crop"].shape


def test_p18_the_mask_is_what_the_encoder_loses() -> None:
    """A random share of the channels at every position, different from position to position, and nothing else."""
    model, batch = Dual(), make_batch([None] * 3)
    module = patch_embedding(model.vision)
    assert module is model.vision.stem
    seen = []
    watch = model.vision.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    plain = model.vision.stem(batch["crop"])
    mask = channel_mask(batch, plain.shape, 0.3)
    with changed_embedding(module, lambda value: value.masked_fill(mask, 0.0)):
        model.vision(batch["crop"])
    watch.remove()
    expected = torch.tanh(plain.masked_fill(mask, 0.0))
    torch.testing.assert_close(seen[0], expected)
    assert torch.equal(seen[0] == 0, mask)
    assert float(mask.float().mean()) == pytest.approx(0.3, abs=0.01)
    assert 0.2 < float((mask[:, 0] != mask[:, 1]).float().mean()) < 0.6
    assert not torch.equal(mask[0], mask[1])
    torch.testing.assert_close(model.vision.stem(batch["crop"]), plain)  # nothing stays behind


def test_a_change_that_never_happened_is_an_error() -> None:
    layer = nn.Conv3d(1, 2, 1)
    with pytest.raises(ConfigError, match="compiled"), changed_embedding(layer, lambda value: value):
        pass
    with pytest.raises(ConfigError, match="no 3D convolution"):
        patch_embedding(nn.Linear(1, 1))


def test_the_loss_is_the_mean_absolute_error() -> None:
    model, objective = made("disruption")
    batch = make_batch([3, None])
    for parameter in objective.head.parameters():
        nn.init.zeros_(parameter)
    loss = objective(batch, Features(model, batch))["disruption"]
    assert float(loss.detach()) == pytest.approx(float(batch["crop"].abs().mean()), rel=1e-6)


def test_crops_of_another_size() -> None:
    model, objective = made("disruption")
    batch = make_batch([None, None], size=24)
    assert torch.isfinite(objective(batch, Features(model, batch))["disruption"])


def test_training_beats_copying_the_damaged_crop() -> None:
    """The field's check: a lower L1 than that of the input itself."""
    source = torch.Generator().manual_seed(0)
    batch = make_batch([None] * 8)
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 3, indexing="ij"))
    centres = torch.rand((8, 3, 1, 1, 1), generator=source) - 0.5
    batch["crop"] = (((grid - centres) ** 2).sum(1, keepdim=True) < 0.4).float() * 0.6 + 0.2
    model, objective = made("disruption", noise=0.4, factors=(1, 2), mask=0.1, dim=16)
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.01)
    for step in range(100):
        batch["generator"] = torch.Generator().manual_seed(step)
        loss = objective(batch, Features(model, batch))["disruption"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch["generator"] = torch.Generator().manual_seed(1000)
    copied = float((disrupt(batch, 0.4, (1, 2)).inputs - batch["crop"]).abs().mean())
    with torch.no_grad():
        assert float(objective(batch, Features(model, batch))["disruption"]) < 0.8 * copied
