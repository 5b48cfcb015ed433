"""The nouns that name an institution (`facilities.txt`): hospital, medical center, benh vien."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from components.reports.lexicon import mapping


class Nouns(NamedTuple):
    """What `facilities.txt` holds."""

    heads: frozenset[str]
    pairs: dict[str, tuple[tuple[str, ...], ...]]
    prefixes: dict[str, tuple[tuple[str, ...], ...]]
    generic: frozenset[str]
    join: frozenset[str]
    breaks: frozenset[str]


@cache
def nouns() -> Nouns:
    """The nouns, read once; phrases by their last word (pairs) or their first word (prefixes)."""
    table = mapping("facilities")

    def grouped(key: str, place: int) -> dict[str, tuple[tuple[str, ...], ...]]:
        found: dict[str, list[tuple[str, ...]]] = {}
        for phrase in table[key]:
            parts = tuple(re.findall(r"[^\W_]+", phrase))
            found.setdefault(parts[place], []).append(parts)
        return {word: tuple(sorted(options, key=len, reverse=True)) for word, options in found.items()}

    plain = {key: frozenset(table[key]) for key in ("head", "generic", "join", "break")}
    return Nouns(
        plain["head"],
        grouped("head2", -1),
        grouped("prefix", 0),
        plain["generic"],
        plain["join"],
        plain["break"],
    )
