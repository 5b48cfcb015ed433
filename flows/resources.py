"""The time and peak memory of every stage, from what the stages left in logs/."""

from __future__ import annotations

import json
from pathlib import Path

from components.base.stages import STAGES


def stage_resources(root: Path) -> list[tuple[str, float, int, str]]:
    """(label, wall seconds, peak bytes, status) of each stage's latest own run, in the order of stages."""
    rows = []
    for stage in STAGES:
        pattern = f"{stage.name}-*.resources.json" if stage.item else f"{stage.name}.resources.json"
        for path in sorted((root / "logs").glob(pattern)):
            used = json.loads(path.read_text(encoding="utf-8"))
            rows.append((path.name.split(".")[0], used["wall_s"], used["peak_bytes"], used["status"]))
    return rows


def render_resources(root: Path) -> str:
    """A table of stages, seconds and peak memory."""
    rows = stage_resources(root)
    lines = [f"{'stage':<28}{'seconds':>10}{'peak GB':>10}"]
    lines += [f"{label:<28}{wall:>10.1f}{peak / 1e9:>10.2f}" for label, wall, peak, _ in rows]
    lines.append(
        f"{'sum / largest':<28}{sum(r[1] for r in rows):>10.1f}{max([r[2] for r in rows] or [0]) / 1e9:>10.2f}"
    )
    return "\n".join(lines)
