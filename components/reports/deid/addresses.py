"""Layer 2d: postal addresses of many countries, postcodes, and towns that a cue makes the place of a person."""

from __future__ import annotations

import re

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import FOREIGN, STOP, WORD, default_lists, towns
from components.reports.lexicon import word_set

_I = re.IGNORECASE
_TYPES = (
    "street|st|avenue|ave|road|rd|drive|boulevard|blvd|lane|ln|court|ct|place|pl|way|terrace|ter|circle|cir|parkway|"
    "pkwy|highway|hwy|square|sq|trail|trl|plaza|close|crescent|mews|row|walk|gardens|grove|turnpike|pike|loop|"
    "heights|ridge|path|alley|wharf|quay|esplanade|broadway"
)
_SURE = "street|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|terrace|crescent|parkway|pkwy|highway|hwy"
_UNIT = r"(?:,? {1,2}(?:apt|apartment|suite|ste|unit|floor|fl|room|rm|flat|#)\.? ?#?\w{1,6})?"
_ZIP = r"(?:[A-Za-z]{2}\.?,? {1,2})?\d{5}(?:-\d{4})?(?![\d-])"
_UK = r"[A-Za-z]{1,2}\d[A-Za-z\d]? ?\d[A-Za-z]{2}(?!\w)"
_CA = r"[A-Za-z]\d[A-Za-z] ?\d[A-Za-z]\d(?!\w)"
_TOWN = r"[^\W\d_][\w.'-]{0,24}(?: [^\W\d_][\w.'-]{0,24}){0,2}"
_TAIL = (
    rf"(?:,? (?:{_TOWN})?,? ?(?:{_ZIP}|{_UK}|{_CA})|, {_TOWN} \d{{4}}(?![\d./-])|"
    r", [^\W\d_][\w'-]{2,24}(?: [^\W\d_]{2,20}(?=[.,;\n]|$))?)?"
)
_STREET = re.compile(
    rf"\d{{1,5}}[A-Za-z]?(?:[/-]\d{{1,4}})?,? (?:[NSEW]\.? |(?:North|South|East|West) )?(?:(?:[A-Z][A-Za-z'.-]{{0,20}}|"
    rf"\d{{1,3}}(?:st|nd|rd|th)) ){{1,4}}(?:(?i:{_TYPES})\b\.?|"
    rf"Dr\b(?!\.? [A-Z][a-z]))(?i:{_UNIT})(?i:{_TAIL})"
)
_STREET_ANY = re.compile(
    rf"\d{{1,5}}[a-z]?(?:[/-]\d{{1,4}})? (?!(?:mm|cm|x|of|in|and|to|ml|"
    rf"mg)\b)(?:[a-z][a-z'-]{{1,20}} ){{1,2}}(?:{_SURE})\b\.?{_UNIT}{_TAIL}",
    _I,
)
_POSTAL_TOWN = (
    r"(?:,? (?:[A-Z]{1,2}-)?\d{2,5}(?:[- ]\d{3})? [^\W\d_][\w'-]{1,24}(?: [A-Z][\w'-]{1,24}){0,2}|"
    r", [^\W\d_][\w'-]{1,24}(?: [A-Z][\w'-]{1,24})?)?"
)
_SUFFIXED = re.compile(
    rf"(?<!\w)[^\W\d_][\w-]{{1,24}}(?:strasse|strase|str\.|gasse|weg|platz|allee|straat|laan|plein|"
    rf"gracht|gatan|vagen|veien|vej|katu|tie)"
    rf" ?\d{{1,4}}[a-z]?\b{_POSTAL_TOWN}",
    _I,
)
_PREFIXED = re.compile(
    r"(?<![\w.])(?:calle|c/|avda\.?|avenida|av\.|plaza|paseo|pza\.?|carrera|cra\.?|rua|travessa|"
    r"largo|estrada|via|viale|"
    r"piazza|corso|vicolo|ul\.|ulica|al\.|aleja|os\.|pl\.|jalan|jl\.|strada|str\.|ulice|utca|am|"
    r"an der|zum|boulevard|bd)"
    r" ?(?:(?:de|del|della|delle|dei|la|las|los|do|da|dos|das|di|der|den|des|"
    r"du)\b ?){0,2}[^\W\d_][\w'.-]{1,24}(?: [^\W\d_][\w'.-]{1,24}){0,3}"
    rf",? (?:n[o.\u00ba]{{0,2}} ?)?\d{{1,4}}(?:[a-z]\b|/\d{{1,4}})?(?!\d)(?! ?(?:mm|cm|ml|%)){_POSTAL_TOWN}",
    _I,
)
_FRENCH = re.compile(
    r"\d{1,4}(?: ?(?:bis|ter))?,? (?:rue|avenue|boulevard|bd|place|chemin|allee|impasse|quai|cours|"
    r"route|square)"
    rf" (?:(?:de|du|des|la|le|les|l'|d')\b ?'?){{0,3}}[^\W\d_][\w'-]{{1,24}}(?: "
    rf"[A-Z][\w'-]{{1,24}}){{0,3}}{_POSTAL_TOWN}",
    _I,
)
_TURKISH = re.compile(
    r"(?<!\w)(?:[^\W\d_]{2,20} ){1,2}(?:mah\.?|mahallesi|cad\.?|caddesi|sok\.?|sk\.?|sokak|sokagi|"
    r"bulvari|blv\.?)(?!\w)[^\n;|]{0,60}?"
    r"(?:no ?:? ?\d{1,4}(?:/\d{1,4})?)(?:[ ,/]{1,3}[^\W\d_]{2,20}){0,2}",
    _I,
)
_VIETNAMESE = re.compile(
    r"(?:so )?\d{1,4}(?:/\d{1,4})? (?:duong|pho|ngo|hem) [^\W\d_][\w ]{1,30}(?:, ?(?:quan|phuong|"
    r"huyen|tp\.?|tinh|xa)? ?[\w.]{1,14}(?: [^\W\d_]{1,12}){0,2}){0,4}",
    _I,
)
_POSTCODE = re.compile(r"[A-Z]{1,2}\d[A-Z\d]? \d(?!MM|CM|ML|CC|HU|MG)[A-Z]{2}\b")
_CANADA = re.compile(r"[A-Z]\d[A-Z] ?\d[A-Z]\d\b")
_CITY_STATE = re.compile(r"(?:[A-Z][A-Za-z.'-]{1,20} ){0,2}[A-Z][A-Za-z.'-]{1,20},? $")
_ZIP_AFTER = re.compile(r",? {1,2}\d{5}(?:-\d{4})?(?![\d-])")
_STATE_ZIP = re.compile(r"[A-Z]{2},? {1,2}\d{5}(?:-\d{4})?(?![\d-])")
_BOX = re.compile(r"p\.? ?o\.? box #? ?\d{1,6}", _I)
_UNIT_BEFORE = re.compile(r"\b(?:unit|flat|apt\.?|apartment|suite|level|shop) \d{1,4}[a-z]?(?:, ?|/| )$", _I)
_STATES = word_set("addresses.states")
_SITE = re.compile(r"(?:hospital|clinic|center|centre|infirmary|institute|university) in $", _I)
_MOVES = word_set("addresses.moves")  # every word that _LIVES and _FROM begin with
_LIVES = re.compile(
    r"\b(?:liv(?:es|ing|ed)|resid(?:es|ing|ent|ed)|domiciled|born|raised|moved|travel(?:l?ed|l?ing)?|"
    r"visiting|homeless|vacation"
    r"|flew|relocated|native|emigrated|immigrated)"
    r"(?: back)? (?:in|at|near|of|from|to) (?:the (?:city|town|village) of )?$",
    _I,
)
_FROM = re.compile(
    r"\b(?:transferred|referred|came|comes|brought|sent|films|images|disc|cd|hails|visitor|"
    r"tourist) (?:in )?(?:from|by) $",
    _I,
)
_STEMS = (
    "strasse",
    "strase",
    "str",
    "gasse",
    "weg",
    "platz",
    "allee",
    "straat",
    "laan",
    "plein",
    "gracht",
    "gatan",
    "vagen",
)
_STEM_ENDS = (*_STEMS, "veien", "vej", "katu", "tie")
_PREFIXES = word_set("addresses.prefixes")
_TURKISH_WORD = re.compile(r"(?:mah|cad|sok)")
_TRIGGERS = _STATES | _PREFIXES | {"p", "po", "so", "in", "from", "at", "of", "near", "to"}


