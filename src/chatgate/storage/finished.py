"""Finished calls: those whose beginning and end are told in one batch, with one attempt between them, as of nearly all.

Owns the short way from two records to a row. It makes what `calls` makes of the same records, but looks at no row that
is there and makes no object for it, so it is only for calls that have no rows yet. Used by `ledger`, which sends
everything else the long way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from itertools import chain, islice
from sqlite3 import sqlite_version_info
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from chatgate.storage import calls

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chatgate.storage.records import DispatchRecord, Record, SettlementRecord

_COLUMNS: Final = {
    "request_id": "{}",
    "worker": "{}",
    "dispatched_at": "{}",
    "settled_at": "{}",
    "first_token_at": "NULLIF({}, 0)",
    "key_id": "NULLIF({}, '')",
    **dict.fromkeys(("owner", "address", "operation", "surface"), "{}"),
    "streamed": "{} <> 0",
    **dict.fromkeys(("asked_model", "sent_model", "upstream", "outcome"), "{}"),
    "code": "NULLIF({}, '')",
    "status": "NULLIF({}, 0)",
    **dict.fromkeys(("answered_model", "price", "usage_source"), "{}"),
    **dict.fromkeys(("input_tokens", "cached_input_tokens", "cache_write_tokens", "audio_input_tokens"), "{}"),
    **dict.fromkeys(("output_tokens", "reasoning_tokens", "audio_output_tokens"), "{}"),
    "usage_refused": "{} <> 0",
    **dict.fromkeys(("upstream_request_id", "reserved_nano_usd", "charged_nano_usd", "accounts"), "{}"),
    "own_key": "{} <> 0",
}
"""How each value of a `Row` is written: for None and truth values, SQLite's driver takes three times as long."""

_ALWAYS: Final = {"attempt": "1", "state": "'settled'", "ends_call": "TRUE", "cost_nano_usd": "0"}
_NO_TOKENS: Final = (0,) * 7

_SIZES: Final = (250, 30, 5, 1) if sqlite_version_info >= (3, 32) else (30, 5, 1)
"""How many rows a statement has. The more the better: SQLite's driver lets go of the interpreter for each statement,
and then both who serves calls and who waits for it pay. SQLite before 3.32 takes 999 values."""

_MAX_ASKED: Final = 900

Row: TypeAlias = tuple[str | int, ...]
"""The values of `_COLUMNS`; "" and 0 are what NULL is made of."""


Finished: TypeAlias = tuple["DispatchRecord", "SettlementRecord"]
"""A call: its only dispatch, and its settlement."""


def finished(records: Iterable[Record | bytes]) -> dict[str, Finished]:
    """Return the finished calls by their ids; of these, nothing else is among the records."""
    firsts: dict[str, DispatchRecord] = {}
    found: dict[str, Finished] = {}
    others: set[str] = set()
    for record in records:
        if isinstance(record, bytes):
            continue
        call_id, kind = record.call_id, calls.kind_of(type(record))
        if kind == "dispatch" and call_id not in firsts and record.attempt == 1:
            firsts[call_id] = cast("DispatchRecord", record)
        elif kind == "settlement" and call_id in firsts and call_id not in found and record.attempt == 1:
            found[call_id] = firsts[call_id], cast("SettlementRecord", record)
        else:
            others.add(call_id)
    for call_id in others:
        found.pop(call_id, None)
    return found


def row_of(call: Finished, worker: str) -> Row:
    """Return a call's row. Raises `calls.Unfit`."""
    first, last = call
    calls.check_id(first.call_id)
    return (
        first.call_id,
        worker,
        calls.time_of(first.at),
        calls.time_of(last.at),
        0 if last.first_token_at is None else calls.time_of(last.first_token_at),
        *calls.beginning(first),
        *calls.ending(last),
        *(_NO_TOKENS if last.usage is None else calls.tokens(last.usage)),
        1 if last.flaws else 0,
        calls.upstream_id(last.upstream_request_id),
        calls.amount(first.reserved_nano_usd),
        calls.amount(last.charged_nano_usd),
        calls.names(first.accounts),
        1 if first.own_key else 0,
    )


def insert(connection: Connection, rows: Iterable[Row]) -> None:
    """Write rows, many in one statement, each part as soon as it is there."""
    mark = _mark(connection)
    coming = iter(rows)
    while some := tuple(islice(coming, _SIZES[0])):
        at = 0
        for size in _SIZES:
            while at + size <= len(some):
                connection.exec_driver_sql(_insertion(mark, size), tuple(chain.from_iterable(some[at : at + size])))
                at += size


def present(connection: Connection, ids: Collection[str]) -> set[str]:
    """Return those calls that have rows."""
    mark = _mark(connection)
    coming = iter(ids)
    found: set[str] = set()
    while some := tuple(islice(coming, _MAX_ASKED)):
        statement = f"SELECT request_id FROM attempts WHERE request_id IN ({', '.join([mark] * len(some))})"  # noqa: S608 - marks
        found.update(row[0] for row in connection.exec_driver_sql(statement, some))
    return found


def _mark(connection: Connection) -> str:
    """Return what stands for a value in the driver's statements."""
    return "?" if connection.dialect.name == "sqlite" else "%s"


@cache
def _insertion(mark: str, rows: int) -> str:
    """Return the statement for so many rows. The driver gets their values as they are: it is half the time."""
    values = f"({', '.join([*(column.format(mark) for column in _COLUMNS.values()), *_ALWAYS.values()])})"
    return f"INSERT INTO attempts ({', '.join([*_COLUMNS, *_ALWAYS])}) VALUES {', '.join([values] * rows)}"  # noqa: S608 - names
