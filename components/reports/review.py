"""Work through the notes that the de-identifier is unsure of; decisions are an input of its next run.

    python -m components.reports.review list
    python -m components.reports.review show STUDY
    python -m components.reports.review accept STUDY [N ...]       # what the de-identifier did is right
    python -m components.reports.review keep STUDY N ...           # no PHI: let it stay in the text
    python -m components.reports.review redact STUDY N ...         # PHI that the lexicon had kept
    python -m components.reports.review redact STUDY --span START END --kind STAFF
    python -m components.reports.review undo STUDY
    python -m components.reports.review page                       # restricted/review/queue.html, for a browser

The queue is restricted/deidentify/review.parquet. Decisions go to infra/review.json, which holds keyed ids, offsets
and verdicts but no text: commit it. `list` and the decisions show no PHI; `show` and `page` do.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.base.errors import InputError, VelvetError
from components.base.step import INTERNAL_ERROR
from components.reports.deid.decisions import (
    DECISIONS_PARTS,
    Decision,
    NoteDecisions,
    is_kind,
    load_decisions,
    note_id,
    save_decisions,
)


@dataclass(frozen=True)
class Item:
    """A span of the queue by its number in its note; `verdict` is what was decided on it ("" = open)."""

    number: int
    start: int
    end: int
    kind: str
    layer: str
    rule: str
    score: float
    outcome: str
    verdict: str = ""


@dataclass(frozen=True)
class QueuedNote:
    """A note of the queue: its keyed names and its spans in order; `stale`: decisions that fit no note any more."""

    study_key: str
    note: str
    items: tuple[Item, ...]
    stale: bool = False

    @property
    def num_open(self) -> int:
        """Spans on which nobody has decided."""
        return sum(not item.verdict for item in self.items)


class Review:
    """The queue and the decisions of a project's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root.joinpath(*DECISIONS_PARTS)

    def queue(self) -> dict[str, QueuedNote]:
        """The notes of the queue by study, with what is decided already."""
        from components.base.files import read_table

        decisions = load_decisions(self.path)
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in read_table(self.root / "restricted" / "deidentify" / "review.parquet").to_pylist():
            rows.setdefault(row["study_key"], []).append(row)
        found = {}
        for key, listed_rows in sorted(rows.items()):
            made = decisions.get(key, NoteDecisions(""))
            spans = [row for row in listed_rows if row["decision"] != "stale"]
            stale = len(spans) < len(listed_rows) and key in decisions
            if not spans:
                found[key] = QueuedNote(key, made.note, (), stale)
                continue
            spans.sort(key=lambda row: (row["start"], row["end"], row["kind"]))
            fits = made.note == spans[0]["note"]
            stale = stale and not fits
            verdicts = {(d.start, d.end): d.verdict for d in made.decisions} if fits else {}
            items = tuple(_item(number, row, verdicts) for number, row in enumerate(spans, 1))
            found[key] = QueuedNote(key, spans[0]["note"], items, stale)
        return found

    def note(self, key: str) -> QueuedNote:
        """A queued note; a study that is not in the queue is an `InputError`."""
        queue = self.queue()
        if key not in queue:
            raise _mistake(
                "the study is not in the queue", "review.study", "see `list` for those that are", key
            )
        return queue[key]

    def text(self, note: QueuedNote) -> str:
        """The raw text of a queued note; one that changed since the queue was made is an `InputError`."""
        from components.base.files import read_table
        from components.base.keys import KeyRing

        table = read_table(self.root / "restricted" / "check_cohort" / "manifest.parquet")
        rows = table.select(["study_key", "report"]).to_pylist()
        text = next((row["report"] for row in rows if row["study_key"] == note.study_key), None)
        if text is None or note_id(KeyRing.load(), note.study_key, text) != note.note:
            raise _mistake(
                "the note is not the one that was queued",
                "review.stale",
                "run deidentify again",
                note.study_key,
            )
        return str(text)

    def decide(self, key: str, verdict: str, numbers: Sequence[int]) -> int:
        """Record a verdict on spans of the queue by number (none: all open ones); returns how many."""
        with self._locked():
            note = self.note(key)
            self.text(note)
            known = {item.number: item for item in note.items}
            if wrong := [number for number in numbers if number not in known]:
                raise _mistake(
                    f"the note has no span {wrong[0]}", "review.span", "see `show` for the numbers", key
                )
            chosen = [known[n] for n in numbers] or [item for item in note.items if not item.verdict]
            if verdict == "keep" and any(item.outcome == "kept" for item in chosen):
                raise _mistake("a span is in the text already", "review.kept", "use accept for it", key)
            kinds = {item: item.kind if verdict == "redact" else "" for item in chosen}
            self._record(note, [Decision(i.start, i.end, verdict, kinds[i]) for i in chosen])
            return len(chosen)

    def redact(self, key: str, start: int, end: int, kind: str) -> None:
        """Record that `[start, end)` of the raw note must go as `kind`, whether the queue names it or not."""
        with self._locked():
            note = self.note(key)
            if not 0 <= start < end <= len(self.text(note)):
                raise _mistake(
                    "the span is not within the note", "review.span", "give offsets of `show`", key
                )
            if not is_kind(kind):
                raise _mistake(
                    "the kind is none", "review.kind", "capitals and underscores: STAFF, BIRTH_DATE", key
                )
            self._record(note, [Decision(start, end, "redact", kind)])

    def undo(self, key: str) -> int:
        """Forget all decisions on a study; returns how many there were."""
        with self._locked():
            notes = load_decisions(self.path)
            gone = notes.pop(key, NoteDecisions(""))
            save_decisions(self.path, notes)
            return len(gone.decisions)

    def _record(self, note: QueuedNote, new: Sequence[Decision]) -> None:
        notes = load_decisions(self.path)
        old = notes.get(note.study_key, NoteDecisions(note.note))
        if old.note != note.note:  # of another text: it could not be applied any more
            old = NoteDecisions(note.note)
        places = {(item.start, item.end) for item in new}
        rest = tuple(item for item in old.decisions if (item.start, item.end) not in places)
        notes[note.study_key] = replace(old, decisions=tuple(sorted((*rest, *new))))
        save_decisions(self.path, notes)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time: two people may review at once."""
        import fcntl

        from components.base.files import restricted_folder

        restricted_folder(self.root / "restricted")
        folder = restricted_folder(self.root / "restricted" / "review")
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _item(number: int, row: Mapping[str, Any], verdicts: Mapping[tuple[int, int], str]) -> Item:
    place = (row["start"], row["end"])
    about = (row["kind"], row["layer"], row["rule"], row["score"], row["decision"])
    return Item(number, *place, *about, verdict=verdicts.get(place, ""))


def _mistake(what: str, rule: str, fix: str, key: str) -> InputError:
    return InputError(what, rule=rule, fix=fix, key=key)


def listed(review: Review) -> str:
    """The queue as a table: keyed ids, counts and lowest scores, no PHI."""
    lines = []
    for note in review.queue().values():
        if note.stale:
            lines.append(
                f"{note.study_key}  the note changed: its decisions do not apply (undo, then decide anew)"
            )
        elif note.items:
            lowest = min(item.score for item in note.items)
            kinds = ", ".join(sorted({item.kind for item in note.items if not item.verdict})) or "all decided"
            lines.append(
                f"{note.study_key}  {note.num_open} of {len(note.items)} open, least {lowest:.2f}  {kinds}"
            )
    return "\n".join(lines) or "nothing to review"


def shown(review: Review, key: str) -> str:
    """A note with its queued spans marked, and the spans as a table. It holds PHI."""
    note = review.note(key)
    if not note.items:
        return "nothing to show: the decisions on this study fit no note any more"
    text = review.text(note)
    marked, place = "", 0
    for item in note.items:
        if item.start >= place:
            marked += f"{text[place : item.start]}«{item.number}:{text[item.start : item.end]}»"
            place = item.end
    table = [
        f"{item.number:>3}  {item.start}-{item.end}  {item.kind:<10} {item.rule:<20} {item.score:.2f}  "
        f"now: {item.outcome:<10} {item.verdict or 'open'}"
        for item in note.items
    ]
    return "\n".join([f"{marked}{text[place:]}", "", *table])


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Review queue</title>
<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem}pre{white-space:pre-wrap}
mark{border-radius:3px;padding:0 .2em}mark.kept{background:#cfe8ff}sup{font-size:.7em}
td,th{padding:.1em .8em;text-align:left}code{background:#eee}</style>
<h1>Review queue</h1><p>This page holds PHI: it stays in the restricted folder.</p>
{% for note in notes %}<h2>{{ note.key }}</h2>
<pre>{% for piece in note.pieces %}{% if piece.item %}<mark class="{{ piece.item.outcome }}">{{ piece.text }}<sup>
{{- piece.item.number }}</sup></mark>{% else %}{{ piece.text }}{% endif %}{% endfor %}</pre>
<table><tr><th>span<th>kind<th>rule<th>score<th>now<th>decision</tr>
{% for item in note.entries %}<tr><td>{{ item.number }}<td>{{ item.kind }}<td>{{ item.rule }}
<td>{{ '%.2f' % item.score }}<td>{{ item.outcome }}<td>{{ item.verdict or 'open' }}</tr>{% endfor %}</table>
<p><code>python -m components.reports.review keep {{ note.key }} N</code></p>{% endfor %}</html>
"""


