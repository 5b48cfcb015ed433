"""A small project on disk, as the stages up to pretrain leave it, for tests of tasks, protocols and the gate."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.base.files import sha256_file, write_json, write_table, write_text
from components.base.step import StepContext
from components.cohort.manifest import write_rows
from tests.pretraining_support import CONTRACT, TEXT, VISION

CLASSES = {1: "liver", 2: "spleen", 3: "spine"}
PARAMS: dict[str, Any] = {
    "finetune": {
        "retrieval": {"splits": ["validation", "test"]},
        "classification": {
            "labels": "gold",
            "features": "scales",
            "inverse_regularisation": [0.01, 1.0],
            "selection": "auroc",
            "threshold": "youden",
            "balanced": True,
            "min_train": 2,
            "min_validation": 1,
            "max_iterations": 500,
        },
        "segmentation": {
            "mask": "organs",
            "init": "pretrained",
            "fraction": 0.5,
            "width": 4,
            "full_resolution": True,
            "steps": 6,
            "batch_size": 1,
            "learning_rate": 0.005,
            "encoder_lr_factor": 0.5,
            "weight_decay": 0.0001,
            "foreground": 0.7,
            "intensity_shift": 0.05,
            "overlap": 0.25,
            "validation_volumes": 2,
            "seed": 3,
        },
    },
    "evaluate": {
        "retrieval": {
            "resamples": 200,
            "seed": 3,
            "min_slice_patients": 3,
            "ks": [1, 5],
            "labels": "gold",
            "neighbours": 3,
        },
        "zero_shot": {
            "resamples": 200,
            "seed": 3,
            "min_slice_patients": 3,
            "labels": "gold",
            "prompt_set": "reports-1",
            "threshold": "youden",
            "min_validation": 1,
            "min_test": 2,
        },
        "linear_probe": {"resamples": 200, "seed": 3, "min_slice_patients": 3, "min_test": 2},
        "segmentation": {
            "resamples": 200,
            "seed": 3,
            "min_slice_patients": 3,
            "tolerance_mm": 2.0,
            "max_studies": 0,
            "examples": 2,
        },
    },
    "gate": {
        "rules": {
            "linear_probe.macro_auroc": {"min": 0.5, "above_chance": True, "max_drop": 0.02},
            "segmentation.mean_dice": {"min": 0.0},
        },
        "checks": ["check_cohort", "check_reports", "check_volumes"],
        "other_test_data": "note",
        "report_examples": 2,
    },
}


def params(**changes: Any) -> dict[str, Any]:
    """The parameters with dotted keys (`__` for the dots) set."""
    values = copy.deepcopy(PARAMS)
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        target = values
        for part in parents:
            target = target[part]
        target[last] = value
    return values


def context_at(root: Path, stage: str, item: str | None = None) -> StepContext:
    """A context for a stage below `root` with a quiet log."""
    log = logging.getLogger("velvet.test-evaluation")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    return StepContext(root, stage, item, log, PARAMS)


def volume_of(seed: int, nodule: bool, region: str) -> tuple[np.ndarray, np.ndarray]:
    """int16 HU and uint8 labels [32, 32, 32] (one window): a body with three organs, perhaps a bright nodule."""
    rng = np.random.default_rng(seed)
    shape = (32, 32, 32)
    hu, mask = np.full(shape, -1000.0), np.zeros(shape, np.uint8)
    hu[3:30, 4:30, 1:31] = -700 if region == "chest" else 30
    mask[20:30, 10:24, 4:14], mask[6:12, 8:16, 6:13], mask[16:20, 5:9, 1:31] = 1, 2, 3
    for value, level in ((1, 60), (2, 90), (3, 400)):
        hu[mask == value] = level
    if nodule:
        grid = np.indices(shape)
        centre = np.array([12 + int(rng.integers(-2, 3)), 18, 22])
        hu[((grid - centre[:, None, None, None]) ** 2).sum(0) < 25] = 900
    hu += rng.normal(0, 15, shape)
    return np.clip(hu, -1024, 3071).astype(np.int16), mask


def _report(
    study: dict[str, str], nodule: bool, region: str, tables: dict[str, list[dict[str, Any]]]
) -> None:
    """The report of a study, with its sentences and findings."""
    told = [f"CT of the {region}.", "There is a nodule." if nodule else "No nodule is seen."]
    tables["reports"].append({**study, "text": " ".join(told)})
    tables["sentences"] += [
        {**study, "section": "findings", "order": at, "start": 30 * at, "end": 30 * at + 9, "text": text}
        for at, text in enumerate(told)
    ]
    status = "present" if nodule else "absent"
    tables["findings"].append({**study, "finding": "lung_nodule", "status": status, "sentence_order": 1})


def _study(
    number: int, patient: int, contract: Any, preprocess: Path, tables: dict[str, list[dict[str, Any]]]
) -> None:
    """Study `number` of a patient: its volume and mask in the store, its rows in every table."""
    from components.volumes.store import array_sha256, write_array

    part = ("train", "train", "validation", "test", "test")[patient % 5]
    series = f"ser_{number:016x}"
    study = {"study_key": f"stu_{number:016x}"}
    row = {**study, "patient_key": f"pat_{patient:016x}", "series_key": series}
    nodule, region = number % 3 == 0, ("chest", "abdomen")[number // 2 % 2]
    hu, mask = volume_of(number, nodule, region)
    volume_hash, mask_hash = (
        write_array(preprocess / "store" / f"{series}{name}.b2nd", array, {"kind": kind})
        for name, array, kind in (("", hu, "hu"), (".organs", mask, "mask"))
    )
    listed = {"organs": {"labels": {str(v): n for v, n in CLASSES.items()}, "file_sha256": mask_hash}}
    stored = {
        "shape": list(hu.shape),
        "content_sha256": array_sha256(hu, contract),
        "file_sha256": volume_hash,
    }
    spacing = {"spacing_mm": CONTRACT["spacing_mm"], "native_spacing_mm": [0.8, 0.8, 2.0]}
    tables["index"].append({**row, **stored, **spacing, "masks_json": json.dumps(listed)})
    paired = number % 7 != 6
    tables["split"].append({**row, "split": part, "paired": paired, "provenance": "synthetic"})
    described = {"modality": "CT", "source": "phantom", "provenance": "synthetic", "masks": []}
    file = {
        "volume_path": f"restricted/ingest/volumes/{series}.nii.gz",
        "volume_sha256": hashlib.sha256(hu.tobytes()).hexdigest(),
    }
    person = {"sex": "MF"[patient % 2], "age_band": ("40-49", "60-69")[patient % 2]}
    tables["manifest"].append({**row, **described, **file, **person})
    labels = {"lung_nodule": int(nodule), "region=chest": int(region == "chest"), "hernia": 0}
    labels["region=abdomen"] = 1 - labels["region=chest"]
    tables["labels"] += [{**study, "name": name, "value": value} for name, value in labels.items()]
    if paired:
        _report(study, nodule, region, tables)


def build_project(root: Path, num_patients: int = 26) -> Path:
    """Every artifact that finetune, evaluate and gate read; patients have one or two studies each."""
    from components.encoders import build
    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

    contract = Contract.model_validate(CONTRACT)
    preprocess = root / "artifacts" / "preprocess"
    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("index", "split", "manifest", "labels", "reports", "sentences", "findings")
    }
    patients = [patient for patient in range(num_patients) for _ in range(1 + patient % 2)]
    for number, patient in enumerate(patients):
        _study(number, patient, contract, preprocess, tables)
    _write(root, tables)
    write_json(preprocess / "contract.json", contract.model_dump(mode="json"))
    tokenizer = ReportTokenizer.train(
        [row["text"] for row in tables["reports"]],
        200,
        max_length=64,
        max_sentences=8,
        max_sentence_pieces=40,
    )
    encoder = build(VISION, TEXT, 8, tokenizer, contract, seed=1)
    encoder.save_pretrained(root / "artifacts" / "pretrain" / "encoder", card="# a test's encoder")
    write_text(root / "artifacts" / "pretrain" / "curves.csv", "step,name,value\n1,total,2.5\n2,total,2.1\n")
    for check in ("check_cohort", "check_reports", "check_volumes"):
        write_json(root / "artifacts" / check / "result.json", {"success": True})
    write_json(root / "infra" / "champion.json", {"champion": None})
    write_json(root / "params.yaml", PARAMS)
    return root


def _write(root: Path, tables: dict[str, list[dict[str, Any]]]) -> None:
    artifacts = root / "artifacts"
    write_table(artifacts / "preprocess" / "index.parquet", pa.Table.from_pylist(tables["index"]))
    write_rows(artifacts / "split" / "split.parquet", "split", tables["split"])
    write_rows(artifacts / "deidentify" / "manifest.parquet", "deidentified_manifest", tables["manifest"])
    for name in ("labels", "reports"):
        write_rows(artifacts / "deidentify" / f"{name}.parquet", name, tables[name])
    for name in ("sentences", "findings"):
        write_table(artifacts / "section" / f"{name}.parquet", pa.Table.from_pylist(tables[name]))


def run_stage(root: Path, stage: str, item: str | None = None, *options: str) -> int:
    """The exit code of a stage's command line."""
    from components.downstream import finetune
    from components.evaluation import evaluate, gate

    step = {"finetune": finetune.STEP, "evaluate": evaluate.STEP, "gate": gate.STEP}[stage]
    chosen = [f"--{step.item}", item] if step.item and item else []
    return step.main([*chosen, "--root", str(root), "--debug", *options])


def tree_hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
