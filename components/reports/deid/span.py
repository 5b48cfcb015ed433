"""The interface of a layer: what it reads (a note's text and the study's known PHI) and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from components.reports.deid.note import Note


class Span(NamedTuple):
    """PHI found at `[start, end)` of a note's view, by which layer and rule, with a score in (0, 1]."""

    start: int
    end: int
    kind: str
    layer: str
    rule: str
    score: float


@dataclass(frozen=True)
class StudyContext:
    """What is known of the study besides its text: `identities` are (kind, value) pairs of known PHI."""

    identities: tuple[tuple[str, str], ...] = ()
    tag_times: bool = False


class Layer(Protocol):
    """A detector; its result depends on nothing but its two arguments."""

    name: str

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Every span that this layer takes for PHI."""
        ...
