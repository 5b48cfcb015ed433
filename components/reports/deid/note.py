"""A note as the detectors see it: folded to plain letters, without invisible characters, cut into tokens.

`view` is the raw text with diacritics folded one letter to one letter (so that a rule for `Muller` meets
`Müller`), typographic dashes, quotes and spaces made plain, and zero-width and combining characters taken
out (so that nothing hides behind them). `raw_span` leads back to the offsets of the raw text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Set
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

from components.reports.lexicon import languages_of

if TYPE_CHECKING:
    from components.reports.deid.span import Span

_TOKEN = re.compile(r"([^\W_]+)")
_REMEMBERED = 200_000
_INVISIBLE = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d"
    "\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\ufeff"
)
_SPECIAL = {
    "ı": "i",
    "ł": "l",
    "Ł": "L",
    "ø": "o",
    "Ø": "O",
    "đ": "d",
    "Đ": "D",
    "ß": "s",
    "æ": "a",
    "Æ": "A",
}
_SPECIAL |= {
    "œ": "o",
    "Œ": "O",
    "þ": "t",
    "Þ": "T",
    "ð": "d",
    "Ð": "D",
    "ħ": "h",
    "Ħ": "H",
    "ŋ": "n",
    "’": "'",
}
_SPECIAL |= {"‘": "'", "ʼ": "'", "`": "'", "´": "'", "“": '"', "”": '"', "\t": " ", "\x0b": " ", "\x0c": "\n"}
_SPECIAL |= {"\r": "\n", "\u2028": "\n", "\u2029": "\n", "\u0085": "\n"}


@lru_cache(maxsize=4096)
def _fold(char: str) -> str:
    """One plain character for `char`, or "" when it is invisible or a combining mark."""
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char < "\x7f":
        return char
    if char in _INVISIBLE or unicodedata.combining(char) or 0xFE00 <= ord(char) <= 0xFE0F:
        return ""
    category = unicodedata.category(char)
    if category == "Pd":
        return "-"
    if category == "Zs":
        return " "
    if category == "Nd":
        return str(unicodedata.digit(char))
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base.isalnum() else char


def fold(text: str) -> str:
    """`text` in plain letters; its length may shrink (see `Note`)."""
    if text.isascii():
        return text.replace("\r", "\n").replace("\t", " ").replace("`", "'")
    return "".join(map(_fold, text))


class WordTest:
    """A test of single words that remembers its answers, for words come again from note to note."""

    def __init__(self, test: Callable[[str], bool]) -> None:
        self._test, self._known = test, dict[str, bool]()

    def __call__(self, word: str) -> bool:
        """Whether `word` passes."""
        found = self._known.get(word)
        if found is None:
            if len(self._known) > _REMEMBERED:
                self._known.clear()
            found = self._known[word] = self._test(word)
        return found

    def among(self, words: Iterable[str]) -> list[str]:
        """Those of `words` that pass, in their order."""
        known = self._known.get
        return [word for word in words if (self(word) if (old := known(word)) is None else old)]


class Note:
    """One report: `raw`, its `view`, and the view's tokens (runs of letters and digits).

    `starts` and `ends` are the tokens' offsets on the view, `written` the tokens, `words` the same in lower case,
    `gaps` what follows each.
    """

    def __init__(self, raw: str) -> None:
        """Fold `raw`; offsets lead back through `raw_span`."""
        self.raw = raw
        self.view = fold(raw)
        self._index: list[int] | None = None
        if len(self.view) != len(raw):
            self._index = [place for place, char in enumerate(raw) if _fold(char)]
        self.lower = self.view.lower()
        self.scans: dict[int, object] = {}  # kept by `runs.scan_of`
        self.found: list[Span] = []  # what the layers before this one found, on the view
        parts = _TOKEN.split(self.view)  # gap, token, gap, token, ..., gap
        offsets = list(accumulate(map(len, parts)))
        self.starts, self.ends = offsets[:-1:2], offsets[1::2]
        self.written, self.gaps = parts[1::2], parts[2::2]
        self.words = list(map(str.lower, self.written))

    def raw_span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets on `raw` of the view's `[start, end)`; invisible characters inside are included."""
        if self._index is None or end <= start:
            return start, end
        return self._index[start], self._index[end - 1] + 1

    def outside(self, spans: list[Span]) -> list[Span]:
        """Spans on the view as spans on `raw`."""
        if self._index is None:
            return spans
        found = ((span, self.raw_span(span.start, span.end)) for span in spans)
        return [span._replace(start=start, end=end) for span, (start, end) in found]

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """The numbers of the tokens of each word, in order."""
        found: dict[str, list[int]] = {}
        for number, word in enumerate(self.words):
            if word in found:
                found[word].append(number)
            else:
                found[word] = [number]
        return found

    @cached_property
    def vocabulary(self) -> frozenset[str]:
        """The words of the note."""
        return frozenset(self.places)

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages other than English that the note is written in."""
        return languages_of(self.places.keys())

    @cached_property
    def with_digit(self) -> list[int]:
        """The numbers of the tokens that hold a digit, in order."""
        return [number for number, word in enumerate(self.words) if not word.isalpha()]

    def select(self, triggers: Set[str]) -> list[int]:
        """The numbers of the tokens that hold a digit or are one of `triggers` (what rules may begin at)."""
        places = self.places
        chosen = list(self.with_digit)
        for word in self.vocabulary & triggers:
            if word.isalpha():
                chosen += places[word]
        chosen.sort()
        return chosen

    def gap(self, left: int) -> str:
        """The view between token `left` and the next one; nothing stands left of the first."""
        return self.gaps[left] if left >= 0 else ""

    def token(self, number: int) -> str:
        """A token as it is written on the view."""
        return self.written[number]

    def first_in_sentence(self, number: int) -> bool:
        """True when token `number` begins the text, a line or a sentence (so that its capital says nothing)."""
        if number == 0:
            return True
        gap = self.gap(number - 1)
        return "\n" in gap or any(mark in gap for mark in ".:;!?*|") or self.words[number - 1].isdigit()
