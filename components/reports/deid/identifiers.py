"""Layer 2c: numbers that name a person or an examination, with and without labels; ages over 89."""

from __future__ import annotations

import re

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext
from components.reports.lexicon import word_set

_I = re.IGNORECASE
_VALUE = re.compile(
    r"(?:[\s:#=.\-(]|\bno\b|\bnr\b|\bnum(?:ber)?\b|\bis\b|\bid\b){0,8}([A-Za-z]{0,6}[-./]?\d[\w\-./]{1,30})",
    _I,
)
_STRONG = {
    "mrn": "MRN",
    "umrn": "MRN",
    "hospnum": "MRN",
    "accession": "ACCESSION",
    "accn": "ACCESSION",
    "acc": "ACCESSION",
    "ssn": "SSN",
    "csn": "ID",
    "nhs": "MRN",
    "protokol": "MRN",
    "dosya": "MRN",
    "tckn": "SSN",
    "medrec": "MRN",
    "mr": "MRN",
    "uhid": "MRN",
    "npi": "ID",
    "dea": "ID",
    "hcn": "ID",
    "pesel": "SSN",
    **dict.fromkeys(("nhi", "crm", "gmc", "rpps", "adeli", "pwz", "lanr", "colegiado", "col"), "ID"),
}
_WEAK = {
    "account": "ID",
    "acct": "ID",
    "encounter": "ID",
    "visit": "ID",
    "order": "ACCESSION",
    "requisition": "ACCESSION",
    "req": "ACCESSION",
    "case": "ID",
    "episode": "ID",
    "record": "MRN",
    "id": "ID",
    "patientid": "MRN",
    "exam": "ACCESSION",
    "study": "ACCESSION",
    "insurance": "ID",
    "policy": "ID",
    "license": "ID",
    "lic": "ID",
    "member": "ID",
    "serial": "ID",
    "medical": "MRN",
    "unit": "MRN",
    "fin": "ID",
    "ref": "ACCESSION",
    "reference": "ACCESSION",
    "licence": "ID",
    "card": "ID",
    "booking": "ID",
    "form": "ID",
    "ticket": "ID",
    "chart": "MRN",
    "file": "MRN",
    "registration": "MRN",
    "reg": "MRN",
    "hospital": "MRN",
    "job": "ID",
    "document": "ID",
    "doc": "ID",
    "dictation": "ID",
    "number": "ID",
    "no": "ID",
}
_NUMBERS_ONLY = frozenset(
    {"mrn", "umrn", "uhid", "hcn", "nhs", "accession", "accn", "ssn"}
)  # no date follows
_SSN = re.compile(r"\d{3}-\d{2}-\d{4}(?![\d-])")
_ACCESSION = re.compile(r"\d{2,4}-\d{4,9}(?:-[A-Za-z]{1,4})?(?![\w-])")
_DASHED = re.compile(r"\d{1,4}(?:-\d{1,8}){2,4}(?![\w-])")
_UID = re.compile(r"(?!1\.2\.840\.10008\.)[0-2](?:\.\d{1,39}){5,20}")
_MIXED = re.compile(
    r"(?!(?:[01]\d|2[0-3])[0-5]\dh(?:rs?)?$)"
    r"(?:[a-z]{1,6}\d{5,16}[a-z]{0,3}|\d{4,16}[a-z]{1,3}\d{0,8}|\d{2,8}[a-z]{2,3}\d{4,8})$"
)
_UNIT = re.compile(
    r" ?-?(?:mm|cm|ml|mg|hu|units?|iu|mci|mbq|kg|lbs?|cells|copies|years?|yo\b|y/o|c?gy|mgy|x\b|"
    r"ms\b|hours?|%)",
    _I,
)
_YEARS = (
    r"(?:years?|yrs?|y|anos|ans|anni|jahre[ns]?|jahrige[rns]?|jaar|lat|let|ar|tuoi|yas(?:inda|indaki)?|vuotias|"
    r"eves|ani|godina)"
)
_AGE = re.compile(
    rf"(9\d|1[0-2]\d)(?:[ -]{{0,2}}(?:years?|yrs?|y)[ -]{{0,2}}(?:old|of age|o\b|/ ?o\b)|"
    r"[ -]?y\.?/?o\b|[ -]?(?:year|yr)s?\b(?! ago)(?![ -]+(?:history|follow|interval|later|prior|after))|"
    r"[fmFM]\b| [FM]\b(?! *[a-z])| (?:male|female|woman|man|lady|gentleman|patient)\b|"
    rf"[ -]?{_YEARS}\b(?! ago)| ?J\.?(?=[\s,;)])| ?A(?= ?[|,;)\n])| ?aa?\b(?= ?[,;)-]))",
    _I,
)
_AGED = re.compile(r"(9\d|1[0-2]\d)(?![\d%/-]|\.\d| ?(?:mm|cm|ml|mg|hu|bpm|degrees))", _I)
_DECADE = re.compile(r"(9\d|100)'?s\b", _I)
_SPELLED = re.compile(
    r"(?:ninety|one hundred|a hundred)(?:[ -](?:and )?(?:one|two|three|four|five|six|seven|eight|nine|ten))?"
    r"(?=[ -]{1,2}(?:years?|yrs?)\b)|(?:nonagenarian|centenarian|supercentenarian)\b",
    _I,
)
_AGE_CUES = word_set("identifiers.age_cues")
_CODED = re.compile(
    r"(?:[a-z]{1,5}[-.]\d{2,6}[-.]\d{2,8}|\d{2,6}-[a-z]{1,4}-\d{2,8}|[a-z]{1,5}[-#]\d{5,12}[a-z]?|[a-z]{1,4}\d{2,4}-\d{4,8})(?![\w-])",
    _I,
)


