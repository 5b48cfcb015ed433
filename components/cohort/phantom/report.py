"""A radiology report that says what was drawn, with invented identifiers at known places.

While a report is composed, an identifier is wrapped in private-use characters; the last step removes them
and notes the offsets, so that no layout can move a span off its text.
"""

from __future__ import annotations

import re
from datetime import date

from components.cohort.phantom import layout, spec
from components.cohort.phantom.phrases import PHRASES, REGIONS, comparison, fields, fill, measure
from components.cohort.phantom.spec import Finding, PhantomStudy
from components.cohort.phantom.streams import choose, stream

Span = tuple[int, int, str]
_DATE_FORMATS = ("%m/%d/%Y", "%m/%d/%Y", "%Y-%m-%d", "%d %B %Y", "%b %d, %Y", "%m/%d/%y")
_SYMPTOMS = (
    *("cough and fever", "shortness of breath", "chest pain", "unexplained weight loss", "hemoptysis"),
    *("fatigue and night sweats", "a smoking history of 30 pack-years", "wheezing", "an abnormal radiograph"),
    *("known malignancy, for restaging", "chest wall trauma two weeks ago", "dyspnea on exertion"),
)
_NORMAL: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # region, sentence, labels that must be absent for it to be true
    ("lungs", "The lungs are clear", (*spec.LABELS[7:12], *spec.LABELS[13:])),
    ("airways", "The trachea and main bronchi are patent", ()),
    ("airways", "The central airways are patent", ()),
    ("pleura", "No pneumothorax", ()),
    ("vessels", "The thoracic aorta is normal in caliber", ()),
    ("vessels", "The main pulmonary artery is not dilated", ()),
    ("mediastinum", "The mediastinal contours are normal", (spec.LYMPHADENOPATHY, spec.HIATAL_HERNIA)),
    ("abdomen", "The visualized liver and spleen are unremarkable", ()),
    ("abdomen", "Limited views of the upper abdomen show normal liver, spleen and kidneys", ()),
    ("abdomen", "The upper poles of both kidneys are unremarkable", ()),
    ("abdomen", "No acute osseous abnormality", ()),
    ("abdomen", "No suspicious bone lesion", ()),
)
_GROUPED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("pleura", "No pleural or pericardial effusion", (spec.PLEURAL_EFFUSION, spec.PERICARDIAL_EFFUSION)),
    (
        "lungs",
        "No focal consolidation, ground-glass opacity or suspicious nodule",
        (spec.CONSOLIDATION, spec.OPACITY, spec.NODULE),
    ),
    (
        "airways",
        "No bronchiectasis or peribronchial thickening",
        (spec.BRONCHIECTASIS, spec.PERIBRONCHIAL),
    ),
    (
        "heart",
        "Normal heart size without pericardial effusion",
        (spec.CARDIOMEGALY, spec.PERICARDIAL_EFFUSION),
    ),
)
_SUBHEADINGS = {
    **{"lungs": "Lungs", "airways": "Airways", "pleura": "Pleura", "heart": "Heart", "vessels": "Vessels"},
    **{"mediastinum": "Mediastinum", "abdomen": "Upper abdomen and bones", "devices": "Devices"},
}


def phi(kind: str, value: str) -> str:
    """An identifier, marked so that its place in the finished text is known; its spaces cannot wrap."""
    return f"\ue000{kind}\ue001{value.replace(' ', layout.HARD_SPACE)}\ue002"


def write_report(study: PhantomStudy) -> tuple[str, list[Span]]:
    """The report's text and its identifiers as (start, end, kind), in order.

    It states every finding that was drawn, and denies or does not mention the others. The same study has
    the same report.
    """
    writer = _Writer(study)
    text = layout.lay_out(
        study.header_style, writer.letterhead(), writer.sections(), writer.ending(), writer.rng
    )
    return resolve(text)


