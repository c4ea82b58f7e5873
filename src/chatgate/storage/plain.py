"""Plain calls: those with one attempt, of which one batch tells the beginning, the end, or both, and nothing else.

Owns the short way from their records to rows, which nearly all calls go. It makes what `calls` makes of the same
records, but a column at a time, so that nearly all of it is done by the interpreter's own loops: there is no object for
a row. Many rows are written by one statement, which names once what they have in common, and of those that are there no
more is read than has to be. What does not fit is for the long way, with all its batch. Used by `ledger`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import lru_cache
from itertools import chain, compress, filterfalse, islice, repeat
from operator import attrgetter, is_, itemgetter
from sqlite3 import sqlite_version_info
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from chatgate.storage import calls
from chatgate.storage.calls import Money

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from chatgate.storage.records import DispatchRecord, Record, SettlementRecord

_WRITTEN: Final = {
    **dict.fromkeys(("key_id", "code"), "CASE WHEN {0} <> '' THEN {0} END"),
    **dict.fromkeys(("status", "first_token_at"), "CASE WHEN {0} <> 0 THEN {0} END"),
    **dict.fromkeys(("streamed", "own_key", "usage_refused"), "{0} <> 0"),
}
"""How values are written that are not as the row has them: for None and truth values, SQLite's driver takes three times
as long as for others."""

_TRUTHS: Final = frozenset(("streamed", "own_key", "usage_refused"))

_COMMON: Final = frozenset(
    (
        *("operation", "surface", "streamed", "asked_model", "sent_model", "upstream", "own_key"),
        *("outcome", "code", "status", "answered_model", "price", "usage_source", "usage_refused"),
    )
)
"""Columns in which many calls have the same value, even when not all of a batch do."""

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

_REPLACED: Final = ", ".join(f"{name} = excluded.{name}" for name in (*calls.SETTLED, "state", "ends_call"))


class _Shape(NamedTuple):
    """Rows by what is told of them: what always stands in them, and what happens to a row that is there."""

    always: dict[str, str]
    conflict: str = ""


_SETTLED: Final = {"attempt": "1", "state": "'settled'", "ends_call": "TRUE"}
_SHAPES: Final = {
    "whole": _Shape(_SETTLED),
    "begun": _Shape({"attempt": "1", "state": "'dispatched'", "ends_call": "FALSE"} | _NO_ENDING),
    "ended": _Shape(_SETTLED | _NO_BEGINNING, f" ON CONFLICT (request_id, attempt) DO UPDATE SET {_REPLACED}"),
}

_SIZES: Final = (256, 64, 16, 4, 1) if sqlite_version_info >= (3, 32) else (48, 12, 3, 1)
"""How many rows a statement has. The more the better: SQLite's driver lets go of the interpreter for each statement,
and then both who serves calls and who waits for it pay. SQLite before 3.32 takes 999 values."""

_MAX_ASKED: Final = 900
_FEW: Final = 10

_id_of = attrgetter("call_id")
_attempt_of = attrgetter("attempt")


Values: TypeAlias = tuple[Any, ...]
"""Some of a row; "" and 0 are what NULL is made of."""


class Told(NamedTuple):
    """What a batch tells of plain calls, by their ids: their only dispatches, and their settlements."""

    firsts: dict[str, DispatchRecord]
    lasts: dict[str, SettlementRecord]


class Begun(NamedTuple):
    """What is there of a call: a single row, that of a first attempt under way."""

    reserved_nano_usd: int
    accounts: str


def plain(records: Sequence[Record | bytes]) -> Told:
    """Return what is told of plain calls; of these, nothing else is among the records."""
    kinds: dict[str, list[Any]] = {"dispatch": [], "failure": [], "settlement": []}
    types = list(map(type, records))
    for found in set(types) - {bytes}:
        kinds[calls.kind_of(found)] += compress(records, map(is_, types, repeat(found)))
    told = Told(_by_id(kinds["dispatch"]), _by_id(kinds["settlement"]))
    others = set(map(_id_of, kinds["failure"]))
    for by_id, some in ((told.firsts, kinds["dispatch"]), (told.lasts, kinds["settlement"])):
        if len(by_id) < len(some):
            others.update(call_id for call_id, times in Counter(map(_id_of, some)).items() if times > 1)
        if set(map(_attempt_of, some)) - {1}:
            others.update(record.call_id for record in some if record.attempt != 1)
    forget(told, others)
    return told


def forget(told: Told, call_ids: Iterable[str]) -> None:
    """Leave calls to the long way."""
    for call_id in call_ids:
        told.firsts.pop(call_id, None)
        told.lasts.pop(call_id, None)


def _by_id(records: list[Any]) -> dict[str, Any]:
    return dict(zip(map(_id_of, records), records, strict=True))


def rows_there(connection: Connection, ids: Collection[str]) -> dict[str, Begun | None]:
    """Return what is there of those calls that have rows; None for what is not as simple as a `Begun`."""
    found: dict[str, Begun | None] = {}
    for call_id, attempt, state, reserved, accounts in _rows_there(connection, ids):
        is_begun = call_id not in found and attempt == 1 and state == "dispatched" and accounts is not None
        found[call_id] = Begun(reserved, accounts) if is_begun else None
    return found


def _rows_there(connection: Connection, ids: Collection[str]) -> Iterator[Sequence[Any]]:
    """Yield the rows of calls.

    Calls that one process makes one after the other have ids side by side, and nearly always none of them is there: on
    SQLite, which compares texts as Python does, it takes a tenth of the time to see what lies between the first and the
    last.
    """
    sign = mark(connection)
    columns = "SELECT request_id, attempt, state, reserved_nano_usd, accounts FROM attempts"
    if len(ids) > _FEW and sign == "?":
        between = f"{columns} WHERE request_id BETWEEN ? AND ? LIMIT ?"
        some = connection.exec_driver_sql(between, (min(ids), max(ids), len(ids))).all()
        if len(some) < len(ids):
            yield from (row for row in some if row[0] in ids)
            return
    coming = iter(ids)
    while some_ids := tuple(islice(coming, _MAX_ASKED)):
        marks = ", ".join([sign] * len(some_ids))
        yield from connection.exec_driver_sql(f"{columns} WHERE request_id IN ({marks})", some_ids)


def write(connection: Connection, worker: str, told: Told) -> list[Money]:
    """Write calls that have no rows, or of which only the end is told and what is there is `Begun`.

    The others are taken out of `told`. Returns by how much the sums of accounts are to change. Raises `calls.Unfit`
    when any of the calls does not fit.
    """
    firsts, lasts = told
    forget(told, rows_there(connection, firsts))
    late = dict.fromkeys(filterfalse(firsts.__contains__, lasts))
    there = rows_there(connection, late)
    forget(told, [call_id for call_id in late if there.get(call_id) is None])
    begun = {call_id: row for call_id, row in there.items() if row is not None}
    calls.check_ids([*firsts, *begun])
    writing = _Writing(connection, worker)
    writing.whole(list(filter(lasts.__contains__, firsts)), firsts, lasts)
    writing.begun(list(filterfalse(lasts.__contains__, firsts)), firsts)
    writing.ended(begun, lasts)
    return writing.changes


class _Writing:
    """Rows of plain calls on their way into the database, and by how much they change the sums."""

    def __init__(self, connection: Connection, worker: str) -> None:
        """Write to a connection what a worker's journal tells."""
        self._connection = connection
        self._worker = worker
        self._mark = mark(connection)
        self.changes: list[Money] = []

    def whole(
        self, ids: Sequence[str], firsts: Mapping[str, DispatchRecord], lasts: Mapping[str, SettlementRecord]
    ) -> None:
        """Write calls that began and ended."""
        if not ids:
            return
        first, last = calls.said(_of(ids, firsts)), calls.said(_of(ids, lasts))
        rows = _Rows(ids, worker=self._worker)
        rows.take(calls.DISPATCHED, first)
        rows.take(calls.SETTLED, last)
        self._insert("whole", rows)
        for names, charged in _sums(first["accounts"], last["charged_nano_usd"]):
            self.changes.append(Money(names, charged, 0))

    def begun(self, ids: Sequence[str], firsts: Mapping[str, DispatchRecord]) -> None:
        """Write calls that are under way."""
        if not ids:
            return
        first = calls.said(_of(ids, firsts))
        rows = _Rows(ids, worker=self._worker)
        rows.take(calls.DISPATCHED, first)
        self._insert("begun", rows)
        for names, reserved in _sums(first["accounts"], first["reserved_nano_usd"]):
            self.changes.append(Money(names, 0, reserved))

    def ended(self, begun: Mapping[str, Begun], lasts: Mapping[str, SettlementRecord]) -> None:
        """Write the ends of calls that are there."""
        if not begun:
            return
        last = calls.said(_of(begun, lasts))
        rows = _Rows(list(begun))
        rows.take(calls.SETTLED, last)
        self._insert("ended", rows)
        accounts = [calls.names_in(each.accounts) for each in begun.values()]
        for names, charged in _sums(accounts, last["charged_nano_usd"]):
            self.changes.append(Money(names, charged, 0))
        for names, reserved in _sums(accounts, [each.reserved_nano_usd for each in begun.values()]):
            self.changes.append(Money(names, 0, -reserved))

    def _insert(self, shape: str, rows: _Rows) -> None:
        """Write rows, as many as possible by one statement."""
        for alike, various, values in rows.groups():
            at = 0
            for size in _SIZES:
                while at + size <= len(values):
                    some = (*alike.values(), *chain.from_iterable(values[at : at + size]))
                    statement = _statement(self._mark, shape, tuple(alike), various, size)
                    self._connection.exec_driver_sql(statement, some)
                    at += size


