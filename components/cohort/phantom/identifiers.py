"""Invented identities: names of many origins (some are also common words), numbers, dates, hospitals."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta

import numpy as np

from components.cohort.phantom.spec import Person, Visit
from components.cohort.phantom.streams import choose, stream

GIVEN_F = (
    *("Adaeze", "Aiko", "Anaïs", "Astrid", "Beatriz", "Birgül", "Chiamaka", "Dorothée", "Ebru", "Esperanza"),
    *("Fatoumata", "Freya", "Giulia", "Grace", "Hanneke", "Ilse", "Ingrid", "Ivana", "Jadwiga", "Joy"),
    *("Kalpana", "Leilani", "Liên", "Lupe", "Maëlle", "Mai", "Małgorzata", "Nadia", "Niamh", "Oksana"),
    *("Paloma", "Priya", "Rosa", "Ruth", "Saoirse", "Shirin", "Svetlana", "Thandiwe", "Wanjiru", "Zeynep"),
)
GIVEN_M = (
    *("Abebe", "Anders", "Arturo", "Bogdan", "Bram", "Cem", "Dmitri", "Đức", "Emeka", "Étienne"),
    *("Farid", "Gaspard", "Gökhan", "Haruto", "Hugo", "Ignacio", "Imre", "Jens", "José", "Kwame"),
    *("Lars", "Lázaro", "Marek", "Mateus", "Mark", "Nguyên", "Olumide", "Otto", "Piotr", "Rajesh"),
    *("Rubén", "Sami", "Siegfried", "Søren", "Tariq", "Tomáš", "Viktor", "Will", "Xavier", "Yusuf"),
)
FAMILY = (
    *("Abernathy", "Åkesson", "Almeida", "Bałut", "Bérubé", "Brzezicki", "Castellanos", "Çelik", "Chukwu"),
    *("Dąbek", "Delacroix-Noël", "Eriksen", "Fairweather", "Ferreira", "Fujimori", "García Lorenz", "Graves"),
    *("Grünwald", "Hâncu", "Holloway", "Ibáñez", "Jóhannsson", "Kaplanoğlu", "Karimov", "Kiplagat", "Kovář"),
    *("Lefèvre", "Lindqvist", "Long", "Mbeki-Stone", "McAllister", "Müller", "Nakagawa", "Németh", "Núñez"),
    *("O'Rourke", "Okonkwo", "Ölmez", "Pálsson", "Patel", "Petrović", "Quispe", "Rahmani", "Rosenfeldt"),
    *("Sánchez", "Šimůnek", "Singh", "Stone", "Szymańska", "Tanaka", "Trần", "van den Berg", "Vasquez"),
    *("Wójcik", "White", "Winter", "Xiong", "Yılmaz", "Young", "Zapata", "Zieliński"),
)
HOSPITALS = (
    "Alder Creek Medical Center",
    "St. Brannock Hospital",
    "Northgate University Hospital",
    "Hôpital de la Rivière Claire",
    "Klinikum Hohenlinden",
    "Riverbend General Hospital",
    "Clínica Monte Alba",
    "Harrowfield Regional Clinic",
)
SCANNERS = (
    ("Aurelia Imaging", "Helix 64"),
    ("Borealis Medical", "Spectra CT 128"),
    ("Caldera Systems", "Vantage 320"),
    ("Deltaray", "Pulse 16"),
)
FIRST_DAY = date(2009, 1, 5)
DAYS = 5400
_MRN_STEP = 7919  # prime, and coprime to the range: different patients never share a number
_MRN_RANGE = 9_000_000


def person(seed: int, patient: int, sex: str) -> Person:
    """The invented identity of a patient; record numbers are unique within a seed."""
    rng = stream(seed, "person", patient)
    given = choose(rng, GIVEN_F if sex == "F" else GIVEN_M)
    family = choose(rng, FAMILY)
    age_days = int(rng.triangular(19, 64, 93) * 365.25)
    birth = study_days(seed, patient, 1)[0] - timedelta(days=age_days)
    start = int(stream(seed, "mrn").integers(_MRN_RANGE))
    mrn = str(1_000_000 + (start + patient * _MRN_STEP) % _MRN_RANGE)
    return Person(given, family, sex, birth, mrn)


def study_days(seed: int, patient: int, count: int) -> list[date]:
    """The days of a patient's studies, a month to three years apart."""
    rng = stream(seed, "days", patient)
    first = FIRST_DAY + timedelta(days=DAYS // 3 + int(rng.integers(DAYS // 3)))
    gaps = [int(rng.integers(30, 1000)) for _ in range(count - 1)]
    return [first + timedelta(days=sum(gaps[:index])) for index in range(count)]


def _staff(rng: np.random.Generator) -> tuple[str, str]:
    given = choose(rng, GIVEN_F if rng.random() < 0.5 else GIVEN_M)
    return given, choose(rng, FAMILY)


def _uid(*parts: object) -> str:
    """A UID below 2.25, the arc for UUID-derived numbers (ISO/IEC 9834-8)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def visit(seed: int, patient: int, study: int, day: date) -> Visit:
    """The invented identifiers of an examination; accession numbers are unique within a seed."""
    home = stream(seed, "home", patient)
    hospital, referring = choose(home, HOSPITALS), _staff(home)
    rng = stream(seed, "visit", patient, study)
    reading = _staff(rng)
    while set(reading) & set(referring):
        reading = _staff(rng)
    phone = f"({rng.integers(201, 990)}) 555-{rng.integers(100, 10000):04d}"
    start = int(stream(seed, "accession").integers(10**7))
    number = (start + (patient * 3 + study) * 104_729) % 10**7
    accession = f"{choose(rng, ('A', 'CT', 'R'))}{day.year % 100:02d}{number:07d}"
    series = _uid("series", seed, patient, study)
    study_uid = _uid("study", seed, patient, study)
    return Visit(accession, day, hospital, phone, referring, reading, study_uid, series)
