"""A grid of frozen probes: poolings times learning rates, trained side by side on the same batches.

A probe pools a volume's positions [N, C] to one vector and reads the labels from it by one linear layer. Attention has
no projections: softmax(q x / sqrt(C)) weighs the positions themselves. Three poolings have no weights (mean, maximum,
attention whose query is the mean), so that they are computed once a volume; the query of `learned_query` and the four
of `learned_queries` (their findings averaged) are learnt with the linear layer.
Source: COLIPRI's probing (arXiv:2510.15042), as DALE-CT describes that it replicates it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from components.base.errors import IntegrityError
from components.downstream.reading import Resolution

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Read = Callable[[int], npt.NDArray[np.floating[Any]]]

PoolingName: TypeAlias = Literal["average", "max", "learned_query", "average_query", "learned_queries"]
POOLINGS: tuple[PoolingName, ...] = ("average", "max", "learned_query", "average_query", "learned_queries")
QUERIES: dict[str, int] = {"learned_query": 1, "learned_queries": 4}
"""How many queries a pooling learns; a pooling that is not named learns none."""
TENSORS, SETTINGS = "probe.safetensors", "probe.json"


def attend(tokens: Tensor, query: Tensor) -> Tensor:
    """tokens [..., N, C], query [..., Q, C] -> [..., C]: what each query finds, averaged over the queries."""
    weights = (query @ tokens.transpose(-1, -2) / math.sqrt(tokens.shape[-1])).softmax(-1)
    return (weights @ tokens).mean(-2)


def pooled(kind: PoolingName, tokens: Tensor, query: Tensor | None = None) -> Tensor:
    """tokens [..., N, C] -> [..., C]; `query` [..., Q, C] for a pooling that learns queries."""
    if kind == "average":
        return tokens.mean(-2)
    if kind == "max":
        return tokens.amax(-2)
    if kind == "average_query":
        return attend(tokens, tokens.mean(-2, keepdim=True))
    assert query is not None, "a learnt query"
    return attend(tokens, query)


@dataclass(frozen=True)
class Recipe:
    """How every probe of the grid is trained: plain SGD, cosine to 0, no weight decay."""

    poolings: tuple[PoolingName, ...]
    learning_rates: tuple[float, ...]
    momentum: float
    steps: int
    batch_size: int
    seed: int


def batches(count: int, recipe: Recipe) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers of every step: shuffled epochs one after the other, the same for all probes."""
    import numpy as np

    generator = np.random.default_rng(recipe.seed)
    size, waiting = min(recipe.batch_size, count), np.zeros(0, dtype=np.int64)
    for _ in range(recipe.steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, generator.permutation(count)])
        yield np.sort(waiting[:size])
        waiting = waiting[size:]


