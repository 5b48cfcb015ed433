"""Invented people from name lists of many cultures, split into a development half and a held-out half.

The lists lie in `names/CULTURE.txt` (each names its source). A name belongs to the half that its hash says, so
that no name of the held-out half is met in development.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from components.reports.deid.note import fold
from components.reports.lexicon import parse_mapping

FOLDER = Path(__file__).parent / "names"
HALVES = ("development", "held_out")
WORDS = "words"
LANGUAGE_OF = {
    **{"turkish": "tr", "spanish": "es", "vietnamese": "vi", "german": "de", "french": "fr"},
    **{"portuguese": "pt", "italian": "it", "polish": "pl"},
}


@dataclass(frozen=True)
class Person:
    """A given name, perhaps a middle initial, a family name; `culture` is the list they come from."""

    given: str
    middle: str
    family: str
    female: bool
    culture: str

    @property
    def full(self) -> str:
        """Given name before family name (Vietnamese, Chinese and Korean: family name first)."""
        if self.culture in ("vietnamese", "chinese", "korean"):
            return f"{self.family} {self.given}"
        return " ".join(part for part in (self.given, self.middle, self.family) if part)

    @property
    def comma(self) -> str:
        """`Family, Given M.`"""
        return ", ".join((self.family, " ".join(part for part in (self.given, self.middle) if part)))

    @property
    def caret(self) -> str:
        """The DICOM form `Family^Given^Middle`."""
        return "^".join(part for part in (self.family, self.given, self.middle.rstrip(".")) if part)

    @property
    def initial(self) -> str:
        """`G. Family`"""
        return f"{self.given[0]}. {self.family}"


def half_of(name: str) -> str:
    """Which half a name belongs to; spellings that fold alike belong to the same half."""
    digest = hashlib.sha256(fold(name).lower().encode()).digest()
    return HALVES[digest[0] & 1]


@cache
def cultures() -> tuple[str, ...]:
    """The names of the lists, without the list of names that are words."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.txt") if path.stem != WORDS))


@cache
def pool(culture: str, part: str, half: str) -> tuple[str, ...]:
    """The names of one list (`female`, `male` or `family`) that belong to a half."""
    table = parse_mapping((FOLDER / f"{culture}.txt").read_text(encoding="utf-8"))
    return tuple(name for name in table[part] if half_of(name) == half)


@cache
def all_names(half: str) -> frozenset[str]:
    """Every word of every name of a half, folded, in lower case."""
    found: set[str] = set()
    for culture in (*cultures(), WORDS):
        for part in ("female", "male", "family"):
            for name in pool(culture, part, half):
                found.update(fold(name).lower().replace("'", " ").replace("-", " ").split())
    return frozenset(found)


def choose(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    """One of `options`."""
    return options[int(rng.integers(len(options)))]


def person(
    rng: np.random.Generator, half: str, culture: str | None = None, word_names: float = 0.25
) -> Person:
    """An invented person; with probability `word_names` the family name is a common word or an eponym."""
    culture = culture or choose(rng, cultures())
    female = bool(rng.random() < 0.5)
    given = choose(rng, pool(culture, "female" if female else "male", half))
    family = choose(rng, pool(culture, "family", half))
    middle = ""
    if culture == "english":
        if rng.random() < word_names * 2:
            family = choose(rng, pool(WORDS, "family", half))
            if rng.random() < 0.3:
                given = choose(rng, pool(WORDS, "female" if female else "male", half))
        if rng.random() < 0.25:
            middle = chr(65 + int(rng.integers(26))) + "."
    if culture == "spanish" and rng.random() < 0.6:
        family = f"{family} {choose(rng, pool(culture, 'family', half))}"
    elif rng.random() < 0.08 and " " not in family and "-" not in family:
        family = f"{family}-{choose(rng, pool(culture, 'family', half))}"
    if culture == "arabic" and rng.random() < 0.15 and "-" not in family:
        family = f"Al-{family}"
    return Person(given, middle, family, female, culture)
