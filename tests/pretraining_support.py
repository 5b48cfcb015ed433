"""A tiny cohort on disk and tiny parameters, for tests of pre-training that need the whole stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from components.base.files import write_json, write_table
from components.base.step import StepContext

SIDES = ("left", "right")
LEVELS = ("upper", "middle", "lower")
CONTRACT = {
    "orientation": "RAS",
    "spacing_mm": [4.0, 4.0, 4.0],
    "size": [32, 32, 32],
    "hu_window": [-1000.0, 1000.0],
    "output_range": [0.0, 1.0],
    "padding": "minimum",
    "view": "crop_or_pad",
    "report_fields": ["findings", "impression"],
    "tokenizer_hash": None,
    "prompt_set": None,
    "data_hash": "0" * 16,
}
VISION = {
    "name": "swin",
    "patch": 2,
    "window": 2,
    "embed_dim": 4,
    "depths": [1, 1, 1, 1],
    "heads": [1, 1, 2, 2],
    "mlp_ratio": 2.0,
    "drop_path": 0.0,
    "gradient_checkpointing": False,
}
TEXT = {
    "name": "tribert",
    "hidden": 16,
    "layers": 1,
    "multimodal_layers": 1,
    "heads": 2,
    "ffn": 32,
    "max_positions": 64,
    "max_sentences": 8,
    "dropout": 0.1,
    "layer_norm_eps": 1e-12,
    "initial_weights": None,
}
PARAMS: dict[str, Any] = {
    "seed": 3,
    "vision": VISION,
    "text": TEXT,
    "embed_dim": 8,
    "tokenizer": {
        "folder": None,
        "vocab_size": 200,
        "max_length": 64,
        "max_sentences": 8,
        "max_sentence_pieces": 40,
    },
    "objectives": {
        "report_contrast": {},
        "sentence_region": {"dim": 8},
        "word_patch": {"dim": 8},
        "vision_contrast": {"dim": 8},
        "rotation": {},
        "inpainting": {},
        "masked_language": {},
    },
    "standardise_input": True,
    "crop_size": [32, 32, 32],
    "augment": {"cut": 0.1, "gain": 0.1, "offset": 0.05, "noise": 0.05, "keep_sentences": 0.6},
    "batch_size": 4,
    "image_only_fraction": 0.25,
    "num_steps": 20,
    "learning_rate": 0.001,
    "final_learning_rate": 1e-8,
    "warmup_steps": 2,
    "betas": [0.9, 0.98],
    "weight_decay": 0.02,
    "clip_gradient": 1.0,
    "precision": "32-true",
    "accelerator": "cpu",
    "strategy": "auto",
    "devices": 1,
    "num_threads": 1,
    "num_workers": 0,
    "cache_bytes": 10_000_000,
    "log_every_steps": 1,
    "validate_every_steps": 10,
    "checkpoint_every_steps": 5,
    "keep": "last",
    "resume": "auto",
}


SECTIONS = ("study_key", "order", "name", "text")
SENTENCES = ("study_key", "section", "order", "start", "end", "text")
NUMBERS = {"order", "start", "end"}


def _schema(names: tuple[str, ...]) -> Any:
    import pyarrow as pa

    return pa.schema([(name, pa.int64() if name in NUMBERS else pa.string()) for name in names])


def context_at(root: Path) -> StepContext:
    """A context for the stage below `root` with a quiet log."""
    log = logging.getLogger("velvet.test-pretrain")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return StepContext(root, "pretrain", None, log)


def volume_of(seed: int, side: int, level: int) -> np.ndarray:
    """A body of water in air with a dense ball on one side at one level: int16 HU [36, 34, 33]."""
    rng = np.random.default_rng(seed)
    hu = np.full((36, 34, 33), -1000.0) + rng.normal(0, 20, (36, 34, 33))
    hu[4:32, 4:30, 2:31] += 1000
    x, y, z = (12, 26)[side], 17, (27, 17, 7)[level]
    grid = np.indices(hu.shape)
    hu[((grid - np.array([x, y, z])[:, None, None, None]) ** 2).sum(0) < 20] += 600
    return np.clip(hu, -1024, 3071).astype(np.int16)


def write_cohort(root: Path, num_paired: int = 18, num_image_only: int = 4) -> None:
    """The artifacts of split, section and preprocess for a cohort whose reports say side and level."""
    import pyarrow as pa

    from components.base.files import write_text
    from components.cohort.manifest import write_rows
    from components.volumes.contract import Contract
    from components.volumes.store import array_sha256, write_array

    contract = Contract.model_validate(CONTRACT)
    preprocess = root / "artifacts" / "preprocess"
    index, split, sentences, sections, reports = [], [], [], [], []
    for number in range(num_paired + num_image_only):
        study, patient, series = (f"{kind}_{number:016x}" for kind in ("stu", "pat", "ser"))
        side, level = number % 2, number % 3
        hu = volume_of(number, side, level)
        digest = write_array(preprocess / "store" / f"{series}.b2nd", hu, {"kind": "hu"})
        row = {"study_key": study, "patient_key": patient, "series_key": series}
        index.append(
            {
                **row,
                "shape": list(hu.shape),
                "content_sha256": array_sha256(hu, contract),
                "file_sha256": digest,
                "spacing_mm": CONTRACT["spacing_mm"],
                "masks_json": "{}",
                "average_hash": np.random.default_rng(number).bytes(256).hex(),
            }
        )
        paired = number < num_paired
        name = "validation" if number % 6 == 5 else "train"
        split.append({**row, "split": name, "paired": paired, "provenance": "synthetic"})
        told = [
            f"There is a dense nodule on the {SIDES[side]}.",
            f"It lies at the {LEVELS[level]} level.",
            f"Table position {number}.",
        ]
        for order, text in enumerate(told if paired else []):
            sentences.append(
                {
                    "study_key": study,
                    "section": "findings",
                    "order": order,
                    "start": 40 * order,
                    "end": 40 * order + len(text),
                    "text": text,
                }
            )
        if paired:
            text = " ".join(told)
            reports.append({"study_key": study, "text": text})
            sections.append({"study_key": study, "order": 0, "name": "findings", "text": text})
    write_table(preprocess / "index.parquet", pa.Table.from_pylist(index))
    write_json(preprocess / "contract.json", contract.model_dump(mode="json"))
    write_rows(root / "artifacts" / "split" / "split.parquet", "split", split)
    write_rows(root / "artifacts" / "deidentify" / "reports.parquet", "reports", reports)
    write_table(
        root / "artifacts" / "section" / "sections.parquet", pa.Table.from_pylist(sections, _schema(SECTIONS))
    )
    write_table(
        root / "artifacts" / "section" / "sentences.parquet",
        pa.Table.from_pylist(sentences, _schema(SENTENCES)),
    )
    import yaml

    write_text(root / "params.yaml", yaml.safe_dump({"pretrain": PARAMS}))
