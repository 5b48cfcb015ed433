"""What tasks and protocols read: the encoder, the store, the split, labels, findings, text and embeddings.

Everything is opened on first use and kept. Embeddings are computed once for all tasks and protocols and kept in
`.velvet/cache/embeddings/`, under a name that is the hash of all they depend on: the encoder's files (the contract
among them), every volume's content and every report's text. A damaged file there is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from components.base.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from components.base.step import StepContext
    from components.downstream.reading import Resolution
    from components.volumes.contract import Contract

T = TypeVar("T")
EMBEDDINGS_VERSION = 1  # part of the cache's name: raise it when what is computed changes
MAX_BATCH = 8
BATCH_VOXELS = 2**23  # voxels of a batch; a function of the contract alone, so that bytes do not vary
SPLITS = ("train", "validation", "test")
DESCRIBED = ("sex", "age_band", "source", "provenance")


@dataclass(frozen=True)
class StudyRow:
    """A study as it is scored: one series speaks for it (the finest in-plane spacing, then the key)."""

    study_key: str
    patient_key: str
    series_key: str
    split: str
    paired: bool
    provenance: str
    sex: str | None
    age_band: str | None
    source: str | None


@dataclass(frozen=True)
class Embeddings:
    """Frozen features: a row per study in `studies`, and one per report in `reports` (study keys).

    `projected` [N, P] and `report` [M, P] are L2-normalised; `pooled` [N, E] is the vision encoder's own pooled
    feature; `scales` [N, C_1 + ... + C_n] is the mean over space of each of its scales.
    """

    studies: tuple[str, ...]
    reports: tuple[str, ...]
    projected: npt.NDArray[np.float32]
    pooled: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    report: npt.NDArray[np.float32]

    def rows(self, studies: list[str], name: str = "projected") -> npt.NDArray[np.float32]:
        """The features called `name` of these studies, in their order."""
        position = {key: row for row, key in enumerate(self.reports if name == "report" else self.studies)}
        found: npt.NDArray[np.float32] = getattr(self, name)[[position[key] for key in studies]]
        return found


class DownstreamInputs:
    """Opens the artifacts below `root` lazily; a missing one is an `InputError` that says which stage to run."""

    def __init__(self, root: Path) -> None:
        """`root` is the project's root."""
        self.root = root
        self._kept: dict[str, Any] = {}

    @classmethod
    def of(cls, context: StepContext) -> DownstreamInputs:
        """The inputs of a running stage."""
        return cls(context.root)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    def artifact(self, *parts: str) -> Path:
        """A path below artifacts/."""
        return self.root.joinpath("artifacts", *parts)

    def rows(self, *parts: str) -> list[dict[str, Any]]:
        """The rows of a Parquet table below artifacts/."""
        from components.base.files import read_table

        return self._once("/".join(parts), lambda: read_table(self.artifact(*parts)).to_pylist())

    def encoder_folder(self) -> Path:
        """The folder that `from_pretrained` reads."""
        return self.artifact("pretrain", "encoder")

    def encoder(self) -> Any:
        """The pre-trained `DualEncoder`, in evaluation mode."""
        from components.base.files import missing_input
        from components.encoders import from_pretrained

        if not self.encoder_folder().is_dir():
            raise missing_input(self.encoder_folder())
        return self._once("encoder", lambda: from_pretrained(self.encoder_folder()))

    def contract(self) -> Contract:
        """The encoder's preprocessing contract, read without loading the encoder."""
        from components.volumes.contract import Contract

        return self._once("contract", lambda: Contract.load(self.encoder_folder() / "contract.json"))

    def model_hash(self) -> str:
        """The SHA-256 of the pre-trained weights: the name by which gate and champion know a model."""
        from components.base.files import missing_input, sha256_file

        path = self.encoder_folder() / "model.safetensors"
        if not path.exists():
            raise missing_input(path)
        return self._once("model_hash", lambda: sha256_file(path))

    def store(self) -> Any:
        """The `VolumeStore` that preprocess wrote."""
        from components.base.files import missing_input
        from components.volumes.store import VolumeStore

        folder = self.artifact("preprocess")
        if not (folder / "index.parquet").is_file():
            raise missing_input(folder / "index.parquet")
        return self._once("store", lambda: VolumeStore(folder))

    def index(self) -> dict[str, dict[str, Any]]:
        """The store's index by series."""
        return self._once(
            "index", lambda: {row["series_key"]: row for row in self.rows("preprocess", "index.parquet")}
        )

    def split(self) -> dict[str, StudyRow]:
        """Every study of the split by its key, in the order of the keys."""
        return self._once("split", self._read_split)

    def studies(self, split: str, *, paired: bool = False) -> list[StudyRow]:
        """The studies of one split; with `paired`, only those that have a report."""
        return [row for row in self.split().values() if row.split == split and (row.paired or not paired)]

    def _read_split(self) -> dict[str, StudyRow]:
        index = self.index()
        described = {row["series_key"]: row for row in self.rows("deidentify", "manifest.parquet")}

        def fineness(row: Mapping[str, Any]) -> tuple[float, str]:
            spacing = index.get(row["series_key"], {}).get("native_spacing_mm") or [math.inf] * 2
            return float(spacing[0]) * float(spacing[1]), row["series_key"]

        chosen: dict[str, StudyRow] = {}
        for row in sorted(
            self.rows("split", "split.parquet"), key=lambda row: (row["study_key"], *fineness(row))
        ):
            about = described.get(row["series_key"], {})
            chosen.setdefault(
                row["study_key"],
                StudyRow(
                    **{
                        name: row[name]
                        for name in ("study_key", "patient_key", "series_key", "split", "paired")
                    },
                    provenance=row["provenance"],
                    sex=about.get("sex"),
                    age_band=about.get("age_band"),
                    source=about.get("source"),
                ),
            )
        if not chosen:
            raise InputError(
                "the split holds no study", rule="split.empty", fix="see the quarantine tables of the checks"
            )
        return chosen

    def labels(self, source: str = "gold") -> dict[str, dict[str, int]]:
        """Label -> study -> 1 or 0, from `gold` labels or from the `report`'s findings.

        A group label `group=value` that is present makes the group's other values absent. `uncertain` and
        `not_mentioned` findings are unlabelled.
        """
        return self._once(f"labels-{source}", lambda: self._read_labels(source))

    def _read_labels(self, source: str) -> dict[str, dict[str, int]]:
        known = self.split()
        found: dict[str, dict[str, int]] = {}
        if source == "gold":
            triples = [
                (row["name"], row["study_key"], row["value"])
                for row in self.rows("deidentify", "labels.parquet")
            ]
        else:
            said = {"present": 1, "absent": 0}
            triples = [
                (row["finding"], row["study_key"], said[row["status"]])
                for row in self.findings()
                if row["status"] in said
            ]
        for name, study, value in triples:
            if study in known:
                found.setdefault(name, {})[study] = int(value)
        for names in groups_of(found).values():
            for study in {key for name in names for key, value in found[name].items() if value == 1}:
                for name in names:
                    found[name].setdefault(study, 0)
        return {name: found[name] for name in sorted(found)}

    def findings(self) -> list[dict[str, Any]]:
        """The rows of section's findings table."""
        return self.rows("section", "findings.parquet")

    def sentences(self) -> dict[str, list[str]]:
        """The sentences of each paired study, of the sections that the contract names, in their order."""
        return self._once("sentences", self._read_sentences)

    def _read_sentences(self) -> dict[str, list[str]]:
        fields = {str(name) for name in self.contract().report_fields}
        known = {key for key, row in self.split().items() if row.paired}
        chosen: dict[str, list[str]] = {}
        rows = self.rows("section", "sentences.parquet")
        for row in sorted(rows, key=lambda row: (row["study_key"], row["order"], row["start"])):
            if row["study_key"] in known and row["section"] in fields and row["text"].strip():
                chosen.setdefault(row["study_key"], []).append(row["text"])
        return chosen

    def provenance(self, splits: tuple[str, ...] = SPLITS) -> dict[str, int]:
        """How many studies of these splits are real and how many synthetic."""
        counts: dict[str, int] = {}
        for row in self.split().values():
            if row.split in splits:
                counts[row.provenance] = counts.get(row.provenance, 0) + 1
        return dict(sorted(counts.items()))

    def data_hash(self, split: str = "test") -> str:
        """16 hex digits of what a split is made of: its studies, their volumes' content and their text."""
        index, text = self.index(), self.sentences()
        rows = [
            [row.study_key, index[row.series_key]["content_sha256"], text.get(row.study_key, [])]
            for row in self.studies(split)
        ]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def embeddings(self, resolution: Resolution = "training") -> Embeddings:
        """Frozen features of every study and report (see `Embeddings`), from the cache where it has them.

        With `evaluation` volumes come from the finer store, in windows (`components.downstream.reading`).
        """
        from components.downstream.embeddings import load_or_compute

        return self._once(f"embeddings-{resolution}", lambda: load_or_compute(self, resolution))


def groups_of(names: Mapping[str, Any] | list[str]) -> dict[str, list[str]]:
    """Group -> its label names, for labels of the form `group=value`."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        group, mark, _ = name.partition("=")
        if mark:
            groups.setdefault(group, []).append(name)
    return groups
