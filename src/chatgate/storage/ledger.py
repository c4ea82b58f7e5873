"""The ledger in the database: records of journals become rows, exactly once, and their money becomes sums.

Owns every statement that changes `attempts`, `budgets`, `journal_positions` and `quarantine`, those for plain calls
together with `plain`. What a record means is in `calls`; each function takes the connection of a running transaction,
so that rows, sums and the place in the journal change together or not at all:

    await database.write(ledger.fold, worker, entries, position_after)

Laws. Folding an entry again changes nothing. Entries may come in any order. An entry that cannot become a row is put
into `quarantine`, and its neighbours become rows all the same. Sums equal the rows, deleted ones included, at the end
of each transaction: `audit` recomputes them. Those who change the ledger do so one at a time, on PostgreSQL too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, Self, TypeAlias

import msgspec
from msgspec import Struct
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy import exc as sql_errors

from chatgate.storage import calls, plain, schema
from chatgate.storage.calls import Attempt, Call, Unfit
from chatgate.storage.columns import microseconds
from chatgate.storage.database import first_line, reason_of
from chatgate.storage.records import Record

_ROWS = calls.rows
_BUDGETS = schema.budgets
_POSITIONS = schema.journal_positions
_QUARANTINE = schema.quarantine

_ADVISORY_LOCK = 0x6368_6174_6C65_6467
"""PostgreSQL's advisory locks are numbers; this one spells `chatledg`."""

_MAX_AT_ONCE = 500
"""Entries, calls or accounts in one statement; both databases bound the number of values."""

_ROWS_AT_ONCE = 25
"""Rows in one statement: any SQLite takes 999 values."""


class Position(Protocol):
    """A place between two records of a journal; see `accounting.segments.Position`."""

    @property
    def segment(self) -> int:
        """Return the file's number."""

    @property
    def offset(self) -> int:
        """Return the place in the file, in bytes."""


class Place(NamedTuple):
    """A position that was stored: `Position(*place)` of `accounting.segments` is the same."""

    segment: int
    offset: int


Entry: TypeAlias = tuple[Position, Record | bytes]
"""What was read from a journal: where reading goes on after it, and a record, or damaged bytes that are none."""


class Folded(Struct, frozen=True):
    """How many entries were folded, and how many of them are in quarantine now."""

    entries: int
    quarantined: int


class Balance(NamedTuple):
    """What is spent, and what is reserved for calls under way, in an account, in nano-USD."""

    spent: int
    reserved: int


def fold(connection: Connection, worker: str, entries: Sequence[Entry], position_after: Position) -> Folded:
    """Fold the entries of a worker's journal, and remember that it is folded up to `position_after`.

    A worker's name is that of its journal; of several machines with one database, no two have the same. An entry
    counts once by its ids, wherever it lies: the place only says where reading goes on.
    """
    take_turn(connection)
    left = _fold_whole(connection, worker, entries)
    quarantined = sum(_fold_some(connection, worker, some) for some in _parts(left))
    mark = plain.mark(connection)
    place = (worker, position_after.segment, position_after.offset)
    connection.exec_driver_sql(_SET_POSITION.format(mark), place)
    return Folded(len(entries), quarantined)


_SET_POSITION = (
    "INSERT INTO journal_positions (worker, segment, offset_bytes) VALUES ({0}, {0}, {0}) ON CONFLICT (worker)"
    " DO UPDATE SET segment = excluded.segment, offset_bytes = excluded.offset_bytes"
)


def positions(connection: Connection) -> dict[str, Place]:
    """Return up to which place the journal of each worker is folded: reading goes on from there."""
    stored = select(_POSITIONS.c.worker, _POSITIONS.c.segment, _POSITIONS.c.offset_bytes)
    return {worker: Place(segment, offset) for worker, segment, offset in connection.execute(stored)}


def interrupt(connection: Connection, worker: str, at: datetime, alive: Collection[str] = ()) -> int:
    """Say of a worker's calls under way that their process has ended, at `at`; return how many there were.

    They become `unknown`, and what they reserved is spent, as an upper bound. To be called when the journal of that
    process is folded to its end; the ids of calls that a new process of the same name has begun since are `alive`.
    """
    take_turn(connection)
    other = _ROWS.alias()
    is_ended = exists().where(other.c.request_id == _ROWS.c.request_id, other.c.ends_call)
    open_ones = select(_ROWS.c.request_id).where(_ROWS.c.worker == worker, ~_ROWS.c.ends_call, ~is_ended).distinct()
    found = [call_id for (call_id,) in connection.execute(open_ones) if call_id not in alive]
    moment = microseconds(at)
    for ids in _parts(found):
        with _Change(connection, ids) as change:
            for call in change.calls.values():
                calls.interrupt(call, moment)
    return len(found)


