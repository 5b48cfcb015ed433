"""Layer 2b: phones, pagers, e-mails, web addresses, postal addresses and postcodes."""

from __future__ import annotations

import re

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext

_I = re.IGNORECASE
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}")
_URL = re.compile(r"(?:https?://|ftp://|www\.)[^\s<>\"')\]]{3,300}", _I)
_IP = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])")
_PHONE = re.compile(
    r"(?:\+?\d{1,3}[ .-]{0,2})?\(?\d{3}\)?[ .\-/]{0,2}\d{3}[ .\-]{1,2}\d{4}(?!\d)(?: ?(?:x|"
    r"ext\.?) ?\d{1,6})?",
    _I,
)
_LOCAL = re.compile(r"\d{3}[-.]\d{4}(?![\d-]|\.\d)")
_WORLD = re.compile(r"\+\d{1,3}(?:[ .\-()]{0,2}\d{1,4}){2,6}(?!\d)")
_TRUNK = re.compile(r"\(?0\d{2,4}\)?[ .\-]{1,2}\d{2,4}(?:[ .\-]\d{2,4}){1,3}(?!\d)")
_LABELLED = re.compile(
    r" ?(?:number|num|no\.?|is|at|#)?[\s:.#(]{0,4}(\+?\d[\d().\-/]{1,10}(?: [\d().\-/]{2,6}){0,4})", _I
)
_LABELS = frozenset(
    {
        "tel",
        "telephone",
        "phone",
        "fax",
        "ext",
        "extn",
        "extension",
        "pager",
        "pgr",
        "beeper",
        "mobile",
        "cell",
        "pg",
        "telefon",
        "telefono",
        "gsm",
        "vocera",
        "callback",
        "contact",
    }
)
_EXTENSION = re.compile(r"(?:x|p|ext|pgr|pg|b)\d{4,7}$")
_STREET_TYPES = (
    "street|st|avenue|ave|road|rd|drive|boulevard|blvd|lane|ln|court|ct|place|pl|way|terrace|ter|"
    "circle|cir|parkway|pkwy|"
    "highway|hwy|square|sq|trail|trl|plaza|close|crescent|mews|row|walk|gardens|grove|turnpike|pike|loop"
)
_UNIT = r"(?:,? {1,2}(?:apt|apartment|suite|ste|unit|floor|fl|room|rm|#)\.? ?#?\w{1,6})?"
_STREET = re.compile(
    rf"\d{{1,5}}[A-Za-z]? (?:[NSEW]\.? |(?:North|South|East|West) )?(?:(?:[A-Z][A-Za-z'.-]{{0,20}}|"
    rf"\d{{1,3}}(?:st|nd|rd|th)) ){{1,4}}(?:(?i:{_STREET_TYPES})\b\.?|"
    rf"Dr\b(?!\.? [A-Z][a-z]))(?i:{_UNIT})"
)
_STREET_LOWER = re.compile(
    rf"\d{{2,5}} (?:[a-z][a-z'-]{{2,20}} ){{1,2}}(?:street|avenue|boulevard|drive|road|lane)\b{_UNIT}"
)
_EUROPEAN = re.compile(
    r"(?<!\w)[A-Z][a-z]{2,20}(?:strasse|straat|gasse|weg|platz|caddesi|sokak)\.? \d{1,4}[a-z]?\b", _I
)
_CITY_STATE = re.compile(r"(?:[A-Z][A-Za-z.'-]{1,20} ){0,2}[A-Z][A-Za-z.'-]{1,20},? $")
_ZIP = re.compile(r"[A-Z]{2},? {1,2}\d{5}(?:-\d{4})?(?![\d-])")
_POSTCODE = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? \d(?!MM|CM|ML|CC|HU|MG)[A-Z]{2}\b")
_CANADA = re.compile(r"[A-Z]\d[A-Z] ?\d[A-Z]\d\b")
_BOX = re.compile(r"p\.? ?o\.? box #? ?\d{1,6}", _I)
_STATES = frozenset(
    [
        "al",
        "ak",
        "az",
        "ar",
        "ca",
        "co",
        "ct",
        "de",
        "fl",
        "ga",
        "hi",
        "id",
        "il",
        "in",
        "ia",
        "ks",
        "ky",
        "la",
        "me",
        "md",
        "ma",
        "mi",
        "mn",
        "ms",
        "mo",
        "mt",
        "ne",
        "nv",
        "nh",
        "nj",
        "nm",
        "ny",
        "nc",
        "nd",
        "oh",
        "ok",
        "or",
        "pa",
        "ri",
        "sc",
        "sd",
        "tn",
        "tx",
        "ut",
        "vt",
        "va",
        "wa",
        "wv",
        "wi",
        "wy",
        "dc",
        "pr",
    ]
)


