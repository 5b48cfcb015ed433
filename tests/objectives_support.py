"""A small dual encoder without MONAI, batches, and how to make any objective small, for tests of the objectives."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from components.base.errors import ConfigError
from components.encoders.features import TextBatch, TextFeatures, VolumeFeatures
from components.encoders.interfaces import PatchEncoder
from components.objectives import OBJECTIVES

SIZE = 16
VOCAB = 40
SPECIAL = frozenset(range(10))
NAMES = tuple(OBJECTIVES.names())
DECODER = {"layers": 1, "hidden": 12, "heads": 2, "ffn": 24, "dropout": 0.0}
SMALL: dict[str, dict[str, Any]] = {
    "sentence_region": {"dim": 8},
    "word_patch": {"dim": 8},
    "organ_contrast": {"dim": 8},
    "aspect_contrast": {"dim": 8},
    "report_generation": {**DECODER, "grid": 2},
    "autoregressive_patches": {**DECODER, "detail": 2},
    "disruption": {"dim": 6},
    "opposite_sentence": {"num_pairs": 4},
}
"""Parameters that make an objective small; one that is not named here is taken with its defaults."""
ORGANS = {1: "lung_left", 2: "lung_right", 3: "heart", 4: "liver"}
TOLD = {
    "lungs": (
        ("There is consolidation in the left lung.", "There is a nodule in the right lung."),
        ("The lungs are clear.", "No nodule is seen."),
    ),
    "heart": (("The heart is enlarged.", "There is a pericardial effusion."), ("The heart is normal.",)),
    "abdomen": (("There is a cyst in the liver.",), ("The liver is unremarkable.", "No ascites.")),
    "bones": (("There is a fracture of a rib.",), ("The bones are intact.",)),
}


class Vision(nn.Module):
    """Average pooling and 1x1x1 convolutions: five scales from 8^3 to 1^3... of a 16^3 volume."""

    channels = (4, 4, 6, 6, 8)
    embed_dim = 8
    joint = False

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, 8, 2, 2)
        self.layers = nn.ModuleList(nn.Conv3d(8, width, 1) for width in self.channels)
        self.calls = self.rows = 0

    def forward(self, volume: Tensor) -> VolumeFeatures:
        self.calls += 1
        self.rows += len(volume)
        stem = torch.tanh(self.stem(volume))
        factors = (1, 2, 4, 4, 8)
        scales = tuple(layer(F.avg_pool3d(stem, k)) for layer, k in zip(self.layers, factors, strict=True))
        return VolumeFeatures(scales, scales[-1].flatten(2).mean(-1))


class Patches(PatchEncoder):
    """Patches of 4 voxels, mixed with their mean: for objectives that leave patches out."""

    channels = (12,)
    embed_dim, patch, width, heads = 12, 4, 12, 2

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Conv3d(1, 12, 4, 4), nn.Linear(12, 12)
        self.calls = self.rows = 0

    def tokens(self, volume: Tensor, keep: Tensor | None = None) -> Tensor:
        self.calls += 1
        self.rows += len(volume)
        found = self.embedding(volume).flatten(2).transpose(1, 2)
        if keep is not None:
            found = found.gather(1, keep[..., None].expand(-1, -1, self.width))
        return found + torch.tanh(self.mix(found.mean(1, keepdim=True)))

    def forward(self, volume: Tensor) -> VolumeFeatures:
        scale = self.tokens(volume).transpose(1, 2).unflatten(2, self.grid(volume.shape[2:]))
        return VolumeFeatures((scale,), scale.flatten(2).mean(-1))

    def visible(self, volume: Tensor, keep: Tensor) -> Tensor:
        return self.tokens(volume, keep)


class Text(nn.Module):
    """Embeddings mixed with their mean; sentences and words are means over their positions."""

    hidden_size = 6
    vocab_size = VOCAB
    joint = False

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, 6)
        self.cross = nn.Linear(6, 6)
        self.calls = self.fused = 0

    def hidden_states(self, batch: TextBatch) -> Tensor:
        self.calls += 1
        hidden = self.embedding(batch.input_ids)
        return hidden + torch.tanh(_mean(hidden, batch))

    def forward(self, batch: TextBatch) -> TextFeatures:
        hidden = self.hidden_states(batch)
        sentences, has_sentence = _pool(hidden, batch.token_type_ids - 1)
        words, has_word = _pool(hidden, batch.word_index)
        return TextFeatures(hidden, hidden[:, 0], sentences, has_sentence, words, has_word)

    def report(self, batch: TextBatch) -> Tensor:
        return self.hidden_states(batch)[:, 0]

    def multimodal(self, hidden: Tensor, batch: TextBatch, image_tokens: Tensor) -> Tensor:
        self.fused += 1
        weights = (self.cross(hidden) @ image_tokens.transpose(1, 2)).softmax(-1)
        return hidden + weights @ image_tokens + _mean(hidden, batch)


def _mean(hidden: Tensor, batch: TextBatch) -> Tensor:
    mask = batch.attention_mask[..., None].to(hidden.dtype)
    return (hidden * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def _pool(hidden: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    slots = torch.arange(max(1, int(index.max()) + 1) if index.numel() else 1)
    member = (index[:, None, :] == slots[None, :, None]).to(hidden.dtype)
    count = member.sum(-1)
    return member @ hidden / count.clamp(min=1)[..., None], count > 0


class Tokenizer:
    """Words to ids by a checksum; the arrays of `ReportTokenizer.encode`."""

    mask_id, pad_id, sep_id, special_ids = 4, 0, 3, SPECIAL

    def encode(self, reports: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        words = [[sentence.lower().split() for sentence in report] for report in reports]
        batch = _arrays(
            [[[10 + zlib.crc32(w.encode()) % (VOCAB - 10) for w in s] for s in report] for report in words]
        )
        return dict(zip(("input_ids", "token_type_ids", "attention_mask", "word_index"), batch, strict=True))


class Dual(nn.Module):
    """What the objectives need of a `DualEncoder`."""

    def __init__(self, seed: int = 0, patches: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vision: Any = Patches() if patches else Vision()
        self.text = Text()
        self.volume_projection = nn.Linear(self.vision.embed_dim, 5)
        self.report_projection = nn.Linear(6, 5)
        self.temperature = nn.Parameter(torch.tensor(0.07))
        self.tokenizer = Tokenizer()
        self.contract = SimpleNamespace(size=(SIZE,) * 3, output_range=(0.0, 1.0))

    @property
    def tau(self) -> Tensor:
        return self.temperature


def made(name: str, model: Any = None, **changes: Any) -> tuple[Any, Any]:
    """A model that suits the objective, and the objective in small, with the same weights every time."""
    kind = OBJECTIVES.get(name)
    params = kind.Params(**{**SMALL.get(name, {}), **changes})
    for patches in (False, True):
        chosen = Dual(patches=patches) if model is None else model
        torch.manual_seed(1)
        try:
            return chosen, kind(params, chosen)
        except ConfigError:
            if patches or model is not None:
                raise
    raise AssertionError


def _arrays(reports: Sequence[Sequence[Sequence[int]]]) -> tuple[np.ndarray, ...]:
    """Ids of words by sentence and report: a CLS, then sentences of a marker and words of one piece."""
    width = max([1, *(1 + sum(len(sentence) + 1 for sentence in report) for report in reports)])
    ids, types, mask = (np.zeros((len(reports), width), np.int64) for _ in range(3))
    word = np.full((len(reports), width), -1, np.int64)
    for row, report in enumerate(reports):
        ids[row, 0], types[row, 0], mask[row, 0] = 2, 1, 1
        at = count = 1
        for number, sentence in enumerate(report, 1):
            span = slice(at, at + len(sentence) + 1)
            ids[row, span], types[row, span], mask[row, span] = [5, *sentence], number, 1
            word[row, at + 1 : span.stop] = np.arange(count - 1, count - 1 + len(sentence))
            at, count = span.stop, count + len(sentence)
    return ids, types, mask, word


def text_batch(lengths: Sequence[int], seed: int = 0, words_per_sentence: int = 4) -> TextBatch:
    """Reports with so many words each."""
    rng = np.random.default_rng(seed)
    reports = []
    for length in lengths:
        words = rng.integers(10, VOCAB, length).tolist()
        reports.append([words[at : at + words_per_sentence] for at in range(0, length, words_per_sentence)])
    return TextBatch(*(torch.from_numpy(value) for value in _arrays(reports)))


def told(row: int) -> dict[str, dict[str, list[str]]]:
    """A structured report that depends on the row: regions, some abnormal, some normal, some left out."""
    rng = np.random.default_rng(1000 + row)
    found = {}
    for region, (positive, negative) in TOLD.items():
        state = rng.integers(4)
        if state < 2:
            found[region] = {"positive": [positive[int(rng.integers(len(positive)))]], "negative": []}
        elif state == 2 or region == "lungs":
            found[region] = {"positive": [], "negative": [negative[int(rng.integers(len(negative)))]]}
    return found


def organ_mask(row: int, size: int) -> tuple[Tensor, dict[int, str]]:
    """A label map with lungs, heart and liver; row 2 has none, row 3 no liver."""
    labels = torch.zeros((size, size, size), dtype=torch.uint8)
    if row == 2:
        return labels, {}
    half = size // 2
    labels[:half, :, half:], labels[half:, :, half:] = 1, 2
    labels[half - 3 : half + 1, 2:half, half : half + 3 + row % 3] = 3
    if row != 3:
        labels[1:half, 3 : 5 + row, 1:half] = 4
    return labels, {value: name for value, name in ORGANS.items() if row != 4 or value != 3}


def make_batch(
    lengths: Sequence[int | None], seed: int = 0, size: int = SIZE, text_only: Sequence[int] = ()
) -> dict[str, Any]:
    """A batch of len(lengths) rows: a number of words for a paired row, None for an image-only one."""
    rows = len(lengths)
    source = torch.Generator().manual_seed(seed)
    paired = [row for row, length in enumerate(lengths) if length is not None]
    light = torch.linspace(0.1, 1.0, rows)[torch.randperm(rows, generator=source)].view(-1, 1, 1, 1, 1)
    masks = [organ_mask(row, size) for row in range(rows)]
    batch = {
        "step": 0,
        "volume": light * torch.rand((rows, 1, size, size, size), generator=source),
        "crop": light * torch.rand((rows, 1, size, size, size), generator=source),
        "text": text_batch([length for length in lengths if length is not None], seed),
        "paired": torch.tensor(paired, dtype=torch.int64),
        "study_key": [f"stu_{row:016x}" for row in range(rows)],
        "patient_key": [f"pat_{row:016x}" for row in range(rows)],
        "generator": torch.Generator().manual_seed(seed + 100),
        "organ_masks": torch.stack([labels for labels, _ in masks]),
        "organ_names": [names for _, names in masks],
    }
    if paired:
        batch["structured"] = [told(row) for row in paired]
    if text_only:
        batch["text_only"] = text_batch(text_only, seed + 1)
        batch["text_only_key"] = [f"stu_t{row:015x}" for row in range(len(text_only))]
    return batch


def permuted(batch: dict[str, Any], order: list[int]) -> dict[str, Any]:
    """The same batch with its rows in another order (row i of the result is row order[i]), or some of them."""
    place = {row: number for number, row in enumerate(batch["paired"].tolist())}
    paired = [new for new, old in enumerate(order) if old in place]
    pairs = [place[order[new]] for new in paired]
    other = {
        **batch,
        **{key: batch[key][order] for key in ("volume", "crop", "organ_masks")},
        **{key: [batch[key][row] for row in order] for key in ("study_key", "patient_key", "organ_names")},
        "text": batch["text"].subset(pairs),
        "paired": torch.tensor(paired, dtype=torch.int64),
    }
    if "structured" in batch:
        other["structured"] = [batch["structured"][pair] for pair in pairs]
    return other


def shard(batch: dict[str, Any], rows: list[int], texts: list[int]) -> dict[str, Any]:
    """The part of a batch that one of several processes has: its rows, its text-only reports, its own padding."""
    part = permuted(batch, rows)
    part["text"] = trimmed(part["text"])
    if "text_only" in batch:
        part["text_only"] = trimmed(batch["text_only"].subset(texts))
        part["text_only_key"] = [batch["text_only_key"][row] for row in texts]
    return part


def trimmed(text: TextBatch) -> TextBatch:
    """Without the positions that are padding in every row."""
    length = max(1, int(text.attention_mask.sum(1).max())) if len(text) else 1
    return TextBatch(
        text.input_ids[:, :length],
        text.token_type_ids[:, :length],
        text.attention_mask[:, :length],
        text.word_index[:, :length],
    )


def in_double(model: nn.Module, objective: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
    """Turn the modules to float64, and answer the batch with float64 volumes."""
    model.double()
    objective.double()
    return {**batch, "volume": batch["volume"].double(), "crop": batch["crop"].double()}
