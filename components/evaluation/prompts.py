"""Zero-shot prompts as versioned data: a released encoder's contract names the set it was scored with.

A set is immutable: to change a prompt, add a set under a new name. `{label}` is the label in words. A pair's score
is the softmax over its two similarities at the encoder's stored temperature; an ensemble is the mean of the unit text
vectors. The prompts of COLIPRI's paper ("short" and others) were not published where we could read them: there is no
set that claims to be them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.base.errors import ConfigError


@dataclass(frozen=True)
class PromptSet:
    """Templates that say a finding is there, that it is not, and what a volume shows of a group's values.

    `source` says where the templates come from; `words` gives labels (in words) another form in this set.
    """

    name: str
    source: str
    present: tuple[str, ...]
    absent: tuple[str, ...]
    group: tuple[str, ...] = ("CT of the {label}.",)
    words: Mapping[str, str] = field(default_factory=dict)

    def pair(self, label: str) -> tuple[list[str], list[str]]:
        """The prompts (present, absent) for a label such as `pleural_effusion`."""
        return self._fill(self.present, label), self._fill(self.absent, label)

    def value(self, value: str) -> list[str]:
        """The prompts for one value of a group label such as `region=pelvis`."""
        return self._fill(self.group, value)

    def _fill(self, templates: tuple[str, ...], label: str) -> list[str]:
        words = in_words(label)
        filled = [template.format(label=self.words.get(words, words)) for template in templates]
        return [text[:1].upper() + text[1:] for text in filled]


PROMPT_SETS: dict[str, PromptSet] = {
    entry.name: entry
    for entry in (
        PromptSet(
            "ct-clip",
            "CT-CLIP's zero-shot protocol (arXiv:2403.17834)",
            ("{label} is present.",),
            ("{label} is not present.",),
        ),
        PromptSet(
            "colipri-card",
            "the model card of microsoft/colipri, which shows the pair of lung nodules; other labels by its pattern",
            ("{label} present",),
            ("no {label} present",),
            words={"lung nodule": "lung nodules"},
        ),
        PromptSet(
            "chest-ct-showing",
            "a public benchmark of chest CT encoders, 2026",
            ("a chest CT scan showing {label}.",),
            ("a chest CT scan showing no {label}.",),
        ),
        PromptSet("short-1", "our choice", ("{label}.",), ("no {label}.",)),
        PromptSet(
            "reports-1",
            "our choice",
            (
                "{label} is present.",
                "there is {label}.",
                "{label} is seen.",
                "findings consistent with {label}.",
            ),
            (
                "{label} is not present.",
                "there is no {label}.",
                "no {label} is seen.",
                "no evidence of {label}.",
            ),
            ("CT of the {label}.", "CT {label}.", "computed tomography of the {label}."),
        ),
    )
}


def prompt_set(name: str) -> PromptSet:
    """The set called `name`; an unknown name is a `ConfigError`."""
    if name not in PROMPT_SETS:
        raise ConfigError(
            f"there is no prompt set called {name!r}",
            rule="prompts.unknown",
            fix=f"use one of: {', '.join(sorted(PROMPT_SETS))}",
        )
    return PROMPT_SETS[name]


def in_words(label: str) -> str:
    """A label's name as a report would write it: `lung_nodule` -> `lung nodule`."""
    return " ".join(label.replace("_", " ").split()).lower()
