"""The leak gate: no patient, study, volume or report may lie on two sides of a split, near-duplicates included.

`split` calls it on what it made, and training calls it again on what it is about to read: a table that was edited
or made elsewhere is caught before the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.base.config import parse
from components.base.errors import CheckError
from components.base.step import StepContext
from components.cohort.similarity import Similarity, report_pairs, volume_pairs

CONTENT = ("findings", "impression")
"""The sections whose text is compared: a header or a footer is the same in many reports."""


@dataclass(frozen=True, order=True)
class Leak:
    """Two keyed ids that are the same thing (`kind`) and lie in different splits."""

    kind: str
    first: str
    second: str
    splits: tuple[str, str]

    def __str__(self) -> str:
        same = "" if self.first == self.second else f" and {self.second}"
        return f"{self.kind} {self.first}{same} in {self.splits[0]} and {self.splits[1]}"


def report_texts(
    reports: Iterable[Mapping[str, Any]], sections: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """The text of a report that counts for likeness: findings and impression, else all of it; by study."""
    content: dict[str, list[tuple[int, str]]] = {}
    for row in sections:
        if row["name"] in CONTENT and row["text"].strip():
            content.setdefault(row["study_key"], []).append((row["order"], row["text"]))
    texts = {row["study_key"]: row["text"] for row in reports}
    chosen = {study: "\n".join(text for _, text in sorted(parts)) for study, parts in content.items()}
    return {study: chosen.get(study, text) for study, text in texts.items()}


def leaks_between(
    split: Sequence[Mapping[str, Any]],
    index: Iterable[Mapping[str, Any]] = (),
    texts: Mapping[str, str] | None = None,
    limits: Similarity | None = None,
    accessions: Iterable[tuple[str, str]] = (),
) -> list[Leak]:
    """Every leak of a split table, sorted.

    `index` has `series_key, content_sha256, average_hash`; `texts` reports by study (only those of paired rows
    count); `accessions` are (study_key, accession) pairs, hashed or raw: the value itself is never shown.
    """
    limits = limits or Similarity()
    study_split = {row["study_key"]: row["split"] for row in split}
    series_split = {row["series_key"]: row["split"] for row in split}
    leaks = [leak for kind in ("patient", "study", "series") for leak in _on_two_sides(split, kind)]

    rows = [row for row in index if row["series_key"] in series_split]
    first_with: dict[str, str] = {}
    pairs: list[tuple[str, str, str]] = []
    by_content: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda item: item["series_key"]):
        by_content.setdefault(row["content_sha256"], []).append(row["series_key"])
    for same in by_content.values():
        pairs += [("volume", same[0], other) for other in same[1:]]
    exact = {(first, second) for _, first, second in pairs}
    hashes = {row["series_key"]: row["average_hash"] for row in rows}
    pairs += [("near volume", *pair) for pair in volume_pairs(hashes, limits) if pair not in exact]
    leaks += _apart(pairs, series_split)

    paired = {row["study_key"] for row in split if row["paired"]}
    near = report_pairs({study: text for study, text in (texts or {}).items() if study in paired}, limits)
    leaks += _apart([("report", *pair) for pair in near], study_split)

    numbers: list[tuple[str, str, str]] = []
    for study, value in sorted(accessions):
        if study in study_split:
            numbers.append(("accession", first_with.setdefault(value, study), study))
    leaks += _apart(numbers, study_split)
    return sorted(set(leaks))


def _on_two_sides(split: Sequence[Mapping[str, Any]], kind: str) -> list[Leak]:
    """Keys of a kind that have rows in more than one split."""
    sides: dict[str, set[str]] = {}
    for row in split:
        sides.setdefault(row[f"{kind}_key"], set()).add(row["split"])
    found = []
    for key, names in sorted(sides.items()):
        ordered = sorted(names)
        found += [Leak(kind, key, key, (ordered[0], other)) for other in ordered[1:]]
    return found


def _apart(pairs: Iterable[tuple[str, str, str]], sides: Mapping[str, str]) -> list[Leak]:
    return [
        Leak(kind, first, second, (sides[first], sides[second]))
        for kind, first, second in pairs
        if sides[first] != sides[second]
    ]


def find_leaks(context: StepContext) -> list[Leak]:
    """Every leak of artifacts/split/split.parquet, judged by the bounds of `split.similarity`."""
    from components.base.files import read_table
    from components.cohort.manifest import read_rows

    split = read_rows(context.artifacts("split") / "split.parquet", "split")
    index = read_table(context.artifacts("preprocess") / "index.parquet")
    index = index.select(["series_key", "content_sha256", "average_hash"]).to_pylist()
    reports = read_rows(context.artifacts("deidentify") / "reports.parquet", "reports")
    sections = read_table(context.artifacts("section") / "sections.parquet")
    sections = sections.select(["study_key", "order", "name", "text"]).to_pylist()
    block = (context.all_params.get("split") or {}).get("similarity") or {}
    limits = parse(Similarity, block, "split.similarity")
    return leaks_between(split, index, report_texts(reports, sections), limits)


def require_no_leaks(leaks: Sequence[Leak]) -> None:
    """Raise `CheckError` (`split.leak`) that names the first leak, if there is one."""
    if leaks:
        raise CheckError(
            f"{len(leaks)} leaks between the splits; the first: {leaks[0]}",
            rule="split.leak",
            fix="run the stage split again; do not edit split.parquet by hand",
        )
