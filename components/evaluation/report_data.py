"""What the report shows, read from artifacts alone; a part whose artifact is absent is left out of the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.base.errors import InputError

SPLITS = ("train", "validation", "test")
FLOW: tuple[tuple[str, str, tuple[str, ...], str, tuple[str, ...]], ...] = (
    ("ingest", "Read from the archive", ("num_series",), "series", ("num_quarantined",)),
    ("check_cohort", "Cohort checks passed", ("series",), "series", ("refused",)),
    ("deidentify", "Reports de-identified", ("num_reports",), "reports", ("num_quarantined_studies",)),
    ("check_reports", "Report checks passed", ("accepted",), "reports", ("refused",)),
    ("preprocess", "Volumes prepared", ("volumes",), "volumes", ("quarantined",)),
    ("check_volumes", "Volume checks passed", ("accepted",), "volumes", ("refused",)),
)


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where it is absent or malformed."""
    from components.base.files import read_json

    try:
        value = read_json(path)
    except InputError:
        return {}
    return value if isinstance(value, dict) else {}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """A table's rows, or [] where it is absent or malformed."""
    from components.base.files import read_table

    try:
        rows: list[dict[str, Any]] = read_table(path).to_pylist()
    except InputError:
        return []
    return rows


def csv_of(path: Path) -> list[list[str]]:
    """A CSV file's rows without its head; every value has no comma in our files' numeric columns."""
    import csv

    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def cohort_flow(artifacts: Path) -> list[dict[str, Any]]:
    """Stage by stage: how many were kept and set aside, from the stages' metrics."""
    steps = []
    for stage, title, kept, unit, refused in FLOW:
        metrics = json_of(artifacts / stage / "metrics.json")
        count = next((metrics[name] for name in kept if name in metrics), None)
        if count is not None:
            aside = next((metrics[name] for name in refused if name in metrics), 0)
            steps.append({"stage": stage, "title": title, "kept": count, "unit": unit, "aside": aside})
    return steps


def split_table(artifacts: Path) -> list[dict[str, Any]]:
    """Patients, studies, paired studies and series by split."""
    rows = rows_of(artifacts / "split" / "split.parquet")
    table = []
    for name in SPLITS:
        part = [row for row in rows if row["split"] == name]
        studies = {row["study_key"]: row["paired"] for row in part}
        table.append(
            {
                "name": name,
                "patients": len({row["patient_key"] for row in part}),
                "studies": len(studies),
                "paired": sum(studies.values()),
                "series": len(part),
            }
        )
    return table if rows else []


def checks(artifacts: Path) -> list[dict[str, Any]]:
    """The data checks' results: counts, and what found something."""
    found = []
    for stage in ("check_cohort", "check_reports", "check_volumes"):
        result = json_of(artifacts / stage / "result.json")
        if result:
            listed = [item for item in result.get("checks", []) if isinstance(item, Mapping)]
            found.append(
                {
                    "stage": stage,
                    "success": result.get("success") is True,
                    "checked": result.get("checked"),
                    "refused": result.get("refused"),
                    "checks": len(listed),
                    "passed": sum(bool(item.get("passed")) for item in listed),
                    "found": [item for item in listed if not item.get("passed")],
                }
            )
    return found


def prevalence(artifacts: Path) -> dict[str, Any]:
    """Gold labels by split, findings by status, and how many reports have each section."""
    split = {row["study_key"]: row["split"] for row in rows_of(artifacts / "split" / "split.parquet")}
    labels: dict[str, dict[str, list[int]]] = {}
    for row in rows_of(artifacts / "deidentify" / "labels.parquet"):
        part = split.get(row["study_key"])
        if part:
            counts = labels.setdefault(row["name"], {name: [0, 0] for name in SPLITS})[part]
            counts[0] += int(row["value"] == 1)
            counts[1] += 1
    sections = rows_of(artifacts / "section" / "sections.parquet")
    reports = {row["study_key"] for row in sections}
    named = Counter(name for _, name in {(row["study_key"], row["name"]) for row in sections})
    return {
        "labels": [
            {"name": name, "total": [sum(pair[at] for pair in parts.values()) for at in (0, 1)], **parts}
            for name, parts in sorted(labels.items())
        ],
        "sections": [
            {"name": name, "count": count}
            for name, count in sorted(named.items(), key=lambda item: (-item[1], item[0]))
        ],
        "reports": len(reports),
        "findings": _findings(rows_of(artifacts / "section" / "findings.parquet")),
    }


def _findings(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        counted.setdefault(row["finding"], Counter())[row["status"]] += 1
    return [{"name": name, **dict(counts)} for name, counts in sorted(counted.items())]


def curves(artifacts: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Name -> {train, validation} -> (step, value) of pre-training; `total` comes first."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for step, name, value in csv_of(artifacts / "pretrain" / "curves.csv"):
        part, mark, rest = name.partition(".")
        part, rest = (part, rest) if mark else ("train", name)
        found.setdefault(rest, {}).setdefault(part, []).append((float(step), float(value)))
    return {name: found[name] for name in sorted(found, key=lambda name: (name != "total", name))}


def roc_curves(artifacts: Path, protocol: str) -> dict[str, list[tuple[float, float]]]:
    """Label -> ROC points of a protocol."""
    found: dict[str, list[tuple[float, float]]] = {}
    for label, fpr, tpr in csv_of(artifacts / "evaluate" / protocol / "roc.csv"):
        found.setdefault(label, []).append((float(fpr), float(tpr)))
    return found


def sentences(artifacts: Path) -> dict[str, str]:
    """Study -> the text of its findings and impression, in order."""
    rows = rows_of(artifacts / "section" / "sentences.parquet")
    text: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["study_key"], row["order"], row["start"])):
        if row["section"] in ("findings", "impression"):
            text.setdefault(row["study_key"], []).append(" ".join(row["text"].split()))
    return {key: " ".join(parts) for key, parts in text.items()}


def excerpt(text: str, length: int = 420) -> str:
    """The beginning of a text, cut between words."""
    if len(text) <= length:
        return text
    return text[: length + 1].rsplit(" ", 1)[0] + " …"
