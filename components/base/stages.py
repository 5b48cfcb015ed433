"""The stages in the order in which data passes through them: one word, four places.

The same word names the DVC stage, the Prefect task, the block in params.yaml and the module. A stage with
an `item` runs once for every entry of its block (a task of `finetune`, a protocol of `evaluate`).
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from components.base.errors import ConfigError


@dataclass(frozen=True)
class Stage:
    """A stage's name, the module that runs it and the word for its items, if it has any."""

    name: str
    module: str
    item: str | None = None


STAGES: tuple[Stage, ...] = (
    Stage("ingest", "components.cohort.ingest"),
    Stage("check_cohort", "data_checks.check_cohort"),
    Stage("deidentify", "components.reports.deidentify"),
    Stage("section", "components.reports.section"),
    Stage("check_reports", "data_checks.check_reports"),
    Stage("preprocess", "components.volumes.preprocess"),
    Stage("check_volumes", "data_checks.check_volumes"),
    Stage("split", "components.cohort.split"),
    Stage("pretrain", "components.pretraining.pretrain"),
    Stage("finetune", "components.downstream.finetune", item="task"),
    Stage("evaluate", "components.evaluation.evaluate", item="protocol"),
    Stage("gate", "components.evaluation.gate"),
    Stage("package", "serving.package"),
)

NO_STAGES = frozenset({"presets", "recipes", "ablation"})
"""The blocks of params.yaml that belong to no stage."""


def find(name: str) -> Stage:
    """The stage called `name`; an unknown name is a `ConfigError` that shows the nearest."""
    for stage in STAGES:
        if stage.name == name:
            return stage
    names = [stage.name for stage in STAGES]
    near = difflib.get_close_matches(name, names, 1)
    raise ConfigError(
        f"there is no stage called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
        rule="stages.unknown",
        fix=f"use one of: {', '.join(names)}",
    )
