"""What outlives the process: keys and the ledger, and the journal that stands between a call and its row.

Owns the storage of one process: it opens the database, brings its tables up to date, and lends it to the keyring and
to the book, which know nothing of it. A database that is out of reach is tried again in the background: calls go on
with the keys that are known, and the journal takes what the database will hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from chatgate.accounting.book import Book
from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.holds import Budget, Holds, Purse
from chatgate.accounting.journal import JournalUnavailable
from chatgate.accounting.prices import PriceList
from chatgate.accounting.segments import Position
from chatgate.admission.keyring import Keyring, LookupUnavailable
from chatgate.admission.limits import Limits
from chatgate.admission.running import Running
from chatgate.counters.local import LocalCounters
from chatgate.counters.shared import SharedCounters
from chatgate.storage import keys, ledger, migration, openings, pepper, responses
from chatgate.storage.database import open_database
from chatgate.storage.errors import StorageError, StorageUnavailable
from chatgate.storage.threads import DatabaseThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from chatgate.accounting.folding import Read
    from chatgate.admission.gateway_keys import GatewayKey
    from chatgate.admission.limits import Rule
    from chatgate.counters.fleet import Fleet
    from chatgate.counters.link import Link
    from chatgate.counters.money import SharedMoney
    from chatgate.counters.port import Counters
    from chatgate.settings import Settings
    from chatgate.vocabulary.keys import KeyRecord

REFRESH_SECONDS = 1.0
"""How often changed keys are asked for: within this time a revoked key is refused, and calls under way with it end."""

CATCH_UP_SECONDS = 5.0
"""How long a start waits until the ledger has what earlier processes left."""

RETRY_SECONDS = 1.0
"""How often a database is tried again that could not be opened at the start."""

FORGET_SECONDS = 600.0
"""How often old calls are looked for."""

FORGET_RESPONSES = 100
"""So many expired responses are deleted in one transaction."""

FORGET_CALLS, MAX_FORGET_ROUNDS = 500, 500
"""So many of them are deleted in one transaction, and so many transactions are made each time, a second apart."""

MAX_PROCESSES = 64
"""So many processes may keep a journal in one data directory."""

BACKUPS, JOURNALS, NODE_FILE = "backups", "journal", "node-id"

_LOG = logging.getLogger(__name__)


class DataDirectoryError(Exception):
    """The data directory cannot be used; `str()` says why."""


class Keeping:
    """The storage of one process, and what works with it: `keyring`, `running` and `book`."""

    def __init__(
        self,
        settings: Settings,
        number: int = 1,
        link: Link | None = None,
        on_store: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Open everything; `number` is the worker's, and `link` its way to the owner of the counters.

        `on_store` is told why Redis cannot be asked, and "" when it can be again, where it is used.
        A database server that is out of reach is no error: it is tried again. Raises `DataDirectoryError`, and
        `StorageError` for a database that cannot be used.
        """
        data = settings.data
        try:
            data.mkdir(mode=0o700, parents=True, exist_ok=True)
            node = _node_of(data)
        except OSError as error:
            raise DataDirectoryError(error.strerror or str(error)) from error
        self._settings = settings
        self._link = link
        self._fleet: Fleet | None = None
        self._money: SharedMoney | None = None
        if settings.redis is not None:
            from chatgate.counters.fleet import Fleet  # noqa: PLC0415 - who has no Redis does not wait for it
            from chatgate.counters.money import SharedMoney  # noqa: PLC0415 - the same

            self._fleet = Fleet(settings.redis, time.monotonic, on_store)
            self._money = SharedMoney(self._fleet, _Rows(self), time.monotonic)
            self._purse: Purse = self._money
        else:
            self._purse = Holds() if link is None else link.purse
        self._peppers = pepper.load_or_make(data) if settings.pepper is None else pepper.parse(settings.pepper)
        self._database = open_database(settings.database_url, data)
        self.location = self._database.location
        self._is_prepared = False
        try:
            self._prepare()
        except StorageUnavailable as error:
            if self._database.dialect == "sqlite":
                raise
            _LOG.error("The database cannot be used, and is tried again: %s", error)
        self._threads = DatabaseThreads(self._database)
        self.keyring = Keyring(self._peppers, self, time.monotonic, _now)
        self.running = Running(self)
        self._catalogue = Catalogue()
        self.book = self._open_book(data, node, number)
        self._tasks: list[asyncio.Task[None]] = []

    def adopt(self, settings: Settings) -> None:
        """Charge by other prices, against other budgets, and keep calls as long as another configuration says."""
        self._settings = settings
        self.book.set_budgets(
            Budget(each.scope, each.owner, each.per, each.amount_nano_usd, each.warn_at_percent)
            for each in settings.budgets
        )
        self.book.set_tariffs(PriceList(settings.prices, self._catalogue))

    def counters(self, rules: tuple[Rule, ...], predecessor: Counters | None) -> Counters:
        """Return what counts by these rules; in this process, what the predecessor has counted goes on."""
        if self._fleet is not None and self._money is not None:
            from chatgate.counters.redis import RedisCounters  # noqa: PLC0415 - as above

            return RedisCounters(rules, self._fleet, self._money, time.monotonic_ns)
        if self._link is not None:
            return SharedCounters(self._link, rules)
        limits = predecessor.limits if isinstance(predecessor, LocalCounters) else None
        return LocalCounters(Limits(rules, time.monotonic_ns, predecessor=limits), self.book.reserve)

    def start(self) -> None:
        """Begin to look after keys and ledger on the running loop."""
        if self._link is not None:
            self._link.start(self.book)
        if self._fleet is not None:
            self._fleet.start()
        keeping = (self._keep_up(), self._keep_refreshing(), self._keep_forgetting())
        self._tasks = [asyncio.create_task(each) for each in keeping]

    async def caught_up(self) -> None:
        """Wait until it is known what budgets have spent, so that no call is refused for that.

        A database that is out of reach is not waited for, nor a slow one longer than `CATCH_UP_SECONDS`.
        """
        if self._is_prepared:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATCH_UP_SECONDS):
                    await self.book.has_looked.wait()
                    if self._link is not None:
                        await self._link.is_loaded.wait()
                    if self._fleet is not None and self._money is not None:
                        await self._fleet.first_try.wait()
                        if self._fleet.is_ready:
                            await self._money.is_joined.wait()

    @property
    def is_degraded(self) -> bool:
        """Tell whether limits are counted by this process alone, because Redis cannot be asked."""
        return self._fleet is not None and not self._fleet.is_ready

    @property
    def processes(self) -> int:
        """Return how many processes were last seen to count together."""
        return 1 if self._fleet is None else self._fleet.processes

    async def close(self) -> None:
        """Write down what is left, as far as that is possible now, and close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._link is not None:
            self._link.decline()
        if self._money is not None:
            await self._money.close()
        await self.book.close()
        if self._link is not None:
            self._link.close()
        if self._fleet is not None:
            await self._fleet.close()
        await self._threads.close()

    def _prepare(self) -> None:
        """Bring the tables up to date, and hold the pepper against them."""
        migration.migrate(self._database, self._settings.data / BACKUPS, _now())
        self._database.write(pepper.recognise, self._peppers)
        self._is_prepared = True

    def _open_book(self, data: Path, node: str, number: int) -> Book:
        """Open the journal of this process: of several gateways in one directory, each has its own."""
        prices = PriceList(self._settings.prices, self._catalogue)
        for place in range(number, number + MAX_PROCESSES):
            directory = data / JOURNALS / str(place)
            try:
                return Book(
                    directory,
                    prices,
                    self._purse,
                    _Ledger(self),
                    time.monotonic,
                    _now,
                    self._settings.ledger.durability,
                    node=node,
                    load=self._catalogue.load,
                )
            except JournalUnavailable as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise DataDirectoryError(f"the journal cannot be written: {error}") from error
        raise DataDirectoryError("too many processes share it")

    async def _keep_up(self) -> None:
        while not self._is_prepared:
            await asyncio.sleep(RETRY_SECONDS)
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(self._prepare)
        await self.book.run()

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self.keyring.refresh()
            await self.running.refresh()

    async def _keep_forgetting(self) -> None:
        """Delete calls and responses that are older than the operator wants to keep, a few at a time."""
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            with contextlib.suppress(StorageError, LookupUnavailable):
                # Also where none are kept any more: there may be some of earlier.
                for _ in range(MAX_FORGET_ROUNDS):
                    if await self.threads.write(responses.forget, _now(), FORGET_RESPONSES) < FORGET_RESPONSES:
                        break
                    await asyncio.sleep(1)
            days = self._settings.ledger.retention_days
            if days:
                with contextlib.suppress(StorageError, LookupUnavailable):
                    before = _now() - timedelta(days=days)
                    for _ in range(MAX_FORGET_ROUNDS):
                        if await self.threads.write(ledger.forget, before, FORGET_CALLS) < FORGET_CALLS:
                            break
                        await asyncio.sleep(1)

    def digest(self, key: GatewayKey) -> str:
        """Return what is to be stored of a key, for whoever makes one."""
        return self.keyring.digest(key)

    def changed(self, record: KeyRecord) -> None:
        """Act at once on a change of a key that was made here."""
        self.keyring.changed(record.id)
        self.running.changed(record)

    async def by_digest(self, digests: Sequence[str]) -> KeyRecord | None:
        """Return the key that has one of the digests, for the keyring."""
        try:
            record = None
            for place, digest in enumerate(digests):
                record = await self.threads.read(keys.find_by_digest, digest)
                if record is not None:
                    if place:
                        await self.threads.write(keys.renew_digest, record.id, digest, digests[0])
                    if record.budgets:
                        await self.book.learn(record)
                    break
        except StorageUnavailable as error:
            raise LookupUnavailable from error
        return record

    async def versions(self, key_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the versions of those keys that exist, for the keyring."""
        try:
            return await self.threads.read(keys.versions, list(key_ids))
        except StorageUnavailable as error:
            raise LookupUnavailable from error

    async def summary(self) -> tuple[int, int]:
        """Return how many keys there are, and the sum of their versions, for the keyring."""
        try:
            return await self.threads.read(keys.summary)
        except StorageUnavailable as error:
            raise LookupUnavailable from error

    async def records(self, key_ids: Iterable[str]) -> Mapping[str, KeyRecord]:
        """Return those keys that exist, for the calls under way."""
        try:
            return await self.threads.read(keys.records, list(key_ids))
        except StorageUnavailable as error:
            raise LookupUnavailable from error

    @property
    def threads(self) -> DatabaseThreads:
        """Return the database. Raises `LookupUnavailable` until its tables are known to be up to date."""
        if not self._is_prepared:
            raise LookupUnavailable
        return self._threads


