"""An ablation: cells keyed by what they depend on, refused where data differ, paired estimates over seeds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.base.config import load_params
from components.base.errors import ConfigError, InputError
from components.base.files import read_table, write_json, write_table
from components.evaluation.statistics import Bootstrap, Estimate
from flows.ablation.page import curves_picture, drawn, markdown, picture, table_csv
from flows.ablation.plan import SHARED, make_plan
from flows.ablation.table import Row, aggregate
from tests.conftest import ROOT


@pytest.fixture
def values() -> dict[str, Any]:
    """The project's parameters with a small ablation."""
    found = load_params(ROOT / "params.yaml")
    found["recipes"] = {"one": ["report_contrast"]}
    found["ablation"] = {"small": settings()}
    return found


def settings() -> dict[str, Any]:
    """Two arms and two seeds."""
    return {
        "seeds": [1, 2],
        "folds": 0,
        "tasks": ["retrieval", "classification", "segmentation"],
        "protocols": ["retrieval", "linear_probe"],
        "baseline": "one",
        "jobs": 1,
        "threads": 1,
        "arms": {
            "one": {"preset": "tiny/one", "title": "report level only"},
            "all": {"preset": "tiny", "title": "all", "overrides": {"pretrain.num_steps": 100}},
        },
    }


def test_cells_are_arms_times_seeds_and_share_their_data(values: dict[str, Any]) -> None:
    plan = make_plan(ROOT, values, "small")
    assert [(cell.arm, cell.seed) for cell in plan.cells] == [("one", 1), ("all", 1), ("one", 2), ("all", 2)]
    assert len({cell.key for cell in plan.cells}) == 4
    weights = {
        name: block.get("weight", 1.0)
        for name, block in plan.cells[0].values["pretrain"]["objectives"].items()
    }
    assert weights.pop("report_contrast") > 0
    assert set(weights.values()) == {0.0}
    assert (
        plan.cells[3].values["pretrain"]["seed"]
        == plan.cells[3].values["finetune"]["segmentation"]["seed"]
        == 2
    )
    assert all(cell.values[stage] == plan.shared[stage] for cell in plan.cells for stage in SHARED)
    assert list(plan.cells[0].values["evaluate"]) == ["retrieval", "linear_probe"]
    assert make_plan(ROOT, values, "small", ["all"]).cells[0].key == plan.cells[1].key
    second = [cell for cell in plan.cells if cell.seed == plan.settings.seeds[1]]
    asked = make_plan(ROOT, values, "small", seeds=[plan.settings.seeds[1]])
    assert [cell.key for cell in asked.cells] == [cell.key for cell in second]


def test_a_changed_parameter_changes_only_the_cells_it_concerns(values: dict[str, Any]) -> None:
    before = {(cell.arm, cell.seed): cell.key for cell in make_plan(ROOT, values, "small").cells}
    changed = copy.deepcopy(values)
    changed["ablation"]["small"]["arms"]["all"]["overrides"]["pretrain.num_steps"] = 101
    after = {(cell.arm, cell.seed): cell.key for cell in make_plan(ROOT, changed, "small").cells}
    assert {cell for cell in before if before[cell] != after[cell]} == {("all", 1), ("all", 2)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"overrides": {"split.seed": 8}}, "arm all has other data than arm one: split.seed: 7 -> 8"),
        ({"preset": "tiny/two"}, "recipes.two"),
        ({"overrides": {"pretrain.num_stepz": 8}}, "num_steps"),
        ({"tittle": "x"}, "title"),
    ],
)
def test_mistakes_name_the_arm_or_key(values: dict[str, Any], change: dict[str, Any], expected: str) -> None:
    values["ablation"]["small"]["arms"]["all"] |= change
    with pytest.raises(ConfigError) as caught:
        make_plan(ROOT, values, "small")
    assert expected in caught.value.render()
    assert len(caught.value.render().splitlines()) < 5


