"""A coroutine that runs without a task: it begins at once, goes on inside what wakes it, and can be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from chatgate.server.run import Run
from chatgate.transport.signal import Signal


class Ends:
    """Starts runs, and keeps how they ended."""

    def __init__(self) -> None:
        """None has."""
        self.errors: list[BaseException | None] = []
        self.runs: list[Run] = []

    def start(self, coroutine: Coroutine[Any, None, None]) -> Run:
        """Start one."""
        run = Run(coroutine, self)
        run.step()
        return run

    def __call__(self, run: Run, error: BaseException | None) -> None:
        """Take note of an end."""
        assert run.is_over
        self.runs.append(run)
        self.errors.append(error)


@pytest.fixture
def ends() -> Ends:
    """Return where runs end."""
    return Ends()


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_need_not_wait_is_over_at_once(ends: Ends) -> None:
    """The whole coroutine runs inside of `step`, and its end is told once."""
    said: list[str] = []

    async def quick() -> None:
        said.append("done")

    run = ends.start(quick())
    assert (said, ends.runs, ends.errors) == (["done"], [run], [None])
    run.cancel("too late")
    await turns()
    assert ends.errors == [None]


async def test_it_goes_on_inside_of_what_wakes_it(ends: Ends) -> None:
    """A signal is answered before whoever gave it goes on, again and again."""
    signal = Signal(asyncio.get_running_loop())
    said: list[int] = []

    async def listening() -> None:
        for number in range(3):
            said.append(number)
            await signal

    run = ends.start(listening())
    assert said == [0]
    for heard in ([0, 1], [0, 1, 2]):
        signal.fire()
        assert said == heard
        assert not run.is_over
    signal.fire()
    assert ends.errors == [None]
    signal.fire()
    assert ends.errors == [None]


async def test_it_may_await_whatever_a_task_may() -> None:
    """Futures, tasks, sleeps, gatherings, shields and threads wake it with their results."""
    loop = asyncio.get_running_loop()
    got: list[object] = []

    async def one(value: object) -> object:
        await asyncio.sleep(0)
        return value

    async def waiting() -> None:
        await asyncio.sleep(0)
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        got.append(await future)
        got.append(await future)  # It is done by now.
        got.append(await asyncio.create_task(one("task")))
        got.append(await asyncio.gather(one(1), one(2)))
        got.append(await asyncio.shield(asyncio.ensure_future(one("shielded"))))
        done, _ = await asyncio.wait([asyncio.ensure_future(one("waited for"))], timeout=5)
        got.extend(task.result() for task in done)
        got.append(await asyncio.to_thread(str, 7))
        await asyncio.sleep(0.001)

    over = asyncio.Event()
    run = Run(waiting(), lambda *_: over.set())
    run.step()
    assert got == []
    await asyncio.wait_for(over.wait(), 5)
    assert got == ["future", "future", "task", [1, 2], "shielded", "waited for", "7"]


async def test_an_error_is_told(ends: Ends) -> None:
    """Whatever ends it reaches whoever made it, before the first wait or after, and nobody else."""

    async def failing(*, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise LookupError(waits)

    ends.start(failing(waits=False))
    ends.start(failing(waits=True))
    await turns()
    assert [repr(error) for error in ends.errors] == ["LookupError(False)", "LookupError(True)"]


async def test_an_error_of_what_it_awaits_is_raised_where_it_waits(ends: Ends) -> None:
    """As in a task."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    caught: list[BaseException] = []

    async def waiting() -> None:
        try:
            await future
        except LookupError as error:
            caught.append(error)

    ends.start(waiting())
    future.set_exception(error := LookupError())
    await turns()
    assert caught == [error]
    assert ends.errors == [None]


