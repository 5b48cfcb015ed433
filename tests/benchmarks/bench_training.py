"""A full training step of the engine against a plain reading of the methods: time, losses and memory.

    python tests/benchmarks/bench_training.py [--settings tiny velvet64 velvet96] [--steps 6] [--threads 1] [--parts]
        [--set KEY=VALUE ...] [--allocator tuned|default] [--backward sum|each] [--rows N] [--sides engine plain]

Settings: `tiny` are the encoders, objectives and sizes of params.yaml; `velvet64` and `velvet96` are VELVET-Med's
architecture and nine objectives at embed 12, depths 2-2-2-2 and a batch of 4 (SETTINGS). Its code recomputes the
Swin's activations (gradient checkpointing), and so does the plain reading, which would not fit into 20 GB without; the
engine's window attention is lean, and it keeps the rest. Dropout is off in both, as the two draw it in a different
order. Both sides train from the same weights on the same batches; each is a process of its own, and steps are taken in
turns, so that other work on the machine meets both. Ratios are plain over engine: of the median and the least wall
times, of neighbouring steps (pairs), and of the least processor times (cpu), which other work hardly touches.
"max_difference" is the largest relative difference of a loss, in the first step (equal weights) and over all steps;
"gradient_difference_first_step" that of a tower's gradient, as a share of its norm; memory is the high-water mark of
the process. The plain reading takes one backward pass of the sum, which holds the graphs of all objectives at once;
`--backward each` takes one after every objective (velvet96 does not fit into 20 GB otherwise); `--rows` another batch
on both sides; `--sides engine` leaves the plain reading out (velvet96 at its batch of 4 needs more than 24 GB).
`--parts` adds the processor time of a step of each objective alone against that of all together. `--set` changes the
engine's pretrain parameters only (for instance micro_batch_size=2).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
VELVET_TEXT = {
    "name": "tribert",
    "hidden": 64,
    "layers": 2,
    "multimodal_layers": 2,
    "heads": 2,
    "ffn": 256,
    "max_positions": 512,
    "dropout": 0.0,
}
VOCABULARY = (
    "no acute left right upper lower lobe nodule effusion pleural pericardial mild moderate severe large small "
    "calcification coronary artery aorta normal size heart enlarged lymph node mediastinal hilar opacity ground "
    "glass consolidation atelectasis emphysema bronchiectasis thickening interlobular septal hernia hiatal liver"
)
WORDS = VOCABULARY.split()


def velvet(size: int) -> dict[str, Any]:
    """VELVET-Med's block of `pretrain` at a small width, for volumes of `size`^3."""
    return {
        "vision": {
            "name": "swin",
            "patch": 2,
            "window": 7,
            "embed_dim": 12,
            "depths": [2] * 4,
            "heads": [2, 2, 4, 4],
            "gradient_checkpointing": True,
        },
        "text": VELVET_TEXT,
        "embed_dim": 512,
        "tokenizer": {"max_length": 512},
        "objectives": {
            "report_contrast": {},
            "sentence_region": {},
            "word_patch": {},
            "image_text_matching": {},
            "multimodal_masked_language": {},
            "vision_contrast": {},
            "rotation": {},
            "inpainting": {},
            "masked_language": {},
        },
        "crop_size": [size] * 3,
        "batch_size": 4,
        "image_only_fraction": 0.0,
        "clip_gradient": 0.0,
        "learning_rate": 2e-5,
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "velvet64": velvet(64),
    "velvet96": velvet(96),
}


