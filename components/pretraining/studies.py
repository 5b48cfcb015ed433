"""The studies of each split with their series, sentences and findings, as the stages above left them.

Three kinds of study train together. A paired one has a volume and a report (`paired`); an image-only one has no
report in the chosen sections; a text-only one has a report whose volume was refused. Text-only studies are not in
`split.parquet`, which lists series: they join the train split, and only if that can leak nothing (`text_only`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from components.base.step import StepContext

SPLITS = ("train", "validation", "test")
SAID = ("present", "uncertain")
Structured = Mapping[str, Mapping[str, Sequence[str]]]
"""Region -> "positive" and "negative" -> statements."""


@dataclass(frozen=True)
class Study:
    """A study that can be trained on; without sentences it is image-only, without series text-only.

    `structured` is the report by region (None where the stage `section` left no such table), `findings` what the
    report says is there or suspects, sorted.
    """

    study_key: str
    patient_key: str
    series: tuple[str, ...]
    sentences: tuple[str, ...]
    provenance: str
    structured: Structured | None = None
    findings: tuple[str, ...] = ()

    @property
    def paired(self) -> bool:
        """Whether it has both a volume and a report."""
        return bool(self.sentences) and bool(self.series)

    @property
    def kind(self) -> str:
        """`paired`, `image_only` or `text_only`."""
        return "paired" if self.paired else "image_only" if self.series else "text_only"


KINDS = ("paired", "image_only", "text_only")


@dataclass(frozen=True)
class Cohort:
    """Studies by split: paired ones, image-only ones, text-only ones (train split only), each by their keys."""

    splits: dict[str, tuple[Study, ...]]
    data_hash: str

    def count(self, split: str, *, paired: bool) -> int:
        """How many studies of a split are paired, or are image-only."""
        return self.count_kind(split, "paired" if paired else "image_only")

    def count_kind(self, split: str, kind: str) -> int:
        """How many studies of a split are `paired`, `image_only` or `text_only`."""
        return sum(study.kind == kind for study in self.splits[split])


def read_cohort(context: StepContext, report_fields: Sequence[str]) -> Cohort:
    """Read split, section and preprocess; a report without a sentence in `report_fields` is image-only."""
    from components.base.files import read_table

    section = context.artifacts("section")
    rows = read_table(context.artifacts("split") / "split.parquet").to_pylist()
    index = read_table(context.artifacts("preprocess") / "index.parquet").to_pylist()
    sentences = read_table(section / "sentences.parquet").to_pylist()
    content = {row["series_key"]: row["content_sha256"] for row in index}
    missing = sorted(row["series_key"] for row in rows if row["series_key"] not in content)
    if missing:
        raise InputError(
            f"{len(missing)} series of the split are not in the store",
            key=missing[0],
            rule="pretrain.series",
            fix="run preprocess and split again",
        )
    studies = group_studies(
        [*rows, *text_only(context, rows)],
        sentences,
        report_fields,
        structured=read_structured(section / "structured.parquet", report_fields),
        findings=read_findings(section / "findings.parquet"),
    )
    return Cohort(studies, _hash(studies["train"], content))


def read_structured(path: Path, report_fields: Sequence[str]) -> dict[str, Structured] | None:
    """Structured reports by study, of the sections `report_fields`; None where there is no such table."""
    from components.base.files import read_table

    if not path.exists():
        return None
    from components.reports.structured import structured_reports

    return dict(structured_reports(read_table(path), sections=report_fields))


def read_findings(path: Path) -> dict[str, tuple[str, ...]]:
    """By study, the findings that its report says are present or suspects; empty where there is no table."""
    from components.base.files import read_table

    if not path.exists():
        return {}
    found: dict[str, set[str]] = {}
    for row in read_table(path).to_pylist():
        if row["status"] in SAID:
            found.setdefault(row["study_key"], set()).add(row["finding"])
    return {study: tuple(sorted(names)) for study, names in sorted(found.items())}


def text_only(context: StepContext, split: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the train split for accepted reports without any volume (`series_key` None).

    A report takes part only if its patient is neither in validation nor in test, and if it is no near-duplicate of
    a report there (by the limits of the leak gate). Without the manifest or `check_reports` there are none.
    """
    from components.base.config import parse
    from components.base.files import read_table
    from components.cohort.leaks import report_texts
    from components.cohort.similarity import Similarity, report_pairs

    accepted = context.artifacts("check_reports") / "accepted.parquet"
    manifest = context.artifacts("deidentify") / "manifest.parquet"
    if not accepted.exists() or not manifest.exists():
        return []
    checked = {row["study_key"] for row in read_table(accepted).to_pylist()}
    known = {row["study_key"] for row in split}
    held_out = {row["patient_key"] for row in split if row["split"] != "train"}
    candidates = {
        row["study_key"]: row
        for row in read_table(manifest).to_pylist()
        if row["study_key"] in checked - known and row["patient_key"] not in held_out
    }
    if not candidates:
        return []
    sections = read_table(context.artifacts("section") / "sections.parquet").to_pylist()
    reports = read_table(context.artifacts("deidentify") / "reports.parquet").to_pylist()
    texts = report_texts(reports, sections)
    limits = parse(
        Similarity, (context.all_params.get("split") or {}).get("similarity") or {}, "split.similarity"
    )
    tested = {row["study_key"] for row in split if row["split"] != "train" and row["paired"]}
    chosen = {study: text for study, text in texts.items() if study in tested or study in candidates}
    near = {study for pair in report_pairs(chosen, limits) if set(pair) & tested for study in pair}
    return [
        {
            "study_key": study,
            "patient_key": row["patient_key"],
            "series_key": None,
            "split": "train",
            "paired": True,
            "provenance": row["provenance"],
        }
        for study, row in sorted(candidates.items())
        if study not in near
    ]


