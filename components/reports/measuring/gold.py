"""Annotated notes from JSONL (or a JSON array), under the field names that data sets use.

A row holds the note in `text`, `full_text` or `note`, or in `report` as a path beside the file (or as text);
the identifiers in `spans`, `entities`, `annotations` or `phi`, each `[start, end, kind]` or a mapping with
`start`/`start_position`/`begin`, `end`/`end_position`/`stop` and `type`/`kind`/`label`/`entity_type`; offsets are
half-open and count characters. Optional: `id`, and `identities` as `[kind, value]` pairs (known PHI).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.base.errors import InputError
from components.reports.measuring.hard_notes import GoldNote

_TEXT = ("text", "full_text", "note")
_SPANS = ("spans", "entities", "annotations", "phi")
_START = ("start", "start_position", "begin")
_END = ("end", "end_position", "stop")
_KIND = ("type", "kind", "label", "entity_type")


def read_gold(path: Path) -> list[GoldNote]:
    """The notes of a file; an unreadable row is an `InputError` that names its line and no text of it."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the annotated notes cannot be read ({type(error).__name__})",
            rule="measure.gold",
            fix="give a UTF-8 JSONL file",
        ) from None
    if content.lstrip().startswith("["):
        rows = list(enumerate(_parse(content, 1), 1))
    else:
        lines = enumerate(content.splitlines(), 1)
        rows = [(number, _parse(line, number)) for number, line in lines if line.strip()]
    notes = [_note(row, number, path.parent) for number, row in rows]
    if not notes:
        raise InputError("the file holds no note", rule="measure.gold", fix="give at least one row")
    return notes


def _parse(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise _bad(number, "is no JSON") from None


def _bad(number: int, what: str) -> InputError:
    return InputError(
        f"row {number} of the annotated notes {what}",
        rule="measure.gold",
        fix="see `python -m components.reports.measure --help` for the fields",
    )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _note(row: Any, number: int, folder: Path) -> GoldNote:
    if not isinstance(row, Mapping):
        raise _bad(number, "is no mapping")
    text = _first(row, _TEXT)
    if text is None and isinstance(row.get("report"), str):
        text = _report(row["report"], folder, number)
    if not isinstance(text, str):
        raise _bad(number, "holds no text")
    found = _first(row, _SPANS)
    if not isinstance(found, list):
        raise _bad(number, "holds no list of spans")
    spans = tuple(sorted(_span(item, number, len(text)) for item in found))
    identities = tuple((str(kind), str(value)) for kind, value in row.get("identities") or ())
    return GoldNote(str(row.get("id", f"row_{number}")), text, spans, identities)


def _report(value: str, folder: Path, number: int) -> str:
    beside = (folder / value).resolve() if len(value) < 300 and "\n" not in value else None
    if beside is not None and beside.is_relative_to(folder.resolve()) and beside.is_file():
        return beside.read_text(encoding="utf-8")
    if "\n" not in value and value.endswith(".txt"):
        raise _bad(number, "names a report that is not beside the file")
    return value


def _span(item: Any, number: int, length: int) -> tuple[int, int, str]:
    if isinstance(item, Mapping):
        start, end, kind = _first(item, _START), _first(item, _END), _first(item, _KIND)
    elif isinstance(item, list) and len(item) >= 2:
        start, end, kind = item[0], item[1], item[2] if len(item) > 2 else "PHI"
    else:
        raise _bad(number, "holds a span of an unknown form")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= length:
        raise _bad(number, "holds a span outside its text")
    return start, end, str(kind or "PHI")
