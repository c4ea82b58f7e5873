"""Budgets that are made when money has been spent already: they begin with what the rows say, once and exactly."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from accounting.books import COST, TARGET, USAGE, Office, begin, key, office, serve
from chatgate.accounting.book import OPEN_AGAIN_SECONDS, Book
from chatgate.accounting.holds import Budget
from chatgate.storage.database import FILE_NAME
from chatgate.storage.errors import StorageUnavailable
from chatgate.vocabulary.errors import GateError, Kind
from chatgate.vocabulary.exchange import Outcome
from chatgate.vocabulary.keys import KeyBudget, KeyRecord

MONTH = "key/k1/month/2026-11-01"


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    """Return a data directory with an empty ledger."""
    async with office(tmp_path, wait_seconds=0.01) as opened:
        yield opened


@pytest_asyncio.fixture
async def book(place: Office) -> AsyncIterator[Book]:
    """Return a book that knows what was spent."""
    opened = place.book()
    assert await opened.tick()
    yield opened
    await opened.close()


@contextlib.contextmanager
def locked(place: Office) -> Iterator[None]:
    """Hold the database's lock, as another program may."""
    with contextlib.closing(sqlite3.connect(place.directory.parents[1] / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def has_room(book: Book, call_id: str, record: KeyRecord | None = None) -> bool:
    """Tell whether a call that costs all that it may is let in; it takes nothing."""
    try:
        begin(book, call_id, record).settle(Outcome.REFUSED, 503)
    except GateError as error:
        if error.kind is not Kind.INSUFFICIENT_QUOTA:
            raise
        return False
    return True


async def agreed(book: Book, place: Office) -> None:
    """See that memory, sums and rows say the same."""
    assert await book.tick()
    assert place.holds.totals() == place.balances()
    assert place.audit().differences == ()


async def test_a_budget_of_a_key_begins_with_what_the_key_spent(place: Office, book: Book) -> None:
    """However often it is asked for; other keys' money is none of it, and rows and sums agree all the time."""
    for number in range(3):
        serve(book, f"before{number}", key())
    serve(book, "other", key(key_id="k2"))
    assert await book.tick()
    record = key(KeyBudget(5 * COST, "month"), version=2)
    for _ in range(3):
        await book.learn(record)
    assert place.balances() == {MONTH: (3 * COST, 0)}
    serve(book, "after", record)
    assert has_room(book, "last", record)
    serve(book, "last", record)
    assert not has_room(book, "none", record)
    await agreed(book, place)
    assert place.balances() == {MONTH: (5 * COST, 0)}


async def test_it_is_known_after_a_restart(place: Office) -> None:
    """By what is in the database: nothing is counted twice."""
    first = place.book()
    await first.tick()
    serve(first, "before", key())
    await first.tick()
    record = key(KeyBudget(2 * COST, "month"), version=2)
    await first.learn(record)
    await first.close()
    second = place.book()
    await second.learn(record)
    await second.tick()
    await second.learn(record)
    assert has_room(second, "c1", record)
    serve(second, "c1", record)
    assert not has_room(second, "c2", record)
    await agreed(second, place)
    await second.close()


async def test_each_period_counts_its_own_calls(place: Office, book: Book) -> None:
    """A budget per day knows nothing of yesterday, one that never ends knows of everything."""
    place.now -= timedelta(days=1)
    serve(book, "yesterday", key())
    place.now += timedelta(days=1)
    serve(book, "today", key())
    assert await book.tick()
    await book.learn(key(KeyBudget(9 * COST, "day"), KeyBudget(9 * COST, "month"), KeyBudget(9 * COST, "ever")))
    assert place.balances() == {
        "key/k1/day/2026-11-23": (COST, 0),
        MONTH: (2 * COST, 0),
        "key/k1/ever/1970-01-01": (2 * COST, 0),
    }
    await agreed(book, place)


async def test_budgets_of_the_file_begin_so_too(place: Office, book: Book) -> None:
    """Of an owner and of all: calls that were made since, and are in no row yet, count beside those from before."""
    serve(book, "hers", key())
    serve(book, "his", key(key_id="k2", owner="bob"))
    serve(book, "nobodys")
    own = begin(book, "own")
    own.dispatch(1, TARGET, own_key=True)
    own.settle(Outcome.COMPLETED, 200, usage=USAGE)
    assert await book.tick()
    book.set_budgets([Budget("owner", "alice", "month", 3 * COST), Budget("global", "", "day", 5 * COST)])
    serve(book, "since", key())
    await agreed(book, place)
    assert place.balances() == {"owner/alice/month/2026-11-01": (2 * COST, 0), "global//day/2026-11-23": (4 * COST, 0)}
    serve(book, "room", key())
    assert not has_room(book, "bob", key(key_id="k2", owner="bob"))
    book.set_budgets([Budget("owner", "alice", "month", 3 * COST)])
    await agreed(book, place)
    assert not has_room(book, "alice", key())


async def test_what_ended_a_moment_before_counts_too(place: Office, book: Book) -> None:
    """It is in the journal and not in the rows yet; a call that is under way when the file is read is not counted."""
    serve(book, "before")
    under_way = begin(book, "under way")
    under_way.dispatch(1, TARGET)
    book.set_budgets([Budget("global", "", "day", 3 * COST)])
    serve(book, "since")
    under_way.settle(Outcome.COMPLETED, 200, usage=USAGE)
    await agreed(book, place)
    assert place.balances() == {"global//day/2026-11-23": (2 * COST, 0)}
    await agreed(book, place)


async def test_a_start_knows_before_the_first_call(place: Office) -> None:
    """A budget that was written into the file while the gateway was down holds from the first call on."""
    before = place.book()
    await before.tick()
    for number in range(3):
        serve(before, f"c{number}")
    await before.close()
    book = place.book(Budget("global", "", "month", 3 * COST))
    await book.tick()
    assert not has_room(book, "none")
    await agreed(book, place)
    await book.close()


async def test_a_database_that_cannot_be_written_says_so(place: Office, book: Book) -> None:
    """A key is then not let in at all; budgets of the file hold from now on, and are tried again after a while."""
    serve(book, "before", key())
    assert await book.tick()
    book.set_budgets([Budget("owner", "alice", "month", 2 * COST)])
    with locked(place):
        with pytest.raises(StorageUnavailable):
            await book.learn(key(KeyBudget(COST, "month")))
        await book.tick()
    assert has_room(book, "c1", key())
    await book.tick()
    assert place.balances() == {}
    place.clock.now += OPEN_AGAIN_SECONDS
    await agreed(book, place)
    assert place.balances() == {"owner/alice/month/2026-11-01": (COST, 0)}
