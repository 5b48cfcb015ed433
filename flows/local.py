"""A Prefect server and one worker on this machine: `python -m flows up` and `python -m flows down`.

The server listens on 127.0.0.1 only. `prefect.toml` (not in git) tells the `prefect` command where it is, so that
`prefect deployment run pretrain/full --watch` works in this folder. Process ids are kept below .velvet/.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from components.base.errors import ServiceError, StorageError
from components.base.files import write_json, write_text
from flows.environment import LOCAL_API, TRAINING_LIMIT, environment, project_root
from flows.overrides import restore
from flows.supervise import GRACE_S, end_session, session_members
from flows.workspace import exclusive

POOL = "velvet"
SERVICES = {"prefect-server", "prefect-worker"}
START_TIMEOUT_S = 120.0


def _record(root: Path) -> Path:
    return root / ".velvet" / "services.json"


def running(root: Path) -> dict[str, int]:
    """The services of `up` that still run: name -> session id."""
    try:
        kept: dict[str, int] = json.loads(_record(root).read_text(encoding="utf-8"))["sessions"]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: pid for name, pid in kept.items() if session_members(pid)}


def _check_port(port: int) -> None:
    with contextlib.closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ServiceError(
                f"port {port} on 127.0.0.1 is in use",
                rule="service.port",
                fix=f"choose another one: make up PORT={port + 1}",
            ) from None


def _wait_healthy(api: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{api}/health", timeout=2),
        ):
            return
        time.sleep(0.3)
    raise ServiceError(
        "the Prefect server did not become healthy", rule="service.start", fix=f"see {log.name} in logs/"
    )


def _start(root: Path, name: str, command: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    log = root / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("ab") as stream:
        return subprocess.Popen(
            command,
            cwd=root,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def _prefect(root: Path, env: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments],
        cwd=root,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise ServiceError(
            f"prefect {' '.join(arguments[:2])} failed: {lines[-1] if lines else 'no output'}",
            rule="service.deploy",
            fix="see logs/prefect-server.log",
        )


def up(port: int) -> int:
    """Start the server and a worker and deploy prefect.yaml; does nothing if they run already."""
    root = project_root()
    found = running(root)
    if set(found) == SERVICES:
        print(f"already up: {', '.join(sorted(found))}")
        return 0
    down()
    _check_port(port)
    api = LOCAL_API.format(port=port)
    env = environment(root) | {"PREFECT_API_URL": api}
    sessions: dict[str, int] = {}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = _start(root, "prefect-server", command, env)
    sessions["prefect-server"] = server.pid
    write_json(_record(root), {"sessions": sessions, "api": api})
    try:
        _wait_healthy(api, server, root / "logs" / "prefect-server.log")
        write_text(root / "prefect.toml", f'home = "{root / ".prefect"}"\n\n[api]\nurl = "{api}"\n')
        _prefect(root, env, "work-pool", "create", POOL, "--type", "process", "--overwrite")
        with contextlib.suppress(ServiceError):  # it exists already from an earlier `up`
            _prefect(root, env, "global-concurrency-limit", "create", TRAINING_LIMIT, "--limit", "1")
        _prefect(root, env, "global-concurrency-limit", "inspect", TRAINING_LIMIT)
        _prefect(root, env, "deploy", "--all")
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--limit", "1"]
        sessions["prefect-worker"] = _start(root, "prefect-worker", worker, env).pid
        write_json(_record(root), {"sessions": sessions, "api": api})
    except BaseException:
        down()
        raise
    print(f"Prefect is at {api.removesuffix('/api')}; try: prefect deployment run pretrain/full --watch")
    return 0


def run_processes(root: Path) -> list[int]:
    """The processes of this project's flow runs that a worker started; each run has a session of its own."""
    ours = f"VELVET_ROOT={root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                if ours in variables and any(item.startswith(b"PREFECT__FLOW_RUN_ID=") for item in variables):
                    found.append(int(entry.name))
    return found


def end_runs(root: Path) -> None:
    """End the flow runs that a worker left behind, with all that they started."""
    ended: set[int] = set()
    deadline = time.monotonic() + 2 * GRACE_S
    while (members := run_processes(root)) and time.monotonic() < deadline:
        sessions = set()
        for pid in members:
            with contextlib.suppress(ProcessLookupError):
                sessions.add(os.getsid(pid))
        first = min(sessions - ended, default=None)
        if first is None:  # what is left was told already and is ending
            time.sleep(0.2)
            continue
        end_session(first)
        ended.add(first)


def down() -> int:
    """Stop what `up` started and the runs under way, by process id; a service that is gone is no error."""
    root = project_root()
    services = running(root)
    under_way = bool(run_processes(root))  # asked now: some end with their worker
    for name in sorted(services, reverse=True):  # the worker first: the server hears how its runs end
        if name == "prefect-server":
            end_runs(root)
        end_session(services[name], grace_s=20.0)
        print(f"stopped {name}")
    end_runs(root)
    if under_way:
        print("stopped the runs under way; the next run goes on where they were")
    with contextlib.suppress(StorageError), exclusive(root):  # not while a run of `python -m flows` holds it
        restore(root)
    _record(root).unlink(missing_ok=True)
    (root / "prefect.toml").unlink(missing_ok=True)
    return 0
