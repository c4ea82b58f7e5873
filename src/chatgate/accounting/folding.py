"""From the journals into the database: in the background, in batches, each exactly once.

Owns how far the database has come, and the way there: first what earlier processes left, with the verdict about calls
that ended with them, then what this process writes. What is left lies in this process's own journal, and in orphans:
journals beside it whose writers have ended, now or later. Budgets know what was spent once all of it is in the rows,
and learn what those spent who end after that. When the database is down the journal goes on, and what it holds is
folded when the database is back. Run by `book`; a place in a journal moves in the same transaction as the rows, so that
a batch which is told twice counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, Protocol, TypeAlias, get_args

from chatgate.accounting import orphans
from chatgate.accounting.holds import Purse
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.periods import Per, start_of, utc_date
from chatgate.accounting.recent import Recent
from chatgate.accounting.records import Record
from chatgate.accounting.segments import START, Position, replay, segments, size_of

Read: TypeAlias = tuple[Position, Record | bytes]
"""What was read of a journal: where reading goes on after it, and a record, or bytes that are none."""

BATCH: Final = 500
"""So many records at most are read from files and told at once: the event loop is held up for a few milliseconds."""

RECENT_BATCH: Final = 4096
"""So many at most are told at once that are still in memory: the more, the more calls are told whole."""

LOOK_SECONDS: Final = 10.0
"""How often orphans are looked for: it takes that long until a budget knows what a process spent that has ended."""

_LOG = logging.getLogger(__name__)


class Store(Protocol):
    """The ledger in the database, behind the storage's threads.

    Whatever a method raises, it is asked again in a moment. `worker` is whose journal it is.
    """

    async def position(self, worker: str) -> Position | None:
        """Return how far a journal is in the database, None when nothing of it is."""

    async def fold(self, worker: str, entries: Sequence[Read], position: Position) -> None:
        """Add what was read to the rows and the balances, and move a journal's place, in one transaction.

        What is there already changes nothing. What cannot become a row is put aside, and so are bytes.
        """

    async def interrupt(self, worker: str, at: datetime) -> None:
        """Say of all calls of a journal that are still under way that their process has ended."""

    async def balances(self, periods: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent, in nano-USD, in each account that there is for these periods, by the account's name.

        That name ends in the period's: `day/2026-11-23`, `ever/1970-01-01`.
        """

    async def openings(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Return what was spent, in nano-USD, by whom those accounts are for that do not exist; not where it is 0."""

    async def open(self, accounts: Sequence[str]) -> Mapping[str, int]:
        """Let accounts that do not exist begin with what `openings` tells of them, and return that."""


class _Source:
    """One journal, and how far the database has come in it: `position`, None until that is asked for."""

    def __init__(self, directory: Path, worker: str, store: Store, recent: Recent) -> None:
        self._directory = directory
        self._worker = worker
        self._store = store
        self._recent = recent
        self.position: Position | None = None

    async def tell(self, through: Position, *, batches: int | None = None) -> bool:
        """Tell the store what was written up to a place; False when more is left after so many batches."""
        if self.position is None:
            self.position = await self._store.position(self._worker) or START
        told = self.position
        while told < through:
            recent = self._recent.after(told, through, RECENT_BATCH)
            if recent:
                parts: Iterable[Sequence[Read]] = [recent]
                told, full = recent[-1][0], RECENT_BATCH
            elif recent is None:
                # What is missing in memory was written before it began to be kept there.
                end = min(self._recent.begin or through, through)
                parts, told, full = _parts(self._directory, told, end), end, BATCH
            else:
                break
            for entries in parts:
                await self._fold(entries)
                if batches is not None and len(entries) == full:
                    batches -= 1
                    if batches <= 0:
                        return False
        return True

    async def _fold(self, entries: Sequence[Read]) -> None:
        position = entries[-1][0]
        await self._store.fold(self._worker, entries, position)
        self.position = position
        self._recent.forget(position)

    async def finish(self, through: Position, at: datetime, *, batches: int | None = None) -> bool:
        """Tell what a process wrote that has ended, and then that its calls have; False as `tell`."""
        if not await self.tell(through, batches=batches):
            return False
        await self._store.interrupt(self._worker, at)
        return True


def _parts(directory: Path, after: Position, through: Position) -> Iterator[Sequence[Read]]:
    """Yield what a journal's files have between two places, a batch at a time."""
    reading = takewhile(lambda entry: entry.position <= through, replay(directory, after))
    while entries := [
        (entry.position, entry.damaged if entry.record is None else entry.record) for entry in islice(reading, BATCH)
    ]:
        yield entries


class Folding:
    """Folds one worker's journal, and orphans. `is_loaded` says that what budgets have spent is known."""

    def __init__(
        self,
        directory: Path,
        node: str,
        journal: Journal,
        holds: Purse,
        store: Store,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
    ) -> None:
        """Begin before the journal in the directory is written to; `node` is as in `Book`."""
        self._directory = directory
        self._node = node
        self._journal = journal
        self._holds = holds
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._own = self._source(directory, journal.recent)
        self._beginning = Position(max(segments(directory), default=0) + 1, 0)
        """Every start begins a new segment, so whatever is before it was written by a process that has ended."""
        self._has_begun = False
        self._level = START
        self._level_at = clock()
        self._dropped = 0
        self._look_at = 0.0
        self._alive: set[Path] = set()
        """The journals beside this one that had a writer when they were last looked at."""
        self._is_adopting = False
        self._has_more = False
        self._is_outdated = False
        """True while the rows may have money in them that was spent by others, and that budgets do not know of."""
        self._turn = asyncio.Lock()
        """Whoever changes what is spent, in the rows and here, does both before another does."""
        self.is_loaded = False
        self.trouble = ""

    @property
    def lag_seconds(self) -> float:
        """Return how long ago everything was in the database; 0 while it is."""
        return 0.0 if self.is_level else self._clock() - self._level_at

    @property
    def is_level(self) -> bool:
        """Tell whether the database has all that was written here, and all that is known to have been left."""
        return self.is_loaded and not self._is_adopting and self._level >= self._journal.position

    @property
    def is_behind(self) -> bool:
        """Tell whether the last round was not enough to take all that there was."""
        return self._has_more or self._is_adopting

    @property
    def has_backlog(self) -> bool:
        """Tell whether files are read, because memory has not all that waits."""
        begin = self._journal.recent.begin
        return self._is_adopting or begin is None or (self._own.position or START) < begin

    @property
    def waiting_bytes(self) -> int:
        """Return how much of this worker's own journal is not known to be in the database; orphans are not counted."""
        position = self._own.position or START
        numbers = [number for number in segments(self._directory) if number >= position.segment]
        known = position.offset if position.segment in numbers else 0
        return max(sum(size_of(self._directory, number) for number in numbers) - known, 0)

    async def fold(self, *, batches: int | None = None) -> bool:
        """Bring the database up to what is written by now; False when that was not possible this time. Never raises.

        At most `batches` are folded of each journal, None for all; those that a start finds are always folded whole.
        While the rows are kept `at_rest`, it waits.
        """
        try:
            async with self._turn:
                await self._fold(batches)
        except Exception as error:  # noqa: BLE001 - whatever it is, the journal keeps what could not be folded
            # What follows the first line may quote values.
            trouble = f"{type(error).__name__}: {error}".partition("\n")[0]
            if not self.trouble:
                _LOG.warning("The ledger's database cannot be written, the journal goes on: %s", trouble)
            self.trouble = trouble
            return False
        if self.trouble:
            _LOG.info("The ledger's database is written again")
            self.trouble = ""
        return True

    async def open(self, accounts: Sequence[str], through: Position = START) -> None:
        """Have budgets that are new count what was spent in their periods before. Raises what the store raises.

        What was written here up to a place is in the rows then. Calls that are under way, or whose end is not in the
        rows yet, are not counted.
        """
        if self._level < through:
            async with self._turn:
                await self._begin()
                await self._own.tell(through)
        if not await self._store.openings(accounts):
            return
        async with self._turn:
            opened = await self._store.open(accounts)
            if self.is_loaded and opened:  # What is not loaded yet will be, with this in it.
                self._holds.learn(opened, {})

    @contextlib.asynccontextmanager
    async def at_rest(self, mark: Callable[[], None]) -> AsyncIterator[None]:
        """Bring the rows up to one moment, and no further until the end of the context; `mark` is called at it.

        They have all then that was settled here before, and what processes left that had ended, unless somebody else
        is about to fold that. Raises what the store does, and `JournalUnavailable` while the journal lacks something.
        """
        async with self._turn:
            await self._begin()
            written = self._journal.position
            if self._journal.trouble:
                raise JournalUnavailable(self._journal.trouble)
            mark()
            await self._own.tell(written)
            await self._adopt(None)
            # Whoever keeps the rows at rest is about to look at them.
            self._is_outdated = False
            yield

    async def spent(self) -> tuple[Sequence[str], Mapping[str, int]]:
        """Return today's periods, such as `day/2026-11-23`, and what the rows say is spent in their accounts."""
        day = utc_date(self._wall_clock())
        periods = [f"{per}/{start_of(day, per).isoformat()}" for per in get_args(Per)]
        return periods, await self._store.balances(periods)

    async def _begin(self) -> None:
        if not self._has_begun:
            await self._own.finish(self._beginning, self._wall_clock())
            self._has_begun = True

    async def _fold(self, batches: int | None) -> None:
        """Fold what is this worker's own, which no trouble with others may hold up, and then look after orphans."""
        await self._begin()
        await self._fold_own(batches)
        now = self._clock()
        if self._is_adopting or not self.is_loaded or now >= self._look_at:
            self._is_adopting, self._look_at = False, now + LOOK_SECONDS
            self._is_adopting = not await self._adopt(batches if self.is_loaded else None)
        if not self.is_loaded:
            # No call counted against a budget yet, so the rows know of all that this process has spent.
            await self._learn(self._holds.totals())
            self.is_loaded = True

    async def _fold_own(self, batches: int | None) -> None:
        written, now = self._journal.position, self._clock()
        # While the journal is in trouble, it lacks what was settled since.
        known = self._holds.totals() if self._is_outdated and not self._journal.trouble else None
        self._has_more = self._level < written and not await self._own.tell(written, batches=batches)
        if not self._has_more:
            self._level, self._level_at = written, now
            if known is not None:
                await self._learn(known)
        position = self._own.position or START
        if position.segment != self._dropped:
            # The places of dropped segments are not needed any more: the stored one lies behind them.
            self._journal.drop(position)
            self._dropped = position.segment

    async def _adopt(self, batches: int | None) -> bool:
        """Fold and empty the journals whose writers have ended; False when more is left after so many batches.

        Each stays seized meanwhile: a process that starts takes another place.
        """
        alive = set()
        for directory in orphans.neighbours(self._directory):
            with orphans.seized(directory) as is_orphan:
                if not is_orphan:
                    alive.add(directory)
                    continue
                end = orphans.end(directory)
                if not await self._source(directory, Recent()).finish(end, self._wall_clock(), batches=batches):
                    return False
                orphans.empty(directory)
            self._is_outdated = True
            _LOG.info("Took over the journal %s, whose process has ended", directory.name)
        if self._alive - alive:
            # Another process may have been the first to take it over.
            self._is_outdated = True
        self._alive = alive
        return True

    async def _learn(self, known: Mapping[str, tuple[int, int]]) -> None:
        """Have budgets know what the rows say is spent; `known` was, when all that it counts was in the rows."""
        _, spent = await self.spent()
        self._holds.learn(spent, known)
        self._is_outdated = False

    def _source(self, directory: Path, recent: Recent) -> _Source:
        """Return a journal of this node; its worker is called after its directory."""
        worker = f"{self._node}-{directory.name}" if self._node else directory.name
        return _Source(directory, worker, self._store, recent)
