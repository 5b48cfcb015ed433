"""Hand-written cases of tests/data/reports: sentence boundaries, and traps of negation, doubt and time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def _rows(path: Path) -> list[str]:
    return [
        line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")
    ]


def sentence_cases(path: Path) -> list[tuple[str, list[int]]]:
    """(text, where its sentences end) of each case; the file marks a boundary with `|`."""
    cases = []
    for row in _rows(path):
        parts = row.replace("\\r", "\r").replace("\\n", "\n").split("|")
        text, ends = "", []
        for part in parts:
            text += part
            ends.append(len(text.rstrip()))
        cases.append((text, ends))
    return cases


def boundaries_f1(
    cases: list[tuple[str, list[int]]], split: Callable[[str], list[tuple[int, int]]]
) -> dict[str, float]:
    """F1 of all boundaries, and of those within a text (its end is no merit)."""
    right = false = missed = inner = 0
    for text, wanted in cases:
        ends, found = set(wanted), {end for _, end in split(text)}
        right += len(ends & found)
        inner += len((ends & found) - {len(text.rstrip())})
        false += len(found - ends)
        missed += len(ends - found)
    wrong = false + missed
    return {
        "f1": round(2 * right / (2 * right + wrong), 4),
        "f1_inner": round(2 * inner / (2 * inner + wrong), 4),
        "n": len(cases),
    }


def trap_cases(path: Path) -> list[tuple[str, str, str, str]]:
    """(sentence, finding, status, side or `-`) of each trap."""
    rows = [row.split("\t") for row in _rows(path)]
    return [(sentence, finding, status, side) for sentence, finding, status, side in rows]
