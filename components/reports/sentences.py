"""Sentence boundaries in radiology prose: decimals, units, abbreviations, list items and vertebral levels."""

from __future__ import annotations

import re

from components.reports.lexicon import words

_ABBREVIATIONS = words("abbreviations")
_MAY_END = words("abbreviations_ending")
# a letter after these is a name (`Type B`, `Hepatitis C`, `38.5 C`), not the initial of a person
_NAMED = re.compile(
    r"(?:\b(?:segments?|grades?|types?|stages?|class|category|hepatitis|vitamin|levels?|zones?|group|phase|part|rads|"
    r"score|panel|appendix|section|influenza|factor|protein)|\d)[ -]?$",
    re.IGNORECASE,
)
_BREAK = re.compile(
    r"(?P<mark>[.!?]+)(?P<close>[\"')\]]{0,2})(?=\s|$|[A-Z][a-z])|(?P<lines>(?:\r\n|\r|"
    r"\n)(?:[ \t]*+(?:\r\n|\r|\n))*+[ \t]*+)"
)
_CANDIDATE = re.compile(r"[.!?]+|[\r\n]")
_ITEM = re.compile(
    r"(?:\(?\d{1,2}[.)](?!\d)|\(?[a-hA-H][.)](?= )|[-*\u2022\u25cf\u00b7\u2013](?= ))\s*(?=\S)"
)
_ONLY_ITEM = re.compile(r"[\s,;]*\(?(?:\d{1,2}|[a-hA-H]|[ivx]{1,4}|[IVX]{1,4})[.)]?")
_ITEM_AFTER_LABEL = re.compile(r":\s+\(?\d{1,2}$")
_WORD_BEFORE = re.compile(r"[A-Za-z][\w./]*$")
_LABEL_LINE = re.compile(r"[A-Z][A-Za-z /&,-]{1,40}:$")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Half-open offsets of the sentences of `text[start:end]`, trimmed of white space, in order.

    The number of a list item belongs to the sentence that it introduces.
    """
    limit = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = place = start
    for candidate in _CANDIDATE.finditer(text, start, limit):
        at, after = candidate.span()
        if after == limit:
            break
        if at < place:
            continue  # within a break that was read whole
        if text[at] == "." and _plainly_ends(text, begin, at, limit):
            first = begin + 1 if text[begin] == " " else begin
            if text[first].isalnum():
                spans.append((first, after))
            else:
                _add(text, begin, after, spans)
            begin = place = after
            continue
        place = after
        if at == begin and text[at] in "\r\n":
            begin = after  # a line break right after a sentence
            continue
        match = _BREAK.match(text, at, limit)
        if match is None:
            continue
        after = match.end()
        place = max(after, place)
        if match["mark"]:
            if _ends_sentence(text, begin, at, after, limit, match["mark"]):
                _add(text, begin, after, spans)
                begin = after
        elif _breaks_line(text, begin, at, after, limit, match["lines"]):
            _add(text, begin, at, spans)
            begin = after
    _add(text, begin, limit, spans)
    return spans


def _plainly_ends(text: str, begin: int, at: int, limit: int) -> bool:
    """The usual case, told quickly: a plain word that is no abbreviation, a stop, then a line's end or a capital."""
    if at + 2 >= limit:
        return False
    after = text[at + 1]
    if after == " ":
        if not ((first := text[at + 2]).isupper() or (first.isdigit() and at - begin > 6)):
            return False
    elif after not in "\r\n":
        return False
    low = at - 24 if at - begin > 24 else begin
    word = text[text.rfind(" ", low, at) + 1 or low : at]
    if not word.isalpha():
        return False
    # a short word, or one with a capital, where it cannot be the number of an item (`IV.`)
    if at - begin > 6 and word.isascii():
        return len(word) > 1 and word.lower() not in _ABBREVIATIONS
    return len(word) > 3 and word.islower() and word not in _ABBREVIATIONS


def _add(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> None:
    while start < end and (text[start].isspace() or text[start] in ",;"):
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if end > start and (text[start].isalnum() or any(map(str.isalnum, text[start : min(end, start + 200)]))):
        spans.append((start, end))


def _ends_sentence(text: str, begin: int, at: int, after: int, limit: int, mark: str) -> bool:
    """Whether the mark at `at` ends the sentence that began at `begin`."""
    if mark != ".":
        return True
    head = text[max(begin, at - 24) : at]
    if (at - begin <= 6 and _ONLY_ITEM.fullmatch(text[begin:at])) or (
        head[-1:].isdigit() and _ITEM_AFTER_LABEL.search(head)
    ):
        return False
    following = text[after : min(limit, after + 12)]
    rest = following.lstrip(" \t")
    word = _WORD_BEFORE.search(head)
    if not word:
        return not rest or _opens(rest, following)
    token = word.group().lower()
    if len(token) == 1 and text[at - 1].isupper() and not _NAMED.search(head[:-1]):
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
    return not first.islower() or bool(re.match(r"[a-z]\)|[a-z]+[A-Z]", rest))


def _breaks_line(text: str, begin: int, at: int, after: int, limit: int, lines: str) -> bool:
    """Whether a line break ends the sentence: a blank line, a list item, or a line that was complete."""
    if after >= limit:
        return True
    goes_on = text[after].islower() and len(lines) == 1 and text[after + 1 : after + 2] not in (".", ")")
    if goes_on and at - begin >= 8 and text[at - 1] not in ":;":
        return False
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
