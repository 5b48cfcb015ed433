"""The release gate: may this model take the champion's place? Fails closed, with a reason for each rule.

The stage always writes `verdict.json` and `report.html` and succeeds, so that a refused model can be looked at;
`require` turns a negative verdict into a `GateError`, which packaging and the flow call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from components.base.config import Config
from components.base.errors import GateError, InputError
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    from components.release.champion import Champion

CHECKS = ("check_cohort", "check_reports", "check_volumes")
MODEL_PARTS = ("pretrain", "encoder", "model.safetensors")


class Rule(Config):
    """What one metric must reach; null switches a bound off, never the metric's presence."""

    min: float | None = None
    max: float | None = None
    above_chance: bool = False
    higher_is_better: bool = True
    max_drop: float | None = Field(None, ge=0)
    must_improve: bool = False


class Params(Config):
    """Rules by `protocol.metric`, the checks that must have passed, and what to do about other test data."""

    rules: dict[str, Rule] = Field(min_length=1)
    checks: tuple[Literal["check_cohort", "check_reports", "check_volumes"], ...]
    other_test_data: Literal["note", "fail"]
    report_examples: int = Field(ge=0, le=20)

    @field_validator("rules")
    @classmethod
    def _dotted(cls, rules: dict[str, Rule]) -> dict[str, Rule]:
        for name in rules:
            if "." not in name:
                raise ValueError(f"the rule {name!r} is not protocol.metric")
        return rules


def judge(
    params: Params,
    metrics: Mapping[str, Mapping[str, Any]],
    checks: Mapping[str, Mapping[str, Any] | None],
    candidate: str,
    champion: Champion | None,
) -> dict[str, Any]:
    """The verdict: `passed`, `reasons`, `notes`, `rules`, `checks`, `candidate`, `champion`.

    `metrics` are the protocols' metrics.json by protocol, `checks` the checks' result.json (None = missing);
    `candidate` is the model's SHA-256.
    """
    reasons: list[str] = []
    notes: list[str] = []
    same = champion is not None and champion.model_sha256 == candidate
    if same:
        notes.append("the candidate is the champion: there is nothing to compare it with")
    compared = None if same else champion
    found_checks = {name: _check(name, checks.get(name), reasons) for name in params.checks}
    for protocol in sorted({name.partition(".")[0] for name in params.rules}):
        _same_model(protocol, metrics.get(protocol), candidate, reasons)
    if compared is not None:
        _same_data(params, metrics, compared, reasons, notes)
    rules = [judge_rule(name, rule, metrics, compared, notes) for name, rule in sorted(params.rules.items())]
    reasons += [f"{rule['metric']}: {reason}" for rule in rules for reason in rule["reasons"]]
    return {
        "passed": not reasons,
        "reasons": reasons,
        "notes": notes,
        "rules": rules,
        "checks": found_checks,
        "candidate": candidate,
        "champion": None if champion is None else champion.model_sha256,
        "candidate_is_champion": same,
        "provenance": {
            protocol: found.get("provenance") for protocol, found in sorted(metrics.items()) if found
        },
        "test_data_hash": next(
            (found["test_data_hash"] for _, found in sorted(metrics.items()) if "test_data_hash" in found),
            None,
        ),
    }


def _check(name: str, result: Mapping[str, Any] | None, reasons: list[str]) -> str:
    if result is None:
        reasons.append(f"{name}: its result is missing")
        return "missing"
    if result.get("success") is not True:
        reasons.append(f"{name}: the data check did not succeed")
        return "failed"
    return "passed"


def _same_model(protocol: str, found: Mapping[str, Any] | None, candidate: str, reasons: list[str]) -> None:
    if found is not None and found.get("model_sha256") != candidate:
        reasons.append(f"{protocol}: its metrics are of another model")


def _same_data(
    params: Params,
    metrics: Mapping[str, Mapping[str, Any]],
    champion: Champion,
    reasons: list[str],
    notes: list[str],
) -> None:
    hashes = {found.get("test_data_hash") for found in metrics.values()}
    if hashes != {champion.test_data_hash}:
        text = "the champion was measured on other test data"
        (reasons if params.other_test_data == "fail" else notes).append(text)


