"""Layer 1: what the archive itself says of the study, in every spelling that a report may give it.

Values are compared as sequences of tokens, so that case, punctuation and line breaks do not matter:
`SMITH^JOHN`, `Smith, John` and `john smith` are one pair of tokens in two orders. No regular expression is
built per study, which keeps the cost at one dictionary look-up a token.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from components.reports.deid.dates import MONTHS, Day, parse_day
from components.reports.deid.note import Note, fold
from components.reports.deid.span import Span, StudyContext
from components.reports.deid.wordlists import STOP, WORD, default_lists
from components.reports.lexicon import word_set, words

NAME_KINDS = frozenset({"PATIENT", "STAFF", "PERSON", "NAME", "PHYSICIAN", "OPERATOR", "RELATIVE"})
DATE_KINDS = frozenset({"DATE", "BIRTH_DATE", "DOB", "STUDY_DATE"})
ID_KINDS = frozenset({"MRN", "ACCESSION", "ID", "SSN", "PHONE", "FAX", "ACCOUNT", "UID", "DEVICE"})
IGNORED_KINDS = frozenset({"SEX", "AGE", "MODALITY"})
_WORD = re.compile(r"[^\W_]+")
_TITLES = word_set("known.titles")
_DEGREE_AFTER = re.compile(r"(?:M\.? ?D|D\.? ?O|R\.? ?N|N\.? ?P|P\.? ?A)\b")
_GAP = re.compile(r"[\s,.;:'\"()/\\^_|#-]{0,4}")

Phrase = tuple[tuple[str, ...], str, str, bool]


def _tokens(value: str) -> list[str]:
    return [match.group() for match in _WORD.finditer(fold(value).lower())]


_WIDE = str.maketrans(
    {
        "ü": "ue",
        "ö": "oe",
        "ä": "ae",
        "ø": "oe",
        "å": "aa",
        "ß": "ss",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "dh",
    }
)
_NARROW = (("ue", "u"), ("oe", "o"), ("ae", "a"), ("aa", "a"), ("ss", "s"), ("th", "t"), ("dh", "d"))
_NOT_INITIALS = frozenset(
    {"ap", "pa", "iv", "mr", "ct", "us", "md", "rn", "np", "er", "ed", "am", "pm", "le", "la", "ll"}
)


def spellings(value: str) -> tuple[str, ...]:
    """A name as it is, with its letters written out (`Mueller` for `Müller`), and drawn together again."""
    wide = value.lower().translate(_WIDE)
    found = {value: None, wide: None}
    for pair, letter in _NARROW:
        if pair in wide:
            found[wide.replace(pair, letter)] = None
    return tuple(found)


def _name_phrases(value: str) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """(tokens, rule, needs a sign of a person) for a name in any of its spellings."""
    parts = [part for part in _tokens(value) if part not in _TITLES]
    if not parts:
        return
    ambiguous, stop = words("ambiguous"), words("stop")
    family_first = "^" in value or "," in value
    yield tuple(parts), "name.full", False
    yield tuple(parts[::-1]), "name.full", False
    if len(parts) > 2:
        for turn in range(1, len(parts)):
            yield tuple(parts[turn:] + parts[:turn]), "name.full", False
        yield (parts[0], parts[-1]), "name.full", False
        yield (parts[-1], parts[0]), "name.full", False
        if family_first:
            yield (parts[1], parts[0]), "name.full", False
    if len(parts) > 1:
        yield ("".join(parts),), "name.joined", False
        yield ("".join(parts[::-1]),), "name.joined", False
        for index, part in enumerate(parts):
            if len(part) < 2:
                continue
            for other in parts[:index] + parts[index + 1 :]:
                yield (other[0], part), "name.initial", False
                yield (part, other[0]), "name.initial", False
        joined = re.findall(r"[^\W_]+(?:['-][^\W_]+)+", fold(value).lower())
        for compound in joined:
            pieces = tuple(_WORD.findall(compound))
            yield pieces, "name.full", False
            yield ("".join(pieces),), "name.joined", False
    if len(parts) > 2:
        first, *middle, last = parts
        short = [name[0] for name in middle]
        yield (first, *short, last), "name.full", False
        yield (last, first, *short), "name.full", False
        yield (first[0], *short, last), "name.initial", False
        yield (last, first[0], *short), "name.initial", False
        if family_first:
            yield (parts[1], *(name[0] for name in parts[2:]), parts[0]), "name.full", False
            yield (parts[1][0], *(name[0] for name in parts[2:]), parts[0]), "name.initial", False
    if len(parts) > 1:
        for order in (parts, [*parts[1:], parts[0]] if family_first else parts):
            initials = tuple(name[0] for name in order)
            if "".join(initials) not in _NOT_INITIALS:
                yield initials, "name.initials", False
    for part in parts:
        if len(part) >= 2:
            plain = default_lists().flags(part) & (WORD | STOP)
            yield (part,), "name.part", len(part) < 3 or part in ambiguous or part in stop or bool(plain)


def _date_phrases(day: Day) -> Iterator[tuple[str, ...]]:
    year, short = str(day.year), f"{day.year % 100:02d}"
    months, days = {str(day.month), f"{day.month:02d}"}, {str(day.day), f"{day.day:02d}"}
    names = [name for name, number in MONTHS.items() if number == day.month]
    for y in (year, short):
        for d in sorted(days):
            for m in sorted(months):
                yield from ((m, d, y), (d, m, y), (y, m, d))
            for name in names:
                yield from ((d, name, y), (name, d, y), (y, name, d), (f"{d}{name}{y}",))
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day not in (11, 12, 13) else 0, "th")
    for name in names:
        ordinal = f"{day.day}{suffix}"
        yield from ((ordinal, name, year), (name, ordinal, year), (name, ordinal), (ordinal, name))
        yield from (
            (name, str(day.day)),
            (str(day.day), name),
            (ordinal, "of", name),
            (name, year),
            (name, "of", year),
        )
        yield from (
            (ordinal, "of", name, year),
            (str(day.day), "of", name, year),
            (str(day.day), "de", name, "de", year),
        )
    for m in sorted(months):
        yield from ((m, year), (year, m))
    yield (str(day.day), "thang", str(day.month), "nam", year)
    yield (f"{short}{day.month:02d}{day.day:02d}",)
    yield (f"{year}{day.month:02d}{day.day:02d}",)
    yield (f"{day.day:02d}{day.month:02d}{year}",)
    yield (f"{day.month:02d}{day.day:02d}{year}",)


def _id_phrases(value: str) -> Iterator[tuple[str, ...]]:
    parts = _tokens(value)
    joined = "".join(parts)
    if len(joined) < 3:
        return
    yield tuple(parts)
    yield (joined,)
    digits = "".join(char for char in joined if char.isdigit())
    if len(digits) >= 5:
        yield (digits,)
        if len(digits.lstrip("0")) >= 5:
            yield (digits.lstrip("0"),)
        if len(digits) == 9:
            yield (digits[:3], digits[3:5], digits[5:])
        if len(digits) == 10:
            yield (digits[:3], digits[3:6], digits[6:])
    prefix = re.match(r"([a-z]+)(\d{3,})$", joined)
    if prefix:
        yield prefix.group(1), prefix.group(2)


@lru_cache(maxsize=1024)
def phrases(identities: tuple[tuple[str, str], ...]) -> dict[str, list[Phrase]]:
    """The spellings of a study's known PHI by their first token, the longest first."""
    found: dict[tuple[str, ...], Phrase] = {}

    def keep(tokens: tuple[str, ...], kind: str, rule: str, careful: bool) -> None:
        if tokens and tokens not in found:
            found[tokens] = (tokens, kind, rule, careful)

    for kind, value in identities:
        kind = kind.upper()
        if not value or not value.strip() or kind in IGNORED_KINDS:
            continue
        if kind in NAME_KINDS:
            plain = fold(value).replace("'", "")
            forms = (*spellings(value), plain)
            for tokens, rule, careful in (phrase for form in forms for phrase in _name_phrases(form)):
                keep(
                    tokens,
                    "PATIENT" if kind == "PATIENT" else "STAFF" if kind != "PERSON" else kind,
                    rule,
                    careful,
                )
        elif kind in DATE_KINDS:
            day = parse_day(value)
            if day is None:
                keep(tuple(_tokens(value)), "DATE", "date.value", False)
            else:
                for tokens in _date_phrases(day):
                    keep(tokens, "DATE", "date.known", False)
        elif kind in ID_KINDS:
            for tokens in _id_phrases(value):
                keep(tokens, kind, "id.known", False)
        else:
            parts = tuple(_tokens(value))
            if len("".join(parts)) >= 3:
                keep(parts, kind, "value.known", len(parts) == 1 and not value.strip().isdigit())
                keep(("".join(parts),), kind, "value.joined", len(parts) == 1)
    by_first: dict[str, list[Phrase]] = defaultdict(list)
    for phrase in found.values():
        by_first[phrase[0][0]].append(phrase)
    for options in by_first.values():
        options.sort(key=lambda phrase: (-len(phrase[0]), phrase[0]))
    return dict(by_first)


