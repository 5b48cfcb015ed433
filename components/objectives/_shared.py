"""What objectives share: their base class, the shape of `features`, seeded streams and precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from components.base.config import Config
from components.base.errors import ConfigError

T = TypeVar("T")
Model = Any
"""A `components.encoders.dual.DualEncoder`, or whatever has the attributes that an objective names."""
Batch = Mapping[str, Any]


class FeaturesLike(Protocol):
    """The memoised view of the encoders in one step (`components.pretraining.features.Features`)."""

    def volume(self, view: str) -> Any:
        """`VolumeFeatures` of the "global" or "crop" volumes, all rows."""

    def text(self) -> Any:
        """`TextFeatures` of the paired rows."""

    def paired_volume(self) -> Any:
        """`VolumeFeatures` of the global volumes of the paired rows."""

    def memo(self, key: str, function: Callable[[], T]) -> T:
        """`function()` once a step; the same value for everyone who asks for `key`."""


class ObjectiveParams(Config):
    """What every objective has: its weight in the total; 0 keeps it out of the graph."""

    weight: float = Field(default=1.0, ge=0)


class Objective(nn.Module):
    """A loss with its own heads; answers a dict of scalar losses, empty if nothing suits it."""

    Params: ClassVar[type[ObjectiveParams]] = ObjectiveParams
    needs: ClassVar[frozenset[str]] = frozenset()

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """Scalar losses by name for one batch."""
        raise NotImplementedError


def num_paired(batch: Batch) -> int:
    """How many rows of the batch have a report."""
    return len(batch["paired"])


def full_precision(value: Tensor) -> Tensor:
    """float32 for half-precision input (a loss in bf16 loses its small differences); else unchanged."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def stream(batch: Batch, purpose: str, key: str = "") -> torch.Generator:
    """A CPU generator that depends on the step's seed, a purpose and a row's key, on nothing else.

    An objective's draws so do not change when another one is switched off, nor when the rows of the batch
    change places.
    """
    text = f"{batch['generator'].initial_seed()}\0{purpose}\0{key}"
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def scale_at(features: Any, index: int) -> Tensor:
    """One scale of `VolumeFeatures` as `[B, R, C]` tokens; an index that is not there is a `ConfigError`."""
    check_scale(index, len(features.scales))
    return features.scales[index].flatten(2).transpose(1, 2)


def check_scale(index: int, count: int) -> None:
    """Refuse a scale that the vision encoder does not have."""
    if not -count <= index < count:
        raise ConfigError(
            f"the vision encoder has {count} scales, scale {index} was asked for",
            rule="objective.scale",
            fix=f"set the objective's scale below {count}",
        )
