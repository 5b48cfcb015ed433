"""Divide the patients into train, validation and test; near-duplicates stay on one side.

    python -m components.cohort.split

Patients are divided, never studies or series. Patients who share a (near-)duplicate report or volume form a group
that moves as one. Groups with a report are spread by the fractions, balanced over their labels; patients without any
report train. Reads deidentify, section, check_reports, preprocess and check_volumes; writes split.parquet.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from components.base.config import Config
from components.base.errors import CheckError, InputError
from components.base.step import Step, StepContext
from components.cohort.similarity import Similarity

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "validation", "test")


class Fractions(Config):
    """Shares of the patients with a report; they add up to 1."""

    train: float = Field(default=0.7, gt=0.0, le=1.0)
    validation: float = Field(default=0.1, ge=0.0, lt=1.0)
    test: float = Field(default=0.2, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _whole(self) -> Fractions:
        if abs(self.train + self.validation + self.test - 1.0) > 1e-6:
            raise ValueError("train, validation and test must add up to 1")
        return self

    def of(self, name: str) -> float:
        """The share of a split by its name."""
        return float(getattr(self, name))


class Fold(Config):
    """One fold of a cross-validation: part `index` of `count` is test, the next one validation, the rest train."""

    index: int = Field(ge=0)
    count: int = Field(ge=3)

    @model_validator(mode="after")
    def _in_range(self) -> Fold:
        if self.index >= self.count:
            raise ValueError("index must be below count")
        return self

    def side(self, part: str) -> str:
        """What a part, named by its number, is in this fold."""
        return {self.index: "test", (self.index + 1) % self.count: "validation"}.get(int(part), "train")


class Params(Config):
    """How patients are divided; `min_patients` is the least that a split with a share may get.

    With a `fold` the fractions do not matter: the parts are the same for every fold of a seed.
    """

    seed: int = 7
    fold: Fold | None = None
    fractions: Fractions = Fractions()
    min_patients: int = Field(default=1, ge=1)
    max_group_fraction: float = Field(default=0.3, gt=0.0, le=1.0)
    similarity: Similarity = Similarity()


class Groups:
    """Union-find over patient keys: patients who share a duplicate are one group."""

    def __init__(self, patients: Iterable[str]) -> None:
        self._parent = {patient: patient for patient in patients}

    def find(self, patient: str) -> str:
        """The patient who stands for the group."""
        while self._parent[patient] != patient:
            self._parent[patient] = self._parent[self._parent[patient]]
            patient = self._parent[patient]
        return patient

    def join(self, first: str, second: str) -> None:
        """Make two groups one; the smaller key stands for it, so that the order of joins does not matter."""
        first, second = sorted((self.find(first), self.find(second)))
        self._parent[second] = first

    def members(self) -> dict[str, list[str]]:
        """Patients by group, both sorted."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for patient in sorted(self._parent):
            found[self.find(patient)].append(patient)
        return dict(sorted(found.items()))


def group_patients(
    rows: Sequence[Mapping[str, Any]],
    index: Mapping[str, Mapping[str, Any]],
    texts: Mapping[str, str],
    limits: Similarity,
) -> tuple[Groups, dict[str, int]]:
    """Groups of the patients of `rows`, and how many pairs of patients each kind of likeness joined."""
    from components.cohort.similarity import report_pairs, volume_pairs

    owner = {row["series_key"]: row["patient_key"] for row in rows}
    study_owner = {row["study_key"]: row["patient_key"] for row in rows}
    groups, joined = Groups(sorted(set(owner.values()))), Counter(reports=0, volumes=0)
    hashes = {series: index[series]["average_hash"] for series in owner}
    links = [("volumes", owner[a], owner[b]) for a, b in volume_pairs(hashes, limits)]
    same: dict[str, str] = {}
    for series in sorted(owner):
        first = same.setdefault(index[series]["content_sha256"], series)
        links.append(("volumes", owner[first], owner[series]))
    known = {study: text for study, text in texts.items() if study in study_owner}
    links += [("reports", study_owner[a], study_owner[b]) for a, b in report_pairs(known, limits)]
    for kind, first, second in links:
        if first != second:
            joined[kind] += 1
            groups.join(first, second)
    return groups, dict(joined)


