"""The keys of the gateway in the database.

Owns every statement on the table `keys`. Each function takes the connection of a running transaction, so it is called
through `Database` or `DatabaseThreads`:

    record = await database.read(keys.find_by_digest, digest)

Where an `owner` is given, the statement itself only sees that owner's keys; None, which only an administrator may pass,
sees all. Another owner's key and one that does not exist look the same. `version` is what `If-Match` is held against:
a change that expects another version than the stored one is not made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import and_, func, insert, or_, select, true, update
from sqlalchemy.exc import IntegrityError

from chatgate.storage import schema
from chatgate.storage.errors import KeyNotFound, KeyRevoked, KeyTaken, StaleVersion
from chatgate.vocabulary.keys import InvalidField, KeyChanges, KeyRecord, NewKey, check

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

_KEYS = schema.keys
_SHOWN = [column for column in _KEYS.columns if column.name != "digest"]
"""What a `KeyRecord` holds, in no particular order."""

_MAX_ASKED_AT_ONCE = 500
"""Ids in one statement; SQLite and PostgreSQL bound the number of values."""

MAX_LISTED = 1000


def create(connection: Connection, new: NewKey, key_id: str, digest: str, display: str, now: datetime) -> KeyRecord:
    """Store a key and return it. Raises `InvalidField`, and `KeyTaken` when the id or the digest exists."""
    check(new)
    values = msgspec.structs.asdict(new)
    statement = insert(_KEYS).values(
        **values, id=key_id, digest=digest, display=display, created_at=now, version=1, revoked_at=None, rotated_at=None
    )
    try:
        row = connection.execute(statement.returning(*_SHOWN)).one()
    except IntegrityError as error:
        raise KeyTaken from error
    return _record(row)


def get(connection: Connection, key_id: str, *, owner: str | None = None) -> KeyRecord:
    """Return a key. Raises `KeyNotFound`."""
    row = connection.execute(select(*_SHOWN).where(_is(key_id, owner))).one_or_none()
    if row is None:
        raise KeyNotFound
    return _record(row)


def find_by_digest(connection: Connection, digest: str) -> KeyRecord | None:
    """Return the key with this digest, whatever its state; None when there is none."""
    row = connection.execute(select(*_SHOWN).where(_KEYS.c.digest == digest)).one_or_none()
    return None if row is None else _record(row)


def find_by_name(connection: Connection, name: str, *, owner: str | None = None) -> list[KeyRecord]:
    """Return the keys of exactly this name, oldest first; names need not be unique."""
    return _listed(connection, and_(_KEYS.c.name == name, _owned_by(owner)), MAX_LISTED)


def list_keys(
    connection: Connection, *, owner: str | None = None, after: KeyRecord | None = None, limit: int = 100
) -> list[KeyRecord]:
    """Return up to `limit` keys, oldest first; `after` is the last one of the page before.

    Raises `InvalidField` when the limit is not between 1 and `MAX_LISTED`.
    """
    if not 1 <= limit <= MAX_LISTED:
        raise InvalidField("limit", "out_of_range")
    condition = _owned_by(owner)
    if after is not None:
        later = _KEYS.c.created_at > after.created_at
        condition = and_(condition, or_(later, and_(_KEYS.c.created_at == after.created_at, _KEYS.c.id > after.id)))
    return _listed(connection, condition, limit)


def page(connection: Connection, after_id: str | None, limit: int, *, owner: str | None = None) -> list[KeyRecord]:
    """Return keys as `list_keys` does, after the one with an id, which has to be of that owner too.

    Raises `InvalidField`.
    """
    try:
        after = None if after_id is None else get(connection, after_id, owner=owner)
    except KeyNotFound:
        raise InvalidField("after", "out_of_range") from None
    return list_keys(connection, owner=owner, after=after, limit=limit)


def versions(connection: Connection, key_ids: Iterable[str]) -> dict[str, int]:
    """Return the versions of those keys that exist.

    Whoever keeps keys in memory asks this every few seconds, and forgets those that changed: so a revocation is heard
    of everywhere, without anybody's clock.
    """
    asked = list(key_ids)
    found: dict[str, int] = {}
    for first in range(0, len(asked), _MAX_ASKED_AT_ONCE):
        some = asked[first : first + _MAX_ASKED_AT_ONCE]
        rows = connection.execute(select(_KEYS.c.id, _KEYS.c.version).where(_KEYS.c.id.in_(some)))
        found.update((key_id, version) for key_id, version in rows)
    return found


def summary(connection: Connection) -> tuple[int, int]:
    """Return how many keys there are, and the sum of their versions: any change of any key makes that another pair."""
    found = connection.execute(select(func.count(), func.coalesce(func.sum(_KEYS.c.version), 0)).select_from(_KEYS))
    keys, changes = found.one()
    return int(keys), int(changes)


def records(connection: Connection, key_ids: Iterable[str]) -> dict[str, KeyRecord]:
    """Return those keys that exist, whatever their state."""
    asked = list(key_ids)
    found: dict[str, KeyRecord] = {}
    for first in range(0, len(asked), _MAX_ASKED_AT_ONCE):
        some = asked[first : first + _MAX_ASKED_AT_ONCE]
        rows = connection.execute(select(*_SHOWN).where(_KEYS.c.id.in_(some)))
        found.update((row.id, _record(row)) for row in rows)
    return found


def count(connection: Connection) -> int:
    """Return how many keys there are, whatever their state."""
    return connection.execute(select(func.count()).select_from(_KEYS)).scalar_one()


def change(
    connection: Connection,
    key_id: str,
    changes: KeyChanges,
    *,
    expected_version: int | None = None,
    owner: str | None = None,
) -> KeyRecord:
    """Change a key and return it; without `expected_version` whatever was changed meanwhile.

    Raises `InvalidField`, also when an owner would give a key away, `KeyNotFound`, `StaleVersion`, and `KeyRevoked`:
    a revoked key is a record, and stays as it was.
    """
    check(changes)
    values = {name: value for name, value in msgspec.structs.asdict(changes).items() if value is not msgspec.UNSET}
    if owner is not None and values.get("owner", owner) != owner:
        raise InvalidField("owner", "out_of_range")
    return _update(connection, key_id, values, expected_version, owner)


def revoke(
    connection: Connection,
    key_id: str,
    now: datetime,
    *,
    expected_version: int | None = None,
    owner: str | None = None,
) -> KeyRecord:
    """Revoke a key for ever and return it; one that is revoked already stays as it is.

    Raises `KeyNotFound` and `StaleVersion`.
    """
    try:
        return _update(connection, key_id, {"revoked_at": now}, expected_version, owner)
    except KeyRevoked:
        return get(connection, key_id, owner=owner)


def rotate(
    connection: Connection,
    key_id: str,
    digest: str,
    now: datetime,
    *,
    expected_version: int | None = None,
    owner: str | None = None,
) -> KeyRecord:
    """Give a key a new secret by its digest and return it; the old one opens nothing from now on.

    Raises `KeyNotFound`, `KeyRevoked`, `StaleVersion`, and `KeyTaken` when another key has the digest.
    """
    try:
        return _update(connection, key_id, {"digest": digest, "rotated_at": now}, expected_version, owner)
    except IntegrityError as error:
        raise KeyTaken from error


def renew_digest(connection: Connection, key_id: str, former: str, current: str) -> bool:
    """Replace a digest made under a former pepper by one of the same key; False when it is not there any more.

    The key itself does not change, and neither does its version.
    """
    here = and_(_KEYS.c.id == key_id, _KEYS.c.digest == former)
    return connection.execute(update(_KEYS).where(here).values(digest=current)).rowcount == 1


def _update(
    connection: Connection, key_id: str, values: dict[str, Any], expected_version: int | None, owner: str | None
) -> KeyRecord:
    """Change a key that is not revoked, in one statement, so that of two who expect a version only one gets it."""
    as_expected = true() if expected_version is None else _KEYS.c.version == expected_version
    statement = (
        update(_KEYS)
        .where(_is(key_id, owner), _KEYS.c.revoked_at.is_(None), as_expected)
        .values(**values, version=_KEYS.c.version + 1)
        .returning(*_SHOWN)
    )
    row = connection.execute(statement).one_or_none()
    if row is not None:
        return _record(row)
    stored = get(connection, key_id, owner=owner)
    if stored.revoked_at is not None:
        raise KeyRevoked
    raise StaleVersion(stored.version)


def _listed(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[KeyRecord]:
    in_order = select(*_SHOWN).where(condition).order_by(_KEYS.c.created_at, _KEYS.c.id)
    return [_record(row) for row in connection.execute(in_order.limit(limit))]


def _is(key_id: str, owner: str | None) -> ColumnElement[bool]:
    return and_(_KEYS.c.id == key_id, _owned_by(owner))


def _owned_by(owner: str | None) -> ColumnElement[bool]:
    return true() if owner is None else _KEYS.c.owner == owner


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(**row._asdict())
