"""The masked autoencoder: what is dropped is what is rebuilt, its value, its gradient, its batches."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.base.errors import ConfigError
from components.encoders.vision import VISION
from components.objectives import OBJECTIVES
from components.objectives.masked_autoencoder import MaskedAutoencoder, choose, patches_of
from components.pretraining.features import Features
from tests.objectives_support import Dual, make_batch, permuted

PATCH, SIZE = 4, (8, 12, 16)
GRID = (2, 3, 4)
NAME = "masked_autoencoder"


class Model(nn.Module):
    """A tiny Primus as the vision encoder of a model."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = VISION.get("primus")
        sizes = {"patch": PATCH, "width": 24, "depth": 2, "heads": 2, "projection_dim": 16, "pool_heads": 4}
        self.vision = kind(kind.Params(**sizes, drop_path=0.0))
        with torch.no_grad():
            for name, parameter in self.vision.named_parameters():
                if "gamma" in name:
                    parameter.fill_(1.0)


def objective(model: nn.Module, **params: Any) -> MaskedAutoencoder:
    torch.manual_seed(1)
    kind = OBJECTIVES.get(NAME)
    return kind(kind.Params(**params), model)


def batch_of(rows: list[int | None], seed: int = 0) -> dict[str, Any]:
    """Volumes and crops of three different sides."""
    batch = make_batch(rows, seed=seed)
    source = torch.Generator().manual_seed(seed + 7)
    for key in ("volume", "crop"):
        batch[key] = torch.rand((len(rows), 1, *SIZE), generator=source)
    return batch


def loss_of(made: MaskedAutoencoder, model: nn.Module, batch: dict[str, Any]) -> Tensor:
    return made(batch, Features(model, batch))[NAME]


def voxels(patches: Tensor) -> Tensor:
    """bool [B, 1, X, Y, Z] of patch numbers [B, D], by counting patches in C order."""
    mask = torch.zeros(len(patches), 1, *SIZE, dtype=torch.bool)
    for row, numbers in enumerate(patches.tolist()):
        for number in numbers:
            x, rest = divmod(number, GRID[1] * GRID[2])
            y, z = divmod(rest, GRID[2])
            at = [slice(PATCH * n, PATCH * (n + 1)) for n in (x, y, z)]
            mask[(row, 0, *at)] = True
    return mask


def test_three_quarters_are_dropped_and_nothing_is_both() -> None:
    batch = make_batch([None] * 4)
    keep, dropped = choose(batch, 24, 0.75)
    assert (keep.shape, dropped.shape) == ((4, 6), (4, 18))
    for row in range(4):
        assert sorted([*keep[row].tolist(), *dropped[row].tolist()]) == list(range(24))
    assert len({tuple(row) for row in keep.tolist()}) == 4, "every study has a pattern of its own"
    assert all(row == sorted(row) for row in keep.tolist())
    again, _ = choose(batch, 24, 0.75)
    assert torch.equal(again, keep)
    other, _ = choose({**batch, "generator": torch.Generator().manual_seed(5)}, 24, 0.75)
    assert not torch.equal(other, keep)
    assert choose(batch, 1, 0.99)[0].shape == (4, 1), "one patch always stays"


def test_patches_are_counted_as_the_encoder_counts_them() -> None:
    volume = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    parts = patches_of(volume, GRID, PATCH)
    assert parts.shape == (2, 24, 64)
    number = 0
    for x in range(2):
        for y in range(3):
            for z in range(4):
                box = volume[:, 0, 4 * x : 4 * x + 4, 4 * y : 4 * y + 4, 4 * z : 4 * z + 4]
                assert torch.equal(parts[:, number], box.flatten(1))
                number += 1
    first = Model().vision.backbone.down_projection["proj"]
    tokens = first(volume).flatten(2).transpose(1, 2)
    torch.testing.assert_close(parts @ first.weight.flatten(1).T + first.bias, tokens, atol=1e-5, rtol=1e-5)


def test_p18_the_loss_mask_is_what_the_encoder_did_not_see() -> None:
    """P18, on a grid of 2x3x4 with a random, so non-symmetric, pattern.

    The loss moves with a voxel outside the dropped patches only through the encoder, and with one inside them only
    through the target: with the target held still, hidden voxels change nothing.
    """
    model = Model()
    made, batch = objective(model), batch_of([None, None])
    keep, dropped = choose(batch, 24, 0.75)
    hidden = voxels(dropped)
    assert not hidden[0].equal(hidden[0].transpose(1, 2).reshape(hidden[0].shape)), "not symmetric"
    assert hidden.float().mean() == 0.75
    assert not (hidden & voxels(keep)).any()

    volume = batch["volume"].clone().requires_grad_()
    predicted = made.rebuild(model.vision.visible(volume, keep), keep, dropped, GRID)
    (seen,) = torch.autograd.grad(predicted.square().sum(), volume)
    assert (seen[hidden] == 0).all(), "a dropped voxel never reaches the prediction"
    assert (seen[~hidden] != 0).float().mean() > 0.99

    volume = batch["volume"].clone().requires_grad_()
    target = patches_of(volume, GRID, PATCH).gather(1, dropped[..., None].expand(-1, -1, 64))
    (compared,) = torch.autograd.grad(target.sum(), volume)
    assert torch.equal(compared.bool(), hidden), "the target is exactly the dropped voxels"


