"""What the encoders take and give: plain dataclasses of tensors, the same for every encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class VolumeFeatures:
    """Features of a batch of volumes.

    Attributes:
        scales: one [B, C_i, *S_i] per scale, the finest first.
        pooled: [B, E], one vector a volume.
    """

    scales: tuple[Tensor, ...]
    pooled: Tensor

    def subset(self, rows: Tensor | Sequence[int]) -> VolumeFeatures:
        """The same features for some rows of the batch, in the order given."""
        index = _index(rows, self.pooled.device)
        return VolumeFeatures(
            tuple(scale.index_select(0, index) for scale in self.scales),
            self.pooled.index_select(0, index),
        )


@dataclass(frozen=True)
class TextBatch:
    """Tokenised reports, each int64 [B, L].

    Attributes:
        input_ids: token ids.
        token_type_ids: 0 for padding, i for sentence i (from 1); `[CLS]` has 1.
        attention_mask: 1 for a token, 0 for padding.
        word_index: the number of the word that a piece belongs to, counted through the report from 0;
            -1 for special tokens and padding.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    attention_mask: Tensor
    word_index: Tensor

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> TextBatch:
        """A batch from the arrays of `ReportTokenizer.encode` (NumPy or tensors)."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: torch.as_tensor(arrays[name]).long() for name in names})

    def __len__(self) -> int:
        return self.input_ids.shape[0]

    def _map(self, function: Any) -> TextBatch:
        fields = (self.input_ids, self.token_type_ids, self.attention_mask, self.word_index)
        return TextBatch(*(function(field) for field in fields))

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TextBatch:
        """The same batch on another device."""
        return self._map(lambda field: field.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> TextBatch:
        """The same batch in page-locked memory."""
        return self._map(lambda field: field.pin_memory())

    def subset(self, rows: Tensor | Sequence[int]) -> TextBatch:
        """Some rows of the batch, in the order given (a row may come more than once)."""
        index = _index(rows, self.input_ids.device)
        return self._map(lambda field: field.index_select(0, index))

    def with_ids(self, input_ids: Tensor) -> TextBatch:
        """The same batch with other token ids (for masked language modelling)."""
        return dataclasses.replace(self, input_ids=input_ids)


@dataclass(frozen=True)
class TextFeatures:
    """Features of a batch of reports at three levels.

    Attributes:
        hidden: [B, L, H], one vector a position.
        report: [B, H], the vector of `[CLS]`.
        sentences: [B, S, H] with sentence_mask bool [B, S].
        words: [B, W, H] with word_mask bool [B, W]; the pieces of a word are summed.
    """

    hidden: Tensor
    report: Tensor
    sentences: Tensor
    sentence_mask: Tensor
    words: Tensor
    word_mask: Tensor


def _index(rows: Tensor | Sequence[int], device: torch.device) -> Tensor:
    return torch.as_tensor(rows, dtype=torch.int64, device=device)
