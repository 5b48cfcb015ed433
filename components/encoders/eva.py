"""EVA-02 blocks on 3D patches with rotary positions: what Primus is made of.

Source: Fang et al. 2023 (EVA-02, arXiv:2303.11331), Wald et al. 2025 (Primus, arXiv:2503.01835). Weights have the
names and the arithmetic of `dynamic-network-architectures` 0.4.4, so that released weights fit. That package
itself is not used: it needs timm and so torchvision, whose wheels do not load beside a CPU build of torch, and with
the timm that it asks for its dropping of patches raises a `TypeError`.

Patches are counted in C order of [X, Y, Z] everywhere: number = (x * Y + y) * Z + z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEMPERATURE = 10_000.0
AXES = 3


def rotary_table(grid: Sequence[int], head_dim: int, device: torch.device) -> Tensor:
    """float32 [2, N, head_dim]: sine and cosine of every patch of `grid`.

    A third of the head's pairs of channels turns with each axis, the position counted in patches: a larger grid
    than that of training goes on counting. `head_dim` is a multiple of 6.
    """
    bands = head_dim // (2 * AXES)
    steps = torch.arange(bands, device=device, dtype=torch.float32) / bands
    rates = TEMPERATURE**-steps
    axes = [torch.arange(side, device=device, dtype=torch.float32) for side in grid]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    angles = (places[:, :, None] * rates).flatten(1).repeat_interleave(2, dim=1)
    return torch.stack([angles.sin(), angles.cos()])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn pairs of neighbouring channels: x [B, heads, N, D], table [2, N, D] or [2, B, 1, N, D]."""
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return (x * table[1] + turned * table[0]).type_as(x)


class DropPath(nn.Module):
    """In training, leaves a residual branch out of some rows and scales it up in the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, ...]."""
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty((len(x), *[1] * (x.ndim - 1))).bernoulli_(1 - self.rate)
        return x * kept / (1 - self.rate)


class Attention(nn.Module):
    """Self-attention with rotary positions and a layer norm before its output; the key has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """x [B, N, C] and the rotary table of its tokens -> [B, N, C]."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = F.scaled_dot_product_attention(rotate(query, table), rotate(key, table), value)
        return self.proj(self.norm(found.transpose(1, 2).flatten(2)))


class SwiGlu(nn.Module):
    """Gated feed-forward with a layer norm inside."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = nn.Linear(width, hidden)
        self.fc1_x = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, C] -> [B, N, C]."""
        return self.fc2(self.norm(F.silu(self.fc1_g(x)) * self.fc1_x(x)))


class EvaBlock(nn.Module):
    """x += g1 * attention(norm(x)); x += g2 * feed-forward(norm(x))."""

    def __init__(
        self, width: int, heads: int, mlp_ratio: float, layer_scale: float, drop_path: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.gamma_1 = nn.Parameter(torch.full((width,), layer_scale))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = SwiGlu(width, round(width * mlp_ratio))
        self.gamma_2 = nn.Parameter(torch.full((width,), layer_scale))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        """x [B, N, C] and the rotary table of its tokens -> [B, N, C]."""
        x = x + self.drop_path(self.gamma_1 * self.attn(self.norm1(x), table))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class Eva(nn.Module):
    """A stack of blocks, the rate of dropped paths growing linearly to the last, and a layer norm."""

    def __init__(
        self,
        width: int,
        depth: int,
        heads: int,
        *,
        mlp_ratio: float = 8 / 3,
        layer_scale: float = 0.1,
        drop_path: float = 0.0,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.head_dim, self.checkpointing = width // heads, checkpointing
        rates = [drop_path * number / max(1, depth - 1) for number in range(depth)]
        self.blocks = nn.ModuleList(EvaBlock(width, heads, mlp_ratio, layer_scale, rate) for rate in rates)
        self.norm = nn.LayerNorm(width)
        self._initialise()

    def _initialise(self) -> None:
        """Normal with deviation 0.02; what is added to the residual stream shrinks with the depth."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for number, block in enumerate(self.blocks, 1):
                for layer in (block.attn.proj, block.mlp.fc2):  # type: ignore[union-attr]
                    layer.weight.div_(math.sqrt(2.0 * number))  # type: ignore[union-attr,operator]

    def forward(self, x: Tensor, grid: Sequence[int], keep: Tensor | None = None) -> Tensor:
        """Tokens [B, N, C] of a grid -> [B, N, C]; with `keep` int64 [B, K], x are those K patches alone.

        In training with `checkpointing` the activations of each block are computed again in the backward pass.
        """
        table = rotary_table(grid, self.head_dim, x.device)
        if keep is not None:
            table = table[:, keep][:, :, None]
        for block in self.blocks:
            if self.checkpointing and self.training and torch.is_grad_enabled():
                from torch.utils.checkpoint import checkpoint

                x = checkpoint(block, x, table, use_reentrant=False)
            else:
                x = block(x, table)
        return self.norm(x)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows of their own for every row of a batch: tokens [B, N, C], index int64 [B, K] -> [B, K, C]."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
