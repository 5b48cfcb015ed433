"""`dvc repro` and the flow write the same bytes; a second run does nothing; a change runs what is below it [R18]."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline_support import command, copy_project, outputs, python, set_parameter, stages_run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which `dvc repro` ran once."""
    folder = copy_project(tmp_path_factory.mktemp("repro"))
    code, printed = command(folder, "dvc", "repro")
    assert code == 0, printed[-3000:]
    return folder


def test_the_flow_writes_the_bytes_of_dvc_repro(
    reproduced: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = copy_project(tmp_path_factory.mktemp("flow"))
    code, printed = python(folder, "-m", "flows", "pretrain")
    assert code == 0, printed[-3000:]
    wanted, found = outputs(reproduced), outputs(folder)
    assert set(wanted) == set(found)
    assert {path for path in wanted if wanted[path] != found[path]} == set()
    assert len(wanted) >= 18


def test_a_second_run_does_nothing(reproduced: Path) -> None:
    before = (reproduced / "dvc.lock").read_bytes()
    code, printed = command(reproduced, "dvc", "repro")
    assert code == 0, printed[-3000:]
    assert stages_run(printed) == set()
    assert (reproduced / "dvc.lock").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("package.seed", 12, {"package"}),
        ("evaluate.retrieval.seed", 8, {"evaluate@retrieval", "gate", "package"}),
    ],
)
def test_one_changed_parameter_runs_only_what_lies_below(
    reproduced: Path, key: str, value: int, expected: set[str]
) -> None:
    set_parameter(reproduced, key, value)
    code, printed = command(reproduced, "dvc", "repro")
    assert code == 0, printed[-3000:]
    assert stages_run(printed) == expected
