"""A stand-in for Triton's ONNX Runtime backend, as a Python-based backend: CPU, for development and tests.

It serves an unmodified repository (`backend: "onnxruntime"`) where NVIDIA's own backend library is absent, and
is never part of a package. It runs inside Triton's Python stub, in Triton's environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

if int(np.__version__.split(".")[0]) >= 2:  # the stub of Triton 2.51 silently reads and writes wrong data
    raise RuntimeError("Triton's environment needs numpy < 2 (infra/triton/requirements.txt)")


class TritonPythonModel:
    """One instance of a model: joins requests of one shape into a batch, runs it, splits the outputs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open `MODEL/VERSION/model.onnx` with the thread counts of the model's configuration."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        options = onnxruntime.SessionOptions()
        parameters = config.get("parameters", {})
        for key, field in (("intra_op_thread_count", "intra_op_num_threads"),):
            if key in parameters:
                setattr(options, field, int(parameters[key]["string_value"]))
        path = Path(args["model_repository"]) / args["model_version"] / name
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = [item["name"] for item in config["input"]]
        self.outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request, in order; one bad batch fails its own requests only."""
        arrays = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for index, feed in enumerate(arrays):
            groups.setdefault(tuple(feed[name].shape[1:] for name in self.inputs), []).append(index)
        answers: list[Any] = [None] * len(requests)
        for members in groups.values():
            self._run(arrays, members, answers)
        return answers

    def _run(self, arrays: list[dict[str, Any]], members: list[int], answers: list[Any]) -> None:
        feed = {name: np.concatenate([arrays[index][name] for index in members]) for name in self.inputs}
        try:
            results = self.session.run(self.outputs, feed)
        except Exception as error:
            for index in members:
                problem = pb_utils.TritonError(type(error).__name__)
                answers[index] = pb_utils.InferenceResponse(output_tensors=[], error=problem)
            return
        start = 0
        for index in members:
            stop = start + len(arrays[index][self.inputs[0]])
            tensors = [
                pb_utils.Tensor(name, np.ascontiguousarray(value[start:stop]))
                for name, value in zip(self.outputs, results)
            ]
            answers[index], start = pb_utils.InferenceResponse(output_tensors=tensors), stop
