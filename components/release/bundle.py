"""The sealed package: a manifest with the SHA-256 of every file, and a check that refuses any difference.

`verify` writes the manifest anew from the folder and compares bytes, so that a flipped bit (in a file or in the
manifest), an added, removed or renamed file all fail. A seal detects damage and mix-ups; it does not say who
sealed: a signature over `manifest.json` is the place for that.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from components.base.errors import IntegrityError
from components.base.files import read_json, sha256_file, to_json, write_text

MANIFEST = "manifest.json"
MODEL = "model.json"
ENCODER_FILES = ("config.json", "contract.json", "model.safetensors", "tokenizer.json")


def describe(folder: Path) -> dict[str, Any]:
    """Path, size and SHA-256 of every file below `folder` but the manifest; links are an `IntegrityError`."""
    files: dict[str, dict[str, Any]] = {}
    for item in sorted(folder.rglob("*")):
        name = item.relative_to(folder).as_posix()
        if item.is_symlink() or not (item.is_file() or item.is_dir()):
            raise IntegrityError(
                f"{name} in the package is not a plain file",
                rule="package.plain",
                fix="build the package again; a sealed package holds no links",
            )
        if item.is_file() and name != MANIFEST:
            files[name] = {"bytes": item.stat().st_size, "sha256": sha256_file(item)}
    return {"format": 1, "files": files}


def seal(folder: Path) -> str:
    """Write `folder/manifest.json` and return the SHA-256 of its bytes (what a signature would cover)."""
    text = to_json(describe(folder))
    write_text(folder / MANIFEST, text)
    return hashlib.sha256(text.encode()).hexdigest()


def verify(folder: Path) -> str:
    """Check every byte of a sealed folder; returns the manifest's SHA-256 or raises `IntegrityError`."""
    path = folder / MANIFEST
    if not path.is_file():
        raise IntegrityError(
            "the package has no manifest", rule="package.sealed", fix="build it with the stage `package`"
        )
    sealed, found = path.read_bytes(), to_json(describe(folder)).encode()
    if sealed != found:
        raise IntegrityError(
            f"the package is not what was sealed: {_first_difference(sealed, json.loads(found)['files'])}",
            rule="package.seal",
            fix="fetch the package again (`dvc checkout`) or build it again; do not serve this one",
        )
    return hashlib.sha256(sealed).hexdigest()


def _first_difference(sealed: bytes, found: dict[str, Any]) -> str:
    try:
        expected = json.loads(sealed)["files"]
        names = sorted({*expected, *found})
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    for name in names:
        if name not in found:
            return f"{_shown(name)} is missing"
        if name not in expected:
            return f"{_shown(name)} was added"
        if expected[name] != found[name]:
            return f"{_shown(name)} has other bytes"
    return f"{MANIFEST} is damaged"


def _shown(name: str) -> str:
    """A file's name for a message: printable and short, since a damaged manifest may hold anything."""
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:80]


def subset(source: Path, target: Path, names: Iterable[str]) -> str:
    """Copy named files or folders of `source` into `target` and seal them; returns the seal's SHA-256."""
    for name in names:
        origin, copy = source / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, copy, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(origin, copy)
    return seal(target)


def model_hash(encoder: Path) -> str:
    """64 hex digits over the weights, configuration, contract and tokenizer of an encoder's folder (not its card)."""
    lines = [f"{name}\0{sha256_file(encoder / name)}\n" for name in ENCODER_FILES]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_model(folder: Path) -> dict[str, Any]:
    """`model.json` of a package: its model hash, graphs, sizes and how its text is padded."""
    return dict(read_json(folder / MODEL))
