"""Cut a report into sections that cover every character, whatever style its headings have.

Styles: `FINDINGS:` after a newline and spaces, flush left, alone on its line, `Findings:`, `**Findings**`,
`FINDINGS - text`, run-on in one line, CRLF. A report without headings is findings with confidence `low`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from components.reports.headings import CORE, heading_at_end, section_of, subheadings

_LINE = re.compile(r"[^\r\n]+")
_START = re.compile(
    r"[ \t]*(?P<mark>[*_#>=-]{1,6} ?)?(?P<words>[A-Za-z][A-Za-z0-9 /&,.()'#-]{1,60}?)"
    r"(?P<stop> ?[*_=]{0,6} ?: ?[*_]{0,3}| ?(?:\*\*|__) ?:? ?| +[-\u2013\u2014]{1,3} +|"
    r"[ \t]*[*_=]{0,6}[ \t]*$|\t| {2,})"
)
_CAPITALS = re.compile(r"[ \t]*(?P<words>[A-Z]{5,}(?: [A-Z]{2,}){0,4}) (?=[A-Z][a-z]|\d\.|No |There )")
_INLINE = re.compile(
    r"(?<=[.!?;,:)\]] )(?P<words>[A-Z][A-Za-z]{3,}(?: [A-Za-z]{2,}){0,4}) ?:|"
    r"(?<=[^\n:] )(?P<caps>[A-Z]{4,}(?: [A-Z]{2,}){0,5}) ?:|"
    r"(?<=[.!?] )(?P<dash>[A-Z]{6,14}) [-\u2013] "
)
_SIGNED = re.compile(
    r"[ \t]*(?:(?:this report (?:was|has been) )?(?:electronically |digitally |e-)?(?:signed|"
    r"dictated|interpreted|transcribed|read|approved|verified|prepared|reported|reviewed|"
    r"finali[sz]ed|authenticated|attested)(?:,? (?:and )?(?:signed|approved|interpreted|verified|"
    r"reviewed))?(?: off)? by\b|electronically signed\b|end of (?:report|impression)\b|cc:)",
    re.IGNORECASE,
)
_TOLD = re.compile(
    r"[ \t]*(?:(?:these|the|critical|above|all|preliminary|important|urgent) )*(?:findings|"
    r"results|report)(?: (?:for|of|on) [^\r\n]{1,60}?)? (?:were|was|has been|"
    r"have been) (?:immediately |verbally |personally )?(?:communicated|discussed|called|relayed|"
    r"conveyed|telephoned|phoned)\b",
    re.IGNORECASE,
)
_AFTER_SENTENCE = re.compile(
    r"(?<=[.!?] )(?=(?:Electronically|Digitally|Signed|Dictated|Interpreted|Reported|Approved|"
    r"Verified|Transcribed|Read|Prepared|The|These|Findings|Results|Critical)\b)"
)
_ADDENDUM = re.compile(
    r"[ \t]*[*=_#-]{0,6} ?addendum\b[^:\r\n]{0,60}?(?::|[*=_]{2,6}|[ \t]*$)", re.IGNORECASE
)
_LEVELS = re.compile(r"[ \t]*[CTLS]\d{1,2}(?:[-/, ]{1,3}(?:[CTLS]?\d{1,2})){0,8}:")
_EXAM = re.compile(
    r"\b(?:CT|CTA|MRI|MR|PET|PET/CT|HRCT|RADIOGRAPH|ULTRASOUND|TOMOGRAPHY|COMPUTED|X-RAY|SCAN)\b"
)
_CT_PART = re.compile(r"(?:CT|CTA|HRCT)(?: SCAN)?(?: OF)?(?: THE)? [A-Z ,/&]{4,40}$")
_TECHNICAL = re.compile(
    r"\b(?:technique|perform(?:ed|ing)|obtain(?:ed|ing)|acquir(?:ed|ing)|reconstruct\w*|"
    r"reformat\w*|administ(?:ered|ration)|contrast|scann(?:ed|er|ing)|protocol|utili[sz](?:ed|"
    r"ing)|slices?|collimation|comparison|"
    r"compared|isovue|omnipaque|intravenous\w*|kvp?|mas|dose|helical|spiral|mm sections?|"
    r"images were|axial (?:ct )?images|workstation|post-?process\w*|history|indication|"
    r"year[- ]old|referr\w+)\b",
    re.IGNORECASE,
)
_TAG = re.compile(r"\[[A-Z_]+\]")
_NONE = re.compile(
    r"(?:none|n/?a|nan|null|nil|unknown|unavailable|as above|see above|not (?:available|"
    r"applicable|provided|given|stated|specified)|none (?:available|provided|given|stated)|"
    r"no (?:prior|previous|comparison|relevant)[\w -]{0,40}(?:available)?|[-_.=*]+)[.,;]?",
    re.IGNORECASE,
)
_BEFORE_FINDINGS = frozenset(
    {"exam", "indication", "technique", "comparison", "header", "other", "limitations"}
)
COLUMNS = {
    "indication": "CLINICAL INFORMATION",
    "technique": "TECHNIQUE",
    "comparison": "COMPARISON",
    "findings": "FINDINGS",
    "impression": "IMPRESSION",
}


@dataclass(frozen=True)
class Section:
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


@dataclass(frozen=True)
class _Mark:
    at: int
    body: int
    name: str
    confidence: str


def sections(text: str) -> list[Section]:
    """The sections of a report in order; together they cover every character."""
    marks = _marks(text)
    marks = _with_preamble(text, marks)
    if not any(mark.name == "findings" for mark in marks):
        marks = _with_findings(text, marks)
    found, part = [], 0
    for order, mark in enumerate(marks):
        limit = marks[order + 1].at if order + 1 < len(marks) else len(text)
        part += mark.name == "addendum"
        start, end = min(mark.body, limit), limit
        while start < end and (
            text[start].isspace() or (text[start] in "*_" and text[start : start + 2] in ("**", "__"))
        ):
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        body = text[start:end]
        found.append(
            Section(order, mark.name, mark.at, start, end, body, mark.confidence, _reason(body), part)
        )
    return found


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
    if len(body) <= 60 and _NONE.fullmatch(body):
        return "none_stated"
    if len(body) <= 60 and body[0] == "[" and not re.search(r"[A-Za-z0-9]", _TAG.sub("", body)):
        return "redacted"
    return None


def _marks(text: str) -> list[_Mark]:
    marks: list[_Mark] = []
    previous_open = False
    for line in _LINE.finditer(text):
        start, content = line.start(), line.group()
        mark = _line_mark(
            content[:200], start, previous_open, marks[-1].name if marks else "header", text, line.end()
        )
        if mark:
            marks.append(mark)
        offset = mark.body - start if mark else 0
        if ":" in content[offset:] or " - " in content[offset:]:
            marks += _inline_marks(content, start, offset)
        if content.strip():
            tail = content.rstrip()[-1]
            previous_open = tail not in ".:;!?*]_" and mark is None and _next_line_follows(text, line.end())
    return marks


def _next_line_follows(text: str, end: int) -> bool:
    """Whether the next line continues the paragraph (no blank line between)."""
    return not re.match(r"(?:\r\n|\r|\n)[ \t]*(?:[\r\n]|$)", text[end : end + 40])


def _line_mark(
    head: str, start: int, previous_open: bool, current: str, text: str, line_end: int
) -> _Mark | None:
    """The heading that a line begins with, if it does."""
    if match := _ADDENDUM.match(head):
        return _Mark(start, start + match.end(), "addendum", "high")
    if _TOLD.match(head):
        return _Mark(start, start, "communication", "medium")
    if current in _BEFORE_FINDINGS and _LEVELS.match(head):
        return _Mark(start, start + head.index(":") + 1, "findings", "medium")
    if (match := _START.match(head)) and (found := _judge(match, head, previous_open, current)):
        return _Mark(start, start + match.end(), *found)
    if _SIGNED.match(head):
        return _Mark(start, start, "signature", "high")
    if match := _CAPITALS.match(head):
        found = section_of(match["words"], misspelt=False)
        if found and found[0] in CORE:
            return _Mark(start, start + match.end(), found[0], "medium")
    return None


def _judge(match: re.Match[str], head: str, previous_open: bool, current: str) -> tuple[str, str] | None:
    words, stop = match["words"].strip(), match["stop"]
    colon, marked = ":" in stop, "**" in stop or "__" in stop or bool(match["mark"] and "#" in match["mark"])
    dash = not colon and any(char in stop for char in "-\u2013\u2014")
    alone = not stop.strip(" \t*_=") and match.end() >= len(head.rstrip())
    lettered = words[0].isupper()
    found = section_of(words, misspelt=colon or marked or dash or alone)
    if found:
        if colon or (marked and match["mark"]):
            return found
        if not lettered or found[0] not in (*CORE, "communication", "signature", "comment"):
            return None
        if alone:
            return None if previous_open and not words.isupper() else found
        return found if dash or words.isupper() else None
    if not colon or current not in _BEFORE_FINDINGS:
        return None
    plain = words.upper().strip()
    if plain in subheadings() or (words.isupper() and _CT_PART.match(plain)):
        return "findings", "medium"
    if words.isupper() and 3 < len(words) <= 40 and len(words.split()) <= 5:
        return "other", "medium"
    return None


def _inline_marks(content: str, start: int, offset: int) -> list[_Mark]:
    marks = []
    for match in _INLINE.finditer(content, max(0, offset - 1)):
        phrase = match["words"] or match["caps"] or match["dash"]
        begin = match.start() + match.group().index(phrase)
        if begin < offset:
            continue
        if match["caps"]:
            tail = heading_at_end(phrase)
            found = tail[1:] if tail else None
            begin += tail[0] if tail else 0
        else:
            found = section_of(phrase, misspelt=match["dash"] is None)
        if found and found[0] in (*CORE, "signature"):
            marks.append(_Mark(start + begin, start + match.end(), *found))
    if len(marks) > 1:
        body = max((mark.body for mark in marks if mark.name != "signature"), default=offset + start)
        taken = {mark.at for mark in marks}
        marks += [mark for mark in _inline_ending(content, start, body - start) if mark.at not in taken]
        marks.sort(key=lambda mark: mark.at)
    return marks


def _inline_ending(content: str, start: int, offset: int) -> list[_Mark]:
    """Who was told and who signed, after the last section of a report that is one line."""
    marks: list[_Mark] = []
    for match in _AFTER_SENTENCE.finditer(content, offset):
        name = "communication" if _TOLD.match(content, match.start()) else "signature"
        if name == "communication" or _SIGNED.match(content, match.start()):
            marks.append(_Mark(start + match.start(), start + match.start(), name, "medium"))
    return marks


def _with_preamble(text: str, marks: list[_Mark]) -> list[_Mark]:
    """Name what stands before the first heading: an exam's title, or a header; nothing is dropped."""
    first = marks[0].at if marks else len(text)
    lead = text[:first]
    if not lead.strip():
        if not marks:
            return [_Mark(0, 0, "findings", "low")]
        return [replace(marks[0], at=0), *marks[1:]]
    marks = [_Mark(0, 0, "header", "medium"), *marks]
    return _exam_titles(text, marks)


