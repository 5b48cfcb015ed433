"""Lean window attention: the values and gradients of MONAI's, under the same names, in far less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets.swin_unetr import WindowAttention
from torch import Tensor

from components.encoders.vision import _window
from components.encoders.vision._window import LeanAttention


def attention(window: int, heads: int, seed: int = 0) -> WindowAttention:
    torch.manual_seed(seed)
    made = WindowAttention(6 * heads, num_heads=heads, window_size=(window,) * 3, qkv_bias=True)
    torch.nn.init.normal_(made.relative_position_bias_table, std=1.0)
    return made


def results(module: Any, x: Tensor, mask: Tensor | None) -> list[Tensor]:
    x = x.detach().clone().requires_grad_()
    y = module(x, mask)
    (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape).to(y)).sum().backward()
    found = [y.detach(), x.grad, *(value.grad for value in module.parameters())]
    module.zero_grad(set_to_none=True)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("window", "tokens"), [(3, 27), (3, 18), (2, 8)])
def test_values_and_gradients_are_monai_s(
    masked: bool, window: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks of one window and of several, a grid smaller than the window (fewer tokens), both paths."""
    source = torch.Generator().manual_seed(1)
    x = torch.randn((10, tokens, 12), generator=source)
    mask = (torch.rand((5, tokens, tokens), generator=source) < 0.3).float() * -100 if masked else None
    monai, lean = attention(window, 2), LeanAttention(attention(window, 2))
    assert monai.state_dict().keys() == lean.state_dict().keys()
    order = dict(lean.named_parameters())
    wanted = results(monai, x, mask)
    names = [name for name, _ in monai.named_parameters()]
    for least, cache in ((1 << 40, 1), (0, 1), (0, 3 * 2 * tokens * tokens * 4), (0, 1 << 30)):
        monkeypatch.setattr(_window, "LEAN_FROM_BYTES", least)
        monkeypatch.setattr(_window, "CACHE_BYTES", cache)
        found = results(lean, x, mask)
        found = found[:2] + [found[2 + list(order).index(name)] for name in names]
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-5)


def test_gradients_in_double_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "CACHE_BYTES", 1)
    source = torch.Generator().manual_seed(1)
    parts = [
        torch.randn(shape, generator=source, dtype=torch.float64, requires_grad=True)
        for shape in ((3, 2, 4, 3), (3, 2, 4, 3), (3, 2, 4, 3), (2, 4, 4))
    ]
    mask = torch.zeros(3, 4, 4, dtype=torch.float64)
    mask[1, 0, 2] = -100
    assert torch.autograd.gradcheck(lambda *args: _window._Lean.apply(*args, mask), parts)


def test_no_matrix_of_all_windows_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "LEAN_FROM_BYTES", 0)
    lean = LeanAttention(attention(3, 2))
    kept: list[int] = []

    def pack(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    x = torch.randn(64, 27, 12)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        lean(x, None)
    assert max(kept) <= 3 * x.numel()
    assert 64 * 2 * 27 * 27 not in kept


def test_half_precision_is_finite_and_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "LEAN_FROM_BYTES", 0)
    lean = LeanAttention(attention(3, 2))
    x = torch.randn((8, 27, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(4, 27, 27)
    mask[0, 0, 1:] = -100
    wanted = results(lean, x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = results(lean, x, mask)
    for one, two in zip(found, wanted, strict=True):
        assert bool(torch.isfinite(one).all())
        torch.testing.assert_close(one.float(), two, rtol=0.1, atol=0.15 * float(two.abs().max()))