def test_the_loss_by_a_slow_loop_over_voxels() -> None:
    model = Model()
    made, batch = objective(model), batch_of([None, 3, None])
    keep, dropped = choose(batch, 24, 0.75)
    with torch.no_grad():
        rebuilt = made.rebuild(model.vision.visible(batch["volume"], keep), keep, dropped, GRID)
    total, count = 0.0, 0
    for row in range(3):
        for place, number in enumerate(dropped[row].tolist()):
            x, rest = divmod(number, 12)
            y, z = divmod(rest, 4)
            for voxel in range(64):
                i, rest = divmod(voxel, 16)
                j, k = divmod(rest, 4)
                value = batch["volume"][row, 0, 4 * x + i, 4 * y + j, 4 * z + k]
                total += float((rebuilt[row, place, voxel] - value) ** 2)
                count += 1
    assert count == 3 * 18 * 64
    assert float(loss_of(made, model, batch)) == pytest.approx(total / count, rel=1e-5)


def test_closed_form_of_a_constant_head() -> None:
    model = Model()
    made, batch = objective(model), batch_of([None, None])
    nn.init.zeros_(made.head.weight)
    nn.init.constant_(made.head.bias, 0.25)
    _, dropped = choose(batch, 24, 0.75)
    wanted = (batch["volume"][voxels(dropped)] - 0.25).square().mean()
    assert float(loss_of(made, model, batch)) == pytest.approx(float(wanted), rel=1e-6)


def test_the_decoder_knows_where_a_patch_was() -> None:
    """Mask tokens are all the same, so only their positions can tell them apart."""
    model = Model()
    made, batch = objective(model), batch_of([None])
    keep, dropped = choose(batch, 24, 0.75)
    with torch.no_grad():
        for block in made.decoder.blocks:
            block.gamma_1.fill_(1.0)
            block.attn.q_proj.weight.mul_(20)
            block.attn.k_proj.weight.mul_(20)
        rebuilt = made.rebuild(model.vision.visible(batch["volume"], keep), keep, dropped, GRID)
    assert rebuilt.std(1).mean() > 1e-4


@pytest.mark.parametrize("view", ["global", "crop"])
def test_either_view(view: str) -> None:
    model = Model()
    made, batch = objective(model, view=view), batch_of([None, 2])
    loss = loss_of(made, model, batch)
    key = "volume" if view == "global" else "crop"
    other = "crop" if view == "global" else "volume"
    assert torch.equal(loss, loss_of(made, model, {**batch, other: torch.zeros(2, 1, *SIZE)}))
    assert not torch.equal(loss, loss_of(made, model, {**batch, key: torch.zeros(2, 1, *SIZE)}))


def test_gradients_agree_with_differences_and_reach_every_part() -> None:
    model = Model().double()
    made, batch = objective(model, width=12, heads=2).double(), batch_of([None, None])
    batch["volume"] = batch["volume"].double()
    made.zero_grad()
    loss_of(made, model, batch).backward()
    parts = {"token": made.mask_token, "head": made.head.weight, "embed": made.embed.weight}
    parts["first"] = model.vision.backbone.down_projection["proj"].weight
    parts["block"] = model.vision.backbone.eva.blocks[1].attn.q_proj.weight
    for name, parameter in parts.items():
        flat, step = parameter.data.view(-1), 1e-6
        for index in (0, flat.numel() // 2, flat.numel() - 1):
            kept = float(flat[index])
            flat[index] = kept + step
            above = float(loss_of(made, model, batch))
            flat[index] = kept - step
            below = float(loss_of(made, model, batch))
            flat[index] = kept
            wanted = (above - below) / (2 * step)
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(wanted, abs=1e-8, rel=1e-4), name
    missing = [name for name, p in made.named_parameters() if p.grad is None]
    assert missing == []


def test_the_order_of_the_batch_does_not_matter() -> None:
    """P4."""
    model = Model()
    made, batch = objective(model), batch_of([None, 3, None, 2])
    loss = loss_of(made, model, batch)
    for order in ([2, 0, 3, 1], [3, 2, 1, 0]):
        torch.testing.assert_close(loss_of(made, model, permuted(batch, order)), loss)


@pytest.mark.parametrize("rows", [[None], [3], [None, 4, None]])
def test_any_batch_has_a_finite_loss(rows: list[int | None]) -> None:
    """P9: one row, paired rows, image-only rows."""
    model = Model()
    loss = loss_of(objective(model), model, batch_of(rows))
    assert math.isfinite(float(loss))
    assert loss.ndim == 0


def test_nothing_to_rebuild_is_an_empty_answer() -> None:
    model = Model()
    made, batch = objective(model, ratio=0.01), batch_of([None])
    assert made(batch, Features(model, batch)) == {}
    empty = {**batch, "volume": batch["volume"][:0], "study_key": [], "crop": batch["crop"][:0]}
    assert objective(model)(empty, Features(model, empty)) == {}


def test_bf16_is_finite() -> None:
    model = Model()
    made, batch = objective(model), batch_of([None, None])
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(made, model, batch)
    assert loss.dtype == torch.float32
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in made.parameters())
    assert float(loss) == pytest.approx(float(loss_of(made, model, batch)), rel=0.05)


def test_it_learns() -> None:
    model = Model()
    made, batch = objective(model), batch_of([None, None])
    steps = torch.linspace(0, 1, 16).expand(2, 1, *SIZE)
    batch["volume"] = steps.contiguous()
    optimizer = torch.optim.AdamW([*made.parameters(), *model.vision.parameters()], 1e-2)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = loss_of(made, model, batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.1 * float(batch["volume"].var())


def test_encoders_that_cannot_leave_patches_out_are_refused() -> None:
    with pytest.raises(ConfigError, match="primus"):
        objective(Dual())
    other = VISION.get("intensity")
    with pytest.raises(ConfigError, match="leave patches out"):
        objective(SimpleNamespace(vision=other(other.Params())))
    with pytest.raises(ConfigError, match="width"):
        objective(Model(), width=10)
