"""Speed and quality of the reports room: `python tests/benchmarks/bench_reports.py` prints one JSON object.

Speeds are per second of one core's time, for reports of 1.2 kB (bars D6 and S10). Quality is measured on
phantom reports, and on the real annotated texts where ../shared/data is present (D1-D3, S1).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from components.cohort.phantom.report import write_report
from components.cohort.phantom.sampling import PhantomParams, cohort
from components.reports.deid.engine import Deidentifier
from components.reports.deid.score import Tally, score
from components.reports.deid.span import StudyContext
from components.reports.section import analyse
from components.reports.sectioning import sections
from components.reports.sentences import sentence_spans

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REPORT_BYTES = 1200
Notes = list[tuple[str, list[tuple[int, int]]]]


def per_second(function: Callable[[str], object], texts: list[str], repeats: int) -> float:
    """Reports of 1.2 kB a second of processor time."""
    for text in texts[:5]:
        function(text)
    started = time.process_time()
    for _ in range(repeats):
        for text in texts:
            function(text)
    spent = time.process_time() - started
    return round(repeats * sum(map(len, texts)) / REPORT_BYTES / spent, 1)


def quality(notes: Notes) -> dict[str, float | int | None]:
    """Scores of de-identification with nothing known of the studies."""
    deidentify, total = Deidentifier(), Tally()
    for text, gold in notes:
        found = [(change.old_start, change.old_end) for change in deidentify(text, StudyContext()).changes]
        total += score(text, gold, found)
    return total.metrics()


def real_notes() -> dict[str, Notes]:
    """The annotated texts beside the project, by data set."""
    found: dict[str, Notes] = {}
    annotated = DATA / "phi_ct_reports" / "dev.jsonl"
    if annotated.exists():
        rows = map(json.loads, annotated.read_text(encoding="utf-8").splitlines())
        found["phi_ct_reports"] = [
            (row["text"], [(s["start"], s["end"]) for s in row["spans"]]) for row in rows
        ]
    gold = DATA / "sts_cohort" / "gold.jsonl"
    if gold.exists():
        rows = map(json.loads, gold.read_text(encoding="utf-8").splitlines())
        found["sts_cohort"] = [
            ((gold.parent / row["report"]).read_text(encoding="utf-8"), [tuple(s[:2]) for s in row["spans"]])
            for row in rows
        ]
    return found


def split(text: str) -> None:
    """Sections and their sentences."""
    for section in sections(text):
        sentence_spans(text, section.start, section.end)


def main() -> int:
    """Measure and print."""
    phantom: Notes = []
    for study in cohort(PhantomParams(num_patients=100), 1):
        text, spans = write_report(study)
        phantom.append((text, [span[:2] for span in spans]))
    texts = [text for text, _ in phantom]
    deidentify = Deidentifier()
    result = {
        "deidentify_per_s": per_second(lambda text: deidentify(text, StudyContext()), texts, 2),
        "sections_sentences_per_s": per_second(split, texts, 5),
        "findings_per_s": per_second(lambda text: analyse("k", text, ("findings", "impression")), texts, 1),
        "quality": {"phantom": quality(phantom)}
        | {name: quality(notes) for name, notes in real_notes().items()},
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