async def test_a_future_that_somebody_else_cancels_ends_it(ends: Ends) -> None:
    """The cancellation is the run's end when it does not catch it."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await future

    ends.start(waiting())
    future.cancel()
    await turns()
    assert [type(error) for error in ends.errors] == [asyncio.CancelledError]


@pytest.mark.parametrize("what", ["signal", "future", "task", "sleep", "sleep(0)", "shield", "wait", "nested"])
async def test_it_is_cancelled_where_it_waits(ends: Ends, what: str) -> None:
    """Whatever it awaits; the message arrives, and what runs on its way out is run."""
    loop = asyncio.get_running_loop()
    inner: asyncio.Future[None] = loop.create_future()
    signal = Signal(loop)
    left: list[str] = []

    async def nested() -> None:
        try:
            await inner
        finally:
            left.append("nested")

    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "signal": lambda: signal,
        "future": lambda: inner,
        "task": lambda: asyncio.create_task(nested()),
        "sleep": lambda: asyncio.sleep(100),
        "sleep(0)": lambda: asyncio.sleep(0),
        "shield": lambda: asyncio.shield(inner),
        "wait": lambda: asyncio.wait([inner]),
        "nested": nested,
    }

    async def waiting() -> None:
        try:
            await ways[what]()
        finally:
            left.append("outer")

    run = ends.start(waiting())
    if what == "task":
        await turns(1)
    run.cancel("client left")
    await turns(5)
    assert [repr(error) for error in ends.errors] == ["CancelledError('client left')"]
    assert left == (["nested", "outer"] if what in {"task", "nested"} else ["outer"])
    if what in {"shield", "wait"}:
        assert not inner.cancelled()


async def test_what_waits_for_a_signal_is_cancelled_at_once(ends: Ends) -> None:
    """There is no turn of the loop between the caller's leaving and the upstream's end."""

    async def waiting() -> None:
        await Signal(asyncio.get_running_loop())

    ends.start(waiting()).cancel("client left")
    assert [repr(error) for error in ends.errors] == ["CancelledError('client left')"]


async def test_it_may_go_on_after_a_cancellation(ends: Ends) -> None:
    """Who catches it may still wait, and be cancelled once more."""
    signal = Signal(asyncio.get_running_loop())
    caught: list[str] = []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await signal
            except asyncio.CancelledError as cancelled:
                caught.append(cancelled.args[0])
                await asyncio.sleep(0)
        await signal

    run = ends.start(stubborn())
    run.cancel("first")
    await turns()
    run.cancel("second")
    await turns()
    assert (caught, ends.errors) == (["first", "second"], [])
    signal.fire()
    assert ends.errors == [None]


async def test_it_is_cancelled_at_its_next_wait_when_it_is_not_waiting(ends: Ends) -> None:
    """As when the caller turns out to have left in the middle of a write."""
    signal = Signal(asyncio.get_running_loop())
    said: list[str] = []
    runs: list[Run] = []

    async def writing() -> None:
        runs[0].cancel("client left")
        said.append("written")
        try:
            await signal
        finally:
            said.append("cleaned up")

    runs.append(Run(writing(), ends))
    runs[0].step()
    await turns()
    assert said == ["written", "cleaned up"]
    assert [repr(error) for error in ends.errors] == ["CancelledError('client left')"]


async def test_news_before_a_cancellation_does_not_hide_it(ends: Ends) -> None:
    """What it waited for has come, but before it could go on the caller left."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await future

    run = ends.start(waiting())
    future.set_result(None)
    run.cancel("client left")
    await turns()
    assert [repr(error) for error in ends.errors] == ["CancelledError('client left')"]


async def test_a_run_may_start_another_and_be_woken_inside_of_it(ends: Ends) -> None:
    """Runs nest: each goes on in its own place."""
    loop = asyncio.get_running_loop()
    first, second = Signal(loop), Signal(loop)
    said: list[str] = []

    async def inner() -> None:
        said.append("inner begins")
        await second
        first.fire()
        said.append("inner ends")

    async def outer() -> None:
        ends.start(inner())
        said.append("outer waits")
        await first
        said.append("outer ends")

    ends.start(outer())
    second.fire()
    assert said == ["inner begins", "outer waits", "outer ends", "inner ends"]
    assert ends.errors == [None, None]


async def test_a_run_that_is_never_woken_leaves_nothing_behind_when_it_is_cancelled(ends: Ends) -> None:
    """Neither a pending task nor a warning."""
    before = len(asyncio.all_tasks())

    async def waiting() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.create_task(asyncio.sleep(100))

    run = ends.start(waiting())
    await turns(1)
    run.cancel("client left")
    await turns()
    assert ends.errors == [None]
    assert len(asyncio.all_tasks()) == before
