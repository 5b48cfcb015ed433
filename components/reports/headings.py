"""Which words are a heading of a radiology report: the table `lexicon/headings.tsv`, qualifiers, misspellings.

The table says of each heading its section, language, kind and how often it was counted in public reports. A heading
may carry words that do not change it (`CT CHEST FINDINGS`, `IMPRESSION (PRELIMINARY)`), be two headings joined
(`HISTORY / INDICATION`), or be misspelt.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import NamedTuple

from components.reports.lexicon import FOLDER, mapping

CORE = (
    "exam",
    "indication",
    "technique",
    "comparison",
    "findings",
    "impression",
    "recommendation",
    "addendum",
)
_JOINED = ("impression", "findings", "technique", "comparison", "indication", "exam")
_NOT_WORD = re.compile(r"[^A-Z0-9/]+")
_LETTERS = str.maketrans(
    {"ı": "i", "İ": "I", "đ": "d", "Đ": "D", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "ß": "ss"}
    | {"æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "’": "'", "–": "-", "—": "-"}
)
_BRACKETS = re.compile(r"\([^()]{0,60}\)|\[[^\[\]]{0,60}\]")


_LISTED = re.compile(r"\s*[/,&]\s*(?:and\s+)?|\s+(?:and|und|y|et|ve|v\u00e0)\s+", re.IGNORECASE)


class Heading(NamedTuple):
    """A row of the table: kind is `heading`, `phrase`, `misspelling` or `word`; `reports` that had it."""

    section: str
    language: str
    kind: str
    reports: int


@cache
def table() -> dict[str, Heading]:
    """The table by heading, as `normalised` writes it."""
    found: dict[str, Heading] = {}
    for line in (FOLDER / "headings.tsv").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or line.startswith("heading\t"):
            continue
        words, section, language, kind, count = line.split("\t")
        found.setdefault(normalised(words), Heading(section, language, kind, int(count)))
    return found


@cache
def last_words() -> frozenset[str]:
    """The words that end a heading of the table, for a quick look."""
    ends = {key.split()[-1] for key in table() if key}
    return frozenset(ends | set(mapping("heading_words")["qualifier"]))


@cache
def _regions() -> dict[str, str]:
    return {normalised(words): region for region, found in mapping("subheadings").items() for words in found}


def subheadings() -> frozenset[str]:
    """Headings of parts of the findings (organs), as `normalised` writes them."""
    return frozenset(_regions())


@lru_cache(maxsize=8192)
def subheading_region(phrase: str) -> str | None:
    """The anatomical region of a sub-heading (`LUNGS AND PLEURA`), `other` for a general one; None if it is none."""
    key = normalised(phrase)
    regions = _regions()
    if key in regions:
        return regions[key]
    if len(key) > 60:
        return None
    parts = [normalised(part) for part in _LISTED.split(phrase) if part.strip()]
    return regions[parts[0]] if 1 < len(parts) <= 5 and all(part in regions for part in parts) else None


def fold(text: str) -> str:
    """Upper case without accents, one character or more a letter (`Sonuç` is `SONUC`, `Größe` is `GROSSE`)."""
    if text.isascii():
        return text.upper()
    plain = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(char for char in plain if not unicodedata.combining(char)).upper()


@lru_cache(maxsize=16384)
def normalised(phrase: str) -> str:
    """A heading as the table is compared: folded, single spaces, no punctuation, no number at its end."""
    words = _NOT_WORD.sub(" ", fold(phrase).replace("'", "")).split()
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(words)


@lru_cache(maxsize=8192)
def section_of(phrase: str, misspelt: bool = True, qualified: bool = True) -> tuple[str, str] | None:
    """(section, confidence) of a heading, "medium" when it is misspelt or qualified; None when it is no heading.

    `misspelt` and `qualified` say whether such forms count: where prose may stand, they should not.
    """
    key = normalised(phrase)
    if (exact := _exact(key)) is not None:
        return exact
    if misspelt and (near := _misspelt(key)):
        return near
    if not qualified or not 4 <= len(key) <= 70 or key in _regions():
        return None
    bare = normalised(_BRACKETS.sub(" ", phrase))
    if bare != key and (exact := _exact(bare)) is not None:
        return exact
    return _joined(_BRACKETS.sub(" ", phrase)) or _qualified(bare)


def is_common(phrase: str) -> bool:
    """Whether a heading is one that stands in running text, too: counted in reports, or of several words."""
    row = table().get(normalised(phrase))
    return row is None or row.kind != "phrase" or row.reports > 0 or " " in normalised(phrase)


def is_main(phrase: str) -> bool:
    """Whether a heading is one of the usual names of its section, not a part of it or a rare synonym."""
    row = table().get(normalised(phrase))
    return row is not None and row.kind == "heading"


def _exact(key: str) -> tuple[str, str] | None:
    row = table().get(key)
    if row is None or row.kind == "word":
        return None
    return row.section, "medium" if row.kind == "misspelling" else "high"


def _joined(phrase: str) -> tuple[str, str] | None:
    """Two headings in one (`EXAM/TECHNIQUE`): the section that comes first in the order of `_JOINED`."""
    parts = [normalised(part) for part in _LISTED.split(phrase) if part.strip(" :")]
    if not 2 <= len(parts) <= 3:
        return None
    found = [_exact(part) for part in parts]
    names = {item[0] for item in found if item}
    if None in found or not names:
        return None
    if len(names) == 1:
        return names.pop(), "high"
    return next(((name, "medium") for name in _JOINED if name in names and names <= set(_JOINED)), None)


def _qualified(key: str) -> tuple[str, str] | None:
    """A heading among words that do not change it (`CT CHEST FINDINGS`)."""
    words = key.replace("/", " ").split()
    if not 2 <= len(words) <= 9:
        return None
    beside = mapping("heading_words")
    first = 0
    while first < len(words) and words[first] in beside["qualifier"] and words[first] not in beside["link"]:
        first += 1
    last = len(words)
    while last > first and words[last - 1] in beside["qualifier"]:
        last -= 1
    found = _exact(" ".join(words[first:last])) if 0 < last - first < len(words) else None
    return (
        (found[0], "medium")
        if found and found[0] in ("findings", "impression", "technique", "comparison", "indication")
        else None
    )


@cache
def _targets() -> dict[str, list[tuple[int, str]]]:
    """By first letter, the headings that may be misspelt: (minus count, heading), the commonest first."""
    found: dict[str, list[tuple[int, str]]] = {}
    for words, row in table().items():
        if row.kind == "heading" and len(words) >= 7:
            found.setdefault(words[0], []).append((-row.reports, words))
    return {letter: sorted(rows) for letter, rows in found.items()}


def _misspelt(key: str) -> tuple[str, str] | None:
    if not 6 <= len(key) <= 30 or key in _regions() or key in table():
        return None
    second = key[1]
    candidates = [
        *_targets().get(key[0], ()),
        *(row for row in _targets().get(second, ()) if second != key[0]),
    ]
    for _, known in candidates:
        if known[0] != key[0] and known[:2] != key[1::-1]:
            continue
        allowed = 1 if len(known) < 8 else 2
        if abs(len(known) - len(key)) <= allowed and distance(key, known, allowed) <= allowed:
            return table()[known].section, "medium"
    return None


def distance(left: str, right: str, limit: int) -> int:
    """Edits (a swap of neighbours counts as one) between two words; `limit + 1` when there are more."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        older, before, row = before, row, [i]
        for j, b in enumerate(right, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
        if min(row) > limit:
            return limit + 1
    return row[-1]
