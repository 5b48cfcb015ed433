"""The frame of a stage: exit codes, short errors without PHI, metrics, resources, progress, items."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from components.base.config import Config
from components.base.errors import InputError
from components.base.step import INTERNAL_ERROR, Step, StepContext


class Params(Config):
    """One number."""

    n: int


def run(params: Params, context: StepContext) -> dict[str, float]:
    """Does what `n` says."""
    if params.n == 1:
        raise InputError(
            "the volume is truncated", key="ser_00", rule="volume.truncated", fix="export it again"
        )
    if params.n == 2:
        raise RuntimeError("Jane Roe, MRN 123")
    context.log.info("working")
    context.progress(1, 2, "volumes")
    context.progress(2, 2, "volumes")
    return {"n": float(params.n), "nan": float("nan")}


STEP = Step("split", Params, run)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A root with a params.yaml."""
    (tmp_path / "params.yaml").write_text("split: {n: 3}\nfinetune: {small: {n: 5}}\n")
    return tmp_path


def test_a_good_run_leaves_metrics_log_resources_and_progress(project: Path) -> None:
    assert STEP.main(["--root", str(project)]) == 0
    assert json.loads((project / "artifacts/split/metrics.json").read_text()) == {"n": 3.0, "nan": None}
    assert "working" in (project / "logs/split.log").read_text()
    used = json.loads((project / "logs/split.resources.json").read_text())
    assert used["status"] == "done"
    assert used["peak_bytes"] > 1e6
    assert json.loads((project / "logs/split.progress.json").read_text())["done"] == 2


def test_metrics_are_the_same_bytes_every_time(project: Path) -> None:
    written = []
    for _ in range(2):
        STEP.main(["--root", str(project)])
        written.append((project / "artifacts/split/metrics.json").read_bytes())
    assert written[0] == written[1]


def test_a_users_mistake_is_four_lines_at_most(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert STEP.main(["--root", str(project), "--set", "split.n=1"]) == InputError.exit_code
    shown = [line for line in capsys.readouterr().err.splitlines() if "split" not in line]
    assert shown == [
        "error: the volume is truncated [ser_00]",
        "  rule: volume.truncated",
        "  fix:  export it again",
    ]
    assert json.loads((project / "logs/split.resources.json").read_text())["status"] == "failed"
    assert not (project / "artifacts/split/metrics.json").exists()


def test_an_unexpected_error_shows_no_text_of_its_own(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert STEP.main(["--root", str(project), "--set", "split.n=2"]) == INTERNAL_ERROR
    shown = capsys.readouterr().err
    assert "RuntimeError" in shown
    assert "test_base_step.py:" in shown
    assert "Jane" not in shown
    assert "Jane" not in (project / "logs/split.log").read_text()


def test_debug_shows_the_traceback(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    STEP.main(["--root", str(project), "--set", "split.n=2", "--debug"])
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("override", ["split.m=1", "spilt.n=1", "split.n=words"])
def test_unknown_parameters_stop_before_anything_is_written(project: Path, override: str) -> None:
    assert STEP.main(["--root", str(project), "--set", override]) == 3
    assert not (project / "artifacts").exists()


def test_a_stage_with_items_reads_the_block_of_its_item(project: Path) -> None:
    step = Step("finetune", lambda item: Params, run, item="task")
    assert step.main(["--root", str(project), "--task", "small"]) == 0
    assert json.loads((project / "artifacts/finetune/small/metrics.json").read_text())["n"] == 5.0
    assert step.main(["--root", str(project), "--task", "smal"]) == 3


def test_restricted_folders_are_private(project: Path) -> None:
    context = StepContext(project, "ingest", None, logging.getLogger("test"))
    for folder in (context.restricted_out, project / "restricted"):
        assert folder.stat().st_mode & 0o777 == 0o700
