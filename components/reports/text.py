"""The text of a report that a model reads: sentences of chosen sections, in order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("findings", "impression")


def report_sentences(sentences: pa.Table, fields: Sequence[str] = FIELDS) -> dict[str, list[str]]:
    """The sentences of each study, white space collapsed, from `artifacts/section/sentences.parquet`.

    `fields` are section names; their order is the order of the sentences (`findings` before `impression`), within
    a section the report's order holds. A study without any such sentence is not in the result.
    """
    rank = {name: place for place, name in enumerate(fields)}
    columns = [sentences.column(name).to_pylist() for name in ("study_key", "section", "order", "text")]
    rows = sorted(
        (study, rank[section], order, text)
        for study, section, order, text in zip(*columns, strict=True)
        if section in rank
    )
    found: dict[str, list[str]] = {}
    for study, _, _, text in rows:
        found.setdefault(study, []).append(" ".join(text.split()))
    return found


def model_text(text: str, fields: Sequence[str] = FIELDS) -> list[str]:
    """`report_sentences` for one raw (de-identified) text, as serving and tests need it."""
    from components.reports.sectioning import sections
    from components.reports.sentences import sentence_spans

    found: dict[str, list[str]] = {name: [] for name in fields}
    for section in sections(text):
        if section.name in found and section.reason is None:
            spans = sentence_spans(text, section.start, section.end)
            found[section.name] += [" ".join(text[start:end].split()) for start, end in spans]
    return [sentence for name in fields for sentence in found[name]]


def regional(rows: Iterable[tuple[str, str, str, str]]) -> dict[str, dict[str, dict[str, list[str]]]]:
    """study -> region -> `positive_findings` / `negative_findings` -> sentences (structured reports).

    `rows` are (study_key, region, polarity, text); neutral sentences are left out.
    """
    result: dict[str, dict[str, dict[str, list[str]]]] = {}
    for study, region, polarity, text in rows:
        if polarity not in ("positive", "negative"):
            continue
        part = result.setdefault(study, {}).setdefault(
            region, {"positive_findings": [], "negative_findings": []}
        )
        part[f"{polarity}_findings"].append(" ".join(text.split()))
    return result
