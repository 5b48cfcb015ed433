"""What stands around a word that no layer took for PHI: the features by which `suspects.py` judges it.

A word's surroundings are a short tuple of classes: what the lexicon says of the word and of its neighbours, how they
are joined, where in the line it stands, what was found beside it. Only words of closed lists (stop words, cues) count
by themselves, so that no name, no place and no word of a report is a feature. A span that was found, and a tag that
stands for one, count by their kind only: the surroundings are the same before and after the text was written.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache, lru_cache

from components.reports.deid.cues import cues
from components.reports.deid.dates import MONTHS
from components.reports.deid.facilities import nouns
from components.reports.deid.keep import MASKED, TAG
from components.reports.deid.runs import PARTICLES, Scan
from components.reports.deid.span import Span
from components.reports.deid.wordlists import EPONYM, FAMILY, FOREIGN, GIVEN, NAME, STOP, TERM, WORD, towns
from components.reports.lexicon import word_set, words

Context = tuple[str, ...]
_KIND_CLASS = {
    "PATIENT": "P",
    "STAFF": "P",
    "PERSON": "P",
    "HOSPITAL": "H",
    "ADDRESS": "A",
    "DATE": "D",
    "TIME": "D",
}
_WINDOW = 6
_MANY = 13  # from here on a count says no more


@cache
def _vocabulary() -> frozenset[str]:
    """The words that count by themselves: stop words and cues."""
    known = cues()
    sets: tuple[str, ...] = (
        "frames.prepositions",
        "frames.acts",
        "frames.journeys",
        "company.closings",
        "company.before",
    )
    sets += (
        "company.verbs",
        "company.human",
        "company.after",
        "company.signing",
        "contacts.labels",
        "places.labels",
    )
    found = {word for name in sets for word in word_set(name)}
    found |= (
        known.by | known.kin | known.direct | known.subject | known.role | known.owned | set(known.titles)
    )
    for group in known.told.values():
        found |= group
    return frozenset(found | words("stop"))


def class_of(kind: str) -> str:
    """The class of a kind of PHI: P person, H institution, A address, D date, I anything else."""
    return _KIND_CLASS.get(kind, "I")


@lru_cache(maxsize=100_000)
def word_class(word: str, flags: int) -> str:
    """What the lists say of a word, as one letter or a few."""
    if not word.isalpha():
        return "d" if word.isdigit() else "x"
    if len(word) == 1:
        return "i"
    if word in MONTHS:
        return "m"
    for letter, group in _groups():
        if word in group:
            return letter
    return _by_flags(word, flags)


@cache
def _groups() -> tuple[tuple[str, frozenset[str]], ...]:
    known, facility = cues(), nouns()
    pairs = frozenset(facility.pairs) | word_set("places.practices") | word_set("frames.letterhead")
    return (
        ("t", frozenset(known.titles)),
        ("k", known.kin),
        ("r", known.role),
        ("h", facility.heads | frozenset(facility.prefixes)),
        ("n", pairs),
        ("g", facility.generic - words("stop")),
        ("p", frozenset(PARTICLES)),
    )


def _by_flags(word: str, flags: int) -> str:
    name = {0: "", GIVEN: "G", FAMILY: "F", NAME: "B"}[flags & NAME]
    town = "T" if word in towns() else ""
    if flags & TERM:
        return "R" + name
    if flags & STOP:
        return "s" + name
    if flags & EPONYM:
        return "E" + name
    plain = "w" if flags & WORD else "f" if flags & FOREIGN else ""
    return (name + town + plain) or "u"


def _gap_class(gap: str) -> str:
    if "\n" in gap:
        return "N" if "\n\n" in gap.replace(" ", "") else "n"
    for mark in ":(/.,;)-'&":
        if mark in gap:
            return mark
    return "s" if gap == " " else "" if not gap else "w" if gap.isspace() else "q"


class Surroundings:
    """The tokens of a note with what covers them; `context` answers for one token."""

    def __init__(self, scan: Scan, spans: list[Span]) -> None:
        self.scan = scan
        self.covered: dict[int, str] = {}
        self._lines: dict[int, tuple[str, ...]] = {}
        view = scan.view
        for span in spans:
            self.cover(span.start, span.end, class_of(span.kind))
        if "[" in view:
            for match in TAG.finditer(view):
                self.cover(*match.span(), class_of(match.group()[1:-1]))
        if "█" in view:
            for match in MASKED.finditer(view):
                self.cover(*match.span(), "I")
        self._breaks = [match.start() for match in re.finditer("\n", view)]

    def cover(self, start: int, end: int, kind: str) -> None:
        """Note that `[start, end)` is PHI of a class."""
        first, last = bisect_left(self.scan.ends, start + 1), bisect_left(self.scan.starts, end) - 1
        for number in range(first, last + 1):
            self.covered.setdefault(number, kind)

    def add(self, numbers: list[tuple[int, str]]) -> None:
        """Note that tokens are PHI of a class; what was said of their lines is forgotten."""
        for number, kind in numbers:
            self.covered[number] = kind
            self._lines.pop(self.line_of(number), None)

    def line_of(self, number: int) -> int:
        """The number of a token's line."""
        return bisect_left(self._breaks, self.scan.starts[number])

    def step(self, number: int, way: int) -> int:
        """The next token before or after, a covered run of one kind passed over as one."""
        kind, total = self.covered.get(number), len(self.scan.words)
        number += way
        while kind is not None and 0 <= number < total and self.covered.get(number) == kind:
            number += way
        return number

    def _unit(self, number: int, near: bool) -> str:
        """How a neighbour counts: its kind where it is covered, itself where it is a cue, else its class."""
        scan = self.scan
        if not 0 <= number < len(scan.words):
            return "^"
        kind = self.covered.get(number)
        if kind is not None:
            return "<" + kind
        word = scan.words[number]
        if near and word in _vocabulary():
            return word
        found = word_class(word, scan.flags[number])
        return found + scan.shape(number) if near and found not in ("d", "x") else found

    def _gap(self, number: int, way: int) -> str:
        """How a token is joined to what stands before (-1) or after (1) it."""
        if way > 0 or number:
            gap = self.scan.gap(number if way > 0 else number - 1)
        else:
            gap = self.scan.view[: self.scan.starts[0]]
        if "[" in gap or "]" in gap:
            gap = gap.replace("[", "").replace("]", "")
        return _gap_class(gap)

    def _line(self, number: int) -> tuple[str, ...]:
        """What is said of a token's line: how full it is, whether it is a sentence, where in the note it stands."""
        line = self.line_of(number)
        found = self._lines.get(line)
        if found is None:
            found = self._lines[line] = self._describe(line)
        return found

    def _describe(self, line: int) -> tuple[str, ...]:
        scan, view = self.scan, self.scan.view
        begin = self._breaks[line - 1] + 1 if line else 0
        end = self._breaks[line] if line < len(self._breaks) else len(view)
        first, last = bisect_left(scan.starts, begin), bisect_left(scan.starts, end)
        small = radiology = units = 0
        mixed = not scan.lower_note
        number = first
        while number < last and (units < _MANY or small < _MANY or radiology < 2):
            units += 1
            if number not in self.covered:
                small += mixed and view[scan.starts[number]].islower()
                radiology += bool(scan.flags[number] & TERM)
            number = self.step(number, 1)
        total = len(self._breaks) + 1
        where = min(line, 3) if line < 4 else 4 if line < 8 else 6 if total - line <= 4 else 5
        closed = view[begin:end].rstrip()[-1:] in (".", ";", "?")
        return (
            f"z{_bucket(units)}",
            f"l{_bucket(small)}",
            f"y{min(radiology, 2)}",
            f"o{where}",
            "." if closed else "",
            ":" if ":" in view[begin:end] else "",
        )

    def _label(self, number: int) -> str:
        """The last word of the label of a token's cell, where it stands behind a colon."""
        scan, view = self.scan, self.scan.view
        begin = max(view.rfind("\n", 0, scan.starts[number]), scan.starts[number] - 60, 0)
        colon = view.rfind(":", begin, scan.starts[number])
        if colon < 0:
            return ""
        at = bisect_left(scan.starts, colon) - 1
        if (
            at < 0
            or scan.starts[at] < begin
            or at in self.covered
            or any(k in self.covered for k in range(at + 1, number))
        ):
            return "?" if at >= 0 else ""
        return (
            scan.words[at] if scan.words[at] in _vocabulary() else word_class(scan.words[at], scan.flags[at])
        )

    def context(self, number: int) -> Context:
        """The surroundings of a token."""
        scan = self.scan
        word, flags = scan.words[number], scan.flags[number]
        before, after = self.step(number, -1), self.step(number, 1)
        second, third = self.step(before, -1) if before >= 0 else -1, self.step(after, 1)
        line, total = self.line_of(number), len(scan.words)
        same_before = before >= 0 and self.line_of(before) == line
        same_after = after < total and self.line_of(after) == line
        written = scan.written[number]
        shape = scan.shape(number) + ("A" if written.isupper() and len(written) > 1 else "")
        return (
            word_class(word, flags) + ("" if word.isalpha() else _pattern(word)),
            shape,
            "1" if len(word) < 3 else "2" if len(word) < 5 else "3",
            self._gap(number, -1),
            self._unit(before, True),
            self._gap(before, -1) if before >= 0 else "",
            self._unit(second, True) if before >= 0 else "^",
            self._gap(number, 1),
            self._unit(after, True),
            self._gap(after, 1) if after < total else "",
            self._unit(third, False) if after < total else "^",
            ("b" if same_before else "") + ("a" if same_after else ""),
            self._label(number),
            self._window(number, (before, second, after, third)),
            ("L" if scan.lower_note else "U" if scan.upper_note else "M")
            + ("e" if scan.english else "k" if scan.familiar else "f"),
            *self._line(number),
        )

    def _window(self, number: int, near: tuple[int, ...]) -> str:
        """Which cues stand within a few words before a token, and what was found among the `near` units."""
        scan, found = self.scan, ""
        before = scan.words[max(0, number - _WINDOW) : number]
        if not _acts().isdisjoint(before):
            found += "a"
        if not _journeys().isdisjoint(before):
            found += "j"
        if not cues().by.isdisjoint(before[-3:]):
            found += "b"
        kinds = {self.covered.get(k) for k in near}
        return found + "".join(kind for kind in "PHDI" if kind in kinds)