class Addresses:
    """Finds postal addresses and places of residence."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of addresses, postcodes and towns."""
        view, spans = text.view, []

        def add(found: tuple[int, int, str] | None) -> int:
            if found:
                spans.append(Span(found[0], found[1], "ADDRESS", self.name, f"address.{found[2]}", 0.9))
            return found[1] if found else 0

        for word, numbers in text.places.items():
            if word.endswith(_STEM_ENDS) and len(word) > 2:
                for number in numbers:
                    if view[text.ends[number] : text.ends[number] + 3].lstrip(". ")[:1].isdigit():
                        match = _SUFFIXED.match(view, text.starts[number])
                        add((match.start(), match.end(), "street") if match else None)
        if "no" in text.lower and any(map(_TURKISH_WORD.match, text.places)):
            for match in _TURKISH.finditer(view):
                add((match.start(), match.end(), "street"))
        done = 0
        for number in text.select(_TRIGGERS):
            if text.starts[number] >= done:
                done = max(done, add(self._at(text, number, text.words[number])))
        return spans

    def _at(self, text: Note, number: int, word: str) -> tuple[int, int, str] | None:
        view, start, end = text.view, text.starts[number], text.ends[number]
        if word[0].isdigit():
            return self._numbered(text, number)
        match = _PREFIXED.match(view, start) if word in _PREFIXES else None
        if match and (not default_lists().flags(word) & WORD or _plausible(match.group())):
            return start, match.end(), "street"
        if word == "so" and (match := _VIETNAMESE.match(view, start)):
            return start, match.end(), "street"
        if (
            len(word) == 2
            and word in _STATES
            and view[start:end].isupper()
            and (match := _STATE_ZIP.match(view, start))
        ):
            left = max(view.rfind("\n", max(0, start - 70), start) + 1, start - 70, 0)
            city = _CITY_STATE.search(view, left, start)
            return city.start() if city else start, match.end(), "city"
        if word in ("p", "po") and (match := _BOX.match(view, start)):
            return start, match.end(), "box"
        if 2 <= len(word) <= 6 and view[start:end].isupper() and any(map(str.isdigit, word)):
            match = _CANADA.match(view, start) or (None if _vertebral(word) else _POSTCODE.match(view, start))
            return (start, match.end(), "postcode") if match else None
        return _residence(text, number) if word in ("in", "from", "at", "of", "near", "to", "by") else None

    @staticmethod
    def _numbered(text: Note, number: int) -> tuple[int, int, str] | None:
        view, start = text.view, text.starts[number]
        before = view[start - 1] if start else " "
        if before.isdigit() or (before in ".-/" and start > 1 and view[start - 2].isdigit()):
            return None
        if (
            match := _STREET.match(view, start)
            or _FRENCH.match(view, start)
            or _VIETNAMESE.match(view, start)
        ):
            return _unit_before(view, start), match.end(), "street"
        match = _STREET_ANY.match(view, start)
        if match and not default_lists().flags(text.words[number + 1]) & STOP:
            return _unit_before(view, start), match.end(), "street"
        return None


