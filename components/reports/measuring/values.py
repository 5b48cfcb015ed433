"""Invented identifiers of many countries and systems: dates, numbers, phones, addresses, institutions."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np

from components.reports.measuring.people import HALVES, choose

_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "tr": "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "pl": "stycznia lutego marca kwietnia maja czerwca lipca sierpnia września października listopada "
    "grudnia",
}
_DATES = {
    "en": (
        *("%m/%d/%Y", "%m/%d/%y", "%-m/%-d/%Y", "%-m/%-d/%y", "%Y-%m-%d", "%d %B %Y", "%B %-d, %Y"),
        *(
            "%b %-d, %Y",
            "%d-%b-%Y",
            "%d.%m.%Y",
            "%Y%m%d",
            "%d%b%Y",
            "%-d %b '%y",
            "%Y/%m/%d",
            "%A, %B %-d, %Y",
        ),
        *("%-dth of %B %Y", "%b. %-d %Y", "%d-%m-%y", "%Y-%m-%dT%H:%M:%S", "%m-%d-%Y", "%d %b %y"),
    ),
    "es": ("%d/%m/%Y", "%-d de %B de %Y", "%d-%m-%Y", "%d.%m.%y"),
    "pt": ("%d/%m/%Y", "%-d de %B de %Y", "%d-%m-%Y"),
    "de": ("%d.%m.%Y", "%-d. %B %Y", "%d.%m.%y"),
    "fr": ("%d/%m/%Y", "%-d %B %Y", "%d.%m.%Y"),
    "vi": ("%d/%m/%Y", "ngày %-d tháng %-m năm %Y", "%-d/%-m/%Y"),
}
_DATES["tr"] = _DATES["it"] = _DATES["pl"] = ("%d.%m.%Y", "%-d %B %Y", "%d/%m/%Y")
_PARTIAL = ("%m/%Y", "%B %Y", "%b '%y", "%b %Y", "%B", "%-m/%d", "%B %-d", "%Y-%m", "%b-%y", "%Y", "early %Y")
_CITIES = (
    *(
        "Springfield",
        "Bursa",
        "Zaragoza",
        "Lyon",
        "Leipzig",
        "Haiphong",
        "Pune",
        "Lublin",
        "Porto",
        "Bergamo",
    ),
    *("Utrecht", "Uppsala", "Osaka", "Suzhou", "Kumasi", "Oran", "Tucson", "Leeds", "Galway", "Dunedin"),
    *("Antalya", "Sevilla", "Toulouse", "Freiburg", "Can Tho", "Nagpur", "Gdynia", "Braga", "Parma", "Breda"),
    *("Malmö", "Nagoya", "Wuhan", "Nakuru", "Tunis", "Boise", "Derby", "Limerick", "Hamilton", "Ostrava"),
)
_ROOTS = (
    *(
        "Mercy",
        "Lakeside",
        "St. Brigid",
        "Riverbend",
        "Our Lady of Hope",
        "Beacon Hill",
        "Ridgeview",
        "Harlow",
    ),
    *(
        "St. Luke's",
        "Northgate",
        "Holy Cross",
        "Pine Valley",
        "Kettering",
        "Wexford",
        "Queen Anne",
        "Sacred Heart",
    ),
    *(
        "Whitestone",
        "Maple Grove",
        "King Edward",
        "Good Samaritan",
        "Stonebridge",
        "Elmwood",
        "Trinity",
        "Bayview",
    ),
)
_PLACES = {
    "en": (
        *("{r} General Hospital", "{r} Medical Center", "{r} Imaging Center", "{r} Hospital", "{r} Clinic"),
        *(
            "{c} University Hospital",
            "University Hospital of {c}",
            "{r} Health System",
            "{c} Cancer Institute",
        ),
        *(
            "{r} Radiology Associates",
            "{c} Royal Infirmary",
            "{c} VA Medical Center",
            "{r} Regional Hospital",
        ),
    ),
    "tr": (
        "{c} Devlet Hastanesi",
        "{c} Şehir Hastanesi",
        "Özel {c} Tıp Merkezi",
        "{c} Üniversitesi Hastanesi",
    ),
    "es": ("Hospital Universitario de {c}", "Hospital General de {c}", "Clínica {c}", "Centro Médico {c}"),
    "vi": ("Bệnh viện {c}", "Bệnh viện Đa khoa {c}", "Phòng khám {c}"),
    "de": ("Klinikum {c}", "Universitätsklinikum {c}", "Krankenhaus {c}", "Radiologie {c} MVZ"),
    "fr": ("CHU de {c}", "Hôpital de {c}", "Centre Hospitalier de {c}", "Clinique de {c}"),
    "pt": ("Hospital de {c}", "Hospital Universitário de {c}", "Clínica {c}", "Centro Hospitalar de {c}"),
    "it": ("Ospedale di {c}", "Policlinico di {c}", "Azienda Ospedaliera di {c}", "Casa di Cura {c}"),
    "pl": ("Szpital Wojewódzki w {c}", "Szpital Miejski {c}", "Klinika {c}", "Szpital Uniwersytecki w {c}"),
}
_STREETS = {
    "en": ("{n} {w} Street, {c}, OH {z}", "{n} {w} Ave Apt {k}, {c}, TX {z}", "{n} {w} Lane, {c} {uk}"),
    "tr": ("{w} Mah. {w} Cad. No: {n} {c}", "{w} Sokak No:{k} {c}"),
    "es": ("Calle {w} {n}, {z} {c}", "Avda. {w} {n}, {c}"),
    "vi": ("{n} đường {w}, Quận {k}, {c}", "Số {n} phố {w}, {c}"),
    "de": ("{w}straße {n}, {z} {c}", "Am {w} {k}, {z} {c}"),
    "fr": ("{n} rue de {w}, {z} {c}", "{n} avenue {w}, {z} {c}"),
    "pt": ("Rua {w}, {n}, {c}", "Av. {w} {n}, {c}"),
    "it": ("Via {w} {n}, {z} {c}", "Piazza {w} {k}, {c}"),
    "pl": ("ul. {w} {n}, {c}", "ul. {w} {n}/{k}, {c}"),
}
_STREET_NAMES = (
    *("Oak", "Willow", "Station", "Linden", "Garibaldi", "Cedar", "Victoria", "Rosen", "Mozart", "Republic"),
    *(
        "Juniper",
        "Harbor",
        "Palmera",
        "Jasmin",
        "Bahnhof",
        "Chestnut",
        "Verdi",
        "Liberty",
        "Sunset",
        "Garten",
    ),
)
_PHONES = {
    "en": (
        "(###) ###-####",
        "###-###-####",
        "+1 ### ### ####",
        "###.###.####",
        "0#### ######",
        "020 #### ####",
    ),
    "tr": ("0532 ### ## ##", "+90 312 ### ## ##", "(0212) ### ## ##"),
    "es": ("6## ### ###", "+34 9## ## ## ##", "9# ### ## ##"),
    "vi": ("09## ### ###", "+84 9# ### ####", "024 #### ####"),
    "de": ("030 ########", "+49 89 #######", "0171/#######"),
    "fr": ("01 ## ## ## ##", "+33 6 ## ## ## ##", "06.##.##.##.##"),
    "pt": ("(11) 9####-####", "+351 21# ### ###", "9## ### ###"),
    "it": ("02 #######", "+39 3## ### ####", "333 #######"),
    "pl": ("+48 ### ### ###", "22 ### ## ##", "### ### ###"),
}


def pattern(rng: np.random.Generator, shape: str) -> str:
    """`shape` with each # a digit (the first is not 0) and each @ a capital."""
    out, first = [], True
    for char in shape:
        if char == "#":
            out.append(str(int(rng.integers(1 if first else 0, 10))))
            first = False
        elif char == "@":
            out.append(chr(65 + int(rng.integers(26))))
        else:
            out.append(char)
    return "".join(out)


