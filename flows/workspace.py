"""One run at a time in a workspace, and what an earlier run that was killed left behind is put right."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from components.base.errors import StorageError
from components.base.files import restricted_folder


@contextlib.contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Hold the workspace's lock; the kernel frees it when the process ends, however it ends.

    Raises `StorageError` (rule `workspace.busy`) when another run holds it.
    """
    path = root / ".velvet" / "workspace.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise StorageError(
                f"another run (process {holder}) is using this workspace",
                rule="workspace.busy",
                fix="wait for it, or stop it; deployments queue by themselves",
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        restricted_folder(root / "restricted")
        _drop_torn_locks(root)
        yield


def _drop_torn_locks(root: Path) -> None:
    """Remove DVC's table of readers and writers if a kill left it half-written."""
    table = root / ".dvc" / "tmp" / "rwlock"
    if table.exists():
        try:
            json.loads(table.read_text(encoding="utf-8"))
        except ValueError:
            table.unlink()
