"""Transformer layers in BERT's form (normalisation after each sum), with optional cross-attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, L, H] -> [B, heads, L, H / heads]."""
    batch, length, hidden = x.shape
    return x.view(batch, length, heads, hidden // heads).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention with its output projection; queries from x, keys and values from `source`."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, source: Tensor, allowed: Tensor | None) -> Tensor:
        """x [B, L, H], source [B, N, H], allowed bool [B, 1, L, N] or None for all -> [B, L, H]."""
        query = _split(self.query(x), self.heads)
        key, value = (_split(part, self.heads) for part in self.key_value(source).chunk(2, dim=-1))
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=allowed, dropout_p=self.dropout if self.training else 0.0
        )
        return self.output(mixed.transpose(1, 2).flatten(2))


class Residual(nn.Module):
    """norm(x + dropout(y)): what follows every part of a layer."""

    def __init__(self, hidden: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden, eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two [B, L, H] -> [B, L, H]."""
        return self.norm(x + self.dropout(y))


class Layer(nn.Module):
    """Self-attention, cross-attention where asked for, feed-forward."""

    def __init__(
        self,
        hidden: int,
        heads: int,
        ffn: int,
        dropout: float,
        eps: float,
        cross: bool = False,
        ffn_chunk: int = 0,
    ) -> None:
        """`ffn_chunk` positions at a time go through the feed-forward part (0: all), which bounds its memory."""
        super().__init__()
        self.attention = Attention(hidden, heads, dropout)
        self.attention_end = Residual(hidden, dropout, eps)
        if cross:
            self.cross = Attention(hidden, heads, dropout)
            self.cross_end = Residual(hidden, dropout, eps)
        self.ffn_in = nn.Linear(hidden, ffn)
        self.ffn_out = nn.Linear(ffn, hidden)
        self.ffn_end = Residual(hidden, dropout, eps)
        self.has_cross, self.ffn_chunk = cross, ffn_chunk

    def forward(self, x: Tensor, allowed: Tensor | None, image_tokens: Tensor | None = None) -> Tensor:
        """x [B, L, H], allowed bool [B, 1, L, L], image_tokens [B, N, H] for a cross layer -> [B, L, H]."""
        x = self.attention_end(x, self.attention(x, x, allowed))
        if self.has_cross:
            if image_tokens is None:
                raise ValueError("a multimodal layer needs image tokens")
            x = self.cross_end(x, self.cross(x, image_tokens, None))
        return self.ffn_end(x, self.feed_forward(x))

    def feed_forward(self, x: Tensor) -> Tensor:
        """[B, L, H] -> [B, L, H], in chunks of positions where asked for."""
        parts = x.split(self.ffn_chunk, dim=1) if self.ffn_chunk else (x,)
        outputs = [self.ffn_out(F.gelu(self.ffn_in(part))) for part in parts]
        return torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]


def initialise(module: nn.Module) -> None:
    """BERT's initialisation: normal with deviation 0.02, biases zero, padding rows zero."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()
