"""Check every block of params.yaml against its stage's model before anything runs."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from components.base.config import lookup, parse
from components.base.errors import ConfigError
from components.base.stages import NO_STAGES, STAGES


def check_blocks(values: Mapping[str, Any]) -> None:
    """Parse every stage's block; the first mistake is a `ConfigError` that names the key."""
    known = {stage.name for stage in STAGES} | NO_STAGES
    for name in sorted(set(values) - known):
        near = difflib.get_close_matches(name, sorted(known), 1)
        raise ConfigError(
            f"unknown block {name} in params.yaml",
            rule="params.unknown",
            fix=f"did you mean {near[0]!r}?" if near else f"known blocks: {', '.join(sorted(known))}",
        )
    for stage in STAGES:
        step = importlib.import_module(stage.module).STEP
        block = lookup(values, stage.name) or {}
        if stage.item is None:
            parse(step.params, block, stage.name)
            continue
        for item, item_values in block.items():
            parse(step.params(item), item_values or {}, f"{stage.name}.{item}")
