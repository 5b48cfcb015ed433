"""Layer 2d: postal addresses of many countries, postcodes, and towns that a cue makes the place of a person."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from components.reports.deid.dates import MONTHS
from components.reports.deid.note import Note, WordTest
from components.reports.deid.postal import letter_towns, line_below, postal_lines, rest_of_line
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import FOREIGN, STOP, WORD, default_lists, towns
from components.reports.lexicon import word_set, words

_I = re.IGNORECASE
_TYPES = (
    "street|st|avenue|ave|road|rd|drive|boulevard|blvd|lane|ln|court|ct|place|pl|way|terrace|ter|circle|cir|parkway|"
    "pkwy|highway|hwy|square|sq|trail|trl|plaza|close|crescent|mews|row|walk|gardens|grove|turnpike|pike|loop|"
    "heights|ridge|path|alley|wharf|quay|esplanade|broadway|tce|cres|pde|cct|heath|estate|village|rise"
)
_SURE = "street|avenue|ave|road|rd|boulevard|blvd|lane|ln|drive|terrace|crescent|parkway|pkwy|highway|hwy|tce|cres"
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
    rf"mg)\b)(?:[a-z][a-z'-]{{1,20}} ){{1,2}}(?:(?:{_SURE})\b\.?{_UNIT}|(?:apt|apartment)\.? ?#?\w{{1,6}}){_TAIL}",
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
_POSTCODE_SMALL = re.compile(
    r"(?:[a-z]{1,2}\d[a-z\d]? \d(?!mm|cm|ml|cc|hu|mg|kg|kv|ma|st|nd|rd|th|hr|am|pm)[a-z]{2}|"
    r"[a-z]\d[a-z] \d[a-z]\d)(?!\w)"
)
_CANADA = re.compile(r"[A-Z]\d[A-Z] {0,2}\d[A-Z]\d\b")
_CITY_STATE = re.compile(r"(?:[A-Z][A-Za-z.'-]{1,20} ){0,2}[A-Z][A-Za-z.'-]{1,20},? $")
_ZIP_AFTER = re.compile(r",? {1,2}\d{5}(?:-\d{4})?(?![\d-])")
_STATE_ZIP = re.compile(r"[A-Z]{2},? {1,2}\d{5}(?:-\d{4})?(?![\d-])")
_BOX = re.compile(r"p\.? ?o\.? box #? ?\d{1,6}", _I)
_UNIT_BEFORE = re.compile(
    r"\b(?:(?:unit|flat|apt\.?|apartment|suite|level|shop|lot) \d{1,4}[a-z]?(?:/\d{1,3})?|\d{1,2}/\d{1,2})(?:, ?|/| )$",
    _I,
)
_POSTAL = re.compile(
    r"(?<![\w-])[A-Z][\w'-]{2,24}(?: [A-Z][\w'-]{2,24}){0,2} \d{1,4}(?:[ -]?[a-z]\b)?(?:-\d{1,3})?,? "
    r"(?:[A-Z]{1,2}-)?\d{4,5}(?: ?[A-Z]{2})? [A-Z][\w'-]{2,24}"
)
_UNNUMBERED = re.compile(
    r"(?<![\w-])[A-Z][a-z'-]{2,20}(?: [A-Z][a-z'-]{2,20})? (?:Street|St|Road|Rd|Avenue|Ave|Lane|Blvd)\.?, "
    r"[A-Z][a-z]{2,20}"
)
_UNNUMBERED_WORDS = frozenset({"street", "st", "road", "rd", "avenue", "ave", "lane", "blvd"})
_NAMED_STREETS = word_set("addresses.named_streets")
_NAMED_STREET = re.compile(
    r"[^\W\d_]+ (?:(?:de|des|du|do|da|dos|la|le|las|los|el|l'|d')(?: |(?<='))){0,3}[A-Z][\w'-]{1,24}"
    r"(?: (?:de |du |da |do |la )?[A-Z][\w'-]{1,24}){0,2}(?:,? (?:n[o\u00ba]?\.? ?)?\d{1,4}[a-z]?(?![\w/]))?"
    r"(?:, (?:\d{4,6} )?[A-Z][\w'-]{2,24})?"
)
_NUMBER_BEFORE = re.compile(r"(?<![\w.,/-])\d{1,4}[A-Za-z]?,? $")
_UNITS = word_set("suspects.units") - {"m", "s", "l", "x", "am"}
_HOME_WORDS = frozenset(
    {
        "lives",
        "living",
        "resides",
        "residing",
        "domiciled",
        "address",
        "residente",
        "resident",
        "wohnhaft",
        "woont",
    }
)
_DUTCH = re.compile(r"(?<![\w-])[1-9]\d{3} ?[A-Z]{2},? [A-Z][a-z]{2,20}")
_BEFORE_STREET = (" ", ",", "/", "-")  # what may stand between a house's number and its street
_OF_STREET = tuple(word_set("addresses.street_ends"))
_BARE_STREET = re.compile(
    r"[ ]\d{1,4}(?:[ -]?[a-z]\b)?(?: [a-z]\b)?(?: ?\d{1,3})?(?:, (?:\d{4,5} ?)?[A-Z][\w'-]+| [A-Z][\w'-]+)?",
    _I,
)
_HOME = re.compile(
    r"\b(?:lives|living|resides|residing|domiciled|address(?: [a-z]+){0,4}:|residente? (?:na|no|en|em|in|a)|wohnhaft|"
    r"woont)"
    r"(?: alone| currently)?(?: (?:at|on|in|near|te|in der|a))? (?=\S)",
    _I,
)
_CLAUSE = re.compile(
    r"(?:[^.;\n]|(?<=\W[A-Za-z]{2})\.|(?<=\W[A-Za-z]{3})\.|(?<=\W[A-Za-z]{4})\.){3,70}?"
    r"(?=\. |\.?$|\.?\n|;|,? (?:with|and|since|who|alone|but|where)\b|\)|, [a-z]{3,} )"
)
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
_ON_LINES = frozenset({"address.street", "address.city", "address.box", "address.postcode", "address.line"})
_TURKISH_STEMS = ("mah", "cad", "sok")
_telling = WordTest(
    lambda word: len(word) > 2 and (word.startswith(_TURKISH_STEMS) or word.endswith(_STEM_ENDS + _OF_STREET))
)
_UNMOVED = _STATES | _PREFIXES | _NAMED_STREETS | {"p", "po", "so", "in"}
_TRIGGERS = _UNMOVED | {"from", "at", "of", "near", "to"}


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

        telling = _telling.among(text.places)
        for word in telling:
            for number in text.places[word] if word.endswith(_STEM_ENDS) else ():
                if view[text.ends[number] : text.ends[number] + 3].lstrip(". ")[:1].isdigit():
                    match = _SUFFIXED.match(view, text.starts[number])
                    add((match.start(), match.end(), "street") if match else None)
        if any(word.startswith(_TURKISH_STEMS) for word in telling):
            for match in _TURKISH.finditer(view):
                add((match.start(), match.end(), "street"))
        done = 0
        moves = not _MOVES.isdisjoint(text.places)  # without one, `from` and its like lead to no town
        for number in text.select(_TRIGGERS if moves else _UNMOVED):
            if text.starts[number] >= done:
                done = max(done, add(self._at(text, number, text.words[number])))
        for found in _forms(text, telling):
            add(found)
        for found in (*postal_lines(text), *letter_towns(text)):
            add(found)
        spans = [extended(text, span) for span in spans]
        for span in [span for span in spans if span.rule in _ON_LINES]:
            below = line_below(view, span)
            add((*below, "line") if below else None)
        return [rest_of_line(text, span) if span.rule in _ON_LINES else span for span in spans]

    def _at(self, text: Note, number: int, word: str) -> tuple[int, int, str] | None:
        view, start, end = text.view, text.starts[number], text.ends[number]
        if word[0].isdigit():
            return self._numbered(text, number)
        if word in _NAMED_STREETS and (match := _NAMED_STREET.match(view, start)):
            house = _NUMBER_BEFORE.search(view, max(0, start - 8), start)
            return house.start() if house else start, match.end(), "street"
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
        if (
            2 <= len(word) <= 4
            and any(map(str.isdigit, word))
            and view[:2000].islower()
            and not _vertebral(word)
        ):
            match = _POSTCODE_SMALL.match(view, start)
            return (start, match.end(), "postcode") if match else None
        return _residence(text, number) if word in ("in", "from", "at", "of", "near", "to", "by") else None

    @staticmethod
    def _numbered(text: Note, number: int) -> tuple[int, int, str] | None:
        view, start = text.view, text.starts[number]
        before = view[start - 1] if start else " "
        if before.isdigit() or (before in ".-/" and start > 1 and view[start - 2].isdigit()):
            return None
        if number + 1 < len(text.words) and text.words[number + 1] in _UNITS:
            return None
        if text.gap(number)[:1] not in _BEFORE_STREET:
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


def _forms(text: Note, telling: Iterable[str]) -> Iterator[tuple[int, int, str]]:
    """Streets before their number, towns after their postcode, and what follows `lives` or `address:`."""
    view = text.view
    postal = any(_before_town(text, number) for number in text.with_digit)
    named = not _UNNUMBERED_WORDS.isdisjoint(text.places)
    patterns = ((_POSTAL, "street", postal), (_DUTCH, "postcode", postal), (_UNNUMBERED, "street", named))
    for pattern, rule, possible in patterns:
        for match in pattern.finditer(view) if possible else ():
            first = bisect_left(text.starts, match.start())
            if text.words[first] not in words("radiology_words") and text.words[first] not in MONTHS:
                yield match.start(), match.end(), rule
    for word in telling:
        if len(word) > 6 and word.endswith(_OF_STREET) and not default_lists().flags(word) & (WORD | STOP):
            for number in text.places[word]:
                if street := _BARE_STREET.match(view, text.ends[number]):
                    yield text.starts[number], street.end(), "street"
    for match in _HOME.finditer(view) if not _HOME_WORDS.isdisjoint(text.places) else ():
        clause = _CLAUSE.match(view, match.end())
        labelled = match.group().rstrip().endswith(":")
        if clause and (labelled or _home(text, clause)):
            yield clause.start(), clause.end(), "home"


def _before_town(text: Note, number: int) -> bool:
    """Whether a number may be a postcode before a town: of four figures or more, with a capital behind it."""
    gap, follow = text.gap(number), number + 1
    joined = gap == " " or (gap == ", " and not text.words[number].isdigit())
    return (
        joined
        and 3 < len(text.words[number]) < 9
        and follow < len(text.words)
        and text.written[follow][0].isupper()
    )


def _home(text: Note, clause: re.Match[str]) -> bool:
    """Whether what follows `lives` names a place: it begins with a capital, or holds a number, a street or a town."""
    first, last = bisect_left(text.starts, clause.start()), bisect_left(text.starts, clause.end())
    found = text.words[first:last]
    if not found or found[0] in (
        "with",
        "alone",
        "independently",
        "a",
        "an",
        "home",
        "my",
        "his",
        "her",
        "their",
    ):
        return False
    flags = default_lists().flags
    mixed = not clause.group().isupper() and not text.view[:2000].islower()
    if mixed:
        return clause.group()[0].isupper() or clause.group()[0].isdigit()
    strange = any(not flags(word) & (WORD | STOP | FOREIGN) and word.isalpha() for word in found)
    return strange or any(word in towns() or word in _STREET_WORDS for word in found)


_STREET_WORDS = frozenset(_TYPES.split("|"))


def extended(text: Note, span: Span) -> Span:
    """A span with the rest of the address behind it: towns, countries, postcodes, up to the next sentence."""
    place = bisect_left(text.starts, span.end)
    end, steps, comma = span.end, 0, False
    flags, lower = default_lists().flags, text.view[:2000].islower()
    while place < len(text.words) and steps < 9:
        gap, word, written = text.view[end : text.starts[place]], text.words[place], text.token(place)
        short = end - text.starts[place - 1] < 4 if place else False
        if gap not in (" ", ", ", "-", "'", ",", "/", " - ") and not (gap in (". ", "., ") and short):
            break
        comma = comma or "," in gap
        mark = flags(word)
        if word.isdigit():
            good = len(word) < 7 and (len(word) > 2 or comma) and gap != "/"
        elif any(map(str.isdigit, word)):
            good = len(word) < 7 and written.isupper()
        else:
            town = word in towns() and not mark & STOP
            strange = not mark & (WORD | STOP | FOREIGN)
            capital = written[0].isupper() and (not written.isupper() or len(written) < 3 or strange)
            free = comma and capital and not mark & (STOP | FOREIGN) and word not in words("radiology_words")
            inner = (
                word in ("of", "near") and place + 1 < len(text.words) and text.token(place + 1)[0].isupper()
            )
            upper = written.isupper() and len(written) == 2 and word in _STATES
            good = (town or strange or upper) if not lower or comma else town
            good = good or free or (inner and not lower and not written.isupper())
            if (
                len(word) < 2
                or word in MONTHS
                or (good and strange and not town and not capital and not comma)
            ):
                good = False
        if not good:
            break
        end, place, steps = text.ends[place], place + 1, steps + 1
    return span if end == span.end else span._replace(end=end)


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
