"""One stage through DVC, watched: its log line by line, its progress, why it ran or was skipped, why it failed."""

from __future__ import annotations

import json
import queue
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flows.environment import environment
from flows.supervise import supervised

RETRYABLE_EXITS = {10, 70, -9, 137}
"""A full disk, an unexpected error, a killed process: another try can help. A user's mistake is final."""

_DEBUG = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (DEBUG|TRACE): ")
_CHANGED = re.compile(r"(?:[Dd]ependency|[Oo]utput|[Pp]arams?) .*changed because it is '(?P<why>[^']+)'")
_SUBJECT = re.compile(r"(?P<kind>[Dd]ependency|[Oo]utput|[Pp]arams?) '(?P<name>[^']+)'")
_EXIT = re.compile(r"exited with (-?\d+)")
_HINTS = (
    "Updating lock file",
    "Generating lock file",
    "To track the changes",
    "To enable auto staging",
    "Use `dvc push`",
)
_LOCKED = "Unable to acquire lock"


@dataclass
class Outcome:
    """What became of a stage: `ran`, `unchanged` (nothing to do) or `restored` (from the run cache)."""

    target: str
    status: str = "unchanged"
    because: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line for a person."""
        why = f" because {'; '.join(self.because[:4])}" if self.because else ""
        return {"ran": "ran", "restored": "was restored from the cache"}.get(
            self.status, "did not run: nothing that it depends on changed"
        ) + (why if self.status != "unchanged" else "")


class StageFailed(RuntimeError):
    """A stage failed; the text is the reason that the stage gave, without PHI."""

    def __init__(self, target: str, reason: str, exit_code: int, retryable: bool) -> None:
        self.target, self.reason = target, reason
        self.exit_code, self.retryable = exit_code, retryable
        super().__init__(f"{target}: {reason}")


@dataclass
class _Reader:
    """Reads DVC's output: notes status and reasons, keeps the error that a stage printed."""

    outcome: Outcome
    error: list[str] = field(default_factory=list)
    exit_code: int = 1
    locked: bool = False

    def feed(self, line: str) -> str | None:
        """Take one line; returns what to show of it, or None."""
        debug = bool(_DEBUG.match(line))
        if match := _CHANGED.search(line):
            subject = _SUBJECT.search(line)
            named = f"{subject['kind'].lower()} {subject['name']}" if subject else "something"
            reason = f"{named} is {match['why']}"
            if reason not in self.outcome.because:
                self.outcome.because.append(reason)
        if debug:
            return None
        if line.startswith("error: "):
            self.error = [line]
        elif self.error and len(self.error) < 3 and line.startswith("  "):
            self.error.append(line.strip())
        if match := _EXIT.search(line):
            self.exit_code = int(match[1])
        self.locked = self.locked or _LOCKED in line
        if "is cached - skipping run" in line:
            self.outcome.status = "restored"
        elif line.startswith("Running stage "):
            self.outcome.status = "ran"
        hint = line.startswith(_HINTS) or line.strip().startswith(("git add", "dvc config core.autostage"))
        return line if line.strip() and not hint else None

    def failure(self) -> StageFailed:
        """The exception for a failed run."""
        reason = "\n".join(self.error) or "DVC could not run the stage; see its log"
        retryable = self.locked or self.exit_code in RETRYABLE_EXITS
        return StageFailed(self.outcome.target, reason, self.exit_code, retryable)


def _lines(stream: IO[str], tick: Callable[[], None]) -> Iterator[str]:
    """The lines of a stream; `tick` is called about twice a second while waiting."""
    pending: queue.Queue[str | None] = queue.Queue()

    def pump() -> None:
        for line in stream:
            pending.put(line.rstrip("\n"))
        pending.put(None)

    threading.Thread(target=pump, daemon=True).start()
    while True:
        try:
            line = pending.get(timeout=0.5)
        except queue.Empty:
            tick()
            continue
        if line is None:
            return
        yield line


def read_progress(root: Path, target: str) -> dict[str, float] | None:
    """The last progress that a stage published, if any."""
    path = root / "logs" / f"{target.replace('@', '-')}.progress.json"
    try:
        state: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return state


def reproduce(
    root: Path,
    target: str,
    *,
    show: Callable[[str], None] = print,
    progress: Callable[[dict[str, float]], None] = lambda state: None,
    force: bool = False,
) -> Outcome:
    """Run `dvc repro --single-item TARGET` and return its outcome.

    `show` gets each log line, `progress` the state that the stage publishes. Raises `StageFailed`. Whatever ends
    the caller ends DVC and the stage too (see `flows.supervise`).
    """
    reader = _Reader(Outcome(target))
    last: dict[str, float] = {}
    (root / "logs" / f"{target.replace('@', '-')}.progress.json").unlink(missing_ok=True)

    def tick() -> None:
        state = read_progress(root, target)
        if state and state != last:
            last.clear()
            last.update(state)
            progress(state)

    command = ["dvc", "repro", "--single-item", "--verbose", target] + (["--force"] if force else [])
    env = environment(root) | {"COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    with supervised(command, cwd=root, env=env) as process:
        assert process.stdout is not None
        for line in _lines(process.stdout, tick):
            shown = reader.feed(line)
            if shown:
                show(shown)
        code = process.wait()
    tick()
    if code != 0:
        raise reader.failure()
    return reader.outcome


def dvc(root: Path, *arguments: str) -> tuple[int, str]:
    """Run another DVC command; returns its exit code and output."""
    with supervised(["dvc", *arguments], cwd=root, env=environment(root)) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        return process.wait(), output
