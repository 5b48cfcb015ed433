"""What does not belong to a name or an institution at the edges of what a rule took, and what belongs between.

`Torben Wisniewski, geb.`, `Markus Temmel, Interne Ambulanz`, `(SpR)`, `Location: MAU`: departments, posts, registers
and labels of the next field are words of clinical notes and stay. `Bruck an der Mur`, `St. Luke's`: particles
and genitives between or before words that were found go with them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from components.reports.deid.cues import cues
from components.reports.deid.facilities import nouns
from components.reports.deid.keep import split_protected
from components.reports.deid.note import Note
from components.reports.deid.runs import PARTICLES, Scan
from components.reports.deid.span import Span
from components.reports.deid.wordlists import NAME, default_lists
from components.reports.lexicon import terms, word_set

if TYPE_CHECKING:
    from components.reports.deid.surroundings import Surroundings

_WHOLE = frozenset(
    {"name.beside", "place.label", "place.letterhead", "place.institution", "frame.dated", "frame.place"}
)
_TRIMMED = frozenset(
    {"name.label", "name.by", "name.title", "name.line", "name.given_family", "place.institution"}
)
_LABEL_AFTER = re.compile(r"(?:\.|\.?-?nr\.?| no\.?| id)? ?:|\. ?\d|\.-?nr", re.IGNORECASE)
_WARD = re.compile(r"[A-Za-z]{0,2}\d{1,2}[A-Za-z]?")
_SAINTS = frozenset({"st", "ste", "sta", "sto", "saint", "sankt", "santa", "santo", "san", "mt"})
_SHORT = _SAINTS | {"ma", "mohd", "dela", "delos"}
_NAMED = frozenset("PHA")
_INNER = frozenset(PARTICLES) | {"an", "am", "auf"}
_JOINTS = frozenset({" ", "-", "'"})
_MOST = 2
_PLACES = frozenset({"HOSPITAL", "ADDRESS"})


@cache
def labels() -> frozenset[str]:
    """Labels, posts and registers that are never part of a name, though some are names too."""
    return word_set("edges.labels")


@cache
def _terms(codes: tuple[str, ...], place: bool = False) -> frozenset[str]:
    """Words that are no part of a name (or of a `place`) at its edge, in a note of some languages."""
    found = terms(codes) | labels()
    if not place:
        return found
    phrases = (phrase for options in nouns().prefixes.values() for phrase in options)
    institution = nouns().heads.union(*phrases)
    return found - (institution - terms())


@cache
def _small() -> frozenset[str]:
    return word_set("postal.small") | cues().role | frozenset({"les", "d", "l"})


def without_edges(text: Note, spans: Iterable[Span]) -> list[Span]:
    """The spans without terms at their edges; those that are made of terms only are left out."""
    found = []
    for span in spans:
        if span.rule in _WHOLE and _only_terms(text, span):
            continue
        if span.rule in ("name.label", "name.list") and _next_field(text, span):
            continue
        found.append(_trimmed(text, span) if span.rule in _TRIMMED else span)
    return found


def _only_terms(text: Note, span: Span) -> bool:
    first, last = bisect_left(text.starts, span.start), bisect_left(text.starts, span.end)
    if span.rule == "place.label" and _WARD.fullmatch(text.view, span.start, span.end):
        return True
    known, small = _terms(text.languages, span.kind in _PLACES), _small()
    held = [word for word in text.words[first:last] if word not in small]
    return bool(held) and known.issuperset(held)


def _next_field(text: Note, span: Span) -> bool:
    """Whether a further run of a field's value is made of terms only (`Markus Temmel, Interne Ambulanz`)."""
    before = text.view[max(0, span.start - 2) : span.start]
    if before not in (", ", "  ", " ("):
        return False
    first, last = bisect_left(text.starts, span.start), bisect_left(text.starts, span.end)
    return all(_term(_terms(text.languages), word) for word in text.words[first:last])


def _term(known: frozenset[str], word: str) -> bool:
    return word in labels() or (word in known and not default_lists().flags(word) & NAME)


def _trimmed(text: Note, span: Span) -> Span:
    """A span without the terms behind a name (after a wide gap or a comma, or before a colon) and before one."""
    first, last = bisect_left(text.starts, span.start), bisect_left(text.starts, span.end) - 1
    if last <= first:
        return span
    end, known = last, _terms(text.languages, span.kind in _PLACES)
    while end > first and _term(known, text.words[end]):
        end -= 1
    if end < last:
        gap = text.gap(end)
        if not (gap[:2] in (", ", "  ") or "\n" in gap or _LABEL_AFTER.match(text.view, text.ends[last])):
            end = last
    start = first
    while start < end and _term(known, text.words[start]):
        start += 1
    if start > first and text.gap(start - 1) != " ":
        start = first
    if (start, end) == (first, last) or text.starts[start] < span.start:
        return span
    begin = span.start if start == first else text.starts[start]
    return span._replace(start=begin, end=span.end if end == last else text.ends[end])


def between(around: Surroundings) -> list[tuple[int, str]]:
    """Tokens to be taken too, with the class of what they belong to: particles between, saints before, genitives,
    initials."""
    scan, covered = around.scan, around.covered
    words, total, found = scan.words, len(scan.words), []
    for number, kind in covered.items():
        if kind not in _NAMED:
            continue
        after = number + 1
        if after < total and after not in covered:
            genitive = after if words[after] == "s" and scan.gap(number) == "'" else -1
            if genitive > 0:
                after += 1
            stop, inner = after, _INNER if kind == "P" else _small()
            while stop < total and stop - after < _MOST and words[stop] in inner and stop not in covered:
                stop += 1
            joined = stop < total and covered.get(stop) in _NAMED
            if joined and all(scan.gap(k) in _JOINTS for k in range(number, stop)):
                found += [(k, kind) for k in range(number + 1, stop)]
            elif genitive > 0 and kind != "P":
                found.append((genitive, kind))
        back = number - 1
        before = back >= 0 and back not in covered and words[back] in (_SHORT if kind == "P" else _SAINTS)
        if before and scan.gap(back) in (" ", ". ", ".", "-") and not _kept(scan, number):
            found.append((back, kind))
        while kind == "P" and _initial(scan, back) and back not in covered:
            found.append((back, kind))
            back -= 1
    return found


def _initial(scan: Scan, number: int) -> bool:
    """Whether a token is an initial with its point, before what was found: the `M.` of `M. Sutter`."""
    if number < 0 or len(scan.words[number]) != 1 or not scan.words[number].isalpha():
        return False
    before = scan.gap(number - 1) if number else " "
    return scan.gap(number) in (". ", ".") and before[-1:] in (" ", "\n", "(", ".", "/", ":", ">")


def _kept(scan: Scan, number: int) -> bool:
    """Whether radiology keeps a token (`St. Jude valve`)."""
    alone = Span(scan.starts[number], scan.ends[number], "HOSPITAL", "suspects", "suspect.joint", 0.5)
    return split_protected(scan.note, [alone])[0] != [alone]
