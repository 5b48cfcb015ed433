"""Layer 4: institutions, by the noun that names them (hospital, clinic, medical center) and by labels."""

from __future__ import annotations

import re
from functools import cache

from components.reports.deid.edges import without_edges
from components.reports.deid.facilities import nouns
from components.reports.deid.note import Note, WordTest
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import NAME, STOP, WORD, default_lists, towns
from components.reports.lexicon import word_set, words

_GAPS = frozenset({" ", "  ", "-", "'", ". ", ".", "' ", " & ", "/", " and ", " - "})
_LABELS = word_set("places.labels")
_LABEL_VALUE = re.compile(r"(?: name| adi)? ?(?:[:=]|\]:?) ?([^\n|;]{2,60})")
_CUES = word_set("places.cues")
_SPECIALTIES = ("ology", "opathology", "opthalmology", "surgery", "iatrics", "iatry", "therapy", "medicine")
_ARTICLES = word_set("places.articles")
_MAX_BACK = 6
_PRACTICES = word_set("places.practices")
_LINKS = frozenset({"of", "the", "ve", "og", "och", "und", "et", "y", "de", "del", "da", "do", "di"})
_COMPOUNDS = tuple(word_set("places.compounds"))
_compound = WordTest(lambda word: len(word) > 8 and word.endswith(_COMPOUNDS))  # `universitetssjukhuset`
_DIRECTIONS = frozenset({"north", "south", "east", "west", "northern", "southern", "eastern", "western"})
_TOWN_AFTER = re.compile(r", ([^\W\d_][\w'-]{2,20}(?: [^\W\d_][\w'-]{2,20})?)(?=[\n.,;)]|$)")


