"""Zero-shot prompts as versioned data: a released encoder's contract names the set it was scored with.

A set is immutable: to change a prompt, add a set under a new name. `{label}` is the label in words. Pairs follow
CT-CLIP's protocol ("X is present." / "X is not present."); an ensemble is the mean of the unit text vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.base.errors import ConfigError


@dataclass(frozen=True)
class PromptSet:
    """Templates that say a finding is there, that it is not, and what a volume shows of a group's values."""

    name: str
    present: tuple[str, ...]
    absent: tuple[str, ...]
    group: tuple[str, ...] = ("CT of the {label}.",)

    def pair(self, label: str) -> tuple[list[str], list[str]]:
        """The prompts (present, absent) for a label such as `pleural_effusion`."""
        return _fill(self.present, label), _fill(self.absent, label)

    def value(self, value: str) -> list[str]:
        """The prompts for one value of a group label such as `region=pelvis`."""
        return _fill(self.group, value)


PROMPT_SETS: dict[str, PromptSet] = {
    entry.name: entry
    for entry in (
        PromptSet("ct-clip", ("{label} is present.",), ("{label} is not present.",)),
        PromptSet("short-1", ("{label}.",), ("no {label}.",)),
        PromptSet(
            "reports-1",
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


def _fill(templates: tuple[str, ...], label: str) -> list[str]:
    filled = [template.format(label=in_words(label)) for template in templates]
    return [text[:1].upper() + text[1:] for text in filled]
