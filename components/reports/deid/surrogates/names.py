"""Names of people as other names: letter by letter of their initials, token by token, the same in every spelling.

A patient's key gives a substitution of letters without a fixed point, and each token of a name becomes a name that
begins with the letter of its own first letter. So `Jane Okafor`, `OKAFOR, JANE`, `J. Okafor`, `Okafor's` and `JO`
agree with each other in all of a patient's notes, without looking at more than one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property

from components.reports.deid.known import spellings
from components.reports.deid.note import Note, fold
from components.reports.deid.policy import NAME_KINDS
from components.reports.deid.surrogates import (
    Keyed,
    Patient,
    first_free,
    initials,
    like,
    listed,
    plain,
    pool,
    sexes,
)
from components.reports.lexicon import words

_WORD = re.compile(r"[^\W_]+(?:'[^\W\d_]{2,})?")
_TITLES, _DEGREES, _PARTICLES = (frozenset(listed(name)) for name in ("titles", "degrees", "particles"))
_SYLLABLES = ("ba", "den", "ford", "kel", "lan", "mar", "nor", "ridge", "sel", "ton", "ver", "wick")


class NameSurrogates:
    """The names of one patient's notes."""

    def __init__(self, keyed: Keyed, patient: Patient) -> None:
        """`patient.identities` are those of all the patient's studies."""
        self.keyed = keyed
        values = [fold(form) for _, value in patient.identities for form in spellings(value)]
        self.known = frozenset(
            word for value in values for word in map(plain, re.split(r"[\W_]+", value)) if word
        )
        sex = patient.sex or next((value for kind, value in patient.identities if kind.upper() == "SEX"), "")
        self._sex = sex[:1].upper() if sex[:1].upper() in ("F", "M") else None
        self._roles: dict[str, set[str]] = {}
        self._own: set[str] = set()  # given names of the patient
        self._joined: dict[str, tuple[str, ...]] = {}
        self._letters: set[str] = set()
        self._cache: dict[str, str] = {}
        self._taken: frozenset[str] = frozenset()
        for kind, value in sorted(set(patient.identities)):
            if kind.upper() in NAME_KINDS:
                self._learn(value, kind.upper() == "PATIENT")
        self._assign(self._roles)

    def _learn(self, value: str, own: bool) -> None:
        """The roles of a known name's tokens, and its spellings without gaps."""
        family, mark, given = fold(value).replace("^", ",").partition(",")
        parts = [_split(family), _split(given)] if mark else [[], _split(family)]
        if not mark and len(parts[1]) > 1:
            parts = [parts[1][-1:], parts[1][:-1]]
        elif not mark:
            parts = [parts[1], []]
        for role, tokens in zip(("family", "given"), parts):
            for token in tokens:
                if len(token) > 1:
                    self._roles.setdefault(token, set()).add(role)
                    if own and role == "given":
                        self._own.add(token)
        for form in spellings(value):  # `Mueller` is Müller, and the other way round
            for token, other in zip(_split(fold(value)), _split(fold(form))):
                if other != token and len(other) > 3:
                    self._joined.setdefault(other, (token,))
        for order in (parts[0] + parts[1], parts[1] + parts[0]):
            whole = "".join(order)
            if len(order) > 1:
                self._joined.setdefault(whole, tuple(order))
                self._letters.add("".join(token[0] for token in order))
        for token in parts[0]:
            for first in parts[1]:
                self._joined.setdefault(first[0] + token, (first[0], token))
                self._joined.setdefault(token + first[0], (token, first[0]))
                self._letters |= {first[0] + token[0], token[0] + first[0]}
        for compound in re.findall(r"[^\W\d_]+(?:[ '-][^\W\d_]+)+", fold(family).lower()):
            tokens = [t for t in _split(compound) if t not in _PARTICLES]
            if len(tokens) > 1:
                self._joined.setdefault("".join(tokens), tuple(tokens))
        for head in re.findall(r"\b[^\W\d_]'[^\W\d_]{2,}", fold(value).lower()):
            self._joined.setdefault(plain(head[2:]), (plain(head),))  # `Neill` is O'Neill

    @cached_property
    def letters(self) -> dict[str, str]:
        """The patient's substitution of letters: a cycle through those of `initials()`, so that none stays."""
        order = list(initials())
        stream = b"".join(self.keyed.digest("letters", str(part)) for part in range(2))
        for place in range(len(order) - 1, 0, -1):  # Sattolo: a single cycle
            other = int.from_bytes(stream[2 * place : 2 * place + 2], "big") % place
            order[place], order[other] = order[other], order[place]
        return dict(zip(initials(), order))

    def letter(self, char: str) -> str:
        """The letter that stands for an initial, never the same one."""
        found = self.letters.get(char)
        options = initials()
        return found or options[self.keyed.seed("letter", char) % len(options)]

    def _assign(self, tokens: Iterable[str]) -> None:
        """Known tokens get names of their own, none twice."""
        taken: set[str] = set()
        for token in sorted(tokens):
            self._cache[token] = self._choose(token, taken)
            taken.add(plain(self._cache[token]))
        self._taken = frozenset(taken)

    def _role(self, token: str) -> str:
        roles = self._roles.get(token, set())
        if len(roles) == 1:
            return next(iter(roles))
        given = token in sexes() or (token in words("first_names") and token not in words("surnames"))
        return "given" if given else "family"

    def _choose(self, token: str, taken: set[str] | frozenset[str]) -> str:
        letter, role = self.letter(token[0]), self._role(token)
        if role == "given":
            sex = (self._sex if token in self._own else None) or sexes().get(token)
            sex = sex or "FM"[self.keyed.seed("sex", token) % 2]
            options = pool("given_female" if sex == "F" else "given_male")[letter]
        else:
            options = pool("family")[letter]
        start = self.keyed.seed(f"name:{role}", token)
        found = first_free(options, start, self.known | taken | {token})
        attempt = 0
        while found is None:  # all names of the letter are the patient's own or in use: one is made up
            parts = self.keyed.digest("made", f"{token}\0{attempt}")
            made = letter.upper() + "".join(_SYLLABLES[part % len(_SYLLABLES)] for part in parts[:3])
            found = first_free((made,), 0, self.known | taken | {token})
            attempt += 1
        return found

    def token(self, written: str, around: frozenset[str] = frozenset()) -> str:
        """The surrogate of one token of a name, in the token's case; it is none of `around`."""
        word = plain(written)
        parts = self._joined.get(word) if word not in self._roles else None
        if parts is not None:
            return like(written, "".join(self._one(part, around) for part in parts))
        if _are_initials(word) or (written.isupper() and word in self._letters and word not in self._roles):
            return self._initials_of(written)
        return like(written, self._one(word, around))

    def _one(self, word: str, around: frozenset[str]) -> str:
        if len(word) == 1:
            return self.letter(word).upper()
        if word not in self._cache:
            self._cache[word] = self._choose(word, self._taken)
        found = self._cache[word]
        return self._choose(word, self._taken | around) if plain(found) in around else found

    def render(self, raw: str, around: frozenset[str] = frozenset()) -> str | None:
        """A name span with every name in it replaced; titles, degrees, order and punctuation stay.

        `around` are the tokens of the note's other names (`tokens_of`): no surrogate may be one of them. This is the
        one thing in which notes can differ: a surrogate that happens to be another name of the note gives way.
        """
        note = Note(raw)
        around = around or tokens_of([raw])
        found = list(_WORD.finditer(note.view))
        pieces: list[str] = []
        place = changed = 0
        for number, match in enumerate(found):
            written = match.group()
            word = plain(written)
            start, end = note.raw_span(match.start(), match.end())
            before = note.view[max(0, match.start() - 1) : match.start()]
            gap = note.view[found[number - 1].end() if number else 0 : match.start()]
            if self._stays(word, number, len(found), gap) or (word == "s" and before == "'"):
                pieces.append(raw[place:end])
            elif self._is_particle(word, written) and number + 1 < len(found):
                pieces.append(_clean(raw[place:start]))
                place = note.raw_span(found[number + 1].start(), found[number + 1].end())[0]
                continue
            else:
                slash = before == "/" and len(word) <= 3
                new = self._initials_of(written) if slash else self.token(written, around)
                if plain(new) == word:
                    return None
                pieces += [_clean(raw[place:start]), new]
                changed += 1
            place = end
        return "".join([*pieces, _clean(raw[place:])]) if changed else None

    def _is_particle(self, word: str, written: str) -> bool:
        """`de`, `van`, `al`; a capital `Y.` is an initial and no Spanish `y`."""
        return word in _PARTICLES and word not in self._roles and (len(word) > 1 or written.islower())

    def _initials_of(self, written: str) -> str:
        letters = "".join(self.letter(char) for char in plain(written))
        return letters if written.islower() else letters.upper()

    def _stays(self, word: str, number: int, total: int, gap: str) -> bool:
        if word in self._roles or word in self._joined:
            return False
        return (word in _TITLES and number < total - 1) or (word in _DEGREES and number > 0 and "," in gap)


def tokens_of(texts: Iterable[str]) -> frozenset[str]:
    """The tokens of names as they are compared: plain, of two letters or more."""
    found = {plain(match.group()) for text in texts for match in _WORD.finditer(fold(text))}
    return frozenset(word for word in found if len(word) > 1)


def _split(value: str) -> list[str]:
    """The tokens of a known name: particles and titles are no names."""
    found = []
    for match in _WORD.finditer(value.lower()):
        word = plain(match.group())
        if word and word not in _TITLES and word not in _DEGREES:
            found.append(word)
    core = [word for word in found if word not in _PARTICLES]
    return core or found


def _are_initials(word: str) -> bool:
    """A letter, or two or three consonants: `J`, `BJ`, `JMD` (not `Ng`)."""
    return len(word) == 1 or (len(word) <= 3 and not set(word) & set("aeiouy") and word not in ("ng", "ngd"))


def _clean(gap: str) -> str:
    """What stands between tokens: visible marks only."""
    return "".join(char for char in gap if fold(char))
