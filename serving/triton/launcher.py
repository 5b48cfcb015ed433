"""Start and stop a tritonserver on the loopback address: own session, own ports, own shared memory."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import ServiceError
from serving.triton.environment import PROJECT, ensure_environment

LOOPBACK = "127.0.0.1"
SHARED_MEMORY = Path("/dev/shm")


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports of the loopback address that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind((LOOPBACK, 0))
        return [int(item.getsockname()[1]) for item in sockets]


@dataclass
class TritonServer:
    """A running tritonserver; `grpc` is the address for `VELVET_TRITON`."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    log: Path
    prefix: str

    @property
    def grpc(self) -> str:
        """`host:port` of the gRPC endpoint."""
        return f"{LOOPBACK}:{self.grpc_port}"

    def model_ready(self, model: str) -> bool:
        """Whether the server answers and has the model loaded."""
        url = f"http://{LOOPBACK}:{self.http_port}/v2/models/{model}/ready"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self, patience_s: float = 15.0) -> None:
        """Interrupt, wait, kill what is left of the process group, and remove its shared memory."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(patience_s)
        for region in SHARED_MEMORY.glob(f"{self.prefix}*"):
            region.unlink(missing_ok=True)


def start(
    repository: Path,
    models: Sequence[str] = ("volume_encoder", "text_encoder"),
    *,
    log: Path,
    timeout_s: float = 90.0,
    http_port: int = 0,
    grpc_port: int = 0,
    root: Path = PROJECT,
) -> TritonServer:
    """Start tritonserver with the named models and wait until all are ready.

    A port of 0 means any free one. Raises `ServiceError` when the server ends early or is not ready in time;
    it is then stopped and leaves nothing behind.
    """
    if not repository.is_dir():
        raise ServiceError(
            "there is no Triton model repository at that path",
            rule="triton.repository",
            fix="run the stage `package`, then give --repository artifacts/package/triton",
        )
    environment = ensure_environment(root)
    http, grpc, metrics = free_ports(3)
    http, grpc = http_port or http, grpc_port or grpc
    prefix = f"velvet_triton_{secrets.token_hex(4)}_"
    backend_options = [
        f"--backend-config={name},shm-region-prefix-name={prefix}" for name in ("python", "onnxruntime")
    ]
    command = [
        str(environment.server),
        f"--model-repository={repository.resolve()}",
        f"--backend-directory={environment.backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={model}" for model in models),
        *(f"--{name}-address={LOOPBACK}" for name in ("http", "grpc", "metrics")),
        f"--http-port={http}",
        f"--grpc-port={grpc}",
        f"--metrics-port={metrics}",
        *backend_options,
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment.variables(),
            start_new_session=True,
        )
    server = TritonServer(process, http, grpc, log, prefix)
    try:
        _wait(server, models, timeout_s)
    except BaseException:
        server.stop(patience_s=3.0)
        raise
    return server


def _wait(server: TritonServer, models: Sequence[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServiceError(
                f"tritonserver ended with code {server.process.returncode}: {_reason(server.log)}",
                rule="triton.start",
                fix=f"read {server.log.name}; another port or the package built again may help",
            )
        if all(server.model_ready(model) for model in models):
            return
        time.sleep(0.1)
    raise ServiceError(
        f"tritonserver was not ready within {timeout_s:.0f} s: {_reason(server.log)}",
        rule="triton.timeout",
        fix=f"read {server.log.name}; on a slow machine give a longer --timeout",
    )


def _reason(log: Path) -> str:
    """The last error line of the log, without paths."""
    lines = [
        line for line in log.read_text(errors="replace").splitlines() if re.search(r"^[EF]\d|error:", line)
    ]
    return re.sub(r"\S*/\S*/\S*", "...", lines[-1].strip())[-160:] if lines else "no error in its log"


@contextlib.contextmanager
def running(repository: Path, log: Path, **options: float) -> Iterator[TritonServer]:
    """`start` as a context manager that always stops."""
    server = start(repository, log=log, **options)  # type: ignore[arg-type]
    try:
        yield server
    finally:
        server.stop()
