"""Quarantine: a bad study is set aside by its keyed id with a rule, and the rest goes on, within a limit."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from components.base.errors import CheckError

LEFT_OUT = "left_out."


@dataclass
class Quarantine:
    """What one stage refused; `close` writes it and fails the stage if it is too much.

    A rule that begins with `left_out.` is for what never belonged to the cohort (a localizer, an MR series): it is
    written down with the rest, but does not count against the limit.
    """

    stage: str
    log: logging.Logger
    rows: list[dict[str, str]] = field(default_factory=list)

    def add(self, study_key: str, series_key: str, rule: str, reason: str) -> None:
        """Set a series aside; `reason` is one sentence without PHI."""
        level = logging.INFO if rule.startswith(LEFT_OUT) else logging.WARNING
        self.log.log(level, "quarantined %s: %s (%s)", series_key, reason, rule)
        row = {"study_key": study_key, "series_key": series_key, "stage": self.stage}
        self.rows.append({**row, "rule": rule, "reason": reason})

    def series(self) -> set[str]:
        """The keys of all series set aside."""
        return {row["series_key"] for row in self.rows}

    def counted(self) -> set[str]:
        """The keys of the series set aside because something is wrong with them."""
        return {row["series_key"] for row in self.rows if not row["rule"].startswith(LEFT_OUT)}

    def close(self, path: Path, *, total: int, limit: float) -> None:
        """Write quarantine.parquet; raise `CheckError` if more than `limit` of `total` was refused."""
        from components.cohort.manifest import write_rows

        write_rows(path, "quarantine", sorted(self.rows, key=lambda row: tuple(row.values())))
        refused, counted = len(self.series()), len(self.counted())
        candidates = total - (refused - counted)
        if total == 0 or refused >= total:
            raise CheckError(
                f"{self.stage} is left with no study ({refused} of {total} refused)",
                rule=f"{self.stage}.empty",
                fix="see quarantine.parquet of this stage for the reasons",
            )
        if counted > limit * candidates:
            raise CheckError(
                f"{self.stage} refused {counted} of {candidates} series, more than {limit:.0%}",
                rule="quarantine.max_fraction",
                fix="mend the studies named in quarantine.parquet, or raise max_quarantined_fraction",
            )
