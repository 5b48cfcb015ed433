"""The tables that the stage `deidentify` leaves: reports and audit without PHI, offsets and review queue restricted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.reports.deid.decisions import LAYER, Decided

if TYPE_CHECKING:
    from components.base.keys import KeyRing
    from components.base.step import StepContext
    from components.reports.deid.engine import Result
    from components.reports.deidentify import Outcome


def review_rows(
    outcomes: Sequence[Outcome],
    reports: Mapping[str, str],
    decided: Mapping[str, Decided],
    stale: Sequence[str],
    ring: KeyRing,
    below: float,
) -> list[dict[str, Any]]:
    """The queue: spans with a low score or that the lexicon overruled, on which nobody has decided yet."""
    from components.reports.deid.decisions import note_id

    rows: list[dict[str, Any]] = []
    for key, result in ((item.study_key, item.result) for item in outcomes):
        if result is None:
            continue
        settled = decided.get(key, Decided()).settled
        found = [(change.span, str(change.action)) for change in result.changes if change.span.score < below]
        found += [(span, "kept") for span in result.overruled]
        for span, decision in found:
            if not settled(span):
                who = {"kind": span.kind, "layer": span.layer, "rule": span.rule, "score": span.score}
                place = {"start": span.start, "end": span.end, "text": reports[key][span.start : span.end]}
                note = note_id(ring, key, reports[key])
                rows.append({"study_key": key, "note": note, **place, **who, "decision": decision})
    return rows + [{"study_key": key, "decision": "stale"} for key in stale]


def audit_rows(key: str, result: Result, decided: Decided) -> list[dict[str, Any]]:
    """What was replaced where in the new text, and what a person let stay; without the text."""
    rows = []
    for change in result.changes:
        span = change.span
        who = {"kind": span.kind, "layer": span.layer, "rule": span.rule}
        done = {"action": change.action, "detail": change.detail}
        rows.append({"study_key": key, "start": change.new_start, "end": change.new_end, **who, **done})
    who = {"kind": "", "layer": LAYER, "rule": "review.keep", "action": "keep", "detail": ""}
    for start, end in decided.keep:
        if not any(change.old_start < end and start < change.old_end for change in result.changes):
            gone = [change for change in result.changes if change.old_end <= start]
            moved = gone[-1].new_end - gone[-1].old_end if gone else 0
            rows.append({"study_key": key, "start": start + moved, "end": end + moved, **who})
    return sorted(rows, key=lambda row: (row["start"], row["end"]))


def write_texts(
    outcomes: Sequence[Outcome],
    decided: Mapping[str, Decided],
    review: Sequence[Mapping[str, Any]],
    context: StepContext,
) -> None:
    """Write the reports and the audit, and in the restricted folder the way back and the queue of the review."""
    import pyarrow as pa

    from components.base.files import write_table
    from components.cohort.manifest import write_rows

    texts, audit, offsets = [], [], []
    spots = ("old_start", "old_end", "new_start", "new_end")
    for key, result in ((item.study_key, item.result) for item in outcomes):
        if result is None:
            continue
        texts.append({"study_key": key, "text": result.text})
        audit += audit_rows(key, result, decided.get(key, Decided()))
        for change in result.changes:
            places = {name: getattr(change, name) for name in spots}
            offsets.append({"study_key": key, **places, "original": change.original})
    write_rows(context.out / "reports.parquet", "reports", texts)
    write_rows(context.out / "audit.parquet", "audit", audit)
    text, number, large = pa.string(), pa.int64(), pa.large_string()
    layout = pa.schema([("study_key", text), *((name, number) for name in spots), ("original", large)])
    write_table(context.restricted_out / "offsets.parquet", pa.Table.from_pylist(offsets, schema=layout))
    about: list[tuple[str, Any]] = [("study_key", text), ("note", text), ("start", number), ("end", number)]
    about += [("text", large), ("kind", text), ("layer", text), ("rule", text)]
    layout = pa.schema([*about, ("score", pa.float64()), ("decision", text)])
    write_table(context.restricted_out / "review.parquet", pa.Table.from_pylist(list(review), schema=layout))


def metrics_of(
    outcomes: Sequence[Outcome],
    passed: Sequence[Mapping[str, Any]],
    refused: Mapping[str, object],
    gold_rows: Sequence[Mapping[str, Any]],
    reports: Mapping[str, str],
) -> dict[str, Any]:
    """The stage's metrics: counts, and scores where the source came with gold spans."""
    from components.reports.deid.score import Tally, score

    gold: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in gold_rows:
        gold[row["study_key"]].append((row["start"], row["end"]))
    kinds: Counter[str] = Counter()
    layers: Counter[str] = Counter()
    actions: Counter[str] = Counter()
    tally = Tally()
    for item in outcomes:
        changes = item.result.changes if item.result else ()
        kinds.update(change.span.kind for change in changes)
        layers.update(change.span.layer for change in changes)
        actions.update(change.action for change in changes)
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
        "spans_by_action": dict(sorted(actions.items())),
    }
    return metrics | (tally.metrics() if tally.notes else {})
