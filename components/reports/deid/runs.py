"""Runs of words that may be a person's name, judged word by word from the lists, the case and what stands around.

`Scan` holds a note's tokens with their flags; `take` grows a run to the right of a cue, `take_back` to its left.
How much a word must look like a name depends on the cue's `Trust`.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import cached_property

from components.reports.deid.note import Note
from components.reports.deid.wordlists import (
    EPONYM,
    FAMILY,
    FOREIGN,
    GIVEN,
    NAME,
    STOP,
    WORD,
    Lists,
    english_share,
    known_share,
)
from components.reports.lexicon import mapping, word_set

CAPITAL, UPPER, LOWER, CASELESS = "C", "U", "l", "n"
MAX_WORDS = 5
_FAMILIAR = 0.85
PARTICLES = word_set("runs.particles")
_SUFFIXES = frozenset({"jr", "sr"})
DEGREE = re.compile(
    r"[ ,]{0,3}(?:M\.? ?D\.?|D\.? ?O\.?|Ph\.? ?D\.?|MBBS|MBChB|MB|FRCR|FRCPC|FRANZCR|FACR|FACS|"
    r"R\.? ?N\.?|BSN|MSN|"
    r"N\.? ?P\.?|DNP|CRNP|APRN|ARNP|FNP|PA-?C|P\.? ?A\.?|R\.?T\.?(?: ?\(R\))?|RDMS|DDS|DPM|DVM|LVN|"
    r"LPN|MPH|MSc)(?![\w'])",
    re.IGNORECASE,
)
DEGREES = word_set("runs.degrees")
_JOINTS = frozenset({" ", "  ", "-", "'", " - ", "' ", "- "})
_CAPITALS, _SMALL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"abcdefghijklmnopqrstuvwxyz"
_VOWEL_FREE = re.compile(r"[^aeiouy\W\d_]{4,}$")


class Trust(IntEnum):
    """How much a cue says that a name follows: told (a verb), label (a field, `by`), title (`Dr`)."""

    TOLD = 1
    LABEL = 2
    TITLE = 3


def case_counts(text: str) -> tuple[int, int]:
    """How many capitals and how many small letters `text` holds."""
    if text.isascii():
        raw = text.encode("ascii")
        size = len(raw)
        return size - len(raw.translate(None, _CAPITALS)), size - len(raw.translate(None, _SMALL))
    return sum(map(str.isupper, text)), sum(map(str.islower, text))


class Scan:
    """A note's tokens with the flags of their words, and what is known of its language and case."""

    def __init__(self, note: Note, lists: Lists) -> None:
        self.note, self.lists = note, lists
        self.view, self.words, self.starts, self.ends = note.view, note.words, note.starts, note.ends
        known = lists.flags_in(note.places, note.languages)
        self.flags = [known[word] for word in self.words]
        self.written, self._gaps = note.written, note.gaps
        self._known, self._caps, self._shapes = known, dict[int, bool](), dict[int, str]()

    @cached_property
    def english(self) -> bool:
        """Whether the note is written in English (its unknown words then stand out)."""
        return english_share(self._known, self.words) >= 0.62

    @cached_property
    def familiar(self) -> bool:
        """Whether next to all words of the note are known, in whatever language (unknown ones then stand out)."""
        return self.english or (bool(self.note.languages) and known_share(self._known) >= _FAMILIAR)

    @cached_property
    def lower_note(self) -> bool:
        """Whether the note has next to no capitals, so that a small letter says nothing."""
        head = self.view[:20_000]
        capitals, small = case_counts(head)
        other = 0 if head.isascii() else sum(map(str.isalpha, head)) - capitals - small
        return capitals * 60 < capitals + small + other

    def upper_line(self, number: int) -> bool:
        """Whether the line around a token (within 120 characters) is written in capitals only."""
        start, end = self.starts[number], self.ends[number]
        left = max(0, start - 120)
        first = max(left, self.view.rfind("\n", left, start) + 1)
        if first in self._caps and first > left:
            return self._caps[first]
        last = self.view.find("\n", end, end + 120)
        piece = self.view[first : last if last >= 0 else end + 120]
        capitals, small = case_counts(piece)
        found = capitals > 8 * small
        if found and first > left and sum(map(str.isalpha, piece)) < 40:
            found = self.upper_note
        self._caps[first] = found
        return found

    @cached_property
    def upper_note(self) -> bool:
        """Whether most of the note is in capitals."""
        head = self.view[:20_000]
        capitals, small = case_counts(head)
        return capitals > 2 * small

    def shape(self, number: int) -> str:
        """CAPITAL (says something), UPPER (in a line of capitals), LOWER, or CASELESS (in a note without capitals)."""
        found = self._shapes.get(number)
        if found is None:
            found = self._shapes[number] = self._shape(number)
        return found

    def _shape(self, number: int) -> str:
        first = self.written[number][0]
        if first.isupper():
            if self.lower_note:
                return CAPITAL
            written = self.written[number]
            if len(written) > 1 and not written.isupper():
                return CAPITAL
            return UPPER if self.upper_line(number) else CAPITAL
        if first.islower():
            return CASELESS if self.lower_note else LOWER
        return CASELESS

    def gap(self, left: int) -> str:
        """The view between token `left` and the next one; nothing stands left of the first."""
        return self._gaps[left] if left >= 0 else ""

    def strange(self, number: int) -> bool:
        """A word that is neither English, medical, foreign nor an eponym: in an English note, likely a name."""
        word = self.words[number]
        return (
            not self.flags[number] & (WORD | STOP | FOREIGN | EPONYM)
            and len(word) > 2
            and word.isalpha()
            and not _VOWEL_FREE.match(word)
            and not self.abbreviation(number)
        )

    def abbreviation(self, number: int) -> bool:
        """A short word in capitals amid small letters: `ICA`, `LUE`."""
        written = self.written[number]
        if not (1 < len(written) < 6 and written.isupper() and self.shape(number) == CAPITAL):
            return False
        return not (self._capitals_name(number, number + 1) or self._capitals_name(number - 1, number - 1))

    def _capitals_name(self, left: int, other: int) -> bool:
        """Whether the neighbour `other` is a name in capitals too (`EIMER CADDEN`)."""
        if not 0 <= left < len(self.words) - 1 or self.gap(left) not in (" ", ", ", "-"):
            return False
        written = self.written[other]
        long = len(written) > 4 and written.isupper() and written.isalpha()
        return long and (
            bool(self.flags[other] & NAME) or not self.flags[other] & (WORD | STOP | FOREIGN | EPONYM)
        )

    def listed(self, number: int) -> bool:
        """A word that is a name and nothing else."""
        return bool(self.flags[number] & NAME) and not self.flags[number] & (WORD | STOP | FOREIGN | EPONYM)