def test_folds_multiply_the_cells_and_divide_the_patients(values: dict[str, Any]) -> None:
    values["ablation"]["small"] |= {"folds": 3, "seeds": [1]}
    cells = make_plan(ROOT, values, "small").cells
    assert [(cell.arm, cell.fold) for cell in cells] == [
        (arm, at) for arm in ("one", "all") for at in range(3)
    ]
    assert cells[4].values["split"]["fold"] == {"index": 1, "count": 3}
    assert len({cell.key for cell in cells}) == 6


def write_cell(folder: Path, seed: int, shift: float, patients: int = 40) -> Path:
    """A cell's predictions: one label whose scores are `shift` apart, and ranks in a pool of 80."""
    rng = np.random.default_rng(seed)
    studies = [(f"study{at:03d}", f"patient{at // 2:02d}") for at in range(2 * patients)]
    target = np.random.default_rng(0).integers(0, 2, len(studies))
    rows = [
        {"study_key": key, "patient_key": who, "label": "x", "target": int(t), "score": float(s)}
        for (key, who), t, s in zip(studies, target, rng.normal(target * shift, 1), strict=True)
    ]
    probe = folder / "artifacts" / "evaluate" / "linear_probe"
    probe.mkdir(parents=True)
    write_table(probe / "predictions.parquet", pa.Table.from_pylist(rows))
    ranks = [
        {"study_key": key, "patient_key": who, "direction": direction, "rank": float(rng.integers(1, 81))}
        for key, who in studies
        for direction in ("report_to_volume", "volume_to_report")
    ]
    retrieval = folder / "artifacts" / "evaluate" / "retrieval"
    retrieval.mkdir(parents=True)
    write_table(retrieval / "predictions.parquet", pa.Table.from_pylist(ranks))
    recall = {f"recall_at_{k}": {"chance": k / 80} for k in (1, 5, 10)}
    write_json(retrieval / "metrics.json", {"report_to_volume": recall, "volume_to_report": recall})
    return folder


def cells_of(tmp_path: Path, arms: dict[str, float], seeds: int = 3) -> list[tuple[dict[str, Any], Path]]:
    """Cells of arms whose scores are so far apart."""
    return [
        (
            {"arm": arm, "seed": seed, "step_s": 0.5},
            write_cell(tmp_path / f"{arm}-{seed}", 10 * at + seed, shift),
        )
        for at, (arm, shift) in enumerate(arms.items())
        for seed in range(seeds)
    ]


def test_a_real_difference_is_found_and_no_difference_is_not(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, {"base": 0.8, "same": 0.8, "better": 2.5})
    rows = {row.arm: row for row in aggregate(cells, "base", Bootstrap(500, seed=1))}
    measure = "linear_probe.auroc"
    assert rows["base"].differences == {}
    assert rows["base"].estimates[measure].value == pytest.approx(0.71, abs=0.06)
    assert rows["better"].differences[measure].low > 0.05
    same = rows["same"].differences[measure]
    assert same.low < 0 < same.high
    assert rows["base"].estimates[measure].n_patients == 40
    chance = rows["base"].estimates["retrieval.r2v.r5"]
    assert chance.low < chance.chance < chance.high  # type: ignore[operator]
    assert rows["base"].seeds == (0, 1, 2)
    assert rows["base"].spread[measure] > 0


def test_arms_that_differ_by_the_luck_of_their_runs_do_not_differ(tmp_path: Path) -> None:
    shifts = {"base": (0.4, 0.8, 1.2), "other": (0.7, 1.1, 1.5), "steady": (1.5, 1.5, 1.5)}
    cells = [
        ({"arm": arm, "seed": seed, "step_s": None}, write_cell(tmp_path / f"{arm}-{seed}", 7, shift))
        for arm, each in shifts.items()
        for seed, shift in enumerate(each)
    ]
    rows = {row.arm: row for row in aggregate(cells, "base", Bootstrap(1000, seed=1))}
    measure = "linear_probe.auroc"
    lucky, steady = rows["other"].differences[measure], rows["steady"].differences[measure]
    assert lucky.value > 0.03
    assert lucky.low < 0 < lucky.high, "every seed is better by the same shift, and seeds differ by more"
    assert steady.low > 0
    again = aggregate(cells, "base", Bootstrap(1000, seed=1))
    assert again[1].differences == rows["other"].differences


