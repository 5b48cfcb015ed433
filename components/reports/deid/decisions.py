"""What people decided on low-confidence spans: kept in `infra/review.json`, under version control, without any text.

A note is named by its study's key and a keyed hash of its text; a decision holds offsets, a kind and a verdict. It
is an input of the stage `deidentify` and applies to that very text only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.base.errors import InputError
from components.base.keys import KeyRing
from components.reports.deid.span import Span

DECISIONS_PARTS = ("infra", "review.json")
VERDICTS = ("accept", "keep", "redact")
LAYER = "review"
_KIND = re.compile(r"[A-Z][A-Z_]{1,19}")
_NOTE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, order=True)
class Decision:
    """One verdict on `[start, end)` of a raw note: it may stay, must go as `kind`, or is right as it is."""

    start: int
    end: int
    verdict: str
    kind: str = ""


@dataclass(frozen=True)
class NoteDecisions:
    """The decisions on one note, which `note` names."""

    note: str
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class Decided:
    """Decisions as the de-identifier takes them: spans that must go, places that may stay, places looked at."""

    redact: tuple[Span, ...] = ()
    keep: tuple[tuple[int, int], ...] = ()
    accept: tuple[tuple[int, int], ...] = ()

    def without_kept(self, spans: list[Span]) -> list[Span]:
        """The spans that are not inside a place that may stay; what reaches beyond it goes."""
        return [span for span in spans if not _inside(span, self.keep)]

    def settled(self, span: Span) -> bool:
        """Whether a person has decided on this place."""
        redacted = tuple((item.start, item.end) for item in self.redact)
        return _inside(span, (*self.keep, *self.accept, *redacted))


def _inside(span: Span, places: tuple[tuple[int, int], ...]) -> bool:
    return any(start <= span.start and span.end <= end for start, end in places)


def is_kind(text: str) -> bool:
    """Whether a text can be a kind of PHI (and so a tag)."""
    return _KIND.fullmatch(text) is not None


def note_id(ring: KeyRing, study_key: str, text: str) -> str:
    """32 hex digits that name a note: another text, study or key gives others."""
    return ring.digest("note", f"{study_key}\0{text}").hex()[:32]


def decided(found: NoteDecisions) -> Decided:
    """The decisions on a note by what they ask for."""
    places: dict[str, list[tuple[int, int]]] = {verdict: [] for verdict in VERDICTS}
    for item in found.decisions:
        places[item.verdict].append((item.start, item.end))
    redact = [
        Span(item.start, item.end, item.kind, LAYER, "review.redact", 1.0)
        for item in found.decisions
        if item.verdict == "redact"
    ]
    return Decided(tuple(redact), tuple(places["keep"]), tuple(places["accept"]))


def load_decisions(path: Path) -> dict[str, NoteDecisions]:
    """Decisions by study key; no file means none, a malformed one is an `InputError`."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {key: _read(key, value) for key, value in values["notes"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError):
        raise InputError(
            "infra/review.json is malformed",
            rule="review.format",
            fix="restore it from git, then enter the latest decisions again",
        ) from None


def _read(key: str, value: Mapping[str, Any]) -> NoteDecisions:
    found = [Decision(**item) for item in value["decisions"]]
    for item in found:
        sound = type(item.start) is type(item.end) is int and 0 <= item.start < item.end
        if (
            not sound
            or item.verdict not in VERDICTS
            or not (item.verdict != "redact" or _KIND.fullmatch(item.kind))
        ):
            raise ValueError("a decision that is none")
    if not _NOTE.fullmatch(value["note"]) or not re.fullmatch(r"\w{1,80}", key):
        raise ValueError("a note that is none")
    return NoteDecisions(value["note"], tuple(sorted(found)))


def save_decisions(path: Path, notes: Mapping[str, NoteDecisions]) -> None:
    """Write all decisions atomically, in order."""
    from components.base.files import write_json

    def plain(item: Decision) -> dict[str, Any]:
        values = {"start": item.start, "end": item.end, "verdict": item.verdict}
        return values | ({"kind": item.kind} if item.kind else {})

    shown = {
        key: {"note": found.note, "decisions": [plain(item) for item in sorted(found.decisions)]}
        for key, found in notes.items()
        if found.decisions
    }
    write_json(path, {"notes": shown})