class Places:
    """Finds the names of institutions; `the hospital` and `community clinic` are none."""

    name = "places"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of institutions."""
        known, spans, done = nouns(), [], -1
        begins = text.places.keys() & _triggers()
        begins |= set(_compound.among(text.places))
        chosen = sorted(number for word in begins for number in text.places[word])
        for number in chosen:
            word = text.words[number]
            if word in _LABELS and (label := _LABEL_VALUE.match(text.view, text.ends[number])):
                value = label[1].split("  ")[0].rstrip(" .,")
                plain = all(
                    part in known.generic | words("stop") for part in re.findall(r"[^\W_]+", value.lower())
                )
                boxed = text.view[text.ends[number]] == "]" and text.token(number).isupper()
                if any(map(str.isalpha, value)) and not plain and not boxed:
                    end = label.start(1) + len(value)
                    spans.append(Span(label.start(1), end, "HOSPITAL", self.name, "place.label", 0.8))
                    continue
            found = self._suffix(text, number, word) or (
                _practice(text, number) if word in _PRACTICES else None
            )
            if not found and number > done:
                found = self._prefix(text, number, word)
            if found:
                spans.append(Span(*found, "HOSPITAL", self.name, "place.institution", 0.8))
                if town := _town_after(text, found[1]):
                    spans.append(Span(*town, "ADDRESS", self.name, "place.town", 0.75))
                while done < number or (done + 1 < len(text.words) and text.starts[done + 1] < found[1]):
                    done += 1
        return without_edges(text, spans)

    def _suffix(self, text: Note, number: int, word: str) -> tuple[int, int] | None:
        known = nouns()
        size = 1 if word in known.heads or _compound(word) else 0
        for phrase in known.pairs.get(word, ()):
            if tuple(text.words[max(0, number - len(phrase) + 1) : number + 1]) == phrase:
                size = max(size, len(phrase))
        return self._around(text, number - size + 1, number) if size else None

    @staticmethod
    def _prefix(text: Note, number: int, word: str) -> tuple[int, int] | None:
        """`Klinikum X`, `CHU de X`: the proper name follows."""
        known = nouns()
        for phrase in known.prefixes.get(word, ()):
            if tuple(text.words[number : number + len(phrase)]) != phrase:
                continue
            last = number + len(phrase) - 1
            first_lower = text.token(number)[0].islower()
            end, proper = last, False
            follow = last + 1
            while (
                follow < len(text.words)
                and follow - last <= 6
                and text.gap(follow - 1) in _GAPS - {". ", ".", "/"}
            ):
                following, written = text.words[follow], text.token(follow)
                if (
                    following in known.breaks - {"no", "na", "in"}
                    or written[0].isdigit()
                    or not following.isalpha()
                ):
                    break
                flags = default_lists().flags(following)
                if following in known.join and following not in ("i", "am", "im"):
                    follow += 1
                    continue
                bare = _bare_line(text, number, follow)
                capital = written[0].isupper() and (bare or (not written.isupper() and len(written) > 3))
                if (
                    flags & STOP
                    and following not in known.generic
                    and not (capital and flags & NAME)
                    and not bare
                ):
                    break
                if written[0].islower() and not (
                    first_lower and (bare or not flags & WORD or following in known.generic)
                ):
                    break
                if (
                    written[0].isupper()
                    and flags & WORD
                    and not flags & NAME
                    and following not in known.generic
                    and (written.isupper() or follow - last > 3)
                ):
                    break
                proper = proper or following not in known.generic
                end, follow = follow, follow + 1
            single = len(phrase) == 1 and word in (
                "hospital",
                "clinica",
                "klinik",
                "radiologie",
                "praxis",
                "university",
                "spital",
                "chu",
            )
            if proper and not (first_lower and single and not _bare_line(text, number, end)):
                if _bare_line(text, number, end):
                    end = _line_end(text, end)
                return text.starts[number], text.ends[end]
        return None

    @staticmethod
    def _around(text: Note, first: int, last: int) -> tuple[int, int] | None:
        """The institution's name around its noun at tokens `[first, last]`, if it has a proper part."""
        known = nouns()
        lower_case = text.token(last)[0].islower()
        upper_case = text.token(last).isupper() and len(text.words[last]) > 3
        start, proper, place, joined = first, False, first - 1, -1
        while place >= 0 and first - place <= _MAX_BACK and text.gap(place) in _GAPS:
            word, written = text.words[place], text.token(place)
            if word in known.join and joined < 0 and place:
                inner = text.token(place - 1)[0].isupper() or lower_case
                if word in _LINKS and inner and text.gap(place - 1) == " " and text.gap(place) == " ":
                    joined, place = place, place - 1
                    continue
            if (
                word in known.breaks
                or written[0].isdigit()
                or (text.gap(place) in (". ", ".") and word not in ("st", "ste", "mt", "ft", "dr"))
            ):
                break
            capital = written[0].isupper() or not written[0].islower()
            flags = default_lists().flags(word)
            if (
                not capital
                and not (lower_case and (not flags & STOP or word == "our"))
                and not (word == "s" and text.gap(place - 1) == "'")
            ):
                break
            if (
                flags & STOP
                and word not in known.generic
                and not (flags & NAME and capital and not written.isupper())
            ) and word not in words("ambiguous"):
                break
            proper = proper or (
                word not in known.generic and len(word) > 1 and not word.endswith(_SPECIALTIES)
            )
            start, place = place, place - 1
        cue = bool(start and (text.words[start - 1] in _CUES or "(" in text.gap(start - 1)))
        cue = cue or (start > 0 and text.words[start - 1].isdigit() and _line_closed(text, last))
        marked = start > 0 and text.gap(start - 1) in (", ", ": ", " - ", "; ")
        cue = cue or (
            marked and text.view[text.ends[last] : text.ends[last] + 1] in ("", ".", ",", "\n", ";", ")")
        )
        if (lower_case or upper_case) and proper and not cue and not _bare_line(text, start, last):
            strange = any(
                not default_lists().flags(text.words[k]) & (WORD | STOP) for k in range(start, first)
            )
            if not strange:
                return None
            if (
                lower_case
                and first == last
                and first - start == 1
                and text.words[last] in ("university", "clinic", "institute")
            ):
                return None
        end, proper = _forward(text, last, proper)
        while start < first and text.words[start] in _ARTICLES | {"en", "w", "im", "am"}:
            if text.words[start : start + 2] == ["our", "lady"]:
                break
            start += 1
        if (
            proper
            and lower_case
            and end == last == first
            and text.words[last] in ("clinic", "clinics")
            and end - start == 1
        ):
            end = start
        if proper and _bare_line(text, start, end):
            end = _line_end(text, end)
        return (text.starts[start], text.ends[end]) if proper else None


