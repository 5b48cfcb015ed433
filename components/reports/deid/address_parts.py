"""What belongs to an address of which parts were found: what stands between two parts, the house number before one.

`Hougang St 21, Unit 01-45, S(530203)`, `85 Main Street, PO Box 340, Burin`: words of streets and houses, short numbers
and commas. By themselves they say nothing, so that nothing here begins an address.
"""

from __future__ import annotations

import re
from itertools import pairwise

from components.reports.deid.runs import Scan
from components.reports.deid.surroundings import Surroundings
from components.reports.lexicon import word_set

_SITES = frozenset("AHI")
_WIDEST = 4
_LINKED = re.compile(r"[ ,./()#&\u00ba-]{1,4}")
_HOUSE = re.compile(r"\d{1,4}[a-z]?")
_STREET = word_set("address_parts.words")
_BEFORE_HOUSE = word_set("address_parts.house")


def of_address(around: Surroundings) -> list[tuple[int, str]]:
    """Tokens that belong to an address of which parts were found: between two parts, and a house number before one."""
    scan, covered = around.scan, around.covered
    found: list[tuple[int, str]] = []
    ordered = sorted(number for number, kind in covered.items() if kind in _SITES)
    for left, right in pairwise(ordered):
        inner = range(left + 1, right)
        ends = (_class(around, left), covered[right])
        postal = "A" in ends or ("H" in ends and _numbered(scan, left, right))
        if not 0 < len(inner) <= _WIDEST or not postal:
            continue
        gaps = [scan.gap(number) for number in range(left, right)]
        if any(not _LINKED.fullmatch(gap) for gap in gaps) or not any("," in gap for gap in gaps):
            continue
        if all(_of_street(scan, number) for number in inner):
            found += [(number, "A") for number in inner if number not in covered]
    return found + [
        (number, "A") for start in ordered if start - 1 not in covered for number in _house(scan, start)
    ]


def _class(around: Surroundings, number: int) -> str:
    """The class of a token; a number is of what stands before it (`St 21`)."""
    before = around.covered.get(number - 1, "I")
    beside = around.covered[number] == "I" and around.scan.gap(number - 1) == " " if number else False
    return before if beside else around.covered[number]


def _numbered(scan: Scan, left: int, right: int) -> bool:
    """Whether a number stands in or at the ends: what lies between two institutions without one is no address."""
    return any(any(map(str.isdigit, scan.words[number])) for number in range(left, right + 1))


def _of_street(scan: Scan, number: int) -> bool:
    word = scan.words[number]
    return word in _STREET or (any(map(str.isdigit, word)) and len(word) < 8)


def _house(scan: Scan, start: int) -> list[int]:
    """The number (and `Plot`, `Blk`) before the first word of a street, at the beginning of a part of a line."""
    number = start - 1
    if number < 0 or scan.gap(number) not in (" ", ", ") or not _HOUSE.fullmatch(scan.words[number]):
        return []
    first = number - 1 if number and scan.words[number - 1] in _BEFORE_HOUSE else number
    before = scan.view[max(0, scan.starts[first] - 3) : scan.starts[first]].rstrip(" ")
    opened = not before or before[-1] in ",\n:(;" or before.endswith(" -")
    last = start
    while last + 1 < len(scan.words) and last - start < 4 and scan.gap(last) == " ":
        last += 1
        if scan.words[last] in _STREET:
            break
    closed = scan.words[last] in _STREET or scan.view[scan.ends[start] : scan.ends[start] + 1] == ","
    return list(range(first, start)) if opened and (closed or first < number) else []
