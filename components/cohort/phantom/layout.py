"""The header styles of radiology reports: the same sections, laid out in eight ways.

newline_space   " FINDINGS:" after an empty line, lines wrapped and indented by a space
flush_left      "FINDINGS: ..." at the start of a line
own_line        "FINDINGS" or "FINDINGS:" alone on its line
title_case      "Findings: ..."
markdown        "**Findings**" alone on its line
dash            "FINDINGS - ..."
run_on          everything in one line
crlf            flush left, with Windows line ends
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable

import numpy as np

HARD_SPACE = "\ue003"
WIDTH = 86

Section = tuple[str, list[str]]


def _wrap(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _newline_space(sections: list[Section], rng: np.random.Generator) -> str:
    blocks = []
    for heading, paragraphs in sections:
        first = f" {heading.upper()}:  "
        body = [_wrap(paragraph, " ") for paragraph in paragraphs]
        if heading == "findings" or len(paragraphs) > 1:
            blocks.append(first.rstrip() + "\n \n" + "\n \n".join(body))
        else:
            blocks.append(first + body[0].lstrip())
    return "\n \n".join(blocks)


def _inline(
    name: Callable[[str], str], between: str = "\n\n"
) -> Callable[[list[Section], np.random.Generator], str]:
    def lay(sections: list[Section], rng: np.random.Generator) -> str:
        return between.join(f"{name(heading)} " + "\n".join(paragraphs) for heading, paragraphs in sections)

    return lay


def _alone(name: Callable[[str], str]) -> Callable[[list[Section], np.random.Generator], str]:
    def lay(sections: list[Section], rng: np.random.Generator) -> str:
        return "\n\n".join(f"{name(heading)}\n" + "\n".join(paragraphs) for heading, paragraphs in sections)

    return lay


def _own_line(sections: list[Section], rng: np.random.Generator) -> str:
    mark = ":" if rng.random() < 0.5 else ""
    return _alone(lambda heading: heading.upper() + mark)(sections, rng)


_STYLES: dict[str, Callable[[list[Section], np.random.Generator], str]] = {
    "newline_space": _newline_space,
    "flush_left": _inline(lambda heading: f"{heading.upper()}:"),
    "own_line": _own_line,
    "title_case": _inline(lambda heading: f"{heading.capitalize()}:", "\n"),
    "markdown": _alone(lambda heading: f"**{heading.capitalize()}**"),
    "dash": _inline(lambda heading: f"{heading.upper()} -"),
    "run_on": _inline(lambda heading: f"{heading.upper()}:"),
    "crlf": _inline(lambda heading: f"{heading.upper()}:"),
}


def lay_out(
    style: str, letterhead: list[str], sections: list[Section], ending: list[str], rng: np.random.Generator
) -> str:
    """One text from a letterhead, sections (heading in lower case, paragraphs) and closing lines."""
    body = _STYLES[style](sections, rng)
    blocks = ["\n".join(letterhead)] if letterhead else []
    text = "\n\n".join([*blocks, body, "\n".join(ending)])
    if style == "run_on":
        return " ".join(text.split())
    if style == "crlf":
        return text.replace("\n", "\r\n")
    return text
