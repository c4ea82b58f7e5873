"""The database for an event loop, which never waits for a disk or a server.

Owns the threads that do the waiting: one that writes and a few that read, so that a long report holds up neither the
look-up of a key nor the ledger. The composition root makes one `DatabaseThreads` per process and passes it to whoever
stores.

A database that is frozen answers nobody and fails nobody, so time is what ends the waiting for it: the caller is told
`SLOW`, the thread goes on waiting, and so many that wait make the next be told at once. When the database comes back,
so do the threads.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from chatgate.storage.errors import Reason, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from chatgate.storage.database import Database

Asked = ParamSpec("Asked")
Result = TypeVar("Result")

_READERS = 2
_MAX_WAITING = 256


class DatabaseThreads:
    """Reads and writes as coroutines; see `Database` for what `work` may do and what is raised."""

    def __init__(
        self,
        database: Database,
        *,
        read_seconds: float = 3.0,
        write_seconds: float = 15.0,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        """Start the threads. `read_seconds` and `write_seconds` are how long a caller waits for its work."""
        self._database = database
        self._reading = _Lane("chatgate-read", _READERS, max_waiting, read_seconds)
        self._writing = _Lane("chatgate-write", 1, max_waiting, write_seconds)

    async def read(
        self, work: Callable[Concatenate[Connection, Asked], Result], *args: Asked.args, **kwargs: Asked.kwargs
    ) -> Result:
        """Do work that only reads."""
        return await self._reading.do(lambda: self._database.read(work, *args, **kwargs))

    async def write(
        self, work: Callable[Concatenate[Connection, Asked], Result], *args: Asked.args, **kwargs: Asked.kwargs
    ) -> Result:
        """Do work in a transaction, in the order asked for.

        When this is cancelled or told `SLOW`, work that has not begun is never done, and work that has begun is
        finished: what must not be done twice has to be told apart by its own ids.
        """
        return await self._writing.do(lambda: self._database.write(work, *args, **kwargs))

    async def close(self, patience_seconds: float = 5.0) -> bool:
        """Finish what was asked for, stop the threads and close the database.

        Returns False when the database did not let us within the time; then it is left to the end of the process.
        """
        stopped = [*self._reading.stop(), *self._writing.stop()]
        _, late = await asyncio.wait([asyncio.wrap_future(each) for each in stopped], timeout=patience_seconds)
        if late:
            return False
        self._database.close()
        return True


class _Lane:
    """Threads that take work from one queue."""

    def __init__(self, name: str, threads: int, max_waiting: int, patience_seconds: float) -> None:
        """Start them. They are daemons: one that waits for a frozen server must not keep the process from ending."""
        self._patience_seconds = patience_seconds
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._stopped = [Future[None]() for _ in range(threads)]
        self._open = True
        for stopped in self._stopped:
            threading.Thread(target=self._work, args=(stopped,), name=name, daemon=True).start()

    async def do(self, work: Callable[[], Result]) -> Result:
        """Have work done by a thread; raises `StorageUnavailable` (`SLOW`) when it takes too long, or already does."""
        if not self._open or self._queue.qsize() >= self._max_waiting:
            raise StorageUnavailable(Reason.SLOW, "too many are waiting" if self._open else "closed")
        outcome: Future[Result] = Future()

        def fulfil() -> None:
            if not outcome.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
                outcome.set_exception(error)
            else:
                outcome.set_result(result)

        self._queue.put(fulfil)
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await asyncio.wrap_future(outcome)
        except TimeoutError:
            raise StorageUnavailable(Reason.SLOW, "no answer in time") from None

    def stop(self) -> list[Future[None]]:
        """Take no more work; returns what is done when each thread has ended."""
        if self._open:
            self._open = False
            for _ in self._stopped:
                self._queue.put(None)
        return self._stopped

    def _work(self, stopped: Future[None]) -> None:
        """Do what is asked for until told to stop."""
        while (fulfil := self._queue.get()) is not None:
            fulfil()
            # Nothing of it is kept while waiting for the next.
            del fulfil
        stopped.set_result(None)
