"""Run a tritonserver on this machine: `python -m serving.triton --repository artifacts/package/triton`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from components.base.errors import VelvetError


def main(argv: Sequence[str] | None = None) -> int:
    """Start the server, print its addresses, and stop it on SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="serving.triton", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("artifacts/package/triton"))
    parser.add_argument("--log", type=Path, default=Path("logs/triton.log"))
    parser.add_argument("--http-port", type=int, default=0, help="0: any free port")
    parser.add_argument("--grpc-port", type=int, default=0, help="0: any free port")
    parser.add_argument("--timeout", type=float, default=90.0, help="seconds until ready")
    args = parser.parse_args(argv)
    from serving.triton.launcher import start

    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        server = start(
            args.repository,
            log=args.log,
            timeout_s=args.timeout,
            http_port=args.http_port,
            grpc_port=args.grpc_port,
        )
    except VelvetError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    try:
        print(f"Triton: grpc {server.grpc}, http 127.0.0.1:{server.http_port} (Ctrl-C ends it)", flush=True)
        while not ended.wait(0.5) and server.process.poll() is None:
            pass
    finally:
        server.stop()
    return 0 if ended.is_set() else 1


if __name__ == "__main__":
    raise SystemExit(main())