def targets(total: int, fractions: Fractions, min_patients: int) -> dict[str, int]:
    """How many of `total` patients each split with a share gets; train takes the rest.

    Raises `InputError` when a split would get fewer than `min_patients`.
    """
    found = {
        name: max(min_patients, int(fractions.of(name) * total + 0.5))
        for name in ("validation", "test")
        if fractions.of(name) > 0
    }
    rest = total - sum(found.values())
    if rest < min_patients:
        raise InputError(
            f"{total} patients are too few for {len(found) + 1} splits of at least {min_patients}",
            rule="split.too_few",
            fix="add patients, or set the share of validation or test to 0",
        )
    return {"train": rest, **found}


def assign(
    members: Mapping[str, Sequence[str]],
    traits: Mapping[str, Counter[str]],
    wanted: Mapping[str, int],
    generator: np.random.Generator,
) -> dict[str, str]:
    """A split for every group so that each split gets the patients it wants, the rarest trait first.

    Iterative stratification (Sechidis et al. 2011) on groups: those with the rarest trait go first, the largest
    first, to a split that has room, wants most of that trait, then most patients; a seeded draw settles the order.
    """
    order = sorted(members)
    generator.shuffle(order)
    rank = {group: number for number, group in enumerate(order)}
    room, total = dict(wanted), sum(wanted.values())
    every, carriers = Counter[str](), Counter[str]()
    for group in members:
        every.update(traits[group])
        carriers.update(traits[group].keys())
    wish = {(name, trait): room[name] / total * count for trait, count in every.items() for name in room}
    chosen: dict[str, str] = {}

    def best(group: str, trait: str) -> str:
        size = len(members[group])
        return max(
            room,
            key=lambda name: (
                room[name] >= size,
                room[name] > 0,
                round(wish.get((name, trait), 0.0), 9),
                room[name] / max(1, wanted[name]),
                name == "train",
            ),
        )

    left = set(members)
    for trait in [*sorted(every, key=lambda item: (carriers[item], item)), ""]:
        batch = [group for group in left if not trait or trait in traits[group]]
        for group in sorted(batch, key=lambda item: (-len(members[item]), rank[item])):
            name = chosen[group] = best(group, trait)
            room[name] -= len(members[group])
            for present, count in traits[group].items():
                wish[name, present] -= count
            left.remove(group)
    return chosen


