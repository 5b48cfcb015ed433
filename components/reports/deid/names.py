"""Layer 3: names by their context - titles, degrees, labels, signatures, who was told - and their echo.

No list of names decides: a title, a label or a cue does, and then a run of words that may be a name. A
list of given names is used only for `Given Family` without any cue, with a low score.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from components.reports.deid.known import in_capitals, is_person_here
from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import mapping, words


def _by_kind(prefix: str) -> dict[str, str]:
    """word -> the second word of the key of each line `PREFIX KIND: ...` of cues.txt."""
    keys = [key for key in mapping("cues") if key.startswith(f"{prefix} ")]
    return {word: key.split()[1] for key in keys for word in mapping("cues")[key]}


@cache
def _cues() -> Cues:
    told: dict[str, set[str]] = {}
    for key, verbs in mapping("cues").items():
        if key.startswith("told "):
            for verb in verbs:
                told.setdefault(verb, set()).add(key.removeprefix("told ").replace("directly", ""))
    weak, by = (frozenset(mapping("cues")[key]) for key in ("weak_label", "by"))
    return Cues(_by_kind("title"), _by_kind("label"), weak, by, told)


class Cues(NamedTuple):
    """What `cues.txt` holds: titles and labels by kind, weak labels, verbs before `by`, verbs of telling."""

    titles: dict[str, str]
    labels: dict[str, str]
    weak: frozenset[str]
    by: frozenset[str]
    told: dict[str, set[str]]


_PARTICLES = frozenset(
    [
        "van",
        "von",
        "der",
        "den",
        "de",
        "del",
        "della",
        "di",
        "da",
        "dos",
        "das",
        "du",
        "la",
        "le",
        "al",
        "el",
        "bin",
        "ibn",
        "ben",
        "ter",
        "ten",
        "st",
        "san",
        "mc",
        "mac",
        "o",
        "d",
        "abu",
    ]
)
_DEGREE = re.compile(
    r"[ ,]{0,3}(?:M\.? ?D\.?|D\.? ?O\.?|Ph\.? ?D\.?|MBBS|MBChB|FRCR|FRCPC|FACR|FACS|R\.? ?N\.?|"
    r"N\.? ?P\.?|DNP|CRNP|APRN|ARNP|PA-?C|R\.?T\.?(?: ?\(R\))?|RDMS|DDS|DPM)(?![A-Za-z])",
)
_DEGREE_WORDS = frozenset(
    {
        "md",
        "m",
        "do",
        "phd",
        "mbbs",
        "mbchb",
        "frcr",
        "frcpc",
        "facr",
        "rn",
        "np",
        "dnp",
        "crnp",
        "aprn",
        "arnp",
        "pa",
        "rt",
        "dds",
        "dpm",
        "d",
    }
)
_LABEL_END = re.compile(r"(?:'s)?(?:\(s\))?(?: name| id)?s? ?[:=] ?")
_LEADS = frozenset(
    {
        "dr",
        "drs",
        "doctor",
        "prof",
        "professor",
        "mr",
        "mrs",
        "ms",
        "miss",
        "attending",
        "resident",
        "radiologist",
        "physician",
        "surgeon",
        "fellow",
        "nurse",
        "technologist",
    }
)
_PIPE_NAME = re.compile(
    r"^[ \t]*([A-Z][\w'-]{1,30}, ?[A-Z][\w'-]{0,30}(?: [A-Z]\.?)?)(?= ?[|(]| {1,3}(?:MRN|DOB|ID|#|\d{4,}))",
    re.MULTILINE,
)
_CARET = re.compile(r"(?<![\w^])[^\W\d_][\w'-]{0,40}(?:\^{1,3}[^\W\d_][\w'-]{0,40}){1,3}")
_TYPIST = re.compile(r"^[ \t]*[A-Za-z]{2,4} ?[/:] ?[a-z]{2,4}[ \t]*$", re.MULTILINE)
_AFTER_SLASH = re.compile(r" ?/ ?[A-Za-z]{2,3}(?![\w/])")
_NAME_GAPS = frozenset({" ", "  ", "-", "'", ". ", ".", "' "})
_MAX_WORDS = 4


class Names:
    """Finds names of patients, staff and relatives by their context."""

    name = "names"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of names; each name found with confidence is then sought in the whole note."""
        spans: list[Span] = []
        stop, given = words("stop"), words("first_names")
        for number, word in enumerate(text.words):
            run = self._context(text, number, word, stop, given)
            if run:
                begin, end, kind, rule, score = run
                spans.append(Span(begin, end, kind, self.name, rule, score))
        view = text.view
        if "|" in view or "(" in view or "MRN" in view or "DOB" in view:
            spans += [
                Span(*match.span(1), "PATIENT", self.name, "name.header_line", 0.9)
                for match in _PIPE_NAME.finditer(view)
            ]
        if "^" in view:
            spans += [
                Span(*match.span(), "PERSON", self.name, "name.caret", 0.9) for match in _CARET.finditer(view)
            ]
        if "/" in view or ":" in view:
            spans += [
                Span(*match.span(), "STAFF", self.name, "name.typist", 0.6)
                for match in _TYPIST.finditer(view)
                if match.group().strip() not in ("n/a",) and _is_typist(match.group())
            ]
        return spans + echo(text, spans, self.name)

    def _context(
        self, text: Note, number: int, word: str, stop: frozenset[str], given: frozenset[str]
    ) -> tuple[int, int, str, str, float] | None:
        cues = _cues()
        if word in cues.titles:
            if not _is_title(text, number, word):
                return None
            return self._take(text, number + 1, cues.titles[word], "name.title", 1.0, lower=True)
        if word == "by" and number and (text.words[number - 1] in cues.by or _colon_after(text, number)):
            sure = _colon_after(text, number) or text.words[number - 1] in (
                "dictated",
                "signed",
                "transcribed",
                "interpreted",
                "approved",
                "verified",
                "authenticated",
                "read",
            )
            found = self._take(text, number + 1, "STAFF", "name.by", 0.95, lower=sure, comma=True)
            return found if sure or (found and " " in text.view[found[0] : found[1]]) else None
        if word in cues.told and number + 2 < len(text.words):
            follow = text.words[number + 1]
            steps = cues.told[word]
            at = number + 2 if follow in steps else number + 1 if "" in steps else 0
            return (
                self._take(text, at, "STAFF", "name.told", 0.8)
                if at and "\n\n" not in text.gap(at - 1)
                else None
            )
        if word in cues.labels and (label := _LABEL_END.match(text.view, text.ends[number])):
            at = number + 1
            while at < len(text.words) and text.starts[at] < label.end():
                at += 1
            weak = word in cues.weak
            found = self._take(text, at, cues.labels[word], "name.label", 0.9, lower=True, comma=True)
            if word == "cc" and found and not _DEGREE.match(text.view, found[1]):
                weak = True
                if words("first_names").isdisjoint(
                    re.findall(r"[a-z]+", text.view[found[0] : found[1]].lower())
                ):
                    return None
            return found if found and (not weak or _looks_whole(text, found[0], found[1])) else None
        if word in _DEGREE_WORDS and number:
            return self._before_degree(text, number, stop)
        if word in given and number + 1 < len(text.words) and text.token(number)[0].isupper():
            return self._given_family(text, number, word, stop)
        return None

    def _take(
        self,
        text: Note,
        at: int,
        kind: str,
        rule: str,
        score: float,
        lower: bool = False,
        comma: bool = False,
    ) -> tuple[int, int, str, str, float] | None:
        """The run of name-like words that begins at token `at`, or None."""
        stop = words("stop")
        while at < len(text.words) and text.words[at] in _LEADS and at and "\n\n" not in text.gap(at - 1):
            at += 1
        if (
            at >= len(text.words)
            or not set(text.gap(at - 1)) <= set(" .:=,-*#_\n")
            or text.gap(at - 1).count("\n") > 1
        ):
            return None
        end, taken, used_comma = at, 0, False
        while end < len(text.words) and taken < _MAX_WORDS:
            if end > at:
                gap = text.gap(end - 1)
                if gap == ". " and len(text.words[end - 1]) > 1 and text.words[end - 1] not in _PARTICLES:
                    break
                if (
                    gap in (", ", ",")
                    and comma
                    and not used_comma
                    and not _DEGREE.match(text.view, text.ends[end - 1])
                ):
                    used_comma = True
                elif gap not in _NAME_GAPS:
                    break
            if not self._fits(text, end, stop, lower) and not (comma and self._family_first(text, end, stop)):
                break
            taken += 1
            end += 1
        while end > at and text.words[end - 1] in _PARTICLES and len(text.words[end - 1]) > 1:
            end -= 1
        if end == at or (end - at == 1 and len(text.words[at]) == 1 and not text.token(at).isupper()):
            return None
        finish = text.ends[end - 1]
        if slash := _AFTER_SLASH.match(text.view, finish):
            finish = slash.end()
        return text.starts[at], finish, kind, rule, score

    @staticmethod
    def _fits(text: Note, number: int, stop: frozenset[str], lower: bool) -> bool:
        word, written = text.words[number], text.token(number)
        if any(char.isdigit() for char in word):
            return False
        if len(word) == 1 and written.isupper() and number + 1 < len(text.words):
            follower = text.token(number + 1)
            if text.gap(number) in (". ", ".") and follower[0].isupper() and follower.lower() not in stop:
                return True
        if word in _PARTICLES:
            return True
        if word in stop and not (
            len(word) > 2 and word in words("ambiguous") and written[0].isupper() and not written.isupper()
        ):
            return False
        if written[0].isupper():
            return not (len(written) > 1 and _DEGREE.fullmatch(written))
        return lower or not written[0].islower()

    @staticmethod
    def _family_first(text: Note, number: int, stop: frozenset[str]) -> bool:
        """`HEAD, PRIYA` after a label: a family name that is also a word, then a comma and a given name."""
        if text.words[number] not in words("ambiguous") or number + 1 >= len(text.words):
            return False
        given = text.token(number + 1)
        return (
            text.gap(number) in (",", ", ")
            and given[0].isupper()
            and given.lower() not in stop
            and not given[-1].isdigit()
        )

    @staticmethod
    def _before_degree(
        text: Note, number: int, stop: frozenset[str]
    ) -> tuple[int, int, str, str, float] | None:
        gap = text.gap(number - 1)
        if gap not in (", ", " ", ",", ",  ") or not _DEGREE.match(text.view, text.starts[number]):
            return None
        first, place = number, number - 1
        while place >= 0 and number - place <= _MAX_WORDS:
            joined = (
                place == number - 1
                or text.gap(place) in _NAME_GAPS
                or (text.gap(place) in (", ", ",") and "," not in gap)
            )
            word, written = text.words[place], text.token(place)
            if not joined or word in stop or any(char.isdigit() for char in word) or not written[0].isupper():
                break
            first, place = place, place - 1
        if first == number:
            return _lower_before_degree(text, number, stop) if "," in gap else None
        if number - first == 1 and "," not in gap:
            return None
        return text.starts[first], text.ends[number - 1], "STAFF", "name.degree", 0.9

    @staticmethod
    def _given_family(
        text: Note, number: int, word: str, stop: frozenset[str]
    ) -> tuple[int, int, str, str, float] | None:
        last = number + 1
        if (
            text.gap(number) == " "
            and len(text.words[last]) == 1
            and last + 1 < len(text.words)
            and text.gap(last) in (". ", " ")
        ):
            last += 1
        written, follower = text.token(last), text.words[last]
        joined = text.gap(number) == " " if last == number + 1 else True
        if (
            not joined
            or not written[0].isupper()
            or len(written) < 2
            or follower in stop
            or any(c.isdigit() for c in follower)
        ):
            return None
        if word in words("ambiguous") and (text.first_in_sentence(number) or in_capitals(text, number)):
            return None
        if written.isupper() and in_capitals(text, number) and follower in words("ambiguous"):
            return None
        return text.starts[number], text.ends[last], "PERSON", "name.given_family", 0.7


