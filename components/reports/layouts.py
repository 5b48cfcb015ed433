"""Where a heading stands in a report: at the start of a line in many dresses, or within a line that holds several.

Dresses: `FINDINGS:`, `Findings -`, `**Findings**`, `## Findings`, `[FINDINGS]`, `<b>Findings</b>`, `2. FINDINGS:`,
alone on a line (underlined or not), in capitals before the text, run-on inline, in any case and with CRLF.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from components.reports.headings import (
    CORE,
    fold,
    is_common,
    is_main,
    section_of,
    subheading_region,
)
from components.reports.lexicon import mapping

L = r"(?:[^\W\d_]|[\u0300-\u036f])"
BLANK = " \t\u00a0\ufeff\u200b\u3000"
_B = f"[{BLANK}]"
_PREFIX = re.compile(
    rf"{_B}*+(?P<item>\(?(?:\d{{1,2}}|[IVX]{{1,4}}|[A-H])[.)]{_B}*+)?+"
    rf"(?P<mark>(?:[*_#>=~|\u2022\u25a0\u25aa\u25cf+-]{{1,40}}{_B}?|"
    rf"<\w{{1,10}}(?: [^<>]{{0,40}})?>{_B}?|[\[{{\u3010]{_B}?){{0,3}})"
)
_STOP = re.compile(
    rf"(?P<close>[*_=~\])}}\u3011]{{0,8}}){_B}?(?:(?P<colon>(?<!\d)[:\uff1a]{{1,2}}|"
    rf"[:\uff1a]{{1,2}}(?!\d))(?:{_B}?[*_]{{1,3}}|</\w{{1,10}}>)*"
    rf"|(?P<tag></?\w{{1,10}}>)(?:{_B}?[:\uff1a])?)|(?P<markup>(?:\*\*|__)[:.]?|[\]}}\u3011]){_B}?[:\uff1a]?|"
    rf"{_B}+(?P<dash>[-\u2013\u2014=>|]{{1,3}}){_B}+|(?P<gap>\t|{_B}{{2,}}(?=\S))|"
    rf"(?P<alone>{_B}*[*_=~#-]{{0,40}}{_B}*\.{{0,6}}$)"
)
_WORDS = re.compile(rf"{L}(?:{L}|[0-9 /&,.()'\u2019#+-]){{1,69}}\Z")
_COLON = re.compile(r"(?<!\d)[:\uff1a]|[:\uff1a](?!\d)")
_MARKED = re.compile(rf"(?<=[.!?\])] )(?:\*\*|__){L}[^*_\n]{{3,40}}(?:\*\*|__):?")
_UNMARKED = re.compile(
    rf"(?<=[.!?\])] )(?P<words>{L}{{2,}}(?:[ /&]{{1,3}}{L}{{2,}}){{0,5}})(?P<stop> [-\u2013\u2014] | (?=\S))"
)
_SIGNED = re.compile(
    r"(?:(?:this report (?:was|has been) )?(?:electronically |digitally |e-)?(?:signed|"
    r"dictated|interpreted|transcribed|read|approved|verified|prepared|reported|reviewed|"
    r"finali[sz]ed|authenticated|attested|validated|released)(?:,? (?:and )?(?:signed|approved|interpreted|verified|"
    r"reviewed|dictated))?(?: off| electronically)? by\b|(?:electronically|digitally) signed\b|"
    r"end of (?:the )?(?:report|impression|dictation)\b|cc:|"
    r"i,? (?:the (?:attending|teaching) \w+|[^,.\n]{3,40},),? ?(?:have )?(?:personally )?reviewed\b|"
    r"i have (?:personally )?reviewed the (?:images|study|above)|"
    r"thank you for (?:referring|the referral|asking|allowing|this)|(?:with )?(?:best|kind|warm) regards|"
    r"yours (?:sincerely|faithfully)|"
    r"dictated but not (?:read|reviewed)|mit freundlichen|atentamente|cordialement|saygilarimla)",
    re.IGNORECASE,
)
_NAME = rf"(?:\[[A-Z_]+\]|{L}[\w.'\u2019-]*)"
_TITLE = (
    r"(?:M\.?D\.?|D\.?O\.?|MBBS|FRCR|FRANZCR|FRCPC|MRCP|Ph\.?D\.?|FACR|DABR|"
    r"(?:consultant |attending |resident |staff )?radiologist)"
)
_CREDENTIALS = re.compile(
    rf"{_NAME}(?:[ ,]+{_NAME}){{0,5}}?,? {_TITLE}(?:[ ,.]+{_TITLE}){{0,3}}[.,]?"
    r"(?:[ ,]+(?:on )?\[?[\d/.: A-Z-]{0,30}\]?)?\s*\Z",
    re.IGNORECASE,
)
_HAS_TITLE = re.compile(
    r"\b(?:M\.?D|D\.?O|MBBS|FR\w{2,5}|MRCP|Ph\.?D|FACR|DABR|radiologist)\b", re.IGNORECASE
)
_TOLD = re.compile(
    r"(?:(?:these|the|critical|above|all|preliminary|important|urgent) )*(?:findings|"
    r"results|report|impression)(?: and (?:impression|recommendations?))?(?: (?:for|of|on) [^\r\n]{1,60}?)? "
    r"(?:were|was|has been|have been) (?:immediately |verbally |personally |also |then )?(?:communicated|"
    r"discussed|called|relayed|conveyed|telephoned|phoned|reported (?:by|via) (?:tele)?phone)\b",
    re.IGNORECASE,
)
_AFTER_SENTENCE = re.compile(
    r"(?<=[.!?] )(?=(?:Electronically|Digitally|Signed|Dictated|Interpreted|Reported|Approved|"
    r"Verified|Transcribed|Read|Prepared|The|These|Findings|Results|Critical)\b)"
)
_ADDENDUM = re.compile(
    rf"[*=_#-]{{0,40}}{_B}?(?:start of |begin(?:ning)? of )?(?:late |report )?addendum\b"
    rf"[^:\r\n]{{0,60}}?(?:(?<!\d)[:\uff1a]|[:\uff1a](?!\d)|[*=_]{{2,40}}|{_B}*-*$)",
    re.IGNORECASE,
)
_LEVELS = re.compile(rf"{_B}*[CTLS]\d{{1,2}}(?:[-/, ]{{1,3}}(?:[CTLS]?\d{{1,2}})){{0,8}}:")
EXAM = re.compile(
    r"\b(?:CT|CTA|CTPA|HRCT|MRI|MR|MRA|PET|PET/CT|CAT|RADIOGRAPH|ULTRASOUND|SONOGRAM|TOMOGRAPHY|COMPUTED|X-RAY|SCAN|"
    r"BT|TAC|TC|TDM|TOMOGRAFI|TOMOGRAFIA|TOMODENSITOMETRIE|SCANNER|COMPUTERTOMOGRAPHIE)\b"
)
TAG = re.compile(r"\[[A-Z_]+\]")
_CT_PART = re.compile(r"(?:CT|CTA|HRCT)(?: SCAN)?(?: OF)?(?: THE)? [A-Z ,/&]{4,40}$")
BEFORE_FINDINGS = frozenset(
    {"exam", "indication", "technique", "comparison", "header", "other", "limitations"}
)
_ALONE_TOO = (*CORE, "communication", "signature", "comment", "limitations")
_INLINE = frozenset({*CORE, "signature"})
_RESTARTS = frozenset({"exam", "indication", "technique", "comparison", "findings"})


@dataclass(frozen=True)
class Mark:
    """A heading: the section begins at `at`, its body at `body`."""

    at: int
    body: int
    name: str
    confidence: str


@dataclass(frozen=True)
class Line:
    """A line and where it stands: `open_before` when the line before it is a sentence that goes on."""

    content: str
    start: int
    after_blank: bool
    open_before: bool
    following: str


def line_mark(line: Line, current: str) -> Mark | None:
    """The heading that a line begins with, if it does; `current` is the section that the line before is in."""
    head = line.content[:200]
    plain = head.lstrip(BLANK)
    if not plain:
        return None
    start, first = line.start, plain[0].lower()
    if first in "a*=_#-sbrl" and (match := _ADDENDUM.match(plain)):
        return Mark(start, start + len(head) - len(plain) + match.end(), "addendum", "high")
    if _TOLD.match(plain):
        return Mark(start, start, "communication", "medium")
    if current in BEFORE_FINDINGS and (match := _LEVELS.match(head)):
        return Mark(start, start + match.end(), "findings", "medium")
    if mark := _dressed(line, head, current):
        return mark
    if _SIGNED.match(plain) or (
        current not in BEFORE_FINDINGS
        and len(plain) < 90
        and _HAS_TITLE.search(plain)
        and _CREDENTIALS.match(plain)
    ):
        return Mark(start, start, "signature", "high")
    return _capitals(line, head) or _title(line, plain, current)


def _dressed(line: Line, head: str, current: str) -> Mark | None:
    prefix = _PREFIX.match(head)
    begin = prefix.end() if prefix else 0
    stop = _STOP.search(head, begin, min(len(head), begin + 90))
    if not stop or stop.start() - begin < 2 or (stop["alone"] is not None and len(head) > begin + 80):
        return None
    words = head[begin : stop.start()].strip()
    if not _WORDS.match(words):
        return None
    marked = bool(
        stop["markup"]
        or stop["tag"]
        or (prefix and prefix["mark"].strip(" *-\u2022+|>") and stop["alone"] is not None)
    )
    found = _judge(line, words, stop, marked, bool(prefix and prefix["item"]), current)
    if not found:
        return None
    name, confidence, inside = found
    return Mark(line.start, line.start + (0 if inside else stop.end()), name, confidence)


def _judge(
    line: Line, words: str, stop: re.Match[str], marked: bool, item: bool, current: str
) -> tuple[str, str, bool] | None:
    """(section, confidence, whether the heading is part of the body) of words that look like a heading."""
    colon, dash, alone = bool(stop["colon"]), bool(stop["dash"]), stop["alone"] is not None
    upper = words.isupper()
    found = section_of(words, misspelt=colon or marked or dash or alone, qualified=colon or marked or upper)
    if found and item and not (upper or alone or marked):
        found = None
    if found and found[0] == "header" and current == "findings":
        found = None
    if found:
        if colon or marked:
            return *found, False
        if found[0] not in _ALONE_TOO:
            return None
        if alone:
            fits = upper or (not line.open_before and (words[0].isupper() or line.after_blank))
            return (*found, False) if fits else None
        return (*found, False) if upper or (dash and words[0].isupper() and found[0] in CORE) else None
    return _opens_findings(line, words, colon, alone, current)


def _opens_findings(
    line: Line, words: str, colon: bool, alone: bool, current: str
) -> tuple[str, str, bool] | None:
    """A part of the findings (`LUNGS:`, `CT ABDOMEN:`) where no findings heading stood; or an unknown heading."""
    if current not in BEFORE_FINDINGS or not (colon or (alone and words.isupper())):
        return None
    part = bool(words.isupper() and _CT_PART.match(fold(words)))
    if alone and not colon:
        prose = part and current != "header" and _is_prose(line.following)
        return ("findings", "medium", False) if prose else None
    if part:
        return (
            None
            if _heads(line.following) and not line.content.rstrip().endswith(".")
            else ("findings", "medium", False)
        )
    if subheading_region(words):
        return "findings", "medium", True
    if words.isupper() and 3 < len(words) <= 40 and len(words.split()) <= 5:
        return "other", "medium", False
    return None


def _is_prose(following: str) -> bool:
    """Whether the next line is a sentence and no heading."""
    return len(following.split()) > 4 and not _heads(following)


def _heads(following: str) -> bool:
    """Whether the next line begins with a heading that opens a study."""
    return (found := _heading_of(following)) is not None and found in _RESTARTS


def _heading_of(content: str) -> str | None:
    prefix = _PREFIX.match(content)
    begin = prefix.end() if prefix else 0
    stop = _STOP.search(content, begin, begin + 90)
    words = content[begin : stop.start()].strip() if stop else ""
    found = section_of(words) if stop and not stop["gap"] and _WORDS.match(words) else None
    return found[0] if found else None


def _capitals(line: Line, head: str) -> Mark | None:
    """A heading in capitals right before the text: `FINDINGS The lungs are clear`."""
    indent = len(head) - len(head.lstrip(BLANK))
    tokens = head[indent : indent + 80].split(" ")
    upper = next((i for i, token in enumerate(tokens) if not token.isupper()), len(tokens))
    for count in range(min(upper, 6, len(tokens) - 1), 0, -1):
        words = " ".join(tokens[:count])
        found = section_of(words, misspelt=False, qualified=False)
        if not found or found[0] not in CORE:
            continue
        following = tokens[count]
        fits = not following[:1].islower() or (
            line.after_blank and following.lower() not in mapping("heading_words")["prose"]
        )
        if fits:
            return Mark(line.start, line.start + indent + len(words) + 1, found[0], "medium")
    return None


def _title(line: Line, plain: str, current: str) -> Mark | None:
    """The title of a further study in the same text: a short line, set off, before a heading that opens a study."""
    if current in BEFORE_FINDINGS or not line.after_blank or len(plain) > 110:
        return None
    last = plain.rstrip(f"{BLANK}*_=:")
    if (
        last.endswith(".")
        or not EXAM.search(fold(last))
        or not (last.isupper() or last.istitle() or len(last) < 70)
    ):
        return None
    if last[:1].islower() or not _heads(line.following):
        return None
    return Mark(line.start, line.start, "exam", "medium")


def inline_marks(content: str, start: int, offset: int, first: str | None) -> list[Mark]:
    """The headings within a line, after its first `offset` characters; `start` is the line's place in the text.

    `first` is the section of the heading that the line begins with. A word that is seldom a heading counts in a line
    of three sections or more; so does one without a colon.
    """
    sure: dict[int, Mark] = {}
    unsure: dict[int, Mark] = {}
    for match in _COLON.finditer(content, offset):
        if (found := _before_colon(content, offset, match.start())) is not None:
            begin, (name, confidence), common = found
            (sure if common else unsure)[begin] = Mark(start + begin, start + match.end(), name, confidence)
    if "**" in content or "__" in content:
        for match in _MARKED.finditer(content, offset):
            known = section_of(match.group().strip("*_:"))
            if known and known[0] in _INLINE:
                sure[match.start()] = Mark(start + match.start(), start + match.end(), *known)
    for match in _UNMARKED.finditer(content, offset):
        if (mark := _without_colon(match, start)) is not None:
            (sure if " - " in match["stop"] or mark.confidence == "high" else unsure).setdefault(
                match.start(), mark
            )
    names = {mark.name for mark in (*sure.values(), *unsure.values())} | ({first} if first else set())
    chosen = {**unsure, **sure} if len(names & set(CORE)) >= 3 else sure
    kept: list[Mark] = []
    for place in sorted(chosen):
        mark, before = chosen[place], kept[-1].name if kept else first
        # a part of the section it stands in (`Dose:` within TECHNIQUE) opens no other
        if mark.name != before or is_main(content[place : mark.body - start]):
            kept.append(mark)
    return kept


def _before_colon(content: str, offset: int, at: int) -> tuple[int, tuple[str, str], bool] | None:
    """(place, (section, confidence), whether it counts alone) of the heading that ends at a colon within a line."""
    low = max(offset, at - 70)
    tail = content[low:at].rstrip(" *_")
    tokens = tail.split(" ")
    for count in range(min(6, len(tokens)), 0, -1):
        words = " ".join(tokens[-count:])
        begin = low + len(tail) - len(words)
        if not words[:1].isalpha() or (begin == low and (low > offset or not offset)) or len(words) < 4:
            continue
        upper = words.isupper()
        preceded = count < len(tokens) and tokens[-count - 1].isupper() and tokens[-count - 1].isalpha()
        if upper and preceded and not is_main(words):
            continue
        ended = content[max(0, begin - 2) : begin].rstrip()[-1:] in set(".!?;,:)]*|") or begin == offset
        if not (upper or ended):
            continue
        found = section_of(words, misspelt=words[0].isupper(), qualified=upper)
        if found and found[0] in _INLINE:
            return begin, found, upper or (words[0].isupper() and is_common(words))
    return None


def _without_colon(match: re.Match[str], start: int) -> Mark | None:
    """A heading in capitals before a dash, or right before the text, after the end of a sentence."""
    words = match["words"]
    if not words[:2].isupper():
        return None
    tokens = words.split(" ")
    upper = next((i for i, token in enumerate(tokens) if not token.isupper()), len(tokens))
    for count in range(upper, 0, -1):
        phrase = " ".join(tokens[:count])
        found = section_of(phrase, misspelt=False, qualified=False) if len(phrase) > 4 else None
        if found and found[0] in CORE:
            at = match.start() + len(phrase)
            rest = match.string[at : at + 40].lstrip()
            dash = rest[:2] in ("- ", "\u2013 ", "\u2014 ")
            if not dash and rest[:1].islower():
                continue
            body = at + match.string[at : at + 4].index(rest[0]) + (2 if dash else 0)
            confidence = "high" if dash and is_common(phrase) else "medium"
            return Mark(start + match.start(), start + body, found[0], confidence)
    return None


def inline_ending(content: str, start: int, offset: int) -> list[Mark]:
    """Who was told and who signed, after the last section of a report that is one line."""
    marks: list[Mark] = []
    for match in _AFTER_SENTENCE.finditer(content, offset):
        name = "communication" if _TOLD.match(content, match.start()) else "signature"
        if name == "communication" or _SIGNED.match(content, match.start()):
            marks.append(Mark(start + match.start(), start + match.start(), name, "medium"))
    return marks
