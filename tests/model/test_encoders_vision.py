"""The vision encoders: shapes, sizes, odd grids, normalisation, checkpointing, parameters."""

from __future__ import annotations

import pytest
import torch

from components.base.config import parse
from components.base.errors import ConfigError
from components.encoders.vision import VISION
from components.encoders.vision.swin import SwinEncoder, SwinParams

SMALL = {"patch": 2, "window": 4, "embed_dim": 8, "depths": (2, 2, 2, 2), "heads": (2, 2, 4, 4)}


def small(**changes: object) -> SwinEncoder:
    torch.manual_seed(0)
    return SwinEncoder(SwinParams(**{**SMALL, **changes})).eval()


def test_scales_of_velvet_at_96() -> None:
    encoder = small(embed_dim=4, window=7, heads=(1, 1, 2, 2))
    with torch.no_grad():
        features = encoder(torch.rand(1, 1, 96, 96, 96))
    shapes = [tuple(scale.shape[1:]) for scale in features.scales]
    assert shapes == [(4, 48, 48, 48), (8, 24, 24, 24), (16, 12, 12, 12), (32, 6, 6, 6), (64, 3, 3, 3)]
    assert encoder.channels == (4, 8, 16, 32, 64)
    assert encoder.embed_dim == 64
    torch.testing.assert_close(features.pooled, features.scales[-1].mean((2, 3, 4)))


def test_defaults_are_velvets_22_85_million_parameters() -> None:
    encoder = VISION.get("swin")(SwinParams())
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2) == 22.85
    assert encoder.channels == (48, 96, 192, 384, 768)


@pytest.mark.parametrize("size", [(32, 32, 32), (36, 44, 52), (33, 40, 47)])
def test_any_size_works_with_odd_grids(size: tuple[int, int, int]) -> None:
    encoder = small()
    features = encoder(torch.rand(2, 1, *size))
    grid = [-(-side // 2) for side in size]
    for scale in features.scales:
        assert tuple(scale.shape[2:]) == tuple(grid)
        assert torch.isfinite(scale).all()
        grid = [-(-side // 2) for side in grid]


def test_scales_are_layer_normed_without_affine() -> None:
    features = small()(torch.rand(1, 1, 32, 32, 32))
    for scale in features.scales:
        torch.testing.assert_close(scale.mean(1), torch.zeros_like(scale[:, 0]), atol=1e-5, rtol=0)
        assert (scale.var(1, unbiased=False) - 1).abs().median() < 0.1


@pytest.mark.parametrize(("size", "window"), [((32, 32, 32), 4), ((36, 44, 52), 4), ((24, 40, 32), 7)])
def test_stages_give_monais_output(size: tuple[int, int, int], window: int) -> None:
    from monai.networks.nets.swin_unetr import SwinTransformer

    encoder = small(window=window)
    reference = SwinTransformer(
        1, 8, (window,) * 3, (2,) * 3, SMALL["depths"], SMALL["heads"], downsample="merging"
    ).eval()
    reference.load_state_dict(encoder.backbone.state_dict(), strict=True)
    volume = torch.rand(2, 1, *size)
    with torch.no_grad():
        for one, two in zip(encoder(volume).scales, reference(volume, normalize=True), strict=True):
            assert torch.equal(one, two)


def test_a_batch_equals_its_single_volumes() -> None:
    encoder, volumes = small(), torch.rand(3, 1, 32, 32, 32)
    with torch.no_grad():
        together = encoder(volumes).pooled
        single = torch.cat([encoder(volume[None]).pooled for volume in volumes])
    torch.testing.assert_close(together, single, atol=1e-5, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_checkpointing_gives_the_same_gradients_and_only_trains() -> None:
    plain, saving = small(patch=4).train(), small(patch=4, gradient_checkpointing=True).train()
    volume = torch.rand(1, 1, 32, 32, 32)
    for encoder in (plain, saving):
        sum(scale.square().mean() for scale in encoder(volume).scales[:1]).backward()
        encoder(volume).pooled.square().sum().backward()
    for (name, one), two in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-5, rtol=1e-4, msg=name)
    flags = [m.use_checkpoint for m in saving.modules() if hasattr(m, "use_checkpoint")]
    assert flags
    assert all(flags)
    saving.eval()
    assert not any(m.use_checkpoint for m in saving.modules() if hasattr(m, "use_checkpoint"))


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B, 1, X, Y, Z\]"):
        small()(torch.rand(2, 3, 32, 32, 32))


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vision\.wndow"):
        parse(SwinParams, {"wndow": 3}, "vision")
    with pytest.raises(ConfigError, match="stage 1"):
        parse(SwinParams, {"embed_dim": 10}, "vision")
    with pytest.raises(ConfigError, match="depths"):
        parse(SwinParams, {"depths": [2, 2]}, "vision")


def test_subset_keeps_rows_in_order() -> None:
    features = small()(torch.rand(3, 1, 32, 32, 32))
    chosen = features.subset([2, 0])
    assert torch.equal(chosen.pooled, features.pooled[[2, 0]])
    assert all(torch.equal(a, b[[2, 0]]) for a, b in zip(chosen.scales, features.scales, strict=True))


@pytest.mark.parametrize("size", [(32, 32, 32), (33, 40, 64)])
def test_resnet_has_five_scales_and_treats_volumes_alone(size: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    kind = VISION.get("resnet")
    encoder = kind(kind.Params(width=8, blocks=(1, 1, 1, 1), norm_groups=4)).train()
    volumes = torch.rand(2, 1, *size)
    features = encoder(volumes)
    assert tuple(scale.shape[1] for scale in features.scales) == encoder.channels == (8, 8, 16, 32, 64)
    grid = size
    for scale in features.scales:
        grid = tuple(-(-side // 2) for side in grid)
        assert tuple(scale.shape[2:]) == grid
    torch.testing.assert_close(encoder(volumes[1:]).pooled[0], features.pooled[1], atol=1e-5, rtol=1e-4)
    features.pooled.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())
    with pytest.raises(ConfigError, match="norm_groups"):
        parse(kind.Params, {"width": 6}, "vision")