def scan_of(note: Note, lists: Lists) -> Scan:
    """The scan of a note with these lists, made once a note."""
    found = note.scans.get(id(lists))
    if not isinstance(found, Scan):
        found = note.scans[id(lists)] = Scan(note, lists)
    return found


def degree_at(scan: Scan, number: int) -> bool:
    """Whether a degree (`MD`, `R.N.`) begins at token `number`."""
    return scan.words[number] in DEGREES and bool(DEGREE.match(scan.view, scan.starts[number]))


def _initial(scan: Scan, number: int) -> bool:
    """A single letter that stands for a name: `J.`, or `J` before or after a name."""
    if not scan.words[number].isalpha() or degree_at(scan, number):
        return False
    after = scan.view[scan.ends[number] : scan.ends[number] + 1]
    if scan.view[scan.starts[number]].isupper():
        return True
    return after == "." and scan.shape(number) == CASELESS and scan.words[number] not in "ai"


def _first(scan: Scan, number: int, trust: Trust) -> bool:
    """Whether a run may begin at token `number`."""
    word, flags, shape = scan.words[number], scan.flags[number], scan.shape(number)
    if len(word) == 1 and word in "odl" and number + 1 < len(scan.words) and scan.gap(number) == "'":
        return scan.shape(number + 1) != LOWER and len(scan.words[number + 1]) > 2
    if len(word) == 1:
        return _initial(scan, number) and number + 1 < len(scan.words) and _first_after_initial(scan, number)
    if degree_at(scan, number):
        return False
    if flags & STOP:
        if flags & GIVEN and len(word) > 2 and shape != LOWER and _family_after(scan, number, shape):
            return True
        if (
            shape == CAPITAL
            and len(word) > 2
            and flags & NAME
            and not scan.view[scan.starts[number] : scan.ends[number]].isupper()
        ):
            return trust > Trust.TOLD
        if (
            trust == Trust.TITLE
            and shape == CAPITAL
            and flags & NAME
            and len(word) == 2
            and not scan.abbreviation(number)
        ):
            return scan.view[scan.ends[number] : scan.ends[number] + 1] == "/" or _capital_name(
                scan, number + 1
            )
        return trust == Trust.TITLE and len(word) > 3 and bool(flags & NAME) and shape != LOWER
    if shape == CAPITAL:
        if trust == Trust.TOLD:
            if scan.abbreviation(number):
                return False
            return not flags & (WORD | FOREIGN) or bool(flags & NAME) or _confirmed(scan, number)
        if trust == Trust.LABEL and flags & WORD and not flags & NAME:
            return scan.note.first_in_sentence(number) is False or _alone(scan, number)
        return True
    if trust == Trust.TITLE:
        return shape != LOWER or not flags & WORD or bool(flags & NAME)
    if shape == LOWER:
        return trust == Trust.LABEL and scan.listed(number)
    if trust == Trust.LABEL:
        return not flags & WORD or bool(flags & NAME)
    if flags & (WORD | FOREIGN):
        return bool(flags & NAME) and _confirmed(scan, number)
    return bool(flags & NAME) or (scan.english and scan.strange(number))


