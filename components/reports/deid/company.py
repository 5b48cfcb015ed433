"""Names by their company: before and after other names, after closings, beside prepositions, with initials behind.

The rules ask for less of a word than a free-standing name must show, since what stands around it says that a person
comes: `with help from`, `Kind regards`, `A. Roe, B. Doe and`, a label of any kind before a line of two names.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator

from components.reports.deid.cues import cues
from components.reports.deid.dates import MONTHS
from components.reports.deid.runs import PARTICLES, Scan, degree_at
from components.reports.deid.span import Span
from components.reports.deid.wordlists import EPONYM, FAMILY, FOREIGN, GIVEN, NAME, STOP, WORD
from components.reports.lexicon import word_set, words

_CLOSING = re.compile(
    r"\b(?:regards|sincerely(?: yours)?|faithfully|respectfully|(?<=but )not read|yours truly|many thanks|best wishes|"
    r"with thanks|vriendelijke groet(?:en)?|freundlichen gr[us]{1,3}en|cordialement|atenciosamente|atentamente|"
    r"(?:vennlig|venlig) hilsen|vanliga halsningar|terveisin|saygilarimla|cordiali saluti|z powazaniem|cu stima|"
    r"saludos|salutations distinguees)[,.!]?[ ]*\n?[ ]*",
    re.IGNORECASE,
)
_LIST = re.compile(
    r",? (?:and|&|e|y|et|und|och|og|en|i|ve|si) (?:Drs?\.? )?|, (?:Drs?\.? )?| ?/ ?|; ?", re.IGNORECASE
)
_MARKED = re.compile(r"^[^\n:>=]{2,40}(?::|>|=| -) ?(?=\w)|[:>] (?=\w)", re.MULTILINE)
_BRACKET = re.compile(r" ?\(([A-Za-z]{2,3})\)")
_SYLLABLES = re.compile(r"\b[A-Z][a-z]{1,6},? [A-Z][a-z]{1,5}-[A-Za-z][a-z]{1,5}\b")
_CLOSING_WORDS = word_set("company.closings")
_VAN_T = re.compile(r"\b(?:van|in|op) 't [^\W\d_]{2,20}", re.IGNORECASE)
_TOLD_INITIALS = re.compile(
    r"\b(?:(?:follow|report|opinion) (?:from|of)|(?:reported|read|reviewed|checked|dictated|signed|verified|typed|seen|"
    r"performed|agreed|taken|consented|scanned|done|protocolled|vetted) by|(?:discussed|spoke|reviewed|agreed) with|"
    r"spoke to|d/w|dw|phoned|told|informed|as per):? ([A-Z]{2})(?=[.,;)\n]|$| (?:on|at|and|today)\b)"
)
_TEAMS = word_set("company.teams")
_NO_INITIALS = word_set("company.no_initials")
_BEFORE = word_set("company.before")
_HUMAN = word_set("company.human")
_SIGNING = word_set("company.signing")
_AFTER = word_set("company.after")
_VERBS = word_set("company.verbs")
_PERSONAL = word_set("company.personal")
_BANNER = re.compile(
    r"([A-Z][A-Z'-]{3,24}(?: [A-Z][A-Z'-]{2,24})?), ([A-Z][a-z]{2,20}(?:[ -][A-Z][a-z]{2,20})?)\b"
)
_INSIDE = re.compile(r"[\w,'-]")
_VOWEL = re.compile("[AEIOUY]")
_HONORS = frozenset({"san", "sama", "sensei", "kun", "ji", "bey", "hanim", "efendi"})
_HONORIFIC = re.compile(r"\b([^\W\d_]{2,20})(?:-(?:san|sama|sensei|kun|ji)| (?:Bey|Hanim|Efendi))\b")
_SLASHES = re.compile(
    r" / ([^\W\d_][\w'-]{1,24}(?: [^\W\d_][\w'-]{1,24})?), ([^\W\d_][\w'. -]{1,24}?)(?= / )"
)
_TYPED = re.compile(r"^[ \t]*([^\W\d_][\w'-]{2,20})/([A-Za-z]{2,3})[ \t]*$", re.MULTILINE)
_GRATEFUL = frozenset({"thank", "thanks"})
_THANKS = re.compile(r"\bthank(?:s| you),? ([^\W\d_]{3,20}(?: [^\W\d_]{3,20})?), for\b", re.IGNORECASE)
_DAY_AFTER = re.compile(
    r"^[ \t]*([^\W\d_]{3,20}) ([^\W\d_][\w'-]{2,24})[ ,|]{1,4}(?=\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})",
    re.MULTILINE,
)
_DATED = re.compile(
    r"^([^\W\d_]{4,20})(?: [^\W\d_]{2,12})?:? \d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?: \d\d[:.]\d\d)?,? "
    r"((?:[^\W\d_]\. ?)?[^\W\d_][\w'-]{1,20}(?: [^\W\d_][\w'-]{1,20})?)[ \t]*$",
    re.MULTILINE,
)
_JOINED = frozenset({" ", "-", "'", " '", "' "})


def company_spans(scan: Scan, spans: list[Span], layer: str) -> list[Span]:
    """Names that stand with `spans`, or with words that only persons stand with."""
    found = _closings(scan, layer) + _prepositions(scan, layer) + _labelled(scan, layer)
    found += _hyphenated(scan, layer) + _dutch(scan, layer) + _banners(scan, layer)
    return found + _lists(scan, [*spans, *found], layer) + _initials(scan, [*spans, *found], layer)


def strength(scan: Scan, number: int) -> int:
    """2: a word that is a name or strange; 1: a word that may be a name; 0: none."""
    flags, word = scan.flags[number], scan.words[number]
    if not word.isalpha() or len(word) < 2:
        return 0
    if flags & STOP and not (flags & NAME and scan.shape(number) == "C" and not scan.abbreviation(number)):
        return 0
    if scan.listed(number):
        return 2
    if not flags & (WORD | STOP | FOREIGN | EPONYM):
        return 2 if scan.strange(number) else 0
    return 1 if flags & NAME else 0


def whole_name(scan: Scan, at: int, stop: int | None = None) -> tuple[int, int] | None:
    """Given and family name from token `at` on, as (first, last) token; None unless both are names by their lists."""
    total = len(scan.words) if stop is None else stop
    if at >= total or scan.shape(at) == "l" or degree_at(scan, at):
        return None
    first = strength(scan, at) or _plain_given(scan, at)
    if scan.words[at] in cues().direct or scan.words[at] in cues().role or scan.words[at] in cues().subject:
        return None
    if not first or (scan.flags[at] & STOP and not scan.flags[at] & GIVEN):
        return None
    place, last, taken, best, shape = at + 1, at, 1, first, scan.shape(at)
    sure = first == 2
    while place < total and taken < 5:
        gap, word = scan.gap(place - 1), scan.words[place]
        single = len(scan.words[place - 1]) == 1 and scan.words[place - 1].isalpha()
        if gap not in _JOINED and not (gap in (". ", ".") and single):
            break
        if (len(word) == 1 and word.isalpha() and gap in (" ", " '")) or word in PARTICLES:
            place += 1
            continue
        value = strength(scan, place) or _second_part(scan, place, at)
        lower_part = scan.shape(place) == "l" and gap == "-"
        if (
            degree_at(scan, place)
            or not (value or lower_part)
            or (scan.shape(place) == "l" and not lower_part)
        ):
            break
        sure = sure or value == 2
        best += value
        last, place, taken = place, place + 1, taken + 1
    tail = last + 1
    if (
        tail < total
        and scan.words[tail] in PARTICLES
        and scan.gap(last) == " "
        and _family_particle(scan, tail)
    ):
        last, taken, best = tail, taken + 1, best + 1
    if taken < 2:
        return None
    both = bool(scan.flags[at] & GIVEN) and bool(scan.flags[last] & FAMILY)
    capital = shape == "C" and scan.shape(last) in "Cl" and not scan.lower_note
    if sure and (best > 3 or capital or both):
        return at, last
    if sure and scan.flags[at] & GIVEN and not scan.flags[last] & FOREIGN and _closed(scan, last):
        return at, last
    return (at, last) if both and (capital or _closed(scan, last)) else None


def _family_particle(scan: Scan, number: int) -> bool:
    """`Shahidul Das`: a particle that is a family name and ends the name."""
    return bool(scan.flags[number] & FAMILY) and scan.shape(number) != "l" and _closed(scan, number)


def _plain_given(scan: Scan, at: int) -> int:
    """Whether a capital amid small letters on a plain word (`Shun Kawabata`) and a name behind it make it a name."""
    follow = at + 1
    if scan.words[at] in cues().titles or scan.words[at] in cues().kin or scan.words[at] in cues().role:
        return 0
    if (
        scan.shape(at) != "C"
        or scan.lower_note
        or scan.note.first_in_sentence(at)
        or follow >= len(scan.words)
    ):
        return 0
    if (
        scan.flags[at] & (STOP | EPONYM | FOREIGN)
        or scan.abbreviation(at)
        or scan.words[at] in words("radiology_words")
    ):
        return 0
    return int(scan.gap(at) == " " and scan.shape(follow) == "C" and strength(scan, follow) == 2)


def _second_part(scan: Scan, number: int, at: int) -> int:
    """What a word that no list calls a name is worth beside a name: `mi` of `mi-sook`, `Lemma` of `Almaz Lemma`."""
    word, flags = scan.words[number], scan.flags[number]
    if flags & STOP or not word.isalpha() or len(word) < 2 or scan.shape(number) == "l":
        return 0
    if scan.gap(number - 1) == "-":
        return 1
    if number + 1 < len(scan.words) and scan.gap(number) == "-" and strength(scan, number + 1) == 2:
        return 1
    alone = number == at + 1 and scan.gap(at) == " " and bool(scan.flags[at] & GIVEN) and scan.listed(at)
    return int(alone and not flags & EPONYM and not scan.abbreviation(number) and _closed(scan, number))


def _closed(scan: Scan, last: int) -> bool:
    """Whether after a token comes a mark, an end, or a word that follows persons."""
    after = scan.view[scan.ends[last] : scan.ends[last] + 2]
    if not after or after[0] in ',.;\n()"' or after == " (":
        return True
    return last + 1 < len(scan.words) and (scan.words[last + 1] in _AFTER or scan.words[last + 1].isdigit())


def _span(scan: Scan, run: tuple[int, int], layer: str, rule: str, score: float, kind: str = "STAFF") -> Span:
    return Span(scan.starts[run[0]], scan.ends[run[1]], kind, layer, rule, score)


def _closings(scan: Scan, layer: str) -> list[Span]:
    """`Kind regards`, `Yours sincerely`, `dictated but not read`: the name on the same or the next line."""
    found: list[Span] = []
    if _CLOSING_WORDS.isdisjoint(scan.note.places):
        return found
    for match in _CLOSING.finditer(scan.view):
        at = bisect_left(scan.starts, match.end())
        while at < len(scan.words) and scan.words[at] in cues().titles and len(scan.words[at]) > 1:
            at += 1
        last, place = at - 1, at
        while place < len(scan.words) and place - at < 6 and scan.words[place].isalpha():
            inner = scan.flags[place] & STOP and not scan.flags[place] & NAME
            if (place > at and "," in scan.gap(place - 1)) or "\n" in scan.gap(place - 1) * (place > at):
                break
            if degree_at(scan, place) or (inner and scan.words[place] not in PARTICLES):
                break
            last, place = place, place + 1
        if 1 <= last - at <= 4 and any(strength(scan, k) for k in range(at, last + 1)):
            found.append(_span(scan, (at, last), layer, "name.closing", 0.85))
    return found


def _prepositions(scan: Scan, layer: str) -> list[Span]:
    """`by Grant Cole in`, `with help from Joy Wells`, `this is Drew Stone`, and who tolerates or acknowledges."""
    found = []
    places = scan.note.places
    for word in places.keys() & (_BEFORE | cues().kin):
        for number in places[word]:
            at = number + 1
            if at >= len(scan.words) or scan.gap(number) not in (" ", ": ", ", ", " (", "\n"):
                continue
            if word == "is" and (not number or scan.words[number - 1] != "this"):
                continue
            if at + 1 < len(scan.words) and len(scan.words[at]) == 1 and scan.gap(at) in (". ", "."):
                beside = strength(scan, at + 1) and scan.shape(at + 1) != "l" and scan.words[at] != "a"
                found += [_span(scan, (at, at + 1), layer, "name.beside", 0.75)] if beside else []
            elif run := whole_name(scan, at):
                found.append(_span(scan, run, layer, "name.beside", 0.8))
            elif word == "by" and _single(scan, number):
                found.append(_span(scan, (at, at), layer, "name.beside", 0.7))
    for word in places.keys() & (_HUMAN | _VERBS | cues().subject):
        for number in places[word]:
            found += _before_verb(scan, number, layer)
    return found


def _single(scan: Scan, number: int) -> bool:
    """Whether `by` after a participle is followed by one name, and this by what follows persons."""
    at, before = number + 1, scan.words[number - 1] if number else ""
    if not (before.endswith(("ed", "en", "wn")) or before in cues().by) or scan.shape(at) == "l":
        return False
    if not _closed(scan, at) or scan.abbreviation(at):
        return False
    if scan.listed(at) and len(scan.words[at]) > 2:
        return True
    if before in cues().by and scan.shape(at) == "C" and not scan.lower_note and scan.flags[at] & GIVEN:
        return not scan.flags[at] & STOP
    return before in cues().by and bool(scan.flags[at] & NAME) and not scan.flags[at] & (STOP | EPONYM)


def _before_verb(scan: Scan, number: int, layer: str) -> list[Span]:
    """`Sherry tolerated`, `MARK SWAN ACKNOWLEDGED`: a name that begins the sentence of a person's verb."""
    at = number - 1
    if at < 0 or scan.gap(at) != " " or scan.words[at] in cues().role or scan.shape(at) == "l":
        return []
    flags = scan.flags[at]
    if at and scan.gap(at - 1) == " " and strength(scan, at) == strength(scan, at - 1) == 2:
        return [_span(scan, (at - 1, at), layer, "name.subject", 0.75)]
    if scan.words[number] not in _HUMAN:
        sure = scan.listed(at) or (scan.familiar and scan.strange(at) and scan.words[number] in _PERSONAL)
        alone = sure and scan.words[number] in _VERBS and scan.note.first_in_sentence(at)
        return (
            [_span(scan, (at, at), layer, "name.subject", 0.7)] if alone and not scan.abbreviation(at) else []
        )
    if at and scan.gap(at - 1) == " " and scan.flags[at - 1] & GIVEN and flags & NAME:
        return [_span(scan, (at - 1, at), layer, "name.subject", 0.75)]
    begins = scan.note.first_in_sentence(at)
    if not begins or not flags & NAME or (flags & STOP and not flags & GIVEN):
        return []
    return [_span(scan, (at, at), layer, "name.subject", 0.75, "PATIENT")]


