"""A tree of the findings of a chest CT, and the distance between what two texts say, for soft targets.

The tree groups CT-RATE's 18 findings by organ and kind; it is our own and small, not a clinical terminology.
"""

from __future__ import annotations

from collections.abc import Sequence

PATHS: dict[str, tuple[str, ...]] = {
    "Medical material": ("device",),
    "Arterial wall calcification": ("vessel", "calcification"),
    "Coronary artery wall calcification": ("vessel", "calcification"),
    "Cardiomegaly": ("heart", "size"),
    "Pericardial effusion": ("heart", "fluid"),
    "Pleural effusion": ("pleura", "fluid"),
    "Hiatal hernia": ("mediastinum", "hernia"),
    "Lymphadenopathy": ("mediastinum", "node"),
    "Lung nodule": ("lung", "focal"),
    "Lung opacity": ("lung", "airspace"),
    "Consolidation": ("lung", "airspace"),
    "Atelectasis": ("lung", "volume loss"),
    "Emphysema": ("lung", "airway and emphysema"),
    "Mosaic attenuation pattern": ("lung", "airway and emphysema"),
    "Bronchiectasis": ("lung", "airway and emphysema"),
    "Peribronchial thickening": ("lung", "airway and emphysema"),
    "Pulmonary fibrotic sequela": ("lung", "interstitium"),
    "Interlobular septal thickening": ("lung", "interstitium"),
}
DEPTH = 3
"""Nodes from the root to a finding: organ, kind, finding."""
FARTHEST = 1.0
"""The distance of what has nothing in common, as of a normal and an abnormal text."""


def path(finding: str) -> tuple[str, ...]:
    """The nodes from the root to a finding; one that is not in the tree hangs from the root."""
    return (*PATHS.get(finding, ()), finding)


def finding_distance(first: str, second: str) -> float:
    """0 for the same finding, 1/3 for siblings, 2/3 for one organ, 1 for nothing in common."""
    if first == second:
        return 0.0
    shared = 0
    for one, other in zip(path(first), path(second), strict=False):
        if one != other:
            break
        shared += 1
    return FARTHEST * (1 - shared / DEPTH)


def text_distance(first: Sequence[str], second: Sequence[str], normal: tuple[bool, bool]) -> float:
    """How far two texts' findings are apart, in [0, 1], symmetric.

    Two normal texts are at 0, a normal and an abnormal one at 1. Otherwise every finding is compared with the
    nearest of the other text, and the means of both directions are averaged; abnormal texts without a known
    finding are at 1 from all others.
    """
    if normal[0] or normal[1]:
        return 0.0 if all(normal) else FARTHEST
    if not first or not second:
        return FARTHEST
    means = [
        sum(min(finding_distance(name, other) for other in others) for name in names) / len(names)
        for names, others in ((first, second), (second, first))
    ]
    return sum(means) / 2
