"""Primus: sizes, positions, dropped patches, levels, windows, and what the rest of the system asks of an encoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from components.base.config import parse
from components.base.errors import ConfigError
from components.encoders.dense import windowed
from components.encoders.eva import rotary_table, rotate
from components.encoders.vision import VISION
from components.encoders.vision.primus import PrimusEncoder, PrimusParams, halved

SMALL = {"patch": 4, "width": 24, "depth": 2, "heads": 2, "projection_dim": 16, "pool_heads": 4}


def small(seed: int = 0, **changes: object) -> PrimusEncoder:
    torch.manual_seed(seed)
    encoder = VISION.get("primus")(PrimusParams(**{**SMALL, **changes})).eval()
    with torch.no_grad():  # attention that is not flat, branches that count
        for name, parameter in encoder.named_parameters():
            if "gamma" in name:
                parameter.fill_(1.0)
            elif parameter.ndim > 1:
                parameter.mul_(5)
    return encoder


def volumes(*size: int, count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(16, 16, 16), (8, 16, 24), (4, 4, 4)])
def test_one_grid_of_tokens_and_a_pooled_vector(size: tuple[int, int, int]) -> None:
    features = small()(volumes(*size))
    assert [tuple(scale.shape) for scale in features.scales] == [(2, 24, *(side // 4 for side in size))]
    assert features.pooled.shape == (2, 16)
    assert (small().channels, small().embed_dim, small().joint) == ((24,), 16, True)


def test_levels_are_means_of_the_finest() -> None:
    encoder = small(levels=4)
    scales = encoder(volumes(24, 16, 16)).scales
    assert [tuple(scale.shape[2:]) for scale in scales] == [(6, 4, 4), (3, 2, 2), (2, 1, 1), (1, 1, 1)]
    assert encoder.channels == (24,) * 4
    torch.testing.assert_close(scales[1][:, :, 0, 0, 0], scales[0][:, :, :2, :2, :2].mean((2, 3, 4)))
    torch.testing.assert_close(scales[2][:, :, 1, 0, 0], scales[1][:, :, 2].mean((2, 3)))
    for size in ((6, 4, 4), (5, 3, 1), (1, 1, 2)):
        grid = torch.rand(2, 3, *size)
        step = [min(2, side) for side in size]
        wanted = torch.nn.functional.avg_pool3d(grid, step, ceil_mode=True, count_include_pad=False)
        torch.testing.assert_close(halved(grid), wanted)
    torch.testing.assert_close(small()(volumes(24, 16, 16)).pooled, encoder(volumes(24, 16, 16)).pooled)


def test_without_projector_the_tokens_are_pooled() -> None:
    encoder = small(projection_dim=None, pooling="average")
    features = encoder(volumes(16, 16, 16))
    assert (encoder.embed_dim, encoder.joint) == (24, False)
    torch.testing.assert_close(features.pooled, features.scales[0].mean((2, 3, 4)))


def test_patches_are_counted_in_c_order() -> None:
    """A changed voxel changes the patch of its place alone, before the blocks mix them."""
    encoder, volume = small(), volumes(8, 12, 16, count=1)
    before = encoder.backbone.down_projection["proj"](volume).flatten(2)
    volume[0, 0, 5, 9, 2] += 1  # patch (1, 2, 0) of a grid (2, 3, 4)
    after = encoder.backbone.down_projection["proj"](volume).flatten(2)
    changed = (before != after).any(1)[0].nonzero().flatten().tolist()
    assert changed == [(1 * 3 + 2) * 4 + 0]


def test_rotary_angles_by_a_slow_loop() -> None:
    grid, head_dim = (2, 3, 4), 12
    sine, cosine = rotary_table(grid, head_dim, torch.device("cpu"))
    number = 0
    for x in range(grid[0]):
        for y in range(grid[1]):
            for z in range(grid[2]):
                angles = [place * 10_000 ** (-band / 2) for place in (x, y, z) for band in range(2)]
                for pair, angle in enumerate(angles):
                    for channel in (2 * pair, 2 * pair + 1):
                        assert float(sine[number, channel]) == pytest.approx(math.sin(angle), abs=1e-6)
                        assert float(cosine[number, channel]) == pytest.approx(math.cos(angle), abs=1e-6)
                number += 1


def test_rotation_keeps_lengths_and_makes_products_relative() -> None:
    table = rotary_table((5, 5, 5), 12, torch.device("cpu"))
    query, key = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    turned = [rotate(vector.expand(125, 12), table) for vector in (query, key)]
    torch.testing.assert_close(turned[0].norm(dim=1), query.norm().expand(125))
    at = [(x * 5 + y) * 5 + z for x, y, z in ((1, 2, 3), (0, 4, 1), (3, 2, 4), (2, 4, 2))]
    one = turned[0][at[0]] @ turned[1][at[1]]  # both pairs lie (1, -2, 2) apart
    two = turned[0][at[2]] @ turned[1][at[3]]
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert not torch.isclose(one, turned[0][at[0]] @ turned[1][at[3]], atol=1e-3)


def test_positions_matter_and_every_axis_has_its_own() -> None:
    encoder, volume = small(), volumes(8, 8, 8, count=1)
    same = torch.ones(1, 1, 8, 8, 8)
    assert (encoder(same).scales[0].std((2, 3, 4)) < 1e-5).all(), (
        "equal patches, equal tokens: no absolute position"
    )
    for axes in ((2, 3), (3, 4), (2, 4)):
        turned = encoder(volume.transpose(*axes)).pooled
        assert not torch.allclose(turned, encoder(volume).pooled, atol=1e-3)


@pytest.mark.parametrize("kept", [64, 16, 1])
def test_dropped_patches_are_never_seen_and_the_rest_keep_their_places(kept: int) -> None:
    """P18: a non-symmetric pattern on a grid with three different sides."""
    encoder, volume = small(), volumes(8, 16, 32, count=3)
    source = torch.Generator().manual_seed(2)
    keep = torch.stack([torch.randperm(64, generator=source)[:kept].sort().values for _ in range(3)])
    with torch.no_grad():
        found = encoder.visible(volume, keep)
        noise = volumes(8, 16, 32, count=3, seed=9)
        hidden = torch.ones(3, 64, dtype=torch.bool).scatter(1, keep, False).view(3, 1, 2, 4, 8)
        for axis in (2, 3, 4):
            hidden = hidden.repeat_interleave(4, dim=axis)
        torch.testing.assert_close(encoder.visible(torch.where(hidden, noise, volume), keep), found)
        if kept < 64:
            other = encoder.visible(torch.where(hidden, volume, noise), keep)
            assert not torch.allclose(other, found, atol=1e-2)
    assert found.shape == (3, kept, 24)


def test_dropping_equals_attention_over_what_is_left() -> None:
    """By hand: every block on the kept tokens alone, each turned by its own patch's place."""
    encoder, volume = small(), volumes(8, 12, 16, count=1)
    keep = torch.tensor([[1, 5, 6, 13, 22]])
    tokens = encoder.backbone.down_projection["proj"](volume).flatten(2).transpose(1, 2)[:, keep[0]]
    table = rotary_table((2, 3, 4), 12, torch.device("cpu"))[:, keep[0]]
    for block in encoder.backbone.eva.blocks:
        tokens = block(tokens, table)
    torch.testing.assert_close(encoder.visible(volume, keep), encoder.backbone.eva.norm(tokens))
    everything = encoder.visible(volume, torch.arange(24)[None])
    torch.testing.assert_close(everything, encoder(volume).scales[0].flatten(2).transpose(1, 2))


