"""The shared view of the encoders in one step: the first objective that asks pays, the others reuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch

from components.encoders.features import TextFeatures, VolumeFeatures

T = TypeVar("T")
VIEWS = {"global": "volume", "crop": "crop"}


class Memo:
    """Values by name, each made once and the same for everyone who asks.

    They are made with gradients if the step has them, even when who asks first only looks (a draw of hard negatives
    under `no_grad`): the others would otherwise be given a value that teaches the encoders nothing.
    """

    def __init__(self) -> None:
        """To be made where the step begins: whether it has gradients is asked here."""
        self._kept: dict[str, Any] = {}
        self._with_gradient = torch.is_grad_enabled()

    def memo(self, key: str, function: Callable[[], T]) -> T:
        """`function()` the first time that `key` is asked for, afterwards the same value."""
        if key not in self._kept:
            with torch.set_grad_enabled(self._with_gradient):
                self._kept[key] = function()
        return cast("T", self._kept[key])


class Features(Memo):
    """Memoised forward passes of `model` over one batch; made anew for every step."""

    def __init__(self, model: Any, batch: Mapping[str, Any]) -> None:
        """`model` is a `DualEncoder`, `batch` has the keys of docs/architecture.md."""
        super().__init__()
        self._model, self._batch = model, batch

    def volume(self, view: str) -> VolumeFeatures:
        """Features of every row's "global" or "crop" volume; rows that were encoded as paired ones are reused."""
        if view == "global" and "volume.paired" in self._kept:
            return self.memo("volume.global", self._with_the_rest)
        return self.memo(f"volume.{view}", lambda: self._model.vision(self._batch[VIEWS[view]]))

    def paired_volume(self) -> VolumeFeatures:
        """Features of the global volumes of the paired rows; image-only rows cost nothing."""
        paired = self._batch["paired"]
        if len(paired) == len(self._batch["volume"]):
            return self.volume("global")
        if "volume.paired" not in self._kept and "volume.global" in self._kept:
            return self.memo("volume.paired", lambda: self.volume("global").subset(paired))
        return self.memo("volume.paired", lambda: self._model.vision(self._batch["volume"][paired]))

    def _with_the_rest(self) -> VolumeFeatures:
        """All rows' features from those of the paired rows and one pass over the others."""
        volume, paired = self._batch["volume"], self._batch["paired"]
        others = torch.ones(len(volume), dtype=torch.bool, device=volume.device)
        others[paired] = False
        rest = others.nonzero().flatten()
        place = torch.empty(len(volume), dtype=torch.int64, device=volume.device)
        place[torch.cat([paired, rest])] = torch.arange(len(volume), device=volume.device)
        first, second = self._kept["volume.paired"], self._model.vision(volume[rest])
        joined = VolumeFeatures(
            tuple(torch.cat(pair) for pair in zip(first.scales, second.scales, strict=True)),
            torch.cat([first.pooled, second.pooled]),
        )
        return joined.subset(place)

    def text(self) -> TextFeatures:
        """Features of the reports, one row per entry of `paired`."""
        return self.memo("text", lambda: self._model.text(self._batch["text"]))
