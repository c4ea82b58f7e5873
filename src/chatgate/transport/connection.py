"""One socket to an upstream: sends a request at a time and takes its answer apart.

Owns framing (RFC 9112), the limits on what an upstream may send, and back-pressure towards it. Must not decide which
connection a request gets, nor send anything twice. The dialler makes it, the transport asks it, the pool keeps it.

Anything unclear about where an answer ends is `upstream_garbled`: whoever guesses there hands one caller's answer to
another. Answers to HEAD and CONNECT are not understood; the gateway sends neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from chatgate.transport.answer import BODY, HEAD, HttpAnswer
from chatgate.transport.deadlines import Deadlines
from chatgate.transport.heads import KnownHead, known_head
from chatgate.transport.signal import Signal
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Origin

MAX_HEAD_BYTES = 64 * 1024
MAX_HEAD_FIELDS = 200
MAX_INTERIM_ANSWERS = 16
"""How many 1xx answers may come before the real one."""

PAUSE_ABOVE_BYTES = 64 * 1024
"""Unread bytes above which the upstream is told to wait. A loop reads up to 256 KiB at once, which come on top."""

_OK = 200
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_LAST_STATUS = 599
_FIRST_STATUS = 100
_BODILESS = frozenset({204, 304})


class Keeper(Protocol):
    """What keeps connections between requests."""

    def give_back(self, connection: Connection) -> None:
        """Take a connection that may carry another request."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has ended."""


