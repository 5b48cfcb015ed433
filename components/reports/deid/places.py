"""Layer 4: institutions, by the noun that names them (hospital, clinic, medical center) and by labels."""

from __future__ import annotations

import re

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import mapping, words

_JOINERS = frozenset({"of", "de", "del", "la", "and", "for", "the", "le", "di", "do", "da"})
_GAPS = frozenset({" ", "  ", "-", "'", ". ", ".", "' ", " & ", "/", " and "})
_LABELS = frozenset(
    {
        "facility",
        "institution",
        "hospital",
        "site",
        "location",
        "clinic",
        "hastane",
        "kurum",
        "center",
        "department",
        "practice",
        "organization",
        "ward",
    }
)
_LABEL_VALUE = re.compile(r"(?: name)? ?[:=] ?([^\n|;]{2,60})")
_CUES = frozenset({"at", "from", "to", "in", "of", "by", "via", "with"})
_BREAKS = frozenset(
    {
        "from",
        "at",
        "to",
        "in",
        "by",
        "via",
        "with",
        "on",
        "was",
        "is",
        "were",
        "performed",
        "done",
        "obtained",
        "ct",
        "mri",
        "study",
        "exam",
        "examination",
        "comparison",
        "none",
        "pet",
        "xr",
        "us",
    }
)
_SPECIALTIES = ("ology", "opathology", "opthalmology", "surgery", "iatrics", "iatry", "therapy", "medicine")
_MAX_BACK = 6


class Places:
    """Finds the names of institutions; `the hospital` and `community clinic` are none."""

    name = "places"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of institutions."""
        table = mapping("facilities")
        heads, generic = frozenset(table["head"]), frozenset(table["generic"])
        pairs = {tuple(phrase.split()) for phrase in table["head2"]}
        seconds = {phrase[-1] for phrase in pairs}
        spans: list[Span] = []
        for number, word in enumerate(text.words):
            if word in _LABELS and (label := _LABEL_VALUE.match(text.view, text.ends[number])):
                value = label[1].split("  ")[0].rstrip(" .,")
                if any(char.isalpha() for char in value) and value.lower() not in generic | words("stop"):
                    spans.append(
                        Span(
                            label.start(1),
                            label.start(1) + len(value),
                            "HOSPITAL",
                            self.name,
                            "place.label",
                            0.8,
                        )
                    )
                    continue
            size = 1 if word in heads else 0
            if not size and word in seconds:
                size = next(
                    (
                        len(p)
                        for p in pairs
                        if tuple(text.words[max(0, number - len(p) + 1) : number + 1]) == p
                    ),
                    0,
                )
            if size:
                found = self._around(text, number - size + 1, number, generic)
                if found:
                    spans.append(Span(*found, "HOSPITAL", self.name, "place.institution", 0.8))
        return spans

    @staticmethod
    def _around(text: Note, first: int, last: int, generic: frozenset[str]) -> tuple[int, int] | None:
        """The institution's name around its noun at tokens `[first, last]`, if it has a proper part."""
        lower_case = text.token(last)[0].islower()
        start, proper, place = first, False, first - 1
        while place >= 0 and first - place <= _MAX_BACK and text.gap(place) in _GAPS:
            word, written = text.words[place], text.token(place)
            if (
                word in _BREAKS
                or written[0].isdigit()
                or (text.gap(place) in (". ", ".") and word not in ("st", "ste", "mt", "ft", "dr"))
            ):
                break
            capital = written[0].isupper() or not written[0].islower()
            if not capital and not (lower_case and word not in words("stop")):
                break
            if word in words("stop") and word not in generic and word not in words("ambiguous"):
                break
            proper = proper or (word not in generic and len(word) > 1 and not word.endswith(_SPECIALTIES))
            start, place = place, place - 1
        if lower_case and proper and not (start and text.words[start - 1] in _CUES):
            return None
        end, proper = _forward(text, last, proper, generic)
        while (
            start < first
            and text.words[start] in generic
            and text.words[start]
            in {"the", "an", "a", "our", "this", "s", "outside", "other", "prior", "previous"}
        ):
            start += 1
        return (text.starts[start], text.ends[end]) if proper else None


def _forward(text: Note, last: int, proper: bool, generic: frozenset[str]) -> tuple[int, bool]:
    """The last token of `Hospital of Springfield` or `Klinikum Hohenlinden`, and whether a proper part was met."""
    end, follow = last, last + 1
    while follow < len(text.words) and follow - last <= 5 and text.gap(follow - 1) in _GAPS - {". ", "."}:
        word, written = text.words[follow], text.token(follow)
        if word in _JOINERS and not written[0].isupper():
            follow += 1
            continue
        if not written[0].isupper() or word in words("stop") or (proper and end == last and word in generic):
            break
        proper = proper or word not in generic
        end = follow
        follow += 1
    return end, proper
