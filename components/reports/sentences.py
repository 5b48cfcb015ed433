"""Sentence boundaries in radiology prose: decimals, units, abbreviations, list items and vertebral levels."""

from __future__ import annotations

import re

_ABBREVIATIONS = frozenset(
    [
        "dr",
        "drs",
        "mr",
        "mrs",
        "ms",
        "prof",
        "st",
        "jr",
        "sr",
        "vs",
        "v",
        "e.g",
        "i.e",
        "eg",
        "ie",
        "cf",
        "etc",
        "approx",
        "ca",
        "no",
        "nos",
        "fig",
        "figs",
        "im",
        "img",
        "ser",
        "se",
        "vol",
        "dept",
        "hosp",
        "pt",
        "pts",
        "inc",
        "ltd",
        "incl",
        "excl",
        "resp",
        "al",
        "ant",
        "post",
        "lat",
        "med",
        "sup",
        "inf",
        "prox",
        "dist",
        "rt",
        "lt",
        "bilat",
        "min",
        "max",
        "avg",
        "sec",
        "hr",
        "hrs",
        "wk",
        "wks",
        "mo",
        "mos",
        "yr",
        "yrs",
        "y.o",
        "b.i.d",
        "q.d",
        "p.o",
        "i.v",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "art",
        "segm",
        "seg",
        "str",
        "dx",
        "hx",
        "tx",
        "rx",
        "fx",
        "sx",
        "s/p",
        "w/o",
        "c/w",
        "d/w",
        "u.s",
        "a.m",
        "p.m",
    ]
)
_MAY_END = frozenset(
    {
        "etc",
        "al",
        "a.m",
        "p.m",
        "hrs",
        "hr",
        "yrs",
        "yr",
        "wks",
        "mos",
        "sec",
        "min",
        "i.v",
        "p.o",
        "pt",
        "pts",
        "rt",
        "lt",
        "fx",
        "hx",
        "dx",
        "tx",
        "y.o",
        "sup",
        "inf",
        "med",
        "max",
        "no",
        "post",
    }
)
_BREAK = re.compile(
    r"(?P<mark>[.!?]+)(?P<close>[\"')\]]{0,2})(?=\s|$|[A-Z][a-z])|(?P<lines>(?:\r\n|\r|"
    r"\n)(?:[ \t]*+(?:\r\n|\r|\n))*+[ \t]*+)"
)
_ITEM = re.compile(
    r"(?:\(?\d{1,2}[.)](?!\d)|\(?[a-hA-H][.)](?= )|[-*\u2022\u25cf\u00b7\u2013](?= ))\s*(?=\S)"
)
_ONLY_ITEM = re.compile(r"[\s,;]*\(?(?:\d{1,2}|[a-hA-H])[.)]?")
_WORD_BEFORE = re.compile(r"[A-Za-z][\w./]*$")
_LABEL_LINE = re.compile(r"[A-Z][A-Za-z /&,-]{1,40}:$")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Half-open offsets of the sentences of `text[start:end]`, trimmed of white space, in order.

    The number of a list item belongs to the sentence that it introduces.
    """
    limit = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _BREAK.finditer(text, start, limit):
        at, after = match.span()
        if at < begin:
            continue
        if match["mark"]:
            if _ends_sentence(text, begin, at, after, limit, match["mark"]):
                _add(text, begin, after, spans)
                begin = after
        elif _breaks_line(text, begin, at, after, limit, match["lines"]):
            _add(text, begin, at, spans)
            begin = after
    _add(text, begin, limit, spans)
    return spans


def _add(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> None:
    while start < end and (text[start].isspace() or text[start] in ",;"):
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start and any(char.isalnum() for char in text[start : min(end, start + 200)]):
        spans.append((start, end))


def _ends_sentence(text: str, begin: int, at: int, after: int, limit: int, mark: str) -> bool:
    """Whether the mark at `at` ends the sentence that began at `begin`."""
    if mark != ".":
        return True
    head = text[max(begin, at - 24) : at]
    if at - begin <= 6 and _ONLY_ITEM.fullmatch(text[begin:at]):
        return False
    following = text[after : min(limit, after + 12)]
    rest = following.lstrip(" \t")
    word = _WORD_BEFORE.search(head)
    if not word:
        return not rest or _opens(rest, following)
    token = word.group().lower()
    if len(token) == 1 and not _vertebra(head) and text[at - 1].isupper():
        return rest[:1] in "\r\n" or not rest
    if token in _ABBREVIATIONS:
        if not rest or rest[0] in "\r\n":
            return token in _MAY_END or not rest
        if token == "no":
            return not rest[0].isdigit()
        return (
            token in _MAY_END
            and rest[0].isupper()
            and following[:1] in " \t"
            and token not in ("hr", "rt", "lt", "sup", "inf", "med", "pt", "post", "min", "max")
        )
    if not rest or _opens(rest, following):
        return True
    return len(token) > 3 and token.isalpha() and following[0] in " \t"


def _opens(rest: str, following: str) -> bool:
    """Whether what follows can begin a sentence."""
    first = rest[0]
    if first in "\r\n":
        return True
    if following[0] == first and not first.isspace():
        return first.isupper()
    return not first.islower() or bool(re.match(r"[a-z]\)|[a-z]{2,}[A-Z]", rest))


def _vertebra(head: str) -> bool:
    return bool(re.search(r"[CTLS]\d{1,2}$", head))


def _breaks_line(text: str, begin: int, at: int, after: int, limit: int, lines: str) -> bool:
    """Whether a line break ends the sentence: a blank line, a list item, or a line that was complete."""
    if after >= limit:
        return True
    line_start = (
        max(text.rfind("\n", begin, at), text.rfind("\r", begin, at), begin - 1) + 1
        if at - begin < 400
        else at - 400
    )
    line = text[line_start:at].strip()
    if at - begin < 8 and _ONLY_ITEM.fullmatch(text[begin:at].strip() or "-"):
        return False
    if lines.replace("\r\n", "\n").replace("\r", "\n").count("\n") > 1:
        return True
    if _ITEM.match(text, after):
        return True
    first = text[after]
    if line.endswith((".", "!", "?", ";")):
        return not first.islower()
    if _LABEL_LINE.search(line):
        return True
    return (
        first.isupper()
        and len(line) < 55
        and not line.endswith((",", " and", " or", " the", " of", " in", " with", " a", "-"))
    )