class Connection(asyncio.Protocol):
    """One connection to `origin`; at most one answer is under way on it.

    `served` counts the requests it carried, `opened_at` and `expires_at` are monotonic, in seconds.
    """

    __slots__ = (
        "_answer",
        "_clock",
        "_deadlines",
        "_field_count",
        "_framing_bytes",
        "_interim_count",
        "_is_whole",
        "_keeper",
        "_known",
        "_may_keep",
        "_parser",
        "_transport",
        "_until_close",
        "expires_at",
        "news",
        "opened_at",
        "origin",
        "served",
    )

    def __init__(self, origin: Origin, keeper: Keeper, deadlines: Deadlines, clock: Callable[[], float]) -> None:
        """Wait to be connected; must be made inside the running loop."""
        self.origin = origin
        self.served = 0
        self.opened_at = clock()
        self.expires_at = 0.0
        self._keeper = keeper
        self._deadlines = deadlines
        self._clock = clock
        self.news = Signal(asyncio.get_running_loop())
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: HttpAnswer | None = None
        self._known: KnownHead | None = None
        self._field_count = 0
        self._framing_bytes = 0
        self._interim_count = 0
        self._is_whole = False
        self._may_keep = False
        self._until_close = False

    @property
    def is_usable(self) -> bool:
        """Tell whether a request may be sent on it, as far as is known here."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: OutboundRequest, started_at: float) -> HttpAnswer:
        """Send a request now. `started_at` is when the call began: its total time counts from there."""
        timeouts, clock = request.timeouts, self._clock
        give_up_at = started_at + timeouts.total_seconds
        first_deadline = min(clock() + timeouts.first_token_seconds, give_up_at)
        answer = self._answer = HttpAnswer(self, self.news, clock, timeouts, give_up_at, first_deadline)
        self.served += 1
        self._field_count = 0
        self._framing_bytes = 0
        self._interim_count = 0
        self._is_whole = False
        self._until_close = False
        self._deadlines.watch(answer)
        transport = self._transport
        if transport is None or transport.is_closing():
            self._end(None)
        else:
            transport.write(request.head + request.body)
        return answer

    def abort(self) -> None:
        """End the connection at once, without waiting for the peer's part of it."""
        if self._transport is not None:
            self._transport.abort()

    def resume(self) -> None:
        """Let the upstream send again."""
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.resume_reading()

    def give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """End the connection, and its answer with this reason."""
        answer = self._answer
        if answer is not None:
            self._answer = None
            self._deadlines.forget(answer)
            answer.fail(reason, cause)
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; TLS is already inside it."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer under way, if there is one."""
        self._transport = None
        self._keeper.lost(self)
        self._end(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of the answer apart; bytes that nobody asked for end the connection."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        received_before = answer.received_bytes
        is_first = not self._framing_bytes and answer.stage is HEAD
        if is_first and self._known is not None and (body := self._known.body_of(data)) is not None:
            answer.take_whole(_OK, self._known.headers, body)
            self._finish(answer, may_keep=True)
            return
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What follows a whole answer does not spoil it, only the connection.
            if self._is_whole:
                self._finish(answer, may_keep=False)
            else:
                self.give_up("upstream_garbled", error)
            return
        if self._is_whole:
            if is_first and self._may_keep and answer.status == _OK and not self._interim_count:
                self._known = known_head(data, answer.headers, answer.received_bytes)
            self._finish(answer, may_keep=self._may_keep)
        elif answer.received_bytes != received_before:
            self._framing_bytes = 0
            answer.progress(self._clock())
            if answer.pieces:
                self._hold_back(answer)
        elif self._framing_bytes > MAX_HEAD_BYTES:
            # A head, a trailer or a chunk extension without end.
            self.give_up("upstream_garbled")
        else:
            answer.wake()

    def on_message_begin(self) -> None:
        """Refuse a second answer to the one request."""
        if self._is_whole:
            raise ValueError("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head; several lines of one name are joined. Trailers are dropped."""
        answer = self._answer
        if answer is None or answer.stage is not HEAD:
            return
        self._field_count += 1
        if self._field_count > MAX_HEAD_FIELDS:
            raise ValueError("too many header fields")
        name = name.lower()
        headers = answer.headers
        headers[name] = value if name not in headers else headers[name] + b", " + value

    def on_headers_complete(self) -> None:
        """Judge the head: its status, its size, and whether it leaves no doubt about the body's length and coding."""
        answer = self._answer
        if answer is None:
            return
        headers = answer.headers
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL_STATUS:
            self._interim_count += 1
            if status < _FIRST_STATUS or status == _SWITCHING_PROTOCOLS or self._interim_count > MAX_INTERIM_ANSWERS:
                raise ValueError("unusable interim answer")
            headers.clear()
            return
        version = self._parser.get_http_version()
        if status > _LAST_STATUS or version not in {"1.1", "1.0"}:
            raise ValueError("unusable status line")
        if self._framing_bytes > MAX_HEAD_BYTES and sum(map(len, headers)) + sum(map(len, headers.values())) > (
            MAX_HEAD_BYTES
        ):
            raise ValueError("head too large")
        transfer_coding = headers.get(b"transfer-encoding")
        # RFC 9112 section 6.1 (read 2026-11-23): with HTTP/1.0 this field means faulty framing.
        if transfer_coding is not None and (version == "1.0" or transfer_coding.strip().lower() != b"chunked"):
            raise ValueError("unusable transfer coding")
        if headers.get(b"content-encoding", b"identity").strip().lower() not in {b"identity", b""}:
            raise ValueError("content coding that was not asked for")
        self._until_close = transfer_coding is None and b"content-length" not in headers and status not in _BODILESS
        answer.status = status
        answer.stage = BODY

    def on_body(self, piece: bytes) -> None:
        """Hand a piece of the body over."""
        answer = self._answer
        if answer is not None:
            answer.take_piece(piece)

    def on_message_complete(self) -> None:
        """Note that the answer is whole, unless it was an interim one."""
        answer = self._answer
        if answer is not None and answer.stage is not HEAD:
            self._is_whole = True
            # Asked later, the parser has already forgotten.
            self._may_keep = self._parser.should_keep_alive()

    def _hold_back(self, answer: HttpAnswer) -> None:
        transport = self._transport
        if answer.unread_bytes() > PAUSE_ABOVE_BYTES and transport is not None and not transport.is_closing():
            answer.pause()
            transport.pause_reading()

    def _finish(self, answer: HttpAnswer, *, may_keep: bool) -> None:
        self._answer = None
        self._deadlines.forget(answer)
        transport = self._transport
        # An upstream that answered before it had read the whole request would take the rest of it for the next one.
        if may_keep and transport is not None and not transport.get_write_buffer_size() and not transport.is_closing():
            self._keeper.give_back(self)
        else:
            self.abort()
        # Last of all: whoever reads the answer goes on inside this, and may send the next request on this connection.
        answer.finish()

    def _end(self, exc: Exception | None) -> None:
        answer = self._answer
        if answer is None:
            return
        if answer.stage is not HEAD and self._until_close and exc is None:
            self._finish(answer, may_keep=False)
        elif self.served > 1 and not self._framing_bytes and not answer.received_bytes:
            self.give_up("", exc)
        else:
            self.give_up("upstream_cut", exc)
