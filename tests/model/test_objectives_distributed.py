"""P1, P2: two processes have the loss and the gradients, on both towers, of one process with the whole batch.

Every registered objective takes part. The processes' shares are unequal (two pairs and an image against three pairs)
and padded to different lengths.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist

from components.objectives import OBJECTIVES
from components.objectives._gather import (
    gather_padded,
    gather_plain,
    mean_over_processes,
    own_rows,
    total_count,
)
from components.pretraining.features import Features
from tests.objectives_support import NAMES, in_double, made, make_batch, shard

LENGTHS: list[int | None] = [9, 5, None, 17, 4, 6]
ROWS = ([0, 1, 2], [3, 4, 5])
TEXTS = ([0], [1, 2])
CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in NAMES}
CASES |= {"report_contrast, sigmoid": ("report_contrast", {"form": "sigmoid", "initial_bias": -2.0})}


def changes(name: str, more: dict[str, Any]) -> dict[str, Any]:
    """Views are compared unmixed: mixing takes voxels of the rows that a process has."""
    plain = {"views": {"max_covered": 0.0}} if "views" in OBJECTIVES.get(name).Params.model_fields else {}
    return plain | more


def losses_and_gradients(rows: list[int], texts: list[int]) -> dict[str, list[float]]:
    """Loss and the flat gradient of every parameter, for the share of one process."""
    batch = shard(make_batch(LENGTHS, text_only=[7, 3, 12]), rows, texts)
    answer = {}
    for case, (name, more) in CASES.items():
        model, objective = made(name, **changes(name, more))
        share = in_double(model, objective, batch)  # an L1's gradient jumps where rounding changes a sign
        loss = objective(share, Features(model, share))[name]
        loss.backward()
        values = [*model.parameters(), *objective.parameters()]
        flat = torch.cat([(torch.zeros_like(v) if v.grad is None else v.grad).flatten() for v in values])
        answer[case] = [float(loss.detach()), *flat.tolist()]
    return answer


def own_local_loss(rank: int) -> float:
    """The sentence contrast of a process's rows without those of others."""
    batch = shard(make_batch(LENGTHS), ROWS[rank], [])
    model, objective = made("sentence_region", gather=False)
    return float(objective(batch, Features(model, batch))["sentence_region"].detach())


def helpers(rank: int) -> dict[str, Any]:
    """What the functions of `_gather` answer in one process."""
    plain = gather_plain({"rank": rank, "word": "\u00fc" * (rank + 1)})
    rows = gather_padded(torch.full((rank + 1, 2 + rank), float(rank)), value=9.0)
    weight = torch.tensor(2.0, requires_grad=True)
    terms = [1.0, 2.0] if rank == 0 else [6.0]
    mean = mean_over_processes(weight * sum(terms), total_count(len(terms)))
    mean.backward()
    return {
        "plain": plain,
        "rows": rows.tolist(),
        "own": list(own_rows([1, 2])),
        "mean": float(mean.detach()),
        "slope": float(weight.grad),
        "local": own_local_loss(rank),
    }


def work(rank: int, port: int, out: str) -> None:
    """One of two processes; averages gradients as DDP does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = losses_and_gradients(ROWS[rank], TEXTS[rank])
    averaged: dict[str, Any] = {}
    for case, (loss, *gradient) in found.items():
        total = torch.tensor(gradient, dtype=torch.float64)
        dist.all_reduce(total)
        averaged[case] = [loss, *(total / 2).tolist()]
    Path(out, f"{rank}.json").write_text(json.dumps({"cases": averaged, "helpers": helpers(rank)}))
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found."""
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank, port, str(out))) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
        assert worker.exitcode == 0
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one() -> dict[str, list[float]]:
    return losses_and_gradients([0, 1, 2, 3, 4, 5], [0, 1, 2])


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one(case: str, one: dict[str, list[float]], two: list[dict[str, Any]]) -> None:
    whole = torch.tensor(one[case], dtype=torch.float64)
    assert float(whole[1:].abs().max()) > 1e-4
    for found in two:
        parts = torch.tensor(found["cases"][case], dtype=torch.float64)
        assert len(parts) == len(whole)
        torch.testing.assert_close(parts, whole, rtol=1e-7, atol=1e-9)


def test_gathering(two: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(two):
        answers = found["helpers"]
        assert answers["plain"] == [{"rank": 0, "word": "\u00fc"}, {"rank": 1, "word": "\u00fc\u00fc"}]
        assert answers["rows"] == [[0.0, 0.0, 9.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
        assert answers["own"] == ([0], [1, 2])[rank]
        assert answers["mean"] == pytest.approx(2 * (1 + 2 + 6) / 3)
    slopes = [found["helpers"]["slope"] for found in two]
    assert sum(slopes) / 2 == pytest.approx(3.0)  # DDP's average is the slope of the mean over all terms


def test_the_paper_s_local_loss_stays_in_its_process(two: list[dict[str, Any]]) -> None:
    """`gather` false: the value is that of one process that has the own rows only."""
    for rank, found in enumerate(two):
        assert found["helpers"]["local"] == pytest.approx(own_local_loss(rank), rel=1e-6)
    assert two[0]["helpers"]["local"] != pytest.approx(two[1]["helpers"]["local"])
