"""How the stage becomes several processes: one command, whoever gives it (a person, DVC, Prefect, torchrun).

With `pretrain.devices` 1 the stage is this process. With more, the command starts as many ranks of itself on this
machine, passes SIGTERM on to them, and ends with the exit code of the first rank that failed. A rank that torchrun
started finds its place in the environment and starts nothing. For several machines give the torchrun of node 0 in
`VELVET_LAUNCH` ("torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint node0:29500 ..."): the stage becomes that
command, under DVC too; the other nodes run the same torchrun themselves (docs/training.md).
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.base.step import Step

MODULE = "components.pretraining.pretrain"
PATIENCE_S = 30.0
POLL_S = 0.05
PARENT = "VELVET_RANKS_OF"
PR_SET_PDEATHSIG = 1
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}


def main(step: Step) -> int:
    """Run the stage in this process or in as many as its parameters ask for; returns the exit code."""
    arguments = sys.argv[1:]
    if "RANK" in os.environ:
        _end_with_parent()
        return step.main()
    if {"-h", "--help"} & set(arguments):
        return step.main()
    launcher = shlex.split(os.environ.get("VELVET_LAUNCH", ""))
    if launcher:
        os.execvpe(launcher[0], [*launcher, "-m", MODULE, *arguments], dict(os.environ))
    count = _devices(step, arguments)
    return run_ranks(arguments, count) if count > 1 else step.main()


def _devices(step: Step, arguments: Sequence[str]) -> int:
    """`pretrain.devices` of the parameters in force; 1 if they cannot be read (the stage says why)."""
    import yaml

    from components.base.config import load_params, lookup, with_overrides
    from components.base.errors import VelvetError

    args = step.parser().parse_args(arguments)
    try:
        values = load_params(args.params or args.root / "params.yaml")
        pairs = (pair.partition("=") for pair in args.set)
        values = with_overrides(values, {key: yaml.safe_load(text) for key, _, text in pairs})
        block: Any = lookup(values, step.name) or {}
        return int(block.get("devices", 1)) if int(block.get("num_nodes", 1)) == 1 else 1
    except (VelvetError, yaml.YAMLError, TypeError, ValueError):
        return 1


def _end_with_parent() -> None:
    """Have Linux send this rank SIGTERM when the process that started it is gone, be it by kill -9."""
    if os.environ.get(PARENT) == str(os.getppid()) and sys.platform.startswith("linux"):
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def run_ranks(arguments: Sequence[str], count: int) -> int:
    """Start `count` ranks of the stage on this machine and wait for them."""
    shared = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        PARENT: str(os.getpid()),
    }
    command = [sys.executable, "-m", MODULE, *arguments]
    ranks = []
    for rank in range(count):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen(command, env=environment, cwd=Path.cwd()))
    before = signal.signal(signal.SIGTERM, lambda *_: _pass_on(ranks, signal.SIGTERM))
    try:
        return _wait(ranks)
    finally:
        signal.signal(signal.SIGTERM, before)
        _pass_on(ranks, signal.SIGKILL)
        for process in ranks:
            process.wait()


def _wait(ranks: Sequence[subprocess.Popen[bytes]]) -> int:
    """The first code other than 0, once every rank has ended; when one fails the others are asked to end."""
    failed, deadline = 0, float("inf")
    while any(process.poll() is None for process in ranks):
        codes = [process.returncode for process in ranks if process.returncode]
        if codes and not failed:
            failed, deadline = codes[0], time.monotonic() + PATIENCE_S
            _pass_on(ranks, signal.SIGTERM)
        if time.monotonic() > deadline:  # a rank that waits for a lost one in a collective does not answer
            _pass_on(ranks, signal.SIGKILL)
        time.sleep(POLL_S)
    codes = [process.returncode for process in ranks if process.returncode]
    found = failed or (codes[0] if codes else 0)
    return 128 - found if found < 0 else found


def _pass_on(ranks: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in ranks:
        if process.poll() is None:
            process.send_signal(number)


def free_port() -> int:
    """A TCP port on this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tune_memory(environment: Mapping[str, str] | None = None) -> None:
    """Start this process again with an allocator that keeps its pages, unless it was so started.

    Most of a Swin's time on a CPU is page faults; with these settings its forward pass takes a third of the time.
    glibc reads them when a process starts, hence the new start.
    """
    current = os.environ if environment is None else environment
    wanted = {key: value for key, value in MALLOC.items() if key not in current}
    if wanted and sys.platform.startswith("linux") and not {"-h", "--help"} & set(sys.argv):
        os.execve(sys.executable, [sys.executable, "-m", MODULE, *sys.argv[1:]], {**current, **wanted})
