"""A body that is handed on while it arrives: the `Upload` of one request.

Owns what has come and was not taken yet, and makes the caller wait while that is much. It knows neither sockets nor
deadlines: the connection feeds it and is told when to read no more. Made by `connection` for requests that bring files.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from chatgate.vocabulary.errors import CallerError, GateError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.server.body import Body

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
