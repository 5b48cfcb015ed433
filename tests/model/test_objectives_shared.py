"""A step's features: each view of each encoder is computed once, however many objectives ask."""

from __future__ import annotations

import pytest
import torch

from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from tests.objectives_support import Dual, made, make_batch

VELVET = (
    "report_contrast",
    "sentence_region",
    "word_patch",
    "image_text_matching",
    "multimodal_masked_language",
    "vision_contrast",
    "rotation",
    "inpainting",
    "masked_language",
)
COLIPRI = ("report_contrast", "opposite_sentence", "report_generation")


def test_velvet_in_full_takes_two_image_passes_and_two_text_passes() -> None:
    """The global view and both augmented views; the reports and the masked reports; two passes on top."""
    model = Dual()
    batch = make_batch([9, None, 5, 12])
    objectives = [made(name, model)[1] for name in VELVET]
    model.vision.calls = model.vision.rows = model.text.calls = model.text.fused = 0
    features = Features(model, batch)
    losses = {name: value for objective in objectives for name, value in objective(batch, features).items()}
    assert tuple(losses) == VELVET
    assert (model.vision.calls, model.text.calls, model.text.fused) == (2, 2, 2)
    assert model.vision.rows == 3 + 2 * 4  # the paired rows' global views, both views of every row's crop
    torch.stack(list(losses.values())).sum().backward()
    assert float(model.vision.stem.weight.grad.abs().sum()) > 0
    assert float(model.text.embedding.weight.grad.abs().sum()) > 0


def test_colipri_and_the_neighbourhood_share_as_well() -> None:
    model = Dual()
    batch = make_batch([9, None, 5, 12])
    names = (*COLIPRI, "organ_contrast", "aspect_contrast")
    objectives = [made(name, model)[1] for name in names]
    model.vision.calls = model.text.calls = 0
    features = Features(model, batch)
    for objective in objectives:
        assert objective(batch, features)
    assert model.vision.calls == 1
    assert model.text.calls == 3  # reports, the opposite sentences, the texts of regions


def test_each_objective_alone_costs_what_it_must() -> None:
    expected = {
        "report_contrast": (1, 1),
        "sentence_region": (1, 1),
        "word_patch": (1, 1),
        "vision_contrast": (1, 0),
        "rotation": (1, 0),
        "inpainting": (1, 0),
        "disruption": (1, 0),
        "autoregressive_patches": (1, 0),
        "masked_language": (0, 1),
        "multimodal_masked_language": (1, 1),
        "image_text_matching": (1, 1),
        "report_generation": (1, 0),
        "opposite_sentence": (1, 1),
        "organ_contrast": (1, 1),
        "aspect_contrast": (1, 1),
        "masked_autoencoder": (1, 0),
    }
    for name in OBJECTIVES.names():
        model, objective = made(name)
        batch = make_batch([9, None, 5, 12])
        model.vision.calls = model.text.calls = 0
        objective(batch, Features(model, batch))
        if name in expected:
            assert (model.vision.calls, model.text.calls) == expected[name], name


def test_rows_encoded_as_paired_are_not_encoded_again() -> None:
    model = Dual()
    batch = make_batch([9, None, 5, None])
    expected = model.vision(batch["volume"])
    model.vision.calls = model.vision.rows = 0
    features = Features(model, batch)
    paired = features.paired_volume()
    whole = features.volume("global")
    assert (model.vision.calls, model.vision.rows) == (2, 4)
    torch.testing.assert_close(whole.pooled, expected.pooled)
    for found, wanted in zip(whole.scales, expected.scales, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(paired.pooled, expected.pooled[[0, 2]])
    other = Features(model, batch)
    model.vision.rows = 0
    other.volume("global")
    assert torch.equal(other.paired_volume().pooled, other.volume("global").pooled[[0, 2]])
    assert other.paired_volume() is other.paired_volume()
    assert model.vision.rows == 4


def gradients(model: Dual, loss: torch.Tensor) -> dict[str, torch.Tensor | None]:
    """The gradient of one loss on every weight of the encoders, None where it reaches none."""
    names = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(names.values()), retain_graph=True, allow_unused=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("order", ["names", "reverse"])
@pytest.mark.parametrize("patches", [False, True])
def test_an_objective_teaches_the_same_in_company_as_alone(order: str, patches: bool) -> None:
    """Whoever asks first for a shared value must not decide what the others' gradients are."""
    model = Dual(patches=patches)
    batch = make_batch([9, None, 5, 12])
    need_scales = {"organ_contrast", "sentence_region", "word_patch"}
    names = set(OBJECTIVES.names()) - (need_scales if patches else {"masked_autoencoder"})
    objectives = {name: made(name, model)[1] for name in sorted(names, reverse=order == "reverse")}
    features = Features(model, batch)
    together = {
        part: loss for objective in objectives.values() for part, loss in objective(batch, features).items()
    }
    for objective in objectives.values():
        for part, loss in objective(batch, Features(model, batch)).items():
            torch.testing.assert_close(together[part], loss, msg=part)
            expected, found = gradients(model, loss), gradients(model, together[part])
            assert any(value is not None for value in expected.values()), part
            for weight, value in expected.items():
                assert (found[weight] is None) == (value is None), (part, weight)
                if value is not None:
                    torch.testing.assert_close(found[weight], value, rtol=1e-4, atol=1e-6, msg=part)
