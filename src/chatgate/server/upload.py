"""Bodies on their way in: how long they may take, and those that are handed on while they arrive.

`ArrivingBody` is the `Upload` of one request: what has come and was not taken yet. `Taking` is the part of a connection
that waits for bodies, and makes a caller wait whose body is read slowly. `connection` builds on both.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from chatgate.server.answer import Answering, Phase
from chatgate.server.writing import INFINITY
from chatgate.vocabulary.errors import CallerError, GateError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.server.body import Body
    from chatgate.server.state import ServerState
    from chatgate.vocabulary.exchange import Identified

UNTAKEN_BYTES: Final = 128 << 10
"""More than this that nobody has taken stops the reading."""


class ArrivingBody:
    """The body of one request, for one reader. `is_held` tells whether the caller is made to wait."""

    __slots__ = ("_body", "_error", "_hold", "_is_complete", "_pieces", "_waiting", "is_held", "length_bytes")

    def __init__(self, body: Body, length_bytes: int | None, hold: Callable[[bool], None]) -> None:
        """`hold` is called with True when no more should be read for now, and with False after that."""
        self._body = body
        self._hold = hold
        self._pieces: list[bytes] = []
        self._waiting: asyncio.Future[None] | None = None
        self._error: GateError | None = None
        self._is_complete = False
        self.is_held = False
        self.length_bytes = length_bytes

    @property
    def can_go_on(self) -> bool:
        """Tell whether another request may follow it: it is all there, and where it ends is beyond doubt."""
        return self._is_complete and self._body.can_go_on

    @property
    def missing_bytes(self) -> int:
        """Return how much is still to come, 0 when that is not known."""
        return 0 if self.length_bytes is None else self.length_bytes - self._body.received_bytes

    def feed(self, data: bytes) -> bytes | None:
        """Take bytes of the connection; return those after the end of the body, None until the end is there."""
        if self._error is not None:
            return None
        try:
            rest = self._body.read(data)
        except CallerError as error:
            self.fail(error)
            return None
        if piece := self._body.take():
            self._pieces.append(piece)
        self._is_complete = rest is not None
        if not self._is_complete and not self.is_held and sum(map(len, self._pieces)) > UNTAKEN_BYTES:
            self.is_held = True
            self._hold(True)  # noqa: FBT003 - what it says is said where it is declared
        self._wake()
        return rest

    def fail(self, error: GateError) -> None:
        """Note that the end will not come. The first reason counts."""
        if self._error is None and not self._is_complete:
            self._error = error
            self._wake()

    def leave(self) -> None:
        """Note that the caller has left; whoever still reads has nothing to wait for."""
        self.fail(CallerError(Kind.INVALID_VALUE, "bad_request"))

    async def next_piece(self) -> bytes:
        """Return everything that has come; b"" once, at the end. Raises `CallerError`."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                return b""
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        piece = b"".join(self._pieces)
        self._pieces.clear()
        if self.is_held:
            self.is_held = False
            self._hold(False)  # noqa: FBT003 - the same
        return piece

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class Taking(Answering):
    """The part of a connection that waits for a body.

    `_unwanted_bytes` is how much may still come that nobody reads.
    """

    __slots__ = ("_body", "_body_began_at", "_unwanted_bytes", "_upload", "_was_kept_alive")

    def __init__(self, state: ServerState) -> None:
        """Wait for nothing yet."""
        super().__init__(state)
        self._body: Body | None = None
        self._body_began_at = 0.0
        self._unwanted_bytes = 0
        self._upload: ArrivingBody | None = None
        self._was_kept_alive = False

    def _hold(self, held: bool) -> None:  # noqa: FBT001 - a callback
        """Stop reading a body whose reader is slow, or go on; the caller's clock stands still meanwhile."""
        now = self._state.clock()
        if held:
            self._transport.pause_reading()
            self._body_began_at -= now
            self._wait_until(INFINITY)
        else:
            self._body_began_at += now
            self._wait_until(self._body_deadline())
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _expire_upload(self, now: float) -> None:
        """End a body that arrives too slowly; without one, nothing of a call is the connection's to end."""
        self.deadline = INFINITY
        if self._upload is not None and not self._upload.is_held:
            self.deadline = self._body_deadline()
            if self.deadline <= now:
                self._upload.fail(CallerError(Kind.REQUEST_TIMEOUT, "request_timeout"))
                self.deadline = INFINITY

    def _end_upload(self) -> None:
        """Forget a body that has arrived, or that nobody wants the rest of."""
        upload, self._upload = self._upload, None
        if upload is not None:
            self._body = None
            self._wait_until(INFINITY)
            if upload.can_go_on and self._phase == Phase.UNANSWERED:
                self._keep_alive = self._was_kept_alive
            else:
                self._unwanted_bytes = upload.missing_bytes  # Many clients send all of it before they read.
                upload.leave()
            if upload.is_held and not self._transport.is_closing():
                self._transport.resume_reading()

    def _wait_for_body(self) -> None:
        self._body_began_at = self._state.clock()
        self._wait_until(self._body_deadline())

    def _body_deadline(self) -> float:
        limits = self._state.limits
        received_bytes = 0 if self._body is None else self._body.received_bytes
        return self._body_began_at + limits.body_seconds + received_bytes / limits.body_bytes_per_second

    def _wait_until(self, deadline: float) -> None:
        """Set the deadline, unless it is that of a slow reader."""
        if not self.is_congested:
            self.deadline = deadline


def brings_files(identified: Identified) -> bool:
    """Tell whether a body is a form that is handed on while it arrives."""
    if not identified.endpoint.takes_files:
        return False
    return identified.envelope.headers.get(b"content-type", b"").lower().startswith(b"multipart/")
