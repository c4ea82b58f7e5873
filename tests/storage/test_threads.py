"""An event loop reads and writes without waiting for a disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from chatgate.storage import keys
from chatgate.storage.database import Database
from chatgate.storage.errors import KeyNotFound, Reason, StorageUnavailable
from chatgate.storage.threads import DatabaseThreads
from chatgate.vocabulary.keys import NewKey
from storage.conftest import NOW, Place


@pytest.fixture
def database(migrated_place: Place) -> Database:
    """Return an open database, which its threads close."""
    return migrated_place.open()


@pytest_asyncio.fixture
async def threads(database: Database) -> AsyncIterator[DatabaseThreads]:
    """Return the threads of a database."""
    threads = DatabaseThreads(database)
    yield threads
    await threads.close()


class Held:
    """Work that stays in its thread until it is let go."""

    def __init__(self) -> None:
        """Hold it."""
        self.begun = threading.Event()
        self.let_go = threading.Event()

    def __call__(self, _: Connection) -> str:
        """Stay."""
        self.begun.set()
        assert self.let_go.wait(10)
        return threading.current_thread().name


async def begun(held: Held) -> None:
    """Wait until a thread is at it."""
    assert await asyncio.to_thread(held.begun.wait, 10)


def make(connection: Connection, key_id: str) -> None:
    """Store a key."""
    keys.create(connection, NewKey("a key"), key_id, f"digest of {key_id}", "", NOW)


async def test_work_is_done_and_its_result_or_error_comes_back(threads: DatabaseThreads) -> None:
    """With its arguments, those by name included; what it raises is raised."""
    made = await threads.write(keys.create, NewKey("a key", owner="we"), "id", "digest", "", NOW)
    assert await threads.read(keys.get, "id", owner="we") == made
    with pytest.raises(KeyNotFound):
        await threads.read(keys.get, "id", owner="they")


async def test_a_long_read_holds_up_nobody(threads: DatabaseThreads) -> None:
    """Neither a write nor another read."""
    held = Held()
    report = asyncio.create_task(threads.read(held))
    await begun(held)
    await threads.write(make, "one")
    assert await threads.read(keys.count) == 1
    held.let_go.set()
    assert (await report).startswith("chatgate-read")


async def test_writes_are_done_in_their_order(threads: DatabaseThreads) -> None:
    """By one thread."""
    order: list[int] = []

    def note(_: Connection, number: int) -> None:
        order.append(number)

    await asyncio.gather(*(threads.write(note, number) for number in range(50)))
    assert order == list(range(50))


async def test_a_cancelled_write_is_done_whole_or_not_at_all(threads: DatabaseThreads) -> None:
    """What has begun is finished, what has not is never begun, and the thread goes on."""
    held = Held()

    def hold_then_make(connection: Connection) -> None:
        held(connection)
        make(connection, "begun")

    first = asyncio.create_task(threads.write(hold_then_make))
    await begun(held)
    second = asyncio.create_task(threads.write(make, "waiting"))
    await asyncio.sleep(0)
    for task in (first, second):
        task.cancel()
    assert [type(each) for each in await asyncio.gather(first, second, return_exceptions=True)] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
    ]
    held.let_go.set()
    await threads.write(make, "after")
    assert sorted(key.id for key in await threads.read(keys.list_keys)) == ["after", "begun"]


async def test_a_thousand_cancelled_reads_leave_nothing_behind(threads: DatabaseThreads, database: Database) -> None:
    """No thread, no connection and no place in the queue stays taken."""
    tasks = [asyncio.create_task(threads.read(keys.count)) for _ in range(200)]
    for number, task in enumerate(tasks * 5):
        if number % 3 == 0:
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert await threads.read(keys.count) == 0
    pool: Any = database._reader.pool
    # The other thread may still be at work that nobody waits for.
    for _ in range(500):
        if pool.checkedout() == 0:
            break
        await asyncio.sleep(0.01)
    assert pool.checkedout() == 0
    assert threads._reading._queue.empty()


async def test_who_waits_too_long_or_is_one_too_many_is_told(database: Database) -> None:
    """The first after the time it has, the next at once; then all goes on."""
    threads = DatabaseThreads(database, write_seconds=0.05, max_waiting=2)
    held = Held()
    first = asyncio.create_task(threads.write(held))
    await begun(held)
    waiting = [asyncio.create_task(threads.write(make, str(number))) for number in range(5)]
    outcomes = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert all(isinstance(outcome, StorageUnavailable) and outcome.reason is Reason.SLOW for outcome in outcomes)
    assert ["many" in str(outcome) for outcome in outcomes] == [False, False, False, True, True, True]
    held.let_go.set()
    assert await threads.close()


async def test_closing_finishes_what_was_asked_for(migrated_place: Place, database: Database) -> None:
    """And takes nothing more."""
    threads = DatabaseThreads(database)
    writing = [asyncio.create_task(threads.write(make, str(number))) for number in range(20)]
    await asyncio.sleep(0)
    assert await threads.close()
    await asyncio.gather(*writing)
    with pytest.raises(StorageUnavailable):
        await threads.read(keys.count)
    assert await threads.close()
    again = migrated_place.open()
    assert again.read(keys.count) == 20
    again.close()


async def test_closing_does_not_wait_for_ever(database: Database) -> None:
    """A thread that is stuck is left behind."""
    threads = DatabaseThreads(database, write_seconds=0.05)
    held = Held()
    with pytest.raises(StorageUnavailable):
        await threads.write(held)
    assert not await threads.close(patience_seconds=0.05)
    held.let_go.set()
    assert await threads.close()
