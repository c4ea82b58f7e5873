"""Writes to many sockets one right after the other, at the end of the turn of the loop in which they came about.

Whoever sleeps until something arrives has to be woken for it, which costs the one who sends more than the sending.
After the first piece of a burst they are awake. A turn with little to write has no use for that.

Owns the order of the pieces, and of what has to be done before they leave; `server` and `transport` have one each. What
it is given must be all that is written there in this turn, or come after a `flush`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

MOST: Final = 32
"""So many pieces are not kept waiting for more."""

FEW: Final = 4
"""Where a turn brings fewer pieces, the next `AT_ONCE` are written as they come: a burst of them gains nothing."""

AT_ONCE: Final = 32


class Burst:
    """Keeps pieces until the end of the loop's turn, as long as there are several in a turn.

    `before` is called before any of them leave; it must not raise.
    """

    __slots__ = ("_at_once", "_had_many", "_is_due", "_waiting", "before")

    def __init__(self) -> None:
        """Start with nothing to write."""
        self.before: Callable[[], object] = _nothing
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._at_once = 0
        self._is_due = self._had_many = False

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write all of `data` by the end of this turn; nothing to one who is gone."""
        if self._at_once:
            self._at_once -= 1
            transport.write(data)
            return
        waiting = self._waiting
        waiting.append((transport, data))
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        elif len(waiting) >= MOST:
            self._had_many = True
            self.flush()

    def is_gathering(self) -> bool:
        """Tell whether pieces are kept now; then `before` is called at the end of this turn, if not sooner."""
        if self._at_once:
            return False
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._end_turn)
        return True

    def flush(self) -> None:
        """Write now what is waiting."""
        self.before()
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for transport, data in waiting:
                if not transport.is_closing():
                    transport.write(data)

    def _end_turn(self) -> None:
        if len(self._waiting) < FEW and not self._had_many:
            self._at_once = AT_ONCE
        self._is_due = self._had_many = False
        self.flush()


def _nothing() -> None:
    """Do nothing."""
