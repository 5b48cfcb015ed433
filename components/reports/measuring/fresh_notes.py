"""Two more sets of hard notes, `fresh` and `last`, with names, layouts and sentences of their own.

They were written after the rules and measured before anyone looked at what was missed. Nothing in them comes from
the two halves of `hard_notes`: names are those of `SET_names.txt`, blocks those of `SET_templates.txt`; dates,
numbers, towns and institutions are written below, and those of `last` are others than those of `fresh`. A
sixth of the notes is in small letters, a sixth in capitals.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from components.reports.deid.note import fold
from components.reports.lexicon import parse_mapping
from components.reports.measuring import values
from components.reports.measuring.hard_notes import KINDS, GoldNote
from components.reports.measuring.people import Person, choose

SETS = ("fresh", "last")
_HERE = Path(__file__).parent
_PLACEHOLDER = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
_FRESH: dict[str, tuple[str, ...]] = {
    "dates": (
        *("%d/%m/%Y", "%-d/%-m/%y", "%Y-%m-%d", "%-d %B %Y", "%B %-d, %Y", "%d.%m.%Y", "%-d %b %Y"),
        *("%Y.%m.%d", "%d-%m-%Y", "%b %-d %Y", "%-d-%b-%y", "%m/%d/%Y", "%A %-d %B %Y", "%d %b, %Y"),
    ),
    "partial": ("%B %Y", "%b %Y", "%m/%Y", "%Y", "%B", "mid-%Y", "%b-%Y", "summer %Y", "%-d %B"),
    "cities": (
        *(
            "Coimbra",
            "Bari",
            "Groningen",
            "Thessaloniki",
            "Kazan",
            "Daegu",
            "Sapporo",
            "Cebu",
            "Ibadan",
            "Cork",
        ),
        *("Tbilisi", "Eindhoven", "Patras", "Incheon", "Davao", "Enugu", "Trieste", "Wollongong", "Duluth"),
    ),
    "roots": (
        "Saint Raphael",
        "Clearwater",
        "Northern Beaches",
        "Sunrise",
        "Alder Creek",
        "Prince Albert",
        "Nova",
    ),
    "places": (
        *("{r} Hospital", "{r} Private Hospital", "{c} District Hospital", "{c} Teaching Hospital"),
        *("{r} Radiology", "{r} Medical Centre", "{r} Memorial", "{c} General", "{c} Children's Hospital"),
        *("Ospedale {r}", "{c} UMC", "{r} Day Surgery"),
    ),
    "streets": (
        *("{n} {w} Street, {c} {z}", "{n}/{k} {w} Road, {c}", "{w}laan {n}, {z} {c}", "Via {w} {n}, {c}"),
        *("Rua {w} {n}, {z} {c}", "{n} {w} Crescent, {c}", "Unit {k}, {n} {w} Ave, {c} {z}"),
    ),
    "ways": ("Acacia", "Beethoven", "Marconi", "Hillcrest", "Queens", "Tulip", "Banyan", "Ferry", "Orchard"),
    "phones": (
        *("+31 6 #### ####", "+30 21# ### ####", "+39 06 #### ####", "+63 9## ### ####", "+234 80# ### ####"),
        *("(0#) #### ####", "04## ### ###", "+82 2-###-####", "03-####-####", "1-8##-###-####", "###-####"),
        *("### ### ####", "+81 90-####-####", "x####"),
    ),
    "records": (
        "#######",
        "@@@####",
        "##-##-##",
        "U######",
        "###-####-#",
        "########@",
        "H-#####",
        "#########",
    ),
    "orders": ("CT##-#####", "@######", "########", "##@@####", "X-####-##", "###########"),
}
_LAST: dict[str, tuple[str, ...]] = {
    "dates": (
        "%d-%b-%Y",
        "%-d.%-m.%Y",
        "%Y/%m/%d",
        "%B %d %Y",
        "%d/%m/%y",
        "%-d. %B %Y",
        "%Y%m%d",
        "%-m/%-d/%Y",
    ),
    "partial": ("%b %y", "%B of %Y", "late %Y", "%Y-%m", "%b. %Y", "winter %Y", "%Y", "%B %-d"),
    "cities": (
        *("Mombasa", "Chiang Mai", "Isfahan", "Debrecen", "Tampere", "Yerevan", "Rotorua", "Kandy", "Sylhet"),
        *("Swansea", "Haifa", "Lviv", "Jacmel", "Boulder", "Spokane", "Hobart"),
    ),
    "roots": (
        "Immaculate Heart",
        "Glenview",
        "Blue Ridge",
        "St. Columba",
        "Westfield",
        "Ashgrove",
        "Meridian",
    ),
    "places": (
        *(
            "{r} Hospital",
            "{c} Regional Medical Center",
            "{r} Imaging",
            "{c} Central Hospital",
            "{r} Health Centre",
        ),
        *(
            "{r} Diagnostic Centre",
            "{c} Cancer Centre",
            "{r} Infirmary",
            "{c} Polyclinic",
            "University of {c}",
        ),
    ),
    "streets": (
        "{n} {w} Lane, {c} {z}",
        "{n} {w} Blvd., Apt {k}, {c}",
        "{k} {w} Close, {c}",
        "P.O. Box {z}, {c}",
    ),
    "ways": ("Magnolia", "Kings", "Riverside", "Temple", "Lotus", "Mill", "Summit"),
    "phones": (
        *("+254 7## ######", "+66 2 ### ####", "+98 21 #### ####", "+36 1 ### ####", "0## ### ####"),
        *("(###)###-####", "###-#######", "+972-5#-#######", "+44 (0)29 #### ####", "### #### ###"),
    ),
    "records": (
        "######",
        "########",
        "@#####",
        "@@@-######",
        "##/#####",
        "#### ####",
        "P#######",
        "##########",
    ),
    "orders": ("@@-######", "#########", "####@@###", "A####-##", "CT/##/####"),
}
_FORMS = {"fresh": _FRESH, "last": _LAST}


@cache
def blocks(part: str) -> dict[str, tuple[str, ...]]:
    """Part -> blocks of a set."""
    found: dict[str, tuple[str, ...]] = {}
    source = (_HERE / f"{part}_templates.txt").read_text(encoding="utf-8")
    for chunk in re.split(r"^== ", source, flags=re.MULTILINE)[1:]:
        title, _, body = chunk.partition("\n")
        parts = (block.strip("\n") for block in re.split(r"\n\s*\n", body))
        found[title.strip()] = tuple(block for block in parts if block)
    return found


@cache
def names(part: str) -> dict[str, tuple[str, ...]]:
    """`CULTURE.female`, `.male`, `.family` -> names of a set."""
    return parse_mapping((_HERE / f"{part}_names.txt").read_text(encoding="utf-8"))


@cache
def all_names_of(part: str) -> frozenset[str]:
    """Every word of every name of a set, folded, in small letters."""
    words: set[str] = set()
    for table in names(part).values():
        for name in table:
            words.update(fold(name).lower().replace("'", " ").replace("-", " ").split())
    return frozenset(words)


def fresh_notes(count: int, seed: int, part: str = "fresh") -> list[GoldNote]:
    """`count` notes of a set; the same arguments give the same notes."""
    own = 7 + SETS.index(part)
    return [_Fresh(np.random.default_rng([seed, own, number]), part).note(number) for number in range(count)]


class _Fresh:
    """One note; every choice comes from its own generator."""

    def __init__(self, rng: np.random.Generator, part: str) -> None:
        self.rng, self.part, self.forms = rng, part, _FORMS[part]
        self.patient = self.person()
        self.mrn = values.pattern(rng, choose(rng, self.forms["records"]))
        self.order = values.pattern(rng, choose(rng, self.forms["orders"]))
        self.pieces: list[tuple[str, str]] = []

    def person(self) -> Person:
        rng = self.rng
        culture = choose(rng, tuple(sorted({key.partition(".")[0] for key in names(self.part)})))
        female = bool(rng.random() < 0.5)
        given = choose(rng, names(self.part)[f"{culture}.{'female' if female else 'male'}"])
        family = choose(rng, names(self.part)[f"{culture}.family"])
        middle = chr(65 + int(rng.integers(26))) + "." if rng.random() < 0.1 else ""
        return Person(given, middle, family, female, culture)

    def note(self, number: int) -> GoldNote:
        rng, parts = self.rng, blocks(self.part)
        if rng.random() < 0.85:
            self.write(choose(rng, parts["header"]) + "\n\n")
        told = [str(block) for block in rng.permutation(parts["sentence"])][: int(rng.integers(2, 6))]
        body = [str(block) for block in rng.permutation(parts["body"])][: int(rng.integers(5, 10))]
        lines = [str(line) for line in rng.permutation([*body, *told])]
        style = rng.random()
        if style < 0.45:
            self.write(" ".join(lines))
        elif style < 0.7:
            self.write("\n".join(lines))
        else:
            mark = choose(rng, ("- ", "• ", "1) "))
            self.write("\n".join(mark + line for line in lines))
        if rng.random() < 0.75:
            self.write("\n\n" + choose(rng, parts["signature"]) + "\n")
        return self.finish(number)

    def write(self, template: str) -> None:
        place = 0
        for match in _PLACEHOLDER.finditer(template):
            self.pieces.append((template[place : match.start()], ""))
            self.pieces.append((self.value(match[1], match[2] or ""), KINDS.get(match[1], "")))
            place = match.end()
        self.pieces.append((template[place:], ""))

    def finish(self, number: int) -> GoldNote:
        case, text = self.rng.random(), ""
        spans: list[tuple[int, int, str]] = []
        for piece, kind in self.pieces:
            if case < 1 / 6:
                piece = "".join(char.lower() if len(char.lower()) == 1 else char for char in piece)
            elif case < 1 / 3:
                piece = "".join(char.upper() if len(char.upper()) == 1 else char for char in piece)
            if kind:
                spans.append((len(text), len(text) + len(piece), kind))
            text += piece
        known = (("PATIENT", self.patient.caret), ("MRN", self.mrn), ("ACCESSION", self.order))
        return GoldNote(f"{self.part}_{number:05d}", text, tuple(spans), known)

    def value(self, name: str, form: str) -> str:
        rng = self.rng
        if name in ("P", "S", "K"):
            who = self.patient if name == "P" else self.person()
            if name != "P" and rng.random() < 0.15:
                who = replace(who, given=fold(who.given), family=fold(who.family))
            return str(getattr(who, form or "full"))
        if name in ("D", "BD"):
            forms = self.forms["partial"] if form == "part" else self.forms["dates"]
            return values.written(values.day(rng, name == "BD"), choose(rng, forms), "en")
        return self.other(name)

    def other(self, name: str) -> str:
        rng = self.rng
        host = f"{choose(rng, self.forms['roots']).lower().replace(' ', '')}.example.net"
        simple = {
            "MRN": lambda: self.mrn,
            "ACC": lambda: self.order,
            "ID": lambda: values.pattern(
                rng, choose(rng, ("########", "@#######", "###-###-###", "##/####"))
            ),
            "PHONE": lambda: values.pattern(rng, choose(rng, self.forms["phones"])),
            "EXT": lambda: values.pattern(rng, "####"),
            "xy": lambda: values.pattern(rng, "@@").lower(),
            "PAGER": lambda: values.pattern(rng, choose(rng, ("####", "#####", "##-###"))),
            "EMAIL": lambda: (
                f"{fold(self.patient.family).lower().replace(' ', '_')}{rng.integers(10, 99)}@{host}"
            ),
            "ADDR": self.address,
            "CITY": lambda: choose(rng, self.forms["cities"]),
            "HOSP": lambda: choose(rng, self.forms["places"]).format(
                r=choose(rng, self.forms["roots"]), c=choose(rng, self.forms["cities"])
            ),
            "SERIAL": lambda: values.pattern(rng, choose(rng, ("######", "@@####", "#####-@##"))),
            "XY": lambda: values.pattern(rng, "@@"),
            "age90": lambda: str(int(rng.integers(90, 102))),
            "age": lambda: str(int(rng.integers(19, 89))),
            "T": lambda: f"{int(rng.integers(7, 20)):02d}:{int(rng.integers(60)):02d}",
            "n": lambda: str(int(rng.integers(1, 9))),
            "n3": lambda: str(int(rng.integers(10, 300))),
            "mm": lambda: str(int(rng.integers(3, 40))),
            "sex": lambda: "F" if self.patient.female else "M",
            "sexword": lambda: "woman" if self.patient.female else "man",
        }
        return simple[name]()

    def address(self) -> str:
        rng = self.rng
        return choose(rng, self.forms["streets"]).format(
            w=choose(rng, self.forms["ways"]),
            c=choose(rng, self.forms["cities"]),
            n=int(rng.integers(1, 400)),
            k=int(rng.integers(1, 20)),
            z=values.pattern(rng, "####"),
        )
