"""Stage `section`: sections, sentences and the 18 findings of every de-identified report.

Reads artifacts/deidentify/{reports,labels}.parquet. Every character of a report belongs to one section; a
report without headings is findings with confidence `low`. Where gold labels exist the text's are compared.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.base.config import Config
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    import pyarrow as pa


class Params(Config):
    """The block `section`."""

    findings_from: tuple[str, ...] = ("findings", "impression", "addendum")


def schemas() -> dict[str, pa.Schema]:
    """The schemas of the stage's three tables."""
    import pyarrow as pa

    text, number, long = pa.string(), pa.int64(), pa.large_string()
    places = [("start", number), ("end", number), ("text", long)]
    return {
        "sections": pa.schema(
            [
                ("study_key", text),
                ("order", number),
                ("name", text),
                ("heading_start", number),
                *places,
                ("confidence", text),
                ("reason", text),
                ("part", number),
            ]
        ),
        "sentences": pa.schema(
            [
                ("study_key", text),
                ("section", text),
                ("order", number),
                *places,
                ("polarity", text),
                ("region", text),
            ]
        ),
        "findings": pa.schema(
            [
                ("study_key", text),
                ("finding", text),
                ("status", text),
                ("sentence_order", number),
                ("laterality", text),
            ]
        ),
    }


def analyse(key: str, text: str, findings_from: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The rows of the three tables for one report; `order` of sentences counts through the whole report."""
    from components.reports.findings import labels, mentions, polarity, region, strongest
    from components.reports.sectioning import sections
    from components.reports.sentences import sentence_spans

    rows: dict[str, list[dict[str, Any]]] = {"sections": [], "sentences": [], "findings": []}
    said: dict[str, list[tuple[str, int]]] = defaultdict(list)
    sides: dict[tuple[str, int], str] = {}
    order = 0
    for section in sections(text):
        rows["sections"].append({"study_key": key, **vars(section)})
        if section.reason is not None:
            continue
        told = section.name in findings_from
        for start, end in sentence_spans(text, section.start, section.end):
            sentence = text[start:end]
            named = mentions(sentence) if told else []
            for mention in named:
                said[mention.finding].append((mention.status, order))
                sides[mention.finding, order] = mention.laterality
            about = (
                {"polarity": polarity(sentence, named), "region": region(sentence)}
                if told
                else {"polarity": "neutral", "region": "other"}
            )
            place = {"start": start, "end": end, "text": sentence}
            rows["sentences"].append(
                {"study_key": key, "section": section.name, "order": order, **place, **about}
            )
            order += 1
    for label in labels():
        status, where = strongest(said[label])
        side = sides.get((label, where), "") if where is not None else ""
        rows["findings"].append(
            {
                "study_key": key,
                "finding": label,
                "status": status,
                "sentence_order": where,
                "laterality": side,
            }
        )
    return rows


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Analyse every report and write the tables of the stage."""
    import pyarrow as pa

    from components.base.files import write_table
    from components.cohort.manifest import read_rows

    source = context.artifacts("deidentify")
    reports = read_rows(source / "reports.parquet", "reports")
    tables: dict[str, list[dict[str, Any]]] = {"sections": [], "sentences": [], "findings": []}
    for done, row in enumerate(reports, 1):
        for name, rows in analyse(row["study_key"], row["text"], params.findings_from).items():
            tables[name] += rows
        context.progress(done, len(reports))
    for name, layout in schemas().items():
        write_table(context.out / f"{name}.parquet", pa.Table.from_pylist(tables[name], schema=layout))
    gold = read_rows(source / "labels.parquet", "labels")
    return _metrics(tables, [row["study_key"] for row in reports]) | _against_gold(tables["findings"], gold)


def _metrics(tables: Mapping[str, Sequence[Mapping[str, Any]]], studies: Sequence[str]) -> dict[str, Any]:
    has: dict[str, set[str]] = defaultdict(set)
    low: set[str] = set()
    for row in tables["sections"]:
        if row["reason"] is None:
            has[row["name"]].add(row["study_key"])
        if row["confidence"] == "low":
            low.add(row["study_key"])
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    for row in tables["findings"]:
        statuses[row["finding"]][row["status"]] += 1
    total = len(studies)

    def share(count: int) -> float | None:
        return round(count / total, 6) if total else None

    return {
        "num_reports": total,
        "share_with_findings": share(len(has["findings"])),
        "share_with_impression": share(len(has["impression"])),
        "share_low_confidence": share(len(low)),
        "sentences_per_report": round(len(tables["sentences"]) / total, 3) if total else None,
        "polarity": dict(sorted(Counter(row["polarity"] for row in tables["sentences"]).items())),
        "prevalence": {name: dict(sorted(counts.items())) for name, counts in statuses.items()},
    }


def _against_gold(findings: Sequence[Mapping[str, Any]], gold: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy and F1 of `present` (uncertain counts as present, not mentioned as absent) against gold labels."""
    truth = {(row["study_key"], row["name"]): row["value"] for row in gold}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in findings:
        value = truth.get((row["study_key"], row["finding"]))
        if value is None:
            continue
        said = row["status"] in ("present", "uncertain")
        counts[row["finding"]][("tp" if value else "fp") if said else ("fn" if value else "tn")] += 1
    if not counts:
        return {}
    by_label = {name: _scores(found) for name, found in sorted(counts.items())}
    pooled: Counter[str] = sum(counts.values(), Counter())
    return {"gold": {"micro": _scores(pooled), "by_label": by_label, "num_labels": sum(pooled.values())}}


def _scores(found: Mapping[str, int]) -> dict[str, float | int | None]:
    tp, fp, fn, tn = (found.get(name, 0) for name in ("tp", "fp", "fn", "tn"))
    f1 = round(2 * tp / (2 * tp + fp + fn), 6) if tp + fp + fn else None
    return {"accuracy": round((tp + tn) / (tp + fp + fn + tn), 6), "f1": f1, "n": tp + fp + fn + tn}


STEP = Step("section", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
