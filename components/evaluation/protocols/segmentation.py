"""Segmentation on the test split: Dice, normalised surface dice and HD95 by class, on the store's grid.

A class that neither truth nor prediction has is left out of a study. One that only one of them has scores Dice 0
and NSD 0 and has no HD95; how often that was is stated. Surface distances by MONAI, in millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError
from components.base.files import write_bytes, write_json, write_table
from components.downstream.tasks.segmentation import dice_by_class, segment_study, to_classes, with_mask
from components.evaluation import statistics as st
from components.evaluation.protocols import PROTOCOLS
from components.evaluation.scoring import ProtocolParams, by_slice

if TYPE_CHECKING:
    from pathlib import Path

    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs, StudyRow

MEASURES = {"dice": "dice", "nsd": "nsd", "hd95": "mm"}
Labels = npt.NDArray[np.int64]


class SegmentationParams(ProtocolParams):
    """The tolerance of the surface dice, how many test studies are scored (0: all), how many shown as pictures."""

    tolerance_mm: float = Field(gt=0)
    max_studies: int = Field(ge=0)
    examples: int = Field(ge=0)


def surface_scores(
    predicted: Labels, target: Labels, count: int, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """NSD [count] and HD95 [count] in mm of classes 1..count (see the module for empty classes)."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    nsd, hd95 = np.full(count, np.nan), np.full(count, np.nan)
    for one in range(1, count + 1):
        said, truth = predicted == one, target == one
        if said.any() != truth.any():
            nsd[one - 1] = 0.0
        if not (said.any() and truth.any()):
            continue
        box = _bounds(said | truth)
        first, second = (torch.from_numpy(mask[box].copy())[None, None] for mask in (said, truth))
        surface = compute_surface_dice(
            first, second, [tolerance_mm], include_background=True, spacing=list(spacing_mm)
        )
        distance = compute_hausdorff_distance(
            first, second, include_background=True, percentile=95, spacing=list(spacing_mm)
        )
        nsd[one - 1], hd95[one - 1] = float(surface), float(distance)
    return nsd, hd95


