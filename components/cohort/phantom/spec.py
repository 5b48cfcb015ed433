"""What a phantom study is before it is drawn: a small, frozen, picklable description.

Coordinates are template millimetres in RAS: x grows to the patient's right, y to anterior, z to superior; the
origin lies in the middle of the chest at the level of the heart. `Body.scale` maps them to a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

MEDICAL_MATERIAL = "Medical material"
ARTERIAL_CALCIFICATION = "Arterial wall calcification"
CARDIOMEGALY = "Cardiomegaly"
PERICARDIAL_EFFUSION = "Pericardial effusion"
CORONARY_CALCIFICATION = "Coronary artery wall calcification"
HIATAL_HERNIA = "Hiatal hernia"
LYMPHADENOPATHY = "Lymphadenopathy"
EMPHYSEMA = "Emphysema"
ATELECTASIS = "Atelectasis"
NODULE = "Lung nodule"
OPACITY = "Lung opacity"
FIBROTIC_SEQUELA = "Pulmonary fibrotic sequela"
PLEURAL_EFFUSION = "Pleural effusion"
MOSAIC = "Mosaic attenuation pattern"
PERIBRONCHIAL = "Peribronchial thickening"
CONSOLIDATION = "Consolidation"
BRONCHIECTASIS = "Bronchiectasis"
SEPTAL = "Interlobular septal thickening"

# The 18 labels of CT-RATE, in its order; a finding's value in the `findings` mask is its place here plus 1.
LABELS: tuple[str, ...] = (
    MEDICAL_MATERIAL,
    ARTERIAL_CALCIFICATION,
    CARDIOMEGALY,
    PERICARDIAL_EFFUSION,
    CORONARY_CALCIFICATION,
    HIATAL_HERNIA,
    LYMPHADENOPATHY,
    EMPHYSEMA,
    ATELECTASIS,
    NODULE,
    OPACITY,
    FIBROTIC_SEQUELA,
    PLEURAL_EFFUSION,
    MOSAIC,
    PERIBRONCHIAL,
    CONSOLIDATION,
    BRONCHIECTASIS,
    SEPTAL,
)
FINDING_VALUES: dict[str, int] = {label: value for value, label in enumerate(LABELS, start=1)}

ORGANS: tuple[str, ...] = (
    "lung_left",
    "lung_right",
    "heart",
    "aorta",
    "liver",
    "spleen",
    "kidney_left",
    "kidney_right",
    "spine",
    "ribs",
    "trachea",
    "esophagus",
    "stomach",
)
ORGAN_VALUES: dict[str, int] = {organ: value for value, organ in enumerate(ORGANS, start=1)}

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """One finding as it is drawn and as it is reported.

    `side` is left, right, bilateral or empty; `place` a lobe, zone, station or level; `size_mm` its largest extent
    (a thickness for effusions); `variant` its type (pacemaker, solid, plate-like); `centre` where a focal
    finding lies; `change` against the previous study: empty, new, unchanged, increased or decreased.
    """

    label: str
    side: str = ""
    place: str = ""
    severity: str = ""
    variant: str = ""
    size_mm: float = 0.0
    centre: Point = (0.0, 0.0, 0.0)
    change: str = ""
    previous_mm: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Body:
    """A patient's anatomy, the same in all of the patient's studies."""

    sex: str
    scale: Point
    fat_mm: float
    muscle_mm: float
    heart_scale: float
    heart_angle_deg: float
    kyphosis_mm: float
    liver_scale: float
    spleen_scale: float
    rib_spacing_mm: float
    lung_hu: float
    seed: int


@dataclass(frozen=True)
class Acquisition:
    """How a study was scanned: its grid, kernel, noise, contrast phase, and how it lies on disk."""

    matrix: tuple[int, int, int]
    spacing_mm: Point
    origin_mm: Point
    offset_mm: Point
    orientation: str
    kernel: str
    noise_hu: float
    contrast: bool
    breath_mm: float
    table: bool
    kvp: int
    manufacturer: str
    model: str


@dataclass(frozen=True)
class Person:
    """A patient's invented identity."""

    given: str
    family: str
    sex: str
    birth: date
    mrn: str

    @property
    def name(self) -> str:
        """Given and family name."""
        return f"{self.given} {self.family}"


@dataclass(frozen=True)
class Visit:
    """The invented identifiers of one examination; staff as given and family name."""

    accession: str
    day: date
    hospital: str
    phone: str
    referring: tuple[str, str]
    reading: tuple[str, str]
    study_uid: str
    series_uid: str


@dataclass(frozen=True)
class PhantomStudy:
    """Everything that decides a study's image, masks, labels and report."""

    seed: int
    patient_index: int
    study_index: int
    person: Person
    visit: Visit
    body: Body
    acquisition: Acquisition
    findings: tuple[Finding, ...]
    resolved: tuple[Finding, ...] = ()
    prior_day: date | None = None
    with_report: bool = True
    header_style: str = "flush_left"

    def finding(self, label: str) -> Finding | None:
        """The finding of a label, or None if it is absent."""
        return next((item for item in self.findings if item.label == label), None)

    @property
    def labels(self) -> dict[str, int]:
        """1 or 0 for each of CT-RATE's labels."""
        present = {item.label for item in self.findings}
        return {label: int(label in present) for label in LABELS}

    @property
    def age_years(self) -> float:
        """The patient's age on the day of the study."""
        return round((self.visit.day - self.person.birth).days / 365.25, 2)

    @property
    def identities(self) -> tuple[tuple[str, str], ...]:
        """The known PHI of the study as (kind, value); dates are ISO, names are "given family"."""
        days = [self.visit.day, self.person.birth, *([self.prior_day] if self.prior_day else [])]
        pairs = [("PATIENT", self.person.name), ("MRN", self.person.mrn), ("ACCESSION", self.visit.accession)]
        pairs += [("STAFF", " ".join(who)) for who in (self.visit.referring, self.visit.reading)]
        pairs += [("HOSPITAL", self.visit.hospital), ("PHONE", self.visit.phone)]
        return tuple(dict.fromkeys([*pairs, *(("DATE", day.isoformat()) for day in days)]))
