"""Names without a cue: `Given Family`, `J. Family`, `Family, Given`, a word that is a name and nothing else."""

from __future__ import annotations

import re

from components.reports.deid.cues import Found, found_at
from components.reports.deid.runs import PARTICLES, Scan, Trust, degree_at, take
from components.reports.deid.told import coined
from components.reports.deid.wordlists import EPONYM, FAMILY, FOREIGN, GIVEN, NAME, STOP, WORD
from components.reports.lexicon import word_set, words

_SPECIES = word_set("names.species")
_BEFORE = word_set("company.before") | word_set("scribes.linking")
_OPENED = re.compile(r"[(:;,/]|[ ]{2}|\n")
_ENUMERATED = word_set("names.enumerated")


def free_standing(scan: Scan, number: int) -> list[Found]:
    """Names without a cue: `Given Family`, `J. Family`, `Family, Given`, a name that is nothing else."""
    flags, word, shape = scan.flags[number], scan.words[number], scan.shape(number)
    if shape == "l" or not word.isalpha():
        return []
    if len(word) == 1:
        return _initial_family(scan, number)
    if flags & GIVEN and (scan.familiar or not flags & FOREIGN):
        found = _given_family(scan, number)
        if found:
            return found
    if flags & FAMILY and number + 1 < len(scan.words) and scan.gap(number) in (", ", ","):
        found = _family_given(scan, number)
        if found:
            return found
    if not scan.familiar or not (scan.listed(number) or scan.strange(number)):
        return []
    if scan.listed(number):
        if _half_eponym(scan, number):
            return []
        if len(word) > (3 if shape == "C" else 4) and not scan.abbreviation(number):
            return [(scan.starts[number], scan.ends[number], "PERSON", "name.listed", 0.6)]
        return []
    if (
        shape == "C"
        and number + 1 < len(scan.words)
        and scan.gap(number) == " "
        and scan.shape(number + 1) == "C"
    ):
        follow = number + 1
        if scan.strange(follow) and not coined(scan, number) and not coined(scan, follow):
            return [(scan.starts[number], scan.ends[follow], "PERSON", "name.strange", 0.55)]
    return []


def _half_eponym(scan: Scan, number: int) -> bool:
    """`May-Thurner`: joined by a hyphen to a word, in a text that gives no other sign of a person."""
    before = number > 0 and scan.gap(number - 1) == "-"
    after = number + 1 < len(scan.words) and scan.gap(number) == "-"
    if before and not scan.listed(number - 1) and not scan.strange(number - 1):
        return True
    return after and not scan.listed(number + 1) and not scan.strange(number + 1)


def _given_family(scan: Scan, number: int) -> list[Found]:
    last = number + 1
    if last >= len(scan.words) or scan.gap(number) not in (" ", "-"):
        return []
    while last + 1 < len(scan.words) and (len(scan.words[last]) == 1 or scan.words[last] in PARTICLES):
        if scan.gap(last) not in (". ", " ", "'"):
            return []
        last += 1
        if last - number > 3:
            return []
    shape, flags = scan.shape(last), scan.flags[last]
    if scan.abbreviation(number) or scan.abbreviation(last):
        return []
    first_flags, first_shape = scan.flags[number], scan.shape(number)
    if (
        flags & STOP
        or not scan.words[last].isalpha()
        or len(scan.words[last]) < 2
        or shape == "l"
        or degree_at(scan, last)
    ):
        return []
    if first_shape != "C" or shape != "C":
        sure = scan.listed(number) and (scan.listed(last) or (scan.familiar and scan.strange(last)))
        sure = sure or (
            scan.listed(number) and bool(flags & FAMILY) and not flags & (FOREIGN | EPONYM) and scan.familiar
        )
        if not sure or (first_shape != shape):
            return []
    elif first_flags & (WORD | FOREIGN):
        if not (scan.listed(last) or (scan.familiar and scan.strange(last))) or (
            scan.note.first_in_sentence(number) and not scan.listed(last)
        ):
            return []
    elif (flags & (WORD | FOREIGN | EPONYM) and not flags & FAMILY) or (
        not scan.familiar and not flags & NAME
    ):
        return []
    run = take(scan, number, Trust.LABEL, limit=4)
    stop = max(last, run[1] if run else last)
    return [(scan.starts[number], scan.ends[stop], "PERSON", "name.given_family", 0.7)]


