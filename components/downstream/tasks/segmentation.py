"""Segmentation: the vision encoder with a decoder on its scales, fine-tuned whole with Dice + cross-entropy.

Source: VELVET-Med's downstream set-up (Swin-UNETR, DiceCE, foreground-balanced crops, AdamW, cosine). No flips:
left and right organs are different classes. `init: random` is the arm without pre-training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from components.base.config import Config
from components.base.errors import InputError, TrainingError
from components.base.files import write_text
from components.downstream.tasks import TASKS

if TYPE_CHECKING:
    import torch

    from components.base.step import StepContext
    from components.downstream.inputs import DownstreamInputs, StudyRow

POINTS_PER_CLASS = 64


class SegmentationParams(Config):
    """What is segmented, on how much of the training masks, and how the network is trained."""

    mask: str
    init: Literal["pretrained", "random"]
    fraction: float = Field(gt=0, le=1)
    width: int = Field(ge=4)
    full_resolution: bool
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    encoder_lr_factor: float = Field(ge=0)
    weight_decay: float = Field(ge=0)
    foreground: float = Field(ge=0, le=1)
    intensity_shift: float = Field(ge=0)
    overlap: float = Field(ge=0, lt=1)
    validation_volumes: int = Field(ge=0)
    seed: int


class Crops:
    """Random crops of the contract's size: with probability `foreground` centred on a voxel of a random class."""

    def __init__(self, params: SegmentationParams, inputs: DownstreamInputs, rows: list[StudyRow]) -> None:
        """Reads every mask once to remember up to 64 voxels of each class."""
        self.params, self.store = params, inputs.store()
        self.contract = inputs.encoder().contract
        self.rows = rows
        names: dict[str, None] = {}
        self.values: list[dict[int, str]] = [self.store.masks(row.series_key)[params.mask] for row in rows]
        for labels in self.values:
            names.update(dict.fromkeys(label for _, label in sorted(labels.items())))
        self.classes = tuple(names)
        generator = np.random.default_rng(params.seed)
        self.points: list[list[np.ndarray]] = []
        for row, labels in zip(rows, self.values, strict=True):
            mask = self.store.read_mask(row.series_key, params.mask)
            found = []
            for value in sorted(labels):
                voxels = np.flatnonzero(mask == value)
                if len(voxels):
                    chosen = generator.choice(voxels, min(POINTS_PER_CLASS, len(voxels)), replace=False)
                    found.append(np.stack(np.unravel_index(np.sort(chosen), mask.shape), 1))
            self.points.append(found)

    def draw(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A crop: volume float32 [1, *size] and classes int64 [1, *size]."""
        from components.volumes.contract import scale

        at = int(generator.integers(len(self.rows)))
        series, size = self.rows[at].series_key, self.contract.size
        shape = self.store.shape(series)
        if self.points[at] and generator.random() < self.params.foreground:
            voxels = self.points[at][int(generator.integers(len(self.points[at])))]
            centre = voxels[int(generator.integers(len(voxels)))]
        else:
            centre = np.array([generator.integers(side) for side in shape])
        start = tuple(_start(int(middle), side, have) for middle, side, have in zip(centre, size, shape))
        volume = scale(self.store.read_box(series, start, size), self.contract)[None]
        shift = float(generator.uniform(-1, 1)) * self.params.intensity_shift
        low, high = self.contract.output_range
        volume = np.clip(volume + np.float32(shift * (high - low)), low, high).astype(np.float32)
        mask = self.store.read_mask_box(series, self.params.mask, start, size)
        return volume, to_classes(mask, self.values[at], self.classes)[None]


def to_classes(mask: np.ndarray, labels: Mapping[int, str], classes: tuple[str, ...]) -> np.ndarray:
    """A label map's values as the network's class numbers, int64; unknown labels become background."""
    table = np.zeros(256, dtype=np.int64)
    for value, label in labels.items():
        if label in classes:
            table[value] = classes.index(label) + 1
    return table[mask]


def _start(middle: int, side: int, have: int) -> int:
    """Where a box of `side` around `middle` begins: inside the volume if it fits, else centred on it."""
    if have <= side:
        return -((side - have) // 2)
    return min(max(middle - side // 2, 0), have - side)


def with_mask(inputs: DownstreamInputs, split: str, mask: str) -> list[StudyRow]:
    """The studies of a split whose series has the label map `mask`."""
    store = inputs.store()
    return [row for row in inputs.studies(split) if mask in store.masks(row.series_key)]


def _chosen(params: SegmentationParams, rows: list[StudyRow]) -> list[StudyRow]:
    """A seeded part of the training studies: `fraction` of them, at least one."""
    if not rows:
        raise InputError(
            f"no training study has a label map called {params.mask!r}",
            rule="segmentation.masks",
            fix="name one of the masks of the source in finetune.segmentation.mask",
        )
    count = max(1, round(params.fraction * len(rows)))
    order = np.random.default_rng([params.seed, 1]).permutation(len(rows))
    return [rows[at] for at in sorted(order[:count])]


def _network(params: SegmentationParams, inputs: DownstreamInputs, classes: tuple[str, ...]) -> Any:
    import torch

    from components.downstream.segmenter import Segmenter
    from components.encoders import build

    encoder = inputs.encoder()
    if params.init == "random":
        parts = {name: dict(encoder.config[name]) for name in ("vision", "text")}
        encoder = build(
            **parts,
            embed_dim=encoder.embed_dim,
            tokenizer=encoder.tokenizer,
            contract=encoder.contract,
            seed=params.seed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        return Segmenter(encoder.vision, encoder.contract.size, classes, params.width, params.full_resolution)


def _train(params: SegmentationParams, model: Any, crops: Crops, context: StepContext) -> list[float]:
    """Train in place; returns the loss of every step."""
    import torch
    from monai.losses import DiceCELoss

    encoder = list(model.vision.parameters())
    known = {id(value) for value in encoder}
    decoder = [value for value in model.parameters() if id(value) not in known]
    groups = [
        {"params": decoder, "lr": params.learning_rate},
        {"params": encoder, "lr": params.learning_rate * params.encoder_lr_factor},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=params.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.steps)
    measure = DiceCELoss(to_onehot_y=True, softmax=True)
    model.train()
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(params.seed)
        for step in range(params.steps):
            volume, target = _batch(params, crops, step)
            loss = measure(model(volume), target)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"the segmentation loss is not finite at step {step}",
                    rule="segmentation.loss",
                    fix="lower finetune.segmentation.learning_rate",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            context.progress(step + 1, params.steps, "steps", loss=round(losses[-1], 4))
    model.eval()
    return losses


def _batch(params: SegmentationParams, crops: Crops, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    generator = np.random.default_rng([params.seed, 2, step])
    drawn = [crops.draw(generator) for _ in range(params.batch_size)]
    volume, target = (np.stack(part) for part in zip(*drawn, strict=True))
    return torch.from_numpy(volume), torch.from_numpy(target)


def segment_study(model: Any, inputs: DownstreamInputs, row: StudyRow, overlap: float) -> np.ndarray:
    """The predicted classes uint8 [X, Y, Z] of a study, on the store's grid."""
    import torch

    from components.volumes.contract import scale

    volume = scale(inputs.store().read(row.series_key), inputs.encoder().contract)
    predicted: np.ndarray = model.segment(torch.from_numpy(volume), overlap).numpy()
    return predicted


def dice_by_class(predicted: np.ndarray, target: np.ndarray, count: int) -> np.ndarray:
    """Dice [count] of classes 1..count; NaN for a class that neither map has."""
    sums = []
    for one in range(1, count + 1):
        said, truth = predicted == one, target == one
        total = int(said.sum() + truth.sum())
        sums.append(2 * int((said & truth).sum()) / total if total else np.nan)
    return np.array(sums)


@TASKS.register("segmentation")
class Segmentation:
    """The task `segmentation`."""

    Params: ClassVar[type[Config]] = SegmentationParams

    @staticmethod
    def fit(params: SegmentationParams, inputs: DownstreamInputs, context: StepContext) -> Mapping[str, Any]:
        """Write `segmenter.safetensors`, `segmenter.json` and `curves.csv`; the metrics are validation's."""
        rows = _chosen(params, with_mask(inputs, "train", params.mask))
        crops = Crops(params, inputs, rows)
        model = _network(params, inputs, crops.classes)
        losses = _train(params, model, crops, context)
        model.save(context.out, mask=params.mask, init=params.init, overlap=params.overlap)
        lines = [f"{step},dice_ce,{loss:.6f}" for step, loss in enumerate(losses)]
        write_text(context.out / "curves.csv", "\n".join(["step,name,value", *lines]) + "\n")
        checked = with_mask(inputs, "validation", params.mask)[: params.validation_volumes]
        dice = []
        for row in checked:
            labels = inputs.store().masks(row.series_key)[params.mask]
            target = to_classes(inputs.store().read_mask(row.series_key, params.mask), labels, model.classes)
            predicted = segment_study(model, inputs, row, params.overlap)
            dice.append(dice_by_class(predicted, target, len(model.classes)))
        values = np.array(dice)
        return {
            "init": params.init,
            "training_volumes": len(rows),
            "classes": len(model.classes),
            "loss_first": float(np.mean(losses[:5])),
            "loss_last": float(np.mean(losses[-5:])),
            "validation_volumes": len(checked),
            "validation_mean_dice": float(np.nanmean(values)) if np.isfinite(values).any() else None,
            "parameters": sum(value.numel() for value in model.parameters()),
        }
