"""Parameters of a run: checked, in force while it lasts, taken back afterwards even if it was killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from components.base.config import load_params
from components.base.errors import ConfigError, StorageError
from flows.overrides import applied, resolve, restore
from flows.workspace import exclusive
from tests.conftest import ROOT


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with the project's params.yaml."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_every_preset_resolves_and_tiny_is_what_is_in_force(workspace: Path) -> None:
    values = load_params(workspace / "params.yaml")
    assert {"tiny", "smoke", "sts", "velvet"} <= set(values["presets"])
    for name in values["presets"]:
        resolved = resolve(workspace, name, {})
        assert (resolved == values) == (name == "tiny"), f"preset {name}"


def test_overrides_hold_for_the_block_only(workspace: Path) -> None:
    path = workspace / "params.yaml"
    before = path.read_bytes()
    with applied(workspace, None, {"split.seed": 99}) as values:
        assert values["split"]["seed"] == 99
        assert yaml.safe_load(path.read_text())["split"]["seed"] == 99
        assert "do not edit or commit" in path.read_text().splitlines()[0]
    assert path.read_bytes() == before


def test_a_killed_run_is_undone_by_the_next(workspace: Path) -> None:
    path = workspace / "params.yaml"
    before = path.read_bytes()
    killed = applied(workspace, None, {"split.seed": 99})
    killed.__enter__()
    assert path.read_bytes() != before
    assert restore(workspace)
    assert path.read_bytes() == before
    assert not restore(workspace)


def test_an_edit_made_meanwhile_is_kept(workspace: Path) -> None:
    path = workspace / "params.yaml"
    applied(workspace, None, {"split.seed": 99}).__enter__()
    path.write_text(path.read_text() + "\n# edited by hand\n")
    restore(workspace)
    assert "# edited by hand" in path.read_text()


@pytest.mark.parametrize(
    ("preset", "overrides", "expected"),
    [
        (None, {"pretrain.num_stepz": 1}, "pretrain.num_steps"),
        (None, {"pretrian.num_steps": 1}, "pretrain"),
        ("tinny", {}, "tiny"),
        (None, {"split.seed": "not a number"}, "split.seed"),
    ],
)
def test_mistakes_name_the_key_and_change_nothing(
    workspace: Path, preset: str | None, overrides: dict[str, object], expected: str
) -> None:
    before = (workspace / "params.yaml").read_bytes()
    with pytest.raises(ConfigError, match=expected) as caught, applied(workspace, preset, overrides):
        pytest.fail("the block must not run")
    assert len(caught.value.render().splitlines()) < 5
    assert (workspace / "params.yaml").read_bytes() == before


def test_one_run_at_a_time(workspace: Path) -> None:
    with (
        exclusive(workspace),
        pytest.raises(StorageError, match="using this workspace"),
        exclusive(workspace),
    ):
        pytest.fail("two runs in one workspace")
    with exclusive(workspace):
        assert ((workspace / "restricted").stat().st_mode & 0o777) == 0o700


def test_torn_lock_table_of_dvc_is_dropped(workspace: Path) -> None:
    table = workspace / ".dvc" / "tmp" / "rwlock"
    table.parent.mkdir(parents=True)
    table.write_text('{"write": {"a": {"pid"')
    with exclusive(workspace):
        assert not table.exists()
    table.write_text("{}")
    with exclusive(workspace):
        assert table.exists()