def _is_title(text: Note, number: int, word: str) -> bool:
    """Whether `MR`, `MS`, `Dr` is a form of address here, and not an examination, a valve or milliseconds."""
    written = text.token(number)
    if number + 1 >= len(text.words) or text.gap(number) not in (" ", ". ", ".", ".  ", "  "):
        return False
    if word in ("nurse", "miss", "uzm", "sra", "herr", "frau", "doctor", "professor"):
        return written[0].isupper()
    if word in ("mr", "ms", "mx", "mrs"):
        if written.isupper():
            return "." in text.gap(number) and in_capitals(text, number)
        return written[0].isupper() or not (number and text.words[number - 1][-1].isdigit())
    return True


def _lower_before_degree(
    text: Note, number: int, stop: frozenset[str]
) -> tuple[int, int, str, str, float] | None:
    """`; hassan al-rashid, md`: two or three words in lower case that fill the place up to a comma or colon."""
    first = number
    while first > 0 and number - first < 4 and (first == number or text.gap(first - 1) in _NAME_GAPS):
        word = text.words[first - 1]
        if word in stop or any(char.isdigit() for char in word) or len(word) < 2:
            return None
        first -= 1
    before = text.gap(first - 1) if first else "\n"
    if number - first < 2 or not any(mark in before for mark in ",;:\n"):
        return None
    return text.starts[first], text.ends[number - 1], "STAFF", "name.degree", 0.8