def resolve(marked: str) -> tuple[str, list[Span]]:
    """Remove the marks of `phi` and return the text with the spans they stood for."""
    pieces: list[str] = []
    spans: list[Span] = []
    length = 0
    for part in re.split("(\ue000[^\ue002]*\ue002)", marked):
        if part.startswith("\ue000"):
            kind, _, part = part[1:-1].partition("\ue001")
            part = part.replace(layout.HARD_SPACE, " ")
            spans.append((length, length + len(part), kind))
        pieces.append(part)
        length += len(part)
    return "".join(pieces), spans


class _Writer:
    """The wording of one report; every choice comes from the study's own stream."""

    def __init__(self, study: PhantomStudy) -> None:
        self.study = study
        self.rng = stream(study.seed, "report", study.patient_index, study.study_index)
        self.date_format = choose(self.rng, _DATE_FORMATS)
        self.centimetres = bool(self.rng.random() < 0.4)

    def day(self, when: date) -> str:
        return phi("DATE", when.strftime(self.date_format))

    def physician(self, who: tuple[str, str]) -> str:
        given, family = who
        full = phi("STAFF", f"{given} {family}")
        return choose(
            self.rng,
            (
                f"Dr. {full}",
                f"{full}, MD",
                f"Dr. {phi('STAFF', family)}",
                f"{phi('STAFF', f'{given[0]}. {family}')}, M.D.",
            ),
        )

    def letterhead(self) -> list[str]:
        study, person, visit = self.study, self.study.person, self.study.visit
        if self.rng.random() < 0.12:
            return []
        name = choose(
            self.rng,
            (
                person.name,
                f"{person.family}, {person.given}",
                f"{person.family.upper()}, {person.given.upper()}",
                f"{person.family}^{person.given}",
            ),
        )
        hospital = f"{phi('HOSPITAL', visit.hospital)}, Department of Radiology"
        if self.rng.random() < 0.5:
            hospital += f", Tel. {phi('PHONE', visit.phone)}"
        lines = [hospital, f"Patient: {phi('PATIENT', name)}"]
        lines.append(f"MRN: {phi('MRN', person.mrn)}   DOB: {self.day(person.birth)}   Sex: {person.sex}")
        lines.append(
            f"Accession: {phi('ACCESSION', visit.accession)}   Exam date: {self.day(study.visit.day)}"
        )
        if self.rng.random() < 0.7:
            lines.append(f"Referring physician: {self.physician(visit.referring)}")
        return lines

    def ending(self) -> list[str]:
        visit, person, rng = self.study.visit, self.study.person, self.rng
        lines: list[str] = []
        clock = f"{rng.integers(7, 20)}:{rng.integers(60):02d}"
        if rng.random() < 0.3:
            title = "Ms." if person.sex == "F" else "Mr."
            lines.append(
                f"The results for {title} {phi('PATIENT', person.family)} were discussed with "
                f"{self.physician(visit.referring)} by telephone at {phi('PHONE', visit.phone)} at {clock}."
            )
        signer = self.physician(visit.reading)
        lines.append(
            choose(
                rng,
                (
                    f"Electronically signed by {signer} on {self.day(visit.day)} at {clock}",
                    f"Dictated by: {signer}",
                    f"Reported by {signer}, {phi('HOSPITAL', visit.hospital)}, {self.day(visit.day)}",
                ),
            )
        )
        return lines

    def sections(self) -> list[tuple[str, list[str]]]:
        """Heading and paragraphs of each section."""
        study, rng = self.study, self.rng
        contrast = "with" if study.acquisition.contrast else "without"
        technique = choose(
            rng,
            (
                f"CT of the chest {contrast} intravenous contrast, {study.acquisition.spacing_mm[2]:.1f} mm slices",
                f"Helical CT from the lung apices to the upper abdomen {contrast} intravenous contrast",
                f"Axial images of the chest {contrast} contrast at {study.acquisition.kvp} kVp",
            ),
        )
        exam = choose(rng, (f"CT chest {contrast} contrast", f"CT thorax {contrast} IV contrast"))
        parts = [("examination", [f"{exam}."])] if rng.random() < 0.6 else []
        parts += [("indication", [self._indication()]), ("technique", [f"{technique}."])]
        parts += [("comparison", [self._comparison_section()])]
        return [*parts, ("findings", self._findings()), ("impression", self._impression())]

    def _indication(self) -> str:
        age = int(self.study.age_years)
        shown = phi("AGE", str(age)) if age >= 90 else str(age)
        who = "woman" if self.study.person.sex == "F" else "man"
        return f"{shown}-year-old {who} with {choose(self.rng, _SYMPTOMS)}."

    def _comparison_section(self) -> str:
        if self.study.prior_day is None:
            return choose(self.rng, ("None.", "None available.", "No prior studies."))
        prior = self.day(self.study.prior_day)
        return choose(
            self.rng, (f"CT chest of {prior}.", f"Chest CT dated {prior}.", f"Compared to the CT of {prior}.")
        )

    def _sentence(self, item: Finding) -> str:
        values = fields(self.study, item, self.centimetres)
        text = fill(choose(self.rng, PHRASES[item.label].present), values)
        if self.study.prior_day and self.rng.random() < 0.75:
            text += comparison(item, self.day(self.study.prior_day), self.rng, self.centimetres)
        return text + "."

    def _findings(self) -> list[str]:
        """Sentences by region, as paragraphs; positive ones first within a region as often as not."""
        study, rng = self.study, self.rng
        present = {item.label for item in study.findings}
        by_region: dict[str, list[str]] = {region: [] for region in REGIONS}
        for item in study.findings:
            by_region[PHRASES[item.label].region].append(self._sentence(item))
        denied: set[str] = set()
        for region, text, labels in _GROUPED:
            if not present & set(labels) and not denied & set(labels) and rng.random() < 0.5:
                by_region[region].append(f"{text}.")
                denied |= set(labels)
        for label in spec.LABELS:
            if label not in present and label not in denied and rng.random() < 0.5:
                by_region[PHRASES[label].region].append(f"{choose(rng, PHRASES[label].absent)}.")
        for item in study.resolved:
            if study.prior_day and rng.random() < 0.5:
                noun, prior = PHRASES[item.label].noun, self.day(study.prior_day)
                text = choose(
                    rng, (f"The {noun} seen on {prior} has resolved.", f"Interval resolution of the {noun}.")
                )
                by_region[PHRASES[item.label].region].append(text)
        for region, text, labels in _NORMAL:
            if not present & set(labels) and rng.random() < 0.45:
                by_region[region].append(f"{text}.")
        subheadings = rng.random() < 0.25
        paragraphs = []
        for region, sentences in by_region.items():
            if sentences:
                order = rng.permutation(len(sentences))
                body = " ".join(sentences[int(index)] for index in order)
                paragraphs.append(f"{_SUBHEADINGS[region]}: {body}" if subheadings else body)
        if not subheadings and rng.random() < 0.5:
            paragraphs = [" ".join(paragraphs)]
        return paragraphs

    def _impression(self) -> list[str]:
        study, rng = self.study, self.rng
        if not study.findings:
            return [choose(rng, ("No acute cardiopulmonary abnormality.", "Normal CT of the chest."))]
        lines: list[str] = []
        for item in study.findings:
            if len(study.findings) > 4 and rng.random() < 0.3 and len(lines) >= 2:
                continue
            text = fill(choose(rng, PHRASES[item.label].short), fields(study, item, self.centimetres))
            if item.change == "increased" and rng.random() < 0.6:
                text += f", {item.change} from {measure(item.previous_mm, self.centimetres)}"
            elif item.change and rng.random() < 0.4:
                text += f", {item.change}"
            lines.append(f"{text}.")
        if study.finding(spec.NODULE) and rng.random() < 0.4:
            lines.append("Follow-up CT in 3 months is recommended.")
        style = rng.random()
        if style < 0.5 and len(lines) > 1:
            return [f"{number}. {line}" for number, line in enumerate(lines, start=1)]
        return [" ".join(lines)] if style < 0.8 else lines


__all__ = ["Span", "phi", "resolve", "write_report"]
