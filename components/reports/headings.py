"""Which words are a heading of a radiology report: the lexicon, misspellings, and where a heading may stand."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from components.reports.lexicon import mapping

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
_NOT_WORD = re.compile(r"[^A-Z0-9/]+")
_MISSPELT = (
    "FINDINGS",
    "IMPRESSION",
    "IMPRESSIONS",
    "TECHNIQUE",
    "COMPARISON",
    "COMPARISONS",
    "INDICATION",
    "INDICATIONS",
    "CONCLUSION",
    "CONCLUSIONS",
    "HISTORY",
    "EXAMINATION",
    "ADDENDUM",
    "RECOMMENDATION",
    "RECOMMENDATIONS",
    "PROCEDURE",
    "CLINICAL HISTORY",
    "CLINICAL INDICATION",
    "CLINICAL INFORMATION",
    "REASON FOR EXAM",
    "REASON FOR EXAMINATION",
    "INTERPRETATION",
)


@cache
def headings() -> dict[str, str]:
    """Every heading of the lexicon (upper case) and its section."""
    return {heading: section for section, found in mapping("headings").items() for heading in found}


@cache
def subheadings() -> frozenset[str]:
    """Headings of parts of the findings (organs), upper case."""
    return frozenset(mapping("subheadings")["organ"])


def normalised(phrase: str) -> str:
    """A heading as the lexicon writes it: upper case, single spaces, no punctuation, no number at its end."""
    words = _NOT_WORD.sub(" ", phrase.upper().replace("'", "")).split()
    while len(words) > 1 and words[-1].isdigit():
        words.pop()
    return " ".join(words)


@lru_cache(maxsize=8192)
def section_of(phrase: str, misspelt: bool = True) -> tuple[str, str] | None:
    """(section, confidence) of a heading, "medium" when it is misspelt; None when it is no heading."""
    key = normalised(phrase)
    exact = headings().get(key)
    if exact:
        return exact, "high"
    if not misspelt or not 6 <= len(key) <= 26 or key in subheadings():
        return None
    for known in _MISSPELT:
        allowed = 1 if len(known) < 8 else 2
        if known[0] != key[0] and known[:2] != key[1::-1]:
            continue
        if abs(len(known) - len(key)) <= allowed and distance(key, known, allowed) <= allowed:
            return headings()[known], "medium"
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


def heading_at_end(phrase: str) -> tuple[int, str, str] | None:
    """The longest heading that ends a run of words: (offset in `phrase`, section, confidence)."""
    for match in re.finditer(r"[A-Za-z]\S*", phrase):
        found = section_of(phrase[match.start() :], misspelt=match.start() == 0)
        if found:
            return match.start(), *found
    return None
