"""A plain BERT as the text encoder: COLIPRI's is CXR-BERT with an attention pool and no projector.

Source: Devlin et al. 2019 (arXiv:1810.04805), COLIPRI (arXiv:2510.15042). The defaults are BERT-base with the
12-head mean-query pool: 108,891,648 + 2,362,368 parameters at 30,522 token ids.
A `TextBatch` has a marker before every sentence; BERT sees `[CLS] pieces [SEP]`, as it was trained. Word and
sentence vectors are made of BERT's own, so that local objectives work on it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from components.base.config import Config
from components.base.errors import ConfigError
from components.encoders.features import TextBatch, TextFeatures
from components.encoders.interfaces import TextEncoder
from components.encoders.pooling import TextPoolingKind, make_pool
from components.encoders.text import TEXT
from components.encoders.text._layers import Layer, initialise
from components.encoders.text._pooling import marker_positions, pool_sentences, pool_words

if TYPE_CHECKING:
    from components.encoders.tokenization import ReportTokenizer


class BertParams(Config):
    """Sizes of a BERT; `initial_weights` is the local folder of one (CXR-BERT, any other) or null.

    `vocab_rows` counts the rows of the word table; null: one per token id. Sentence markers, which BERT never
    sees, need none, so that a BERT's own table fits a tokenizer that has markers after its vocabulary.
    With `projector` false the report's vector is made for the shared space: `embed_dim` must be `hidden`.
    """

    hidden: int = Field(768, ge=1)
    layers: int = Field(12, ge=1)
    multimodal_layers: int = Field(0, ge=0)
    heads: int = Field(12, ge=1)
    ffn: int = Field(3072, ge=1)
    max_positions: int = Field(512, ge=2)
    types: int = Field(2, ge=1)
    vocab_rows: int | None = Field(None, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    layer_norm_eps: float = Field(1e-12, gt=0)
    ffn_chunk: int = Field(0, ge=0)
    pooling: TextPoolingKind = "mean_query"
    pool_heads: int = Field(12, ge=1)
    projector: bool = False
    initial_weights: str | None = None

    @model_validator(mode="after")
    def _heads_divide_hidden(self) -> BertParams:
        if self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} does not divide by {self.heads} heads")
        return self


def without_markers(batch: TextBatch, sep_id: int, pad_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """The batch as `[CLS] pieces [SEP]`, markers taken out: ids, mask and place, each int64 [B, L].

    `place` is where each position of the batch has gone; a marker's is that of the token before it. There is
    always room for `[SEP]`, since a report has at least one marker.
    """
    kept = (batch.attention_mask > 0) & ~marker_positions(batch.token_type_ids)
    place = kept.long().cumsum(1) - 1
    slots = torch.arange(kept.shape[1], device=kept.device)
    count = kept.sum(1, keepdim=True)
    aside = torch.where(kept, place, kept.shape[1])  # what is left out goes behind the end
    ids = F.pad(torch.zeros_like(batch.input_ids), (0, 1)).scatter(1, aside, batch.input_ids)[:, :-1]
    ids = torch.where(slots < count, ids, torch.where(slots == count, sep_id, pad_id))
    return ids, (slots <= count).long(), place.clamp(min=0)


class Embeddings(nn.Module):
    """Token and position embeddings and the first type's row, summed, normalised, dropped out."""

    def __init__(self, params: BertParams, rows: int) -> None:
        super().__init__()
        self.words = nn.Embedding(rows, params.hidden, padding_idx=0)
        self.positions = nn.Embedding(params.max_positions, params.hidden)
        self.types = nn.Embedding(params.types, params.hidden)
        self.norm = nn.LayerNorm(params.hidden, params.layer_norm_eps)
        self.dropout = nn.Dropout(params.dropout)

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 [B, L] -> [B, L, H]."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        total = self.words(input_ids) + self.positions(positions) + self.types.weight[0]
        return self.dropout(self.norm(total))


@TEXT.register("bert")
class Bert(TextEncoder):
    """The text encoder; `hidden` of its features stands at the batch's own positions."""

    Params: ClassVar[type[Config]] = BertParams

    def __init__(self, params: BertParams, vocab_size: int) -> None:
        super().__init__()
        self.params = params
        self.hidden_size, self.vocab_size = params.hidden, vocab_size
        self.max_positions, self.joint = params.max_positions, not params.projector
        self.sep_id, self.pad_id = 3, 0
        self.embeddings = Embeddings(params, params.vocab_rows or vocab_size)
        self.layers = nn.ModuleList(self._layer(cross=False) for _ in range(params.layers))
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

    def bind(self, tokenizer: ReportTokenizer) -> None:
        """Take the ids of `[SEP]` and `[PAD]`; `ConfigError` where a token that BERT sees has no row."""
        rows = self.embeddings.words.num_embeddings
        beyond = set(range(rows, tokenizer.vocab_size)) - set(tokenizer.marker_ids.tolist())
        if beyond or rows > tokenizer.vocab_size:
            raise ConfigError(
                f"the word table has {rows} rows, the tokenizer {tokenizer.vocab_size} ids",
                rule="text.vocab_rows",
                fix="set it to the BERT's vocabulary size, or to null to have a row for every id",
            )
        self.sep_id, self.pad_id = tokenizer.sep_id, tokenizer.pad_id

    def _encode(self, batch: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Hidden states [B, L, H] of `[CLS] pieces [SEP]`, their mask and where each position has gone."""
        ids, mask, place = without_markers(batch, self.sep_id, self.pad_id)
        hidden = self.embeddings(ids)
        allowed = (mask > 0)[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, allowed)
        return hidden, mask, place

    def hidden_states(self, batch: TextBatch) -> Tensor:
        """[B, L, H] at the batch's own positions; a marker's is that of the token before it."""
        hidden, _, place = self._encode(batch)
        return _back(hidden, place)

    def report(self, batch: TextBatch) -> Tensor:
        """[B, H]: the pooled vectors, without the work for sentences and words."""
        hidden, mask, _ = self._encode(batch)
        return self.pooling(hidden, mask)

    def forward(self, batch: TextBatch) -> TextFeatures:
        """Report, sentence and word vectors; a sentence's is the mean of its words'."""
        plain, mask, place = self._encode(batch)
        hidden = _back(plain, place)
        sentences, has_sentence = pool_sentences(hidden, batch, markers=False)
        words, has_word = pool_words(hidden, batch)
        return TextFeatures(hidden, self.pooling(plain, mask), sentences, has_sentence, words, has_word)

    def multimodal(self, hidden: Tensor, batch: TextBatch, image_tokens: Tensor) -> Tensor:
        """hidden [B, L, H], image_tokens [B, N, H] -> [B, L, H]; `ConfigError` without multimodal layers."""
        if not self.multimodal_layers:
            raise ConfigError(
                "this text encoder has no multimodal layers",
                rule="text.multimodal_layers",
                fix="set multimodal_layers to 1 or more, or leave out the objectives that ask for them",
            )
        allowed = (batch.attention_mask > 0)[:, None, None, :]
        for layer in self.multimodal_layers:
            hidden = layer(hidden, allowed, image_tokens)
        return hidden

    def load_initial_weights(self, folder: Path, tokenizer: ReportTokenizer) -> None:
        """Copy a local BERT's embeddings and layers; the pool keeps its fresh weights."""
        from components.encoders.text._initial import load_plain_bert

        load_plain_bert(self, folder)


def _back(hidden: Tensor, place: Tensor) -> Tensor:
    return hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[-1]))
