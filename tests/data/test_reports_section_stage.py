"""The stage `section`: bytes that do not depend on workers, the structured table, and CT-RATE's two forms."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from components.base.files import read_table
from components.base.step import StepContext
from components.cohort._tables import Row
from components.cohort.manifest import write_rows
from components.cohort.sources import ct_rate
from components.reports import section
from components.reports.sectioning import sections
from components.reports.structured import structured_reports

REPORT = (
    "EXAM: CT chest.\n\nFINDINGS:\nLUNGS: Nodule {n} in the left upper lobe, new since [DATE]. No consolidation.\n"
    "PLEURA: Small right effusion.\n\nIMPRESSION:\n1. Nodule.\n2. Effusion."
)
TABLES = ("sections", "subsections", "sentences", "findings", "structured")


def at(root: Path, texts: dict[str, str]) -> StepContext:
    out = root / "artifacts/deidentify"
    write_rows(out / "reports.parquet", "reports", [{"study_key": k, "text": t} for k, t in texts.items()])
    write_rows(out / "labels.parquet", "labels", [])
    return StepContext(root, "section", None, logging.getLogger("test.section"))


def digests(root: Path) -> dict[str, str]:
    files = sorted((root / "artifacts/section").glob("*.parquet"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_workers(tmp_path: Path) -> None:
    texts = {f"stu_{n:04d}": REPORT.format(n=n) for n in range(300)}
    for workers in (1, 2):
        root = tmp_path / str(workers)
        section.run(section.Params(workers=workers), at(root, texts))
    assert set(digests(tmp_path / "1")) == {f"{name}.parquet" for name in TABLES}
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_workers_are_at_least_one() -> None:
    with pytest.raises(ValidationError):
        section.Params(workers=0)


def test_chunks_of_reports_are_joined_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"stu_{n}": REPORT.format(n=n) for n in range(7)}
    section.run(section.Params(), at(tmp_path / "whole", texts))
    monkeypatch.setattr(section, "CHUNK", 2)
    section.run(section.Params(), at(tmp_path / "chunked", texts))
    assert digests(tmp_path / "whole") == digests(tmp_path / "chunked")


def test_the_tables_of_the_stage(tmp_path: Path) -> None:
    context = at(tmp_path, {"stu_a": REPORT.format(n=1), "stu_b": "Lungs are clear. Heart is enlarged."})
    metrics = section.run(section.Params(), context)
    out = tmp_path / "artifacts/section"
    tables = {name: read_table(out / f"{name}.parquet") for name in TABLES}
    for name, layout in section.schemas().items():
        assert tables[name].schema.names == layout.names, name
    text = REPORT.format(n=1)
    parts = [row for row in tables["subsections"].to_pylist() if row["study_key"] == "stu_a"]
    assert [row["region"] for row in parts] == ["lungs", "pleura"]
    for row in parts:
        assert text[row["start"] : row["end"]] == row["text"]
        assert text[row["heading_start"] : row["start"]] in ("LUNGS:", "PLEURA:")
    found = {row["finding"]: row for row in tables["findings"].to_pylist() if row["study_key"] == "stu_a"}
    nodule = found["Lung nodule"]
    assert (nodule["status"], nodule["laterality"], nodule["temporality"]) == ("present", "left", "new")
    assert found["Consolidation"]["status"] == "absent"
    structured = structured_reports(tables["structured"])
    assert structured["stu_a"]["pleura"] == {
        "positive": ["Small right effusion.", "Effusion."],
        "negative": [],
    }
    assert structured["stu_a"]["lungs"]["negative"] == ["No consolidation."]
    assert structured["stu_b"] == {
        "lungs": {"positive": [], "negative": ["Lungs are clear."]},
        "heart": {"positive": ["Heart is enlarged."], "negative": []},
    }
    assert metrics["structured"]["lungs.positive"] == 2


COLUMNS = ("ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN")
NAMES = ("indication", "technique", "findings", "impression")
SENTENCE = st.sampled_from(
    [
        "Trachea, both main bronchi are open.",
        "No occlusive pathology was detected in the lumen.",
        "Findings of emphysema are observed.",
        "In comparison with the other side, volume loss is seen.",
        "Liver: no lesion.",
        "Mass of 1.2 cm at L4-5.",
        "There is an IMPRESSION of the aorta on the trachea.",
        "Technique is limited.",
        "Not given.",
    ]
)
CELL = st.one_of(
    st.none(),
    st.sampled_from(["", " ", "nan", "NaN"]),
    st.lists(SENTENCE, min_size=1, max_size=5).map(" ".join),
)


@settings(max_examples=200, deadline=None)
@given(st.tuples(CELL, CELL, CELL, CELL))
def test_ct_rates_columns_and_the_raw_text_give_the_same_records(cells: tuple[str | None, ...]) -> None:
    given_text = {
        name: cell.strip()
        for name, cell in zip(NAMES, cells, strict=True)
        if cell is not None and cell.strip().lower() not in ("", "nan")
    }
    row = Row(1, {column: (cell or "").strip() for column, cell in zip(COLUMNS, cells, strict=True)})
    composed = ct_rate.compose(row)
    if composed is None:
        assert not given_text
        return
    records = [(item.name, item.text) for item in sections(composed)]
    assert {name: text for name, text in records if text} == given_text or "findings" not in given_text
    if "findings" in given_text:
        for after, gap in ((": ", "\n"), (":\n", "\n\n"), (" : ", " \r\n")):
            words = {"indication": "Clinical Information", "impression": "Impressions"}
            raw = gap.join(
                f"{words.get(name, name.capitalize())}{after}{text}" for name, text in given_text.items()
            )
            assert [(item.name, item.text) for item in sections(raw)] == records


@pytest.mark.parametrize(
    "unit",
    ["LUNGS: a. ", "no nodule ", "nodule, ", "no effusion, a nodule and ", "effusion; ", "TECHNIQUE: x\n"],
)
def test_time_is_not_quadratic(unit: str) -> None:
    """Sixteen times the text: 16 times as long where time is linear, 256 times where it is quadratic."""

    def seconds(size: int) -> float:
        text = "FINDINGS: " + unit * (size // len(unit))
        started = time.process_time()
        section.analyse("k", text, ("findings", "impression"))
        return time.process_time() - started

    ratios = (seconds(24_000) / max(seconds(1_500), 2e-3) for _ in range(3))
    assert any(ratio < 80 for ratio in ratios)


PIECES = st.sampled_from(
    [
        *("FINDINGS:", "LUNGS: Clear.", "Liver -", "IMPRESSION\n", "1. Nodule, no mass.", "\n", "\n\n", " "),
        *("ADDENDUM:", "T8: Wedge.", "No effusion; emphysema without bullae.", "Akciğerler: Normal."),
        *("**Findings**", "CT HEAD\n", "None.", "İıß", "\r\n"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join))
def test_every_table_nests_in_the_text(text: str) -> None:
    rows = section.analyse("k", text, ("findings", "impression", "addendum"))
    spans = {row["order"]: (row["start"], row["end"]) for row in rows["sections"]}
    for row in rows["sections"] + rows["subsections"] + rows["sentences"]:
        assert text[row["start"] : row["end"]] == row["text"]
    for row in rows["subsections"]:
        start, end = spans[row["section_order"]]
        assert start <= row["heading_start"] <= row["start"] <= row["end"] <= end
    for row in rows["sentences"]:
        assert any(start <= row["start"] and row["end"] <= end for start, end in spans.values())
    assert [row["order"] for row in rows["sentences"]] == list(range(len(rows["sentences"])))
    assert len(rows["findings"]) == 18
    orders = {row["order"] for row in rows["sentences"]}
    assert all(row["order"] in orders and row["text"].strip() for row in rows["structured"])
    assert section.analyse("k", text, ("findings", "impression", "addendum")) == rows
