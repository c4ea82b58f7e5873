"""Gathering: what is kept in a turn of the loop is in the journal before anybody is told of it, and not much sooner."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from accounting.books import COST, NOON, PRICES, TARGET, USAGE, call
from accounting.journals import Clock, damaged, dispatch, records, settlement
from chatgate.accounting.entries import Entry, Means
from chatgate.accounting.holds import Holds, Purse
from chatgate.accounting.journal import Journal
from chatgate.accounting.records import Record
from chatgate.accounting.segments import segments
from chatgate.bursts import AT_ONCE, Burst
from chatgate.vocabulary.exchange import Outcome


class Caller(asyncio.WriteTransport):
    """One who looks, whenever something arrives, at what is on record."""

    def __init__(self, directory: Path) -> None:
        """Look at a journal."""
        super().__init__()
        self.seen: list[tuple[bytes, list[Record]]] = []
        self._directory = directory

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take a piece."""
        self.seen.append((bytes(data), records(self._directory)))

    def is_closing(self) -> bool:
        """Tell that this one stays."""
        return False


@pytest.fixture
def burst() -> Burst:
    """Return a burst that keeps its pieces."""
    return Burst()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock, burst: Burst) -> Iterator[Journal]:
    """Open a journal that gathers."""
    journal = Journal(tmp_path, clock)
    journal.gather(burst)
    yield journal
    journal.close()


@pytest.fixture
async def end_of_turn() -> AsyncIterator[None]:
    """Let what is due at the end of the turn be done after the test as well."""
    yield
    await asyncio.sleep(0)


SETTLEMENTS: list[Record] = [settlement(f"c{number}") for number in range(5)]

pytestmark = pytest.mark.usefixtures("end_of_turn")


async def test_what_is_kept_is_on_record_before_a_piece_leaves(journal: Journal, burst: Burst, tmp_path: Path) -> None:
    """All of a turn is written at its end, and the first who is told of any of it finds all of it."""
    caller = Caller(tmp_path)
    for record in SETTLEMENTS:
        journal.keep(record)
        burst.write(caller, b"end")
    assert records(tmp_path) == []
    await asyncio.sleep(0)
    assert caller.seen == [(b"end", SETTLEMENTS)] * len(SETTLEMENTS)


async def test_it_is_written_though_nobody_is_told(journal: Journal, tmp_path: Path) -> None:
    """The caller may have left: the turn ends all the same."""
    journal.keep(SETTLEMENTS[0])
    await asyncio.sleep(0)
    assert records(tmp_path) == SETTLEMENTS[:1]


async def test_a_record_that_is_written_takes_along_what_came_before(journal: Journal, tmp_path: Path) -> None:
    """In the order of what happened: a try's failure before the next try."""
    journal.keep(SETTLEMENTS[0])
    journal.keep(SETTLEMENTS[1])
    journal.write(dispatch("new"))
    assert records(tmp_path) == [*SETTLEMENTS[:2], dispatch("new")]


async def test_where_pieces_leave_at_once_records_are_written_at_once(
    journal: Journal, burst: Burst, tmp_path: Path
) -> None:
    """With little to do in a turn nothing is gathered."""
    caller = Caller(tmp_path)
    burst.write(caller, b"few")
    await asyncio.sleep(0)
    for number in range(1, AT_ONCE):
        journal.keep(SETTLEMENTS[0])
        assert len(records(tmp_path)) == number
        burst.write(caller, b"end")


async def test_whoever_asks_how_far_it_is_has_it_written(journal: Journal, tmp_path: Path) -> None:
    """Who brings the database up to a moment gets all that was settled before it, with the right places."""
    journal.write(dispatch("c0"))
    begin = journal.position
    for record in SETTLEMENTS:
        journal.keep(record)
    end = journal.position
    assert records(tmp_path, begin) == SETTLEMENTS
    recent = journal.recent.after(begin, end, 100)
    assert recent is not None
    assert [record for _, record in recent] == SETTLEMENTS
    for place, record in recent[:-1]:
        assert records(tmp_path, place) == SETTLEMENTS[SETTLEMENTS.index(record) + 1 :]
    assert recent[-1][0] == end


async def test_a_journal_that_is_closed_has_it_all(tmp_path: Path, clock: Clock, burst: Burst) -> None:
    """The last turn may not come to its end."""
    journal = Journal(tmp_path, clock)
    journal.gather(burst)
    journal.keep(SETTLEMENTS[0])
    journal.close()
    assert records(tmp_path) == SETTLEMENTS[:1]


