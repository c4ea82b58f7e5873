"""The process of the owner: its connections, its clock and its end.

Owns the sockets and nothing of what is counted. Ends when it is told to and no worker is left, so that workers which go
down can settle to the last. `app` runs it in a process that the parent of the workers looks after like one of them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from chatgate.counters.channel import Channel
from chatgate.counters.owner import Owner
from chatgate.counters.wire import Order, Request, requests_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from chatgate.counters.doorway import Doorway
    from chatgate.counters.notes import Notes
    from chatgate.counters.owner import Member

TICK_SECONDS: Final = 1.0
STEP_SECONDS: Final = 0.05

LEFT_SECONDS: Final = 60.0
"""How long workers may outlive the order to end: longer than any drain."""


_now = functools.partial(datetime.now, UTC)


class Host:
    """Takes in whoever comes through the doorway."""

    def __init__(
        self,
        doorway: Doorway,
        notes: Notes,
        *,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_clock: Callable[[], datetime] = _now,
    ) -> None:
        """Count, going on with what is in the `notes`.

        `clock` is monotonic, in seconds, `clock_ns` the same in nanoseconds, `wall_clock` gives aware times.
        """
        self._doorway = doorway
        self.owner = Owner(clock, clock_ns, wall_clock, notes)
        self._channels: dict[Member, Channel[Order, Request]] = {}
        self._is_scheduled = False

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until `stopped` is set and no worker is left; `open` comes before."""
        try:
            while not stopped.is_set():
                self.tick()
                try:
                    async with asyncio.timeout(TICK_SECONDS):
                        await stopped.wait()
                except TimeoutError:
                    continue
            for _ in range(round(LEFT_SECONDS / STEP_SECONDS)):
                if not self._channels:
                    break
                await asyncio.sleep(STEP_SECONDS)
        finally:
            self.close()

    def open(self) -> None:
        """Take connections, on the running loop."""
        asyncio.get_running_loop().add_reader(self._doorway.owners, self._welcome)

    def close(self) -> None:
        """End all connections."""
        asyncio.get_running_loop().remove_reader(self._doorway.owners)
        for member in list(self._channels):
            self._end(member)

    def _welcome(self) -> None:
        for connected in self._doorway.accept():
            self._take_in(connected)
        self._schedule()

    def _take_in(self, connected: socket.socket) -> None:
        def say(order: Order) -> None:
            channel.send(order)

        def hear(requests: list[Request]) -> None:
            self.owner.hear(member, requests)
            self._schedule()

        def ended() -> None:
            self._end(member)

        channel: Channel[Order, Request] = Channel(connected, requests_of, hear, ended)
        member = self.owner.join(say)
        self._channels[member] = channel

    def _end(self, member: Member) -> None:
        self._channels.pop(member).close()
        self.owner.leave(member)
        self._schedule()

    def tick(self) -> None:
        """Do what is due by the clock."""
        # Whoever has waited for this process to go on was not silent.
        self._listen()
        for member in self.owner.tick():
            self._end(member)
        self._schedule()

    def _schedule(self) -> None:
        if self.owner.readings.is_due and not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._proceed)

    def _proceed(self) -> None:
        """Let a reading go on, once all has been heard that was said by now: who came, who ended, what was spent."""
        self._listen()
        self._is_scheduled = False
        self.owner.readings.proceed()

    def _listen(self) -> None:
        for connected in self._doorway.accept():
            self._take_in(connected)
        for channel in list(self._channels.values()):
            while channel.read():
                pass
