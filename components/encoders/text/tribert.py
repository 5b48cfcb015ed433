"""TriBERT: a BERT whose sentence markers see only their own sentence, with multimodal layers on top.

Source: VELVET-Med's text encoder. Twelve text layers (self-attention) and six multimodal layers
(self-attention, cross-attention to the image, feed-forward); attention is bidirectional throughout. A
report is `[CLS]`, then for sentence i `[SEN_i]` and its pieces, all of token type i.
The defaults are VELVET-Med's: 165.7 M parameters with 30,572 token ids.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from components.base.config import Config
from components.encoders.features import TextBatch, TextFeatures
from components.encoders.interfaces import TextEncoder
from components.encoders.pooling import TextPoolingKind, make_pool
from components.encoders.text import TEXT
from components.encoders.text._layers import Layer, initialise
from components.encoders.text._pooling import pool_sentences, pool_words, sentence_mask

if TYPE_CHECKING:
    from components.encoders.tokenization import ReportTokenizer


class TriBertParams(Config):
    """Sizes of TriBERT; `initial_weights` is a local folder of a BERT (CXR-BERT) or null.

    `ffn_chunk` positions at a time go through a feed-forward part (0: all; VELVET-Med's code: 256), which changes
    memory and nothing else. `pooling` makes the report's vector: `cls` is VELVET-Med's.
    """

    hidden: int = Field(768, ge=1)
    layers: int = Field(12, ge=1)
    multimodal_layers: int = Field(6, ge=0)
    heads: int = Field(6, ge=1)
    ffn: int = Field(3072, ge=1)
    max_positions: int = Field(512, ge=2)
    max_sentences: int = Field(50, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    layer_norm_eps: float = Field(1e-12, gt=0)
    ffn_chunk: int = Field(0, ge=0)
    pooling: TextPoolingKind = "cls"
    pool_heads: int = Field(4, ge=1)
    initial_weights: str | None = None

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> TriBertParams:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} does not divide by {self.heads} heads")
        return self


class Embeddings(nn.Module):
    """Token, position and sentence (type) embeddings, summed, normalised, dropped out."""

    def __init__(self, params: TriBertParams, vocab_size: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, params.hidden, padding_idx=0)
        self.positions = nn.Embedding(params.max_positions, params.hidden)
        self.types = nn.Embedding(params.max_sentences + 1, params.hidden, padding_idx=0)
        self.norm = nn.LayerNorm(params.hidden, params.layer_norm_eps)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Two int64 [B, L] -> [B, L, H]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        total = self.words(input_ids) + self.positions(positions) + self.types(token_type_ids)
        return self.dropout(self.norm(total))


@TEXT.register("tribert")
class TriBert(TextEncoder):
    """The text encoder; `hidden_states` runs the text layers, `multimodal` those above them."""

    Params: ClassVar[type[Config]] = TriBertParams

    def __init__(self, params: TriBertParams, vocab_size: int) -> None:
        super().__init__()
        self.params = params
        self.hidden_size, self.vocab_size = params.hidden, vocab_size
        self.max_positions = params.max_positions
        self.embeddings = Embeddings(params, vocab_size)
        self.text_layers = nn.ModuleList(self._layer(cross=False) for _ in range(params.layers))
        self.multimodal_layers = nn.ModuleList(
            self._layer(cross=True) for _ in range(params.multimodal_layers)
        )
        self.apply(initialise)
        self.pooling = make_pool(params.pooling, params.hidden, params.pool_heads)

    def _layer(self, cross: bool) -> Layer:
        size = self.params
        return Layer(
            size.hidden, size.heads, size.ffn, size.dropout, size.layer_norm_eps, cross, size.ffn_chunk
        )

    def hidden_states(self, batch: TextBatch) -> Tensor:
        """[B, L, H] of the last text layer."""
        allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)
        hidden = self.embeddings(batch.input_ids, batch.token_type_ids)
        for layer in self.text_layers:
            hidden = layer(hidden, allowed)
        return hidden

    def report(self, batch: TextBatch) -> Tensor:
        """[B, H]: the pooled vectors, `[CLS]` by default, without the work for sentences and words."""
        return self.pooling(self.hidden_states(batch), batch.attention_mask)

    def forward(self, batch: TextBatch) -> TextFeatures:
        """Report, sentence and word vectors of the last text layer."""
        hidden = self.hidden_states(batch)
        sentences, has_sentence = pool_sentences(hidden, batch)
        words, has_word = pool_words(hidden, batch)
        report = self.pooling(hidden, batch.attention_mask)
        return TextFeatures(hidden, report, sentences, has_sentence, words, has_word)

    def multimodal(self, hidden: Tensor, batch: TextBatch, image_tokens: Tensor) -> Tensor:
        """hidden [B, L, H] of the text layers, image_tokens [B, N, H] -> [B, L, H]."""
        allowed = sentence_mask(batch.token_type_ids, batch.attention_mask)
        for layer in self.multimodal_layers:
            hidden = layer(hidden, allowed, image_tokens)
        return hidden

    def load_initial_weights(self, folder: Path, tokenizer: ReportTokenizer) -> None:
        """Copy a BERT's embeddings and layers (for instance CXR-BERT's) into the text layers."""
        from components.encoders.text._initial import load_bert

        load_bert(self, folder, tokenizer)
