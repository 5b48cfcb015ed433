"""A light sentence splitter for plain report text, where the sectioning stage has not run (serving)."""

from __future__ import annotations

import re

_BOUNDARY = re.compile(r"(?<=[.!?])[ \t]+(?=[A-Z0-9(\[*-])|\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*]|\d+[.)])\s)")
_TITLE = re.compile(r"(?:^|[\s(])(?:dr|mr|mrs|ms|prof|vs|e\.g|i\.e|cf|approx)\.$", re.I)
_NUMBERED = re.compile(r"(?:^|[\s(])(?:no|fig|im|se|img|ser)\.$", re.I)
_ITEM = re.compile(r"\d{1,2}\.$")


def split_sentences(text: str) -> list[str]:
    """Plain text to sentences: at `.!?` before a capital or a digit, at blank lines, at list items."""
    sentences: list[list[str]] = []
    for piece in _BOUNDARY.split(text):
        piece = " ".join(piece.split())
        if piece and sentences and _runs_on(sentences[-1], piece):
            sentences[-1].append(piece)
        elif piece:
            sentences.append([piece])
    return [" ".join(pieces) for pieces in sentences]


def _runs_on(pieces: list[str], following: str) -> bool:
    """Whether a sentence goes on after its last full stop: an abbreviation, or a list item's number."""
    tail = pieces[-1][-12:]
    if _TITLE.search(tail) or (_NUMBERED.search(tail) and following[0].isdigit()):
        return True
    return len(pieces) == 1 and _ITEM.fullmatch(pieces[0]) is not None
