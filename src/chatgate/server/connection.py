"""One caller's connection: bytes in, requests one at a time to the gateway, and what happens when a rule is broken.

    HEAD ──► BODY ──► SERVING ──► HEAD …
      │        │         │
      │        └─────────┴──► LINGERING ──► CLOSING
      ├──► DISCARDING ──► HEAD …
      └──► SERVING ──► SWITCHED

HEAD        waiting for a request, or reading its head
BODY        the caller is identified, the body is being collected
SERVING     the call runs; what else comes in is kept as it came, but for the rest of a body that is handed on
DISCARDING  answered by the head alone; a small body is read and thrown away, so that the connection can go on
LINGERING   answered for the last time; reads on for a moment, because a close with unread bytes resets the connection
            and can destroy the answer on its way
CLOSING     waiting for the last bytes to leave
SWITCHED    the caller goes on over a WebSocket: a `Talk` has taken the connection over

`serving` makes connections and ends those that are overdue; the transport calls the rest. A caller who closes only its
sending half counts as one who left.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from chatgate.server.answer import Phase
from chatgate.server.body import ChunkedBody, SizedBody, body_too_large
from chatgate.server.head import CHUNKED, END_OF_HEAD, Head, HeadReader
from chatgate.server.known import Known
from chatgate.server.run import Run
from chatgate.server.state import ServerState
from chatgate.server.talk import Talk, accept_key
from chatgate.server.upload import ArrivingBody, Taking, brings_files
from chatgate.server.writing import INFINITY
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded
from chatgate.vocabulary.exchange import Envelope, Identified, Reply, Upgrade

KEPT_BYTES: Final = 64 << 10
"""More than this of requests that wait for their turn stops the reading."""

DISCARDED_BYTES: Final = 64 << 10
"""Up to this, throwing away an unread body is cheaper for both sides than a new connection."""

LINGERING_BYTES: Final = 1 << 20
LINGERING_SECONDS: Final = 2.0
BURST: Final = 32
"""How many requests are answered from their heads alone before other connections have their turn."""

RESERVED_CONNECTIONS: Final = 64
"""How many connections above the cap are told so; those above that are closed without a word."""

HEADERS_TOO_LARGE_STATUS: Final = 431
LONGEST_PIECE_BYTES: Final = 1 << 20
"""More than any loop hands over at once: a body that comes in one piece is no longer than this."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Stage:
    """What a connection is doing; see the top of this file. Plain numbers, for the reason given at `Phase`."""

    HEAD: Final = 0
    BODY: Final = 1
    SERVING: Final = 2
    DISCARDING: Final = 3
    LINGERING: Final = 4
    CLOSING: Final = 5
    SWITCHED: Final = 6


