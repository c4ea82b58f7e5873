"""A book with the real ledger behind it: a SQLite file of its own, through the storage's threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import cast

from accounting.journals import Clock
from chatgate.accounting.book import Book, exhausted, price_unknown
from chatgate.accounting.entries import Entry
from chatgate.accounting.folding import Read
from chatgate.accounting.holds import Budget, Hold, Holds, Refusal
from chatgate.accounting.prices import PriceList
from chatgate.accounting.rates import Tariff
from chatgate.accounting.segments import Position
from chatgate.settings.tree import Price
from chatgate.storage import audit, calls, ledger, migration, openings
from chatgate.storage.database import Database, open_database
from chatgate.storage.threads import DatabaseThreads
from chatgate.vocabulary.exchange import Operation, Outcome, Settled, Surface
from chatgate.vocabulary.keys import KeyBudget, KeyRecord
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

UPSTREAM = Upstream("openai", "openai", Origin("https", "api.example.com", 443), "/v1")
TARGET = Target(UPSTREAM)
BACKUP = Target(Upstream("backup", "custom", Origin("http", "127.0.0.1", 9000), "/v1"), "dear")

USAGE = b'{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}'
"""At the price of `cheap`, 250 + 400 = 650 micro-dollars."""
COST = 650_000


class Nobody:
    """A catalogue that knows no price."""

    def find(self, model: str, provider: str, base_url: str, at: datetime, service_tier: str) -> Tariff | None:
        """Find nothing."""
        del model, provider, base_url, at, service_tier
        return None


PRICES = PriceList(
    [Price("cheap", Decimal("0.25"), Decimal(2)), Price("dear", Decimal(10), Decimal(100))],
    Nobody(),
)


def key(*budgets: KeyBudget, key_id: str = "k1", owner: str = "alice", version: int = 1) -> KeyRecord:
    """Return a key with budgets."""
    return KeyRecord(
        id=key_id,
        name="name",
        owner=owner,
        display="sk-cg-…",
        enabled=True,
        created_at=NOON,
        expires_at=None,
        revoked_at=None,
        rotated_at=None,
        allowed_models=(),
        allowed_addresses=(),
        limits=(),
        budgets=budgets,
        language=None,
        notes="",
        version=version,
    )


class LedgerStore:
    """The ledger, as the composition root has it: what the book asks of its store, by the storage's own functions."""

    def __init__(self, threads: DatabaseThreads) -> None:
        """Take the threads; `told` counts the entries that came, and `has_folded` is set once some are in."""
        self._threads = threads
        self.told = 0
        self.has_folded = asyncio.Event()

    async def position(self, worker: str) -> Position | None:
        """Return how far a journal is in the database."""
        place = (await self._threads.read(ledger.positions)).get(worker)
        return None if place is None else Position(*place)

    async def fold(self, worker: str, entries: Sequence[Read], position: Position) -> None:
        """Fold."""
        self.told += len(entries)
        await self._threads.write(ledger.fold, worker, cast("Sequence[ledger.Entry]", entries), position)
        self.has_folded.set()

    async def interrupt(self, worker: str, at: datetime) -> None:
        """Interrupt."""
        await self._threads.write(ledger.interrupt, worker, at)

    async def balances(self, periods: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent."""
        found = await self._threads.read(ledger.balances_of_periods, periods)
        return {account: balance.spent for account, balance in found.items()}

    async def openings(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return what was spent before."""
        return await self._threads.read(openings.openings, accounts)

    async def open(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Open accounts."""
        return await self._threads.write(openings.open_accounts, accounts)


class Office:
    """A data directory: books one after the other, on one database."""

    def __init__(self, data: Path, database: Database, threads: DatabaseThreads, clock: Clock) -> None:
        """Use `office`."""
        self.directory = data / "journal" / "1"
        self.database = database
        self.store = LedgerStore(threads)
        self.clock = clock
        self.now = NOON
        self.holds = Holds()

    def book(self, *budgets: Budget, prices: PriceList = PRICES, holds: Holds | None = None) -> Book:
        """Open a book, as a process that has just started does; it knows of no hold."""
        self.holds = Holds() if holds is None else holds
        return Book(
            self.directory, prices, self.holds, self.store, self.clock, lambda: self.now, "process", budgets=budgets
        )

    def rows(self) -> dict[tuple[str, int], calls.Attempt]:
        """Return the ledger's rows, by the call's id and the attempt's number."""
        found = self.database.read(lambda connection: connection.execute(calls.rows.select()).all())
        return {(row[0], row[1]): calls.Attempt(*row) for row in found}

    def balances(self) -> Mapping[str, tuple[int, int]]:
        """Return what is spent and reserved in each account that has something of either."""
        periods = ["day/2026-11-23", "week/2026-11-23", "month/2026-11-01", "ever/1970-01-01"]
        found = self.database.read(ledger.balances_of_periods, periods)
        return {account: (balance.spent, balance.reserved) for account, balance in found.items() if any(balance)}

    def audit(self) -> audit.Audit:
        """Recompute every sum from the rows."""
        return self.database.read(audit.audit)


@contextlib.asynccontextmanager
async def office(
    data: Path, *, wait_seconds: float = 5.0, write_seconds: float = 15.0, clock: Clock | None = None
) -> AsyncIterator[Office]:
    """Open a data directory; the waits are those of the database and of its threads."""
    migrated(data)
    database = open_database(None, data, wait_seconds=wait_seconds)
    threads = DatabaseThreads(database, write_seconds=write_seconds)
    try:
        yield Office(data, database, threads, clock or Clock())
    finally:
        await threads.close()


def migrated(data: Path) -> None:
    """Make the tables unless they are there."""
    database = open_database(None, data)
    try:
        migration.migrate(database, data / "backups", NOON)
    finally:
        database.close()


def begin(book: Book, call_id: str, record: KeyRecord | None = None, model: str = "cheap") -> Entry:
    """Open a call with a body of 1000 bytes that may be answered with 200 tokens, as the guards do."""
    owner = "" if record is None else record.owner
    budgets = book.budgets_of(record, owner)
    hold = _reserved(book, call_id, budgets, model) if budgets else None
    return book.open(call(call_id, "" if record is None else record.id, model), record, hold)


def call(call_id: str, key_id: str = "", model: str = "cheap", *, stream: bool = False) -> Settled:
    """Return what whoever carries a call knows of it when it is admitted."""
    known = Settled(
        call_id, Operation.CHAT, Surface.OPENAI, "192.0.2.1", model, "", 0, Outcome.REFUSED, "", stream, duration_ms=0
    )
    known.key = key_id
    return known


def _reserved(book: Book, call_id: str, budgets: tuple[Budget, ...], model: str) -> Hold:
    cost = book.quote(model, [TARGET], 1000, 200).nano_usd
    if cost is None:
        raise price_unknown(model)
    hold = book.reserve(call_id, budgets, cost)
    if isinstance(hold, Refusal):
        raise exhausted(hold, cost)
    return hold


def serve(book: Book, call_id: str, record: KeyRecord | None = None, model: str = "cheap") -> int:
    """Carry a whole call that takes all that it may, and return what it cost."""
    entry = begin(book, call_id, record, model)
    entry.dispatch(1, TARGET)
    return entry.settle(Outcome.COMPLETED, 200, usage=USAGE)
