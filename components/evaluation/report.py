"""The report a person reads: one self-contained HTML page, written from artifacts only.

It loads nothing (no script, font, image or address), has no date and no path, and the same artifacts give the same
bytes. Text is de-identified; studies go by keyed ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.base.config import fingerprint
from components.base.errors import InputError
from components.base.stages import NO_STAGES
from components.evaluation import charts, report_data
from components.evaluation.summary import number, results_table

WINDOW_HU = (-1000.0, 500.0)
SOFT_WINDOW_HU = (-200.0, 300.0)
TERMS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "nsd": "NSD",
    "hd95": "HD95 (mm)",
    "dice": "Dice",
    "top1": "top-1",
    "jaccard": "Jaccard",
}
PROTOCOL_TITLES = {"zero_shot": "Zero-shot", "linear_probe": "Linear probe"}


def render(root: Path, all_params: Mapping[str, Any], examples: int) -> str:
    """The page for the artifacts below `root`; `examples` is the number of retrieval queries shown."""
    from jinja2 import Environment, StrictUndefined

    from components.evaluation.gate import read_metrics
    from components.evaluation.report_page import PAGE

    artifacts = root / "artifacts"
    verdict = report_data.json_of(artifacts / "gate" / "verdict.json")
    metrics = read_metrics(root)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "words": _words}
    environment.globals |= {"interval": charts.interval, "share_bar": charts.share_bar}
    pictures = Pictures(root)
    blocks = {name: block for name, block in all_params.items() if name not in NO_STAGES}
    return environment.from_string(PAGE).render(
        verdict=verdict,
        synthetic=any(found.get("provenance", {}).get("synthetic") for found in metrics.values()),
        provenance=next((found["provenance"] for found in metrics.values() if "provenance" in found), {}),
        params_hash=fingerprint(blocks),
        contract=report_data.json_of(artifacts / "pretrain" / "encoder" / "contract.json"),
        results=results_table(root),
        flow=report_data.cohort_flow(artifacts),
        splits=report_data.split_table(artifacts),
        checks=report_data.checks(artifacts),
        prevalence=report_data.prevalence(artifacts),
        curves=[charts.curve(_words(name), lines) for name, lines in report_data.curves(artifacts).items()],
        rocs=_rocs(artifacts, metrics),
        left_out={
            PROTOCOL_TITLES[name]: metrics[name]["left_out"]
            for name in PROTOCOL_TITLES
            if metrics.get(name, {}).get("left_out")
        },
        labels=_label_rows(metrics),
        retrieval=_retrieval(artifacts, pictures, examples),
        retrieval_metrics=metrics.get("retrieval", {}),
        segmentation=_segmentation(artifacts, metrics.get("segmentation", {})),
        slices=_slices(metrics),
    )


def _words(name: str) -> str:
    """A dotted name as a person writes it."""
    parts = [" ".join(TERMS.get(word, word) for word in part.split("_")) for part in name.split(".")]
    return " · ".join(parts).replace("recall at ", "R@").replace("=", " = ")


class Pictures:
    """Axial and coronal slices of studies from the store, each made once."""

    def __init__(self, root: Path) -> None:
        """`root` is the project's root; without a store there are no pictures."""
        from components.downstream.inputs import DownstreamInputs

        self.inputs = DownstreamInputs(root)
        self._made: dict[str, list[dict[str, str]]] = {}

    def of(self, study: str) -> list[dict[str, str]]:
        """The middle axial and coronal slices of a study as `{"view", "src"}`; [] if it is not in the store."""
        if study not in self._made:
            try:
                self._made[study] = self._make(study)
            except (InputError, KeyError):
                self._made[study] = []
        return self._made[study]

    def _make(self, study: str) -> list[dict[str, str]]:
        store = self.inputs.store()
        hu = store.read(self.inputs.split()[study].series_key)
        spacing = store.contract.spacing_mm
        made = []
        for view, axis, row in (("axial", 2, 1), ("coronal", 1, 2)):
            plane = hu.take(hu.shape[axis] // 2, axis=axis)
            source = charts.png(charts.grey(plane, WINDOW_HU), spacing[row] / spacing[0])
            made.append({"view": view, "src": source})
        return made


def _rocs(artifacts: Path, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for protocol, title in PROTOCOL_TITLES.items():
        labels = metrics.get(protocol, {}).get("labels", {})
        drawn = [
            charts.roc(
                _words(label),
                f"AUROC {number(labels.get(label, {}).get('auroc', {}).get('value'), 2)}",
                points,
            )
            for label, points in report_data.roc_curves(artifacts, protocol).items()
        ]
        if drawn:
            found.append({"title": title, "charts": drawn})
    return found


def _label_rows(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row a label: its AUROC under each classification protocol."""
    tables = {name: metrics.get(name, {}).get("labels", {}) for name in PROTOCOL_TITLES}
    names = sorted(set().union(*tables.values()))
    return [
        {"name": name, **{protocol: table.get(name, {}).get("auroc") for protocol, table in tables.items()}}
        for name in names
    ]


def _retrieval(artifacts: Path, pictures: Pictures, count: int) -> list[dict[str, Any]]:
    """Queries by report with their three best volumes: the first of every rank tercile in turn."""
    rows = [
        row
        for row in report_data.rows_of(artifacts / "evaluate" / "retrieval" / "predictions.parquet")
        if row["direction"] == "report_to_volume"
    ]
    rows.sort(key=lambda row: (row["rank"], row["study_key"]))
    if not rows or count == 0:
        return []
    step = max(1, (len(rows) - 1) // max(1, count - 1)) if count > 1 else 1
    text = report_data.sentences(artifacts)
    return [
        {
            "study": row["study_key"],
            "text": report_data.excerpt(text.get(row["study_key"], "")),
            "rank": row["rank"],
            "own": pictures.of(row["study_key"]),
            "found": [
                {"study": study, "right": right, "slices": pictures.of(study)}
                for study, right in zip(row["top"], row["top_right"], strict=True)
            ],
        }
        for row in rows[::step][:count]
    ]


def _segmentation(artifacts: Path, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The example slices with truth and prediction over them, the classes' colours and their scores."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = artifacts / "evaluate" / "segmentation"
    about = report_data.json_of(folder / "examples.json")
    if not about:
        return {}
    try:
        arrays = load_file(folder / "examples.safetensors")
    except (SafetensorError, OSError):
        arrays = {}
    contract = report_data.json_of(artifacts / "preprocess" / "contract.json")
    spacing = contract.get("spacing_mm", [1.0, 1.0, 1.0])
    examples = []
    for name, study in sorted(about["studies"].items()):
        views = []
        for view, row in (("axial", 1), ("coronal", 2)):
            if f"{name}.{view}.hu" not in arrays:
                continue
            hu = arrays[f"{name}.{view}.hu"]
            made = {
                kind: charts.png(
                    charts.overlay(hu, arrays[f"{name}.{view}.{kind}"], SOFT_WINDOW_HU),
                    spacing[row] / spacing[0],
                )
                for kind in ("target", "predicted")
            }
            views.append({"view": view, **made})
        examples.append({"study": study, "views": views})
    classes = [
        {
            "name": name,
            "colour": charts.CLASS_COLOURS[at % len(charts.CLASS_COLOURS)],
            **metrics.get("classes", {}).get(name, {}),
        }
        for at, name in enumerate(about["classes"])
    ]
    return {"examples": examples, "classes": classes, "metrics": metrics}


def _slices(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table a protocol: its headline metric by sex, age band, source and provenance."""
    headline = {"zero_shot": "macro AUROC", "linear_probe": "macro AUROC", "segmentation": "mean Dice"}
    tables = []
    for protocol, found in sorted(metrics.items()):
        rows = [
            {"group": _words(attribute), "value_name": value, **estimate}
            for attribute, values in sorted(found.get("slices", {}).items())
            if len(values) > 1
            for value, estimate in sorted(values.items())
        ]
        if rows:
            metric = headline.get(protocol, _words(str(found.get("slice_metric", ""))))
            tables.append({"protocol": _words(protocol), "metric": metric, "rows": rows})
    return tables