def day(rng: np.random.Generator, born: bool = False) -> date:
    """A day of an examination, or of a birth."""
    first = date(1928, 1, 1) if born else date(2003, 1, 1)
    return first + timedelta(days=int(rng.integers(365 * (75 if born else 21))))


def written(when: date, shape: str, language: str) -> str:
    """A day in a form of `strftime`, months in the language, numbers without padding where `%-` says so."""
    months = _MONTHS.get(language, _MONTHS["en"]).split()
    month = months[when.month - 1]
    shape = shape.replace("%B", month).replace("%b", month[:3])
    shape = shape.replace("%-m", str(when.month)).replace("%-dth", ordinal(when.day))
    shape = shape.replace("%-d", str(when.day)).replace(
        "%H:%M:%S", f"{when.day % 24:02d}:{when.month:02d}:09"
    )
    return when.strftime(shape)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ..."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number not in (11, 12, 13) else 0, "th")
    return f"{number}{ending}"


def full_date(rng: np.random.Generator, language: str, half: str, born: bool = False) -> str:
    """A full date in a form of the language; in English each half has forms of its own besides common ones."""
    forms = _DATES.get(language, _DATES["en"])
    if language == "en":
        own = HALVES.index(half)
        forms = (*forms[:4], *forms[4:][own::2])
    return written(day(rng, born), choose(rng, forms), language)


