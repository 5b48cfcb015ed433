"""Lists that surrogates are drawn from, without the terms that radiology keeps; and keyed choices for a patient."""

from __future__ import annotations

import hmac
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from components.base.keys import KeyRing
from components.reports.deid.note import fold
from components.reports.lexicon import entries, mapping, words

FOLDER = Path(__file__).parent
MIN_NAMES = 6  # of a letter in each list, for the letter to be one that surrogates begin with
_LETTERS = re.compile(r"[^\W\d_]+")


class Patient(NamedTuple):
    """What surrogates of a patient depend on: the keyed id, all known PHI of all the patient's studies, the sex."""

    key: str
    identities: tuple[tuple[str, str], ...] = ()
    sex: str | None = None


class Keyed:
    """Repeatable choices of one patient: HMAC-SHA256 under a key of the patient's own, drawn from the project's key."""

    def __init__(self, ring: KeyRing, patient: str) -> None:
        self._secret = ring.digest("surrogates", patient)

    def digest(self, purpose: str, value: str) -> bytes:
        """32 bytes for a purpose and a value."""
        return hmac.digest(self._secret, f"{purpose}\0{value}".encode(), "sha256")

    def seed(self, purpose: str, value: str) -> int:
        """64 bits for a purpose and a value."""
        return int.from_bytes(self.digest(purpose, value)[:8], "big")


@lru_cache(maxsize=8192)
def plain(text: str) -> str:
    """Lower case in plain letters, nothing but letters and digits: what makes two spellings one."""
    return "".join(char for char in fold(text).lower() if char.isalnum())


@cache
def kept_words() -> frozenset[str]:
    """Words that no surrogate may be: eponyms, terms of radiology, words that are names too, nouns of institutions."""
    found = set(words("ambiguous")) | set(words("stop"))
    for term in (*mapping("eponyms"), *entries("keep_terms")):
        found |= set(_LETTERS.findall(fold(term).lower()))
    for values in mapping("facilities").values():
        found |= {word for value in values for word in _LETTERS.findall(fold(value).lower())}
    return frozenset(found)


@cache
def _entries(name: str) -> tuple[str, ...]:
    """The usable entries of `NAME.txt`, each once."""
    lines = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = [part.strip() for line in lines for part in line.partition("#")[0].split(",")]
    return tuple(dict.fromkeys(entry for entry in found if entry and plain(entry) not in kept_words()))


@cache
def listed(name: str) -> tuple[str, ...]:
    """A list of `words.txt`, in its order."""
    found: list[str] = []
    for line in (FOLDER / "words.txt").read_text(encoding="utf-8").splitlines():
        key, colon, rest = line.partition("#")[0].partition(":")
        if colon and key.strip() == name:
            found += [part.strip() for part in rest.split(",") if part.strip()]
    return tuple(found)


@cache
def pool(name: str) -> Mapping[str, tuple[str, ...]]:
    """A list's entries by their first letter in lower case."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in _entries(name):
        found[entry[0].lower()].append(entry)
    return {letter: tuple(entries) for letter, entries in found.items()}


@cache
def places() -> tuple[str, ...]:
    """Names for the proper part of institutions, streets and towns."""
    return _entries("places")


@cache
def initials() -> str:
    """The letters that surrogates begin with: those with enough names in every list."""
    lists = [pool(name) for name in ("given_female", "given_male", "family")]
    return "".join(sorted(x for x in lists[2] if all(len(one.get(x, ())) >= MIN_NAMES for one in lists)))


@cache
def sexes() -> Mapping[str, str]:
    """Given name in plain lower case -> "F" or "M"; names of both are absent."""
    found: dict[str, set[str]] = defaultdict(set)
    lines = (FOLDER / "sexes.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        key, colon, rest = line.partition("#")[0].partition(":")
        if colon:
            for name in rest.split(","):
                found[plain(name)].add({"female": "F", "male": "M"}[key.strip()])
    for name, sex in (("given_female", "F"), ("given_male", "M")):
        for entry in _entries(name):
            found[plain(entry)].add(sex)
    return {name: next(iter(both)) for name, both in found.items() if len(both) == 1}


def like(written: str, surrogate: str) -> str:
    """`surrogate` in the case of `written`: capitals, small letters, or a capital first."""
    if len(written) > 1 and written.isupper():
        return surrogate.upper()
    return surrogate.lower() if written.islower() else surrogate


def first_free(options: Sequence[str], start: int, taken: frozenset[str] | set[str]) -> str | None:
    """The first option from `start` on, around the list, whose plain form is not taken."""
    for step in range(len(options)):
        option = options[(start + step) % len(options)]
        if plain(option) not in taken:
            return option
    return None
