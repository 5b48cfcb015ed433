"""The studies of each split with their series and sentences, as the stages above left them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError

if TYPE_CHECKING:
    from components.base.step import StepContext

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Study:
    """A study that can be trained on; without sentences it is image-only."""

    study_key: str
    patient_key: str
    series: tuple[str, ...]
    sentences: tuple[str, ...]
    provenance: str

    @property
    def paired(self) -> bool:
        """Whether a report goes with the volume."""
        return bool(self.sentences)


@dataclass(frozen=True)
class Cohort:
    """Studies by split, paired ones first, each group in the order of its keys; and what they are made of."""

    splits: dict[str, tuple[Study, ...]]
    data_hash: str

    def count(self, split: str, *, paired: bool) -> int:
        """How many studies of a split are paired, or are not."""
        return sum(study.paired == paired for study in self.splits[split])


def read_cohort(context: StepContext, report_fields: Sequence[str]) -> Cohort:
    """Read split, section and preprocess; a report without a sentence in `report_fields` is image-only."""
    from components.base.files import read_table

    rows = read_table(context.artifacts("split") / "split.parquet").to_pylist()
    index = read_table(context.artifacts("preprocess") / "index.parquet").to_pylist()
    sentences = read_table(context.artifacts("section") / "sentences.parquet").to_pylist()
    content = {row["series_key"]: row["content_sha256"] for row in index}
    missing = sorted(row["series_key"] for row in rows if row["series_key"] not in content)
    if missing:
        raise InputError(
            f"{len(missing)} series of the split are not in the store",
            key=missing[0],
            rule="pretrain.series",
            fix="run preprocess and split again",
        )
    studies = group_studies(rows, sentences, report_fields)
    return Cohort(studies, _hash(studies["train"], content))


def group_studies(
    rows: Iterable[dict[str, Any]], sentences: Iterable[dict[str, Any]], report_fields: Sequence[str]
) -> dict[str, tuple[Study, ...]]:
    """Rows of `split.parquet` and `sentences.parquet` -> studies by split, paired first, sorted by key."""
    texts: dict[str, list[str]] = {}
    for row in sorted(sentences, key=lambda row: (row["study_key"], row["order"], row["start"])):
        if row["section"] in report_fields and row["text"].strip():
            texts.setdefault(row["study_key"], []).append(row["text"])
    series: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        series.setdefault(row["study_key"], []).append(row)
    found: dict[str, list[Study]] = {name: [] for name in SPLITS}
    for study_key, group in sorted(series.items()):
        first = group[0]
        told = tuple(texts.get(study_key, ())) if first["paired"] else ()
        keys = tuple(sorted(row["series_key"] for row in group))
        found[first["split"]].append(Study(study_key, first["patient_key"], keys, told, first["provenance"]))
    return {
        name: tuple(sorted(studies, key=lambda study: (not study.paired, study.study_key)))
        for name, studies in found.items()
    }


def _hash(studies: Sequence[Study], content: dict[str, str]) -> str:
    """16 hex digits of the training data: keys, volumes' content and text."""
    plain = [[study.study_key, [content[key] for key in study.series], study.sentences] for study in studies]
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:16]
