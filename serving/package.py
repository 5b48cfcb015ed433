"""Package the encoder that passed the gate: weights, card, ONNX with parity, Triton repository, Bento, and a seal.

python -m serving.package

`artifacts/package` is sealed as a whole (`components.release.bundle`): the same encoder gives the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from components.base.config import Config
from components.base.files import missing_input
from components.base.step import Step, StepContext
from serving.triton_repository import TritonOptions

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Feed = dict[str, npt.NDArray[Any]]

BUNDLE = (
    "encoder/config.json",
    "encoder/contract.json",
    "encoder/tokenizer.json",
    "onnx",
    "card.md",
    "model.json",
)
"""What a server needs of a package: everything but the PyTorch weights and the Triton repository."""


class Params(Config):
    """How the encoder is exported, checked and packed."""

    opset: int = Field(ge=18, le=23)
    max_parity_error: float = Field(gt=0)
    parity_batches: tuple[int, ...] = Field(min_length=1)
    seed: int
    bento: bool
    triton: TritonOptions


def run(params: Params, context: StepContext) -> Mapping[str, Any]:
    """Write `artifacts/package`; raises `GateError` where the gate did not pass, `ContractError` on bad parity."""
    from components.base.files import atomic_folder
    from components.evaluation.gate import require_model

    require_model(context.root)
    source = context.artifacts("pretrain") / "encoder"
    if not source.is_dir():
        raise missing_input(source)
    with atomic_folder(context.artifacts("package")) as out:
        return build(params, context, source, out)


def build(params: Params, context: StepContext, source: Path, out: Path) -> dict[str, Any]:
    """Fill the empty folder `out` and seal it; returns the stage's metrics."""
    from components.base.files import read_json, write_json, write_text
    from components.encoders import from_pretrained
    from components.release import bundle, card

    shutil.copytree(source, out / "encoder", copy_function=shutil.copyfile)
    encoder, model_hash = from_pretrained(out / "encoder"), bundle.model_hash(out / "encoder")
    context.progress(1, 4, "parts")
    parity = export_graphs(encoder, params, context, out)
    context.progress(2, 4, "parts")
    worst = max(row["max_abs_error"] for rows in parity.values() for row in rows)
    files = {path.relative_to(out).as_posix(): _sha256(path) for path in sorted(out.glob("onnx/*.onnx"))}
    files |= {f"encoder/{name}": _sha256(out / "encoder" / name) for name in bundle.ENCODER_FILES}
    facts = card.Facts(
        model_hash=model_hash,
        contract=encoder.contract.model_dump(mode="json"),
        config=encoder.config,
        cohort=card.cohort(context.artifacts("split") / "split.parquet"),
        metrics=card.read_metrics(context.artifacts("evaluate")),
        gate=read_json(context.artifacts("gate") / "verdict.json"),
        parity=worst,
        files=files,
        population=card.population(
            context.artifacts("split") / "split.parquet", context.artifacts("deidentify") / "manifest.parquet"
        ),
        people=card.people((context.all_params.get("ingest") or {}).get("sources") or ()),
        origin=card.origin((source / "card.md").read_text(encoding="utf-8")),
    )
    text = card.render(facts)
    write_text(out / "card.md", text)
    write_text(out / "encoder" / "card.md", text)
    write_json(out / "model.json", describe(encoder, model_hash, params, context, out))
    write_triton(encoder, model_hash, params, out)
    context.progress(3, 4, "parts")
    tag = None
    if params.bento:
        from serving import bento

        tag = bento.build(context.root, out, BUNDLE, model_hash)
        write_json(out / "bento.json", {"tag": tag})
    sizes = {path.stem: path.stat().st_size for path in sorted(out.glob("onnx/*.onnx"))}
    metrics = {"model_hash": model_hash, "max_parity_error": worst, "onnx_bytes": sizes, "bento": tag}
    write_json(out / "metrics.json", metrics)  # the frame writes the same bytes again; the seal covers them
    seal = bundle.seal(out)
    context.progress(4, 4, "parts")
    context.log.info("package %s sealed as %s, Bento %s", model_hash[:12], seal[:12], tag or "not asked for")
    return metrics


