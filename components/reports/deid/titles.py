"""Names after a form of address: `Dr`, `Mrs`, `Uzm. Dr.`, `Sig.ra`, `Bac si`."""

from __future__ import annotations

import re
from bisect import bisect_left

from components.reports.deid.cues import Found, cues, found_at
from components.reports.deid.runs import Scan, Trust, take
from components.reports.deid.wordlists import FOREIGN, STOP, WORD
from components.reports.lexicon import word_set

_BETWEEN = frozenset({" ", ". ", ".", "  ", ".  ", ".\n", "\n", ".-", "./", "/", " / "})
_AND = re.compile(r" (?:and|&) (?=[A-Z])")
_FRENCH = frozenset({"a", "est", "etait", "avait", "presente", "sera"})
SECOND = {"nhan": ("benh", "PATIENT"), "si": ("bac", "STAFF")}


def after_title(scan: Scan, number: int) -> list[Found]:
    """The name after a title at token `number`, further titles between them passed over."""
    word = scan.words[number]
    if not _is_title(scan, number, word):
        return []
    kind, at = cues().titles[word], number + 1
    limit = min(len(scan.words), number + 7)
    while at < limit and (scan.words[at] in cues().chain or scan.words[at] in cues().titles):
        after = scan.view[scan.ends[at] : scan.ends[at] + 1]
        if (
            scan.gap(at - 1) not in _BETWEEN
            or scan.words[at] == "d"
            or (len(scan.words[at]) == 1 and after != ".")
        ):
            break
        if scan.words[at] in word_set("titles.names_too") and scan.shape(at) == "C" and after != ".":
            break
        at += 1
    if at >= len(scan.words) or scan.gap(at - 1) not in _BETWEEN:
        return []
    found = found_at(scan, take(scan, at, Trust.TITLE), kind, "name.title", 1.0)
    if found and word == "drs" and (match := _AND.match(scan.view, found[0][1])):
        second = bisect_left(scan.starts, match.end())
        found += found_at(scan, take(scan, second, Trust.TITLE), kind, "name.title", 1.0)
    return found


def after_two_words(scan: Scan, number: int) -> list[Found]:
    """The name after a title of two words (`benh nhan`, `bac si`), in notes that are not English."""
    first, kind = SECOND[scan.words[number]]
    if scan.english or number == 0 or scan.words[number - 1] != first or scan.gap(number - 1) != " ":
        return []
    at = number + 1
    if at >= len(scan.words) or scan.flags[at] & (FOREIGN | STOP) or scan.gap(number) not in (" ", ". "):
        return []
    return found_at(scan, take(scan, at, Trust.TITLE), kind, "name.title", 0.9)


def _french(scan: Scan, number: int) -> bool:
    """`M. Dale a ete vu`: the French verb after the name says that `M.` is a form of address."""
    return scan.words[number] == "m" and any(word in _FRENCH for word in scan.words[number + 2 : number + 4])


def _is_title(scan: Scan, number: int, word: str) -> bool:
    """Whether `MR`, `MS`, `Dr` is a form of address here, and not an examination, a valve or milliseconds."""
    if number + 1 >= len(scan.words) or scan.gap(number) not in _BETWEEN:
        return False
    written, gap, shape = (
        scan.view[scan.starts[number] : scan.ends[number]],
        scan.gap(number),
        scan.shape(number),
    )
    if word in ("sig", "dott") and gap == "." and scan.words[number + 1] in ("ra", "ssa", "na", "re"):
        return True
    if word in ("mr", "ms", "mx", "mrs"):
        if written.isupper() and word in ("mr", "ms"):
            if not scan.upper_line(number):
                return False
            strange = (
                scan.familiar
                and scan.strange(number + 1)
                and (word == "ms" or scan.words[number - 1] == "of")
            )
            return "." in gap or scan.listed(number + 1) or strange
        measured = number > 0 and scan.gap(number - 1) == " " and scan.words[number - 1][-1].isdigit()
        return written[0].isupper() or not measured
    if word == "bs" and scan.words[number + 1] in ("chi", "doc", "dieu"):
        return False
    if word == "sister" and tuple(scan.words[number + 1 : number + 3]) == ("mary", "joseph"):
        return False
    if word in word_set("titles.sure"):
        return True
    if word in word_set("titles.short"):
        if scan.english and word in word_set("titles.not_english") and not _french(scan, number):
            return False
        return scan.shape(number + 1) != "l" and not scan.flags[number + 1] & STOP
    if number and scan.words[number - 1] == "dear":
        return True
    if shape == "l":
        return False
    named = word in word_set("titles.words") and scan.shape(number + 1) == "C"
    return named or not scan.flags[number + 1] & (WORD | STOP)
