"""Plain calls: those with one attempt, of which one batch tells the beginning, the end, or both, and nothing else.

Owns the short way from their records to rows, which nearly all calls go. It makes what `calls` makes of the same
records, but a column at a time, so that nearly all of it is done by the interpreter's own loops: there is no object for
a row. Many rows are written by one statement, which names once what they share, and of those that are there no more is
read than has to be. What does not fit is for the long way, with all its batch. Used by `ledger`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cache
from itertools import chain, compress, filterfalse, islice, repeat
from operator import add, attrgetter, is_, itemgetter
from sqlite3 import sqlite_version_info
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from chatgate.storage import calls
from chatgate.storage.calls import Money

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from sqlalchemy import Connection

    from chatgate.storage.records import DispatchRecord, Record, SettlementRecord

_ASKED: Final = {
    "operation": "{}",
    "surface": "{}",
    "streamed": "{} <> 0",
    **dict.fromkeys(("asked_model", "sent_model", "upstream"), "{}"),
    "own_key": "{} <> 0",
}
"""What dispatches say that many calls have in common, and how each value is written: for None and truth values,
SQLite's driver takes three times as long as for these."""

_BEGINNING: Final = {
    "key_id": "NULLIF({}, '')",
    **dict.fromkeys(("owner", "address", "dispatched_at", "reserved_nano_usd", "accounts"), "{}"),
}
"""What else a dispatch says."""

_ENDED: Final = {
    "outcome": "{}",
    "code": "NULLIF({}, '')",
    "status": "NULLIF({}, 0)",
    **dict.fromkeys(("answered_model", "price", "usage_source"), "{}"),
    "usage_refused": "{} <> 0",
}
"""What settlements say that many calls have in common."""

_ENDING: Final = {
    **dict.fromkeys(("input_tokens", "cached_input_tokens", "cache_write_tokens", "audio_input_tokens"), "{}"),
    **dict.fromkeys(("output_tokens", "reasoning_tokens", "audio_output_tokens"), "{}"),
    "settled_at": "{}",
    "first_token_at": "NULLIF({}, 0)",
    **dict.fromkeys(("upstream_request_id", "charged_nano_usd"), "{}"),
}
"""What else a settlement says."""

_WORKER: Final = {"worker": "{}"}
_ID: Final = {"request_id": "{}"}
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

_REPLACED: Final = ", ".join(f"{name} = excluded.{name}" for name in (*_ENDED, *_ENDING, "state", "ends_call"))


class _Shape(NamedTuple):
    """Rows by what is told of them: columns that one statement's rows share, that each has, and that always are alike.

    `conflict` is what happens to a row that is there.
    """

    shared: dict[str, str]
    own: dict[str, str]
    always: dict[str, str]
    conflict: str = ""


_SHAPES: Final = {
    "whole": _Shape(_WORKER | _ASKED | _ENDED, _ID | _BEGINNING | _ENDING, _SETTLED),
    "begun": _Shape(_WORKER | _ASKED, _ID | _BEGINNING, _DISPATCHED | _NO_ENDING),
    "ended": _Shape(
        _ENDED,
        _ID | _ENDING,
        _SETTLED | _NO_BEGINNING,
        f" ON CONFLICT (request_id, attempt) DO UPDATE SET {_REPLACED}",
    ),
}

_SIZES: Final = (256, 64, 16, 4, 1) if sqlite_version_info >= (3, 32) else (48, 12, 3, 1)
"""How many rows a statement has. The more the better: SQLite's driver lets go of the interpreter for each statement,
and then both who serves calls and who waits for it pay. SQLite before 3.32 takes 999 values."""

_MAX_ASKED: Final = 900
_FEW: Final = 10

_id_of = attrgetter("call_id")
_attempt_of = attrgetter("attempt")
_at_of = attrgetter("at")
_reserved_of = attrgetter("reserved_nano_usd")
_accounts_of = attrgetter("accounts")
_usage_of = attrgetter("usage")
_first_token_of = attrgetter("first_token_at")
_upstream_id_of = attrgetter("upstream_request_id")
_charged_of = attrgetter("charged_nano_usd")

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
    mark = _mark(connection)
    columns = "SELECT request_id, attempt, state, reserved_nano_usd, accounts FROM attempts"
    if len(ids) > _FEW and mark == "?":
        between = f"{columns} WHERE request_id BETWEEN ? AND ? LIMIT ?"
        some = connection.exec_driver_sql(between, (min(ids), max(ids), len(ids))).all()
        if len(some) < len(ids):
            yield from (row for row in some if row[0] in ids)
            return
    coming = iter(ids)
    while some_ids := tuple(islice(coming, _MAX_ASKED)):
        marks = ", ".join([mark] * len(some_ids))
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
    whole = list(filter(lasts.__contains__, firsts))
    writing.whole(whole, list(map(firsts.__getitem__, whole)), list(map(lasts.__getitem__, whole)))
    fresh = list(filterfalse(lasts.__contains__, firsts))
    writing.begun(fresh, list(map(firsts.__getitem__, fresh)))
    writing.ended(list(begun), list(map(lasts.__getitem__, begun)), list(begun.values()))
    return writing.changes


