"""Fail closed: whatever goes wrong with a note, its study is set aside and no text of it is passed on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from components.base.errors import CheckError
from components.base.files import read_table
from components.reports.deid import engine
from components.reports.deid.engine import Deidentifier, Refusal
from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.deidentify import Params, handle, run, time_limit
from tests.data.test_reports_stages import context_at, write_inputs

SECRET = "Zorblatt"


class Breaking:
    """A layer that meets an error whose text holds PHI."""

    name = "breaking"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        if SECRET in text.view:
            raise ValueError(f"cannot read {text.view}")
        return []


class Slow:
    """A layer that never ends on some notes."""

    name = "slow"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        while SECRET in text.view:
            sum(range(1000))
        return []


class Growing:
    """A layer that finds something new on every pass."""

    name = "growing"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        place = next((i for i, char in enumerate(text.view) if char == "q"), None)
        return [] if place is None else [Span(place, place + 1, "ID", self.name, "grow", 1.0)]


@pytest.mark.parametrize(
    ("layer", "rule"), [(Breaking(), "deidentify.detector"), (Slow(), "deidentify.timeout")]
)
def test_a_failing_detector_quarantines_its_study_only(
    layer: Any, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "default_layers", lambda: (layer,))
    texts = {f"stu_{i}": f"FINDINGS: Normal study number {i}." for i in range(5)}
    texts["stu_2"] = f"Patient {SECRET} has a nodule."
    write_inputs(tmp_path, texts)
    context = context_at(tmp_path)
    run(Params(timeout_s=0.3), context)
    out = context.artifacts("deidentify")
    assert "stu_2" not in read_table(out / "manifest.parquet")["study_key"].to_pylist()
    assert "stu_2" not in read_table(out / "reports.parquet")["study_key"].to_pylist()
    assert read_table(out / "quarantine.parquet").to_pylist()[0]["rule"] == rule
    assert len(read_table(out / "reports.parquet")) == 4
    for file in (*tmp_path.rglob("artifacts/**/*.parquet"), *tmp_path.rglob("logs/*")):
        content = str(read_table(file).to_pylist()) if file.suffix == ".parquet" else file.read_text()
        assert SECRET not in content


@pytest.mark.parametrize(
    "text",
    [
        "Patient M\ufffdller.",
        "A\x00B",
        "MÃ¼ller, Hans",
        "Size 3 cmÂ² today",
        "Ay\x9fe",
        "esc \x1b[31m",
        "It doesnâ€™t matter",
        "priv\ufdd0ate",
    ],
)
def test_an_encoding_that_cannot_be_trusted_is_refused(text: str) -> None:
    with pytest.raises(Refusal) as refused:
        Deidentifier()(text, StudyContext())
    assert refused.value.rule == "deidentify.encoding"
    assert text not in refused.value.reason


def test_a_text_that_never_settles_is_refused() -> None:
    with pytest.raises(Refusal) as refused:
        Deidentifier([Growing()])("q" * 50, StudyContext())
    assert refused.value.rule == "deidentify.unstable"


def test_the_time_limit_stops_a_running_regular_expression() -> None:
    import re

    started = time.monotonic()
    with pytest.raises(Refusal), time_limit(0.3):
        re.match(r"(a+)+$", "a" * 40 + "b")
    assert time.monotonic() - started < 5


def test_a_busy_machine_is_no_reason_for_quarantine() -> None:
    with time_limit(0.1):
        time.sleep(0.3)  # waiting takes no processor time


def test_any_exception_becomes_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    from components.reports.deidentify import Job

    def explode(self: Deidentifier, *args: object) -> None:
        raise MemoryError(SECRET)

    monkeypatch.setattr(Deidentifier, "__call__", explode)
    (outcome,) = handle([Job("stu_1", "text", (), False, 1.0)])
    assert (outcome.result, outcome.rule) == (None, "deidentify.detector")
    assert SECRET not in outcome.reason


def test_too_much_quarantine_fails_the_stage(tmp_path: Path) -> None:
    write_inputs(tmp_path, {f"stu_{i}": "bad \x00 text" if i < 3 else "Normal." for i in range(6)})
    context = context_at(tmp_path)
    with pytest.raises(CheckError) as failed:
        run(Params(max_quarantined_fraction=0.4), context)
    assert failed.value.rule == "quarantine.max_fraction"
    assert not (context.artifacts("deidentify") / "reports.parquet").exists()


def _seconds(text: str) -> float:
    from components.reports.sectioning import sections
    from components.reports.sentences import sentence_spans

    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        Deidentifier()(text, StudyContext((("PATIENT", "Smith^John"),)), 600.0)
        for section in sections(text):
            sentence_spans(text, section.start, section.end)
        best = min(best, time.process_time() - started)
    return best


ADVERSARIAL = {
    "digits": "7",
    "letters": "a",
    "capitals": "A",
    "spaces": " ",
    "newlines": "\n",
    "spaced newlines": " \n",
    "zero width": "a\u200b",
    "right to left": "\u202e\u05d0",
    "dots": ".",
    "dates": "3/4/2024 ",
    "names": "Dr. Smith ",
    "hyphens": "1-",
    "colons": "A:",
    "items": "1. ",
    "words": "the lungs are clear ",
    "quotes": "O'",
    "dotted": "1.2",
    "headings": "FINDINGS: ",
    "tags": "[DATE] ",
    "at": "a@",
    "slashes": "1/",
    "phones": "(555) ",
    "hospitals": "Hospital of ",
    "capital words": "Ab ",
    "commas": "A, ",
}


def _ratio(kind: str, size: int) -> float:
    unit = ADVERSARIAL[kind]
    small = unit * (size // len(unit))
    return _seconds(small * 2) / max(_seconds(small), 2e-3)


@pytest.mark.parametrize("kind", sorted(ADVERSARIAL))
def test_time_is_not_quadratic(kind: str) -> None:
    """Sixteen times the text: 16 times as long where time is linear, 256 times where it is quadratic."""
    unit = ADVERSARIAL[kind]
    small, large = (unit * (size // len(unit)) for size in (2_000, 32_000))
    ratios = (_seconds(large) / max(_seconds(small), 2e-3) for _ in range(3))
    assert any(ratio < 80 for ratio in ratios), kind


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(ADVERSARIAL))
def test_time_grows_linearly(kind: str) -> None:
    ratio = min(_ratio(kind, 40_000) for _ in range(2))
    assert ratio <= 2.5, f"{kind}: twice the text takes {ratio:.2f} times as long"


@pytest.mark.slow
def test_a_line_of_ten_megabytes_is_handled_or_set_aside() -> None:
    from components.reports.deidentify import Job

    text = "The lungs are clear, seen by Dr. Lindqvist; " * (10_000_000 // 44)
    started = time.monotonic()
    (outcome,) = handle([Job("stu_1", text, (), False, 5.0)])
    assert time.monotonic() - started < 30
    assert outcome.rule == "deidentify.timeout" or "Lindqvist" not in outcome.result.text
