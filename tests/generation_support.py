"""Small generative projects and models for the tests of report generation and visual question answering."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.base.files import read_table, write_json, write_table
from components.cohort.manifest import write_rows
from components.downstream.inputs import DownstreamInputs
from components.downstream.settings import DecoderParams, DecodingParams, FittingParams
from tests.evaluation_support import PARAMS, build_project
from tests.pretraining_support import CONTRACT, TEXT, VISION

REPORTS = [
    ["There is a left pleural effusion.", "No lung nodule."],
    ["There is a nodule in the right upper lobe.", "No pleural effusion."],
    ["The heart is enlarged.", "No lung nodule."],
    ["There is consolidation in the left lower lobe.", "No pleural effusion."],
]
DECODER: dict[str, Any] = {
    "layers": 1,
    "hidden": 32,
    "heads": 2,
    "ffn": 64,
    "dropout": 0.0,
    "max_length": 40,
}
FITTING: dict[str, Any] = {
    "steps": 6,
    "batch_size": 4,
    "learning_rate": 0.005,
    "warmup_steps": 2,
    "weight_decay": 0.0001,
    "clip_gradient": 1.0,
    "validate_every_steps": 3,
    "device": "cpu",
    "seed": 3,
}
GREEDY = DecodingParams(beams=1, no_repeat_ngram=0, length_penalty=1.0, max_tokens=40)
BLOCKS: dict[str, Any] = {
    "finetune": {
        "report_generation": {
            **FITTING,
            "scale": 0,
            "grid": 2,
            "decoder": DECODER,
            "label_smoothing": 0.0,
            "selection": "loss",
        },
        "vqa": {
            **FITTING,
            "labels": "gold",
            "kinds": ["yes_no", "closed", "open"],
            "min_train": 2,
            "scale": 0,
            "grid": 2,
            "decoder": DECODER,
            "threshold": "youden",
            "validation_questions": 12,
        },
    },
    "evaluate": {
        "report_generation": {
            "resamples": 100,
            "seed": 3,
            "min_slice_patients": 3,
            "decoding": {"beams": 2, "no_repeat_ngram": 4, "length_penalty": 1.0, "max_tokens": 12},
            "min_test": 1,
            "chance_draws": 2,
            "bertscore_model": None,
            "device": "cpu",
        },
        "vqa": {
            "resamples": 100,
            "seed": 3,
            "min_slice_patients": 3,
            "decoding": {"beams": 1, "no_repeat_ngram": 0, "length_penalty": 1.0, "max_tokens": 6},
            "min_test": 1,
            "device": "cpu",
        },
    },
}


def fitting(**changes: Any) -> FittingParams:
    """The training parameters with some changed."""
    return FittingParams(**{**FITTING, **changes})


def decoder(**changes: Any) -> DecoderParams:
    """The decoder's sizes with some changed."""
    return DecoderParams(**{**DECODER, **changes})


def report_of(number: int) -> tuple[list[str], dict[str, int], str]:
    """A study's report, its gold labels, and the side of its nodule ("" for none)."""
    nodule, effusion = number % 2 == 0, number // 2 % 2 == 0
    side = ("left", "right")[number // 4 % 2] if nodule else ""
    told = [
        f"There is a nodule in the {side} upper lobe." if nodule else "No lung nodule.",
        "There is a pleural effusion." if effusion else "No pleural effusion.",
    ]
    chest = number % 3 == 0
    labels = {"Lung nodule": int(nodule), "Pleural effusion": int(effusion)}
    return told, {**labels, "region=chest": int(chest), "region=abdomen": int(not chest)}, side


def generative_project(root: Path, num_patients: int = 15) -> Path:
    """A project of small volumes whose reports, findings and labels agree; with the tasks' blocks."""
    from components.encoders import build
    from components.encoders.tokenization import ReportTokenizer
    from components.volumes.contract import Contract

    build_project(root, num_patients)
    artifacts = root / "artifacts"
    studies = read_table(artifacts / "split" / "split.parquet").to_pylist()
    tables: dict[str, list[dict[str, Any]]] = {"sentences": [], "findings": [], "labels": []}
    for number, row in enumerate(sorted(studies, key=lambda row: row["study_key"])):
        study = {"study_key": row["study_key"]}
        told, labels, side = report_of(number)
        tables["labels"] += [{**study, "name": name, "value": value} for name, value in labels.items()]
        if not row["paired"]:
            continue
        for at, text in enumerate(told):
            place = {"section": "findings", "order": at, "start": 60 * at, "end": 60 * at + 9}
            tables["sentences"].append({**study, **place, "text": text})
            name = ("Lung nodule", "Pleural effusion")[at]
            status = "present" if labels[name] else "absent"
            found = {"finding": name, "status": status, "sentence_order": at}
            tables["findings"].append({**study, **found, "laterality": side if at == 0 else ""})
    write_rows(artifacts / "deidentify" / "labels.parquet", "labels", tables["labels"])
    for name in ("sentences", "findings"):
        write_table(artifacts / "section" / f"{name}.parquet", pa.Table.from_pylist(tables[name]))
    words = [row["text"] for row in tables["sentences"]]
    tokenizer = ReportTokenizer.train(words, 120, max_length=64, max_sentences=8, max_sentence_pieces=40)
    encoder = build(VISION, TEXT, 8, tokenizer, Contract.model_validate(CONTRACT), seed=1)
    encoder.save_pretrained(artifacts / "pretrain" / "encoder", card="# a test's encoder")
    values = copy.deepcopy(PARAMS)
    for stage, blocks in BLOCKS.items():
        values[stage] |= blocks
    write_json(root / "params.yaml", values)
    return root


def inputs_of(root: Path) -> DownstreamInputs:
    """The inputs of a project, freshly opened."""
    return DownstreamInputs(root)
