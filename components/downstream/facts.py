"""What a report states: the status of the 18 findings of CT-RATE, and its statements one by one.

The rules of `components.reports` read generated and reference reports alike. `statements` and `entailed` stand in
for the phrases and the language model of RadFact (Bannur et al. 2024, arXiv:2406.04449; RadFact-CT in COLIPRI's
evaluation): a statement is what one sentence says of one finding - its polarity, its side and its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from components.reports.findings import (
    ABNORMAL,
    NOT_MENTIONED,
    denies_of_a_thing,
    labels,
    laterality,
    mentions,
    polarity,
    region,
    strongest,
)
from components.reports.shorthand import plain_form

AFFIRMED = ("present", "uncertain")
BOTH = {"left", "right"}
STEM = 5  # letters of an abnormal word that must agree: `nodule`, `nodules`, `nodular`
PLACES = (
    ("upper", r"(?:upper|apical|apices|apex|biapical)\b(?! abdom)"),
    ("middle", r"middle|lingula\w*"),
    ("lower", r"lower|basal|basilar|bibasilar|bibasal|base|bases"),
    ("central", r"perihilar|hilar|central(?:ly)?"),
    ("peripheral", r"peripheral(?:ly)?|subpleural"),
    ("anterior", r"anterior(?:ly)?"),
    ("posterior", r"posterior(?:ly)?|dependent"),
    ("mediastinal", r"mediastinal|paratracheal|subcarinal|aortopulmonary"),
    ("axillary", r"axillary"),
    ("abdominal", r"retroperitoneal|mesenteric|upper abdominal"),
    ("ascending", r"ascending"),
    ("descending", r"(?<!anterior )descending"),
)
_PLACE = re.compile("|".join(rf"(?P<{name}>\b(?:{words})\b)" for name, words in PLACES))


@dataclass(frozen=True, order=True)
class Statement:
    """What one sentence says of one thing.

    Attributes:
        about: a finding of CT-RATE, or for a sentence that names none of them its region.
        words: the stems of the abnormalities named, where `about` is a region; else empty.
        status: `present`, `uncertain` or `absent`.
        side: `left`, `right`, `bilateral` or "" where none is said.
        places: where in the organ (`upper`, `peripheral`, ...), of the whole sentence.
    """

    about: str
    words: tuple[str, ...]
    status: str
    side: str
    places: tuple[str, ...]

    @property
    def affirmed(self) -> bool:
        """Whether something is said to be there, or suspected."""
        return self.status in AFFIRMED


def finding_statuses(sentences: Iterable[str]) -> dict[str, str]:
    """Finding -> `present`, `uncertain`, `absent` or `not_mentioned`, all 18 of them, for one report."""
    said: dict[str, list[tuple[str, int]]] = {name: [] for name in labels()}
    for order, sentence in enumerate(sentences):
        for mention in mentions(sentence):
            said[mention.finding].append((mention.status, order))
    return {name: strongest(found)[0] if found else NOT_MENTIONED for name, found in said.items()}


def affirmed_findings(sentences: Iterable[str]) -> tuple[int, ...]:
    """1 for each of the 18 findings that is present or suspected, else 0: what CE-F1 counts, in `labels()`' order."""
    return tuple(int(status in AFFIRMED) for status in finding_statuses(sentences).values())


def statements(sentences: Iterable[str]) -> list[Statement]:
    """The statements of a report, each once however often it is repeated; neutral sentences make none."""
    found: dict[Statement, None] = {}
    for sentence in sentences:
        found.update(dict.fromkeys(_statements(sentence)))
    return sorted(found)


@lru_cache(maxsize=16384)
def _statements(sentence: str) -> tuple[Statement, ...]:
    named = mentions(sentence)
    lower = plain_form(sentence)
    places = tuple(sorted({match.lastgroup or "" for match in _PLACE.finditer(lower)}))
    if named:
        return tuple(
            Statement(
                mention.finding,
                (),
                mention.status,
                mention.laterality,
                places if mention.status != "absent" else (),
            )
            for mention in named
        )
    sign = polarity(sentence, named)
    if sign == "neutral":
        return ()
    words = tuple(sorted({match.group()[:STEM] for match in ABNORMAL.finditer(lower)}))
    if sign == "negative" or denies_of_a_thing(lower):
        return (Statement(region(sentence), words, "absent", "", ()),)
    return (Statement(region(sentence), words, "present", laterality(sentence), places),)


def entailed(statement: Statement, report: Sequence[Statement]) -> bool:
    """Whether one statement of `report` says at least as much as `statement` (see `_entails`)."""
    return any(_entails(other, statement) for other in report)


def _entails(premise: Statement, claim: Statement) -> bool:
    """The same thing with the same polarity, on the claim's side and in the claim's places.

    `present` entails `uncertain`, not the other way round; `bilateral` entails either side. Of a region the words
    of the claim must all be among the premise's, and a claim without words (`unremarkable`) needs one without.
    """
    if premise.about != claim.about:
        return False
    if premise.status != claim.status and (premise.status, claim.status) != ("present", "uncertain"):
        return False
    if not set(claim.words) <= set(premise.words) or bool(claim.words) != bool(premise.words):
        return False
    if claim.status == "absent":
        return True
    side = claim.side in ("", premise.side) or (premise.side == "bilateral" and claim.side in BOTH)
    return side and set(claim.places) <= set(premise.places)
