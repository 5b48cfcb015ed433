"""Word lists of the reports room: one entry a line in a .txt file, `#` begins a comment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from functools import cache
from itertools import chain
from pathlib import Path

FOLDER = Path(__file__).parent
_FEWEST, _SHARE, _SHARED = 6, 8, 4


@cache
def entries(name: str) -> tuple[str, ...]:
    """The entries of `NAME.txt` in the file's order; a line may hold several, separated by commas."""
    found: list[str] = []
    for line in (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        content = line.partition("#")[0]
        found += [part.strip() for part in content.split(",") if part.strip()]
    return tuple(found)


@cache
def words(name: str) -> frozenset[str]:
    """The entries of `NAME.txt` in lower case, as a set."""
    return frozenset(entry.lower() for entry in entries(name))


@cache
def languages() -> dict[str, frozenset[str]]:
    """The words of reports by language (ISO 639-1): `languages/CODE.txt`."""
    paths = sorted((FOLDER / "languages").glob("*.txt"))
    return {path.stem: words(f"languages/{path.stem}") for path in paths}


@cache
def _codes() -> dict[str, tuple[str, ...]]:
    """The languages of every word that is no English one; terms that many languages share say nothing."""
    english, shared = words("english_words") | words("stop") | languages()["en"], terms()
    found: dict[str, list[str]] = {}
    for code, own in languages().items():
        for word in own - english if code != "en" else ():
            found.setdefault(word, []).append(code)
    return {word: tuple(codes) for word, codes in found.items() if word not in shared or len(codes) < _SHARED}


def languages_of(vocabulary: Set[str]) -> tuple[str, ...]:
    """The languages other than English that a note with these words is written in: often two that are near each other.

    A language counts with six words or more that are no English ones, an eighth of all words of three letters, and
    half of what the first among them has.
    """
    known = _codes()
    shared = vocabulary & known.keys()
    if len(shared) < _FEWEST:
        return ()
    counts = Counter(chain.from_iterable(map(known.__getitem__, shared)))
    most = max(counts.values(), default=0)
    if most < _FEWEST:
        return ()
    least = max(_FEWEST, sum(1 for word in vocabulary if len(word) > 2) / _SHARE, most / 2)
    return tuple(sorted(code for code, count in counts.items() if count >= least))


@cache
def foreign(codes: tuple[str, ...]) -> frozenset[str]:
    """The words of some languages."""
    return frozenset().union(*(languages()[code] for code in codes))


@cache
def terms(codes: tuple[str, ...] = ()) -> frozenset[str]:
    """Words of radiology and of clinical notes, and those of some languages that are no names."""
    own = words("radiology_words") | words("clinical_words") | languages()["en"]
    names = words("first_names") | words("surnames") | words("towns") | words("cities")
    return own | (foreign(codes) - names)


def parse_mapping(text: str) -> dict[str, tuple[str, ...]]:
    """Lines `key: entry, entry` as a dictionary; a key may recur, its entries are then joined."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        key, colon, rest = line.partition("#")[0].partition(":")
        if colon:
            values = tuple(part.strip() for part in rest.split(",") if part.strip())
            found[key.strip()] = found.get(key.strip(), ()) + values
    return found


def parse_fields(text: str) -> dict[str, tuple[str, ...]]:
    """Lines `key: entry; entry` as a dictionary; entries may hold commas and colons."""
    rows = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): tuple(part.strip() for part in rest.split(";")) for key, _, rest in rows}


@cache
def mapping(name: str) -> dict[str, tuple[str, ...]]:
    """`NAME.txt` read by `parse_mapping`."""
    return parse_mapping((FOLDER / f"{name}.txt").read_text(encoding="utf-8"))


def word_set(key: str) -> frozenset[str]:
    """The words of one key of `word_sets.txt`."""
    return frozenset(mapping("word_sets")[key])