def make_split(
    rows: Sequence[Mapping[str, Any]],
    groups: Groups,
    labels: Mapping[str, set[str]],
    params: Params,
) -> dict[str, str]:
    """A split for every patient; `labels` are the present labels by study.

    Raises `CheckError` for a group that swallows the cohort and `InputError` for too few patients.
    """
    import numpy as np

    members = groups.members()
    total = sum(len(patients) for patients in members.values())
    largest = max(members.values(), key=len)
    if len(largest) > 1 and len(largest) > params.max_group_fraction * total:
        raise CheckError(
            f"{len(largest)} of {total} patients are joined by near-duplicate reports or volumes",
            key=largest[0],
            rule="split.group",
            fix="tighten split.similarity, or take the copied reports or volumes out of the source",
        )
    paired = {row["patient_key"] for row in rows if row["paired"]}
    traits: dict[str, Counter[str]] = {group: Counter() for group in members}
    for row in rows:
        group = groups.find(row["patient_key"])
        traits[group].update({f"label:{name}" for name in labels.get(row["study_key"], ())})
        traits[group][f"provenance:{row['provenance']}"] += 1
    with_text = {group: who for group, who in members.items() if paired & set(who)}
    pool = with_text or members
    generator = np.random.default_rng(params.seed)
    patients = sum(map(len, pool.values()))
    if params.fold is None:
        wanted = targets(patients, params.fractions, params.min_patients)
        chosen = assign(pool, traits, wanted, generator)
    else:
        count = params.fold.count
        wanted = {str(part): patients // count + (part < patients % count) for part in range(count)}
        parts = assign(pool, traits, wanted, generator)
        chosen = {group: params.fold.side(part) for group, part in parts.items()}
        wanted = dict.fromkeys(SPLITS, params.min_patients)
    sizes = Counter(chosen[group] for group in pool for _ in pool[group])
    for name in wanted:
        if sizes[name] < params.min_patients:
            raise InputError(
                f"groups of near-duplicates leave {name} with {sizes[name]} patients",
                rule="split.too_few",
                fix=f"add patients, or set split.fractions.{name} to another share",
            )
    chosen |= dict.fromkeys(members.keys() - pool.keys(), "train")
    return {patient: chosen[group] for group, whole in members.items() for patient in whole}


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Divide the accepted series, refuse leaks, write split.parquet; returns counts."""
    from components.base.files import read_table
    from components.cohort.leaks import leaks_between, report_texts, require_no_leaks
    from components.cohort.manifest import read_rows, write_rows

    folder = context.artifacts("deidentify")
    manifest = read_rows(folder / "manifest.parquet", "deidentified_manifest")
    accepted = _column(context, "check_volumes", "series_key")
    with_report = _column(context, "check_reports", "study_key")
    index = {
        row["series_key"]: row
        for row in read_table(context.artifacts("preprocess") / "index.parquet").to_pylist()
        if row["series_key"] in accepted
    }
    rows = [
        {name: row[name] for name in ("study_key", "patient_key", "series_key", "provenance")}
        | {"paired": row["study_key"] in with_report}
        for row in sorted(manifest, key=lambda item: item["series_key"])
        if row["series_key"] in index
    ]
    if not rows:
        raise InputError(
            "no series passed the checks", rule="split.empty", fix="see the pages of check_volumes"
        )
    reports = [
        row for row in read_rows(folder / "reports.parquet", "reports") if row["study_key"] in with_report
    ]
    sections = read_table(context.artifacts("section") / "sections.parquet").to_pylist()
    texts = report_texts(reports, sections)
    labels: defaultdict[str, set[str]] = defaultdict(set)
    for row in read_rows(folder / "labels.parquet", "labels"):
        if row["value"] == 1:
            labels[row["study_key"]].add(row["name"])
    groups, joined = group_patients(rows, index, texts, params.similarity)
    sides = make_split(rows, groups, labels, params)
    table = [{**row, "split": sides[row["patient_key"]]} for row in rows]
    require_no_leaks(leaks_between(table, index.values(), texts, params.similarity))
    write_rows(context.out / "split.parquet", "split", table)
    return _metrics(table, groups, joined)


def _column(context: StepContext, stage: str, name: str) -> set[str]:
    from components.base.files import read_table

    return set(read_table(context.artifacts(stage) / "accepted.parquet").column(name).to_pylist())


def _metrics(table: Sequence[Mapping[str, Any]], groups: Groups, joined: Mapping[str, int]) -> dict[str, Any]:
    members = groups.members()
    found: dict[str, Any] = {
        "groups": len(members),
        "largest_group": max(map(len, members.values())),
        "joined_by_reports": joined["reports"],
        "joined_by_volumes": joined["volumes"],
        "leaks": 0,
    }
    for name in SPLITS:
        rows = [row for row in table if row["split"] == name]
        found[name] = {
            "patients": len({row["patient_key"] for row in rows}),
            "studies": len({row["study_key"] for row in rows}),
            "series": len(rows),
            "paired_studies": len({row["study_key"] for row in rows if row["paired"]}),
        }
    return found


STEP = Step("split", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
