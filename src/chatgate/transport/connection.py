"""One socket to an upstream: sends a request at a time and takes its answer apart.

Owns framing (RFC 9112), the limits on what an upstream may send, and back-pressure towards it. Must not decide which
connection a request gets, nor send anything twice. The dialler makes it, the transport asks it, the pool keeps it.

Anything unclear about where an answer ends is `upstream_garbled`: whoever guesses there hands one caller's answer to
another. Answers to HEAD and CONNECT are not understood; the gateway sends neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol, cast

import httptools

from chatgate.bursts import Burst
from chatgate.transport.answer import BODY, ENDED, HEAD, UNKNOWN, HttpAnswer
from chatgate.transport.chunks import data_of
from chatgate.transport.heads import MAX_HEAD_BYTES, JudgedHead, KnownHead, judge, known_head, seen_again
from chatgate.transport.signal import Signal
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Origin

MAX_INTERIM_ANSWERS = 16
"""How many 1xx answers may come before the real one."""

PAUSE_ABOVE_BYTES = 64 * 1024
"""Unread bytes above which the upstream is told to wait. A loop reads up to 256 KiB at once, which come on top."""

MAX_IN_VAIN = 4
"""So many heads in a row are remembered that the next answer did not have. Many providers number their answers there,
and to remember a head costs as much as to parse one."""

_OK = 200
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL_STATUS = 200
_FIRST_STATUS = 100


class _Nowhere(asyncio.Transport):
    """What stands for the socket before there is one, and after it has ended."""

    def is_closing(self) -> bool:
        """Tell that nothing can be sent."""
        return True

    def abort(self) -> None:
        """End nothing."""


_NOWHERE = _Nowhere()


class Keeper(Protocol):
    """What keeps connections between requests."""

    def give_back(self, connection: Connection) -> None:
        """Take a connection that may carry another request."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has ended."""


