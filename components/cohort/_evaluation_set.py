"""Which volumes of CT-RATE make the evaluation set that COLIPRI and others report on.

Of each report's reconstructions the one with the smallest in-plane spacing, ties by the volume's name; then of the
reports whose findings read the same the first by name. Source: RadFinder's public code, which calls it the COLIPRI
paper's evaluation set; studies that are not of the chest can be left out before by a list (`no_chest_valid.txt`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

Order = tuple[tuple[int, int, str], ...]


@dataclass(frozen=True)
class Candidate:
    """A volume: its name, the study whose report it has, in-plane spacing in mm (None: unknown), findings' text."""

    name: str
    study: str
    spacing_mm: tuple[float, float] | None
    findings: str


def by_name(name: str) -> Order:
    """Names in their order, numbers in them as numbers."""
    parts = re.split(r"(\d+)", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)


def evaluation_set(volumes: Iterable[Candidate], left_out: Collection[str] = ()) -> dict[str, str]:
    """Volume name -> why it is not in the set; a volume that is in it is not named.

    `left_out` holds names of volumes or studies, with or without `.nii.gz`. A volume of unknown spacing comes last; a
    report without findings is nobody's duplicate.
    """
    plain = {name.removesuffix(".nii.gz") for name in left_out}
    reasons: dict[str, str] = {}
    best: dict[str, Candidate] = {}
    for volume in sorted(volumes, key=lambda item: by_name(item.name)):
        if plain & {volume.name.removesuffix(".nii.gz"), volume.study}:
            reasons[volume.name] = "the study is on the list of those to leave out"
            continue
        pair = [best[volume.study], volume] if volume.study in best else [volume]
        best[volume.study] = min(pair, key=_area)  # of equal ones the first
        for other in pair:
            if other is not best[volume.study]:
                reasons[other.name] = "another reconstruction of the study has the smallest in-plane spacing"
    seen: set[str] = set()
    for volume in sorted(best.values(), key=lambda item: by_name(item.name)):
        text = volume.findings.strip()
        if text and text in seen:
            reasons[volume.name] = "the findings are those of another study"
        seen.add(text)
    return reasons


def _area(volume: Candidate) -> float:
    return math.prod(volume.spacing_mm) if volume.spacing_mm else math.inf
