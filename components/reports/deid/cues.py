"""The cues of names from `lexicon/cues.txt`, read once, and the shape of what a rule answers."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from components.reports.deid.runs import Scan
from components.reports.lexicon import mapping

Found = tuple[int, int, str, str, float]


class Cues(NamedTuple):
    """What `cues.txt` holds."""

    titles: dict[str, str]
    chain: frozenset[str]
    kin: frozenset[str]
    alias: frozenset[str]
    by: frozenset[str]
    sure: frozenset[str]
    told: dict[str, frozenset[str]]
    direct: frozenset[str]
    subject: frozenset[str]
    owned: frozenset[str]
    role: frozenset[str]


@cache
def cues() -> Cues:
    """The cues, read once."""
    table = mapping("cues")
    plain = {key: frozenset(values) for key, values in table.items()}
    titles = {word: key.split()[1] for key in table if key.startswith("title ") for word in table[key]}
    chain, kin, alias, by, sure = (plain[key] for key in ("chain", "kin", "alias", "by", "sure"))
    told = {key: plain[key] for key in ("with", "to", "from", "of", "for")}
    return Cues(
        titles,
        chain,
        kin,
        alias,
        by,
        sure,
        told,
        plain["direct"],
        plain["subject"],
        plain["owned"],
        plain["role"],
    )


def found_at(scan: Scan, run: tuple[int, int] | None, kind: str, rule: str, score: float) -> list[Found]:
    """A run of tokens as what a rule answers; nothing where there is no run."""
    return [(scan.starts[run[0]], scan.ends[run[1]], kind, rule, score)] if run else []
