"""Typed errors for a user's mistakes: what, which keyed id, the rule and the fix, in under five lines.

The text never holds PHI: `key` is an HMAC id from `components.base.keys`, never a name, path of a
patient's file or a raw identifier.
"""

from __future__ import annotations


class VelvetError(Exception):
    """A mistake that a user can mend; `exit_code` is what a command that meets it returns.

    Args:
        what: one sentence that says what is wrong, without PHI.
        key: the keyed id of the study, series or patient concerned, if there is one.
        rule: the rule that was broken, by its short name (for instance `volume.truncated`).
        fix: one sentence that says what to do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, rule: str, fix: str, key: str | None = None) -> None:
        self.what, self.key, self.rule, self.fix = what, key, rule, fix
        super().__init__(self.render())

    def render(self) -> str:
        """The lines that a user reads: at most four."""
        where = f" [{self.key}]" if self.key else ""
        return f"error: {self.what}{where}\n  rule: {self.rule}\n  fix:  {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.key, self.rule, self.fix)


def _rebuild(kind: type[VelvetError], what: str, key: str | None, rule: str, fix: str) -> VelvetError:
    return kind(what, key=key, rule=rule, fix=fix)


class ConfigError(VelvetError):
    """A parameter that does not exist, has a wrong type or contradicts another."""

    exit_code = 3


class InputError(VelvetError):
    """A file, table or report that cannot be used as it is."""

    exit_code = 4


class IntegrityError(InputError):
    """Bytes that are not what they should be: truncated, flipped, malformed or oversized."""

    exit_code = 5


class CheckError(VelvetError):
    """A data check failed: too much was quarantined, or a rule about the whole cohort is broken."""

    exit_code = 6


class GateError(VelvetError):
    """A release gate said no."""

    exit_code = 7


class ContractError(VelvetError):
    """Data and model disagree about preprocessing; the message shows the difference."""

    exit_code = 8


class ServiceError(VelvetError):
    """A server could not be started or reached."""

    exit_code = 9


class StorageError(VelvetError):
    """A write did not succeed (a full disk, for one); what was there before is intact."""

    exit_code = 10


class TrainingError(VelvetError):
    """Training had to stop: a loss that is not finite, or a resume that does not fit."""

    exit_code = 11
