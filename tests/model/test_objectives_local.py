"""The local contrast of sentences and regions, of words and patches: value, gradient, masks, chunks."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from components.base.errors import ConfigError
from components.objectives import OBJECTIVES, _local
from components.objectives._local import LocalParams, diagonal_loss, local_similarity
from components.pretraining.features import Features
from tests.objectives_support import Dual, make_batch


def sample(num_volumes: int, lengths: list[int], seed: int = 0) -> tuple[torch.Tensor, ...]:
    source = torch.Generator().manual_seed(seed)
    regions = torch.randn((num_volumes, 6, 4), generator=source, dtype=torch.float64)
    tokens = torch.randn((len(lengths), max(lengths), 4), generator=source, dtype=torch.float64)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return regions, tokens, mask


def slow(regions: torch.Tensor, tokens: list[torch.Tensor], params: LocalParams) -> torch.Tensor:
    """The formula of the paper, one pair and one token at a time, without padding."""
    result = torch.zeros(len(regions), len(tokens), dtype=torch.float64)
    for b, volume in enumerate(regions):
        v = [row / row.norm() for row in volume]
        for i, report in enumerate(tokens):
            t = [row / row.norm() for row in report]
            a = []
            for region in v:
                powers = [math.exp(float(region @ token) / params.attention_temperature) for token in t]
                a.append([power / sum(powers) for power in powers])
            total = 0.0
            for k, token in enumerate(t):
                w = [math.exp(params.region_sharpness * row[k]) for row in a]
                context = sum(share / sum(w) * region for share, region in zip(w, v, strict=True))
                cosine = float(context @ token) / float(context.norm() * token.norm())
                total += math.exp(params.token_sharpness * cosine)
            if params.aggregation == "mean":
                total /= len(t)
            result[b, i] = params.logit_scale * math.log(total)
    return result


@pytest.mark.parametrize("temperature", [1.0, 0.1])
@pytest.mark.parametrize("aggregation", ["sum", "mean"])
def test_similarity_equals_the_slow_loop(aggregation: str, temperature: float) -> None:
    lengths = [3, 1, 5]
    regions, tokens, mask = sample(4, lengths)
    params = LocalParams(scale=0, aggregation=aggregation, attention_temperature=temperature)
    expected = slow(regions, [row[:n] for row, n in zip(tokens, lengths, strict=True)], params)
    torch.testing.assert_close(
        local_similarity(regions, tokens, mask, params), expected, rtol=1e-9, atol=1e-9
    )


def test_padding_contributes_nothing() -> None:
    regions, tokens, mask = sample(3, [3, 2, 4])
    params = LocalParams(scale=0)
    before = local_similarity(regions, tokens, mask, params)
    padded = F.pad(tokens, [0, 0, 0, 5], value=9.0)
    after = local_similarity(regions, padded, F.pad(mask, [0, 5]), params)
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_gradient(temperature: float) -> None:
    regions, tokens, mask = sample(2, [2, 3])
    regions.requires_grad_()
    tokens.requires_grad_()
    params = LocalParams(scale=0, attention_temperature=temperature)
    loss = lambda r, t: diagonal_loss(local_similarity(r, t, mask, params))  # noqa: E731
    assert torch.autograd.gradcheck(loss, (regions, tokens))


def test_chunks_give_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    regions, tokens, mask = sample(5, [2, 3, 4, 1, 2])
    params = LocalParams(scale=0)
    results = []
    for limit in (1 << 26, 1, 1 << 6):
        monkeypatch.setitem(_local.MAX_ELEMENTS, "cpu", limit)
        r, t = regions.clone().requires_grad_(), tokens.clone().requires_grad_()
        value = diagonal_loss(local_similarity(r, t, mask, params))
        value.backward()
        results.append((value.detach(), r.grad, t.grad))
    for whole, *parts in zip(*results, strict=True):
        for part in parts:
            torch.testing.assert_close(part, whole)


def test_a_low_attention_temperature_finds_the_region_that_equals_the_word() -> None:
    source = torch.Generator().manual_seed(0)
    words = F.normalize(torch.randn((1, 150, 64), generator=source, dtype=torch.float64), dim=-1)
    regions = F.normalize(torch.randn((1, 64, 64), generator=source, dtype=torch.float64), dim=-1)
    regions[0, 5] = words[0, 7]
    mask = torch.ones(1, 150, dtype=torch.bool)
    ratios = {}
    for temperature in (1.0, 0.1):
        params = LocalParams(scale=0, attention_temperature=temperature)
        attention = F.softmax(regions[0] @ words[0].T / temperature, dim=-1)[:, 7]
        weights = (params.region_sharpness * attention).softmax(0)
        ratios[temperature] = float(weights[5] / weights.median())
        expected = F.normalize(weights @ regions[0], dim=-1) @ words[0, 7]
        found = _local._Match.apply(regions, words[0], mask, params)[0, 7]
        torch.testing.assert_close(found, expected)
    assert ratios[1.0] < 1.1 < 20 < ratios[0.1]


def test_equal_similarities_give_log_b_and_sum_favours_long_reports() -> None:
    assert float(diagonal_loss(torch.full((7, 7), 3.0))) == pytest.approx(math.log(7))
    token = torch.randn(1, 1, 4, dtype=torch.float64)
    regions = torch.randn(2, 6, 4, dtype=torch.float64)
    short, mask = token, torch.ones(1, 1, dtype=torch.bool)
    long, long_mask = token.repeat(1, 2, 1), torch.ones(1, 2, dtype=torch.bool)
    gains = {}
    for aggregation in ("sum", "mean"):
        params = LocalParams(scale=0, region_sharpness=1e-9, aggregation=aggregation)
        gain = local_similarity(regions, long, long_mask, params) - local_similarity(
            regions, short, mask, params
        )
        gains[aggregation] = float(gain.mean())
    assert gains["sum"] == pytest.approx(10 * math.log(2), rel=1e-6)
    assert gains["mean"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["sentence_region", "word_patch"])
def test_reports_without_tokens_are_left_out_with_their_volumes(name: str) -> None:
    """P5: a row without positives changes nothing and makes no NaN."""
    model, kind = Dual(), OBJECTIVES.get(name)
    objective = kind(kind.Params(dim=8), model)
    batch = make_batch([4, 6, 3])
    with_empty = make_batch([4, 6, 3, 0])
    with_empty["volume"][:3], with_empty["text"].input_ids[:3] = batch["volume"], batch["text"].input_ids
    with_empty["text"].token_type_ids[3] = 0
    values = [float(objective(b, Features(model, b))[name].detach()) for b in (batch, with_empty)]
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    for lengths in ([4], [4, None], [None]):
        few = make_batch(lengths)
        assert objective(few, Features(model, few)) == {}


def test_a_scale_that_the_encoder_lacks_is_a_config_error() -> None:
    kind = OBJECTIVES.get("word_patch")
    with pytest.raises(ConfigError, match="5 scales"):
        kind(kind.Params(scale=5), Dual())


def test_paper_s_defaults() -> None:
    sentence, word = (OBJECTIVES.get(name).Params() for name in ("sentence_region", "word_patch"))
    assert (sentence.scale, word.scale) == (3, 2)
    for params in (sentence, word):
        assert (params.region_sharpness, params.token_sharpness, params.logit_scale) == (4, 5, 10)
        assert (params.aggregation, params.dim, params.weight) == ("sum", 512, 1)
