"""Runs a call's coroutine without a task.

A task begins at the next turn of the loop and goes on at a later one than the news it waits for; a run begins at once,
and goes on inside whatever wakes it. That spares each call two turns of the loop and the task itself. What needs a task
(`asyncio.timeout` and the like) must make one and await it.

Made by a connection for each call, which is told when it is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Struct


class Run(Struct, eq=False):
    """One coroutine on its way; `end` is called with it once it is over, and with the error it ended by, if any."""

    _coroutine: Coroutine[Any, None, None]
    _end: Callable[[Run, BaseException | None], object]
    _waiting: asyncio.Future[Any] | None = None
    _cancelled: asyncio.CancelledError | None = None
    is_over: bool = False

    def step(self, _: object = None) -> None:
        """Begin, or go on: run until it has to wait for something, or to its end (called by what it waited for)."""
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
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary: whoever made the run judges
            self.is_over = True
            self._end(self, error)
            return
        if waiting is None:  # It only let others have their turn.
            waiting = asyncio.get_running_loop().create_future()
            waiting.set_result(None)
        waiting._asyncio_future_blocking = False  # noqa: SLF001 - a task would do the same
        self._waiting = waiting
        waiting.add_done_callback(self.step)
        if self._cancelled is not None:
            waiting.cancel()

    def cancel(self, message: str) -> None:
        """Raise `CancelledError` where it waits, or where it will wait next."""
        if self.is_over:
            return
        self._cancelled = asyncio.CancelledError(message)
        if self._waiting is not None:
            self._waiting.cancel()
