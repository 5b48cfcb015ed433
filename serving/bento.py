"""Build the Bento of a package with `bentoml build`, in a process of its own, from a staged folder.

The stage holds the sealed bundle and the code that serves it, nothing else. Times and paths of this machine are
taken out of what `bentoml build` writes, so that the same package gives the same Bento; it then lies in
`PACKAGE/bento`, and in the store `.bentoml/`, where `bentoml serve TAG` finds it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from components.base.errors import ServiceError
from components.base.files import atomic_folder, write_text
from components.release import bundle

NAME = "velvet_encoder"
STORE = ".bentoml"
PROJECT = Path(__file__).resolve().parents[1]
EPOCH = "2000-01-01T00:00:00+00:00"
CODE = (
    "components/__init__.py",
    "components/base",
    "components/encoders",
    "components/release",
    "components/volumes",
    "serving/__init__.py",
    "serving/backends.py",
    "serving/middleware.py",
    "serving/runtime.py",
    "serving/service.py",
    "serving/uploads.py",
    "serving/web",
)
REQUIREMENTS = (
    "nibabel",
    "numpy",
    "onnxruntime",
    "pydantic",
    "python-multipart",
    "PyYAML",
    "scipy",
    "starlette",
    "tokenizers",
    "tritonclient",
    "grpcio",
    "protobuf",
)
BUILD_TIMEOUT_S = 300


def build(root: Path, package: Path, names: Iterable[str], model_hash: str) -> str:
    """Build the Bento of the named parts of `package` into `package/bento`; returns its tag.

    The tag is `velvet_encoder:` and twelve digits of the model hash. The Bento joins the store `root/.bentoml` too.
    Raises `ServiceError` when `bentoml build` fails.
    """
    version = model_hash[:12]
    with tempfile.TemporaryDirectory(prefix="velvet-bento-") as scratch:
        stage, home = Path(scratch) / "stage", Path(scratch) / "home"
        stage.mkdir()
        bundle.subset(package, stage / "bundle", names)
        for name in CODE:
            _copy(PROJECT / name, stage / name)
        write_text(stage / "bentofile.yaml", bentofile())
        _run_build(stage, home, version)
        built = home / "bentos" / NAME / version
        _normalise(built)
        shutil.copytree(built, package / "bento", copy_function=shutil.copyfile)
    return register(root, package / "bento", version)


def register(root: Path, bento: Path, version: str) -> str:
    """Put a package's Bento into the store `root/.bentoml` and return its tag; `dvc checkout` alone does not."""
    store = root / STORE / "bentos" / NAME
    with atomic_folder(store / version) as target:
        shutil.copytree(bento, target, dirs_exist_ok=True)
    write_text(store / "latest", version)
    return f"{NAME}:{version}"


def bentofile() -> str:
    """The build description, with the versions of constraints.txt."""
    pins = "".join(f"    - {line}\n" for line in pinned())
    return (
        f'service: "serving.service:VelvetEncoder"\nname: {NAME}\n'
        'description: "Velvet dual encoder for CT and reports. Not a medical device."\n'
        'include:\n  - "*"\nexclude:\n  - "bentofile.yaml"\n'
        f"python:\n  lock_packages: false\n  packages:\n{pins}"
    )


def pinned() -> list[str]:
    """`name==version` of every requirement of the served code, as installed here."""
    from importlib.metadata import version

    return [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


def environment(home: Path) -> dict[str, str]:
    """Variables for any bentoml command: its own store, no tracking."""
    return {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "true", "DO_NOT_TRACK": "1"}


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(
            source,
            target,
            ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
            copy_function=shutil.copyfile,
        )
    else:
        shutil.copyfile(source, target)


def _run_build(stage: Path, home: Path, version: str) -> None:
    variables = environment(home) | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(stage)}
    command = [sys.executable, "-m", "bentoml", "build", str(stage), "--version", version, "--output", "tag"]
    try:
        done = subprocess.run(
            command,
            cwd=stage,
            env=variables,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"`bentoml build` took more than {BUILD_TIMEOUT_S} s",
            rule="bento.build",
            fix="run the stage again",
        ) from None
    if done.returncode or not (home / "bentos" / NAME / version / "bento.yaml").is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        reason = re.sub(r"\S*/\S*/\S*", "...", lines[-1])[-160:] if lines else "it said nothing"
        raise ServiceError(
            f"`bentoml build` failed: {reason}",
            rule="bento.build",
            fix="run the stage with --debug; `pip install -e .` restores the pinned bentoml",
        )


def _normalise(built: Path) -> None:
    """Take the time of the build and the paths of the machine out of a Bento."""
    description = built / "bento.yaml"
    text = re.sub(
        r"^creation_time:.*$", f"creation_time: '{EPOCH}'", description.read_text(), flags=re.MULTILINE
    )
    description.write_text(text)