class Connection(Taking):
    """The reading half of a connection, and its life. `run` is that of the call being served, if there is one.

    `_known` is the last head, when its request was served and nothing has come after it; others are in the state.
    """

    __slots__ = (
        "_envelope",
        "_identified",
        "_kept",
        "_known",
        "_loop",
        "_peer",
        "_reader",
        "_stage",
        "_talk",
        "run",
    )

    def __init__(self, state: ServerState) -> None:
        """Wait for the transport."""
        super().__init__(state)
        self._reader = HeadReader(state.limits)
        self._stage: int = Stage.HEAD
        self._peer = ""
        self._loop = asyncio.get_running_loop()
        self._kept = b""
        self._known: Known | None = None
        self._envelope: Envelope | None = None
        self._identified: Identified | None = None
        self._talk: Talk | None = None
        self.run: Run | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or say that there are too many (called by the transport)."""
        state = self._state
        # uvloop's transports have the methods of asyncio's without being one.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=state.limits.write_buffer_bytes)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._peer = peer[0]
        self.deadline = state.clock() + state.limits.header_seconds
        state.connections.add(self)
        excess = len(state.connections) - state.max_connections
        if excess > RESERVED_CONNECTIONS:
            self.abort()
        elif excess > 0:
            self._refuse(Overloaded())

    def data_received(self, data: bytes) -> None:
        """Take bytes (called by the transport)."""
        known, state = self._known, self._state
        try:
            if self._stage == Stage.HEAD and not self.is_congested:
                content = data.partition(END_OF_HEAD)[2]
                if known is None or not data.startswith(known.form % len(content)):
                    known = self._recall(data, content)
                if (
                    known is not None
                    and known.gate is state.gate
                    and (known.identified.lasts or known.gate.stands_by(known.identified))
                ):
                    # The usual case: a head that came before with all of its body, and nothing else.
                    identified = known.identified.again(state.new_request_id(), state.clock())
                    self._phase = Phase.UNANSWERED
                    self._stage = Stage.SERVING
                    self.run = run = Run(known.serve(identified, content, self), self._end_call)
                    run.step()
                    return
            if self.run is not None or self._kept:
                self._keep(data)
            else:
                self._read(data)
        except CallerError as error:
            self._refuse(error)
        except Exception as error:  # noqa: BLE001 - the boundary: a bug ends one connection and is logged sparingly
            state.report(error)
            self.abort()

    def eof_received(self) -> bool:
        """Close: whoever sends no more is taken to have left (called by the transport)."""
        self._leave()
        self._close()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing here
        """Forget the connection (called by the transport)."""
        self._state.connections.discard(self)
        self._leave()

    def resume_writing(self) -> None:
        """Go on with what waited for a slow reader (called by the transport)."""
        super().resume_writing()
        match self._stage:
            case Stage.SERVING:
                self.deadline = INFINITY if self._upload is None else self._body_deadline()
            case Stage.HEAD:
                self._rest()
                self._go_on()
            case Stage.BODY | Stage.DISCARDING:
                self.deadline = self._body_deadline()
            case Stage.LINGERING | Stage.CLOSING:
                self.deadline = self._state.clock() + LINGERING_SECONDS

    def expire(self, now: float) -> None:
        """Do what is due at the deadline (called by the sweep)."""
        if self.is_congested:
            if self._is_stalled(now):
                self.abort()
            return
        match self._stage:
            case Stage.HEAD if self._reader.has_begun:
                self._refuse(CallerError(Kind.REQUEST_TIMEOUT, "request_timeout"))
            case Stage.HEAD | Stage.LINGERING:
                self._close()
            case Stage.BODY:
                # Every piece of the body earns it time; that is only reckoned here.
                self.deadline = self._body_deadline()
                if self.deadline <= now:
                    self._refuse(CallerError(Kind.REQUEST_TIMEOUT, "request_timeout"))
            case Stage.SERVING:
                self._expire_upload(now)
            case Stage.DISCARDING | Stage.CLOSING:
                self.abort()

    @property
    def calls(self) -> int:
        """Return how many calls are being served."""
        return 0 if self.run is None else 1

    def cancel(self, message: str) -> None:
        """Cancel the call that is being served, with a message; nothing when it has ended."""
        if self.run is not None:
            self.run.cancel(message)

    def close_if_idle(self) -> None:
        """Close a connection on which nothing is under way (called by the drain)."""
        if self._stage == Stage.HEAD and not self._reader.has_begun and not self._kept:
            self._close()

    def _recall(self, data: bytes, content: bytes) -> Known | None:
        """Return what was made of the head of a whole request, here or on another connection of the same peer."""
        if self._reader.has_begun or self._kept:
            return None
        known = self._state.known.find(self._peer, data, content)
        if known is not None:
            self._known = known
            self._keep_alive = self._is_usual = True
            self._is_http_10 = self._wants_head_only = False
        return known

    def _read(self, data: bytes) -> None:
        """Read until the bytes are used up, or until something has to be waited for."""
        heads = 0
        while data:
            match self._stage:
                case Stage.HEAD if heads == BURST:
                    self._keep(data)
                    self._loop.call_soon(self._go_on)
                    return
                case Stage.HEAD if not self.is_congested:
                    data = self._read_head(data)
                    heads += 1
                case Stage.HEAD | Stage.SERVING:
                    self._keep(data)
                    return
                case Stage.BODY:
                    data = self._read_body(data)
                case Stage.DISCARDING:
                    data = self._discard(data)
                case Stage.LINGERING | Stage.CLOSING:
                    self._unwanted_bytes -= len(data)
                    if self._unwanted_bytes < 0:
                        self._close()
                    return
                case _:
                    self._hand_over(data)
                    return

    def _keep(self, data: bytes) -> None:
        """Put bytes by until it is their turn, and stop the reading when there are many."""
        if self._upload is not None:
            rest = self._upload.feed(data)
            if rest is None:
                return
            self._end_upload()
            data = rest
        was_reading = len(self._kept) <= KEPT_BYTES
        self._kept += data
        if was_reading and len(self._kept) > KEPT_BYTES:
            self._transport.pause_reading()

    def _take_kept(self) -> bytes:
        data, self._kept = self._kept, b""
        if len(data) > KEPT_BYTES and not self._transport.is_closing():
            self._transport.resume_reading()
        return data

    def _go_on(self) -> None:
        """Read the bytes that were put by, if it is their turn."""
        if self._kept and self._stage == Stage.HEAD and not self.is_congested and self._phase != Phase.GONE:
            self.data_received(self._take_kept())

    def _read_head(self, data: bytes) -> bytes:
        """Read on in a head; return the bytes that were not used."""
        has_begun, known, state = self._reader.has_begun, self._known, self._state
        if not has_begun:
            self._phase = Phase.UNANSWERED
            self._envelope = self._known = None
            self._is_http_10 = self._wants_head_only = self._is_usual = False
        found = self._reader.read(data)
        if found is None:
            if self._reader.has_begun and not has_begun:
                self._wait_until(state.clock() + state.limits.header_seconds)
            return b""
        head, rest = found
        self._is_http_10 = head.is_http_10
        self._wants_head_only = head.method == "HEAD"
        self._keep_alive = head.keep_alive
        self._is_usual = not (self._is_http_10 or self._wants_head_only)
        request_id, now = state.new_request_id(), state.clock()
        if known is not None and known.gate is state.gate and known.identified.envelope.headers is head.headers:
            before = known.identified
            if before.lasts or known.gate.stands_by(before):
                identified = before.again(request_id, now)
                self._envelope = identified.envelope
                return self._begin_body(identified, head, rest)
        self._envelope = Envelope(request_id, head.method, head.path, head.query, head.headers, self._peer, now)
        verdict = state.gate.arrive(self._envelope)
        if isinstance(verdict, Reply):
            return self._answer_by_head(verdict, head, rest)
        return self._begin_body(verdict, head, rest)

    def _answer_by_head(self, reply: Reply, head: Head, rest: bytes) -> bytes:
        """Answer a request whose body nobody wants; return the bytes after that body, as far as they are there."""
        if isinstance(reply, Upgrade):
            self._begin_upgrade(reply, head)
            return rest
        missing_bytes = head.body_bytes - len(rest)
        is_too_much = missing_bytes > 0 and (head.body_bytes > DISCARDED_BYTES or head.expects_continue)
        if head.body_bytes == CHUNKED or is_too_much:
            self._keep_alive = False
        self.reply(reply)
        if not self._keep_alive:
            self._linger()
            return b""
        if missing_bytes > 0:
            self._stage = Stage.DISCARDING
            self._unwanted_bytes = missing_bytes
            self._wait_for_body()
            return b""
        self._rest()
        return rest[head.body_bytes :]

    def _begin_body(self, identified: Identified, head: Head, rest: bytes) -> bytes:
        """Serve a request whose body is there, or begin to collect it; return the bytes that were not used."""
        coding = head.headers.get(b"content-encoding")
        if coding and coding.lower() != b"identity":
            raise CallerError(Kind.UNSUPPORTED_MEDIA_TYPE, "content_encoding_unsupported")
        limit_bytes, body_bytes = self._state.limits.body_bytes, head.body_bytes
        if body_bytes > limit_bytes:
            if brings_files(identified):
                return self._begin_upload(identified, head, rest)
            # Many clients send the whole body before they read; those that are not far off shall see the answer.
            self._unwanted_bytes = body_bytes if body_bytes <= 2 * limit_bytes else 0
            raise body_too_large(limit_bytes)
        if CHUNKED < body_bytes <= len(rest):
            self._serve(identified, rest[:body_bytes])
            return rest[body_bytes:]
        if brings_files(identified):
            return self._begin_upload(identified, head, rest)
        self._stage = Stage.BODY
        self._identified = identified
        self._body = ChunkedBody(limit_bytes) if body_bytes == CHUNKED else SizedBody(body_bytes)
        self._wait_for_body()
        if head.expects_continue and not rest:
            self._state.burst.flush()
            self._transport.write(CONTINUE)
        return rest

    def _begin_upload(self, identified: Identified, head: Head, rest: bytes) -> bytes:
        """Serve a request whose body is still arriving."""
        limit_bytes, length_bytes = self._state.limits.upload_bytes, head.body_bytes
        if length_bytes > limit_bytes:
            raise body_too_large(limit_bytes)
        is_chunked = length_bytes == CHUNKED
        self._body = body = ChunkedBody(limit_bytes) if is_chunked else SizedBody(length_bytes)
        self._upload = upload = ArrivingBody(body, None if is_chunked else length_bytes, self._hold)
        self._was_kept_alive = self._keep_alive
        self._keep_alive = False  # As long as there is something unread.
        self._stage = Stage.SERVING
        self._wait_for_body()
        if head.expects_continue and not rest:
            self._state.burst.flush()
            self._transport.write(CONTINUE)
        if rest:
            self._keep(rest)
        self.run = run = Run(self._state.gate.receive(identified, upload, self), self._end_receiving)
        run.step()
        return b""

    def _end_receiving(self, run: Run, error: BaseException | None) -> None:
        """Do what is due at the end of a call, whose body may still be arriving (called by the run)."""
        self._end_upload()
        self._end_call(run, error)

    def _read_body(self, data: bytes) -> bytes:
        """Read on in a body, and serve the request when it is complete; return the bytes after it."""
        body, identified = self._body, self._identified
        assert body is not None  # noqa: S101 - narrows for the type checker; both are set for this stage
        assert identified is not None  # noqa: S101 - the same
        rest = body.read(data)
        if rest is None:
            return b""
        if not body.can_go_on:
            self._keep_alive = False
        self._body = self._identified = None
        self._serve(identified, body.content)
        return rest

    def _discard(self, data: bytes) -> bytes:
        rest = data[self._unwanted_bytes :]
        self._unwanted_bytes -= len(data) - len(rest)
        if self._unwanted_bytes == 0:
            self._rest()
        return rest

    def _serve(self, identified: Identified, content: bytes) -> None:
        state, form = self._state, self._reader.form
        serve = state.gate.server_of(identified.endpoint)
        if form is not None and state.limits.body_bytes >= LONGEST_PIECE_BYTES:
            self._known = known = Known(form, identified, state.gate, serve)
            if self._is_usual and self._keep_alive:
                state.known.add(self._peer, self._reader.lengthless, known)
        self._stage = Stage.SERVING
        self.run = run = Run(serve(identified, content, self), self._end_call)
        run.step()

    def _begin_upgrade(self, upgrade: Upgrade, head: Head) -> None:
        """Let a caller go on over a WebSocket, if the gateway says so. Raises `CallerError` for a broken handshake."""
        if head.body_bytes or head.is_http_10:
            raise CallerError(Kind.INVALID_VALUE, "bad_request")
        accepted = accept_key(upgrade.identified.envelope)
        self._stage = Stage.SERVING
        self._wait_until(INFINITY)
        self.run = run = Run(self._upgrade(upgrade, accepted), self._end_upgrade)
        run.step()

    async def _upgrade(self, upgrade: Upgrade, accepted: bytes) -> None:
        verdict = await self._state.gate.converse(upgrade.identified)
        if isinstance(verdict, Reply):
            self.reply(verdict)
        elif self._phase != Phase.GONE:
            opening = self._state.opening(upgrade.status)
            self._state.burst.flush()
            self._transport.write(b"%b%b%b\r\n" % (opening, upgrade.headers, accepted))
            self._stage, self._talk = Stage.SWITCHED, Talk(self._state, self._transport, verdict)

    def _end_upgrade(self, run: Run, error: BaseException | None) -> None:
        if self._talk is None:
            self._end_call(run, error)
            return
        self.run = None
        self._talk.begin(paused=self.is_congested)
        self._state.connections.discard(self)
        self._hand_over(self._take_kept())

    def _hand_over(self, data: bytes) -> None:
        """Give what came behind the handshake to whoever has taken the connection over."""
        assert self._talk is not None  # noqa: S101 - narrows for the type checker; it is set for this stage
        if data:
            self._talk.data_received(data)

    def _end_call(self, run: Run, error: BaseException | None) -> None:
        """Leave the connection ready for the next request, or closed (called by the run)."""
        self.run = None
        state = self._state
        if error is None and self._phase == Phase.ANSWERED and self._keep_alive and not state.draining:
            self._stage = Stage.HEAD
            if not self.is_congested:
                self.deadline = state.idle_until
            if self._kept:
                self._go_on()
            return
        if error is not None:
            self._keep_alive = False
            if isinstance(error, Exception):
                self._state.report(error)
        if self._phase == Phase.GONE:
            self._state.departed.discard(run)
        elif self._phase != Phase.ANSWERED:
            self.abort()
        else:
            self._linger()

    def _refuse(self, error: GateError) -> None:
        """Answer a request that broke a rule of the wire, and end the connection."""
        try:
            state = self._state
            unread = Envelope(state.new_request_id(), "", "", "", {}, self._peer, state.clock())
            reply = state.gate.refuse(self._envelope or unread, error)
        except Exception as bug:  # noqa: BLE001 - the boundary: a bug ends one connection and is logged sparingly
            self._state.report(bug)
            self.abort()
            return
        if error.reason == "headers_too_large":
            reply = Reply(HEADERS_TOO_LARGE_STATUS, reply.headers, reply.body)
        self._keep_alive = False
        self.reply(reply)
        self._linger()

    def _leave(self) -> None:
        """Drop what the caller no longer waits for, and cancel the call; what is written may still leave."""
        self._gone()
        self._reader.reset()
        self._kept = b""
        self._body = None
        if self._upload is not None:
            self._upload.leave()
            self._upload = None
        run, self.run = self.run, None
        if run is not None:
            self._state.depart(run)

    def _rest(self) -> None:
        """Wait for the next request; the clock of the last sweep is exact enough for that."""
        self._stage = Stage.HEAD
        self._wait_until(self._state.idle_until)

    def _linger(self) -> None:
        """Say that this was the last answer, and throw away what still comes in for a moment."""
        self._stage, self._known = Stage.LINGERING, None
        self._unwanted_bytes = max(self._unwanted_bytes, LINGERING_BYTES)
        self._body = self._identified = None
        self._reader.reset()
        self._take_kept()
        self._state.burst.flush()
        self._transport.write_eof()
        self._wait_until(self._state.clock() + LINGERING_SECONDS)

    def _close(self) -> None:
        """Close once everything written has left; a caller who does not read is given as long as any slow reader."""
        self._stage, self._known = Stage.CLOSING, None
        self._wait_until(self._state.clock() + self._state.limits.stall_seconds)
        self._state.burst.flush()
        self._transport.close()
