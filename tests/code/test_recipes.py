"""Every arm of the two methods is a value: a preset and a recipe that resolve and check."""

from __future__ import annotations

from typing import Any

import pytest

from components.base.config import parse, with_preset
from components.pretraining.settings import Params
from flows.ablation.plan import load_values, make_plan
from tests.conftest import ROOT

VELVET_ARMS = {
    "topitc",
    "topmiditc",
    "topbotitc",
    "allitc",
    "allitc_txtssl",
    "allitc_visssl",
    "allitc_visssl_txtssl",
    "topitc_mmssl",
    "allitc_mmssl",
    "topitc_mmssl_txtssl",
    "full",
}
COLIPRI_ARMS = {f"{arm}{osl}" for arm in ("c", "cr", "cm", "crm") for osl in ("", "_osl")}
VALUES = load_values(ROOT)


def test_the_arms_of_both_methods_are_there() -> None:
    assert set(VALUES["recipes"]) >= VELVET_ARMS | COLIPRI_ARMS


@pytest.mark.parametrize(
    ("preset", "recipe"),
    [
        *((preset, arm) for preset in ("velvet", "ablation") for arm in sorted(VELVET_ARMS)),
        *((preset, arm) for preset in ("colipri", "ablation_colipri") for arm in sorted(COLIPRI_ARMS)),
    ],
)
def test_an_arm_trains_what_its_recipe_names(preset: str, recipe: str) -> None:
    block: dict[str, Any] = with_preset(VALUES, f"{preset}/{recipe}")["pretrain"]
    params = parse(Params, block, "pretrain")
    active = {name for name, values in params.objectives.items() if values.get("weight", 1.0) > 0}
    assert active == set(VALUES["recipes"][recipe])


@pytest.mark.parametrize("name", sorted(VALUES["ablation"]))
def test_the_ablations_resolve_on_the_same_data(name: str) -> None:
    plan = make_plan(ROOT, VALUES, name)
    settings = plan.settings
    assert len(plan.cells) == len(settings.arms) * len(settings.seeds) * max(1, settings.folds)
    trained = {cell.values["pretrain"]["num_steps"] for cell in plan.cells} - {0}
    assert len(trained) == 1, "arms with unequal steps"
