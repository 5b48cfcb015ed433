"""Codes by their shape, initials by their place, dates without a year, years, and what a note's language tells."""

from __future__ import annotations

import random

import pytest

from components.reports.deid import contacts, dates
from components.reports.deid.engine import Deidentifier
from components.reports.deid.note import Note
from components.reports.deid.span import StudyContext
from components.reports.lexicon import languages, languages_of, terms

deidentify = Deidentifier()

GOES = (
    ("CT thorax, folder QWP.31.90877, compared.", "QWP.31.90877"),
    ("Register 71-44-93 seen again today.", "71-44-93"),
    ("Ficha 204417-6, sin cambios.", "204417-6"),
    ("Scan of DNI 38.904.117 reviewed.", "38.904.117"),
    ("Reference 2081/774210 was filed.", "2081/774210"),
    ("NHI ZKD47QE, no effusion.", "ZKD47QE"),
    ("Uploaded with login kestrel_07 last night.", "kestrel_07"),
    ("No effusion.\n\nDr. Anna Lowe\n\nqz/tm\n", "qz/tm"),
    ("No effusion. Stable nodule in the left lung, unchanged.\n\nQZ:tm", "QZ"),
    ("Stable nodule.\n\nTypist: qz", "qz"),
    ("Kein Erguss.\nSchreibkraft: qz", "qz"),
    ("Sin derrame.\nTranscrito por QZ, 3/4/2020", "QZ"),
    ("Stable nodule.\nReader: QZ   status final", "QZ"),
    ("Stent am 23.05. gesetzt.", "23.05."),
    ("Compared with the film of 14/09 the nodule has grown.", "14/09"),
    ("Afspraak op 27-02 met de longarts.", "27-02"),
    ("Nodule in the left lobe, same as 2013.", "2013"),
    ("Lobectomy (2011), no recurrence.", "2011"),
    ("Bleep 417 for the registrar.", "417"),
    ("Pneumothorax, told to the ward on intercom 388.", "388"),
    ("Police reference KRV-4417 is with the coroner.", "KRV-4417"),
    ("Lifeboat call 5873/27, hypothermia.", "5873/27"),
    ("001  08:14     qzander      FRONT-02     OPENED", "qzander"),
    ("001  08:14     qzander      FRONT-02     OPENED", "FRONT-02"),
    ("Kennung wqrst4, Platz BEF-WS-06", "wqrst4"),
    ("Kennung wqrst4, Platz BEF-WS-06", "BEF-WS-06"),
    ("MCP 510 644 928 856, chest film.", "510 644 928 856"),
    ("DATE OF SERVICE08/15/2018. No effusion.", "08/15/2018"),
    ("Het naaldbiopt van de long van 19 mei toont geen tumor en de andere long is helder.", "19 mei"),
    ("21h36  Quilla> le scanner est fini\n21h41  Brunet> merci, poumon normal", "Quilla"),
    ("pilnie, tel. 85 336 65 03 w. 61, tomografia", "w. 61"),
    ("posted to 1 lon y felin, aberwysg,\nzp9 3zw. no effusion seen today.", "zp9 3zw"),
    ("DOMICILIO: CALLE DEL POZO 94\n   10271 SAN JARANDO (CC)\nTORAX NORMAL", "SAN JARANDO"),
    ("No effusion is seen in the left lung on this film of the chest.\nread and signed, Q.Z.", "Q.Z"),
)
STAYS = (
    ("Repeat CT in 6/12 or 3/12.", "6/12"),
    ("Lung nodule as by Fleischner 2017.", "2017"),
    ("RECIST 1.1 (2009) partial response.", "2009"),
    ("Blood gas 7.41/35/92 on air.", "7.41/35/92"),
    ("Volume 2000 ml, drained.", "2000 ml"),
    ("Matrix 512/512, stage pT3N1M0, L4/5 and C5/6.", "512/512, stage pT3N1M0, L4/5 and C5/6"),
    ("BP 120/80, 10/10 pain, 3/25 nodes positive.", "120/80, 10/10 pain, 3/25 nodes"),
    ("Drawn at 5 mg/ml.\nn/a", "mg/ml"),
    ("Views: AP/PA\nFindings: clear.", "AP/PA"),
    ("Dictated but not read.", "but not read"),
    ("Dose 16/20 Gy given.", "16/20"),
    ("TR/TE 4000/80, FOV 320.", "4000/80"),
    ("WHO-2021 and ESC-2019 were followed.", "WHO-2021 and ESC-2019"),
    ("CT udført kl. 10.38 uden kontrast.", "10.38"),
    ("VAS vor Infiltration 8, Zeit 14.30-14.42, danach 2.", "14.30-14.42"),
    ("0750  CT head, no bleed\n0805  CT neck, no fracture", "0750  CT head, no bleed\n0805"),
    ('CODE: (121058, DCM, "Procedure reported")', "121058, DCM"),
    ("SOP class 1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.67"),
    ("OBX|1|TX|18782-3^STUDY OBSERVATION^LN||Clear lungs.", "18782-3^STUDY OBSERVATION^LN"),
    ("E. coli and M. avium; A. carotis patent.", "E. coli and M. avium; A. carotis"),
    ("14:20 gcs15, 14:25 spo2 98", "gcs15"),
)


