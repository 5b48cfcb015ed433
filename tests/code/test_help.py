"""Every command answers `--help` at once: none imports a heavy package to do so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from components.base.stages import STAGES
from tests.conftest import ROOT

HEAVY = {"torch", "monai", "transformers", "lightning", "pandas", "pyarrow", "great_expectations", "prefect", "bentoml",
         "onnxruntime", "scipy", "sklearn", "matplotlib", "SimpleITK", "dvc"}  # fmt: skip
COMMANDS = [stage.module for stage in STAGES] + [
    "flows",
    "serving.server",
    "serving.client",
    "serving.triton",
]

PROBE = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
code = None
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    code = end.code
heavy = sorted(set(sys.modules) & set({heavy!r}))
print("\\nHEAVY", ",".join(heavy), "CODE", code)
"""


@pytest.mark.parametrize("module", COMMANDS)
def test_help_is_light(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage:" in done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert last == "HEAVY  CODE 0", f"{module} imports {last}"
