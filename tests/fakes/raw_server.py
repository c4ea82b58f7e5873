"""A TCP server that says exactly the bytes it is told to, so that it can break every rule of HTTP.

Owns one listening socket on 127.0.0.1. A *script* is a coroutine that plays the server's part on one connection, with
a `Peer` to read requests from and write bytes to. It must not know who calls. The transport's tests use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Self

Script = Callable[["Peer"], Awaitable[None]]


def answer(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    """Render a whole answer with a length."""
    lines = [b"HTTP/1.1 " + status, *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as the condition holds; raise `TimeoutError` when it does not within two seconds."""
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel and tells nobody
            await asyncio.sleep(0.002)


class Peer:
    """The server's side of one connection."""

    def __init__(self, server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep both directions."""
        self.server = server
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Return the next request, head and body, or b"" when the client has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        request = head + await self.reader.readexactly(length)
        self.server.requests.append(request)
        return request

    async def send(self, data: bytes) -> None:
        """Write bytes and wait while the client does not read."""
        self.writer.write(data)
        await self.writer.drain()

    async def client_left(self) -> None:
        """Return when the client has closed its side."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class RawServer:
    """Plays a script on every connection, and knows how many are open."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        """Play `script` once the server is entered."""
        self.script = script
        self.port = 0
        self.accepted = 0
        self.requests: list[bytes] = []
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def open_count(self) -> int:
        """Return on how many connections the script is still at work."""
        return len(self._tasks)

    async def open_count_becomes(self, count: int) -> bool:
        """Tell whether so many connections are open, within two seconds."""
        with contextlib.suppress(TimeoutError):
            await until(lambda: self.open_count == count)
        return self.open_count == count

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None:
            return
        self._tasks.add(task)
        try:
            await self.script(Peer(self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client left in the middle, or the test is over: both end the script.
            pass
        finally:
            self._tasks.discard(task)
            if writer.can_write_eof() and not writer.is_closing():
                writer.close()
            elif not writer.is_closing():
                writer.transport.abort()


def answering(*answers: bytes) -> Script:
    """Return a script that gives these answers in turn, the last one again and again, until the client closes."""

    async def script(peer: Peer) -> None:
        turn = 0
        while await peer.request():
            await peer.send(answers[min(turn, len(answers) - 1)])
            turn += 1

    return script


def saying(data: bytes) -> Script:
    """Return a script that says these bytes to the first request and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)

    return script


def silent_after(data: bytes) -> Script:
    """Return a script that says these bytes to the first request, and then nothing until the client closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(data)
        await peer.client_left()

    return script
