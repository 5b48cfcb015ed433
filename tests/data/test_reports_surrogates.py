"""Surrogates (D8): the same under the same key and in every spelling, others under another key, never the original."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from components.base.keys import KeyRing
from components.reports.deid.note import fold
from components.reports.deid.surrogates import Keyed, Patient, initials, kept_words, plain, pool, sexes
from components.reports.deid.surrogates.checks import could_be_issued, luhn, nhs, pesel, tckn
from components.reports.deid.surrogates.codes import CodeSurrogates, canonical
from components.reports.deid.surrogates.names import NameSurrogates, tokens_of
from components.reports.deid.surrogates.places import PlaceSurrogates

RING, OTHER = KeyRing(b"a" * 32), KeyRing(b"b" * 32)
GIVEN_NAMES = (
    "Ayşe Mehmet Nguyễn Thị Hoa María José Jürgen Zoë Siobhán Xiu Priya Hiroshi Fatma Ömer Élodie Göran Łukasz Anne "
    "Robert Michael Jennifer Linda James Patricia Wei Aisha Olu Ngozi Ivan Olga Pedro Inés Björn Chloé Quentin Ursula"
)
FAMILY_NAMES = (
    "Yılmaz Çelik Trần Núñez García Müller Okafor Lindqvist Smith Johnson Baker Graves Crohn White Hall Öztürk "
    "Nowak Kowalczyk Dubois Lefèvre Schröder Garcia Nakamura Patel Singh Abubakar Zhang Ng Xu Ivanova Quispe "
    "Uchida Ibáñez Yamamoto Andersson Brightwater Vanterpool Whitehorse"
)
SYLLABLE_TEXT = "ba ce di fo gu ha ji ko lu ma ne po qui ra se tu va wo xi yo za bran dorf ston vik"
GIVEN, FAMILY, SYLLABLES = (text.split() for text in (GIVEN_NAMES, FAMILY_NAMES, SYLLABLE_TEXT))


def made(rng: random.Random) -> str:
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()


def names(ring: KeyRing, patient: Patient) -> NameSurrogates:
    return NameSurrogates(Keyed(ring, patient.key), patient)


def words(text: str | None) -> list[str]:
    assert text is not None
    return re.findall(r"[^\W\d_]+", text)


def violations_of_names(count: int, seed: int) -> list[str]:
    """What is wrong with the surrogates of `count` random people, known and unknown ones."""
    rng, wrong = random.Random(seed), []
    for number in range(count):
        given = rng.choice(GIVEN) if rng.random() < 0.6 else made(rng)
        family = rng.choice(FAMILY) if rng.random() < 0.6 else made(rng)
        if plain(given) == plain(family):
            continue
        known = rng.random() < 0.5
        identities = (("PATIENT", f"{family}^{given}"),) if known else (("STAFF", made(rng)),)
        patient = Patient(f"pat_{number}", identities)
        one, again, other = names(RING, patient), names(RING, patient), names(OTHER, patient)
        full = one.render(f"{given} {family}")
        if full is None or len(words(full)) != 2:
            wrong.append(f"form {number}")
            continue
        first, last = words(full)
        upper = f"{family}, {given}".upper()
        expected = {
            upper: f"{last}, {first}".upper(),
            f"{family}^{given}": f"{last}^{first}",
            f"{given} {family}".lower(): full.lower(),
            f"{given[0]}. {family}": f"{first[0]}. {last}",
            f"{family}, {given[0]}.": f"{last}, {first[0]}.",
            family: last,
            given: first,
            f"{family}'s": f"{last}'s",
            f"Dr. {family}": f"Dr. {last}",
            fold(f"{given} {family}"): full,
        }
        if known:
            expected[f"{given}{family}".lower()] = (first + last).lower()
            expected[f"{given[0]}{family[0]}".upper()] = (first[0] + last[0]).upper()
        note = tokens_of([f"{given} {family}"])
        wrong += [f"{number} {text!r}" for text, want in expected.items() if one.render(text, note) != want]
        wrong += [f"key {number}"] if again.render(f"{given} {family}") != full else []
        wrong += [f"other key {number}"] if other.render(f"{given} {family}") == full else []
        originals = {plain(given), plain(family)} | {plain(word) for _, v in identities for word in words(v)}
        wrong += [f"original {number}"] if {plain(first), plain(last)} & originals else []
        wrong += [f"kept {number}"] if {plain(first), plain(last)} & kept_words() else []
        wrong += [f"initial {number}"] if first[0] == fold(given)[0] or last[0] == fold(family)[0] else []
    return wrong


def violations_of_codes(count: int, seed: int) -> list[str]:
    """What is wrong with the surrogates of `count` random identifiers."""
    rng, wrong = random.Random(seed), []
    for number in range(count):
        size = rng.randint(5, 12)
        digits = str(rng.randint(1, 9)) + "".join(str(rng.randint(0, 9)) for _ in range(size - 1))
        prefix = rng.choice(["", "A-", "MR-", "CT", "X"])
        text = prefix + digits
        patient = Patient(f"pat_{number}", (("MRN", text), ("ACCESSION", f"{rng.randint(10**6, 10**9)}")))
        one, again, other = (
            CodeSurrogates(Keyed(ring, patient.key), patient, str) for ring in (RING, RING, OTHER)
        )
        new = one.code(text, "MRN")
        if new is None or len(new) != len(text) or [c.isdigit() for c in new] != [c.isdigit() for c in text]:
            wrong.append(f"form {number}")
            continue
        bare = "".join(char for char in new if char.isdigit())
        padded = one.code("00" + digits, "MRN")
        checks = {
            "key": again.code(text, "MRN") == new,
            "other key": other.code(text, "MRN") != new,
            "original": canonical(new) != canonical(text) and digits not in new,
            "known": canonical(new) not in {canonical(value) for _, value in patient.identities},
            "padding": padded == f"00{bare}",
            "digits": one.code(digits, "MRN") == bare,
            "issued": not could_be_issued(bare),
        }
        wrong += [f"{what} {number}" for what, good in checks.items() if not good]
    return wrong


def test_names_of_a_thousand_people() -> None:
    assert violations_of_names(1000, 11) == []


def test_a_thousand_identifiers() -> None:
    assert violations_of_codes(1000, 12) == []


@pytest.mark.slow
def test_ten_thousand_of_each() -> None:
    assert violations_of_names(10_000, 2026) == []
    assert violations_of_codes(10_000, 2027) == []


@pytest.mark.parametrize(
    ("given", "sex"),
    [("Ayşe", "F"), ("Mehmet", "M"), ("Jennifer", "F"), ("Hiroshi", "M"), ("MARÍA", "F"), ("otto", "M")],
)
def test_the_sex_of_a_given_name_is_kept(given: str, sex: str) -> None:
    for number in range(40):
        new = names(RING, Patient(f"pat_{number}")).render(given)
        assert new is not None
        assert sexes()[plain(new)] == sex


@pytest.mark.parametrize("sex", ["F", "M"])
def test_the_patients_own_sex_decides_for_names_of_both(sex: str) -> None:
    for number in range(20):
        patient = Patient(f"pat_{number}", (("PATIENT", "Smith^Xiu"),), sex)
        assert sexes()[plain(words(names(RING, patient).render("Xiu Smith"))[0])] == sex


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("O'Connor", r"[A-Z][a-z]+"),
        ("de la Cruz, Maria", r"[A-Z][a-z]+, [A-Z][a-z]+"),
        ("Anne-Marie Dubois", r"[A-Z][a-z]+-[A-Z][a-z]+ [A-Z][a-z]+"),
        ("White/xy", r"[A-Z][a-z]+/[a-z]{2}"),
        ("MILLER, JAMES T", r"[A-Z]+, [A-Z]+ [A-Z]"),
        ("Dr. Peter White, MD", r"Dr\. [A-Z][a-z]+ [A-Z][a-z]+, MD"),
        ("BJ", r"[A-Z]{2}"),
        ("al-Rashid", r"[A-Z][a-z]+"),
        ("Núñez\nGarcía", r"[A-Z][a-z]+\n[A-Z][a-z]+"),
        ("Ay\u200bse Çelik", r"[A-Z][a-z]+ [A-Z][a-z]+"),
    ],
)
def test_the_form_of_a_name_is_kept(text: str, shape: str) -> None:
    new = names(RING, Patient("pat_1")).render(text)
    assert new is not None
    assert re.fullmatch(shape, new), new


def test_known_people_of_a_patient_get_names_of_their_own() -> None:
    for number in range(200):
        people = [
            f"{family}^{given}" for family, given in pairwise(["Adams", "Allen", "Archer", "Avery", "Ames"])
        ]
        patient = Patient(f"pat_{number}", tuple(("STAFF", person) for person in people))
        found = {names(RING, patient).render(word) for word in ("Adams", "Allen", "Archer", "Avery", "Ames")}
        assert len(found) == 5


def test_a_surrogate_is_never_another_known_name_of_the_patient() -> None:
    letter = names(RING, Patient("pat_x")).letter("o")
    crowd = tuple(("STAFF", name) for name in pool("family")[letter])
    new = names(RING, Patient("pat_x", (("PATIENT", "Okafor"), *crowd))).render("Okafor")
    assert new is not None
    assert plain(new) not in {plain(name) for _, name in crowd}
    assert plain(new) != "okafor"


def test_every_letter_has_names_that_are_no_terms() -> None:
    assert len(initials()) >= 16
    for name in ("given_female", "given_male", "family"):
        for letter in initials():
            assert len(pool(name)[letter]) >= 6
            assert not {plain(entry) for entry in pool(name)[letter]} & kept_words()


@pytest.mark.parametrize(
    ("raw", "shape"),
    [
        ("555-123-4567", r"\d9\d-555-01\d\d"),
        ("(617) 732-5500", r"\(\d9\d\) 555-01\d\d"),
        ("+1 617.732.5500", r"\+1 \d9\d\.555\.01\d\d"),
        ("617-732-5500 x4521", r"\d9\d-555-01\d\d x\d{4}"),
        ("732-5500", r"555-01\d\d"),
        ("+44 20 7123 4567", r"\+44 20 7946 0\d{3}"),
        ("020 7123 4567", r"020 7946 0\d{3}"),
        ("+90 (212) 414 20 00", r"\+90 \(\d{3}\) \d{3} \d\d \d\d"),
        ("p12345", r"p\d{5}"),
        ("4521", r"\d{4}"),
    ],
)
def test_telephone_numbers_are_of_ranges_for_fiction(raw: str, shape: str) -> None:
    for number in range(50):
        new = CodeSurrogates(Keyed(RING, f"pat_{number}"), Patient("x"), str).phone(raw)
        assert new is not None
        assert re.fullmatch(shape, new), new
        assert plain(new) != plain(raw)


def test_one_number_in_two_formats_has_one_surrogate() -> None:
    codes = CodeSurrogates(Keyed(RING, "pat_1"), Patient("x"), str)
    digits = {
        re.sub(r"\D", "", codes.phone(raw) or "")[-10:]
        for raw in ("(617) 732-5500", "617.732.5500", "+1 6177325500")
    }
    assert len(digits) == 1


@pytest.mark.parametrize("raw", ["123-45-6789", "078-05-1120", "219-09-9999", "900-65-1234"])
def test_social_security_numbers_are_of_areas_never_issued(raw: str) -> None:
    for number in range(50):
        new = CodeSurrogates(Keyed(RING, f"pat_{number}"), Patient("x"), str).code(raw, "SSN")
        assert new is not None
        assert re.fullmatch(r"9\d\d-[0-4]\d-\d{4}", new)
        assert not could_be_issued(plain(new))


@pytest.mark.parametrize(
    ("check", "valid"),
    [(luhn, "4539578763621486"), (nhs, "9434765919"), (tckn, "10000000146"), (pesel, "44051401359")],
)
def test_check_digits_against_published_examples(check: object, valid: str) -> None:
    assert callable(check)
    assert check(valid)
    broken = valid[:-1] + str((int(valid[-1]) + 1) % 10)
    assert not check(broken)
    assert could_be_issued(valid)


@pytest.mark.parametrize(
    "valid", ["12345678Z", "X1234567L", "111222333", "86095742719", "52998224725", "255081416802538"]
)
def test_numbers_of_national_schemes_are_recognised(valid: str) -> None:
    assert could_be_issued(valid)


def test_mail_web_and_network_addresses_are_reserved_ones() -> None:
    patient = Patient("pat_1", (("PATIENT", "Okafor^Jane"),))
    people = names(RING, patient)
    codes = CodeSurrogates(Keyed(RING, "pat_1"), patient, people.token)
    first, last = words(people.render("jane okafor"))
    mail = codes.email("jane.okafor81@mercy.org")
    assert mail is not None
    assert re.fullmatch(rf"{first}\.{last}\d\d@\w+\.example\.org", mail)
    assert codes.url("https://mercy.org/jane?id=7").startswith("https://www.example.org/")
    assert re.fullmatch(r"(192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}", codes.code("10.11.12.13") or "")
    assert re.fullmatch(r"2\.25\.\d{30,39}", codes.code("1.2.840.113619.2.55.3.604688") or "")


@pytest.mark.parametrize(
    ("method", "raw", "shape"),
    [
        ("institution", "Mercy General Hospital", r"[A-Z]\w+ General Hospital"),
        ("institution", "ST. MARY'S HOSPITAL", r"ST\. [A-Z]+'S HOSPITAL"),
        ("institution", "Klinikum Großhadern", r"Klinikum [A-Z]\w+"),
        ("institution", "University Hospital", r"(?!University)[A-Z]\w+ Hospital"),
        (
            "address",
            "12 Oak Lane, Reno, NV 89501",
            r"\d\d [A-Z]\w+ Lane, [A-Z]\w+, (?!NV)[A-Z]{2} 00[1-4]\d\d",
        ),
        ("address", "Hauptstrasse 14b", r"[A-Z]\w+strasse \d\db"),
        ("address", "SW1A 1AA", r"Q[A-Z]\d[A-Z] \d[A-Z]{2}"),
        ("postcode", "89501-1234", r"00[1-4]\d\d-\d{4}"),
        ("town", "San Francisco", r"[A-Z][a-z]+"),
        ("state", "NV", r"(?!NV)[A-Z]{2}"),
    ],
)
def test_places_keep_their_form_only(method: str, raw: str, shape: str) -> None:
    for number in range(30):
        new = getattr(PlaceSurrogates(Keyed(RING, f"pat_{number}"), Patient("x")), method)(raw)
        assert re.fullmatch(shape, new), new
        assert not {"mercy", "mary", "reno", "oak", "haupt", "francisco"} & {
            word.lower() for word in words(new)
        }


@pytest.mark.parametrize(
    ("known", "spellings"),
    [
        ("Schröder^Jörg", ("Schröder", "Schroeder", "SCHRODER", "schroeder")),
        ("Mueller^Hans", ("Mueller", "Müller", "MÜLLER")),
    ],
)
def test_a_known_name_written_out_or_drawn_together_is_one_name(
    known: str, spellings: tuple[str, ...]
) -> None:
    patient = Patient("pat_1", (("PATIENT", known),))
    found = {plain(names(RING, patient).token(spelling)) for spelling in spellings}
    assert len(found) == 1


def test_no_surrogate_is_a_known_name_written_out() -> None:
    for number in range(300):
        patient = Patient(f"pat_{number}", (("STAFF", "Schröder"), ("STAFF", "Schäfer")))
        assert plain(names(RING, patient).token("Kowo")) not in ("schroeder", "schaefer")
