"""Stage `deidentify`: reports without PHI, an audit without text, and the way back in restricted/.

Reads restricted/check_cohort/manifest.parquet, restricted/ingest/{identities,gold_spans}.parquet and people's decisions
in infra/review.json. A study that cannot be de-identified with certainty (detector error, time-out, encoding)
is quarantined and passes no further; a study without a report passes with no report row.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from components.base.config import Config
from components.base.step import Step, StepContext
from components.reports.deid.decisions import DECISIONS_PARTS, Decided, NoteDecisions
from components.reports.deid.policy import (
    DATE_KINDS,
    POLICIES,
    Action,
    DateOrder,
    Policy,
    PolicyName,
    policy_of,
)
from components.reports.deid.surrogates import Patient

if TYPE_CHECKING:
    from components.base.keys import KeyRing
    from components.reports.deid.actions import Renderer
    from components.reports.deid.engine import Result

CHUNK = 64


class Params(Config):
    """The block `deidentify`."""

    policy: PolicyName = "tags"
    actions: dict[str, Action] = Field(default_factory=dict)  # by kind, in place of the policy's
    date_order: DateOrder = "mdy"
    shift_days: tuple[int, int] = (184, 730)
    tag_times: bool = False
    review_below: float = Field(0.8, ge=0, le=1)
    timeout_s: float = Field(10.0, gt=0)
    max_quarantined_fraction: float = Field(0.2, ge=0, le=1)
    detector: str | None = None  # folder of a token-classification model (ONNX or spaCy), below the root
    suspects: bool = True  # words that no rule took are judged by their surroundings
    suspects_threshold: float | None = Field(
        None, gt=0, le=1
    )  # none: the one that the weights were fitted with
    workers: int = Field(1, ge=1)


class Job(NamedTuple):
    """One study's note and what is known of it; picklable, so that several processes share the work."""

    study_key: str
    report: str
    identities: tuple[tuple[str, str], ...]
    tag_times: bool
    timeout_s: float
    policy: Policy = POLICIES["tags"]
    patient: Patient = Patient("")
    decided: Decided = Decided()
    detector: str | None = None
    suspects: bool | float = True


