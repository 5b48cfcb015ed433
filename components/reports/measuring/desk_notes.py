"""Notes of invented reading rooms: whole reports as one room writes them, with its people, numbers and places.

Other than `hard_notes` and `fresh_notes`, which shuffle blocks, a note here is one text from beginning to end, and
its values come from its room. The rooms lie in `desks/SET.txt`, whose first lines say how they are written. Each set
was committed before any rule had been run on it. An eighth of the notes is in small letters, an eighth in capitals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from components.reports.lexicon import parse_fields
from components.reports.measuring import values
from components.reports.measuring.hard_notes import GoldNote
from components.reports.measuring.people import Person, choose

FOLDER = Path(__file__).parent / "desks"
SETS = tuple(sorted(path.stem for path in FOLDER.glob("*.txt")))
_SLOT = re.compile(r"\{(~|\w+)((?:\.\w+)*)(?::([^{}]*))?\}")
_ARTICLE = re.compile(r"(?:the|el|la|los|las|le|les|il|lo|het|de|der|dem|den|das|die|o|a) |[ld]['’]")
"""A small article before an institution or a place tells nothing: `het Sint-Odulphusziekenhuis` begins at `Sint`."""
_PEOPLE = {"pt": "PATIENT", "a": "STAFF", "b": "STAFF", "c": "STAFF", "d": "STAFF", "k": "PERSON"}


@dataclass(frozen=True)
class Desk:
    """A room: its values by their key, and its notes with slots."""

    name: str
    values: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]


@cache
def desks(part: str) -> tuple[Desk, ...]:
    """The rooms of a set, in the order of its file."""
    found = []
    source = (FOLDER / f"{part}.txt").read_text(encoding="utf-8")
    for chunk in re.split(r"^== ", source, flags=re.MULTILINE)[1:]:
        head, *notes = re.split(r"^--\n", chunk, flags=re.MULTILINE)
        name, _, fields = head.partition("\n")
        found.append(Desk(name.strip(), parse_fields(fields), tuple(note.rstrip() + "\n" for note in notes)))
    return tuple(found)


def desk_notes(count: int, seed: int, part: str) -> list[GoldNote]:
    """`count` notes of a set, the rooms and their texts in turn; the same arguments give the same notes."""
    texts = [(desk, text) for desk in desks(part) for text in desk.notes]
    own = sum(map(ord, part))
    return [
        _Writer(np.random.default_rng([seed, own, number]), texts[number % len(texts)][0]).note(
            f"{part}_{number:05d}", texts[number % len(texts)][1]
        )
        for number in range(count)
    ]


class _Writer:
    """One note; every choice comes from its own generator."""

    def __init__(self, rng: np.random.Generator, desk: Desk) -> None:
        self.rng, self.desk = rng, desk
        staff = [str(name) for name in rng.permutation(desk.values["staff"])]
        given, family = zip(*(_parted(name) for name in staff))
        self.people = {
            slot: Person(given[order], "", family[order], False, "")
            for order, slot in enumerate(("a", "b", "c", "d"))
        }
        self.people |= {"pt": self._person(), "k": self._person()}
        self.numbers = {key: values.pattern(rng, choose(rng, desk.values[key])) for key in ("mrn", "acc")}

    def _person(self) -> Person:
        female = bool(self.rng.random() < 0.5)
        given = choose(self.rng, self.desk.values["f" if female else "m"])
        return Person(given, "", choose(self.rng, self.desk.values["family"]), female, "")

    def note(self, name: str, text: str) -> GoldNote:
        lines = [
            line.removeprefix("?")
            for line in text.splitlines(keepends=True)
            if not line.startswith("?") or self.rng.random() < 0.5
        ]
        case = self.rng.random()
        turn = str.lower if case < 1 / 8 else str.upper if case < 1 / 4 else str
        written, spans = "", []
        for piece, kind in self._pieces("".join(lines)):
            shown = "".join(turn(char) if len(turn(char)) == 1 else char for char in piece)
            if kind not in ("", "~"):
                spans.append((len(written), len(written) + len(shown), kind))
            written += shown
        known = (("PATIENT", self.people["pt"].caret), ("MRN", self.numbers["mrn"]))
        return GoldNote(name, written, tuple(spans), (*known, ("ACCESSION", self.numbers["acc"])))

    def _pieces(self, text: str) -> list[tuple[str, str]]:
        found, place = [], 0
        for match in _SLOT.finditer(text):
            found.append((text[place : match.start()], ""))
            value, kind = self._value(match[1], [part for part in match[2].split(".") if part], match[3])
            article = _ARTICLE.match(value) if kind in ("HOSPITAL", "ADDRESS") else None
            found.append((article[0] if article else "", ""))
            found.append((value[article.end() if article else 0 :], kind))
            place = match.end()
        return [*found, (text[place:], "")]

    def _value(self, slot: str, forms: list[str], options: str | None) -> tuple[str, str]:
        if slot in _PEOPLE:
            shown = _shown(self.people[slot], forms)
            return shown, _PEOPLE[slot]
        if options is None:
            return self.numbers[slot], {"mrn": "MRN", "acc": "ACCESSION"}[slot]
        form = choose(self.rng, tuple(options.split("^")))
        if slot == "DATE" and "%" in form:
            language = self.desk.values.get("lang", ("en",))[0]
            return values.written(values.day(self.rng), form, language), slot
        if slot == "EMAIL":
            return form, slot
        return values.pattern(self.rng, form), slot


def _parted(name: str) -> tuple[str, str]:
    given, _, family = name.partition(" ")
    return given, family


def _shown(person: Person, forms: list[str]) -> str:
    shown = person.full
    for form in forms:
        if form == "upper":
            shown = shown.upper()
        elif form == "initials":
            shown = person.given[0] + person.family[0].upper()
        else:
            shown = str(getattr(person, {"init": "initial"}.get(form, form)))
    return shown