class _Rows:
    """Rows by their columns: those in which all rows are alike, by their value, and those in which they are not."""

    def __init__(self, ids: Sequence[str], **alike: str) -> None:
        """Begin with what is known of all."""
        self._alike: dict[str, Any] = alike
        self._various: dict[str, Sequence[Any]] = {"request_id": ids}

    def take(self, columns: Mapping[str, tuple[str, calls.Convert]], said: calls.Said) -> None:
        """Add what records say, in the order of the ids. Raises `calls.Unfit`."""
        for column, (field, convert) in columns.items():
            values = said[field]
            if values.count(values[0]) == len(values):
                (value,) = convert(values[:1])
                self._alike[column] = _whole(column, value)
            else:
                self._various[column] = convert(values)

    def groups(self) -> Iterator[tuple[dict[str, Any], tuple[str, ...], Sequence[Values]]]:
        """Yield rows that go together: what they have in common, the names of the other columns, and their values."""
        common = [column for column in self._various if column in _COMMON]
        shared = list(zip(*map(self._various.pop, common), strict=True))
        names, rows = tuple(self._various), list(zip(*self._various.values(), strict=True))
        if not common:
            yield self._alike, names, rows
            return
        groups: defaultdict[Values, list[Values]] = defaultdict(list)
        for values, row in zip(shared, rows, strict=True):
            groups[values].append(row)
        for values, some in groups.items():
            yield self._alike | dict(zip(common, map(_whole, common, values), strict=True)), names, some