def export_graphs(
    encoder: Any, params: Params, context: StepContext, out: Path
) -> dict[str, list[dict[str, Any]]]:
    """Write both graphs and parity.json; raises `ContractError` above `max_parity_error`."""
    import numpy as np

    from components.base.files import write_json
    from serving import export

    generator = np.random.default_rng(params.seed)
    graphs = {
        "volume_encoder": (export.volume_graph(encoder), volume_feeds(encoder, params, context, generator)),
        "text_encoder": (export.text_graph(encoder), text_feeds(encoder, params, context, generator)),
    }
    report: dict[str, list[dict[str, Any]]] = {}
    for name, (module, feeds) in graphs.items():
        path = out / "onnx" / f"{name}.onnx"
        example = {key: np.concatenate([array[:1], array[:1]]) for key, array in feeds[0][1].items()}
        export.export(module, example, path, opset=params.opset)
        rows = export.parity(module, path, [feed for _, feed in feeds])
        report[name] = [{"input": kind, **row} for (kind, _), row in zip(feeds, rows)]
        context.log.info("%s: %.1f MB", path.name, path.stat().st_size / 1e6)
    export.require_parity(report, params.max_parity_error)
    write_json(out / "onnx" / "parity.json", {"limit": params.max_parity_error, "graphs": report})
    return report


def volume_feeds(
    encoder: Any, params: Params, context: StepContext, generator: np.random.Generator
) -> list[tuple[str, Feed]]:
    """Batches of random and of real volumes [B, 1, *size]."""
    import numpy as np

    from components.volumes.contract import model_input
    from components.volumes.store import VolumeStore

    contract = encoder.contract
    low, high = contract.output_range
    store = VolumeStore(context.artifacts("preprocess"))
    keys = store.keys()[: max(params.parity_batches)]
    real = np.stack([model_input(store.read(key), contract) for key in keys])
    feeds: list[tuple[str, Feed]] = []
    for batch in params.parity_batches:
        noise = generator.uniform(low, high, (batch, 1, *contract.size)).astype(np.float32)
        feeds += [
            ("random", {"volume": noise}),
            ("real", {"volume": np.resize(real, (batch, *real.shape[1:]))}),
        ]
    return feeds


def text_feeds(
    encoder: Any, params: Params, context: StepContext, generator: np.random.Generator
) -> list[tuple[str, Feed]]:
    """Batches of random and of real reports, padded to the tokenizer's length."""
    import numpy as np

    from components.base.files import read_table
    from serving.runtime import TEXT_INPUTS

    tokenizer = encoder.tokenizer
    length = tokenizer.max_length
    texts = read_table(context.artifacts("deidentify") / "reports.parquet")["text"].to_pylist()
    chosen = texts[: max(params.parity_batches)] or ["No acute abnormality."]
    real = tokenizer.encode_text(chosen, pad_to=length)
    feeds: list[tuple[str, Feed]] = []
    for batch in params.parity_batches:
        ids = generator.integers(0, tokenizer.vocab_size, (batch, length))
        lengths = generator.integers(2, length + 1, batch)[:, None]
        mask = (np.arange(length)[None] < lengths).astype(np.int64)
        noise = dict(zip(TEXT_INPUTS, (np.where(mask == 1, ids, tokenizer.pad_id), mask, mask)))
        copies = {name: np.resize(real[name], (batch, length)) for name in TEXT_INPUTS}
        feeds += [("real", copies), ("random", noise)]
    return feeds


def describe(
    encoder: Any, model_hash: str, params: Params, context: StepContext, out: Path
) -> dict[str, Any]:
    """`model.json`: what a server must know beside the contract and the tokenizer."""
    preprocess = context.all_params.get("preprocess") or {}
    return {
        "format": 1,
        "name": "velvet_encoder",
        "model_hash": model_hash,
        "vision": encoder.config["vision"]["name"],
        "text": encoder.config["text"]["name"],
        "embed_dim": encoder.embed_dim,
        "text_length": encoder.tokenizer.max_length,
        "logit_scale": 1.0 / float(encoder.tau.detach()),
        "opset": params.opset,
        "weights_sha256": _sha256(out / "encoder" / "model.safetensors"),
        "rules": preprocess.get("rules") or {},
        "limits": preprocess.get("limits") or {},
    }


def write_triton(encoder: Any, model_hash: str, params: Params, out: Path) -> None:
    """The Triton model repository of both graphs."""
    from serving.runtime import OUTPUT, TEXT_INPUTS
    from serving.triton_repository import TEXT, VOLUME, TensorSpec, write_model

    output = TensorSpec(OUTPUT, "TYPE_FP32", (encoder.embed_dim,))
    length = encoder.tokenizer.max_length
    inputs = {
        VOLUME: [TensorSpec("volume", "TYPE_FP32", (1, *encoder.contract.size))],
        TEXT: [TensorSpec(name, "TYPE_INT64", (length,)) for name in TEXT_INPUTS],
    }
    for name, specs in inputs.items():
        write_model(
            out / "triton", name, out / "onnx" / f"{name}.onnx", specs, output, model_hash, params.triton
        )


def _sha256(path: Path) -> str:
    from components.base.files import sha256_file

    return sha256_file(path)


STEP = Step("package", Params, run)

if __name__ == "__main__":
    raise SystemExit(STEP.main())
