"""The de-identifier: layers in order, the lexicon, the merge, repeated until nothing is left; then the actions.

It fails closed: a detector's error, a time-out or an encoding that cannot be trusted raises `Refusal`, and
the caller sets the study aside. The result depends on the note and its study only.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from components.reports.deid.actions import Change, Piece, Renderer, residual, tagged, write
from components.reports.deid.decisions import Decided
from components.reports.deid.keep import split_protected
from components.reports.deid.layers import default_layers
from components.reports.deid.merge import merge
from components.reports.deid.note import Note
from components.reports.deid.span import Layer, Span, StudyContext

_UNREADABLE = re.compile(
    "[\ufffd\x00-\x08\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_MOJIBAKE = re.compile("[ÃÂ][\u0080-\u00bf]|â€|Ä[±Ÿ°]|Å[\u0178\u0080-\u00bf]")
MAX_PASSES = 6


class Refusal(Exception):
    """A note that must not be passed on; `rule` names why, `reason` is one sentence without PHI."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule, self.reason = rule, reason


@dataclass(frozen=True)
class Result:
    """The new text, its changes in order, and what the lexicon overruled (offsets on the raw text)."""

    text: str
    changes: tuple[Change, ...]
    overruled: tuple[Span, ...]


def restore(text: str, changes: Sequence[Change]) -> str:
    """The raw text again, from the new text and its changes (the inverse of the action)."""
    parts, place = [], 0
    for change in changes:
        parts += [text[place : change.new_start], change.original]
        place = change.new_end
    return "".join([*parts, text[place:]])


class Deidentifier:
    """Turns raw notes into tagged ones."""

    def __init__(self, layers: Sequence[Layer] | None = None) -> None:
        """`layers` default to `default_layers()`."""
        self.layers = tuple(layers) if layers is not None else default_layers()

    def __call__(
        self,
        raw: str,
        study: StudyContext,
        timeout_s: float = 10.0,
        renderer: Renderer | None = None,
        decided: Decided | None = None,
    ) -> Result:
        """De-identify one note; raises `Refusal` when it must not be passed on.

        `renderer` writes the spans (default: tags). `decided` are a person's decisions on this very note.
        """
        _check_encoding(raw)
        deadline = time.process_time() + timeout_s
        renderer = renderer or Renderer()
        decided = decided or Decided()
        spans: list[Span] = merge(raw, list(decided.redact))
        overruled: list[Span] = []
        text, changes = renderer.inner(raw, spans) if spans else (raw, ())
        for number in range(MAX_PASSES):
            found, dropped = self.detect(text, study, deadline)
            if number == 0:
                overruled = dropped
            new = decided.without_kept([_to_raw(span, changes) for span in found] if changes else found)
            if not new:
                text, changes = self._written(raw, spans, study, renderer)
                return Result(text, changes, tuple(s for s in overruled if not decided.settled(s)))
            spans = merge(raw, [*spans, *new])
            text, changes = renderer.inner(raw, spans)
        raise Refusal("deidentify.unstable", "the text still changes after several passes")

    def _written(
        self, raw: str, spans: list[Span], study: StudyContext, renderer: Renderer
    ) -> tuple[str, tuple[Change, ...]]:
        """The final text; a surrogate in which known PHI of the study turns up becomes a tag."""
        tags: frozenset[int] = frozenset()
        known = [layer for layer in self.layers if layer.name == "known"]
        for _ in range(MAX_PASSES):
            try:
                text, changes = renderer(raw, spans, study, tags)
            except Refusal:
                raise
            except Exception as error:
                raise Refusal("deidentify.action", f"the action met a {type(error).__name__}") from None
            if not any(change.action == "surrogate" for change in changes):
                return text, changes
            hits = [span for layer in known for span in layer.detect(Note(text), study)]
            more = residual(text, changes, hits)
            if not more:
                return text, changes
            tags |= more
        raise Refusal("deidentify.residual", "known PHI turns up in the surrogates")

    def detect(
        self, raw: str, study: StudyContext, deadline: float = float("inf")
    ) -> tuple[list[Span], list[Span]]:
        """Merged spans on `raw`, and those that the lexicon overruled."""
        note = Note(raw)
        found = note.found
        for layer in self.layers:
            try:
                found += layer.detect(note, study)
            except Refusal:
                raise
            except Exception as error:
                raise Refusal(
                    "deidentify.detector", f"the layer {layer.name} met a {type(error).__name__}"
                ) from None
            if time.process_time() > deadline:
                raise Refusal("deidentify.timeout", "the note took longer than timeout_s")
        kept, dropped = split_protected(note, found)
        return note.outside(merge(note.view, kept)), note.outside(dropped)


def _check_encoding(raw: str) -> None:
    if _UNREADABLE.search(raw):
        raise Refusal("deidentify.encoding", "the text holds characters that no text has (wrong encoding)")
    if not raw.isascii() and _MOJIBAKE.search(raw):
        raise Refusal("deidentify.encoding", "the text was decoded with the wrong encoding")


def tag(raw: str, spans: Sequence[Span]) -> tuple[str, tuple[Change, ...]]:
    """Replace each span by `[KIND]`; returns the new text and the changes."""
    return write(raw, spans, [Piece(tagged(span), "tag") for span in spans])


def _to_raw(span: Span, changes: Sequence[Change]) -> Span:
    """A span on a tagged text as a span on the raw text (it never cuts a tag)."""

    def back(offset: int, end: bool) -> int:
        shift = 0
        for change in changes:
            if offset >= change.new_end:
                shift = change.old_end - change.new_end
            elif offset > change.new_start or (offset == change.new_start and not end):
                return change.old_end if end else change.old_start
            else:
                break
        return offset + shift

    return span._replace(start=back(span.start, False), end=back(span.end, True))
