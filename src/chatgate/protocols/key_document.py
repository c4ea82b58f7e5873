"""A key of the gateway in JSON: as it is shown, and as it is asked for.

Owns the names and shapes of its fields, for the commands' `--json` and for the admin API alike. What it shows can be
sent back. The bounds of a key are `vocabulary.keys.check`'s; which addresses and languages there are is for whoever
calls.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chatgate.protocols import document
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.keys import (
    MAX_COUNT,
    InvalidField,
    KeyBudget,
    KeyChanges,
    KeyLimit,
    KeyRecord,
    KeyState,
    NewKey,
    check,
)
from chatgate.vocabulary.money import MAX_NANO_USD, format_usd, parse_usd

Resource = Literal["requests", "input_tokens", "output_tokens", "tokens", "usd", "in_flight"]
Window = Literal["second", "minute", "hour", "day", "week", "month"]
Period = Literal["day", "week", "month", "ever"]
Percent = Annotated[int, Meta(ge=1, le=100)]
Moment = Annotated[datetime, Meta(tz=True)]
"""A time as RFC 3339 has it, with its zone."""

_PROBLEMS = {"empty": "empty_field", "too_long": "too_long_field", "too_many": "too_long_field"}


class Limit(Struct, frozen=True, forbid_unknown_fields=True):
    """At most so much of a resource per window; money is a text, such as "0.50". `in_flight` has no window."""

    resource: Resource
    amount: int | str
    per: Window | None = None
    model: str | None = None


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """At most so much money per period, a text such as "5"; from `warn_at` per cent of it on there are warnings."""

    amount_usd: str | int
    per: Period = "month"
    warn_at: Percent | None = None


class KeyToMake(Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made; what is left out allows everything."""

    name: str
    owner: str = ""
    enabled: bool = True
    expires_at: Moment | None = None
    allowed_models: tuple[str, ...] = ()
    allowed_addresses: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    budgets: tuple[Budget, ...] = ()
    language: str | None = None
    notes: str = ""


