"""Flow parameters over params.yaml: validated, in force for one run, recorded with it, and taken back.

While a run with a preset or overrides is under way params.yaml holds its values, so that DVC sees them as it sees
any change of a parameter. A journal below .velvet/ keeps the text from before: it is put back when the run ends,
and by the next run if this one was killed. The run itself is kept as a DVC experiment (`dvc exp show`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.base.config import PARAMS_FILE, load_params, with_overrides, with_preset
from components.base.files import write_json, write_text
from components.base.validate import check_blocks

NOTICE = "# The values of a run under way. They are taken back when it ends: do not edit or commit this file now.\n"


def resolve(root: Path, preset: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a run, checked block by block; mistakes are `ConfigError`s."""
    values = load_params(root / PARAMS_FILE)
    if preset:
        values = with_preset(values, preset)
    values = with_overrides(values, overrides)
    check_blocks(values)
    return values


def _journal(root: Path) -> Path:
    return root / ".velvet" / "params.journal.json"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def restore(root: Path) -> bool:
    """Put back the params.yaml of before an overridden run; says whether there was one.

    A params.yaml that somebody edited since is left as it is.
    """
    journal = _journal(root)
    if not journal.exists():
        return False
    kept = json.loads(journal.read_text(encoding="utf-8"))
    path = root / PARAMS_FILE
    if _digest(path.read_text(encoding="utf-8")) == kept["during"]:
        write_text(path, kept["before"])
    journal.unlink()
    return True


@contextlib.contextmanager
def applied(root: Path, preset: str | None, overrides: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Have a preset and dotted overrides in params.yaml for the length of the block; yields the values."""
    import yaml

    restore(root)
    values = resolve(root, preset, overrides)
    path = root / PARAMS_FILE
    if values == load_params(path):
        yield values
        return
    text = NOTICE + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    before = path.read_text(encoding="utf-8")
    write_json(_journal(root), {"before": before, "during": _digest(text)})
    write_text(path, text)
    try:
        yield values
    finally:
        restore(root)
