"""Four real patients through every stage, from the table and its reports to a packaged encoder."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path

import pytest
import yaml

from components.base.config import with_overrides, with_preset
from components.base.files import read_table
from components.base.stages import STAGES
from tests.conftest import ROOT

pytestmark = pytest.mark.real_data

SLICE = {
    "ingest.sources": [
        {
            "source": "nifti_csv",
            "path": "sts_cohort",
            "site": "sts",
            "options": {"label_columns": ["region", "side"], "max_patients": 4},
        }
    ],
    "ingest.workers": 1,
    "preprocess.workers": 1,
    "split.fractions": {"train": 0.5, "validation": 0.25, "test": 0.25},
    "split.max_group_fraction": 1.0,
    "pretrain.num_steps": 2,
    "pretrain.warmup_steps": 0,
    "pretrain.batch_size": 2,
    "pretrain.validate_every_steps": 2,
    "pretrain.num_threads": 1,
    "finetune.segmentation.steps": 2,
    "evaluate.segmentation.resamples": 100,
    "gate.rules": {"segmentation.mean_dice": {"min": 0.0}},
    "package.bento": False,
}


def run_chain(root: Path, values: dict[str, object]) -> None:
    """Every stage in order, in this process."""
    (root / "infra").mkdir(parents=True)
    (root / "infra" / "champion.json").write_text('{"champion": null}\n')
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    for stage in STAGES:
        step = importlib.import_module(stage.module).STEP
        items = [[f"--{stage.item}", name] for name in values[stage.name]] if stage.item else [[]]  # type: ignore[attr-defined, call-overload]
        for item in items:
            assert step.main(["--root", str(root), *item]) == 0, (stage.name, item)


def test_a_slice_of_the_real_cohort(tmp_path: Path, real_data: Path) -> None:
    root = tmp_path / "root"
    values = with_preset(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")), "sts")
    values = with_overrides(values, {**SLICE, "ingest.root": os.path.relpath(real_data, root)})
    # one test patient cannot answer for findings or retrieval: those have tests of their own
    values["finetune"] = {name: values["finetune"][name] for name in ("retrieval", "segmentation")}
    values["evaluate"] = {name: values["evaluate"][name] for name in ("segmentation",)}
    run_chain(root, values)
    metrics = json.loads((root / "artifacts/deidentify/metrics.json").read_text())
    assert metrics["num_reports"] == 4
    assert metrics["notes_with_leak"] == 0
    assert metrics["token_recall"] == 1.0
    sections = {row["name"] for row in read_table(root / "artifacts/section/sections.parquet").to_pylist()}
    assert {"findings", "impression"} <= sections
    split = read_table(root / "artifacts/split/split.parquet").to_pylist()
    assert {row["provenance"] for row in split} == {"real"}
    assert len({row["patient_key"] for row in split}) == 4
    assert json.loads((root / "artifacts/gate/verdict.json").read_text())["passed"]
    parity = json.loads((root / "artifacts/package/onnx/parity.json").read_text())
    worst = max(row["max_abs_error"] for rows in parity["graphs"].values() for row in rows)
    assert worst <= 1e-4
    names = [row["patient_name"] for row in _rows(real_data / "sts_cohort" / "studies.csv")][:4]
    words = {part.lower() for name in names for part in name.split("^") if len(part) > 3}
    for path in (root / "artifacts").rglob("*"):
        if path.is_file() and path.suffix in {".json", ".html", ".csv", ".md"}:
            text = path.read_text(encoding="utf-8").lower()
            assert not [word for word in words if f" {word} " in text], path.name


def _rows(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))
