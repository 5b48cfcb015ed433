"""Reports in many layouts with known sections, drawn from a seed: what sectioning is measured on (S1-S7).

`development` holds the layouts, heading words and sentences that the rules were written with; `held_out` holds
others that were not looked at until the figures were taken. A report is a text and its gold sections
(name, start, end of the body).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

_APART = ("header", "signature", "communication")
ORDER = ("exam", "indication", "technique", "comparison", "findings", "impression")


@dataclass(frozen=True)
class Layout:
    """How a heading is dressed; `{h}` is the heading as written, `end` what follows a body."""

    before: str
    after: str
    end: str = "\n"
    case: str = "upper"
    run_on: bool = False
    newline: str = "\n"


@dataclass(frozen=True)
class Pool:
    """Layouts, heading words by language and section, and bodies by section."""

    layouts: dict[str, Layout]
    headings: dict[str, dict[str, list[str]]]
    bodies: dict[str, list[str]]
    traps: list[str]
    addenda: list[str]
    signatures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """A text with its gold sections, and which layout and language it was drawn from."""

    text: str
    gold: list[tuple[str, int, int]]
    layout: str
    language: str


_TRAPS = [
    "There is an IMPRESSION of mass effect on the trachea.",
    "Findings of chronic bronchitis are present.",
    "Comparison with the other side shows asymmetry.",
    "The technique limits the evaluation of the apices.",
    "Impression upon the oesophagus is unchanged.",
    "History of surgery is noted at this level.",
    "The findings: a nodule and a cyst.",
    "Liver: no focal lesion.",
    "L4-5: mild bulge.",
    "In conclusion of the acute phase, fluid remains.",
]
_HELD_OUT_TRAPS = [
    "An indication of old infarction is seen in the spleen.",
    "FINDINGS are in keeping with prior surgery.",
    "The procedure was tolerated well.",
    "Spleen: 12 cm.",
    "Vascular impression on the bronchus: mild.",
    "These findings have a wide differential: see below for the causes.",
    "Clinical correlation: advised.",
    "Right kidney: a 2 cm cyst.",
    "The report of the other hospital describes a nodule.",
    "Comparison of both sides: symmetric.",
    "Bones: No lytic lesion.",
    "Measurement: 3.2 cm.",
]

DEVELOPMENT = Pool(
    layouts={
        "newline_space": Layout("\n ", ":  ", "\n "),
        "flush_left": Layout("", ": "),
        "alone": Layout("", "\n", "\n"),
        "title": Layout("", ": ", "\n", "title"),
        "markdown": Layout("**", "**\n", "\n\n", "title"),
        "dash": Layout("", " - "),
        "run_on": Layout("", ": ", " ", "upper", True),
        "crlf": Layout("", ":\r\n", "\r\n\r\n", "upper", False, "\r\n"),
        "blank_lines": Layout("", ":\n", "\n\n"),
        "underlined": Layout("", "\n--------\n", "\n\n"),
        "hashes": Layout("## ", "\n", "\n\n", "title"),
        "lower": Layout("", ": ", "\n", "lower"),
        "numbered": Layout("2. ", ": ", "\n"),
        "bare_capitals": Layout("", " ", "\n\n"),
        "bracketed": Layout("[", "]\n", "\n"),
        "wide_colon": Layout("", " :\n", "\n"),
        "html": Layout("<b>", ":</b> ", "\n", "title"),
        "title_run_on": Layout("", ": ", " ", "title", True),
        "dash_one_line": Layout("", " - ", " ", "upper", True),
        "capitals_one_line": Layout("", " ", " ", "upper", True),
        "lower_one_line": Layout("", ": ", " ", "lower", True),
    },
    headings={
        "en": {
            "exam": ["exam", "examination", "study"],
            "indication": [
                "indication",
                "clinical history",
                "history",
                "reason for exam",
                "clinical information",
            ],
            "technique": ["technique", "procedure", "protocol"],
            "comparison": ["comparison", "comparisons", "prior studies"],
            "findings": ["findings", "report", "description"],
            "impression": ["impression", "conclusion", "summary", "opinion"],
        },
        "tr": {
            "indication": ["klinik bilgi"],
            "technique": ["teknik"],
            "findings": ["bulgular"],
            "impression": ["sonuç"],
        },
        "de": {
            "indication": ["fragestellung", "klinische angaben"],
            "technique": ["technik"],
            "findings": ["befund"],
            "impression": ["beurteilung"],
        },
        "es": {
            "indication": ["motivo de consulta"],
            "technique": ["técnica"],
            "findings": ["hallazgos"],
            "impression": ["impresión diagnóstica", "conclusión"],
        },
        "fr": {
            "indication": ["indication"],
            "technique": ["technique"],
            "findings": ["résultats"],
            "impression": ["conclusion"],
        },
        "vi": {
            "indication": ["chỉ định"],
            "technique": ["kỹ thuật"],
            "findings": ["mô tả"],
            "impression": ["kết luận"],
        },
    },
    bodies={
        "exam": ["CT of the chest", "CT chest, abdomen and pelvis with contrast"],
        "indication": [
            "Chest pain. Rule out pulmonary embolism.",
            "Cough and fever for 3 weeks.",
            "62-year-old with weight loss.",
        ],
        "technique": [
            "Helical images of the chest with 100 mL of intravenous contrast.",
            "Axial images were obtained at 1.25 mm. Reformats were reviewed.",
        ],
        "comparison": ["CT of [DATE].", "None.", "Radiograph of 3/4/2019."],
        "findings": [
            "The lungs are clear.",
            "There is no pleural effusion.",
            "A 1.2 cm nodule is seen in the right upper lobe.",
            "Heart size is normal.",
            "No enlarged lymph nodes.",
            "The bones are intact.",
            "Mild atelectasis at the left base.",
        ],
        "impression": [
            "No acute disease.",
            "Right upper lobe nodule.",
            "Mild atelectasis; no effusion.",
            "Stable disease since [DATE].",
        ],
    },
    traps=_TRAPS,
    addenda=["ADDENDUM: ", "ADDENDUM #1: ", "*** ADDENDUM ***\n", "Addendum: "],
    signatures=["Electronically signed by [STAFF], MD", "Dictated by: [STAFF]"],
)

HELD_OUT = Pool(
    layouts={
        "indented_alone": Layout("    ", "\n    ", "\n\n"),
        "equals": Layout("== ", " ==\n", "\n", "title"),
        "double_underline": Layout("", "\n==========\n", "\n\n", "title"),
        "bold_colon": Layout("**", ":** ", "\n", "upper"),
        "underscores": Layout("__", "__: ", "\n", "title"),
        "long_dash": Layout("", " \u2014 ", "\n", "title"),
        "tabbed": Layout("", ":\t", "\n"),
        "bullet": Layout("\u2022 ", ": ", "\n", "title"),
        "old_mac": Layout("", ":\r", "\r\r", "upper", False, "\r"),
        "heading_tag": Layout("<h3>", "</h3>\n", "\n", "title"),
        "space_colon": Layout("", " : ", "\n", "title"),
        "run_on_dash": Layout("", " - ", " ", "upper", True),
        "lower_run_on": Layout("", ": ", " ", "lower", True),
        "roman": Layout("II. ", "\n", "\n\n"),
        "stars": Layout("*** ", " ***\n", "\n"),
        "capitals_run_on": Layout("", " ", " ", "upper", True),
        "arrow": Layout("", " => ", "\n"),
        "curly": Layout("{", "}: ", "\n"),
        "non_breaking": Layout("\u00a0", ":\u00a0", "\n"),
        "two_spaces": Layout("", "  ", "\n\n"),
    },
    headings={
        "en": {
            "exam": ["type of exam", "procedure performed"],
            "indication": [
                "clinical indication",
                "reason for study",
                "clinical data",
                "presenting complaint",
                "clinical question",
            ],
            "technique": ["ct technique", "technique and contrast", "imaging technique", "methods"],
            "comparison": ["previous studies", "prior examinations", "comparison studies", "correlation"],
            "findings": [
                "ct findings",
                "observations",
                "imaging findings",
                "detailed findings",
                "chest findings",
            ],
            "impression": [
                "final impression",
                "diagnosis",
                "impression and recommendations",
                "conclusions",
                "overall impression",
            ],
        },
        "tr": {
            "indication": ["klinik ön tanı", "endikasyon"],
            "technique": ["inceleme tekniği"],
            "findings": ["radyolojik bulgular"],
            "impression": ["sonuç ve öneriler", "yorum"],
        },
        "de": {
            "indication": ["klinik und fragestellung", "indikation"],
            "technique": ["untersuchungstechnik", "methode"],
            "findings": ["befunde"],
            "impression": ["zusammenfassung", "zusammenfassende beurteilung"],
        },
        "es": {
            "indication": ["datos clínicos", "motivo del estudio"],
            "technique": ["protocolo"],
            "findings": ["descripción", "informe"],
            "impression": ["conclusiones", "impresión"],
        },
        "fr": {
            "indication": ["renseignements cliniques", "motif"],
            "technique": ["protocole"],
            "findings": ["résultat", "description"],
            "impression": ["synthèse", "au total"],
        },
        "vi": {
            "indication": ["lý do", "lâm sàng"],
            "technique": ["phương pháp"],
            "findings": ["kết quả"],
            "impression": ["chẩn đoán"],
        },
    },
    bodies={
        "exam": ["Computed tomography of the thorax", "HRCT"],
        "indication": ["Dyspnoea, known lymphoma.", "Follow-up of a nodule; smoker.", "Trauma"],
        "technique": [
            "Non-contrast acquisition, 0.6 mm collimation.",
            "Single portal venous phase. Dose: DLP 320 mGy.cm.",
        ],
        "comparison": ["No prior imaging available.", "Outside CT dated [DATE]", "PET/CT from June 2021."],
        "findings": [
            "Bilateral ground-glass opacities persist.",
            "Trachea and main bronchi are patent.",
            "The pulmonary trunk measures 3.1 cm.",
            "Small hiatal hernia.",
            "No pericardial or pleural fluid.",
            "Sclerotic focus in T8, unchanged.",
            "The visualised upper abdomen is unremarkable.",
        ],
        "impression": [
            "Resolving pneumonia.",
            "1. Small hiatal hernia. 2. Otherwise normal.",
            "No change.",
            "Progressive ground-glass opacities, follow up in 6 weeks.",
        ],
    },
    traps=_HELD_OUT_TRAPS,
    addenda=[
        "ADDENDUM 2 [DATE] 10:32: ",
        "-- ADDENDUM --\n",
        "Addendum to report: ",
        "SUPPLEMENTARY REPORT:\n",
    ],
    signatures=[
        "Report finalised by [STAFF] on [DATE]",
        "[STAFF], M.D., Ph.D.",
        "Reporting radiologist: [STAFF]",
    ],
)

_EIGHT = ("newline_space", "flush_left", "alone", "title", "markdown", "dash", "run_on", "crlf")
CANONICAL = Pool(
    layouts={name: DEVELOPMENT.layouts[name] for name in _EIGHT},
    headings={"en": {name: [name] for name in ORDER}},
    bodies=DEVELOPMENT.bodies,
    traps=DEVELOPMENT.traps,
    addenda=DEVELOPMENT.addenda,
    signatures=DEVELOPMENT.signatures,
)


def _case(words: str, case: str) -> str:
    if case == "upper":
        return (
            words.replace("i", "\u0130").upper()
            if any(c in words for c in "\u00f6\u015f\u011f\u0131")
            else words.upper()
        )
    return words if case == "lower" else words[:1].upper() + words[1:]


class Writer:
    """Draws reports from a pool."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool = pool
        self.rng = np.random.default_rng(seed)

    def choose(self, values: list[str]) -> str:
        return values[int(self.rng.integers(len(values)))]

    def body(self, name: str, newline: str, traps: bool) -> str:
        """A body of one to several sentences; findings and impression may hold lines, lists and trap words."""
        pool = self.pool.bodies[name]
        if name not in ("findings", "impression"):
            return self.choose(pool)
        count = int(self.rng.integers(1, 5 if name == "findings" else 3))
        chosen = [pool[i] for i in self.rng.permutation(len(pool))[:count]]
        if traps and name == "findings":
            chosen.insert(int(self.rng.integers(1, len(chosen) + 1)), self.choose(self.pool.traps))
        if newline and name == "impression" and self.rng.random() < 0.5 and not chosen[0].startswith("1."):
            return newline.join(f"{i}. {text}" for i, text in enumerate(chosen, 1))
        joint = newline if newline and self.rng.random() < 0.4 else " "
        return joint.join(chosen)

    def report(self, layout_name: str, language: str, traps: bool = True) -> Report:
        """One report in a layout and a language (bodies stay English)."""
        layout = self.pool.layouts[layout_name]
        words = self.pool.headings[language]
        text, gold = "", []
        for name in ORDER:
            if name not in words or (name in ("exam", "comparison") and self.rng.random() < 0.4):
                continue
            body = self.body(name, "" if layout.run_on else layout.newline, traps)
            if layout.run_on and not body.endswith((".", "!")):
                body += "."
            text += layout.before + _case(self.choose(words[name]), layout.case) + layout.after
            gold.append((name, len(text), len(text) + len(body)))
            text += body + layout.end
        return Report(text, gold, layout_name, language)


