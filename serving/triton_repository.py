"""Write a Triton model repository: `MODEL/config.pbtxt` and `MODEL/1/model.onnx` for each graph.

The configuration asks for NVIDIA's ONNX Runtime backend, so the folder serves unchanged on a GPU server; where that
backend is absent, `serving.triton` brings a stand-in. Every configuration carries the model hash, which the
service compares before it calls itself ready.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from components.base.config import Config
from components.base.files import write_text
from serving.runtime import HASH_PARAMETER

VOLUME, TEXT = "volume_encoder", "text_encoder"


class TritonOptions(Config):
    """How Triton batches and places both models."""

    kind: Literal["KIND_CPU", "KIND_GPU", "KIND_AUTO"]
    instances: int = Field(ge=1)
    max_batch_size: int = Field(ge=1, le=1024)
    max_queue_delay_us: int = Field(ge=0)
    max_queue_size: int = Field(ge=1)
    threads: int = Field(ge=0)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor of a model without its batch axis, e.g. ("volume", "TYPE_FP32", (1, 64, 64, 64))."""

    name: str
    data_type: str
    dims: tuple[int, ...]

    def text(self) -> str:
        """The entry in config.pbtxt."""
        dims = ", ".join(map(str, self.dims))
        return f'  {{ name: "{self.name}" data_type: {self.data_type} dims: [ {dims} ] }}'


def configuration(
    name: str, inputs: Sequence[TensorSpec], output: TensorSpec, model_hash: str, options: TritonOptions
) -> str:
    """The text of a model's config.pbtxt."""
    entries = ",\n".join(spec.text() for spec in inputs)
    return f"""name: "{name}"
backend: "onnxruntime"
max_batch_size: {options.max_batch_size}
input [
{entries}
]
output [
{output.text()}
]
instance_group [
  {{ count: {options.instances} kind: {options.kind} }}
]
dynamic_batching {{
  max_queue_delay_microseconds: {options.max_queue_delay_us}
  default_queue_policy {{ max_queue_size: {options.max_queue_size} }}
}}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "{options.threads}" }} }}
parameters {{ key: "{HASH_PARAMETER}" value: {{ string_value: "{model_hash}" }} }}
"""


def write_model(
    repository: Path,
    name: str,
    onnx_file: Path,
    inputs: Sequence[TensorSpec],
    output: TensorSpec,
    model_hash: str,
    options: TritonOptions,
) -> None:
    """Write one model (version 1) into a repository."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    shutil.copyfile(onnx_file, version / "model.onnx")
    write_text(repository / name / "config.pbtxt", configuration(name, inputs, output, model_hash, options))
