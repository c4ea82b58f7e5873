"""Journals whose processes have ended: whoever starts or runs beside them takes them over, and budgets know of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pytest
import pytest_asyncio

from accounting.books import COST, TARGET, USAGE, LedgerStore, Office, begin, key, office, serve
from chatgate.accounting import orphans
from chatgate.accounting.book import Book
from chatgate.accounting.folding import BATCH, LOOK_SECONDS, Read
from chatgate.accounting.journal import JournalUnavailable
from chatgate.accounting.segments import Position, path_of, segments
from chatgate.storage.database import FILE_NAME
from chatgate.vocabulary.errors import GateError
from chatgate.vocabulary.exchange import Outcome
from chatgate.vocabulary.keys import KeyBudget

RICH = key(KeyBudget(10**12, "day"))
ACCOUNT = "key/k1/day/2026-11-23"


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    """Return a data directory with an empty ledger."""
    async with office(tmp_path, wait_seconds=0.05) as opened:
        yield opened


def process(place: Office, number: int) -> Book:
    """Open the book of a process that has just started and found that place in the journal free."""
    place.directory = place.directory.with_name(str(number))
    return place.book()


def die(book: Book) -> None:
    """End as a killed process does: nothing is folded and nothing is settled."""
    book._means.journal.close()


def spent(book: Book) -> Mapping[str, tuple[int, int]]:
    """Return what the budgets of a process know of."""
    return book._means.holds.totals()


def states(place: Office) -> dict[str, tuple[str, str]]:
    """Return what is known of each call, and whose it was."""
    return {call_id: (row.state, row.worker) for (call_id, _), row in place.rows().items()}


def left(place: Office, number: int) -> int:
    """Return how many bytes lie in a place of the journal."""
    return sum(path.stat().st_size for path in place.directory.with_name(str(number)).glob("*.journal"))


async def look(place: Office, book: Book) -> None:
    """Let so much time pass that a process looks around, and another moment."""
    place.clock.now += LOOK_SECONDS
    assert await book.tick()
    assert await book.tick()


@contextlib.contextmanager
def locked(place: Office) -> Iterator[None]:
    """Hold the database's lock, as another program may."""
    with contextlib.closing(sqlite3.connect(place.directory.parents[1] / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


# --- At a start -------------------------------------------------------------------------------------------------------


async def test_a_start_takes_over_what_others_left(place: Office) -> None:
    """Under their own names, to the end, before any budget is told; and nothing is left of it to be done again."""
    for number in (2, 3):
        dead = process(place, number)
        await dead.tick()
        serve(dead, f"folded{number}", RICH)
        await dead.tick()
        serve(dead, f"left{number}", RICH)
        begin(dead, f"open{number}", RICH).dispatch(1, TARGET)
        die(dead)

    only = process(place, 1)
    with pytest.raises(GateError, match="accounting_unavailable"):
        begin(only, "early", RICH)
    assert await only.tick()
    assert states(place) == {
        f"{what}{number}": (state, str(number))
        for number in (2, 3)
        for what, state in (("folded", "settled"), ("left", "settled"), ("open", "unknown"))
    }
    assert spent(only) == {ACCOUNT: (6 * COST, 0)} == place.balances()
    assert (left(place, 2), left(place, 3)) == (0, 0)
    assert place.audit().differences == ()
    with pytest.raises(GateError, match="budget_exhausted"):
        begin(only, "too-much", key(KeyBudget(7 * COST - 1, "day")))
    begin(only, "last", key(KeyBudget(7 * COST, "day"))).settle(Outcome.REFUSED, 503)
    await only.close()


async def test_a_clean_end_without_a_database_leaves_it_to_others(place: Office) -> None:
    """What could not be told on the way out is told by the next that starts, wherever that writes."""
    ending = process(place, 2)
    await ending.tick()
    serve(ending, "c1", RICH)
    with locked(place):
        await ending.close()
    assert states(place) == {}
    only = process(place, 1)
    with locked(place):
        assert not await only.tick()
    assert await only.tick()
    assert states(place) == {"c1": ("settled", "2")}
    assert spent(only) == {ACCOUNT: (COST, 0)}
    await only.close()


async def test_who_lives_is_left_alone(place: Office) -> None:
    """Calls under way at another process are not interrupted, and its journal stays its own."""
    alive = process(place, 2)
    await alive.tick()
    under_way = begin(alive, "c1", RICH)
    under_way.dispatch(1, TARGET)
    await alive.tick()
    before = left(place, 2)
    starting = process(place, 1)
    assert await starting.tick()
    await look(place, starting)
    assert states(place) == {"c1": ("dispatched", "2")}
    assert left(place, 2) == before
    under_way.settle(Outcome.COMPLETED, 200, usage=USAGE)
    await alive.close()
    assert states(place) == {"c1": ("settled", "2")}
    await starting.close()


async def test_a_place_that_was_taken_over_can_be_used_again(place: Office) -> None:
    """Its next journal counts on from the last one, even if the clock is set back; what it holds is folded."""
    dead = process(place, 2)
    for number in range(5):
        serve(dead, f"dead{number}")
    die(dead)
    only = process(place, 1)
    assert await only.tick()
    place.now = datetime.fromtimestamp(0, tz=place.now.tzinfo)
    again = process(place, 2)
    assert await again.tick()
    serve(again, "again")
    await again.close()
    assert states(place)["again"] == ("settled", "2")
    await only.close()


async def test_a_torn_end_is_put_aside(place: Office) -> None:
    """What a disk damaged at the end of a dead journal is told as damage, not dropped in silence."""
    dead = process(place, 2)
    serve(dead, "c1")
    die(dead)
    with path_of(place.directory, segments(place.directory)[-1]).open("ab") as torn:
        torn.write(b"torn")
    only = process(place, 1)
    assert await only.tick()
    assert place.audit().quarantined == 1
    assert states(place) == {"c1": ("settled", "2")}
    await only.close()


async def test_no_one_starts_in_a_place_that_is_being_taken_over(place: Office) -> None:
    """Who wants it takes another one; it is free again once all is done."""
    dead = process(place, 2)
    serve(dead, "c1")
    die(dead)
    only = process(place, 1)
    with seen(place, "interrupt") as (reached, proceed):
        taking = asyncio.ensure_future(only.tick())
        await reached.wait()
        with pytest.raises(JournalUnavailable) as caught:
            process(place, 2)
        assert isinstance(caught.value.__cause__, BlockingIOError)
        proceed.set()
        assert await taking
    again = process(place, 2)
    await again.close()
    await only.close()


@contextlib.contextmanager
def seen(place: Office, what: str) -> Iterator[tuple[asyncio.Event, asyncio.Event]]:
    """Hold the database up at whatever is asked of it for place 2: an event when that is reached, one to proceed."""
    reached, proceed, whole = asyncio.Event(), asyncio.Event(), getattr(place.store, what)

    async def held_up(worker: str, *rest: object) -> None:
        if worker == "2":
            reached.set()
            await proceed.wait()
        await whole(worker, *rest)

    setattr(place.store, what, held_up)
    try:
        yield reached, proceed
    finally:
        setattr(place.store, what, whole)


async def test_what_cannot_be_looked_at_keeps_budgets_unknown(place: Office, caplog: pytest.LogCaptureFixture) -> None:
    """No money is given out that may be spent already; this process's own calls become rows all the same."""
    dead = process(place, 2)
    serve(dead, "c1", None)
    die(dead)
    lock = place.directory / "writer.lock"
    lock.unlink()
    lock.mkdir()
    book = process(place, 1)
    serve(book, "own")
    assert not await book.tick()
    assert f"the journal goes on: JournalUnavailable: {place.directory.with_name('2')}: " in caplog.text
    assert (book.gauges.state, set(states(place))) == ("behind", {"own"})
    with pytest.raises(GateError, match="accounting_unavailable"):
        begin(book, "c2", RICH)
    lock.rmdir()
    assert await book.tick()
    assert set(states(place)) == {"own", "c1"}
    begin(book, "c2", RICH).settle(Outcome.REFUSED, 503)
    await book.close()


# --- Beside a process that lives --------------------------------------------------------------------------------------


async def test_what_a_neighbour_left_is_taken_over_after_a_while(place: Office) -> None:
    """And budgets learn all that it spent, also what it had folded itself; what is spent here counts once."""
    first, second = process(place, 1), process(place, 2)
    await first.tick()
    await second.tick()
    serve(first, "own", RICH)
    serve(second, "folded", RICH)
    assert await first.tick()
    assert await second.tick()
    serve(second, "left", RICH)
    begin(second, "open", RICH).dispatch(1, TARGET)
    await look(place, first)
    assert spent(first) == {ACCOUNT: (COST, 0)}

    die(second)
    serve(first, "not-folded-yet", RICH)
    under_way = begin(first, "under-way", RICH)
    under_way.dispatch(1, TARGET)
    place.clock.now += LOOK_SECONDS - 1
    assert await first.tick()
    assert states(place)["folded"] == ("settled", "2")
    assert "left" not in states(place)
    await look(place, first)
    assert states(place)["left"] == ("settled", "2")
    assert states(place)["open"] == ("unknown", "2")
    assert spent(first) == {ACCOUNT: (5 * COST, COST)}
    under_way.settle(Outcome.COMPLETED, 200, usage=USAGE)
    await look(place, first)
    assert spent(first) == {ACCOUNT: (6 * COST, 0)} == place.balances()
    assert place.audit().differences == ()
    await first.close()


async def test_calls_go_on_while_budgets_learn(place: Office) -> None:
    """Whatever is settled here between any two steps of it counts once."""
    book, neighbour = process(place, 1), process(place, 2)
    await book.tick()
    await neighbour.tick()
    for number in range(3):
        serve(neighbour, f"left{number}", RICH)
    die(neighbour)
    book._means.journal._segment_bytes = 20_000
    busy = Busy(place, book)
    book._folding._store = book._folding._own._store = busy
    place.clock.now += LOOK_SECONDS
    assert await book.tick()
    # So many that the last of them are read after others have been told.
    for number in range(BATCH):
        serve(book, f"own{number}", RICH)
    assert await book.tick()
    assert await book.tick()
    assert busy.calls > 4
    assert spent(book) == {ACCOUNT: ((busy.calls + BATCH + 3) * COST, 0)}
    book._folding._own._store = place.store
    await book.close()
    assert place.balances() == spent(book)


class Busy(LedgerStore):
    """A ledger during whose every answer, and before it, another call is carried."""

    def __init__(self, place: Office, book: Book) -> None:
        """Carry calls with that book."""
        super().__init__(place.store._threads)
        self._book = book
        self.calls = 0

    def call(self) -> None:
        """Carry a call."""
        self.calls += 1
        serve(self._book, f"busy{self.calls}", RICH)

    async def fold(self, worker: str, entries: Sequence[Read], position: Position) -> None:
        """Fold."""
        self.call()
        await super().fold(worker, entries, position)
        self.call()

    async def interrupt(self, worker: str, at: datetime) -> None:
        """Interrupt."""
        self.call()
        await super().interrupt(worker, at)
        self.call()

    async def balances(self, periods: Sequence[str]) -> Mapping[str, int]:
        """Return what is spent."""
        self.call()
        told = await super().balances(periods)
        self.call()
        return told


async def test_what_the_disk_has_no_room_for_yet_counts_once(place: Office) -> None:
    """While this journal lacks what was settled, budgets wait with learning what others spent."""
    book, neighbour = process(place, 1), process(place, 2)
    await book.tick()
    await neighbour.tick()
    serve(neighbour, "left", RICH)
    die(neighbour)
    journal = book._means.journal
    under_way = begin(book, "own", RICH)
    under_way.dispatch(1, TARGET)
    journal._max_bytes = journal._segment_bytes = journal._due = 0
    under_way.settle(Outcome.COMPLETED, 200, usage=USAGE)
    await look(place, book)
    assert journal.trouble
    assert set(states(place)) == {"own", "left"}
    assert spent(book) == {ACCOUNT: (COST, 0)}
    journal._max_bytes = 1 << 30
    await look(place, book)
    assert spent(book) == {ACCOUNT: (2 * COST, 0)} == place.balances()
    await book.close()


async def test_all_who_live_learn_what_one_took_over(place: Office) -> None:
    """Only one can take a journal over; the others see that its process is gone."""
    first, second, third = (process(place, number) for number in (1, 2, 3))
    for book in (first, second, third):
        await book.tick()
    for book in (first, second, third):
        serve(book, f"own{book._folding._directory.name}", RICH)
        await book.tick()
    for book in (first, second):
        await look(place, book)
        assert spent(book) == {ACCOUNT: (COST, 0)}
    serve(third, "left", RICH)
    die(third)
    await look(place, first)
    await look(place, second)
    assert spent(first) == spent(second) == {ACCOUNT: (4 * COST, 0)} == place.balances()
    await first.close()
    await second.close()


async def test_what_is_done_is_not_asked_for_again(place: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lives beside others or an emptied place asks the database nothing; who is alone tries no lock."""
    dead, alive = process(place, 2), process(place, 3)
    serve(dead, "c1")
    serve(alive, "c2")
    die(dead)
    book = process(place, 1)
    await book.tick()
    serve(book, "own")
    await look(place, book)
    asked: list[str] = []
    for what in ("position", "fold", "interrupt", "balances"):
        monkeypatch.setattr(place.store, what, lambda *_, what=what: asked.append(what))
    await look(place, book)
    assert asked == []
    monkeypatch.undo()
    await alive.close()
    await look(place, book)
    monkeypatch.setattr(orphans, "seized", lambda directory: asked.append(directory.name))
    await look(place, book)
    assert asked == []
    await book.close()


async def test_a_long_orphan_is_taken_over_in_parts(place: Office) -> None:
    """So that this process's own calls get their turn; a start takes it whole."""
    dead = process(place, 2)
    for number in range(BATCH):
        serve(dead, f"dead{number}", None)
    serve(dead, "last", None)
    book = process(place, 1)
    await book.tick()
    die(dead)
    place.clock.now += LOOK_SECONDS
    for number, is_left in enumerate((True, True, False)):
        serve(book, f"own{number}", None)
        assert await book.tick(batches=1)
        assert book._folding.is_level is not is_left
    assert len(place.rows()) == BATCH + 4
    for number in range(2 * BATCH):
        serve(book, f"again{number}", RICH)
    die(book)
    only = process(place, 3)
    assert await only.tick(batches=1)
    assert spent(only) == {ACCOUNT: (2 * BATCH * COST, 0)}
    await only.close()


# --- Killed at any moment ---------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process has ended."""


class Deadly(LedgerStore):
    """A ledger at one of whose answers the process ends: before it is done, or after."""

    def __init__(self, place: Office, steps: int) -> None:
        """End at that step."""
        super().__init__(place.store._threads)
        self._steps = steps

    def step(self) -> None:
        """Go on, or end."""
        self._steps -= 1
        if not self._steps:
            raise Killed

    async def position(self, worker: str) -> Position | None:
        """Return how far a journal is in the database."""
        self.step()
        return await super().position(worker)

    async def fold(self, worker: str, entries: Sequence[Read], position: Position) -> None:
        """Fold."""
        self.step()
        await super().fold(worker, entries, position)
        self.step()

    async def interrupt(self, worker: str, at: datetime) -> None:
        """Interrupt."""
        self.step()
        await super().interrupt(worker, at)
        self.step()


@pytest.mark.parametrize("steps", range(1, 18))
async def test_a_taking_over_that_is_killed_is_done_by_the_next(place: Office, steps: int) -> None:
    """Each call counts once, wherever that process wrote and the next one writes."""
    dice = random.Random(steps)
    for number in (2, 3):
        dead = process(place, number)
        for call in range(BATCH // 2 + 1):
            serve(dead, f"c{number}-{call}")
        begin(dead, f"open{number}").dispatch(1, TARGET)
        die(dead)
    place.store, store = Deadly(place, steps), place.store
    killed = process(place, 1)
    serve(killed, "own")
    with contextlib.suppress(Killed):
        assert await killed.tick()
    die(killed)
    place.store = store
    only = process(place, dice.choice([1, 2, 3, 4]))
    assert await only.tick()
    assert [left(place, number) for number in (1, 2, 3) if place.directory.name != str(number)].count(0) >= 2
    rows = place.rows()
    assert len(rows) == 2 * (BATCH // 2 + 2) + 1
    assert all(row.ends_call for row in rows.values())
    assert sorted(call_id for (call_id, _), row in rows.items() if row.state != "settled") == ["open2", "open3"]
    audit = place.audit()
    assert (audit.differences, audit.open_calls, audit.quarantined) == ((), 0, 0)
    await only.close()
