"""The bare relay: what is left of a Python gateway when everything a gateway does is taken out of it.

Callbacks of asyncio on uvloop, httptools on both sides, one pool of upstream connections: no task, no routing, no
limits, no log, no deadlines, no hardening. It is the floor for the gateway under test, which is built from the same
parts; the distance to it is what the gateway's own work costs. Run as a program: `python relay.py PORT UPSTREAM_PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

HOST = "127.0.0.1"


class UpstreamConnection(asyncio.Protocol):
    """A connection to the upstream. It serves one caller at a time, and is idle between two of them."""

    def __init__(self, pool: Pool) -> None:
        """Belong to a pool."""
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._content_type = b""
        self.caller: CallerConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, body: bytes, caller: CallerConnection) -> None:
        """Send a call whose answer goes to `caller`."""
        self.caller = caller
        self.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._pool.head, len(body), body))

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note the one header that is passed on."""
        if name.lower() == b"content-type":
            self._content_type = value

    def on_headers_complete(self) -> None:
        """Pass on the status and the type."""
        if self.caller:
            self.caller.begin_answer(self._parser.get_status_code(), self._content_type)

    def on_body(self, body: bytes) -> None:
        """Pass on a piece."""
        if self.caller:
            self.caller.take_piece(body)

    def on_message_complete(self) -> None:
        """Be idle again, and end the answer."""
        caller, self.caller = self.caller, None
        self._parser = httptools.HttpResponseParser(self)
        self._pool.idle.append(self)
        if caller:
            caller.end_answer()

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the pool, or the caller without an answer."""
        del error
        if self in self._pool.idle:
            self._pool.idle.remove(self)
        if self.caller:
            self.caller.transport.abort()


class Pool:
    """The connections to the upstream that are idle; the one used last is used next."""

    def __init__(self, port: int) -> None:
        """Begin with an empty pool."""
        self.idle: list[UpstreamConnection] = []
        self.head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {HOST}:{port}\r\nAuthorization: Bearer sk-test-bench\r\n"
            "Content-Type: application/json\r\n"
        ).encode()
        self._port = port
        self._dialling: set[asyncio.Task[None]] = set()

    def send(self, body: bytes, caller: CallerConnection) -> None:
        """Send a call over a connection that is idle, else over a new one."""
        if self.idle:
            caller.upstream = self.idle.pop()
            caller.upstream.send(body, caller)
            return
        task = asyncio.get_running_loop().create_task(self._dial(body, caller))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, body: bytes, caller: CallerConnection) -> None:
        loop = asyncio.get_running_loop()
        _, caller.upstream = await loop.create_connection(lambda: UpstreamConnection(self), HOST, self._port)
        caller.upstream.send(body, caller)


class CallerConnection(asyncio.Protocol):
    """A caller's connection. Whole answers are gathered, streams passed on piece by piece."""

    def __init__(self, pool: Pool) -> None:
        """Belong to a pool."""
        self._pool = pool
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._streams = False
        self._head = b""
        self._answer = b""
        self.upstream: UpstreamConnection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Begin a call."""
        self._body = b""

    def on_body(self, body: bytes) -> None:
        """Gather the body."""
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        """Send the call on."""
        self._pool.send(self._body, self)

    def begin_answer(self, status: int, content_type: bytes) -> None:
        """Take the head of the answer."""
        self._streams = content_type.startswith(b"text/event-stream")
        self._head = b"HTTP/1.1 %d OK\r\nContent-Type: %b\r\n" % (status, content_type)
        self._answer = b""
        if self._streams:
            self.transport.write(self._head + b"Transfer-Encoding: chunked\r\n\r\n")

    def take_piece(self, piece: bytes) -> None:
        """Take a piece of its body."""
        if self._streams:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            self._answer = self._answer + piece if self._answer else piece

    def end_answer(self) -> None:
        """Take its end."""
        self.upstream = None
        if self._streams:
            self.transport.write(b"0\r\n\r\n")
        else:
            self.transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (self._head, len(self._answer), self._answer))

    def pause_writing(self) -> None:
        """Stop reading from the upstream while the caller does not read."""
        if self.upstream:
            self.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        if self.upstream:
            self.upstream.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Leave the upstream too."""
        del error
        if self.upstream:
            self.upstream.caller = None
            self.upstream.transport.abort()


async def serve(port: int, upstream_port: int) -> None:
    """Relay until the process is ended."""
    pool = Pool(upstream_port)
    server = await asyncio.get_running_loop().create_server(lambda: CallerConnection(pool), HOST, port, backlog=16384)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