def _first_after_initial(scan: Scan, number: int) -> bool:
    if scan.gap(number) not in (".", ". ", " "):
        return False
    follow = number + 1
    if len(scan.words[follow]) == 1:
        return follow + 1 < len(scan.words) and _initial(scan, follow)
    if scan.words[follow] in PARTICLES:
        return True
    if scan.flags[follow] & STOP and not scan.flags[follow] & NAME:
        return False
    return scan.shape(follow) != LOWER


def _family_after(scan: Scan, number: int, shape: str) -> bool:
    """Whether a name that is nothing else follows, written in the same way (`April Zuber`)."""
    follow = number + 1
    joined = follow < len(scan.words) and scan.gap(number) == " "
    return joined and scan.listed(follow) and scan.shape(follow) == shape


def _capital_name(scan: Scan, number: int) -> bool:
    return number < len(scan.words) and scan.shape(number) == CAPITAL and bool(scan.flags[number] & NAME)


def _alone(scan: Scan, number: int) -> bool:
    """Whether the rest of the line after a word is short and holds no sentence."""
    end = scan.view.find("\n", scan.ends[number])
    rest = scan.view[scan.ends[number] : end if end >= 0 else len(scan.view)][:40]
    return len(rest) < 30 and not re.search(r"[a-z]{3,} [a-z]{2,}", rest)


