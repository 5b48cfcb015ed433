"""Other de-identifiers beside Velvet on the same notes, each in a process of the Python that has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import ConfigError, InputError
from components.reports.measuring.evaluate import Scores, add
from components.reports.measuring.hard_notes import GoldNote

TOOLS = ("philter", "presidio")
_WORKER = Path(__file__).parent / "tool_worker.py"


@dataclass(frozen=True)
class Answer:
    """A tool's name with its version, and its scores."""

    tool: str
    scores: Scores


def run_tool(name: str, notes: Sequence[GoldNote], python: str = sys.executable) -> Answer:
    """Scores of one tool; a `ConfigError` where it cannot be loaded, an `InputError` where it fails on a note."""
    if name not in TOOLS:
        raise ConfigError(
            f"no tool is called {name}", rule="measure.compare", fix=f"one of {', '.join(TOOLS)}"
        )
    lines = "".join(json.dumps(note.text) + "\n" for note in notes)
    try:
        done = subprocess.run(
            [python, str(_WORKER), name],
            input=lines,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    except OSError as error:
        raise ConfigError(
            f"the Python for {name} cannot be started ({type(error).__name__})",
            rule="measure.python",
            fix="give --python the interpreter of an environment that has the tool",
        ) from None
    answers = done.stdout.splitlines()
    first = (
        json.loads(answers[0]) if answers and answers[0].startswith("{") else {"failed": "it gave no answer"}
    )
    if "failed" in first:
        raise ConfigError(
            f"{name} cannot be loaded: {first['failed'][:120]}",
            rule="measure.compare",
            fix="install it there, or leave it out of --compare",
        )
    if done.returncode or len(answers) != len(notes) + 1:
        raise InputError(
            f"{name} failed on note {len(answers)} of {len(notes)}",
            rule="measure.tool",
            fix="leave that note out",
        )
    scores = Scores()
    for note, line in zip(notes, answers[1:], strict=True):
        answer = json.loads(line)
        scores.seconds += answer["seconds"]
        add(
            scores,
            note,
            [(start, end, kind, name, kind) for start, end, kind in answer["spans"] if end > start],
        )
    return Answer(first["tool"], scores)