def balances(connection: Connection, accounts: Iterable[str]) -> dict[str, Balance]:
    """Return the balances of those accounts that have one."""
    found: dict[str, Balance] = {}
    for names in _parts(list(accounts)):
        found |= _balances(connection, _BUDGETS.c.account.in_(names))
    return found


def taken_without(connection: Connection, accounts: Sequence[str], call_ids: Sequence[str]) -> dict[str, int]:
    """Return what is spent or reserved in those accounts that have a balance, but for what these calls take of it."""
    found = {name: sum(balance) for name, balance in balances(connection, accounts).items()}
    for ids in _parts(call_ids):
        for call in _load(connection, ids).values():
            money = calls.money(call.values())
            for account in money.accounts:
                if account in found:
                    found[account] -= money.spent + money.reserved
    return found


def balances_of_periods(connection: Connection, periods: Iterable[str]) -> dict[str, Balance]:
    """Return the balances of all accounts whose names end in one of these: `day/2026-11-23`, `ever/1970-01-01`."""
    endings = [_BUDGETS.c.account.endswith(f"/{period}", autoescape=True) for period in periods]
    return _balances(connection, or_(false(), *endings))


def _balances(connection: Connection, condition: ColumnElement[bool]) -> dict[str, Balance]:
    columns = select(_BUDGETS.c.account, _BUDGETS.c.spent_nano_usd, _BUDGETS.c.reserved_nano_usd)
    found = connection.execute(columns.where(condition))
    return {name: Balance(spent, reserved) for name, spent, reserved in found}


def quarantined(connection: Connection) -> int:
    """Return how many entries of journals are in quarantine."""
    return connection.execute(select(func.count()).select_from(_QUARANTINE)).scalar_one()


def forget(connection: Connection, before: datetime, batch: int = 1000) -> int:
    """Delete up to `batch` calls that began and ended before a time, the oldest first; return how many went.

    Called again, in a transaction of its own each time, until it returns less than `batch`. What the calls cost stays
    in the sums; those of periods long over go with the last of their calls.
    """
    take_turn(connection)
    moment = microseconds(before)
    over = and_(_ROWS.c.ends_call, _ROWS.c.dispatched_at < moment, _ROWS.c.settled_at < moment)
    oldest = select(_ROWS.c.request_id).where(over).order_by(_ROWS.c.dispatched_at, _ROWS.c.request_id).limit(batch)
    found = list(connection.execute(oldest).scalars())
    for ids in _parts(found):
        spent: dict[str, int] = {}
        for call in _load(connection, ids).values():
            taken = calls.money(call.values())
            for account in taken.accounts:
                spent[account] = spent.get(account, 0) + taken.spent
        connection.execute(delete(_ROWS).where(_ROWS.c.request_id.in_(ids)))
        forgotten = [{"name": account, "sum": sum_} for account, sum_ in spent.items() if sum_]
        if forgotten:
            connection.execute(_FORGET, forgotten)
    if len(found) < batch:
        _forget_sums(connection, before)
    return len(found)


def _forget_sums(connection: Connection, before: datetime) -> None:
    """Delete the sums of periods that were over before a time, once no row counts towards them."""
    counts = (_BUDGETS.c.spent_nano_usd != _BUDGETS.c.forgotten_nano_usd) | (_BUDGETS.c.reserved_nano_usd != 0)
    oldest = (before.astimezone(UTC) - _LONGEST_PERIOD).date().isoformat()
    over = []
    for name in connection.execute(select(_BUDGETS.c.account).where(~counts)).scalars():
        per, start = ("", *name.rsplit("/", 2))[-2:]
        if per in _PERIODS_THAT_END and start < oldest:
            over.append(name)
    for names in _parts(over):
        connection.execute(delete(_BUDGETS).where(_BUDGETS.c.account.in_(names)))


_LONGEST_PERIOD = timedelta(days=32)
_PERIODS_THAT_END = frozenset({"day", "week", "month"})

_FORGET = (
    update(_BUDGETS)
    .where(_BUDGETS.c.account == bindparam("name"))
    .values(forgotten_nano_usd=_BUDGETS.c.forgotten_nano_usd + bindparam("sum"))
)


