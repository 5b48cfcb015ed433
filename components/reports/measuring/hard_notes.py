"""Hard notes: invented reports with every identifier's place known, for development and held out.

Names come from many cultures and are often common words or eponyms; a sixth of the notes is in lower case and
a sixth in capitals; headers, dates, numbers and addresses take the forms of many countries and systems. The
names, the templates and half of the forms of one half of the set are never met in the other half.

Placeholders of `templates.txt`: P patient, S staff, K relative (a new person at each place) with the forms
full, comma, caret, initial, given, family, maiden; D date, BD birth date with the forms ymd, part, year2; MRN,
ACC, ID, NID.country, PHONE, PAGER, EXT, EMAIL, URL, ADDR, CITY, HOSP, SERIAL, XY (initials), age90. These are
PHI. T, n, n3, mm, age, sex and sexword are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from components.reports.deid.note import fold
from components.reports.measuring import values
from components.reports.measuring.people import HALVES, LANGUAGE_OF, Person, choose, person

_PLACEHOLDER = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_CULTURE_OF = {language: culture for culture, language in LANGUAGE_OF.items()}
_FOREIGN = 0.3
KINDS = {
    **{"P": "PATIENT", "S": "STAFF", "K": "PERSON", "D": "DATE", "BD": "DATE", "MRN": "MRN", "ID": "ID"},
    **{
        "ACC": "ACCESSION",
        "NID": "SSN",
        "PHONE": "PHONE",
        "PAGER": "PHONE",
        "EXT": "PHONE",
        "EMAIL": "EMAIL",
    },
    **{
        "URL": "URL",
        "ADDR": "ADDRESS",
        "CITY": "ADDRESS",
        "HOSP": "HOSPITAL",
        "SERIAL": "DEVICE",
        "XY": "STAFF",
    },
    **{"xy": "STAFF", "age90": "AGE"},
}


@dataclass(frozen=True)
class GoldNote:
    """A note with its identifiers as (start, end, kind), and the known PHI a manifest would hold of it."""

    id: str
    text: str
    spans: tuple[tuple[int, int, str], ...]
    identities: tuple[tuple[str, str], ...] = ()


@cache
def templates(half: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(part, language) -> the blocks that belong to a half."""
    source = (Path(__file__).parent / "templates.txt").read_text(encoding="utf-8")
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for chunk in re.split(r"^== ", source, flags=re.MULTILINE)[1:]:
        title, _, body = chunk.partition("\n")
        part, language = title.split()
        blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", body) if block.strip()]
        found[part, language] = tuple(blocks[HALVES.index(half) :: 2])
    return found


def hard_notes(count: int, seed: int, half: str) -> list[GoldNote]:
    """`count` notes of a half; the same arguments give the same notes."""
    return [_Writer(np.random.default_rng([seed, HALVES.index(half), i]), half).note(i) for i in range(count)]


