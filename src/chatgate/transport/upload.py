"""One socket to an upstream for a request whose body is still arriving: it is sent at the pace of the slower side.

Owns the sending: framing, waiting for an upstream that reads slowly, and the deadline meanwhile. A body that cannot be
sent to its end ends the connection, so that no upstream takes a part for the whole. Made by the transport for each such
request; a task of its own sends, which is affordable for what brings files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from math import inf
from typing import TYPE_CHECKING

from chatgate.bursts import Burst
from chatgate.transport.answer import HEAD, HttpAnswer
from chatgate.transport.connection import Connection
from chatgate.vocabulary.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.transport.connection import Keeper
    from chatgate.vocabulary.exchange import Pieces, UploadRequest
    from chatgate.vocabulary.upstreams import Origin

_LAST_CHUNK = b"0\r\n\r\n"
_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n\r\n"
_FIRST_REFUSAL = 300
_LAST_WORDS_BYTES = 64 << 10


class UploadConnection(Connection):
    """A connection that sends a body piece by piece. `error` is why there is no end of it, None when there is one."""

    __slots__ = ("_is_sent", "_sending", "_writable", "error")

    def __init__(self, origin: Origin, keeper: Keeper, clock: Callable[[], float], burst: Burst) -> None:
        """Wait to be connected; must be made inside the running loop."""
        super().__init__(origin, keeper, clock, burst)
        self.error: GateError | None = None
        self._is_sent = False
        self._sending: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def begin(self, request: UploadRequest, answer: HttpAnswer) -> None:
        """Send the body of the request that was just asked."""
        assert request.pieces is not None  # noqa: S101 - narrows for the type checker; that is what makes it an upload
        sending = self._send(request.pieces, answer, request)
        self._sending = asyncio.get_running_loop().create_task(sending)

    def heard(self, answer: HttpAnswer) -> None:
        """Take note of the head of the answer: after a refusal nobody wants the rest of the body."""
        if answer.status >= _FIRST_REFUSAL:
            self._stop()

    def pause_writing(self) -> None:
        """Wait for an upstream that reads slowly (called by the transport)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Go on (called by the transport)."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Send no more, and hear what the upstream said before it left."""
        self._stop()
        if isinstance(exc, ConnectionError) and self._answer is not None:
            self._hear_last_words()
        super().connection_lost(exc)

    def _hear_last_words(self) -> None:
        """Read what has arrived and was not read.

        A server that refuses a body it has not read to its end mostly answers and closes, which resets the connection.
        Whoever is just writing then learns of the reset before the answer, though that is there.
        """
        transport = self.transport
        if transport.get_extra_info("sslcontext") is not None:
            return
        with contextlib.suppress(OSError):
            if data := os.read(transport.get_extra_info("socket").fileno(), _LAST_WORDS_BYTES):
                self.data_received(data)

    def _feed(self, answer: HttpAnswer, data: bytes) -> bool:
        is_whole = super()._feed(answer, data)
        if is_whole:
            self._may_keep = self._may_keep and self._is_sent
            self._stop()
        return is_whole

    async def _send(self, pieces: Pieces, answer: HttpAnswer, request: UploadRequest) -> None:
        timeouts, is_chunked = request.timeouts, request.head.endswith(_CHUNKED)
        try:
            while True:
                if answer.stage is HEAD:
                    answer.wait(inf)  # The caller may be slow; that is not the upstream's doing.
                piece = await pieces.next_piece()
                if not piece:
                    break
                if answer.stage is HEAD:
                    answer.wait(timeouts.idle_seconds)
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
                await self._writable.wait()
                await asyncio.sleep(0)  # What the upstream says is heard before it is sent more.
        except GateError as error:
            self.error, self._sending = error, None
            self.give_up("upstream_cut")
            return
        except Exception:
            self._sending = None
            self.give_up("upstream_cut")
            raise
        if is_chunked:
            self._write(_LAST_CHUNK)
        self._is_sent = True
        if answer.stage is HEAD:
            answer.wait(timeouts.first_token_seconds)

    def _write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def _stop(self) -> None:
        sending = self._sending
        if sending is not None and not sending.done():
            self._sending = None
            sending.cancel()
