"""Which attributes a finding can have, how common it is, and how it changes between studies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from components.cohort.phantom import spec
from components.cohort.phantom.spec import Finding, Point
from components.cohort.phantom.streams import between, choose

RUL, RML, RLL = "right upper lobe", "right middle lobe", "right lower lobe"
LUL, LINGULA, LLL = "left upper lobe", "lingula", "left lower lobe"

# Where a focal lung finding can lie, in template millimetres. No two findings of a study share a slot.
SLOTS: dict[str, tuple[tuple[str, Point], ...]] = {
    RUL: ((RUL, (62, -18, 82)), (RUL, (66, 30, 52)), (RUL, (92, 12, 36))),
    RML: ((RML, (84, 44, -14)),),
    RLL: ((RLL, (70, -48, 4)), (RLL, (92, -32, -34))),
    LUL: ((LUL, (-62, -18, 82)), (LUL, (-66, 30, 56)), (LUL, (-92, 8, 34))),
    LINGULA: ((LINGULA, (-96, 40, -8)),),
    LLL: ((LLL, (-72, -48, 0)), (LLL, (-94, -34, -36))),
}
LOBES = tuple(SLOTS)
# Slots that an enlarged heart or a pericardial effusion covers.
HEART_SLOTS: frozenset[Point] = frozenset({SLOTS[LINGULA][0][1], SLOTS[LUL][1][1]})
HEART_FINDINGS = (spec.CARDIOMEGALY, spec.PERICARDIAL_EFFUSION)
_UPPER, _LOWER = (RUL, LUL), (RML, RLL, LINGULA, LLL)


@dataclass(frozen=True)
class Entry:
    """How a finding is sampled; sizes in millimetres, `grades` are upper bounds of severity by size."""

    prevalence: float
    chronic: bool = False
    lobes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ("",)
    places: tuple[str, ...] = ("",)
    variants: tuple[str, ...] = ("",)
    size_mm: tuple[float, float] = (0.0, 0.0)
    grades: tuple[tuple[float, str], ...] = ()
    severities: tuple[str, ...] = ("",)


_GRADED = ("mild", "moderate", "severe")
_ZONES = ("upper", "lower", "diffuse")
CATALOGUE: dict[str, Entry] = {
    spec.MEDICAL_MATERIAL: Entry(
        0.24,
        chronic=True,
        variants=(
            "pacemaker",
            "port",
            "sternal wires",
            "spinal rods",
            "central venous catheter",
            "aortic valve",
        ),
    ),
    spec.ARTERIAL_CALCIFICATION: Entry(
        0.30,
        chronic=True,
        places=("ascending aorta", "aortic arch", "descending thoracic aorta", "upper abdominal aorta"),
        severities=_GRADED,
    ),
    spec.CARDIOMEGALY: Entry(
        0.30, chronic=True, size_mm=(128, 164), grades=((138, "mild"), (150, "moderate"), (999, "severe"))
    ),
    spec.PERICARDIAL_EFFUSION: Entry(
        0.20, size_mm=(8, 20), grades=((11, "small"), (16, "moderate"), (999, "large"))
    ),
    spec.CORONARY_CALCIFICATION: Entry(
        0.26,
        chronic=True,
        places=("left anterior descending", "left circumflex", "right coronary", "three-vessel"),
        severities=_GRADED,
    ),
    spec.HIATAL_HERNIA: Entry(
        0.24, chronic=True, size_mm=(36, 72), grades=((46, "small"), (60, "moderate"), (999, "large"))
    ),
    spec.LYMPHADENOPATHY: Entry(
        0.25,
        places=(
            *("right paratracheal", "prevascular", "subcarinal"),
            *("right hilar", "left hilar", "right axillary", "left axillary"),
        ),
        size_mm=(14, 28),
    ),
    spec.EMPHYSEMA: Entry(
        0.24,
        chronic=True,
        sides=("bilateral",),
        places=_ZONES,
        variants=("centrilobular", "paraseptal"),
        severities=_GRADED,
    ),
    spec.ATELECTASIS: Entry(
        0.26, lobes=(*_LOWER, *_LOWER, RUL, LUL), variants=("plate-like", "segmental"), size_mm=(45, 80)
    ),
    spec.NODULE: Entry(
        0.32,
        chronic=True,
        lobes=LOBES,
        variants=("solid", "spiculated", "calcified", "part-solid"),
        size_mm=(10, 29),
    ),
    spec.OPACITY: Entry(0.28, lobes=LOBES, variants=("focal", "patchy"), size_mm=(34, 66)),
    spec.FIBROTIC_SEQUELA: Entry(
        0.24, chronic=True, lobes=(*_UPPER, *_UPPER, *LOBES), size_mm=(30, 56), severities=_GRADED[:2]
    ),
    spec.PLEURAL_EFFUSION: Entry(
        0.32,
        sides=("left", "right", "bilateral"),
        size_mm=(14, 48),
        grades=((23, "small"), (35, "moderate"), (999, "large")),
    ),
    spec.MOSAIC: Entry(0.18, sides=("bilateral",), places=_ZONES, severities=_GRADED),
    spec.PERIBRONCHIAL: Entry(0.22, sides=("left", "right", "bilateral"), severities=_GRADED),
    spec.CONSOLIDATION: Entry(0.24, lobes=LOBES, size_mm=(32, 62)),
    spec.BRONCHIECTASIS: Entry(
        0.20,
        chronic=True,
        lobes=LOBES,
        variants=("cylindrical", "varicose", "cystic"),
        severities=_GRADED,
    ),
    spec.SEPTAL: Entry(
        0.24, sides=("left", "right", "bilateral"), places=("upper", "lower"), severities=_GRADED
    ),
}
# Progress between studies: how a size may change, as a factor.
GROWTH = {"unchanged": (1.0, 1.0), "increased": (1.25, 1.45), "decreased": (0.68, 0.8)}


def grade(entry: Entry, size_mm: float) -> str:
    """The severity word for a size."""
    return next((word for limit, word in entry.grades if size_mm < limit), "")


def lobe_side(lobe: str) -> str:
    """Left or right for a lobe (the lingula is left)."""
    return "right" if lobe.startswith("right") else "left"


def sample_finding(
    label: str, rng: np.random.Generator, taken: set[Point], covered: frozenset[Point] = frozenset()
) -> Finding | None:
    """A finding with attributes; a focal one takes a free slot (added to `taken`), or is None without one."""
    entry = CATALOGUE[label]
    size = between(rng, *entry.size_mm, digits=0) if entry.size_mm[1] else 0.0
    severity = grade(entry, size) if entry.grades else choose(rng, entry.severities)
    side, place = choose(rng, entry.sides), choose(rng, entry.places)
    variant, seed = choose(rng, entry.variants), int(rng.integers(2**31))
    centre: Point = (0.0, 0.0, 0.0)
    if entry.lobes:
        closed = taken | covered
        free = [lobe for lobe in entry.lobes if any(point not in closed for _, point in SLOTS[lobe])]
        if not free:
            return None
        place = choose(rng, free)
        centre = choose(rng, [point for _, point in SLOTS[place] if point not in closed])
        taken.add(centre)
        side = lobe_side(place)
    if label == spec.LYMPHADENOPATHY and place.split()[0] in ("left", "right"):
        side = place.split()[0]
    if label == spec.NODULE and variant == "part-solid":
        size = max(size, 18.0)
    if label == spec.MEDICAL_MATERIAL:
        side = {"pacemaker": "left", "port": "right", "central venous catheter": "right"}.get(variant, "")
    return Finding(label, side, place, severity, variant, size, centre, seed=seed)


def occupied_depth(findings: list[Finding], side: str) -> bool:
    """True if a focal finding lies in a lower lobe of `side`, where a large effusion would cover it."""
    lobes = {"left": (LLL,), "right": (RLL,), "bilateral": (LLL, RLL)}[side]
    return any(item.place in lobes for item in findings)
