"""Turn a finding's sentence into its opposite, by rules, in both directions (for the opposite-sentence loss).

The rules of `negate`, in order: `There is a X` -> `There is no X`; `The X is Y` -> `The X is not Y`;
`X is seen` -> `No X is present`; otherwise `No x`. `affirm` undoes them.
"""

from __future__ import annotations

import re

_SEEN = r"(?:present|seen|noted|identified|observed|evident|visuali[sz]ed|detected|found|demonstrated)"
_BE = r"(?P<verb>is|are|was|were)"
_I = re.IGNORECASE
_THERE = re.compile(
    rf"there {_BE} (?:(?:an?|some|now|again|also) )*(?P<rest>(?!no\b|not\b).+)", _I | re.DOTALL
)
_THE_SEEN = re.compile(
    rf"(?P<what>.{{1,200}}?) {_BE} (?:again |also |now )?{_SEEN}(?P<tail>[^.]{{0,200}})", _I | re.DOTALL
)
_THE = re.compile(
    r"(?P<what>the .{1,120}?) (?P<verb>is|are|was|were|appears?|shows?|"
    r"demonstrates?) (?P<rest>(?!not\b|no\b).+)",
    _I | re.DOTALL,
)
_BASE = {
    "appears": "does not appear",
    "appear": "do not appear",
    "shows": "does not show",
    "show": "do not show",
}
_BASE |= {"demonstrates": "does not demonstrate", "demonstrate": "do not demonstrate"}
_ARTICLE = re.compile(r"(?:an?|the|some)\s+", _I)
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.)]|[-*\u2022])\s*")
_NO_THERE = re.compile(
    r"there (?P<verb>is|are|was|were) (?:no (?:evidence (?:of|for) |sign of |signs of )?|"
    r"not any )(?P<rest>.+)",
    _I | re.DOTALL,
)
_NO_SEEN = re.compile(
    rf"no (?:evidence (?:of|for) |signs? of )?(?P<what>.+?) (?P<verb>is|are|was|were) {_SEEN}(?P<tail>.*)",
    _I | re.DOTALL,
)
_THE_NOT = re.compile(
    r"(?P<what>.{1,200}?) (?P<verb>is|are|was|were) (?:not|no longer) (?P<rest>.+)", _I | re.DOTALL
)
_DOES_NOT = re.compile(
    r"(?P<what>.{1,200}?) (?P<verb>does|do) not (?P<base>appear|show|demonstrate) (?P<rest>.+)",
    _I | re.DOTALL,
)
_NO = re.compile(
    r"(?:no (?:evidence (?:of|for) |signs? of )?|without |negative for |absence of )(?P<rest>.+)",
    _I | re.DOTALL,
)


def _body(sentence: str) -> str:
    return _ITEM.sub("", sentence.strip(), count=1).rstrip(" .!;:\n").strip() if sentence.strip() else ""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lowered(text: str) -> str:
    """The first word without its capital, unless it is an abbreviation (`CT`, `L4`)."""
    return text if len(text) > 1 and (text[1].isupper() or text[1].isdigit()) else text[:1].lower() + text[1:]


def negate(sentence: str) -> str:
    """The sentence denied; never equal to the input (other than for an empty one)."""
    body = _body(sentence)
    if not body:
        return sentence
    if match := _THERE.fullmatch(body):
        result = f"There {match['verb'].lower()} no {match['rest']}."
    elif (match := _THE_SEEN.fullmatch(body)) and not match["what"].lower().startswith(("no ", "there")):
        what = _ARTICLE.sub("", match["what"], count=1) if _ARTICLE.match(match["what"]) else match["what"]
        result = f"No {_lowered(what)} {match['verb'].lower()} present{match['tail']}."
    elif match := _THE.fullmatch(body):
        verb = match["verb"].lower()
        result = f"{_capital(match['what'])} {_BASE.get(verb, verb + ' not')} {match['rest']}."
    else:
        result = f"No {_lowered(body)}."
    return result if result.strip() != sentence.strip() else f"No {_lowered(body)}."


def affirm(sentence: str) -> str:
    """The sentence without its denial; never equal to the input (other than for an empty one)."""
    body = _body(sentence)
    if not body:
        return sentence
    if match := _NO_THERE.fullmatch(body):
        result = f"There {match['verb'].lower()} {match['rest']}."
    elif match := _NO_SEEN.fullmatch(body):
        result = f"{_capital(match['what'])} {match['verb'].lower()} present{match['tail']}."
    elif match := _NO.fullmatch(body):
        result = f"{_capital(match['rest'])} is present."
    elif match := _DOES_NOT.fullmatch(body):
        ending = "s" if match["verb"].lower() == "does" else ""
        result = f"{_capital(match['what'])} {match['base'].lower()}{ending} {match['rest']}."
    elif match := _THE_NOT.fullmatch(body):
        result = f"{_capital(match['what'])} {match['verb'].lower()} {match['rest']}."
    else:
        result = f"{_capital(body)} is present."
    return result


def opposite(sentence: str, polarity: str) -> str:
    """`affirm` for a negative sentence, `negate` for any other."""
    return affirm(sentence) if polarity == "negative" else negate(sentence)
