"""Items and batches: volumes from the store, a random crop, and the report's sentences.

What an item holds is a function of (seed, epoch, study), whatever worker makes it. A paired volume is never
mirrored nor turned: its report says left and right. The turns of the vision objectives are made on the
local crop, which no report describes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from components.pretraining.schedule import Draw
from components.pretraining.settings import Augment
from components.pretraining.studies import Study

if TYPE_CHECKING:
    import numpy.typing as npt

    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

Triple = tuple[int, int, int]


class Store(Protocol):
    """What is needed of `components.volumes.store.VolumeStore`."""

    def shape(self, series: str) -> Sequence[int]:
        """Voxels along each axis."""

    def read(self, series: str) -> npt.NDArray[np.int16]:
        """A whole volume in HU, `[X, Y, Z]`."""


@dataclass
class StudyDataset:
    """Items of training by `Draw`, or of validation (`augment` None: one fixed item a study).

    Args:
        crop_size: voxels of the local crop along each axis.
        cache_bytes: how many bytes of volumes a process keeps in memory, the latest used ones.
    """

    studies: Sequence[Study]
    store: Store
    contract: Contract
    crop_size: Triple
    seed: int
    augment: Augment | None
    cache_bytes: int = 0
    _cache: OrderedDict[str, npt.NDArray[np.int16]] = field(default_factory=OrderedDict, repr=False)
    _held: int = 0

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        from components.volumes.contract import model_input

        study = self.studies[draw.study]
        rng = np.random.default_rng([self.seed, draw.epoch, draw.study])
        series = study.series[int(rng.integers(len(study.series))) if self.augment else 0]
        hu = self._volume(series)
        crop = self._crop(hu, rng)
        sentences = list(study.sentences)
        if self.augment is not None:
            hu = cut_ends(hu, self.augment.cut, rng)
            sentences = keep_some(sentences, self.augment.keep_sentences, rng)
        volume = model_input(hu, self.contract)
        if self.augment is not None:
            volume = jitter(volume, self.augment, self.contract.output_range, rng)
        return {
            "step": draw.step,
            "volume": volume,
            "crop": crop,
            "sentences": sentences,
            "study_key": study.study_key,
            "patient_key": study.patient_key,
        }

    def _volume(self, series: str) -> npt.NDArray[np.int16]:
        if series in self._cache:
            self._cache.move_to_end(series)
            return self._cache[series]
        hu = self.store.read(series)
        if hu.nbytes <= self.cache_bytes:
            self._cache[series] = hu
            self._held += hu.nbytes
            while self._held > self.cache_bytes:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return hu

    def _crop(self, hu: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """A box of `crop_size` at a random place, in the model's range; a smaller volume is padded with air."""
        from components.volumes.contract import AIR_HU, scale

        spare = [max(0, have - want) for have, want in zip(hu.shape, self.crop_size, strict=True)]
        starts = [int(rng.integers(most + 1)) for most in spare]
        box = hu[
            tuple(slice(start, start + want) for start, want in zip(starts, self.crop_size, strict=True))
        ]
        missing = [want - have for have, want in zip(box.shape, self.crop_size, strict=True)]
        if any(missing):
            box = np.pad(box, [(gap // 2, gap - gap // 2) for gap in missing], constant_values=AIR_HU)
        return scale(box, self.contract)[None]


def cut_ends(hu: npt.NDArray[np.int16], cut: float, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A view of `[X, Y, Z]` without U(0, cut) of each axis, taken from a random side: never mirrored."""
    keep = []
    for length in hu.shape:
        lost = int(rng.random() * cut * length)
        first = lost if rng.random() < 0.5 else 0
        keep.append(slice(first, first + length - lost))
    return hu[tuple(keep)]


def keep_some(sentences: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """A random U(share, 1) of the sentences, at least one, in their order."""
    wanted = max(1, round(len(sentences) * (share + (1 - share) * rng.random())))
    if wanted >= len(sentences):
        return sentences
    chosen = np.sort(rng.choice(len(sentences), wanted, replace=False))
    return [sentences[index] for index in chosen]


def jitter(
    volume: npt.NDArray[np.float32], augment: Augment, limits: tuple[float, float], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Gain, offset and noise, clipped to the output range."""
    gain, offset, noise = (rng.random(3) * [2, 2, 1] - [1, 1, 0]).astype(np.float32)
    changed = volume * np.float32(1 + gain * augment.gain) + np.float32(offset * augment.offset)
    if augment.noise:
        changed += np.float32(noise * augment.noise) * rng.standard_normal(volume.shape, dtype=np.float32)
    return np.clip(changed, np.float32(limits[0]), np.float32(limits[1]))


def collator(tokenizer: ReportTokenizer) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """A function from items to a batch with the keys of docs/architecture.md (without the generator)."""
    return _Collator(tokenizer)


@dataclass(frozen=True)
class _Collator:
    tokenizer: ReportTokenizer

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        from components.encoders.features import TextBatch

        paired = [row for row, item in enumerate(items) if item["sentences"]]
        text = self.tokenizer.encode([items[row]["sentences"] for row in paired])
        return {
            "step": items[0]["step"],
            "volume": torch.from_numpy(np.stack([item["volume"] for item in items])),
            "crop": torch.from_numpy(np.stack([item["crop"] for item in items])),
            "text": TextBatch.from_arrays(text),
            "paired": torch.tensor(paired, dtype=torch.int64),
            "study_key": [item["study_key"] for item in items],
            "patient_key": [item["patient_key"] for item in items],
        }