def _labelled(scan: Scan, layer: str) -> list[Span]:
    """`Anything: Given Family` and nothing else: whatever the label, the value is a name."""
    found = []
    for match in _marked(scan.view):
        at = bisect_left(scan.starts, match.end())
        run = whole_name(scan, at)
        if run is None or not any(scan.flags[k] & NAME for k in range(run[0], run[1] + 1)):
            continue
        after = scan.view[scan.ends[run[1]] : scan.ends[run[1]] + 12].lstrip(" .,")[:1]
        degree = run[1] + 1 < len(scan.words) and degree_at(scan, run[1] + 1)
        if degree or after in ("", "\n", "(", "/", "|", ";"):
            found.append(_span(scan, run, layer, "name.value", 0.75, "PERSON"))
    return found


def _marked(view: str) -> Iterator[re.Match[str]]:
    """Labels and their marks, on the lines that have a mark."""
    place = 0
    for line in view.split("\n"):
        end = place + len(line)
        if ":" in line or ">" in line or "=" in line or " -" in line:
            yield from _MARKED.finditer(view, place, end)
        place = end + 1


def _hyphenated(scan: Scan, layer: str) -> list[Span]:
    """`Kwon Seung-ho`: a given name of two syllables after a family name, as Korean and Chinese are written."""
    found: list[Span] = []
    if scan.lower_note or "-" not in scan.view:
        return found
    for match in _SYLLABLES.finditer(scan.view):
        at = bisect_left(scan.starts, match.start())
        if at + 2 >= len(scan.words) or scan.starts[at] != match.start():
            continue
        flags = [scan.flags[at + k] for k in range(3)]
        if flags[1] & (STOP | WORD) and flags[2] & (STOP | WORD):
            continue
        plain = WORD | STOP | EPONYM | FOREIGN
        named = not flags[2] & plain and bool(flags[0] & NAME)
        if flags[0] & STOP or not (named or sum(1 for mark in flags if not mark & plain) > 1):
            continue
        found.append(_span(scan, (at, at + 2), layer, "name.hyphenated", 0.75, "PERSON"))
    return found


