"""The book and its database: what is written gets there once, whatever the database or the process go through."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from accounting.books import COST, TARGET, USAGE, Office, begin, key, office, serve
from chatgate.accounting import book as bookkeeping
from chatgate.accounting import journal, recent
from chatgate.accounting.book import Book
from chatgate.accounting.folding import RECENT_BATCH
from chatgate.accounting.holds import Budget, Holds
from chatgate.storage.database import FILE_NAME
from chatgate.storage.errors import StorageUnavailable
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.exchange import Outcome
from chatgate.vocabulary.keys import KeyBudget

RICH = key(KeyBudget(10**12, "day"))
ACCOUNT = "key/k1/day/2026-11-23"


def die(book: Book) -> None:
    """Let go of the journal as a process does that ends without a word: nothing is folded, and nothing is settled."""
    book._means.journal.close()


@contextlib.contextmanager
def locked(data: Path) -> Iterator[None]:
    """Hold the database's lock, as another program may."""
    with contextlib.closing(sqlite3.connect(data / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def states(place: Office) -> dict[str, str]:
    """Return what is known of each call."""
    return {call_id: row.state for (call_id, _), row in place.rows().items()}


# --- Starts -----------------------------------------------------------------------------------------------------------


async def test_a_start_folds_what_the_last_process_left(tmp_path: Path) -> None:
    """Calls that ended with it are unknown, at the most they can have cost, and budgets know what was spent."""
    async with office(tmp_path) as place:
        first = place.book()
        await first.tick()
        serve(first, "folded", RICH)
        await first.tick()
        serve(first, "left", RICH)
        begin(first, "interrupted", RICH).dispatch(1, TARGET)
        die(first)

        second = place.book()
        assert await second.tick()
        assert states(place) == {"folded": "settled", "left": "settled", "interrupted": "unknown"}
        assert place.holds.totals() == {ACCOUNT: (3 * COST, 0)} == place.balances()
        with pytest.raises(GateError, match="budget_exhausted"):
            begin(second, "c4", key(KeyBudget(4 * COST - 1, "day")))
        begin(second, "c4", key(KeyBudget(4 * COST, "day")))
        await second.close()


async def test_calls_of_the_new_process_are_not_taken_for_interrupted(tmp_path: Path) -> None:
    """Not even those that began before the database could be asked, while the last process left some behind."""
    async with office(tmp_path, wait_seconds=0.05) as place:
        first = place.book()
        await first.tick()
        begin(first, "old").dispatch(1, TARGET)
        die(first)

        second = place.book()
        new = begin(second, "new")
        with locked(tmp_path):
            new.dispatch(1, TARGET)
            assert not await second.tick()
        assert await second.tick()
        assert states(place) == {"old": "unknown", "new": "dispatched"}
        new.settle(Outcome.COMPLETED, 200, usage=USAGE)
        await second.close()
        assert states(place) == {"old": "unknown", "new": "settled"}


async def test_a_journal_that_was_removed_does_not_hide_the_next_one(tmp_path: Path) -> None:
    """Places in the old one lie before everything in the new one."""
    async with office(tmp_path) as place:
        first = place.book()
        for number in range(50):
            serve(first, f"a{number}")
        await first.close()
        shutil.rmtree(place.directory)

        place.now = place.now.replace(minute=1)
        second = place.book()
        serve(second, "b")
        await second.close()
        assert states(place)["b"] == "settled"


async def test_closing_leaves_nothing_to_do(tmp_path: Path) -> None:
    """The next start is told nothing anew."""
    async with office(tmp_path) as place:
        book = place.book()
        serve(book, "c1")
        await book.close()
        assert states(place) == {"c1": "settled"}
        told = place.store.told
        again = place.book()
        assert await again.tick()
        assert place.store.told == told == 2
        await again.close()


async def test_running_folds_by_itself(tmp_path: Path) -> None:
    """Within a second or so."""
    async with office(tmp_path) as place:
        book = place.book()
        running = asyncio.ensure_future(book.run())
        serve(book, "c1")
        async with asyncio.timeout(30):
            await place.store.has_folded.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert states(place) == {"c1": "settled"}
        await book.close()


async def test_much_is_folded_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While memory still has all of it: from files it would cost twice as much, just when there is the least time."""
    monkeypatch.setattr(journal, "LOOK_BYTES", 1)
    monkeypatch.setattr(recent, "MANY", 7)
    monkeypatch.setattr(bookkeeping, "FOLDING_SECONDS", 3600.0)
    async with office(tmp_path) as place:
        book = place.book()
        running = asyncio.ensure_future(book.run())
        await book.has_looked.wait()
        for number in range(4):
            serve(book, f"c{number}")
        async with asyncio.timeout(30):
            await place.store.has_folded.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert set(states(place)) == {"c0", "c1", "c2", "c3"}
        await book.close()


class FaultyHolds(Holds):
    """Holds with a mistake in them, which shows once."""

    is_mistaken = True

    def forget(self, at: datetime) -> int:
        """Make the mistake."""
        if self.is_mistaken:
            self.is_mistaken = False
            raise ZeroDivisionError("ours")
        return super().forget(at)


async def test_a_fault_of_ours_does_not_end_the_folding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the next round is as good as any."""
    async with office(tmp_path) as place:
        book = place.book(holds=FaultyHolds())
        serve(book, "c1")
        place.now += timedelta(days=1)
        running = asyncio.ensure_future(book.run())
        async with asyncio.timeout(30):
            await place.store.has_folded.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert "ZeroDivisionError: ours" in caplog.text
        assert states(place) == {"c1": "settled"}
        await book.close()


async def test_balances_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    """Once a day is over, and what is still held stays."""
    async with office(tmp_path) as place:
        book = place.book()
        await book.tick()
        serve(book, "c1", RICH)
        under_way = begin(book, "c2", key(KeyBudget(10**12, "day"), key_id="k2"))
        place.now += timedelta(days=3)
        await book.tick()
        assert place.holds.totals() == {"key/k2/day/2026-11-23": (0, COST)}
        under_way.settle(Outcome.REFUSED, 503)
        await book.close()


async def test_folded_segments_are_removed(tmp_path: Path) -> None:
    """All but the one that is written to, however many calls there were."""
    async with office(tmp_path) as place:
        book = place.book()
        book._means.journal._segment_bytes = 20_000
        for number in range(1000):
            serve(book, f"c{number}")
        assert len(list(place.directory.glob("*.journal"))) > 10
        assert await book.tick()
        assert len(list(place.directory.glob("*.journal"))) == 1
        assert len(place.rows()) == 1000
        await book.close()


async def test_what_was_written_lately_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes from memory, and with it what a disk has lost since; what memory had no room for is read."""
    monkeypatch.setattr(journal, "LOOK_BYTES", 1)
    async with office(tmp_path) as place:
        book = place.book()
        await book.tick()
        serve(book, "first")
        [file] = place.directory.glob("*.journal")
        with file.open("r+b") as damaged:
            damaged.write(bytes(100))
        assert await book.tick()
        assert states(place) == {"first": "settled"}
        book._means.journal.recent._max_records = 7
        for number in range(20):
            serve(book, f"c{number}", RICH if number % 2 else None)
        assert await book.tick()
        assert len(place.rows()) == 21
        assert place.balances() == {ACCOUNT: (10 * COST, 0)}
        assert place.audit().quarantined == 0
        await book.close()


async def test_segments_that_are_not_folded_are_kept(tmp_path: Path) -> None:
    """Whoever folds in parts, and ends after one of them, leaves the others."""
    async with office(tmp_path) as place:
        book = place.book()
        book._means.journal._segment_bytes = 20_000
        calls = RECENT_BATCH // 2 + 500
        for number in range(calls):
            serve(book, f"c{number}")
        assert await book.tick(batches=1)
        assert len(list(place.directory.glob("*.journal"))) > 5
        die(book)
        again = place.book()
        assert await again.tick()
        assert len(place.rows()) == calls
        await again.close()


# --- A database that fails --------------------------------------------------------------------------------------------


async def test_while_the_database_is_locked_the_journal_goes_on(tmp_path: Path) -> None:
    """Nobody is refused, budgets hold, and when it is back everything is there once."""
    async with office(tmp_path, wait_seconds=0.05) as place:
        book = place.book()
        await book.tick()
        place.clock.now += 100
        serve(book, "before", RICH)
        assert await book.tick()
        with locked(tmp_path):
            for number in range(20):
                serve(book, f"c{number}", RICH)
                place.clock.now += 1
                assert not await book.tick()
            gauges = book.gauges
            assert (gauges.state, gauges.lag_seconds, gauges.lost) == ("behind", 20, 0)
            assert gauges.waiting_bytes > 20 * 200
            with pytest.raises(GateError, match="budget_exhausted"):
                begin(book, "too-much", key(KeyBudget(21 * COST, "day")))
        assert await book.tick()
        gauges = book.gauges
        assert (gauges.state, gauges.lag_seconds, gauges.waiting_bytes) == ("ok", 0, 0)
        assert place.balances() == {ACCOUNT: (21 * COST, 0)} == place.holds.totals()
        assert place.audit().calls == 21
        assert place.audit().differences == ()
        await book.close()


async def test_rows_at_rest_have_all_that_was_settled_before_a_moment(tmp_path: Path) -> None:
    """Also what others left, and nothing that came later, however often the book wants to go on; then it does."""
    async with office(tmp_path) as place:
        place.directory = place.directory.with_name("2")
        gone = place.book()
        place.directory = place.directory.with_name("1")
        book = place.book()
        await gone.tick()
        await book.tick()
        serve(gone, "theirs", RICH)
        begin(gone, "open", RICH).dispatch(1, TARGET)
        die(gone)
        serve(book, "before", RICH)
        marks = 0

        def mark() -> None:
            nonlocal marks
            marks += 1
            serve(book, "after", RICH)

        async with book.at_rest(mark):
            going_on = asyncio.ensure_future(book.tick())
            await asyncio.sleep(0.05)
            assert not going_on.done()
            assert marks == 1
            assert states(place) == {"theirs": "settled", "open": "unknown", "before": "settled"}
            periods, accounts = await book.spent()
            assert accounts == {ACCOUNT: 3 * COST}
            assert "day/2026-11-23" in periods
        assert await going_on
        assert states(place)["after"] == "settled"
        await book.close()


async def test_rows_cannot_be_at_rest_without_a_database(tmp_path: Path) -> None:
    """Who asks is told so, and the book goes on."""
    async with office(tmp_path, wait_seconds=0.2) as place:
        book = place.book()
        await book.tick()
        serve(book, "c1", RICH)
        with locked(tmp_path), pytest.raises(StorageUnavailable):
            async with book.at_rest(lambda: None):
                raise AssertionError("it is not")
        assert await book.tick()
        assert states(place) == {"c1": "settled"}
        await book.close()


async def test_a_batch_that_was_done_after_all_counts_once(tmp_path: Path) -> None:
    """A slow database says nothing in time and does it later; it is told the same again."""
    async with office(tmp_path, wait_seconds=30, write_seconds=0.2) as place:
        book = place.book()
        await book.tick()
        with locked(tmp_path):
            for number in range(10):
                serve(book, f"c{number}", RICH)
            assert not await book.tick()
            assert book.gauges.state == "behind"
        # The thread has its lock now, and is done before anything that is asked for after it.
        async with asyncio.timeout(30):
            while not await book.tick():
                pass
        assert place.store.told >= 40
        assert len(place.rows()) == 10
        assert place.balances() == {ACCOUNT: (10 * COST, 0)}
        assert place.audit().differences == ()
        await book.close()


async def test_a_start_without_a_database_serves_those_without_budgets(tmp_path: Path) -> None:
    """And everyone once it is there, without a restart."""
    async with office(tmp_path, wait_seconds=0.05) as place:
        before = place.book()
        await before.tick()
        serve(before, "c1", RICH)
        die(before)
        book = place.book()
        with locked(tmp_path):
            assert not await book.tick()
            serve(book, "c2")
            with pytest.raises(GateError, match="accounting_unavailable"):
                begin(book, "c3", RICH)
        assert await book.tick()
        serve(book, "c3", RICH)
        assert place.holds.totals() == {ACCOUNT: (2 * COST, 0)}
        await book.close()


async def test_poison_does_not_stop_the_neighbours(tmp_path: Path) -> None:
    """Whatever callers and providers put into texts, the rows before and after it are there, and the call's as well."""
    async with office(tmp_path) as place:
        book = place.book()
        poison = ["\0", "\ud800", "x" * (1 << 20), "'; DROP TABLE attempts; --", "\U0001f600" * 5000]
        for number, text in enumerate(poison):
            serve(book, f"before{number}")
            entry = begin(book, f"poison{number}", None, text)
            entry.dispatch(1, TARGET)
            entry.settle(Outcome.COMPLETED, 200, answered_model=text, usage=USAGE, upstream_request_id=text)
            serve(book, f"after{number}")
        assert await book.tick()
        assert set(states(place).values()) == {"settled"}
        assert len(states(place)) == 3 * len(poison)
        assert place.audit().quarantined == 0
        await book.close()


# --- Calls that are given up ------------------------------------------------------------------------------------------


class Callers:
    """They call in all ways that there are, and note what was dispatched and charged."""

    def __init__(self, dice: random.Random) -> None:
        """Have five keys of two owners, or none."""
        keys = [key(KeyBudget(60 * COST, "day"), key_id=f"k{n}", owner=f"owner{n % 2}") for n in range(5)]
        self._dice = dice
        self._keys = [*keys, None]
        self.charged: dict[str, int] = {}
        self.dispatched: set[str] = set()

    async def call(self, book: Book, call_id: str) -> None:
        """Carry a call, of which each step may be the last."""
        dice = self._dice
        try:
            entry = begin(book, call_id, dice.choice(self._keys))
        except GateError:
            return
        outcome, sent, got = Outcome.CLIENT_LEFT, 0, 0
        try:
            for attempt in range(1, dice.randrange(1, 4)):
                await asyncio.sleep(0)
                entry.dispatch(attempt, TARGET)
                self.dispatched.add(call_id)
                sent = 4000
                for _ in range(dice.randrange(5)):
                    await asyncio.sleep(0)
                    got += 40
                if dice.random() < 0.5:
                    entry.fail(attempt, "upstream_error", 500, abandoned=dice.random() < 0.5, sent_bytes=sent)
                    got = 0
            outcome = Outcome.COMPLETED
        finally:
            self.charged[call_id] = entry.settle(outcome, 200, sent_bytes=sent, got_bytes=got)


@pytest.mark.parametrize("max_recent", [8192, 50])
async def test_a_thousand_calls_given_up_anywhere(
    tmp_path: Path, max_recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled at any point of their way, before, between and after attempts, with the database failing meanwhile.

    Nothing stays set aside, what budgets say is the sum of the rows, and each dispatched call has one row that ends it.
    """
    monkeypatch.setattr(journal, "LOOK_BYTES", 1000)
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    dice = random.Random(seed)
    callers = Callers(dice)
    async with office(tmp_path, wait_seconds=0.01) as place:
        book = place.book(Budget("owner", "owner1", "month", 10**12), Budget("global", "", "ever", 10**12))
        book._means.journal.recent._max_records = max_recent
        await book.tick()
        for some in range(20):
            tasks = [asyncio.ensure_future(callers.call(book, f"c{some}-{number}")) for number in range(50)]
            for _ in range(dice.randrange(12)):
                await asyncio.sleep(0)
                if dice.random() < 0.7:
                    dice.choice(tasks).cancel()
            with locked(tmp_path) if dice.random() < 0.2 else contextlib.nullcontext():
                await book.tick()
            for task in tasks:
                if dice.random() < 0.7:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await book.tick()
        assert len(place.holds) == 0
        assert place.holds.totals() == place.balances()
        rows = place.rows()
        assert {call_id for call_id, _ in rows} == callers.dispatched
        ends = {call_id: row.charged_nano_usd for (call_id, _), row in rows.items() if row.ends_call}
        assert ends == {call_id: callers.charged[call_id] for call_id in callers.dispatched}
        assert any(ends.values())
        assert place.audit().differences == ()
        assert place.audit().open_calls == 0
        await book.close()
