"""Cut a report into sections that cover every character, whatever style its headings have.

Which styles: `components.reports.layouts`. Findings without a heading: `components.reports.narrative`. A report
without headings is findings with confidence `low`. A text may hold several studies, each with its addenda.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from components.reports.headings import normalised
from components.reports.inline import inline_ending, inline_marks, may_hold
from components.reports.layouts import BLANK, PART, Line, Mark, is_plain, line_mark
from components.reports.narrative import LINE, with_findings, with_preamble

_ESCAPED = re.compile(
    r"\\\.br\\|\\r\\n|\\n(?=[\sA-Z\\]|$)|</?(?:br|p|div|li|tr|ul|ol)(?: [^<>]{0,60})?/?>", re.IGNORECASE
)
_RULE = re.compile(rf"[{BLANK}]*[-=_*~#.\u2500\u2550]{{3,}}[{BLANK}]*")
_ESCAPED_END = re.compile(rf"(?:{_ESCAPED.pattern})\Z", re.IGNORECASE)
_ESCAPED_LINE = re.compile(rf"(?:{_ESCAPED.pattern}|[\r\n])+", re.IGNORECASE)
_RULES = frozenset("-=_*~#.\u2500\u2550\\<")
_RULE_END = re.compile(rf"[\r\n][{BLANK}]*[-=_*~#\u2500\u2550]{{3,}}\Z")
_TAG = re.compile(r"\[[A-Z_]+\]")
_INTERPRETS = frozenset(
    {"INTERPRETATION", "INTERPRETATIONS", "DISCUSSION", "RESULT", "RESULTS", "EVALUATION"}
)
_DANGLING = frozenset(
    [
        "a",
        "an",
        "and",
        "any",
        "as",
        "at",
        "by",
        "for",
        "from",
        "in",
        "no",
        "of",
        "on",
        "or",
        "our",
        "the",
        "these",
        "this",
    ]
)
_CLOSED = frozenset(".:;!?*]_")
_BEGINS = frozenset({"exam", "indication", "technique", "comparison"})
_NONE = re.compile(
    r"(?:none|n/?a|nan|null|nil|unknown|unavailable|as above|see above|not (?:available|"
    r"applicable|provided|given|stated|specified)|none (?:available|provided|given|stated)|"
    r"no (?:relevant )?(?:(?:prior|previous|comparison|outside)s?(?: (?:relevant |available )?(?:ct|mri?|pet|"
    r"stud(?:y|ies)|exam\w*|imaging|images?|films?|scans?|radiographs?|comparisons?|reports?)[\w -]{0,40})?|"
    r"clinical \w+|history)"
    r"(?: (?:is |are |was |were )?(?:available|provided|given|stated))?(?: for comparison)?|"
    r"yok(?:tur)?|keine?(?: (?:vor|vergleich|angabe)\w*)?|aucune?(?: (?:examen|comparaison)[\w -]{0,30})?|ningun[oa]|"
    r"no disponibles?|sin (?:estudios?|comparaci|antecedente|informaci)[\w -]{0,30}|không(?: có)?|[-_.=*]+)[.,;]?",
    re.IGNORECASE,
)
_NONE_BEGINS = frozenset("nNuUaAsSyYkK-_.=*")
COLUMNS = {
    "indication": "CLINICAL INFORMATION",
    "technique": "TECHNIQUE",
    "comparison": "COMPARISON",
    "findings": "FINDINGS",
    "impression": "IMPRESSION",
}


class Section(NamedTuple):
    """A section: its heading begins at `heading_start`, its trimmed body is `[start, end)`.

    Section i covers `[heading_start_i, heading_start_{i+1})`. `part` is 0 in the report and counts addenda.
    `reason` says why a body is empty: `empty`, `none_stated`, `redacted`.
    """

    order: int
    name: str
    heading_start: int
    start: int
    end: int
    text: str
    confidence: str
    reason: str | None
    part: int
    study: int


def sections(text: str) -> list[Section]:
    """The sections of a report in order; together they cover every character."""
    marks = with_findings(text, with_preamble(text, _marks(text)))
    last = max((i for i, mark in enumerate(marks) if mark.name in ("findings", "impression")), default=-1)
    found: list[Section] = []
    seen: set[str] = set()
    part = study = 0
    for order, mark in enumerate(marks):
        limit = marks[order + 1].at if order + 1 < len(marks) else len(text)
        if order < last and _is_new_study(mark.name, seen, part):
            study, part, seen = study + 1, 0, set()
        part += mark.name == "addendum"
        seen.add(mark.name)
        start, end = _trimmed(text, min(mark.body, limit), limit)
        body = text[start:end]
        found.append(
            Section(order, mark.name, mark.at, start, end, body, mark.confidence, _reason(body), part, study)
        )
    return found


def _is_new_study(name: str, seen: set[str], part: int) -> bool:
    """Whether a section begins a further study: a new exam, or a part that the study has before its impression."""
    if not seen & {"findings", "impression"}:
        return False
    if name == "exam":
        return True
    return (
        not part
        and "impression" in seen
        and name in ("indication", "technique", "comparison")
        and name in seen
    )


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A body without the white space, markup, rules and escaped line breaks around it."""
    while start < end and not text[start].isalnum() and (after := _opening(text, start, end)) > start:
        start = after
    while end > start and text[end - 1] != "." and (before := _closing(text, start, end)) < end:
        end = before
    return start, end


