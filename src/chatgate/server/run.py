"""Runs a call's coroutine without a task.

A task begins at the next turn of the loop and goes on at a later one than the news it waits for; a run begins at once,
and goes on inside whatever wakes it. That spares each call two turns of the loop and the task itself. What needs a task
(`asyncio.timeout` and the like) must make one and await it.

Made by a connection for each call, which is told when it is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Run:
    """One coroutine on its way; `end` is called with it once it is over, and with the error it ended by, if any."""

    __slots__ = ("_cancelled", "_coroutine", "_end", "_waiting", "is_over")

    def __init__(
        self, coroutine: Coroutine[Any, None, None], end: Callable[[Run, BaseException | None], object]
    ) -> None:
        """Take the coroutine; `start` begins it."""
        self._coroutine = coroutine
        self._end = end
        self._waiting: asyncio.Future[Any] | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self.is_over = False

    def start(self) -> None:
        """Run until it has to wait for something for the first time, which may be to its end."""
        self._step()

    def cancel(self, message: str) -> None:
        """Raise `CancelledError` where it waits, or where it will wait next."""
        if self.is_over:
            return
        self._cancelled = asyncio.CancelledError(message)
        if self._waiting is not None:
            self._waiting.cancel()

    def _step(self, _: object = None) -> None:
        """Go on until the next wait; called by what was waited for."""
        self._waiting = None
        cancelled = self._cancelled
        try:
            if cancelled is None:
                waiting = self._coroutine.send(None)
            else:
                self._cancelled = None
                waiting = self._coroutine.throw(cancelled)
        except StopIteration:
            self.is_over = True
            self._end(self, None)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary: whoever made the run judges
            self.is_over = True
            self._end(self, error)
        else:
            self._wait(waiting)

    def _wait(self, waiting: asyncio.Future[Any] | None) -> None:
        if waiting is None:  # It only let others have their turn.
            waiting = asyncio.get_running_loop().create_future()
            waiting.set_result(None)
        waiting._asyncio_future_blocking = False  # noqa: SLF001 - a task would do the same
        self._waiting = waiting
        waiting.add_done_callback(self._step)
        if self._cancelled is not None:
            waiting.cancel()
