"""De-identification measured: `python tests/benchmarks/bench_deid.py` prints one JSON object.

Easy notes (phantom reports, and the annotated and real texts where ../shared/data is present), hard notes of both
halves with a seed of their own, each with the lexicon's lists and without the half's names; speed at 1.2 kB a report
(bar D6), growth of the time with the length (D7), and Philter and Presidio on the same notes where `--python` names
an interpreter that has them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from components.base.errors import VelvetError
from components.cohort.phantom.report import write_report
from components.cohort.phantom.sampling import PhantomParams, cohort
from components.reports.deid.engine import Deidentifier
from components.reports.deid.layers import default_layers
from components.reports.deid.span import StudyContext
from components.reports.deid.wordlists import default_lists
from components.reports.measuring.evaluate import REPORT_BYTES, evaluate, own_detector
from components.reports.measuring.gold import read_gold
from components.reports.measuring.hard_notes import GoldNote, hard_notes
from components.reports.measuring.people import HALVES, all_names
from components.reports.measuring.tools import TOOLS, run_tool

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SEED = 977
GROWING = (
    "7",
    "a\u200b",
    "\u202e\u05d0",
    "3/4/2024 ",
    "Dr. ",
    "Name: ",
    "hospital de ",
    "the lungs are clear ",
)
MAIN = ("token_recall", "token_precision", "over_redaction", "notes_with_leak", "reports_per_s")


def easy_notes() -> dict[str, list[GoldNote]]:
    """Phantom reports, and the annotated texts beside the project."""
    found = {"phantom": []}
    for number, study in enumerate(cohort(PhantomParams(num_patients=80), SEED)):
        text, spans = write_report(study)
        found["phantom"].append(GoldNote(f"phantom_{number}", text, tuple(spans)))
    for name, file in (("phi_ct_reports", "dev.jsonl"), ("sts_cohort", "gold.jsonl")):
        if (DATA / name / file).exists():
            found[name] = read_gold(DATA / name / file)
    return found


def main_figures(metrics: dict[str, Any]) -> dict[str, Any]:
    """The figures that the bars name."""
    return {key: metrics[key] for key in MAIN}


def speed(texts: list[str]) -> float:
    """Reports of 1.2 kB a second of one core's time, after a first reading of the lists."""
    deidentify = Deidentifier()
    for text in texts[:20]:
        deidentify(text, StudyContext())
    started = time.process_time()
    for text in texts:
        deidentify(text, StudyContext())
    return round(sum(map(len, texts)) / REPORT_BYTES / (time.process_time() - started), 1)


def growth(unit: str, size: int = 60_000) -> float:
    """The time of twice the text over the time of the text (best of two each)."""
    deidentify, study = Deidentifier(), StudyContext((("PATIENT", "Smith^John"),))

    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(2):
            started = time.process_time()
            deidentify(text, study, 600.0)
            best = min(best, time.process_time() - started)
        return best

    return round(seconds(unit * (2 * size // len(unit))) / max(seconds(unit * (size // len(unit))), 1e-3), 2)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="interpreter that has philter-lite or presidio-analyzer")
    parser.add_argument("--notes", type=int, default=300)
    options = parser.parse_args()
    sets: dict[str, list[GoldNote]] = easy_notes()
    sets |= {f"hard_{half}": hard_notes(options.notes, SEED, half) for half in HALVES}
    result: dict[str, Any] = {"velvet": {}, "velvet_unlisted_names": {}, "beside": {}}
    for name, notes in sets.items():
        result["velvet"][name] = main_figures(evaluate(notes, own_detector(Deidentifier())).metrics())
    for half in HALVES:
        lists = default_lists().without(all_names(half))
        detector = own_detector(Deidentifier(default_layers(lists)))
        result["velvet_unlisted_names"][half] = main_figures(
            evaluate(sets[f"hard_{half}"], detector).metrics()
        )
    for tool in TOOLS if options.python else ():
        for name in ("phantom", "phi_ct_reports", "hard_held_out"):
            try:
                answer = run_tool(tool, sets.get(name, []), options.python)
            except VelvetError as error:
                result["beside"][tool] = error.what
                break
            result["beside"].setdefault(answer.tool, {})[name] = main_figures(answer.scores.metrics())
    texts = [note.text for note in sets.get("phi_ct_reports", sets["phantom"])]
    result["reports_per_s"] = speed(texts * max(1, 100 // len(texts)))
    result["growth"] = {repr(unit): growth(unit) for unit in GROWING}
    json.dump(result, sys.stdout, indent=2, ensure_ascii=False)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
