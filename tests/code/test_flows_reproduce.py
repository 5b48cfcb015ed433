"""One stage through DVC: ran, unchanged, restored or failed, each with its reason; and an S3 remote."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.reproduce import StageFailed, dvc, read_progress, reproduce
from tests.code.test_flows_supervise import alive, pids, wait_for

PIPELINE = """
stages:
  first:
    cmd: {python} first.py
    deps: [first.py, input.txt]
    params: [first]
    outs: [first.txt]
  second:
    cmd: {python} second.py
    deps: [second.py, first.txt]
    outs: [second.txt]
"""
FIRST = "import yaml; n = yaml.safe_load(open('params.yaml'))['first']['n']; open('first.txt', 'w').write('x' * n)\n"
SECOND = "open('second.txt', 'w').write(open('first.txt').read().upper())\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git and DVC repository with two stages."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "dvc.yaml").write_text(PIPELINE.format(python=sys.executable))
    (folder / "params.yaml").write_text("first:\n  n: 3\n")
    (folder / "first.py").write_text(FIRST)
    (folder / "second.py").write_text(SECOND)
    (folder / "input.txt").write_text("input")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    code, output = dvc(folder, "init", "-q")
    assert code == 0, output
    return folder


def test_a_stage_runs_once_and_says_why(project: Path) -> None:
    shown: list[str] = []
    first = reproduce(project, "first", show=shown.append)
    assert first.status == "ran"
    assert any("Running stage 'first'" in line for line in shown)
    assert not any("DEBUG" in line for line in shown)
    again = reproduce(project, "first", show=shown.append)
    assert again.status == "unchanged"
    assert "nothing that it depends on changed" in again.describe()
    (project / "input.txt").write_text("other")
    changed = reproduce(project, "first")
    assert changed.status == "ran"
    assert any("input.txt" in reason for reason in changed.because)
    (project / "input.txt").write_text("input")
    assert reproduce(project, "first").status == "restored"


def test_one_changed_parameter_reruns_only_what_lies_below(project: Path) -> None:
    for target in ("first", "second"):
        reproduce(project, target)
    (project / "second.py").write_text(SECOND + "# changed\n")
    assert [reproduce(project, target).status for target in ("first", "second")] == ["unchanged", "ran"]
    (project / "params.yaml").write_text("first:\n  n: 5\n")
    assert [reproduce(project, target).status for target in ("first", "second")] == ["ran", "ran"]
    assert (project / "second.txt").read_text() == "XXXXX"


def test_a_failure_carries_the_reason_of_the_stage(project: Path) -> None:
    (project / "first.py").write_text(
        "import sys; print('error: the input is empty\\n  rule: input.empty\\n  fix:  fill it', file=sys.stderr)\n"
        "sys.exit(4)\n"
    )
    with pytest.raises(StageFailed) as caught:
        reproduce(project, "first")
    assert caught.value.reason == "error: the input is empty\nrule: input.empty\nfix:  fill it"
    assert caught.value.exit_code == 4
    assert not caught.value.retryable


@pytest.mark.parametrize("code", [10, 70, 137])
def test_what_another_try_can_mend_is_retryable(project: Path, code: int) -> None:
    (project / "first.py").write_text(f"raise SystemExit({code})\n")
    with pytest.raises(StageFailed) as caught:
        reproduce(project, "first")
    assert caught.value.retryable


def test_progress_reaches_the_flow(project: Path) -> None:
    (project / "first.py").write_text(
        FIRST + "import json, os, time\nos.makedirs('logs', exist_ok=True)\n"
        "for n in (1, 2, 3):\n"
        "    open('logs/first.progress.json', 'w').write(json.dumps({'done': n, 'total': 3}))\n"
        "    time.sleep(0.8)\n"
    )
    (project / "logs").mkdir()
    (project / "logs" / "first.progress.json").write_text('{"done": 9, "total": 9}')
    seen: list[float] = []
    reproduce(project, "first", progress=lambda state: seen.append(state["done"]))
    assert seen[-1] == 3
    assert len(seen) >= 2
    assert 9 not in seen, "progress of an earlier run"
    assert read_progress(project, "nothing") is None


def test_kill_9_of_the_flow_leaves_no_orphan_and_the_next_run_goes_on(project: Path) -> None:
    reproduce(project, "first")
    note = project / "pids"
    waiting = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {child.pid}')\n"
        "time.sleep(300)\n"
    )
    (project / "second.py").write_text(waiting)
    code = "import sys, pathlib; from flows.reproduce import reproduce; reproduce(pathlib.Path(sys.argv[1]), 'second')"
    owner = subprocess.Popen([sys.executable, "-c", code, str(project)], stdout=subprocess.DEVNULL)
    members = pids(note)
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)
    assert wait_for(lambda: not any(map(alive, members)), 45)
    time.sleep(0.5)
    (project / "second.py").write_text(SECOND)
    assert [reproduce(project, target).status for target in ("first", "second")] == ["unchanged", "ran"]


def test_an_s3_remote_by_configuration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1").create_bucket(Bucket="velvet")
        reproduce(project, "first")
        for arguments in (
            ("remote", "add", "--default", "store", "s3://velvet/cohort"),
            ("remote", "modify", "store", "endpointurl", endpoint),
            ("push",),
        ):
            code, output = dvc(project, *arguments)
            assert code == 0, output
        subprocess.run(["rm", "-rf", ".dvc/cache", "first.txt"], cwd=project, check=True)
        code, output = dvc(project, "pull", "first")
        assert code == 0, output
        assert (project / "first.txt").read_text() == "xxx"
    finally:
        server.stop()
