"""Items and batches: volumes from the store, a random crop, the report's sentences and what was read from them.

What an item holds is a function of (seed, epoch, study), whatever worker makes it. A paired volume is never
mirrored nor turned: its report says left and right. The turns of the vision objectives are made on the
local crop, which no report describes.

Rows of a batch are studies with a volume; `paired` are the numbers of those that have a report too, in the order of
the rows of `text`. Reports without a volume are no rows: they are `text_only` beside them. An objective sees only
what it can use: contrasts read the paired rows, vision objectives every row, masked language every report.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from components.base.errors import ConfigError, InputError
from components.pretraining.schedule import Draw
from components.pretraining.settings import Augment
from components.pretraining.studies import Study

if TYPE_CHECKING:
    import numpy.typing as npt

    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

Triple = tuple[int, int, int]
TEXT = 1
"""Tells the generator of a report's words from that of its volume: words move no voxel."""


class Store(Protocol):
    """What is needed of `components.volumes.store.VolumeStore`."""

    def shape(self, series: str) -> Sequence[int]:
        """Voxels along each axis."""

    def read(self, series: str) -> npt.NDArray[np.int16]:
        """A whole volume in HU, `[X, Y, Z]`."""

    def masks(self, series: str) -> dict[str, dict[int, str]]:
        """The label maps of a series: names of labels by value."""

    def read_mask(self, series: str, name: str) -> npt.NDArray[np.uint8]:
        """A whole label map, `[X, Y, Z]`."""


@dataclass
class StudyDataset:
    """Items of training by `Draw`, or of validation (`augment` None: one fixed item a study).

    Args:
        crop_size: voxels of the local crop along each axis.
        cache_bytes: how many bytes of volumes a process keeps in memory, the latest used ones.
        organ_mask: the name of the label map to bring along, if any.
    """

    studies: Sequence[Study]
    store: Store
    contract: Contract
    crop_size: Triple
    seed: int
    augment: Augment | None
    cache_bytes: int = 0
    organ_mask: str | None = None
    _cache: OrderedDict[tuple[str, str], npt.NDArray[Any]] = field(default_factory=OrderedDict, repr=False)
    _held: int = 0

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        study = self.studies[draw.study]
        rng = np.random.default_rng([self.seed, draw.epoch, draw.study])
        item: dict[str, Any] = {
            "step": draw.step,
            "study_key": study.study_key,
            "patient_key": study.patient_key,
            "structured": study.structured,
        }
        if study.series:
            item |= self._image(study, rng)
        item["sentences"] = self._sentences(study, draw, rng)
        if study.series and self.augment is not None:
            item["volume"] = jitter(item["volume"], self.augment, self.contract.output_range, rng)
        return item

    def _image(self, study: Study, rng: np.random.Generator) -> dict[str, Any]:
        """The global view `volume`, the local `crop`, and the label map on the grid of the global view."""
        from components.volumes.contract import mask_input, model_input

        series = study.series[int(rng.integers(len(study.series))) if self.augment else 0]
        hu = self._read(series, "", lambda: self.store.read(series))
        crop = self._crop(hu, rng)
        kept: tuple[slice, ...] = (slice(None),) * 3
        if self.augment is not None:
            kept = kept_box(hu.shape, self.augment.cut, rng)
        found: dict[str, Any] = {"volume": model_input(hu[kept], self.contract), "crop": crop}
        if self.organ_mask is not None:
            name, names = self.organ_mask, self.store.masks(series).get(self.organ_mask, {})
            found |= {"organ_masks": np.zeros(self.contract.size, np.uint8), "organ_names": names}
            if names:
                labels = self._read(series, name, lambda: self.store.read_mask(series, name))
                found["organ_masks"] = mask_input(labels[kept], self.contract)
        return found

    def _sentences(self, study: Study, draw: Draw, rng: np.random.Generator) -> list[str]:
        from components.reports.augment import shortened_report, shuffled

        sentences, augment = list(study.sentences), self.augment
        if augment is None or not sentences:
            return sentences
        sentences = keep_some(sentences, augment.keep_sentences, rng)
        own = np.random.default_rng([self.seed, draw.epoch, draw.study, TEXT])
        if augment.shorten_sentences:
            sentences = shortened_report(sentences, own, augment.shorten_sentences)
        if own.random() < augment.shuffle_sentences:
            sentences = shuffled(sentences, own)
        return sentences

    def _read(self, series: str, kind: str, read: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        key = (series, kind)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        array = read()
        if array.nbytes <= self.cache_bytes:
            self._cache[key] = array
            self._held += array.nbytes
            while self._held > self.cache_bytes:
                self._held -= self._cache.popitem(last=False)[1].nbytes
        return array

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


def kept_box(shape: Sequence[int], cut: float, rng: np.random.Generator) -> tuple[slice, ...]:
    """A box without U(0, cut) of each axis, taken from a random side: never mirrored."""
    keep = []
    for length in shape:
        lost = int(rng.random() * cut * length)
        first = lost if rng.random() < 0.5 else 0
        keep.append(slice(first, first + length - lost))
    return tuple(keep)


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


def require_inputs(
    needs: Mapping[str, frozenset[str]], studies: Sequence[Study], organ_mask: str | None
) -> None:
    """Refuse an objective that would never find in a batch what it reads, instead of leaving it out in silence.

    Args:
        needs: by objective, the batch keys that it reads.
        studies: those of the train split.
        organ_mask: the label map that the dataset brings along.
    """
    for name, keys in sorted(needs.items()):
        if "structured" in keys and all(study.structured is None for study in studies):
            raise InputError(
                f"the objective {name} reads structured reports, there are none",
                rule="pretrain.structured",
                fix="run the stage section again: it writes structured.parquet",
            )
        if "organ_masks" in keys and organ_mask is None:
            raise ConfigError(
                f"the objective {name} reads label maps, pretrain.organ_mask names none",
                rule="pretrain.organ_mask",
                fix="set pretrain.organ_mask to a label map of the store, for instance organs",
            )


def collator(tokenizer: ReportTokenizer) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]:
    """A function from items to a batch with the keys of docs/architecture.md (without the generator)."""
    return _Collator(tokenizer)


