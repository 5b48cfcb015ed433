"""Keyed ids: HMAC-SHA256 of raw identifiers under a key that lies outside the repository.

The key is read from the file named by `VELVET_KEY_FILE`, by default `~/.config/velvet/hmac.key`, and is
made on first use (32 random bytes, mode 0600). The same key gives the same ids; another key other ids.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from components.base.errors import InputError

_PREFIX = {"patient": "pat", "study": "stu", "series": "ser"}
KEY_BYTES = 32


def key_file() -> Path:
    """Where the HMAC key lies: `VELVET_KEY_FILE`, or the user's configuration folder."""
    named = os.environ.get("VELVET_KEY_FILE")
    return Path(named) if named else Path.home() / ".config" / "velvet" / "hmac.key"


@dataclass(frozen=True)
class KeyRing:
    """Makes keyed ids and keyed random streams; its repr never shows the secret."""

    secret: bytes = field(repr=False)

    @classmethod
    def load(cls) -> KeyRing:
        """Read the key file, making it on first use; a short or open file is an `InputError`."""
        path = key_file()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                return cls.load()
            with os.fdopen(handle, "wb") as stream:
                stream.write(secrets.token_bytes(KEY_BYTES))
        secret = path.read_bytes()
        if len(secret) < KEY_BYTES:
            raise InputError(
                f"the HMAC key has {len(secret)} bytes, {KEY_BYTES} are needed",
                rule="keys.length",
                fix="restore the key from its backup, or remove it to have a new one made",
            )
        if path.stat().st_mode & 0o077:
            raise InputError(
                "the HMAC key can be read by others",
                rule="keys.mode",
                fix="chmod 600 the key file",
            )
        return cls(secret)

    def digest(self, purpose: str, value: str) -> bytes:
        """32 bytes that depend on the key, a purpose and a value."""
        return hmac.new(self.secret, f"{purpose}\0{value}".encode(), hashlib.sha256).digest()

    def id(self, kind: str, value: str) -> str:
        """The keyed id of a raw identifier: `pat_`, `stu_` or `ser_` and 16 hex digits."""
        return f"{_PREFIX[kind]}_{self.digest(kind, value).hex()[:16]}"

    def seed(self, purpose: str, value: str) -> int:
        """A 64-bit seed for a keyed, repeatable choice (a surrogate name, a date's shift)."""
        return int.from_bytes(self.digest(f"seed:{purpose}", value)[:8], "big")

    def fingerprint(self) -> str:
        """Eight hex digits that tell keys apart and say nothing of the key."""
        return self.digest("fingerprint", "velvet").hex()[:8]
