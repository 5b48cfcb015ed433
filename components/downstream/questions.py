"""Questions about a study, made from labels and structured findings alone: the same cohort gives the same questions.

Yes/no: one a label that the study has. Closed: four options at most, their order drawn for each question. Open: a
short answer. Wording and order are drawn from the seed, the study and the topic together, so that no wording tells
the answer and all of them occur. Which topics there are is decided on the training split alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from components.downstream.inputs import groups_of

if TYPE_CHECKING:
    from components.downstream.inputs import DownstreamInputs

Kind = Literal["yes_no", "closed", "open"]
KINDS: tuple[Kind, ...] = ("yes_no", "closed", "open")
WHICH, ALL = "which finding", "all findings"
SIDES = {"left": "left", "right": "right", "bilateral": "both sides", "none": "there is none"}
MAX_OPTIONS = 4
WORDING: dict[str, tuple[str, ...]] = {
    "yes_no": ("Is there {}?", "Does the CT show {}?", "Is {} present?", "Can {} be seen?"),
    "group": ("Which {} does the CT show?", "What is the {} of this CT?", "Which {} is seen?"),
    "side": ("On which side is the {}?", "Where is the {}, left or right?", "Which side shows {}?"),
    WHICH: ("Which of these findings is present?", "Which finding does the CT show?"),
    ALL: ("Which findings are present?", "What does the CT show?", "Name the findings of this CT."),
}
NOTHING = "none"


@dataclass(frozen=True)
class Question:
    """A question about a study and its answer.

    Attributes:
        topic: what it is about; results are told by it.
        options: the options of a closed question, else empty.
        answer: the right answer in words (`yes`, an option, a short text).
        target: 1 or 0 of a yes/no question, the number of the right option, -1 of an open one.
    """

    study_key: str
    kind: Kind
    topic: str
    text: str
    options: tuple[str, ...]
    answer: str
    target: int


@dataclass(frozen=True)
class Topics:
    """What can be asked: findings by label, groups with their values, findings whose side is told."""

    findings: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    sides: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `Topics(**...)` of it is this again."""
        groups = {name: list(values) for name, values in self.groups.items()}
        return {"findings": list(self.findings), "groups": groups, "sides": list(self.sides)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Topics:
        """What `as_dict` made."""
        groups = {str(name): tuple(found) for name, found in values["groups"].items()}
        return cls(tuple(values["findings"]), groups, tuple(values["sides"]))


def in_words(name: str) -> str:
    """A label as one writes it in a sentence: `Lung nodule`, `lung_nodule` -> `lung nodule`."""
    return " ".join(name.replace("_", " ").split()).lower()


class QuestionMaker:
    """Makes the questions of studies from what the cohort's labels and reports say of them."""

    def __init__(self, inputs: DownstreamInputs, labels: Literal["gold", "report"], seed: int) -> None:
        """`labels` says where yes/no answers come from; sides always come from the reports' findings."""
        self._labels = inputs.labels(labels)
        self._seed = seed
        self._sides: dict[str, dict[str, str]] = {}
        for row in inputs.findings():
            side = row.get("laterality") if row["status"] == "present" else ""
            told = side or (NOTHING if row["status"] == "absent" else "")
            if told:
                self._sides.setdefault(row["finding"], {})[row["study_key"]] = told

    def topics(self, studies: Iterable[str], least: int) -> Topics:
        """The topics that these (training) studies can teach: at least `least` of each answer."""
        known = set(studies)

        def counts(values: Mapping[str, Any]) -> Counter[Any]:
            return Counter(value for key, value in values.items() if key in known)

        groups = {}
        for group, names in groups_of(self._labels).items():
            values = tuple(name.partition("=")[2] for name in names if counts(self._labels[name])[1] >= least)
            if len(values) > 1:
                groups[group] = values
        findings = tuple(
            name
            for name, values in self._labels.items()
            if "=" not in name and min(counts(values)[0], counts(values)[1]) >= least
        )
        sides = tuple(
            name
            for name, values in sorted(self._sides.items())
            if sum(count for side, count in counts(values).items() if side != NOTHING) >= 2 * least
        )
        return Topics(findings, groups, sides)

    def ask(self, studies: Sequence[str], topics: Topics, kinds: Sequence[Kind]) -> list[Question]:
        """All questions about the studies, in the order of the studies, then of the kinds and topics."""
        makers = {"yes_no": self._yes_no, "closed": self._closed, "open": self._open}
        return [
            question
            for study in studies
            for kind in KINDS
            if kind in kinds
            for question in makers[kind](study, topics)
        ]

    def _yes_no(self, study: str, topics: Topics) -> list[Question]:
        found = []
        for name in topics.findings:
            value = self._labels.get(name, {}).get(study)
            if value is not None:
                text = self._wording(study, name, "yes_no", in_words(name))
                found.append(Question(study, "yes_no", name, text, (), "yes" if value else "no", value))
        return found

    def _closed(self, study: str, topics: Topics) -> list[Question]:
        found = []
        for group, values in topics.groups.items():
            answer = self._value(study, group, values)
            if answer:
                others = [value for value in values if value != answer]
                text = self._wording(study, group, "group", in_words(group))
                found.append(self._choice(study, group, text, answer, others))
        for name in topics.sides:
            side = self._sides.get(name, {}).get(study)
            if side:
                others = [words for key, words in SIDES.items() if key != side]
                text = self._wording(study, f"side of {name}", "side", in_words(name))
                found.append(self._choice(study, f"side of {name}", text, SIDES[side], others))
        present, absent = ([in_words(name) for name in part] for part in self._findings(study, topics))
        if present and len(absent) >= MAX_OPTIONS - 1:
            answer = str(self._draw(study, WHICH, "answer").choice(present))
            text = self._wording(study, WHICH, WHICH, "")
            found.append(self._choice(study, WHICH, text, answer, absent))
        return found

    def _open(self, study: str, topics: Topics) -> list[Question]:
        found = []
        for group, values in topics.groups.items():
            answer = self._value(study, group, values)
            if answer:
                text = self._wording(study, group, "group", in_words(group))
                found.append(Question(study, "open", group, text, (), in_words(answer), -1))
        for name in topics.sides:
            side = self._sides.get(name, {}).get(study)
            if side:
                text = self._wording(study, f"side of {name}", "side", in_words(name))
                found.append(Question(study, "open", f"side of {name}", text, (), SIDES[side], -1))
        present, absent = self._findings(study, topics)
        if present or absent:
            text = self._wording(study, ALL, ALL, "")
            answer = ", ".join(map(in_words, present)) or NOTHING
            found.append(Question(study, "open", ALL, text, (), answer, -1))
        return found

    def _findings(self, study: str, topics: Topics) -> tuple[list[str], list[str]]:
        values = {name: self._labels.get(name, {}).get(study) for name in topics.findings}
        return [name for name, value in values.items() if value == 1], [
            name for name, value in values.items() if value == 0
        ]

    def _value(self, study: str, group: str, values: Sequence[str]) -> str | None:
        true = [value for value in values if self._labels.get(f"{group}={value}", {}).get(study) == 1]
        return true[0] if len(true) == 1 else None

    def _choice(self, study: str, topic: str, text: str, answer: str, others: Sequence[str]) -> Question:
        draw = self._draw(study, topic, "options")
        wrong = [str(one) for one in draw.permutation(sorted(set(others) - {answer}))[: MAX_OPTIONS - 1]]
        options = tuple(str(one) for one in draw.permutation([answer, *wrong]))
        return Question(study, "closed", topic, text, options, answer, options.index(answer))

    def _wording(self, study: str, topic: str, kind: str, filled: str) -> str:
        return str(self._draw(study, topic, "wording").choice(WORDING[kind])).format(filled)

    def _draw(self, study: str, topic: str, purpose: str) -> np.random.Generator:
        text = f"{self._seed}\0{study}\0{topic}\0{purpose}"
        return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
