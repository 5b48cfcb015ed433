"""Keyed ids: repeatable under one key, other under another, and refused when the key is unsafe."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.base.errors import InputError
from components.base.keys import KeyRing


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key lies."""
    path = tmp_path / "keys" / "hmac.key"
    monkeypatch.setenv("VELVET_KEY_FILE", str(path))
    return path


def test_made_once_private_and_repeatable(key: Path) -> None:
    first = KeyRing.load()
    assert key.stat().st_mode & 0o777 == 0o600
    second = KeyRing.load()
    assert first.id("patient", "12345") == second.id("patient", "12345")
    assert first.id("patient", "12345") != first.id("study", "12345")
    assert "12345" not in first.id("patient", "12345")
    assert first.secret.hex() not in repr(first)


def test_another_key_gives_other_ids_and_seeds(key: Path) -> None:
    first = KeyRing.load()
    key.unlink()
    second = KeyRing.load()
    assert first.id("patient", "1") != second.id("patient", "1")
    assert first.seed("shift", "1") != second.seed("shift", "1")
    assert first.fingerprint() != second.fingerprint()


def test_a_short_or_open_key_is_refused(key: Path) -> None:
    KeyRing.load()
    key.chmod(0o644)
    with pytest.raises(InputError, match="read by others"):
        KeyRing.load()
    key.write_bytes(b"short")
    key.chmod(0o600)
    with pytest.raises(InputError, match="5 bytes"):
        KeyRing.load()
