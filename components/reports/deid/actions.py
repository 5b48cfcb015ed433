"""From spans to the new text: each span gets the action of its kind under the policy, and what fails is tagged.

The detectors look at an inner text in which every span is a tag or a mask (`inner`); surrogates and shifted dates are
written only once nothing more is found, so that a surrogate can never be taken for PHI that was overlooked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from components.base.keys import KeyRing
from components.cohort.dicom.shift import patient_offset
from components.reports.deid.dates import parse_day
from components.reports.deid.note import Note
from components.reports.deid.policy import (
    ADDRESS_KINDS,
    CODE_KINDS,
    DATE_KINDS,
    NAME_KINDS,
    POLICIES,
    ZIP_KINDS,
    Action,
    Policy,
)
from components.reports.deid.shift import DateContext, context_of, shift_text, widen
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.surrogates import Keyed, Patient, plain
from components.reports.deid.surrogates.codes import CodeSurrogates
from components.reports.deid.surrogates.generalise import (
    YearLimits,
    date_left,
    locality,
    state_and_zip,
    year_limits,
    zip_left,
)
from components.reports.deid.surrogates.names import NameSurrogates, tokens_of
from components.reports.deid.surrogates.places import PlaceSurrogates

MASK = "█"
_RULER = re.compile(r"\S")


@dataclass(frozen=True)
class Change:
    """One replacement: `[old_start, old_end)` of the raw text became `[new_start, new_end)` of the new.

    `action` is what was done, `detail` how a doubtful date was read or why a surrogate became a tag (no text).
    """

    old_start: int
    old_end: int
    new_start: int
    new_end: int
    original: str
    span: Span
    action: Action = "tag"
    detail: str = ""


class Piece(NamedTuple):
    """What a span becomes."""

    text: str
    action: Action
    detail: str = ""


def masked(text: str) -> str:
    """A block for every visible character; blanks and line breaks stay, so that lines and offsets do too."""
    return _RULER.sub(MASK, text)


def tagged(span: Span) -> str:
    """`[KIND]`."""
    return f"[{span.kind}]"


def write(raw: str, spans: Sequence[Span], pieces: Sequence[Piece]) -> tuple[str, tuple[Change, ...]]:
    """The text with disjoint spans in order replaced by their pieces, and the changes."""
    parts: list[str] = []
    changes: list[Change] = []
    place = length = 0
    for span, piece in zip(spans, pieces, strict=True):
        parts += [raw[place : span.start], piece.text]
        length += span.start - place
        end = length + len(piece.text)
        original = raw[span.start : span.end]
        changes.append(Change(span.start, span.end, length, end, original, span, piece.action, piece.detail))
        length, place = end, span.end
    return "".join([*parts, raw[place:]]), tuple(changes)


class Renderer:
    """Writes the spans of one patient's notes; the result depends on policy, key, patient, study and note only."""

    def __init__(
        self, policy: Policy | None = None, ring: KeyRing | None = None, patient: Patient | None = None
    ) -> None:
        """Without a policy: tags. A policy with surrogates or shifted dates needs the key and the patient."""
        self.policy = policy or POLICIES["tags"]
        self.offset = 0
        self.moves = any(self.policy.action(kind) in ("shift", "generalise") for kind in DATE_KINDS)
        if self.policy.keyed:
            if ring is None or patient is None:
                raise ValueError("surrogates need a key and a patient")
            keyed = Keyed(ring, patient.key)
            self.offset = patient_offset(ring, patient.key, *self.policy.shift_days)
            self.names = NameSurrogates(keyed, patient)
            self.codes = CodeSurrogates(keyed, patient, self.names.token)
            self.places = PlaceSurrogates(keyed, patient)

    def inner(self, raw: str, spans: Sequence[Span]) -> tuple[str, tuple[Change, ...]]:
        """The text that the detectors look at again: masks where the policy masks, tags for all else."""
        pieces = []
        for span in spans:
            mask = self.policy.action(span.kind) == "mask"
            text = masked(raw[span.start : span.end]) if mask else tagged(span)
            pieces.append(Piece(text, "mask" if mask else "tag"))
        return write(raw, spans, pieces)

    def __call__(
        self, raw: str, spans: Sequence[Span], study: StudyContext, tags: frozenset[int] = frozenset()
    ) -> tuple[str, tuple[Change, ...]]:
        """The final text; `tags` are the numbers of the spans that must be tagged whatever the policy says."""
        wide, dates, limits = list(spans), DateContext(self.offset), YearLimits(0, True)
        if self.moves:
            wide = self._widened(raw, spans)
            known = _known_days(study)
            texts = [raw[span.start : span.end] for span in wide if span.kind in DATE_KINDS]
            dates = context_of(self.offset, self.policy.date_order, raw, texts, known)
            limits = year_limits(raw, wide, (day.year for day in known))
        named = (raw[span.start : span.end] for span in wide if span.kind in NAME_KINDS)
        people = tokens_of(named) if self.policy.keyed else frozenset()
        pieces = [
            Piece(tagged(span), "tag", "no surrogate is safe")
            if number in tags
            else self._piece(raw, span, dates, limits, people)
            for number, span in enumerate(wide)
        ]
        return write(raw, wide, pieces)

    def _widened(self, raw: str, spans: Sequence[Span]) -> list[Span]:
        """Date spans that are shifted or generalised take in the weekday beside them."""
        wide: list[Span] = []
        for number, span in enumerate(spans):
            if span.kind in DATE_KINDS and self.policy.action(span.kind) in ("shift", "generalise"):
                least = wide[-1].end if wide else 0
                most = spans[number + 1].start if number + 1 < len(spans) else len(raw)
                start, end = widen(raw, span.start, span.end, least, most)
                span = span._replace(start=start, end=end)
            wide.append(span)
        return wide

    def _piece(
        self, raw: str, span: Span, dates: DateContext, limits: YearLimits, people: frozenset[str]
    ) -> Piece:
        text, action = raw[span.start : span.end], self.policy.action(span.kind)
        tag = Piece(tagged(span), "tag")
        if action == "tag":
            return tag
        if action == "mask":
            return Piece(masked(text), "mask")
        if action == "keep":
            return Piece(text, "keep")
        if action == "shift":
            moved = shift_text(text, dates)
            return (
                Piece(moved[0], "shift", moved[1])
                if moved
                else tag._replace(detail="a form that cannot be moved")
            )
        if action == "generalise":
            left = self._generalised(raw, span, dates, limits)
            return Piece(left, "generalise") if left else tag
        if action == "locality":
            left = locality(text)
            return Piece(f"{tagged(span)}, {left}" if left != text else left, "locality") if left else tag
        made = self._surrogate(text, span.kind, people)
        if made is None or plain(made) == plain(text):
            return tag._replace(detail="no surrogate for this form")
        return Piece(made, "surrogate")

    def _generalised(self, raw: str, span: Span, dates: DateContext, limits: YearLimits) -> str | None:
        text = raw[span.start : span.end]
        if span.kind in DATE_KINDS:
            return date_left(raw, span, dates, limits)
        if span.kind == "AGE":
            return "90" if raw[span.end : span.end + 1] == "+" else "90+"
        if span.kind in ZIP_KINDS:
            return zip_left(text)
        if span.kind in ADDRESS_KINDS:
            left = state_and_zip(text)
            return f"{tagged(span)}, {left}" if left else None
        return text

    def _surrogate(self, text: str, kind: str, people: frozenset[str]) -> str | None:
        if kind in NAME_KINDS:
            return self.codes.email(text) if "@" in text else self.names.render(text, people)
        if kind in CODE_KINDS:
            return self.codes.code(text, kind)
        if kind in ("PHONE", "FAX", "PAGER"):
            return self.codes.phone(text)
        if kind == "EMAIL":
            return self.codes.email(text)
        if kind == "URL":
            return self.codes.url(text)
        if kind == "IP":
            return self.codes.code(text)
        if kind in ZIP_KINDS:
            return self.places.postcode(text)
        if kind in ADDRESS_KINDS:
            return self.places.address(text)
        if kind == "STATE":
            return self.places.state(text)
        if kind in ("CITY", "LOCATION", "COUNTY"):
            return self.places.town(text)
        return self.places.institution(text)


def _known_days(study: StudyContext) -> list[date]:
    """The study's known dates, those that can be read."""
    found = []
    for kind, value in study.identities:
        day = parse_day(value) if kind.upper() in DATE_KINDS else None
        if day is not None:
            try:
                found.append(date(day.year, day.month, day.day))
            except ValueError:
                continue
    return found


def residual(text: str, changes: Sequence[Change], hits: Sequence[Span]) -> frozenset[int]:
    """The numbers of the surrogates in which known PHI turns up (`hits` are spans on the view of the new text).

    Moved dates may meet by chance (one of the patient's dates, moved, is another's original): they are not counted.
    """
    note = Note(text)
    places = [note.raw_span(hit.start, hit.end) for hit in hits]
    return frozenset(
        number
        for number, change in enumerate(changes)
        if change.action == "surrogate"
        and any(change.new_start < end and start < change.new_end for start, end in places)
    )
