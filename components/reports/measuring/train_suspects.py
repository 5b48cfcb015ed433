"""Fit the weights of the layer `suspects`: `python -m components.reports.measuring.train_suspects`.

Invented notes only: the rooms of `TAUGHT`, both halves of the hard notes, `fresh`, `last`, phantom reports and notes
without PHI (`plain.txt`). On each
the layers before this one run; a suspect is an example, and PHI if it lies in a marked span. What those layers found is
hidden at random as well (and the names of half of it forgotten), so that the model meets many more names and places
than rules miss. Figures are cross-validated by room: a room's notes are judged by weights that never saw the room.
The threshold is the lowest that keeps the words removed without need to `EXTRA` of all words of the rooms.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from components.reports.deid.keep import split_protected
from components.reports.deid.layers import default_layers
from components.reports.deid.merge import merge
from components.reports.deid.note import Note
from components.reports.deid.runs import Scan, scan_of
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.surroundings import Context, Surroundings, features
from components.reports.deid.suspects import MODEL, suspects
from components.reports.deid.wordlists import NAME, default_lists
from components.reports.measuring.desk_notes import desk_notes, desks
from components.reports.measuring.hard_notes import GoldNote

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

# notes and seed; never `second` and `ninth`
TAUGHT = {
    **{"first": (156, 2026), "third": (180, 3131), "fourth": (304, 11), "fifth": (204, 5151)},
    **{"sixth": (162, 6161), "seventh": (162, 7171), "eighth": (162, 8181), "tenth": (162, 1010)},
    **{"eleventh": (162, 1111), "twelfth": (162, 1212), "thirteenth": (162, 1313)},
}
ALONE = "fourth/shorthand"  # clinical shorthand: no other room is like it, so that no held-out figure means anything
EXTRA = 0.0125
FOLDS = 6
_HIDDEN, _FORGOTTEN, _CUT = 0.4, 0.5, 0.3
_NUMBER_HIDDEN = 0.25
_NAMED = frozenset({"PATIENT", "STAFF", "PERSON", "HOSPITAL", "ADDRESS"})
_PLAIN = frozenset({"DATE", "TIME", "EMAIL", "URL"})
_PEOPLE = frozenset({"PATIENT", "STAFF", "PERSON"})
_STRENGTH, _RARE, _SMALL = 0.3, 3, 0.03
_ROOM_WEIGHT, _HIDDEN_WEIGHT = 2.0, 0.5


class Example(NamedTuple):
    """A suspect: the group its note belongs to, whether something was hidden, its surroundings, its kind or None."""

    group: str
    hidden: bool
    context: Context
    kind: str | None


class Collected(NamedTuple):
    """The examples of all notes, and how many words the notes of the rooms have."""

    examples: list[Example]
    room_words: int


def collect(rooms: dict[str, tuple[int, int]], generated: int, seed: int = 5) -> Collected:
    """Examples of the rooms' notes (three draws each) and of `generated` notes of every generator (one draw)."""
    rng = np.random.default_rng(seed)
    layers = tuple(layer for layer in default_layers(suspects=False))
    found: list[Example] = []
    total = 0
    for part, (count, part_seed) in rooms.items():
        names = [f"{part}/{desk.name}" for desk in desks(part) for _ in desk.notes]
        for number, gold in enumerate(desk_notes(count, part_seed, part)):
            found += _examples(gold, names[number % len(names)], 3, rng, layers)
            total += len(Note(gold.text).words) if _counts(names[number % len(names)]) else 0
    for group, gold in _generated(generated):
        found += _examples(gold, group, 0 if group in ("phantom", "plain") else 1, rng, layers)
    return Collected(found, total)


def _plain_notes(count: int) -> list[GoldNote]:
    """Notes without PHI: findings, products and scores by names that no list holds, in every case."""
    source = (Path(__file__).parent / "plain.txt").read_text(encoding="utf-8")
    table = {key: tuple(part) for key, part in _sections(source)}
    return [_plain_note(number, np.random.default_rng([count, number]), table) for number in range(count)]


def _plain_note(number: int, rng: np.random.Generator, table: dict[str, tuple[str, ...]]) -> GoldNote:
    lines = [table["line"][int(k)] for k in rng.integers(len(table["line"]), size=int(rng.integers(1, 7)))]
    text = (" " if rng.random() < 0.6 else "\n").join(lines)
    text = re.sub(r"\{x\}", lambda _: _coined(rng, table), text)
    text = re.sub(r"\{n\}", lambda _: str(int(rng.integers(1, 400))), text)
    case = rng.random()
    shown = text.lower() if case < 0.2 else text.upper() if case < 0.4 else text
    return GoldNote(f"plain_{number}", shown, ())


