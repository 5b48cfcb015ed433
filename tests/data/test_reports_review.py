"""The review queue: decisions are kept without text, applied to that very note, and never lost or misapplied."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path

import pytest

from components.base.errors import InputError
from components.base.files import read_json, read_table
from components.base.step import StepContext
from components.cohort.manifest import read_rows
from components.reports import deidentify, review
from components.reports.deid.decisions import Decision, NoteDecisions, load_decisions, save_decisions
from tests.data.test_reports_stages import write_inputs

NOTE = "FINDINGS: Since '16 a nodule, unchanged. Foley zorblatt catheter in place.\nIMPRESSION: Stable."
KEY = "stu_00aa"


def run(root: Path, texts: dict[str, str | None] | None = None) -> dict:
    write_inputs(root, texts or {KEY: NOTE, "stu_bb": "Normal chest."})
    context = StepContext(root, "deidentify", None, logging.getLogger("test.review"))
    return dict(deidentify.run(deidentify.Params(review_below=1.0, suspects=False), context))


def report(root: Path, key: str = KEY) -> str:
    rows = read_rows(root / "artifacts/deidentify/reports.parquet", "reports")
    return next(row["text"] for row in rows if row["study_key"] == key)


def command(root: Path, *words: str) -> int:
    return review.main(["--root", str(root), *words])


def test_the_queue_lists_uncertain_spans_without_their_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = run(tmp_path)
    assert metrics["num_notes_to_review"] == 1
    assert command(tmp_path, "list") == 0
    shown = capsys.readouterr().out
    assert KEY in shown
    assert "DATE" in shown
    assert "'16" not in shown
    assert command(tmp_path, "show", KEY) == 0
    assert "«1:'16»" in capsys.readouterr().out


def test_a_kept_span_stays_in_the_text_from_the_next_run_on(tmp_path: Path) -> None:
    run(tmp_path)
    assert "Since [DATE] a nodule" in report(tmp_path)
    assert command(tmp_path, "keep", KEY, "1") == 0
    metrics = run(tmp_path)
    assert "Since '16 a nodule" in report(tmp_path)
    assert metrics["num_notes_decided"] == 1
    audit = read_rows(tmp_path / "artifacts/deidentify/audit.parquet", "audit")
    (kept,) = [row for row in audit if row["layer"] == "review"]
    assert report(tmp_path)[kept["start"] : kept["end"]] == "'16"
    assert kept["action"] == "keep"
    assert run(tmp_path)["num_notes_decided"] == 1, "never lost when the stage runs again"


def test_a_redacted_span_goes(tmp_path: Path) -> None:
    run(tmp_path)
    start = NOTE.index("zorblatt")
    assert "zorblatt" in report(tmp_path)
    assert command(tmp_path, "redact", KEY, "--span", str(start), str(start + 8), "--kind", "STAFF") == 0
    run(tmp_path)
    assert "Foley [STAFF] catheter" in report(tmp_path)
    audit = read_rows(tmp_path / "artifacts/deidentify/audit.parquet", "audit")
    assert [row["rule"] for row in audit if row["kind"] == "STAFF"] == ["review.redact"]


def test_accepted_spans_leave_the_queue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = run(tmp_path)
    text = report(tmp_path)
    assert command(tmp_path, "accept", KEY) == 0
    after = run(tmp_path)
    assert (before["num_notes_to_review"], after["num_notes_to_review"]) == (1, 0)
    assert report(tmp_path) == text
    capsys.readouterr()
    command(tmp_path, "list")
    assert "nothing to review" in capsys.readouterr().out


def test_decisions_do_not_outlive_their_text_and_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path)
    command(tmp_path, "keep", KEY, "1")
    changed = {KEY: NOTE.replace("nodule,", "small nodule,"), "stu_bb": "Normal chest."}
    metrics = run(tmp_path, changed)
    assert metrics["num_stale_decisions"] == 1
    assert metrics["num_notes_decided"] == 0
    assert "Since [DATE] a small nodule" in report(tmp_path)
    assert "1 notes changed since they were reviewed" in caplog.text
    capsys.readouterr()
    command(tmp_path, "list")
    assert "its decisions do not apply" in capsys.readouterr().out
    assert load_decisions(tmp_path / "infra/review.json")[KEY].decisions, "kept until a person undoes them"
    assert run(tmp_path)["num_notes_decided"] == 1, "the old text again: they apply again"
    assert command(tmp_path, "undo", KEY) == 0
    assert run(tmp_path)["num_notes_decided"] == 0


def test_the_file_of_decisions_holds_no_text(tmp_path: Path) -> None:
    run(tmp_path)
    command(tmp_path, "keep", KEY, "1")
    start = NOTE.index("zorblatt")
    command(tmp_path, "redact", KEY, "--span", str(start), str(start + 8))
    content = (tmp_path / "infra/review.json").read_text()
    assert "zorblatt" not in content
    assert "'16" not in content
    assert set(read_json(tmp_path / "infra/review.json")["notes"][KEY]) == {"note", "decisions"}


def test_another_study_with_the_same_text_is_not_decided(tmp_path: Path) -> None:
    texts: dict[str, str | None] = {KEY: NOTE, "stu_cc": NOTE}
    run(tmp_path, texts)
    command(tmp_path, "keep", KEY, "1")
    run(tmp_path, texts)
    assert "'16" in report(tmp_path)
    assert "'16" not in report(tmp_path, "stu_cc")


def test_a_span_that_reaches_beyond_what_may_stay_goes(tmp_path: Path) -> None:
    run(tmp_path)
    start = NOTE.index("'16")
    note = read_table(tmp_path / "restricted/deidentify/review.parquet").to_pylist()[0]["note"]
    decisions = {KEY: NoteDecisions(note, (Decision(start + 1, start + 3, "keep"),))}
    save_decisions(tmp_path / "infra/review.json", decisions)
    run(tmp_path)
    assert "'16" not in report(tmp_path)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("show", "stu_none"), "review.study"),
        (("keep", KEY, "99"), "review.span"),
        (("keep", KEY), "review.span"),
        (("redact", KEY, "--span", "5", "4000"), "review.span"),
        (("redact", KEY, "--span", "5", "9", "--kind", "not a kind"), "review.kind"),
    ],
)
def test_mistakes_are_named_without_text(
    words: tuple[str, ...], rule: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    assert command(tmp_path, *words) == InputError.exit_code
    shown = capsys.readouterr().err
    assert rule in shown
    assert "zorblatt" not in shown
    assert not (tmp_path / "infra/review.json").exists()


def test_a_note_that_changed_since_it_was_queued_is_not_decided(tmp_path: Path) -> None:
    run(tmp_path)
    write_inputs(tmp_path, {KEY: NOTE + " Addendum."})
    assert command(tmp_path, "keep", KEY, "1") == InputError.exit_code
    assert command(tmp_path, "show", KEY) == InputError.exit_code


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"notes": {"stu_a": {"note": "x", "decisions": []}}}',
        '{"notes": {"stu_a": {"note": "%s", "decisions": [{"start": 5, "end": 3, "verdict": "keep"}]}}}'
        % ("0" * 32),
        '{"notes": {"stu_a": {"note": "%s", "decisions": [{"start": 1, "end": 3, "verdict": "?"}]}}}'
        % ("0" * 32),
        '{"notes": {"stu_a": {"note": "%s", "decisions": [{"start": 1, "end": 3, "verdict": "redact"}]}}}'
        % ("0" * 32),
        '{"notes": {"stu_a": {"note": "%s", "decisions": [{"start": 1, "text": "zorblatt"}]}}}' % ("0" * 32),
    ],
)
def test_malformed_decisions_fail_closed(content: str, tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/review.json").write_text(content)
    with pytest.raises(InputError) as refused:
        run(tmp_path)
    assert refused.value.rule == "review.format"
    assert "zorblatt" not in str(refused.value)
    assert not (tmp_path / "artifacts/deidentify/reports.parquet").exists()


def test_the_same_decisions_give_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "review.json"
    one, two = Decision(1, 2, "keep"), Decision(3, 9, "redact", "STAFF")
    save_decisions(
        path, {"stu_b": NoteDecisions("0" * 32, (two, one)), "stu_a": NoteDecisions("1" * 32, (one,))}
    )
    first = path.read_bytes()
    save_decisions(path, dict(reversed(load_decisions(path).items())))
    assert path.read_bytes() == first
    assert list(json.loads(first)["notes"]) == ["stu_a", "stu_b"]


def test_two_people_at_once_lose_nothing(tmp_path: Path) -> None:
    text = "FINDINGS: " + " ".join(f"Seen in {year}, stable." for year in range(2001, 2017))
    run(tmp_path, {KEY: text})
    count = len(review.Review(tmp_path).note(KEY).items)
    assert count >= 10
    hands = [
        threading.Thread(target=command, args=(tmp_path, "keep", KEY, str(n))) for n in range(1, count + 1)
    ]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert review.Review(tmp_path).note(KEY).num_open == 0


def test_the_page_is_for_its_owner_only_and_escapes(tmp_path: Path) -> None:
    run(tmp_path, {KEY: NOTE + " <script>x</script>"})
    assert command(tmp_path, "page") == 0
    target = tmp_path / "restricted/review/queue.html"
    assert target.stat().st_mode & 0o077 == 0
    content = target.read_text()
    assert "<script>" not in content
    assert "&lt;script&gt;" in content
    assert f"keep {KEY}" in content


def test_help_is_quick() -> None:
    import subprocess
    import sys

    probe = "import sys, components.reports.review; print({'pyarrow', 'pandas', 'jinja2'} & set(sys.modules))"
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert time.monotonic() - started < 5