def _family_given(scan: Scan, number: int) -> list[Found]:
    follow = number + 1
    flags, shape = scan.flags[follow], scan.shape(follow)
    if not flags & GIVEN or flags & STOP or shape == "l" or len(scan.words[follow]) < 3:
        return []
    own = scan.flags[number]
    if own & WORD and (flags & WORD or shape != "C"):
        return []
    if flags & (WORD | FOREIGN) and not scan.listed(number):
        return []
    if not scan.familiar and (own & FOREIGN or flags & FOREIGN):
        return []
    end = follow
    if (
        follow + 1 < len(scan.words)
        and len(scan.words[follow + 1]) == 1
        and scan.gap(follow) == " "
        and scan.shape(follow + 1) != "l"
    ):
        end += 1
    return [(scan.starts[number], scan.ends[end], "PERSON", "name.family_given", 0.7)]


def _initial_family(scan: Scan, number: int) -> list[Found]:
    """`J. Family`, `J Family` where the second is a name or strange; `A. fib` and `E. coli` are none."""
    if number + 1 >= len(scan.words) or scan.gap(number) not in (". ", "."):
        return []
    if not scan.view[scan.starts[number]].isupper() and scan.shape(number) != "n":
        return []
    if number and scan.gap(number - 1) in (".", "'", "-", "/", "("):
        return []
    if not scan.familiar and scan.words[number] in ("d", "m"):
        return []
    at = number + 1
    while at + 1 < len(scan.words) and len(scan.words[at]) == 1 and scan.gap(at) in (". ", "."):
        at += 1
    flags, shape = scan.flags[at], scan.shape(at)
    if not scan.words[at].isalpha() or len(scan.words[at]) < 2 or shape == "l" or scan.words[at] in _SPECIES:
        return []
    if scan.words[at] in PARTICLES:
        run = take(scan, at, Trust.LABEL)
        if run is None or run[1] == at:
            capital = at + 1 < len(scan.words) and scan.gap(at) == " " and scan.shape(at + 1) == "C"
            run = (at, at + 1) if capital and len(scan.words[at]) > 1 and not scan.lower_note else None
        return found_at(scan, (number, run[1]) if run else None, "PERSON", "name.initial", 0.7)
    ends = scan.view[scan.ends[at] : scan.ends[at] + 2].strip(" ")[:1] in ("", "\n")
    signed = ends and scan.words[number] not in "abcdef"
    rare = (
        shape == "C"
        and scan.words[number] in "ghjkmnopwyz"
        and scan.words[at] not in words("radiology_words")
    )
    named = (flags & NAME and (shape == "C" or signed)) or (rare and not scan.lower_note and at == number + 1)
    if flags & STOP or (flags & (WORD | FOREIGN) and not named):
        return []
    if flags & EPONYM and shape != "C":
        return []
    if flags & WORD and number and scan.words[number - 1] in _ENUMERATED:
        return []
    if not (flags & NAME or rare or (scan.familiar and scan.strange(at)) or _unheard(scan, number, at)):
        return []
    run = take(scan, at, Trust.LABEL, limit=2)
    return found_at(scan, (number, run[1] if run else at), "PERSON", "name.initial", 0.7)


def _unheard(scan: Scan, number: int, at: int) -> bool:
    """`T. Branny` in a language whose words are not all known: no list holds the word, and no muscle is meant.

    `A.`, `M.`, `N.`, `R.` and `V.` stand before anatomy too and need a mark or a preposition (`Reader: M. Orozco`).
    """
    if (
        scan.flags[at]
        or scan.shape(at) != "C"
        or scan.lower_note
        or len(scan.words[at]) < 4
        or at != number + 1
    ):
        return False
    if scan.abbreviation(at) or not number:
        return False
    before = scan.gap(number - 1)
    if scan.words[number] in "amnrv":
        told = before.rstrip(" ")[-1:] in (":", "(", "/", "-") or scan.words[number - 1] in _BEFORE
        return told and "\n" not in before
    return "\n" not in before
