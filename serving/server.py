"""Serve a package: `python -m serving.server` (= `make serve`), then POST to http://127.0.0.1:3000 or open /ui.

The package is verified before the server starts and again inside it. With --triton host:port tensors go to Triton.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import ServiceError, VelvetError

PROJECT = Path(__file__).resolve().parents[1]
DEFAULT_PACKAGE = Path("artifacts/package")


def require_free(host: str, port: int) -> None:
    """Raise `ServiceError` if the address cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceError(
                f"port {port} on {host} cannot be used: {error.strerror}",
                rule="serve.port",
                fix=f"stop what listens there (`ss -ltnp`), or give --port {port + 1 if port < 65535 else 3001}",
            ) from None


def prepare(package: Path, host: str, port: int, triton: str | None) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that serve `package`; raises a `VelvetError` where it cannot work."""
    from serving.bento import STORE, environment
    from serving.runtime import Package

    Package.open(package)
    require_free(host, port)
    variables = environment(PROJECT / STORE) | {"VELVET_PACKAGE": str(package.resolve())}
    variables.pop("VELVET_TRITON", None)
    if triton:
        name, _, number = triton.rpartition(":")
        if not name or not number.isdigit():
            raise ServiceError(
                "--triton is not host:port",
                rule="serve.triton",
                fix="give Triton's gRPC address, 127.0.0.1:8001",
            )
        variables["VELVET_TRITON"] = triton
    command = [sys.executable, "-m", "bentoml", "serve", "serving.service:VelvetEncoder"]
    return [*command, "--host", host, "--port", str(port), "--working-dir", str(PROJECT)], variables


@dataclass
class Server:
    """A running service in a session of its own."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> int:
        """The status of a GET, 0 where nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return int(error.code)
        except (urllib.error.URLError, OSError):
            return 0

    def wait(self, path: str, timeout_s: float) -> None:
        """Wait until a GET gives 200; `ServiceError` if the process ends or the time is up."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.get(path) == 200:
                return
            time.sleep(0.1)
        raise ServiceError(
            f"the service did not come up within {timeout_s:.0f} s",
            rule="serve.start",
            fix=f"read {self.log.name} in logs/",
        )

    def stop(self, patience_s: float = 15.0) -> None:
        """Ask it to end, then kill what is left of its process group."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(patience_s)


def launch(command: Sequence[str], variables: Mapping[str, str], url: str, log: Path) -> Server:
    """Start a server command in its own session, its output in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=dict(variables),
            start_new_session=True,
        )
    return Server(url, process, log)


@contextlib.contextmanager
def running(
    package: Path,
    *,
    log: Path,
    host: str = "127.0.0.1",
    port: int = 0,
    triton: str | None = None,
    variables: Mapping[str, str] | None = None,
    timeout_s: float = 90.0,
) -> Iterator[Server]:
    """Serve `package` while the block runs; ready (or, with Triton, alive) when it begins. Port 0: any free one."""
    if not port:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
    command, own = prepare(package, host, port, triton)
    server = launch(command, {**own, **(variables or {})}, f"http://{host}:{port}", log)
    try:
        server.wait("/livez" if triton else "/readyz", timeout_s)
        yield server
    finally:
        server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Verify, check the port, then become `bentoml serve`."""
    parser = argparse.ArgumentParser(prog="serving.server", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", type=Path, default=DEFAULT_PACKAGE, help="a sealed package")
    parser.add_argument(
        "--triton", metavar="HOST:PORT", help="Triton's gRPC address; default: ONNX Runtime here"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    args = parser.parse_args(argv)
    try:
        command, variables = prepare(args.package, args.host, args.port, args.triton)
    except VelvetError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    print(f"Velvet serves {args.package} on http://{args.host}:{args.port} (web page: /ui/)", flush=True)
    os.execve(command[0], command, variables)


if __name__ == "__main__":
    raise SystemExit(main())
