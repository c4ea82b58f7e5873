"""A raw HTTP/1.1 client for tests: it sends exactly what it is told and hands over what came, as it came.

It owns one connection per call of `open_stream` or `request`, or as many requests on a `Connection` as a test likes. It
must not be lenient: an answer that ends before its own framing says so raises `Truncated`, so that no test mistakes
half an answer for a whole one. Tests of clients and journeys call it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

TIMEOUT_SECONDS = 15.0
"""A bound on every wait, so that a gateway that hangs fails its test instead of stopping the run."""

Headers: TypeAlias = Iterable[tuple[str, str]]


class Truncated(Exception):  # noqa: N818 - the situation's name says more than an Error
    """The connection ended inside an answer; `so_far` holds the part of its body that came."""

    def __init__(self, so_far: bytes) -> None:
        """Keep what came."""
        super().__init__(f"the connection ended after {len(so_far)} bytes of the body")
        self.so_far = so_far


@dataclass(slots=True)
class Head:
    """The head of an answer: status, and the header lines in their order with names in lower case."""

    status: int
    headers: list[tuple[str, str]]
    raw: bytes

    def header(self, name: str) -> str | None:
        """Return the only value of a header, None when it is absent; twice the same header is a failure."""
        values = [value for each, value in self.headers if each == name]
        assert len(values) <= 1, f"{name} came {len(values)} times"
        return values[0] if values else None


@dataclass(slots=True)
class Response(Head):
    """A whole answer."""

    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    def events(self) -> list[bytes]:
        """Return the data of each event of a stream, comments left out."""
        return events_of(self.body)


class Connection:
    """A connection to the gateway; an async context manager that aborts it at its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use a connected pair; see `connect`."""
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Self:
        """Use it."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Leave at once, whatever is under way."""
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        """Write raw bytes."""
        self.writer.write(data)

    async def read_head(self) -> Head:
        """Return the next head."""
        data = await self._bounded(self.reader.readuntil(b"\r\n\r\n"))
        status_line, *lines = data.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = [(name.strip().lower(), value.strip()) for name, _, value in pairs]
        return Head(int(status_line.split(" ")[1]), headers, data)

    async def pieces(self, head: Head) -> AsyncIterator[bytes]:
        """Yield the body of the answer as it arrives: a chunk each, or one piece when its length is known.

        Raises `Truncated`, with only the piece at hand, when the connection ends inside the body.
        """
        if head.header("transfer-encoding") == "chunked":
            while True:
                try:
                    size = int(await self._bounded(self.reader.readuntil(b"\r\n")), 16)
                    data = await self._bounded(self.reader.readexactly(size + 2))
                except asyncio.IncompleteReadError as error:
                    raise Truncated(error.partial) from error
                if size == 0:
                    return
                yield data[:-2]
        elif (length := head.header("content-length")) is not None:
            try:
                yield await self._bounded(self.reader.readexactly(int(length)))
            except asyncio.IncompleteReadError as error:
                raise Truncated(error.partial) from error
        elif head.status >= 200 and head.status not in {204, 304}:
            yield await self._bounded(self.reader.read())

    async def read_response(self, *, bodiless: bool = False) -> Response:
        """Return the next whole answer; `bodiless` for answers to HEAD."""
        head = await self.read_head()
        body = b""
        if not bodiless:
            try:
                async for piece in self.pieces(head):
                    body += piece
            except Truncated as error:
                raise Truncated(body + error.so_far) from error
        return Response(head.status, head.headers, head.raw, body)

    async def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        """Send a request and return the whole answer."""
        self.send(request_bytes(method, path, headers, body))
        return await self.read_response(bodiless=method == "HEAD")

    @staticmethod
    async def _bounded(awaitable: Any) -> Any:
        return await asyncio.wait_for(awaitable, TIMEOUT_SECONDS)


class Stream:
    """An answer under way: its head is there, its pieces come one by one."""

    def __init__(self, connection: Connection, head: Head) -> None:
        """Read on from the head."""
        self._connection = connection
        self.head = head
        self._pieces = connection.pieces(head)
        self.so_far = b""

    async def next_piece(self) -> bytes:
        """Return the next piece as it arrives, b"" at the regular end."""
        piece = await anext(self._pieces, b"")
        self.so_far += piece
        return piece

    async def until(self, text: bytes) -> None:
        """Read until `text` was among what came so far."""
        while text not in self.so_far:
            assert await self.next_piece(), f"the stream ended without {text!r}: {self.so_far!r}"

    async def rest(self) -> bytes:
        """Read to the regular end and return the whole body; raises `Truncated` with all that came."""
        try:
            while await self.next_piece():
                pass
        except Truncated as error:
            raise Truncated(self.so_far + error.so_far) from error
        return self.so_far

    def leave(self) -> None:
        """Go away in the middle."""
        self._connection.writer.transport.abort()


async def connect(port: int, source: str = "127.0.0.1") -> Connection:
    """Connect to 127.0.0.1; `source` is the address to come from, any of 127.0.0.0/8."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), limit=1 << 22)
    return Connection(reader, writer)


async def request(
    port: int,
    method: str,
    path: str,
    headers: Headers = (),
    body: bytes = b"",
    *,
    source: str = "127.0.0.1",
) -> Response:
    """Make one request on a connection of its own."""
    async with await connect(port, source) as connection:
        return await connection.request(method, path, headers, body)


async def post_json(port: int, path: str, value: Any, headers: Headers = (), *, source: str = "127.0.0.1") -> Response:
    """Post a JSON value on a connection of its own."""
    return await request(port, "POST", path, [JSON, *headers], json.dumps(value).encode(), source=source)


@contextlib.asynccontextmanager
async def open_stream(port: int, path: str, value: Any, headers: Headers = ()) -> AsyncIterator[Stream]:
    """Post a JSON value and hand over the answer once its head is there; leaves at the end of the block."""
    async with await connect(port) as connection:
        connection.send(request_bytes("POST", path, [JSON, *headers], json.dumps(value).encode()))
        yield Stream(connection, await connection.read_head())


JSON = ("Content-Type", "application/json")


def request_bytes(method: str, path: str, headers: Headers, body: bytes) -> bytes:
    """Return a request; Host and Content-Length are added when they are not given."""
    lines = list(headers)
    names = {name.lower() for name, _ in lines}
    if "host" not in names:
        lines.insert(0, ("Host", "127.0.0.1"))
    if "content-length" not in names and (body or method in {"POST", "PUT", "PATCH"}):
        lines.append(("Content-Length", str(len(body))))
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"{method} {path} HTTP/1.1\r\n{text}\r\n".encode("latin-1") + body


def events_of(body: bytes) -> list[bytes]:
    """Return the data of each complete event of a stream, comments left out."""
    found = []
    for block in body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n"):
        lines = [
            line.removeprefix(b"data:").removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")
        ]
        if lines:
            found.append(b"\n".join(lines))
    return found


def bearer(key: str) -> tuple[str, str]:
    """Return the header that shows a key."""
    return ("Authorization", f"Bearer {key}")


def chat(text: str, model: str = "gpt-fake-small", **more: Any) -> Mapping[str, Any]:
    """Return the body of an OpenAI chat call."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}
