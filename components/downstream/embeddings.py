"""Frozen embeddings of the cohort: computed in fixed batches, kept under the hash of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any

from components.base.errors import InputError
from components.base.files import write_bytes
from components.downstream.inputs import BATCH_VOXELS, EMBEDDINGS_VERSION, MAX_BATCH, Embeddings
from components.downstream.reading import Reading, Resolution, encoder_files, open_reading

if TYPE_CHECKING:
    from pathlib import Path

    from components.downstream.inputs import DownstreamInputs

TEXT_BATCH = 32


def load_or_compute(inputs: DownstreamInputs, resolution: Resolution = "training") -> Embeddings:
    """The cohort's embeddings, from `.velvet/cache/embeddings/HASH.safetensors` or computed and kept there.

    `resolution` evaluation reads the finer store in windows of the encoder's size. `ContractError` where a store was
    not made by the encoder's contract.
    """
    reading = open_reading(inputs, resolution)
    studies = tuple(inputs.split())
    reports = tuple(sorted(inputs.sentences()))
    path = inputs.root / ".velvet" / "cache" / "embeddings" / f"{cache_key(inputs, reading)}.safetensors"
    found = _read(path, len(studies), len(reports))
    if found is None:
        found = {**embed_volumes(inputs, list(studies), reading), **embed_reports(inputs, list(reports))}
        _write(path, found)
    return Embeddings(studies=studies, reports=reports, **found)


def cache_key(inputs: DownstreamInputs, reading: Reading | None = None) -> str:
    """The SHA-256 of encoder, contract, volumes (by content), how they are read, and report text."""
    reading = reading or open_reading(inputs, "training")
    volumes = [[key, row.series_key, reading.content(row.series_key)] for key, row in inputs.split().items()]
    text = sorted(inputs.sentences().items())
    parts = [EMBEDDINGS_VERSION, MAX_BATCH, BATCH_VOXELS, encoder_files(inputs), volumes, text]
    if reading.window is not None:
        parts += [reading.contract.part(), reading.window]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def embed_volumes(
    inputs: DownstreamInputs, studies: list[str], reading: Reading | None = None
) -> dict[str, Any]:
    """`projected`, `pooled` and `scales` of each study's series, by one forward pass a volume or window."""
    import numpy as np
    import torch

    from components.encoders.dense import features_of

    encoder, split = inputs.encoder(), inputs.split()
    reading = reading or open_reading(inputs, "training")
    size = max(1, min(MAX_BATCH, BATCH_VOXELS // math.prod(reading.contract.size)))
    parts: dict[str, list[Any]] = {"projected": [], "pooled": [], "scales": []}
    with torch.inference_mode():
        for start in range(0, len(studies), size):
            keys = [split[key].series_key for key in studies[start : start + size]]
            batch = torch.from_numpy(np.stack([reading.volume(key) for key in keys]))
            features = features_of(encoder.vision, batch, reading.window)
            projected = encoder.project_volume(features)
            means = [scale.float().flatten(2).mean(2) for scale in features.scales]
            for name, value in zip(parts, (projected, features.pooled, torch.cat(means, 1)), strict=True):
                parts[name].append(value.float().numpy())
    return {name: _finite(np.concatenate(arrays), name) for name, arrays in parts.items()}


def embed_reports(inputs: DownstreamInputs, studies: list[str]) -> dict[str, Any]:
    """`report`: the projected text of each of these studies."""
    import numpy as np
    import torch

    from components.encoders.features import TextBatch

    encoder, text = inputs.encoder(), inputs.sentences()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(studies), TEXT_BATCH):
            batch = [text[key] for key in studies[start : start + TEXT_BATCH]]
            tokens = TextBatch.from_arrays(encoder.tokenizer.encode(batch))
            parts.append(encoder.encode_text(tokens).float().numpy())
    return {"report": _finite(np.concatenate(parts), "report") if parts else np.zeros((0, 0), np.float32)}


def _finite(values: Any, name: str) -> Any:
    import numpy as np

    if not np.isfinite(values).all():
        raise InputError(
            f"the encoder gives {name} features that are not finite",
            rule="embeddings.finite",
            fix="look at the curves of pretrain; train again with a lower learning rate",
        )
    return np.ascontiguousarray(values, dtype=np.float32)


def _read(path: Path, studies: int, reports: int) -> dict[str, Any] | None:
    """The cached arrays, or None if there are none or they are damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.exists():
        return None
    try:
        found = load_file(path)
    except (SafetensorError, OSError):
        return None
    sizes = {name: value.shape[0] for name, value in found.items()}
    wanted = {"projected": studies, "pooled": studies, "scales": studies, "report": reports}
    return found if sizes == wanted else None


def _write(path: Path, arrays: dict[str, Any]) -> None:
    from safetensors.numpy import save

    write_bytes(path, save(arrays))