def _whole(column: str, value: Any) -> Any:  # noqa: ANN401 - whatever a row has
    """Return a value as the row has it."""
    if column in _TRUTHS:
        return bool(value)
    return None if column in _WRITTEN and not value else value


def _of(ids: Iterable[str], records: Mapping[str, Any]) -> list[Any]:
    return list(map(records.__getitem__, ids))


def _sums(accounts: Sequence[tuple[str, ...]], amounts: Iterable[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield which accounts take how much together."""
    if not any(accounts):
        return
    sums: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for names, amount in filter(itemgetter(0), zip(accounts, amounts, strict=True)):
        sums[names] += amount
    for names, amount in sums.items():
        yield tuple(dict.fromkeys(names)), amount


def mark(connection: Connection) -> str:
    """Return what stands for a value in the driver's statements."""
    return "?" if connection.dialect.name == "sqlite" else "%s"


@lru_cache(128)
def _statement(sign: str, shape: str, alike: tuple[str, ...], various: tuple[str, ...], rows: int) -> str:
    """Return the statement for so many rows. The driver gets their values as they are: it is half the time.

    SQLite copies each page that is changed by a statement which may have to be undone alone. None has to be here, where
    a failure undoes more than that; and none must call a function, which could raise an error of its own.
    """
    verb = "INSERT OR FAIL" if sign == "?" else "INSERT"
    always, conflict = _SHAPES[shape]
    written = [_WRITTEN.get(column, "{0}").format(f"column{number}") for number, column in enumerate(various, 1)]
    values = f"({', '.join([sign] * len(various))})"
    return (
        f"{verb} INTO attempts ({', '.join([*alike, *various, *always])}) "  # noqa: S608 - names
        f"SELECT {', '.join([*[sign] * len(alike), *written, *always.values()])} "
        f"FROM (VALUES {', '.join([values] * rows)}) AS told WHERE TRUE{conflict}"
    )
