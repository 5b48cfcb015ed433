"""Tasks against a Prefect API: another try where it helps, none for a mistake, an end to what takes too long."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import flows.tasks
from flows.environment import EMBEDDED
from flows.reproduce import dvc
from flows.tasks import Limits
from tests.code.test_flows_supervise import alive, wait_for

PIPELINE = "stages:\n  split:\n    cmd: {python} work.py\n    deps: [work.py]\n    outs: [out.txt]\n"


@pytest.fixture(scope="module")
def api() -> Iterator[None]:
    """A Prefect API of the test's own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: None) -> Path:
    """A DVC repository with one stage, `split`, whose task retries at once."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(EMBEDDED, "1")
    monkeypatch.setattr(flows.tasks, "RETRY_DELAYS_S", [0.1, 0.1])
    monkeypatch.setitem(flows.tasks.LIMITS, "split", Limits(retries=2, timeout_s=60))  # type: ignore[arg-type]
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    code, output = dvc(folder, "init", "-q")
    assert code == 0, output
    return folder


def run_split(folder: Path) -> Any:
    """Run the task of stage `split` in a flow; returns the flow's final state."""
    from prefect import flow

    @flow(name="test-split", persist_result=False)
    def one() -> str:
        return flows.tasks.stage_task("split")("split", str(folder))

    return one(return_state=True)


def tries(folder: Path) -> int:
    """How often work.py was started."""
    note = folder / "tries.txt"
    return len(note.read_text()) if note.exists() else 0


COUNT = "open('tries.txt', 'a').write('x')\nn = len(open('tries.txt').read())\n"


def test_a_killed_process_is_tried_again(project: Path) -> None:
    (project / "work.py").write_text(
        COUNT + "import os, signal\n"
        "if n < 3: os.kill(os.getpid(), signal.SIGKILL)\nopen('out.txt', 'w').write('done')\n"
    )
    state = run_split(project)
    assert state.is_completed(), state.message
    assert tries(project) == 3
    assert (project / "out.txt").read_text() == "done"


def test_a_mistake_is_not_tried_again_and_its_reason_is_told(project: Path) -> None:
    (project / "work.py").write_text(
        COUNT
        + "import sys\nprint('error: two patients in one split\\n  rule: split.leak', file=sys.stderr)\nsys.exit(6)\n"
    )
    state = run_split(project)
    assert state.is_failed()
    assert tries(project) == 1
    with pytest.raises(flows.tasks.StageFailed, match=r"two patients in one split"):
        state.result()


def test_a_stage_that_never_mends_fails_after_its_tries(project: Path) -> None:
    (project / "work.py").write_text(COUNT + "raise SystemExit(70)\n")
    assert run_split(project).is_failed()
    assert tries(project) == 3


def test_a_stage_that_takes_too_long_is_ended(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(flows.tasks.LIMITS, "split", Limits(retries=0, timeout_s=6))  # type: ignore[arg-type]
    (project / "work.py").write_text(
        COUNT + "import os, time\nopen('pid.txt', 'w').write(str(os.getpid()))\ntime.sleep(300)\n"
    )
    began = time.monotonic()
    state = run_split(project)
    assert state.is_failed()
    assert time.monotonic() - began < 60
    assert tries(project) == 1
    pid = int((project / "pid.txt").read_text())
    assert wait_for(lambda: not alive(pid), 50)
