"""Findings that have no heading: the text after a title, or the narrative inside TECHNIQUE or another early section."""

from __future__ import annotations

import re
from collections.abc import Sequence

from components.reports.headings import fold
from components.reports.layouts import BEFORE_FINDINGS, EXAM, TAG, Mark

LINE = re.compile(r"[^\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_TECHNICAL = re.compile(
    r"\b(?:technique|perform(?:ed|ing)|obtain(?:ed|ing)|acquir(?:ed|ing)|reconstruct\w*|"
    r"reformat\w*|administ(?:ered|ration)|contrast|scann(?:ed|er|ing)|protocol|utili[sz](?:ed|"
    r"ing)|slices?|collimation|comparison|"
    r"compared|isovue|omnipaque|intravenous\w*|kvp?|mas|dose|helical|spiral|mm sections?|"
    r"images were|axial (?:ct )?images|workstation|post-?process\w*|history|indication|"
    r"year[- ]old|referr\w+)\b",
    re.IGNORECASE,
)
_COMPARED = re.compile(
    r"comparison (?:is|was)|compar(?:ed|ison) (?:with|to)|(?:no )?(?:prior|previous) (?:ct|study|studies|exam)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"<[^<>]{0,60}>|[\s*_=#-]+")
_ENDS_REPORT = ("impression", "addendum", "signature", "communication", "recommendation")


def with_preamble(text: str, marks: list[Mark]) -> list[Mark]:
    """Name what stands before the first heading: an exam's title, or a header; nothing is dropped."""
    first = marks[0].at if marks else len(text)
    lead = text[:first]
    if not lead.strip() or (marks and not _MARKUP.sub("", lead)):
        if not marks:
            return [Mark(0, 0, "findings", "low")]
        return [marks[0]._replace(at=0), *marks[1:]]
    return _exam_titles(text, [Mark(0, 0, "header", "medium"), *marks])


def _exam_titles(text: str, marks: list[Mark]) -> list[Mark]:
    """Split an exam's title (a last short line such as `CT CHEST WITH CONTRAST`) off a header."""
    content = next((i for i, mark in enumerate(marks) if mark.name in ("findings", "impression")), len(marks))
    if any(mark.name == "exam" for mark in marks[:content]):
        return marks
    result: list[Mark] = []
    for number, mark in enumerate(marks):
        result.append(mark)
        if mark.name != "header" or number + 1 == len(marks) or number > content:
            continue
        lines = [line for line in LINE.finditer(text, mark.at, marks[number + 1].at) if line.group().strip()]
        if not lines:
            continue
        last = lines[-1].group().strip()
        if (
            len(last) <= 120
            and EXAM.search(fold(last))
            and (not TAG.search(last) or EXAM.match(fold(last)))
            and "|" not in last
            and not last.endswith(".")
        ):
            at = lines[-1].start()
            if at <= mark.at:
                result[-1] = mark._replace(name="exam")
            elif at >= mark.body:
                result.append(Mark(at, at, "exam", "medium"))
    return result


def with_findings(text: str, marks: list[Mark]) -> list[Mark]:
    """Find the narrative of a report whose findings have no heading: the last lines before the impression."""
    if any(mark.name == "findings" for mark in marks):
        return marks
    stop = next((i for i, mark in enumerate(marks) if mark.name in _ENDS_REPORT), len(marks))
    if all(mark.name in ("header", "exam") and mark.body == mark.at for mark in marks[:stop]) and stop <= 2:
        return _all_is_findings(text, marks, stop)
    for number in range(stop - 1, -1, -1):
        mark = marks[number]
        if mark.name not in BEFORE_FINDINGS:
            break
        limit = marks[number + 1].at if number + 1 < len(marks) else len(text)
        added = _narrative(text, mark, limit) or _narrative_sentence(text, mark, limit)
        if added:
            return [*marks[: number + 1], *added, *marks[number + 1 :]]
    return marks


def _all_is_findings(text: str, marks: list[Mark], stop: int) -> list[Mark]:
    if not stop:
        return marks
    limit = marks[stop].at if stop < len(marks) else len(text)
    at = 0
    for line in LINE.finditer(text, 0, limit):
        if line.group().strip() and not TAG.search(line.group()):
            at = line.start()
            break
    else:
        return marks
    lead = [Mark(0, 0, "header", "medium")] if text[:at].strip() else []
    return [*lead, Mark(at if lead else 0, at, "findings", "low"), *marks[stop:]]


def _narrative(text: str, mark: Mark, limit: int) -> list[Mark]:
    """Marks for a comparison and the findings inside a technique (or another early section), by lines."""
    added: list[Mark] = []
    for count, line in enumerate(LINE.finditer(text, mark.body, limit)):
        content = line.group().strip()
        if not content or (count == 0 and mark.name != "header"):
            continue
        if _COMPARED.match(content):
            added.append(Mark(line.start(), line.start(), "comparison", "low"))
        elif (
            (added or not _TECHNICAL.search(content[:160]))
            and not TAG.search(content)
            and len(content.split()) > 3
        ):
            return [*added, Mark(line.start(), line.start(), "findings", "low")]
    return []


def _narrative_sentence(text: str, mark: Mark, limit: int) -> list[Mark]:
    """The same where technique and findings share a paragraph: the first sentence that describes an organ."""
    from components.reports.findings import polarity, region
    from components.reports.sentences import sentence_spans

    if mark.name not in ("technique", "comparison", "exam"):
        return []
    spans: Sequence[tuple[int, int]] = sentence_spans(text, mark.body, limit)
    for start, end in spans[1:]:
        sentence = text[start:end]
        described = polarity(sentence) != "neutral" and region(sentence) != "other"
        if described and not _TECHNICAL.search(sentence) and not _COMPARED.match(sentence):
            return [Mark(start, start, "findings", "low")]
    return []
