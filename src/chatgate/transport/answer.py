"""What the reader of an upstream's answer holds.

Owns the pieces of the body between the socket and the reader, and how the answer ended. Must not touch sockets: it
asks its connection. The connection fills it, the pipeline reads it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from math import inf
from typing import Protocol

from msgspec import Struct

from chatgate.transport.signal import Signal
from chatgate.vocabulary.errors import Kind, Remedy, UpstreamError
from chatgate.vocabulary.exchange import PassOn, Verdict
from chatgate.vocabulary.upstreams import Timeouts

RELEASE_SECONDS = 1.0
"""How long a released answer may take to end so that its connection is kept."""

RELEASE_BYTES = 64 * 1024
"""How much of a released answer's body is thrown away so that its connection is kept."""

PIECE_OVERHEAD_BYTES = 64
"""What a piece costs besides its bytes; it keeps a body of one-byte chunks from filling the memory."""

UNKNOWN = 0.0
"""The deadline of an answer whose wait began anew, until a sweep finds it under way."""

_OK = 200
_TIMEOUTS = frozenset({"upstream_silent", "upstream_stalled", "upstream_too_slow"})


class StaleConnection(Exception):  # noqa: N818 - it is a situation, and never leaves the transport
    """A connection from the pool was closed by the server before it answered: the request may be sent again."""


class Stage(enum.Enum):
    """How far an answer is: HEAD → BODY → ENDED, unless it is released or fails on the way."""

    HEAD = enum.auto()
    BODY = enum.auto()
    ENDED = enum.auto()
    RELEASED = enum.auto()
    FAILED = enum.auto()


# Looking a member up by its class takes Python 3.11 0.1 µs, a dozen times per call.
HEAD, BODY, ENDED, RELEASED, FAILED = Stage
_NOTHING, _STOP = Verdict.NOTHING, Verdict.STOP


class Line(Protocol):
    """What an answer asks of its connection: `news` is what its reader waits for, `deadline` how long it may."""

    clock: Callable[[], float]
    deadline: float
    news: Signal

    def resume(self) -> None:
        """Let the upstream send again."""

    def give_up(self, reason: str) -> None:
        """End the connection, and the answer with this reason."""


