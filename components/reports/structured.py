"""A structured report: per anatomical region the positive and the negative findings, in the report's words.

COLIPRI's opposite-sentence loss reads such reports. A sentence of which one clause affirms and another denies
(`No consolidation, but a small effusion`) becomes one statement a clause, so that a statement has one polarity
(`without X` then reads `No X`); list numbers and sub-headings (`2.`, `LUNGS:`) are left out, but for a few words
that name no organ (`Lungs: clear.`). What is merely suspected counts as positive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from components.reports.findings import (
    ABNORMAL,
    REGIONS,
    denied,
    denies_of_a_thing,
    polarity,
    region,
    region_in,
)
from components.reports.negation import lowered
from components.reports.subsections import Subsection, subsection_of

if TYPE_CHECKING:
    import pyarrow as pa

POSITIVE, NEGATIVE = "positive", "negative"
REGION_NAMES = (*(name for name, _ in REGIONS), "other")
MAX_BARE_WORDS = 4
MAX_SENTENCE = 2000  # characters; a longer one is no sentence, and stays whole
_PLACE = {name: place for place, name in enumerate(REGION_NAMES)}
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.)](?!\d)|[-*\u2022\u25cf\u00b7\u2013])\s*")
_JOINT = re.compile(
    r"\s*(?:;\s*|,?\s+(?:but|however|although|though|whereas|yet)\b,?\s*|,?\s+and\s+(?=there\s+(?:is|are)\b)|"
    r",\s+(?:and\s+|with\s+)?(?=(?:there|the|an?|small|mild|moderate|large|trace|minimal|stable|bilateral)\b)|"
    r",?\s+(?=without\b|with\s+no\b))",
    re.IGNORECASE,
)
_WITHOUT = re.compile(r"^(?:without|with no)\s+(?:any\s+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One row of `structured.parquet`: `order` is that of the sentence in `sentences.parquet`."""

    region: str
    polarity: str
    section: str
    order: int
    text: str


def statements(
    sentence: str,
    section: str,
    order: int,
    part: Subsection | None = None,
    at: int = 0,
    known: tuple[str, str] | None = None,
) -> list[Statement]:
    """The statements of one sentence, whose first character is the report's `at`; neutral ones are left out.

    `part` is the anatomical sub-section that holds the sentence: it gives the region that the words do not. `known`
    is the polarity and region of the whole sentence, where they have been found before.
    """
    within = part.region if part else None
    skip = max(0, part.start - at) if part and part.heading_start >= at else 0
    plain = _ITEM.sub("", " ".join(sentence[skip:].split()), count=1)
    label = _label(sentence[max(0, part.heading_start - at) : skip]) if part and skip else ""
    found = []
    said = clauses(plain)
    if known and not skip and len(said) == 1:
        sign, place = known
        if sign == POSITIVE and denies_of_a_thing(plain.lower()):
            sign = NEGATIVE
        return [Statement(place, sign, section, order, plain)] if sign in (POSITIVE, NEGATIVE) else []
    for clause in said:
        sign = polarity(clause)
        if sign == POSITIVE and denies_of_a_thing(clause.lower()):
            sign = NEGATIVE
        if sign in (POSITIVE, NEGATIVE):
            bare = label and len(clause.split()) <= MAX_BARE_WORDS and region(clause) == "other"
            text = f"{label}: {lowered(clause)}" if bare else clause
            found.append(Statement(region_in(clause, within), sign, section, order, text))
    return found


def _label(heading: str) -> str:
    """A sub-heading as a word to put before a statement that names no organ (`LUNGS:` is `Lungs`)."""
    words = re.sub(r"[^\w/&, -]+", " ", heading)
    return " ".join(words.split()).strip(" -").capitalize()


def clauses(sentence: str) -> list[str]:
    """The sentence, or its clauses as sentences where one of them affirms and another denies."""
    return list(_clauses(sentence))


@lru_cache(maxsize=16384)
def _clauses(sentence: str) -> list[str]:
    if len(sentence) > MAX_SENTENCE:
        return [sentence]
    spans, begin = [], 0
    for joint in _JOINT.finditer(sentence):
        tail = sentence[joint.end() : joint.end() + 120].lower()
        if tail.startswith(("without", "with no")) and not ABNORMAL.search(tail):
            continue  # `unchanged without growth` denies no finding
        if sentence[begin : joint.start()].strip(" .,;"):
            spans.append((begin, joint.start()))
            begin = joint.end()
    if sentence[begin:].strip(" .,;"):
        spans.append((begin, len(sentence)))
    if len(spans) < 2:
        return [sentence] if spans else []
    signs = [_sign(sentence, start, end) for start, end in spans]
    if not {POSITIVE, NEGATIVE} <= set(signs):
        return [sentence]
    grouped: list[tuple[int, int, str]] = []
    for (start, end), sign in zip(spans, signs, strict=True):
        if grouped and (sign in ("neutral", grouped[-1][2]) or grouped[-1][2] == "neutral"):
            known = grouped[-1][2] if sign == "neutral" else sign
            grouped[-1] = grouped[-1][0], end, known
        else:
            grouped.append((start, end, sign))
    return [_sentence(sentence[start:end]) for start, end, _ in grouped]


def _sign(sentence: str, start: int, end: int) -> str:
    """The polarity of a clause; what the clause names but the sentence before it denies is negative."""
    clause = sentence[start:end]
    sign = polarity(clause)
    if sign == POSITIVE and start:
        lower = sentence.lower()
        if len(lower) == len(sentence) and denied(lower, start, end):
            return NEGATIVE
    return sign


def _sentence(clause: str) -> str:
    plain = _WITHOUT.sub("No ", clause.strip(" ,;"))
    return plain[:1].upper() + plain[1:] + ("" if plain.endswith((".", "!", "?")) else ".")


def structured_rows(
    study_key: str, sentences: Sequence[Mapping[str, Any]], parts: Sequence[Subsection]
) -> list[dict[str, Any]]:
    """Rows of `structured.parquet` of one report: by region, positive before negative, then in its order.

    `sentences` are rows of `sentences.parquet` of those sections that state findings.
    """
    found = [
        statement
        for row in sentences
        for statement in statements(
            row["text"],
            row["section"],
            row["order"],
            subsection_of(parts, row["start"], row["end"]),
            row["start"],
            (row["polarity"], row["region"]),
        )
    ]
    ranked = sorted(
        enumerate(found), key=lambda item: (_PLACE[item[1].region], item[1].polarity == NEGATIVE, item[0])
    )
    return [{"study_key": study_key, **vars(statement)} for _, statement in ranked]


def structured_reports(
    rows: pa.Table | Iterable[Mapping[str, Any]], sections: Sequence[str] | None = None
) -> dict[str, dict[str, dict[str, list[str]]]]:
    """study -> region -> `positive` / `negative` -> statements, from `artifacts/section/structured.parquet`.

    `sections` limits it to statements of those sections; a text that repeats (findings and impression) is kept once.
    """
    listed = rows if not hasattr(rows, "to_pylist") else rows.to_pylist()
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    for row in listed:
        if sections is not None and row["section"] not in sections:
            continue
        region = found.setdefault(row["study_key"], {}).setdefault(
            row["region"], {POSITIVE: [], NEGATIVE: []}
        )
        if row["text"] not in region[row["polarity"]]:
            region[row["polarity"]].append(row["text"])
    return found
