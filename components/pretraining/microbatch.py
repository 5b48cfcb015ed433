"""Large contrastive batches in little memory: encoders see a few rows at a time, losses see them all.

This is gradient caching (GradCache, Gao et al. 2021, arXiv:2101.06983) as a property of the encoders' calls. Inside
`micro_batches` a call of an encoder with many rows runs in parts whose activations are not kept; the features of
all rows are joined, and the losses are computed on them as ever. In the backward pass the gradient reaches the
features first (it is the cache of the paper); then part after part is computed once more, with the same random
numbers, and gives its share of the gradient. So loss and gradient are those of the whole batch, for every
objective that reads the encoders, and no more than one part's activations are alive.

Two things follow. Layers must not mix rows (no batch norm). With dropout the draws are made part by part: the run is
one of equal law, but not the run that the same seed gives without micro-batches.

What an objective keeps of its own (a decoder over image tokens) is not an encoder's. An objective that says
`row_wise = True`, because its loss is a mean over rows that do not know each other, is computed part by part in the
same manner (`by_parts`): its value is the mean over parts, weighted by their rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from components.encoders.features import TextBatch
from components.pretraining.features import Memo

ROW_WISE_CALLS: Mapping[str, tuple[str, ...]] = {
    "vision": ("forward", "visible"),
    "text": ("forward", "hidden_states", "report", "multimodal"),
}
"""Methods of the encoders whose every argument and answer has a row a study."""


@contextmanager
def micro_batches(encoder: nn.Module, rows: int) -> Iterator[None]:
    """Let the encoders take at most `rows` rows at a time; 0 changes nothing.

    `encoder` is a `DualEncoder`. The backward pass may run after the block has ended.
    """
    changed = []
    for name, methods in ROW_WISE_CALLS.items() if rows else ():
        module = getattr(encoder, name)
        for method in methods:
            if hasattr(module, method):
                setattr(module, method, _in_parts(getattr(module, method), rows))
                changed.append((module, method))
    try:
        yield
    finally:
        for module, method in changed:
            delattr(module, method)  # the class's own method shows again


def _in_parts(function: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """`function` of row-wise arguments, at most `rows` rows at a time, the answers joined."""

    def call(*args: Any) -> Any:
        count = len(args[0])
        if count <= rows:
            return function(*args)
        run = _recomputed if torch.is_grad_enabled() else _called
        parts = [slice(start, start + rows) for start in range(0, count, rows)]
        return join([run(function, *(take(value, part) for value in args)) for part in parts])

    return call


def _called(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _recomputed(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)` without its activations, which the backward pass computes again.

    The checkpoint keeps the random state of the devices of its tensor arguments; those inside a `TextBatch` it does
    not see, hence the tensor in front.
    """
    return checkpoint(
        lambda _, *rest: function(*rest),
        _any_tensor(args),
        *args,
        use_reentrant=False,
        preserve_rng_state=True,
    )


def _any_tensor(args: Sequence[Any]) -> Tensor:
    first = args[0]
    return first.input_ids if isinstance(first, TextBatch) else first


def take(value: Any, part: slice) -> Any:
    """Some rows of a tensor or of a dataclass of tensors; anything else as it is."""
    if isinstance(value, Tensor):
        return value[part]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
        return type(value)(**{name: _take_nested(field, part) for name, field in fields.items()})
    return value


def _take_nested(value: Any, part: slice) -> Any:
    if isinstance(value, tuple):
        return tuple(take(item, part) for item in value)
    return take(value, part)


