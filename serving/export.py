"""Export both encoders to ONNX and measure how far ONNX Runtime is from PyTorch.

A graph's output is the L2-normalised embedding [B, P]; its batch axis is free, every other axis is the contract's.
The exporter writes stack traces and names of its own into the file; they are stripped, so that the same weights
give the same bytes on any machine.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.base.errors import ContractError, InputError
from serving.runtime import OUTPUT

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from torch import nn

MAX_EXPORT_BATCH = 1024
LARGEST_BYTES = 2_000_000_000  # a protobuf message ends at 2 GiB; larger weights would need external data


def volume_graph(model: Any) -> nn.Module:
    """A module volume [B, 1, *size] -> embedding [B, P] around a `DualEncoder`."""
    from torch import Tensor, nn

    class VolumeGraph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, volume: Tensor) -> Tensor:
            return self.model.encode_volume(volume)

    return VolumeGraph().eval()


def text_graph(model: Any) -> nn.Module:
    """A module input_ids, token_type_ids, attention_mask [B, L] -> embedding [B, P] around a `DualEncoder`."""
    import torch
    from torch import Tensor, nn

    from components.encoders.features import TextBatch

    class TextGraph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Tensor, token_type_ids: Tensor, attention_mask: Tensor) -> Tensor:
            batch = TextBatch(input_ids, token_type_ids, attention_mask, torch.full_like(input_ids, -1))
            return self.model.encode_text(batch)

    return TextGraph().eval()


def export(module: nn.Module, example: Mapping[str, np.ndarray], path: Path, *, opset: int) -> None:
    """Write `module` as ONNX with a free batch axis; `example` holds one array [2, ...] for each input, in order.

    Raises `InputError` when the weights do not fit into one file.
    """
    import torch

    weights = sum(item.numel() * item.element_size() for item in module.state_dict().values())
    if weights > LARGEST_BYTES:
        raise InputError(
            f"the weights have {weights / 1e9:.1f} GB, an ONNX file holds 2 GB",
            rule="export.size",
            fix="package a smaller encoder, or export in half precision",
        )
    batch = torch.export.Dim("batch", min=1, max=MAX_EXPORT_BATCH)
    tensors = {name: torch.from_numpy(array) for name, array in example.items()}
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            tuple(tensors.values()),
            dynamo=True,
            opset_version=opset,
            input_names=list(tensors),
            output_names=[OUTPUT],
            dynamic_shapes=tuple({0: batch} for _ in tensors),
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise InputError(
            "the exporter gave no graph", rule="export.graph", fix="report this encoder as a defect"
        )
    graph = program.model_proto
    strip(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(graph.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes (packages that are absent, deprecations of its own) out of the log."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def strip(model: onnx.ModelProto) -> None:
    """Remove doc strings and metadata (stack traces, paths of the machine) from a graph, in place."""
    model.ClearField("metadata_props")
    model.doc_string = ""
    for owner in (model.graph, *model.functions):
        owner.doc_string = ""
        owner.ClearField("metadata_props")
        for node in owner.node:
            node.doc_string = ""
            node.ClearField("metadata_props")
            for attribute in node.attribute:
                attribute.doc_string = ""
        for value in owner.value_info:
            value.doc_string = ""
            value.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        value.ClearField("metadata_props")
    for tensor in model.graph.initializer:
        tensor.doc_string = ""
        tensor.ClearField("metadata_props")


def session(path: Path, threads: int = 0) -> Any:
    """An ONNX Runtime session on the CPU; `threads` 0 means all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def parity(module: nn.Module, path: Path, inputs: Sequence[Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """The largest absolute difference of PyTorch and ONNX Runtime for each batch of `inputs`."""
    import numpy as np
    import torch

    runtime, rows = session(path), []
    for feed in inputs:
        with torch.no_grad():
            expected = module(*(torch.from_numpy(array) for array in feed.values())).numpy()
        (found,) = runtime.run([OUTPUT], dict(feed))
        error = float(np.max(np.abs(found - expected))) if np.isfinite(found).all() else float("inf")
        rows.append(
            {
                "batch": len(expected),
                "max_abs_error": error if found.shape == expected.shape else float("inf"),
            }
        )
    return rows


def require_parity(report: Mapping[str, Sequence[Mapping[str, Any]]], limit: float) -> float:
    """The largest error of a report `graph -> rows`; above `limit` (or not a number) it is a `ContractError`."""
    errors = [(float(row["max_abs_error"]), name) for name, rows in report.items() for row in rows]
    bad = [item for item in errors if not item[0] <= limit]  # catches NaN, which `max` may pass over
    worst, where = max(bad or errors)
    if bad:
        raise ContractError(
            f"ONNX and PyTorch differ by {worst:.2e} in {where}, {limit:.0e} is allowed",
            rule="export.parity",
            fix="check the encoder for random or data-dependent steps in evaluation mode",
        )
    return worst