class Grid:
    """All probes as one stack of weights: probe p is pooling p // R at learning rate p % R.

    Every probe begins with the same linear layer and queries (of its kind), so that two learning rates differ in
    nothing else; a probe that diverges leaves the others alone.
    """

    def __init__(self, recipe: Recipe, channels: int, labels: int, device: Any) -> None:
        """`channels` C of a position, `labels` L."""
        import torch

        self.recipe, self.device = recipe, device
        rates = len(recipe.learning_rates)
        count = len(recipe.poolings) * rates
        generator = torch.Generator().manual_seed(recipe.seed)
        bound = 1 / math.sqrt(channels)
        weight = (torch.rand(labels, channels, generator=generator) * 2 - 1) * bound
        bias = (torch.rand(labels, generator=generator) * 2 - 1) * bound
        self.weight, self.bias = weight.repeat(count, 1, 1).to(device), bias.repeat(count, 1).to(device)
        self.queries = {
            kind: (torch.randn(QUERIES[kind], channels, generator=generator) * bound)
            .repeat(rates, 1, 1)
            .to(device)
            for kind in recipe.poolings
            if kind in QUERIES
        }
        self.rate = torch.tensor(recipe.learning_rates * len(recipe.poolings), device=device)

    def logits(self, fixed: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Logits [P, B, L] of a batch: `fixed` [K, B, C] of the poolings without weights, tokens B times [N, C]."""
        import torch

        rates, at, parts = len(self.recipe.learning_rates), 0, []
        for kind in self.recipe.poolings:
            if kind in QUERIES:
                query = self.queries[kind]
                parts.append(torch.stack([pooled(kind, one, query) for one in tokens], 1))
            else:
                parts.append(fixed[at].expand(rates, -1, -1))
                at += 1
        return torch.cat(parts) @ self.weight.transpose(1, 2) + self.bias[:, None]

    def train(
        self,
        fixed: Tensor,
        read: Read,
        target: npt.NDArray[np.float32],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Train every probe on `fixed` [K, n, C], the tokens `read(row)` and targets [n, L] (NaN: not labelled)."""
        import torch

        weights = [self.weight, self.bias, *self.queries.values()]
        rates = len(self.recipe.learning_rates)
        own = [self.rate[:, None, None], self.rate[:, None]]
        own += [self.rate[:rates, None, None] for _ in self.queries]
        speed = [torch.zeros_like(weight) for weight in weights]
        truth = torch.from_numpy(target).to(self.device)
        for step, rows in enumerate(batches(len(target), self.recipe)):
            for weight in weights:
                weight.requires_grad_(True)
            loss = masked_bce(self.logits(fixed[:, rows], self._tokens(read, rows)), truth[rows]).sum()
            slopes = torch.autograd.grad(loss, weights, allow_unused=True)
            decay = 0.5 * (1 + math.cos(math.pi * step / self.recipe.steps))
            with torch.no_grad():
                for weight, slope, moving, rate in zip(weights, slopes, speed, own, strict=True):
                    weight.requires_grad_(False)
                    if slope is not None:
                        moving.mul_(self.recipe.momentum).add_(slope)
                        weight.sub_(rate * decay * moving)
            progress(step + 1, self.recipe.steps)

    def _tokens(self, read: Read, rows: npt.NDArray[np.int64]) -> list[Tensor]:
        import numpy as np
        import torch

        if not self.queries:
            return []
        return [torch.from_numpy(np.array(read(int(row)), dtype=np.float32)).to(self.device) for row in rows]

    def scores(self, fixed: Tensor, read: Read) -> npt.NDArray[np.float64]:
        """Logits [P, n, L] of volumes, one at a time."""
        import numpy as np
        import torch

        parts = []
        with torch.inference_mode():
            for row in range(fixed.shape[1]):
                rows = np.array([row])
                parts.append(self.logits(fixed[:, rows], self._tokens(read, rows)).double().cpu().numpy())
        return np.concatenate(parts, axis=1)

    def probe(self, number: int) -> tuple[PoolingName, float, dict[str, npt.NDArray[np.float32]]]:
        """Pooling, learning rate and weights (`weight`, `bias` and, where learnt, `query`) of one probe."""
        rates = self.recipe.learning_rates
        kind = self.recipe.poolings[number // len(rates)]
        found = {"weight": self.weight[number], "bias": self.bias[number]}
        if kind in self.queries:
            found["query"] = self.queries[kind][number % len(rates)]
        return kind, rates[number % len(rates)], {name: value.cpu().numpy() for name, value in found.items()}


def masked_bce(logits: Tensor, target: Tensor) -> Tensor:
    """The mean binary cross-entropy [P] of logits [P, B, L] over the known of the targets [B, L] (NaN: unknown)."""
    import torch.nn.functional as F

    known = target.isfinite()
    losses = F.binary_cross_entropy_with_logits(
        logits, target.nan_to_num().expand_as(logits), reduction="none"
    )
    return (losses * known).sum((1, 2)) / known.sum().clamp(min=1)


def fixed_features(poolings: Sequence[PoolingName], read: Read, count: int, device: Any) -> Tensor:
    """[K, count, C] of the poolings that have no weights; K may be 0."""
    import numpy as np
    import torch

    kinds = [kind for kind in poolings if kind not in QUERIES]
    rows = []
    for row in range(count):
        tokens = torch.from_numpy(np.array(read(row), dtype=np.float32)).to(device)
        rows.append(torch.stack([pooled(kind, tokens) for kind in kinds]) if kinds else tokens[:0])
    return torch.stack(rows, 1)


@dataclass(frozen=True)
class GridProbe:
    """The chosen probe: what it pools with, its weights [L, C], [L] (and [Q, C]), and a threshold a label."""

    labels: tuple[str, ...]
    thresholds: tuple[float | None, ...]
    label_source: str
    scale: int
    resolution: Resolution
    pooling: PoolingName
    learning_rate: float
    tensors: dict[str, npt.NDArray[np.float32]]

    def logits(self, read: Read, count: int) -> npt.NDArray[np.float64]:
        """Log-odds [count, L] of volumes whose positions `read(row)` gives; thresholds are on these."""
        import numpy as np
        import torch

        held = {name: torch.from_numpy(value) for name, value in self.tensors.items()}
        found = np.zeros((count, len(self.labels)))
        with torch.inference_mode():
            for row in range(count):
                tokens = torch.from_numpy(np.array(read(row), dtype=np.float32))
                vector = pooled(self.pooling, tokens, held.get("query"))
                found[row] = (held["weight"] @ vector + held["bias"]).double().numpy()
        return found

    def save(self, folder: Path) -> None:
        """Write `probe.safetensors` and `probe.json` into `folder`."""
        import numpy as np
        from safetensors.numpy import save

        from components.base.files import write_bytes, write_json

        tensors = {name: np.ascontiguousarray(value) for name, value in sorted(self.tensors.items())}
        write_bytes(folder / TENSORS, save(tensors))
        write_json(
            folder / SETTINGS, {name: value for name, value in vars(self).items() if name != "tensors"}
        )

    @classmethod
    def load(cls, folder: Path) -> GridProbe:
        """Read what `save` wrote; a missing or damaged file is an `InputError` or `IntegrityError`."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        from components.base.files import missing_input, read_json

        settings = read_json(folder / SETTINGS)
        if not (folder / TENSORS).exists():
            raise missing_input(folder / TENSORS)
        try:
            tensors = load_file(folder / TENSORS)
            settings |= {name: tuple(settings[name]) for name in ("labels", "thresholds")}
            probe = cls(**settings, tensors=tensors)
            shape = tensors["weight"].shape
            queries = QUERIES.get(probe.pooling, 0)
            right = shape[0] == len(probe.labels) == len(probe.thresholds) == len(tensors["bias"])
            right = right and tensors["query"].shape == (queries, shape[1]) if queries else right
            if not right or probe.pooling not in POOLINGS:
                raise ValueError
        except (SafetensorError, KeyError, TypeError, ValueError):
            raise IntegrityError(
                "the probe's files do not fit together",
                rule="probe.format",
                fix="run finetune --task probe_grid again",
            ) from None
        return probe
