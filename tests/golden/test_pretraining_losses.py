"""Golden losses of 20 steps with all seven objectives on a tiny cohort (R13), and of a second run.

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

import pytest

from components.base.config import fingerprint, parse
from components.base.files import read_json, write_json
from tests.pretraining_support import PARAMS, context_at, write_cohort

GOLDEN = Path(__file__).parent / "pretraining_losses.json"


def machine() -> str:
    """Tells kinds of machine apart: torch, its vector instructions and the processor's name."""
    import torch

    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = names[0] if names else platform.processor()
    return fingerprint([torch.__version__, torch.backends.cpu.get_cpu_capability(), processor])


def losses(root: Path) -> dict[str, list[float]]:
    """Train 20 steps from nothing; every train and validation number by name."""
    from components.pretraining import pretrain

    write_cohort(root)
    context = context_at(root)
    pretrain.run(parse(pretrain.Params, PARAMS, "pretrain"), context)
    found: dict[str, list[float]] = {}
    with (context.out / "curves.csv").open() as stream:
        for row in csv.DictReader(stream):
            found.setdefault(row["name"], []).append(float(row["value"]))
    return found


def test_twenty_steps(tmp_path: Path) -> None:
    found = losses(tmp_path / "first")
    assert losses(tmp_path / "second") == found
    if os.environ.get("VELVET_GOLDEN") == "write":
        write_json(GOLDEN, {"machine": machine(), "curves": found})
        return
    golden = read_json(GOLDEN)
    assert found.keys() == golden["curves"].keys()
    assert len(found["train.total"]) == 20
    for name, values in golden["curves"].items():
        if golden["machine"] == machine():
            assert found[name] == values, name
        elif "_r1" not in name:
            assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-6), name