def _banners(scan: Scan, layer: str) -> list[Span]:
    """`FAMILY, Given` amid small letters, `Takenaka-san`, and who signed after the date."""
    found: list[Span] = []
    view = scan.view
    for match in _BANNER.finditer(view) if not (scan.lower_note or scan.upper_note) and ", " in view else ():
        if _INSIDE.match(view, match.start() - 1 if match.start() else len(view)):
            continue
        at, follow = bisect_left(scan.starts, match.start(1)), bisect_left(scan.starts, match.start(2))
        plain = scan.flags[follow] & (WORD | STOP | FOREIGN | EPONYM) and not scan.flags[follow] & GIVEN
        listed = view[max(0, match.start() - 2) : match.start()] == ", " or not _VOWEL.search(match[1])
        if plain or listed or scan.words[at] in words("radiology_words") or scan.flags[at] & STOP:
            continue
        if scan.flags[at] & NAME or scan.flags[follow] & GIVEN or not scan.flags[at] & (WORD | FOREIGN):
            found.append(Span(*match.span(), "PATIENT", layer, "name.banner", 0.75))
    for match in _HONORIFIC.finditer(view) if not _HONORS.isdisjoint(scan.note.places) else ():
        at = bisect_left(scan.starts, match.start(1))
        if strength(scan, at) and scan.shape(at) != "l":
            found.append(Span(*match.span(1), "PERSON", layer, "name.honorific", 0.8))
    found += _formed(scan, layer)
    for match in _DATED.finditer(view) if not _SIGNING.isdisjoint(scan.note.places) else ():
        if match[1].lower() in _SIGNING:
            found.append(Span(*match.span(2), "STAFF", layer, "name.signed", 0.75))
    return found


