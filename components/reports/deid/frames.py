"""Layer 4b: proper names by the frame of a sentence: where something was done, from where someone came.

`done at Perpetual Help`, `films from Lorma`, `sent by Medisprof (2019)`: a preposition of place and a word of an
examination or a journey before it say that a place follows, so that its words need not hold a noun of an
institution. Words of radiology, eponyms and makers end or forbid such a run.
"""

from __future__ import annotations

import re
from functools import cache

from components.reports.deid.dates import MONTHS
from components.reports.deid.edges import without_edges
from components.reports.deid.facilities import nouns
from components.reports.deid.note import Note
from components.reports.deid.runs import PARTICLES, Scan, scan_of
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import EPONYM, FOREIGN, NAME, STOP, WORD, default_lists, towns
from components.reports.lexicon import mapping, terms, word_set, words

_PREPOSITIONS = word_set("frames.prepositions")
_ACTS = word_set("frames.acts")
_JOURNEYS = word_set("frames.journeys")
_NEVER = word_set("frames.never")
_REACH = 9
_FOREIGN = frozenset({"de", "em", "aus", "van", "da", "din", "z", "fra", "fran"})
_INSIDE = (
    "ology",
    "orthopaedics",
    "orthopedics",
    "surgery",
    "imaging",
    "diagnostics",
    "medicine",
    "paediatrics",
)
_LETTERHEAD = word_set("frames.letterhead")
_CELL = re.compile(r"(?<![^\n ])(?<![^\s-] )[^\W\d_](?:[^\n:\[ ]| (?![ -]))+(?=$| - |  |\n)", re.MULTILINE)
_NEVER_HEAD = frozenset(
    {"report", "department", "dept", "division", "history", "images", "findings", "contrast", "prelim"}
)
_SITES = frozenset({"facility", "institution", "site", "location", "hospital", "branch"})
_FACILITY = re.compile(
    r"^[ \t]*(?:facility|institution|site|sending site|performing site|location|hospital name|branch)[ \t]+"
    r"([^\W\d_][^\n:;|]{2,50}?)[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_EXAMS = frozenset({"ct", "mr", "mri", "us", "pet", "cta", "cxr", "dob", "xr"})
_INNER = frozenset({" ", "-", "'", " & ", "' "})
_SIGNED = re.compile(
    r"^[ \t]*([A-Za-z]{2,3})(?=(?: ?/ ?| )\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}(?: \d{4}| \d\d:\d\d)?[ \t]*$)",
    re.MULTILINE,
)


_SAINT = re.compile(
    r"(?:(?<=\bat )|(?<=\bfrom )|(?<=\bto )|(?<=\bvia )|(?<=\bby )|(?<=\bin )|(?<=\bthe )|(?<=\())"
    r"(?:st|ste|saint|sainte|sankt|sint|san|santa|santo|sao)\.?[ -]([^\W\d_]{2,20})(?:'s?|-[^\W\d_]{2,20})?(?!\w)",
    re.IGNORECASE,
)
_SAINTS = frozenset({"st", "ste", "saint", "sainte", "sankt", "sint", "san", "santa", "santo", "sao"})


class Frames:
    """Finds places and institutions that the sentence around them gives away."""

    name = "places"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of institutions and towns without a noun of their own, and initials that sign a line."""
        places = text.places
        chosen = sorted(number for word in places.keys() & _PREPOSITIONS for number in places[word])
        spans: list[Span] = []
        scan = scan_of(text, default_lists()) if chosen else None
        for number in chosen:
            found = self._place(scan, number) if scan else None
            if found:
                spans.append(found)
        spans += self._heads(text) + self._dated(text, scan) + self._saints(text)
        if any(map(str.isdigit, text.view)):
            for match in _SIGNED.finditer(text.view):
                if match[1].lower() not in words("stop") and match[1].lower() not in _EXAMS:
                    spans.append(Span(*match.span(1), "STAFF", "names", "name.sign_off", 0.7))
        return without_edges(text, spans)

    def _heads(self, text: Note) -> list[Span]:
        """A practice in the first lines (`Bayside Imaging Wynnum`), `Facility Meridian Imaging` on its own line."""
        spans: list[Span] = []
        flags = default_lists().flags
        for match in _FACILITY.finditer(text.view) if not _SITES.isdisjoint(text.places) else ():
            found = [
                word for word in re.findall(r"[^\W\d_]+", match[1].lower()) if word not in nouns().generic
            ]
            if found and len(found) < 7 and not words("stop").issuperset(found):
                spans.append(Span(*match.span(1), "HOSPITAL", self.name, "place.label", 0.7))
        for match in _CELL.finditer(text.view, 0, _third_line(text.view)):
            found = re.findall(r"[^\W\d_]+", match.group().lower())
            if 2 <= len(found) < 7 and not _LETTERHEAD.isdisjoint(found) and _NEVER_HEAD.isdisjoint(found):
                proper = [word for word in found if word not in _LETTERHEAD and word not in nouns().generic]
                odd = any(not flags(word) & (WORD | STOP | FOREIGN) or word in towns() for word in proper)
                if odd and not any(word in words("radiology_words") or word in _EXAMS for word in proper):
                    spans.append(Span(*match.span(), "HOSPITAL", self.name, "place.letterhead", 0.7))
        return spans

    def _saints(self, text: Note) -> list[Span]:
        """`at st luke's`, `from SAINT AL'S`: a saint after a preposition, in any case."""
        found: list[Span] = []
        flags = default_lists().flags
        for match in _SAINT.finditer(text.view) if not _SAINTS.isdisjoint(text.places) else ():
            word = match[1].lower()
            mark = flags(word)
            plain = (mark & WORD and not mark & NAME and "'" not in match.group()) or mark & STOP
            if not plain and word not in terms(text.languages):
                found.append(Span(*match.span(), "HOSPITAL", self.name, "frame.saint", 0.65))
        return found

    def _dated(self, text: Note, scan: Scan | None) -> list[Span]:
        """`compared with 24/11/21 (Barringtons)`, `of 2019, Affidea Cluj.`: a proper name that closes after a date."""
        spans: list[Span] = []
        for number in text.with_digit:
            if number + 1 >= len(text.words) or text.gap(number) not in (" (", ", "):
                continue
            if _ACTS.isdisjoint(text.words[max(0, number - _REACH) : number]):
                continue
            scan = scan or scan_of(text, default_lists())
            run = proper_run(scan, number + 1)
            if (
                run
                and run[1]
                and text.view[text.ends[run[0]] : text.ends[run[0]] + 1] in (")", ".", "", "\n", ",")
            ):
                start, end = text.starts[number + 1], text.ends[run[0]]
                spans.append(Span(start, end, "HOSPITAL", self.name, "frame.dated", 0.6))
        return spans

    def _place(self, scan: Scan, number: int) -> Span | None:
        word, at = scan.words[number], number + 1
        if at >= len(scan.words) or scan.gap(number) != " ":
            return None
        before = scan.words[max(0, number - _REACH) : number]
        if scan.words[number] == "at" and _letters(scan, at) and not _ACTS.isdisjoint(before[-6:]):
            return Span(scan.starts[at], scan.ends[at], "HOSPITAL", self.name, "frame.letters", 0.5)
        act, journey = not _ACTS.isdisjoint(before), not _JOURNEYS.isdisjoint(before)
        person = (
            word == "from"
            and number > 0
            and scan.shape(number - 1) == "C"
            and bool(scan.flags[number - 1] & NAME)
        )
        journey = journey or (person and scan.gap(number - 1) == " ")
        if not (act or journey) or (word in _FOREIGN and not journey):
            return None
        if scan.words[at] == "the" and at + 1 < len(scan.words) and scan.gap(at) == " ":
            at += 1
        run = proper_run(scan, at)
        if run is None:
            return None
        last, strange, plain = run
        reading = word == "for" and not {"reading", "review", "opinion", "report"}.isdisjoint(before[-2:])
        sure = journey or word == "by" or reading
        if word in ("to", "in", "by", "for") and not (strange and sure):
            return None
        if plain and not strange and not (act and last > at and word in ("at", "from")):
            return None
        if strange and not plain and last == at and scan.words[at] in towns():
            kind = "ADDRESS"
        else:
            kind = "ADDRESS" if journey and not act else "HOSPITAL"
        return Span(scan.starts[at], scan.ends[last], kind, self.name, "frame.place", 0.6)


def _third_line(view: str) -> int:
    """Where the fourth line of a text begins, or its 400th character."""
    end = 0
    for _ in range(4):
        end = view.find("\n", end, 400) + 1
        if not end:
            return min(len(view), 400)
    return end


def _letters(scan: Scan, at: int) -> bool:
    """`done at PGH.`: three to six capitals that no list knows, before a mark."""
    word, after = scan.words[at], scan.view[scan.ends[at] : scan.ends[at] + 1]
    if not (3 <= len(word) <= 6 and word.isalpha() and scan.abbreviation(at) and after in ".,;)\n "):
        return False
    return (
        word not in _NEVER
        and not scan.flags[at] & (WORD | STOP | EPONYM)
        and word not in words("radiology_words")
    )


def proper_run(scan: Scan, at: int) -> tuple[int, int, int] | None:
    """(last token, strange words, plain words) of the capitals that begin at token `at`; None where there are none."""
    strange = plain = 0
    last, place = -1, at
    while place < len(scan.words) and place - at < 6:
        word, gap = scan.words[place], scan.gap(place - 1)
        if (
            place > at
            and gap not in _INNER
            and not (gap == ". " and scan.words[place - 1] in ("st", "sta", "mt"))
        ):
            break
        if (
            last >= 0
            and (word in PARTICLES or word in nouns().join or word == "s")
            and scan.shape(place) == "l"
        ):
            place += 1
            continue
        worth = _worth(scan, place)
        if worth is None:
            break
        strange += worth == 2
        plain += worth == 1
        last, place = place, place + 1
    if last < 0 or not strange + plain:
        return None
    return last, strange, plain


def _worth(scan: Scan, number: int) -> int | None:
    """2: a strange word or a town, 1: a plain word with a capital that says something, None: no part of a name."""
    word, flags, shape = scan.words[number], scan.flags[number], scan.shape(number)
    if not word.isalpha() or len(word) < 2 or word in _NEVER or word in MONTHS or word in _makers():
        return None
    if flags & EPONYM or scan.abbreviation(number):
        return None
    if shape == "l":
        return None
    known = flags & (WORD | STOP | FOREIGN)
    if not known and (scan.strange(number) or flags & NAME):
        return 2
    if word in towns() and not flags & STOP and (shape == "C" or not flags & WORD):
        return 2
    if shape == "C" and number and word.endswith(_INSIDE) and scan.shape(number - 1) == "C":
        return 0
    if shape != "C" or scan.lower_note or word in words("radiology_words"):
        return None
    if word in nouns().generic or word in nouns().heads:
        return 0
    return 1 if not flags & STOP else None


@cache
def _makers() -> frozenset[str]:
    terms = {part.lower() for term in mapping("eponym_nouns")["vendors"] for part in term.split()}
    return frozenset(terms)
