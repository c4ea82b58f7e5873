"""Writes to many sockets one right after the other, at the end of the turn of the loop in which they came about.

Whoever sleeps until something arrives has to be woken for it, which costs the one who sends more than the sending.
After the first piece of a burst they are awake. Owns the order of the pieces and nothing else; `server` and `transport`
have one each. What it is given must be all that is written there in this turn, or come after a `flush`.
"""

from __future__ import annotations

import asyncio
from typing import Final

MOST: Final = 32
"""So many pieces are not kept waiting for more."""


class Burst:
    """Keeps pieces until the end of the loop's turn."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        """Start with nothing to write."""
        self._waiting: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write all of `data` at the end of this turn, or sooner when there is much; nothing to one who is gone."""
        waiting = self._waiting
        waiting.append((transport, data))
        if len(waiting) == 1:
            asyncio.get_running_loop().call_soon(self.flush)
        elif len(waiting) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Write now what is waiting."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for transport, data in waiting:
                if not transport.is_closing():
                    transport.write(data)
