"""Atomic files under faults: a full disk, a crash inside the block, torn leftovers."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from components.base.errors import InputError, StorageError
from components.base.files import (
    atomic_folder,
    atomic_path,
    clean_orphans,
    read_json,
    read_table,
    sha256_folder,
    to_json,
    write_bytes,
    write_json,
)


@pytest.mark.parametrize("call", ["write_bytes", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "state.bin"
    write_bytes(path, b"old")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr("components.base.files.os.fsync", full)
    else:
        monkeypatch.setattr(Path, call, full)
    with pytest.raises(StorageError) as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert caught.value.exit_code == 10
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["state.bin"]


def test_an_error_inside_the_block_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "table"
    write_bytes(path, b"old")
    with pytest.raises(ValueError, match="half"), atomic_path(path) as temp:
        temp.write_bytes(b"half")
        raise ValueError("half")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    with atomic_folder(folder) as temp:
        write_bytes(temp / "a", b"1")
    first = sha256_folder(folder)
    with pytest.raises(RuntimeError), atomic_folder(folder) as temp:
        write_bytes(temp / "b", b"2")
        raise RuntimeError
    assert sha256_folder(folder) == first
    with atomic_folder(folder) as temp:
        write_bytes(temp / "b", b"2")
    assert [item.name for item in folder.iterdir()] == ["b"]
    assert sha256_folder(folder) != first


def test_orphans_of_a_crash_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / ".part-1-x").write_bytes(b"torn")
    (tmp_path / ".part-2-y").mkdir()
    (tmp_path / "kept").touch()
    assert clean_orphans(tmp_path) == 2
    assert [item.name for item in tmp_path.iterdir()] == ["kept"]


def test_json_is_canonical_and_finite(tmp_path: Path) -> None:
    assert to_json({"b": float("inf"), "a": (1, 2)}) == to_json({"a": [1, 2], "b": None})
    write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}


def test_bad_inputs_have_typed_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    for read, name, rule in (
        (read_json, "none.json", "stage.input"),
        (read_json, "bad.json", "file.json"),
        (read_table, "none.parquet", "stage.input"),
        (read_table, "bad.parquet", "file.parquet"),
    ):
        with pytest.raises(InputError) as caught:
            read(tmp_path / name)
        assert caught.value.rule == rule
        assert str(tmp_path) not in caught.value.render(), "no absolute path in an error"