def _colon_after(text: Note, number: int) -> bool:
    return text.view[text.ends[number] : text.ends[number] + 2].lstrip().startswith(":")


def _is_typist(line: str) -> bool:
    left, _, right = line.strip().replace(":", "/").partition("/")
    return (
        left.strip().isupper()
        and len(left.strip()) <= 3
        and left.strip().lower() not in words("stop")
        and right.strip() not in words("stop")
    )


def _looks_whole(text: Note, start: int, end: int) -> bool:
    """A name after a weak label has two words, or is all that stands on its line; in lower case it needs more."""
    found = text.view[start:end]
    rest = text.view[end : end + 40].partition("\n")[0].strip(" .,;|")
    if any(piece.islower() and piece not in _PARTICLES for piece in re.findall(r"[^\W\d_]{2,}", found)):
        parts = re.findall(r"[a-z]+", found.lower())
        follows = re.match(r"[a-z]*", rest.lower())
        header = follows is not None and follows.group() in (
            "mrn",
            "dob",
            "id",
            "accession",
            "acc",
            "birth",
            "ssn",
            "tckn",
        )
        return len(parts) > 1 and (header or not words("first_names").isdisjoint(parts))
    if not rest:
        return True
    if re.match(r"[a-z]", rest) and words("first_names").isdisjoint(re.findall(r"[a-z]+", found.lower())):
        return False
    return " " in found or "," in found