def _exam_titles(text: str, marks: list[_Mark]) -> list[_Mark]:
    """Split an exam's title (a last short line such as `CT CHEST WITH CONTRAST`) off a header."""
    result: list[_Mark] = []
    for number, mark in enumerate(marks):
        result.append(mark)
        if mark.name != "header" or any(other.name == "exam" for other in marks):
            continue
        limit = marks[number + 1].at if number + 1 < len(marks) else len(text)
        if number + 1 == len(marks):
            continue
        lines = [line for line in _LINE.finditer(text, mark.at, limit) if line.group().strip()]
        if not lines:
            continue
        last = lines[-1].group().strip()
        if (
            len(last) <= 120
            and _EXAM.search(last.upper())
            and not _TAG.search(last)
            and "|" not in last
            and not last.endswith(".")
        ):
            at = lines[-1].start()
            if at <= mark.at:
                result[-1] = replace(mark, name="exam")
            elif at >= mark.body:
                result.append(_Mark(at, at, "exam", "medium"))
    return result


def _with_findings(text: str, marks: list[_Mark]) -> list[_Mark]:
    """Find the narrative of a report whose findings have no heading: the last lines before the impression."""
    stop = next(
        (
            i
            for i, mark in enumerate(marks)
            if mark.name in ("impression", "addendum", "signature", "communication", "recommendation")
        ),
        len(marks),
    )
    if all(mark.name in ("header", "exam") and mark.body == mark.at for mark in marks[:stop]) and stop <= 2:
        return _all_is_findings(text, marks, stop)
    for number in range(stop - 1, -1, -1):
        mark = marks[number]
        if mark.name not in _BEFORE_FINDINGS:
            break
        limit = marks[number + 1].at if number + 1 < len(marks) else len(text)
        added = _narrative(text, mark, limit)
        if added:
            return [*marks[: number + 1], *added, *marks[number + 1 :]]
    return marks


