"""Measure de-identification on annotated notes: `python -m components.reports.measure --gold notes.jsonl`.

Prints one JSON object: recall, precision, over-redaction, notes with a leak, by kind and by layer, and speed. With
`--compare philter,presidio` those tools read the same notes in the same run (`--python` names the interpreter that
has them). What was missed or removed without need is written, as text, only to a file below the restricted root
(`--spans`); nothing else that this command writes holds text of a note. Fields of a row of the file:
`text` (or `full_text`, `note`, or `report`: a path beside the file), `spans` (or `entities`, `annotations`, `phi`) of
`[start, end, kind]` or mappings with `start`/`start_position`, `end`/`end_position`, `type`/`kind`/`label`; optional
`id` and `identities` ([kind, value] pairs that the known-PHI layer is given with `--known`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import ConfigError, VelvetError

if TYPE_CHECKING:
    from components.reports.measuring.evaluate import Scores
    from components.reports.measuring.hard_notes import GoldNote

ROOMS = tuple(sorted(path.stem for path in (Path(__file__).parent / "measuring" / "desks").glob("*.txt")))
HALVES = ("development", "held_out", "fresh", "last", *ROOMS)
_KEYS = ("token_recall", "token_precision", "over_redaction", "notes_with_leak", "reports_per_s")


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(
        prog="python -m components.reports.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = found.add_mutually_exclusive_group(required=True)
    source.add_argument("--gold", type=Path, help="annotated notes (JSONL or a JSON array)")
    source.add_argument("--hard", type=int, metavar="COUNT", help="measure on invented hard notes instead")
    found.add_argument("--seed", type=int, default=1, help="of the hard notes")
    found.add_argument(
        "--half",
        choices=HALVES,
        default="held_out",
        help="of the names and templates, or a set of whole notes of invented rooms",
    )
    found.add_argument(
        "--unlisted", action="store_true", help="take the names of the half out of the lexicon's lists first"
    )
    found.add_argument("--known", action="store_true", help="give the known-PHI layer the notes' identities")
    found.add_argument("--compare", default="", help="philter, presidio or both, separated by a comma")
    found.add_argument(
        "--python", default=sys.executable, help="interpreter that has the tools to compare with"
    )
    found.add_argument("--model", help="folder of a statistical detector to use as well")
    found.add_argument("--root", type=Path, default=Path(), help="the project's root")
    found.add_argument(
        "--spans", type=Path, help="JSONL of misses with their text; must lie below ROOT/restricted"
    )
    found.add_argument("--out", type=Path, help="JSON file for the figures (default: standard output)")
    found.add_argument("--table", action="store_true", help="print a table instead of JSON")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a user's mistake is told in a few lines."""
    options = parser().parse_args(arguments)
    try:
        figures = measure(options)
    except VelvetError as error:
        sys.stderr.write(f"{error.render()}\n")
        return error.exit_code
    text = table(figures) if options.table else json.dumps(figures, indent=2, ensure_ascii=False)
    if options.out:
        from components.base.files import write_text

        write_text(options.out, text + "\n")
    else:
        sys.stdout.write(text + "\n")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of Velvet and of the tools asked for, by tool."""
    from components.reports.deid.engine import Deidentifier
    from components.reports.measuring.evaluate import evaluate, own_detector
    from components.reports.measuring.tools import run_tool

    spans = _restricted(options.spans, options.root) if options.spans else None
    notes = _notes(options)
    detector = Deidentifier(_layers(options))
    own = evaluate(notes, own_detector(detector, options.known))
    figures = {"velvet": own.metrics()}
    lines = _spans("velvet", own, notes) if spans else []
    for name in filter(None, (part.strip() for part in options.compare.split(","))):
        answer = run_tool(name, notes, options.python)
        figures[answer.tool] = answer.scores.metrics()
        lines += _spans(name, answer.scores, notes) if spans else []
    if spans:
        from components.base.files import write_text

        write_text(spans, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return figures


def _notes(options: argparse.Namespace) -> list[GoldNote]:
    from components.reports.measuring.desk_notes import SETS as DESKS
    from components.reports.measuring.desk_notes import desk_notes
    from components.reports.measuring.fresh_notes import SETS, fresh_notes
    from components.reports.measuring.gold import read_gold
    from components.reports.measuring.hard_notes import hard_notes

    if options.gold:
        return read_gold(options.gold)
    if options.half in DESKS:
        return desk_notes(options.hard, options.seed, options.half)
    if options.half in SETS:
        return fresh_notes(options.hard, options.seed, options.half)
    return hard_notes(options.hard, options.seed, options.half)


def _layers(options: argparse.Namespace) -> tuple[Any, ...]:
    from components.reports.deid.layers import default_layers
    from components.reports.deid.wordlists import default_lists
    from components.reports.measuring.fresh_notes import SETS, all_names_of
    from components.reports.measuring.people import all_names

    names = all_names_of(options.half) if options.half in SETS else all_names(options.half)
    lists = default_lists().without(names) if options.unlisted else None
    return default_layers(lists, options.model)


def _restricted(path: Path, root: Path) -> Path:
    """`path`, if it lies below ROOT/restricted; text of notes goes nowhere else."""
    inside = (root / "restricted").resolve()
    if not path.resolve().is_relative_to(inside):
        raise ConfigError(
            "the file for misses lies outside the restricted root",
            rule="measure.restricted",
            fix="give --spans a path below ROOT/restricted",
        )
    return path


def _spans(tool: str, scores: Scores, notes: Sequence[GoldNote]) -> list[dict[str, Any]]:
    texts = {note.id: note.text for note in notes}
    return [
        {
            "tool": tool,
            "note": miss.note,
            "what": miss.what,
            "start": miss.start,
            "end": miss.end,
            "text": texts[miss.note][miss.start : miss.end],
            "kind": miss.kind,
            "layer": miss.layer,
            "rule": miss.rule,
        }
        for miss in scores.misses
    ]


def table(figures: dict[str, Any]) -> str:
    """The main figures of every tool, side by side."""
    rows: list[tuple[str, ...]] = [("", *_KEYS)]
    for tool, values in figures.items():
        cells = ("-" if values[key] is None else f"{values[key]:.4g}" for key in _KEYS)
        rows.append((tool, *cells))
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows
    )


if __name__ == "__main__":
    raise SystemExit(main())
