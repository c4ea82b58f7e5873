"""A provider to put behind the gateway: OpenAI-compatible when left alone, and able to break every rule when told to.

It owns one listening socket on 127.0.0.1 and writes bytes to it by hand, so that it can misframe. What it does with a
call is a `Script` of `fakes.scripts`; a test queues scripts for the next calls (`queue`) or names one for a model
(`on_model`), and without either it answers like a provider. Its log is the ground truth about what the gateway really
did: every request byte for byte in the order of arrival (`calls`), every connection and which side ended it
(`connections`).

It must not know the gateway, and it never sleeps: whatever has to wait waits for the test (`Tap`) or for the gateway to
leave. Clients' and journeys' tests call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Self

from fakes import scripts
from fakes.scripts import Script


@dataclass(slots=True, eq=False)
class Call:
    """One request as it arrived, and how it ended.

    `ended` is "" while it runs, then `answered`, `gateway_left` (the gateway closed while the script was still at
    work), `cut` (the script closed) or `fault` (the script broke). Times are monotonic, in seconds.
    """

    connection: Connection
    head: bytes
    body: bytes
    arrived_at: float
    ended: str = ""
    ended_at: float = 0.0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def method(self) -> str:
        """Return the method of the request line."""
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        """Return the target of the request line."""
        return self.head.split(b" ", 2)[1].decode()

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Return the header lines in their order, names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [
            (name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)
        ]

    def header(self, name: str) -> str | None:
        """Return the only value of a header, None when it is absent; twice the same header is a failure."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


class Exchange:
    """A script's hands: what it can do to the connection that the call came on."""

    def __init__(self, call: Call, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        """Belong to one call; `writable` is set while the gateway reads."""
        self.call = call
        self._transport = transport
        self._writable = writable
        self.is_cut = False

    async def send(self, data: bytes) -> None:
        """Write the bytes at once, and let them leave before anything else is written."""
        self._transport.write(data)
        await asyncio.sleep(0)

    async def drained(self) -> None:
        """Return when the gateway has read most of what was written, as a program that minds its memory does."""
        await self._writable.wait()

    async def hang(self) -> None:
        """Stay silent until the gateway leaves: the script is cancelled then."""
        await asyncio.Event().wait()

    def cut(self, *, reset: bool = False) -> None:
        """End the connection now, with a FIN after what was written, or with an RST."""
        self.is_cut = True
        if reset:
            linger_nothing = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_nothing)
            self._transport.abort()
        else:
            self._transport.close()


class Tap:
    """Lets a test decide when the next piece of a stream may leave."""

    def __init__(self, pieces: int = 0) -> None:
        """Let that many pieces pass at once."""
        self._allowed = asyncio.Semaphore(pieces)

    def let(self, pieces: int = 1) -> None:
        """Let that many more pieces pass."""
        for _ in range(pieces):
            self._allowed.release()

    async def passed(self) -> None:
        """Return when the next piece may leave."""
        await self._allowed.acquire()


class Connection(asyncio.Protocol):
    """One connection of the gateway's; serves one request after the other."""

    def __init__(self, upstream: FakeUpstream) -> None:
        """Belong to an upstream, which chooses the scripts."""
        self._upstream = upstream
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self.calls: list[Call] = []
        self.is_open = False
        self.closed_by = ""
        self.closed_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Join the upstream's log."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True
        self._upstream.connections.append(self)

    def data_received(self, data: bytes) -> None:
        """Collect requests; they are served one at a time."""
        self._buffer += data
        self._serve_next()

    def pause_writing(self) -> None:
        """Note that the gateway does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that the gateway reads again."""
        self._writable.set()

    def eof_received(self) -> None:
        """Note that the gateway ended it; the transport closes itself."""
        self._ended_by("gateway")

    def connection_lost(self, _error: Exception | None) -> None:
        """Note the end, and stop the script at work."""
        self._ended_by("gateway")
        self.is_open = False
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """End the connection from this side."""
        self._ended_by("upstream")
        if self._transport is not None:
            self._transport.abort()

    def _ended_by(self, side: str) -> None:
        if not self.closed_by:
            self.closed_by = side
            self.closed_at = time.monotonic()

    def _serve_next(self) -> None:
        if self._task is not None or not self.is_open:
            return
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = bytes(self._buffer[:end])
        try:
            length = _content_length(head)
        except ValueError as error:
            self._upstream.faults.append(error)
            self.close()
            return
        if len(self._buffer) < end + length:
            return
        call = Call(self, head, bytes(self._buffer[end : end + length]), time.monotonic())
        del self._buffer[: end + length]
        self.calls.append(call)
        self._upstream.calls.append(call)
        assert self._transport is not None
        exchange = Exchange(call, self._transport, self._writable)
        self._task = asyncio.get_running_loop().create_task(_play(self._upstream.script_for(call), exchange))
        self._task.add_done_callback(lambda task: self._played(task, exchange))

    def _played(self, task: asyncio.Task[None], exchange: Exchange) -> None:
        call = exchange.call
        if task.cancelled():
            call.ended = "gateway_left"
        elif (error := task.exception()) is not None:
            call.ended = "fault"
            self._upstream.faults.append(error)
            self.close()
        else:
            call.ended = "cut" if exchange.is_cut else "answered"
        if exchange.is_cut:
            self._ended_by("upstream")
        call.ended_at = time.monotonic()
        call.over.set()
        self._task = None
        self._serve_next()


