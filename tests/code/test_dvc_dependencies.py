"""dvc.yaml names all the code that a stage runs, so that changed code re-runs what it must."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml

from components.base.stages import STAGES, Stage
from tests.conftest import ROOT

ROOMS = ("components", "data_checks", "serving", "flows")


def module_file(name: str) -> Path | None:
    """The file of a dotted module or package of the project."""
    base = ROOT / name.replace(".", "/")
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports_of(path: Path) -> frozenset[Path]:
    """The project's files that a file imports, anywhere in it."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = module_file(name) if name.startswith(ROOMS) else None
            if file:
                found.add(file)
    return frozenset(found)


def closure(start: Path) -> set[Path]:
    """Every file of the project that a file imports, directly or not."""
    seen, waiting = {start}, [start]
    while waiting:
        for file in imports_of(waiting.pop()) - seen:
            seen.add(file)
            waiting.append(file)
    return seen


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_code_of_a_stage_is_among_its_dependencies(stage: Stage) -> None:
    spec = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage.name]
    covered = [ROOT / name for name in (spec.get("do") or spec)["deps"] if "$" not in name]
    start = module_file(stage.module)
    assert start is not None
    missing = [
        str(file.relative_to(ROOT))
        for file in sorted(closure(start))
        if file.name != "__init__.py" and not any(file == path or path in file.parents for path in covered)
    ]
    assert missing == []


def test_identifiable_outputs_have_a_remote_of_their_own() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    seen = 0
    for spec in stages.values():
        for out in (spec.get("do") or spec)["outs"]:
            path = next(iter(out)) if isinstance(out, dict) else out
            if path.startswith("restricted/"):
                seen += 1
                assert isinstance(out, dict)
                assert out[path]["remote"] == "restricted"
            else:
                assert isinstance(out, str) or "remote" not in out[path], "without PHI: the default remote"
    assert seen == 3
