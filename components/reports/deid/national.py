"""Layer 2e: national numbers of persons by their form, with their check digit where the form alone is not enough."""

from __future__ import annotations

import re
from collections.abc import Callable

from components.reports.deid.note import Note
from components.reports.deid.span import Span, StudyContext

_I = re.IGNORECASE


def _digits(text: str) -> list[int]:
    return [int(char) for char in text if char.isdigit()]


def nhs(text: str) -> bool:
    """NHS number (England): modulus 11 over nine digits."""
    digits = _digits(text)
    check = 11 - sum(digit * (10 - place) for place, digit in enumerate(digits[:9])) % 11
    return check != 10 and check % 11 == digits[9]


def luhn(text: str) -> bool:
    """The Luhn check of cards and of Canadian, Swedish and Greek numbers."""
    digits = _digits(text)[::-1]
    return sum(sum(divmod(digit * (1 + place % 2), 10)) for place, digit in enumerate(digits)) % 10 == 0


def turkish(text: str) -> bool:
    """T.C. kimlik number: two check digits."""
    digits = _digits(text)
    tenth = (sum(digits[0:9:2]) * 7 - sum(digits[1:8:2])) % 10
    return digits[0] != 0 and digits[9] == tenth and digits[10] == sum(digits[:10]) % 10


def _always(text: str) -> bool:
    return True


_FORMS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    ("nhs", r"\d{3} \d{3} \d{4}(?!\d)", nhs),
    ("france", r"[12] ?\d\d ?(?:0[1-9]|1[0-2]|[2-9]\d) ?\d[\dab] ?\d{3} ?\d{3}(?: ?\d\d)?(?!\d)", _always),
    ("brazil", r"\d{3}\.\d{3}\.\d{3}-\d\d(?!\d)", _always),
    ("chile", r"\d{1,2}\.\d{3}\.\d{3}-[\dk](?!\w)", _always),
    ("swiss", r"756\.\d{4}\.\d{4}\.\d\d(?!\d)", _always),
    ("belgium", r"\d\d\.\d\d\.\d\d[- ]\d{3}[-. ]\d\d(?!\d)", _always),
    ("india", r"\d{4} \d{4} \d{4}(?! ?\d)", _always),
    ("nordic", r"(?:19|20)?\d\d(?:0[1-9]|1[0-2])(?:[0-3]\d)[-+a]\d{3}[\dA-Z](?!\w)", _always),
    ("nordic", r"[0-3]\d(?:0[1-9]|1[0-2])\d\d[-+a]\d{3}[\dA-Z](?!\w)", _always),
    ("czech", r"\d\d[0156]\d[0-3]\d/\d{3,4}(?!\d)", _always),
    ("korea", r"\d{6}-[1-8]\d{6}(?!\d)", _always),
    ("newfoundland", r"\d{3} \d{3} \d{3} \d{3}(?! ?\d)", _always),
    ("canada", r"\d{3} \d{3} \d{3}(?![\d ]\d)", luhn),
    ("health", r"\d{4}[- ]\d{3}[- ]\d{3}(?:[- ]?[A-Z]{2})?(?!\w)", _always),
    ("turkey", r"\d{11}(?!\d)", turkish),
    ("card", r"\d{4}[- ]\d{4}[- ]\d{4}[- ]\d{4}(?!\d)", luhn),
)
_BY_DIGIT = tuple((name, re.compile(form, _I), check) for name, form, check in _FORMS)
# every form above holds as many digits, this near each other
_LONG = re.compile(r"\d(?:[-+./ ab]?\d){6}", _I)
_BY_LETTER = tuple(
    (name, re.compile(form, _I))
    for name, form in (
        ("italy", r"[a-z]{6}\d\d[a-z]\d\d[a-z]\d{3}[a-z](?!\w)"),
        ("mexico", r"[a-z]{4}\d{6}[hm][a-z]{5}[a-z0-9]\d(?!\w)"),
        ("spain", r"[xyz]-?\d{7}-?[a-z](?!\w)"),
        ("britain", r"[a-z]{2} ?\d\d ?\d\d ?\d\d ?[a-d](?!\w)"),
        ("germany", r"[a-z]\d{9}(?!\w)"),
        ("iban", r"[a-z]{2}\d\d(?: ?[a-z0-9]{4}){3,7}(?: ?[a-z0-9]{1,3})?(?!\w)"),
    )
)


class National:
    """Finds national numbers that no label announces."""

    name = "patterns"

    def detect(self, text: Note, study: StudyContext) -> list[Span]:
        """Spans of national numbers."""
        spans: list[Span] = []
        view, done = text.view, 0
        long = _LONG.search(view) is not None
        for number in text.with_digit:
            start, word = text.starts[number], text.words[number]
            if start < done or (word[0].isdigit() and not long):
                continue
            before = view[start - 1] if start else " "
            if before.isdigit() or (before in ".-/" and start > 1 and view[start - 2].isalnum()):
                continue
            if word[0].isdigit():
                for name, form, check in _BY_DIGIT:
                    match = form.match(view, start)
                    if match and check(match.group()):
                        spans.append(Span(start, match.end(), "SSN", self.name, f"id.{name}", 0.9))
                        done = match.end()
                        break
            elif len(word) > 8 or word[:2].isalpha():
                for name, pattern in _BY_LETTER:
                    if match := pattern.match(view, start):
                        spans.append(Span(start, match.end(), "SSN", self.name, f"id.{name}", 0.9))
                        done = match.end()
                        break
        return spans
