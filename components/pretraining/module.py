"""The encoders with the objectives on top: from a batch to weighted losses by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn

from components.base.config import parse
from components.base.errors import TrainingError
from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from components.pretraining.microbatch import by_parts, micro_batches

EMBEDDINGS = ("embedding.volume", "embedding.report")


def make_objectives(blocks: Mapping[str, Mapping[str, Any]], encoder: Any, seed: int) -> nn.ModuleDict:
    """The objectives with a weight above 0, in the order of their names.

    Each draws its first weights from a stream of its own name, so that switching one off leaves the others'
    as they were.
    """
    made = nn.ModuleDict()
    for name in sorted(blocks):
        kind = OBJECTIVES.get(name)
        params = parse(kind.Params, blocks[name], f"pretrain.objectives.{name}")
        if params.weight > 0:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derived_seed(seed, name))
                made[name] = kind(params, encoder)
    return made


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on the run's seed and a purpose."""
    text = "\0".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Held:
    """A value that Fabric, DDP and FSDP hand through as it is; they would take a batch apart to cast it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class PretrainModule(lightning.LightningModule):
    """`encoder` and `objectives`; the total is the sum of weighted losses.

    Every random number of a step comes from (seed, step): the batch's generator for the objectives and torch's own
    generator for dropout, which takes the rank in too. A resumed run therefore needs no saved generator state.
    """

    def __init__(
        self,
        encoder: nn.Module,
        objectives: nn.ModuleDict,
        seed: int,
        micro_batch_size: int = 0,
        rank: int = 0,
    ) -> None:
        """`objectives` as `make_objectives` gives them; `micro_batch_size` 0 takes all rows at once."""
        super().__init__()
        self.encoder: Any = encoder
        self.objectives, self.seed = objectives, seed
        self.micro_batch_size, self.rank = micro_batch_size, rank

    def forward(self, held: Held | dict[str, Any], purpose: str = "train") -> dict[str, Tensor]:
        """Unweighted losses `objective` or `objective.part`; empty when no objective suits the batch.

        For the purpose "validation" also `EMBEDDINGS`: the unit vectors of the paired rows' volumes and reports.
        """
        batch = held.value if isinstance(held, Held) else held
        seed = derived_seed(self.seed, purpose, batch["step"])
        batch = {**batch, "generator": torch.Generator().manual_seed(seed)}
        torch.manual_seed(derived_seed(seed, self.rank) if self.rank else seed)
        features = Features(self.encoder, batch)
        losses: dict[str, Tensor] = {}
        with micro_batches(self.encoder, self.micro_batch_size):
            for name, objective in self.objectives.items():
                rows = self.micro_batch_size if getattr(objective, "row_wise", False) else 0
                for part, loss in by_parts(objective, batch, features, rows).items():
                    losses[part if part == name else f"{name}.{part}"] = loss
            if purpose == "validation" and len(batch["paired"]):
                volumes = self.encoder.project_volume(features.paired_volume())
                reports = self.encoder.project_report(features.text())
                losses |= dict(zip(EMBEDDINGS, (volumes, reports), strict=True))
        return losses

    def training_step(self, batch: dict[str, Any], step: int) -> dict[str, Tensor]:
        """Losses by name and their weighted sum as `total`; raises `TrainingError` if one is not finite."""
        losses = self(batch)
        return {**losses, "total": self.total(losses, step)}

    def total(self, losses: Mapping[str, Tensor], step: int) -> Tensor:
        """The weighted sum; a loss that is not finite stops training and is named."""
        if not losses:
            raise TrainingError(
                f"no objective suits the batch of step {step}",
                rule="pretrain.nothing",
                fix="give a batch at least two paired studies, or switch an image objective on",
            )
        stacked = torch.stack([value.float() for value in losses.values()])
        if not bool(torch.isfinite(stacked).all()):  # one wait for the device, whatever the number of losses
            name, value = next(item for item in losses.items() if not bool(torch.isfinite(item[1])))
            raise TrainingError(
                f"the loss {name} is not finite at step {step} ({float(value.detach())})",
                rule="pretrain.finite",
                fix="lower learning_rate or the objective's weight, or set precision to 32-true",
            )
        return torch.stack([value.float() * self.weight(name) for name, value in losses.items()]).sum()

    def weight(self, name: str) -> float:
        """The weight of a loss by its name."""
        objective = cast("Any", self.objectives[name.partition(".")[0]])
        return float(objective.params.weight)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices and kernels decay; biases and norms, and single numbers, do not.

    Single numbers are a group of their own, as FSDP cannot split them and optimisers want one kind a group.
    """
    named = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [value for value in named if value.ndim >= 2], "weight_decay": weight_decay},
        {"params": [value for value in named if value.ndim == 1], "weight_decay": 0.0},
        {"params": [value for value in named if value.ndim == 0], "weight_decay": 0.0},
    ]
