"""The floor without learning: histogram and coarse grid, exact, and usable wherever an encoder is."""

from __future__ import annotations

import pytest
import torch

from components.base.config import parse
from components.base.errors import ConfigError
from components.encoders.vision import VISION
from components.encoders.vision.intensity import IntensityEncoder, IntensityParams


def test_features_are_shares_above_thresholds_and_means_of_cells() -> None:
    encoder = IntensityEncoder(IntensityParams(bins=3, grid=2))
    volume = torch.zeros(2, 1, 4, 4, 4)
    volume[0, 0, :2] = 0.6  # half of the voxels: above 0.25 and 0.5, not above 0.75
    volume[1] = 1.0
    pooled = encoder(volume).pooled
    assert torch.equal(pooled[0, :3], torch.tensor([0.5, 0.5, 0.0]))
    assert torch.equal(pooled[1], torch.ones(3 + 8))
    assert torch.allclose(pooled[0, 3:], torch.tensor([0.6] * 4 + [0.0] * 4))


def test_it_is_an_encoder_like_any_other() -> None:
    encoder = VISION.get("intensity")(IntensityParams(bins=5, grid=4))
    assert list(encoder.parameters()) == []
    found = encoder(torch.rand(3, 1, 16, 24, 32))
    assert found.pooled.shape == (3, encoder.embed_dim)
    assert [tuple(scale.shape) for scale in found.scales] == [(3, 1, 4, 4, 4)]
    alone = encoder(torch.rand(3, 1, 16, 24, 32)[:1])
    assert alone.pooled.shape == (1, encoder.embed_dim)


def test_bad_input_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="volume batch"):
        IntensityEncoder(IntensityParams())(torch.zeros(2, 2, 8, 8, 8))
    with pytest.raises(ConfigError, match="high must be above low"):
        parse(IntensityParams, {"low": 1.0, "high": 0.0}, "pretrain.vision")
