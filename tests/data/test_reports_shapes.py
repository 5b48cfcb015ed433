"""Codes by their shape, initials by their place, dates without a year, years, and what a note's language tells."""

from __future__ import annotations

import pytest

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
