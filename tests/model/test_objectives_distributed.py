"""P1: two processes have the loss and the gradients, on both towers, of one process with the whole batch."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

import torch
from torch import distributed as dist

from components.objectives import OBJECTIVES
from components.pretraining.features import Features
from tests.objectives_support import Dual, make_batch

LENGTHS: list[int | None] = [9, 5, None, 7, 4, 6]
SHARES = ([0, 1, 2], [3, 4, 5])  # two pairs and an image here, three pairs there
NAMES = ("report_contrast", "vision_contrast")


def losses_and_gradients(rows: list[int]) -> dict[str, list[float]]:
    """Loss and the flat gradient of every parameter, for the batch rows of one process."""
    from tests.objectives_support import permuted

    batch = permuted(make_batch(LENGTHS), rows)
    answer = {}
    for name in NAMES:
        model = Dual()
        kind = OBJECTIVES.get(name)
        torch.manual_seed(1)
        objective = kind(kind.Params(), model)
        if name == "vision_contrast":  # mixing takes voxels of the rows at hand: compare without it
            objective.params = kind.Params(views={"max_covered": 0.0})
        loss = objective(batch, Features(model, batch))[name]
        loss.backward()
        values = [*model.parameters(), *objective.parameters()]
        flat = torch.cat([(torch.zeros_like(v) if v.grad is None else v.grad).flatten() for v in values])
        answer[name] = [float(loss.detach()), *flat.tolist()]
    return answer


def work(rank: int, port: int, out: str) -> None:
    """One of two processes; averages gradients as DDP does."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = losses_and_gradients(SHARES[rank])
    averaged = {}
    for name, (loss, *gradient) in found.items():
        total = torch.tensor(gradient, dtype=torch.float64)
        dist.all_reduce(total)
        averaged[name] = [loss, *(total / 2).tolist()]
    Path(out, f"{rank}.json").write_text(json.dumps(averaged))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(rank, port, str(tmp_path))) for rank in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    whole = losses_and_gradients([0, 1, 2, 3, 4, 5])
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for name in NAMES:
            one, two = torch.tensor(whole[name]), torch.tensor(found[name])
            assert len(one) == len(two)
            assert float(one[1:].abs().max()) > 1e-4
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)
