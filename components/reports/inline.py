"""Headings within a line: a report that is one line, or a line that holds several sections."""

from __future__ import annotations

import re
from functools import lru_cache

from components.reports.headings import CORE, is_common, is_main, last_words, normalised, section_of
from components.reports.layouts import SIGNED, TOLD, L, Mark

_COLON = re.compile(r"[:\uff1a](?:(?<!\d.)|(?!\d))")
_MARKED = re.compile(rf"[.!?\])] (?P<words>(?:\*\*|__){L}[^*_\n]{{3,40}}(?:\*\*|__):?)")
_UNMARKED = re.compile(
    rf"[.!?\])] (?P<words>[^\W\d_a-z]{{2,}}(?:[ /&]{{1,3}}{L}{{2,}}){{0,5}})(?: [-\u2013\u2014] | (?=\S))"
)
_SHOUTED = re.compile(r"[.!?\])] [^\W\d_a-z]{2}")
_AFTER_SENTENCE = re.compile(
    r"(?<=[.!?] )(?=(?:Electronically|Digitally|Signed|Dictated|Interpreted|Reported|Approved|"
    r"Verified|Transcribed|Read|Prepared|The|These|Findings|Results|Critical)\b)"
)
_INLINE = frozenset({*CORE, "signature"})
_CORE = frozenset(CORE)
_ENDS = frozenset(".!?;,:)]*|")
_DASHES = ("- ", "\u2013 ", "\u2014 ")


def may_hold(content: str, offset: int) -> bool:
    """A quick look: whether a line may hold a heading after its first `offset` characters."""
    if len(content) <= offset + 12:
        return False
    if content.find(":", offset) >= 0 or "**" in content or "__" in content or "\uff1a" in content:
        return True
    return _SHOUTED.search(content, offset) is not None


def inline_marks(content: str, start: int, offset: int, first: str | None) -> list[Mark]:
    """The headings within a line, after its first `offset` characters; `start` is the line's place in the text.

    `first` is the section of the heading that the line begins with. A word that is seldom a heading counts in a line
    of three sections or more; so does one without a colon.
    """
    sure: dict[int, Mark] = {}
    unsure: dict[int, Mark] = {}
    for match in _COLON.finditer(content, offset) if ":" in content or "\uff1a" in content else ():
        if (found := _before_colon(content, offset, match.start())) is not None:
            begin, (name, confidence), common = found
            (sure if common else unsure)[begin] = Mark(start + begin, start + match.end(), name, confidence)
    if "**" in content or "__" in content:
        for match in _MARKED.finditer(content, offset):
            known = section_of(match["words"].strip("*_:"))
            if known and known[0] in _INLINE:
                at = match.start("words")
                sure[at] = Mark(start + at, start + match.end(), *known)
    for match in _UNMARKED.finditer(content, offset) if _SHOUTED.search(content, offset) else ():
        if (mark := _without_colon(match, start)) is not None:
            (sure if mark.confidence == "high" else unsure).setdefault(mark.at - start, mark)
    if not sure and not unsure:
        return []
    names = {mark.name for mark in (*sure.values(), *unsure.values())} | ({first} if first else set())
    chosen = {**unsure, **sure} if len(names & _CORE) >= 3 else sure
    kept: list[Mark] = []
    for place in sorted(chosen):
        mark, before = chosen[place], kept[-1].name if kept else first
        # a part of the section it stands in (`Dose:` within TECHNIQUE) opens no other
        if mark.name != before or is_main(content[place : mark.body - start]):
            kept.append(mark)
    return kept


@lru_cache(maxsize=8192)
def _may_end(word: str) -> bool:
    """Whether a heading may end with a word."""
    return normalised(word) in last_words() or (len(word) >= 6 and word[0].isupper())


def _before_colon(content: str, offset: int, at: int) -> tuple[int, tuple[str, str], bool] | None:
    """(place, (section, confidence), whether it counts alone) of the heading that ends at a colon within a line."""
    low = max(offset, at - 70)
    tail = content[low:at].rstrip(" *_")
    if not _may_end(tail[tail.rfind(" ") + 1 :]):
        return None
    tokens = tail.split(" ")
    places, place = [], len(tail)
    for token in tokens[:-7:-1]:
        place -= len(token)
        places.append(place)
        place -= 1
    for count in range(len(places), 0, -1):
        place = places[count - 1]
        begin, words = low + place, tail[place:]
        if not words[:1].isalpha() or (begin == low and (low > offset or not offset)) or len(words) < 4:
            continue
        upper = words.isupper()
        preceded = count < len(tokens) and tokens[-count - 1].isupper() and tokens[-count - 1].isalpha()
        if upper and preceded and not is_main(words):
            continue
        ended = content[max(0, begin - 2) : begin].rstrip()[-1:] in _ENDS or begin == offset
        if not (upper or ended):
            continue
        found = section_of(words, words[0].isupper(), upper)
        if found and found[0] in _INLINE:
            return begin, found, upper or (words[0].isupper() and is_common(words))
    return None


def _without_colon(match: re.Match[str], start: int) -> Mark | None:
    """A heading in capitals before a dash, or right before the text, after the end of a sentence."""
    words = match["words"]
    if not words[:2].isupper():
        return None
    tokens = words.split(" ")
    upper = next((i for i, token in enumerate(tokens) if not token.isupper()), len(tokens))
    for count in range(upper, 0, -1):
        phrase = " ".join(tokens[:count])
        found = section_of(phrase, misspelt=False, qualified=False) if len(phrase) > 4 else None
        if found and found[0] in CORE:
            begin = match.start("words")
            at = begin + len(phrase)
            rest = match.string[at : at + 40].lstrip()
            dash = rest[:2] in _DASHES
            if not dash and rest[:1].islower():
                continue
            body = at + match.string[at : at + 4].index(rest[0]) + (2 if dash else 0)
            confidence = "high" if dash and is_common(phrase) else "medium"
            return Mark(start + begin, start + body, found[0], confidence)
    return None


def inline_ending(content: str, start: int, offset: int) -> list[Mark]:
    """Who was told and who signed, after the last section of a report that is one line."""
    marks: list[Mark] = []
    for match in _AFTER_SENTENCE.finditer(content, offset):
        name = "communication" if TOLD.match(content, match.start()) else "signature"
        if name == "communication" or SIGNED.match(content, match.start()):
            marks.append(Mark(start + match.start(), start + match.start(), name, "medium"))
    return marks