@dataclass(frozen=True)
class _Collator:
    tokenizer: ReportTokenizer

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        import torch

        rows = [item for item in items if "volume" in item]
        alone = [item for item in items if "volume" not in item]
        paired = [row for row, item in enumerate(rows) if item["sentences"]]
        batch = {
            "step": items[0]["step"],
            "volume": _stack(rows, "volume"),
            "crop": _stack(rows, "crop"),
            "text": self._text([rows[row] for row in paired]),
            "paired": torch.tensor(paired, dtype=torch.int64),
            "study_key": [item["study_key"] for item in rows],
            "patient_key": [item["patient_key"] for item in rows],
        }
        if alone:
            batch |= {"text_only": self._text(alone), "text_only_key": [item["study_key"] for item in alone]}
        told = [rows[row].get("structured") for row in paired]
        if told and all(value is not None for value in told):
            batch["structured"] = told
        if rows and all("organ_masks" in item for item in rows):
            batch["organ_masks"] = _stack(rows, "organ_masks")
            batch["organ_names"] = [item["organ_names"] for item in rows]
        return batch

    def _text(self, items: Sequence[Mapping[str, Any]]) -> Any:
        from components.encoders.features import TextBatch

        return TextBatch.from_arrays(self.tokenizer.encode([item["sentences"] for item in items]))


def _stack(items: Sequence[Mapping[str, Any]], name: str) -> Any:
    """`[B, ...]` of an entry of every item; `[0]` for no item."""
    import torch

    return torch.from_numpy(np.stack([item[name] for item in items])) if items else torch.empty(0)
