"""Token-level scores of de-identification against gold spans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

TOKEN = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Tally:
    """Counts of tokens: in gold and found, in gold only, found only, in neither; and notes with a leak."""

    hit: int = 0
    missed: int = 0
    extra: int = 0
    rest: int = 0
    notes: int = 0
    leaks: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    def metrics(self) -> dict[str, float | int | None]:
        """token_recall, token_precision, over_redaction (share of harmless tokens removed), notes_with_leak."""

        def ratio(part: int, whole: int) -> float | None:
            return round(part / whole, 6) if whole else None

        return {
            "token_recall": ratio(self.hit, self.hit + self.missed),
            "token_precision": ratio(self.hit, self.hit + self.extra),
            "over_redaction": ratio(self.extra, self.extra + self.rest),
            "notes_with_leak": ratio(self.leaks, self.notes),
            "gold_notes": self.notes,
        }


def score(text: str, gold: Sequence[tuple[int, int]], found: Sequence[tuple[int, int]]) -> Tally:
    """The tally of one note; spans are half-open offsets on `text`."""
    inside_gold, inside_found = cover(text, gold), cover(text, found)
    total = sum(1 for _ in TOKEN.finditer(text))
    hit, missed, extra = (
        len(inside_gold & inside_found),
        len(inside_gold - inside_found),
        len(inside_found - inside_gold),
    )
    return Tally(hit, missed, extra, total - hit - missed - extra, 1, int(missed > 0))


def cover(text: str, spans: Sequence[tuple[int, int]]) -> set[int]:
    """Where the tokens begin that a span touches."""
    covered: set[int] = set()
    ordered = sorted(spans)
    place = 0
    for match in TOKEN.finditer(text):
        while place < len(ordered) and ordered[place][1] <= match.start():
            place += 1
        if place < len(ordered) and ordered[place][0] < match.end():
            covered.add(match.start())
    return covered
