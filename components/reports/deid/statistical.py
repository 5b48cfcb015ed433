"""Optional layer 5: a token-classification model from a local folder, through ONNX Runtime or spaCy.

Off unless a folder is named. An ONNX folder holds `model.onnx` (inputs `input_ids`, `attention_mask` and perhaps
`token_type_ids`; output logits `[1, L, labels]`), `tokenizer.json`, and `config.json` with `id2label`; a spaCy
folder holds `meta.json`. It fails closed: a folder that is missing, incomplete or of no known label is a
`ConfigError` before the first note; an error on a note is the detector's error, which refuses the note.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from components.base.errors import ConfigError
from components.reports.deid.note import Note
from components.reports.deid.span import Layer, Span, StudyContext

WINDOW, STRIDE = 480, 96
_PREFIX = re.compile(r"^[BILUES][-_]")
_KINDS = {
    "PERSON": "PER PERSON NAME PEOPLE HCW FIRSTNAME LASTNAME SURNAME GIVENNAME VICTIM",
    "PATIENT": "PATIENT",
    "STAFF": "STAFF DOCTOR PHYSICIAN PROVIDER",
    "DATE": "DATE DATE_TIME DOB",
    "HOSPITAL": "HOSPITAL HOSP ORG ORGANIZATION VENDOR FAC FACILITY",
    "ADDRESS": "ADDRESS LOC LOCATION GPE CITY STREET ZIP ZIPCODE STATE COUNTRY",
    "PHONE": "PHONE FAX PHONE_NUMBER TELEPHONENUM",
    "EMAIL": "EMAIL EMAIL_ADDRESS",
    "ID": "ID IDNUM USERNAME ACCOUNT DEVICE SERIAL LICENSE",
    "MRN": "MRN MEDICALRECORD",
    "SSN": "SSN SOCIALNUM",
    "AGE": "AGE",
}
_KIND_OF = {label: kind for kind, labels in _KINDS.items() for label in labels.split()}
Hit = tuple[int, int, str, float]


class Model(Protocol):
    """What a folder is loaded as."""

    def hits(self, text: str) -> list[Hit]:
        """(start, end, label, score) of every entity in a text."""
        ...


def kind_of(label: str) -> str | None:
    """The kind of a model's label (`B-PER`, `I_DATE`), or None where it names no PHI."""
    return _KIND_OF.get(_PREFIX.sub("", label).upper().replace("-", "_"))


def _broken(what: str) -> ConfigError:
    return ConfigError(
        f"the statistical detector {what}",
        rule="deidentify.detector",
        fix="name a folder with a token-classification model (ONNX or spaCy), or leave the parameter out",
    )


class Statistical:
    """Finds what a model takes for PHI."""

    name = "statistical"

    def __init__(self, folder: str | Path, threshold: float = 0.5) -> None:
        """Load the model of `folder`; raises `ConfigError` where that cannot be done."""
        if not 0 < threshold <= 1:
            raise _broken("needs a threshold above 0 and not above 1")
        self.model = load(str(folder))
        self.threshold = threshold

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of the model with at least the threshold; an age only above 89."""
        spans = []
        for start, end, label, score in self.model.hits(text.view):
            kind = kind_of(label)
            if kind is None or score < self.threshold:
                continue
            number = re.search(r"\d+", text.view[start:end])
            if kind == "AGE" and (number is None or int(number.group()) < 90):
                continue
            spans.append(
                Span(start, end, kind, self.name, f"model.{kind.lower()}", round(min(score, 0.99), 4))
            )
        return spans


@lru_cache(maxsize=2)
def load(folder: str) -> Model:
    """The model of a folder, loaded once a process."""
    path = Path(folder)
    if not path.is_dir():
        raise _broken("has no folder at the path given")
    try:
        if (path / "meta.json").is_file():
            return _Spacy(path)
        return _Onnx(path)
    except ConfigError:
        raise
    except Exception as error:
        raise _broken(f"cannot be loaded ({type(error).__name__})") from None


class _Spacy:
    def __init__(self, path: Path) -> None:
        import spacy

        self.pipeline = spacy.load(path)
        labels = [
            label for name in self.pipeline.pipe_names for label in self.pipeline.pipe_labels.get(name, [])
        ]
        if not any(kind_of(label) for label in labels):
            raise _broken("knows no label of PHI")

    def hits(self, text: str) -> list[Hit]:
        """Entities of the pipeline, which gives no scores: 0.7."""
        return [(item.start_char, item.end_char, item.label_, 0.7) for item in self.pipeline(text).ents]


class _Onnx:
    def __init__(self, path: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        missing = [
            name for name in ("model.onnx", "tokenizer.json", "config.json") if not (path / name).is_file()
        ]
        if missing:
            raise _broken(f"lacks {', '.join(missing)}")
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        labels: dict[str, str] = config.get("id2label") or {}
        self.labels = [labels[str(number)] for number in range(len(labels))]
        if not any(kind_of(label) for label in self.labels):
            raise _broken("knows no label of PHI")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(path / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def hits(self, text: str) -> list[Hit]:
        """Runs of tokens of one kind, each with its lowest score; windows overlap, the surer score counts."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        best: dict[int, tuple[str, float]] = {}
        for first, labels in self._windows(encoding.ids):
            for place, (label, score) in enumerate(labels, first):
                if place not in best or score > best[place][1]:
                    best[place] = (label, score)
        found: list[Hit] = []
        for place in sorted(best):
            label, score = best[place]
            kind = kind_of(label)
            if kind is None:
                continue
            start, end = encoding.offsets[place]
            touching = found and found[-1][2] == kind and text[found[-1][1] : start].strip(" ,.-'") == ""
            if touching:
                found[-1] = (found[-1][0], end, kind, min(found[-1][3], score))
            elif end > start:
                found.append((start, end, kind, score))
        return found

    def _windows(self, ids: list[int]) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        import numpy as np

        for first in range(0, max(1, len(ids)), WINDOW - STRIDE):
            part = np.array([ids[first : first + WINDOW]], dtype=np.int64)
            if part.size == 0:
                return
            every: dict[str, Any] = {
                "input_ids": part,
                "attention_mask": np.ones_like(part),
                "token_type_ids": np.zeros_like(part),
            }
            logits = self.session.run(None, {name: every[name] for name in self.inputs})[0][0]
            if logits.shape != (part.shape[1], len(self.labels)) or not np.isfinite(logits).all():
                raise ValueError("the model's answer has the wrong shape or no finite values")
            weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
            scores = weights / weights.sum(axis=-1, keepdims=True)
            chosen = scores.argmax(axis=-1)
            yield first, [(self.labels[k], float(scores[row, k])) for row, k in enumerate(chosen)]
            if first + WINDOW >= len(ids):
                return


def statistical_layers(folder: str | None) -> tuple[Layer, ...]:
    """The layer of a folder, or none where no folder is named."""
    return (Statistical(folder),) if folder else ()
