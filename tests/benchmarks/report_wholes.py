"""Whole reports in the layouts of `report_layouts`: a header block, anatomical parts, empty sections, wrapped lines,
who was told, a signature, addenda, and sometimes a second study. What S1-S7 are measured on beside the plain ones.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from tests.benchmarks.report_layouts import ORDER, Pool, Report, Writer, _case


@dataclass(frozen=True)
class Extras:
    """What whole reports hold beside their sections."""

    headers: list[str]
    parts: list[str]
    empty: list[str]
    told: list[str]
    titles: list[str]


DEVELOPMENT_EXTRAS = Extras(
    headers=[
        "Patient: [PATIENT]|MRN: [MRN]|Date of exam: [DATE]",
        "[HOSPITAL]|Department of Radiology",
        "MRN: [MRN]   DOB: [DATE]",
    ],
    parts=[
        "LUNGS: {}",
        "PLEURA: {}",
        "Heart: {}",
        "Liver: {}",
        "BONES: {}",
        "Lymph nodes: {}",
        "MEDIASTINUM: {}",
    ],
    empty=["None.", "N/A", "None available.", ""],
    told=[
        "Findings were discussed with Dr. [STAFF] at [TIME].",
        "These results were communicated to [STAFF].",
    ],
    titles=["CT ABDOMEN AND PELVIS WITH CONTRAST", "CT HEAD WITHOUT CONTRAST"],
)
HELD_OUT_EXTRAS = Extras(
    headers=[
        "NAME [PATIENT]    HOSPITAL NO. [MRN]",
        "Re: [PATIENT], born [DATE]|Dear Dr. [STAFF],",
        "Ward: 7B|Requesting physician: [STAFF]|Report status: final",
        "RADIOLOGY DEPARTMENT|[HOSPITAL]|Tel: [PHONE]",
    ],
    parts=[
        "Airways: {}",
        "Kidneys/ureters: {}",
        "VASCULATURE: {}",
        "Lower neck: {}",
        "Chest wall and soft tissues: {}",
        "LINES AND TUBES: {}",
        "Spleen - {}",
        "Other: {}",
        "T8-9: {}",
        "UPPER ABDOMEN: {}",
    ],
    empty=["No previous studies.", "Not available", "-", "Nil.", "Not provided."],
    told=[
        "The critical findings were telephoned to the emergency department at [TIME].",
        "Results were conveyed to Dr. [STAFF] on [DATE].",
        "Impression and recommendations were discussed with [STAFF].",
    ],
    titles=[
        "CT Pelvis",
        "CTA CHEST",
        "MRI OF THE BRAIN WITHOUT AND WITH CONTRAST",
        "CT CERVICAL SPINE WITHOUT CONTRAST",
    ],
)


class WholeWriter(Writer):
    """Draws whole reports from a pool and its extras."""

    def __init__(self, pool: Pool, extras: Extras, seed: int) -> None:
        super().__init__(pool, seed)
        self.extras = extras

    def often(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def rich_body(self, name: str, newline: str) -> str:
        """A body that may be empty, be written in parts, or be wrapped at 70 columns."""
        if name == "comparison" and self.often(0.5):
            return self.choose(self.extras.empty)
        if name == "findings" and self.often(0.4):
            order = self.rng.permutation(len(self.extras.parts))[: int(self.rng.integers(2, 5))]
            pool = self.pool.bodies["findings"]
            return newline.join(self.extras.parts[i].format(self.choose(pool)) for i in order)
        body = self.body(name, newline, True)
        if name == "findings" and newline not in body and self.often(0.4):
            return newline.join(textwrap.wrap(body, 70, break_on_hyphens=False))
        return body

    def study(self, text: str, gold: list[tuple[str, int, int]], layout_name: str, language: str) -> str:
        """`text` with the sections of one study; their places are added to `gold`."""
        layout = self.pool.layouts[layout_name]
        words = self.pool.headings[language]
        for name in ORDER:
            if name not in words or (name in ("exam", "comparison") and self.often(0.4)):
                continue
            body = self.rich_body(name, layout.newline)
            text += layout.before + _case(self.choose(words[name]), layout.case) + layout.after
            at = len(text) if body else len(text.rstrip())
            gold.append((name, at, at + len(body)))
            text += body + layout.end
        return text

    def whole(self, layout_name: str, language: str) -> Report:
        """One report with everything around its sections."""
        newline = self.pool.layouts[layout_name].newline
        gold: list[tuple[str, int, int]] = []
        text = ""
        if self.often(0.6):
            text = newline.join(self.choose(self.extras.headers).split("|")) + newline * 2
        text = self.study(text, gold, layout_name, language)
        if language == "en" and self.often(0.25):
            text = text.rstrip() + newline * 2
            title = self.choose(self.extras.titles)
            gold.append(("exam", len(text), len(text) + len(title)))
            text = self.study_below(text + title + newline * 2, gold, layout_name)
        if self.often(0.4):
            text = text.rstrip() + newline * 2 + self.choose(self.extras.told) + newline
        if self.often(0.7):
            text = text.rstrip() + newline * 2 + self.choose(self.pool.signatures) + newline
        for _ in range(int(self.rng.integers(3)) if self.often(0.4) else 0):
            text = text.rstrip() + newline * 2 + self.choose(self.pool.addenda).replace("\n", newline)
            body = self.choose(self.pool.bodies["impression"])
            gold.append(("addendum", len(text), len(text) + len(body)))
            text += body + newline
        return Report(text, gold, layout_name, language)

    def study_below(self, text: str, gold: list[tuple[str, int, int]], layout_name: str) -> str:
        """The sections of a further study, below a title: none of its own exam."""
        before = len(gold)
        text = self.study(text, gold, layout_name, "en")
        doubled = next((item for item in gold[before:] if item[0] == "exam"), None)
        if (
            doubled is not None
        ):  # the title and the exam section are both exams; the title's end is the first's
            gold.remove(doubled)
            gold.append(doubled)
        return text


def wholes(pool: Pool, extras: Extras, seed: int, per_layout: int) -> list[Report]:
    """`per_layout` whole reports in each layout that has lines, half of them English."""
    writer = WholeWriter(pool, extras, seed)
    others = [name for name in pool.headings if name != "en"]
    return [
        writer.whole(name, "en" if number % 2 == 0 else others[number // 2 % len(others)])
        for name, layout in pool.layouts.items()
        if not layout.run_on
        for number in range(per_layout)
    ]