class _Ledger:
    """The ledger in the database, for the book."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def position(self, worker: str) -> Position | None:
        places = await self._keeping.threads.read(ledger.positions)
        return Position(*places[worker]) if worker in places else None

    async def fold(self, worker: str, entries: Sequence[Read], position: Position) -> None:
        await self._keeping.threads.write(ledger.fold, worker, entries, position)

    async def interrupt(self, worker: str, at: datetime) -> None:
        await self._keeping.threads.write(ledger.interrupt, worker, at)

    async def balances(self, periods: Sequence[str]) -> Mapping[str, int]:
        found = await self._keeping.threads.read(ledger.balances_of_periods, list(periods))
        return {account: balance.spent for account, balance in found.items()}

    async def openings(self, accounts: Sequence[str]) -> Mapping[str, int]:
        return await self._keeping.threads.read(openings.openings, accounts)

    async def open(self, accounts: Sequence[str]) -> Mapping[str, int]:
        return await self._keeping.threads.write(openings.open_accounts, accounts)


class _Rows:
    """The ledger in the database, for the budgets that several machines share."""

    def __init__(self, keeping: Keeping) -> None:
        self._keeping = keeping

    async def stored(self, mark: Callable[[], None]) -> None:
        async with self._keeping.book.at_rest(mark):
            pass

    async def spent_without(self, accounts: Sequence[str], call_ids: Sequence[str]) -> Mapping[str, int]:
        return await self._keeping.threads.read(ledger.taken_without, accounts, call_ids)


_now = functools.partial(datetime.now, UTC)


def _node_of(data: Path) -> str:
    """Return what this data directory is called among all that write to one database."""
    file = data / NODE_FILE
    with contextlib.suppress(FileExistsError), file.open("x") as new:
        new.write(secrets.token_hex(6))
    return file.read_text().strip()