def page(review: Review) -> Path:
    """Write restricted/review/queue.html (mode 0600) with every open note, and return its path."""
    from jinja2 import Environment, StrictUndefined

    from components.base.files import restricted_folder, write_text

    notes = []
    for note in review.queue().values():
        if not note.num_open:
            continue
        text, place = review.text(note), 0
        pieces: list[dict[str, Any]] = []
        for item in note.items:
            if item.start >= place:
                pieces.append({"text": text[place : item.start], "item": None})
                pieces.append({"text": text[item.start : item.end], "item": item})
                place = item.end
        pieces.append({"text": text[place:], "item": None})
        notes.append({"key": note.study_key, "pieces": pieces, "entries": note.items})
    restricted_folder(review.root / "restricted")
    target = restricted_folder(review.root / "restricted" / "review") / "queue.html"
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE)
    write_text(target, template.render(notes=notes), mode=0o600)
    return target


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="review", description=(__doc__ or "").splitlines()[0])
    top.add_argument("--root", type=Path, default=Path(), help="the project's root")
    top.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the notes with open spans")
    commands.add_parser("page", help="write restricted/review/queue.html")
    about = {
        "show": "a note with its spans marked (PHI)",
        "accept": "what the de-identifier did is right",
        "keep": "no PHI: the span stays in the text",
        "redact": "PHI: the span goes",
        "undo": "forget the decisions on a study",
    }
    for name, text in about.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("study", help="the study's key")
        if name in ("accept", "keep", "redact"):
            command.add_argument("numbers", nargs="*", type=int, help="the spans' numbers")
        if name == "redact":
            command.add_argument(
                "--span", nargs=2, type=int, metavar=("START", "END"), help="offsets on the note"
            )
            command.add_argument("--kind", default="PERSON", help="of the span given by offsets")
    return top


def act(args: argparse.Namespace) -> str:
    """Carry out a parsed command; returns what to print."""
    review = Review(args.root.resolve())
    if args.command == "list":
        return listed(review)
    if args.command == "page":
        target = page(review)
        return f"written: {target.relative_to(review.root).as_posix()} (PHI: it stays there)"
    if args.command == "show":
        return shown(review, args.study)
    if args.command == "undo":
        return f"{review.undo(args.study)} decisions forgotten"
    if args.command == "redact" and args.span:
        review.redact(args.study, args.span[0], args.span[1], args.kind)
        return "1 decision recorded; run deidentify to apply it"
    if args.command != "accept" and not args.numbers:
        raise _mistake(
            "no span is named", "review.span", "give the spans' numbers as `show` does", args.study
        )
    count = review.decide(args.study, args.command, args.numbers)
    return f"{count} decisions recorded; run deidentify to apply them"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code. An unexpected error is named without its text, which may hold PHI."""
    args = parser().parse_args(argv)
    try:
        print(act(args))
    except VelvetError as error:
        if args.debug:
            traceback.print_exc()
        print(error.render(), file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: review met an unexpected {type(error).__name__}\n  rule: internal", file=sys.stderr)
        return INTERNAL_ERROR
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
