"""Is a mention affirmed, denied or doubted? Cues with a scope, after NegEx and ConText (Chapman 2001, Harkema 2009).

The rules are written for this project. A cue before a mention reaches forward to a terminator (`but`, a
semicolon, a new clause); a cue after it reaches back within the clause; the nearest cue before decides.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from functools import lru_cache

from components.reports import assertion_cues as words

PRESENT, ABSENT, UNCERTAIN = "present", "absent", "uncertain"
UNASSESSED = "not_assessed"


@lru_cache(maxsize=2048)
def _cues(sentence: str) -> tuple[tuple[int, int, str], ...]:
    return tuple(
        (m.start(), m.end(), ABSENT if m["denied"] is not None else UNCERTAIN)
        for m in words.CUES.finditer(sentence)
        if not (
            m.group().startswith("resol")
            and words.NOT_WHOLE.search(sentence[max(0, m.start() - 50) : m.start()])
        )
    )


@lru_cache(maxsize=4096)
def assertion(sentence: str, start: int, end: int) -> str:
    """`present`, `absent` or `uncertain` for the mention `[start, end)` of a sentence in lower case.

    `not_assessed` where the sentence only says that it could not be judged, or speaks of a relative.
    """
    before = sentence[max(0, start - 200) : start]
    if words.KIN.search(before) or words.LIMITED.search(before):
        return UNASSESSED
    cues = _cues(sentence)
    denied = _by_cue_before(sentence, start, end, cues)
    said = _by_words_after(sentence, before, start, end, denied)
    if said is not None:
        return said
    if denied is not None:
        return denied
    either = words.EITHER_OR.match(sentence, end) or words.EITHER_OR.match(sentence[end : end + 80])
    if (either or words.OR_ELSE.search(before)) and "no " not in before:
        return UNCERTAIN
    return PRESENT


def _by_words_after(sentence: str, before: str, start: int, end: int, denied: str | None) -> str | None:
    """What follows a mention in its clause, or in the next one that has no subject of its own; None: nothing."""
    whole = sentence[end : end + 220]
    after = words.ASIDE.sub(",", whole[:200], count=1)[:160]
    if words.PROPERTY.match(whole) or words.PART_OF.search(before):
        return None
    clause = _until_end(sentence, end, after)
    if words.INTRODUCED.match(before):
        clause = clause.partition(",")[0]
    if (
        words.UNASSESSED_STEMS.search(clause)
        and words.UNASSESSED_AFTER.search(clause)
        and (not words.END_CLAUSE.search(clause) or words.UNASSESSED_BEFORE.search(before))
    ):
        return UNASSESSED
    if (
        words.DENIED_STEMS.search(clause)
        and (found := words.DENIED_AFTER.search(clause))
        and not words.STATED_AFTER.match(clause[: found.end()])
        and not words.NEW_SUBJECT.match(clause[: found.start()])
        and not ("," in clause[: found.start()] and words.STATED_BEFORE.search(before))
    ):
        there = words.GONE_THERE.match(clause[found.end() :])
        elsewhere = there is not None and _on_other_side(sentence[max(0, start - 30) : end], there["side"])
        return PRESENT if elsewhere or words.PARTLY.search(whole) or words.REMAINDER.search(whole) else ABSENT
    if denied != ABSENT and (
        (words.DONE_AFTER.match(whole) and words.DONE_BEFORE.search(before))
        or words.REVISED.match(whole)
        or (words.EARLIER.search(before) and words.CLEARED.search(whole))
        or (words.EXPECTED.search(before) and words.YET.search(whole))
    ):
        return ABSENT
    if (
        denied == ABSENT
        and (except_for := words.EXCEPTION.match(whole))
        and sentence[end - 5 : end - 1] in except_for.group()
    ):
        return PRESENT
    if denied == ABSENT and words.OLD_ONE.search(whole):
        return PRESENT
    if (
        len(whole) > len(clause) - 3
        and (gone := words.ELLIPSIS.search(whole))
        and _same_subject(whole[: gone.start()])
    ):
        return ABSENT
    if words.DOUBT_ELLIPSIS.match(whole):
        return UNCERTAIN
    if (
        words.DOUBT_STEMS.search(clause)
        and (doubt := words.DOUBT_AFTER.search(clause))
        and not words.ANOTHER.match(clause[: doubt.start()])
        and not words.NEW_SUBJECT.match(clause[: doubt.start()])
        and not words.CARE_OF.search(before)
    ):
        return denied if denied == ABSENT and words.OF_A_SIGN.search(doubt.group()) else UNCERTAIN
    if denied is None and words.UNREAL.match(clause):
        return UNCERTAIN
    return None


def _on_other_side(named: str, side: str) -> bool:
    """Whether the words that name a finding put it on the other side than `side`."""
    return ("left " if side == "right" else "right ") in named


def _until_end(sentence: str, end: int, after: str) -> str:
    """The rest of a mention's clause."""
    stop = words.ENDS.search(after)
    return after[: stop.start()] if stop and stop.group() != ":" else after


