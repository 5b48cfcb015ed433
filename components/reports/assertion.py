"""Is a mention affirmed, denied or doubted? Cues with a scope, after NegEx and ConText (Chapman 2001, Harkema 2009).

The rules are written for this project. A cue before a mention reaches forward to a terminator (`but`, a
semicolon, a new clause); a cue after it reaches back within the clause; the nearest cue before decides.
"""

from __future__ import annotations

import re
from functools import lru_cache

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"

_NO_CHANGE = (
    r"(?:significant |interval |appreciable |substantial |definite |obvious |marked |"
    r"relevant )*(?:change|interval|increase|decrease|progression|growth|enlargement of|"
    r"difference|worsening|improvement|doubt|longer)"
)
_DENIED_BEFORE = (
    rf"\bno\b(?! {_NO_CHANGE})|\bnot\b(?! (?:only|excluded?|ruled out|(?:significantly |"
    rf"substantially )?(?:changed|different)|be (?:excluded|ruled out)|certain|clear|exclude|"
    rf"rule out|necessarily|without|adequately|well))"
    rf"|\bwithout\b(?! {_NO_CHANGE})|\bwith no\b(?! {_NO_CHANGE})|\babsence of\b|\bnegative for\b|"
    rf"\bfree (?:of|from)\b|\bclear of\b|\bdevoid of\b|\black(?:s|ing)? (?:of )?|\bdenie[sd]\b|"
    rf"\brather than\b|\bneither\b|\bnor\b"
    r"|\b(?:has|have) been (?:ruled out|excluded)\b|\bexcludes?\b|\brules? out\b(?=[^.]{0,6}$)|"
    r"\bresolution of\b|\bresolved\b|\bfails? to\b|\bnone of\b|\bnever\b|\binterval (?:clearing|"
    r"removal) of\b|\bremoval of\b|\bstatus post (?:removal|resection) of\b"
)
_DOUBT_BEFORE = (
    r"\bpossibl[ey]\b|\bpossibility of\b|\bprobabl[ey]\b|\blikely\b|\bsuspicious for\b|"
    r"\bsuspected\b|\bsuspicion (?:of|for)\b|\bconcern(?:ing)? (?:for|of)\b|\bquestion(?:able| of|"
    r"ed)?\b|\bmay\b|\bmight\b|\bcould\b|\bcannot (?:exclude|rule out)\b|\bcan not (?:exclude|"
    r"rule out)\b"
    r"|\bcan't (?:exclude|rule out)\b|\bnot (?:exclude|rule out)\b|\bversus\b|\bvs\b|"
    r"\bdifferential\b|\bsuggest(?:s|ive|ing|ed)?\b|\brule out\b|\br/o\b|\bevaluate for\b|"
    r"\bassess for\b|\bequivocal\b|\bindeterminate for\b|\bpotential(?:ly)?\b|\bpresumed\b|"
    r"\bworrisome for\b"
    r"|\bfavou?r(?:s|ed|ing)?\b|\?|\bif\b|\bunlikely\b|\bshould be (?:considered|excluded)\b|\bapparent\b"
)
_SEEN = (
    r"(?:seen|identified|present|observed|detected|visuali[sz]ed|noted|evident|appreciated|"
    r"demonstrated|found|visible|apparent|shown|recogni[sz]ed|depicted|encountered)"
)
_DENIED_AFTER = re.compile(
    rf"\b(?:is|are|was|were|has been|have been|has|have|can be|could be)? ?(?:not|no longer|"
    rf"never)(?: \w+ly)?(?: been| be)? ?(?:definite\w* |clearly )?{_SEEN}\b(?! (?:on|in|"
    rf"at) (?:\[date\]|(?:the )?(?:prior|previous|earlier|last|comparison))| previously| before)|"
    rf"\b(?:is|are|was|were|has|have)(?: been| now| completely| since| interval\w*)* (?:absent|"
    rf"excluded|ruled out|resolved|cleared|removed|disappeared)\b"
    r"|\b(?:cannot|can not|could not) be (?:\w+ly )?(?:seen|identified|visuali[sz]ed|detected|"
    r"demonstrated)\b|^[\w ]{0,12}: ?(?:no\b|none|negative|absent|nil)|\b(?:is|are|was|"
    r"were) (?:absent|negative|unlikely to be present)\b|^[ ,]*(?:resolved|absent|not seen|"
    r"not identified|not present|none)\b"
)
_DOUBT_AFTER = re.compile(
    r"\b(?:cannot|can not|can't|could not) be (?:\w+ly |completely )?(?:excluded|ruled out)\b|"
    r"\bnot (?:be )?(?:\w+ly )?(?:excluded|ruled out)\b|\b(?:is|are|was|were) (?:suspected|"
    r"possible|likely|probable|questioned|questionable|unlikely|favou?red|not certain|equivocal|"
    r"in the differential)\b"
    r"|\b(?:may|might|could) be (?:present|considered|seen)\b|\bversus\b|\bvs\b|^ ?\?|"
    r"\bshould be (?:considered|excluded)\b|\bto be (?:considered|excluded)\b|\bsuspected$|"
    r"\bunlikely\b|\bdifferential\b|\bin the differential\b"
)
_END_ALWAYS = (
    r";|\bbut\b|\bhowever\b|\balthough\b|\bthough\b|\bexcept(?:ing)?\b|\bapart from\b|"
    r"\bother than\b|\baside from\b|\bbesides\b|\byet\b|\bwith the exception\b|\bsecondary to\b|"
    r"\bdue to\b|\bbecause\b|\bwhereas\b|\bwhile\b|\bnevertheless\b"
    rf"|\bthere (?:is|are|was|were|has|have)\b|\bon the other hand\b|(?:is|are|was|"
    rf"were) {_SEEN}(?:,| and| with| where| while| in the setting)|\bwhich\b|:"
)
_DEGREE = (
    r"(?:a|an|mild|mildly|moderate|severe|marked|small|large|trace|minimal|multiple|few|several|"
    r"scattered|stable|unchanged|diffuse|extensive|bilateral|patchy|new|increased|there|again|old|"
    r"known|persistent|significant|numerous|subtle|prominent|slight)"
)
_END_CLAUSE = re.compile(rf"(?:,(?: and| with)?|\band) {_DEGREE}\b")
_ENDS = re.compile(_END_ALWAYS)
_CUES = re.compile(f"(?P<denied>{_DENIED_BEFORE})|(?P<doubt>{_DOUBT_BEFORE})")
_MORE = re.compile(r"\b(?:or|nor)\b")


@lru_cache(maxsize=2048)
def _cues(sentence: str) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (m.start(), m.end(), ABSENT if m["denied"] is not None else UNCERTAIN)
        for m in _CUES.finditer(sentence)
    )


def assertion(sentence: str, start: int, end: int) -> str:
    """`present`, `absent` or `uncertain` for the mention `[start, end)` of a sentence in lower case."""
    after = sentence[end : end + 160]
    stop = _ENDS.search(after)
    clause = after[: stop.start()] if stop and stop.group() != ":" else after
    if _DENIED_AFTER.search(clause) and not re.match(r"[\w ,]{0,60}\b(?:and|,) " + _DEGREE, clause):
        return ABSENT
    if _DOUBT_AFTER.search(clause):
        return UNCERTAIN
    for begin, finish, status in reversed(_cues(sentence)):
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
