"""A provider of pictures and sound, which takes forms as they arrive; and the forms that clients send.

It owns one listening socket on 127.0.0.1, by `RawServer`. Every request is noted as it comes: its head at once, its
body by count and by hash, so that a large one costs no memory here. Journeys call it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from fakes.raw_server import Peer, RawServer

BOUNDARY = "form-boundary-7000"
FORM = ("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")

KEPT_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class Taken:
    """A request. `body` is as much of it as is kept, `size` and `digest` are those of all of it."""

    head: bytes
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    is_whole: bool = False
    has_left: bool = False
    digest: str = ""

    @property
    def target(self) -> str:
        """Return the target of the request line."""
        return self.head.split(b" ", 2)[1].decode()

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            if line.lower().startswith(name + ":"):
                return line.partition(":")[2].strip()
        return None


class MediaProvider:
    """The provider. `answers` are what the next calls get; `before` is what happens before a body is read."""

    def __init__(self) -> None:
        """Answer with a transcript, until told otherwise."""
        self.taken: list[Taken] = []
        self.answers: list[bytes] = []
        self.before: Callable[[Peer, Taken], Awaitable[bool]] | None = None
        self.server = RawServer(self._serve)

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.server.port}/v1"

    async def took(self, size: int, number: int = 1) -> Taken:
        """Return a request as soon as so much of its body is here."""
        async with asyncio.timeout(10):
            while len(self.taken) < number or self.taken[number - 1].size < size:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
        return self.taken[number - 1]

    async def _serve(self, peer: Peer) -> None:
        while True:
            try:
                head = await peer.reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            taken = Taken(head)
            self.taken.append(taken)
            try:
                if self.before is not None and await self.before(peer, taken):
                    return
                await _read_body(peer, taken)
            except (asyncio.IncompleteReadError, ConnectionError):
                taken.has_left = True
                return
            await peer.send(self.answers.pop(0))


async def _read_body(peer: Peer, taken: Taken) -> None:
    digest = hashlib.sha256()
    async for piece in _pieces(peer, taken):
        taken.size += len(piece)
        taken.body += piece[: max(KEPT_BYTES - len(taken.body), 0)]
        digest.update(piece)
    taken.digest = digest.hexdigest()
    taken.is_whole = True


async def _pieces(peer: Peer, taken: Taken) -> AsyncIterator[bytes]:
    if taken.header("transfer-encoding") == "chunked":
        while size := int(await peer.reader.readuntil(b"\r\n"), 16):
            yield (await peer.reader.readexactly(size + 2))[:-2]
        await peer.reader.readexactly(2)
        return
    left = int(taken.header("content-length") or 0)
    while left:
        piece = await peer.reader.read(min(left, 65536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    """Return a part of a form, with the delimiter before it."""
    more = "" if filename is None else f'; filename="{filename}"\r\nContent-Type: application/octet-stream'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
