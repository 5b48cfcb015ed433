"""A file is a part: found by its name, in the tree and in packages outside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.base.errors import ConfigError
from components.base.registry import Registry
from components.objectives import OBJECTIVES


def test_names_are_the_files_and_nothing_is_imported() -> None:
    assert "rotation" in OBJECTIVES.names()
    assert not any(name.startswith("_") for name in OBJECTIVES.names())


def test_an_unknown_name_shows_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'rotation'"):
        OBJECTIVES.get("rotatoin")


def test_a_plugin_package_joins_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scratch_parts" / "objectives"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "my_objective.py").write_text(
        "from components.objectives import OBJECTIVES\n@OBJECTIVES.register('my_objective')\nclass Mine: pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("VELVET_PLUGINS", "scratch_parts")
    assert "my_objective" in OBJECTIVES.names()
    assert OBJECTIVES.get("my_objective").__name__ == "Mine"


def test_a_plugin_without_the_folder_adds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELVET_PLUGINS", "no_such_package:json")
    assert Registry("objective", "components.objectives").names() == OBJECTIVES.names()
