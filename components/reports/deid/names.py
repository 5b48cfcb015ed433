"""Layer 3: names by their context - titles, degrees, header fields, signatures, who was told - and their echo.

A cue decides first: after `Dr` a word of any kind may be a name, after `discussed with` only one that the lists
or its strangeness speak for. Without a cue a name needs the lists: a given name before a family name, an initial
before a family name, or a word that is a name and nothing else.
"""

from __future__ import annotations

from components.reports.deid.company import company_spans
from components.reports.deid.cues import Found, cues
from components.reports.deid.edges import without_edges
from components.reports.deid.free_names import free_standing
from components.reports.deid.headers import field_spans
from components.reports.deid.name_lines import echo, extend_slash, layout_spans
from components.reports.deid.note import Note
from components.reports.deid.runs import DEGREES, Scan, degree_at, scan_of
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.titles import SECOND, after_title, after_two_words
from components.reports.deid.told import before_degree, rules, triggers
from components.reports.deid.wordlists import FOREIGN, NAME, STOP, WORD, Lists, default_lists


class Names:
    """Finds names of patients, staff and relatives by their context."""

    name = "names"

    def __init__(self, lists: Lists | None = None) -> None:
        """`lists` default to the lexicon's."""
        self.lists = lists or default_lists()

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of names; each name found with confidence is then sought in the whole note."""
        scan = scan_of(text, self.lists)
        spans = field_spans(scan, self.name)
        for number in _candidates(scan):
            for start, end, kind, rule, score in _context(scan, number):
                spans.append(Span(start, end, kind, self.name, rule, score))
        spans = extend_slash(text.view, spans + layout_spans(scan, self.name))
        spans = without_edges(text, spans)
        spans += without_edges(text, company_spans(scan, spans, self.name))
        return spans + echo(text, spans, self.name, self.lists)


def _candidates(scan: Scan) -> list[int]:
    """Tokens at which a rule may begin: cues, degrees, names that are nothing else, strange words, initials."""
    flags, starters, chosen = scan.flags, triggers(), []
    view, starts, any_case = scan.view, scan.starts, scan.lower_note
    for word, numbers in scan.note.places.items():
        mark = flags[numbers[0]]
        if word in starters:
            chosen += numbers
        elif not mark & (WORD | STOP | FOREIGN) or (mark & NAME and not mark & STOP):
            # a word in small letters amid capitals is no name by itself
            chosen += numbers if any_case else [n for n in numbers if not view[starts[n]].islower()]
        elif len(word) == 1:
            chosen += [n for n in numbers if view[scan.ends[n] : scan.ends[n] + 1] == "."]
    chosen.sort()
    return chosen


def _by_cue(scan: Scan, number: int, word: str) -> list[Found]:
    """What a title, a degree or another cue leads to."""
    found: list[Found] = []
    if word in cues().titles:
        found += after_title(scan, number)
    elif word in SECOND:
        found += after_two_words(scan, number)
    for rule in rules().get(word, ()):
        found += rule(scan, number)
    if word in DEGREES and number and degree_at(scan, number):
        found += before_degree(scan, number)
    return found


def _context(scan: Scan, number: int) -> list[Found]:
    """What the rules find at one token."""
    word, flags = scan.words[number], scan.flags[number]
    found = _by_cue(scan, number, word) if word in triggers() else []
    unknown = not flags & (WORD | STOP)
    if unknown or (not found and (flags & NAME or len(word) == 1)):
        found += free_standing(scan, number)
    return found