def _opening(text: str, start: int, end: int) -> int:
    """Where a body begins that begins at `start`, one piece of white space or markup further."""
    if text[start].isspace() or text[start] in "\u200b\ufeff":
        return start + 1
    if text.startswith(("**", "__"), start) and not text.startswith("___", start):
        return min(start + 2, end)
    if text[start] not in _RULES:
        return start
    alone = text[max(0, start - 20) : start].rstrip(BLANK)[-1:] in (
        "",
        "\n",
        "\r",
    )  # `___.` beside a heading is no rule
    match = _RULE.match(text, start, end) if alone else None
    if match and (match.end() == end or text[match.end()] in "\r\n"):
        return match.end()
    escaped = _ESCAPED.match(text, start, end)
    return escaped.end() if escaped else start


def _closing(text: str, start: int, end: int) -> int:
    """Where a body ends that ends at `end`, one piece of white space or markup earlier."""
    last = text[end - 1]
    if last.isspace():
        return end - 1
    match = None
    if last in "\\>nrNR":
        match = _ESCAPED_END.search(text, max(start, end - 8), end)
    elif last in "-=_*~#\u2500\u2550":
        match = _RULE_END.search(text, max(start, end - 200), end)
    return match.start() if match else end


def compose(columns: Mapping[str, str | None]) -> str:
    """One text from columns that were split before (keys as in `COLUMNS`); `sections` gives them back."""
    parts = []
    for name, heading in COLUMNS.items():
        value = columns.get(name)
        if value is not None and str(value).strip() and str(value).strip().lower() != "nan":
            parts.append(f"{heading}: {str(value).strip()}")
    return "\n\n".join(parts)


def _reason(body: str) -> str | None:
    if not body:
        return "empty"
    if len(body) <= 60 and body[0] in _NONE_BEGINS and _NONE.fullmatch(body):
        return "none_stated"
    if len(body) <= 60 and body[0] == "[" and not re.search(r"[A-Za-z0-9]", _TAG.sub("", body)):
        return "redacted"
    return None


def _marks(text: str) -> list[Mark]:
    marks: list[Mark] = []
    lines = _lines(text)
    filled = [number for number, (_, content) in enumerate(lines) if not content.isspace()]
    open_before, closed_before, end_before = False, True, 0
    for place, number in enumerate(filled):
        start, content = lines[number]
        blank = not place or (start - end_before > 1 and _is_blank(text[end_before:start]))
        if is_plain(content, blank):
            end_before = start + len(content)
            closed_before = content[-1] in _CLOSED or content.rstrip()[-1] in _CLOSED
            open_before = not closed_before
            continue
        after = lines[filled[place + 1]][1] if place + 1 < len(filled) else ""
        current = marks[-1].name if marks else "header"
        goes_on = open_before and not blank
        dangling = (
            not blank
            and not closed_before
            and text[max(0, end_before - 16) : end_before].rstrip().rpartition(" ")[2].lower() in _DANGLING
        )
        mark = line_mark(Line(content, start, blank, goes_on, after, dangling), current)
        if mark:
            marks.append(mark)
        offset = mark.body - start if mark else 0
        if may_hold(content, offset):
            within = inline_marks(content, start, offset, mark.name if mark else None)
            if within and (len(within) > 1 or len(filled) == 1):
                body = max((item.body for item in within if item.name != "signature"), default=offset + start)
                taken = {item.at for item in within}
                ending = inline_ending(content, start, body - start)
                within = sorted(
                    [*within, *(item for item in ending if item.at not in taken)], key=lambda item: item.at
                )
            marks += within
        end_before = start + len(content)
        closed_before = content[-1] in _CLOSED or content.rstrip()[-1] in _CLOSED
        open_before = mark is None and not closed_before
    return _concluded(text, _settled(marks))


def _concluded(text: str, marks: list[Mark]) -> list[Mark]:
    """Where a study has no impression, the comment or the interpretation after its findings is its impression."""
    names = [mark.name for mark in marks]
    if "impression" in names or "findings" not in names or names.count("exam") > 1:
        return marks
    first = names.index("findings")
    for place in range(len(marks) - 1, first, -1):
        mark = marks[place]
        heading = normalised(text[mark.at : mark.body]) if mark.body - mark.at < 80 else ""
        if mark.name == "comment" or (mark.name == "findings" and heading in _INTERPRETS):
            return [
                *marks[:place],
                mark._replace(name="impression", confidence="medium"),
                *marks[place + 1 :],
            ]
    return marks


def _settled(marks: list[Mark]) -> list[Mark]:
    """Findings that `LIVER:` or `CT ABDOMEN:` opened count where no heading of findings follows in the study."""
    if not any(mark.confidence == PART for mark in marks):
        return marks
    settled: list[Mark] = []
    headed = False
    for mark in reversed(marks):
        if mark.confidence == PART:
            if not headed:
                settled.append(mark._replace(confidence="medium"))
            continue
        headed = (headed or mark.name == "findings") and mark.name not in ("exam", "impression")
        settled.append(mark)
    return settled[::-1]


def _lines(text: str) -> list[tuple[int, str]]:
    """(place, content) of every line; an export that escaped its line breaks has its lines between the escapes."""
    found = [(line.start(), line.group()) for line in LINE.finditer(text)]
    if len(found) > 2 or not _ESCAPED.search(text):
        return found
    pieces, begin = [], 0
    for mark in _ESCAPED_LINE.finditer(text):
        pieces.append((begin, text[begin : mark.start()]))
        begin = mark.end()
    pieces.append((begin, text[begin:]))
    return [piece for piece in pieces if piece[1]]


def _is_blank(gap: str) -> bool:
    """Whether an empty line lies between two lines."""
    if "\r" not in gap:
        return gap.count("\n") > 1
    return gap.replace("\r\n", "\n").replace("\r", "\n").count("\n") > 1
