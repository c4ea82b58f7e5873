"""A real server on a real socket, in a thread of its own, so that tests may be callers in plain blocking code."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from chatgate.bursts import Burst
from chatgate.server import Server, WireLimits
from fakes.gate import FakeGate

T = TypeVar("T")

PATIENCE_SECONDS = 5.0


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Start anywhere."""
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


class RunningServer:
    """A server on 127.0.0.1, its gateway, and what callers do to it."""

    def __init__(self, limits: WireLimits, clock: Callable[[], float]) -> None:
        """Start it on a free port."""
        self.gate = FakeGate()
        self.burst = Burst()
        self.server = Server(self.gate, limits, clock=clock, burst=self.burst)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.address = self.run(self.server.start("127.0.0.1", 0))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run something where the server runs, and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(3 * PATIENCE_SECONDS)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Callable[[], T]:
        """Start something where the server runs; what is returned waits for its result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return lambda: future.result(3 * PATIENCE_SECONDS)

    def sweep(self) -> None:
        """Let the server look at the clock."""

        async def sweep() -> None:
            self.server.sweep()

        self.run(sweep())

    def connect(self, *, receive_buffer_bytes: int | None = None) -> socket.socket:
        """Open a connection that gives up after a while."""
        connection = socket.socket()
        if receive_buffer_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        connection.settimeout(PATIENCE_SECONDS)
        try:
            connection.connect(self.address)
        except OSError:
            connection.close()
            raise
        return connection

    def exchange(self, data: bytes) -> bytes:
        """Send bytes on a connection of their own; return everything up to its end. A reset counts as an end."""
        with self.connect() as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(data)
            return read_to_end(connection)

    def ask(self, path: str, body: bytes = b"", *, lines: bytes = b"", method: bytes = b"POST") -> tuple[int, bytes]:
        """Make one good request on a connection of its own; return status and body."""
        with self.connect() as connection:
            connection.sendall(request(path, body, lines=lines, method=method))
            response = answer(connection, method.decode())
            return response.status, response.read()

    def stop(self) -> None:
        """End the server and its thread."""
        self.run(self.server.drain(0, listener_grace_seconds=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self._loop.close()


def request(path: str, body: bytes = b"", *, lines: bytes = b"", method: bytes = b"POST") -> bytes:
    """Return a good request as bytes."""
    return b"%b %b HTTP/1.1\r\nHost: gate.test\r\n%bContent-Length: %d\r\n\r\n%b" % (
        method,
        path.encode(),
        lines,
        len(body),
        body,
    )


def answer(connection: socket.socket, method: str = "POST") -> http.client.HTTPResponse:
    """Read the next answer's head; its body is read from what is returned."""
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return response


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """Read up to and with some bytes, and as little more as the network gives."""
    data = b""
    while mark not in data:
        piece = connection.recv(65_536)
        assert piece, f"the connection ended after {data!r}"
        data += piece
    return data


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the other side has closed; a reset counts as an end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65_536):
            data += piece
    return data


def ends_in_reset(connection: socket.socket) -> bool:
    """Read to the end; tell whether that was a reset."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


def send_until_stuck(connection: socket.socket, piece: bytes, count: int) -> int:
    """Send a piece again and again; return how many were taken before the other side stopped, for whatever reason."""
    for number in range(count):
        try:
            connection.sendall(piece)
        except (TimeoutError, ConnectionError):
            return number
    return count


def eventually(condition: Callable[[], bool], within_seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait for something that another thread brings about."""
    give_up_at = time.monotonic() + within_seconds
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.005)
    return True
