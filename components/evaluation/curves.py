"""Training curves as a picture: a panel for every loss and measure, training and validation in one."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

COLUMNS = 4
STYLES = {"train": ("#8aa0bd", "-", 1.0, None), "validation": ("#b0413e", "-", 1.6, "o")}


def read_curves(path: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """`step,name,value` rows -> name -> part ("train" or "validation") -> points; `total` comes first."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            part, _, name = row["name"].rpartition(".") if "." in row["name"] else ("train", "", row["name"])
            part, _, rest = part.partition(".")
            name = f"{rest}.{name}" if rest else name
            found.setdefault(name, {}).setdefault(part, []).append((int(row["step"]), float(row["value"])))
    return dict(sorted(found.items(), key=lambda item: (item[0] != "total", item[0])))


def draw_curves(path: Path) -> bytes:
    """A PNG of the curves in a `step,name,value` file: small multiples with a common step axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    curves = read_curves(path)
    rows = math.ceil(max(1, len(curves)) / COLUMNS)
    figure = Figure(figsize=(2.9 * COLUMNS, 1.9 * rows + 0.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, sharex=True, squeeze=False)
    for axes, (name, parts) in zip(grid.flat, curves.items(), strict=False):
        for part, points in parts.items():
            colour, line, width, marker = STYLES.get(part, STYLES["train"])
            mark = marker or ("." if len(points) < 20 else None)
            axes.plot(
                *zip(*points, strict=True), line, color=colour, linewidth=width, marker=mark, markersize=4
            )
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    for axes in list(grid.flat)[len(curves) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], color=style[0], marker=style[3], linewidth=style[2]) for style in STYLES.values()
    ]
    figure.legend(handles, list(STYLES), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.supxlabel("step", fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
