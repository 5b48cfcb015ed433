"""What a person reads of an ablation: a Markdown table, a CSV with every estimate, a picture of both."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.evaluation.statistics import Estimate
from flows.ablation.table import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "retrieval.r2v.r1": "report to volume R@1",
    "retrieval.r2v.r5": "report to volume R@5",
    "retrieval.r2v.r10": "report to volume R@10",
    "retrieval.v2r.r1": "volume to report R@1",
    "retrieval.v2r.r5": "volume to report R@5",
    "retrieval.v2r.r10": "volume to report R@10",
    "zero_shot.auroc": "zero-shot AUROC",
    "linear_probe.auroc": "linear-probe AUROC",
    "segmentation.dice": "Dice",
}


def shown(estimate: Estimate, spread: float | None = None) -> str:
    """`0.61 [0.55, 0.66]`, with the deviation over seeds where it is known."""
    if not math.isfinite(estimate.value):
        return "–"
    text = f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    return text if spread is None or not math.isfinite(spread) else f"{text} ±{spread:.3f}"


def measures(rows: Sequence[Row]) -> list[str]:
    """The measures that some arm has, in the order of `TITLES`."""
    present = {name for row in rows for name in row.estimates}
    return [name for name in TITLES if name in present]


def drawn(rows: Sequence[Row]) -> list[str]:
    """The measures a picture shows: of each way of retrieval the largest k at which chance stays below a half."""
    chosen = []
    for name in measures(rows):
        way, _, k = name.rpartition(".r")
        if way and k.isdigit():
            larger = [f"{way}.r{other}" for other in (1, 5, 10) if other > int(k)]
            if not _below_half(rows, name) or any(_below_half(rows, other) for other in larger):
                continue
        chosen.append(name)
    return chosen


def _below_half(rows: Sequence[Row], name: str) -> bool:
    chances = [row.estimates[name].chance for row in rows if name in row.estimates]
    return any(chance is not None and chance < 0.5 for chance in chances)


def markdown(rows: Sequence[Row], titles: Mapping[str, str], baseline: str) -> str:
    """Two tables: estimates by arm, and paired differences to the baseline arm."""
    names = measures(rows)
    header = ["arm", "seeds", *(TITLES[name] for name in names), "CPU s a step"]
    body = []
    for row in rows:
        cells = [
            shown(row.estimates[name], row.spread[name]) if name in row.estimates else "–" for name in names
        ]
        step = "–" if row.step_s is None else f"{row.step_s:.2f}"
        body.append([titles[row.arm], str(len(row.seeds)), *cells, step])
    chances = [_chance(rows, name) for name in names]
    body.append(["*chance*", "", *chances, ""])
    pool = [_sizes(rows, name) for name in names]
    body.append(["*studies (patients)*", "", *pool, ""])
    first = _table(header, body)
    differences = [
        [
            titles[row.arm],
            *(_difference(row.differences[name]) if name in row.differences else "–" for name in names),
        ]
        for row in rows
        if row.differences
    ]
    if not differences:
        return first
    second = _table(["arm", *(TITLES[name] for name in names)], differences)
    note = (
        f"Differences to *{titles[baseline]}*, paired by patient; their intervals draw patients and seeds. "
        "In bold where the interval does not hold 0."
    )
    return f"{first}\n\n{note}\n\n{second}"


def _difference(one: Estimate) -> str:
    text = f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
    return f"**{text}**" if one.low > 0 or one.high < 0 else text if math.isfinite(one.value) else "–"


def _chance(rows: Sequence[Row], name: str) -> str:
    values = [row.estimates[name].chance for row in rows if name in row.estimates]
    known = [value for value in values if value is not None]
    return f"{known[0]:.3f}" if known else "–"


def _sizes(rows: Sequence[Row], name: str) -> str:
    found = next(row.estimates[name] for row in rows if name in row.estimates)
    return f"{found.n} ({found.n_patients})"


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in body)])


def table_csv(rows: Sequence[Row]) -> str:
    """Every estimate and difference, one a line."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [
            "arm",
            "measure",
            "kind",
            "value",
            "low",
            "high",
            "seed_deviation",
            "chance",
            "n",
            "n_patients",
            "clear",
        ]
    )
    for row in rows:
        for kind, found in (("value", row.estimates), ("difference", row.differences)):
            for name, one in found.items():
                limit = one.chance if one.chance is not None else math.nan
                clear = one.low > limit or one.high < limit
                spread = f"{row.spread[name]:.6f}" if kind == "value" else ""
                numbers = [f"{value:.6f}" for value in (one.value, one.low, one.high)]
                writer.writerow(
                    [row.arm, name, kind, *numbers, spread, one.chance, one.n, one.n_patients, clear]
                )
    return stream.getvalue()


def picture(rows: Sequence[Row], titles: Mapping[str, str]) -> bytes:
    """A PNG: one panel a measure, arms from top to bottom with their intervals, chance as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = drawn(rows)
    figure = Figure(figsize=(3.1 * len(chosen) + 2, 0.42 * len(rows) + 1.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(chosen), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, chosen, strict=True):
        _panel(axes, rows, name)
    grid[0].set_yticks(range(len(rows)), [titles[row.arm] for row in rows], fontsize=9)
    grid[0].invert_yaxis()
    return _png(figure)


def _panel(axes: Axes, rows: Sequence[Row], name: str) -> None:
    for at, row in enumerate(rows):
        if name not in row.estimates:
            continue
        one = row.estimates[name]
        axes.plot([one.low, one.high], [at, at], color="#4c6a92", linewidth=2)
        axes.plot([one.value], [at], "o", color="#1f3a5f", markersize=5)
        if one.chance is not None:
            axes.axvline(one.chance, color="#b0413e", linewidth=0.8, linestyle="--")
    axes.set_title(TITLES[name], fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.tick_params(labelsize=8)


def curves_picture(curves: Mapping[str, Sequence[Path]], titles: Mapping[str, str], wanted: str) -> bytes:
    """A PNG of one curve (`validation.report_contrast`, say) by arm: the mean over seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for at, (arm, paths) in enumerate(curves.items()):
        points: dict[int, list[float]] = {}
        for path in paths:
            for step, value in read_curve(path, wanted):
                points.setdefault(step, []).append(value)
        if points:
            steps = sorted(points)
            means = [sum(points[step]) / len(points[step]) for step in steps]
            style = ("-", "--", ":")[at // 7 % 3]
            axes.plot(steps, means, style, label=titles[arm], linewidth=1.5, marker=".")
    axes.set_xlabel("step")
    axes.set_ylabel(wanted)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    return _png(figure)


def read_curve(path: Path, name: str) -> list[tuple[int, float]]:
    """The (step, value) pairs of one name in a `step,name,value` file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            (int(row["step"]), float(row["value"])) for row in csv.DictReader(stream) if row["name"] == name
        ]


def _png(figure: object) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})  # type: ignore[attr-defined]
    return stream.getvalue()
