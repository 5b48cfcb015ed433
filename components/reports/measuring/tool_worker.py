"""Philter or Presidio on notes from standard input, one JSON a line; runs under the Python that has the tool.

`python tool_worker.py philter|presidio` needs nothing of this project. Each answered line is `{"spans": [[start, end,
kind]], "seconds": processor time}`; the first line of the answer says which tool and version ran, or why none can.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

Found = list[tuple[int, int, str]]


def philter() -> tuple[str, Callable[[str], Found]]:
    """Philter's delta configuration as philter-lite carries it.

    Its part-of-speech tagger needs data that NLTK fetches; where they are absent, capitals stand for proper nouns.
    """
    import nltk
    import philter_lite

    rest = ""
    try:
        nltk.pos_tag(["Roe"])
    except LookupError:
        rest = " (no NLTK tagger data: capitals taken for proper nouns)"
        nltk.pos_tag = by_capitals

    filters = philter_lite.load_filters(
        str(Path(philter_lite.__file__).parent / "configs" / "philter_delta.toml")
    )

    def detect(text: str) -> Found:
        _, _, tracker = philter_lite.detect_phi(text, patterns=filters)
        return [(item.start, item.stop, str(item.phi_type)) for item in tracker.phi]

    detect("Seen by Dr. Roe on 3/4/2020.")
    return f"philter-lite {importlib.metadata.version('philter-lite')}{rest}", detect


def by_capitals(words: list[str]) -> list[tuple[str, str]]:
    """A stand-in for a tagger: numbers, words with a capital as proper nouns, the rest as nouns."""
    return [(word, "CD" if word.isdigit() else "NNP" if word[:1].isupper() else "NN") for word in words]


def presidio() -> tuple[str, Callable[[str], Found]]:
    """Presidio's analyzer with spaCy's small English model, or with rules only where there is no model."""
    import spacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    model = "en_core_web_sm"
    installed = model in spacy.util.get_installed_models()

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": model}])
            self.nlp = {"en": spacy.load(model) if installed else spacy.blank("en")}

    engine = AnalyzerEngine(nlp_engine=Blank(), supported_languages=["en"])

    def detect(text: str) -> Found:
        return [(item.start, item.end, item.entity_type) for item in engine.analyze(text, language="en")]

    detect("Seen by Dr. Roe on 3/4/2020.")
    rest = model if installed else "no model: rules only"
    return f"presidio-analyzer {importlib.metadata.version('presidio-analyzer')} ({rest})", detect


def main() -> int:
    """Answer every line of standard input."""
    try:
        name, detect = {"philter": philter, "presidio": presidio}[sys.argv[1]]()
    except Exception as error:
        reason = str(error).strip().splitlines()[:1]
        sys.stdout.write(
            json.dumps({"failed": f"{type(error).__name__}: {reason[0] if reason else ''}"}) + "\n"
        )
        return 0
    sys.stdout.write(json.dumps({"tool": name}) + "\n")
    for line in sys.stdin:
        text = json.loads(line)
        started = time.process_time()
        spans = detect(text)
        sys.stdout.write(json.dumps({"spans": spans, "seconds": time.process_time() - started}) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
