"""Paths that a table names: relative, below the root, regular files, reached through no link."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any


def is_file_inside(root: Path, relative: Any) -> bool:
    """Whether `relative` names a regular file below `root`, without links and without climbing out."""
    if not isinstance(relative, str) or not relative or "\\" in relative or "\0" in relative:
        return False
    pure = PurePosixPath(relative)
    if pure.is_absolute() or ".." in pure.parts:
        return False
    path = root
    for part in pure.parts:
        path = path / part
        if path.is_symlink():
            return False
    return path.is_file()
