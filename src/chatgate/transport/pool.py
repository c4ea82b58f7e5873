"""Keeps idle connections, so that most calls need no dialling, and ends what takes too long.

Owns which connection a request gets, how long an idle one is kept, and the sweep over all of them: one look at each,
ten times a second, replaces a timer per call, which would cost several microseconds. Must not dial, send or wait: every
decision here is synchronous. Called by the transport (to take and to sweep) and by connections (to come back and to
leave).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.transport.connection import Connection
    from chatgate.vocabulary.upstreams import Origin

MAX_LIFETIME_SECONDS = 300.0
"""How long a connection is used at most, so that a changed DNS entry is noticed."""

MAX_REQUESTS = 1000
"""How many requests a connection carries at most."""


class Pool:
    """All open connections, and of these the idle ones per origin."""

    __slots__ = ("_clock", "_idle", "_keep_idle_seconds", "_max_idle_per_origin", "_open", "is_closed")

    def __init__(self, clock: Callable[[], float], keep_idle_seconds: float, max_idle_per_origin: int) -> None:
        """Start with none. `keep_idle_seconds` should stay below what the usual servers allow, which is 75."""
        self._clock = clock
        self._keep_idle_seconds = keep_idle_seconds
        self._max_idle_per_origin = max_idle_per_origin
        self._open: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self.is_closed = False

    @property
    def open_count(self) -> int:
        """Return how many connections are open, idle or not."""
        return len(self._open)

    @property
    def idle_count(self) -> int:
        """Return how many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    @property
    def busy_count(self) -> int:
        """Return how many connections have an answer under way."""
        return sum(connection.is_busy for connection in self._open)

    def take(self, origin: Origin, now: float) -> Connection | None:
        """Return the connection to this origin that was used last, or None; the others may then grow old and end."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.deadline > now and not connection.transport.is_closing():
                return connection
            connection.abort()
        return None

    def opened(self, connection: Connection) -> None:
        """Count a connection that is connected, before anything is sent on it."""
        connection.retires_at = self._clock() + MAX_LIFETIME_SECONDS
        self._open.add(connection)
        if connection.origin not in self._idle:
            self._idle[connection.origin] = []

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, or end it when it is worn out or one too many."""
        idle = self._idle[connection.origin]
        connection.served += 1
        if connection.served >= MAX_REQUESTS or len(idle) >= self._max_idle_per_origin:
            connection.abort()
        else:
            connection.deadline = self._clock() + self._keep_idle_seconds
            idle.append(connection)

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._open.discard(connection)
        idle = self._idle.get(connection.origin)
        if idle and connection in idle:
            idle.remove(connection)

    def sweep(self, now: float) -> None:
        """End the answers and the idle connections whose time has come, and forget origins without connections.

        A busy connection that is too old ends with its answer.
        """
        for connection in [each for each in self._open if each.deadline <= now or each.retires_at <= now]:
            if connection.retires_at <= now:
                connection.served = MAX_REQUESTS
            if not connection.is_busy:
                self._idle[connection.origin].remove(connection)
                connection.abort()
            elif connection.deadline <= now:
                connection.expire(now)
        if len(self._idle) > len(self._open):
            used = {connection.origin for connection in self._open}
            self._idle = {origin: idle for origin, idle in self._idle.items() if origin in used}

    def close(self) -> None:
        """End every connection, answers under way included."""
        self.is_closed = True
        self._idle.clear()
        for connection in list(self._open):
            connection.give_up("upstream_cut")
