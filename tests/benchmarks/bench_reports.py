"""Speed and quality of the reports room: `python -m tests.benchmarks.bench_reports` prints one JSON object.

Speeds are per second of one core's time, for reports of 1.2 kB (bars D6 and S10). Quality is measured on
phantom reports, and on the real annotated texts where ../shared/data is present (D1-D3, S1). `--sections` prints the
part of sections, sentences and findings alone (S1-S10); beside medspaCy: `bench_medspacy.py`.
"""

from __future__ import annotations

import argparse
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
from components.reports.findings import mentions
from components.reports.section import analyse
from components.reports.sectioning import sections
from components.reports.sentences import sentence_spans
from tests.benchmarks.report_cases import boundaries_f1, sentence_cases, trap_cases
from tests.benchmarks.report_layouts import CANONICAL, DEVELOPMENT, HELD_OUT, misspelt, reports, scored
from tests.benchmarks.report_wholes import DEVELOPMENT_EXTRAS, HELD_OUT_EXTRAS, wholes

CASES = Path(__file__).resolve().parents[1] / "data" / "reports"
SEEDS = {"eight_styles": (CANONICAL, 3), "development": (DEVELOPMENT, 1), "held_out": (HELD_OUT, 901)}
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


def fastest_per_second(function: Callable[[str], object], texts: list[str], repeats: int) -> float:
    """The same from each text's fastest pass: what a core does that other work does not disturb."""
    fastest = [float("inf")] * len(texts)
    for _ in range(repeats):
        for number, text in enumerate(texts):
            started = time.perf_counter()
            function(text)
            fastest[number] = min(fastest[number], time.perf_counter() - started)
    return round(sum(map(len, texts)) / REPORT_BYTES / sum(fastest), 1)


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


def analysed(text: str) -> object:
    """All tables of the stage for one report."""
    return analyse("k", text, ("findings", "impression"))


def cut(text: str) -> list[tuple[str, int, int]]:
    """The sections as (name, start, end)."""
    return [(section.name, section.start, section.end) for section in sections(text)]


def layouts(per_layout: int = 60) -> dict[str, object]:
    """S1, S3, S6, S7 on generated layouts: exact bodies and false headings, the mean and the worst layout."""
    result: dict[str, object] = {}
    drawn = {name: reports(pool, seed, per_layout) for name, (pool, seed) in SEEDS.items()}
    drawn["whole_development"] = wholes(DEVELOPMENT, DEVELOPMENT_EXTRAS, 5, per_layout)
    drawn["whole_held_out"] = wholes(HELD_OUT, HELD_OUT_EXTRAS, 77, per_layout)
    for name, texts in drawn.items():
        found = scored(texts, cut)
        exact = [layout["exact"] for layout in found.values()]
        result[name] = {
            "layouts": len(exact),
            "reports": len(texts),
            "mean_exact": round(sum(exact) / len(exact), 4),
            "worst_exact": min(exact),
            "reports_with_false_headings": round(
                sum(layout["false_headings"] for layout in found.values()) / len(found), 4
            ),
        }
    return result


def real_sections() -> dict[str, float | int] | None:
    """S1 on the 32 annotated CT texts beside the project."""
    source = DATA / "reports_mtsamples" / "ct_reports_dev.jsonl"
    if not source.exists():
        return None
    right = total = 0
    for row in map(json.loads, source.read_text(encoding="utf-8").splitlines()):
        found = set(cut(row["text"]))
        for gold in row["sections"]:
            name = "findings" if gold["label"] == "technique+findings" else gold["label"]
            total += 1
            right += (name, gold["start"], gold["end"]) in found
    return {"exact": round(right / total, 4), "sections": total}


def misspellings(num: int = 200) -> float:
    """S4: the share of headings with one drawn typing error that still open their section."""
    import numpy as np

    rng = np.random.default_rng(31)
    core = {"FINDINGS": "findings", "IMPRESSION": "impression", "TECHNIQUE": "technique"}
    core |= {"COMPARISON": "comparison", "INDICATION": "indication", "CONCLUSION": "impression"}
    right = 0
    for heading, name in core.items():
        for _ in range(num):
            found = sections(f"EXAM: CT chest.\n\n{misspelt(heading, rng)}: The body of it.\n")[-1]
            right += (found.name, found.text) == (name, "The body of it.")
    return round(right / (num * len(core)), 4)


def traps(name: str) -> dict[str, float | int]:
    """S9: the share of traps whose status, and side where asked, are right."""
    cases = trap_cases(CASES / f"{name}.tsv")
    right = 0
    for sentence, label, status, side in cases:
        found = next((item for item in mentions(sentence) if item.finding == label), None)
        said = (found.status, found.laterality) if found else ("not_mentioned", "")
        right += said[0] == status and side in ("-", said[1])
    return {"accuracy": round(right / len(cases), 4), "n": len(cases)}


def sectioning_quality() -> dict[str, object]:
    """S1, S3, S4, S8, S9 as measured."""
    return {
        "layouts": layouts(),
        "real_sections": real_sections(),
        "misspelt_headings": misspellings(),
        "sentences": {
            name: boundaries_f1(sentence_cases(CASES / f"{name}.txt"), sentence_spans)
            for name in ("sentences", "sentences_held_out")
        },
        "traps": {path.stem: traps(path.stem) for path in sorted(CASES.glob("traps*.tsv"))},
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sections", action="store_true", help="sections, sentences and findings only")
    only = parser.parse_args().sections
    phantom: Notes = []
    for study in cohort(PhantomParams(num_patients=100), 1):
        text, spans = write_report(study)
        phantom.append((text, [span[:2] for span in spans]))
    texts = [text for text, _ in phantom]
    result: dict[str, object] = {
        "sections_sentences_per_s": per_second(split, texts, 5),
        "sections_sentences_per_s_fastest": fastest_per_second(split, texts, 20),
        "section_stage_per_s": per_second(analysed, texts, 1),
        "section_stage_per_s_fastest": fastest_per_second(analysed, texts, 5),
        "sectioning": sectioning_quality(),
    }
    if not only:
        deidentify = Deidentifier()
        result["deidentify_per_s"] = per_second(lambda text: deidentify(text, StudyContext()), texts, 2)
        result["quality"] = {"phantom": quality(phantom)} | {
            name: quality(notes) for name, notes in real_notes().items()
        }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