def _sections(source: str) -> list[tuple[str, list[str]]]:
    """The parts of plain.txt: `== NAME` and its lines."""
    chunks = re.split(r"^== ", source, flags=re.MULTILINE)[1:]
    return [
        (chunk.partition("\n")[0].strip(), chunk.partition("\n")[2].strip().split("\n")) for chunk in chunks
    ]


def _coined(rng: np.random.Generator, table: dict[str, tuple[str, ...]]) -> str:
    """A name of a product, a sign or a scale: put together from syllables, a family name, or capitals."""
    kind = rng.random()
    if kind < 0.5:
        parts = [str(rng.choice(table[key][0].split())) for key in ("begin", "middle", "end")]
        return ("".join(parts) if rng.random() < 0.6 else parts[0] + parts[2]).capitalize()
    if kind < 0.65:
        return "".join(chr(65 + int(k)) for k in rng.integers(26, size=int(rng.integers(2, 6))))
    names = [str(rng.choice(table["name"][0].split())).capitalize() for _ in range(2 if kind > 0.85 else 1)]
    return "-".join(names)


def _generated(count: int) -> list[tuple[str, GoldNote]]:
    from components.cohort.phantom.report import write_report
    from components.cohort.phantom.sampling import PhantomParams, cohort
    from components.reports.measuring.fresh_notes import SETS, fresh_notes
    from components.reports.measuring.hard_notes import hard_notes
    from components.reports.measuring.people import HALVES

    found = [(half, note) for half in HALVES for note in hard_notes(count, 31, half)]
    found += [(part, note) for part in SETS for note in fresh_notes(count * 2 // 3, 31, part)]
    for number, study in enumerate(
        cohort(PhantomParams.model_validate({"num_patients": max(1, count // 4)}), 3)
    ):
        text, spans = write_report(study)
        found.append(("phantom", GoldNote(f"phantom_{number}", text, tuple(spans))))
    return found + [("plain", note) for note in _plain_notes(count * 4)]


def _examples(
    gold: GoldNote, group: str, draws: int, rng: np.random.Generator, layers: Sequence[Any]
) -> list[Example]:
    """The suspects of a note as it is, and of as many draws in which some of what was found is hidden."""
    note = Note(gold.text)
    if len(note.view) != len(gold.text):
        return []  # the marks are offsets on the raw text
    spans = [span for layer in layers for span in layer.detect(note, StudyContext())]
    spans = merge(note.view, split_protected(note, spans)[0])
    scan = scan_of(note, default_lists())
    kinds = _kinds(scan, gold)
    flags, found = list(scan.flags), []
    for draw in range(draws + 1):
        shown = _shown(scan, spans, kinds, rng) if draw else spans
        around = Surroundings(scan, shown)
        for number in suspects(around, range(len(scan.words))):
            found.append(Example(group, draw > 0, around.context(number), kinds.get(number)))
        scan.flags = list(flags)
    return found


def _kinds(scan: Scan, gold: GoldNote) -> dict[int, str]:
    """The tokens that marked spans touch, with their kinds."""
    return {
        number: kind
        for start, end, kind in gold.spans
        for number in range(len(scan.words))
        if start < scan.ends[number] and scan.starts[number] < end
    }


def _shown(scan: Scan, spans: list[Span], kinds: dict[int, str], rng: np.random.Generator) -> list[Span]:
    """The spans without those that the draw hides, or hides in part; the names of some are forgotten."""
    kept = []
    for span in spans:
        tokens = [
            n for n in range(len(scan.words)) if scan.starts[n] < span.end and span.start < scan.ends[n]
        ]
        right = any(number in kinds for number in tokens)
        chance = _HIDDEN if span.kind in _NAMED else 0.0 if span.kind in _PLAIN else _NUMBER_HIDDEN
        if not right or rng.random() >= chance:
            kept.append(span)
            continue
        if rng.random() < _FORGOTTEN:
            for number in tokens:
                scan.flags[number] &= ~NAME
        if len(tokens) > 1 and rng.random() < _CUT:
            at = tokens[int(rng.integers(1, len(tokens)))]
            first = rng.random() < 0.5
            kept.append(
                span._replace(end=scan.ends[at - 1]) if first else span._replace(start=scan.starts[at])
            )
    return kept


def matrix(examples: Sequence[Example], names: Sequence[str] | None = None) -> tuple[csr_matrix, list[str]]:
    """Examples as rows of zeros and ones over features that occur at least `_RARE` times (or over `names`)."""
    from scipy.sparse import csr_matrix

    known: dict[Context, list[str]] = {}
    for example in examples:
        if example.context not in known:
            known[example.context] = list(features(example.context))
    if names is None:
        counts = Counter(name for example in examples for name in known[example.context])
        names = sorted(name for name, count in counts.items() if count >= _RARE)
    place = {name: number for number, name in enumerate(names)}
    columns: list[int] = []
    ends = [0]
    for example in examples:
        columns += [place[name] for name in known[example.context] if name in place]
        ends.append(len(columns))
    ones = np.ones(len(columns), dtype=np.float64)
    return csr_matrix((ones, columns, ends), shape=(len(examples), len(names))), list(names)


def _fitted(rows: csr_matrix, targets: NDArray[np.bool_], weights: NDArray[np.float64]) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_STRENGTH, solver="liblinear", max_iter=200)
    return model.fit(rows, targets, sample_weight=weights)


def cross_validated(
    examples: Sequence[Example], folds: int = FOLDS
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(probability, PHI or not) of every suspect of the rooms as they are, each by weights that never saw its room."""
    rows, _ = matrix(examples)
    groups = np.array([example.group for example in examples])
    targets, weights = _targets(examples), _weights(examples)
    rooms = sorted({group for group in groups.tolist() if "/" in group})
    asked = np.array([_counts(example.group) and not example.hidden for example in examples])
    scores = np.zeros(len(examples))
    for fold in range(folds):
        held = np.isin(groups, rooms[fold::folds])
        if held.any():
            model = _fitted(rows[~held], targets[~held], weights[~held])
            scores[held] = model.predict_proba(rows[held])[:, 1]
    return scores[asked], targets[asked]


def _counts(group: str) -> bool:
    """Whether a group is a room by which the threshold is chosen."""
    return "/" in group and group != ALONE


def _targets(examples: Sequence[Example]) -> NDArray[np.bool_]:
    return np.array([example.kind is not None for example in examples])


def _weights(examples: Sequence[Example]) -> NDArray[np.float64]:
    return np.array(
        [
            (_ROOM_WEIGHT if "/" in example.group else 1.0) * (_HIDDEN_WEIGHT if example.hidden else 1.0)
            for example in examples
        ]
    )


def figures(
    scores: NDArray[np.float64], targets: NDArray[np.bool_], room_words: int
) -> tuple[float, list[dict[str, Any]]]:
    """The threshold, and at each of several: PHI found of what was missed, and words removed without need."""
    table, chosen = [], 0.95
    for step in range(19, 1, -1):
        threshold = step / 20
        hit = int((targets & (scores >= threshold)).sum())
        extra = int((~targets & (scores >= threshold)).sum())
        row = {"threshold": threshold, "found": hit, "missed_before": int(targets.sum()), "extra": extra}
        table.append(row | {"over_redaction": round(extra / room_words, 5)})
        chosen = threshold if extra <= EXTRA * room_words else chosen
    return chosen, table


def train(collected: Collected) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The model as it is stored, and the cross-validated table."""
    examples = collected.examples
    scores, targets = cross_validated(examples)
    threshold, rows_of_table = figures(scores, targets, collected.room_words)
    rows, names = matrix(examples)
    phi = _fitted(rows, _targets(examples), _weights(examples))
    positive = [number for number, example in enumerate(examples) if example.kind in _NAMED]
    people = np.array([examples[number].kind in _PEOPLE for number in positive])
    person = _fitted(rows[positive], people, _weights(examples)[positive])
    model: dict[str, Any] = {"threshold": threshold}
    for key, fitted in (("phi", phi), ("person", person)):
        model["bias" if key == "phi" else "person_bias"] = round(float(fitted.intercept_[0]), 4)
        pairs = zip(names, fitted.coef_[0])
        model[key] = {name: round(float(value), 3) for name, value in pairs if abs(value) >= _SMALL}
    return model, rows_of_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print the cross-validated table, write the weights."""
    parser = argparse.ArgumentParser(
        prog="python -m components.reports.measuring.train_suspects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=MODEL, help="file of the weights")
    parser.add_argument("--generated", type=int, default=300, help="notes of each half of the hard notes")
    options = parser.parse_args(arguments)
    model, table = train(collect(TAUGHT, options.generated))
    options.out.write_text(
        json.dumps(model, sort_keys=True, indent=0, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    shown = {
        "threshold": model["threshold"],
        "weights": len(model["phi"]) + len(model["person"]),
        "by_room": table,
    }
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
