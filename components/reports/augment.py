"""Augmentations of a report's sentences for training: another order, and fewer or shorter sentences.

COLIPRI names "sentence shuffling and shortening". Both keep the meaning of what remains: a sentence is taken out
whole or loses a tail that neither denies nor qualifies what stands before it, so that no side and no negation
changes, and a report never becomes empty. Everything is drawn from the generator that is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from components.reports.findings import laterality, mentions, polarity

_TAIL = re.compile(
    r"(?:,\s+(?:measuring|up to|most likely|likely|consistent with|compatible with|in keeping with|which|as seen|"
    r"best seen|seen on|unchanged|stable|similar)\b|\s+\((?:[^()]{1,60})\)\s*|;\s+).*$",
    re.IGNORECASE | re.DOTALL,
)
_BRACKETS = re.compile(r"\s+\([^()]{1,60}\)")
_LEAD = re.compile(
    r"^(?:again (?:seen|noted) (?:is|are)\s+|there (?:is|are) again\s+|(?:incidental )?note is made of\s+|"
    r"as (?:before|previously described),\s+|in the interval,\s+|overall,\s+|also,\s+|"
    r"in addition,\s+|additionally,\s+)",
    re.IGNORECASE,
)


def shuffled(
    sentences: Sequence[str], generator: np.random.Generator, group: Callable[[str], object] | None = None
) -> list[str]:
    """The sentences in another order; with `group` (for one, the section) only within neighbours of one group."""
    listed = list(sentences)
    if group is None:
        return [listed[place] for place in generator.permutation(len(listed))]
    result: list[str] = []
    begin = 0
    for place in range(1, len(listed) + 1):
        if place == len(listed) or group(listed[place]) != group(listed[begin]):
            part = listed[begin:place]
            result += [part[i] for i in generator.permutation(len(part))]
            begin = place
    return result


def kept(sentences: Sequence[str], generator: np.random.Generator, least: float = 0.5) -> list[str]:
    """A random share, from `least` to all, of the sentences in their order; at least one of a report that has any.

    Raises `ValueError` when `least` is not in [0, 1].
    """
    if not 0.0 <= least <= 1.0:
        raise ValueError("least must lie in [0, 1]")
    listed = list(sentences)
    if not listed:
        return []
    share = generator.uniform(least, 1.0)
    count = min(len(listed), max(1, round(share * len(listed))))
    chosen = np.sort(generator.choice(len(listed), size=count, replace=False))
    return [listed[place] for place in chosen]


def shortened(sentence: str) -> str:
    """The sentence without its lead-in, brackets and last qualifying clause, if it says the same findings after it.

    The same means: the findings of CT-RATE with their status and side, the polarity and the side of the sentence are
    those of the whole. Otherwise the sentence is returned as it is. Never empty unless it was.
    """
    for candidate in _candidates(sentence):
        if candidate != sentence and len(candidate.split()) >= 2 and _said(candidate) == _said(sentence):
            return candidate
    return sentence


def _candidates(sentence: str) -> list[str]:
    """Shorter forms, the shortest first."""
    plain = _capital(_LEAD.sub("", sentence))
    bare = _BRACKETS.sub("", plain)
    cut = _TAIL.sub("", bare).rstrip(" ,;")
    if cut and not cut.endswith((".", "!", "?")):
        cut += "."
    return sorted({cut, bare, plain} - {""}, key=lambda text: (len(text), text))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(sentence: str) -> tuple[object, ...]:
    found = frozenset((item.finding, item.status, item.laterality) for item in mentions(sentence))
    return found, polarity(sentence), laterality(sentence)


def shortened_report(
    sentences: Sequence[str], generator: np.random.Generator, probability: float = 0.5
) -> list[str]:
    """`shortened` for each sentence with a probability; as many sentences as before."""
    draws = generator.random(len(sentences))
    return [
        shortened(text) if draw < probability else text for text, draw in zip(sentences, draws, strict=True)
    ]


def augmented(
    sentences: Sequence[str],
    generator: np.random.Generator,
    *,
    shuffle: float = 0.5,
    shorten: float = 0.5,
    least: float = 0.6,
) -> list[str]:
    """COLIPRI's text augmentation: fewer sentences, some shortened, with probability `shuffle` in another order.

    Give each report a generator of its own (seeded by seed, step and row), so that no report moves another's draws.
    """
    result = shortened_report(kept(sentences, generator, least), generator, shorten)
    order = generator.random() < shuffle
    return shuffled(result, generator) if order else result