def test_a_batch_equals_its_single_volumes() -> None:
    encoder, batch = small(), volumes(16, 16, 16, count=3)
    with torch.no_grad():
        together = encoder(batch).pooled
        single = torch.cat([encoder(volume[None]).pooled for volume in batch])
    torch.testing.assert_close(together, single, atol=1e-4, rtol=1e-4)


def test_a_single_window_is_the_direct_way_and_windows_do_not_see_each_other() -> None:
    encoder, volume = small(levels=2), volumes(16, 8, 24, count=1)
    direct = encoder(volume)
    one = windowed(encoder, volume, (16, 8, 24))
    assert torch.equal(one.pooled, direct.pooled)
    assert all(torch.equal(a, b) for a, b in zip(one.scales, direct.scales, strict=True))
    parts = windowed(encoder, volume, (8, 8, 8))
    torch.testing.assert_close(parts.scales[0][:, :, 2:, :, 4:], encoder(volume[:, :, 8:, :, 16:]).scales[0])
    torch.testing.assert_close(parts.pooled, encoder.pool(parts.scales))
    with pytest.raises(ConfigError, match="16x8x24"):
        windowed(encoder, volume, (16, 8, 16))


def test_drop_path_grows_to_the_last_block_and_rests_in_evaluation() -> None:
    encoder = small(depth=5, drop_path=0.2)
    rates = [block.drop_path.rate for block in encoder.backbone.eva.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    volume = volumes(8, 8, 8)
    assert torch.equal(encoder(volume).pooled, encoder(volume).pooled)
    encoder = small(depth=2, drop_path=0.9).train()
    assert not torch.equal(encoder(volume).pooled, encoder(volume).pooled)
    layer = encoder.backbone.eva.blocks[1].drop_path
    torch.manual_seed(0)
    dropped = layer(torch.ones(20_000, 2))
    assert dropped.unique().tolist() == pytest.approx([0, 10])
    assert float(dropped.mean()) == pytest.approx(1, abs=0.1)
    assert (dropped[:, 0] == dropped[:, 1]).all(), "a row drops as a whole"


def test_checkpointing_gives_the_same_gradients() -> None:
    volume = volumes(8, 8, 8)
    gradients = []
    for saving in (False, True):
        encoder = small(gradient_checkpointing=saving, drop_path=0.0).train()
        encoder(volume).pooled.square().sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters()})
    for name, one in gradients[0].items():
        assert one is not None, name
        torch.testing.assert_close(one, gradients[1][name], msg=name)