class _Writer:
    """One note; every choice comes from its own generator."""

    def __init__(self, rng: np.random.Generator, half: str) -> None:
        self.rng, self.half = rng, half
        foreign = rng.random() < _FOREIGN
        self.language = choose(rng, tuple(_CULTURE_OF)) if foreign else "en"
        culture = _CULTURE_OF.get(self.language) if foreign and rng.random() < 0.85 else None
        self.culture = culture or ("english" if rng.random() < 0.4 else None)
        self.patient = person(rng, half, self.culture)
        self.parts: list[tuple[str, str]] = []
        self.mrn, self.accession = values.record(rng), values.accession(rng)

    def note(self, number: int) -> GoldNote:
        rng, blocks = self.rng, templates(self.half)
        language = self.language
        header = blocks["header", language]
        signature = blocks["signature", language]
        if rng.random() < 0.8:
            self.write(choose(rng, header) + "\n\n")
        body = list(rng.permutation(blocks["body", "en" if language == "en" else language]))
        told = list(rng.permutation(blocks["sentence", language]))
        if language != "en":
            told += list(rng.permutation(blocks["sentence", "en"]))[: int(rng.integers(0, 2))]
        first = "FINDINGS: " if language == "en" else "\n"
        self.write(first + self.mixed(body[:7], told[: int(rng.integers(2, 6))]))
        if language == "en":
            self.write("\n\nIMPRESSION: " + self.mixed(body[7:9], []))
        if rng.random() < 0.7:
            self.write("\n\n" + choose(rng, signature) + "\n")
        return self.finish(number)

    def mixed(self, body: list[str], told: list[str]) -> str:
        lines = [str(line) for line in self.rng.permutation([*body, *told])]
        joiner = " " if self.rng.random() < 0.6 else "\n"
        return joiner.join(lines)

    def write(self, template: str) -> None:
        place = 0
        for match in _PLACEHOLDER.finditer(template):
            self.parts.append((template[place : match.start()], ""))
            value = self.value(match[1], match[2] or "")
            self.parts.append((value, KINDS.get(match[1], "")))
            place = match.end()
        self.parts.append((template[place:], ""))

    def finish(self, number: int) -> GoldNote:
        case = self.rng.random()
        text, spans, length = "", [], 0
        for piece, kind in self.parts:
            if case < 1 / 6:
                piece = "".join(char.lower() if len(char.lower()) == 1 else char for char in piece)
            elif case < 1 / 3:
                piece = "".join(char.upper() if len(char.upper()) == 1 else char for char in piece)
            if kind:
                spans.append((length, length + len(piece), kind))
            text += piece
            length += len(piece)
        identities = (("PATIENT", self.patient.caret), ("MRN", self.mrn), ("ACCESSION", self.accession))
        return GoldNote(f"hard_{self.half}_{number:05d}", text, tuple(spans), identities)

    def value(self, name: str, form: str) -> str:
        rng, half, language = self.rng, self.half, self.language
        if name in ("P", "S", "K"):
            who = (
                self.patient
                if name == "P"
                else person(rng, half, self.culture if rng.random() < 0.6 else None)
            )
            return self.named(who, form)
        if name in ("D", "BD"):
            if form == "part":
                return values.partial_date(rng, half)
            if form == "year2":
                return f"'{int(rng.integers(4, 24)):02d}"
            if form == "ymd":
                return values.day(rng, name == "BD").strftime("%Y%m%d")
            return values.full_date(rng, language, half, name == "BD")
        simple = {
            "MRN": lambda: self.mrn,
            "ACC": lambda: self.accession if rng.random() < 0.5 else values.accession(rng),
            "ID": lambda: values.pattern(rng, choose(rng, ("######", "#-######", "V########", "####-#####"))),
            "NID": lambda: values.national_id(rng, form, half),
            "PHONE": lambda: values.phone(rng, language),
            "PAGER": lambda: values.pattern(rng, choose(rng, ("p#####", "#####", "#-####"))),
            "EXT": lambda: values.pattern(rng, choose(rng, ("####", "#####"))),
            "EMAIL": self.email,
            "URL": lambda: f"https://pacs.{self.host()}/view?study={values.pattern(rng, '######')}",
            "ADDR": lambda: values.address(rng, language, half),
            "CITY": lambda: values.city(rng, half),
            "HOSP": lambda: values.hospital(rng, language, half),
            "SERIAL": lambda: values.serial(rng),
            "XY": lambda: values.pattern(rng, "@@"),
            "xy": lambda: values.pattern(rng, "@@").lower(),
            "age90": lambda: str(int(rng.integers(90, 102))),
            "age": lambda: str(int(rng.integers(19, 89))),
            "T": lambda: f"{int(rng.integers(7, 20))}:{int(rng.integers(60)):02d}",
            "n": lambda: str(int(rng.integers(1, 9))),
            "n3": lambda: str(int(rng.integers(10, 300))),
            "mm": lambda: str(int(rng.integers(3, 40))),
            "sex": lambda: "F" if self.patient.female else "M",
            "sexword": lambda: "woman" if self.patient.female else "man",
        }
        return simple[name]()

    def named(self, who: Person, form: str) -> str:
        if form == "maiden":
            return person(self.rng, self.half, who.culture).family
        text = str(getattr(who, form or "full"))
        if form in ("", "comma") and self.rng.random() < 0.12:
            text = text.upper() if "ß" not in text else text
        return fold(text) if self.rng.random() < 0.15 else text

    def host(self) -> str:
        return f"{fold(values.city(self.rng, self.half)).lower().replace(' ', '')}-health.org"

    def email(self) -> str:
        return f"{fold(self.patient.initial).lower().replace('. ', '.').replace(' ', '')}@{self.host()}"