_TRIGGERS = _LABELS | _STATES | {"p", "po"}


class Contacts:
    """Finds ways to reach a person or a place."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of phones, e-mails, web addresses and postal addresses."""
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
        if any(stem in lower for stem in ("strasse", "straat", "gasse", "weg", "platz", "caddesi", "sokak")):
            for match in _EUROPEAN.finditer(view):
                add(match.start(), match.end(), "ADDRESS", "address.street")
        done = 0
        words, starts = text.words, text.starts
        for number in text.select(_TRIGGERS):
            word, start = words[number], starts[number]
            if start < done:
                continue
            for begin, end, kind, rule in self._at(text, number, word):
                add(begin, end, kind, rule)
                done = max(done, end if kind != "ADDRESS" else done)
        return spans

    def _at(self, text: Note, number: int, word: str) -> list[tuple[int, int, str, str]]:
        if word[0].isdigit():
            return self._digits(text, number)
        view, start, end = text.view, text.starts[number], text.ends[number]
        if word in _LABELS:
            match = _LABELLED.match(view, end)
            if match and sum(char.isdigit() for char in match[1]) >= 4:
                stop = match.start(1) + len(match[1].rstrip(" .-/("))
                return [(match.start(1), stop, "PHONE", "phone.labelled")]
        if _EXTENSION.match(word) and not (start > 1 and view[start - 2].isdigit()):
            return [(start, end, "PHONE", "phone.extension")]
        if (
            len(word) == 2
            and word in _STATES
            and view[start:end].isupper()
            and (match := _ZIP.match(view, start))
        ):
            left = max(view.rfind("\n", max(0, start - 70), start) + 1, start - 70, 0)
            city = _CITY_STATE.search(view, left, start)
            return [(city.start() if city else start, match.end(), "ADDRESS", "address.city")]
        if word in ("p", "po") and (match := _BOX.match(view, start)):
            return [(start, match.end(), "ADDRESS", "address.box")]
        if 2 <= len(word) <= 6 and view[start:end].isupper() and any(char.isdigit() for char in word):
            match = _CANADA.match(view, start) or (
                _POSTCODE.match(view, start) if not _vertebral(word) else None
            )
            if match:
                return [(start, match.end(), "ADDRESS", "address.postcode")]
        return []

    def _digits(self, text: Note, number: int) -> list[tuple[int, int, str, str]]:
        view, start = text.view, text.starts[number]
        before = view[start - 1] if start else " "
        if before.isdigit() or (before in ".-/" and start > 1 and view[start - 2].isdigit()):
            return []
        if before in "(+":
            begin = start - 1
            if start > 1 and view[start - 2 : start] in ("(+", "+("):
                begin -= 0 if before == "+" else 1
        else:
            begin = start
        for pattern in (_WORLD, _PHONE, _TRUNK):
            match = pattern.match(view, begin) or (pattern.match(view, start) if begin != start else None)
            if match and sum(char.isdigit() for char in match.group()) >= 8:
                return [(match.start(), match.end(), "PHONE", "phone")]
        if match := _LOCAL.match(view, start):
            return [(start, match.end(), "PHONE", "phone.local")]
        if match := _STREET.match(view, start):
            return [(start, match.end(), "ADDRESS", "address.street")]
        if match := _STREET_LOWER.match(view, start):
            return [(start, match.end(), "ADDRESS", "address.street")]
        if (match := _IP.match(view, start)) and all(int(part) < 256 for part in match.group().split(".")):
            return [(start, match.end(), "ID", "address.ip")]
        return []


def _vertebral(word: str) -> bool:
    return len(word) <= 3 and word[0] in "ctls" and word[1:].isdigit()
