"""Institutions, addresses, towns and postcodes as others: what names the kind of a place stays, what names it goes."""

from __future__ import annotations

import re
from functools import cache

from components.reports.deid.note import Note, fold
from components.reports.deid.surrogates import Keyed, Patient, first_free, like, listed, places, plain
from components.reports.lexicon import mapping

_WORD = re.compile(r"[^\W_]+")
_ZIP = re.compile(r"(?<![\w-])\d{5}(?:-\d{4})?(?![\w-])")
_CODES = re.compile(r"\d{5}-\d{4}|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b|[A-Z]\d[A-Z] ?\d[A-Z]\d\b|[^\W_]+")


@cache
def _nouns() -> frozenset[str]:
    """The nouns and adjectives of institutions, which name none by themselves."""
    table = mapping("facilities")
    values = [fold(value).lower() for key in ("head", "head2", "generic") for value in table[key]]
    return frozenset(word for value in values for word in _WORD.findall(value))


class PlaceSurrogates:
    """The places of one patient's notes."""

    def __init__(self, keyed: Keyed, patient: Patient) -> None:
        self.keyed = keyed
        self.known = frozenset(
            plain(word) for _, value in patient.identities for word in _WORD.findall(fold(value))
        )

    def _place(self, word: str) -> str:
        """The name that stands for a proper word; the same word always gets the same."""
        found = first_free(places(), self.keyed.seed("place", word), self.known | {word})
        return found or "Anyplace"

    def institution(self, raw: str) -> str | None:
        """`Mercy General Hospital` as `Ridgemont General Hospital`; one of common nouns only gets a new first word."""
        made = self._words(raw, _nouns() | frozenset(listed("place_joiners")))
        return made if made is not None else self._first(raw)

    def _first(self, raw: str) -> str | None:
        note = Note(raw)
        match = _WORD.search(note.view)
        if match is None:
            return None
        start, end = note.raw_span(match.start(), match.end())
        return raw[:start] + like(match.group(), self._place(plain(raw))) + raw[end:]

    def town(self, raw: str) -> str | None:
        """A town or another place: one name for all its words."""
        words = _WORD.findall(Note(raw).view)
        return like(words[0], self._place(plain(raw))) if words else None

    def state(self, raw: str) -> str | None:
        """Another State in the same form (two letters), or None for a name in full."""
        text = Note(raw).view.strip()
        return self._state(text) if text.upper() in listed("states") else None

    def _state(self, text: str) -> str:
        others = [
            state for state in listed("states") if state != text.upper() and state.lower() not in self.known
        ]
        return like(text, others[self.keyed.seed("state", text.upper()) % len(others)])

    def postcode(self, raw: str) -> str | None:
        """A code of the same form in an area that has none: ZIP 001 to 004, others with Q as first letter."""
        text = Note(raw).view
        for attempt in range(50):
            stream = iter(self.keyed.digest("postcode", f"{plain(text)}\0{attempt}"))
            made, first = "", True
            for char in text:
                if char.isdigit():
                    made += str(next(stream) % 10)
                elif char.isalpha():
                    letter = "Q" if first else chr(65 + next(stream) % 26)
                    made, first = made + (letter if char.isupper() else letter.lower()), False
                else:
                    made += char
            if _ZIP.fullmatch(text):
                made = "00" + str(1 + next(stream) % 4) + made[3:]
            if plain(made) != plain(text) and plain(made) not in self.known:
                return made
        return None

    def address(self, raw: str) -> str | None:
        """A street address, a town with State and ZIP code, or both: numbers, names and codes change, forms stay."""
        note = Note(raw)
        text = note.view
        made, place, changed = "", 0, 0
        for match in _CODES.finditer(text):
            word = match.group()
            lower = word.lower()
            made += text[place : match.start()]
            place = match.end()
            if any(char.isdigit() for char in word):
                zipped = _ZIP.fullmatch(word) and match.start() > 0
                coded = any(char.isalpha() for char in word) and not re.fullmatch(
                    r"\d+(?:st|nd|rd|th|[A-Za-z])", word
                )
                new = self.postcode(word) if zipped or coded else self._number(word)
            elif word in listed("states") and re.match(r",? *\d{5}", text[match.end() :]):
                new = self._state(word)
            elif lower in listed("street") or (len(word) == 1 and not word.isalpha()):
                made += word
                continue
            else:
                stem = next(
                    (
                        stem
                        for stem in listed("street_stems")
                        if lower.endswith(stem) and len(lower) > len(stem) + 2
                    ),
                    "",
                )
                new = like(word, self._place(plain(word))) + (like(word, stem) if stem else "")
            if new is None:
                return None
            made += new
            changed += 1
        return made + text[place:] if changed else None

    def _number(self, text: str) -> str:
        for attempt in range(50):
            stream = self.keyed.digest("house", f"{text}\0{attempt}")
            digits = [str(byte % 10) for byte in stream]
            digits[0] = str(1 + stream[0] % 9)
            rest = iter(digits * 2)
            made = "".join(next(rest) if char.isdigit() else char for char in text)
            if made != text:
                return made
        return "9" + text[1:]

    def _words(self, raw: str, stay: frozenset[str]) -> str | None:
        """The text with each proper word replaced, or None where there is none."""
        note = Note(raw)
        text = note.view
        made, place, changed = "", 0, 0
        for match in _WORD.finditer(text):
            word = match.group()
            made += text[place : match.start()]
            place = match.end()
            if word.lower() in stay or (word == "s" and text[match.start() - 1 : match.start()] == "'"):
                made += word
            elif any(char.isdigit() for char in word):
                made, changed = made + self._number(word), changed + 1
            else:
                made, changed = made + like(word, self._place(plain(word))), changed + 1
        return made + text[place:] if changed else None
