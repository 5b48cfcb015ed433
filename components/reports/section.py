"""Stage `section`: sections, sentences, the 18 findings and the structured form of every de-identified report.

Reads artifacts/deidentify/{reports,labels}.parquet. Every character of a report belongs to one section; a
report without headings is findings with confidence `low`. `subsections` are the anatomical parts of a section
(`LUNGS:`), `structured` has per region the positive and the negative statements. Where gold labels exist the
text's are compared. The bytes do not depend on `workers`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    import pyarrow as pa

    from components.reports.findings import Mention

CHUNK = 128
Rows = dict[str, list[dict[str, Any]]]
Job = tuple[str, str, tuple[str, ...]]


class Params(Config):
    """The block `section`."""

    findings_from: tuple[str, ...] = ("findings", "impression", "addendum")
    workers: int = Field(1, ge=1)


def schemas() -> dict[str, pa.Schema]:
    """The schemas of the stage's tables."""
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
                ("study", number),
            ]
        ),
        "subsections": pa.schema(
            [
                ("study_key", text),
                ("section_order", number),
                ("region", text),
                ("heading_start", number),
                *places,
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
                ("temporality", text),
            ]
        ),
        "structured": pa.schema(
            [
                ("study_key", text),
                ("region", text),
                ("polarity", text),
                ("section", text),
                ("order", number),
                ("text", long),
            ]
        ),
    }


def analyse(key: str, text: str, findings_from: Sequence[str]) -> Rows:
    """The rows of the tables for one report; `order` of sentences counts through the whole report."""
    from components.reports.findings import mentions, polarity, region_in
    from components.reports.sectioning import sections
    from components.reports.sentences import sentence_spans
    from components.reports.structured import structured_rows
    from components.reports.subsections import Subsection, subsection_of, subsections

    rows: Rows = {"sections": [], "subsections": [], "sentences": []}
    mentioned: dict[int, list[Mention]] = {}
    stated: list[dict[str, Any]] = []
    all_parts: list[Subsection] = []
    order = 0
    for section in sections(text):
        rows["sections"].append({"study_key": key, **section._asdict()})
        if section.reason is not None:
            continue
        told = section.name in findings_from
        parts = subsections(text, section.start, section.end) if told else []
        all_parts += parts
        for part in parts:
            place = {"heading_start": part.heading_start, "start": part.start, "end": part.end}
            said = {"region": part.region, "text": text[part.start : part.end]}
            rows["subsections"].append({"study_key": key, "section_order": section.order, **place, **said})
        for start, end in sentence_spans(text, section.start, section.end):
            sentence = text[start:end]
            about = {"polarity": "neutral", "region": "other"}
            if told:
                mentioned[order] = named = mentions(sentence)
                within = subsection_of(parts, start, end)
                words = text[within.start : end] if within and start <= within.heading_start else sentence
                place_of = region_in(words, within.region if within else None)
                about = {"polarity": polarity(sentence, named), "region": place_of}
            row = {"study_key": key, "section": section.name, "order": order, "start": start, "end": end}
            rows["sentences"].append({**row, "text": sentence, **about})
            if told:
                stated.append(rows["sentences"][-1])
            order += 1
    rows["findings"] = _finding_rows(key, mentioned)
    rows["structured"] = structured_rows(key, stated, all_parts)
    return rows


def _finding_rows(key: str, mentioned: Mapping[int, Sequence[Mention]]) -> list[dict[str, Any]]:
    """One row a label: its status in the report, the first sentence that gives it, and the side."""
    from components.reports.findings import labels, strongest

    said: dict[str, list[tuple[str, int]]] = defaultdict(list)
    about: dict[tuple[str, int], Mention] = {}
    for order, named in mentioned.items():
        for mention in named:
            said[mention.finding].append((mention.status, order))
            about[mention.finding, order] = mention
    rows = []
    for label in labels():
        status, where = strongest(said[label])
        told = about.get((label, where)) if where is not None else None
        values = {"finding": label, "status": status, "sentence_order": where}
        more = {"laterality": "", "temporality": ""}
        if told:
            more = {"laterality": told.laterality, "temporality": told.temporality}
        rows.append({"study_key": key, **values, **more})
    return rows


def analyse_all(jobs: Sequence[Job]) -> Rows:
    """`analyse` over jobs (key, text, sections that state findings), the tables joined in their order."""
    tables: Rows = {}
    for key, text, findings_from in jobs:
        for name, rows in analyse(key, text, findings_from).items():
            tables.setdefault(name, []).extend(rows)
    return tables


def _analysed(jobs: Sequence[Job], workers: int) -> Iterator[tuple[int, Rows]]:
    """(number of reports, their tables) of chunks of the jobs, in order, by `workers` processes."""
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    if workers == 1 or len(chunks) < 2:
        yield from ((len(chunk), analyse_all(chunk)) for chunk in chunks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for chunk, tables in zip(chunks, pool.map(analyse_all, chunks), strict=True):
            yield len(chunk), tables


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Analyse every report and write the tables of the stage."""
    import pyarrow as pa

    from components.base.files import write_table
    from components.cohort.manifest import read_rows

    source = context.artifacts("deidentify")
    reports = read_rows(source / "reports.parquet", "reports")
    layouts = schemas()
    tables: Rows = {name: [] for name in layouts}
    jobs = [(row["study_key"], row["text"], params.findings_from) for row in reports]
    done = 0
    for count, chunk in _analysed(jobs, params.workers):
        for name, rows in chunk.items():
            tables[name] += rows
        done += count
        context.progress(done, len(reports))
    for name, layout in layouts.items():
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
        "structured": dict(
            sorted(Counter(f"{row['region']}.{row['polarity']}" for row in tables["structured"]).items())
        ),
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
