"""Labels of an external cohort as 0/1 columns, and CT-RATE's evaluation set as its source takes it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from components.base.errors import InputError
from components.cohort.sources.ct_rate import CtRate
from components.cohort.sources.nifti_csv import NiftiCsv
from components.cohort.study import RawSeries, Refused
from tests.cohort_support import make_archive, write_table
from tests.data.test_cohort_ct_rate import make_tree


def archive(root: Path, cells: list[dict[str, str]]) -> Path:
    """The small archive with further columns, one mapping a row."""
    make_archive(root)
    with (root / "studies.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    more = [cells[at % len(cells)] for at in range(len(rows))]
    write_table(root / "studies.csv", [{**row, **added} for row, added in zip(rows, more, strict=True)])
    return root


def listed(root: Path, **options: Any) -> list[RawSeries | Refused]:
    return list(NiftiCsv(NiftiCsv.Params(**options), root, 0).series())


def test_columns_of_places_count_as_their_label(tmp_path: Path) -> None:
    root = archive(
        tmp_path,
        [
            {"hernia*abdomen": "0", "hernia*left": "1", "nodule": "1.0", "nodulegr1cm": "0"},
            {"hernia*abdomen": "0", "hernia*left": "", "nodule": "", "nodulegr1cm": "1"},
            {"hernia*abdomen": "", "hernia*left": "", "nodule": "0", "nodulegr1cm": "0"},
        ],
    )
    found = listed(root, binary_columns=("hernia", "nodule"), label_columns=("side",))
    labels = [{name: value for name, value in item.labels.items() if "=" not in name} for item in found[:3]]
    assert labels == [{"hernia": 1, "nodule": 1}, {"hernia": 0}, {"nodule": 0}]
    assert any("=" in name for name in found[0].labels), "categories beside them"


def test_a_cell_that_is_no_label_refuses_its_row(tmp_path: Path) -> None:
    root = archive(tmp_path, [{"hernia": "maybe"}, {"hernia": "1"}])
    found = listed(root, binary_columns=("hernia",))
    assert isinstance(found[0], Refused)
    assert found[0].rule == "gold.labels"
    assert "maybe" not in found[0].reason
    assert found[1].labels == {"hernia": 1}


def test_a_label_without_a_column_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cardiomegaly"):
        listed(archive(tmp_path, [{"hernia": "1"}]), binary_columns=("hernia", "cardiomegaly"))


def names_of(items: list[RawSeries | Refused]) -> dict[str, str | None]:
    return {item.series: item.rule if isinstance(item, Refused) else None for item in items}


def test_the_evaluation_set_of_a_split(tmp_path: Path) -> None:
    root = make_tree(tmp_path)
    options: dict[str, Any] = {"splits": ("train", "valid")}
    plain = names_of(list(CtRate(CtRate.Params(**options), root, 0).series()))
    assert set(plain.values()) == {None}
    others = {"evaluation_splits": ("train",)}
    found = names_of(list(CtRate(CtRate.Params(**options, **others), root, 0).series()))
    assert found == {**plain, "train_1_a_2": "left_out.evaluation_set"}, "equal spacing: the first by name"
    (root / "dataset" / "no_chest.txt").write_text("train_10_a\n\ntrain_1_a_1.nii.gz\n")
    others["leave_out"] = "no_chest.txt"
    found = names_of(list(CtRate(CtRate.Params(**options, **others), root, 0).series()))
    assert {name for name, rule in found.items() if rule} == {"train_1_a_1", "train_10_a_1"}
    with pytest.raises(InputError):
        list(CtRate(CtRate.Params(**options, **{**others, "leave_out": "none.txt"}), root, 0).series())
