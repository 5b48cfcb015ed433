"""A small dual encoder without MONAI, and batches, for tests of the objectives."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.encoders.features import TextBatch, TextFeatures, VolumeFeatures

SIZE = 16
VOCAB = 40
SPECIAL = frozenset(range(10))
NAMES = (
    "inpainting",
    "masked_language",
    "report_contrast",
    "rotation",
    "sentence_region",
    "vision_contrast",
    "word_patch",
)


class Vision(nn.Module):
    """Average pooling and 1x1x1 convolutions: five scales from 8^3 to 1^3... of a 16^3 volume."""

    channels = (4, 4, 6, 6, 8)
    embed_dim = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv3d(8, width, 1) for width in self.channels)
        self.stem = nn.Conv3d(1, 8, 2, 2)
        self.calls = 0

    def forward(self, volume: Tensor) -> VolumeFeatures:
        self.calls += 1
        stem = torch.tanh(self.stem(volume))
        factors = (1, 2, 4, 4, 8)
        scales = tuple(layer(F.avg_pool3d(stem, k)) for layer, k in zip(self.layers, factors, strict=True))
        return VolumeFeatures(scales, scales[-1].flatten(2).mean(-1))


class Text(nn.Module):
    """Embeddings mixed with their mean; sentences and words are means over their positions."""

    hidden_size = 6
    vocab_size = VOCAB

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 6)
        self.calls = 0

    def hidden_states(self, batch: TextBatch) -> Tensor:
        self.calls += 1
        hidden = self.embedding(batch.input_ids)
        mask = batch.attention_mask[..., None].to(hidden.dtype)
        return hidden + (hidden * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, batch: TextBatch) -> TextFeatures:
        hidden = self.hidden_states(batch)
        sentences, has_sentence = _pool(hidden, batch.token_type_ids - 1)
        words, has_word = _pool(hidden, batch.word_index)
        return TextFeatures(hidden, hidden[:, 0], sentences, has_sentence, words, has_word)


def _pool(hidden: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    slots = torch.arange(max(1, int(index.max()) + 1))
    member = (index[:, None, :] == slots[None, :, None]).to(hidden.dtype)
    count = member.sum(-1)
    return member @ hidden / count.clamp(min=1)[..., None], count > 0


class Dual(nn.Module):
    """What the objectives need of a `DualEncoder`."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision, self.text = Vision(), Text()
        self.volume_projection, self.report_projection = nn.Linear(8, 5), nn.Linear(6, 5)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.tokenizer = SimpleNamespace(mask_id=4, special_ids=SPECIAL, pad_id=0)
        self.contract = SimpleNamespace(size=(SIZE,) * 3, output_range=(0.0, 1.0))

    @property
    def tau(self) -> Tensor:
        return self.temperature


def text_batch(lengths: list[int], seed: int = 0, words_per_sentence: int = 4) -> TextBatch:
    """Reports with so many words each: a CLS, then sentences of a marker and words of one piece."""
    rng = np.random.default_rng(seed)
    width = max([1, *(1 + n + -(-n // words_per_sentence) for n in lengths)])
    arrays = {name: np.zeros((len(lengths), width), np.int64) for name in ("ids", "types", "mask")}
    word = np.full((len(lengths), width), -1, np.int64)
    for row, length in enumerate(lengths):
        arrays["ids"][row, 0], arrays["types"][row, 0], arrays["mask"][row, 0] = 2, 1, 1
        at = 1
        for number in range(length):
            if number % words_per_sentence == 0:
                arrays["ids"][row, at], arrays["mask"][row, at] = 5, 1
                arrays["types"][row, at] = number // words_per_sentence + 1
                at += 1
            arrays["ids"][row, at] = rng.integers(10, VOCAB)
            arrays["types"][row, at], arrays["mask"][row, at] = number // words_per_sentence + 1, 1
            word[row, at] = number
            at += 1
    return TextBatch(*(torch.from_numpy(value) for value in (*arrays.values(), word)))


def make_batch(lengths: list[int | None], seed: int = 0, size: int = SIZE) -> dict[str, Any]:
    """A batch of len(lengths) rows: a number of words for a paired row, None for an image-only one."""
    rows = len(lengths)
    source = torch.Generator().manual_seed(seed)
    paired = [row for row, length in enumerate(lengths) if length is not None]
    light = torch.linspace(0.1, 1.0, rows)[torch.randperm(rows, generator=source)].view(-1, 1, 1, 1, 1)
    return {
        "step": 0,
        "volume": light * torch.rand((rows, 1, size, size, size), generator=source),
        "crop": light * torch.rand((rows, 1, size, size, size), generator=source),
        "text": text_batch([length for length in lengths if length is not None], seed),
        "paired": torch.tensor(paired, dtype=torch.int64),
        "study_key": [f"stu_{row:016x}" for row in range(rows)],
        "patient_key": [f"pat_{row:016x}" for row in range(rows)],
        "generator": torch.Generator().manual_seed(seed + 100),
    }


def permuted(batch: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """The same batch with its rows in another order (row i of the result is row order[i])."""
    place = {row: number for number, row in enumerate(batch["paired"].tolist())}
    paired = [new for new, old in enumerate(order) if old in place]
    return {
        **batch,
        "volume": batch["volume"][order],
        "crop": batch["crop"][order],
        "text": batch["text"].subset([place[order[new]] for new in paired]),
        "paired": torch.tensor(paired, dtype=torch.int64),
        "study_key": [batch["study_key"][row] for row in order],
        "patient_key": [batch["patient_key"][row] for row in order],
    }
