"""Run a command so that nothing outlives the one who asked for it: `python -m flows.supervise -- COMMAND ...`.

The command gets a session of its own. Standard input is a pipe held by whoever started the supervisor: when it
closes (the owner ended, by whatever means, `kill -9` included) the whole session is ended: SIGTERM first, SIGKILL
after a grace period. SIGTERM and SIGINT to the supervisor do the same. Its exit code is the command's.

DVC, for one, leaves the stage that it runs alive when it is terminated itself.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

GRACE_S = 40.0
"""Seconds between SIGTERM and SIGKILL: a training stage finishes its step and saves a checkpoint."""


def session_members(session: int) -> list[int]:
    """The PIDs of living processes (zombies left out) that belong to a session."""
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry.name))
    return members


def end_session(session: int, grace_s: float = GRACE_S) -> None:
    """SIGTERM every process of a session, wait up to `grace_s`, then SIGKILL what is left."""
    deadline = time.monotonic() + grace_s
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in session_members(session):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        while time.monotonic() < deadline and session_members(session):
            time.sleep(0.05)
        deadline = time.monotonic() + 5.0


def supervise(command: Sequence[str], grace_s: float = GRACE_S) -> int:
    """Run `command` until it ends, a signal arrives or standard input closes; returns its exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ending = threading.Event()

    def stop(number: int, frame: object) -> None:
        ending.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    while child.poll() is None and not ending.is_set():
        ready, _, _ = select.select([sys.stdin], [], [], 0.1)
        if ready and not os.read(sys.stdin.fileno(), 4096):
            ending.set()
    if child.poll() is None:
        end_session(child.pid, grace_s)
    code = child.wait()
    end_session(child.pid, grace_s=2.0)
    return 128 - code if code < 0 else code


@contextlib.contextmanager
def supervised(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start `command` under a supervisor; its output is the process's `stdout`, line by line.

    Leaving the block, for whatever reason, ends the command and all its children.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.supervise", "--", *command],
        cwd=cwd,
        env=dict(env) if env is not None else None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(GRACE_S + 10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; everything behind `--` is the command."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        return 0 if arguments else 2
    return supervise(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