class _Writing:
    """Rows of plain calls on their way into the database, and by how much they change the sums."""

    def __init__(self, connection: Connection, worker: str) -> None:
        """Write to a connection what a worker's journal tells."""
        self._connection = connection
        self._worker = worker
        self._mark = _mark(connection)
        self.changes: list[Money] = []

    def whole(self, ids: Sequence[str], firsts: Sequence[DispatchRecord], lasts: Sequence[SettlementRecord]) -> None:
        """Write calls that began and ended."""
        own = map(add, map(add, zip(ids), _beginnings(firsts)), _endings(lasts))
        self._insert("whole", zip(repeat((self._worker,)), calls.asked(firsts), calls.ended(lasts)), own)
        for names, charged in _sums(map(_accounts_of, firsts), map(_charged_of, lasts)):
            self.changes.append(Money(names, charged, 0))

    def begun(self, ids: Sequence[str], firsts: Sequence[DispatchRecord]) -> None:
        """Write calls that are under way."""
        self._insert(
            "begun", zip(repeat((self._worker,)), calls.asked(firsts)), map(add, zip(ids), _beginnings(firsts))
        )
        for names, reserved in _sums(map(_accounts_of, firsts), map(_reserved_of, firsts)):
            self.changes.append(Money(names, 0, reserved))

    def ended(self, ids: Sequence[str], lasts: Sequence[SettlementRecord], begun: Sequence[Begun]) -> None:
        """Write the ends of calls that are there."""
        self._insert("ended", zip(calls.ended(lasts)), map(add, zip(ids), _endings(lasts)))
        accounts = [calls.names_in(each.accounts) for each in begun]
        for names, charged in _sums(accounts, map(_charged_of, lasts)):
            self.changes.append(Money(names, charged, 0))
        for names, reserved in _sums(accounts, [each.reserved_nano_usd for each in begun]):
            self.changes.append(Money(names, 0, -reserved))

    def _insert(self, shape: str, shared: Iterable[tuple[Values, ...]], own: Iterable[Values]) -> None:
        """Write rows, those together that share their values. Raises `calls.Unfit`, as what is iterated over does."""
        groups: defaultdict[tuple[Values, ...], list[Any]] = defaultdict(list)
        for values, row in zip(shared, own, strict=False):
            groups[values].extend(row)
        width = len(_SHAPES[shape].own)
        for values, rows in groups.items():
            at = 0
            for size in _SIZES:
                while at + size * width <= len(rows):
                    some = (*chain.from_iterable(values), *rows[at : at + size * width])
                    self._connection.exec_driver_sql(_statement(self._mark, shape, size), some)
                    at += size * width


def _beginnings(firsts: Sequence[DispatchRecord]) -> Iterator[Values]:
    """Return the values of `_BEGINNING`. Raises `calls.Unfit`, also while they are taken."""
    at, reserved = calls.times(map(_at_of, firsts)), calls.amounts(list(map(_reserved_of, firsts)))
    return map(add, calls.callers(firsts), zip(at, reserved, map(calls.names, map(_accounts_of, firsts)), strict=True))


def _endings(lasts: Sequence[SettlementRecord]) -> Iterator[Values]:
    """Return the values of `_ENDING`. Raises `calls.Unfit`."""
    at, first_token_at = calls.times(map(_at_of, lasts)), calls.times(map(_first_token_of, lasts))
    upstream_ids = calls.upstream_ids(list(map(_upstream_id_of, lasts)))
    charged = calls.amounts(list(map(_charged_of, lasts)))
    return map(add, calls.counts(map(_usage_of, lasts)), zip(at, first_token_at, upstream_ids, charged, strict=True))


def _sums(accounts: Iterable[tuple[str, ...]], amounts: Iterable[int]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield which accounts take how much together."""
    sums: defaultdict[tuple[str, ...], int] = defaultdict(int)
    for names, amount in filter(itemgetter(0), zip(accounts, amounts, strict=True)):
        sums[names] += amount
    for names, amount in sums.items():
        yield tuple(dict.fromkeys(names)), amount


def _mark(connection: Connection) -> str:
    """Return what stands for a value in the driver's statements."""
    return "?" if connection.dialect.name == "sqlite" else "%s"


@cache
def _statement(mark: str, shape: str, rows: int) -> str:
    """Return the statement for so many rows. The driver gets their values as they are: it is half the time."""
    shared, own, always, conflict = _SHAPES[shape]
    names = ", ".join([*shared, *own, *always])
    alike = [column.format(mark) for column in shared.values()]
    various = [column.format(f"column{number}") for number, column in enumerate(own.values(), 1)]
    values = f"({', '.join([mark] * len(own))})"
    return (
        f"INSERT INTO attempts ({names}) SELECT {', '.join([*alike, *various, *always.values()])} "  # noqa: S608 - names
        f"FROM (VALUES {', '.join([values] * rows)}) AS told WHERE TRUE{conflict}"
    )