def _pattern(word: str) -> str:
    """How a code is built: its length, or its runs of letters and digits."""
    if word.isdigit():
        year = "y" if len(word) == 4 and word[:2] in ("19", "20") else ""
        return str(min(len(word), 8)) + year
    return re.sub(
        r"d+", "d", re.sub(r"a{4,}", "aaaa", "".join("d" if char.isdigit() else "a" for char in word))
    )


def _bucket(count: int) -> str:
    return str(count) if count < 4 else "4" if count < 7 else "7" if count < 13 else "9"


@cache
def _acts() -> frozenset[str]:
    return word_set("frames.acts")


@cache
def _journeys() -> frozenset[str]:
    return word_set("frames.journeys")


def features(context: Context) -> Iterator[str]:
    """The names of the features of a context, single and in pairs."""
    (
        own,
        shape,
        size,
        left,
        prev,
        left2,
        prev2,
        right,
        follow,
        right2,
        third,
        where,
        label,
        window,
        note,
        *line,
    ) = context
    me = own + shape
    yield from (f"o{own}", f"s{shape}", f"z{size}", f"os{me}", f"osz{me}{size}", f"n{note}", f"on{own}{note}")
    yield from (f"p{left}|{prev}", f"q{prev}", f"pp{left}{prev}|{prev2}", f"q2{prev2}", f"g{left}{right}")
    yield from (
        f"f{right}|{follow}",
        f"h{follow}",
        f"ff{right}{follow}|{third}",
        f"h2{third}",
        f"og{own}{left}{right}",
    )
    yield from (f"op{own}|{left}{prev}", f"of{own}|{right}{follow}", f"pf{left}{prev}|{right}{follow}")
    yield from (
        f"sp{shape}|{left}{prev}",
        f"sf{shape}|{right}{follow}",
        f"gp{left2}{left}|{prev}",
        f"gf{right}{right2}|{follow}",
    )
    yield from (
        f"w{where}",
        f"ow{own}{where}",
        f"l{label}",
        f"ol{own}|{label}",
        f"v{window}",
        f"ov{own}|{window}",
    )
    for mark in window:
        yield f"v1{mark}"
        yield f"ov1{own}{mark}"
    for mark in line:
        yield f"i{mark}"
        yield f"oi{own}{mark}"
    zone = "".join(line[:4])
    yield from (f"iz{zone}", f"wz{where}{line[0]}{line[1]}{line[3]}", f"gw{left}{right}{where}{line[3]}")
