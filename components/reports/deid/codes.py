"""Layer 2f: codes by their company, whatever their label: devices, members' numbers, folders, films, grouped digits.

A label that no list holds still is a label: `HETU: 988811A625B`. What decides is that the value is a code (digits, or
letters and digits) and that the label names nothing that radiology measures (`codes.measured` of `word_sets.txt`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from components.reports.deid.keep import TAG
from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import FOREIGN, STOP, WORD, default_lists
from components.reports.lexicon import word_set

_I = re.IGNORECASE
_FIELD = re.compile(
    r"(?<![\w\]])([^\W\d_][\w.'/ #-]{1,30}?)\]? ?[:=] ?(?=[A-Za-z\d(#])|\[([^\W\d_][\w ./-]{1,24})\] ?(?=\w)"
)
_BEFORE_DIGIT = re.compile(r"[:=\]] ?[A-Za-z#./: -]{0,22}\d")
_CODE = re.compile(
    r"#?(?:[A-Z]{1,4}[-./: ]{1,2}|[A-Za-z]{1,6}(?:[-./][A-Za-z]{1,6}){0,2}[-./]?)?\d[\dA-Za-z]{0,19}"
    r"(?:[-./]{1,2}[\dA-Za-z]{1,14}){0,5}(?![\w])"
)
_DEVICE = re.compile(
    r" ?(?:id|no|nr|name|number|sys|tag|serial|unit|ae|title|s/n)?\.?(?: (?:id|no|nr|name|number|sys|tag))?\.? ?"
    r"[:#(=]{0,2} ?([A-Za-z][\w-]*[\dA-Z][\w-]{1,16}|\d[\w-]{3,16})(?![\w])",
    _I,
)
_MEMBER = re.compile(
    r"(?:[ -][A-Za-z]{2,3}(?=[ -]\d)| (?:carteira|card|member|id|no|number|nr))?\.? ?[:#]? ?"
    r"((?-i:[A-Z]{0,4})-?\d[\d./-]*(?: \d[\d./-]*){0,4}[A-Za-z]{0,2})(?![\w])",
    _I,
)
_GROUPS = re.compile(r"\d{1,6}(?:[ -]\d{1,12}){2,4}(?![\w.,/%:-]|\s?(?:mm|cm|ml|mg|hu|x)\b)", _I)
_SLASHED = re.compile(
    r"(?:[A-Za-z]{1,6}[/-]){0,2}[A-Za-z]{1,6}[-/]?\d{2,8}(?:[/-]\d{2,6}){0,2}(?:[A-Za-z]{1,2})?(?![\w/])"
)
_HYPHENED = re.compile(r"[A-Za-z]{1,6}-\d{5,12}(?![\w.])")
_SPACED = re.compile(r"\d{3,6}(?: \d{3,6}){1,3}(?![\w.,/-]| ?(?:mm|cm|ml|hu)\b)", _I)
_LINE = re.compile(
    r"^[ \t]*(?:(?:pt|patient|hosp|hospital|file|study) )?"
    r"(?:id|no|number|chart|reg|file|folder|ref|registration)\.?:?[ \t]+"
    r"((?:[A-Z]{1,4}[- ]?)?\d[\d -]{4,20}\d)(?=[ \t]*(?:$|\||  ))",
    _I | re.MULTILINE,
)
_REGISTERED = re.compile(
    r"\b(?:registered|filed|logged|archived|stored|recorded|booked|entered|labell?ed)(?: [a-z]+){0,3} (?:as|under) "
    r"((?:[A-Z]{1,6}[-/ ]?)?\d[\w/-]{2,20})(?![\w])",
    _I,
)
_REGISTERED_WORDS = frozenset(
    {
        "registered",
        "filed",
        "logged",
        "archived",
        "stored",
        "recorded",
        "booked",
        "entered",
        "labelled",
        "labeled",
    }
)
_DOTTED = re.compile(r"(?<![\w.])(?:[A-Z]\.){2,4} ?(?:n[o\xba\xb0]?\.? ?)?$", _I)
_AFTER_DOTTED = re.compile(r"[.,/:-]\w| ?(?:mm|cm|ml|mg|hu)\b", _I)
_PREFIX = re.compile(r"(?<![\w-])([A-Z]{2,4})[ :]{1,2}$")
_UNIT = re.compile(
    r" ?-?(?:mm|cm|ml|cc|mg|mcg|g|kg|hu|kv|kvp|mas?|mgy|msv|gy|%|years?|yrs?|yo\b|y/o|hours?|hrs?|min|x\b)",
    _I,
)
_MEASURED = word_set("codes.measured")
_DEVICES = word_set("codes.devices")
_MEMBERS = word_set("codes.members")
_FILES = word_set("codes.files")
_DAY = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?!\w)|\d{1,2}[:.]\d\d$|\d{1,2}/\d{1,2}$")
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}$|\d{1,2}[:.]\d\d$|\d{1,2}/\d{1,2}$")


class Codes:
    """Finds codes that their form or the word beside them gives away."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of codes."""
        spans: list[Span] = []
        for words, pattern, kind in (
            (_DEVICES, _DEVICE, "DEVICE"),
            (_MEMBERS, _MEMBER, "ID"),
            (_FILES, _MEMBER, "ACCESSION"),
        ):
            for word in text.places.keys() & words:
                for number in text.places[word]:
                    match = pattern.match(text.view, text.ends[number])
                    if match and match.start(1) > text.ends[number] and self._code(text, match, kind):
                        spans.append(Span(*match.span(1), kind, self.name, "id.beside", 0.8))
        if ":" in text.view or "=" in text.view or "[" in text.view:
            spans += self._fields(text)
        return spans + self._shapes(text)

    @staticmethod
    def _code(text: Note, match: re.Match[str], kind: str) -> bool:
        value = match[1]
        digits = sum(map(str.isdigit, value))
        if _UNIT.match(text.view, match.end()) or _DAY.match(value) or value[:2].lower() == "bp":
            return False
        if kind == "DEVICE":
            mixed = any(map(str.isalpha, value)) and digits
            return bool(mixed and (digits > 1 or "-" in value or value.isupper())) and not _TERM.match(value)
        return digits >= 4 and not re.fullmatch(r"(?:19|20)\d\d", value)

    def _fields(self, text: Note) -> list[Span]:
        spans = []
        flags = default_lists().flags
        for match in _labels(text.view):
            label = match[1] or match[2]
            if match[2] and TAG.match(text.view, match.start()):
                continue
            if (spaced := _SPACED.match(text.view, match.end())) and _plain(label):
                spans.append(Span(*spaced.span(), "ID", self.name, "id.field", 0.75))
                continue
            value = _CODE.match(text.view, match.end())
            if value is None or _UNIT.match(text.view, value.end()):
                continue
            written = value.group()
            digits = sum(map(str.isdigit, written))
            tokens = re.findall(r"[^\W\d_]+", label.lower())
            if (
                written[:2].lower() == "bp"
                or digits < 4
                or not tokens
                or len(tokens) > 4
                or any(token in _MEASURED for token in tokens)
            ):
                continue
            if _DATE.match(written.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ-./: ")) or re.fullmatch(
                r"(?:19|20)\d\d|\d{1,3}[.,]\d+|\d{1,4}[./-]\d{1,4}", written
            ):
                continue
            if digits < 5 and (
                written.isdigit() or all(flags(token) & (WORD | STOP | FOREIGN) for token in tokens)
            ):
                continue
            spans.append(Span(value.start(), value.end(), "ID", self.name, "id.field", 0.75))
        return spans

    def _shapes(self, text: Note) -> list[Span]:
        done, view = 0, text.view
        spans = [Span(*match.span(1), "ID", self.name, "id.field", 0.8) for match in _LINE.finditer(view)]
        spans += self._told(text)
        for number in text.with_digit:
            start = text.starts[number]
            if start < done:
                continue
            before = view[start - 1] if start else " "
            if before in ".," and start > 1 and view[start - 2].isalnum():
                continue
            if before in " \n([:#" or not start:
                match = _GROUPS.match(view, start) if text.words[number].isdigit() else None
                if match and _grouped(match.group()):
                    spans.append(Span(*match.span(), "ID", self.name, "id.groups", 0.7))
                    done = match.end()
                    continue
            begin = _word_start(view, start)
            match = None
            if begin < start or view[start].isalpha():
                match = _SLASHED.match(view, begin)
                match = match if match and _slashed(match.group()) else _HYPHENED.match(view, begin)
            if match:
                spans.append(Span(*match.span(), "ACCESSION", self.name, "id.slashed", 0.75))
                done = match.end()
                continue
            if text.words[number].isdigit() and len(text.words[number]) > 4 and before == " ":
                prefix = _PREFIX.search(view, max(0, start - 7), start)
                known = _MEMBERS | _FILES | _DEVICES
                if (
                    prefix
                    and prefix[1].lower() not in known
                    and not default_lists().flags(prefix[1].lower()) & (WORD | STOP | FOREIGN)
                ):
                    spans.append(
                        Span(prefix.start(1), text.ends[number], "ID", self.name, "id.prefixed", 0.75)
                    )
        return spans

    def _told(self, text: Note) -> list[Span]:
        """`registered here as CT1450`, `M.P. 99214`: codes by a verb, and under an abbreviation with points."""
        registered = not _REGISTERED_WORDS.isdisjoint(text.places)
        spans = [
            Span(*match.span(1), "ACCESSION", self.name, "id.beside", 0.8)
            for match in (_REGISTERED.finditer(text.view) if registered else ())
            if sum(map(str.isdigit, match[1])) > 3 and not _DATE.match(match[1])
        ]
        for number in text.with_digit:
            start, end = text.starts[number], text.ends[number]
            if not 3 < end - start < 9 or not text.words[number].isdigit():
                continue
            before = text.view[max(0, start - 14) : start]
            if "." in before and _DOTTED.search(before) and not _AFTER_DOTTED.match(text.view, end):
                spans.append(Span(start, end, "ID", self.name, "id.dotted", 0.75))
        return spans


