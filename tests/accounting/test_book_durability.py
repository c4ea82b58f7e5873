"""A call whose records cannot be written, or must be on the disk itself before it goes on."""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from accounting.books import COST, NOON, PRICES, TARGET, USAGE, begin, call, office
from accounting.journals import Clock, records
from chatgate.accounting.entries import Entry, Means
from chatgate.accounting.holds import Holds
from chatgate.accounting.journal import RETRY_SECONDS, Journal
from chatgate.accounting.records import Dispatch, Failure, Settlement
from chatgate.vocabulary.errors import Kind, Overloaded
from chatgate.vocabulary.exchange import Outcome


async def test_what_cannot_be_written_down_is_not_done(tmp_path: Path, clock: Clock) -> None:
    """New calls get 503 before the upstream is called; those under way are settled, and written when it works again."""
    journal = Journal(tmp_path / "journal", clock, segment_bytes=1, max_bytes=1)
    entries = [Entry(Means(journal, PRICES, Holds(), clock, lambda: NOON), call(f"c{n}"), "") for n in range(2)]
    entries[0].dispatch(1, TARGET)
    with pytest.raises(Overloaded) as caught:
        entries[1].dispatch(1, TARGET)
    assert (caught.value.kind, caught.value.reason) == (Kind.OVERLOADED, "accounting_unavailable")
    assert caught.value.retry_after_seconds == 10
    assert entries[1].settle(Outcome.REFUSED, 503) == 0
    assert entries[0].settle(Outcome.COMPLETED, 200, usage=USAGE) == COST
    assert len(records(tmp_path / "journal")) == 1
    (tmp_path / "journal" / "0000000001.journal").unlink()
    clock.now += RETRY_SECONDS
    journal.tick()
    assert [type(record) for record in records(tmp_path / "journal")] == [Settlement]
    journal.close()


class Disk:
    """What brings data to the disk; it fails for files as long as it is told to."""

    fails = False

    def __call__(self, file: int) -> None:
        """Sync a file."""
        if self.fails and stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(file)


@pytest.fixture
def disk() -> Disk:
    """Return a disk."""
    return Disk()


def durable_entry(directory: Path, clock: Clock, disk: Disk) -> tuple[Journal, Entry]:
    """Return a call whose records shall outlive the power."""
    journal = Journal(directory, clock, durability="power", sync=disk)
    means = Means(journal, PRICES, Holds(), clock, lambda: datetime(2026, 11, 23, tzinfo=UTC))
    return journal, Entry(means, call("c1"), "")


async def test_a_call_waits_for_the_disk_when_power_counts(tmp_path: Path, clock: Clock, disk: Disk) -> None:
    """Both its records are on the disk then."""
    journal, entry = durable_entry(tmp_path, clock, disk)
    entry.dispatch(1, TARGET)
    await entry.synced()
    entry.settle(Outcome.COMPLETED, 200)
    await entry.synced()
    assert [type(record) for record in records(tmp_path)] == [Dispatch, Settlement]
    journal.close()


async def test_a_dispatch_that_the_disk_lost_stops_the_call(tmp_path: Path, clock: Clock, disk: Disk) -> None:
    """And a settlement is kept until the disk takes it."""
    journal, entry = durable_entry(tmp_path, clock, disk)
    entry.dispatch(1, TARGET)
    disk.fails = True
    with pytest.raises(Overloaded, match="accounting_unavailable"):
        await entry.synced()
    assert entry.settle(Outcome.REFUSED, 503, "overloaded") == 0
    await entry.synced()
    disk.fails = False
    clock.now += RETRY_SECONDS
    journal.tick()
    await entry.synced()
    assert isinstance(records(tmp_path)[-1], Settlement)
    assert not journal.trouble
    journal.close()


async def test_one_failed_sync_is_made_good(tmp_path: Path, clock: Clock) -> None:
    """The record is written once more, elsewhere, and the call goes on."""
    failures = iter([True])

    def sync(file: int) -> None:
        if stat.S_ISREG(os.fstat(file).st_mode) and next(failures, False):
            raise OSError(errno.EIO, "Input/output error")
        os.fdatasync(file)

    journal = Journal(tmp_path, clock, durability="power", sync=sync)
    means = Means(journal, PRICES, Holds(), clock, lambda: NOON)
    entry = Entry(means, call("c1"), "")
    entry.dispatch(1, TARGET)
    await entry.synced()
    assert [type(record) for record in records(tmp_path)] == [Dispatch, Dispatch]
    entry.fail(1, "upstream_error", 502)
    assert isinstance(records(tmp_path)[-1], Failure)
    journal.close()


async def test_nobody_waits_who_did_not_ask(tmp_path: Path) -> None:
    """The usual book is done with a call at once."""
    async with office(tmp_path) as place:
        book = place.book()
        assert not book.is_durable
        entry = begin(book, "c1")
        entry.dispatch(1, TARGET)
        waiting = entry.synced()
        with pytest.raises(StopIteration):
            waiting.send(None)
        await book.close()
