"""Suites as code: checks on a table, run by Great Expectations, answered by row numbers and never by values.

Great Expectations keeps offending values in its results. They may hold PHI, so they stay in this process: what
leaves is a `Verdict`, which has counts and row numbers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.base.errors import CheckError

if TYPE_CHECKING:
    import pandas as pd

ROW = "row_number"


@dataclass(frozen=True)
class Check:
    """One expectation under a rule's name.

    `cohort` checks speak of the whole table and fail the stage; the others set rows aside. `keep_first` names
    columns: of the rows that agree in them, the first passes (duplicates of which one is enough).
    """

    rule: str
    title: str
    expectation: Any
    cohort: bool = False
    keep_first: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of a check: `rows` are the numbers of the failing rows, `observed` a cohort's figure."""

    rule: str
    title: str
    expectation: str
    cohort: bool
    passed: bool
    rows: tuple[int, ...] = ()
    observed: float | None = None


def library() -> Any:
    """Great Expectations with its analytics off (its import takes seconds: only a stage's run calls this)."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations

    return great_expectations


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """The named columns of row mappings as objects, with a row number; missing values stay None."""
    import pandas as pd

    data: dict[str, Any] = {}
    for name in columns:
        values = pd.Series([row.get(name) for row in rows], dtype=object)
        plain = {type(value) for value in values if value is not None}
        data[name] = values.infer_objects() if plain <= {int, float, bool} else values
    data[ROW] = range(len(rows))
    return pd.DataFrame(data)


def run_suite(name: str, frame: pd.DataFrame, checks: Sequence[Check]) -> list[Verdict]:
    """Every check on `frame`, in order; a check that cannot be carried out is a `CheckError`: fail closed."""
    gx = library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas(name)
    batch = (
        source.add_dataframe_asset(name)
        .add_batch_definition_whole_dataframe(name)
        .get_batch(batch_parameters={"dataframe": frame})
    )
    result_format = {
        "result_format": "COMPLETE",
        "unexpected_index_column_names": [ROW],
        "return_unexpected_index_query": False,
    }
    return [
        _verdict(check, batch.validate(check.expectation, result_format=result_format), frame)
        for check in checks
    ]


def _verdict(check: Check, found: Any, frame: pd.DataFrame) -> Verdict:
    kind = type(check.expectation).__name__
    if _raised(found.exception_info):
        raise CheckError(
            f"the check {check.rule} could not be carried out",
            rule="check.error",
            fix="run the stage that writes this table again; a column may be missing or of another type",
        )
    result = found.result or {}
    rows = sorted({int(item[ROW]) for item in result.get("unexpected_index_list") or []})
    if check.keep_first and rows:
        again = frame.iloc[rows].duplicated(subset=list(check.keep_first), keep="first")
        rows = [row for row, repeated in zip(rows, again) if repeated]
    observed = result.get("observed_value")
    passed = bool(found.success) if check.cohort else not rows
    if not check.cohort and not found.success and not rows and not check.keep_first:
        raise CheckError(
            f"the check {check.rule} failed without naming a row",
            rule="check.error",
            fix="report this: the check is built wrongly",
        )
    figure = float(observed) if isinstance(observed, int | float) else None
    return Verdict(check.rule, check.title, kind, check.cohort, passed, tuple(rows), figure)


def _raised(info: Any) -> bool:
    """Great Expectations reports an error flat or by metric; any of them counts."""
    if not info:
        return False
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(bool(item.get("raised_exception", True)) for item in info.values())


def failed_rows(verdicts: Sequence[Verdict]) -> set[int]:
    """The numbers of the rows that any row check set aside."""
    return {row for verdict in verdicts if not verdict.cohort for row in verdict.rows}


def require_cohort(stage: str, verdicts: Sequence[Verdict]) -> None:
    """Raise `CheckError` with the first cohort check that failed."""
    for verdict in verdicts:
        if verdict.cohort and not verdict.passed:
            seen = "" if verdict.observed is None else f" (found {verdict.observed:g})"
            raise CheckError(
                f"{stage}: not so: {verdict.title.rstrip('.').lower()}{seen}",
                rule=verdict.rule,
                fix=f"see artifacts/{stage}/index.html; mend the data or the bound in params.yaml",
            )