def _formed(scan: Scan, layer: str) -> list[Span]:
    """`/ Family, Given /`, `Family/xy` on its line, `thank you, Given, for`, `Given Family 3/4/2020` on its line."""
    view, found = scan.view, list[Span]()
    for match in _SLASHES.finditer(view) if " / " in view else ():
        at = bisect_left(scan.starts, match.start(1))
        if strength(scan, at) or strength(scan, bisect_left(scan.starts, match.start(2))):
            found.append(Span(match.start(1), match.end(2), "PATIENT", layer, "name.banner", 0.75))
    for match in _TYPED.finditer(view) if "/" in view else ():
        at = bisect_left(scan.starts, match.start(1))
        if strength(scan, at) and match[2].lower() not in _NO_INITIALS and match.start() > len(view) // 3:
            found.append(Span(match.start(1), match.end(2), "STAFF", layer, "name.typist", 0.7))
    for match in _THANKS.finditer(view) if not _GRATEFUL.isdisjoint(scan.note.places) else ():
        at = bisect_left(scan.starts, match.start(1))
        if not scan.flags[at] & STOP and (scan.flags[at] & NAME or not scan.flags[at] & WORD):
            found.append(Span(*match.span(1), "STAFF", layer, "name.thanks", 0.75))
    for match in _DAY_AFTER.finditer(view):
        at, follow = bisect_left(scan.starts, match.start(1)), bisect_left(scan.starts, match.start(2))
        family = not scan.flags[follow] & STOP and scan.words[follow] not in words("radiology_words")
        if scan.flags[at] & GIVEN and not scan.flags[at] & STOP and family and scan.words[at] not in MONTHS:
            found.append(Span(match.start(1), match.end(2), "PATIENT", layer, "name.banner", 0.75))
    return found