def partial_date(rng: np.random.Generator, half: str) -> str:
    """A month, a month and a day, a month and a year, or a year."""
    return written(day(rng), choose(rng, _PARTIAL[HALVES.index(half) :: 2]), "en")


def city(rng: np.random.Generator, half: str) -> str:
    """A town; each half has its own."""
    return choose(rng, _CITIES[HALVES.index(half) :: 2])


def hospital(rng: np.random.Generator, language: str, half: str) -> str:
    """An institution's name."""
    root = choose(rng, _ROOTS[HALVES.index(half) :: 2])
    return choose(rng, _PLACES[language]).format(r=root, c=city(rng, half))


def address(rng: np.random.Generator, language: str, half: str) -> str:
    """A postal address on one line."""
    return choose(rng, _STREETS[language]).format(
        w=choose(rng, _STREET_NAMES[HALVES.index(half) :: 2]),
        c=city(rng, half),
        n=int(rng.integers(1, 990)),
        k=int(rng.integers(1, 12)),
        z=pattern(rng, "#####"),
        uk=pattern(rng, "@@# #@@"),
    )


def phone(rng: np.random.Generator, language: str) -> str:
    """A telephone number as the language's country writes it."""
    return pattern(rng, choose(rng, _PHONES.get(language, _PHONES["en"])))


def _turkish(digits: list[int]) -> str:
    tenth = (sum(digits[0:9:2]) * 7 - sum(digits[1:8:2])) % 10
    digits = [*digits, tenth]
    return "".join(map(str, [*digits, sum(digits) % 10]))


def national_id(rng: np.random.Generator, country: str, half: str) -> str:
    """A national number with a right check digit where the form has one."""
    if country == "any":
        country = choose(
            rng, ("us", "uk", "tr", "es") if half == HALVES[0] else ("fr", "vn", "br", "pl", "in")
        )
    if country == "tr":
        return _turkish([int(d) for d in pattern(rng, "#########")])
    if country == "es":
        digits = pattern(rng, "########")
        return digits + "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23]
    if country == "uk":
        while True:
            digits = pattern(rng, "#########")
            check = 11 - sum(int(d) * (10 - i) for i, d in enumerate(digits)) % 11
            if check != 10:
                return f"{digits[:3]} {digits[3:6]} {digits[6:]}{check % 11}"
    if country == "fr":
        month = int(rng.integers(1, 13))
        digits = pattern(rng, "1 ##") + f" {month:02d} " + pattern(rng, "## ### ###")
        return f"{digits} {97 - int(digits.replace(' ', '')) % 97:02d}"
    shapes = {"us": "###-##-####", "vn": "0###########", "br": "###.###.###-##", "pl": "###########"}
    shapes |= {"in": "#### #### ####", "it": "@@@@@@##@##@###@"}
    return pattern(rng, shapes[country])


def serial(rng: np.random.Generator) -> str:
    """A device's serial number or station."""
    return pattern(
        rng, choose(rng, ("@@@-#####", "SN######", "@######@", "#######", "CT######", "@@#######@@"))
    )


def record(rng: np.random.Generator) -> str:
    """A medical record number."""
    return pattern(
        rng,
        choose(rng, ("########", "@@######", "MR-#######", "###-##-##", "#######", "@-#######", "######")),
    )


def accession(rng: np.random.Generator) -> str:
    """An accession number."""
    return pattern(
        rng,
        choose(
            rng, ("CT-####-######", "##########", "@@#######", "##-#######", "RAD########", "####-CT-###")
        ),
    )