def _practice(text: Note, number: int) -> tuple[int, int] | None:
    """`Sunrise Radiology`, `Kazan General`, `Nova Day Surgery`: capitals before a noun that is a word elsewhere too."""
    first, last = number, number
    if text.words[number] == "surgery":
        if not number or text.words[number - 1] != "day" or text.gap(number - 1) != " ":
            return None
        first = number - 1
    flags, capital = default_lists().flags, text.token(number)[0].isupper()
    mixed = capital and not text.token(number).isupper()
    if text.view[text.ends[last] : text.ends[last] + 1] not in ("", ".", ",", "\n", ")", ";", " "):
        return None
    noun, strange, start, lower = first, False, first, text.view[:2000].islower()
    while start and noun - start < 3 and text.gap(start - 1) == " ":
        word, written = text.words[start - 1], text.token(start - 1)
        mark = flags(word)
        small = written[0].islower() and (mixed or not lower)
        if not word.isalpha() or word in nouns().breaks or small:
            break
        if (word in nouns().generic and word not in _DIRECTIONS) or word in words("radiology_words"):
            return None
        if mark & STOP and word not in _DIRECTIONS and not (mixed and mark & NAME):
            break
        strange = strange or not mark & (WORD | STOP)
        start -= 1
    if start == noun:
        return None
    cue = (
        bool(start)
        and text.gap(start - 1) == " "
        and text.words[start - 1] in ("from", "at", "by", "of", "to")
    )
    cue = cue or (bool(start) and text.gap(start - 1) in (" - ", ", ", " (", ": "))
    alone = not start or "\n" in text.gap(start - 1)
    closed = text.view[text.ends[last] : text.ends[last] + 1] != " "
    if mixed:
        return (text.starts[start], text.ends[last]) if cue or (alone and closed) else None
    surgery = text.words[number] in ("surgery", "memorial")
    found = (cue and (strange or surgery)) or (alone and closed and (strange or surgery))
    return (text.starts[start], text.ends[last]) if found else None


def _town_after(text: Note, end: int) -> tuple[int, int] | None:
    """The town after an institution: `..., Groningen` before a mark or the end of the line."""
    match = _TOWN_AFTER.match(text.view, end)
    if not match:
        return None
    parts = match[1].lower().split()
    strange = not any(default_lists().flags(part) & (WORD | STOP) for part in parts)
    capital = match[1][0].isupper() and not match[1].isupper()
    return match.span(1) if parts[0] in towns() or (strange and capital) else None


def _line_closed(text: Note, last: int) -> bool:
    """Whether a line ends with token `last`."""
    return text.view[text.ends[last] : text.ends[last] + 3].strip(" .")[:1] in ("", "\n")


def _line_end(text: Note, end: int) -> int:
    """The last token of the line, when only a few words of the name are left on it."""
    place = end
    while (
        place + 1 < len(text.words)
        and place - end < 3
        and text.gap(place) in _GAPS
        and text.words[place + 1].isalpha()
    ):
        place += 1
    closed = place + 1 >= len(text.words) or "\n" in text.gap(place)
    return place if closed else end


@cache
def _triggers() -> frozenset[str]:
    known = nouns()
    return known.heads | _PRACTICES | frozenset(known.pairs) | frozenset(known.prefixes) | _LABELS


def _bare_line(text: Note, first: int, last: int) -> bool:
    """Whether tokens `[first, last]` fill most of a short line, as an institution in a letterhead does."""
    view = text.view
    begin = view.rfind("\n", 0, text.starts[first]) + 1
    end = view.find("\n", text.ends[last])
    line = view[begin : end if end >= 0 else len(view)]
    return len(line.strip()) < 70 and (text.ends[last] - text.starts[first]) * 1.6 >= len(line.strip())


def _forward(text: Note, last: int, proper: bool) -> tuple[int, bool]:
    """The last token of `Hospital of Springfield` or `Klinikum Hohenlinden`, and whether a proper part was met."""
    known = nouns()
    end, follow, joined = last, last + 1, False
    while follow < len(text.words) and follow - last <= 6 and text.gap(follow - 1) in _GAPS - {". ", "."}:
        word, written = text.words[follow], text.token(follow)
        if word in known.join and not written[0].isupper():
            joined, follow = True, follow + 1
            continue
        flags = default_lists().flags(word)
        if (
            not written[0].isupper()
            or flags & STOP
            or (proper and end == last and word in known.generic and not joined)
        ):
            break
        if word in known.breaks or (proper and not joined) or (written.isupper() and flags & WORD):
            break
        proper = proper or word not in known.generic
        end = follow
        follow += 1
    return end, proper
