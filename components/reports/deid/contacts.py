"""Layer 2b: phones, pagers, e-mails and web addresses."""

from __future__ import annotations

import re

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import word_set

_I = re.IGNORECASE
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"')\]]{3,300}", _I)
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_PHONE = re.compile(
    r"(?:\+?\d{1,3}[ .-]{0,2})?\(?\d{3}\)?[ .\-/]{0,2}\d{3}[ .\-]{1,2}\d{4}(?!\d)(?: ?(?:x|"
    r"ext\.?|loc\.?|local) ?\d{1,6})?",
    _I,
)
_LOCAL = re.compile(r"\d{3}[-.]\d{4}(?![\d-]|\.\d)(?: ?(?:x|ext\.?|loc\.?) ?\d{1,6})?", _I)
_EIGHT = re.compile(r"\d{4}-\d{4}(?![\d-]|\.\d)(?: ?(?:x|ext\.?|loc\.?|local) ?\d{1,6})?", _I)
_PAIR = re.compile(r"(?!(?:19|20)\d\d)\d{4} \d{4}(?![\w/-]|[.,]\d| ?(?:mm|cm|ml|hu|x)\b)", _I)
_EIGHT_CUES = frozenset({"no", "tel", "at", "call", "phone", "on", "number", "to", "mobile"})
_WORLD = re.compile(r"\+\d{1,3}(?:[ .\-()]{0,2}\d{1,4}){2,6}(?!\d)")
_TRUNK = re.compile(
    r"(?!\d\d\.\d\d\.(?:19|20)\d\d)\(?0\d{1,4}\)?(?:[ .\-]{1,2}| / )\d{2,4}(?:[ .\-]\d{2,4}){1,3}(?!\d)"
)
_LABELLED = re.compile(
    r"(?: (?:of|for) (?:[a-z]+ ){0,3}[a-z]+(?=:))?"
    r" ?(?:number|num|no\.?|is|at|#)?[\s:.#]{0,4}"
    r"([(+]{0,2}\d[\d().\-/]{0,18}(?: \d(?= \d{2}))?(?: [\d().\-/]{2,10}){0,4}"
    r"(?: ?(?:x|ext\.?|extn\.?|loc\.?|poste|dw|w\.|wewn?\.|int\.|lok\.) ?\d{1,6}(?!\w))?)",
    _I,
)
_CLOCK = re.compile(r"\.? ?(?:[01]?\d|2[0-4])[.:][0-5]\d(?![\d.-])")  # `kl. 10.38` is a time
_LABELS = word_set("contacts.labels")
_EXTENSIONS = word_set("contacts.extensions")
_THREE = re.compile(r"[ .:#]{0,3}(\d{3})(?![\d\w]|[.,/-]\d| ?(?:mm|cm|ml|mg|hu|kg|h)\b)", _I)
_GROUPED = re.compile(r"\d{2,4}(?: \d{2,3}){2,3}(?=[,;)\n]|\.(?!\d)|$)")
_SHORT = re.compile(
    r" (?:them |me |us |him |her )?(?:at |on |# ?|\()?(\d{4,6}|\d-\d{4}|\d{3}-\d{3,5})"
    r"(?!\w|[./-]\d| ?(?:mm|cm|ml|hu|hrs?|hours|h)\b)",
    _I,
)
_AREA = re.compile(r"\(\d{2,4}\) ?\d{4,5}[- ]\d{3,4}(?!\d)|0\d{2,4}[ /-]\d{5,8}(?!\d)")
_LONG = re.compile(r"\d(?:[ .\-()/]{0,4}\d){6}|\d{1,3}(?:\.\d{1,3}){3}")  # what all of these hold
_CALLS = frozenset(
    {"page", "call", "dial", "bleep", "paged", "beep", "ring", "bleeped", "beeped", "rang", "dialled"}
)
_CODED = re.compile(r"(?<!\w)[A-Za-z]{2,5}-$")
_EXTENSION = re.compile(r"(?:x|p|ext|pgr|pg|b)\d{4,7}$")
_TRIGGERS = _LABELS | _CALLS | _EXTENSIONS


