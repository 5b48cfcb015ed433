"""Numbers and ways of contact as others of the same length and form that were never issued.

A code's digits without their padding are replaced under the patient's key, so that `MR-0048291`, `0048291` and
`48291` agree. Telephone numbers of North America get an area code that is not in use and 555-01xx, British ones the
range for drama (Ofcom); e-mails and hosts are below example.org (RFC 2606), IP addresses in 192.0.2.0/24 and
its like (RFC 5737), UIDs below 2.25 (PS3.5 B.2).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from components.reports.deid.note import Note, fold
from components.reports.deid.surrogates import Keyed, Patient, listed, plain
from components.reports.deid.surrogates.checks import could_be_issued

ATTEMPTS = 500
_IP = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_UID = re.compile(r"[0-2](?:\.\d{1,39}){5,}")
_SSN = re.compile(r"\d{3}-\d{2}-\d{4}")
_EXTENSION = re.compile(
    r"(.*?)((?:[ ,;]*(?:x|ext\.?|extension) ?)(?=\d+$)|$)(\d*)", re.IGNORECASE | re.DOTALL
)
_TEST_NETS = ("192.0.2", "198.51.100", "203.0.113")


class CodeSurrogates:
    """The identifiers and contacts of one patient's notes; `name` replaces a token of a name."""

    def __init__(self, keyed: Keyed, patient: Patient, name: Callable[[str], str]) -> None:
        self.keyed, self._name = keyed, name
        self.known = frozenset(
            canonical(value) for _, value in patient.identities if any(map(str.isdigit, value))
        )

    def code(self, raw: str, kind: str = "ID") -> str | None:
        """A record number, accession, account, device or national id."""
        text = Note(raw).view
        if _IP.fullmatch(text):
            return self._ip(text)
        if kind == "UID" or _UID.fullmatch(text):
            return f"2.25.{int.from_bytes(self.keyed.digest('uid', plain(text))[:16], 'big')}"
        if not any(char.isalnum() for char in text):
            return None
        social = kind == "SSN" or _SSN.fullmatch(text) is not None
        digits = "".join(char for char in text if char.isdigit())
        core = digits.lstrip("0") if len(digits) >= 5 and not social else digits
        core = core or digits
        seed = core if len(digits) >= 5 else plain(text)
        for attempt in range(ATTEMPTS):
            new = self._digits(seed, core, attempt)
            if core and (new == core or new in self.known or could_be_issued(new)):
                continue
            made = self._filled(text, "0" * (len(digits) - len(core)) + new)
            if plain(made) != plain(text) and canonical(made) not in self.known:
                return made
        return None

    def _digits(self, seed: str, core: str, attempt: int) -> str:
        """Digits for a code without its padding: what they are depends on the code and not on how it is written."""
        stream = self.keyed.digest("code", f"{seed}\0{attempt}") + self.keyed.digest(
            "code+", f"{seed}\0{attempt}"
        )
        new = [str(stream[place % 64] % 10) for place in range(len(core))]
        if len(new) > 1:
            new[0] = str(1 + stream[0] % 9)
        if len(new) == 9:  # areas from 900 with groups below 50 were never assigned
            group = 1 + stream[9] % 49
            new[0], new[3], new[4] = "9", str(group // 10), str(group % 10)
        return "".join(new)

    def _filled(self, text: str, digits: str) -> str:
        """`text` with its digits replaced by others and its runs of letters too; no check letter fits."""
        made = re.sub(r"[^\W\d_]+", lambda match: self._letters(match.group(), len(digits)), text)
        rest = iter(digits)
        made = "".join(next(rest) if char.isdigit() else char for char in made)
        last = made[-1]
        while last.isalpha() and could_be_issued(plain(made)):
            last = chr((ord(last.upper()) - 64) % 26 + 65)
            if last != text[-1].upper():
                made = made[:-1] + last
        return made

    def _letters(self, run: str, num_digits: int) -> str:
        """A run of letters: a label stays where five digits carry the identity, others change letter by letter."""
        if run.lower() in listed("code_labels") and num_digits >= 5:
            return run
        stream = self.keyed.digest("letters-of-code", run.lower())
        new = ""
        for place, char in enumerate(run.lower()):
            index = ord(char) - 97 if char.isascii() else 0
            new += chr(97 + (index + 1 + stream[place % 32] % 25) % 26)
        return "".join(n.upper() if old.isupper() else n for old, n in zip(run, new))

    def _ip(self, text: str) -> str:
        seed = self.keyed.seed("ip", text)
        made = f"{_TEST_NETS[seed % 3]}.{1 + seed // 3 % 254}"
        return made if made != text else f"{_TEST_NETS[(seed + 1) % 3]}.{1 + seed // 3 % 254}"

    def phone(self, raw: str) -> str | None:
        """A telephone, fax or pager number in the same format; an extension keeps its length."""
        text = Note(raw).view
        match = _EXTENSION.fullmatch(text)
        main, mark, extension = match.groups() if match and re.search(r"\d", match[1]) else (text, "", "")
        digits = "".join(char for char in main if char.isdigit())
        words = re.findall(r"[^\W\d_]{2,}", main)
        if not digits or any(word.lower() not in listed("code_labels") for word in words):
            return None
        for attempt in range(ATTEMPTS):
            new = self._phone_digits(digits, main.lstrip("( ").startswith("+"), attempt)
            if new != digits and new.lstrip("0") not in self.known:
                break
        else:
            return None
        rest = iter(new)
        made = "".join(next(rest) if char.isdigit() else char for char in main)
        return made + mark + (self._any_digits(extension, "phone", 0) if extension else "")

    def _phone_digits(self, digits: str, plus: bool, attempt: int) -> str:
        if len(digits) == 11 and digits[0] == "1":
            return "1" + self._phone_digits(digits[1:], False, attempt)
        if plus and len(digits) > 7:
            size = 1 if digits[0] in "17" else 2 if digits[:2] in listed("country_codes") else 3
            country, national = digits[:size], digits[size:]
            if country == "44" and len(national) == 10:
                return f"44207946{self._line(national, attempt, 1000):04d}"
            return country + self._any_digits(national, "phone", attempt)
        if len(digits) == 10 and digits[0] not in "01":
            seed = self.keyed.seed("phone", f"{digits}\0{attempt}")
            return f"{2 + seed % 8}9{seed // 8 % 10}55501{seed // 80 % 100:02d}"
        if len(digits) == 7:
            return f"55501{self._line(digits, attempt, 100):02d}"
        if len(digits) == 11 and digits[:2] == "02":
            return f"0207946{self._line(digits[1:], attempt, 1000):04d}"
        return self._any_digits(digits, "phone", attempt)

    def _line(self, digits: str, attempt: int, count: int) -> int:
        return self.keyed.seed("phone", f"{digits}\0{attempt}") % count

    def _any_digits(self, digits: str, purpose: str, attempt: int) -> str:
        """Other digits; a trunk prefix 0 stays, and no other number begins with 0."""
        if digits.startswith("0") and len(digits) > 1:
            return "0" + self._any_digits(digits[1:], purpose, attempt)
        for extra in range(ATTEMPTS):
            stream = self.keyed.digest(purpose, f"{digits}\0{attempt}\0{extra}")
            made = "".join(str(stream[place % 32] % 10) for place in range(1, len(digits)))
            made = str(1 + stream[0] % 9) + made
            if made != digits:
                return made
        return "9" * len(digits)

    def email(self, raw: str) -> str | None:
        """An address below example.org with the names in it replaced."""
        local, at, _ = Note(raw).view.partition("@")
        if not at:
            return None
        made = re.sub(
            r"[^\W\d_]+|\d+",
            lambda match: (
                self._any_digits(match.group(), "mail", 0)
                if match.group().isdigit()
                else re.sub(r"\W", "", self._name(match.group())).lower()
            ),
            local,
        )
        return f"{made}@{('mail', 'post', 'box')[self.keyed.seed('host', fold(raw).lower()) % 3]}.example.org"

    def url(self, raw: str) -> str:
        """A web address below example.org; of the original only the scheme stays."""
        scheme = re.match(r"[a-z]{2,6}://", raw, re.IGNORECASE)
        page = self.keyed.digest("url", fold(raw).lower()).hex()[:8]
        return f"{scheme.group() if scheme else ''}www.example.org/{page}"


def canonical(value: str) -> str:
    """What two spellings of one identifier share: its digits without padding, or, where they are few, all of it."""
    bare = plain(value)
    digits = "".join(char for char in bare if char.isdigit())
    return digits.lstrip("0") if len(digits) >= 5 else bare