class KeyToChange(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to change of a key. A field replaces all that it said before; what is left out stays."""

    name: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    allowed_models: tuple[str, ...] | UnsetType = UNSET
    allowed_addresses: tuple[str, ...] | UnsetType = UNSET
    limits: tuple[Limit, ...] | UnsetType = UNSET
    budgets: tuple[Budget, ...] | UnsetType = UNSET
    language: str | UnsetType | None = UNSET
    notes: str | UnsetType = UNSET


class ShownKey(Struct, frozen=True, kw_only=True):
    """A key as it is shown; `key` is its text, only at the moment it is made or gets a new secret."""

    id: str
    name: str
    key: str | UnsetType = UNSET
    display: str
    state: KeyState
    owner: str
    enabled: bool
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    rotated_at: str | None
    allowed_models: tuple[str, ...]
    allowed_addresses: tuple[str, ...]
    limits: tuple[Limit, ...]
    budgets: tuple[Budget, ...]
    language: str | None
    notes: str
    version: int


_decode_new = msgspec.json.Decoder(KeyToMake).decode
_decode_changes = msgspec.json.Decoder(KeyToChange).decode


def shown(record: KeyRecord, now: datetime, key: str | None = None) -> ShownKey:
    """Return what there is to say about a key; `key` is its text, at the moment it is made."""
    return ShownKey(
        id=record.id,
        name=record.name,
        key=UNSET if key is None else key,
        display=record.display,
        state=record.state(now),
        owner=record.owner,
        enabled=record.enabled,
        created_at=_moment(record.created_at) or "",
        expires_at=_moment(record.expires_at),
        revoked_at=_moment(record.revoked_at),
        rotated_at=_moment(record.rotated_at),
        allowed_models=record.allowed_models,
        allowed_addresses=record.allowed_addresses,
        limits=tuple([_shown_limit(limit) for limit in record.limits]),
        budgets=tuple([_shown_budget(budget) for budget in record.budgets]),
        language=record.language,
        notes=record.notes,
        version=record.version,
    )


def read_new(body: bytes) -> NewKey:
    """Read a key to be made. Raises `CallerError`, which names the field at fault."""
    document.parse(body)
    try:
        asked = _decode_new(body)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None
    new = NewKey(
        asked.name,
        asked.owner,
        asked.enabled,
        asked.expires_at,
        asked.allowed_models,
        asked.allowed_addresses,
        _limits(asked.limits),
        _budgets(asked.budgets),
        asked.language,
        asked.notes,
    )
    _check(new)
    return new


def read_changes(body: bytes) -> KeyChanges:
    """Read what is to change of a key. Raises `CallerError`, which names the field at fault."""
    document.parse(body)
    try:
        asked = _decode_changes(body)
    except msgspec.ValidationError as error:
        raise document.refusal_of(error) from None
    changes = KeyChanges(
        asked.name,
        asked.owner,
        asked.enabled,
        asked.expires_at,
        asked.allowed_models,
        asked.allowed_addresses,
        UNSET if asked.limits is UNSET else _limits(asked.limits),
        UNSET if asked.budgets is UNSET else _budgets(asked.budgets),
        asked.language,
        asked.notes,
    )
    if changes == KeyChanges():
        raise CallerError(Kind.INVALID_VALUE, "nothing_to_change")
    _check(changes)
    return changes


def refusal_of(error: InvalidField) -> CallerError:
    """Turn what is wrong with a field of a key into what is told."""
    field = error.field.replace("amount_nano_usd", "amount_usd").replace("warn_at_percent", "warn_at")
    return _refusal(field, _PROBLEMS.get(error.problem, "invalid_field"))


def _check(key: NewKey | KeyChanges) -> None:
    try:
        check(key)
    except InvalidField as error:
        raise refusal_of(error) from None


def _limits(asked: tuple[Limit, ...]) -> tuple[KeyLimit, ...]:
    found = []
    for place, limit in enumerate(asked):
        path = f"limits[{place}]"
        if (limit.per is None) != (limit.resource == "in_flight"):
            raise _refusal(f"{path}.per")
        if limit.resource == "usd":
            amount = _money(limit.amount, f"{path}.amount")
        elif isinstance(limit.amount, int) and 0 < limit.amount <= MAX_COUNT:
            amount = limit.amount
        else:
            raise _refusal(f"{path}.amount")
        found.append(KeyLimit(limit.resource, amount, limit.per, limit.model))
    _refuse_twins("limits", [(limit.resource, limit.per, limit.model) for limit in found])
    return tuple(found)


def _budgets(asked: tuple[Budget, ...]) -> tuple[KeyBudget, ...]:
    _refuse_twins("budgets", [budget.per for budget in asked])
    return tuple(
        [
            KeyBudget(_money(budget.amount_usd, f"budgets[{place}].amount_usd"), budget.per, budget.warn_at)
            for place, budget in enumerate(asked)
        ]
    )


def _refuse_twins(path: str, items: list[Any]) -> None:
    """Refuse two limits on the same, or two budgets per the same period: one of them would mean nothing."""
    for place, item in enumerate(items):
        if item in items[:place]:
            raise _refusal(f"{path}[{place}]")


def _money(amount: str | int, path: str) -> int:
    """Return an amount of dollars above 0 in nano-USD."""
    try:
        nano_usd = parse_usd(str(amount))
    except ValueError:
        raise _refusal(path) from None
    if not 0 < nano_usd <= MAX_NANO_USD:
        raise _refusal(path)
    return nano_usd


def _refusal(path: str, reason: str = "invalid_field") -> CallerError:
    return CallerError(Kind.INVALID_VALUE, reason, param=path, parameters={"field": path})


def _shown_limit(limit: KeyLimit) -> Limit:
    amount = format_usd(limit.amount) if limit.resource == "usd" else limit.amount
    # What is kept is text, and was held to these words when it was made.
    return Limit(cast("Resource", limit.resource), amount, cast("Window | None", limit.per), limit.model)


def _shown_budget(budget: KeyBudget) -> Budget:
    return Budget(format_usd(budget.amount_nano_usd), cast("Period", budget.per), budget.warn_at_percent)


def _moment(at: datetime | None) -> str | None:
    """Return a time as RFC 3339 has it, to the second and in UTC."""
    return None if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
