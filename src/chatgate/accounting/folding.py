"""From the journal into the database: in the background, in batches, each exactly once.

Owns how far the database has come, and the way there: first what earlier processes left, then the verdict about calls
that ended with them, then what budgets have spent, then what this process writes. When the database is down the journal
goes on, and what it holds is folded when the database is back. Run by `book`; a place in the journal moves in the same
transaction as the rows, so that a batch which is told twice counts once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice, takewhile
from pathlib import Path
from typing import Final, Protocol, TypeAlias, get_args

from chatgate.accounting.holds import Holds
from chatgate.accounting.journal import Journal
from chatgate.accounting.periods import Per, start_of, utc_date
from chatgate.accounting.records import Record
from chatgate.accounting.segments import START, Position, replay, segments, size_of

Read: TypeAlias = tuple[Position, Record | bytes]
"""What was read of a journal: where reading goes on after it, and a record, or bytes that are none."""

BATCH: Final = 500
"""So many records at most are read and told at once: the event loop is held up for about a millisecond."""

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


class Folding:
    """Folds one worker's journal. `is_loaded` says that what budgets have spent is known."""

    def __init__(
        self,
        directory: Path,
        worker: str,
        journal: Journal,
        holds: Holds,
        store: Store,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
    ) -> None:
        """Begin before the journal in the directory is written to."""
        self._directory = directory
        self._worker = worker
        self._journal = journal
        self._holds = holds
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._left_behind = max(segments(directory), default=0)
        """Every start begins a new segment, so whatever is in an older one was written by a process that has ended."""
        self._position: Position | None = None
        self._level = START
        self._level_at = clock()
        self._dropped = 0
        self.is_loaded = False
        self.trouble = ""

    @property
    def lag_seconds(self) -> float:
        """Return how long ago everything was in the database; 0 while it is."""
        return 0.0 if self.is_level else self._clock() - self._level_at

    @property
    def is_level(self) -> bool:
        """Tell whether the database has all that was written."""
        return self.is_loaded and self._level >= self._journal.position

    @property
    def waiting_bytes(self) -> int:
        """Return how much of the journal is not known to be in the database."""
        position = self._position or START
        numbers = [number for number in segments(self._directory) if number >= position.segment]
        known = position.offset if position.segment in numbers else 0
        return max(sum(size_of(self._directory, number) for number in numbers) - known, 0)

    async def fold(self, *, batches: int | None = None) -> bool:
        """Bring the database up to what is written by now; False when that was not possible this time. Never raises.

        At most `batches` are folded, None for all.
        """
        try:
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

    async def _fold(self, batches: int | None) -> None:
        if self._position is None:
            self._position = await self._store.position(self._worker) or START
        if not self.is_loaded:
            await self._take_over()
        written, now = self._journal.position, self._clock()
        if self._level >= written or await self._tell(self._position, batches=batches):
            self._level, self._level_at = written, now
        if self._position.segment != self._dropped:
            # The places of dropped segments are not needed any more: the stored one lies behind them.
            self._journal.drop(self._position)
            self._dropped = self._position.segment

    async def _take_over(self) -> None:
        """Fold what earlier processes left, and learn what was spent."""
        assert self._position is not None  # noqa: S101 - narrows for the type checker
        await self._tell(self._position, through=self._left_behind)
        now = self._wall_clock()
        await self._store.interrupt(self._worker, now)
        day = utc_date(now)
        periods = [f"{per}/{start_of(day, per).isoformat()}" for per in get_args(Per)]
        for account, spent_nano_usd in (await self._store.balances(periods)).items():
            self._holds.load(account, spent_nano_usd)
        self.is_loaded = True

    async def _tell(self, after: Position, *, through: int | None = None, batches: int | None = None) -> bool:
        """Tell the store what was written after a place, in no segment after `through`; False when more is left."""
        reading = replay(self._directory, after)
        if through is not None:
            reading = takewhile(lambda entry: entry.position.segment <= through, reading)
        while entries := [
            (entry.position, entry.damaged if entry.record is None else entry.record)
            for entry in islice(reading, BATCH)
        ]:
            position = entries[-1][0]
            await self._store.fold(self._worker, entries, position)
            self._position = position
            if batches is not None and len(entries) == BATCH:
                batches -= 1
                if batches <= 0:
                    return False
        return True
