"""Stage `deidentify`: reports without PHI, an audit without text, and the way back in restricted/.

Reads restricted/check_cohort/manifest.parquet and restricted/ingest/{identities,gold_spans}.parquet. A study
that cannot be de-identified with certainty (detector error, time-out, encoding) is quarantined and passes no
further; a study without a report passes with no report row.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext

if TYPE_CHECKING:
    from components.reports.deid.engine import Result

CHUNK = 64


class Params(Config):
    """The block `deidentify`."""

    action: Literal["tag"] = "tag"
    tag_times: bool = False
    review_below: float = Field(0.8, ge=0, le=1)
    timeout_s: float = Field(10.0, gt=0)
    max_quarantined_fraction: float = Field(0.2, ge=0, le=1)
    workers: int = Field(1, ge=1)


class Job(NamedTuple):
    """One study's note and what is known of it; picklable, so that several processes share the work."""

    study_key: str
    report: str
    identities: tuple[tuple[str, str], ...]
    tag_times: bool
    timeout_s: float


class Outcome(NamedTuple):
    """What became of a job: a result, or the rule and reason of its refusal."""

    study_key: str
    result: Result | None
    rule: str = ""
    reason: str = ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Refusal` in this block after `seconds`, in the midst of a regular expression too (main thread only)."""
    from components.reports.deid.engine import Refusal

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise Refusal("deidentify.timeout", "the note took longer than timeout_s")

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def handle(jobs: Sequence[Job]) -> list[Outcome]:
    """De-identify notes one by one; whatever goes wrong with one becomes its refusal."""
    from components.reports.deid.engine import Deidentifier, Refusal
    from components.reports.deid.span import StudyContext

    deidentify = Deidentifier()
    outcomes = []
    for job in jobs:
        study = StudyContext(job.identities, job.tag_times)
        try:
            with time_limit(job.timeout_s):
                outcomes.append(Outcome(job.study_key, deidentify(job.report, study, job.timeout_s)))
        except Refusal as refusal:
            outcomes.append(Outcome(job.study_key, None, refusal.rule, refusal.reason))
        except (
            Exception,
            RecursionError,
        ) as error:  # fail closed, and without the text that the error may hold
            reason = f"an unexpected {type(error).__name__}"
            outcomes.append(Outcome(job.study_key, None, "deidentify.detector", reason))
    return outcomes


def handle_all(jobs: Sequence[Job], workers: int, context: StepContext) -> list[Outcome]:
    """`handle` over all jobs in order, by `workers` processes; a process that dies costs only its own note."""
    chunks = [jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK)]
    outcomes: list[Outcome] = []
    if workers == 1 or len(chunks) < 2:
        for chunk in chunks:
            outcomes += handle(chunk)
            context.progress(len(outcomes), len(jobs))
        return outcomes
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = [pool.submit(handle, chunk) for chunk in chunks]
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                outcomes += future.result()
            except BrokenProcessPool:
                outcomes += [_alone(job, spawn) for job in chunk]
            context.progress(len(outcomes), len(jobs))
    return outcomes


def _alone(job: Job, spawn: Any) -> Outcome:
    """A note in a process of its own, after a process that held it has died."""
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    try:
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            return pool.submit(handle, [job]).result()[0]
    except BrokenProcessPool:
        return Outcome(job.study_key, None, "deidentify.crash", "the process that read the note died")


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """De-identify every study's report once and write the tables of the stage."""
    from components.cohort.manifest import read_rows, write_rows
    from components.cohort.quarantine import Quarantine

    rows = read_rows(context.restricted("check_cohort") / "manifest.parquet", "manifest")
    ingest = context.restricted("ingest")
    known: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_rows(ingest / "identities.parquet", "identities"):
        known[row["study_key"]].append((row["kind"], row["value"]))
    quarantine = Quarantine("deidentify", context.log)
    reports, refused = _one_report_a_study(rows)
    jobs = [
        Job(key, text, tuple(dict.fromkeys(known[key])), params.tag_times, params.timeout_s)
        for key, text in reports.items()
        if key not in refused
    ]
    context.log.info("%d reports of %d series", len(jobs), len(rows))
    outcomes = handle_all(jobs, params.workers, context)
    refused |= {item.study_key: (item.rule, item.reason) for item in outcomes if item.result is None}
    for row in rows:
        if row["study_key"] in refused:
            quarantine.add(row["study_key"], row["series_key"], *refused[row["study_key"]])
    quarantine.close(
        context.out / "quarantine.parquet", total=len(rows), limit=params.max_quarantined_fraction
    )

    good = [item for item in outcomes if item.result is not None]
    passed = [row for row in rows if row["study_key"] not in refused]
    keep = ("report", "labels")
    write_rows(
        context.out / "manifest.parquet",
        "deidentified_manifest",
        [{k: v for k, v in row.items() if k not in keep} for row in passed],
    )
    write_rows(context.out / "labels.parquet", "labels", _labels(passed))
    _write_texts(good, params, context)
    return _metrics(good, passed, refused, read_rows(ingest / "gold_spans.parquet", "gold_spans"), reports)


def _one_report_a_study(
    rows: Sequence[Mapping[str, Any]],
) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Each study's report; a study whose series carry different reports is refused."""
    reports: dict[str, str] = {}
    refused: dict[str, tuple[str, str]] = {}
    for row in rows:
        text = row["report"]
        if text is None:
            continue
        if reports.setdefault(row["study_key"], text) != text:
            refused[row["study_key"]] = (
                "deidentify.two_reports",
                "the series of one study carry different reports",
            )
    return reports, refused


def _labels(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a study and label; a label that any series has is the study's."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        for label in row["labels"] or ():
            key = (row["study_key"], label["name"])
            found[key] = max(found.get(key, 0), label["value"])
    return [
        {"study_key": study, "name": name, "value": value} for (study, name), value in sorted(found.items())
    ]


def _write_texts(outcomes: Sequence[Outcome], params: Params, context: StepContext) -> None:
    import pyarrow as pa

    from components.base.files import write_table
    from components.cohort.manifest import write_rows

    texts, audit, offsets, review = [], [], [], []
    for key, result in ((item.study_key, item.result) for item in outcomes):
        if result is None:
            continue
        texts.append({"study_key": key, "text": result.text})
        for change in result.changes:
            span = change.span
            who = {"kind": span.kind, "layer": span.layer, "rule": span.rule}
            audit.append({"study_key": key, "start": change.new_start, "end": change.new_end, **who})
            places = {
                name: getattr(change, name) for name in ("old_start", "old_end", "new_start", "new_end")
            }
            offsets.append({"study_key": key, **places, "original": change.original})
            if span.score < params.review_below:
                place = {"start": span.start, "end": span.end, "text": change.original}
                review.append({"study_key": key, **place, **who, "score": span.score, "decision": "tagged"})
        for span in result.overruled:
            place = {"start": span.start, "end": span.end, "text": ""}
            who = {"kind": span.kind, "layer": span.layer, "rule": span.rule}
            review.append({"study_key": key, **place, **who, "score": span.score, "decision": "kept"})
    write_rows(context.out / "reports.parquet", "reports", texts)
    write_rows(context.out / "audit.parquet", "audit", audit)
    text, number = pa.string(), pa.int64()
    spots = [(name, number) for name in ("old_start", "old_end", "new_start", "new_end")]
    layout = pa.schema([("study_key", text), *spots, ("original", pa.large_string())])
    write_table(context.restricted_out / "offsets.parquet", pa.Table.from_pylist(offsets, schema=layout))
    about: list[tuple[str, Any]] = [
        ("text", pa.large_string()),
        ("kind", text),
        ("layer", text),
        ("rule", text),
        ("score", pa.float64()),
        ("decision", text),
    ]
    layout = pa.schema([("study_key", text), ("start", number), ("end", number), *about])
    write_table(context.restricted_out / "review.parquet", pa.Table.from_pylist(review, schema=layout))


def _metrics(
    outcomes: Sequence[Outcome],
    passed: Sequence[Mapping[str, Any]],
    refused: Mapping[str, object],
    gold_rows: Sequence[Mapping[str, Any]],
    reports: Mapping[str, str],
) -> dict[str, Any]:
    from components.reports.deid.score import Tally, score

    gold: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in gold_rows:
        gold[row["study_key"]].append((row["start"], row["end"]))
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    tally = Tally()
    for item in outcomes:
        changes = item.result.changes if item.result else ()
        kinds.update(change.span.kind for change in changes)
        layers.update(change.span.layer for change in changes)
        if item.study_key in gold:
            found = [(change.old_start, change.old_end) for change in changes]
            tally += score(reports[item.study_key], gold[item.study_key], found)
    metrics: dict[str, Any] = {
        "num_series": len(passed),
        "num_studies": len({row["study_key"] for row in passed}),
        "num_reports": len(outcomes),
        "num_quarantined_studies": len(refused),
        "num_spans": sum(kinds.values()),
        "spans_by_kind": dict(sorted(kinds.items())),
        "spans_by_layer": dict(sorted(layers.items())),
    }
    return metrics | (tally.metrics() if tally.notes else {})


STEP = Step("deidentify", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
