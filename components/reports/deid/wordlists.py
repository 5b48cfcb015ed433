"""What the lexicon says of a word: stop word, ordinary word, given name, family name, foreign word, eponym.

A word may be several at once (`white` is a word and a family name); the layers decide by context. The lists of
names can be narrowed (`Lists.without`), which is how recall on names that no list holds is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from functools import cache

from components.reports.lexicon import foreign, languages, mapping, terms, words

STOP, WORD, GIVEN, FAMILY, FOREIGN, EPONYM, TERM = 1, 2, 4, 8, 16, 32, 64
NAME = GIVEN | FAMILY
_MEDICAL_END = re.compile(
    r".{3,}(?:itis|osis|oses|oma|omas|omata|ectomy|ectomies|otomy|ostomy|plasty|plasties|graphy|graphic|gram|grams|"
    r"scopy|scopic|opathy|opathies|opathic|emia|emic|uria|algia|megaly|plegia|plegic|paresis|sclerosis|stenosis|"
    r"ectasis|ectatic|trophy|trophic|plasia|plastic|genic|lytic|blastic|cytic|oidal|iform|ular|ation|ations|"
    r"ography|ology|ologist|ologists|ometry|metric|phagia|pnea|pneic|rrhea|rrhage|rrhagic|thorax|cele|celes|lith|liths|lithiasis|"
    r"centesis|desis|pexy|otic|itic|ically|ential|ments?|ness|ities|ility|ability|ization|isation|ectomized)$"
)
_MEDICAL_START = re.compile(
    r"(?:intra|inter|peri|para|sub|supra|infra|retro|trans|hyper|hypo|pseudo|micro|macro|neuro|cardio|pneumo|"
    r"hepato|uretero|broncho|cholecyst|costo|vertebro|osteo|chondro|hemo|haemo|angio|thrombo|lympho|fibro|"
    r"lipo|gastro|entero|naso|antero|postero|infero|supero|medio|latero|cerebro|ventriculo|spino|thoraco|"
    r"lumbo|sacro|multi|poly|extra|endo|post|non|pre|anti|ultra|tele|bio|radio|immuno|chemo|electro|echo)[a-z]{4,}$"
)


_JOINING = frozenset({"de", "nl", "sv", "da", "nb", "fi"})
_LINKS = ("s", "n", "en", "es", "er", "e")


@cache
def _english_terms() -> frozenset[str]:
    """Words of radiology, and the shorthand of reports in English."""
    return words("radiology_words") | languages()["en"]


@cache
def _label_words() -> frozenset[str]:
    """Every word of every label of a header field."""
    return frozenset(
        part for phrases in mapping("labels").values() for phrase in phrases for part in phrase.split()
    )


def _stems(word: str) -> tuple[str, ...]:
    """What `word` may be a regular form of; english_words.txt holds no such forms."""
    if word.endswith("s"):
        found = (
            word[:-1],
            word[:-2] if word.endswith("es") else "",
            word[:-3] + "y" if word.endswith("ies") else "",
        )
    elif word.endswith("ed"):
        found = (word[:-2], word[:-1], "")
    elif word.endswith("ing"):
        found = (word[:-3], word[:-3] + "e", "")
    elif word.endswith("ly"):
        found = (word[:-2], "", "")
    else:
        found = (word[:-4] if word.endswith("ness") else "", "", "")
    return tuple(stem for stem in found if len(stem) > 2)


class Lists:
    """Flags of words, remembered; words are folded and in lower case."""

    def __init__(self, given: Set[str], family: Set[str]) -> None:
        self._given, self._family = given, family
        self._memory: dict[str, int] = {}

    def without(self, names: Set[str]) -> Lists:
        """The same lists that lack some names."""
        return Lists(self._given - names, self._family - names)

    def flags(self, word: str) -> int:
        """The sum of the flags of `word`."""
        found = self._memory.get(word)
        if found is None:
            if len(self._memory) > 200_000:
                self._memory.clear()
            found = self._memory[word] = self._look_up(word)
        return found

    def flags_of(self, words: Iterable[str]) -> dict[str, int]:
        """The flags of many words."""
        memory, flags = self._memory.get, self.flags
        return {word: flags(word) if (mark := memory(word)) is None else mark for word in words}

    def flags_in(self, words: Iterable[str], codes: tuple[str, ...]) -> dict[str, int]:
        """The flags of the words of a note that is (also) written in some languages."""
        found = self.flags_of(words)
        if codes:
            own, plain = foreign(codes), terms(codes)
            joined = bool(_JOINING.intersection(codes))
            for word, mark in found.items():
                if word in own:
                    found[word] |= FOREIGN | (TERM if word in plain else 0)
                elif joined and not mark and self._joined(word, own):
                    found[word] |= FOREIGN
        return found

    def _joined(self, word: str, own: frozenset[str]) -> bool:
        """`Bildversand`: two known words of a language that joins them, the second of which ends no family name."""
        for cut in range(4, len(word) - 3) if len(word) > 8 else ():
            head, tail = word[:cut], word[cut:]
            if (
                tail in own
                and tail not in self._family
                and (head in own or any(head.endswith(link) and head[: -len(link)] in own for link in _LINKS))
            ):
                return True
        return False

    def _look_up(self, word: str) -> int:
        found = STOP if word in words("stop") else 0
        if word in self._given:
            found |= GIVEN
        if word in self._family:
            found |= FAMILY
        if word in words("foreign_words") or word in _label_words():
            found |= FOREIGN
        if word in terms():
            found |= TERM
        if word in mapping("eponyms"):
            found |= EPONYM
        if self._is_word(word, bool(found & NAME)):
            found |= WORD
        return found

    @staticmethod
    def _is_word(word: str, is_name: bool) -> bool:
        english, radiology = words("english_words"), _english_terms()
        if word in english or word in radiology:
            return True
        if is_name:
            return False
        if any(stem in english or stem in radiology for stem in _stems(word)):
            return True
        return bool(
            len(word) > 6 and word.isascii() and (_MEDICAL_END.match(word) or _MEDICAL_START.match(word))
        )


@cache
def default_lists() -> Lists:
    """The lists as they lie in the lexicon."""
    return Lists(words("first_names"), words("surnames"))


@cache
def towns() -> frozenset[str]:
    """Towns of one word."""
    return words("cities") | words("towns")


def known_share(flags: Mapping[str, int]) -> float:
    """The share of the longer words of a note, names aside, that some list holds."""
    known = strange = 0
    for word, mark in flags.items():
        if len(word) > 2 and word.isalpha():
            known += bool(mark & (WORD | STOP | FOREIGN | TERM))
            strange += not mark
    return known / max(1, known + strange)


def english_share(flags: Mapping[str, int], tokens: list[str]) -> float:
    """The share of a note's longer words (at most 400 are looked at) that are English or medical ones.

    `flags` are those of every token.
    """
    longer = [word for word in tokens if len(word) > 2 and word.isalpha()]
    english = foreign = strange = 0
    for word in longer[:: max(1, len(longer) // 400)]:
        mark = flags[word]
        if mark & (WORD | STOP):
            english += not mark & FOREIGN
        elif mark & FOREIGN:
            foreign += 1
        else:
            strange += not mark & NAME
    if english + foreign + strange < 4:
        return 1.0
    return english / (
        english + foreign + strange / 2
    )  # half: strange words are names more often than a language
