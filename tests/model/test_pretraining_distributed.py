"""Two processes on the CPU (gloo): the losses and gradients of one, by DDP and by FSDP; the stage as two ranks."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from components.base.config import parse
from components.base.errors import ConfigError
from components.base.files import read_json
from components.pretraining.launch import MALLOC, free_port
from components.pretraining.schedule import Schedule
from components.pretraining.settings import Params
from tests.pretraining_support import CONTRACT, PARAMS, TEXT, VISION, context_at, write_cohort

ROOT = Path(__file__).resolve().parents[2]
# what a row is mixed with is drawn from the rows at hand: the one part of a step that knows its process
UNMIXED = {"views": {"max_covered": 0.0}}
OBJECTIVES = {
    "report_contrast": {},
    "vision_contrast": {"dim": 8, **UNMIXED},
    "rotation": UNMIXED,
    "inpainting": UNMIXED,
}
BLOCK = {
    **PARAMS,
    "text": {**TEXT, "dropout": 0.0},
    "objectives": OBJECTIVES,
    "batch_size": 3,
    "clip_gradient": 0.5,
    "num_steps": 4,
}
SHARES = ([0, 1, 2], [3, 4, 5])
TEXTS = ["A dense nodule on the left.", "It lies at the upper level.", "The heart is normal."]


def make(params: Params) -> tuple[Any, dict[str, Any]]:
    """A module and a batch of six pairs."""
    from components.encoders import build
    from components.encoders.features import TextBatch
    from components.encoders.tokenization import ReportTokenizer
    from components.pretraining.module import PretrainModule, make_objectives

    tokenizer = ReportTokenizer.train(TEXTS * 3, 80, max_length=64, max_sentences=8)
    encoder = build(VISION, params.text, 8, tokenizer, CONTRACT, seed=2)
    module = PretrainModule(
        encoder, make_objectives(params.objectives, encoder, 1), 5, params.micro_batch_size
    )
    source = torch.Generator().manual_seed(0)
    told = [TEXTS[row % 3 :] + TEXTS[: row % 2] for row in range(6)]
    batch = {
        "step": 0,
        "volume": torch.rand((6, 1, 32, 32, 32), generator=source),
        "crop": torch.rand((6, 1, 32, 32, 32), generator=source),
        "text": TextBatch.from_arrays(tokenizer.encode(told)),
        "paired": torch.arange(6),
        "study_key": [f"stu_{row}" for row in range(6)],
        "patient_key": [f"pat_{row}" for row in range(6)],
    }
    return module, batch


def rows_of(batch: dict[str, Any], rows: list[int], step: int) -> dict[str, Any]:
    return {
        "step": step,
        "volume": batch["volume"][rows],
        "crop": batch["crop"][rows],
        "text": batch["text"].subset(rows),
        "paired": torch.arange(len(rows)),
        "study_key": [batch["study_key"][row] for row in rows],
        "patient_key": [batch["patient_key"][row] for row in rows],
    }


def train(folder: Path, values: dict[str, Any], rows: list[int]) -> None:
    """Four steps on the same rows; writes losses, the first step's gradients, weights and a checkpoint's step."""
    from components.pretraining.checkpoint import CheckpointStore
    from components.pretraining.devices import make_fabric, weight_tensors, whole
    from components.pretraining.engine import Trainer

    params = parse(Params, values, "pretrain")
    fabric = make_fabric(params)
    fabric.launch()
    module, batch = make(params)
    module.rank = fabric.global_rank
    context = context_at(folder)
    trainer = Trainer(module, params, CheckpointStore(folder, {"of": "test"}), context, fabric)
    trainer.module.train()
    found: dict[str, torch.Tensor] = {}
    for step in range(4):
        trainer._step(step, rows_of(batch, rows, step))
        if step == 0:
            for name, value in module.named_parameters():
                if value.grad is not None:
                    found[f"gradient.{name}"] = whole(value.grad).detach().clone()
        for name, value in trainer.outcome.losses.items():
            found[f"loss.{step}.{name}"] = torch.tensor(value)
    found |= {f"weight.{name}": value for name, value in weight_tensors(module).items()}
    trainer._save(4)
    if fabric.is_global_zero:
        save_file({name: value.contiguous() for name, value in found.items()}, folder / "found.safetensors")
    fabric.barrier()


def rank(number: int, port: int, folder: str, values: dict[str, Any]) -> None:
    """One of two processes, as torchrun would start it."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "GROUP_RANK": "0"}
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "LOCAL_WORLD_SIZE": "2"}
    train(Path(folder), values, SHARES[number])
    torch.distributed.destroy_process_group()