def _all_is_findings(text: str, marks: list[_Mark], stop: int) -> list[_Mark]:
    if not stop:
        return marks
    limit = marks[stop].at if stop < len(marks) else len(text)
    at = 0
    for line in _LINE.finditer(text, 0, limit):
        if line.group().strip() and not _TAG.search(line.group()):
            at = line.start()
            break
    else:
        return marks
    lead = [_Mark(0, 0, "header", "medium")] if text[:at].strip() else []
    return [*lead, _Mark(at if lead else 0, at, "findings", "low"), *marks[stop:]]


def _narrative(text: str, mark: _Mark, limit: int) -> list[_Mark]:
    """Marks for a comparison and the findings inside a technique (or another early) section."""
    added: list[_Mark] = []
    for count, line in enumerate(_LINE.finditer(text, mark.body, limit)):
        content = line.group().strip()
        if not content or (count == 0 and mark.name != "header"):
            continue
        if re.match(r"comparison (?:is|was)|compar(?:ed|ison) (?:with|to)", content, re.IGNORECASE):
            added.append(_Mark(line.start(), line.start(), "comparison", "low"))
        elif (
            (added or not _TECHNICAL.search(content[:160]))
            and not _TAG.search(content)
            and len(content.split()) > 3
        ):
            return [*added, _Mark(line.start(), line.start(), "findings", "low")]
    return []
