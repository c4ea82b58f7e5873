"""OpenAI's Responses over a WebSocket: what a caller says on one connection, turn by turn.

Each turn goes the way of a call over HTTP, from its head on: key, limits, budgets, ledger, log and metrics know no
difference. Owns what only a connection has: lanes, the memory of its latest responses, turns that only prepare another.
Made by the endpoints, carried by the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from chatgate.protocols.responses import turn as turns
from chatgate.protocols.responses.call import ResponsesCall
from chatgate.protocols.responses.session import to_usage
from chatgate.protocols.responses.turn import Recent, TurnEnvelope
from chatgate.vocabulary.errors import CallerError, InternalError
from chatgate.vocabulary.exchange import Decoded, Reply

if TYPE_CHECKING:
    from chatgate.protocols.openai_stream import Relay
    from chatgate.vocabulary.chat import Asked
    from chatgate.vocabulary.exchange import Channel, Envelope, Gate, Identified

RECENT_BYTES = 10 << 20
"""How much of what was said a connection remembers."""

_OK = 200
_NOTHING_USED = to_usage({"prompt_tokens": 0, "completion_tokens": 0})


class Dialect(Protocol):
    """Who reads callers' bodies."""

    def decode(self, body: bytes, content_type: str) -> Asked:
        """Read a caller's body. Raises `CallerError`."""


class Memory(Protocol):
    """Who keeps what callers go on from."""

    async def recall(self, decoded: Decoded) -> int:
        """Put what a call goes on from into it. Raises `GateError`."""

    async def keep(self, decoded: Decoded, answer: bytes | Relay) -> None:
        """Keep an answer."""


class Conversing:
    """Begins conversations, and prepares responses for them."""

    def __init__(self, dialect: Dialect, memory: Memory) -> None:
        """Take who reads requests, and who keeps what they go on from."""
        self._dialect = dialect
        self._memory = memory

    def begin(self, envelope: Envelope) -> Talking:
        """Begin the conversation of a connection with this head."""
        return Talking(envelope)

    async def prepare(self, identified: Identified, body: bytes) -> Reply:
        """Keep what a later turn goes on from; the answer is a response without output. Raises `GateError`."""
        decoded = Decoded(identified, identified.caller, self._dialect.decode(body, ""))
        call = decoded.asked.foreign
        assert isinstance(call, ResponsesCall)  # noqa: S101 - narrows for the type checker; the dialect is theirs
        await self._memory.recall(decoded)
        if not call.is_whole:
            raise call.unknown_previous()
        answer = msgspec.json.encode(call.session.response("completed", [], usage=_NOTHING_USED))
        await self._memory.keep(decoded, answer)
        return Reply(_OK, b"", answer)


class Talking:
    """What is said on one connection."""

    def __init__(self, envelope: Envelope) -> None:
        """Begin with the head that asked for the connection."""
        self._envelope = envelope
        self._recent = Recent(RECENT_BYTES)
        self._lanes: set[str] = set()

    def take(self, text: bytes, request_id: str, arrived_at: float) -> Turn:
        """Take a whole message; what is wrong with it is told in its turn."""
        lane, create, error = "", None, None
        try:
            fields = turns.read_fields(text)
            lane = self._enter(turns.lane_of(fields))
            create = turns.read_create(fields)
        except CallerError as refused:
            error = refused
        return Turn(self._head(lane, request_id, arrived_at), create, error)

    def farewell(self, gate: Gate, request_id: str, arrived_at: float) -> bytes:
        """Return the message that says that the connection is as old as any may grow."""
        return turns.error_message(gate.refuse(self._head("", request_id, arrived_at), turns.too_old()), "")

    def end(self) -> None:
        """Forget what was said."""
        self._recent.end()

    def _enter(self, lane: str) -> str:
        if lane and lane not in self._lanes:
            if len(self._lanes) >= turns.MAX_LANES:
                raise turns.too_many_lanes()
            self._lanes.add(lane)
        return lane

    def _head(self, lane: str, request_id: str, arrived_at: float) -> TurnEnvelope:
        head = self._envelope
        return TurnEnvelope(
            request_id, "POST", head.path, head.query, head.headers, head.peer, arrived_at, lane, self._recent
        )


class Turn:
    """One message of the caller's, and its answer."""

    def __init__(self, envelope: TurnEnvelope, create: turns.Create | None, error: CallerError | None) -> None:
        """Take what is asked, or what is wrong with the asking."""
        self._envelope = envelope
        self._create = create
        self._error = error

    @property
    def lane(self) -> str:
        """Return the lane, "" for that without a name."""
        return self._envelope.lane

    async def serve(self, gate: Gate, channel: Channel) -> None:
        """Answer it."""
        port = _Port(channel, self.lane)
        create = self._create
        if create is None:
            port.reply(gate.refuse(self._envelope, self._error or InternalError()))
            return
        verdict = gate.arrive(self._envelope)
        if isinstance(verdict, Reply):
            port.reply(verdict)
        elif create.prepares:
            port.reply(await gate.prepare(verdict, create.body))
        else:
            await gate.server_of(verdict.endpoint)(verdict, create.body, port)


class _Port:
    """The `CallerPort` of a turn: events become messages, refusals become one."""

    __slots__ = ("_channel", "_headers", "_lane")

    def __init__(self, channel: Channel, lane: str) -> None:
        self._channel = channel
        self._lane = lane
        self._headers = b""

    @property
    def is_congested(self) -> bool:
        """Tell whether the caller reads more slowly than is sent."""
        return self._channel.is_congested

    def reply(self, reply: Reply) -> None:
        """Send what a refusal says; the only answer that is no refusal is a prepared response."""
        if reply.status == _OK:
            for message in turns.prepared_messages(msgspec.json.decode(reply.body), self._lane):
                self._channel.send(message)
        else:
            self._channel.send(turns.error_message(reply, self._lane))

    def start_stream(self, status: int, headers: bytes, first: bytes = b"") -> None:  # noqa: ARG002 - a port's method
        """Begin an answer; its first message will say what the head says."""
        self._headers = headers
        self.send(first)

    def send(self, data: bytes) -> None:
        """Send the events that are in a piece of a stream; there are only whole ones."""
        for message in turns.messages_of(data, self._lane):
            if message is None:
                self._channel.ping()
                continue
            if self._headers:
                message = turns.with_headers(message, self._headers)  # noqa: PLW2901 - the first one alone
                self._headers = b""
            self._channel.send(message)

    takes_chunks = False

    def send_chunk(self, chunk: bytes) -> None:
        """Send nothing: there are no chunks here."""

    def finish(self, last: bytes = b"") -> None:
        """End the answer: its last event says so."""
        self.send(last)

    def cancel(self, message: str) -> None:
        """Cancel the turn, with a message."""
        self._channel.cancel(message)

    async def drained(self) -> None:
        """Return at once while the caller reads; else when it reads again."""
        await self._channel.drained()
