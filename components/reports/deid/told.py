"""Names after words of telling and doing (`signed by`, `discussed with`, `paged`), before verbs, and of relatives."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from components.reports.deid.cues import Found, cues, found_at
from components.reports.deid.runs import DEGREES, PARTICLES, Scan, Trust, degree_at, take, take_back
from components.reports.deid.titles import SECOND
from components.reports.deid.wordlists import EPONYM, FAMILY, FOREIGN, GIVEN, NAME, STOP, WORD
from components.reports.lexicon import word_set

_PASSIVE = word_set("names.passive")
_TOLD = word_set("names.told")
_LEADS = word_set("names.leads")
_MARKS = frozenset({"es", "s"})
_TEAMS = word_set("names.teams")
_MORE = re.compile(
    r"(?:,? (?:M\.?D\.?|R\.?N\.?|NP|PA-?C?|DO))?(?: ?/ ?|,? (?:and|&) )(?:Dr\.? )?(?=\w)", re.IGNORECASE
)
Rule = Callable[[Scan, int], list[Found]]


def _colon_after(scan: Scan, number: int) -> bool:
    return scan.view[scan.ends[number] : scan.ends[number] + 2].lstrip()[:1] == ":"


def _by(scan: Scan, number: int) -> list[Found]:
    known = cues()
    before = scan.words[number - 1] if number else ""
    colon = _colon_after(scan, number)
    verb = before in known.by or bool(
        set(scan.words[max(0, number - 5) : number]) & known.sure | known.by & {before}
    )
    verb = verb or "presented" in scan.words[max(0, number - 6) : number]
    if number + 1 >= len(scan.words) or not (colon or verb or _person_like(scan, number + 1)):
        return []
    if not set(scan.gap(number)) <= set(" :=*_\n-") or scan.gap(number).count("\n") > 1:
        return []
    sure = colon or before in known.sure
    at = _past_leads(scan, number + 1)
    trust = Trust.LABEL if sure else Trust.TOLD
    run = take(scan, at, trust, comma=True)
    if (
        run
        and run[0] == run[1]
        and len(scan.words[run[0]]) < 4
        and not scan.flags[run[0]] & NAME
        and not sure
    ):
        return []
    found = found_at(scan, run, "STAFF", "name.by" if sure else "name.told", 0.95 if sure else 0.8)
    return found + (_more(scan, run, trust, found[0][3]) if run else [])


def _person_like(scan: Scan, at: int) -> bool:
    """A capital name after `by` without a verb of reporting: listed, or two strange words."""
    if scan.shape(at) != "C" or coined(scan, at):
        return False
    follow = at + 1 < len(scan.words) and scan.gap(at) == " " and scan.shape(at + 1) == "C"
    return scan.listed(at) or (scan.strange(at) and follow and (scan.strange(at + 1) or scan.listed(at + 1)))


def _past_leads(scan: Scan, at: int) -> int:
    """The token after roles and articles: `by the attending radiologist Jane Roe`."""
    limit = at + 4
    while at < min(limit, len(scan.words) - 1) and scan.words[at] in _LEADS and "\n" not in scan.gap(at - 1):
        at += 1
    return at


def _more(scan: Scan, run: tuple[int, int], trust: Trust, rule: str) -> list[Found]:
    """Further names of a list: `by A. Roe and B. Doe`, `Smith/Jones`."""
    found: list[Found] = []
    for _ in range(4):
        place = _MORE.match(scan.view, scan.ends[run[1]])
        if not place:
            break
        at = bisect_left(scan.starts, place.end())
        if at >= len(scan.words) or not (scan.listed(at) or scan.strange(at) or scan.shape(at) == "C"):
            break
        following = take(scan, at, Trust.TOLD)
        if not following:
            break
        run = following
        found += found_at(scan, run, "STAFF", rule, 0.8)
    return found


def _told(preposition: str) -> Rule:
    def rule(scan: Scan, number: int) -> list[Found]:
        verbs = cues().told[preposition]
        window = 1 if preposition == "of" else 9
        if not any(
            scan.words[k] in verbs for k in range(max(0, number - window), number)
        ) or number + 1 >= len(scan.words):
            return []
        at = _past_leads(scan, number + 1)
        if not set(scan.gap(at - 1)) <= set(" .,:(\n") or scan.gap(at - 1).count("\n") > 1:
            return []
        run = take(scan, at, Trust.TOLD)
        if run and preposition in ("of", "for") and not _like_a_name(scan, run):
            return []
        found = found_at(scan, run, "STAFF", "name.told", 0.8)
        return found + (_more(scan, run, Trust.TOLD, "name.told") if run else [])

    return rule


def _direct(scan: Scan, number: int) -> list[Found]:
    word = scan.words[number]
    slashed = word == "w" and number > 0 and scan.words[number - 1] == "d" and scan.gap(number - 1) == "/"
    if word in ("d", "w") and not slashed:
        return []
    if number + 1 >= len(scan.words) or not set(scan.gap(number)) <= set(" ,:("):
        return []
    at = _past_leads(scan, number + 1)
    run = take(scan, at, Trust.TOLD)
    found = found_at(scan, run, "STAFF", "name.told", 0.8)
    return found + (_more(scan, run, Trust.TOLD, "name.told") if run else [])


def _kin(scan: Scan, number: int) -> list[Found]:
    if number + 1 >= len(scan.words) or scan.gap(number) not in (" ", ", ", " (", ": ", " - "):
        return []
    at = number + 1
    if scan.words[at] == "named" and at + 1 < len(scan.words):
        at += 1
    named = scan.gap(number) == ", " and scan.shape(at) == "C" and bool(scan.flags[at] & GIVEN)
    run = take(scan, at, Trust.LABEL if named else Trust.TOLD)
    if run is None and scan.gap(number) == ", " and at + 1 < len(scan.words):
        both = (
            scan.flags[at] & NAME
            and scan.flags[at + 1] & NAME
            and not (scan.flags[at] | scan.flags[at + 1]) & STOP
        )
        closed = scan.view[scan.ends[at + 1] : scan.ends[at + 1] + 1] in (",", ".", "(", ")")
        run = (at, at + 1) if both and closed and scan.gap(at) == " " else None
    if run is None or (scan.flags[run[0]] & WORD and not scan.flags[run[0]] & NAME):
        return []
    if not any(scan.flags[k] & NAME or scan.strange(k) for k in range(run[0], run[1] + 1)):
        return []
    return found_at(scan, run, "PERSON", "name.kin", 0.8)


def _like_a_name(scan: Scan, run: tuple[int, int]) -> bool:
    """A run with a name that is nothing else, with a strange word, or `Given Family` in capitals amid small letters."""
    if any(scan.listed(k) or scan.strange(k) for k in range(run[0], run[1] + 1)):
        return True
    whole = run[1] > run[0] and scan.flags[run[0]] & GIVEN and scan.flags[run[1]] & FAMILY
    return bool(whole) and scan.shape(run[0]) == scan.shape(run[1]) == "C"


def _role(scan: Scan, number: int) -> list[Found]:
    """`technologist Jane Roe`, `the covering physician (Jane Roe)`: a listed or a strange name after a role."""
    at = number + 1
    if at >= len(scan.words) or scan.gap(number) not in (" ", " (", ", "):
        return []
    run = take(scan, at, Trust.TOLD)
    if run is None or not _like_a_name(scan, run):
        return []
    if run[0] == run[1] and scan.gap(number) == ", ":
        return []
    return found_at(scan, run, "STAFF", "name.role", 0.75)


def _signed(scan: Scan, number: int) -> list[Found]:
    """`/es/ Jane Roe`, `/s/ Jane Roe`: the mark of an electronic signature."""
    start, end = scan.starts[number], scan.ends[number]
    if (
        scan.view[start - 1 : start] != "/"
        or scan.view[end : end + 1] != "/"
        or number + 1 >= len(scan.words)
    ):
        return []
    return found_at(scan, take(scan, number + 1, Trust.TITLE), "STAFF", "name.by", 0.95)


def _alias(scan: Scan, number: int) -> list[Found]:
    at, word = number + 1, scan.words[number]
    if word == "formerly" and scan.words[at : at + 2] == ["known", "as"]:
        at += 2
    elif word == "maiden" and scan.words[at : at + 1] == ["name"]:
        at += 1
    elif word in ("formerly", "maiden", "born"):
        return []
    if at >= len(scan.words) or scan.gap(at - 1) not in (" ", ": ", " - ", ". ", ", "):
        return []
    return found_at(scan, take(scan, at, Trust.LABEL), "PATIENT", "name.alias", 0.85)


def subject(scan: Scan, number: int) -> list[Found]:
    """`NAME acknowledged`, `NAME was notified`."""
    word = scan.words[number]
    if number == 0 or scan.gap(number - 1) not in (" ", ", ", ") ", "\n", ". "):
        return []
    if word in _PASSIVE:
        after = scan.words[number + 1 : number + 4]
        if not any(verb in _TOLD for verb in after):
            return []
    elif scan.words[number - 1] in _PASSIVE:
        return []
    at = number - 1
    if scan.gap(at) not in (" ", ", ", "\n"):
        return []
    if degree_at(scan, at) and at:
        at -= 1
    if scan.flags[at] & (STOP | FOREIGN) and not scan.flags[at] & NAME:
        return []
    run = take_back(scan, at)
    if (
        run
        and run[0] == run[1]
        and scan.flags[at] & WORD
        and (scan.note.first_in_sentence(at) or scan.shape(at) != "C")
    ):
        return []
    return found_at(scan, run, "STAFF", "name.subject", 0.7)


def owner(scan: Scan, number: int) -> list[Found]:
    """`NAME's team`, `NAME's husband`."""
    if number == 0 or scan.gap(number - 1) != "'" or number + 1 >= len(scan.words):
        return []
    if scan.words[number + 1] not in cues().owned or scan.gap(number) != " ":
        return []
    run, flags = take_back(scan, number - 1), scan.flags[number - 1]
    if run is None and flags & FAMILY and not flags & (STOP | EPONYM) and scan.words[number + 1] in _TEAMS:
        run = (number - 1, number - 1) if scan.shape(number - 1) != "l" else None
    return found_at(scan, run, "PERSON", "name.owner", 0.75)


def before_degree(scan: Scan, number: int) -> list[Found]:
    """`Jane Roe, MD`: the name before a degree at token `number`."""
    gap = scan.gap(number - 1)
    if gap not in (", ", " ", ",", ",  ", " , ", " (", ". ", " - "):
        return []
    shape = scan.shape(number - 1)
    written = scan.view[scan.starts[number] : scan.ends[number]]
    if (
        (written.islower() and shape != "n")
        or (gap in (" ", ". ") and scan.words[number] in ("do", "rt", "m", "pa", "d", "r", "n", "p"))
    ) and not ("." in scan.view[scan.ends[number] : scan.ends[number] + 1] and gap == ", "):
        return []
    first, place, named = number, number - 1, False
    while place >= 0 and number - place <= 5:
        word, flags = scan.words[place], scan.flags[place]
        step = scan.gap(place)
        comma = (
            step in (", ", ",")
            and place < number - 1
            and "," not in scan.view[scan.ends[place + 1] : scan.starts[number]]
        )
        joined = place == number - 1 or step in (" ", "  ", "-", "'") or comma
        joined = joined or (step in (". ", ".") and (len(word) == 1 or word in PARTICLES))
        if (
            not joined
            or not word.isalpha()
            or (flags & STOP and not (flags & NAME and scan.shape(place) == "C" and len(word) > 2))
        ):
            break
        if degree_at(scan, place) and place < number - 1:
            break
        if (
            scan.shape(place) != "C"
            and flags & (WORD | FOREIGN)
            and not flags & NAME
            and word not in PARTICLES
        ):
            break
        named = named or bool(flags & NAME) or scan.strange(place)
        first, place = place, place - 1
    while (
        first < number and scan.words[first] in PARTICLES and scan.shape(first) == "l" and number - first > 2
    ):
        first += 1
    if first == number or (number - first == 1 and ("," not in gap or len(scan.words[first]) == 1)):
        return []
    if not named and not ("," in gap and shape == "C"):
        return []
    return [(scan.starts[first], scan.ends[number - 1], "STAFF", "name.degree", 0.9)]


def coined(scan: Scan, number: int) -> bool:
    """An abbreviation or a brand (`MultiHance`, `SOMATOM`) rather than a name."""
    written = scan.view[scan.starts[number] : scan.ends[number]]
    inner = written[1:] != written[1:].lower()
    return written.isupper() or (inner and not written.startswith(("Mc", "Mac", "De", "O")))


@cache
def rules() -> dict[str, tuple[Rule, ...]]:
    """The rules that begin at a word."""
    known = cues()
    table: dict[str, list[Rule]] = {"by": [_by]}
    for preposition in known.told:
        table.setdefault(preposition, []).append(_told(preposition))
    for words, rule in (
        (known.direct, _direct),
        (known.kin, _kin),
        (known.alias, _alias),
        (known.role, _role),
        (_MARKS, _signed),
    ):
        for word in words:
            table.setdefault(word, []).append(rule)
    for word in known.subject | _PASSIVE:
        table.setdefault(word, []).append(subject)
    table.setdefault("s", []).append(owner)
    return {word: tuple(options) for word, options in table.items()}


@cache
def triggers() -> frozenset[str]:
    """Words at which a rule may begin."""
    return frozenset(rules()) | frozenset(SECOND) | frozenset(cues().titles) | DEGREES