class Connection(asyncio.Protocol):
    """One connection to `origin`; at most one answer is under way on it.

    `served` counts the requests it has carried. `deadline` is when the present wait has lasted too long, for an answer
    or for the next request; it and `retires_at`, the end of its life, are monotonic, in seconds.
    """

    __slots__ = (
        "_answer",
        "_fields",
        "_first",
        "_framing_bytes",
        "_in_vain",
        "_interim_count",
        "_is_between_chunks",
        "_is_fed",
        "_is_whole",
        "_judged",
        "_keeper",
        "_known",
        "_learned_at",
        "_may_keep",
        "_parser",
        "_unparsed",
        "_until_close",
        "burst",
        "clock",
        "deadline",
        "news",
        "origin",
        "retires_at",
        "served",
        "transport",
    )

    _fields: list[tuple[bytes, bytes]] | None
    _first: bytes
    _framing_bytes: int
    _interim_count: int
    _is_between_chunks: bool
    _is_fed: bool
    _is_whole: bool
    _may_keep: bool
    _unparsed: bytes
    _until_close: bool

    def __init__(self, origin: Origin, keeper: Keeper, clock: Callable[[], float], burst: Burst) -> None:
        """Wait to be connected; must be made inside the running loop."""
        self.burst = burst
        self.origin = origin
        self.served = 0
        self.deadline = self.retires_at = inf
        self.clock = clock
        self._keeper = keeper
        self.news = Signal(asyncio.get_running_loop())
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = _NOWHERE
        self._answer: HttpAnswer | None = None
        self._judged: JudgedHead | None = None
        self._known: KnownHead | None = None
        self._learned_at = 0
        self._in_vain = 0
        self._start_afresh()

    @property
    def is_busy(self) -> bool:
        """Tell whether an answer is under way."""
        return self._answer is not None

    def ask(self, request: OutboundRequest, started_at: float, now: float) -> HttpAnswer:
        """Send a request, on a connection that can be used.

        `started_at` is when the call began: its total time counts from there.
        """
        answer = self._answer = HttpAnswer(
            self, request.timeouts, started_at, now, request.timeouts.first_token_seconds
        )
        self.deadline = UNKNOWN  # Most answers are there before anybody looks.
        self.burst.write(self.transport, request.head + request.body)
        return answer

    def abort(self) -> None:
        """End the connection at once, without waiting for the peer's part of it."""
        self.deadline = self.retires_at = inf
        self.transport.abort()

    def resume(self) -> None:
        """Let the upstream send again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def expire(self, now: float) -> None:
        """End the answer under way when it has taken too long."""
        if self._answer is not None:
            self._answer.expire(now)

    def give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """End the connection, and its answer with this reason."""
        answer = self._answer
        if answer is not None:
            self._answer = None
            answer.fail(reason, cause)
        self.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; TLS is already inside it."""
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer under way, if there is one."""
        self.transport = _NOWHERE
        self._keeper.lost(self)
        self._end(exc)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes of the answer apart; bytes that nobody asked for end the connection."""
        answer, known = self._answer, self._known
        if answer is None:
            self.abort()
            return
        pass_on = answer.pass_on
        if pass_on is not None and self._is_between_chunks and (start := data_of(data)):
            # Most of a stream are chunks that the caller can have as they came.
            try:
                if pass_on(data, start):
                    answer.received_bytes += len(data) - start - 2
                    answer.waits_since = self.clock()
                    return
            except Exception as error:  # noqa: BLE001 - raised again where it belongs, in the call that forwards
                answer.stop(error)
                return
        if known is not None and not self._is_fed and (body := known.body_of(data)) is not None:
            answer.status, answer.headers, answer.stage = _OK, known.headers, ENDED
            answer.whole, answer.pieces = body, [body]
        elif (not self._is_fed and self._begin(answer, data)) or not self._feed(answer, data):
            return
        self._answer = None
        # An upstream that answered before it had read the whole request would take the rest of it for the next one.
        if self._may_keep and not self.transport.get_write_buffer_size():
            self._keeper.give_back(self)
        else:
            self.abort()
        # Last of all: whoever reads the answer goes on inside this, and may send the next request on this connection.
        self.news.fire()

    def _feed(self, answer: HttpAnswer, data: bytes) -> bool:
        """Let the parser take the next bytes of an answer apart; return whether it is whole."""
        received_before = answer.received_bytes
        is_first, self._is_fed = not self._is_fed, True
        self._framing_bytes += len(data)
        data, self._unparsed = self._unparsed + data, b""
        self._is_between_chunks = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # What follows a whole answer does not spoil it, only the connection.
            if not self._is_whole:
                self.give_up("upstream_garbled", error)
                return False
            self._may_keep = False
        if self._is_whole:
            may_keep = self._may_keep and not self.transport.is_closing()
            if is_first and may_keep and answer.status == _OK and not self._interim_count:
                self._learn(data, answer)
            self._start_afresh()
            self._may_keep = may_keep
            answer.end()
            return True
        if self._is_between_chunks and not data.endswith(b"\r\n"):
            self._is_between_chunks = False  # The next chunk's size has begun.
        if answer.received_bytes != received_before:
            self._framing_bytes = 0
            answer.progress(self.clock())
            if answer.pieces:
                self._hold_back(answer)
        elif self._framing_bytes > MAX_HEAD_BYTES:
            # A head, a trailer or a chunk extension without end.
            self.give_up("upstream_garbled")
        else:
            answer.wake()
        return False

    def _begin(self, answer: HttpAnswer, data: bytes) -> bool:
        """Begin a stream whose head is known without the parser, which hears of it once it is needed.

        False, and nothing has happened, when the head is another one, or more has come with it than one chunk.
        """
        judged = self._judged
        if judged is None or not judged.text or not data.startswith(judged.text):
            self._first = data
            return False
        piece = data[len(judged.text) :]
        start = data_of(piece)
        if piece and not start:
            return False
        self._fields, self._unparsed, self._is_between_chunks, self._is_fed = None, judged.text, True, True
        answer.status, answer.headers, answer.stage = judged.status, judged.headers, BODY
        if piece:
            self.on_body(piece[start:-2])
            answer.progress(self.clock())
        else:
            answer.wake()
        return True

    def _learn(self, data: bytes, answer: HttpAnswer) -> None:
        """Remember the head of a whole answer, until the server has shown that each of its heads is another one."""
        if self._in_vain < MAX_IN_VAIN:
            was_useless = self._known is not None and self.served == self._learned_at + 1
            self._in_vain = self._in_vain + 1 if was_useless else 0
            self._learned_at = self.served
            is_worth_it = self._in_vain < MAX_IN_VAIN
            self._known = known_head(data, answer.headers, answer.received_bytes) if is_worth_it else None

    def on_message_begin(self) -> None:
        """Refuse a second answer to the one request."""
        if self._is_whole:
            raise ValueError("bytes after the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head. Trailers are dropped."""
        if self._fields is not None:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Judge the head: its status, its size, and whether it leaves no doubt about the body's length and coding."""
        answer, fields = self._answer, self._fields
        if answer is None or fields is None:
            return
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL_STATUS:
            self._interim_count += 1
            if status < _FIRST_STATUS or status == _SWITCHING_PROTOCOLS or self._interim_count > MAX_INTERIM_ANSWERS:
                raise ValueError("unusable interim answer")
            fields.clear()
            return
        version, judged = self._parser.get_http_version(), self._judged
        if judged is None or judged.fields != fields or judged.status != status or judged.version != version:
            judged = judge(status, version, fields, is_long=self._framing_bytes > MAX_HEAD_BYTES)
            self._judged = judged
        elif not (judged.text or self._interim_count):
            self._judged = seen_again(judged, self._first)
        self._fields, self._first = None, b""
        answer.status, answer.headers, self._until_close = status, judged.headers, judged.until_close
        answer.stage = BODY

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun."""
        self._is_between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has ended."""
        self._is_between_chunks = True

    def on_body(self, piece: bytes) -> None:
        """Hand a piece of the body over."""
        answer = self._answer
        if answer is not None:
            answer.received_bytes += len(piece)
            if answer.stage is BODY:  # Otherwise the reader has all it wants.
                answer.pieces.append(piece)

    def on_message_complete(self) -> None:
        """Note that the answer is whole, unless it was an interim one."""
        answer = self._answer
        if answer is not None and answer.stage is not HEAD:
            self._is_whole = True
            # Asked later, the parser has already forgotten.
            self._may_keep = self._parser.should_keep_alive()

    def _hold_back(self, answer: HttpAnswer) -> None:
        if answer.unread_bytes() > PAUSE_ABOVE_BYTES and not self.transport.is_closing():
            answer.pause()
            self.transport.pause_reading()

    def _start_afresh(self) -> None:
        """Forget what was found out about an answer; the parser is ready for the next one."""
        self._fields = []
        self._first = self._unparsed = b""
        self._framing_bytes = 0
        self._interim_count = 0
        self._is_between_chunks = False
        self._is_fed = False
        self._is_whole = False
        self._may_keep = True
        self._until_close = False

    def _end(self, exc: Exception | None) -> None:
        answer = self._answer
        if answer is None:
            return
        if answer.stage is not HEAD and self._until_close and exc is None:
            self._answer = None
            answer.end()
            answer.wake()
        elif self.served and not self._is_fed:
            self.give_up("", exc)
        else:
            self.give_up("upstream_cut", exc)
