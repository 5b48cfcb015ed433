"""Word lists of the reports room: one entry a line in a .txt file, `#` begins a comment."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent


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
