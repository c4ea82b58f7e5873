"""Carries requests to upstreams: the `Sender` over real sockets.

Owns the order of things: an idle connection or a new one, the request, the head of the answer, and the one repetition
that HTTP allows without asking. Must not read bodies or choose targets. The pipeline sends, the application starts and
closes it.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from chatgate.bursts import Burst
from chatgate.transport.answer import FAILED, HEAD, HttpAnswer, StaleConnection
from chatgate.transport.connection import Connection
from chatgate.transport.dialling import Dialler
from chatgate.transport.pool import Pool
from chatgate.transport.upload import UploadConnection
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import OutboundRequest, UploadRequest

SWEEP_SECONDS = 0.1
"""How often deadlines are looked at: their precision."""

_CLOSE_ROUNDS = 100


class Transport:
    """The outbound HTTP client of one event loop."""

    def __init__(
        self,
        *,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        keep_idle_seconds: float = 60.0,
        max_idle_per_origin: int = 256,
    ) -> None:
        """Open nothing yet. `ssl_context` replaces the one that trusts what the operating system trusts."""
        self._clock = clock
        self._pool = Pool(clock, keep_idle_seconds, max_idle_per_origin)
        self._dialler = Dialler(ssl_context)
        self._timer: asyncio.TimerHandle | None = None
        self._burst = Burst()

    @property
    def open_connections(self) -> int:
        """Return how many connections are open, idle or not."""
        return self._pool.open_count

    @property
    def idle_connections(self) -> int:
        """Return how many connections wait for a request."""
        return self._pool.idle_count

    @property
    def calls_in_flight(self) -> int:
        """Return how many answers are under way."""
        return self._pool.busy_count

    async def send(self, request: OutboundRequest, may_repeat: Callable[[float], bool] | None = None) -> HttpAnswer:
        """Send the request and return once the head of the answer is there.

        A server may close an idle connection at the very moment that it is used again. When a connection from the pool
        ends before any byte of an answer, the request is therefore sent once more, on a new connection. That the server
        had read it and then died is possible but rare, and asking a model twice does no harm but its price. It is one
        more request all the same: `may_repeat` is asked first, and when it says no, the call fails with `upstream_cut`.
        """
        started_at = self._clock()
        connection = self._pool.take(request.origin, started_at)
        if connection is not None:
            answer = connection.ask(request, started_at, started_at)
            try:
                while answer.stage is HEAD:
                    await connection.news
                if answer.stage is FAILED:
                    answer.check_head()
            except StaleConnection as error:
                if may_repeat is not None and not may_repeat(self._clock()):
                    raise UpstreamError("upstream_cut") from error
            except asyncio.CancelledError:
                answer.close()
                raise
            else:
                return answer
        connection = await self._dial(request, started_at)
        answer = connection.ask(request, started_at, self._clock())
        try:
            while answer.stage is HEAD:
                await connection.news
        except asyncio.CancelledError:
            answer.close()
            raise
        answer.check_head()
        return answer

    async def upload(self, request: UploadRequest) -> HttpAnswer:
        """Send a request whose body is still arriving, on a connection of its own; otherwise as `send`.

        Raises what reading the body raises. An answer that comes before the end of the body ends the sending, unless it
        says success.
        """
        started_at = self._clock()
        connection = UploadConnection(request.origin, self._pool, self._clock, self._burst)
        await self._connect(connection, request, started_at)
        answer = connection.ask(request, started_at, self._clock())
        connection.begin(request, answer)
        try:
            while answer.stage is HEAD:
                await connection.news
        except asyncio.CancelledError:
            answer.close()
            raise
        if connection.error is not None:
            raise connection.error
        answer.check_head()
        connection.heard(answer)
        return answer

    def start(self) -> None:
        """Start the sweep on the running loop."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)

    async def close(self) -> None:
        """Stop the sweep and end every connection; an answer still under way fails with `upstream_cut`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pool.close()
        for _ in range(_CLOSE_ROUNDS):
            if not self._pool.open_count:
                return
            await asyncio.sleep(0)

    def sweep(self) -> None:
        """End the calls and the idle connections whose time has come; called by the timer, and by tests."""
        self._pool.sweep(self._clock())

    async def _dial(self, request: OutboundRequest, started_at: float) -> Connection:
        connection = Connection(request.origin, self._pool, self._clock, self._burst)
        await self._connect(connection, request, started_at)
        return connection

    async def _connect(self, connection: Connection, request: OutboundRequest, started_at: float) -> None:
        timeouts = request.timeouts
        left_seconds = started_at + timeouts.total_seconds - self._clock()
        dialling = self._dialler.connect(connection, min(timeouts.connect_seconds, left_seconds))
        try:
            # Its timers need a task, and a call is none.
            await asyncio.create_task(dialling)
        except BaseException:
            # A loop closes what it was connecting, but politely: TLS would wait for the peer's farewell.
            connection.abort()
            raise
        if self._pool.is_closed or connection.transport.is_closing():
            connection.abort()
            raise UpstreamError("upstream_unreachable")
        self._pool.opened(connection)

    def _tick(self) -> None:
        # The next round is planned first, so that an error in this one cannot be the last.
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)
        self.sweep()
