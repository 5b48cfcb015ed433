"""On which side is a finding of a sentence that names several things, each with its own side?

Sides belong to the noun they stand before (`right effusion`) or, after a preposition, to the one they follow
(`effusion on the right`); what has no side of its own takes the clause's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from components.reports.assertion_cues import REMAINDER

MAX_REACH = 400  # characters; a side further away is not the mention's
_SIDE = re.compile(
    r"\b(?:(?P<both>bilateral\w*|both|bibasilar|bibasal|biapical|(?:either|each) (?:side|lung)|"
    # the verb is no side: `has left a scar`, `was left in place`
    r"left and right|right and left)|(?P<left>(?<!has )(?<!have )(?<!had )(?<!was )(?<!were )(?<!been )left(?:-sided)?|"
    r"lingula\w*)|"
    r"(?P<right>right(?:-sided)?))\b(?! (?:ventric|atri|heart))"
)
_CLAUSE = re.compile(
    r";|(?:,|\band) (?=in the (?:left|right) [\w ]{1,25}?,? (?:there\b|an?\b))|\bbut\b|\bhowever\b|"
    r"\bwhereas\b|\bwhile\b|\balthough\b|\band there (?:is|are)\b|: (?=no\b)|\. |(?:,|"
    r" and)(?: and)? (?=(?:the |there )?(?:left|right)(?:-sided)? (?:[\w-]+ ){0,3}(?:is|are|was|were|"
    r"shows?|has|contains?|remains?|appears?|demonstrates?)\b)"
)
_CLEAR = re.compile(
    r"(?:, )?(?:\bwith )?(?:an? )?\b(?:normal|clear|unremarkable|well[- ]aerated) (?:left|right) (?:lung|"
    r"hemithorax|side|base|apex|pleural space)\b|(?:^|(?:,|\band|\bwith) )(?:the )?(?:[\w-]+ "
    r"){1,4}(?:(?:is|are|was|were|remains?|appears?) )?(?:otherwise |entirely |completely |now )*(?:clear|"
    r"normal|unremarkable|spared|unaffected|preserved)\b"
)
_PREPOSITION = re.compile(
    r"\b(?:in|at|on|of|within|to|from|involving|along|over|into|throughout|affecting|occupying|near|"
    r"for) (?:the |both |its |their |each )?(?:[a-z]+er |[a-z]+al )?$"
)
_LINK = re.compile(r"[\s,]*(?:and|or|with|plus)?(?: associated| adjacent| some| mild| small)?\s*")
_BEFORE = re.compile(
    r"\b(?:none|nothing|not|absent|no [a-z]+) (?:is |was )?(?:seen |present )?(?:on|in|at) the (?:left|"
    r"right)\b|\b(?:previously|formerly|earlier|before) (?:seen )?(?:bilateral|both|(?:on|in) the (?:left|"
    r"right)|left|right)\b"
)
# sides of what is no finding, and sides that are said to be free of it
_OF_OTHERS = re.compile(
    r"(?<=right)(?:-sided)?,? but (?:no|not) left\b|(?<=left)(?:-sided)?,? but (?:no|not) right\b|"
    r"\b(?:left|right)(?:-sided)? (?:\w+ ){0,3}?(?:\w*ectomy|thoracotomy|resection|surgery|thoracentesis|"
    r"transplant\w*|approach)\b|\b(?:normal|clear|unremarkable|(?:compared|relative) (?:to|"
    r"with) the) (?:left|right)\b|\b(?:aeration|expansion|re-?expansion|ventilation|remainder|"
    r"rest) of the (?:left|right)\b|\b(?:clear\w*|resol\w+|gone|disappeared|vanished|absent|no longer \w+|"
    r"not (?:seen|present|identified)) (?:on|in|from|at) the (?:left|right)\b(?=[\w ]{0,20}(?:,|;|\.|$|"
    r"\bbut|\byet|\bwhile|\band))|\bno (?:[\w-]+ ){1,4}(?:on|in|at) the (?:left|"
    r"right)\b(?=[\w ]{0,20},? (?:with|but|and)(?: [\w-]+){1,3} ones? (?:on|in|at)\b)"
)
# where the sentence has several sides, one that an organ without findings has is not the finding's
_OF_ORGANS = re.compile(
    r"\b(?:left|right) (?:hemi)?(?:diaphragm\w*|kidney|renal|adrenal|hepatic|liver|thyroid|breast|shoulder|"
    r"clavic\w+|rib\w*|arm|scapula\w*)\b|\b(?:shift|deviat\w+|displaced|rotat\w+) to(?:ward)?s? the "
    r"(?:left|right)\b"
)
_ALSO = re.compile(
    r"\b(?:and|while|whereas|but) (?:that|those|the ones?) (?:in|on|of|at) the (?P<side>left|"
    r"right)\b(?![^.;]*\b(?:resolved|cleared|gone|normal|clear)\b)"
)
_ELSEWHERE = re.compile(
    r"\b(?:resolved|cleared|gone|absent)\b[^.;]*\bbut not (?:on|in|at) the (?P<side>left|right)\b"
)
_GONE = re.compile(r"\b(?:resolved|cleared|gone|disappeared|absent|no longer|not)\b")


def sides(text: str) -> str:
    """`left`, `right`, `bilateral` or "" for words in lower case."""
    return joined({match.lastgroup for match in _SIDE.finditer(text)})


def joined(found: Collection[str | None]) -> str:
    """One of `left`, `right`, `bilateral` or "" for several sides."""
    if "both" in found or "bilateral" in found or {"left", "right"} <= set(found):
        return "bilateral"
    return next((side for side in ("left", "right") if side in found), "")


def side_of(lower: str, start: int, end: int, others: Callable[[str], list[tuple[int, int]]]) -> str:
    """The side of the mention `[start, end)`; `others` gives the places of the abnormal things that a text names."""
    if not _SIDE.search(lower):
        return ""
    shift = max(0, start - MAX_REACH)
    lower, start, end = lower[shift : end + MAX_REACH], start - shift, end - shift
    lower = _OF_OTHERS.sub(
        lambda match: _SIDE.sub(lambda side: " " * len(side.group()), match.group()), lower
    )
    begin, limit = _clause(lower, start, end)
    rest = REMAINDER.search(lower, end)
    if rest and not _GONE.search(lower, end, rest.start()):
        rest = None
    if rest := rest or _ELSEWHERE.search(lower, end):
        return rest["side"]
    clause = lower[begin:limit]
    for pattern in (_BEFORE, _CLEAR):
        clause = pattern.sub(
            lambda match: (
                match.group() if match.end() > start - begin > match.start() else " " * len(match.group())
            ),
            clause,
        )
    if also := _ALSO.search(lower, end):
        return joined({also["side"], *(match.lastgroup for match in _SIDE.finditer(clause))})
    tokens = _tokens(clause, start - begin)
    if not tokens:
        return "" if begin == 0 and limit == len(lower) else sides(_CLEAR.sub(" ", lower))
    place = (start - begin, end - begin)
    heads = sorted([place, *(head for head in others(clause) if head[1] <= place[0] or head[0] >= place[1])])
    if len(heads) == 1 or len({kind for *_, kind in tokens}) == 1:
        return joined({kind for *_, kind in tokens})
    owned: dict[tuple[int, int], set[str | None]] = {head: set() for head in heads}
    for at, after, kind in tokens:
        for head in _owners(clause, heads, at, after):
            owned[head].add(kind)
    if not owned[place]:
        owned[place] = _inherited(clause, heads, owned, heads.index(place))
    return joined(owned[place] or {kind for *_, kind in tokens})


def _tokens(clause: str, place: int) -> list[tuple[int, int, str | None]]:
    """(start, end, side) of the sides a clause names, without those of other organs where it names several."""
    found = [(match.start(), match.end(), match.lastgroup) for match in _SIDE.finditer(clause)]
    if len({kind for *_, kind in found}) > 1:
        other = [
            match.span() for match in _OF_ORGANS.finditer(clause) if not match.start() <= place < match.end()
        ]
        kept = [item for item in found if not any(begin <= item[0] < end for begin, end in other)]
        return kept or found
    return found


def _clause(lower: str, start: int, end: int) -> tuple[int, int]:
    begin = max((match.end() for match in _CLAUSE.finditer(lower) if match.end() <= start), default=0)
    after = _CLAUSE.search(lower, end)
    return begin, after.start() if after else len(lower)


def _owners(clause: str, heads: list[tuple[int, int]], at: int, after: int) -> list[tuple[int, int]]:
    """Whose side the word `[at, after)` is: the noun before a prepositional phrase, else the next noun."""
    inside = [head for head in heads if head[0] <= at < head[1]]
    if inside:
        return inside
    before = [head for head in heads if head[1] <= at]
    following = [head for head in heads if head[0] >= after]
    if before and _PREPOSITION.search(clause[max(0, at - 30) : at]):
        return before[-1:]
    if following and "," not in clause[after : following[0][0]]:
        return following[:1]
    return before[-1:] or following


def _inherited(
    clause: str, heads: list[tuple[int, int]], owned: dict[tuple[int, int], set[str | None]], place: int
) -> set[str | None]:
    """The side of a noun joined to the target (`atelectasis and scarring in the lingula`)."""
    for step in (1, -1):
        at = place
        while 0 <= at + step < len(heads):
            low, high = sorted((heads[at], heads[at + step]))
            if not _LINK.fullmatch(clause[low[1] : high[0]]):
                break
            at += step
            if owned[heads[at]]:
                return owned[heads[at]]
    return set()
