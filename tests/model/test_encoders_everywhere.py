"""`primus` and `bert` in the rest of the system: the whole stage of pre-training, segmentation, the input's scale."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.config import parse
from components.base.files import sha256_folder
from components.encoders import from_pretrained
from components.encoders.vision import VISION
from components.pretraining.settings import Params
from tests.pretraining_support import PARAMS, context_at, write_cohort

PRIMUS = {"name": "primus", "patch": 4, "width": 24, "depth": 2, "heads": 2, "drop_path": 0.1, "levels": 3}
PRIMUS |= {"projection_dim": 16, "pool_heads": 4}
BERT = {"name": "bert", "hidden": 16, "layers": 1, "multimodal_layers": 1, "heads": 2, "ffn": 32}
BERT |= {"max_positions": 64, "pool_heads": 4}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "report_contrast": {},
    "sentence_region": {"dim": 8, "scale": 2},
    "word_patch": {"dim": 8, "scale": 1},
    "vision_contrast": {"dim": 8},
    "rotation": {},
    "inpainting": {},
    "masked_language": {},
    "image_text_matching": {},
    "multimodal_masked_language": {},
    "masked_autoencoder": {"width": 12},
}


def train(root: Path, vision: dict[str, Any]) -> dict[str, Any]:
    from components.pretraining import pretrain

    changes = {"vision": vision, "text": BERT, "embed_dim": 16, "objectives": OBJECTIVES, "num_steps": 6}
    return dict(pretrain.run(parse(Params, {**PARAMS, **changes}, "pretrain"), context_at(root)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("joint")
    write_cohort(root)
    metrics = train(root, PRIMUS)
    assert all(math.isfinite(value) for value in metrics.values())
    return root


def test_every_objective_trains_on_primus_and_bert(trained: Path) -> None:
    rows = [
        row.split(",") for row in (trained / "artifacts/pretrain/curves.csv").read_text().splitlines()[1:]
    ]
    for name in OBJECTIVES:
        values = [float(value) for _, key, value in rows if key == f"train.{name}"]
        assert len(values) == 6, name
        assert all(math.isfinite(value) for value in values), name


def test_the_trained_encoder_comes_back_with_maps(trained: Path) -> None:
    encoder = from_pretrained(trained / "artifacts/pretrain/encoder")
    assert encoder.vision.joint
    assert encoder.text.joint
    volume = torch.rand(1, 1, 32, 32, 32)
    assert encoder.zero_shot_maps(volume, ["A nodule on the left.", "No nodule."]).shape == (1, 2, 32, 32, 32)


def test_checkpointing_trains_the_same_encoder(trained: Path, tmp_path: Path) -> None:
    """Recomputed activations draw the same dropped paths, so the curves and weights are the same."""
    write_cohort(tmp_path)
    train(tmp_path, {**PRIMUS, "gradient_checkpointing": True})
    one, two = (from_pretrained(root / "artifacts/pretrain/encoder") for root in (trained, tmp_path))
    for (name, first), second in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, msg=name)


def test_the_same_run_gives_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    write_cohort(tmp_path)
    train(tmp_path, PRIMUS)
    assert sha256_folder(tmp_path / "artifacts") == sha256_folder(trained / "artifacts")


@pytest.mark.parametrize("levels", [1, 3])
def test_segmentation_on_primus(levels: int) -> None:
    from components.downstream.segmenter import Segmenter

    torch.manual_seed(0)
    kind = VISION.get("primus")
    values = {key: value for key, value in PRIMUS.items() if key != "name"}
    vision = kind(kind.Params(**{**values, "levels": levels}))
    network = Segmenter(vision, (32, 32, 32), ("heart", "liver"), width=4, full_resolution=False)
    logits = network(torch.rand(1, 1, 32, 32, 32))
    assert logits.shape == (1, 3, 32, 32, 32)
    logits.square().mean().backward()
    weight = network.vision.backbone.down_projection["proj"].weight
    assert weight.grad is not None
    assert weight.grad.abs().sum() > 0


def test_the_input_is_standardised_in_the_first_weights() -> None:
    from components.pretraining.initial import standardise_input

    torch.manual_seed(0)
    kind = VISION.get("primus")
    vision = kind(kind.Params(**{key: value for key, value in PRIMUS.items() if key != "name"})).eval()
    sample = 0.7 + 0.1 * torch.randn(4, 1, 16, 16, 16)
    with torch.no_grad():
        wanted = vision((sample - sample.mean()) / sample.std()).pooled
        mean, deviation = standardise_input(vision, sample)
        torch.testing.assert_close(vision(sample).pooled, wanted, atol=1e-4, rtol=1e-3)
    assert (mean, deviation) == pytest.approx((0.7, 0.1), abs=0.01)
