"""The champion: which model is released, and the metrics that it was released with.

The record is `infra/champion.json`, kept in git: `{"champion": null}` until the first promotion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from components.base.config import Config, parse
from components.base.errors import ConfigError, GateError, InputError

CHAMPION_PARTS = ("infra", "champion.json")


class Champion(Config):
    """The released model: its weights' SHA-256, its gated metrics and the test data they are of."""

    model_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    test_data_hash: str | None
    metrics: dict[str, dict[str, float | int | None]]


def champion_file(root: Path) -> Path:
    """Where the record lies below the project's root."""
    return root.joinpath(*CHAMPION_PARTS)


def read_champion(root: Path) -> Champion | None:
    """The champion, or None while there is none; a missing or malformed record is an `InputError`."""
    from components.base.files import read_json

    record = read_json(champion_file(root))
    malformed = InputError(
        "infra/champion.json is malformed", rule="champion.format", fix="restore it from git"
    )
    if not isinstance(record, dict) or set(record) != {"champion"}:
        raise malformed
    if record["champion"] is None:
        return None
    if not isinstance(record["champion"], dict):
        raise malformed
    try:
        return parse(Champion, record["champion"], "champion")
    except ConfigError:
        raise malformed from None


def promote(root: Path, verdict: Mapping[str, Any]) -> Champion:
    """Make the verdict's candidate the champion and write the record atomically.

    A verdict that did not pass is a `GateError`.
    """
    from components.base.files import write_json

    if verdict.get("passed") is not True or verdict.get("reasons"):
        raise GateError(
            "only a model that passed the gate can become champion",
            rule="champion.gate",
            fix="see the reasons in artifacts/gate/verdict.json",
        )
    kept = ("value", "low", "high", "chance", "n")
    metrics = {rule["metric"]: {key: rule.get(key) for key in kept} for rule in verdict["rules"]}
    champion = Champion(
        model_sha256=verdict["candidate"], test_data_hash=verdict.get("test_data_hash"), metrics=metrics
    )
    write_json(champion_file(root), {"champion": champion.model_dump(mode="json")})
    return champion
