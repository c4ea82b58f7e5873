"""Plain calls: those with one attempt, of which one batch tells the beginning, the end, or both, and nothing else.

Owns the short way from their records to rows, which nearly all calls go. It makes what `calls` makes of the same
records, but without an object for each row: many rows are written by one statement, and of those that are there no more
is read than has to be. Used by `ledger`, which sends everything else the long way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache
from itertools import chain, islice
from sqlite3 import sqlite_version_info
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, cast

from chatgate.storage import calls
from chatgate.storage.calls import Money

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from chatgate.storage.records import DispatchRecord, Record, SettlementRecord

_BEGINNING: Final = {
    "worker": "{}",
    "dispatched_at": "{}",
    "key_id": "NULLIF({}, '')",
    **dict.fromkeys(("owner", "address", "operation", "surface"), "{}"),
    "streamed": "{} <> 0",
    **dict.fromkeys(("asked_model", "sent_model", "upstream", "reserved_nano_usd", "accounts"), "{}"),
    "own_key": "{} <> 0",
}
"""What a dispatch says, and how each value is written: for None and truth values, SQLite's driver takes three times as
long as for these."""

_ENDING: Final = {
    "settled_at": "{}",
    "first_token_at": "NULLIF({}, 0)",
    "outcome": "{}",
    "code": "NULLIF({}, '')",
    "status": "NULLIF({}, 0)",
    **dict.fromkeys(("answered_model", "price", "usage_source"), "{}"),
    **dict.fromkeys(("input_tokens", "cached_input_tokens", "cache_write_tokens", "audio_input_tokens"), "{}"),
    **dict.fromkeys(("output_tokens", "reasoning_tokens", "audio_output_tokens"), "{}"),
    "usage_refused": "{} <> 0",
    **dict.fromkeys(("upstream_request_id", "charged_nano_usd"), "{}"),
}
"""What a settlement says."""

_SETTLED: Final = {"attempt": "1", "state": "'settled'", "ends_call": "TRUE"}
_DISPATCHED: Final = {"attempt": "1", "state": "'dispatched'", "ends_call": "FALSE"}
_NO_BEGINNING: Final = {
    "dispatched_at": "0",
    "streamed": "FALSE",
    **dict.fromkeys(
        ("worker", "owner", "address", "operation", "surface", "asked_model", "sent_model", "upstream"), "''"
    ),
}
_NO_ENDING: Final = {
    "usage_refused": "FALSE",
    **dict.fromkeys(("answered_model", "price", "usage_source", "upstream_request_id"), "''"),
}
"""What stands in columns that must not be empty until something is heard."""

_REPLACED: Final = ", ".join(f"{name} = excluded.{name}" for name in (*_ENDING, "state", "ends_call"))

_SHAPES: Final = {
    "whole": (_BEGINNING | _ENDING, _SETTLED, ""),
    "begun": (_BEGINNING, _DISPATCHED | _NO_ENDING, ""),
    "ended": (_ENDING, _SETTLED | _NO_BEGINNING, f" ON CONFLICT (request_id, attempt) DO UPDATE SET {_REPLACED}"),
}
"""By what is told: the columns of a row after its id, those that are always the same, and what happens to a row that is
there."""

_SIZES: Final = (250, 30, 5, 1) if sqlite_version_info >= (3, 32) else (25, 5, 1)
"""How many rows a statement has. The more the better: SQLite's driver lets go of the interpreter for each statement,
and then both who serves calls and who waits for it pay. SQLite before 3.32 takes 999 values."""

_MAX_ASKED: Final = 900
_NO_TOKENS: Final = (0,) * 7

Row: TypeAlias = tuple[str | int, ...]
"""An id, and the values of the columns; "" and 0 are what NULL is made of."""


class Plain(NamedTuple):
    """A call: its only dispatch and its settlement, None for what the batch does not tell."""

    first: DispatchRecord | None
    last: SettlementRecord | None


class Begun(NamedTuple):
    """What is there of a call: a single row, that of a first attempt under way."""

    reserved_nano_usd: int
    accounts: str


def plain(records: Iterable[Record | bytes]) -> dict[str, Plain]:
    """Return the plain calls by their ids; of these, nothing else is among the records."""
    found: dict[str, Plain] = {}
    others: set[str] = set()
    for record in records:
        if isinstance(record, bytes):
            continue
        call_id, kind = record.call_id, calls.kind_of(type(record))
        told = found.get(call_id)
        if record.attempt != 1:
            others.add(call_id)
        elif told is None and kind == "dispatch":
            found[call_id] = Plain(cast("DispatchRecord", record), None)
        elif kind == "settlement" and (told is None or told.last is None):
            found[call_id] = Plain(told.first if told else None, cast("SettlementRecord", record))
        else:
            others.add(call_id)
    for call_id in others:
        found.pop(call_id, None)
    return found


def rows_there(connection: Connection, ids: Collection[str]) -> dict[str, Begun | None]:
    """Return what is there of those calls that have rows; None for what is not as simple as a `Begun`."""
    mark = _mark(connection)
    coming = iter(ids)
    found: dict[str, Begun | None] = {}
    while some := tuple(islice(coming, _MAX_ASKED)):
        marks = ", ".join([mark] * len(some))
        statement = f"SELECT request_id, attempt, state, reserved_nano_usd, accounts FROM attempts WHERE request_id IN ({marks})"  # noqa: S608, E501 - marks
        for call_id, attempt, state, reserved, accounts in connection.exec_driver_sql(statement, some):
            is_begun = call_id not in found and attempt == 1 and state == "dispatched" and accounts is not None
            found[call_id] = Begun(reserved, accounts) if is_begun else None
    return found


def money(call: Plain, begun: Begun | None) -> tuple[Money, Money]:
    """Return what a call was held for, and what it is with its records."""
    first, last = call
    if first is not None:
        names = tuple(dict.fromkeys(first.accounts))
        if last is None:
            return calls.NOTHING, Money(names, 0, first.reserved_nano_usd)
        return calls.NOTHING, Money(names, last.charged_nano_usd, 0)
    if begun is None or last is None:
        return calls.NOTHING, calls.NOTHING
    names = calls.names_in(begun.accounts)
    return Money(names, 0, begun.reserved_nano_usd), Money(names, last.charged_nano_usd, 0)


class Writing:
    """Rows of plain calls on their way into the database; `finish` writes what is left."""

    def __init__(self, connection: Connection, worker: str) -> None:
        """Write to a connection what a worker's journal tells."""
        self._connection = connection
        self._mark = _mark(connection)
        self._worker = worker
        self._rows: dict[str, list[Row]] = {"whole": [], "begun": [], "ended": []}

    def add(self, call_id: str, call: Plain) -> None:
        """Write a call that has no rows, or of which only the end is told. Raises `calls.Unfit`, and writes nothing."""
        calls.check_id(call_id)
        first, last = call
        if first is None:
            shape, row = "ended", (call_id, *_ending(cast("SettlementRecord", last)))
        elif last is None:
            shape, row = "begun", (call_id, *_beginning(first, self._worker))
        else:
            shape, row = "whole", (call_id, *_beginning(first, self._worker), *_ending(last))
        rows = self._rows[shape]
        rows.append(row)
        if len(rows) == _SIZES[0]:
            self._write(shape)

    def finish(self) -> None:
        """Write what is left."""
        for shape in self._rows:
            self._write(shape)

    def _write(self, shape: str) -> None:
        rows, at = self._rows[shape], 0
        for size in _SIZES:
            while at + size <= len(rows):
                values = tuple(chain.from_iterable(rows[at : at + size]))
                self._connection.exec_driver_sql(_statement(self._mark, shape, size), values)
                at += size
        rows.clear()