def _dutch(scan: Scan, layer: str) -> list[Span]:
    """`van 't Hof`, with the given name or the initial before it."""
    found = []
    for match in _VAN_T.finditer(scan.view) if " 't " in scan.note.lower else ():
        at = last = bisect_left(scan.starts, match.start())
        if (
            at
            and scan.gap(at - 1) in (" ", ". ")
            and (strength(scan, at - 1) or len(scan.words[at - 1]) == 1)
        ):
            at -= 1
        while last + 1 < len(scan.words) and scan.ends[last] < match.end():
            last += 1
        if comma := re.compile(r", ([^\W\d_]{2,20})").match(scan.view, match.end()):
            follow = bisect_left(scan.starts, comma.start(1))
            last = follow if strength(scan, follow) else last
        found.append(_span(scan, (at, last), layer, "name.particle", 0.8, "PERSON"))
    return found


def _lists(scan: Scan, spans: list[Span], layer: str) -> list[Span]:
    """Further names of a list in which one is known: `present: A. Roe, Mark Brooks and Ivy Lamb`."""
    found: list[Span] = []
    for span in sorted(spans):
        if not span.rule.startswith("name.") or span.score < 0.7 or span.kind == "PATIENT":
            continue
        end = span.end
        for _ in range(4):
            match = _LIST.match(scan.view, end)
            at = bisect_left(scan.starts, match.end()) if match else len(scan.words)
            run = (
                whole_name(scan, at)
                if at < len(scan.words) and match and scan.starts[at] == match.end()
                else None
            )
            if run is None:
                break
            found.append(_span(scan, run, layer, "name.list", 0.75))
            end = scan.ends[run[1]]
        found += _list_before(scan, span.start, layer)
    return found


