"""What an ablation is made of: arms from ablations.yaml; a cell an arm, seed and fold, keyed by what it depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from components.base.config import (
    PARAMS_FILE,
    Config,
    difference,
    fingerprint,
    load_params,
    lookup,
    parse,
    with_overrides,
    with_preset,
)
from components.base.errors import ConfigError
from components.base.stages import STAGES
from components.base.validate import check_blocks

SHARED = tuple(stage.name for stage in STAGES[: [stage.name for stage in STAGES].index("split")])
"""The stages before the split: run once, the same for every arm."""
OWN = ("split", "pretrain", "finetune", "evaluate")
"""The stages of a cell."""
ROOMS = ("base", "cohort", "reports", "volumes")
"""The rooms whose code the shared stages depend on; a cell depends on the ones after them too."""
CELL_ROOMS = ("encoders", "objectives", "pretraining", "downstream", "evaluation")


def load_values(root: Path) -> dict[str, Any]:
    """params.yaml with the presets of ablations.yaml beside its own, and the ablations as the block `ablation`."""
    values = load_params(root / PARAMS_FILE)
    more = load_params(Path(__file__).with_name("ablations.yaml"))
    doubled = sorted(set(values["presets"]) & set(more["presets"]))
    if doubled:
        raise ConfigError(
            f"the preset {doubled[0]} is in params.yaml and in ablations.yaml",
            rule="ablation.preset",
            fix="give one of them another name",
        )
    return {**values, "presets": {**values["presets"], **more["presets"]}, "ablation": more["ablations"]}


class Arm(Config):
    """One arm: a preset (with or without `/recipe`), overrides on top, and what a reader should call it."""

    preset: str
    title: str
    overrides: dict[str, Any] = Field(default_factory=dict)


class Ablation(Config):
    """An entry of `ablations`: arms by name, the arm that differences are taken to, seeds and folds.

    `folds` 0 keeps the split of the preset; 3 or more is a cross-validation by patient, every arm on every fold.
    `tasks` and `protocols` are the entries of `finetune` and `evaluate` that every cell runs. `jobs` cells run at
    once, each with `threads` threads.
    """

    seeds: list[int] = Field(min_length=1)
    folds: int = Field(ge=0)
    baseline: str
    tasks: list[str] = Field(min_length=1)
    protocols: list[str] = Field(min_length=1)
    jobs: int = Field(ge=1)
    threads: int = Field(ge=1)
    arms: dict[str, Arm] = Field(min_length=1)


@dataclass(frozen=True)
class Cell:
    """One training run with its evaluation."""

    arm: str
    seed: int
    fold: int
    values: Mapping[str, Any]
    key: str


@dataclass(frozen=True)
class Plan:
    """All cells, the parameters of the shared stages, and the key of the data."""

    settings: Ablation
    shared: Mapping[str, Any]
    data_key: str
    cells: Sequence[Cell]


def code_hash(root: Path, rooms: Sequence[str]) -> str:
    """16 hex digits of the source files of these rooms of components/."""
    digest = hashlib.sha256()
    for room in rooms:
        for path in sorted((root / "components" / room).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def make_plan(
    root: Path,
    values: Mapping[str, Any],
    name: str,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """Resolve every arm, seed and fold, or those asked for; arms whose shared stages differ are refused."""
    chosen_seeds = {"seeds": list(seeds)} if seeds else {}
    settings = parse(Ablation, {**lookup(values, f"ablation.{name}"), **chosen_seeds}, f"ablation.{name}")
    for arm in [settings.baseline, *(arms or ())]:
        lookup(settings.arms, arm)
    chosen = [arm for arm in settings.arms if arms is None or arm in arms]
    resolved = {arm: _chosen_parts(resolve_arm(values, settings.arms[arm]), settings) for arm in chosen}
    shared = {stage: resolved[chosen[0]][stage] for stage in SHARED}
    _require_same_data(resolved)
    data_key = fingerprint({"params": shared, "code": code_hash(root, ROOMS)})
    code = code_hash(root, CELL_ROOMS)
    cells = []
    for seed in settings.seeds:
        for arm in chosen:
            for fold in range(max(1, settings.folds)):
                seeded = with_overrides(resolved[arm], _own_values(resolved[arm], seed, fold, settings.folds))
                own = {stage: seeded[stage] for stage in OWN}
                key = fingerprint({"data": data_key, "code": code, "params": own})
                cells.append(Cell(arm, seed, fold, seeded, key))
    return Plan(settings, shared, data_key, cells)


def _chosen_parts(values: dict[str, Any], settings: Ablation) -> dict[str, Any]:
    """An arm's values with the wanted tasks and protocols only."""
    for block, names in (("finetune", settings.tasks), ("evaluate", settings.protocols)):
        values[block] = {name: lookup(values, f"{block}.{name}") for name in names}
    return values


def _require_same_data(resolved: Mapping[str, Mapping[str, Any]]) -> None:
    stages = [*SHARED, "split"]
    first, *others = resolved
    for arm in others:
        lines = difference(
            {stage: resolved[first][stage] for stage in stages},
            {stage: resolved[arm][stage] for stage in stages},
        )
        if lines:
            raise ConfigError(
                f"arm {arm} has other data than arm {first}: {lines[0]}",
                rule="ablation.data",
                fix="give every arm the same values of the stages before pretrain",
            )


def resolve_arm(values: Mapping[str, Any], arm: Arm) -> dict[str, Any]:
    """The blocks of an arm, checked; `presets`, `recipes` and `ablation` are left out."""
    resolved = with_overrides(with_preset(values, arm.preset), arm.overrides)
    check_blocks(resolved)
    names = {stage.name for stage in STAGES}
    return {name: block for name, block in resolved.items() if name in names}


def _own_values(values: Mapping[str, Any], seed: int, fold: int, folds: int) -> dict[str, Any]:
    """A seed of training (weights, order, augmentation) and of the segmentation tuned from it, and the fold."""
    chosen: dict[str, Any] = {"pretrain.seed": seed}
    if "segmentation" in values["finetune"]:
        chosen["finetune.segmentation.seed"] = seed
    if folds:
        chosen["split.fold"] = {"index": fold, "count": folds}
    return chosen