class Outcome(NamedTuple):
    """What became of a job: a result, or the rule and reason of its refusal."""

    study_key: str
    result: Result | None
    rule: str = ""
    reason: str = ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `Refusal` in this block after `seconds` of processor time, amid a regular expression too.

    Processor time, so that what else the machine does decides nothing. In the main thread only.
    """
    from components.reports.deid.engine import Refusal

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise Refusal("deidentify.timeout", "the note took longer than timeout_s")

    old = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def handle(jobs: Sequence[Job]) -> list[Outcome]:
    """De-identify notes one by one; whatever goes wrong with one becomes its refusal."""
    from components.reports.deid.engine import Deidentifier, Refusal
    from components.reports.deid.layers import default_layers
    from components.reports.deid.span import StudyContext

    plain = not jobs or (jobs[0].detector is None and jobs[0].suspects is True)
    layers = None if plain else default_layers(model=jobs[0].detector, suspects=jobs[0].suspects)
    deidentify = Deidentifier(layers)
    renderers: dict[Patient, Renderer] = {}
    outcomes = []
    for job in jobs:
        study = StudyContext(job.identities, job.tag_times)
        try:
            with time_limit(job.timeout_s):
                if job.patient not in renderers:
                    renderers = {job.patient: _renderer(job)}
                result = deidentify(job.report, study, job.timeout_s, renderers[job.patient], job.decided)
                outcomes.append(Outcome(job.study_key, result))
        except Refusal as refusal:
            outcomes.append(Outcome(job.study_key, None, refusal.rule, refusal.reason))
        except (
            Exception,
            RecursionError,
        ) as error:  # fail closed, and without the text that the error may hold
            reason = f"an unexpected {type(error).__name__}"
            outcomes.append(Outcome(job.study_key, None, "deidentify.detector", reason))
    return outcomes


def _renderer(job: Job) -> Renderer:
    """What writes the notes of the job's patient; the key is read in each process and travels with no job."""
    from components.base.keys import KeyRing
    from components.reports.deid.actions import Renderer

    return Renderer(job.policy, KeyRing.load() if job.policy.keyed else None, job.patient)


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
    from components.base.keys import KeyRing
    from components.cohort.manifest import read_rows, write_rows
    from components.cohort.quarantine import Quarantine
    from components.reports.deid.decisions import load_decisions
    from components.reports.deid.tables import metrics_of, review_rows, write_texts

    policy = policy_of(params.policy, params.actions, params.date_order, params.shift_days)
    ring = KeyRing.load()
    rows = read_rows(context.restricted("check_cohort") / "manifest.parquet", "manifest")
    ingest = context.restricted("ingest")
    known: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in read_rows(ingest / "identities.parquet", "identities"):
        known[row["study_key"]].append((row["kind"], row["value"]))
    quarantine = Quarantine("deidentify", context.log)
    reports, refused = _one_report_a_study(rows)
    decisions = load_decisions(context.root.joinpath(*DECISIONS_PARTS))
    decided, stale = _decided(decisions, reports, ring)
    if stale:
        context.log.warning("%d notes changed since they were reviewed: see review.parquet", len(stale))
    people = _patients(rows, known)
    detector = str(context.root / params.detector) if params.detector else None
    if detector:
        from components.reports.deid.statistical import load

        load(detector)
    jobs = [
        Job(
            key,
            text,
            _identities(known[key], people[key]),
            params.tag_times,
            params.timeout_s,
            policy,
            people[key] if policy.keyed else Patient(""),
            decided.get(key, Decided()),
            detector,
            (params.suspects_threshold or True) if params.suspects else False,
        )
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
    review = review_rows(good, reports, decided, stale, ring, params.review_below)
    write_texts(good, decided, review, context)
    metrics = metrics_of(
        good, passed, refused, read_rows(ingest / "gold_spans.parquet", "gold_spans"), reports
    )
    return metrics | {
        "num_notes_to_review": len({row["study_key"] for row in review}),
        "num_notes_decided": len(decided),
        "num_stale_decisions": len(stale),
    }


def _patients(
    rows: Sequence[Mapping[str, Any]], known: Mapping[str, list[tuple[str, str]]]
) -> dict[str, Patient]:
    """For each study its patient: the known PHI of all the patient's studies, and the sex where they agree on it."""
    studies: dict[str, set[str]] = defaultdict(set)
    sexes: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        studies[row["patient_key"]].add(row["study_key"])
        sexes[row["patient_key"]] |= {row["sex"]} - {None}
    found: dict[str, Patient] = {}
    for key, own in sorted(studies.items()):
        pairs = tuple(sorted({pair for study in own for pair in known.get(study, ())}))
        sex = next(iter(sexes[key])) if len(sexes[key]) == 1 else None
        found |= dict.fromkeys(sorted(own), Patient(key, pairs, sex))
    return found


def _identities(own: Sequence[tuple[str, str]], patient: Patient) -> tuple[tuple[str, str], ...]:
    """The study's known PHI, and that of the patient's other studies without their dates."""
    others = (pair for pair in patient.identities if pair[0].upper() not in DATE_KINDS)
    return tuple(dict.fromkeys((*own, *others)))


def _decided(
    decisions: Mapping[str, NoteDecisions], reports: Mapping[str, str], ring: KeyRing
) -> tuple[dict[str, Decided], list[str]]:
    """The decisions that fit their note, by study; and the studies whose text is another one now, or gone."""
    from components.reports.deid.decisions import decided, note_id

    fitting, stale = {}, []
    for key, found in sorted(decisions.items()):
        if key in reports and note_id(ring, key, reports[key]) == found.note:
            fitting[key] = decided(found)
        else:
            stale.append(key)
    return fitting, stale


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


STEP = Step("deidentify", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
