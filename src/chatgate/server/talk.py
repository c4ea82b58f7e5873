"""One caller's WebSocket: frames in, turns to the gateway, messages out, and when it has to end.

The frames are `websockets`' business (masks, fragments, sizes, control frames, the closing handshake), without its
I/O; no extension is agreed to, so nothing is compressed. What is said is the `Conversation`'s. Turns of one lane follow
each other, as many lanes as `MAX_CALLS` run beside each other, and what waits is bounded, or nothing more is read.

`connection` makes one when its caller has been let in, and hands the transport over; the sweep and the drain of
`serving` treat it as any connection.

Source: RFC 6455, sections 4.2, 5 and 7 (read 2026-11-23).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import Final

from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from chatgate.server.run import Run
from chatgate.server.state import ServerState
from chatgate.server.writing import INFINITY, Writing
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Conversation, Envelope, Turn

MAX_CALLS: Final = 16
"""So many turns run beside each other, as the vendor has it; the others wait."""

MAX_WAITING: Final = 16
"""So many turns wait before nothing more is read."""

PIECE_BYTES: Final = 8 << 10
"""So much is read before other connections have their turn: the smallest frames take six bytes each."""

FAREWELL_SECONDS: Final = 2.0
"""How long the other side may take to answer a close."""

_SWITCHING: Final = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
_FRAMES_LOG: Final = logging.getLogger("chatgate.server.frames")
_FRAMES_LOG.setLevel(logging.WARNING)  # The library tells of every connection that ends.


def accept_key(envelope: Envelope) -> bytes:
    """Return the header lines that accept a handshake. Raises `CallerError` for what is none."""
    headers = Headers((name.decode(), value.decode("latin-1")) for name, value in envelope.headers.items())
    response = ServerProtocol(logger=_FRAMES_LOG).accept(Request(envelope.path, headers, envelope.method))
    if response.status_code != 101:  # noqa: PLR2004 - Switching Protocols
        raise CallerError(Kind.INVALID_VALUE, "bad_request")
    return _SWITCHING % response.headers["Sec-WebSocket-Accept"].encode()


class _Call:
    """A turn that runs: the `Channel` that the gateway is handed."""

    __slots__ = ("_talk", "lane", "run")

    def __init__(self, talk: Talk, lane: str) -> None:
        self._talk = talk
        self.lane = lane
        self.run: Run | None = None

    @property
    def is_congested(self) -> bool:
        """Tell whether the caller reads more slowly than is sent."""
        return self._talk.is_congested

    def send(self, text: bytes) -> None:
        """Send a whole message."""
        self._talk.say(text)

    def ping(self) -> None:
        """Send a ping."""
        self._talk.ping()

    def cancel(self, message: str) -> None:
        """Cancel the turn, with a message; nothing when it has ended."""
        if self.run is not None:
            self.run.cancel(message)

    async def drained(self) -> None:
        """Return at once while the caller reads; else when it reads again, or has left."""
        await self._talk.drained()


class Talk(Writing):
    """A connection after its handshake."""

    __slots__ = (
        "_began_at",
        "_calls",
        "_conversation",
        "_drained",
        "_ends_at",
        "_frames",
        "_heard_at",
        "_is_acting",
        "_is_ending",
        "_is_reading",
        "_last_at",
        "_left",
        "_message",
        "_received",
        "_received_bytes",
        "_unread",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, state: ServerState, transport: asyncio.Transport, conversation: Conversation) -> None:
        """Take a connection over whose handshake has been answered; `begin` makes it the transport's protocol."""
        super().__init__(state)
        self._transport = transport
        self._conversation = conversation
        limits, now = state.limits, state.clock()
        self._frames = ServerProtocol(state=State.OPEN, max_size=limits.body_bytes, logger=_FRAMES_LOG)
        self._unread = b""
        self._received: deque[Frame] = deque()
        self._message: bytearray | None = None
        self._began_at: float | None = None
        self._received_bytes = 0
        self._waiting: deque[tuple[Turn, int]] = deque()
        self._waiting_bytes = 0
        self._calls: dict[str, _Call] = {}
        self._drained: list[asyncio.Future[None]] = []
        self._is_reading = True
        self._is_acting = self._is_ending = self._left = False
        self._heard_at = self._last_at = now
        self._ends_at = now + limits.talk_seconds

    def begin(self, *, paused: bool) -> None:
        """Hear what comes from now on; `paused` says that the transport waits for a slow reader."""
        self._state.connections.add(self)
        self._transport.set_protocol(self)
        if paused:
            self.pause_writing()
        else:
            self._look_again()
        if self._state.draining:
            self.close_if_idle()

    @property
    def calls(self) -> int:
        """Return how many turns are being served."""
        return len(self._calls)

    def say(self, text: bytes) -> None:
        """Send a message, which is UTF-8; nothing once the connection is ending."""
        if self._frames.state is State.OPEN:
            self._frames.send_text(text)
            self._flush()

    def ping(self) -> None:
        """Ask whether the other side is there; nothing once the connection is ending."""
        if self._frames.state is State.OPEN:
            self._frames.send_ping(b"")
            self._flush()

    async def drained(self) -> None:
        """Return at once while the caller reads; else when it reads again, or has left."""
        if self.is_congested and not self._left:
            # Each has a future of its own: whoever is cancelled while it waits must not end the waiting of the others.
            waiting = asyncio.get_running_loop().create_future()
            self._drained.append(waiting)
            await waiting

    def data_received(self, data: bytes) -> None:
        """Take bytes (called by the transport)."""
        self._heard_at = self._state.now
        self._unread += data
        self._go_on()

    def eof_received(self) -> bool:
        """Close: whoever sends no more is taken to have left (called by the transport)."""
        self._frames.receive_eof()
        self._flush()
        self._leave()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why it ended changes nothing here
        """Forget the connection (called by the transport)."""
        self._state.connections.discard(self)
        self._gone()

    def pause_writing(self) -> None:
        """Begin to wait for a slow reader (called by the transport)."""
        super().pause_writing()
        self._hold_if_needed()

    def resume_writing(self) -> None:
        """Go on with what waited for a slow reader (called by the transport)."""
        self.is_congested = False
        self._look_again()
        self._wake()
        self._go_on()

    def expire(self, now: float) -> None:
        """Do what is due (called by the sweep)."""
        limits = self._state.limits
        silent_seconds = now - self._heard_at if self._is_reading else 0.0
        if self.is_congested:
            if self._is_stalled(now):
                self.abort()
            return
        if self._left or silent_seconds >= 2 * limits.ping_seconds:
            self.abort()
            return
        if now >= self._ends_at and not self._is_ending:
            state = self._state
            self.say(self._conversation.farewell(state.gate, state.new_request_id(), now))
            self.close_if_idle()
        elif not self._calls and now - self._last_at >= limits.talk_idle_seconds:
            self.close_if_idle()
        elif self._is_too_slow(now):
            self._end(CloseCode.POLICY_VIOLATION, "the message took too long")
        elif silent_seconds >= limits.ping_seconds:
            self.ping()
        self._look_again()

    def cancel(self, message: str) -> None:
        """Cancel the turns that are being served, with a message, and forget those that wait."""
        self._is_ending = True
        self._forget_waiting()
        for call in list(self._calls.values()):
            call.cancel(message)

    def close_if_idle(self) -> None:
        """Close, when the turns that are being served have ended (called by the drain)."""
        self._is_ending = True
        self._forget_waiting()
        if not self._calls:
            self._end(CloseCode.GOING_AWAY)

    def _go_on(self) -> None:
        """Act on what has come, a piece at a time, as long as no more than enough is waiting."""
        if self._is_acting:
            return  # A turn that ended at once has come back here.
        self._is_acting = True
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - the boundary: a bug ends one connection and is logged sparingly
            self._state.report(error)
            self.abort()
        self._is_acting = False
        if self._unread and not self._is_full:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._hold_if_needed()

    def _act(self) -> None:
        if not self._received and self._unread and not self._is_full:
            piece, self._unread = self._unread[:PIECE_BYTES], self._unread[PIECE_BYTES:]
            self._read(piece)
        while self._received and not self._is_full:
            self._take(self._received.popleft())

    def _read(self, piece: bytes) -> None:
        """Make frames of bytes."""
        self._frames.receive_data(piece)
        frames = [event for event in self._frames.events_received() if isinstance(event, Frame)]
        self._received.extend(frames)
        self._received_bytes += len(piece)
        if self._began_at is None and not frames:
            self._began_at, self._received_bytes = self._state.now, len(piece)
        self._flush()

    @property
    def _is_full(self) -> bool:
        has_enough = len(self._waiting) >= MAX_WAITING or self._waiting_bytes > self._state.limits.body_bytes
        return self.is_congested or has_enough

    def _hold_if_needed(self) -> None:
        """Read on or stop reading: what a caller sends too much of stays in its own buffers."""
        wants_more = not (self._is_full or self._unread)
        if wants_more == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = wants_more
        if wants_more:
            self._heard_at = self._state.now
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.CONT:
                if self._message is None:
                    self._message = bytearray()
                    self._began_at = self._began_at or self._state.now
                self._message += frame.data
                if frame.fin:
                    text, self._message, self._began_at = bytes(self._message), None, None
                    self._hear(text)
            case Opcode.BINARY:
                self._end(CloseCode.UNSUPPORTED_DATA, "messages are text")
            case _ if self._message is None:  # The library has answered pings, and closes.
                self._began_at = None

    def _hear(self, text: bytes) -> None:
        """Take a whole message: its turn comes at once, or after those before it."""
        if self._is_ending or self._left:
            return
        try:
            text.decode()
        except UnicodeDecodeError:
            self._end(CloseCode.INVALID_DATA, "messages are UTF-8")
            return
        state = self._state
        self._waiting.append((self._conversation.take(text, state.new_request_id(), state.clock()), len(text)))
        self._waiting_bytes += len(text)
        self._begin_turns()

    def _begin_turns(self) -> None:
        """Begin what may begin: the first that waits of each lane in which nothing runs."""
        for waiting in list(self._waiting):
            turn, size = waiting
            if len(self._calls) < MAX_CALLS and turn.lane not in self._calls and waiting in self._waiting:
                self._waiting.remove(waiting)
                self._waiting_bytes -= size
                call = self._calls[turn.lane] = _Call(self, turn.lane)
                call.run = Run(turn.serve(self._state.gate, call), partial(self._end_call, call))
                call.run.step()

    def _end_call(self, call: _Call, run: Run, error: BaseException | None) -> None:
        """Go on with what waits, or end the connection (called by the run)."""
        if isinstance(error, Exception):
            self._state.report(error)
        if self._left:
            self._state.departed.discard(run)
            return
        del self._calls[call.lane]
        self._last_at = self._state.now
        if error is not None:
            self._end(CloseCode.INTERNAL_ERROR)
        elif self._is_ending or self._state.draining:
            self.close_if_idle()
        else:
            self._begin_turns()
            self._go_on()

    def _end(self, code: CloseCode, why: str = "") -> None:
        """Begin the closing handshake; whatever still runs has lost its caller."""
        if self._frames.state is State.OPEN:
            self._frames.send_close(code, why)
        self._flush()

    def _flush(self) -> None:
        """Write what the frames' protocol has to say, and leave when it has said its last word."""
        told = self._frames.data_to_send()
        if told:
            self._state.burst.flush()
            self._transport.write(b"".join(told))
            if not told[-1] and not self._transport.is_closing():  # The library's word for the end.
                self._transport.write_eof()
        if self._frames.state is not State.OPEN:
            self._leave()

    def _leave(self) -> None:
        """Cancel what nobody waits for any more; what is written may still go out."""
        if self._left:
            return
        self._left = True
        self._conversation.end()
        self._forget_waiting()
        self._unread, self._message = b"", None
        self._received.clear()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.run is not None and not call.run.is_over:
                self._state.depart(call.run)
        self._wake()
        self._look_again()

    def _gone(self) -> None:
        self._leave()
        self.deadline = INFINITY

    def _forget_waiting(self) -> None:
        self._waiting.clear()
        self._waiting_bytes = 0

    def _wake(self) -> None:
        waiting, self._drained = self._drained, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def _is_too_slow(self, now: float) -> bool:
        """Tell whether a message is sent more slowly than a body may be."""
        limits = self._state.limits
        earned_seconds = limits.body_seconds + self._received_bytes / limits.body_bytes_per_second
        return self._began_at is not None and now >= self._began_at + earned_seconds

    def _look_again(self) -> None:
        """Set the deadline, unless it is that of a slow reader."""
        if not self.is_congested:
            seconds = FAREWELL_SECONDS if self._left else self._state.limits.ping_seconds / 2
            self.deadline = self._state.clock() + seconds