def _fold_whole(connection: Connection, worker: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Fold what is told of plain calls, as `_fold_plain`.

    SQLite copies each page that changes after a savepoint, so it has none: should a value be refused, which is rare,
    the transaction begins anew. For that it must not have changed anything before.
    """
    if connection.dialect.name != "sqlite":
        return _fold_plain(connection, worker, entries)
    try:
        return _write_plain(connection, worker, entries)
    except _REFUSALS as error:
        if _is_unavailable(error):
            raise
    connection.exec_driver_sql("ROLLBACK")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    return _fold_plain(connection, worker, entries)


def _fold_plain(connection: Connection, worker: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Fold what is told of plain calls; return what is left: all around what does not fit, or is refused."""
    savepoint = connection.begin_nested()
    try:
        left = _write_plain(connection, worker, entries)
    except _REFUSALS as error:
        if _is_unavailable(error):
            raise
        savepoint.rollback()
        if len(entries) <= _MAX_AT_ONCE:
            return entries
        middle = len(entries) // 2
        return [
            entry for half in (entries[:middle], entries[middle:]) for entry in _fold_plain(connection, worker, half)
        ]
    savepoint.commit()
    return left


def _write_plain(connection: Connection, worker: str, entries: Sequence[Entry]) -> Sequence[Entry]:
    """Write plain calls, and move the sums; return what is told of others. Raises what the database has against it."""
    told = plain.plain(list(map(_RECORD_OF, entries)))
    if not any(told):
        return entries
    changes: dict[str, list[int]] = {}
    for change in plain.write(connection, worker, told):
        _add(changes, change, 1)
    _move(connection, changes)
    firsts, lasts = told
    if len(firsts) + len(lasts) == len(entries):
        return ()
    done = firsts.keys() | lasts.keys()
    return [entry for entry in entries if isinstance(entry[1], bytes) or entry[1].call_id not in done]


_RECORD_OF = itemgetter(1)

_REFUSALS = (sql_errors.DBAPIError, Unfit, ValueError, TypeError, OverflowError)
"""What says that a value cannot be stored, unless `_is_unavailable`."""


def _fold_some(connection: Connection, worker: str, entries: Sequence[Entry]) -> int:
    """Fold entries, half of them at a time when the database refuses them; return how many are in quarantine."""
    refused: list[tuple[Position, Record | bytes, str]] = []
    savepoint = connection.begin_nested()
    try:
        _apply(connection, worker, entries, refused)
    except _REFUSALS as error:
        # A database without room has undone the whole transaction already, and knows of no savepoint.
        if _is_unavailable(error):
            raise
        savepoint.rollback()
        if len(entries) > 1:
            middle = len(entries) // 2
            return sum(_fold_some(connection, worker, half) for half in (entries[:middle], entries[middle:]))
        refused = [(*entries[0], _problem(error))]
    else:
        savepoint.commit()
    for position, record, problem in refused:
        _put_into_quarantine(connection, worker, position, record, problem)
    return len(refused)


def _apply(
    connection: Connection,
    worker: str,
    entries: Sequence[Entry],
    refused: list[tuple[Position, Record | bytes, str]],
) -> None:
    """Fold entries, or raise what the database has against them; those that cannot be rows are added to `refused`."""
    whole: list[tuple[Position, Record]] = []
    for position, record in entries:
        if isinstance(record, bytes):
            refused.append((position, record, "damaged"))
            continue
        try:
            calls.check_id(record.call_id)
        except Unfit as unfit:
            refused.append((position, record, _problem(unfit)))
        else:
            whole.append((position, record))
    with _Change(connection, {record.call_id for _, record in whole}) as change:
        for position, record in whole:
            try:
                calls.take(change.calls.setdefault(record.call_id, {}), record, worker)
            except Unfit as unfit:
                refused.append((position, record, _problem(unfit)))


class _Change:
    """A change of the rows of some calls; at the end of the block they and the sums are written."""

    def __init__(self, connection: Connection, ids: Collection[str]) -> None:
        """Read what is there of these calls into `calls`, to be changed."""
        self._connection = connection
        self._ids = ids

    def __enter__(self) -> Self:
        self.calls = _load(self._connection, self._ids)
        self._before = {call_id: [*map(_copy, call.values())] for call_id, call in self.calls.items()}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._write()

    def _write(self) -> None:
        """Replace the rows of calls that are not as they were, and move the sums by as much."""
        changes: dict[str, list[int]] = {}
        replaced: list[str] = []
        rows: list[Attempt] = []
        for call_id, call in self.calls.items():
            before = self._before.get(call_id)
            if before is not None:
                if before == [*call.values()]:
                    continue
                replaced.append(call_id)
                _add(changes, calls.money(before), -1)
            _add(changes, calls.money(call.values()), 1)
            rows += call.values()
        if replaced:
            self._connection.execute(delete(_ROWS).where(_ROWS.c.request_id.in_(replaced)))
        _insert(self._connection, rows)
        _move(self._connection, changes)


_copy = msgspec.structs.replace


def _insert(connection: Connection, rows: Sequence[Attempt]) -> None:
    """Write rows. Every call comes this way, so the driver gets them as they are: it is half the time.

    SQLite's driver lets go of the interpreter for each statement, and has to wait for it again while calls are served:
    so many rows are one statement.
    """
    if not rows:
        return
    statement = insert(_ROWS).compile(dialect=connection.dialect)
    if not statement.positional:
        connection.exec_driver_sql(str(statement), [msgspec.structs.asdict(row) for row in rows])
        return
    beginning, word, values = str(statement).partition(" VALUES ")
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[first : first + _ROWS_AT_ONCE]
        sql = beginning + word + ", ".join([values] * len(some))
        connection.exec_driver_sql(sql, tuple(chain.from_iterable(map(msgspec.structs.astuple, some))))


def _load(connection: Connection, ids: Collection[str]) -> dict[str, Call]:
    """Return the calls that are there."""
    found: dict[str, Call] = {}
    if ids:
        for row in connection.execute(select(_ROWS).where(_ROWS.c.request_id.in_(ids))):
            attempt = Attempt(*row)
            found.setdefault(attempt.request_id, {})[attempt.attempt] = attempt
    return found


def _add(changes: dict[str, list[int]], taken: calls.Money, sign: int) -> None:
    for account in taken.accounts:
        change = changes.setdefault(account, [0, 0])
        change[0] += sign * taken.spent
        change[1] += sign * taken.reserved


def _move(connection: Connection, changes: dict[str, list[int]]) -> None:
    """Change sums by so much spent and so much reserved. Raises `Unfit` when a sum gets too large for any."""
    wanted = {account: change for account, change in changes.items() if any(change)}
    for names in _parts(list(wanted)):
        stored = balances(connection, names)
        new: list[dict[str, Any]] = []
        known: list[dict[str, Any]] = []
        for name in names:
            before = stored.get(name, Balance(0, 0))
            # Never below nothing, which only sums that somebody else has changed can come to: the audit tells.
            spent, reserved = (max(0, sum(pair)) for pair in zip(before, wanted[name], strict=True))
            if max(spent, reserved) > _MAX_SUM:
                raise Unfit("sum")
            (known if name in stored else new).append({"name": name, "spent": spent, "reserved": reserved})
        if new:
            connection.execute(_BEGIN_SUM, new)
        if known:
            connection.execute(_SET_SUM, known)


_MAX_SUM = 2**63 - 1
_SUM: dict[str, BindParameter[int]] = {"spent_nano_usd": bindparam("spent"), "reserved_nano_usd": bindparam("reserved")}
_BEGIN_SUM = insert(_BUDGETS).values(account=bindparam("name"), **_SUM)
_SET_SUM = update(_BUDGETS).where(_BUDGETS.c.account == bindparam("name")).values(_SUM)


def _put_into_quarantine(
    connection: Connection, worker: str, position: Position, record: Record | bytes, problem: str
) -> None:
    """Keep an entry that could not become a row; one that is kept already stays as it is."""
    place = {"worker": worker, "segment": position.segment, "offset_bytes": position.offset}
    same = and_(*(_QUARANTINE.c[name] == value for name, value in place.items()))
    if connection.execute(select(_QUARANTINE.c.problem).where(same)).first() is None:
        connection.execute(insert(_QUARANTINE).values(**place, problem=problem, record=_shown(record)))


def _shown(record: Record | bytes) -> str:
    """Return a record as JSON, or as Python shows it when it has none; never an error."""
    if isinstance(record, bytes):
        return record.decode("utf-8", "backslashreplace")
    try:
        return msgspec.json.encode(record).decode()
    except (TypeError, UnicodeError, OverflowError):
        return repr(record)


def _problem(error: Exception) -> str:
    """Say why an entry could not become a row, without its values."""
    if isinstance(error, sql_errors.DBAPIError):
        return first_line(error.orig)
    return f"{type(error).__name__.lower()}: {error}"


def _is_unavailable(error: Exception) -> bool:
    """Tell whether the database cannot be used, rather than refuses what it was given."""
    if not isinstance(error, sql_errors.DBAPIError):
        return False
    lost = isinstance(error, sql_errors.OperationalError | sql_errors.InterfaceError)
    return error.connection_invalidated or reason_of(error.orig, lost=lost) is not None


def take_turn(connection: Connection) -> None:
    """Wait until nobody else changes the ledger; on SQLite a transaction that writes has waited already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})


def _parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(items), _MAX_AT_ONCE):
        yield items[first : first + _MAX_AT_ONCE]