class HttpAnswer(Struct, eq=False):
    """The answer to one request, filled by its connection while it arrives.

    `received_bytes` counts the body while it is under way, `pieces` is the part of it that nobody took yet. `whole` is
    the body of a success that came in one piece, once it has ended; `pass_on` is offered chunks, before they are looked
    at, while the reader forwards what arrives. The fields without an underscore are the
    connection's to write.
    """

    _line: Line
    _timeouts: Timeouts
    _started_at: float
    waits_since: float
    _patience_seconds: float
    stage: Stage = HEAD
    status: int = 0
    headers: dict[bytes, bytes] = {}
    whole: bytes | None = None
    pieces: list[bytes] = []
    received_bytes: int = 0
    paused: bool = False
    pass_on: PassOn | None = None
    _take_piece: Callable[[bytes], Verdict] | None = None
    _trouble: Exception | None = None
    _reason: str = ""
    _cause: BaseException | None = None
    _drop_above_bytes: int = 0

    def check_head(self) -> None:
        """Look at how the wait for the head has ended.

        Raises `StaleConnection` when the request may be sent again, `UpstreamError` when there is none.
        """
        if self.stage is FAILED and not self.status:
            raise self._error()

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; more than `limit_bytes` of it is `upstream_too_large`."""
        if self.stage is ENDED and self._untaken_bytes() <= limit_bytes:
            return self._take()
        body = bytearray()
        while len(body) + self._untaken_bytes() <= limit_bytes:
            piece = await self.next_chunk()
            if not piece:
                return bytes(body)
            body += piece
        self.pieces.clear()
        self.close()
        raise UpstreamError("upstream_too_large")

    async def next_chunk(self) -> bytes:
        """Return everything that has arrived, as soon as there is something; b"" at the body's regular end."""
        while not self.pieces:
            if self.stage is ENDED:
                return b""
            if self.stage is FAILED or self.stage is RELEASED:
                raise self._error()
            await self._line.news
        return self._take()

    async def forward(self, take: Callable[[bytes], Verdict], pass_on: PassOn | None = None) -> bool:
        """Hand every piece of the body to `take` at the moment it arrives, without a turn of the loop in between.

        A chunk that arrives by itself is offered to `pass_on` first. Returns True at the body's regular end, and False
        once `take` said `STOP`. Raises what the two raise.
        """
        self._take_piece = take
        try:
            if self.pieces:
                self._hand_over()
            if self._is_forwarding():
                self.pass_on = pass_on
            while self._is_forwarding():
                if self.stage is ENDED:
                    return True
                if self.stage is FAILED or self.stage is RELEASED:
                    raise self._error()
                await self._line.news
        finally:
            self._take_piece = self.pass_on = None
        if self._trouble is not None:
            raise self._trouble
        return False

    def close(self) -> None:
        """End the connection unless the answer has ended or was released. May be called again."""
        if self.stage is HEAD or self.stage is BODY:
            self._line.give_up("upstream_cut")

    def release(self) -> None:
        """Say that the reader has all it wants: the connection is kept if the body ends at once. May be called again.

        A stream's last event often comes a moment before the end of its body. Within `RELEASE_SECONDS` and
        `RELEASE_BYTES` the rest is thrown away and the connection kept, else it is ended. `close` does nothing then.
        """
        if self.stage is not BODY:
            return
        self.stage = RELEASED
        self._reason = "upstream_cut"
        self.pieces.clear()
        self._drop_above_bytes = self.received_bytes + RELEASE_BYTES
        self.wait(RELEASE_SECONDS)
        self._resume()

    def progress(self, now: float) -> None:
        """Move the deadline: bytes of the body came. A released answer is not waited for any longer by that."""
        if self.stage is RELEASED:
            if self.received_bytes > self._drop_above_bytes:
                self._line.give_up("upstream_cut")
            return
        if self._take_piece is None or self._hand_over() is not _NOTHING:
            self.waits_since = now
            if self._patience_seconds != self._timeouts.idle_seconds and not self.paused:
                self.wait(self._timeouts.idle_seconds)
        if self._take_piece is None:
            self.wake()

    def unread_bytes(self) -> int:
        """Return about how much memory the pieces take that nobody took yet."""
        return self._untaken_bytes() + len(self.pieces) * PIECE_OVERHEAD_BYTES

    def pause(self) -> None:
        """Stop the idle clock: the reader is the slow one. The clock of the whole call goes on."""
        self.paused = True
        self._patience_seconds = inf

    def end(self) -> None:
        """Note that the whole body has arrived."""
        if self._take_piece is not None and self.pieces:
            self._hand_over()
        self._resume()
        self.stage = ENDED
        if self.status == _OK and len(self.pieces) == 1 and len(self.pieces[0]) == self.received_bytes:
            self.whole = self.pieces[0]

    def fail(self, reason: str, cause: BaseException | None) -> None:
        """Note that no more will arrive; an empty `reason` says that the request may be sent again."""
        if self._take_piece is not None and self.pieces:
            self._hand_over()
        self.stage = FAILED
        self._reason = reason
        self._cause = cause
        self.wake()

    def expire(self, now: float) -> None:
        """End the connection, when the answer takes too long; else say when to look again."""
        ends_at = self._started_at + self._timeouts.total_seconds
        self._line.deadline = min(self.waits_since + self._patience_seconds, ends_at)
        if now < self._line.deadline:
            return
        if now >= ends_at:
            self._line.give_up("upstream_too_slow")
        elif self.received_bytes:
            self._line.give_up("upstream_stalled")
        else:
            self._line.give_up("upstream_silent")

    def stop(self, error: Exception) -> None:
        """End the forwarding: whoever had it forwarded has failed, and is to raise this."""
        self._trouble = error
        self._take_piece = self.pass_on = None
        self.wake()

    def wait(self, seconds: float) -> None:
        """Let the present wait last so long from now on, but no longer than the call."""
        self.waits_since, self._patience_seconds = self._line.clock(), seconds
        self._line.deadline = UNKNOWN

    def wake(self) -> None:
        """Let the reader look again."""
        self._line.news.fire()

    def _is_forwarding(self) -> bool:
        return self._take_piece is not None

    def _hand_over(self) -> Verdict:
        """Give what has arrived to whoever takes it; a bug of theirs is theirs, and must not reach the connection."""
        take, pieces = self._take_piece, self.pieces
        assert take is not None  # noqa: S101 - narrows for the type checker; who calls this has looked
        try:
            verdict = take(pieces.pop() if len(pieces) == 1 and not self.paused else self._take())
        except Exception as error:  # noqa: BLE001 - raised again where it belongs, in the call that takes
            self._trouble = error
            verdict = _STOP
        if verdict is _STOP:
            self._take_piece = self.pass_on = None
        return verdict

    def _untaken_bytes(self) -> int:
        return sum(map(len, self.pieces))

    def _take(self) -> bytes:
        pieces = self.pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.paused:
            self.wait(self._timeouts.idle_seconds)
            self._resume()
        return piece

    def _resume(self) -> None:
        if self.paused:
            self.paused = False
            self._line.resume()

    def _error(self) -> Exception:
        if not self._reason:
            return StaleConnection()
        timed_out = self._reason in _TIMEOUTS
        error = UpstreamError(self._reason, kind=Kind.UPSTREAM_TIMEOUT if timed_out else Kind.UPSTREAM_ERROR)
        if timed_out:  # Whoever was silent once would keep the caller waiting again.
            error.remedy = Remedy.ANOTHER_TARGET
        error.__cause__ = self._cause
        return error
