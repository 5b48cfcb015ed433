"""Greedy and beam search with a ban on repeated n-grams, for anything with `begin`, `step` and `reorder`.

A beam's score is its log-probability divided by length^penalty. A row ends when `beams` of its texts have ended
(early stopping, as in VELVET-Med) or at `max_tokens`. Ties go to the smaller beam, then to the smaller token id,
so that the same model and memory give the same text.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from components.downstream.settings import DecodingParams


class LanguageModel(Protocol):
    """What decoding asks of a model; a state is whatever the model keeps between steps."""

    def step(self, ids: Tensor, state: Any) -> Tensor:
        """The next token of every row, ids [n], goes into the state -> logits [n, V]."""

    def reorder(self, state: Any, rows: Tensor) -> Any:
        """The state of some rows, int64 [m]."""


@dataclass
class _Row:
    """One text in the making: the beams alive (best first) and those that have ended."""

    alive: list[tuple[float, list[int]]]
    ended: list[tuple[float, list[int]]] = field(default_factory=list)

    def best(self, penalty: float) -> list[int]:
        """The best text that ended, or where none did the best that was cut off."""
        texts = self.ended or [(score / max(len(ids), 1) ** penalty, ids) for score, ids in self.alive]
        return max(enumerate(texts), key=lambda item: (item[1][0], -item[0]))[1][1]


def decode(
    model: LanguageModel,
    state: Any,
    count: int,
    start: int,
    end: int,
    params: DecodingParams,
    banned: Collection[int] = (),
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """The token ids of `count` texts, without `start` and `end`.

    Args:
        state: a fresh state of `count` rows.
        banned: tokens that are never written (padding, masks).
    """
    beams = params.beams
    state = model.reorder(state, torch.arange(count, device=device).repeat_interleave(beams))
    rows = [_Row([(0.0, [])]) for _ in range(count)]
    waiting = list(range(count))  # the rows not done; each has `beams` rows of the state
    tokens = torch.full((count * beams,), start, dtype=torch.int64, device=device)
    never = torch.tensor(sorted(banned), dtype=torch.int64, device=device)
    for length in range(1, params.max_tokens + 1):
        logits = model.step(tokens, state)
        scores = torch.log_softmax(logits.double(), dim=-1).cpu()
        scores[:, never.cpu()] = -torch.inf
        parents, nexts, left = [], [], []
        for slot, number in enumerate(waiting):
            chosen = _advance(rows[number], scores[slot * beams : (slot + 1) * beams], params, end, length)
            if len(rows[number].ended) >= beams or not chosen:
                continue
            left.append(number)
            chosen += [chosen[0]] * (beams - len(chosen))  # unused beams of the state
            parents += [slot * beams + parent for parent, _ in chosen]
            nexts += [token for _, token in chosen]
        waiting = left
        if not waiting:
            break
        state = model.reorder(state, torch.tensor(parents, device=device))
        tokens = torch.tensor(nexts, device=device)
    return [row.best(params.length_penalty) for row in rows]


def _advance(
    row: _Row, scores: Tensor, params: DecodingParams, end: int, length: int
) -> list[tuple[int, int]]:
    """Lengthen a row's beams by a token each -> (beam, token) of those alive, at most `beams`."""
    scores = scores[: len(row.alive)]
    if params.no_repeat_ngram:
        for beam, (_, ids) in enumerate(row.alive):
            scores[beam, repeating(ids, params.no_repeat_ngram)] = -torch.inf
    total = scores + torch.tensor([score for score, _ in row.alive], dtype=torch.float64)[:, None]
    flat = total.flatten()
    order = _largest(flat, 2 * params.beams)
    alive: list[tuple[float, list[int]]] = []
    chosen: list[tuple[int, int]] = []
    for rank, place in enumerate(order):
        score = float(flat[place])
        if score == -torch.inf or len(alive) == params.beams:
            break
        beam, token = divmod(place, total.shape[1])
        before = row.alive[beam][1]
        if token == end:
            if rank < params.beams and len(row.ended) < params.beams:
                row.ended.append((score / length**params.length_penalty, before))
            continue
        alive.append((score, [*before, token]))
        chosen.append((beam, token))
    row.alive = alive or row.alive
    return chosen


def _largest(values: Tensor, count: int) -> list[int]:
    """The places of the `count` largest values, the first of equals first (`topk` leaves that open)."""
    least = values.topk(min(count, len(values))).values[-1]
    places = (values >= least).nonzero()[:, 0]
    order = torch.sort(values[places], descending=True, stable=True).indices
    found: list[int] = places[order][:count].tolist()
    return found


def repeating(ids: list[int], size: int) -> list[int]:
    """The tokens that would make an n-gram of `size` come a second time."""
    if len(ids) < size:
        return []
    last = ids[len(ids) - size + 1 :]
    return sorted(
        {ids[at + size - 1] for at in range(len(ids) - size + 1) if ids[at : at + size - 1] == last}
    )