def test_a_start_like_the_papers() -> None:
    torch.manual_seed(0)
    encoder = PrimusEncoder(PrimusParams(**{**SMALL, "width": 96, "heads": 4, "depth": 4}))
    blocks = encoder.backbone.eva.blocks
    assert [round(float(b.attn.q_proj.weight.std()), 3) for b in blocks] == [0.02] * 4
    for number, block in enumerate(blocks, 1):
        assert float(block.mlp.fc2.weight.std()) == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.05)
        assert (block.gamma_1 == 0.1).all()
    assert encoder.backbone.eva.blocks[0].attn.k_proj.bias is None
    assert not encoder.backbone.eva.blocks[0].attn.q_proj.bias.any()


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="18x16x16"):
        small()(volumes(18, 16, 16))
    with pytest.raises(ConfigError, match="18x16x16"):
        small().visible(volumes(18, 16, 16), torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[B, 1, X, Y, Z\]"):
        small()(torch.rand(2, 3, 8, 8, 8))
    with pytest.raises(ConfigError, match="multiple of 6"):
        parse(PrimusParams, {"width": 20, "heads": 2}, "vision")
    with pytest.raises(ConfigError, match="pooling"):
        small(pool_heads=5)


def test_bf16_is_finite_and_near() -> None:
    encoder, volume = small(), volumes(16, 16, 16)
    with torch.no_grad():
        exact = encoder(volume).pooled
        with torch.autocast("cpu", torch.bfloat16):
            near = encoder(volume).pooled
    assert torch.isfinite(near).all()
    assert torch.nn.functional.cosine_similarity(exact, near.float()).min() > 0.99
