"""From parameters and a seed to specifications: patients, their studies, and how findings change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from pydantic import Field, field_validator, model_validator

from components.base.config import Config
from components.cohort.phantom import spec
from components.cohort.phantom.catalogue import (
    CATALOGUE,
    GROWTH,
    HEART_FINDINGS,
    HEART_SLOTS,
    grade,
    occupied_depth,
    sample_finding,
)
from components.cohort.phantom.identifiers import SCANNERS, person, study_days, visit
from components.cohort.phantom.spec import Acquisition, Body, Finding, PhantomStudy, Point
from components.cohort.phantom.streams import between, choose, stream

HEADER_STYLES = (
    "newline_space",
    "flush_left",
    "own_line",
    "title_case",
    "markdown",
    "dash",
    "run_on",
    "crlf",
)
ORIENTATIONS = ("RAS", "LPS", "LAS", "LPI", "RPI", "PSR", "SAL")
MAX_STUDIES = 3


class PhantomParams(Config):
    """What the phantom cohort is made of; ranges are (lowest, highest), inclusive."""

    num_patients: int = Field(64, ge=1)
    studies_weights: tuple[float, float, float] = (0.5, 0.3, 0.2)  # relative weights of 1, 2 and 3 studies
    image_only_fraction: float = Field(0.15, ge=0, lt=1)  # of studies, chosen independently
    prevalence_scale: float = Field(1.0, gt=0, le=3)  # multiplies every finding's prevalence (capped at 0.95)
    prevalence: dict[str, float] = Field(default_factory=dict)  # by label, in place of the default
    field_of_view_mm: tuple[float, float] = (330.0, 350.0)
    length_mm: tuple[float, float] = (290.0, 310.0)
    in_plane_mm: tuple[float, float] = (2.1, 2.5)
    slice_mm: tuple[float, float] = (3.6, 5.0)
    noise_hu: tuple[float, float] = (5.0, 10.0)
    sharp_fraction: float = Field(0.4, ge=0, le=1)  # of studies with a sharp kernel
    contrast_fraction: float = Field(0.5, ge=0, le=1)  # of studies with intravenous contrast

    @field_validator("prevalence")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        for label, share in value.items():
            if label not in CATALOGUE:
                raise ValueError(f"there is no finding called {label!r}")
            if not 0 <= share <= 1:
                raise ValueError(f"the prevalence of {label!r} is not in [0, 1]")
        return value

    @field_validator("studies_weights")
    @classmethod
    def _weights(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) < 0 or sum(value) <= 0:
            raise ValueError("the weights must not be negative, nor all zero")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> PhantomParams:
        for name in ("field_of_view_mm", "length_mm", "in_plane_mm", "slice_mm", "noise_hu"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (lowest, highest), both positive")
        return self

    def share(self, label: str) -> float:
        """The prevalence of a finding in force."""
        base = self.prevalence.get(label, CATALOGUE[label].prevalence * self.prevalence_scale)
        return min(base, 0.95) if label not in self.prevalence else base


def cohort(params: PhantomParams, seed: int) -> Iterator[PhantomStudy]:
    """Every study of the cohort in a fixed order; cheap, nothing is drawn."""
    for patient in range(params.num_patients):
        yield from patient_studies(params, seed, patient)


def patient_studies(params: PhantomParams, seed: int, patient: int) -> list[PhantomStudy]:
    """The studies of one patient, oldest first; depends on no other patient."""
    rng = stream(seed, "patient", patient)
    count = choose(rng, (1, 2, 3), params.studies_weights)
    body = _body(seed, patient, "F" if rng.random() < 0.5 else "M")
    who, days = person(seed, patient, body.sex), study_days(seed, patient, count)
    studies: list[PhantomStudy] = []
    for index, day in enumerate(days):
        chance = stream(seed, "study", patient, index)
        before = studies[-1] if studies else None
        findings = _findings(params, stream(seed, "findings", patient, index), before)
        kept = {item.label for item in findings}
        studies.append(
            PhantomStudy(
                seed=seed,
                patient_index=patient,
                study_index=index,
                person=who,
                visit=visit(seed, patient, index, day),
                body=body,
                acquisition=_acquisition(params, stream(seed, "scan", patient, index)),
                findings=tuple(findings),
                resolved=tuple(item for item in before.findings if item.label not in kept) if before else (),
                prior_day=before.visit.day if before else None,
                with_report=bool(chance.random() >= params.image_only_fraction),
                header_style=choose(chance, HEADER_STYLES),
            )
        )
    return studies


def _body(seed: int, patient: int, sex: str) -> Body:
    rng = stream(seed, "body", patient)
    build = 0.95 if sex == "F" else 1.02
    scale = tuple(round(build * float(np.clip(rng.normal(1, 0.035), 0.93, 1.07)), 3) for _ in range(2))
    return Body(
        sex=sex,
        scale=(scale[0], scale[1], between(rng, 0.95, 1.04)),
        fat_mm=between(rng, 8, 28, 1),
        muscle_mm=between(rng, 9, 15, 1),
        heart_scale=between(rng, 0.92, 1.04),
        heart_angle_deg=between(rng, 25, 48, 1),
        kyphosis_mm=between(rng, 0, 9, 1),
        liver_scale=between(rng, 0.9, 1.1),
        spleen_scale=between(rng, 0.8, 1.2),
        rib_spacing_mm=between(rng, 23, 28, 1),
        lung_hu=between(rng, -860, -815, 0),
        seed=int(rng.integers(2**31)),
    )


def _acquisition(params: PhantomParams, rng: np.random.Generator) -> Acquisition:
    pixel, spacing_z = between(rng, *params.in_plane_mm), between(rng, *params.slice_mm, digits=2)
    matrix = 2 * round(between(rng, *params.field_of_view_mm) / pixel / 2)
    maker, model = choose(rng, SCANNERS)
    return Acquisition(
        matrix=(matrix, matrix, round(between(rng, *params.length_mm) / spacing_z)),
        spacing_mm=(pixel, pixel, spacing_z),
        origin_mm=(between(rng, -40, 40, 1), between(rng, -220, 20, 1), between(rng, -900, 300, 1)),
        offset_mm=(between(rng, -5, 5, 1), between(rng, -8, 4, 1), between(rng, -5, 5, 1)),
        orientation=choose(rng, ORIENTATIONS),
        kernel="sharp" if rng.random() < params.sharp_fraction else "soft",
        noise_hu=between(rng, *params.noise_hu, digits=1),
        contrast=bool(rng.random() < params.contrast_fraction),
        breath_mm=between(rng, -6, 6, 1),
        table=bool(rng.random() < 0.8),
        kvp=choose(rng, (100, 120, 120, 130)),
        manufacturer=maker,
        model=model,
    )


def _findings(params: PhantomParams, rng: np.random.Generator, before: PhantomStudy | None) -> list[Finding]:
    """A study's findings: some of the previous study's, and new ones, on slots of their own."""
    found: list[Finding] = []
    taken: set[Point] = set()
    for old in before.findings if before else ():
        if CATALOGUE[old.label].chronic or rng.random() < 0.5:
            found.append(_changed(old, rng))
            taken.add(old.centre)
    known = {item.label for item in before.findings} if before else set()
    for label in spec.LABELS:
        share, draw, own = params.share(label), rng.random(), np.random.default_rng(int(rng.integers(2**62)))
        if before is not None:
            chronic = CATALOGUE[label].chronic
            share = 0.15 * share if chronic else 0.5 * share / max(1 - share, 0.5)
        if label in known or draw >= share or (label in HEART_FINDINGS and taken & HEART_SLOTS):
            continue
        covered = HEART_SLOTS if any(item.label in HEART_FINDINGS for item in found) else frozenset()
        item = sample_finding(label, own, taken, covered)
        if item is not None:
            found.append(replace(item, change="new" if before else ""))
    found = [_fitting(item, found) for item in found]
    return sorted(found, key=lambda item: spec.LABELS.index(item.label))


def _changed(old: Finding, rng: np.random.Generator) -> Finding:
    """A finding of the previous study as it is now; only a finding with a size can grow or shrink."""
    entry = CATALOGUE[old.label]
    low, high = entry.size_mm
    weights = (0.7, 0.3, 0.0) if entry.chronic else (0.3, 0.35, 0.35)
    change = choose(rng, ("unchanged", "increased", "decreased"), weights) if high else "unchanged"
    size = round(float(np.clip(old.size_mm * between(rng, *GROWTH[change]), low, high)))
    if change != "unchanged" and abs(size - old.size_mm) < 0.12 * old.size_mm:
        change, size = "unchanged", round(old.size_mm)
    severity = grade(entry, size) if entry.grades else old.severity
    return replace(old, size_mm=float(size), severity=severity, change=change, previous_mm=old.size_mm)


def _fitting(item: Finding, found: list[Finding]) -> Finding:
    """Keep an effusion small enough not to hide a focal finding of a lower lobe."""
    if item.label == spec.PLEURAL_EFFUSION and occupied_depth(found, item.side) and item.size_mm > 24:
        size, entry = 24.0, CATALOGUE[item.label]
        change = item.change if item.change in ("", "new") else _compare(size, item.previous_mm)
        return replace(item, size_mm=size, severity=grade(entry, size), change=change)
    return item


def _compare(size: float, previous: float) -> str:
    if abs(size - previous) < 0.12 * previous:
        return "unchanged"
    return "increased" if size > previous else "decreased"