def group_studies(
    rows: Iterable[Mapping[str, Any]],
    sentences: Iterable[Mapping[str, Any]],
    report_fields: Sequence[str],
    structured: Mapping[str, Structured] | None = None,
    findings: Mapping[str, tuple[str, ...]] | None = None,
) -> dict[str, tuple[Study, ...]]:
    """Rows of `split.parquet` and `sentences.parquet` -> studies by split, by kind (`KINDS`), then by key.

    A text-only row has no `series_key`; one without a sentence in `report_fields` is left out.
    """
    texts: dict[str, list[str]] = {}
    for row in sorted(sentences, key=lambda row: (row["study_key"], row["order"], row["start"])):
        if row["section"] in report_fields and row["text"].strip():
            texts.setdefault(row["study_key"], []).append(row["text"])
    series: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        series.setdefault(row["study_key"], []).append(row)
    found: dict[str, list[Study]] = {name: [] for name in SPLITS}
    for study_key, group in sorted(series.items()):
        first = group[0]
        told = tuple(texts.get(study_key, ())) if first["paired"] else ()
        keys = tuple(sorted(row["series_key"] for row in group if row["series_key"] is not None))
        if not keys and not told:
            continue
        found[first["split"]].append(
            Study(
                study_key,
                first["patient_key"],
                keys,
                told,
                first["provenance"],
                structured.get(study_key, {}) if structured is not None and told else None,
                (findings or {}).get(study_key, ()) if told else (),
            )
        )
    return {
        name: tuple(sorted(studies, key=lambda study: (KINDS.index(study.kind), study.study_key)))
        for name, studies in found.items()
    }


def _hash(studies: Sequence[Study], content: Mapping[str, str]) -> str:
    """16 hex digits of the training data: keys, volumes' content, text and what was read from it."""
    plain: list[Any] = []
    for study in studies:
        entry: list[Any] = [study.study_key, [content[key] for key in study.series], study.sentences]
        if study.structured is not None:
            entry.append(study.structured)
        plain.append([*entry, study.findings] if study.findings else entry)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
