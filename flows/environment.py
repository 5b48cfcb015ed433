"""The environment in which Prefect and DVC run here: everything inside the project, nothing sent anywhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOCAL_API = "http://127.0.0.1:{port}/api"
TRAINING_LIMIT = "velvet-training"
EMBEDDED = "VELVET_EMBEDDED_API"

_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    "DVC_NO_ANALYTICS": "true",
    "BENTOML_DO_NOT_TRACK": "true",
    "GX_ANALYTICS_ENABLED": "false",
}


def project_root() -> Path:
    """The project's root: `VELVET_ROOT`, or the folder above this package."""
    named = os.environ.get("VELVET_ROOT")
    return Path(named).resolve() if named else Path(__file__).resolve().parent.parent


def environment(root: Path) -> dict[str, str]:
    """This process's environment with the settings above as defaults and this Python first on PATH."""
    values = {**_QUIET, "PREFECT_HOME": str(root / ".prefect"), **os.environ}
    values["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    values["VELVET_ROOT"] = str(root)
    return values


def prepare(root: Path) -> None:
    """Apply `environment` to this process; call it before Prefect is imported."""
    os.environ.update(environment(root))