def _list_before(scan: Scan, start: int, layer: str) -> list[Span]:
    """The names of a list before a known one."""
    found: list[Span] = []
    for _ in range(4):
        at = bisect_left(scan.starts, start)
        if at < 2 or scan.view[scan.ends[at - 1] : start] not in (", ", " and ", " & ", "; "):
            back = at - 1
            joined = at > 2 and scan.words[back] == "and" and scan.gap(back) == " "
            if not joined:
                break
            at = back
        run = None
        for size in (4, 3, 2):
            if at >= size and (run := whole_name(scan, at - size, at)) and run[1] == at - 1:
                break
            run = None
        if run is None:
            break
        found.append(_span(scan, run, layer, "name.list", 0.75))
        start = scan.starts[run[0]]
    return found


def _initials(scan: Scan, spans: list[Span], layer: str) -> list[Span]:
    """`Jane Roe (JR)`, `discussed with JT`."""
    found = []
    for span in spans:
        match = _BRACKET.match(scan.view, span.end) if span.rule.startswith("name.") else None
        if match and match[1].lower() not in _NO_INITIALS:
            found.append(Span(*match.span(1), "STAFF", layer, "name.initials", 0.7))
    return found + _told_initials(scan, layer)


def _told_initials(scan: Scan, layer: str) -> list[Span]:
    """`report to follow from HA`, `discussed with JT`: two capitals that are no team, in a note with small letters."""
    found: list[Span] = []
    if scan.lower_note or scan.upper_note:
        return found
    view = scan.view
    for word, numbers in scan.note.places.items():
        if len(word) != 2 or word in _NO_INITIALS or word in _TEAMS or not word.isalpha():
            continue
        for number in numbers:
            start = scan.starts[number]
            if view[start : start + 2].isupper() and (
                match := _TOLD_INITIALS.search(view, max(0, start - 24), scan.ends[number] + 6)
            ):
                found.append(Span(*match.span(1), "STAFF", layer, "name.initials", 0.6))
    return found
