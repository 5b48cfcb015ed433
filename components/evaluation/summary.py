"""The table of results that a run ends with: metric, value, 95 % interval, chance and n."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SKIPPED = frozenset({"slices", "labels", "classes", "provenance"})
"""Groups of estimates that are for the report, not for a short table."""


def results_table(root: Path) -> list[dict[str, Any]]:
    """A row for every headline estimate below `artifacts/evaluate/`, in a fixed order.

    Keys: `metric` (protocol.name), `value`, `low`, `high`, `chance`, `n`, `n_patients`, `unit`.
    """
    from components.evaluation.gate import read_metrics

    rows: list[dict[str, Any]] = []
    for protocol, metrics in sorted(read_metrics(root).items()):
        rows += _estimates(metrics, protocol)
    return rows


def _estimates(metrics: Mapping[str, Any], prefix: str) -> list[dict[str, Any]]:
    keys = ("value", "low", "high", "chance", "n", "n_patients", "unit")
    rows: list[dict[str, Any]] = []
    for name, value in sorted(metrics.items(), key=lambda pair: _natural(pair[0])):
        if name in SKIPPED or not isinstance(value, Mapping):
            continue
        if "value" in value and "low" in value:
            rows.append({"metric": f"{prefix}.{name}", **{key: value.get(key) for key in keys}})
        else:
            rows += _estimates(value, f"{prefix}.{name}")
    return rows


def _natural(name: str) -> tuple[str, int]:
    head, _, tail = name.rpartition("_")
    return (head, int(tail)) if tail.isdigit() else (name, 0)


def number(value: float | None, digits: int = 3) -> str:
    """A value for people; an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def render_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as aligned plain text, with a final newline."""
    head = ("metric", "value", "95 % interval", "chance", "n", "patients")
    body = [
        (
            str(row["metric"]),
            number(row["value"]),
            f"[{number(row['low'])}, {number(row['high'])}]",
            number(row["chance"]),
            str(row["n"]),
            str(row["n_patients"]),
        )
        for row in rows
    ]
    if not body:
        return "no results: run the stages up to evaluate\n"
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    lines = []
    for line in (head, tuple("-" * width for width in widths), *body):
        cells = [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:]))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"