def judge_rule(
    name: str,
    rule: Rule,
    metrics: Mapping[str, Mapping[str, Any]],
    champion: Champion | None,
    notes: list[str],
) -> dict[str, Any]:
    """One rule's row of the verdict; `reasons` is empty where it holds."""
    found = lookup(metrics, name)
    row: dict[str, Any] = {"metric": name, **rule.model_dump(), "value": None, "low": None, "high": None}
    row |= {"chance": None, "n": None, "champion_value": None}
    if found is None:
        return {**row, "reasons": ["the metric is missing"]}
    row |= {key: found.get(key) for key in ("value", "low", "high", "chance", "n")}
    value, low, high = (_number(found.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return {**row, "reasons": ["the value is not a finite number"]}
    if low is None or high is None:
        return {**row, "reasons": ["the interval is not finite: too few patients to judge"]}
    reasons = _bounds(rule, value, low, high, _number(found.get("chance")))
    if champion is not None:
        other = champion.metrics.get(name)
        if other is None or _number(other.get("value")) is None:
            notes.append(f"{name}: the champion has no such metric, only the rule's own bounds hold")
        else:
            row["champion_value"] = other["value"]
            reasons += _against(rule, value, low, high, other)
    return {**row, "reasons": reasons}


def _bounds(rule: Rule, value: float, low: float, high: float, chance: float | None) -> list[str]:
    reasons = []
    if rule.min is not None and value < rule.min:
        reasons.append(f"{value:.3f} is below the minimum {rule.min:g}")
    if rule.max is not None and value > rule.max:
        reasons.append(f"{value:.3f} is above the maximum {rule.max:g}")
    if rule.above_chance:
        if chance is None:
            reasons.append("it has no chance level to compare with")
        elif (low <= chance) if rule.higher_is_better else (high >= chance):
            reasons.append(
                f"not better than chance: the interval [{low:.3f}, {high:.3f}] does not clear {chance:.3f}"
            )
    return reasons


def _against(rule: Rule, value: float, low: float, high: float, other: Mapping[str, Any]) -> list[str]:
    """Worse than the champion by more than `max_drop`, or not shown to be better where it must be."""
    before = float(other["value"])
    sign = 1.0 if rule.higher_is_better else -1.0
    reasons = []
    drop = sign * (before - value)
    if rule.max_drop is not None and drop > rule.max_drop:
        reasons.append(
            f"worse than the champion: {value:.3f} against {before:.3f}, a drop of at most {rule.max_drop:g} is allowed"
        )
    if rule.must_improve:
        edge = _number(other.get("high" if rule.higher_is_better else "low"))
        own = low if rule.higher_is_better else high
        if edge is None or sign * (own - edge) <= 0:
            reasons.append(
                f"not shown to be better than the champion: [{low:.3f}, {high:.3f}] overlaps its interval"
            )
    return reasons


def lookup(metrics: Mapping[str, Any], dotted: str) -> Mapping[str, Any] | None:
    """The estimate at `protocol.metric[.metric...]`, or None if there is none."""
    current: Any = metrics
    for part in dotted.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return None
        current = current[part]
    return current if isinstance(current, Mapping) and "value" in current else None


def _number(value: Any) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fine else None


def require(verdict: Mapping[str, Any]) -> None:
    """Raise `GateError` with the first reasons unless the verdict is positive; a malformed one is negative."""
    if verdict.get("passed") is True and not verdict.get("reasons"):
        return
    reasons = [str(reason) for reason in verdict.get("reasons") or ["the verdict is malformed"]]
    more = f" (and {len(reasons) - 2} more)" if len(reasons) > 2 else ""
    raise GateError(
        f"the gate refused the model: {'; '.join(reasons[:2])}{more}",
        rule="gate.refused",
        fix="open artifacts/gate/report.html; train longer or mend the data, or change the rule in params.yaml",
    )


def require_model(root: Path) -> dict[str, Any]:
    """The verdict below `root`, checked: it is positive, and it is of the weights that lie there now."""
    from components.base.files import read_json, sha256_file

    verdict: dict[str, Any] = read_json(root / "artifacts" / "gate" / "verdict.json")
    require(verdict)
    if sha256_file(root.joinpath("artifacts", *MODEL_PARTS)) != verdict.get("candidate"):
        raise GateError(
            "the gate's verdict is of another model", rule="gate.model", fix="run the gate stage again"
        )
    return verdict


def read_metrics(root: Path) -> dict[str, dict[str, Any]]:
    """Every protocol's metrics.json below `root` that can be read; what cannot is missing to the gate."""
    from components.base.files import read_json

    found = {}
    for path in sorted((root / "artifacts" / "evaluate").glob("*/metrics.json")):
        try:
            value = read_json(path)
        except InputError:
            continue
        if isinstance(value, dict):
            found[path.parent.name] = value
    return found


def read_checks(root: Path) -> dict[str, dict[str, Any] | None]:
    """Every data check's result.json below `root`; None for one that is missing or malformed."""
    from components.base.files import read_json

    found: dict[str, dict[str, Any] | None] = {}
    for name in CHECKS:
        try:
            value = read_json(root / "artifacts" / name / "result.json")
        except InputError:
            value = None
        found[name] = value if isinstance(value, dict) else None
    return found


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Write `verdict.json` and `report.html`; the metrics are the verdict in short."""
    from components.base.files import missing_input, sha256_file, write_json, write_text
    from components.evaluation.report import render
    from components.release.champion import read_champion

    weights = context.root.joinpath("artifacts", *MODEL_PARTS)
    if not weights.exists():
        raise missing_input(weights)
    champion = read_champion(context.root)
    metrics = read_metrics(context.root)
    verdict = judge(params, metrics, read_checks(context.root), sha256_file(weights), champion)
    write_json(context.out / "verdict.json", verdict)
    write_text(context.out / "report.html", render(context.root, context.all_params, params.report_examples))
    for reason in verdict["reasons"]:
        context.log.warning("gate: %s", reason)
    return {
        "passed": verdict["passed"],
        "rules": len(verdict["rules"]),
        "rules_held": sum(not rule["reasons"] for rule in verdict["rules"]),
        "reasons": len(verdict["reasons"]),
    }


STEP = Step("gate", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
