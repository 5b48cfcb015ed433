"""The 18 findings of CT-RATE in a sentence, with their status, side and region; polarity of a sentence.

A mention is found by the lexicon `lexicon/findings.json`; its status by `components.reports.assertion`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from components.reports.assertion import ABSENT, PRESENT, UNASSESSED, UNCERTAIN, assertion
from components.reports.lexicon import FOLDER
from components.reports.shorthand import plain_form
from components.reports.sides import joined, side_of, sides
from components.reports.temporality import temporality

NOT_MENTIONED = "not_mentioned"
_RANK = {NOT_MENTIONED: 0, ABSENT: 1, UNCERTAIN: 2, PRESENT: 3}
REGIONS = (
    ("pleura", r"pleura\w*|effusions?\b(?! pericard)|pneumothora\w+|hydrothorax|costophrenic"),
    ("airways", r"bronch\w+|trachea\w*|airways?|endobronchial|carina"),
    (
        "heart",
        r"heart|cardi\w+|pericard\w+|ventricular size|atri(?:um|al)|left ventric\w+|right ventric\w+|"
        r"myocard\w+",
    ),
    (
        "vessels",
        r"aort(?!ocaval|opulmonary)\w*|arter\w+|coronary|vascular|vena cava|embol\w+|aneurysm\w*|vessels?|"
        r"veins?|atheroscl\w+",
    ),
    (
        "lungs",
        r"lungs?|pulmonary|lobes?|lobar|lingula\w*|parenchym\w+|apical|basilar|bibasilar|nodul\w+|"
        r"consolidat\w+|ground[- ]?glass|atelecta\w+|emphysem\w+|opacit\w+|mosaic|interlobular|"
        r"infiltrat\w+",
    ),
    (
        "mediastinum",
        r"mediastin\w+|hila[r]?|hilum|esophag\w+|oesophag\w+|thymus|thymic|lymph ?node\w*|"
        r"(?:lymph)?adenopathy|thyroid",
    ),
    (
        "abdomen",
        r"liver|hepatic|spleen|splenic|pancrea\w+|gallbladder|biliary|bile|kidneys?|renal|adrenals?|"
        r"bowel|colon\w*|stomach|gastric|hiatal|hernia|append\w+|abdom\w+|ascites|(?:retro)?periton\w+|"
        r"mesent\w+|aortocaval|para-?aortic|paracolic|diverticul\w+|ureter\w*|hydronephrosis|duoden\w+",
    ),
    (
        "pelvis",
        r"pelvi[sc]|iliac|bladder|uter(?:us|ine)|ovar\w+|adnexa\w*|prostat\w*|rectum|sigmoid|inguinal",
    ),
    (
        "head_neck",
        r"brain|intracranial|ventric(?:les|ular)|midline|sinus(?:es)?|mastoid|orbit\w*|skull|"
        r"calvari\w+|hemorrhage|extra-?axial|cerebr\w+|cerebell\w+|neck|larynx|parotid|salivary|"
        r"epiglott\w+|mandib\w+|maxill\w+|nasal",
    ),
    (
        "bones",
        r"bones?|osseous|bony|vertebra\w*|spine|spinal|ribs?|sternum|fracture\w*|degenerative|"
        r"osteo\w+|disc|disk|scolio\w+|kypho\w+|lytic|sclerotic|femor\w+|humer\w+|tibia\w*|fibula\w*|"
        r"joint|hip|knee|iliac (?:bone|wing|crest)s?|sacr\w+|scapula\w*|clavic\w+|carpal\w*|alignment|"
        r"[ctls]\d{1,2}(?:-[ctls]?\d{1,2})?",
    ),
    (
        "soft_tissue",
        r"soft[- ]tissues?|subcutaneous|muscles?|muscular|chest wall|axill\w+|breasts?|skin|thigh|leg|"
        r"arm|shoulder",
    ),
    (
        "devices",
        r"catheter\w*|pacemaker\w*|stents?|tube|clips?|wires?|prosthe\w+|implants?|hardware|device\w*",
    ),
)
ABNORMAL = re.compile(
    r"\b(?:mass(?:es)?|lesions?|nodul\w+|tumou?rs?|enlarg\w+|dilat\w+|thicken\w+|calcif\w+|"
    r"fractur\w+|(?:o)?edema|stenos\w+|cysts?|cystic|stones?|calcul\w+|hernia\w*|atroph\w+|"
    r"h(?:a)?emorrh\w+|h(?:a)?ematoma\w*|infarct\w*|abscess\w*|collections?|"
    r"degenerat\w+|osteophyt\w+|effusions?|opacit\w+|consolidat\w+|atelecta\w+|emphysem\w+|"
    r"fibro\w+|scar\w*|embol\w+|thromb\w+|aneurysm\w*|dissection|pneumothora\w+|pneumonia|"
    r"infiltrat\w+|adenopath\w+|lymphadenopath\w+|bronchiecta\w+|ground[- ]?glass|"
    r"cardiomegaly|steatosis|hydronephrosis|diverticul\w+|obstruct\w+|inflammat\w+|stranding|"
    r"free (?:air|fluid)|ascites|metasta\w+|malignan\w+|carcinoma|lytic|sclerotic|compression|"
    r"bulg\w+|protrusion|herniat\w+|narrowing|displac\w+|deviat\w+|"
    r"atheroscl\w+|plaques?|hypodens\w+|hyperdens\w+|hypoattenuat\w+|abnormal\w*|injur\w+|trauma|"
    r"ecta(?:sia|tic)|tortuo\w+|\w{3,}megaly|\w{3,}itis|necro\w+|cirrho\w+|kypho\w+|sclerosis|granulom\w+|"
    r"swelling|swollen|disten\w+|hypertroph\w+|hyperplas\w+|malformation|varic\w+|defects?|pneumatocele\w*|"
    r"bullae?|mosaic|septal|spondyl\w+|scolios\w+|polyps?|mucosal|"
    r"catheter\w*|pacemaker|stents?|clips|prosthe\w+|implants?|increased|decreased|suspicious|gas|"
    r"disease|leak\w*|dislocat\w+|subluxat\w+|shift)\b"
)
_NORMAL = re.compile(
    r"\b(?:normal\w*|unremarkable|clear|intact|patent|preserved|maintained|within normal limits|"
    r"negative|symmetric\w*|non-?dilated|well[- ]aerated|no abnormalit\w+|unobstructed|midline)\b|"
    r"\b(?:is|are|was|were) not (?:seen|identified|enlarged|dilated|present|observed)\b"
)
_NEGATIVE_START = re.compile(
    r"^(?:\W|\d+[.)])*(?:there (?:is|are|was|were|has been) )?(?:no|without|negative for|absence of)\b"
)
_OF_A_THING = re.compile(
    r"\b(?:within|in|of|around|inside|adjacent to|near|from|to|about) (?:the|this|these|"
    r"either) (?:[\w-]+ ){0,3}$"
)
_SIZE = re.compile(r"((?:less|smaller) than |under |below |not exceeding |< ?)?(\d+(?:[.,]\d+)?) ?(mm|cm)\b")
_WORD = re.compile(r"[^\W_]+")
_DENIED_INSIDE = re.compile(
    r"\b(?:not|no|none(?! in)|free of|without|nor|normal(?!(?: in)? (?:calib\w+|size|course|"
    r"diameter)\b[\w ]*\b(?:with|"
    r"but)\b)|sparing|uncalcified|"
    r"non-?calcified)\b(?! longer)"
)

_DOUBTED_INSIDE = re.compile(
    r"\b(?:probably|possibly|likely|perhaps|suspected|questionabl[ey]|may be|might be|could be)\b"
)


@dataclass(frozen=True)
class Mention:
    """A finding in one sentence: its label, status, side (`left`, `right`, `bilateral` or "") and when it is."""

    finding: str
    status: str
    laterality: str
    temporality: str = ""


@dataclass(frozen=True)
class _Rule:
    label: str
    stems: tuple[str, ...]
    terms: re.Pattern[str]
    exclude: re.Pattern[str] | None
    exclude_after: re.Pattern[str] | None
    absent: re.Pattern[str] | None
    reject: re.Pattern[str] | None
    measured: re.Pattern[str] | None
    bare: re.Pattern[str] | None
    bare_unless: re.Pattern[str] | None
    weak: re.Pattern[str] | None
    min_mm: float


@cache
def _rules() -> tuple[_Rule, ...]:
    content = json.loads((FOLDER / "findings.json").read_text(encoding="utf-8"))

    def pattern(parts: list[str] | None, whole: bool = False) -> re.Pattern[str] | None:
        if not parts:
            return None
        return re.compile("|".join(rf"(?<!\w)(?:{part})" if whole else part for part in parts))

    rules = []
    for label, entry in content.items():
        terms = pattern(entry["terms"], whole=True)
        if terms is None:
            continue
        rules.append(
            _Rule(
                label,
                tuple(entry["stems"]),
                terms,
                pattern(entry.get("exclude")),
                pattern(entry.get("exclude_after")),
                pattern(entry.get("absent"), whole=True),
                pattern(entry.get("reject")),
                pattern(entry.get("measured"), whole=True),
                pattern(entry.get("bare"), whole=True),
                pattern(entry.get("bare_unless"), whole=True),
                pattern(entry.get("weak")),
                float(entry.get("min_mm", 0)),
            )
        )
    return tuple(rules)


@cache
def labels() -> tuple[str, ...]:
    """The 18 label names of CT-RATE, in its order."""
    return tuple(rule.label for rule in _rules())


def mentions(sentence: str) -> list[Mention]:
    """The findings that a sentence names, one entry a label."""
    return list(_mentions(sentence))


@cache
def _any_stem() -> re.Pattern[str]:
    return re.compile("|".join(sorted({re.escape(stem) for rule in _rules() for stem in rule.stems})))


# reports repeat their sentences (`No pleural effusion.`): what was found before is not looked for again
@lru_cache(maxsize=16384)
def _mentions(sentence: str) -> tuple[Mention, ...]:
    lower = plain_form(sentence)
    found: list[Mention] = []
    if not _any_stem().search(lower):
        return ()
    for rule in _rules():
        for stem in rule.stems:
            if stem in lower:
                break
        else:
            continue
        status, spans = _status(rule, lower)
        if status != NOT_MENTIONED:
            at = {side_of(lower, *span, _abnormal) for span in spans} if status != ABSENT else set()
            found.append(Mention(rule.label, status, joined(at), temporality(lower, *spans[0])))
    return tuple(found)


def _abnormal(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in ABNORMAL.finditer(text)]


def _status(rule: _Rule, lower: str) -> tuple[str, list[tuple[int, int]]]:
    """The strongest status of a label in a sentence, and where the mentions are that have it."""
    best, spans = NOT_MENTIONED, [(0, 0)]
    places = list(rule.terms.finditer(lower))
    if rule.bare and rule.bare_unless and not rule.bare_unless.search(lower):
        taken = [match.span() for match in places]
        places += [m for m in rule.bare.finditer(lower) if not any(a <= m.start() < b for a, b in taken)]
    signs: list[tuple[int, int]] = []
    doubted: list[tuple[int, int]] = []
    for match in places:
        if rule.exclude and rule.exclude.search(lower[max(0, match.start() - 60) : match.start()]):
            continue
        if rule.exclude_after and rule.exclude_after.search(lower[match.end() : match.end() + 60]):
            continue
        if rule.reject and rule.reject.search(match.group()):
            continue
        inside = _DENIED_INSIDE.search(match.group())
        status = ABSENT if inside else assertion(lower, match.start(), match.end())
        if status == PRESENT and _DOUBTED_INSIDE.search(match.group()):
            status = UNCERTAIN
        if status == UNASSESSED:
            continue
        if rule.weak and status != ABSENT:
            (signs if rule.weak.match(match.group()) else doubted).append(match.span())
        if _RANK[status] > _RANK[best]:
            best, spans = status, [match.span()]
        elif status == best:
            spans.append(match.span())
    # `reticulation suspicious for fibrosis`: the sign is there, the finding is what its name is said to be
    if best == PRESENT and signs and doubted and not set(spans) - set(signs):
        best, spans = UNCERTAIN, doubted
    if rule.measured and _RANK[best] < _RANK[PRESENT]:
        best, spans = _measured(rule, lower, best, spans)
    normal = rule.absent.search(lower) if best == NOT_MENTIONED and rule.absent else None
    if normal:
        said = assertion(lower, normal.start(), normal.end())
        return (ABSENT if said == PRESENT else UNCERTAIN), [normal.span()]
    return best, spans


def _measured(
    rule: _Rule, lower: str, best: str, spans: list[tuple[int, int]]
) -> tuple[str, list[tuple[int, int]]]:
    """A thing that counts from a size on (a lymph node of 10 mm): present where the sentence gives that size."""
    for match in rule.measured.finditer(lower) if rule.measured else ():
        sizes = [
            float(number.replace(",", ".")) * (10 if unit == "cm" else 1) - (0.1 if under else 0)
            for under, number, unit in _SIZE.findall(lower[match.start() : match.end() + 60])
        ]
        status = assertion(lower, match.start(), match.end()) if sizes else UNASSESSED
        if status == PRESENT and max(sizes) < rule.min_mm:
            status = ABSENT
        if status != UNASSESSED and _RANK[status] > _RANK[best]:
            best, spans = status, [match.span()]
    return best, spans


def strongest(statuses: Iterable[tuple[str, int]]) -> tuple[str, int | None]:
    """The status of a report from (status, sentence order) pairs: present, uncertain, absent; the first such."""
    best: tuple[str, int | None] = (NOT_MENTIONED, None)
    for status, order in statuses:
        if _RANK[status] > _RANK[best[0]]:
            best = (status, order)
    return best


def laterality(sentence: str) -> str:
    """`left`, `right`, `bilateral` or "" for a sentence."""
    return sides(plain_form(sentence))


@cache
def _regions() -> re.Pattern[str]:
    return re.compile("|".join(rf"(?P<{name}>(?:{terms})\b)" for name, terms in REGIONS))


@lru_cache(maxsize=65536)
def _region_of(words: str) -> tuple[str, bool] | None:
    """The region that the first of two words names (with the second: `soft tissue`), and whether it took both."""
    match = _regions().match(words)
    return (match.lastgroup or "", " " in match.group()) if match else None


def region(sentence: str) -> str:
    """The anatomical region that a sentence is about: the one named most (the first of equals), or "other"."""
    return region_in(sentence, None)


@lru_cache(maxsize=16384)
def region_in(sentence: str, within: str | None) -> str:
    """`region` of a sentence below a sub-heading of the region `within`, which decides where the words do not."""
    counts: dict[str, int] = {}
    words = _WORD.findall(sentence.lower())
    taken = False
    for number, word in enumerate(words):
        if taken:
            taken = False
            continue
        following = words[number + 1] if number + 1 < len(words) else ""
        if (found := _region_of(f"{word} {following}")) is not None:
            taken = found[1]
            counts[found[0]] = counts.get(found[0], 0) + 1
    most = max(counts.values(), default=0)
    if within and counts.get(within, 0) == most:
        return within
    return max(counts, key=counts.__getitem__) if counts else "other"


def denies_of_a_thing(lower: str) -> bool:
    """Whether a sentence only denies, and what it affirms is where it does (`No gas is seen within the mass.`)."""
    if not _NEGATIVE_START.match(lower):
        return False
    said = [(match, assertion(lower, match.start(), match.end())) for match in ABNORMAL.finditer(lower)]
    return any(status == ABSENT for _, status in said) and all(
        status == ABSENT or _OF_A_THING.search(lower[max(0, match.start() - 50) : match.start()])
        for match, status in said
    )


def denied(lower: str, start: int, end: int) -> bool:
    """Whether every abnormality named in `[start, end)` of a sentence in lower case is denied there."""
    found = [assertion(lower, match.start(), match.end()) for match in ABNORMAL.finditer(lower, start, end)]
    return bool(found) and all(status == ABSENT for status in found)


def polarity(sentence: str, named: list[Mention] | None = None) -> str:
    """`positive` (an abnormality is asserted or suspected), `negative` (denied, or normal) or `neutral`."""
    named = mentions(sentence) if named is None else named
    if any(mention.status in (PRESENT, UNCERTAIN) for mention in named):
        return "positive"
    return _sign_of(sentence, bool(named))


@lru_cache(maxsize=16384)
def _sign_of(sentence: str, denied: bool) -> str:
    """The polarity of a sentence of which no finding of CT-RATE is affirmed; `denied`: one is denied."""
    lower = plain_form(sentence)
    for match in ABNORMAL.finditer(lower):
        status = assertion(lower, match.start(), match.end())
        if status == ABSENT:
            denied = True
        elif status != UNASSESSED and not re.search(
            r"\b(?:not?|non)[- ]?$", lower[max(0, match.start() - 5) : match.start()]
        ):
            return "positive"
    if denied or _NEGATIVE_START.match(lower) or _NORMAL.search(lower):
        return "negative"
    return "neutral"