def _confirmed(scan: Scan, number: int) -> bool:
    """Whether what follows a word says that a person was meant: a degree, `at 14:02`, `by phone`, a role."""
    tail = scan.view[scan.ends[number] : scan.ends[number] + 40]
    if DEGREE.match(tail) and tail[:1] in " ,":
        return True
    return bool(
        re.match(
            r"[ ,]{1,2}\(?(?:at \(?\d|at (?:ext|x\d|pager|phone|tel|beeper)|by (?:tele)?phone|by (?:secure|"
            r"text|pager)|via |on \d|who |@ ?\d|of (?:the )?(?:[a-z]+ )?[a-z]*"
            r"(?:surgery|ology|medicine|service|department|team)|from (?:the )?[a-z]*(?:surgery|ology|"
            r"medicine)|"
            r"attending|resident|fellow|radiologist|pager|ext\b|regarding|about|in the (?:er|ed|icu|emergency))",
            tail,
            re.IGNORECASE,
        )
    )


def _further(scan: Scan, number: int, taken: list[int]) -> bool:
    """Whether a run that holds the tokens `taken` may go on with token `number`."""
    word, flags, shape = scan.words[number], scan.flags[number], scan.shape(number)
    if len(word) == 1:
        return _initial(scan, number)
    if word in _SUFFIXES or (flags & NAME and scan.gap(number - 1) == "-"):
        return True
    if degree_at(scan, number):
        return False
    before = taken[-1]
    if flags & STOP:
        return (
            bool(flags & NAME)
            and shape == CAPITAL
            and len(word) > 2
            and len(taken) < 3
            and not (scan.view[scan.starts[number] : scan.ends[number]].isupper())
        )
    if shape == CAPITAL:
        if scan.abbreviation(number) and not flags & NAME and not scan.abbreviation(before):
            return False
        if not flags & WORD or flags & NAME:
            return not (flags & EPONYM and scan.gap(number - 1) == " " and _is_eponym(scan, number))
        return scan.gap(number - 1) == "-" or (
            scan.gap(number - 1) == " "
            and len(taken) == 1
            and bool(scan.flags[before] & GIVEN)
            and not flags & FOREIGN
        )
    if shape == LOWER and scan.gap(number - 1) == "-":
        return not flags & (WORD | STOP) or bool(flags & NAME and not flags & STOP)
    if shape == LOWER:
        return scan.listed(number) and scan.gap(number - 1) in (" ", "-") and scan.shape(before) == LOWER
    if not flags & (WORD | FOREIGN | EPONYM):
        return bool(flags & NAME) or (scan.english and scan.strange(number)) or len(taken) < 2
    if scan.gap(number - 1) == "-" and not flags & WORD:
        return True
    family_open = (
        bool(scan.flags[before] & GIVEN) or len(scan.words[before]) == 1 or scan.words[before] in PARTICLES
    )
    return (
        bool(flags & FAMILY) and family_open and len(taken) < 3 and not (flags & FOREIGN and not scan.english)
    )


def _joined(scan: Scan, number: int, taken: list[int], comma: bool) -> str | None:
    """How token `number` is joined to the run: "" or "," or None where the run ends."""
    gap, before = scan.gap(number - 1), taken[-1]
    word = scan.words[number]
    if gap == "'" and word == "s":
        return None
    if gap in _JOINTS:
        return ""
    if gap in (". ", "."):
        single = (
            len(scan.words[before]) == 1 or scan.words[before] in PARTICLES or scan.words[before] in _SUFFIXES
        )
        return "" if single else None
    if gap in (", ", ",") and comma and not degree_at(scan, number):
        return ","
    if gap.strip(" ") == "\n" and len(taken) == 1 and scan.listed(number):
        return "" if scan.shape(number) == CAPITAL else None
    if gap == "^" or gap == "^^":
        return ""
    return None


