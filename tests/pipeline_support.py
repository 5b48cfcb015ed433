"""A small copy of the whole project in a repository of its own, and its commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.base.config import with_overrides, with_preset
from components.base.validate import check_blocks
from flows.environment import environment
from tests.conftest import ROOT

SMALL: Mapping[str, Any] = {
    "ingest.workers": 1,
    "preprocess.workers": 1,
    "preprocess.contract.size": [32, 32, 32],
    "preprocess.contract.spacing_mm": [10.0, 10.0, 10.0],
    "pretrain.crop_size": [32, 32, 32],
    "pretrain.vision": {
        "name": "swin",
        "patch": 4,
        "window": 4,
        "embed_dim": 12,
        "depths": [1, 1, 1, 1],
        "heads": [2, 2, 2, 2],
        "mlp_ratio": 2.0,
        "drop_path": 0.0,
        "gradient_checkpointing": False,
    },
    "pretrain.num_threads": 1,
    "evaluate.retrieval.resamples": 100,
    "evaluate.zero_shot.resamples": 100,
    "evaluate.linear_probe.resamples": 100,
    "evaluate.segmentation.resamples": 100,
}
"""On top of the preset `smoke`: grids and encoders for which a stage's start costs more than its work."""


def copy_project(folder: Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """Every tracked file, with small values in force, committed to a git repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    path = folder / "params.yaml"
    values = with_preset(yaml.safe_load(path.read_text(encoding="utf-8")), "smoke")
    values = with_overrides(values, {**SMALL, **(overrides or {})})
    check_blocks(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    return folder


def variables(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a command in the copy."""
    inherited = {name: value for name, value in environment(folder).items() if name != "PREFECT_API_URL"}
    return inherited | {
        "VELVET_ROOT": str(folder),
        "PREFECT_HOME": str(folder / ".prefect"),
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        **more,
    }


def command(folder: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run a command in the copy; returns its exit code and everything it printed."""
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=variables(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def python(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run this Python in the copy."""
    return command(folder, sys.executable, *arguments)


def outputs(folder: Path) -> dict[str, str]:
    """The content hash of every output in dvc.lock."""
    lock = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}


def stages_run(printed: str) -> set[str]:
    """The stages that a `dvc repro` ran, from what it printed."""
    return {line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage ")}


def set_parameter(folder: Path, key: str, value: Any) -> None:
    """Change one dotted parameter in the copy's params.yaml."""
    path = folder / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(with_overrides(values, {key: value}), sort_keys=False))
