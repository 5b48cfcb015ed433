"""Retrieval needs no training: the gallery of volume and report embeddings, sealed by hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.base.files import write_bytes, write_json
from components.downstream.reading import Resolution
from components.downstream.tasks import TASKS

if TYPE_CHECKING:
    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs


class RetrievalParams(Config):
    """Which splits go into the gallery, and at which resolution their volumes are read."""

    splits: tuple[Literal["train", "validation", "test"], ...] = Field(min_length=1)
    resolution: Resolution = "training"


@TASKS.register("retrieval")
class Retrieval:
    """The task `retrieval`: it chooses nothing, and so may hold the test split."""

    Params: ClassVar[type[Config]] = RetrievalParams

    @staticmethod
    def fit(params: RetrievalParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write `gallery.safetensors` (volume, report [N, P], unit rows) and `gallery.json` (study keys, hashes)."""
        from safetensors.numpy import save

        embeddings, text = inputs.embeddings(params.resolution), inputs.sentences()
        rows = [
            row
            for part in params.splits
            for row in inputs.studies(part, paired=True)
            if row.study_key in text
        ]
        if not rows:
            raise InputError(
                f"no study of {', '.join(params.splits)} has a report",
                rule="retrieval.empty",
                fix="choose other splits in finetune.retrieval.splits, or use paired data",
            )
        keys = [row.study_key for row in rows]
        arrays = {"volume": embeddings.rows(keys), "report": embeddings.rows(keys, "report")}
        arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
        write_bytes(context.out / "gallery.safetensors", save(arrays))
        write_json(
            context.out / "gallery.json",
            {
                "model_sha256": inputs.model_hash(),
                "resolution": params.resolution,
                "studies": [
                    {"study_key": row.study_key, "patient_key": row.patient_key, "split": row.split}
                    for row in rows
                ],
                "report_sha256": [report_hash(text[key]) for key in keys],
                "tensor_sha256": {
                    name: hashlib.sha256(value.tobytes()).hexdigest()
                    for name, value in sorted(arrays.items())
                },
            },
        )
        counts = {part: sum(row.split == part for row in rows) for part in params.splits}
        return {"studies": counts, "dimension": int(arrays["volume"].shape[1])}


def report_hash(sentences: list[str]) -> str:
    """The SHA-256 of a report's text without regard to case and white space: equal reports have equal hashes."""
    return hashlib.sha256(" ".join(" ".join(sentences).lower().split()).encode()).hexdigest()
