"""Sections, sentences and assertions on generated layouts and hand-written cases (bars S1-S9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.reports.findings import mentions
from components.reports.sectioning import Section, sections
from components.reports.sentences import sentence_spans
from components.reports.temporality import temporality
from tests.benchmarks.report_cases import boundaries_f1, sentence_cases, trap_cases
from tests.benchmarks.report_layouts import CANONICAL, DEVELOPMENT, HELD_OUT, misspelt, reports, scored
from tests.benchmarks.report_wholes import DEVELOPMENT_EXTRAS, HELD_OUT_EXTRAS, wholes

CASES = Path(__file__).with_name("reports")


def cut(text: str) -> list[tuple[str, int, int]]:
    return [(section.name, section.start, section.end) for section in sections(text)]


def named(text: str) -> list[tuple[str, str]]:
    return [(section.name, section.text) for section in sections(text)]


@pytest.mark.parametrize(("pool", "seed"), [(CANONICAL, 5), (DEVELOPMENT, 17), (HELD_OUT, 23)])
def test_bodies_are_exact_in_every_layout(pool, seed: int) -> None:
    for layout, found in scored(reports(pool, seed, 8), cut).items():
        assert found["exact"] >= 0.98, layout
        assert found["false_headings"] == 0, layout


@pytest.mark.parametrize(
    ("pool", "extras", "seed"),
    [(DEVELOPMENT, DEVELOPMENT_EXTRAS, 19), (HELD_OUT, HELD_OUT_EXTRAS, 29)],
)
def test_whole_reports_in_every_layout(pool, extras, seed: int) -> None:
    drawn = wholes(pool, extras, seed, 8)
    for layout, found in scored(drawn, cut).items():
        assert found["exact"] >= 0.98, layout
        assert found["false_headings"] == 0, layout
    for report in drawn:
        wanted = [report.text[start:end] for name, start, end in report.gold if name == "addendum"]
        assert [section.text for section in sections(report.text) if section.name == "addendum"] == wanted


def test_misspelt_headings_are_recognised() -> None:
    rng = np.random.default_rng(7)
    core = {
        "FINDINGS": "findings",
        "IMPRESSION": "impression",
        "TECHNIQUE": "technique",
        "COMPARISON": "comparison",
        "INDICATION": "indication",
        "CONCLUSION": "impression",
        "CLINICAL HISTORY": "indication",
    }
    right = total = 0
    for heading, name in core.items():
        for _ in range(30):
            found = sections(f"EXAM: CT chest.\n\n{misspelt(heading, rng)}: The body of it.\n")
            right += (found[-1].name, found[-1].text) == (name, "The body of it.")
            total += 1
    assert right / total >= 0.99


@pytest.mark.parametrize(
    "word",
    ["OCCLUSION", "CONTUSION", "CONCUSSION", "MEDICATION", "COMPANION", "FILLINGS", "HISTOLOGY", "Inclusion"],
)
def test_words_that_resemble_a_heading_are_none(word: str) -> None:
    text = f"FINDINGS: The vessels are patent.\n{word}: none.\nIMPRESSION: Normal."
    assert [section.name for section in sections(text)] == ["findings", "impression"]


def test_headings_with_words_beside_them() -> None:
    for heading, name in (
        ("CT CHEST FINDINGS:", "findings"),
        ("IMPRESSION (PRELIMINARY):", "impression"),
        ("HISTORY / INDICATION:", "indication"),
        ("EXAM AND TECHNIQUE:", "technique"),
        ("Findings of the chest CT:", "findings"),
    ):
        assert named(f"HISTORY: Pain.\n{heading} The body.")[1] == (name, "The body."), heading


def test_several_studies_in_one_text() -> None:
    text = (
        "CT CHEST WITH CONTRAST\n\nTECHNIQUE: Helical.\n\nFINDINGS: A nodule.\n\nIMPRESSION: Nodule.\n\n"
        "CT ABDOMEN AND PELVIS WITH CONTRAST\n\nTECHNIQUE: Portal venous.\n\nFINDINGS: A cyst.\n\nIMPRESSION: Cyst."
    )
    found = sections(text)
    assert [(s.name, s.study) for s in found] == [
        ("exam", 0),
        ("technique", 0),
        ("findings", 0),
        ("impression", 0),
        ("exam", 1),
        ("technique", 1),
        ("findings", 1),
        ("impression", 1),
    ]
    assert found[3].text == "Nodule."
    assert found[4].text == "CT ABDOMEN AND PELVIS WITH CONTRAST"


def test_an_addendum_belongs_to_its_study() -> None:
    text = (
        "EXAM: CT chest.\nFINDINGS: A.\nIMPRESSION: A.\nADDENDUM: Later.\n"
        "EXAM: CT head.\nFINDINGS: B.\nIMPRESSION: B.\nADDENDUM: Later still."
    )
    assert [(s.name, s.study, s.part) for s in sections(text) if s.name in ("impression", "addendum")] == [
        ("impression", 0, 0),
        ("addendum", 0, 1),
        ("impression", 1, 0),
        ("addendum", 1, 1),
    ]


def test_a_dose_note_after_the_impression_is_no_new_study() -> None:
    found = sections("TECHNIQUE: CT.\nFINDINGS: A.\nIMPRESSION: A.\nRADIATION DOSE: 300 mGy.cm.")
    assert {section.study for section in found} == {0}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "TECHNIQUE: Helical CT with contrast. The lungs are clear. No effusion.\nIMPRESSION: Normal.",
            [
                ("technique", "Helical CT with contrast."),
                ("findings", "The lungs are clear. No effusion."),
                ("impression", "Normal."),
            ],
        ),
        (
            "TECHNIQUE: Helical CT.\n\nCT ABDOMEN:\nThe liver is normal in size.\n\nCT PELVIS: No fluid.\n\n"
            "IMPRESSION: Normal.",
            [
                ("technique", "Helical CT."),
                ("findings", "The liver is normal in size.\n\nCT PELVIS: No fluid."),
                ("impression", "Normal."),
            ],
        ),
        (
            "HISTORY: Pain.\nLUNGS: Clear.\nLIVER: Normal.\nIMPRESSION: Normal.",
            [
                ("indication", "Pain."),
                ("findings", "LUNGS: Clear.\nLIVER: Normal."),
                ("impression", "Normal."),
            ],
        ),
    ],
)
def test_findings_without_their_heading(text: str, wanted: list[tuple[str, str]]) -> None:
    assert named(text) == wanted


@pytest.mark.parametrize(
    ("closing", "name"),
    [
        ("Electronically signed by [STAFF]", "signature"),
        ("[STAFF], M.D., FRCR", "signature"),
        ("Jane Smith, MD", "signature"),
        ("Dr. [STAFF]", "signature"),
        ("Kind regards,\n[STAFF]", "signature"),
        ("Thank you for referring this patient.", "signature"),
        ("Mit freundlichen Grüßen\nDr. [STAFF]", "signature"),
        ("I have personally reviewed the images and agree.", "signature"),
        ("These findings were discussed with Dr. [STAFF] at 10:30.", "communication"),
    ],
)
def test_what_closes_a_report_is_no_impression(closing: str, name: str) -> None:
    found = sections(f"FINDINGS: Clear.\n\nIMPRESSION: Normal.\n\n{closing}\n")
    assert [section.name for section in found] == ["findings", "impression", name]
    assert found[1].text == "Normal."


def test_an_export_with_escaped_line_breaks() -> None:
    for mark in ("\\n", "\\r\\n", "<br>", "\\.br\\"):
        text = f"INDICATION: Cough.{mark}{mark}FINDINGS:{mark}Clear lungs.{mark}IMPRESSION: Normal."
        assert named(text) == [
            ("indication", "Cough."),
            ("findings", "Clear lungs."),
            ("impression", "Normal."),
        ], mark


def test_a_chief_complaint_is_no_copy() -> None:
    text = "CC: Cough.\nFINDINGS: Clear.\nIMPRESSION: Normal.\ncc: Dr. [STAFF]"
    assert [section.name for section in sections(text)] == [
        "indication",
        "findings",
        "impression",
        "signature",
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "Clinical details: Cough.\n\nReport:\nMass in the lung.\n\nComment: Likely tumour.",
            [("indication", "Cough."), ("findings", "Mass in the lung."), ("impression", "Likely tumour.")],
        ),
        (
            "FINDINGS: Mass.\nINTERPRETATION: Tumour.",
            [("findings", "Mass."), ("impression", "Tumour.")],
        ),
        (
            "FINDINGS: Mass.\nIMPRESSION: Tumour.\nCOMMENT: Call us.",
            [("findings", "Mass."), ("impression", "Tumour."), ("comment", "Call us.")],
        ),
        (
            "INDICATION:  ___ year old with cough\n\nCOMPARISON:  ___.\n\nFINDINGS: Clear.",
            [("indication", "___ year old with cough"), ("comparison", "___."), ("findings", "Clear.")],
        ),
        (
            "Klinische Angaben, Fragestellung: Husten.\nBefund: Frei.\nBeurteilung: Normal.\nDr. med. A. Müller",
            [
                ("indication", "Husten."),
                ("findings", "Frei."),
                ("impression", "Normal."),
                ("signature", "Dr. med. A. Müller"),
            ],
        ),
        (
            "<p><b>FINDINGS</b></p><p>Clear lungs.</p><p><b>IMPRESSION</b></p><p>Normal.</p>",
            [("findings", "Clear lungs."), ("impression", "Normal.")],
        ),
        (
            "CT SCAN OF THE CHEST:\nClear lungs.\nIMPRESSION:\nNormal. Seen by\nDr. Smith",
            [("findings", "Clear lungs."), ("impression", "Normal. Seen by\nDr. Smith")],
        ),
    ],
)
def test_forms_of_other_houses(text: str, wanted: list[tuple[str, str]]) -> None:
    assert named(text) == wanted


def test_decomposed_letters_and_other_languages() -> None:
    import unicodedata

    text = "KẾT LUẬN: Bình thường.\nSONUÇ: Normal."
    for form in ("NFC", "NFD"):
        assert [section.name for section in sections(unicodedata.normalize(form, text))] == ["impression"] * 2


def test_sentences_of_hand_written_cases() -> None:
    cases = sentence_cases(CASES / "sentences.txt")
    assert len(cases) >= 200
    assert boundaries_f1(cases, sentence_spans)["f1_inner"] >= 0.99
    assert boundaries_f1(sentence_cases(CASES / "sentences_held_out.txt"), sentence_spans)["f1"] >= 0.99


LOOKED_AT = "traps held_out final last development " + " ".join(f"blind_{letter}" for letter in "abcdefghi")


@pytest.mark.parametrize("name", LOOKED_AT.split())
def test_traps(name: str) -> None:
    cases = trap_cases(CASES / f"{name if name == 'traps' else 'traps_' + name}.tsv")
    wrong = []
    for sentence, label, status, side in cases:
        found = next((item for item in mentions(sentence) if item.finding == label), None)
        said = (found.status, found.laterality) if found else ("not_mentioned", "")
        if said[0] != status or side not in ("-", said[1]):
            wrong.append((sentence, label, status, side, said))
    assert 1 - len(wrong) / len(cases) >= 0.95, wrong


@pytest.mark.parametrize(
    ("sentence", "when"),
    [
        ("new nodule in the left lobe.", "new"),
        ("nodule, not present on [date].", "new"),
        ("nodule which was absent on the earlier ct.", "new"),
        ("the nodule has increased in size.", "increased"),
        ("worsening nodule.", "increased"),
        ("the nodule has decreased since 2020.", "decreased"),
        ("partially resolved nodule.", "decreased"),
        ("the nodule has resolved.", "resolved"),
        ("the nodule is no longer seen.", "resolved"),
        ("stable nodule.", "unchanged"),
        ("no change in the nodule.", "unchanged"),
        ("history of nodule.", "history"),
        ("a nodule of 3 mm.", ""),
        ("new effusion; a nodule of 3 mm.", ""),
    ],
)
def test_temporality(sentence: str, when: str) -> None:
    at = sentence.index("nodule")
    assert temporality(sentence, at, at + 6) == when


def test_a_side_is_of_the_clause_that_names_the_finding() -> None:
    found = {
        item.finding: item.laterality
        for item in mentions("Left pleural effusion; right lower lobe consolidation.")
    }
    assert found == {"Pleural effusion": "left", "Consolidation": "right"}


def test_every_heading_of_the_table_opens_its_section() -> None:
    from components.reports.headings import section_of, table

    for words, row in table().items():
        assert section_of(words) == (None if row.kind == "word" else (row.section, section_of(words)[1])), (
            words
        )
        assert row.kind in ("heading", "phrase", "misspelling", "word")
    assert {row.language for row in table().values()} >= {"en", "tr", "es", "de", "fr", "vi"}


def pieces(text: str, found: list[Section]) -> str:
    ends = [section.heading_start for section in found[1:]] + [len(text)]
    return "".join(text[section.heading_start : end] for section, end in zip(found, ends, strict=True))


def test_offsets_give_every_generated_text_back() -> None:
    for report in reports(DEVELOPMENT, 41, 4) + reports(HELD_OUT, 42, 4):
        assert pieces(report.text, sections(report.text)) == report.text
