"""What was used: the calls, tokens and money of the ledger, in groups.

Owns the sums that people and programs are shown; changes nothing. A call counts once, when it has ended, in the row
that ends it, at the time of that attempt's dispatch. Called by the command `usage` and by whoever tells a balance.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, and_, case, func, select

from chatgate.storage import calls, schema
from chatgate.storage.columns import microseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

Grouping = Literal["key", "owner", "model", "upstream", "day"]
GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)

_ROWS = calls.rows
_KEYS = schema.keys
_MAX_ASKED_AT_ONCE = 500
_MICROSECONDS_OF_DAY = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Usage(Struct, frozen=True):
    """What a group of calls used.

    `group` has a value for each grouping that was asked for, in that order: a key's id, an owner, the model that was
    asked for, an upstream, a day in UTC as `2026-11-23`; "" is none. `key_name` is None unless grouped by key, and for
    a key that is gone. Of the calls, `unknown_calls` were interrupted: nobody knows what they cost, and
    `unknown_nano_usd` of the cost is the most that they can have. `own_key_calls` were made with their callers' own
    keys of the provider, who sends them the bill: that is `own_key_nano_usd` of the cost.
    """

    group: tuple[str, ...]
    key_name: str | None
    calls: int
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    unknown_calls: int
    unknown_nano_usd: int
    own_key_calls: int = 0
    own_key_nano_usd: int = 0


def usage(
    connection: Connection,
    by: Sequence[Grouping] = (),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    key_id: str | None = None,
    owner: str | None = None,
) -> list[Usage]:
    """Return the groups that have any calls: by day, the earliest first, and of those the dearest first.

    Without a grouping there is one group, or none when there are no calls. `since` is the first moment, `until` the
    first one after; `key_id` and `owner` ask for the calls of one only.
    """
    named = [_GROUPS[grouping] for grouping in by]
    is_unknown = _ROWS.c.state != "settled"
    sums = (
        func.count(),
        func.sum(_ROWS.c.input_tokens),
        func.sum(_ROWS.c.output_tokens),
        func.sum(_ROWS.c.charged_nano_usd),
        func.sum(case((is_unknown, 1), else_=0)),
        func.sum(case((is_unknown, _ROWS.c.charged_nano_usd), else_=0)),
        func.sum(case((_ROWS.c.own_key, 1), else_=0)),
        func.sum(case((_ROWS.c.own_key, _ROWS.c.charged_nano_usd), else_=0)),
    )
    statement = select(*named, *sums).where(_ended(since, until, key_id, owner)).group_by(*named)
    found = []
    for row in connection.execute(statement):
        values, numbers = row[: len(named)], [int(number or 0) for number in tuple(row)[len(named) :]]
        if numbers[0]:
            group = tuple(map(_text, by, values))
            found.append(Usage(group, None, *numbers))
    if "key" in by:
        found = _with_key_names(connection, found, by.index("key"))
    day = by.index("day") if "day" in by else None
    return sorted(
        found,
        key=lambda each: (each.group[day] if day is not None else "", -each.cost_nano_usd, -each.calls, each.group),
    )


_GROUPS: dict[Grouping, ColumnElement[object]] = {
    "key": _ROWS.c.key_id,
    "owner": _ROWS.c.owner,
    "model": _ROWS.c.asked_model,
    "upstream": _ROWS.c.upstream,
    "day": _ROWS.c.dispatched_at // _MICROSECONDS_OF_DAY,
}


def _ended(
    since: datetime | None, until: datetime | None, key_id: str | None, owner: str | None
) -> ColumnElement[bool]:
    conditions = [_ROWS.c.ends_call, _ROWS.c.state != "refused"]
    if since is not None:
        conditions.append(_ROWS.c.dispatched_at >= microseconds(since))
    if until is not None:
        conditions.append(_ROWS.c.dispatched_at < microseconds(until))
    if key_id is not None:
        conditions.append(_ROWS.c.key_id == key_id)
    if owner is not None:
        conditions.append(_ROWS.c.owner == owner)
    return and_(*conditions)


def _text(grouping: Grouping, value: object) -> str:
    if grouping == "day":
        return (_EPOCH + timedelta(days=int(str(value)))).date().isoformat()
    return "" if value is None else str(value)


def _with_key_names(connection: Connection, found: list[Usage], place: int) -> list[Usage]:
    ids = sorted({each.group[place] for each in found})
    names: dict[str, str] = {}
    for first in range(0, len(ids), _MAX_ASKED_AT_ONCE):
        some = _KEYS.c.id.in_(ids[first : first + _MAX_ASKED_AT_ONCE])
        names.update(
            (key_id, name) for key_id, name in connection.execute(select(_KEYS.c.id, _KEYS.c.name).where(some))
        )
    return [msgspec.structs.replace(each, key_name=names.get(each.group[place])) for each in found]
