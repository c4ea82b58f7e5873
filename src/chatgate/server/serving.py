"""Listen, sweep and drain: the life of the server around its connections. `app` builds a `Server` and starts it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Final

from chatgate.bursts import Burst
from chatgate.server.connection import Connection
from chatgate.server.limits import WireLimits
from chatgate.server.state import ServerState
from chatgate.vocabulary.exchange import Gate

SWEEP_SECONDS: Final = 0.25
"""How late a deadline may be noticed; one sweep over all connections is cheaper than a timer for each call."""

DRAIN_STEP_SECONDS: Final = 0.05
FAREWELL_SECONDS: Final = 1.0
"""How long a cancelled call may take to tell its caller that the server is going away."""

BACKLOG: Final = 2048
SEND_BUFFER_BYTES: Final = 128 << 10
"""What the kernel keeps for a connection (Linux doubles it). Left alone it takes megabytes: too much for a thousand
callers who do not read, and so much that one who reads slowly cannot be told from one who stopped."""


class Server:
    """Serves a gateway over HTTP/1.1."""

    def __init__(
        self,
        gate: Gate,
        limits: WireLimits = WireLimits(),  # noqa: B008 - frozen, so one may serve all
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        burst: Burst | None = None,
    ) -> None:
        """Prepare to serve `gate`. `clock` is monotonic, `wall_clock` counts from the epoch, both in seconds.

        All that callers are told leaves by `burst`, or after it: whoever has to do something before that may have it.
        """
        self._state = ServerState(gate, limits, clock, wall_clock, Burst() if burst is None else burst)
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._grace_ends_at = float("inf")

    @property
    def gate(self) -> Gate:
        """Return the gateway that new calls get; it may be replaced by another."""
        return self._state.gate

    @gate.setter
    def gate(self, gate: Gate) -> None:
        self._state.gate = gate
        self._state.known.clear()

    @property
    def connections(self) -> int:
        """Return how many connections are open."""
        return len(self._state.connections)

    @property
    def in_flight(self) -> int:
        """Return how many calls are being served, those included whose caller left before they were settled."""
        serving = sum(connection.calls for connection in self._state.connections)
        return serving + len(self._state.departed)

    @property
    def draining(self) -> bool:
        """Tell whether the server is on its way down."""
        return self._state.draining

    @property
    def max_connections(self) -> int:
        """Return how many connections are taken at most."""
        return self._state.max_connections

    async def start(self, host: str, port: int, *, reuse_port: bool = False) -> tuple[str, int]:
        """Listen, and return the address that was bound; port 0 takes a free one.

        `reuse_port` lets several processes share the port. Raises `OSError` when the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._state), host, port, backlog=BACKLOG, reuse_port=reuse_port or None
        )
        for listening in self._listener.sockets:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._sweeper = loop.call_later(SWEEP_SECONDS, self._keep_sweeping)
        bound = self._listener.sockets[0].getsockname()
        return bound[0], bound[1]

    def sweep(self) -> None:
        """Take the time, and end what has taken too long."""
        state = self._state
        state.tick()
        now = state.now
        for connection in [each for each in state.connections if each.deadline <= now]:
            connection.expire(now)

    async def drain(self, grace_seconds: float, *, listener_grace_seconds: float = 5.0) -> None:
        """Go down in good order; return when every connection is closed.

        From now on every answer closes its connection. The listener stays for `listener_grace_seconds`, so that load
        balancers can be told. Calls may go on for `grace_seconds`, both counted from now; then they are
        cancelled with the message "draining" and have a second to end their answers. A second call with less grace
        makes the first one hurry.
        """
        state = self._state
        state.draining = True
        now = state.clock()
        self._grace_ends_at = min(self._grace_ends_at, now + grace_seconds)
        self._close_idle()
        await self._wait_while(self._is_in_grace, until=now + listener_grace_seconds)
        if self._listener is not None:
            self._listener.close()
        self._close_idle()
        await self._wait_while(self._is_in_grace_and_busy)
        for connection in list(state.connections):
            connection.cancel("draining")
        await self._wait_while(self._is_busy, until=state.clock() + FAREWELL_SECONDS)
        for connection in list(state.connections):
            connection.abort()
        await self._wait_while(self._is_busy, until=state.clock() + FAREWELL_SECONDS)
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _keep_sweeping(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._keep_sweeping)
        self.sweep()

    def _close_idle(self) -> None:
        for connection in list(self._state.connections):
            connection.close_if_idle()

    def _is_busy(self) -> bool:
        return bool(self._state.connections or self._state.departed)

    def _is_in_grace(self) -> bool:
        return self._state.clock() < self._grace_ends_at

    def _is_in_grace_and_busy(self) -> bool:
        return self._is_in_grace() and self._is_busy()

    async def _wait_while(self, condition: Callable[[], bool], *, until: float = float("inf")) -> None:
        """Look again and again: the end depends on the clock that was passed in, which no timer of the loop knows."""
        while condition() and self._state.clock() < until:  # noqa: ASYNC110 - see above
            await asyncio.sleep(DRAIN_STEP_SECONDS)
