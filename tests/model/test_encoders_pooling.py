"""Pools: closed forms, padding, dense maps, and every encoder with every pool."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from components.base.errors import ConfigError
from components.encoders.pooling import AveragePool, LearnedQueriesPool, MeanQueryPool, make_pool
from components.encoders.text import TEXT
from components.encoders.vision import VISION

KINDS = ("average", "mean_query", "learned_queries")


def pool_of(kind: str, width: int = 12, heads: int = 3) -> nn.Module:
    torch.manual_seed(0)
    pool = make_pool(kind, width, heads)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return pool


def tokens(count: int = 7, rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, count, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", [*KINDS, "cls"])
def test_a_masked_pool_equals_the_pool_of_what_is_left(kind: str) -> None:
    pool, values = pool_of(kind), tokens()
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    found = pool(values, mask)
    for row, count in enumerate((7, 4, 1)):
        torch.testing.assert_close(found[row], pool(values[row : row + 1, :count])[0])
    values[1, 4:], values[2, 1:] = 1e4, -1e4
    torch.testing.assert_close(pool(values, mask), found)


def test_a_row_without_tokens_is_finite_with_its_gradient() -> None:
    pool, values = pool_of("mean_query"), tokens().requires_grad_()
    found = pool(values, torch.zeros(3, 7))
    torch.testing.assert_close(found, pool(values))
    found.sum().backward()
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("kind", ["mean_query", "learned_queries"])
def test_attention_is_torchs_own(kind: str) -> None:
    pool, values = pool_of(kind), tokens()
    mask = torch.tensor([[True] * 5 + [False] * 2] * 3)
    query = values[:, :5].mean(1, keepdim=True) if kind == "mean_query" else pool.query.expand(3, -1, -1)
    wanted, _ = pool.attn(query, values, values, key_padding_mask=~mask)
    torch.testing.assert_close(pool(values, mask), wanted.mean(1))


@pytest.mark.parametrize("kind", KINDS)
def test_dense_is_the_pool_of_one_position_alone(kind: str) -> None:
    pool = pool_of(kind)
    grid = torch.randn(2, 12, 2, 3, 4, generator=torch.Generator().manual_seed(2))
    dense = pool.to_dense(grid)
    assert dense.shape == grid.shape
    for x, y, z in ((0, 0, 0), (1, 2, 3), (1, 0, 2)):
        torch.testing.assert_close(dense[:, :, x, y, z], pool(grid[:, :, x, y, z][:, None]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_is_its_positions(kind: str) -> None:
    pool = pool_of(kind)
    grid = torch.randn(2, 12, 2, 3, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(pool.of_grid(grid), pool(grid.flatten(2).transpose(1, 2)))
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    shuffled = grid.flatten(2)[:, :, order].view(grid.shape)
    torch.testing.assert_close(pool.of_grid(shuffled), pool.of_grid(grid))


def test_sizes_of_colipris_pools() -> None:
    with torch.device("meta"):
        pools = {kind: make_pool(kind, 768, 12) for kind in KINDS}
    counts = {kind: sum(p.numel() for p in pool.parameters()) for kind, pool in pools.items()}
    assert counts == {"average": 0, "mean_query": 2_362_368, "learned_queries": 2_362_368 + 4 * 768}
    assert isinstance(pools["average"], AveragePool)
    assert isinstance(pools["mean_query"], MeanQueryPool)
    assert isinstance(pools["learned_queries"], LearnedQueriesPool)


@pytest.mark.parametrize("arguments", [("mean_query", 10, 3), ("max", 12, 3), ("learned_queries", 12, 0)])
def test_pools_that_do_not_exist_are_refused(arguments: tuple[str, int, int]) -> None:
    with pytest.raises(ConfigError, match="pooling"):
        make_pool(*arguments)


@pytest.mark.parametrize("pooling", KINDS)
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("swin", {"patch": 4, "window": 4, "embed_dim": 4, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2)}),
        ("resnet", {"width": 8, "blocks": (1, 1, 1, 1), "norm_groups": 4}),
        ("primus", {"patch": 8, "width": 24, "depth": 1, "heads": 2, "projection_dim": 16}),
    ],
)
def test_every_vision_encoder_takes_every_pool(name: str, sizes: dict, pooling: str) -> None:
    kind = VISION.get(name)
    encoder = kind(kind.Params(**sizes, pooling=pooling, pool_heads=4)).eval()
    features = encoder(torch.rand(2, 1, 32, 32, 32))
    assert features.pooled.shape == (2, encoder.embed_dim)
    torch.testing.assert_close(encoder.pool(features.scales), features.pooled)
    assert encoder.dense(features.scales).shape[1] == encoder.embed_dim
    features.pooled.sum().backward()
    assert all(p.grad is not None for p in encoder.pooling.parameters())


@pytest.mark.parametrize("pooling", ["cls", *KINDS])
@pytest.mark.parametrize("name", ["tribert", "bert"])
def test_every_text_encoder_takes_every_pool(name: str, pooling: str) -> None:
    from components.encoders.features import TextBatch
    from components.encoders.tokenization import ReportTokenizer

    tokenizer = ReportTokenizer.train(["no effusion. heart normal."], 90, max_length=32)
    kind = TEXT.get(name)
    sizes = {"hidden": 16, "layers": 1, "heads": 2, "ffn": 32, "max_positions": 32}
    encoder = kind(kind.Params(**sizes, pooling=pooling, pool_heads=4), tokenizer.vocab_size).eval()
    encoder.bind(tokenizer)
    reports = [["no effusion.", "heart normal."], ["heart"]]
    short, long = (TextBatch.from_arrays(tokenizer.encode(reports, pad_to=n)) for n in (None, 30))
    torch.testing.assert_close(encoder(short).report, encoder(long).report, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.report(short), encoder(short).report)
    assert encoder.report(short).shape == (2, 16)