def test_the_folds_of_a_seed_are_pooled(tmp_path: Path) -> None:
    whole = write_cell(tmp_path / "whole", 5, 1.5)
    cells: list[tuple[dict[str, Any], Path]] = []
    for fold in range(2):
        folder = tmp_path / f"fold-{fold}"
        for protocol in ("linear_probe", "retrieval"):
            table = read_table(whole / "artifacts" / "evaluate" / protocol / "predictions.parquet")
            rows = [row for row in table.to_pylist() if int(row["patient_key"][-2:]) % 2 == fold]
            (folder / "artifacts" / "evaluate" / protocol).mkdir(parents=True)
            target = folder / "artifacts" / "evaluate" / protocol
            write_table(target / "predictions.parquet", pa.Table.from_pylist(rows))
        recall = {f"recall_at_{k}": {"chance": k / 40} for k in (1, 5, 10)}
        write_json(target / "metrics.json", {"report_to_volume": recall, "volume_to_report": recall})
        cells.append(({"arm": "base", "seed": 0, "fold": fold, "step_s": None}, folder))
    (pooled,) = aggregate(cells, "base", Bootstrap(100, seed=1))
    (one,) = aggregate([({"arm": "base", "seed": 0, "step_s": None}, whole)], "base", Bootstrap(100, seed=1))
    measure = "linear_probe.auroc"
    assert pooled.estimates[measure] == one.estimates[measure]
    assert pooled.estimates["retrieval.r2v.r1"].chance == pytest.approx(1 / 40)
    assert pooled.seeds == (0,)


def test_arms_measured_on_other_studies_are_refused(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, {"base": 1.0}, seeds=1)
    other = write_cell(tmp_path / "other", 1, 1.0, patients=39)
    with pytest.raises(InputError, match="other studies"):
        aggregate([*cells, ({"arm": "other", "seed": 0, "step_s": 1.0}, other)], "base", Bootstrap(50))


def test_the_page_shows_every_arm_with_chance_and_sizes(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, {"base": 0.8, "better": 2.5}, seeds=2)
    rows = aggregate(cells, "base", Bootstrap(200, seed=1))
    titles = {"base": "report level only", "better": "all objectives"}
    text = markdown(rows, titles, "base")
    assert text.count("| all objectives |") == 2
    assert "| *chance* |" in text
    assert "80 (40)" in text
    assert "0.50" in text
    lines = table_csv(rows).splitlines()
    assert len(lines) == 1 + 7 * 3
    assert picture(rows, titles).startswith(b"\x89PNG")
    curve = tmp_path / "curves.csv"
    curve.write_text("step,name,value\n0,validation.total,2.0\n10,validation.total,1.0\n")
    curves = curves_picture({"base": [curve], "better": [curve]}, titles, "validation.total")
    assert curves.startswith(b"\x89PNG")


@pytest.mark.parametrize(("pool", "k"), [(587, 10), (15, 5), (6, 1)])
def test_a_picture_shows_the_largest_k_that_chance_does_not_fill(pool: int, k: int) -> None:
    found = {
        f"retrieval.{way}.r{size}": Estimate(0.9, 0.8, 1.0, min(1.0, size / pool), pool, pool, "patient")
        for way in ("r2v", "v2r")
        for size in (1, 5, 10)
    }
    found["zero_shot.auroc"] = Estimate(0.7, 0.6, 0.8, 0.5, pool, pool, "patient")
    row = Row("base", (1,), found, dict.fromkeys(found, 0.0), {}, None)
    assert drawn([row]) == [f"retrieval.r2v.r{k}", f"retrieval.v2r.r{k}", "zero_shot.auroc"]
