"""Layer 5: words that no layer took for PHI, judged by their surroundings with a small linear model of our own.

`components/reports/measuring/train_suspects.py` fits the weights (`lexicon/suspects.json`) on invented notes only. A
suspect is a word or a code that is no term of radiology and that the case, the lists or a neighbour make conspicuous;
what is flagged may make its neighbours suspects, until nothing is added. What the lexicon keeps (`keep.py`) stays.
"""

from __future__ import annotations

import json
import re
from functools import cache
from math import exp
from pathlib import Path
from typing import NamedTuple

from components.reports.deid.address_parts import of_address
from components.reports.deid.edges import between, labels
from components.reports.deid.note import Note
from components.reports.deid.postal import rest_of_line
from components.reports.deid.runs import Scan, scan_of
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.surroundings import Context, Surroundings, class_of, features
from components.reports.deid.wordlists import (
    EPONYM,
    FOREIGN,
    NAME,
    STOP,
    TERM,
    WORD,
    Lists,
    default_lists,
    towns,
)
from components.reports.lexicon import FOLDER, word_set

MODEL = FOLDER / "suspects.json"
_ROUNDS = 4
_JOINT = 0.6  # score of a particle that goes with its neighbours
_REMEMBERED = 100_000
_PLACE_BEFORE = frozenset({"at", "from", "in", "to", "near", "by", "of", "the", "st", "saint"})


class Weights(NamedTuple):
    """The fitted model: weights by feature of `PHI or not` and of `person or place`, and the threshold on the logit."""

    bias: float
    phi: dict[str, float]
    person_bias: float
    person: dict[str, float]
    threshold: float


@cache
def weights(path: Path = MODEL) -> Weights:
    """The weights of a file, read once."""
    table = json.loads(path.read_text(encoding="utf-8"))
    return Weights(table["bias"], table["phi"], table["person_bias"], table["person"], table["threshold"])


def suspects(around: Surroundings, numbers: range | list[int]) -> list[int]:
    """Those of the tokens `numbers` that are worth a look."""
    scan, covered = around.scan, around.covered
    if scan.lower_note:
        likely = [number for number in numbers if number not in covered]
    else:  # a word in small letters is none amid capitals, a code may be
        view, starts, codes = scan.view, scan.starts, frozenset(scan.note.with_digit)
        likely = [n for n in numbers if (not view[starts[n]].islower() or n in codes) and n not in covered]
    flags, found = scan.flags, list[int]()
    for number in likely:
        mark = flags[number]
        if mark & EPONYM or (not mark & NAME and (mark & (STOP | TERM))):
            near = number - 1 in covered or number + 1 in covered
            if not near or not _beside(around, number):
                continue
        if _suspect(around, number):
            found.append(number)
    return found


def _suspect(around: Surroundings, number: int) -> bool:
    scan = around.scan
    word = scan.words[number]
    if not word.isalpha():
        return _number(around, number)
    if len(word) < 2 or word in labels():
        return False
    flags = scan.flags[number]
    if _beside(around, number):
        return True
    if flags & EPONYM or (flags & STOP and not flags & NAME):
        return False
    shape = scan.shape(number)
    if flags & TERM and (not flags & NAME or flags & WORD or shape != "C" or scan.abbreviation(number)):
        return False
    if flags & NAME or word in towns():
        return True
    if not flags & (WORD | FOREIGN):
        return True
    if shape != "C":
        before = scan.words[number - 1] if number else ""
        return (
            before in _PLACE_BEFORE
            or not number
            or "\n" in scan.gap(number - 1)
            or "  " in scan.gap(number - 1)
        )
    if not scan.note.first_in_sentence(number):
        return True
    return number + 1 >= len(scan.words) or scan.gap(number) != " " or scan.shape(number + 1) != "l"


def _number(around: Surroundings, number: int) -> bool:
    """Whether a token with a digit may be a code: long or joined to something found, no decimal, time or size."""
    scan, word = around.scan, around.scan.words[number]
    left = scan.gap(number - 1) if number else ""
    right = scan.gap(number) if number + 1 < len(scan.words) else ""
    if (left in _INNER and scan.words[number - 1].isdigit()) or (
        right in _INNER and scan.words[number + 1].isdigit()
    ):
        return False
    if right in ("", " ", "-") and number + 1 < len(scan.words) and scan.words[number + 1] in _UNITS:
        return False
    if number and scan.words[number - 1] in _SEQUENCE_TIMES and left == " ":
        return False
    if "#" in left or (word.isdigit() and "\n" in left and _timed(scan, number)):
        return False
    amount = _AMOUNT.fullmatch(word)
    if _YEAR.fullmatch(word) or _MEASURE.fullmatch(word) or (amount and amount[1] in _UNITS):
        return False
    if "/" in (left, right) and _PRESSURE.match(scan.view, scan.starts[number]):
        return False
    if amount and len(amount[1]) > 3 and default_lists().flags(amount[1]) & WORD:  # `4step`
        return False
    mixed = not word.isdigit()
    digits = sum(map(str.isdigit, word))
    if len(word) > 3 and (digits > 2 or not mixed):
        return True
    dashed = "-" in (left, right) or "/" in (left, right)
    beside = _beside(around, number) and (
        len(word) > 2 or not {around.covered.get(number - 1), around.covered.get(number + 1)}.isdisjoint("AI")
    )
    return beside or (dashed and len(word) > 2 and digits > 0)