_TERM = re.compile(
    r"(?:[CTLS]\d{1,2}|[A-Z]\d|\d{1,4}[a-z]{1,4}|SOMATOM.*|CT\d{3}|iCT|\d[\d-]*(?:step|fold|way|point|part)|\d+-(?:slice|row|detector|channel).*)$"
)


def _labels(view: str) -> Iterator[re.Match[str]]:
    """Labels on the lines that have a mark and a digit."""
    place = 0
    for line in view.split("\n"):
        end = place + len(line)
        if (":" in line or "=" in line or "]" in line) and _BEFORE_DIGIT.search(line):
            yield from _FIELD.finditer(view, place, end + 1)
        place = end + 1


def _plain(label: str) -> bool:
    """Whether a label names nothing that is measured."""
    tokens = re.findall(r"[^\W\d_]+", label.lower())
    return 0 < len(tokens) < 5 and _MEASURED.isdisjoint(tokens)


def _word_start(view: str, start: int) -> int:
    """Where the letters and slashes before a number begin, within 16 characters."""
    begin = start
    while begin and start - begin < 16 and (view[begin - 1].isalpha() or view[begin - 1] in "/-"):
        begin -= 1
    return begin + len(view[begin:start]) - len(view[begin:start].lstrip("/-"))


def _grouped(found: str) -> bool:
    groups = re.split(r"[ -]", found)
    return sum(map(len, groups)) >= 9 and max(map(len, groups)) >= 4


def _slashed(found: str) -> bool:
    """`CT69727/2042`, `RAD/CT/7766`, `CT/43/8584`: letters, a slash and at least four digits."""
    return (
        "/" in found
        and found[:2].lower() != "bp"
        and sum(map(str.isdigit, found)) >= 4
        and found[0].isalpha()
    )
