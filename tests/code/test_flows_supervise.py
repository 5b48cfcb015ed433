"""Nothing outlives the one who asked for it: children of a killed, terminated or finished owner are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.supervise import session_members, supervised
from tests.conftest import ROOT

CHILD = """
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {grandchild.pid}")
time.sleep(300)
"""


def wait_for(condition, seconds: float = 20.0) -> bool:
    """Poll a condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def pids(note: Path) -> list[int]:
    """The PIDs that CHILD wrote, once it has."""
    assert wait_for(lambda: note.exists() and len(note.read_text().split()) == 2)
    return [int(word) for word in note.read_text().split()]


def test_output_and_exit_code_come_through() -> None:
    with supervised([sys.executable, "-c", "print('hello'); raise SystemExit(7)"], cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.read() == "hello\n"
        assert process.wait() == 7


def test_leaving_the_block_ends_child_and_grandchild(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with supervised([sys.executable, "-c", CHILD, str(note)], cwd=ROOT):
        members = pids(note)
    assert wait_for(lambda: not any(map(alive, members)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_dead_owner_leaves_no_orphan(tmp_path: Path, number: signal.Signals) -> None:
    note = tmp_path / "pids"
    owner_code = (
        "import sys, time\nfrom pathlib import Path\nfrom flows.supervise import supervised\n"
        f"with supervised([sys.executable, '-c', {CHILD!r}, {str(note)!r}], cwd=Path({str(ROOT)!r})):\n"
        "    time.sleep(300)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", owner_code], cwd=ROOT)
    members = pids(note)
    session = os.getsid(members[0])
    owner.send_signal(number)
    owner.wait(20)
    assert wait_for(lambda: not any(map(alive, members)))
    assert session_members(session) == []