def _same_subject(between: str) -> bool:
    """Whether nothing else is named between a mention and a denial that has no subject."""
    return not words.OTHER_SUBJECT.search(between)


def _by_cue_before(sentence: str, start: int, end: int, cues: tuple[tuple[int, int, str], ...]) -> str | None:
    """The nearest cue before a mention whose scope reaches it; None where there is none."""
    for number in range(bisect_left(cues, (start,)) - 1, -1, -1):
        begin, finish, status = cues[number]
        if finish > start:
            if begin < start < finish:
                return status
            continue
        between = sentence[finish:start]
        if len(between) > 240 or _ended(sentence, begin, finish, start):
            break
        if status == ABSENT:
            if not _reaches(sentence, begin, finish, start, end, between):
                break
            if (aside := words.ABSENCE.match(sentence)) and begin < aside.end() <= start:
                break
        else:
            if between.count(",") > 1 or not _doubts(
                sentence[begin:finish], between, sentence[end : end + 40]
            ):
                break
            if _denied_sign(sentence, cues, number):
                return ABSENT
        return status
    return None


def _ended(sentence: str, begin: int, finish: int, start: int) -> bool:
    """Whether a clause ends between a cue and the mention at `start`."""
    if told := words.COMPLEMENT.match(sentence, finish):
        finish = told.end()
    stop = words.ENDS.search(sentence, finish, start + 80)
    return stop is not None and stop.start() < start


def _reaches(sentence: str, begin: int, finish: int, start: int, end: int, between: str) -> bool:
    """Whether a denial that ends at `finish` denies the mention, not a thing beside it, in it or that befalls it."""
    breaks = words.END_CLAUSE.search(between)
    if breaks and not words.MORE.search(sentence[finish + breaks.start() : end + 60].partition(";")[0]):
        return False
    if words.EVENT.match(sentence[end : end + 40]) or words.EVENT_OF.match(between):
        return False
    if words.AMISS.match(between) and words.DEVICE.search(sentence, start, end):
        return False
    if words.KNOWN.search(between) and not words.OF_A_TRACE.search(between):
        return False
    if words.ONE_SIDE.search(sentence[:begin]) and words.OTHER_SIDE.match(between):
        return False
    if words.NONE_OF.search(sentence[max(0, start - 80) : start]):
        return bool(re.match(rf" (?:\w+ )*?{words.SEEN}\b", sentence[end : end + 40]))
    return True


def _doubts(cue: str, between: str, after: str) -> bool:
    """Whether a doubt is of the mention, not of something that befalls it or that is advised because of it."""
    if cue in ("if", "unless") and (words.DEFINITE.match(between) or words.ADVICE.search(between)):
        return False
    if cue.startswith(("if", "unless", "should")) and words.GOES_ON.match(after):
        return False
    if cue.endswith("considered") and words.ADVISED_FOR.match(between):
        return False
    if words.MAIN_CLAUSE.search(between):
        return False
    if words.ADVERB.match(cue) and words.OF_ITS_KIND.match(between):
        return False
    return not words.KNOWN.search(between) or words.SIGN_OF.search(between) is not None


def _denied_sign(sentence: str, cues: tuple[tuple[int, int, str], ...], number: int) -> bool:
    """Whether a doubt is itself denied (`nothing to suggest X`, `no suspicion of X`)."""
    begin, finish, _ = cues[number]
    if not number or not words.OF_A_SIGN.search(sentence[begin:finish]):
        return False
    _, earlier, status = cues[number - 1]
    return (
        status == ABSENT
        and bool(words.NO_SIGN.match(sentence[earlier:begin]))
        and not words.ENDS.search(sentence[earlier:begin])
    )
