"""The gate refuses whatever it cannot be sure of, each with its own reason (R21)."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from components.base.config import parse
from components.base.errors import ConfigError, GateError, InputError
from components.base.files import read_json, sha256_file, write_bytes, write_json
from components.evaluation.gate import Params, judge, read_checks, read_metrics, require, require_model
from components.release.champion import Champion, champion_file, promote, read_champion

MODEL, OTHER = "a" * 64, "b" * 64
CHECKS: dict[str, Any] = {
    name: {"success": True} for name in ("check_cohort", "check_reports", "check_volumes")
}


def estimate(value: Any, low: Any, high: Any, chance: Any = 0.5) -> dict[str, Any]:
    return {
        "value": value,
        "low": low,
        "high": high,
        "chance": chance,
        "n": 50,
        "n_patients": 30,
        "unit": "auroc",
    }


def metrics(found: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    about = {"model_sha256": MODEL, "test_data_hash": "t" * 16, "provenance": {"synthetic": True}}
    return {"zero_shot": {**about, "macro_auroc": found or estimate(0.8, 0.7, 0.9), **more}}


def params(**rule: Any) -> Params:
    values = {"min": 0.55, "above_chance": True, "max_drop": 0.02, **rule}
    return parse(
        Params,
        {
            "rules": {"zero_shot.macro_auroc": values},
            "checks": list(CHECKS),
            "other_test_data": "note",
            "report_examples": 0,
        },
        "gate",
    )


def champion(value: Any = 0.8, low: Any = 0.7, high: Any = 0.9, data: str = "t" * 16) -> Champion:
    kept = {"value": value, "low": low, "high": high, "chance": 0.5, "n": 50}
    return Champion(model_sha256=OTHER, test_data_hash=data, metrics={"zero_shot.macro_auroc": kept})


def test_a_good_model_passes_with_its_evidence():
    verdict = judge(params(), metrics(), CHECKS, MODEL, None)
    assert verdict["passed"] is True
    assert verdict["reasons"] == []
    assert verdict["candidate"] == MODEL
    assert verdict["champion"] is None
    rule = verdict["rules"][0]
    assert (rule["value"], rule["low"], rule["high"], rule["min"], rule["n"]) == (0.8, 0.7, 0.9, 0.55, 50)
    require(verdict)


REFUSED = {
    "missing metric": ({"zero_shot": {"model_sha256": MODEL}}, {}, "the metric is missing"),
    "missing protocol": ({}, {}, "the metric is missing"),
    "not an estimate": (
        {"zero_shot": {"model_sha256": MODEL, "macro_auroc": 0.9}},
        {},
        "the metric is missing",
    ),
    "null value": (metrics(estimate(None, 0.7, 0.9)), {}, "not a finite number"),
    "NaN value": (metrics(estimate(float("nan"), 0.7, 0.9)), {}, "not a finite number"),
    "infinite value": (metrics(estimate(float("inf"), 0.7, 0.9)), {}, "not a finite number"),
    "text value": (metrics(estimate("0.9", 0.7, 0.9)), {}, "not a finite number"),
    "true is no number": (metrics(estimate(True, 0.7, 0.9)), {}, "not a finite number"),
    "no interval": (metrics(estimate(0.8, None, 0.9)), {}, "interval is not finite"),
    "below the minimum": (metrics(estimate(0.54, 0.51, 0.6)), {}, "below the minimum"),
    "overlaps chance": (metrics(estimate(0.8, 0.5, 0.95)), {}, "not better than chance"),
    "no chance level": (metrics(estimate(0.8, 0.7, 0.9, None)), {}, "no chance level"),
    "above the maximum": (metrics(), {"max": 0.75}, "above the maximum"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_each_fault_is_refused_with_its_reason(case):
    found, rule, reason = REFUSED[case]
    verdict = judge(params(**rule), found, CHECKS, MODEL, None)
    assert verdict["passed"] is False
    assert any(reason in text for text in verdict["reasons"]), verdict["reasons"]
    with pytest.raises(GateError) as caught:
        require(verdict)
    assert reason in str(caught.value) or len(verdict["reasons"]) > 2
    assert len(str(caught.value).splitlines()) < 5


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "missing"),
        ({"success": False}, "did not succeed"),
        ({}, "did not succeed"),
        ({"success": "yes"}, "did not"),
    ],
)
def test_a_check_that_is_missing_or_failed_refuses(result, reason):
    verdict = judge(params(), metrics(), {**CHECKS, "check_reports": result}, MODEL, None)
    assert verdict["passed"] is False
    assert any("check_reports" in text and reason in text for text in verdict["reasons"])


def test_metrics_of_another_model_are_refused():
    verdict = judge(params(), metrics(), CHECKS, OTHER, None)
    assert any("another model" in text for text in verdict["reasons"])


@pytest.mark.parametrize(
    ("value", "rule", "reason"),
    [
        (0.75, {}, "worse than the champion"),
        (0.79, {}, None),
        (0.81, {"must_improve": True}, "not shown to be better"),
        (0.81, {}, None),
    ],
)
def test_the_champion_is_not_replaced_by_a_worse_model(value, rule, reason):
    verdict = judge(
        params(**rule), metrics(estimate(value, value - 0.1, value + 0.1)), CHECKS, MODEL, champion()
    )
    assert verdict["passed"] is (reason is None)
    assert verdict["rules"][0]["champion_value"] == 0.8
    assert reason is None or any(reason in text for text in verdict["reasons"])


def test_an_improvement_beyond_the_champions_interval_passes_must_improve():
    found = metrics(estimate(0.96, 0.93, 0.99))
    assert judge(params(must_improve=True), found, CHECKS, MODEL, champion())["passed"] is True


def test_where_lower_is_better_the_signs_turn():
    rule = {"min": None, "max": 9.0, "above_chance": True, "higher_is_better": False, "max_drop": 1.0}
    good, bad = estimate(4.0, 3.0, 5.0, 6.0), estimate(4.0, 3.0, 6.5, 6.0)
    assert judge(params(**rule), metrics(good), CHECKS, MODEL, champion(3.5, 3, 4))["passed"] is True
    assert judge(params(**rule), metrics(bad), CHECKS, MODEL, None)["passed"] is False
    worse = judge(params(**rule), metrics(good), CHECKS, MODEL, champion(2.5, 2, 3))
    assert any("worse than the champion" in text for text in worse["reasons"])


def test_the_champion_itself_passes_and_is_named():
    same = champion(0.99).model_copy(update={"model_sha256": MODEL})
    verdict = judge(params(), metrics(), CHECKS, MODEL, same)
    assert verdict["passed"] is True
    assert verdict["candidate_is_champion"] is True
    assert any("is the champion" in note for note in verdict["notes"])


@pytest.mark.parametrize(("policy", "passed"), [("note", True), ("fail", False)])
def test_a_champion_of_other_test_data_is_told(policy, passed):
    chosen = params().model_copy(update={"other_test_data": policy})
    verdict = judge(chosen, metrics(), CHECKS, MODEL, champion(data="u" * 16))
    assert verdict["passed"] is passed
    assert any("other test data" in text for text in [*verdict["notes"], *verdict["reasons"]])


@pytest.mark.parametrize(
    "verdict", [{}, {"passed": "true"}, {"passed": 1}, {"passed": True, "reasons": ["x"]}, {"passed": False}]
)
def test_a_malformed_verdict_is_negative(verdict):
    with pytest.raises(GateError):
        require(verdict)


@pytest.mark.parametrize("rules", [{}, {"macro_auroc": {"min": 0.5}}, {"a.b": {"minimum": 0.5}}])
def test_bad_rules_are_refused_before_anything_runs(rules):
    values = {"rules": rules, "checks": [], "other_test_data": "note", "report_examples": 0}
    with pytest.raises(ConfigError):
        parse(Params, values, "gate")


def test_unreadable_files_count_as_missing(tmp_path: Path):
    write_bytes(tmp_path / "artifacts" / "evaluate" / "zero_shot" / "metrics.json", b"{ half")
    write_json(tmp_path / "artifacts" / "evaluate" / "retrieval" / "metrics.json", ["not", "an", "object"])
    write_bytes(tmp_path / "artifacts" / "check_cohort" / "result.json", b"\xff\xfe")
    assert read_metrics(tmp_path) == {}
    assert read_checks(tmp_path) == {"check_cohort": None, "check_reports": None, "check_volumes": None}


def test_promotion_is_only_for_a_model_that_passed(tmp_path: Path):
    write_json(champion_file(tmp_path), {"champion": None})
    assert read_champion(tmp_path) is None
    refused = judge(params(), {}, CHECKS, MODEL, None)
    with pytest.raises(GateError):
        promote(tmp_path, refused)
    assert read_champion(tmp_path) is None
    made = promote(tmp_path, judge(params(), metrics(), CHECKS, MODEL, None))
    assert read_champion(tmp_path) == made
    assert made.model_sha256 == MODEL
    assert made.metrics["zero_shot.macro_auroc"]["value"] == 0.8
    bytes_before = champion_file(tmp_path).read_bytes()
    promote(tmp_path, judge(params(), metrics(), CHECKS, MODEL, made))
    assert champion_file(tmp_path).read_bytes() == bytes_before


@pytest.mark.parametrize(
    "record",
    [
        [],
        {},
        {"champion": "x"},
        {"champion": {}},
        {"champion": {"model_sha256": "short", "test_data_hash": None, "metrics": {}}},
    ],
)
def test_a_malformed_champion_is_an_error_not_a_free_pass(tmp_path: Path, record):
    write_json(champion_file(tmp_path), record)
    with pytest.raises(InputError, match=r"champion\.format"):
        read_champion(tmp_path)


def test_a_missing_champion_record_is_an_error(tmp_path: Path):
    with pytest.raises(InputError):
        read_champion(tmp_path)


def test_a_verdict_is_of_the_weights_that_lie_there(tmp_path: Path):
    weights = tmp_path / "artifacts" / "pretrain" / "encoder" / "model.safetensors"
    write_bytes(weights, b"weights")
    found = copy.deepcopy(metrics())
    found["zero_shot"]["model_sha256"] = sha256_file(weights)
    verdict = judge(params(), found, CHECKS, sha256_file(weights), None)
    write_json(tmp_path / "artifacts" / "gate" / "verdict.json", verdict)
    assert require_model(tmp_path) == read_json(tmp_path / "artifacts" / "gate" / "verdict.json")
    write_bytes(weights, b"other weights")
    with pytest.raises(GateError, match=r"another model"):
        require_model(tmp_path)
