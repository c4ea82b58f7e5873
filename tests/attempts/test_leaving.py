"""Answers that are read on for nobody: bounded in number and time, and each settled once, however it ends."""

from __future__ import annotations

import asyncio

import pytest

from chatgate.attempts.leaving import Leaving


class Reading:
    """Something to read on, and what became of it."""

    def __init__(self) -> None:
        """Wait to be read."""
        self.may_end = asyncio.Event()
        self.error: Exception | None = None
        self.settled = 0

    async def __call__(self) -> None:
        """Read until the test says so."""
        await self.may_end.wait()
        if self.error is not None:
            raise self.error

    def settle(self) -> None:
        """Take note."""
        self.settled += 1


@pytest.fixture
def leaving() -> Leaving:
    """Return what reads on two answers at a time."""
    leaving = Leaving()
    leaving.set_bounds(drains=True, seconds=100.0, calls=2)
    return leaving


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nothing_is_read_on_unless_it_is_wanted() -> None:
    """It begins switched off, and can be switched off again."""
    leaving = Leaving()
    reading = Reading()
    assert not leaving.take(reading, reading.settle)
    leaving.set_bounds(drains=True, seconds=1.0, calls=0)
    assert not leaving.take(reading, reading.settle)
    leaving.set_bounds(drains=False, seconds=1.0, calls=5)
    assert not leaving.take(reading, reading.settle)
    assert (leaving.draining, reading.settled) == (0, 0)


@pytest.mark.parametrize("error", [None, LookupError("broke off")])
async def test_what_is_read_to_its_end_is_settled(leaving: Leaving, error: Exception | None) -> None:
    """Well or not: what was counted until then is what there is."""
    reading = Reading()
    reading.error = error
    assert leaving.take(reading, reading.settle)
    await turns()
    assert (leaving.draining, reading.settled) == (1, 0)
    reading.may_end.set()
    await turns()
    assert (leaving.draining, reading.settled) == (0, 1)


async def test_there_is_room_for_so_many(leaving: Leaving) -> None:
    """One more is not taken until another has ended."""
    readings = [Reading() for _ in range(3)]
    assert [leaving.take(each, each.settle) for each in readings] == [True, True, False]
    readings[0].may_end.set()
    await turns()
    assert leaving.take(readings[2], readings[2].settle)
    await turns()
    await leaving.close()
    assert [each.settled for each in readings] == [1, 1, 1]


async def test_it_takes_no_longer_than_it_may() -> None:
    """An answer without an end is settled when its time is over."""
    leaving = Leaving()
    leaving.set_bounds(drains=True, seconds=0.01, calls=1)
    reading = Reading()
    assert leaving.take(reading, reading.settle)
    async with asyncio.timeout(5):
        while leaving.draining:  # noqa: ASYNC110 - its own timer ends it, and tells nobody
            await asyncio.sleep(0.005)
    assert reading.settled == 1


@pytest.mark.parametrize("rounds", [0, 1, 3])
async def test_the_end_of_the_process_settles_all(leaving: Leaving, rounds: int) -> None:
    """Also what was taken a moment before and has not begun to read."""
    readings = [Reading() for _ in range(2)]
    for each in readings:
        leaving.take(each, each.settle)
    await turns(rounds)
    await leaving.close()
    assert [each.settled for each in readings] == [1, 1]
    assert leaving.draining == 0
