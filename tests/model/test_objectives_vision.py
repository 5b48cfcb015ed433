"""Views, rotation and inpainting: what is cut, what is turned, what is compared."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from components.base.errors import ConfigError
from components.encoders.features import VolumeFeatures
from components.objectives import OBJECTIVES
from components.objectives._views import ViewParams, cuboids, make_views, views_of
from components.objectives.inpainting import deconvolutions
from components.pretraining.features import Features
from tests.objectives_support import SIZE, Dual, Vision, make_batch


def test_targets_are_the_turned_uncut_crops_and_inputs_differ_in_the_budget_only() -> None:
    params = ViewParams()
    batch = make_batch([None] * 6)
    views = make_views(batch, params)
    changed = []
    for row, (target, turns) in enumerate(zip(views.targets, views.turns.tolist(), strict=True)):
        expected = torch.rot90(batch["crop"][row % 6], turns, (2, 3))
        assert torch.equal(target, expected)
        changed.append(float((views.inputs[row] != target).float().mean()))
    block = (params.max_side * SIZE) ** 3 / SIZE**3
    assert max(changed) <= 2 * (params.max_covered + block)  # noise, then another sample: each has the budget
    assert max(changed) > 0.05
    assert set(views.turns.tolist()) > {0}
    assert views.inputs.shape == (12, 1, SIZE, SIZE, SIZE)
    assert float(views.inputs.min()) >= 0
    assert float(views.inputs.max()) <= 1


def test_all_four_turns_come_equally_often_and_the_views_differ() -> None:
    batch = make_batch([None] * 200, size=4)
    turns = make_views(batch, ViewParams()).turns
    counts = torch.bincount(turns, minlength=4)
    assert counts.min() > 70  # of 400: a binomial with mean 100 and deviation 8.7
    assert not torch.equal(turns[:200], turns[200:])


def test_cuboids_respect_sides_and_budget() -> None:
    params = ViewParams()
    for seed in range(30):
        boxes = cuboids((40, 20, 40), torch.Generator().manual_seed(seed), params)
        volume = 0
        for x, y, z in boxes:
            sides = (x.stop - x.start, y.stop - y.start, z.stop - z.start)
            assert all(part.start >= 0 and part.stop <= most for part, most in zip((x, y, z), (40, 20, 40)))
            assert all(1 <= side <= 0.25 * most for side, most in zip(sides, (40, 20, 40)))
            volume += math.prod(sides)
        assert volume <= 0.3 * 32000 + 10 * 5 * 10


def test_views_depend_on_study_and_step_not_on_order_or_company() -> None:
    batch = make_batch([None] * 4)
    first = make_views(batch, ViewParams()).turns
    again = make_views(batch, ViewParams()).turns
    other_step = make_views({**batch, "generator": torch.Generator().manual_seed(5)}, ViewParams())
    assert torch.equal(first, again)
    assert not torch.equal(make_views(batch, ViewParams()).inputs, other_step.inputs)


def test_views_and_their_features_are_made_once_for_all_objectives() -> None:
    model = Dual()
    made = {}
    for name in ("vision_contrast", "rotation", "inpainting"):
        kind = OBJECTIVES.get(name)
        made[name] = kind(kind.Params(), model)
    model.vision.calls = 0
    batch = make_batch([None] * 3)
    features = Features(model, batch)
    losses = [objective(batch, features) for objective in made.values()]
    assert [list(loss) for loss in losses] == [["vision_contrast"], ["rotation"], ["inpainting"]]
    assert model.vision.calls == 1
    assert views_of(batch, features, ViewParams()) is views_of(batch, features, ViewParams())


def test_unequal_sides_cannot_turn() -> None:
    batch = make_batch([None])
    batch["crop"] = batch["crop"][..., :8]
    with pytest.raises(ConfigError, match="quarter turns"):
        make_views(batch, ViewParams())
    assert make_views(batch, ViewParams(plane=(0, 1))).inputs.shape[-1] == 8


def test_rotation_is_the_cross_entropy_of_its_head() -> None:
    model, kind = Dual(), OBJECTIVES.get("rotation")
    objective = kind(kind.Params(), model)
    batch = make_batch([None, 3, None])
    features = Features(model, batch)
    loss = objective(batch, features)["rotation"]
    views = views_of(batch, features, ViewParams())
    logits = objective.head(model.vision(views.inputs).scales[-1].mean((2, 3, 4)))
    expected = -sum(
        float(F.log_softmax(row, -1)[turn]) for row, turn in zip(logits, views.turns.tolist(), strict=True)
    )
    assert float(loss) == pytest.approx(expected / 6, rel=1e-6)
    torch.nn.init.zeros_(objective.head.weight)
    torch.nn.init.zeros_(objective.head.bias)
    assert float(objective(batch, features)["rotation"]) == pytest.approx(math.log(4))


def test_inpainting_compares_with_the_uncut_turned_crop() -> None:
    model, kind = Dual(), OBJECTIVES.get("inpainting")
    objective = kind(kind.Params(), model)
    for parameter in objective.head.parameters():
        torch.nn.init.zeros_(parameter)
    batch = make_batch([None, None])
    features = Features(model, batch)
    loss = objective(batch, features)["inpainting"]
    targets = views_of(batch, features, ViewParams()).targets
    assert float(loss) == pytest.approx(float(targets.abs().mean()), rel=1e-6)
    assert not torch.equal(targets, views_of(batch, features, ViewParams()).inputs)


@pytest.mark.parametrize(
    ("strides", "widths"),
    [
        ((32, 32, 32), [768, 384, 192, 96, 48]),
        ((64, 64, 64), [768, 384, 192, 96, 48, 24]),
        ((6, 6, 6), [768, 384]),
        ((8, 4, 2), [768, 384, 192]),
        ((1, 1, 1), [768]),
    ],
)
def test_deconvolutions_enlarge_by_any_stride(strides: tuple[int, ...], widths: list[int]) -> None:
    head = deconvolutions(768, strides)
    assert [layer.in_channels for layer in head] == widths
    assert head[-1].out_channels == 1
    small = deconvolutions(8, strides)
    assert tuple(small(torch.zeros(1, 8, 1, 1, 1)).shape[2:]) == strides


def test_inpainting_meets_crops_of_another_size() -> None:
    model, kind = Dual(), OBJECTIVES.get("inpainting")
    batch = make_batch([None, None], size=24)
    loss = kind(kind.Params(), model)(batch, Features(model, batch))["inpainting"]
    assert math.isfinite(float(loss))


class Coarse(Vision):
    """An encoder whose stride exceeds every input: its deepest scale is one position."""

    def forward(self, volume: torch.Tensor) -> VolumeFeatures:
        found = super().forward(volume)
        return VolumeFeatures(
            (*found.scales[:-1], found.scales[-1].mean((2, 3, 4), keepdim=True)), found.pooled
        )


def test_a_head_made_for_the_crop_answers_its_size() -> None:
    model, kind = Dual(), OBJECTIVES.get("inpainting")
    model.vision, model.contract.size = Coarse(), (2 * SIZE,) * 3
    batch = make_batch([None, None])
    deepest = model.vision(batch["crop"]).scales[-1]
    for params, side in ((kind.Params(), 2 * SIZE), (kind.Params(crop=(SIZE,) * 3), SIZE)):
        objective = kind(params, model)
        assert objective.head(deepest).shape[2:] == (side,) * 3
        assert math.isfinite(float(objective(batch, Features(model, batch))["inpainting"]))


@pytest.mark.parametrize("name", ["rotation", "inpainting"])
def test_head_gradients(name: str) -> None:
    """The analytic gradient of the loss by the head's weights agrees with differences, in double."""
    model, kind = Dual().double(), OBJECTIVES.get(name)
    objective = kind(kind.Params(), model).double()
    batch = make_batch([None, None])
    batch["crop"] = batch["crop"].double()
    weight = next(objective.head.parameters())

    def loss() -> torch.Tensor:
        return objective(batch, Features(model, batch))[name]

    (gradient,) = torch.autograd.grad(loss(), weight)
    flat, step = weight.data.view(-1), 1e-6
    for index in (0, 7, flat.numel() - 1):
        kept = float(flat[index])
        flat[index] = kept + step
        above = float(loss())
        flat[index] = kept - step
        below = float(loss())
        flat[index] = kept
        assert float(gradient.view(-1)[index]) == pytest.approx((above - below) / (2 * step), abs=1e-6)
