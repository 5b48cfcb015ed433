"""Run a plan: the shared stages once, then every cell that is not done, a few at a time.

`.velvet/ablation/data-KEY/` holds the shared stages, `cells/KEY/` one cell each. A cell counts as done when its
`result.json` is there, which is written last; a run that was killed goes on with the cells that are missing, and
a training that was cut off goes on from its checkpoint.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from components.base.errors import TrainingError
from components.base.files import read_json, restricted_folder, write_json, write_text
from components.pretraining.pretrain import MALLOC
from flows.ablation.plan import OWN, SHARED, Cell, Plan
from flows.environment import environment
from flows.supervise import supervised


def work_folder(root: Path) -> Path:
    """Where ablations live below the project's root; it holds identifiable data, hence the mode."""
    (root / ".velvet").mkdir(exist_ok=True)
    return restricted_folder(root / ".velvet" / "ablation")


def prepare_data(root: Path, plan: Plan, say: Callable[[str], None]) -> Path:
    """Run the shared stages once; returns their root."""
    folder = work_folder(root) / f"data-{plan.data_key}"
    if (folder / "done.json").exists():
        say("data: already there")
        return folder
    write_params(folder, {**plan.shared, **{name: {} for name in OWN}})
    source = folder / plan.shared["ingest"]["root"]
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        source.symlink_to((root / plan.shared["ingest"]["root"]).resolve())
    began = time.monotonic()
    run_stages(root, folder, SHARED, plan.settings.threads * plan.settings.jobs, "data")
    write_json(folder / "done.json", {"seconds": round(time.monotonic() - began, 1)})
    say(f"data: {time.monotonic() - began:.0f} s")
    return folder


def write_params(folder: Path, values: Mapping[str, Any]) -> None:
    """params.yaml of a folder that is a root of its own."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "params.yaml", yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def run_stages(root: Path, folder: Path, stages: tuple[str, ...], threads: int, what: str) -> None:
    """Run stages in a process of their own; `TrainingError` with the stage's reason if one fails."""
    env = environment(root) | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), **MALLOC}
    command = [sys.executable, "-m", "flows.ablation.cell", "--root", str(folder), "--stages", *stages]
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with (
        (folder / "logs" / "cell.log").open("w", encoding="utf-8") as log,
        supervised(command, cwd=root, env=env) as process,
    ):
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            log.write(line)
            lines = [*lines[-3:], line.rstrip()]
        code = process.wait()
    if code:
        start = next((at for at, line in enumerate(lines) if line.startswith("error:")), -1)
        raise TrainingError(
            f"{what}: {lines[start] if lines else 'no output'}",
            rule="ablation.cell",
            fix="see logs/cell.log in the cell's folder; the other cells are kept",
        )


def describe(cell: Cell) -> str:
    """A cell in words."""
    return f"{cell.arm} seed {cell.seed}" + (f" fold {cell.fold}" if cell.values["split"].get("fold") else "")


def run_cell(root: Path, data: Path, cell: Cell, threads: int) -> dict[str, Any]:
    """Train and evaluate one cell unless it is done; returns its result."""
    folder = work_folder(root) / "cells" / cell.key
    done = folder / "result.json"
    if done.exists():
        return dict(read_json(done))
    values = {**cell.values, "pretrain": {**cell.values["pretrain"], "num_threads": threads}}
    write_params(folder, values)
    (folder / "artifacts").mkdir(exist_ok=True)
    for stage in SHARED:
        link = folder / "artifacts" / stage
        if not link.is_symlink() and (data / "artifacts" / stage).exists():
            link.symlink_to(data / "artifacts" / stage)
    for stage in ("finetune", "evaluate"):  # what an earlier try left half-done
        shutil.rmtree(folder / "artifacts" / stage, ignore_errors=True)
    began = time.monotonic()
    run_stages(root, folder, OWN, threads, describe(cell))
    timing = folder / "logs" / "pretrain.timing.json"
    steps = int(values["pretrain"]["num_steps"])
    result = {
        "arm": cell.arm,
        "seed": cell.seed,
        "fold": cell.fold,
        "key": cell.key,
        "seconds": round(time.monotonic() - began, 1),
        "step_s": read_json(timing)["step_cpu_s"] if timing.exists() else None,
        "num_steps": steps,
        "threads": threads,
    }
    write_json(done, result)
    return result


def run_plan(root: Path, plan: Plan, say: Callable[[str], None] = print) -> list[tuple[dict[str, Any], Path]]:
    """Run everything that is missing; returns each cell's result with its folder, in the plan's order."""
    data = prepare_data(root, plan, say)
    settings = plan.settings
    folders = [work_folder(root) / "cells" / cell.key for cell in plan.cells]

    def one(cell: Cell) -> dict[str, Any]:
        known = (work_folder(root) / "cells" / cell.key / "result.json").exists()
        result = run_cell(root, data, cell, settings.threads)
        say(f"{describe(cell)}: " + ("already done" if known else f"{result['seconds']:.0f} s"))
        return result

    with ThreadPoolExecutor(settings.jobs) as pool:
        return list(zip(pool.map(one, plan.cells), folders, strict=True))


def git_state(root: Path) -> str:
    """The commit that the figures belong to, with `+` where files differ from it."""
    head = subprocess.run(
        ["git", "rev-parse", "--short=10", "HEAD"], cwd=root, capture_output=True, text=True
    )
    if head.returncode != 0:
        return "unknown"
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=root, capture_output=True, text=True
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
