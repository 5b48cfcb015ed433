"""A small causal transformer that writes text from a memory of vectors, a token at a time with what it kept.

The layers are the encoders' own (`components.encoders.text._layers`): causal self-attention, cross-attention to the
memory, feed-forward. `begin`, `step` and `reorder` are all that decoding needs of a language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.downstream.settings import DecoderParams
from components.encoders.text._layers import Attention, Layer, initialise

EPS = 1e-5


@dataclass
class State:
    """What a decoder keeps between steps: keys and values of the text so far and of the memory, a pair a layer.

    Each tensor is [n, heads, positions, width]; `allowed` is bool [n, 1, 1, N] or None for all of the memory.
    """

    own: list[tuple[Tensor, Tensor]]
    memory: list[tuple[Tensor, Tensor]]
    allowed: Tensor | None
    length: int = 0


class Decoder(nn.Module):
    """ids [B, L] and a memory [B, N, C] -> logits [B, L, V]; the output layer is the embedding itself."""

    def __init__(self, params: DecoderParams, vocab_size: int, channels: int) -> None:
        """`channels` is C, the length of a memory vector."""
        super().__init__()
        self.params = params
        self.project = nn.Linear(channels, params.hidden)
        self.places = nn.Embedding(params.max_length, params.hidden)
        self.words = nn.Embedding(vocab_size, params.hidden)
        self.norm = nn.LayerNorm(params.hidden, EPS)
        self.memory_norm = nn.LayerNorm(params.hidden, EPS)
        self.dropout = nn.Dropout(params.dropout)
        self.layers = nn.ModuleList(
            Layer(params.hidden, params.heads, params.ffn, params.dropout, EPS, cross=True)
            for _ in range(params.layers)
        )
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.apply(initialise)

    def _stack(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def remember(self, memory: Tensor) -> Tensor:
        """Memory vectors [B, N, C] -> [B, N, H], as the layers read them."""
        return self.memory_norm(self.project(memory))

    def forward(self, ids: Tensor, memory: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Logits [B, L, V]; those at t are made of the ids up to t. `allowed` bool [B, N] masks the memory."""
        length = ids.shape[1]
        causal = torch.ones((1, 1, length, length), dtype=torch.bool, device=ids.device).tril()
        read = self.remember(memory)
        mask = None if allowed is None else allowed[:, None, None]
        x = self._embed(ids, 0)
        for layer in self._stack():
            x = layer.attention_end(x, layer.attention(x, x, causal))
            x = layer.cross_end(x, layer.cross(x, read, mask))
            x = layer.ffn_end(x, layer.feed_forward(x))
        return self._logits(x)

    def _embed(self, ids: Tensor, first: int) -> Tensor:
        places = torch.arange(first, first + ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.words(ids) + self.places(places)))

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(x, self.words.weight, self.bias)

    @torch.no_grad()
    def begin(self, memory: Tensor, allowed: Tensor | None = None) -> State:
        """A state for n rows of memory [n, N, C], before any token."""
        read = self.remember(memory)
        kept = [_key_value(layer.cross, read) for layer in self._stack()]
        return State([], kept, None if allowed is None else allowed[:, None, None])

    @torch.no_grad()
    def step(self, ids: Tensor, state: State) -> Tensor:
        """Take the next token of every row, ids [n], into the state -> logits [n, V] of the one after it."""
        x = self._embed(ids[:, None], state.length)
        own = []
        for number, layer in enumerate(self._stack()):
            key, value = _key_value(layer.attention, x)
            if state.length:
                key, value = (
                    torch.cat([old, new], dim=2)
                    for old, new in zip(state.own[number], (key, value), strict=True)
                )
            own.append((key, value))
            x = layer.attention_end(x, _attend(layer.attention, x, key, value, None))
            x = layer.cross_end(x, _attend(layer.cross, x, *state.memory[number], state.allowed))
            x = layer.ffn_end(x, layer.feed_forward(x))
        state.own, state.length = own, state.length + 1
        return self._logits(x)[:, 0]

    @staticmethod
    def reorder(state: State, rows: Tensor) -> State:
        """The state of the rows int64 [m], in that order (a row may come more than once)."""

        def pick(pairs: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
            return [(key.index_select(0, rows), value.index_select(0, rows)) for key, value in pairs]

        allowed = None if state.allowed is None else state.allowed.index_select(0, rows)
        return State(pick(state.own), pick(state.memory), allowed, state.length)


def _key_value(attention: Attention, source: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [n, heads, N, width] of a source [n, N, H]."""
    key, value = attention.key_value(source).chunk(2, dim=-1)
    return _heads(key, attention.heads), _heads(value, attention.heads)


def _heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(attention: Attention, x: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
    mixed = F.scaled_dot_product_attention(
        _heads(attention.query(x), attention.heads), key, value, attn_mask=allowed
    )
    return attention.output(mixed.transpose(1, 2).flatten(2))
