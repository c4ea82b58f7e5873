"""A signal wakes its one waiter: a run at once, a task by the loop, and either as often as it waits."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from chatgate.server.run import Run
from chatgate.transport.signal import Signal


@pytest.fixture
async def signal() -> Signal:
    """Return a signal that nobody waits for."""
    return Signal(asyncio.get_running_loop())


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_nobody_waits(signal: Signal) -> None:
    """To fire or to cancel it does nothing then, and is not remembered."""
    signal.fire()
    assert signal.cancel() is False
    signal.result()
    task = asyncio.create_task(_wait(signal, 1, []))
    await turns()
    assert not task.done()
    signal.fire()
    await task


async def _wait(signal: Signal, times: int, heard: list[int]) -> None:
    for number in range(times):
        await signal
        heard.append(number)


async def test_a_task_is_woken_again_and_again(signal: Signal) -> None:
    """By the loop, not inside of whoever fires; twice before it has looked is once."""
    heard: list[int] = []
    task = asyncio.create_task(_wait(signal, 3, heard))
    await turns(1)
    for number in range(3):
        signal.fire()
        signal.fire()
        assert heard == list(range(number))
        await turns()
        assert heard == list(range(number + 1))
    await task


async def test_a_run_is_woken_at_once(signal: Signal) -> None:
    """Inside of whoever fires."""
    heard: list[int] = []
    Run(_wait(signal, 3, heard), lambda *_: None).step()
    for number in range(3):
        signal.fire()
        assert heard == list(range(number + 1))


async def test_a_task_and_a_run_may_take_turns(signal: Signal) -> None:
    """Each is woken in its own way, whoever waited before."""
    heard: list[int] = []
    for _ in range(2):
        Run(_wait(signal, 1, heard), lambda *_: None).step()
        signal.fire()
        assert heard.pop() == 0
        task = asyncio.create_task(_wait(signal, 1, heard))
        await turns(1)
        signal.fire()
        assert heard == []
        await task
        assert heard.pop() == 0


async def test_a_task_that_waits_is_cancelled(signal: Signal) -> None:
    """And the signal may be awaited by another one afterwards."""
    task = asyncio.create_task(_wait(signal, 1, []))
    await turns(1)
    task.cancel("client left")
    with pytest.raises(asyncio.CancelledError):
        await task
    again = asyncio.create_task(_wait(signal, 1, []))
    await turns(1)
    signal.fire()
    await again


async def test_a_task_that_was_just_woken_is_cancelled_all_the_same(signal: Signal) -> None:
    """News do not swallow a cancellation."""
    task = asyncio.create_task(_wait(signal, 1, []))
    await turns(1)
    signal.fire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_task_is_not_brought_back_by_news(signal: Signal) -> None:
    """What comes between the cancellation and its effect changes nothing."""
    task = asyncio.create_task(_wait(signal, 1, []))
    await turns(1)
    task.cancel()
    signal.fire()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_task_may_catch_its_cancellation_and_wait_again(signal: Signal) -> None:
    """The cancellation counts for one wait."""
    caught: list[str] = []

    async def stubborn() -> None:
        try:
            await signal
        except asyncio.CancelledError:
            caught.append("once")
        await signal

    task = asyncio.create_task(stubborn())
    await turns(1)
    task.cancel()
    await turns()
    assert caught == ["once"]
    assert not task.done()
    signal.fire()
    await task


async def test_a_timeout_ends_the_waiting_of_a_task(signal: Signal) -> None:
    """The tools of asyncio work on it."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await signal
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_wait(signal, 1, []), 0.01)


async def test_a_task_goes_on_in_its_own_context(signal: Signal) -> None:
    """Whoever fires lends nothing of theirs."""
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def waiting() -> None:
        whose.set("mine")
        await signal
        seen.append(whose.get())

    task = asyncio.create_task(waiting())
    await turns(1)
    whose.set("theirs")
    signal.fire()
    await task
    assert seen == ["mine"]
    assert signal.get_loop() is asyncio.get_running_loop()
