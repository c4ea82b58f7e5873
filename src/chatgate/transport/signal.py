"""Wakes one reader at the moment that there is news, without a turn of the loop in between.

Owns who waits. A future schedules its callbacks and is used up; this calls its one waiter at once, and may be awaited
again and again. It is what asyncio calls a future-like object, so a task may await it as well: a task is woken by the
loop, because one task must not run inside another. Connections make and fire it, answers await it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Generator

    Waiter = Callable[["Signal"], object]


class Signal:
    """What one reader awaits; the names of the methods are those of `asyncio.Future`."""

    __slots__ = ("_asyncio_future_blocking", "_is_cancelled", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start with nobody waiting."""
        self._loop = loop
        self._waiter: Waiter | None = None
        self._is_cancelled = False
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it is fired."""
        self._asyncio_future_blocking = True
        yield self

    def fire(self) -> None:
        """Let whoever waits look again; nothing happens when nobody does."""
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter(self)

    def add_done_callback(self, waiter: Waiter, *, context: contextvars.Context | None = None) -> None:
        """Note who waits; a task names its context, and is woken by the loop."""
        if context is not None:
            self._is_cancelled = False  # Only tasks ask for it.
            waiter = partial(self._loop.call_soon, waiter, context=context)  # type: ignore[arg-type]  # it is called with the signal
        self._waiter = waiter

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002 - the waiter knows why it was cancelled
        """Wake the waiter to be cancelled; False when nobody waits."""
        if self._waiter is None:
            return False
        self._is_cancelled = True
        self.fire()
        return True

    def result(self) -> None:
        """Raise `CancelledError` when the waiting was cancelled."""
        if self._is_cancelled:
            raise asyncio.CancelledError

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop whose tasks may wait."""
        return self._loop
