"""What a person sees in Prefect after a stage: check results, curves, metrics and the gate's verdict."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.base.files import read_json
from components.evaluation.curves import draw_curves


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
