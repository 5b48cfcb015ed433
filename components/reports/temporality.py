"""When is a finding: new, changed, unchanged, resolved, or a thing of the past? Cues within the mention's clause."""

from __future__ import annotations

import re

from components.reports.assertion_cues import PRIOR

NEW, INCREASED, DECREASED, UNCHANGED, RESOLVED, HISTORY = (
    "new",
    "increased",
    "decreased",
    "unchanged",
    "resolved",
    "history",
)
_SIZE = r"(?:slightly |mildly |significantly |markedly |further |interval |minimally )*"
_CUES = (
    (
        RESOLVED,
        r"(?<!not )(?<!partially )(?<!nearly )(?<!almost )\b(?:resolved|cleared|disappeared|removed|gone|"
        r"no longer)\b|"
        r"(?<!partial )(?<!incomplete )\b(?:resolution|clearing|disappearance) of\b",
    ),
    (
        NEW,
        rf"\bnew(?:ly)?\b|\binterval development\b|\bdevelop(?:ed|ing)\b|\bde novo\b|"
        rf"\b(?:not|absent)(?: (?:seen|present|identified|visible|noted))?(?={PRIOR})",
    ),
    (
        INCREASED,
        rf"\b{_SIZE}(?:increas(?:ed|ing)|enlarg(?:ed|ing)|grown|progressed|worsened)(?: \w+)? (?:in|since|from|"
        rf"compared|when)\b|"
        r"\blarger\b(?! than \d)|\bworsening\b|\bworsened\b|\bprogressi(?:on|ve)\b|\bprogressed\b|"
        r"\binterval (?:increase|growth|progression)\b|\b(?:has|have) (?:\w+ly )?(?:increased|grown|enlarged)\b",
    ),
    (
        DECREASED,
        rf"\b{_SIZE}decreas(?:ed|ing)\b(?! (?:attenuation|density))|\bsmaller\b(?! than \d)|\bregress(?:ed|ion|"
        rf"ing)\b|"
        r"\bimprov(?:ed|ing|ement)\b|\bdiminished\b|\b(?:nearly|almost|partially) (?:\w+ )?resolved\b|\bresolving\b|"
        r"\b(?:partial|incomplete) resolution\b",
    ),
    (
        UNCHANGED,
        r"\bunchanged\b|\bstable\b|\bno (?:\w+ ){0,2}change\b|\bnot (?:\w+ly )?changed\b|\bsimilar\b|\bpersist\w*\b|"
        r"\bagain\b|\bconstant\b|\bwithout (?:\w+ )?(?:change|growth|progression)\b|\bno growth\b",
    ),
    (
        HISTORY,
        r"\bhistory of\b|\bh/o\b|\bstatus post\b|\bs/p\b|\bpreviously (?:treated|known)\b|\bin the past\b",
    ),
)
# a clause without any of these cannot match the cue's pattern
_STEMS = {
    RESOLVED: ("resol", "clear", "disappear", "remov", "gone", "longer"),
    NEW: ("new", "develop", "de novo", "not ", "absent"),
    INCREASED: ("increas", "enlarg", "grow", "progress", "worse", "larger"),
    DECREASED: ("decreas", "smaller", "regress", "improv", "diminish", "resol"),
    UNCHANGED: ("change", "stable", "similar", "persist", "again", "constant", "growth", "progression"),
    HISTORY: ("history", "h/o", "status post", "s/p", "previously", "past"),
}
_PATTERNS = tuple((name, _STEMS[name], re.compile(pattern)) for name, pattern in _CUES)
_CLAUSE = re.compile(r";|\bbut\b|\bhowever\b|\balthough\b|\bwhereas\b|\band there (?:is|are)\b|\. ")


def temporality(sentence: str, start: int, end: int) -> str:
    """`new`, `increased`, `decreased`, `unchanged`, `resolved`, `history` or "" for the mention `[start, end)`.

    `sentence` is in lower case. The cue must stand in the mention's clause; the first of the list above counts.
    """
    begin = max((match.end() for match in _CLAUSE.finditer(sentence, 0, start)), default=0)
    after = _CLAUSE.search(sentence, end)
    clause = sentence[begin : after.start() if after else len(sentence)]
    for name, stems, pattern in _PATTERNS:
        for stem in stems:
            if stem in clause:
                if pattern.search(clause):
                    return name
                break
    return ""
