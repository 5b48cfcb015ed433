"""What can go wrong when a server is started: each is one clear error, or a service that is never ready."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from components.base.errors import ContractError, IntegrityError, ServiceError
from serving import server
from tests.model import serving_project as project


def start(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "serving.server", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=project.PROJECT
    )


def test_a_port_in_use_is_one_clear_error():
    package = project.built_root() / "artifacts/package"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = start("--package", str(package), "--port", str(port))
    assert done.returncode == ServiceError.exit_code
    assert "serve.port" in done.stderr
    assert str(port) in done.stderr
    assert len(done.stderr.strip().splitlines()) < 5


def test_no_package_is_one_clear_error(tmp_path):
    done = start("--package", str(tmp_path / "nothing"))
    assert done.returncode == 4
    assert "package.missing" in done.stderr
    assert str(tmp_path) not in done.stderr
    assert len(done.stderr.strip().splitlines()) < 5


def test_a_changed_package_is_not_served(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(project.built_root() / "artifacts/package", package)
    graph = package / "onnx/text_encoder.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=r"onnx/text_encoder\.onnx has other bytes"):
        server.prepare(package, "127.0.0.1", 0, None)


def test_a_contract_of_another_tokenizer_is_not_served(tmp_path):
    from components.base.files import read_json, write_json
    from components.release import bundle

    package = tmp_path / "package"
    shutil.copytree(project.built_root() / "artifacts/package", package)
    contract = read_json(package / "encoder/contract.json")
    write_json(package / "encoder/contract.json", {**contract, "tokenizer_hash": "0" * 64})
    bundle.seal(package)
    with pytest.raises(ContractError, match=r"contract\.tokenizer"):
        server.prepare(package, "127.0.0.1", 0, None)


def test_a_service_that_finds_a_changed_package_is_alive_but_never_ready(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(project.built_root() / "artifacts/package", package)
    command, variables = server.prepare(package, "127.0.0.1", port := _free_port(), None)
    (package / "card.md").write_text("changed after the first check")
    running = server.launch(command, variables, f"http://127.0.0.1:{port}", tmp_path / "serve.log")
    try:
        running.wait("/livez", 60)
        assert running.get("/readyz") == 503
        answer = httpx.post(f"{running.url}/embed_text", json={"reports": ["Effusion."]})
        assert answer.status_code == 503
        assert answer.json()["rule"] == "package.seal"
        assert answer.headers["x-velvet-model"] == "none"
    finally:
        running.stop()
    assert running.process.poll() is not None


def test_a_triton_address_without_a_port_is_one_clear_error():
    package = project.built_root() / "artifacts/package"
    with pytest.raises(ServiceError, match=r"serve\.triton"):
        server.prepare(package, "127.0.0.1", _free_port(), "localhost")


def test_terminating_the_command_leaves_no_process():
    port = _free_port()
    command = [sys.executable, "-m", "serving.server", "--port", str(port)]
    command += ["--package", str(project.built_root() / "artifacts/package")]
    process = subprocess.Popen(
        command, cwd=project.PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not _ready(port) and time.monotonic() < deadline:
            time.sleep(0.2)
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        assert _ready(port)
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        deadline = time.monotonic() + 10
        while any(map(psutil.pid_exists, family)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(psutil.pid_exists, family))
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)


def test_an_overloaded_service_answers_429_at_once_and_keeps_the_accepted_fast(tmp_path):
    import concurrent.futures

    package = project.built_root() / "artifacts/package"
    options = {"VELVET_MAX_IN_FLIGHT": "2"}
    with (
        server.running(package, log=tmp_path / "serve.log", variables=options) as running,
        httpx.Client() as http,
    ):

        def ask(_: int) -> tuple[int, float, str | None]:
            started = time.monotonic()
            answer = http.post(f"{running.url}/embed_text", json={"reports": ["Effusion."] * 64})
            return answer.status_code, time.monotonic() - started, answer.headers.get("retry-after")

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(ask, range(200)))
        assert {status for status, _, _ in answers} == {200, 429}
        assert all(int(retry) >= 1 for status, _, retry in answers if status == 429 and retry)
        assert all(retry for status, _, retry in answers if status == 429)
        assert ask(0)[0] == 200  # it recovers by itself


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
