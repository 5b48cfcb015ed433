"""Custom expectations, as classes. Imported by the suites when they run: it imports Great Expectations.

All of them map over rows, so that the failing rows are known by number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation, ColumnPairMapExpectation
from great_expectations.expectations.metrics.map_metric_provider import (
    ColumnMapMetricProvider,
    ColumnPairMapMetricProvider,
    column_condition_partial,
    column_pair_condition_partial,
)

from data_checks.files import is_file_inside
from data_checks.phi_patterns import known_hits, residual_hits, structured_hits, unchanged_hits

PAIR = ("column_A", "column_B")


class _FilesExist(ColumnMapMetricProvider):
    condition_metric_name = "column_values.files_below_root"
    condition_value_keys = ("root",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, root: str, **_: Any) -> pd.Series:
        def good(value: Any) -> bool:
            paths = [value] if isinstance(value, str) else list(value)
            return all(is_file_inside(Path(root), path) for path in paths)

        return column.map(good).astype(bool)


class ExpectFilesBelowRoot(ColumnMapExpectation):
    """Every path (or list of paths) names regular files below `root`, reached through no link."""

    map_metric = "column_values.files_below_root"
    success_keys = ("mostly", "root")
    root: str


class _OneValueEach(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.one_b_for_each_a"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        counts = column_B.groupby(column_A).transform("nunique")
        return (counts.fillna(0) <= 1).reindex(column_A.index, fill_value=True)


class ExpectOneValueForEach(ColumnPairMapExpectation):
    """Rows that agree in column A agree in column B too (missing values of B are not held against them)."""

    map_metric = "column_pair_values.one_b_for_each_a"


class _SectionsCover(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.sections_cover_text"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        good = [sections_cover(text, sections) for text, sections in zip(column_A, column_B)]
        return pd.Series(good, index=column_A.index, dtype=bool)


def sections_cover(text: str, sections: Sequence[Mapping[str, Any]]) -> bool:
    """Whether sections, in order, tile the text: offsets right, nothing twice, nothing but blanks left out."""
    position = 0
    for section in sorted(sections, key=lambda item: item["order"]):
        first, start, end = section["heading_start"], section["start"], section["end"]
        if not position <= first <= start <= end <= len(text) or text[position:first].strip():
            return False
        if text[start:end].strip() != section["text"].strip():
            return False
        position = end
    return bool(sections) and not text[position:].strip()


class ExpectSectionsToCoverText(ColumnPairMapExpectation):
    """The sections (column B) tile their report's text (column A): reversible offsets, 100 % covered."""

    map_metric = "column_pair_values.sections_cover_text"


class _HasSection(ColumnMapMetricProvider):
    condition_metric_name = "column_values.has_a_section_of"
    condition_value_keys = ("names",)

    @column_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column: pd.Series, names: Sequence[str], **_: Any) -> pd.Series:
        def good(sections: Sequence[Mapping[str, Any]]) -> bool:
            return any(item["name"] in names and item["text"].strip() for item in sections)

        return column.map(good).astype(bool)


class ExpectSectionNamed(ColumnMapExpectation):
    """At least one section of these names has text."""

    map_metric = "column_values.has_a_section_of"
    success_keys = ("mostly", "names")
    names: list[str]


class _NoStructuredPhi(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.no_structured_phi"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        good = [not structured_hits(text, phi["spots"]) for text, phi in zip(column_A, column_B)]
        return pd.Series(good, index=column_A.index, dtype=bool)


class ExpectNoStructuredPhi(ColumnPairMapExpectation):
    """No e-mail, telephone, URL, social security or labelled record number outside the replaced spans.

    Column B of this and the expectations below is a mapping: `identities` as (kind, value) pairs, and `spots`.
    """

    map_metric = "column_pair_values.no_structured_phi"


class _NoKnownPhi(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.no_known_phi"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        good = [
            not known_hits(text, phi["identities"], phi["spots"]) for text, phi in zip(column_A, column_B)
        ]
        return pd.Series(good, index=column_A.index, dtype=bool)


class ExpectNoKnownPhi(ColumnPairMapExpectation):
    """None of the study's own identities is left in the text."""

    map_metric = "column_pair_values.no_known_phi"


class _AllReplaced(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.all_replaced"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        good = [not unchanged_hits(text, phi["spots"]) for text, phi in zip(column_A, column_B)]
        return pd.Series(good, index=column_A.index, dtype=bool)


class ExpectAllReplaced(ColumnPairMapExpectation):
    """No surrogate and no moved date is what it replaced."""

    map_metric = "column_pair_values.all_replaced"


class _NoResidualPhi(ColumnPairMapMetricProvider):
    condition_metric_name = "column_pair_values.no_residual_phi"
    condition_domain_keys = PAIR
    condition_value_keys = ()

    @column_pair_condition_partial(engine=PandasExecutionEngine)
    def _pandas(cls, column_A: pd.Series, column_B: pd.Series, **_: Any) -> pd.Series:
        good = [
            not residual_hits(text, phi["identities"], phi["spots"]) for text, phi in zip(column_A, column_B)
        ]
        return pd.Series(good, index=column_A.index, dtype=bool)


class ExpectNoResidualPhi(ColumnPairMapExpectation):
    """No PHI of any of the three kinds above is left: the expectation of the whole cohort that stops the flow."""

    map_metric = "column_pair_values.no_residual_phi"
