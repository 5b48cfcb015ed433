"""Where a heading stands in a report: at the start of a line in many dresses, or within a line that holds several.

Dresses: `FINDINGS:`, `Findings -`, `**Findings**`, `## Findings`, `[FINDINGS]`, `<b>Findings</b>`, `2. FINDINGS:`,
alone on a line (underlined or not), in capitals before the text, run-on inline, in any case and with CRLF.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from components.reports.headings import (
    CORE,
    fold,
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
    rf"[:\uff1a]{{1,2}}(?!\d))(?:{_B}?(?:\*{{1,3}}|__(?!_))|</\w{{1,10}}>)*"
    rf"|(?P<tag></?\w{{1,10}}>)(?:{_B}?[:\uff1a])?)|(?P<markup>(?:\*\*|__)[:.]?|[\]}}\u3011]){_B}?[:\uff1a]?|"
    rf"{_B}+(?P<dash>[-\u2013\u2014=>|]{{1,3}}){_B}+|(?P<gap>\t|{_B}{{2,}}(?=\S))|"
    rf"(?P<alone>{_B}*[*_=~#-]{{0,40}}{_B}*\.{{0,6}}$)"
)
_WORDS = re.compile(rf"{L}(?:{L}|[0-9 /&,.()'\u2019#+-]){{1,69}}\Z")
SIGNED = re.compile(
    r"(?:(?:(?:this |the )?report (?:was |has been |is )?)?(?:electronically |digitally |e-)?(?:signed|"
    r"dictated|interpreted|transcribed|read|approved|verified|prepared|reported|reviewed|"
    r"finali[sz]ed|authenticated|attested|validated|released)(?:,? (?:and )?(?:signed|approved|interpreted|verified|"
    r"reviewed|dictated))?(?: off| electronically)? by\b|(?:electronically|digitally) signed\b|"
    r"end of (?:the )?(?:report|impression|dictation)\b|cc:|"
    r"i,? (?:the (?:attending|teaching) \w+|[^,.\n]{3,40},),? ?(?:have )?(?:personally )?reviewed\b|"
    r"i have (?:personally )?reviewed the (?:images|study|above)|dictated but not (?:read|reviewed))",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"thank you for (?:referring|the referral|asking|allowing|this)|(?:with )?(?:best|kind|warm) regards|"
    r"yours (?:sincerely|faithfully)|mit freundlichen|atentamente|cordialement|saygilarimla|"
    rf"\[[\w ]*(?:radiologist|staff|doctor|physician|signature)[\w ]*\]\s*\Z|"
    rf"(?:dr|prof|doc|uzm|bs|b\u00e1c s\u0129)\b\.?(?: (?:dr|med|doc)\b\.?)*(?: (?:\[[\w ]+\]|"
    rf"(?-i:[A-Z]){L}*[.'\u2019-]?{L}*)){{1,4}}\.?\s*\Z",
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
    r"\b(?:M\.?D|D\.?O|MBBS|FR[A-Z]{2,5}|MRCP|P[hH]\.?D|FACR|DABR)\b|[Rr]adiologist|RADIOLOGIST|, (?:m\.?d|d\.?o)\b"
)
TOLD = re.compile(
    r"(?:(?:these|the|critical|above|all|preliminary|important|urgent) )*(?:findings|"
    r"results|report|impression)(?: and (?:impression|recommendations?))?(?: (?:for|of|on) [^\r\n]{1,60}?)? "
    r"(?:were|was|has been|have been) (?:immediately |verbally |personally |also |then )?(?:communicated|"
    r"discussed|called|relayed|conveyed|telephoned|phoned|reported (?:by|via) (?:tele)?phone)\b",
    re.IGNORECASE,
)
_ADDENDUM = re.compile(
    rf"[*=_#-]{{0,40}}{_B}?(?:start of |begin(?:ning)? of )?(?:late |report )?addendum\b"
    rf"(?:[^:\r\n]|\d:(?=\d)){{0,60}}?(?:(?<!\d)[:\uff1a]|[:\uff1a](?!\d)|[*=_]{{2,40}}|{_B}*-*$)",
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
_FIRST_WORD = re.compile(rf"{L}+|[*=_#-]")
_SPECIAL = re.compile(r"[:\uff1a\[\]\u3011}\t<*_=>|\u00a0\u2013\u2014]")
# `Findings: The ...`: the commonest dress, told at once
_SIMPLE = re.compile(r"(?P<words>[A-Z][A-Za-z]*+(?:[ /&][A-Za-z]++)*+): (?=[A-Za-z0-9])")
_SHOUTED = re.compile(r"[.!?)] [^\W\d_a-z]{2}")
_PROSE = re.compile(r" ?(?:(?P<small>[a-z]+)|(?P<word>[A-Z][a-z]*) (?P<next>\w*))")
_CLOSERS = frozenset("*_=~])}\u3011 \u00a0\t")
_ALONE_ENDS = f"{BLANK}*_=~#-."
_ARTICLES = frozenset({"the", "this", "these", "all"})
_STOPS = re.compile(rf"[:\uff1a\]\u3011}}\t<]|\*\*|__|[{BLANK}][-\u2013\u2014=>|{BLANK}]")
# a line without any of these, and without two blanks together, has no stop
_STOP_SIGNS = re.compile(r"[:\uff1a\]\u3011}\t<*_\u2013\u2014=>|\u00a0\ufeff\u200b\u3000]|  | -")
_ADDENDUM_WORDS = frozenset(["addendum", "start", "begin", "beginning", "late", "report", *"*=_#-"])
_TOLD_WORDS = frozenset(mapping("heading_words")["told"])
_SIGNED_WORDS = frozenset(mapping("heading_words")["signed"])
_LINE_OPENERS = (
    _ADDENDUM_WORDS | _TOLD_WORDS | _SIGNED_WORDS | {"thank", "with", "best", "kind", "warm", "yours"}
)
MAX_ALONE_WORDS = 8
_ALONE_TOO = (*CORE, "communication", "signature", "comment", "limitations")
_RESTARTS = frozenset({"exam", "indication", "technique", "comparison", "findings"})


PART = (
    "part"  # the confidence of findings that a part of them opens, until it is known that no heading follows
)


class Mark(NamedTuple):
    """A heading: the section begins at `at`, its body at `body`."""

    at: int
    body: int
    name: str
    confidence: str


class Line(NamedTuple):
    """A line and where it stands: `open_before` when the line before it is a sentence that goes on, `dangling` when
    that ends with a word such as `the` or `of`.
    """

    content: str
    start: int
    after_blank: bool
    open_before: bool
    following: str
    dangling: bool = False


def is_plain(content: str, after_blank: bool) -> bool:
    """Whether a line is prose for certain, told quickly: such lines hold no heading, and most lines are such."""
    match = _PROSE.match(content)
    if match is None or _SPECIAL.search(content) or "  " in content or " -" in content:
        return False
    if match["small"]:
        return not after_blank and match["small"] not in _LINE_OPENERS and not _SHOUTED.search(content)
    spaces = content.count(" ")
    if spaces < 4 or (spaces < MAX_ALONE_WORDS and content[-1] not in ".,;"):
        return False
    word = match["word"].lower()
    if word in _ARTICLES:
        word = match["next"].lower()
    return word not in _LINE_OPENERS and not _SHOUTED.search(content)


def line_mark(line: Line, current: str) -> Mark | None:
    """The heading that a line begins with, if it does; `current` is the section that the line before is in."""
    head = line.content[:200]
    plain = head.lstrip(BLANK)
    if not plain:
        return None
    start, first = line.start, _FIRST_WORD.match(plain)
    opening = first.group().lower() if first else ""
    if opening in _ADDENDUM_WORDS and (match := _ADDENDUM.match(plain)):
        return Mark(start, start + len(head) - len(plain) + match.end(), "addendum", "high")
    if opening in _TOLD_WORDS and TOLD.match(plain):
        return Mark(start, start, "communication", "medium")
    if plain[1:2].isdigit() and current in BEFORE_FINDINGS and (match := _LEVELS.match(head)):
        return Mark(start, start + match.end(), "findings", PART)
    if mark := _dressed(line, head, plain, current):
        return mark
    signed = opening in _SIGNED_WORDS and SIGNED.match(plain)
    if signed or (
        current not in BEFORE_FINDINGS
        and current != "signature"
        and len(plain) < 200
        and _closes(plain, line.after_blank or not line.open_before)
    ):
        return Mark(start, start, "signature", "high")
    mark = _capitals(line, head, len(head) - len(plain)) if plain[:2].isupper() else None
    return mark or _title(line, plain, current)


def _may_stand_alone(line: Line, plain: str) -> bool:
    """A quick look at a line without a colon or dash: whether it is short enough, and not within a sentence."""
    if len(plain) > 90 or plain.count(" ") >= (3 if plain[-1] in ".,;" else MAX_ALONE_WORDS):
        return False
    return line.after_blank or not (line.open_before or plain[0].islower()) or plain.isupper()


def _closes(plain: str, set_off: bool) -> bool:
    """Whether a line after the findings is a closing phrase, or the name of who reported, set off."""
    if set_off and _CLOSING.match(plain):
        return True
    return len(plain) < 90 and bool(_HAS_TITLE.search(plain)) and bool(_CREDENTIALS.match(plain))


def _dressed(line: Line, head: str, plain: str, current: str) -> Mark | None:
    """The heading before a colon, a dash or markup, or alone on its line."""
    if (simple := _SIMPLE.match(head)) and 2 <= simple.end("words") <= 70:
        judged = _judge(line, simple["words"], (True, False, False), False, False, current)
        return judged and Mark(line.start, line.start + (0 if judged[2] else simple.end() - 1), *judged[:2])
    first = _STOPS.search(head, 0, 100) if _STOP_SIGNS.search(head, 0, 100) else None
    if first is None and not _may_stand_alone(line, plain):
        return None
    # a word of small letters after its capital begins at once: nothing stands before it
    prefix = None if plain[:1].isalpha() and plain[1:2].islower() else _PREFIX.match(head)
    begin = prefix.end() if prefix else len(head) - len(plain)
    stop = _stop(head, begin, first)
    if stop is None or stop.start() - begin < 2:
        return None
    words = head[begin : stop.start()].strip()
    if not _WORDS.match(words):
        return None
    marked = bool(
        stop["markup"]
        or stop["tag"]
        or (prefix and prefix["mark"].strip(" *-\u2022+|>") and stop["alone"] is not None)
    )
    ends = bool(stop["colon"]), bool(stop["dash"]), stop["alone"] is not None
    found = _judge(line, words, ends, marked, bool(prefix and prefix["item"]), current)
    if not found:
        return None
    name, confidence, inside = found
    return Mark(line.start, line.start + (0 if inside else stop.end()), name, confidence)


def _stop(head: str, begin: int, first: re.Match[str] | None) -> re.Match[str] | None:
    """What ends the heading that begins at `begin`; `first` is the first sign of an end in the line."""
    limit = min(len(head), begin + 90)
    while first is not None and first.start() < limit:
        at = max(first.start(), begin)
        while at > begin and head[at - 1] in _CLOSERS:
            at -= 1
        for place in (at, first.start()):
            if place < begin or not (match := _STOP.match(head, place, limit)):
                continue
            if match["alone"] is None or limit == len(head):
                return match
        first = _STOPS.search(head, first.start() + 1, 100)
    if len(head) > begin + 80:
        return None
    end = len(head.rstrip(_ALONE_ENDS))
    return _STOP.match(head, max(end, begin))


def _judge(
    line: Line, words: str, ends: tuple[bool, bool, bool], marked: bool, item: bool, current: str
) -> tuple[str, str, bool] | None:
    """(section, confidence, whether the heading is part of the body) of words that look like a heading.

    `ends`: whether a colon follows, a dash, or nothing.
    """
    colon, dash, alone = ends
    upper = words.isupper()
    found = section_of(words, colon or marked or dash or alone, colon or marked or upper)
    if found and item and not (upper or alone or marked):
        found = None
    if found and ((found[0] == "header" and current == "findings") or (line.dangling and not upper)):
        found = None
    if found and found[0] == "signature" and current in BEFORE_FINDINGS and words.upper() == "CC":
        found = "indication", "medium"  # the chief complaint, not a copy
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
        return ("findings", PART, False) if prose else None
    if part:
        heads = _heads(line.following) and not line.content.rstrip().endswith(".")
        return None if heads else ("findings", PART, False)
    if subheading_region(words):
        return "findings", PART, True
    if _leading(line.content.strip(BLANK)[:80], line.after_blank):
        return None  # `FINDINGS LUNGS: ...`
    if words.isupper() and 3 < len(words) <= 40 and len(words.split()) <= 5:
        return "other", "medium", False
    return None


def _is_prose(following: str) -> bool:
    """Whether the next line is a sentence and no heading."""
    return len(following.split()) > 4 and not _heads(following)


def _heads(following: str) -> bool:
    """Whether the next line begins with a heading that opens a study."""
    if (found := _heading_of(following)) is not None:
        return found in _RESTARTS
    leading = _leading(following.strip(BLANK)[:80], True)
    return leading is not None and leading[0] in _RESTARTS


def _heading_of(content: str) -> str | None:
    head = content[:200]
    prefix = _PREFIX.match(head)
    begin = prefix.end() if prefix else 0
    stop = _stop(head, begin, _STOPS.search(head, 0, 100))
    words = head[begin : stop.start()].strip() if stop else ""
    found = section_of(words) if stop and not stop["gap"] and _WORDS.match(words) else None
    return found[0] if found else None


def _capitals(line: Line, head: str, indent: int) -> Mark | None:
    """A heading in capitals right before the text: `FINDINGS The lungs are clear`."""
    found = _leading(head[indent : indent + 80], line.after_blank)
    return Mark(line.start, line.start + indent + found[1] + 1, found[0], "medium") if found else None


def _leading(content: str, after_blank: bool) -> tuple[str, int] | None:
    """(section, length) of the heading in capitals that words begin with."""
    tokens = content.split(" ")
    upper = next((i for i, token in enumerate(tokens) if not token.isupper()), len(tokens))
    for count in range(min(upper, 6, len(tokens) - 1), 0, -1):
        words = " ".join(tokens[:count])
        found = section_of(words, misspelt=False, qualified=False)
        if not found or found[0] not in CORE:
            continue
        following = tokens[count]
        fits = not following[:1].islower() or (
            after_blank and following.lower() not in mapping("heading_words")["prose"]
        )
        heads = following.rstrip().endswith(":") and subheading_region(following.strip(": ")) is None
        if fits and not heads:
            return found[0], len(words)
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
