"""The layout tells the story: sizes, names, places, and nothing that belongs to one machine."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from components.base.stages import NO_STAGES, STAGES
from tests.conftest import ROOT

ROOMS = {"flows", "components", "data_checks", "serving", "infra", "tests", "docs"}
FILES = {
    "README.md",
    "Makefile",
    "pyproject.toml",
    "constraints.txt",
    "params.yaml",
    "dvc.yaml",
    "prefect.yaml",
}


def tracked() -> list[Path]:
    """The files of the project: tracked ones, and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


SOURCES = [path for path in tracked() if path.suffix == ".py"]


def test_top_level_holds_the_rooms_and_nothing_else() -> None:
    seen = {path.relative_to(ROOT).parts[0] for path in tracked()}
    visible = {name for name in seen if not name.startswith(".")} - {"dvc.lock"}
    assert visible == ROOMS | FILES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 500, "a file over 500 lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, f"{node.name} has 80 lines or more"


def test_no_file_of_text_is_over_500_lines() -> None:
    long = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix in {".md", ".yaml", ".toml", ".html", ".js", ".css", ".sh"}
        and len(path.read_text(encoding="utf-8").splitlines()) > 500
    ]
    assert long == []


def test_nothing_names_a_machine_or_a_registry() -> None:
    # spelt in parts, so that this file does not find itself
    words = ["/wo" + "rk/", "/ro" + "ot/", "files.python" + "hosted", "pypi." + "org", "/opt/" + "wheels"]
    pattern = re.compile("|".join(map(re.escape, words)))
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if pattern.search(text):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


def test_one_word_in_four_places() -> None:
    names = [stage.name for stage in STAGES]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert list(stages) == names
    assert [name for name in params if name not in NO_STAGES] == names
    for stage in STAGES:
        assert stage.module.rpartition(".")[2] in {stage.name, "package"}
        assert (ROOT / (stage.module.replace(".", "/") + ".py")).is_file(), stage.module
        command = stages[stage.name].get("cmd") or stages[stage.name]["do"]["cmd"]
        assert command.startswith(f"python -m {stage.module}")
        assert ("foreach" in stages[stage.name]) == (stage.item is not None)
