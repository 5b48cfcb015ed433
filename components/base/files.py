"""Atomic files: a reader sees the old bytes or the new ones, never half of either.

A write goes to a temporary name in the same folder, is flushed to the disk, renamed over the target,
and the folder is flushed. `atomic_folder` does the same for a whole folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

TEMP_PREFIX = ".part-"


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temp_beside(path: Path) -> Path:
    return path.parent / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"


@contextlib.contextmanager
def atomic_path(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends without an error it becomes `path`.

    Raises `StorageError` when the disk refuses the write; `path` then still has its old content.
    """
    temp = _temp_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temp
        with temp.open("rb+") as stream:
            os.fsync(stream.fileno())
        if mode is not None:
            temp.chmod(mode)
        temp.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not write {path.name}: {error.strerror or type(error).__name__}",
            rule="storage.write",
            fix="free disk space or check permissions, then run the same command again",
        ) from error
    finally:
        temp.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path, mode=mode) as temp:
        temp.write_bytes(data)


def write_text(path: Path, text: str, *, mode: int | None = None) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode("utf-8"), mode=mode)


def to_json(value: Any) -> str:
    """Canonical JSON: sorted keys, two spaces, a final newline; NaN and infinity become null."""
    return json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return _finite(value.item())
    return value


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON atomically (see `to_json`)."""
    write_text(path, to_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file; a missing or malformed one is an `InputError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing_input(path) from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path.name} is not JSON", rule="file.json", fix="run the stage that writes it again"
        ) from error


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet table atomically; the same rows give the same bytes."""
    import pyarrow.parquet as pq

    with atomic_path(path) as temp:
        pq.write_table(table, temp, compression="zstd", write_statistics=False)


def read_table(path: Path) -> pa.Table:
    """Read a Parquet table; a missing or malformed one is an `InputError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise missing_input(path)
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path.name} is not a readable Parquet table",
            rule="file.parquet",
            fix="run the stage that writes it again",
        ) from error


def missing_input(path: Path) -> InputError:
    """The error for an input of a stage that is not there."""
    shown = "/".join(path.parts[-3:])
    return InputError(
        f"the input {shown} does not exist",
        rule="stage.input",
        fix="run the stages above this one first (`dvc repro` does so)",
    )


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; when the block ends without an error it replaces `path`."""
    temp, old = _temp_beside(path), path.parent / f"{TEMP_PREFIX}old-{path.name}"
    shutil.rmtree(temp, ignore_errors=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temp.mkdir()
        yield temp
        for file in sorted(temp.rglob("*")):
            if file.is_file():
                with file.open("rb+") as stream:
                    os.fsync(stream.fileno())
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temp.rename(path)
        _flush_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"could not write the folder {path.name}: {error.strerror or type(error).__name__}",
            rule="storage.write",
            fix="free disk space or check permissions, then run the same command again",
        ) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def clean_orphans(folder: Path) -> int:
    """Remove what an interrupted atomic write left in `folder` (not deeper); returns how many."""
    orphans = list(folder.glob(f"{TEMP_PREFIX}*")) if folder.is_dir() else []
    for orphan in orphans:
        if orphan.is_dir():
            shutil.rmtree(orphan, ignore_errors=True)
        else:
            orphan.unlink(missing_ok=True)
    return len(orphans)


def sha256_file(path: Path) -> str:
    """The hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def sha256_folder(path: Path) -> str:
    """The hex SHA-256 over relative names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_file(file)}\n".encode())
    return digest.hexdigest()


def restricted_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter (mode 0700) and return it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path