def is_person_here(text: Note, number: int) -> bool:
    """Whether a token that is also a word stands for a person: after a title, or capitalised inside a sentence."""
    if number and text.words[number - 1] in {"dr", "drs", "mr", "mrs", "ms", "miss", "prof", "doctor", "mx"}:
        return "\n" not in text.gap(number - 1)
    token = text.token(number)
    if not token[0].isupper() or text.first_in_sentence(number):
        return False
    return not (len(token) > 1 and token.isupper() and in_capitals(text, number))


def in_capitals(text: Note, number: int) -> bool:
    """Whether the line around a token (within 120 characters) is written in capitals only."""
    start, end = text.starts[number], text.ends[number]
    left, right = max(0, start - 120), min(len(text.view), end + 120)
    first = max(left, text.view.rfind("\n", left, start) + 1)
    last = text.view.find("\n", end, right)
    return text.view[first : last if last >= 0 else right].isupper()


class KnownPhi:
    """Matches the study's identities."""

    name = "known"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of every known value, in every spelling."""
        table = phrases(study.identities)
        if not table:
            return []
        spans: list[Span] = []
        tokens, total, number = text.words, len(text.words), 0
        while number < total:
            advance = 1
            for sequence, kind, rule, careful in table.get(tokens[number], ()):
                size = len(sequence)
                if size > 1:
                    if tuple(tokens[number : number + size]) != sequence:
                        continue
                    if any(not _GAP.fullmatch(text.gap(k)) for k in range(number, number + size - 1)):
                        continue
                    if rule == "name.initial" and not self._initial_fits(text, number, sequence):
                        continue
                    if rule == "name.initials" and not _initials_fit(text, number, size):
                        continue
                elif careful and not is_person_here(text, number):
                    continue
                start, end = text.starts[number], text.ends[number + size - 1]
                spans.append(Span(start, end, kind, self.name, rule, 1.0))
                advance = size
                break
            number += advance
        return spans + _broken_up(text, study.identities, self.name)

    @staticmethod
    def _initial_fits(text: Note, number: int, sequence: tuple[str, ...]) -> bool:
        """An initial must be a capital beside a capital, so that `a white area` is not `A. White`."""
        if "\n" in text.gap(number):
            return False
        if len(sequence[1]) == 1 and _DEGREE_AFTER.match(text.view, text.starts[number + 1]):
            return False
        written = [text.token(number + k) for k in range(len(sequence))]
        return all(word[0].isupper() for word in written)


def _initials_fit(text: Note, number: int, size: int) -> bool:
    """`J.S.` or `J. S.`: capitals, each with a full stop."""
    for place in range(number, number + size):
        if not text.token(place).isupper() or text.view[text.ends[place] : text.ends[place] + 1] != ".":
            return False
    return all(text.gap(place) in (".", ". ") for place in range(number, number + size - 1))


Needle = tuple[str, str, str]


@lru_cache(maxsize=1024)
def needles(identities: tuple[tuple[str, str], ...]) -> tuple[Needle, ...]:
    """(letters and digits without any gap, kind, rule) of what is sought however a text breaks it up."""
    found: dict[str, Needle] = {}
    flags = default_lists().flags
    for kind, value in identities:
        kind = kind.upper()
        if kind in NAME_KINDS:
            label = "PATIENT" if kind == "PATIENT" else "STAFF" if kind != "PERSON" else kind
            for form in spellings(value):
                parts = [part for part in _tokens(form) if part not in _TITLES]
                orders = [parts, parts[::-1], parts[1:] + parts[:1]] if len(parts) > 1 else []
                joined = ["".join(order) for order in orders]
                joined += [part for part in parts if len(part) > 5 and not flags(part) & (WORD | STOP)]
                for text in joined:
                    if len(text) > 5:
                        found.setdefault(text, (text, label, "name.broken"))
        elif kind in ID_KINDS:
            text = "".join(_tokens(value))
            digits = "".join(char for char in text if char.isdigit())
            for needle in (text, digits, digits.lstrip("0")):
                if len(needle) > 4 and any(map(str.isdigit, needle)):
                    found.setdefault(needle, (needle, kind, "id.broken"))
    return tuple(found.values())


def _broken_up(text: Note, identities: tuple[tuple[str, str], ...], layer: str) -> list[Span]:
    """Known values that spaces, hyphens or line breaks cut into other tokens: `Smi th`, `00-48 29.13`."""
    sought = needles(identities)
    if not sought:
        return []
    words = text.words
    squeezed = "".join(words)
    begins: list[int] = []
    spans: list[Span] = []
    for needle, kind, rule in sought:
        place = squeezed.find(needle)
        while place >= 0:
            if not begins:
                begins = list(accumulate((len(word) for word in words), initial=0))
            span = _between(text, begins, place, needle)
            if span:
                spans.append(Span(*span, kind, layer, rule, 1.0))
            place = squeezed.find(needle, place + len(needle))
    return spans


def _between(text: Note, begins: list[int], place: int, needle: str) -> tuple[int, int] | None:
    """Where `[place, place + len(needle))` of the squeezed text lies, if it begins and ends as a word may."""
    first = bisect_right(begins, place) - 1
    last = bisect_right(begins, place + len(needle) - 1) - 1
    inside, tail = place - begins[first], begins[last + 1] - place - len(needle)
    word, end = text.words[first], text.words[last]
    if inside and not (word[inside - 1].isalpha() and needle[0].isdigit()):
        return None
    if tail and not (end[len(end) - tail].isalpha() and needle[-1].isdigit()):
        return None
    if any(len(text.gap(k)) > 4 or text.gap(k).count("\n") > 1 for k in range(first, last)):
        return None
    return text.starts[first] + inside, text.ends[last] - tail
