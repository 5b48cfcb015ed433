"""Triton's own environment `.venv-triton`, built on demand from infra/triton/requirements.txt.

The wheel keeps the Python stub away from the backend that needs it, and finds its libraries through a relative
RPATH; `_lay_out` puts the pieces where the server looks for them. numpy 2 must never get in here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.base.errors import ServiceError
from components.base.files import sha256_file, write_bytes

FOLDER = ".venv-triton"
LOCK = ".velvet/triton.lock"
STAMP = ".velvet-stamp"
PROJECT = Path(__file__).resolve().parents[2]
REQUIREMENTS = PROJECT / "infra" / "triton" / "requirements.txt"
BACKEND = Path(__file__).with_name("onnxruntime_backend")
INSTALL_TIMEOUT_S = 900


@dataclass(frozen=True)
class TritonEnvironment:
    """Where the server, its backends and its interpreter are."""

    venv: Path

    @property
    def packages(self) -> Path:
        """The environment's site-packages."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.venv / "lib" / version / "site-packages"

    @property
    def server(self) -> Path:
        """The `tritonserver` program."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder of backends, with the Python stub and the stand-in for ONNX Runtime."""
        return self.venv / "runtime" / "pytriton" / "tritonserver" / "backends"

    def variables(self) -> dict[str, str]:
        """The process environment: this interpreter must be the first python3 on PATH."""
        kept = {key: os.environ[key] for key in ("HOME", "LANG", "TMPDIR") if key in os.environ}
        path = f"{self.venv / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}"
        library = sysconfig.get_config_var("LIBDIR") or ""
        return {**kept, "PATH": path, "LD_LIBRARY_PATH": library, "PYTHONNOUSERSITE": "1"}


def ensure_environment(root: Path = PROJECT) -> TritonEnvironment:
    """The environment below `root`, built if it is absent or its pins have changed; `ServiceError` if it cannot."""
    environment = TritonEnvironment(root / FOLDER)
    stamp = environment.venv / STAMP
    with _locked(root / LOCK):
        if not stamp.is_file() or stamp.read_text() != _pins():
            shutil.rmtree(environment.venv, ignore_errors=True)
            _install(environment.venv)
            _lay_out(environment)
            stamp.write_text(_pins())
        stand_in = environment.backends / "onnxruntime" / "model.py"
        if not stand_in.is_file() or stand_in.read_bytes() != (BACKEND / "model.py").read_bytes():
            write_bytes(stand_in, (BACKEND / "model.py").read_bytes())
    return environment


def _pins() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return f"{version} {sha256_file(REQUIREMENTS)}\n"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process builds; the others wait for it."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _install(venv: Path) -> None:
    pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    commands = (
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, "--disable-pip-version-check", "-r", str(REQUIREMENTS)],
    )
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(venv, ignore_errors=True)
            raise ServiceError(
                f"Triton's environment could not be installed ({type(error).__name__})",
                rule="triton.environment",
                fix=f"try `pip download -r infra/triton/{REQUIREMENTS.name}`; 440 MB and an index are needed",
            ) from error


def _lay_out(environment: TritonEnvironment) -> None:
    """The stub beside its library, at the depth that its RPATH expects."""
    source = environment.packages / "pytriton" / "tritonserver"
    runtime = environment.venv / "runtime"
    shutil.copytree(source / "backends", environment.backends)
    (runtime / "nvidia_pytriton.libs").symlink_to(environment.packages / "nvidia_pytriton.libs")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = source / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, environment.backends / "python" / stub.name)