def reports(pool: Pool, seed: int, per_layout: int, languages: tuple[str, ...] | None = None) -> list[Report]:
    """`per_layout` reports in each layout, half of them English."""
    writer = Writer(pool, seed)
    others = [name for name in pool.headings if name != "en"]
    drawn = []
    for layout in pool.layouts:
        for number in range(per_layout):
            english = number % 2 == 0 or not others or languages == ("en",)
            language = "en" if english else others[number // 2 % len(others)]
            drawn.append(writer.report(layout, language))
    return drawn


def misspelt(word: str, rng: np.random.Generator) -> str:
    """One typing error: a letter dropped, doubled, swapped with its neighbour, or replaced; the first letter stays."""
    place = int(rng.integers(1, len(word) - 1))
    kind = int(rng.integers(4))
    if kind == 0:
        return word[:place] + word[place + 1 :]
    if kind == 1:
        return word[:place] + word[place] + word[place:]
    if kind == 2:
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    letter = chr(ord("A") + int(rng.integers(26)))
    return word[:place] + letter + word[place + 1 :]


def scored(
    drawn: list[Report], cut: Callable[[str], list[tuple[str, int, int]]]
) -> dict[str, dict[str, float]]:
    """By layout: the share of gold bodies found exactly, and of reports with a heading that is none."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for report in drawn:
        cuts = cut(report.text)
        empty = {item[0] for item in cuts if item[1] == item[2]}  # where nothing stands has no place
        right = sum(item in cuts or (item[1] == item[2] and item[0] in empty) for item in report.gold)
        own = [item for item in cuts if item[2] > item[1] and item[0] not in _APART]
        false = len(own) > len(report.gold)
        found.setdefault(report.layout, []).append((right, len(report.gold), false))
    return {
        name: {
            "exact": round(sum(row[0] for row in rows) / sum(row[1] for row in rows), 4),
            "false_headings": round(sum(row[2] for row in rows) / len(rows), 4),
        }
        for name, rows in found.items()
    }
