"""Records of calls for tests of the ledger, and what its tables hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from chatgate.accounting.records import Dispatch, Failure, Record, Settlement
from chatgate.accounting.segments import Position
from chatgate.accounting.usage import Source, Usage
from chatgate.storage import ledger, schema
from chatgate.storage.database import Database

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = "key/k1/day/2026-11-23"
EVER = "global//ever/1970-01-01"


def dispatch(
    call_id: str, reserved: int = 0, accounts: tuple[str, ...] = (), attempt: int = 1, **other: Any
) -> Dispatch:
    """Return the record of an attempt; `other` are fields that matter to the test."""
    whole = Dispatch(
        call_id,
        attempt,
        NOON,
        "chat",
        "openai",
        "k1",
        "alice",
        "192.0.2.1",
        "fast",
        "gpt-5-mini",
        "openai",
        stream=True,
        reserved_nano_usd=reserved,
        accounts=accounts,
    )
    return msgspec.structs.replace(whole, **other)


def failure(call_id: str, attempt: int = 1, **other: Any) -> Failure:
    """Return the record of a failed attempt."""
    whole = Failure(call_id, attempt, NOON + timedelta(seconds=1), "upstream_timeout", 504)
    return msgspec.structs.replace(whole, **other)


def settlement(call_id: str, charge: int = 0, attempt: int = 1, **other: Any) -> Settlement:
    """Return the record of an end."""
    whole = Settlement(
        call_id,
        attempt,
        NOON + timedelta(seconds=2),
        "completed",
        200,
        "",
        "gpt-5-mini-2026-01-01",
        Usage(100, 20, 10, 5, 3, 2, 1, Source.COUNTED),
        charge,
        '{"input":"0.25"}',
        (),
        "chatcmpl-1",
        NOON + timedelta(seconds=1),
    )
    return msgspec.structs.replace(whole, **other)


def fold(database: Database, *records: Record | bytes, worker: str = "0", first: int = 0) -> ledger.Folded:
    """Fold records as if each took ten bytes of one journal, the first of them at `first`."""
    entries = [(Position(1, first + 10 * number), record) for number, record in enumerate(records, 1)]
    after = entries[-1][0] if entries else Position(1, first)
    return database.write(ledger.fold, worker, entries, after)


def rows(database: Database) -> dict[tuple[str, int], Any]:
    """Return the ledger's rows by call and attempt."""
    found = database.read(lambda connection: connection.execute(select(schema.attempts)).all())
    return {(row.request_id, row.attempt): row for row in found}


def sums(database: Database, accounts: Iterable[str] = (DAY, EVER)) -> dict[str, tuple[int, int]]:
    """Return what is spent and reserved in accounts."""
    return {name: (spent, reserved) for name, (spent, reserved) in database.read(ledger.balances, accounts).items()}


def quarantine(database: Database) -> Sequence[Any]:
    """Return what could not become rows, in the order of the journal."""
    statement = select(schema.quarantine).order_by(schema.quarantine.c.offset_bytes)
    return database.read(lambda connection: connection.execute(statement).all())


def dump(database: Database) -> dict[str, Sequence[Any]]:
    """Return everything that the ledger consists of."""
    tables = (schema.attempts, schema.budgets, schema.journal_positions, schema.quarantine)

    def read(connection: Connection) -> dict[str, Sequence[Any]]:
        return {table.name: sorted(map(tuple, connection.execute(select(table)))) for table in tables}

    return database.read(read)
