"""The model card: what the encoder is, what it was made from, how well it does, and what it is not for.

Every number is read from the artifacts of the run, so that a card cannot disagree with its model. It holds no
identifier of a patient, study or series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.base.errors import CheckError
from components.base.files import missing_input, read_json, read_table

NOTICE = """For research use only. Not a medical device, not cleared or approved by any authority, not for clinical
use: no result may guide the care of a person. Whoever uses the weights on people's data answers for consent, law and
ethics."""
BIAS = """How well the encoder does on people, scanners, protocols, languages and diseases that its training data did
not hold is not known; expect less where they differ, and measure by group before any study. Labels and reports carry
the habits of those who wrote them."""
POPULATION = "Training population"
"""The heading under which an encoder's own card says whom its weights were trained on (converted weights do)."""
SMALLEST_COUNT = 5  # patients; a smaller group is not counted out in a card that leaves the house
NOT_FOR = """- Not a medical device. Not for diagnosis, triage, treatment, or any other clinical use.
- Not for identifying a person, and not for scans or reports from which identifiers were not removed.
- Not for other modalities, body regions or languages than those of the training data."""
LIMITS = """- Scores of prompts are relative to the prompts given with them; they are not probabilities of disease.
- The embedding sees the field of view and the resolution of the contract below; smaller findings may be lost.
- De-identification of the training reports is automatic; treat weights as sensitive as its audit says."""


@dataclass(frozen=True)
class Facts:
    """What a card tells: plain data, read by `collect`."""

    model_hash: str
    contract: Mapping[str, Any]
    config: Mapping[str, Any]
    cohort: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Mapping[str, Any]]
    gate: Mapping[str, Any]
    parity: float
    population: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    people: tuple[str, ...] = ()
    origin: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def cohort(split: Path) -> dict[str, dict[str, Any]]:
    """Counts of patients, studies, series, paired and synthetic series for each split of split.parquet.

    Raises `CheckError` where a patient is in two splits.
    """
    counts: dict[str, dict[str, Any]] = {}
    rows = read_table(split).to_pylist()
    for name in ("train", "validation", "test"):
        chosen = [row for row in rows if row["split"] == name]
        counts[name] = {
            "patients": len({row["patient_key"] for row in chosen}),
            "studies": len({row["study_key"] for row in chosen}),
            "series": len(chosen),
            "paired": sum(bool(row["paired"]) for row in chosen),
            "synthetic": sum(row["provenance"] == "synthetic" for row in chosen),
        }
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient_key"], set()).add(row["split"])
    shared = sum(len(found) > 1 for found in splits.values())
    if shared:
        raise CheckError(
            f"{shared} patients are in more than one split",
            rule="card.leak",
            fix="run split again; a card must not be written for a model that was tested on its training patients",
        )
    return counts


def population(split: Path, manifest: Path) -> dict[str, dict[str, int]]:
    """Training patients by source, provenance, sex and age band; `unknown` where the manifest does not say."""
    trained = {row["series_key"] for row in read_table(split).to_pylist() if row["split"] == "train"}
    rows = [row for row in read_table(manifest).to_pylist() if row["series_key"] in trained]
    counts: dict[str, dict[str, int]] = {}
    for name in ("source", "provenance", "sex", "age_band"):
        groups: dict[str, set[str]] = {}
        for row in rows:
            groups.setdefault(row[name] or "unknown", set()).add(row["patient_key"])
        counts[name] = {value: len(groups[value]) for value in sorted(groups)}
    return counts