def _beginning(first: DispatchRecord, worker: str) -> Row:
    """Return the values of `_BEGINNING`. Raises `calls.Unfit`."""
    return (
        worker,
        calls.time_of(first.at),
        *calls.beginning(first),
        calls.amount(first.reserved_nano_usd),
        calls.names(first.accounts),
        1 if first.own_key else 0,
    )


def _ending(last: SettlementRecord) -> Row:
    """Return the values of `_ENDING`. Raises `calls.Unfit`."""
    return (
        calls.time_of(last.at),
        0 if last.first_token_at is None else calls.time_of(last.first_token_at),
        *calls.ending(last),
        *(_NO_TOKENS if last.usage is None else calls.tokens(last.usage)),
        1 if last.flaws else 0,
        calls.upstream_id(last.upstream_request_id),
        calls.amount(last.charged_nano_usd),
    )


def _mark(connection: Connection) -> str:
    """Return what stands for a value in the driver's statements."""
    return "?" if connection.dialect.name == "sqlite" else "%s"


@cache
def _statement(mark: str, shape: str, rows: int) -> str:
    """Return the statement for so many rows. The driver gets their values as they are: it is half the time."""
    told, always, conflict = _SHAPES[shape]
    values = ", ".join([mark, *(column.format(mark) for column in told.values()), *always.values()])
    names = ", ".join(["request_id", *told, *always])
    return f"INSERT INTO attempts ({names}) VALUES {', '.join([f'({values})'] * rows)}{conflict}"  # noqa: S608 - names
