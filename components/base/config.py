"""Frozen, strict configuration: an unknown key is an error that names the nearest key.

`params.yaml` holds one block a stage (the values in force), `presets`, named sets of dotted overrides, and
`recipes`, named lists of objectives. A preset is data: applying `velvet` means setting its dotted keys in the blocks,
nothing else; applying `velvet/topitc` then sets the weight of every objective outside the recipe `topitc` to 0, and
`velvet+probing` applies one preset after the other.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from components.base.errors import ConfigError
from components.base.stages import STAGES

PARAMS_FILE = "params.yaml"
ITEM_STAGES = frozenset(stage.name for stage in STAGES if stage.item)


class Config(BaseModel):
    """Base of every configuration block: frozen, no unknown keys, no silent defaults by typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=Config)


def parse(kind: type[C], values: Mapping[str, Any], where: str) -> C:
    """Check `values` against a block's model; `where` is the block's dotted name for messages."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise _explain(kind, error, where) from None


def _explain(kind: type[Config], error: ValidationError, where: str) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    location = [str(part) for part in first["loc"]]
    dotted = ".".join([where, *location])
    if first["type"] == "extra_forbidden":
        known = _fields_at(kind, location[:-1])
        near = difflib.get_close_matches(location[-1], known, 1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known) or 'none'}"
        return ConfigError(f"unknown parameter {dotted}", rule="params.unknown", fix=hint)
    return ConfigError(
        f"parameter {dotted}: {first['msg'].lower()}",
        rule=f"params.{first['type']}",
        fix=f"correct {dotted} in {PARAMS_FILE}",
    )


def _fields_at(kind: type[BaseModel], location: list[str]) -> list[str]:
    """The known keys of the block that `location` leads to (through nested models)."""
    current: Any = kind
    for part in location:
        fields = getattr(current, "model_fields", None)
        if fields is None:  # a mapping or list of blocks: `part` is a key or a place in it
            inner = [kind for kind in get_args(current) if hasattr(kind, "model_fields")]
            current = inner[0] if inner else None
        else:
            current = getattr(fields.get(part), "annotation", None)
    return sorted(getattr(current, "model_fields", {}))


def load_params(path: Path) -> dict[str, Any]:
    """Read params.yaml as plain data."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path.name}",
            rule="params.file",
            fix="run the command from the project's root or give --params",
        ) from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        raise ConfigError(
            f"{path.name} is not valid YAML" + (f" (line {line + 1})" if line is not None else ""),
            rule="params.yaml",
            fix="correct the file; `git diff` shows what changed",
        ) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name} holds no blocks", rule="params.yaml", fix="restore it from git")
    return values


def lookup(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key; an unknown key is a `ConfigError` that names the nearest."""
    current: Any = values
    passed: list[str] = []
    for part in dotted.split("."):
        if not isinstance(current, Mapping) or part not in current:
            known = sorted(map(str, current)) if isinstance(current, Mapping) else []
            near = difflib.get_close_matches(part, known, 1, cutoff=0.4)
            raise ConfigError(
                f"unknown parameter {'.'.join([*passed, part])}",
                rule="params.unknown",
                fix=f"did you mean {'.'.join([*passed, near[0]])!r}?"
                if near
                else f"known here: {', '.join(known) or 'nothing below'}",
            )
        current = current[part]
        passed.append(part)
    return current


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of `values` with dotted keys set; every key must exist already, but for a new item.

    A new item is a block of its own below a stage that has items (`finetune.probe_grid: {...}`).
    """
    merged: dict[str, Any] = json.loads(json.dumps(values))
    for dotted, value in overrides.items():
        stage, _, item = dotted.partition(".")
        if not (stage in ITEM_STAGES and stage in merged and isinstance(value, Mapping) and "." not in item):
            lookup(merged, dotted)
        *parents, last = dotted.split(".")
        target = merged
        for part in parents:
            target = target[part]
        target[last] = value
    return merged


def with_preset(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`values` with the dotted overrides of `presets.NAME` applied, then for `NAME/RECIPE` the recipe.

    A preset that `extends` another one is applied on top of it; `A+B` applies A, then B.
    """
    name, _, more = name.partition("+")
    if more:
        return with_preset(with_preset(values, name), more)
    name, _, recipe = name.partition("/")
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    while name:
        if name in seen:
            raise ConfigError(
                f"preset {name} extends itself",
                rule="params.extends",
                fix=f"correct presets.{seen[-1]}.extends",
            )
        seen.append(name)
        preset = dict(lookup(values, f"presets.{name}") or {})
        name = str(preset.pop("extends", ""))
        chain.insert(0, preset)
    changed = json.loads(json.dumps(values))
    for preset in chain:
        changed = with_overrides(changed, preset)
    return with_recipe(changed, recipe) if recipe else dict(changed)


def with_recipe(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """`values` where only the objectives of `recipes.NAME` keep their weights; the others' become 0."""
    recipe = lookup(values, f"recipes.{name}")
    objectives = lookup(values, "pretrain.objectives")
    absent = sorted(set(recipe) - {key for key, block in objectives.items() if block.get("weight", 1.0) > 0})
    if absent:
        raise ConfigError(
            f"recipe {name} asks for {absent[0]}, which has no weight here",
            rule="params.recipe",
            fix=f"give pretrain.objectives.{absent[0]} its values in the preset",
        )
    kept = {key: block if key in recipe else {**block, "weight": 0.0} for key, block in objectives.items()}
    return with_overrides(values, {"pretrain.objectives": kept})


def fingerprint(value: Any) -> str:
    """16 hex digits of the SHA-256 of a value's canonical JSON (a config, a contract)."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def difference(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines `key: old -> new` for every leaf that differs between two nested mappings."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines: list[str] = []
        for key in sorted({*old, *new}, key=str):
            missing = "(absent)"
            lines += difference(old.get(key, missing), new.get(key, missing), f"{where}.{key}".lstrip("."))
        return lines
    return [] if old == new else [f"{where}: {old} -> {new}"]
