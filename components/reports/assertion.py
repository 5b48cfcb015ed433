"""Is a mention affirmed, denied or doubted? Cues with a scope, after NegEx and ConText (Chapman 2001, Harkema 2009).

The rules are written for this project. A cue before a mention reaches forward to a terminator (`but`, a
semicolon, a new clause); a cue after it reaches back within the clause; the nearest cue before decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"
UNASSESSED = "not_assessed"

_NO_CHANGE = (
    r"(?:significant |interval |appreciable |substantial |definite |obvious |marked |"
    r"relevant |further |apparent )*(?:change|interval|increase|decrease|progression|growth|enlargement of|"
    r"difference|worsening|improvement|doubt|longer|resolution|regression)"
)
PRIOR = (
    r" (?:on|in|at|during|as of) (?:the |an? |any |his |her )?(?:\[date\]|(?:most )?(?:prior|previous|earlier|"
    r"last|preceding|comparison|"
    r"older?|outside|initial|baseline|past|recent prior)\b|(?:19|20)\d\d\b|\d{1,2}[/.-]\d|"
    r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b)| previously| before\b| earlier\b| then\b"
)
_DENIED_BEFORE = (
    rf"\bno\b(?! {_NO_CHANGE})|\bnot\b(?! (?:only|excluded?|ruled out|(?:significantly |completely |entirely |fully |"
    rf"substantially )?(?:changed|different|resolved|cleared|improved|decreased|increased)|be (?:excluded|ruled out)|"
    rf"certain|clear|exclude|rule out|necessarily|without|adequately|well\b|optimal\w*|definitely excluded|"
    rf"entirely exclude))"
    rf"|\b(?:is|are|was|were|do|does|did|has|have)n['\u2019]t\b(?! (?:exclude|rule out|resolved|changed))"
    rf"|\bwithout\b(?! {_NO_CHANGE})|\bwith no\b(?! {_NO_CHANGE})|\babsence of\b|\bnegative (?:\w+ )?for\b|"
    rf"\bfree (?:of|from)\b|\bclear of\b|\bdevoid of\b|\black(?:s|ing)? (?:of )?|\bdenie[sd]\b|\bdenying\b|"
    rf"\brather than\b|\binstead of\b|\bneither\b|\bnor\b|\bunremarkable for\b|\bargues? against\b|"
    rf"\babsent\b(?! (?:on|in|at))"
    r"|\b(?:has|have) been (?:ruled out|excluded)\b|\bexcludes?\b|\brules? out\b(?=[^.]{0,6}$)|"
    r"(?<!incomplete )(?<!partial )(?<!near )(?<!near-complete )(?<!no )\bresolution of\b|"
    r"(?<!partially )(?<!nearly )(?<!almost )(?<!not )\bresolved\b|\bfail(?:s|ed|ing)? to\b|\bnone of\b|\bnever\b|"
    r"\binterval (?:clearing|removal) of\b|(?:^|\brecently |\bnow )removed\b|\bremoval of\b|"
    r"\bnon-?visuali[sz]ation of\b|"
    r"\b(?:status post|s/p|after|following) (?:\w+ )?(?:removal|resection|repair|excision|drainage|evacuation|"
    r"correction) of\b"
)
_DOUBT_BEFORE = (
    r"\bpossibl[ey]\b|\bpossibility of\b|\bprobabl[ey]\b|(?<!un)\blikely\b|\bsuspicious for\b|"
    r"\bsuspect(?:ed|s)?\b|\bsuspicion (?:of|for)\b|\bconcern(?:ing)? (?:for|of)\b|\bquestion(?:able| of|"
    r"ed)?\b|\bmay\b|\bmight\b|\bcould\b|\b(?:cannot|can not|can['\u2019]t|could not) (?:\w+ly )?(?:exclude|"
    r"rule out)\b"
    r"|\bnot (?:\w+ly )?(?:exclude|rule out)\b|\b(?:difficult|hard) to (?:exclude|rule out)\b|\bversus\b|\bvs\b|"
    r"\bdifferential\b|\bsuggest(?:s|ive|ing|ed)?\b|\brule out\b|\br/o\b|\bevaluate for\b|"
    r"\bassess for\b|\bequivocal\b|\bindeterminate for\b|\bpotential(?:ly)?\b|\bpresumed\b|\bpresumably\b|"
    r"\bworrisome for\b|\bwhether\b|\bunclear if\b|\b(?:un)?certain (?:if|for)\b|^should (?:an?|the|any|"
    r"there)\b|\bperhaps\b"
    r"|(?<!in )\bfavou?r(?:s|ed|ing)?\b|\?|\bif\b|\bunlikely\b|\bless likely\b|\bdoubtful\b|"
    r"\bshould be (?:considered|excluded)\b|\bapparent\b|\braises? the (?:possibility|question)\b|"
    r"\bcompatible with either\b"
)
_SEEN = (
    r"(?:seen|identified|present|observed|detected|visuali[sz]ed|noted|evident|appreciated|"
    r"demonstrated|found|visible|apparent|shown|recogni[sz]ed|depicted|encountered|revealed|displayed|discernible|"
    r"discerned|documented|monitored|noticed|encountered)"
)
_AUX = r"(?:is|are|was|were|has been|have been|has|have|can be|could be)"
_DENIED_AFTER = re.compile(
    rf"\b(?:{_AUX} ?(?:not|no longer|never)|(?:is|are|was|were|has|have)n['\u2019]t|"
    rf"no longer)(?: \w+ly)?(?: been| be)? ?"
    rf"(?:definite\w* |clearly |a )?(?:{_SEEN}|feature|finding|enlarged|thickened|dilated)\b(?!{PRIOR})|"
    rf"\b(?:is|are|was|were|has|have)(?: been| now| completely| since| interval\w*| entirely| fully)* (?:absent|"
    rf"excluded|ruled out|resolved|cleared|removed|disappeared|subsided|vanished|gone|"
    rf"regressed completely)\b(?!{PRIOR})"
    rf"|\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly )?(?:seen|identified|visuali[sz]ed|detected|"
    rf"demonstrated|found|discerned)\b(?!{PRIOR})|^[\w ]{{0,12}}(?:: ?| - |\? ?)(?:no\b|none|negative|absent|nil|"
    rf"not (?:{_SEEN}))|"
    rf"\b(?:is|are|was|were) (?:negative|unlikely to be present|neither)\b|"
    rf"^[ ,]*(?:resolved|absent|not (?:seen|identified|present|observed|detected|visuali[sz]ed)|none)\b(?!{PRIOR})"
)
_DOUBT_AFTER = re.compile(
    r"\b(?:cannot|can not|can['\u2019]t|could not) be (?:\w+ly |completely )*(?:excluded|ruled out)\b|"
    r"\bnot (?:be )?(?:\w+ly )?(?:excluded|ruled out)\b|\b(?:is|are|was|were) (?:suspected|"
    r"possible|likely|probable|questioned|questionable|unlikely|favou?red|not certain|uncertain|equivocal|doubtful|"
    r"(?:difficult|hard|impossible) to exclude|less likely|in question|in the differential)\b"
    r"|\b(?:may|might|could) be (?:present|considered|seen)\b|\bversus\b|\bvs\b|^ ?\?|"
    r"\bshould be (?:considered|excluded)\b|\bto be (?:considered|excluded)\b|\bsuspected$|\bsuspected[.,]|"
    r"\bunlikely\b|\bdifferential\b|\bin the differential\b|"
    r"\b(?:is|are|was|were) (?:not well|poorly|not clearly|not optimally|suboptimally) (?:seen|visuali[sz]ed|"
    r"evaluated|demonstrated|assessed)\b"
)
_UNASSESSED_AFTER = re.compile(
    r"\b(?:cannot|can not|could not|can['\u2019]t) be (?:\w+ly )?(?:assessed|evaluated|judged|commented|"
    r"determined)\b|"
    r"\b(?:is|are|was|were) (?:not (?:assessed|evaluated|evaluable|assessable)|non-?diagnostic|"
    r"(?:severely |markedly )?(?:limited|suboptimal|degraded|precluded))\b"
)
_UNASSESSED_BEFORE = re.compile(
    r"\b(?:evaluation|assessment|detection|sensitivity|characteri[sz]ation|exclusion|screening|"
    r"surveillance) (?:of|for) (?:[\w-]+ ){0,4}$"
)
_END_ALWAYS = (
    r";|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept(?:ing)?\b|\bapart from\b|"
    r"\bother than\b|\baside from\b|\bbesides\b|\byet\b|\bwith the exception\b|\bsecondary to\b|"
    r"\bdue to\b|\bbecause\b|\bwhereas\b|\bwhile\b|\bnevertheless\b"
    rf"|\bthere (?:is|are|was|were|has|have)\b|\bon the other hand\b|(?:is|are|was|"
    rf"were) {_SEEN}(?:,| and| with| where| while| in the setting)|\bwhich\b|:"
    r"|(?:\band|,) (?:the|both|this|these|its) (?:[\w-]+ ){1,4}(?:is|are|was|were|shows?|has|have|contains?|"
    r"demonstrates?)\b"
)
_DEGREE = (
    r"(?:a|an|mild|mildly|moderate|severe|marked|small|large|trace|minimal|multiple|few|several|"
    r"scattered|stable|unchanged|diffuse|extensive|bilateral|patchy|new|increased|there|again|old|"
    r"known|persistent|significant|numerous|subtle|prominent|slight)"
)
_END_CLAUSE = re.compile(rf"(?:,(?: and| with)?|\band|\bwith) {_DEGREE}\b")
_ENDS = re.compile(_END_ALWAYS)
_CUES = re.compile(f"(?P<denied>{_DENIED_BEFORE})|(?P<doubt>{_DOUBT_BEFORE})")
_MORE = re.compile(r"\b(?:or|nor)\b")
_ASIDE = re.compile(r"^[\w ]{0,30}, (?:which|that) [^,;]{1,90},")
_STATED_AFTER = re.compile(r"^[\w ,]{0,60}\b(?:and|,) " + _DEGREE)


# a clause without any of these cannot match the pattern of the name
_UNASSESSED_STEMS = ("not", "n't", "n\u2019t", "limited", "suboptimal", "degraded", "precluded", "diagnostic")
_DENIED_STEMS = (
    *(
        "not",
        "n't",
        "n\u2019t",
        "never",
        "longer",
        "absent",
        "exclud",
        "ruled",
        "resolv",
        "clear",
        "remov",
        "gone",
    ),
    *(
        "disappear",
        "subsid",
        "vanish",
        "regress",
        "negativ",
        "neither",
        "none",
        "nil",
        ": no",
        ":no",
        "- no",
        "? no",
        "?no",
    ),
)
_DOUBT_STEMS = (
    *(
        "exclud",
        "ruled",
        "suspect",
        "possib",
        "likely",
        "probab",
        "question",
        "favo",
        "certain",
        "equivoc",
        "doubt",
    ),
    *(
        "differential",
        "may",
        "might",
        "could",
        "versus",
        "vs",
        "?",
        "consider",
        "well",
        "poor",
        "clearly",
        "optimal",
    ),
)


def _holds(clause: str, stems: tuple[str, ...]) -> bool:
    """Whether any of the stems is in the clause: a quick look before a long pattern."""
    for stem in stems:  # noqa: SIM110 - a generator would double the time
        if stem in clause:
            return True
    return False


@lru_cache(maxsize=2048)
def _cues(sentence: str) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (m.start(), m.end(), ABSENT if m["denied"] is not None else UNCERTAIN)
        for m in _CUES.finditer(sentence)
    )


def assertion(sentence: str, start: int, end: int) -> str:
    """`present`, `absent` or `uncertain` for the mention `[start, end)` of a sentence in lower case.

    `not_assessed` where the sentence only says that it could not be judged.
    """
    after = _ASIDE.sub(",", sentence[end : end + 200], count=1)[:160]
    stop = _ENDS.search(after)
    clause = after[: stop.start()] if stop and stop.group() != ":" else after
    if (
        _holds(clause, _UNASSESSED_STEMS)
        and _UNASSESSED_AFTER.search(clause)
        and (not _END_CLAUSE.search(clause) or _UNASSESSED_BEFORE.search(sentence[:start]))
    ):
        return UNASSESSED
    if _holds(clause, _DENIED_STEMS) and _DENIED_AFTER.search(clause) and not _STATED_AFTER.match(clause):
        return ABSENT
    if _holds(clause, _DOUBT_STEMS) and _DOUBT_AFTER.search(clause):
        return UNCERTAIN
    cues = _cues(sentence)
    for number in range(bisect_left(cues, (start,)) - 1, -1, -1):
        begin, finish, status = cues[number]
        if finish > start:
            if begin < start < finish:
                return status
            continue
        between = sentence[finish:start]
        if len(between) > 240 or _ENDS.search(between):
            break
        if status == ABSENT:
            breaks = _END_CLAUSE.search(between)
            if breaks and not _MORE.search(sentence[finish + breaks.start() : end + 60].split(";")[0]):
                break
        elif between.count(",") > 1:
            break
        return status
    return PRESENT