class Contacts:
    """Finds ways to reach a person."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of phones, e-mails and web addresses."""
        view, spans = text.view, []

        def add(start: int, end: int, kind: str, rule: str, score: float = 1.0) -> None:
            spans.append(Span(start, end, kind, self.name, rule, score))

        if "@" in view:
            for match in _EMAIL.finditer(view):
                add(match.start(), match.end(), "EMAIL", "email")
        lower = view.lower()
        if "://" in lower or "www." in lower:
            for match in _URL.finditer(view):
                add(match.start(), match.end(), "URL", "url")
        done = 0
        words, starts = text.words, text.starts
        for number in text.select(_TRIGGERS):
            word, start = words[number], starts[number]
            if start < done:
                continue
            for begin, end, kind, rule in self._at(text, number, word):
                add(begin, end, kind, rule)
                done = max(done, end)
        return spans

    def _at(self, text: Note, number: int, word: str) -> list[tuple[int, int, str, str]]:
        if word[0].isdigit():
            return self._digits(text, number)
        view, start, end = text.view, text.starts[number], text.ends[number]
        if word in _LABELS and not _CLOCK.match(view, end):
            match = _LABELLED.match(view, end)
            if match and sum(char.isdigit() for char in match[1]) >= 4:
                stop = match.start(1) + len(match[1].rstrip(" .-/("))
                return [(match.start(1), stop, "PHONE", "phone.labelled")]
        if word in _EXTENSIONS and (match := _THREE.match(view, end)):
            return [(match.start(1), match.end(1), "PHONE", "phone.labelled")]
        if word in _CALLS and (match := _SHORT.match(view, end)):
            return [(match.start(1), match.end(1), "PHONE", "phone.labelled")]
        if _EXTENSION.match(word) and not (start > 1 and view[start - 2].isdigit()):
            return [(start, end, "PHONE", "phone.extension")]
        return []

    def _digits(self, text: Note, number: int) -> list[tuple[int, int, str, str]]:
        view, start = text.view, text.starts[number]
        if not _LONG.match(view, start):
            return []
        before = view[start - 1] if start else " "
        if before.isdigit() or (before in ".-/" and start > 1 and view[start - 2].isdigit()):
            return []
        if before in "(+":
            begin = start - 1
            if start > 1 and view[start - 2 : start] in ("(+", "+("):
                begin -= 0 if before == "+" else 1
        else:
            begin = start
        for pattern in (_WORLD, _PHONE, _TRUNK, _AREA):
            match = pattern.match(view, begin) or (pattern.match(view, start) if begin != start else None)
            if match and sum(char.isdigit() for char in match.group()) >= 8:
                return [(match.start(), match.end(), "PHONE", "phone")]
        listed = view[max(0, start - 2) : start] in (", ", " (")
        match = _GROUPED.match(view, start) if listed else None
        if match and 8 <= sum(char.isdigit() for char in match.group()) <= 11:
            return [(start, match.end(), "PHONE", "phone")]
        cue = text.words[number - 1] if number else ""
        if match := _LOCAL.match(view, start) or (_EIGHT.match(view, start) if cue in _EIGHT_CUES else None):
            coded = _CODED.search(view, max(0, start - 7), start)  # `PET-34-4771` is no phone
            if coded:
                return [(coded.start(), match.end(), "ID", "id.prefixed")]
            return [(start, match.end(), "PHONE", "phone.local")]
        alone = not number or not text.words[number - 1].isdigit() or text.gap(number - 1) != " "
        if alone and before in " \n(:" and (match := _PAIR.match(view, start)):
            return [(start, match.end(), "PHONE", "phone.pair")]
        if (match := _IP.match(view, start)) and all(int(part) < 256 for part in match.group().split(".")):
            return [(start, match.end(), "ID", "address.ip")]
        return []
