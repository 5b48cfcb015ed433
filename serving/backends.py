"""Where the graphs run: ONNX Runtime in this process, or a Triton server over gRPC.

Both answer the same question, `run(graph, tensors) -> [B, P]`, and both say whether they are ready. A Triton that
is away is a `ServiceError` within a second, and is used again as soon as it is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from components.base.errors import ServiceError
from serving.runtime import GRAPHS, HASH_PARAMETER, OUTPUT, Package

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DATA_TYPES = {"float32": "FP32", "int64": "INT64"}
PROBE_TIMEOUT_S = 0.7
RECONNECT = [
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


class Backend(Protocol):
    """Runs the graphs of one package."""

    async def run(self, graph: str, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The embeddings [B, P] of a batch."""

    async def ready(self) -> bool:
        """Whether `run` would find the right model now."""

    async def close(self) -> None:
        """Let connections and sessions go."""


class OnnxBackend:
    """ONNX Runtime in this process; one batch of a graph at a time, off the event loop."""

    def __init__(self, package: Package, threads: int = 0) -> None:
        """Open both graphs on the CPU; `threads` 0 means all cores."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self.sessions = {
            graph: onnxruntime.InferenceSession(
                str(package.folder / path), options, providers=["CPUExecutionProvider"]
            )
            for graph, path in GRAPHS.items()
        }

    async def run(self, graph: str, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The embeddings [B, P] of a batch."""
        (output,) = await asyncio.to_thread(self.sessions[graph].run, [OUTPUT], dict(tensors))
        return output

    async def ready(self) -> bool:
        """Always: the sessions were opened from verified bytes."""
        return True

    async def close(self) -> None:
        """Nothing to let go."""


class TritonBackend:
    """A Triton server over gRPC; the client is made on the running loop at first use."""

    def __init__(self, address: str, package: Package, timeout_s: float = 60.0) -> None:
        """`address` is host:port of the gRPC endpoint."""
        self.address, self.package, self.timeout_s = address, package, timeout_s
        self._client: Any = None
        self._checked: set[str] = set()

    def _connection(self) -> Any:
        if self._client is None:
            from tritonclient.grpc.aio import InferenceServerClient

            self._client = InferenceServerClient(self.address, channel_args=RECONNECT)
        return self._client

    async def _require(self, graph: str) -> None:
        """Raise `ServiceError` unless Triton answers at once and serves this package's model."""
        try:
            client = self._connection()
            ready = await asyncio.wait_for(
                client.is_model_ready(graph, client_timeout=PROBE_TIMEOUT_S), PROBE_TIMEOUT_S
            )
            if ready and graph not in self._checked:
                await self._require_same(client, graph)
                self._checked.add(graph)
        except ServiceError:
            self._checked.clear()
            raise
        except Exception as error:
            self._checked.clear()  # another model may be there when it comes back
            raise ServiceError(
                f"Triton does not answer ({type(error).__name__})",
                rule="triton.down",
                fix="try again shortly; the service needs no restart once Triton is back",
            ) from None
        if not ready:
            self._checked.clear()
            raise ServiceError(
                f"Triton has not loaded {graph}",
                rule="triton.model",
                fix="point Triton at the package's folder `triton` and load both models",
            )

    async def _require_same(self, client: Any, graph: str) -> None:
        answer = await asyncio.wait_for(
            client.get_model_config(graph, client_timeout=PROBE_TIMEOUT_S), PROBE_TIMEOUT_S
        )
        served = answer.config.parameters[HASH_PARAMETER].string_value
        if served != self.package.model_hash:
            raise ServiceError(
                f"Triton serves the model {served[:12] or 'without a hash'}, "
                f"this package is {self.package.model_hash[:12]}",
                rule="triton.hash",
                fix="load the model repository of the same package into Triton",
            )

    async def run(self, graph: str, tensors: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The embeddings [B, P] of a batch; `ServiceError` if Triton is away, full or too slow."""
        from tritonclient.grpc.aio import InferInput

        await self._require(graph)
        inputs = []
        for name, array in tensors.items():
            tensor = InferInput(name, list(array.shape), DATA_TYPES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        try:
            answer = await self._connection().infer(graph, inputs, client_timeout=self.timeout_s)
        except Exception as error:
            raise ServiceError(
                f"Triton did not finish the request ({type(error).__name__})",
                rule="triton.infer",
                fix="try again shortly; if it stays so, read Triton's log",
            ) from None
        output: npt.NDArray[np.float32] = answer.as_numpy(OUTPUT)
        return output

    async def ready(self) -> bool:
        """Whether Triton serves both models of this package."""
        try:
            for graph in GRAPHS:
                await self._require(graph)
        except ServiceError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
            self._client = None