async def test_segments_follow_each_other(tmp_path: Path, clock: Clock, burst: Burst) -> None:
    """Gathered records go to another segment once one has its size."""
    journal = Journal(tmp_path, clock, segment_bytes=600)
    journal.gather(burst)
    for _ in range(10):
        for record in SETTLEMENTS:
            journal.keep(record)
        await asyncio.sleep(0)
        burst.flush()
        for _ in range(AT_ONCE):
            burst.write(Caller(tmp_path), b"")
    journal.close()
    assert records(tmp_path) == SETTLEMENTS * 10
    assert len(segments(tmp_path)) > 5


async def test_who_waits_for_the_disk_itself_does_not_gather(tmp_path: Path, clock: Clock, burst: Burst) -> None:
    """A record that shall outlive the power is written at once, so that it can be waited for."""
    journal = Journal(tmp_path, clock, durability="power")
    journal.gather(burst)
    journal.keep(SETTLEMENTS[0])
    assert records(tmp_path) == SETTLEMENTS[:1]
    journal.close()


class Accounts(Holds):
    """Accounts that note what is on record when they are told of a charge."""

    def __init__(self, directory: Path) -> None:
        """Look at a journal."""
        super().__init__()
        self.seen: list[int] = []
        self._directory = directory

    def settle(self, call_id: str, cost_nano_usd: int) -> bool:
        """Take a charge."""
        self.seen.append(len(records(self._directory)))
        return super().settle(call_id, cost_nano_usd)


class Link:
    """Speaks for accounts of another process."""

    def __init__(self, accounts: Accounts) -> None:
        """Speak for these."""
        self._accounts = accounts

    def __getattr__(self, name: str) -> object:
        """Pass everything on."""
        return getattr(self._accounts, name)


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "elsewhere"])
async def test_a_charge_is_on_record_before_another_process_counts_it(
    journal: Journal, tmp_path: Path, clock: Clock, *, is_elsewhere: bool
) -> None:
    """Where budgets are counted by another process, a settlement does not wait for the end of the turn."""
    accounts = Accounts(tmp_path)
    purse = cast("Purse", Link(accounts) if is_elsewhere else accounts)
    entry = Entry(Means(journal, PRICES, purse, clock, lambda: NOON), call("c1"), "", 5, ("key/k1/day/2026-11-23",))
    entry.dispatch(1, TARGET)
    assert entry.settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
    assert accounts.seen == [2 if is_elsewhere else 1]
    await asyncio.sleep(0)
    assert len(records(tmp_path)) == 2


# --- A disk that is full ----------------------------------------------------------------------------------------------

FULL = """
import asyncio, resource, sys
from datetime import datetime, UTC
from pathlib import Path
from chatgate.accounting.journal import Journal, JournalUnavailable
from chatgate.accounting.records import Settlement
from chatgate.bursts import Burst

now = 0.0
journal = Journal(Path(sys.argv[1]), lambda: now)
journal.gather(Burst())
def settlement(name):
    return Settlement(name, 1, datetime(2026, 11, 23, tzinfo=UTC), "completed", 200)
def attempt(name):
    try:
        journal.write(settlement(name))
    except JournalUnavailable as error:
        print(name, "refused:", error)
    else:
        print(name, "written")
def allow(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
async def main():
    global now
    attempt("a")
    one = journal.position.offset
    journal.keep(settlement("b"))
    journal.keep(settlement("c"))
    allow(int(one * 2.5))
    attempt("d")
    journal.keep(settlement("e"))
    await asyncio.sleep(0)
    print(repr(journal.trouble), journal.lost)
    allow(resource.RLIM_INFINITY)
    now = 2.0
    attempt("f")
    print(repr(journal.trouble), journal.lost)
    journal.close()
asyncio.run(main())
"""


def test_a_full_disk_refuses_one_and_keeps_the_others(tmp_path: Path) -> None:
    """The record of what was to happen is refused, whole or not; what had happened is kept, and written first.

    What came to the disk all the same is read twice, which counts once.
    """
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == [
        "a written",
        "d refused: the disk is full",
        "'the disk is full' 0",
        "f written",
        "'' 0",
    ], done.stderr
    assert [record.call_id for record in records(tmp_path)] == ["a", "b", "b", "c", "e", "f"]
    assert len(damaged(tmp_path)) == 1
