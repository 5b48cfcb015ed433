"""Golden losses of 20 steps on a tiny cohort (R13), and of a second run: recipes of velvet and of colipri.

On a machine with the same kind of CPU and the same torch as the file was written with, the losses must be equal
to the last bit; elsewhere vector widths change the order of sums, and 20 steps let the last bits grow: there the
relative difference must stay below 1e-3. Within one machine two runs must always agree exactly.

To write the file again after an intended change of the training:

    VELVET_GOLDEN=write python -m pytest tests/golden/test_pretraining_losses.py
"""

from __future__ import annotations

import csv
import os
import platform
from pathlib import Path
from typing import Any

import pytest

from components.base.config import fingerprint, parse
from components.base.files import read_json, read_table, write_json, write_table
from tests.pretraining_support import PARAMS, context_at, write_cohort

FOLDER = Path(__file__).parent
VELVET = {
    **PARAMS["objectives"],
    "image_text_matching": {},
    "multimodal_masked_language": {},
}
COLIPRI = {
    "vision": {
        "name": "primus",
        "patch": 8,
        "width": 24,
        "depth": 2,
        "heads": 2,
        "projection_dim": 16,
        "pool_heads": 2,
    },
    "text": {
        "name": "bert",
        "hidden": 16,
        "layers": 2,
        "heads": 2,
        "ffn": 32,
        "max_positions": 64,
        "pooling": "mean_query",
        "pool_heads": 2,
        "projector": False,
    },
    "embed_dim": 16,
    "objectives": {
        "report_contrast": {"label_smoothing": 0.0},
        "opposite_sentence": {"weight": 0.5, "num_pairs": 2},
        "report_generation": {"layers": 1, "hidden": 16, "heads": 2, "ffn": 32, "grid": 2},
        "masked_autoencoder": {"depth": 1},
    },
    "weight_decay": 0.05,
}
RECIPES: dict[str, dict[str, Any]] = {
    "pretraining_losses": {},
    "pretraining_losses_velvet": {"objectives": VELVET},
    "pretraining_losses_colipri": COLIPRI,
}


def machine() -> str:
    """Tells kinds of machine apart: torch, its vector instructions and the processor's name."""
    import torch

    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = names[0] if names else platform.processor()
    return fingerprint([torch.__version__, torch.backends.cpu.get_cpu_capability(), processor])


def losses(root: Path, recipe: dict[str, Any]) -> dict[str, list[float]]:
    """Train 20 steps from nothing; every train and validation number by name."""
    from components.pretraining import pretrain

    write_cohort(root)
    write_structured(root)
    context = context_at(root)
    pretrain.run(parse(pretrain.Params, {**PARAMS, **recipe}, "pretrain"), context)
    found: dict[str, list[float]] = {}
    with (context.out / "curves.csv").open() as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["name"], []).append(float(row["value"]))
    return found


def write_structured(root: Path) -> None:
    """`structured.parquet` for the cohort: a nodule in every report, no effusion in any."""
    import pyarrow as pa

    section = root / "artifacts" / "section"
    rows = []
    for study in sorted({row["study_key"] for row in read_table(section / "sentences.parquet").to_pylist()}):
        said = {"study_key": study, "section": "findings", "order": 0, "start": 0, "end": 10}
        for polarity, text in (("positive", "A dense nodule."), ("negative", "No pleural effusion.")):
            rows.append({**said, "region": "lung", "polarity": polarity, "text": text})
    write_table(section / "structured.parquet", pa.Table.from_pylist(rows))


@pytest.mark.parametrize("name", RECIPES)
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    found = losses(tmp_path / "first", RECIPES[name])
    assert losses(tmp_path / "second", RECIPES[name]) == found
    file = FOLDER / f"{name}.json"
    if os.environ.get("VELVET_GOLDEN") == "write":
        write_json(file, {"machine": machine(), "curves": found})
        return
    golden = read_json(file)
    assert found.keys() == golden["curves"].keys()
    assert len(found["train.total"]) == 20
    for objective in {**PARAMS, **RECIPES[name]}["objectives"]:
        assert len(found[f"train.{objective}"]) == 20
    for curve, values in golden["curves"].items():
        if golden["machine"] == machine():
            assert found[curve] == values, curve
        elif "_r1" not in curve:
            assert found[curve] == pytest.approx(values, rel=1e-3, abs=1e-6), curve
