"""Scores of a detector on annotated notes: by token, by kind, by layer, by note; and every miss and excess."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.reports.deid.score import Tally, cover, score
from components.reports.measuring.hard_notes import GoldNote

Found = tuple[int, int, str, str, str]
Detector = Callable[[GoldNote], Sequence[Found]]
REPORT_BYTES = 1200


@dataclass(frozen=True)
class Miss:
    """One span that was missed (in part) or one that was removed without need; offsets on the note's text."""

    note: str
    what: str
    start: int
    end: int
    kind: str
    layer: str
    rule: str


@dataclass
class Scores:
    """What a detector reached: `tally` over all notes, tokens (hit, all) by kind, tokens (hit, extra) by rule."""

    tally: Tally = field(default_factory=Tally)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    layers: dict[str, list[int]] = field(default_factory=dict)
    rules: dict[str, list[int]] = field(default_factory=dict)
    misses: list[Miss] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    characters: int = 0
    notes: list[Tally] = field(default_factory=list)
    spans: int = 0

    def intervals(self, draws: int = 1000, seed: int = 0) -> dict[str, list[float]]:
        """95 % intervals by a seeded bootstrap over notes; empty for fewer than two notes."""
        import numpy as np

        if len(self.notes) < 2:
            return {}
        counts = np.array([(n.hit, n.missed, n.extra, n.rest, n.leaks) for n in self.notes], dtype=np.float64)
        chosen = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
        hit, missed, extra, rest, leaks = counts[chosen].sum(axis=1).T
        shares = {
            "token_recall": hit / np.maximum(hit + missed, 1),
            "token_precision": hit / np.maximum(hit + extra, 1),
            "over_redaction": extra / np.maximum(extra + rest, 1),
            "notes_with_leak": leaks / len(counts),
        }
        ends = {name: np.quantile(values, (0.025, 0.975)) for name, values in shares.items()}
        return {name: [round(float(end), 4) for end in pair] for name, pair in ends.items()}

    def metrics(self) -> dict[str, Any]:
        """Everything but the misses, ready for JSON; a refused note counts as neither removed nor leaked."""

        def share(part: int, whole: int) -> float | None:
            return round(part / whole, 4) if whole else None

        return {
            **self.tally.metrics(),
            "gold_spans": self.spans,
            "intervals_95": self.intervals(),
            "recall_by_kind": {
                kind: {"recall": share(hit, total), "tokens": total}
                for kind, (hit, total) in sorted(self.kinds.items())
            },
            "precision_by_layer": {
                layer: {"precision": share(hit, hit + extra), "tokens": hit + extra}
                for layer, (hit, extra) in sorted(self.layers.items())
            },
            "extra_tokens_by_rule": {rule: extra for rule, (_, extra) in sorted(self.rules.items()) if extra},
            "refused": dict(sorted(self.refused.items())),
            "reports_per_s": round(self.characters / REPORT_BYTES / self.seconds, 1)
            if self.seconds
            else None,
        }


def evaluate(notes: Iterable[GoldNote], detect: Detector) -> Scores:
    """Run `detect` on every note, one after the other, in processor time of this process."""
    scores = Scores()
    for note in notes:
        started = time.process_time()
        try:
            found = detect(note)
        except Exception as error:
            scores.refused[getattr(error, "rule", type(error).__name__)] += 1
            continue
        scores.seconds += time.process_time() - started
        add(scores, note, found)
    return scores


def add(scores: Scores, note: GoldNote, found: Sequence[Found]) -> None:
    """Add what was found in one note to the scores."""
    text = note.text
    scores.characters += len(text)
    tally = score(text, [span[:2] for span in note.spans], [span[:2] for span in found])
    scores.tally += tally
    scores.notes.append(tally)
    scores.spans += len(note.spans)
    removed = cover(text, [span[:2] for span in found])
    for start, end, kind in note.spans:
        tokens = cover(text, [(start, end)])
        missed = tokens - removed
        count = scores.kinds.setdefault(kind, [0, 0])
        count[0] += len(tokens) - len(missed)
        count[1] += len(tokens)
        if missed:
            scores.misses.append(Miss(note.id, "missed", start, end, kind, "", ""))
    gold = cover(text, [span[:2] for span in note.spans])
    for start, end, kind, layer, rule in found:
        places = cover(text, [(start, end)])
        extra = places - gold
        for table, name in ((scores.layers, layer), (scores.rules, rule)):
            count = table.setdefault(name, [0, 0])
            count[0] += len(places) - len(extra)
            count[1] += len(extra)
        if extra:
            scores.misses.append(Miss(note.id, "removed without need", start, end, kind, layer, rule))


def own_detector(deidentifier: Any, use_identities: bool = False) -> Detector:
    """Velvet's de-identifier as a `Detector`; without the notes' known PHI unless asked for."""
    from components.reports.deid.span import StudyContext

    def detect(note: GoldNote) -> list[Found]:
        study = StudyContext(note.identities if use_identities else ())
        changes = deidentifier(note.text, study).changes
        return [
            (item.old_start, item.old_end, item.span.kind, item.span.layer, item.span.rule)
            for item in changes
        ]

    return detect