def block_of(setting: str, side: str, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The pretrain block and the contract of a setting."""
    import yaml

    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    block, contract = values["pretrain"], values["preprocess"]["contract"]
    for key, value in SETTINGS[setting].items():
        block[key] = {**block[key], **value} if key == "tokenizer" else value
    block["text"] = {**block["text"], "dropout": 0.0}
    if side == "engine":
        block["vision"] = {**block["vision"], "gradient_checkpointing": False}
    block |= {"num_steps": 1000, "warmup_steps": 0, "standardise_input": False, **changes}
    if SETTINGS[setting]:
        contract = {**contract, "size": block["crop_size"]}
    return block, contract


def reports(count: int, sentences: int, words: int) -> list[list[str]]:
    """Reports of about so many sentences and words each."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        [
            " ".join(rng.choice(WORDS, int(rng.integers(words // 2, words * 3 // 2)))).capitalize() + "."
            for _ in range(int(rng.integers(sentences // 2, sentences * 3 // 2)))
        ]
        for _ in range(count)
    ]


def batches(params: Any, contract: dict[str, Any], tokenizer: Any, texts: Any) -> Iterator[dict[str, Any]]:
    """Batches of smooth noise and invented reports, for ever."""
    import torch
    from torch.nn import functional as F

    from components.encoders.features import TextBatch

    count = params.batch_size
    paired = count - round(count * params.image_only_fraction)
    for step in range(1000):
        source = torch.Generator().manual_seed(step)
        made = {}
        for name, size in (("volume", contract["size"]), ("crop", params.crop_size)):
            coarse = torch.rand((count, 1, 8, 8, 8), generator=source)
            noise = torch.rand((count, 1, *size), generator=source)
            made[name] = (
                F.interpolate(coarse, size=tuple(size), mode="trilinear", align_corners=False) * 0.8
                + 0.2 * noise
            )
        chosen = [texts[(step * paired + row) % len(texts)] for row in range(paired)]
        yield {
            **made,
            "step": step,
            "text": TextBatch.from_arrays(tokenizer.encode(chosen)),
            "paired": torch.arange(paired),
            "study_key": [f"stu_{step:04d}{row:04d}" for row in range(count)],
            "patient_key": [f"pat_{step:04d}{row:04d}" for row in range(count)],
        }


Step = Callable[[Any], tuple[dict[str, float], dict[str, Any]]]
"""A batch -> the losses by name, and both towers by name, with their gradients."""


def gradients(towers: dict[str, Any]) -> dict[str, list[float]]:
    """A few numbers of each tower's gradient: its norm and its products with three fixed random directions."""
    import torch

    found = {}
    for name, tower in towers.items():
        parts = [value.grad for _, value in sorted(tower.named_parameters()) if value.grad is not None]
        if not parts:  # an objective alone may leave a tower out
            continue
        whole = torch.cat([part.flatten().double() for part in parts])
        source = torch.Generator().manual_seed(0)
        directions = [torch.randn(len(whole), generator=source, dtype=torch.float64) for _ in range(3)]
        found[name] = [float(whole.norm()), *(float(whole @ direction) for direction in directions)]
    return found


def engine_side(args: argparse.Namespace, folder: Path) -> tuple[Step, Any]:
    """The engine's own step (`Trainer._step`) and its batches."""
    module, params, stream = parts_of(args)
    from components.base.step import StepContext
    from components.pretraining.checkpoint import CheckpointStore
    from components.pretraining.engine import Trainer

    log = logging.getLogger("bench")
    context = StepContext(folder, "pretrain", None, log)
    trainer = Trainer(module, params, CheckpointStore(folder, {}), context)
    trainer.module.train()

    towers = {"vision": trainer.module.encoder.vision.backbone, "text": trainer.module.encoder.text}

    def step(batch: Any) -> tuple[dict[str, float], dict[str, Any]]:
        trainer._step(batch["step"], batch)
        return dict(trainer.outcome.losses), towers

    return step, stream


def parts_of(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Module, parameters and batches of a setting."""
    from components.base.config import parse
    from components.encoders import build
    from components.encoders.tokenization import ReportTokenizer
    from components.pretraining.module import PretrainModule, make_objectives
    from components.pretraining.settings import Params

    changes = dict(args.changes)
    only = changes.pop("only", None)
    block, contract = block_of(*args.worker, changes)
    if only:
        block["objectives"] = {only: block["objectives"][only]}
    params = parse(Params, {**block, "num_threads": args.threads}, "pretrain")
    texts = reports(32, *((4, 8) if args.worker[0] == "tiny" else (8, 12)))
    limits = params.tokenizer.model_dump(exclude={"vocab_size", "folder"})
    flat = [sentence for report in texts for sentence in report]
    tokenizer = ReportTokenizer.train(flat, params.tokenizer.vocab_size, **limits)
    encoder = build(params.vision, params.text, params.embed_dim, tokenizer, contract, seed=params.seed)
    objectives = make_objectives(params.objectives, encoder, params.seed)
    module = PretrainModule(encoder, objectives, params.seed, params.micro_batch_size)
    return module, params, batches(params, contract, tokenizer, texts)


def plain_side(args: argparse.Namespace, folder: Path) -> tuple[Step, Any]:
    """The plain reading with a plain optimiser loop."""
    import torch

    from components.pretraining.engine import learning_rate
    from tests.benchmarks.plain_velvet import PlainVelvet

    module, params, stream = parts_of(args)
    plain = PlainVelvet(module).train()
    torch.set_num_threads(args.threads)
    trained = plain.trained()
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": params.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=params.learning_rate, betas=params.betas, foreach=False)

    def step(batch: Any) -> tuple[dict[str, float], dict[str, Any]]:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(batch["step"], params)
        optimizer.zero_grad()
        losses = {}
        if args.backward == "each":
            for name, value in plain.one_by_one(batch):
                plain.total({name: value}).backward()
                losses[name] = value.detach()
            total = plain.total(losses)
        else:
            losses = plain(batch)
            total = plain.total(losses)
            total.backward()
        if params.clip_gradient:
            torch.nn.utils.clip_grad_norm_(trained, params.clip_gradient)
        optimizer.step()
        values = {name: float(value.detach()) for name, value in {**losses, "total": total}.items()}
        return values, {"vision": plain.swin, "text": plain.model.text}

    return step, stream


def work(args: argparse.Namespace) -> None:
    """One side: a step for every line on stdin, its time and losses on stdout."""
    import torch

    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        side = engine_side if args.worker[1] == "engine" else plain_side
        step, stream = side(args, Path(folder))
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"ready": True}), flush=True)
        for _ in sys.stdin:
            batch = next(stream)
            before, spent = time.perf_counter(), time.process_time()
            losses, towers = step(batch)
            found = {"seconds": time.perf_counter() - before, "cpu_s": time.process_time() - spent}
            found |= {"losses": losses, "gradients": gradients(towers), "base_mb": base // 1024}
            found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps(found), flush=True)


class Worker:
    """A process that takes a step when told to."""

    def __init__(self, setting: str, side: str, args: argparse.Namespace, *changes: str) -> None:
        from components.pretraining.launch import MALLOC

        command = [sys.executable, __file__, "--worker", setting, side, "--threads", str(args.threads)]
        command += ["--backward", args.backward]
        command += [part for change in changes for part in ("--set", change)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": str(ROOT)}
        environment |= {"VELVET_LOG_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
        if args.allocator == "tuned" or (args.allocator == "engine" and side == "engine"):
            environment |= MALLOC
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
        )
        self.read()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"a worker ended with {self.process.wait()}")
        return json.loads(line)

    def step(self) -> dict[str, Any]:
        self.process.stdin.write("\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def difference(first: dict[str, float], second: dict[str, float]) -> float:
    """The largest relative difference of a loss (absolute below 1)."""
    return max(abs(first[name] - second[name]) / max(1.0, abs(second[name])) for name in second)


def compare(setting: str, args: argparse.Namespace) -> dict[str, Any]:
    """Both sides, step by step in turns; the first step warms up."""
    rows = [f"batch_size={args.rows}"] if args.rows else []
    changes = {"engine": [*args.set, *rows], "plain": rows}
    sides = {name: Worker(setting, name, args, *changes[name]) for name in args.sides}
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(args.steps + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            taken[name].append(sides[name].step())
    for worker in sides.values():
        worker.close()
    found: dict[str, Any] = {"setting": setting, "steps": args.steps, "threads": args.threads}
    times = {name: [one["seconds"] for one in steps[1:]] for name, steps in taken.items()}
    for name, seconds in times.items():
        found[name] = {
            "median_s": round(statistics.median(seconds), 4),
            "least_s": round(min(seconds), 4),
            "cpu_s": round(min(one["cpu_s"] for one in taken[name][1:]), 4),
            "peak_mb": taken[name][-1]["peak_mb"],
            "before_mb": taken[name][-1]["base_mb"],
        }
    found["losses"] = taken[args.sides[0]][0]["losses"]
    if len(sides) == 2:
        found |= against(found, times, taken)
    return found


def against(found: dict[str, Any], times: dict[str, list[float]], taken: dict[str, Any]) -> dict[str, Any]:
    """The two sides set against each other."""
    found = dict(found)
    found["ratio_median"] = round(found["plain"]["median_s"] / found["engine"]["median_s"], 2)
    found["ratio_least"] = round(found["plain"]["least_s"] / found["engine"]["least_s"], 2)
    found["ratio_pairs"] = round(
        statistics.median(
            plain / engine for engine, plain in zip(times["engine"], times["plain"], strict=True)
        ),
        2,
    )
    found["ratio_cpu"] = round(found["plain"]["cpu_s"] / found["engine"]["cpu_s"], 2)
    found["memory_ratio"] = round(found["engine"]["peak_mb"] / found["plain"]["peak_mb"], 3)
    gaps = [
        difference(one["losses"], two["losses"])
        for one, two in zip(taken["engine"], taken["plain"], strict=True)
    ]
    found["max_difference_first_step"], found["max_difference"] = gaps[0], max(gaps)
    found["gradient_difference_first_step"] = max(
        abs(mine - theirs) / plain[0]
        for engine, plain in zip(
            taken["engine"][0]["gradients"].values(), taken["plain"][0]["gradients"].values(), strict=True
        )
        for mine, theirs in zip(engine, plain, strict=True)
    )
    return found


def parts(setting: str, args: argparse.Namespace) -> dict[str, Any]:
    """The step of all objectives together against the sum of each one alone, on the engine."""
    names = sorted(block_of(setting, "engine", {})[0]["objectives"])
    workers = {name: Worker(setting, "engine", args, *args.set, f"only={name}") for name in names}
    workers["all"] = Worker(setting, "engine", args, *args.set)
    times: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(args.steps + 1):
        for name, worker in workers.items():
            times[name].append(worker.step()["cpu_s"])
    for worker in workers.values():
        worker.close()
    best = {name: round(min(seconds[1:]), 4) for name, seconds in times.items()}
    total = sum(seconds for name, seconds in best.items() if name != "all")
    return {
        "setting": setting,
        "least_cpu_s": best,
        "sum_of_parts_cpu_s": round(total, 4),
        "all_over_sum": round(best["all"] / total, 3),
    }


def main() -> None:
    """Parse, measure, print one JSON object a setting."""
    import yaml

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--allocator", choices=("tuned", "default", "engine"), default="tuned")
    parser.add_argument("--backward", choices=("sum", "each"), default="sum", help="of the plain reading")
    parser.add_argument("--rows", type=int, help="batch size on both sides, in place of the setting's")
    parser.add_argument("--sides", nargs="+", choices=("engine", "plain"), default=["engine", "plain"])
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.changes = {key: yaml.safe_load(text) for key, _, text in (pair.partition("=") for pair in args.set)}
    if args.worker:
        work(args)
        return
    for setting in args.settings:
        print(json.dumps(compare(setting, args), indent=2), flush=True)
        if args.parts:
            print(json.dumps(parts(setting, args), indent=2), flush=True)


if __name__ == "__main__":
    main()