def join(parts: Sequence[Any]) -> Any:
    """Answers of parts -> the answer for all rows.

    Tensors whose second axis differs (sentences, words: each part counts its own longest report) are padded with
    zeros, which for a mask is "absent".
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(_padded(parts))
    if isinstance(first, tuple):
        return tuple(join(values) for values in zip(*parts, strict=True))
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [item.name for item in dataclasses.fields(first)]
        return type(first)(**{name: join([getattr(part, name) for part in parts]) for name in names})
    raise TypeError(f"an encoder answered a {type(first).__name__}, which has no rows to join")


def _padded(parts: Sequence[Tensor]) -> list[Tensor]:
    if parts[0].dim() < 2 or len({part.shape[1] for part in parts}) == 1:
        return list(parts)
    longest = max(part.shape[1] for part in parts)
    return [F.pad(part, [0, 0] * (part.dim() - 2) + [0, longest - part.shape[1]]) for part in parts]


class PartFeatures(Memo):
    """`Features` of some rows of a step: slices of what the whole batch shares, own memos for the rest."""

    def __init__(self, whole: Any, rows: slice, pairs: slice) -> None:
        """`whole` are the step's `Features`; `pairs` are the rows' places among the paired ones."""
        super().__init__()
        self._whole, self._rows, self._pairs = whole, rows, pairs

    def volume(self, view: str) -> Any:
        """Features of the rows' "global" or "crop" volumes."""
        return take(self._whole.volume(view), self._rows)

    def paired_volume(self) -> Any:
        """Features of the global volumes of the rows that have a report."""
        return take(self._whole.paired_volume(), self._pairs)

    def text(self) -> Any:
        """Features of the rows' reports."""
        return take(self._whole.text(), self._pairs)


def by_parts(
    objective: Callable[[Any, Any], dict[str, Tensor]], batch: Mapping[str, Any], features: Any, rows: int
) -> dict[str, Tensor]:
    """The losses of a row-wise objective, at most `rows` rows at a time, weighted by rows.

    Activations are computed again in the backward pass, but for the first part with a loss: what it asks of the
    shared features must stay.
    """
    count = len(batch["study_key"])
    if not rows or count <= rows:
        return objective(batch, features)
    sums: dict[str, Tensor] = {}
    weights: dict[str, int] = {}
    for start in range(0, count, rows):
        part, pairs = slice(start, min(start + rows, count)), _pairs_within(batch, start, start + rows)
        some = batch_rows(batch, part, pairs)
        view = PartFeatures(features, part, pairs)
        if sums and torch.is_grad_enabled():
            found = checkpoint(
                lambda _, *rest: objective(*rest), some["volume"], some, view, use_reentrant=False
            )
        else:
            found = objective(some, view)
        for name, value in found.items():
            size = part.stop - part.start
            sums[name] = value * size + sums.get(name, 0)
            weights[name] = weights.get(name, 0) + size
    return {name: value / weights[name] for name, value in sums.items()}


def _pairs_within(batch: Mapping[str, Any], start: int, stop: int) -> slice:
    """Which of the paired rows (they are in ascending order) lie in rows start..stop-1."""
    paired = batch["paired"].tolist()
    return slice(sum(row < start for row in paired), sum(row < stop for row in paired))


def batch_rows(batch: Mapping[str, Any], part: slice, pairs: slice) -> dict[str, Any]:
    """Some rows of a batch: what has an entry a row or a pair is cut, the rest stays.

    Reports without a volume belong to no row; they go with the first part.
    """
    count, num_paired = len(batch["study_key"]), len(batch["paired"])
    some: dict[str, Any] = {}
    for key, value in batch.items():
        if key.startswith("text_only"):
            if part.start == 0:
                some[key] = value
            continue
        size = len(value) if isinstance(value, Tensor | TextBatch | list | tuple) and _has_rows(value) else -1
        chosen = part if size == count and not isinstance(value, TextBatch) else pairs
        if size not in (count, num_paired):
            some[key] = value
        else:
            some[key] = value[chosen] if isinstance(value, list | tuple) else take(value, chosen)
    some["paired"] = batch["paired"][pairs] - part.start
    return some


def _has_rows(value: Any) -> bool:
    return not isinstance(value, Tensor) or value.dim() > 0