def take(
    scan: Scan, at: int, trust: Trust, comma: bool = False, limit: int = MAX_WORDS
) -> tuple[int, int] | None:
    """The run of name words that begins at token `at`, as (first, last) token, or None."""
    total = len(scan.words)
    particles: list[int] = []
    while at < total and scan.words[at] in PARTICLES and len(particles) < 2 and len(scan.words[at]) > 1:
        particles.append(at)
        at += 1
        if at < total and scan.gap(at - 1) not in (" ", "-", "'", "-'", ". ", "."):
            return None
    if at >= total or scan.words[at].isdigit() or not scan.words[at].isalpha():
        return None
    if particles and not (scan.shape(at) != LOWER and not scan.flags[at] & STOP):
        alone = (
            trust == Trust.TITLE
            and scan.shape(particles[0]) == CAPITAL
            and not scan.abbreviation(particles[0])
        )
        return (particles[0], particles[0]) if alone and len(scan.words[particles[0]]) > 1 else None
    if not _first(scan, at, trust):
        return None
    taken, place, commas = [at], at + 1, 0
    while place < total and len(taken) < limit:
        joint = _joined(scan, place, taken, comma and commas == 0)
        if joint is None or not scan.words[place].isalpha():
            break
        if scan.words[place] in PARTICLES and len(scan.words[place]) > 1:
            if place + 1 >= total or not scan.words[place + 1].isalpha() or "\n" in scan.gap(place):
                break
            if not (_further(scan, place + 1, [*taken, place]) or scan.words[place + 1] in PARTICLES):
                break
            if scan.shape(place + 1) == LOWER and scan.gap(place) != "-":
                break
        elif not _further(scan, place, taken):
            break
        commas += joint == ","
        taken.append(place)
        place += 1
    while len(taken) > 1 and (scan.words[taken[-1]] in PARTICLES and len(scan.words[taken[-1]]) > 1):
        taken.pop()
    if taken == [at] and len(scan.words[at]) == 1:
        return None
    return (particles or taken)[0], taken[-1]


def _is_eponym(scan: Scan, number: int) -> bool:
    """Whether a word that is an eponym is followed by a noun of the eponym (`Kerley B lines`)."""
    followers = mapping("eponyms").get(scan.words[number], ())
    after = scan.words[number + 1 : number + 2]
    return followers == ("*",) or any(option.removeprefix("'s ").split()[0] in after for option in followers)


def _given_before(scan: Scan, number: int) -> bool:
    """Whether a given name, perhaps with an initial, stands before a token."""
    place = number - 1
    if place > 0 and len(scan.words[place]) == 1 and scan.gap(place) in (". ", " "):
        place -= 1
    joined = place >= 0 and scan.gap(place) == " "
    return joined and bool(scan.flags[place] & GIVEN) and not scan.flags[place] & STOP


def take_back(scan: Scan, at: int, need_name: bool = True) -> tuple[int, int] | None:
    """The run of name words that ends at token `at`, as (first, last) token, or None."""
    first, place, names = at, at, 0
    while place >= 0 and at - place < MAX_WORDS:
        word, flags, shape = scan.words[place], scan.flags[place], scan.shape(place)
        if place < at:
            gap = scan.gap(place)
            if gap not in _JOINTS and not (gap in (". ", ".") and (len(word) == 1 or word in PARTICLES)):
                break
        if not word.isalpha() or (flags & STOP and word not in PARTICLES):
            break
        if len(word) == 1 and not _initial(scan, place):
            break
        good = (
            scan.listed(place)
            or (scan.english and scan.strange(place))
            or (flags & EPONYM and shape == CAPITAL)
        )
        if shape != CAPITAL and place == at and not good and flags & FAMILY and not flags & EPONYM:
            good = _given_before(scan, place)
        weak = shape == LOWER or (shape != CAPITAL and not good and word not in PARTICLES and len(word) > 1)
        if weak and not (flags & NAME and place < at and shape != LOWER and names):
            break
        if shape == CAPITAL and flags & WORD and not flags & NAME and len(word) > 1 and not names:
            break
        names += bool(good or (flags & NAME and shape == CAPITAL))
        first, place = place, place - 1
    while first <= at and scan.words[first] in PARTICLES and scan.shape(first) == LOWER:
        first += 1
    if first > at or len(scan.words[at]) == 1 or (need_name and not names):
        return None
    return first, at