_CODE = re.compile(r"(?:[A-Z]{1,4}-?\d{4,10}[A-Z]?|\d{1,4}(?:-\d{1,8}){1,3}|\d{4,10}[A-Z]?)(?![\w-])", _I)
_SPELLED_WORDS = frozenset({"ninety", "one", "a", "nonagenarian", "centenarian", "supercentenarian"})
_CODE_WORDS = word_set("identifiers.code_words")
_TRIGGERS = frozenset(_STRONG) | frozenset(_WEAK) | _SPELLED_WORDS | _CODE_WORDS


class Identifiers:
    """Finds identifiers by their label or their form, and ages that HIPAA counts as identifying."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of identifiers and of ages over 89."""
        spans: list[Span] = []
        done = 0
        words, starts = text.words, text.starts
        for number in text.select(_TRIGGERS):
            word, start = words[number], starts[number]
            if start < done:
                continue
            found = self._labelled(text, number, word) if not word[0].isdigit() else None
            found = found or self._bare(text, number, word) or _marked(text, number)
            if found:
                begin, end, kind, rule, score = found
                spans.append(Span(begin, end, kind, self.name, rule, score))
                done = end
        return spans

    @staticmethod
    def _labelled(text: Note, number: int, word: str) -> tuple[int, int, str, str, float] | None:
        strong = _STRONG.get(word)
        kind = strong or _WEAK.get(word)
        if kind is None:
            return None
        view, end = text.view, text.ends[number]
        match = _VALUE.match(view, end)
        if not match or match.start(1) == end:
            return None
        value = match[1].rstrip(".-/")
        digits, between = sum(char.isdigit() for char in value), view[end : match.start(1)]
        if word == "mr" and not text.token(number).isupper():
            return None
        explicit = any(mark in between for mark in "#:=") or re.search(
            r"\b(?:no|number|num|nr|id)\b", between, _I
        )
        coded = digits < len(value) and value[0].isalpha() and word not in ("study", "exam", "case")
        needed = 3 if strong else (4 if explicit or coded else 6)
        if digits < needed or (not strong and "\n" in between) or between.count("\n") > 1:
            return None
        if _UNIT.match(view, match.start(1) + len(value)) or (
            re.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{2,4}$", value)
            and not (explicit and kind == "MRN")
            and word not in _NUMBERS_ONLY
        ):
            return None
        if not strong and re.search(r"\d\.\d", value) and value.count(".") == 1:
            return None
        begin = text.starts[number] if between == "-" and len(word) < 4 else match.start(1)
        return begin, match.start(1) + len(value), kind, f"id.{word}", 1.0

    @staticmethod
    def _bare(text: Note, number: int, word: str) -> tuple[int, int, str, str, float] | None:
        view, start, end = text.view, text.starts[number], text.ends[number]
        if not word[0].isdigit():
            if word in _SPELLED_WORDS and (match := _SPELLED.match(view, start)):
                return start, match.end(), "AGE", "age.spelled", 1.0
            if (match := _CODED.match(view, start)) and sum(map(str.isdigit, match.group())) >= 5:
                return start, match.end(), "ID", "id.mixed", 0.9
            return (start, end, "ID", "id.mixed", 0.9) if _MIXED.match(word) else None
        before = view[start - 1] if start else " "
        if before in ".-/" and start > 1 and view[start - 2].isalnum():
            return None
        if match := _AGE.match(view, start):
            return start, match.end(1), "AGE", "age.over_89", 1.0
        if number and text.words[number - 1] in _AGE_CUES and (match := _AGED.match(view, start)):
            return start, match.end(1), "AGE", "age.over_89", 1.0
        if (
            number
            and text.words[number - 1] in ("her", "his", "their", "mid", "early", "late")
            and (match := _DECADE.match(view, start))
        ):
            return start, match.end(1), "AGE", "age.decade", 0.9
        linked = view[end : end + 1] in ("-", ".") or not word.isdigit()
        if not linked and (len(word) < 6 or not word.isdigit()):
            return None
        if (match := _CODED.match(view, start)) and not _UNIT.match(view, match.end()):
            return start, match.end(), "ACCESSION", "id.mixed", 0.9
        if match := _SSN.match(view, start):
            return start, match.end(), "SSN", "id.ssn", 1.0
        if match := _ACCESSION.match(view, start):
            first, _, second = match.group().partition("-")
            if not (
                len(second) == 4 and first == view[start : start + 4] and len(first) == 4 and second.isdigit()
            ):
                return start, match.end(), "ACCESSION", "id.accession", 0.9
        if (match := _DASHED.match(view, start)) and sum(char.isdigit() for char in match.group()) >= 7:
            return start, match.end(), "ID", "id.dashed", 0.9
        if match := _UID.match(view, start):
            return start, match.end(), "UID", "id.uid", 1.0
        if word.isdigit() and len(word) >= 6 and not _UNIT.match(view, end):
            if len(word) >= 7 or "|" in view[max(0, start - 3) : start] + view[end : end + 3]:
                return start, end, "ID", "id.digits", 0.9
            return start, end, "ID", "id.digits", 0.7
        if _MIXED.match(word) and not _UNIT.match(
            view, start + len(word.rstrip("abcdefghijklmnopqrstuvwxyz"))
        ):
            return start, end, "ID", "id.mixed", 0.9
        return None


