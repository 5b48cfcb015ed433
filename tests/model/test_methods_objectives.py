"""The training that an implementation of VELVET-Med and of COLIPRI must contain, one test a requirement by its number.

The numbers are those of the description of both methods: 4.1 is VELVET-Med's list, 4.2 COLIPRI's. What a loss is worth
is tested with the objective; here it is whether each part is there, does its work and can be switched off.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from components.base.config import load_params, parse, with_preset
from components.objectives import OBJECTIVES
from components.objectives.image_text_matching import hard_negatives
from components.pretraining.module import PretrainModule, make_objectives
from components.pretraining.settings import Params
from flows.ablation.plan import load_values, make_plan
from tests.conftest import ROOT
from tests.model.test_objectives_encoders import parts
from tests.pretraining_support import PARAMS, context_at, write_cohort

VISION_SSL = ("vision_contrast", "rotation", "inpainting")
LEVELS = ("report_contrast", "sentence_region", "word_patch")
FUSED = ("image_text_matching", "multimodal_masked_language")
COLIPRI = ("report_contrast", "report_generation", "masked_autoencoder", "opposite_sentence")


def module_of(pair: str, names: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
    """Small real encoders with these objectives only, and a batch of all kinds of rows."""
    encoder, blocks, batch = parts(pair)
    chosen = {name: blocks[name] for name in names}
    return PretrainModule(encoder, make_objectives(chosen, encoder, 3), 3), batch


def gradient(part: torch.nn.Module) -> float:
    """The norm of the gradients of a part, 0 without any."""
    return math.sqrt(sum(float(p.grad.square().sum()) for p in part.parameters() if p.grad is not None))


@pytest.mark.parametrize("off", VISION_SSL)
def test_4_1_3_vision_ssl_has_all_three_and_each_can_be_switched_off(off: str) -> None:
    module, batch = module_of("velvet", VISION_SSL)
    losses = module.training_step(batch, 0)
    assert set(losses) == {*VISION_SSL, "total"}
    losses["total"].backward()
    assert gradient(module.encoder.vision) > 0
    assert gradient(module.encoder.text) == 0
    assert gradient(module.objectives["rotation"]) > 0
    without, batch = module_of("velvet", tuple(name for name in VISION_SSL if name != off))
    assert set(without.training_step(batch, 0)) == {*VISION_SSL, "total"} - {off}


def test_4_1_3_rotation_has_four_classes() -> None:
    module, _ = module_of("velvet", ("rotation",))
    heads = [layer for layer in module.objectives["rotation"].modules() if isinstance(layer, torch.nn.Linear)]
    assert heads[-1].out_features == 4


@pytest.mark.parametrize("off", LEVELS)
def test_4_1_5_three_levels_use_different_scales_and_each_can_be_switched_off(off: str) -> None:
    defaults = {name: OBJECTIVES.get(name).Params() for name in LEVELS}
    assert defaults["sentence_region"].scale != defaults["word_patch"].scale
    velvet = with_preset(load_params(ROOT / "params.yaml"), "velvet")["pretrain"]["objectives"]
    channels = (48, 96, 192, 384, 768)
    assert channels[velvet["sentence_region"]["scale"]] == 384
    assert channels[velvet["word_patch"]["scale"]] == 192
    module, batch = module_of("velvet", tuple(name for name in LEVELS if name != off))
    losses = module.training_step(batch, 0)
    assert set(losses) == {*LEVELS, "total"} - {off}
    losses["total"].backward()
    assert gradient(module.encoder.vision) > 0
    assert gradient(module.encoder.text) > 0


def test_4_1_6_multimodal_layers_learn_from_matching_and_masked_language() -> None:
    module, batch = module_of("velvet", FUSED)
    losses = module.training_step(batch, 0)
    assert set(losses) == {*FUSED, "total"}
    losses["total"].backward()
    assert gradient(module.encoder.text.multimodal_layers) > 0
    assert gradient(module.encoder.vision) > 0


def test_4_1_6_negatives_of_matching_are_hard_and_never_the_pair() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0], [1.0, 9.0, 0.0], [2.0, 0.0, 9.0]])
    allowed = ~torch.eye(3, dtype=torch.bool)
    streams = [torch.Generator().manual_seed(row) for row in range(3)]
    drawn = torch.stack([hard_negatives(logits, allowed, ["a", "b", "c"], streams) for _ in range(2000)])
    assert not (drawn == torch.arange(3)).any()
    hard = (drawn[:, 0] == 2).float().mean().item()
    assert hard == pytest.approx(math.exp(2) / (math.exp(2) + math.exp(1)), abs=0.04)


def test_4_1_7_the_loss_is_the_weighted_sum_and_every_part_is_logged(tmp_path: Path) -> None:
    from components.pretraining import pretrain

    write_cohort(tmp_path)
    weights = {"report_contrast": 1.0, "rotation": 0.5, "masked_language": 2.0}
    blocks = {name: {"weight": weight} for name, weight in weights.items()}
    values = {**PARAMS, "objectives": blocks, "num_steps": 4, "warmup_steps": 0, "validate_every_steps": 4}
    metrics = pretrain.run(parse(Params, values, "pretrain"), context_at(tmp_path))
    steps: dict[int, dict[str, float]] = {}
    with (tmp_path / "artifacts" / "pretrain" / "curves.csv").open() as file:
        for row in csv.DictReader(file):
            split, _, name = row["name"].partition(".")
            if split == "train":
                steps.setdefault(int(row["step"]), {})[name] = float(row["value"])
    assert len(steps) == 4
    for losses in steps.values():
        total = sum(weight * losses[name] for name, weight in weights.items())
        assert losses["total"] == pytest.approx(total, rel=1e-5)
    assert {f"train_{name}" for name in weights} <= metrics.keys()


def test_4_1_7_arms_optimiser_and_schedule_are_velvets() -> None:
    values = load_params(ROOT / "params.yaml")
    arms = {"topitc", "topmiditc", "topbotitc", "allitc", "allitc_txtssl", "allitc_visssl", "full"}
    arms |= {"allitc_visssl_txtssl", "topitc_mmssl", "allitc_mmssl", "topitc_mmssl_txtssl"}
    assert arms <= values["recipes"].keys()
    velvet = parse(Params, with_preset(values, "velvet")["pretrain"], "pretrain")
    assert (velvet.learning_rate, velvet.final_learning_rate) == (2e-5, 1e-8)
    assert (velvet.betas, velvet.weight_decay, velvet.warmup_steps) == ((0.9, 0.98), 0.02, 0)
    assert set(velvet.objectives) == set(values["recipes"]["full"])
    assert all(block["weight"] == 1.0 for block in velvet.objectives.values())


def test_4_1_10_the_baselines_for_honesty_are_arms_with_equal_data_and_steps() -> None:
    plan = make_plan(ROOT, load_values(ROOT), "phantom")
    blocks = {cell.arm: cell.values["pretrain"]["objectives"] for cell in plan.cells}
    trained = {arm: {name for name in block if block[name]["weight"]} for arm, block in blocks.items()}
    steps = {cell.arm: cell.values["pretrain"]["num_steps"] for cell in plan.cells}
    untrained = {"random", "intensity", "colipri_random"}
    assert {steps[arm] for arm in untrained} == {0}
    assert trained["report_level"] == {"report_contrast"}
    assert trained["vision_only"] == set(VISION_SSL)
    assert {steps[arm] for arm in trained.keys() - untrained} == {steps["velvet"]}
    assert {arm: len({c.seed for c in plan.cells if c.arm == arm}) for arm in trained} == dict.fromkeys(
        trained, 3
    )


@pytest.mark.parametrize("recipe", ["c", "cr", "cm", "crm", "c_osl", "cr_osl", "cm_osl", "crm_osl"])
def test_4_2_4_objectives_of_colipri_can_be_switched_separately(recipe: str) -> None:
    named = {"c": "report_contrast", "r": "report_generation", "m": "masked_autoencoder"}
    wanted = tuple(named[letter] for letter in recipe.partition("_")[0])
    wanted += ("opposite_sentence",) if recipe.endswith("_osl") else ()
    assert tuple(load_params(ROOT / "params.yaml")["recipes"][recipe]) == wanted
    module, batch = module_of("colipri", wanted)
    losses = module.training_step(batch, 0)
    assert set(losses) == {*wanted, "total"}
    losses["total"].backward()
    assert gradient(module.encoder.vision) > 0
    assert all(
        gradient(module.objectives[name]) > 0 for name in wanted if list(module.objectives[name].parameters())
    )


def test_4_2_4_paired_and_image_only_rows_train_in_one_step() -> None:
    """An image-only volume changes what is learnt from volumes and nothing that needs a report."""
    module, batch = module_of("colipri", COLIPRI)
    before = {name: float(loss.detach()) for name, loss in module(batch).items()}
    lonely = next(row for row in range(5) if row not in batch["paired"].tolist())
    other = {**batch, "volume": batch["volume"].clone()}
    other["volume"][lonely] = 1 - other["volume"][lonely]
    after = {name: float(loss.detach()) for name, loss in module(other).items()}
    assert after["masked_autoencoder"] != pytest.approx(before["masked_autoencoder"], rel=1e-4)
    for name in ("report_contrast", "report_generation", "opposite_sentence"):
        assert after[name] == pytest.approx(before[name], rel=1e-6), name
