"""What becomes of an answer whose caller has left: it is ended, or read to its end for the sake of its count.

Owns how many answers are read on for nobody, and for how long. The pipeline asks it when a caller leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Leaving:
    """Reads on for those who left, within bounds. `draining` counts the answers that are read on now."""

    def __init__(self) -> None:
        """Start with it switched off."""
        self.drains = False
        self._seconds = 0.0
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def set_bounds(self, *, drains: bool, seconds: float, calls: int) -> None:
        """`drains` switches it on: each answer for at most `seconds`, at most `calls` of them at once."""
        self.drains = drains
        self._seconds = seconds
        self._calls = calls

    @property
    def draining(self) -> int:
        """Return how many answers are read on now."""
        return len(self._tasks)

    def take(self, reading: Callable[[], Coroutine[None, None, None]], settle: Callable[[], None]) -> bool:
        """Read on, and settle when that has ended in whatever way; False when there is no room for it."""
        if not self.drains or len(self._tasks) >= self._calls:
            return False
        task = asyncio.get_running_loop().create_task(self._read_on(reading))
        self._tasks.add(task)

        def on_end(ended: asyncio.Task[None]) -> None:
            self._tasks.discard(ended)
            settle()

        task.add_done_callback(on_end)
        return True

    async def close(self) -> None:
        """End all of it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_on(self, reading: Callable[[], Coroutine[None, None, None]]) -> None:
        # Whatever ends it, what was counted until then is what there is.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(self._seconds):
                await reading()