def two_processes(folder: Path, values: dict[str, Any]) -> dict[str, torch.Tensor]:
    context = multiprocessing.get_context("spawn")
    port = free_port()
    workers = [context.Process(target=rank, args=(number, port, str(folder), values)) for number in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(180)
        assert worker.exitcode == 0
    return load_file(folder / "found.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with all six rows."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, {**BLOCK, "batch_size": 6}, [*SHARES[0], *SHARES[1]])
    return folder


@pytest.mark.parametrize(
    "changes", [{"strategy": "ddp"}, {"strategy": "ddp", "micro_batch_size": 2}, {"strategy": "fsdp"}]
)
def test_two_processes_train_as_one(changes: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    """P1: losses of four steps, gradients of both towers in the first, and the weights in the end."""
    wanted = load_file(alone / "found.safetensors")
    found = two_processes(tmp_path, {**BLOCK, "devices": 2, **changes})
    assert {name for name in wanted if not name.startswith("gradient")} <= found.keys()
    towers = {name.split(".")[2] for name in wanted if name.startswith("gradient.encoder.")}
    assert {"vision", "text", "volume_projection", "report_projection", "temperature"} <= towers
    for name, value in wanted.items():
        if name.startswith("gradient") and name not in found:
            continue
        limit = 2e-4 if name.startswith("weight") else 2e-5
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=limit, msg=name)
    missing = {name for name in wanted if name.startswith("gradient") and name not in found}
    assert not missing


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_checkpoint_is_whole_whatever_the_strategy(strategy: str, alone: Path, tmp_path: Path) -> None:
    """What two processes save has the names and shapes of what one saves, so either can read it."""
    from components.pretraining.checkpoint import CheckpointStore

    two_processes(tmp_path, {**BLOCK, "devices": 2, "strategy": strategy})
    mine, other = (CheckpointStore(folder, {"of": "test"}).latest() for folder in (tmp_path, alone))
    assert mine is not None
    assert other is not None
    for kind in ("weights", "optimizer"):
        one, two = getattr(mine, kind), getattr(other, kind)
        assert {name: value.shape for name, value in one.items()} == {
            name: value.shape for name, value in two.items()
        }


def stage(root: Path, *changes: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m components.pretraining.pretrain` as DVC or a person runs it."""
    command = [sys.executable, "-m", "components.pretraining.pretrain", "--root", str(root)]
    environment = {**os.environ, **MALLOC, "OMP_NUM_THREADS": "1", **variables}
    pairs = [part for change in changes for part in ("--set", change)]
    return subprocess.run(
        [*command, *pairs], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=300
    )


@pytest.mark.slow
def test_the_stage_starts_its_own_ranks(tmp_path: Path) -> None:
    """`devices: 2` is all it takes; rank 0 alone writes."""
    write_cohort(tmp_path)
    found = stage(tmp_path, "pretrain.devices=2", "pretrain.num_steps=3")
    assert found.returncode == 0, found.stderr
    metrics = read_json(tmp_path / "artifacts" / "pretrain" / "metrics.json")
    assert metrics["num_volumes_seen"] == 3 * 2 * PARAMS["batch_size"]
    log = (tmp_path / "logs" / "pretrain.log").read_text()
    assert log.count("pretrain done") == 1
    assert log.count("step 3/3") == 1
    assert read_json(tmp_path / "logs" / "pretrain.timing.json")["world_size"] == 2


@pytest.mark.slow
def test_torchrun_starts_the_same_stage(tmp_path: Path) -> None:
    """The command that a launcher of several machines gives, through VELVET_LAUNCH; FSDP gives an encoder too."""
    from components.encoders import from_pretrained

    write_cohort(tmp_path)
    launch = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 --master-port {free_port()}"
    found = stage(
        tmp_path, "pretrain.devices=2", "pretrain.num_steps=3", "pretrain.strategy=fsdp", VELVET_LAUNCH=launch
    )
    assert found.returncode == 0, found.stderr
    encoder = from_pretrained(tmp_path / "artifacts" / "pretrain" / "encoder")
    assert encoder.embed_reports(["A nodule on the left."]).shape == (1, 8)


@pytest.mark.slow
def test_a_failing_rank_ends_the_stage_with_its_own_code(tmp_path: Path) -> None:
    write_cohort(tmp_path)
    found = stage(tmp_path, "pretrain.devices=2", "pretrain.resume=0123456789abcdef")
    assert found.returncode == 11
    assert "there is no interrupted run" in found.stderr


def test_a_world_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.pretraining.devices import make_fabric

    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match="is 2, but this process is one of 4"):
        make_fabric(parse(Params, {**PARAMS, "devices": 2}, "pretrain"))
    with pytest.raises(ConfigError, match="cannot train in 16-mixed"):
        parse(Params, {**PARAMS, "strategy": "fsdp", "precision": "16-mixed"}, "pretrain")


def test_ranks_share_the_order_of_one_process() -> None:
    """The rows of two ranks together are, step by step, those of one process with twice the batch."""
    for fraction, rows in ((0.0, (8, 0)), (0.25, (6, 2))):
        one, two = Schedule(3, 40, 8, 8, fraction), Schedule(3, 40, 8, 4, fraction, 2)
        assert one.rows == rows
        for step in range(30):
            shared = sorted(draw for number in (0, 1) for draw in two.batch(step, number))
            assert shared == sorted(one.batch(step))


def test_parameters_of_the_stage_choose_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.pretraining import launch
    from components.pretraining.pretrain import STEP

    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"pretrain": {**PARAMS, "devices": 3}}))
    root = ["--root", str(tmp_path)]
    assert launch._devices(STEP, root) == 3
    assert launch._devices(STEP, [*root, "--set", "pretrain.devices=2"]) == 2
    assert launch._devices(STEP, [*root, "--set", "pretrain.num_nodes=2"]) == 1
    assert launch._devices(STEP, ["--root", str(tmp_path / "none")]) == 1
    asked: list[Any] = []
    monkeypatch.setattr(
        launch.os, "execvpe", lambda *args: asked.append(args) or (_ for _ in ()).throw(SystemExit)
    )
    monkeypatch.setenv("VELVET_LAUNCH", "torchrun --nnodes 2 --nproc-per-node 4")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(sys, "argv", ["pretrain", *root])
    with pytest.raises(SystemExit):
        launch.main(STEP)
    assert asked[0][1][:3] == ["torchrun", "--nnodes", "2"]
    assert asked[0][1][-4:] == ["-m", "components.pretraining.pretrain", *root]