def _unit_before(view: str, start: int) -> int:
    """Where an address begins whose street number stands at `start`: at its flat or unit, if it names one."""
    match = _UNIT_BEFORE.search(view, max(0, start - 24), start)
    return match.start() if match else start


def _plausible(found: str) -> bool:
    """Whether a street's type that is also a word (`via`, `am`) begins an address: a capital and no stop words."""
    flags = default_lists().flags
    inner = re.findall(r"[^\W\d_]+", found)[1:]
    return bool(inner) and inner[0][0].isupper() and not any(flags(part.lower()) & STOP for part in inner)


def _residence(text: Note, number: int) -> tuple[int, int, str] | None:
    """`lives in X`, `transferred from X`: the town."""
    view, end = text.view, text.ends[number] + 1
    left = max(0, text.starts[number] - 40)
    moved = not _MOVES.isdisjoint(text.words[max(0, number - 6) : number])
    if not moved and text.words[number] != "in":
        return None
    lives = _LIVES.search(view, left, end) if moved else None
    if (
        number + 1 >= len(text.words)
        or text.gap(number) != " "
        or not (lives or (moved and _FROM.search(view, left, end)))
    ):
        follow = number + 1
        if text.words[number] != "in" or follow >= len(text.words) or text.gap(number) != " ":
            return None
        word = text.words[follow]
        if (
            word not in towns()
            or not (text.token(follow)[0].isupper() or _SITE.search(view, left, end) or view[:2000].islower())
            or default_lists().flags(word) & WORD
        ):
            return None
    last, place = number, number + 1
    while place < len(text.words) and place - number <= 3:
        word, written = text.words[place], text.token(place)
        flags = default_lists().flags(word)
        if place > number + 1 and text.gap(place - 1) not in (" ", "-", ", ", "'"):
            break
        if (
            not word.isalpha()
            or flags & STOP
            or (flags & WORD and word not in towns() and not written[0].isupper())
        ):
            break
        if written[0].islower() and flags & (WORD | FOREIGN) and word not in towns():
            break
        if (
            flags & WORD
            and place == number + 1
            and not (lives and written[0].isupper() and not written.isupper())
            and word not in towns()
        ):
            break
        last, place = place, place + 1
    if last == number or text.words[number + 1] in ("home", "nursing", "work", "clinic"):
        return None
    zipped = _ZIP_AFTER.match(text.view, text.ends[last]) if text.words[last] in _STATES else None
    return text.starts[number + 1], zipped.end() if zipped else text.ends[last], "town"


def _vertebral(word: str) -> bool:
    return len(word) <= 3 and word[0] in "ctls" and word[1:].isdigit()
