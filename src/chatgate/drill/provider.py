"""The provider of the drill: a listener on loopback for each upstream of the configuration, all with one log.

It owns the sockets and writes to them by hand, so that it can misframe. The log is the ground truth: every request that
arrived, for which upstream, with which key and model, and who ended it. What is done with a request is not decided here
but by the `Conduct` it is given. Started by `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Self, TypeAlias, cast

from msgspec import Struct

KEY: Final = "sk-drill-{upstream}-{number}"
"""The key that takes the place of an upstream's key with this number, counted from 1."""

_KEY: Final = re.compile(rb"sk-drill-\d+-(\d+)")
_CHAT: Final = "/chat/completions"
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, on, for no time: closing is a reset then (socket(7))."""

Script: TypeAlias = "Callable[[Exchange], Awaitable[None]]"
Conduct: TypeAlias = "Callable[[Attempt], Script]"


class Attempt(Struct):
    """One request as it arrived, and how it ended.

    `prefill` is the text of an assistant's message at the end, None when there is none. `did` is what the provider made
    of it, in a few words; `spoke` says that a word of the answer was among it. `ended` is "" while it runs, then
    `answered`, `left` (by the gateway) or `cut` (by the provider). Times are monotonic, in seconds.
    """

    upstream: str
    key_number: int
    model: str
    stream: bool
    usage: bool
    prefill: str | None
    arrived_at: float
    did: str = "answered"
    spoke: bool = False
    ended: str = ""
    ended_at: float = 0.0


class Exchange:
    """A script's hands on the connection that an attempt came on."""

    def __init__(self, attempt: Attempt, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        """Belong to an attempt; `writable` is set while the gateway reads."""
        self.attempt = attempt
        self._transport = transport
        self._writable = writable
        self.is_cut = False

    async def send(self, data: bytes, pause_seconds: float = 0.0) -> None:
        """Write at once, then let time pass: at least one turn of the loop, so that it leaves alone."""
        await self._writable.wait()
        self._transport.write(data)
        await asyncio.sleep(pause_seconds)

    async def hang(self) -> None:
        """Stay silent until the gateway leaves, which cancels the script."""
        await asyncio.Event().wait()

    def cut(self, *, reset: bool = False) -> None:
        """End the connection, with a FIN after what was written, or with a reset."""
        self.is_cut = True
        if reset:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        else:
            self._transport.close()


class Provider:
    """All upstreams of a configuration; listens while it is entered."""

    def __init__(self, upstreams: Sequence[str], conduct: Conduct) -> None:
        """Prepare a listener for each name."""
        self.attempts: list[Attempt] = []
        self.misframed: list[bytes] = []
        self.ports: dict[str, int] = {}
        self._names = upstreams
        self._conduct = conduct
        self._servers: dict[str, asyncio.Server] = {}
        self._connections: set[_Connection] = set()

    @property
    def running(self) -> list[Attempt]:
        """Return the attempts whose script is still at work."""
        return [attempt for attempt in self.attempts if not attempt.ended]

    async def __aenter__(self) -> Self:
        """Listen on free ports of 127.0.0.1."""
        loop = asyncio.get_running_loop()
        for name in self._names:
            server = await loop.create_server(partial(_Connection, self, name), "127.0.0.1", 0)
            self._servers[name] = server
            self.ports[name] = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop to listen, and end every connection and script."""
        for server in self._servers.values():
            server.close()
        tasks = [connection.close() for connection in list(self._connections)]
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)
        while self._connections:  # noqa: ASYNC110 - the transports tell nobody but the connections themselves
            await asyncio.sleep(0)

    def shut(self, upstream: str) -> None:
        """Let nobody connect to an upstream any more: its port answers with a refusal."""
        self._servers[upstream].close()

    def script_for(self, attempt: Attempt) -> Script:
        """Log an attempt and tell what is done with it."""
        self.attempts.append(attempt)
        return self._conduct(attempt)

    def joined(self, connection: _Connection) -> None:
        """Know a connection, so that it can be ended."""
        self._connections.add(connection)

    def lost(self, connection: _Connection) -> None:
        """Forget a connection that is no more."""
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """One connection of the gateway's; serves one request after the other."""

    def __init__(self, provider: Provider, upstream: str) -> None:
        self._provider = provider
        self._upstream = upstream
        self._buffer = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # What the server's loop makes is no subclass of it.
        self._provider.joined(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._serve_next()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, _error: Exception | None) -> None:
        self._provider.lost(self)
        self._transport = None
        if self._task is not None:
            self._task.cancel()

    def close(self) -> asyncio.Task[None] | None:
        """End the connection; return the script that was at work, which ends soon."""
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def _serve_next(self) -> None:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if self._task is not None or self._transport is None or end < 4:  # noqa: PLR2004 - find's -1, and the four
            return
        head = bytes(self._buffer[:end])
        length = _content_length(head)
        if length is None:
            self._provider.misframed.append(head)
            self._transport.abort()
            return
        if len(self._buffer) < end + length:
            return
        body = bytes(self._buffer[end : end + length])
        del self._buffer[: end + length]
        attempt = _attempt(self._upstream, head, body)
        if attempt is None:
            # Somebody lists the models: nothing of the drill depends on the answer.
            self._transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            self._serve_next()
            return
        exchange = Exchange(attempt, self._transport, self._writable)
        self._task = asyncio.get_running_loop().create_task(_play(self._provider.script_for(attempt), exchange))
        self._task.add_done_callback(lambda task: self._played(task, exchange))

    def _played(self, task: asyncio.Task[None], exchange: Exchange) -> None:
        attempt = exchange.attempt
        if exchange.is_cut:
            attempt.ended = "cut"
        elif task.cancelled() or isinstance(task.exception(), ConnectionError):
            attempt.ended = "left"
        else:
            attempt.ended = "answered"
            task.result()  # A script of ours that broke is a fault of ours: let it be heard.
        attempt.ended_at = time.monotonic()
        self._task = None
        self._serve_next()


async def _play(script: Script, exchange: Exchange) -> None:
    """Run a script in a coroutine of ours: a script may be any awaitable."""
    await script(exchange)


def _content_length(head: bytes) -> int | None:
    """Return the stated length, 0 when there is none; None when the request was framed in any other way."""
    lines = re.findall(rb"(?im)^content-length:\s*(\d+)\s*$", head)
    if re.search(rb"(?im)^transfer-encoding:", head) or len(lines) > 1:
        return None
    return int(lines[0]) if lines else 0


def _attempt(upstream: str, head: bytes, body: bytes) -> Attempt | None:
    """Return a call for a chat, None when the request is something else."""
    method, target = head.split(b" ", 2)[:2]
    if method != b"POST" or not target.decode("latin-1").endswith(_CHAT):
        return None
    asked: dict[str, object] = {}
    with contextlib.suppress(ValueError):
        asked = json.loads(body)
    key = _KEY.search(head)
    options = asked.get("stream_options")
    messages = asked.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else {}
    return Attempt(
        upstream=upstream,
        key_number=int(key[1]) if key else 1,
        model=str(asked.get("model")),
        stream=asked.get("stream") is True,
        usage=isinstance(options, dict) and options.get("include_usage") is True,
        prefill=str(last.get("content")) if last.get("role") == "assistant" else None,
        arrived_at=time.monotonic(),
    )
