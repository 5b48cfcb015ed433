"""What becomes of each kind of PHI: one table of policies, and overrides that may only ask for more.

A kind that a policy does not name is tagged: an unknown kind never passes. Sources: 45 CFR 164.514(b)(2)
(Safe Harbor) and 164.514(e)(2) (limited data set).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import Field, ValidationError, model_validator

from components.base.config import Config
from components.base.errors import ConfigError

# tag: [KIND]; mask: █ for every character; surrogate: something realistic in its place; shift: the patient's offset
# in days; generalise: what Safe Harbor leaves (the year, "90+", State and three digits of the ZIP code);
# locality: what a limited data set leaves of an address; keep: as it is, and listed in the audit.
Action = Literal["tag", "mask", "surrogate", "shift", "generalise", "locality", "keep"]
PolicyName = Literal["tags", "safe_harbor", "limited_data_set", "research_internal"]
DateOrder = Literal["mdy", "dmy"]

DATE_KINDS = frozenset({"DATE", "BIRTH_DATE", "DOB", "STUDY_DATE"})
ZIP_KINDS = frozenset({"ZIP", "POSTCODE", "POSTAL_CODE"})
ADDRESS_KINDS = frozenset({"ADDRESS"})
NAME_KINDS = frozenset({"PATIENT", "STAFF", "PERSON", "NAME", "PHYSICIAN", "OPERATOR", "RELATIVE"})
CODE_KINDS = frozenset(
    {"MRN", "ACCESSION", "ID", "SSN", "ACCOUNT", "DEVICE", "LICENSE", "VEHICLE", "PLAN", "UID"}
)
CONTACT_KINDS = frozenset({"PHONE", "FAX", "PAGER", "EMAIL", "URL", "IP"})
PLACE_KINDS = frozenset({"HOSPITAL", "INSTITUTION", "FACILITY", "CITY", "LOCATION", "COUNTY"})
MAY_STAY = DATE_KINDS | ZIP_KINDS | {"TIME", "AGE", "CITY", "STATE", "COUNTRY"}
GENERALISED = DATE_KINDS | ZIP_KINDS | ADDRESS_KINDS | {"AGE", "STATE", "COUNTRY"}
SURROGATES = NAME_KINDS | CODE_KINDS | CONTACT_KINDS | PLACE_KINDS | ZIP_KINDS | ADDRESS_KINDS | {"STATE"}


class Policy(Config):
    """A policy: an action for each kind, `tag` for all others; `stricter` are the actions that overrides may name."""

    name: str
    actions: Mapping[str, Action] = Field(default_factory=dict)
    stricter: frozenset[str] = frozenset({"tag", "mask"})
    date_order: DateOrder = "mdy"  # of 03/04/2015, where nothing in the note decides
    shift_days: tuple[int, int] = (184, 730)  # least and most days that a patient's dates go back

    @model_validator(mode="after")
    def _actions_fit(self) -> Policy:
        for kind, action in self.actions.items():
            allowed = {"shift": DATE_KINDS, "generalise": GENERALISED, "locality": ADDRESS_KINDS}
            allowed |= {"keep": MAY_STAY, "surrogate": SURROGATES}
            if kind not in allowed.get(action, {kind}):
                raise ValueError(f"the action {action} is not for the kind {kind}")
        least, most = self.shift_days
        if not 184 <= least < most - 30 or most > 3660:
            raise ValueError("shift_days must be two numbers of days from 184 to 3660, at least 31 apart")
        return self

    def action(self, kind: str) -> Action:
        """What becomes of a span of this kind; of an unknown one: `tag`."""
        return self.actions.get(kind, "tag")

    @property
    def keyed(self) -> bool:
        """Whether the policy needs the HMAC key (surrogates and shifted dates do)."""
        return bool({"surrogate", "shift"} & set(self.actions.values()))


def _each(kinds: frozenset[str] | set[str], action: Action) -> dict[str, Action]:
    return dict.fromkeys(sorted(kinds), action)


POLICIES: Mapping[str, Policy] = {
    # everything becomes its kind in brackets
    "tags": Policy(name="tags", stricter=frozenset(get_args(Action)) - {"keep"}),
    # (b)(2)(i): names (A), geography below a State but for three ZIP digits (B), dates but for the year and ages
    # over 89 (C), contacts, numbers, devices, addresses of the web and any other unique code (D to R) go.
    "safe_harbor": Policy(
        name="safe_harbor",
        actions=_each(DATE_KINDS | ZIP_KINDS | ADDRESS_KINDS | {"AGE"}, "generalise")
        | _each({"STATE", "COUNTRY"}, "keep"),
        stricter=frozenset({"tag", "mask"}),
    ),
    # (e)(2): dates, ages, city, State and ZIP code may stay; street addresses and all direct identifiers go.
    "limited_data_set": Policy(
        name="limited_data_set",
        actions=_each(MAY_STAY, "keep") | _each(ADDRESS_KINDS, "locality"),
        stricter=frozenset({"tag", "mask", "shift", "generalise"}),
    ),
    # hiding in plain sight for work inside the institution: surrogates, dates moved, ages over 89 as 90+
    "research_internal": Policy(
        name="research_internal",
        actions=_each(SURROGATES, "surrogate")
        | _each(DATE_KINDS, "shift")
        | {"AGE": "generalise", "TIME": "keep", "COUNTRY": "keep"},
        stricter=frozenset({"tag", "mask", "surrogate", "shift", "generalise"}),
    ),
}


def policy_of(
    name: str,
    overrides: Mapping[str, Action] | None = None,
    date_order: DateOrder | None = None,
    shift_days: tuple[int, int] | None = None,
) -> Policy:
    """The named policy with overrides by kind; one that the policy cannot bear is a `ConfigError`."""
    policy = POLICIES[name]
    for kind, action in (overrides or {}).items():
        if action not in policy.stricter and action != policy.action(kind):
            raise ConfigError(
                f"the policy {name} does not allow {kind}: {action}",
                rule="deidentify.policy",
                fix=f"choose one of {', '.join(sorted(policy.stricter))}, or another policy",
            )
    values = policy.model_dump() | {"actions": {**policy.actions, **(overrides or {})}}
    values |= {"date_order": date_order} if date_order else {}
    values |= {"shift_days": shift_days} if shift_days else {}
    try:
        return Policy(**values)
    except ValidationError as error:
        first = str(error.errors(include_input=False)[0]["msg"])
        raise ConfigError(
            first.removeprefix("Value error, "),
            rule="deidentify.policy",
            fix="correct the block deidentify in params.yaml",
        ) from None