class FakeUpstream:
    """The provider; an async context manager that listens while it is entered."""

    def __init__(self, api_key: str = "") -> None:
        """Accept every key, or only `api_key` when it is given."""
        self.api_key = api_key
        self.calls: list[Call] = []
        self.connections: list[Connection] = []
        self.faults: list[BaseException] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._next: deque[Script] = deque()
        self._by_model: dict[str, deque[Script]] = {}
        self._by_key: dict[str, Script] = {}

    @property
    def base_url(self) -> str:
        """Return what an operator would configure."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        """Return how many connections the gateway holds now."""
        return sum(connection.is_open for connection in self.connections)

    @property
    def open_calls(self) -> list[Call]:
        """Return the calls whose script is still at work."""
        return [call for call in self.calls if not call.ended]

    async def __aenter__(self) -> Self:
        """Start to listen on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop to listen and end every connection; a script that broke, or a request that was misframed, fails here."""
        assert self._server is not None
        self._server.close()
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)
        await asyncio.gather(*(call.over.wait() for call in self.open_calls))
        assert not self.faults, self.faults

    def queue(self, *next_ones: Script) -> None:
        """Serve the next calls with these, whatever they ask."""
        self._next.extend(next_ones)

    def on_model(self, model: str, *in_turn: Script) -> None:
        """Serve the calls for a model with these in turn, and every further one with the last of them."""
        self._by_model[model] = deque(in_turn)

    def on_key(self, api_key: str, script: Script) -> None:
        """Serve every call that shows a key with this."""
        self._by_key[api_key] = script

    def calls_of(self, model: str) -> list[Call]:
        """Return the calls for a model, in the order of their arrival."""
        return [call for call in self.calls if call.json().get("model") == model]

    def forget(self) -> None:
        """Empty the log and drop all scripts; connections that are open stay open and known."""
        self.calls.clear()
        self._next.clear()
        self._by_model.clear()
        self._by_key.clear()
        self.connections = [connection for connection in self.connections if connection.is_open]

    def script_for(self, call: Call) -> Script:
        """Choose: the key's, the queue, then the model's, then the provider's own manners."""
        shown = (call.header("authorization") or "").removeprefix("Bearer ")
        if self.api_key and shown != self.api_key:
            return scripts.refuse_key
        if shown in self._by_key:
            return self._by_key[shown]
        if self._next:
            return self._next.popleft()
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            in_turn = self._by_model[call.json()["model"]]
            return in_turn.popleft() if len(in_turn) > 1 else in_turn[0]
        return scripts.provider

    async def called(self, times: int = 1) -> Call:
        """Return the newest call as soon as that many have arrived."""
        deadline = time.monotonic() + 20
        while len(self.calls) < times:
            assert time.monotonic() < deadline, f"{len(self.calls)} of {times} calls arrived"
            await asyncio.sleep(0.005)
        return self.calls[-1]

    async def last_call(self) -> Call:
        """Return the newest call once it is over, so that its log is complete."""
        call = self.calls[-1]
        await asyncio.wait_for(call.over.wait(), 5)
        return call


def _content_length(head: bytes) -> int:
    """Return the stated length. Raises ValueError when the gateway framed its request in any other way."""
    lines = [
        line.partition(b":")[2].strip() for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    if b"transfer-encoding:" in head.lower() or len(lines) > 1:
        raise ValueError(f"the gateway framed a request badly: {head!r}")
    return int(lines[0]) if lines else 0


async def _play(script: Script, exchange: Exchange) -> None:
    """Run a script in a coroutine of ours: a script may be any awaitable."""
    await script(exchange)
