"""A sentence as the findings' rules read it: small letters, single spaces, telegraphic shorthand written out."""

from __future__ import annotations

import re
from functools import lru_cache

_LOBES = {"u": "upper", "m": "middle", "l": "lower"}
_SIDES = {"r": "right", "l": "left", "b": "bilateral"}
_MEANING = {
    "w/o": "without",
    "w/": "with",
    "e/o": "evidence of",
    "c/w": "consistent with",
    "r/o": "rule out",
    "d/t": "due to",
    "b/l": "bilateral",
    "bilat": "bilateral",
    "poss": "possible",
    "prob": "probable",
    "susp": "suspicious",
    "signif": "significant",
    "sig": "significant",
    "prev": "previous",
    "query": "possible",
    "nil": "no",
    "zero": "no",
    "\u00f8": "no",
    "lt": "left",
    "rt": "right",
    "ggos": "ground-glass opacities",
    "hx": "history",
    "s/p": "status post",
    "neg": "negative",
}
# a short form is a word of its own; `sig.` keeps no stop, so that it ends no clause
_SHORT = re.compile(
    r"(?<![\w/])(?:(?P<lobe>[rl][uml]l)s?(?![\w/])|(?P<word>w/o|w/(?=\s)|e/o|c/w|r/o|d/t|b/l|s/p|bilat|poss|"
    r"prob|susp|"
    r"signif|sig|prev|query|zero|\u00f8|lt|rt|ggos|hx|neg|nil(?! (?:acute|else|significant|of note)\b))(?![\w/])\.?)"
    r"|(?P<more>\b[rl] ?[><=]{1,2} ?[rl]\b)|(?P<minus>[ :]\([-\u2013\u2212]\)|: ?[-\u2013\u2212](?=[.;,]|$))"
    r"|(?<=[a-z])(?P<none> ?[:=] ?0(?=[.;,]|$)| 0(?=[.;]|$))"
)
_LETTER = re.compile(r"(?<![\w/.'-])[RL](?![\w/.'\u2019>=<-])(?! ?[><])")
_MAY_HOLD = re.compile(
    r"[rl][uml]l|/|\b(?:bilat|poss|prob|susp|sig|prev|query|zero|lt|rt|ggos|hx|neg|nil)|\u00f8|[><]|"
    r"\([-\u2013\u2212]\)|"
    r": ?[-\u2013\u2212]|0[.;,]|0$"
)


@lru_cache(maxsize=4096)
def plain_form(sentence: str) -> str:
    """The sentence in lower case with single spaces and its shorthand written out.

    `RLL`, `R base`, `R>L`, `w/o`, `e/o`, `poss.`, `nil`, `(-)` and the like become the words they stand for.
    """
    if "R" in sentence or "L" in sentence:
        sentence = _LETTER.sub(lambda match: "right" if match.group() == "R" else "left", sentence)
    lower = " ".join(sentence.lower().split())
    return _SHORT.sub(_written_out, lower) if _MAY_HOLD.search(lower) else lower


def _written_out(match: re.Match[str]) -> str:
    if match["lobe"]:
        side, lobe = match["lobe"][0], match["lobe"][1]
        return f"{_SIDES[side]} {_LOBES[lobe]} lobe"
    if match["word"]:
        return _MEANING[match["word"].rstrip(".")]
    if match["more"]:
        first, last = match["more"][0], match["more"][-1]
        return f"{_SIDES[first]} more than {_SIDES[last]}"
    return ": none"
