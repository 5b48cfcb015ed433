"""Turn a finding's sentence into its opposite, by rules, in both directions (for the opposite-sentence loss).

`negate`, in order: `There is a X` -> `There is no X`; `X is seen` -> `No X is present`; `The X is Y` -> `The X is not
Y`; `X shows Y` -> `X does not show Y`; otherwise `No x`. `affirm` undoes them and turns words such as `normal` and
`clear`. Lists change their conjunction (`no A or B`, `A and B`), hedges (`possible`, `cannot be excluded`) go, a
sub-heading (`Lungs: clear`) stays, and each of several clauses is turned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

Turn = Callable[[str], str]
_I = re.IGNORECASE
_IS = re.IGNORECASE | re.DOTALL
_SEEN = (
    r"(?:present|seen|noted|identified|observed|evident|visuali[sz]ed|detected|found|demonstrated|"
    r"appreciated|visible)"
)
_BE = r"(?P<verb>is|are|was|were)"
_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.)](?!\d)|[-*\u2022])\s*")
_LABEL = re.compile(r"^(?P<label>[^\W\d_][\w /&,-]{1,40}:\s+)(?P<rest>\S.*)$", re.DOTALL)
_JOINT = re.compile(
    r"(?P<joint>;\s+|,?\s+but\s+|,?\s+however,?\s+|,?\s+(?:al)?though\s+|,?\s+whereas\s+|"
    r",?\s+and\s+(?=there\s+(?:is|are)\b)|\.\s+(?=[A-Z]))",
    _I,
)
_ARTICLE = re.compile(r"(?:an?|the|some|several|few|a few)\s+", _I)
_TAIL = re.compile(r",?\s+(?:without|with no)\s+.*$", _IS)
_HEDGES = (
    (
        re.compile(
            r"\b(?:possibl[ey]|probabl[ey]|likely|suspected|questionable|presumed|potential(?:ly)?|equivocal)\s+",
            _I,
        ),
        "",
    ),
    (re.compile(r"\b(?:may|might|could)\s+(?:represent|be due to|reflect|indicate|suggest)\b", _I), "is"),
    (re.compile(r"\b(?:may|might|could)\s+be\b", _I), "is"),
    (
        re.compile(r"\b(?:can\s?not|can't|could not)\s+be\s+(?:\w+ly\s+)?(?:excluded|ruled out)\b", _I),
        "is present",
    ),
    (
        re.compile(
            r"\b(?:is|are|was|were)\s+(?:suspected|possible|likely|probable|questioned|not excluded)\b", _I
        ),
        "is present",
    ),
    (re.compile(r"^(?:can\s?not|can't|could not)\s+(?:exclude|rule out)\s+", _I), ""),
    (re.compile(r"^(?:suspicious|concerning|suggestive|suspicion|concern|evaluate)\s+(?:for|of)\s+", _I), ""),
    (re.compile(r"^\?\s*"), ""),
)
_THERE = re.compile(rf"there {_BE} (?:(?:an?|some|now|again|also) )*(?P<rest>(?!no\b|not\b).+)", _IS)
_THE_SEEN = re.compile(
    rf"(?P<what>.{{1,200}}?) {_BE} (?:again |also |now )?{_SEEN}(?P<tail>(?! by\b)[^.]{{0,200}})", _IS
)
_HAS = re.compile(r"(?P<what>.{1,120}?) (?P<verb>has|have|had) (?P<rest>(?!not\b|no\b).+)", _IS)
_IS_RULE = re.compile(rf"(?P<what>.{{1,120}}?) {_BE} (?P<rest>(?!not\b|no\b).+)", _IS)
_VERBS = (
    "appear show demonstrate contain reveal display extend measure involve suggest represent cause indicate remain "
    "abut invade compress narrow surround communicate enhance"
)
_DOES = re.compile(
    rf"(?P<what>.{{1,120}}?) (?P<verb>(?:{'|'.join(_VERBS.split())})e?s?) (?P<rest>(?!no\b).+)", _IS
)
_NO_THERE = re.compile(
    rf"there {_BE} (?:now |again |also )?(?:no (?:evidence (?:of|for) |signs? of )?(?:any )?|not any )(?P<rest>.+)",
    _IS,
)
_NO_SEEN = re.compile(
    rf"(?:no|neither) (?:evidence (?:of|for) |signs? of )?(?P<what>.+?) {_BE} {_SEEN}(?P<tail>.*)", _IS
)
_NOT = re.compile(
    r"(?P<what>.{1,200}?) (?P<verb>is|are|was|were|has|have|had) (?:not|no longer) (?P<rest>.+)", _IS
)
_DOES_NOT = re.compile(r"(?P<what>.{1,200}?) (?P<verb>does|do) not (?P<base>[a-z]+) (?P<rest>.+)", _IS)
_NO = re.compile(
    r"(?:no (?:evidence (?:of|for) |signs? of )?|without (?:evidence of )?|negative for |absence of |free of |"
    r"neither )"
    r"(?:any )?(?P<rest>.+)",
    _IS,
)
_FREE = re.compile(rf"(?P<what>.{{1,120}}?) {_BE} (?:free|clear|devoid) of (?:any )?(?P<rest>.+)", _IS)
_GONE = re.compile(
    rf"(?P<what>.{{1,160}}?) (?:{_BE} (?:now )?(?:absent|excluded|ruled out|resolved|gone)|"
    r"(?:has|have) (?:completely )?resolved)",
    _IS,
)
_INNER_NO = re.compile(
    r"\b(?:no|without)\s+(?:evidence\s+(?:of|for)\s+|signs?\s+of\s+|definite\s+)?(?:any\s+)?", _I
)
_NORMAL = (
    ("within normal limits", "abnormal"),
    ("unremarkable", "abnormal"),
    ("normally", "abnormally"),
    ("normal", "abnormal"),
    *(
        (word, f"not {word}")
        for word in ("clear", "intact", "patent", "preserved", "maintained", "symmetrical", "symmetric")
    ),
    *(
        (word, f"not {word}")
        for word in ("well-aerated", "well aerated", "midline", "unobstructed", "nondilated")
    ),
    ("negative", "positive"),
)
_ADJECTIVE = re.compile(
    r"(?P<no>not )?(?P<word>(?:\w+ly )?"
    r"(?:\w+ed|\w+ic|clear|normal|abnormal|intact|patent|unremarkable|small|large|stable))",
    _I,
)
_COPULA = re.compile(rf"\b(?:is|are|was|were|has|have|(?:{'|'.join(_VERBS.split())})(?:e?s)?)\b", _I)
_NORMAL_WORD = re.compile(r"\b(?<!ab)(?<!not )(?:" + "|".join(word for word, _ in _NORMAL) + r")\b", _I)


def lowered(text: str) -> str:
    """The first word without its capital, unless it is an abbreviation (`CT`, `L4`)."""
    return text if len(text) > 1 and (text[1].isupper() or text[1].isdigit()) else text[:1].lower() + text[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def negate(sentence: str) -> str:
    """The sentence denied; never equal to the input (other than for an empty one). What is denied is affirmed."""
    return _turned(sentence, _negated, lambda body: f"No {lowered(body)}")


def affirm(sentence: str) -> str:
    """The sentence without its denial; never equal to the input (other than for an empty one).

    A sentence with a verb that denies nothing is denied, so that the result is its opposite all the same.
    """
    return _turned(sentence, _affirmed, lambda body: f"{_capital(body)} {_be(body)} present")


def opposite(sentence: str, polarity: str) -> str:
    """`affirm` for a negative sentence, `negate` for any other."""
    return affirm(sentence) if polarity == "negative" else negate(sentence)


def _turned(sentence: str, turn: Turn, otherwise: Turn) -> str:
    body = " ".join(_ITEM.sub("", sentence.strip(), count=1).split()).rstrip(" .!;:")
    body = body or sentence.strip(" .!;:\r\n\t")
    if not body:
        return sentence
    label = ""
    if match := _LABEL.match(body):
        label, body = match["label"], match["rest"]
    shout = body.isupper() and len(body) > 4
    pieces = _JOINT.split(body.lower() if shout else body)
    found = []
    for number, piece in enumerate(pieces):
        if number % 2:
            found.append(piece)
            continue
        result = (label and _turned_adjective(piece.strip())) or (
            turn(piece.strip()) if piece.strip() else piece
        )
        inside = number and not pieces[number - 1].startswith(".")
        found.append(lowered(result) if inside or label else _capital(result))
    result = label + "".join(found) + "."
    if result.strip() == sentence.strip():
        result = f"{label}{_capital(otherwise(body))}."
    return result.upper() if shout else result


def _turned_adjective(body: str) -> str:
    """`clear` <-> `not clear` after a sub-heading; empty when the words are no adjective."""
    match = _ADJECTIVE.fullmatch(body)
    if not match:
        return ""
    return match["word"] if match["no"] else f"not {match['word']}"


def _negated(body: str) -> str:
    plain = _unhedged(body)
    if _NO_THERE.fullmatch(plain) or _NO.match(plain) or _DOES_NOT.fullmatch(plain):
        return _affirmed(plain)
    if match := _NOT.fullmatch(plain):
        return f"{match['what']} {match['verb']} {match['rest']}"
    bare = _TAIL.sub("", plain) or plain
    if match := _THERE.fullmatch(bare):
        return f"There {match['verb'].lower()} no {_either(match['rest'])}"
    if (match := _THE_SEEN.fullmatch(bare)) and not match["what"].lower().startswith("there"):
        what = _ARTICLE.sub("", match["what"], count=1) if _ARTICLE.match(match["what"]) else match["what"]
        return f"No {_either(lowered(what))} {match['verb'].lower()} present{match['tail']}"
    if re.search(r"\b(?:ab)?normal\b", bare, _I):
        return re.sub(r"\b(ab)?normal\b", lambda m: "normal" if m[1] else "abnormal", bare, count=1, flags=_I)
    for rule in (_IS_RULE, _HAS, _DOES):
        match = rule.fullmatch(bare)
        if match and len(match["what"].split()) <= 14:
            return _denied_clause(match, rule is _DOES)
    return f"No {_either(lowered(_ARTICLE.sub('', bare, count=1) if _ARTICLE.match(bare) else bare))}"


def _denied_clause(match: re.Match[str], does: bool) -> str:
    what, verb, rest = match["what"], match["verb"].lower(), match["rest"]
    if _names_finding(what) and not re.match(r"(?:the|this|these|both|its)\b", what, _I):
        thing = _ARTICLE.sub("", what, count=1) if _ARTICLE.match(what) else what
        return f"No {_either(lowered(thing))} {verb} {rest}"
    if does:
        single = verb.endswith("s") and not verb.endswith("ss")
        base = (
            verb.removesuffix("es") if verb.endswith("sses") else verb.removesuffix("s") if single else verb
        )
        return f"{what} {'does' if single or verb.endswith('sses') else 'do'} not {base} {rest}"
    return f"{what} {verb} not {rest}"


def _affirmed(body: str) -> str:
    if match := _NO_THERE.fullmatch(body):
        return f"There {match['verb'].lower()} {_both(match['rest'])}"
    if match := _NO_SEEN.fullmatch(body):
        what = _both(match["what"])
        verb = (
            {"is": "are", "was": "were"}.get(match["verb"].lower(), match["verb"].lower())
            if what != match["what"]
            else match["verb"].lower()
        )
        return f"{what} {verb} present{match['tail']}"
    if match := _FREE.fullmatch(body):
        verb = "shows" if match["verb"].lower() in ("is", "was") else "show"
        return f"{match['what']} {verb} {_both(match['rest'])}"
    if match := _GONE.fullmatch(body):
        return f"{match['what']} {_be(match['what'])} present"
    if match := _NO.fullmatch(body):
        rest = _both(match["rest"])
        return f"{rest} {_be(rest)} present"
    if match := _DOES_NOT.fullmatch(body):
        base = match["base"].lower()
        verb = base + ("es" if base.endswith("ss") else "s") if match["verb"].lower() == "does" else base
        return f"{match['what']} {verb} {match['rest']}"
    if match := _NOT.fullmatch(body):
        return f"{match['what']} {match['verb'].lower()} {match['rest']}"
    if match := _NORMAL_WORD.search(body):
        return _abnormal(body, match)
    if match := _INNER_NO.search(body):
        inner = "with " if match.group().lower().startswith("without") else ""
        return body[: match.start()] + inner + _both(body[match.end() :])
    if _COPULA.search(body):
        return _negated(body)
    return f"{body} {_be(body)} present"


def _abnormal(body: str, match: re.Match[str]) -> str:
    """`The liver is normal` -> `The liver is abnormal`; `Clear lungs` -> `Lungs are not clear`."""
    word = match.group()
    against = dict(_NORMAL)[word.lower()]
    if match.start() == 0 and against.startswith("not ") and body[match.end() :].strip():
        rest = body[match.end() :].strip()
        return f"{rest} {_be(rest)} {against}"
    return body[: match.start()] + against + body[match.end() :]


def _unhedged(body: str) -> str:
    plain = body
    for pattern, instead in _HEDGES:
        plain = pattern.sub(instead, plain)
    return " ".join(plain.split()) or body


def _either(phrase: str) -> str:
    """A list as it is denied: `A and B` -> `A or B`."""
    return phrase if "between" in phrase else re.sub(r"(?<!\d) and (?!\d)", " or ", phrase)


def _both(phrase: str) -> str:
    """A list as it is affirmed: `A or B`, `A nor B` -> `A and B`."""
    return re.sub(r",? (?<!\d )n?or (?!\d)", " and ", phrase)


def _be(phrase: str) -> str:
    """`are` for a list or a plural, else `is`; the noun is the last word before a preposition."""
    head = re.split(
        r"\s(?:of|in|at|within|along|on|with|to|from|for|by|near|involving)\s|,", phrase, maxsplit=1
    )[0]
    if " and " in head:
        return "are"
    last = head.split()[-1].lower() if head.split() else ""
    return "are" if last.endswith(("s", "ae", "septa")) and not last.endswith(("ss", "is", "us")) else "is"


@cache
def _finding_words() -> re.Pattern[str]:
    from components.reports.findings import ABNORMAL

    return ABNORMAL


def _names_finding(phrase: str) -> bool:
    return bool(_finding_words().search(phrase.lower()))