def _bounds(mask: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """The box around a mask with one voxel of margin, where the volume allows it."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(used[0]) - 1), int(used[-1]) + 2))
    return tuple(box)


def _score(
    params: SegmentationParams, inputs: DownstreamInputs, context: StepContext
) -> tuple[list[StudyRow], dict[str, npt.NDArray[np.float64]], npt.NDArray[np.float64], Any]:
    """Every test study's scores [N, classes] by measure, each class's share of voxels, and the network."""
    from components.downstream.segmenter import load_segmenter

    model, settings = load_segmenter(inputs.artifact("finetune", "segmentation"), inputs.encoder().vision)
    studies = with_mask(inputs, "test", settings["mask"])
    if not studies:
        raise InputError(
            f"no test study has the label map {settings['mask']!r}",
            rule="segmentation.masks",
            fix="use more studies with masks, or a larger test fraction",
        )
    if params.max_studies:  # keyed ids are in no order of their own; patients stay whole but for the last
        studies = sorted(studies, key=lambda row: (row.patient_key, row.study_key))[: params.max_studies]
    count, store = len(model.classes), inputs.store()
    spacing = tuple(float(side) for side in store.contract.spacing_mm)
    rows: dict[str, list[Any]] = {name: [] for name in (*MEASURES, "share")}
    pictures: dict[str, npt.NDArray[Any]] = {}
    for done, row in enumerate(studies, 1):
        labels = store.masks(row.series_key)[settings["mask"]]
        target = to_classes(store.read_mask(row.series_key, settings["mask"]), labels, model.classes)
        predicted = segment_study(model, inputs, row, settings["overlap"]).astype(np.int64)
        rows["dice"].append(dice_by_class(predicted, target, count))
        nsd, hd95 = surface_scores(predicted, target, count, spacing, params.tolerance_mm)
        rows["nsd"].append(nsd)
        rows["hd95"].append(hd95)
        rows["share"].append([float((target == one).mean()) for one in range(1, count + 1)])
        if done <= params.examples:
            pictures |= _picture(store.read(row.series_key), target, predicted, f"{done:02d}")
        context.progress(done, len(studies))
    _write_pictures(context.out, pictures, studies[: params.examples], model.classes)
    arrays = {name: np.array(values) for name, values in rows.items()}
    return studies, {name: arrays[name] for name in MEASURES}, arrays["share"].mean(0), (model, settings)


def _picture(hu: npt.NDArray[Any], target: Labels, predicted: Labels, name: str) -> dict[str, Any]:
    """The axial and the coronal slice with most of the truth, with both label maps."""
    found = {}
    for view, axis in (("axial", 2), ("coronal", 1)):
        others = tuple(other for other in range(3) if other != axis)
        at = int((target > 0).sum(axis=others).argmax())
        for kind, array, dtype in (
            ("hu", hu, "int16"),
            ("target", target, "uint8"),
            ("predicted", predicted, "uint8"),
        ):
            found[f"{name}.{view}.{kind}"] = np.ascontiguousarray(array.take(at, axis=axis).astype(dtype))
    return found


def _write_pictures(
    folder: Path, pictures: dict[str, Any], studies: list[StudyRow], classes: tuple[str, ...]
) -> None:
    from safetensors.numpy import save

    write_bytes(folder / "examples.safetensors", save(pictures))
    keys = {f"{at:02d}": row.study_key for at, row in enumerate(studies, 1)}
    write_json(folder / "examples.json", {"studies": keys, "classes": classes})


def _mean_over_classes(values: npt.NDArray[np.float64]) -> st.Metric:
    """The mean over classes of each class's mean over studies [N, classes]."""
    columns = [np.flatnonzero(np.isfinite(values[:, one])) for one in range(values.shape[1])]
    return st.macro(
        (st.weighted_mean(values[rows, one]), rows) for one, rows in enumerate(columns) if len(rows)
    )


@PROTOCOLS.register("segmentation")
class Segmentation:
    """The protocol `segmentation`."""

    Params: ClassVar[type[Config]] = SegmentationParams

    @staticmethod
    def evaluate(
        params: SegmentationParams, inputs: DownstreamInputs, context: StepContext
    ) -> Mapping[str, Any]:
        """Write `predictions.parquet` and example slices; each measure by class and as the mean of classes."""
        studies, scores, share, (model, settings) = _score(params, inputs, context)
        estimate, patients = params.bootstrap().estimate, [row.patient_key for row in studies]
        trivial = 2 * share / (1 + share)  # the Dice of calling every voxel this class
        metrics: dict[str, Any] = {}
        for name, unit in MEASURES.items():
            chance = float(trivial.mean()) if name == "dice" else None
            mean = estimate(_mean_over_classes(scores[name]), patients, chance=chance, unit=unit)
            metrics[f"mean_{name}"] = mean.as_dict()
        classes: dict[str, dict[str, Any]] = {}
        for at, label in enumerate(model.classes):
            classes[label] = {}
            for name, unit in MEASURES.items():
                rows = np.flatnonzero(np.isfinite(scores[name][:, at]))
                of = [patients[row] for row in rows]
                chance = float(trivial[at]) if name == "dice" else None
                metric = st.weighted_mean(scores[name][rows, at])
                classes[label][name] = estimate(metric, of, chance=chance, unit=unit).as_dict()
            one_sided = np.isfinite(scores["nsd"][:, at]) & ~np.isfinite(scores["hd95"][:, at])
            classes[label]["studies_with_only_truth_or_prediction"] = int(one_sided.sum())
        _write(context.out, studies, scores, model.classes)
        metrics["slices"] = by_slice(
            params,
            studies,
            lambda rows: estimate(
                _mean_over_classes(scores["dice"][rows]),
                [patients[row] for row in rows],
                chance=float(trivial.mean()),
                unit="dice",
            ).as_dict(),
        )
        return {
            **metrics,
            "classes": classes,
            "mask": settings["mask"],
            "init": settings["init"],
            "tolerance_mm": params.tolerance_mm,
            "rule": "a class that truth and prediction both lack is left out; one that only one has scores 0, no HD95",
        }


def _write(folder: Path, studies: list[StudyRow], scores: dict[str, Any], classes: tuple[str, ...]) -> None:
    import pyarrow as pa

    rows = [
        {
            "study_key": row.study_key,
            "patient_key": row.patient_key,
            "class": label,
            **{name: _or_none(scores[name][at, column]) for name in MEASURES},
        }
        for at, row in enumerate(studies)
        for column, label in enumerate(classes)
    ]
    text = pa.string()
    fields = [("study_key", text), ("patient_key", text), ("class", text)]
    schema = pa.schema([*fields, *((name, pa.float64()) for name in MEASURES)])
    write_table(folder / "predictions.parquet", pa.Table.from_pylist(rows, schema=schema))


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
