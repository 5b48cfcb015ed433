"""What objectives share: their base class, the shape of `features`, seeded streams and precision."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

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
    """A loss with its own heads; answers a dict of scalar losses, empty if nothing suits it.

    `needs` are the batch keys that it reads; without an optional one (`structured`, `organ_masks`) it answers nothing.
    `row_wise`: the loss is a mean over all rows, none of which knows another, so that it may be computed in parts.
    """

    Params: ClassVar[type[ObjectiveParams]] = ObjectiveParams
    needs: ClassVar[frozenset[str]] = frozenset()
    row_wise: ClassVar[bool] = False

    def forward(self, batch: Batch, features: FeaturesLike) -> dict[str, Tensor]:
        """Scalar losses by name for one batch."""
        raise NotImplementedError


def num_paired(batch: Batch) -> int:
    """How many rows of the batch have a report."""
    return len(batch["paired"])


def paired_keys(batch: Batch) -> list[str]:
    """The study keys of the paired rows, in their order."""
    return [batch["study_key"][row] for row in batch["paired"].tolist()]


def projected_volumes(features: FeaturesLike, model: Model) -> Tensor:
    """Unit vectors `[n, P]` of the paired rows' volumes, from the encoder's own projection."""

    def project() -> Tensor:
        vectors = model.volume_projection(features.paired_volume().pooled)
        return F.normalize(full_precision(vectors), dim=-1)

    return features.memo("projected_volumes", project)


def projected_reports(features: FeaturesLike, model: Model) -> Tensor:
    """Unit vectors `[n, P]` of the paired rows' reports, from the encoder's own projection."""

    def project() -> Tensor:
        vectors = model.report_projection(features.text().report)
        return F.normalize(full_precision(vectors), dim=-1)

    return features.memo("projected_reports", project)


def full_precision(value: Tensor) -> Tensor:
    """float32 for half-precision input (a loss in bf16 loses its small differences); else unchanged."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def exactly(like: Tensor) -> AbstractContextManager[None]:
    """Within the block products keep the precision of their inputs, also under autocast."""
    return torch.autocast(like.device.type, enabled=False)


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