def _marked(text: Note, number: int) -> tuple[int, int, str, str, float] | None:
    """`#794-6219-7`, `(VKV9416)` after a name, `Label: VKV9416` alone on its line: a code by what stands around it."""
    view, start = text.view, text.starts[number]
    before = view[start - 1] if start else ""
    if before not in ("#", "(", " ", ">", ":", "="):
        return None
    match = _CODE.match(view, start)
    if not match or sum(map(str.isdigit, match.group())) < 4:
        return None
    mixed = not match.group().isdigit()
    if before == "#" and (mixed or len(match.group()) > 4):
        return start, match.end(), "MRN", "id.marked", 0.9
    named = (
        start > 2
        and view[start - 2] == " "
        and view[start - 3].isalpha()
        and text.token(number - 1)[0].isupper()
    )
    lower = view[:2000].islower()
    if before == "(" and view[match.end() : match.end() + 1] == ")" and mixed and (named or lower):
        return start, match.end(), "MRN", "id.marked", 0.8
    line = view.rfind("\n", max(0, start - 40), start) + 1
    label = view[line:start].rstrip(" ")
    ends = view[match.end() : match.end() + 1] in ("", "\n")
    if mixed and ends and line and label[-1:] in (":", ">", "=", "#") and label.count(":") < 2:
        return start, match.end(), "ID", "id.marked", 0.8
    return None
