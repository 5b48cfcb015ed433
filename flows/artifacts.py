"""What a person sees in Prefect after a stage: check results, curves, metrics and the gate's verdict."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.base.files import read_json


def publish(root: Path, target: str) -> None:
    """Publish the artifacts that belong to a finished stage; a stage without any publishes none."""
    stage, _, item = target.partition("@")
    folder = root / "artifacts" / stage / item if item else root / "artifacts" / stage
    if stage.startswith("check_"):
        _check(folder, stage)
    elif stage == "pretrain":
        _curves(folder)
    elif stage == "evaluate":
        _metrics(folder, item)
    elif stage == "gate":
        _verdict(folder)


def _key(name: str) -> str:
    return name.replace("_", "-").lower()


def _check(folder: Path, stage: str) -> None:
    from prefect.artifacts import create_link_artifact, create_markdown_artifact

    result = read_json(folder / "result.json")
    lines = [f"# {stage}: {'passed' if result.get('success') else 'failed'}", ""]
    lines += [f"- {name}: {value}" for name, value in sorted(scalars(result))]
    create_markdown_artifact("\n".join(lines), key=_key(stage), description=f"Result of {stage}")
    create_link_artifact(
        link=(folder / "index.html").resolve().as_uri(),
        link_text=f"{stage}: every expectation",
        key=_key(f"{stage}-page"),
        description="The page with every expectation and the keyed ids that failed it",
    )


def scalars(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers, truths and words of nested mappings with their dotted names; lists are left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from scalars(item, f"{where}.{key}".lstrip("."))
    elif not isinstance(value, list):
        yield where, value


def _curves(folder: Path) -> None:
    from prefect.artifacts import create_image_artifact

    picture = base64.b64encode(draw_curves(folder / "curves.csv")).decode()
    create_image_artifact(
        image_url=f"data:image/png;base64,{picture}",
        key="pretrain-curves",
        description="Losses by step",
    )


def draw_curves(path: Path) -> bytes:
    """A PNG of the curves in a `step,name,value` CSV, one panel for losses and one for the rest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            curves.setdefault(row["name"], []).append((int(row["step"]), float(row["value"])))
    figure = Figure(figsize=(9, 4.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, points in sorted(curves.items()):
        axes.plot(
            *zip(*points, strict=True), label=name, linewidth=1.4, marker="." if len(points) < 20 else ""
        )
    axes.set_xlabel("step")
    axes.set_ylabel("value")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, frameon=False)
    stream_out = io.BytesIO()
    figure.savefig(stream_out, format="png", metadata={"Software": None})
    return stream_out.getvalue()


def _metrics(folder: Path, protocol: str) -> None:
    from prefect.artifacts import create_table_artifact

    metrics = read_json(folder / "metrics.json")
    rows = []
    for name, value in sorted(metrics.items()):
        if isinstance(value, dict) and "value" in value:
            shown = {key: value.get(key) for key in ("value", "low", "high", "chance", "n", "n_patients")}
            rows.append({"metric": name, **shown})
    if rows:
        create_table_artifact(rows, key=_key(f"evaluate-{protocol}"), description=f"Protocol {protocol}")


def _verdict(folder: Path) -> None:
    from prefect.artifacts import create_link_artifact, create_markdown_artifact

    verdict = read_json(folder / "verdict.json")
    lines = [f"# The gate {'opens' if verdict.get('passed') else 'stays shut'}", ""]
    lines += [f"- {reason}" for reason in verdict.get("reasons", [])] or ["Every rule holds."]
    create_markdown_artifact("\n".join(lines), key="gate-verdict", description="The gate's verdict")
    create_link_artifact(
        link=(folder / "report.html").resolve().as_uri(),
        link_text="The report",
        key="report",
        description="One self-contained HTML page: cohort, checks, curves, metrics, verdict",
    )