@pytest.mark.parametrize(("text", "gone"), GOES)
def test_what_its_shape_or_place_gives_away_goes(text: str, gone: str) -> None:
    assert gone not in deidentify(text, StudyContext()).text


@pytest.mark.parametrize(("text", "kept"), STAYS)
def test_measures_editions_and_words_stay(text: str, kept: str) -> None:
    assert kept in deidentify(text, StudyContext()).text


SPANISH = (
    "Se observa engrosamiento pleural derecho sin derrame. Ganglios mediastínicos de tamaño normal. "
    "Parénquima pulmonar sin alteraciones. Comentado con {}. Control en tres meses."
)


def test_a_note_tells_its_language_by_its_words() -> None:
    english = "There is no pleural effusion. The lungs are clear and the heart is normal in size."
    german = "Pleuraerguss beidseits, Herz grenzwertig groß, Lunge unauffällig, vergrößerte Lymphknoten mediastinal."
    assert Note(english).languages == ()
    assert Note(german).languages == ("de",)
    assert "es" in Note(SPANISH.format("ella")).languages
    assert languages_of(frozenset()) == ()


def test_a_strange_word_stands_out_in_another_language_too() -> None:
    written = deidentify(SPANISH.format("E. Quizhpizaca"), StudyContext()).text
    assert "Quizhpizaca" not in written
    assert "engrosamiento pleural derecho sin derrame. Ganglios" in written
    assert "Control en tres meses." in written


def test_vocabularies_are_folded_and_hold_no_list_of_names() -> None:
    assert len(languages()) >= 20
    for code, own in languages().items():
        assert len(own) > 300, code
        odd = [word for word in own if Note(word).view != word or not word.isalpha()]
        assert odd == [], code
    assert not {"nguyen", "garcia", "mehmet", "kowalski"} & terms(tuple(sorted(languages())))


def test_no_guard_keeps_a_phone_or_a_date_from_being_tried() -> None:
    rng = random.Random(0)
    pieces = ("(", ")", "+", " ", ".", "-", "/", " / ", ") / ", "0", "1", "2", "45", "678", "9012", "555")
    counted = (contacts._WORLD, contacts._PHONE, contacts._TRUNK, contacts._AREA, contacts._GROUPED)
    whole = (contacts._LOCAL, contacts._EIGHT, contacts._PAIR, contacts._IP)
    phones = days = 0
    for _ in range(20_000):
        form = "0" + "".join(rng.choices(pieces, k=rng.randint(3, 10)))
        for begin in ("", "+", "("):
            found = [pattern.match(begin + form) for pattern in counted]
            held = any(match and sum(map(str.isdigit, match.group())) >= 8 for match in found)
            if held or any(pattern.match(form) for pattern in whole):
                phones += 1
                assert contacts._LONG.match(form), form
        month = rng.choice(sorted(dates.MONTHS))
        day = f"{rng.randint(1, 31)}{rng.choice(('', 'th', '.', 'º', ' of', ' de', ' del', ' d' + chr(39)))}"
        note = Note(
            f"{day}{rng.choice(('', ' ', '-', '. ', ', ', '/'))}{month}{rng.choice(('', ' 2019', '2019'))}"
        )
        if dates._DAY_MONTH.match(note.view):
            days += 1
            assert dates._month_near(note, 0), note.view
    assert min(phones, days) > 2_000


def test_words_gaps_and_offsets_are_those_of_the_view() -> None:
    note = Note("(CT) of Müller's  chest, 3\u200b4 mm; ")
    assert note.words == ["ct", "of", "muller", "s", "chest", "34", "mm"]
    assert [note.view[a:b] for a, b in zip(note.starts, note.ends)] == note.written
    assert [note.gap(number) for number in range(-1, 7)] == ["", ") ", " ", "'", "  ", ", ", " ", "; "]
    assert Note("").words == []
    assert Note("...").words == []
