"""Velvet's sectioning, sentences and assertions beside medspaCy's, on the same cases in one run.

medspaCy is no dependency of the project. From the project's root, with a Python that has it:

    python -m venv /tmp/medspacy && /tmp/medspacy/bin/pip install medspacy
    PYTHONPATH=. /tmp/medspacy/bin/python tests/benchmarks/bench_medspacy.py

ConText gets the mentions that Velvet's lexicon finds, so that only the assertion is compared; the sectionizer is
right when a section's body is exact, whatever it calls the section. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.reports import findings
from components.reports.sectioning import sections
from components.reports.sentences import sentence_spans
from tests.benchmarks.report_cases import boundaries_f1, sentence_cases, trap_cases
from tests.benchmarks.report_layouts import CANONICAL, DEVELOPMENT, HELD_OUT, reports, scored

DATA = Path(__file__).resolve().parents[1] / "data" / "reports"
Cut = Callable[[str], list[tuple[str, int, int]]]


def velvet_cut(text: str) -> list[tuple[str, int, int]]:
    """Velvet's sections as (name, start, end)."""
    return [(section.name, section.start, section.end) for section in sections(text)]


def velvet_status(sentence: str, label: str) -> str:
    """Velvet's status of a finding in a sentence."""
    return next((m.status for m in findings.mentions(sentence) if m.finding == label), "not_mentioned")


def medspacy_parts() -> tuple[Cut, Callable[[str, str], str], Callable[[str], list[tuple[int, int]]]]:
    """medspaCy's sectionizer, ConText and sentence splitter behind the same three functions."""
    import medspacy
    from loguru import logger
    from medspacy.section_detection import Sectionizer

    logger.remove()
    plain = medspacy.load(medspacy_enable=["medspacy_tokenizer"])
    sectionizer = Sectionizer(plain)
    asserting = medspacy.load(medspacy_enable=["medspacy_tokenizer", "medspacy_pyrush", "medspacy_context"])
    context = asserting.get_pipe("medspacy_context")

    def cut(text: str) -> list[tuple[str, int, int]]:
        doc = sectionizer(plain(text))
        found = []
        for section in doc._.sections:
            start, end = section.body_span
            body = doc[start:end]
            piece = body.text.strip(" :\r\n\t*-")
            at = text.find(piece, body.start_char) if piece else body.start_char
            found.append((str(section.category), at, at + len(piece)))
        return found

    def status(sentence: str, label: str) -> str:
        lower = " ".join(sentence.lower().split())
        rule = next(rule for rule in findings._rules() if rule.label == label)
        _, ((start, end), *_) = findings._status(rule, lower)
        if end == start:
            return "not_mentioned"
        doc = asserting.make_doc(lower)
        span = doc.char_span(start, end, label="FINDING", alignment_mode="expand")
        doc = asserting.get_pipe("medspacy_pyrush")(doc)
        doc.ents = [span]
        found = context(doc).ents[0]._
        if found.is_negated:
            return "absent"
        return "uncertain" if found.is_uncertain or found.is_hypothetical else "present"

    def split(text: str) -> list[tuple[int, int]]:
        doc = asserting.get_pipe("medspacy_pyrush")(asserting.make_doc(text))
        return [(s.start_char, s.start_char + len(s.text.rstrip())) for s in doc.sents if s.text.strip()]

    return cut, status, split


def any_name(cut: Cut) -> Cut:
    """A cut whose sections carry no name, so that only the bodies are compared."""
    return lambda text: [("", start, end) for _, start, end in cut(text)]


def measured(cut: Cut, status: Callable[[str, str], str], split: Callable[[str], Any]) -> dict[str, Any]:
    """All figures of one system."""
    result: dict[str, Any] = {"sections": {}, "traps": {}, "sentences": {}}
    for name, pool, seed in (
        ("eight_styles", CANONICAL, 3),
        ("development", DEVELOPMENT, 1),
        ("held_out", HELD_OUT, 901),
    ):
        drawn = reports(pool, seed, 10, ("en",))
        unnamed = [type(r)(r.text, [("", a, b) for _, a, b in r.gold], r.layout, r.language) for r in drawn]
        styles = scored(unnamed, any_name(cut))
        mean = sum(style["exact"] for style in styles.values()) / len(styles)
        result["sections"][name] = {
            "mean_exact": round(mean, 4),
            "best": max(style["exact"] for style in styles.values()),
            "by_style": {key: style["exact"] for key, style in styles.items()},
        }
    for name in sorted(path.stem for path in DATA.glob("traps*.tsv")):
        cases = trap_cases(DATA / f"{name}.tsv")
        right = sum(status(sentence, label) == wanted for sentence, label, wanted, _ in cases)
        result["traps"][name] = {"accuracy": round(right / len(cases), 4), "n": len(cases)}
    for name in ("sentences", "sentences_held_out"):
        result["sentences"][name] = boundaries_f1(sentence_cases(DATA / f"{name}.txt"), split)
    texts = [report.text for report in reports(DEVELOPMENT, 2, 5, ("en",))]
    started = time.process_time()
    for text in texts:
        cut(text)
        split(text)
    spent = time.process_time() - started
    result["reports_of_1200_chars_per_s"] = round(sum(map(len, texts)) / 1200 / spent, 1)
    return result


def main() -> int:
    """Measure both and print."""
    result = {
        "velvet": measured(velvet_cut, velvet_status, sentence_spans),
        "medspacy": measured(*medspacy_parts()),
    }
    json.dump(result, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