def people(sources: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """What `ingest.sources` says of whom each source's data are of (`population`), once each."""
    return tuple(dict.fromkeys(str(source["population"]) for source in sources if source.get("population")))


def origin(card: str) -> str:
    """The section of an encoder's own card on the people that its weights were trained on; empty without one."""
    _, mark, rest = card.partition(f"\n## {POPULATION}\n")
    return rest.partition("\n## ")[0].strip() if mark else ""


def read_metrics(folder: Path) -> dict[str, dict[str, Any]]:
    """`metrics.json` of every protocol below artifacts/evaluate; none at all is an `InputError`."""
    found = {path.parent.name: dict(read_json(path)) for path in sorted(folder.glob("*/metrics.json"))}
    if not found:
        raise missing_input(folder / "PROTOCOL" / "metrics.json")
    return found


def measured(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every metric with a value and an interval in a (nested) mapping, with its dotted name."""
    for name in sorted(metrics):
        value = metrics[name]
        if isinstance(value, Mapping):
            if {"value", "low", "high"} <= value.keys():
                yield f"{prefix}{name}", value
            else:
                yield from measured(value, f"{prefix}{name}.")


def render(facts: Facts) -> str:
    """The card as Markdown."""
    vision, text = facts.config.get("vision", {}), facts.config.get("text", {})
    synthetic = sum(int(part["synthetic"]) for part in facts.cohort.values())
    warning = (
        "\n> **Part or all of the data are synthetic phantoms: the numbers below say that the software works, "
        "nothing about patients.**\n"
        if synthetic
        else ""
    )
    parts = [
        f"# Velvet dual encoder `{facts.model_hash[:12]}`",
        "Embeddings of 3D CT and of radiology reports in one space of unit vectors.",
        warning,
        f"## Research use only\n\n{NOTICE}",
        "## Intended use\n\nResearch: retrieval, zero-shot scoring and linear probes on de-identified CT and reports.",
        f"## Not intended for\n\n{NOT_FOR}",
        f"## Model\n\nVision `{vision.get('name')}`, text `{text.get('name')}`, "
        f"{facts.config.get('embed_dim')} dimensions. ONNX differs from PyTorch by at most {facts.parity:.1e}.",
        f"## Training and test data\n\n{_cohort_table(facts.cohort)}",
        f"## Populations and bias\n\n{_population(facts)}",
        f"## Results\n\n{_metrics_table(facts.metrics)}",
        f"## Release gate\n\n{_gate(facts.gate)}",
        f"## Preprocessing contract\n\n{_listing(facts.contract)}",
        f"## Limits\n\n{LIMITS}",
        f"## Files\n\n{_listing(facts.files)}",
    ]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"


def _cohort_table(counts: Mapping[str, Mapping[str, Any]]) -> str:
    columns = ("patients", "studies", "series", "paired", "synthetic")
    lines = ["| split | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(str(row[key]) for key in columns) + " |" for name, row in counts.items()
    ]
    return "\n".join(lines) + "\n\nNo patient is in two splits. `paired` series have a report."


def _population(facts: Facts) -> str:
    parts = [facts.origin] if facts.origin else []
    if facts.people:
        parts.append(f"The training data are of: {'; '.join(facts.people)}.")
    elif not facts.origin:
        parts.append("Where the people of the training data live was not stated (`population` of a source).")
    if facts.population:
        lines = ["| training patients | group | count |", "|---|---|---|"]
        for name, groups in facts.population.items():
            for value, count in groups.items():
                shown = str(count) if count >= SMALLEST_COUNT else f"fewer than {SMALLEST_COUNT}"
                lines.append(f"| {name.replace('_', ' ')} | {value} | {shown} |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, BIAS])


def _metrics_table(protocols: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["| protocol | metric | value | 95 % interval | chance | n | patients |", "|---" * 7 + "|"]
    for protocol, metrics in protocols.items():
        for name, metric in measured(metrics):
            cells = [_number(metric.get(key)) for key in ("value", "low", "high", "chance")]
            interval = f"{cells[1]} to {cells[2]}"
            counts = f"{metric.get('n', '-')} | {metric.get('n_patients', '-')}"
            lines.append(f"| {protocol} | {name} | {cells[0]} | {interval} | {cells[3]} | {counts} |")
    return "\n".join(lines) + "\n\nIntervals: bootstrap over patients."


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _gate(verdict: Mapping[str, Any]) -> str:
    passed = verdict.get("passed", verdict.get("pass"))
    reasons = [str(item) for item in verdict.get("reasons", [])]
    return "\n".join([f"Passed: {'yes' if passed else 'no'}.", *(f"- {reason}" for reason in reasons)])


def _listing(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- `{key}`: {values[key]}" for key in values)