def echo(text: Note, spans: list[Span], layer: str) -> list[Span]:
    """Other places of the parts of names found with confidence, so that one cue protects a whole note."""
    parts: dict[str, str] = {}
    lower_too: set[str] = set()
    stop, ambiguous = words("stop"), words("ambiguous")
    covered: list[tuple[int, int]] = sorted((span.start, span.end) for span in spans)
    for span in spans:
        if span.score < 0.8:
            continue
        for piece in re.findall(r"[^\W\d_]+", text.view[span.start : span.end].partition("/")[0]):
            if len(piece) > 2 and piece.lower() not in stop:
                parts.setdefault(piece.lower(), span.kind)
                if piece.islower():
                    lower_too.add(piece)
    if not parts:
        return []
    found: list[Span] = []
    cursor = 0
    for number, word in enumerate(text.words):
        kind = parts.get(word)
        if kind is None:
            continue
        start, end = text.starts[number], text.ends[number]
        while cursor < len(covered) and covered[cursor][1] <= start:
            cursor += 1
        if cursor < len(covered) and covered[cursor][0] <= start < covered[cursor][1]:
            continue
        if word not in lower_too and text.token(number).islower():
            continue
        if word in ambiguous and not is_person_here(text, number):
            continue
        found.append(Span(start, end, kind, layer, "name.echo", 0.75))
    return found