def _timed(scan: Scan, number: int) -> bool:
    """Whether a line begins with a time in four digits, as another line of the note does: `0750  ...`."""
    found = _CLOCK.match(scan.view, scan.starts[number])
    if found is None:
        return False
    return any(match.start() != found.start() for match in _CLOCK.finditer(scan.view))


def _beside(around: Surroundings, number: int) -> bool:
    """Whether a token is joined to something found."""
    scan = around.scan
    left = number - 1 in around.covered and scan.gap(number - 1) in _JOINTS
    return left or (number + 1 in around.covered and scan.gap(number) in _JOINTS)


_INNER = frozenset({".", ":", ","})
_SEQUENCE_TIMES = frozenset({"tr", "te", "ti"})  # of a magnetic resonance sequence, in ms
_UNITS = word_set("suspects.units")
_MEASURE = re.compile(
    r"(?:\d+(?:x|st|nd|rd|th|t|f|w|d|p|c|k|mm\d)|(?:bp|hr|rr|p|t|wt|ht|sao2?|spo2?|mm|g)\d{1,3}|(?:s|se|im|img|i)\d{1,4}|[ium]?ct\d{2,3}|[cpyra]{0,2}t(?:[0-4x]|is)[a-d]?n[0-3x][a-c]?(?:m[01x][a-c]?)?|[ctlsi]\d{1,2})"
)
_AMOUNT = re.compile(r"\d+([a-z]{1,7})")
_PRESSURE = re.compile(r"\d{2,3}(?= ?/ ?\d{2,3}(?!\d))|(?<=\d/)\d{2,3}(?!\d)")
_CLOCK = re.compile(r"^(?:[01]\d|2[0-3])[0-5]\d(?= )", re.MULTILINE)
_YEAR = re.compile(r"(?:19|20)\d\d|2[0-4]00")
_JOINTS = frozenset({" ", "-", "'", " & ", " [", "] "})


def _named(word: str, person: bool) -> tuple[str, str]:
    """The kind and the rule of a flagged word."""
    if not word.isalpha():
        return "ID", "suspect.number"
    return ("PERSON", "suspect.person") if person else ("HOSPITAL", "suspect.place")


def _on_line(text: Note, span: Span) -> bool:
    """Whether a place may be part of an address line: a comma beside it, small letters in the note."""
    if span.rule != "suspect.place":
        return False
    view = text.view
    beside = view[max(0, span.start - 2) : span.start].strip() == "," or view[span.end : span.end + 1] == ","
    return beside and not view[:2000].isupper()


class Suspects:
    """Finds what the other layers left, by its surroundings."""

    name = "suspects"

    def __init__(
        self, threshold: float | None = None, lists: Lists | None = None, path: Path = MODEL
    ) -> None:
        """`threshold` is on the probability; the default is the one that the weights were fitted with."""
        self.weights, self.lists = weights(path), lists or default_lists()
        self.threshold = self.weights.threshold if threshold is None else threshold
        self._known: dict[Context, tuple[float, bool]] = {}

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of the words whose surroundings are those of PHI."""
        scan = scan_of(text, self.lists)
        around = Surroundings(scan, text.found)
        spans: list[Span] = []
        numbers: range | list[int] = range(len(scan.words))
        for _ in range(_ROUNDS):
            flagged = [(number, *self.judged(around.context(number))) for number in suspects(around, numbers)]
            flagged = [item for item in flagged if item[1] >= self.threshold]
            for number, score, person in flagged:
                kind, rule = _named(scan.words[number], person)
                spans.append(Span(scan.starts[number], scan.ends[number], kind, self.name, rule, score))
            around.add([(n, class_of(_named(scan.words[n], person)[0])) for n, _, person in flagged])
            joined = between(around) if self.threshold <= _JOINT else []
            spans += [self._joint(scan, number, kind) for number, kind in joined]
            around.add(joined)
            fresh = [number for number, _, _ in flagged] + [number for number, _ in joined]
            numbers = sorted(
                {n for number in fresh for n in (number - 1, number + 1) if 0 <= n < len(scan.words)}
            )
            if not numbers:
                break
        if self.threshold <= _JOINT:
            spans += [self._joint(scan, number, kind) for number, kind in of_address(around)]
        return [rest_of_line(text, span) if _on_line(text, span) else span for span in spans]

    def _joint(self, scan: Scan, number: int, kind: str) -> Span:
        """A particle or a genitive that goes with what was found beside it."""
        named = {"P": "PERSON", "A": "ADDRESS"}.get(kind, "HOSPITAL")
        return Span(scan.starts[number], scan.ends[number], named, self.name, "suspect.joint", _JOINT)

    def judged(self, context: Context) -> tuple[float, bool]:
        """The probability that a word in these surroundings is PHI, and whether it would be a person."""
        found = self._known.get(context)
        if found is None:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            phi, person = self.weights.phi, self.weights.person
            logit, kind = self.weights.bias, self.weights.person_bias
            for feature in features(context):
                logit += phi.get(feature, 0.0)
                kind += person.get(feature, 0.0)
            found = self._known[context] = (
                round(1 / (1 + exp(-max(-9.0, min(9.0, logit)))), 4),
                kind > 0,
            )
        return found
