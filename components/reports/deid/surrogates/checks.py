"""Check digits of real numbering schemes, so that no surrogate is a number that could have been issued.

Sources: ISO/IEC 7812-1 (Luhn), NHS Data Dictionary (modulus 11), SSA (areas never assigned), and the published rules
of TCKN (Turkey), PESEL (Poland), Steuer-ID (Germany, ISO 7064 mod 11,10), BSN (Netherlands), DNI and NIE (Spain),
NIR (France), CPF (Brazil) and NPI (United States).
"""

from __future__ import annotations

from collections.abc import Sequence

DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = int(char) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights))


def nhs(digits: str) -> bool:
    """A number of the National Health Service: ten digits, modulus 11."""
    check = 11 - _weighted(digits, range(10, 1, -1)) % 11
    return check != 10 and check % 11 == int(digits[9])


def tckn(digits: str) -> bool:
    """A Turkish identity number: eleven digits, two check digits."""
    if digits[0] == "0":
        return False
    numbers = [int(digit) for digit in digits]
    tenth = (7 * sum(numbers[0:9:2]) - sum(numbers[1:8:2])) % 10
    return numbers[9] == tenth and numbers[10] == sum(numbers[:10]) % 10


def pesel(digits: str) -> bool:
    """A Polish PESEL: eleven digits."""
    return (_weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) + int(digits[10])) % 10 == 0


def steuer_id(digits: str) -> bool:
    """A German tax identification number: eleven digits, ISO 7064 mod 11,10."""
    product = 10
    for digit in digits[:10]:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def cpf(digits: str) -> bool:
    """A Brazilian CPF: eleven digits, two check digits."""
    first = _weighted(digits, range(10, 1, -1)) * 10 % 11 % 10
    second = _weighted(digits, range(11, 1, -1)) * 10 % 11 % 10
    return (first, second) == (int(digits[9]), int(digits[10]))


def bsn(digits: str) -> bool:
    """A Dutch citizen service number: nine digits, the eleven test."""
    return _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def ssn_possible(digits: str) -> bool:
    """Whether nine digits could be a Social Security or individual taxpayer number."""
    area, group, serial = int(digits[:3]), int(digits[3:5]), int(digits[5:])
    if area >= 900:
        return 50 <= group <= 99
    return area not in (0, 666) and group > 0 and serial > 0


def could_be_issued(code: str) -> bool:
    """Whether letters and digits satisfy the check of any known scheme of their length."""
    code = code.upper()
    if not code.isdigit():
        head = code[:-1]
        if len(code) == 9 and code[-1].isalpha() and head[0] in "XYZ" and head[1:].isdigit():
            head = str("XYZ".index(head[0])) + head[1:]
        return len(code) == 9 and head.isdigit() and DNI_LETTERS[int(head) % 23] == code[-1]
    size = len(code)
    if size == 9:
        return ssn_possible(code) or bsn(code) or luhn(code)
    if size == 10:
        return nhs(code) or luhn("80840" + code) or luhn(code)
    if size == 11:
        return any(check(code) for check in (tckn, pesel, steuer_id, cpf, luhn))
    if size == 15:
        return int(code[13:]) == 97 - int(code[:13]) % 97 or luhn(code)
    return 12 <= size <= 19 and luhn(code)
