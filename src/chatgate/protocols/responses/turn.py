"""A turn of OpenAI's Responses over a WebSocket: the caller's event read as a request, the answer written as events.

An event of the caller's is the body of a request with a few fields of its own; each event of an answer is one message,
the data of what would be a server-sent event. `Recent` is what a connection remembers, for `store: false` too. Pure.
Source: https://developers.openai.com/api/docs/guides/websocket-mode, the `openai` package 3.54.0
(`types/responses/responses_client_event.py`, `responses_server_event.py`), and what Codex reads of errors:
https://github.com/openai/codex, codex-rs/codex-api/src/endpoint/responses_websocket.rs (all read 2026-11-23).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw, Struct

from chatgate.protocols import document, sse
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.exchange import Envelope, Reply

if TYPE_CHECKING:
    from chatgate.protocols.reading import Json

MAX_LANES = 32
"""How many lanes a connection may name."""

_CREATE = "response.create"
_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TRUE = Raw(b"true")
_ENVELOPE_FIELDS = ("type", "stream_id", "generate")
_ERROR_BEGINS = (b'{"type":"error"', b'{"type": "error"')
_TOLD_HEADERS = (b"x-request-id", b"retry-after", b"x-should-retry", b"x-ratelimit-", b"x-chatgate-")


class Create(Struct, frozen=True):
    """A `response.create`: its `body` as it would be posted, and whether it only `prepares` a later turn."""

    body: bytes
    prepares: bool


class Recent:
    """What the responses of one connection said last, one for each lane, in no more than `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        """Remember nothing yet."""
        self._limit_bytes = limit_bytes
        self._bodies: dict[str, tuple[str, bytes]] = {}

    def put(self, lane: str, identity: str, body: bytes) -> None:
        """Remember a lane's latest response, and forget the one before it and, for want of room, the oldest."""
        self._bodies.pop(lane, None)
        self._bodies[lane] = identity, body
        size = sum(len(each) for _, each in self._bodies.values())
        for oldest in list(self._bodies):
            if size <= self._limit_bytes:
                break
            size -= len(self._bodies.pop(oldest)[1])

    def end(self) -> None:
        """Forget everything, and remember nothing more: heads are kept longer than their connections."""
        self._limit_bytes = 0
        self._bodies.clear()

    def get(self, identity: str) -> bytes | None:
        """Return a response; None when it is not remembered."""
        return next((body for known, body in self._bodies.values() if known == identity), None)


class TurnEnvelope(Envelope, frozen=True, gc=False):
    """The head of a connection as one of its turns has it, and what is remembered for it."""

    lane: str
    recent: Recent


def lane_of(fields: dict[str, Raw]) -> str:
    """Return the lane that an event names, "" for none. Raises `CallerError`."""
    lane = msgspec.json.decode(fields["stream_id"]) if "stream_id" in fields else None
    if lane is None:
        return ""
    if not isinstance(lane, str) or not _LANE.fullmatch(lane):
        raise _unfit("stream_id", "invalid_stream_id")
    return lane


def read_fields(text: bytes) -> dict[str, Raw]:
    """Open a caller's event. Raises `CallerError`."""
    return document.parse(text).fields


def read_create(fields: dict[str, Raw]) -> Create:
    """Read an event as a `response.create`, the only one that is understood. Raises `CallerError`."""
    kind = msgspec.json.decode(fields["type"]) if "type" in fields else None
    if kind != _CREATE:
        raise _unfit("type")
    generates = msgspec.json.decode(fields["generate"]) if "generate" in fields else None
    if generates is not None and not isinstance(generates, bool):
        raise _unfit("generate")
    body = {name: value for name, value in fields.items() if name not in _ENVELOPE_FIELDS}
    return Create(msgspec.json.encode({**body, "stream": _TRUE}), generates is False)


def too_many_lanes() -> CallerError:
    """Return the refusal of a lane too many."""
    return CallerError(
        Kind.INVALID_VALUE,
        "websocket_lanes",
        param="stream_id",
        provider_code="websocket_stream_limit_reached",
        parameters={"limit": MAX_LANES},
    )


def too_old() -> CallerError:
    """Return what a connection is told that has reached its age."""
    return CallerError(Kind.INVALID_VALUE, "websocket_too_old", provider_code="websocket_connection_limit_reached")


def messages_of(events: bytes, lane: str) -> list[bytes | None]:
    """Return the messages for whole server-sent events; None for a comment, which is no message."""
    return [_message(sse.data_of(event), lane) for event in sse.EventSplitter().feed(events)]


def error_message(reply: Reply, lane: str) -> bytes:
    """Return the message for an answer that refuses a turn."""
    headers = _told(reply.headers)
    error = msgspec.json.decode(reply.body)["error"]
    # The vendor's schema has the headers in the error, Codex looks for them beside it.
    told = {"type": "error", "status": reply.status, "error": {**error, "headers": headers}, "headers": headers}
    return _in_lane(msgspec.json.encode(told), lane)


def with_headers(message: bytes, headers: bytes) -> bytes:
    """Put what the head of an answer says into its first message: there is no other place for it."""
    return b'%b,"headers":%b}' % (message.rstrip()[:-1], msgspec.json.encode(_told(headers)))


def prepared_messages(response: Json, lane: str) -> list[bytes]:
    """Return the messages of a response that was only prepared."""
    begun = {**response, "status": "in_progress"}
    told = [("response.created", begun), ("response.completed", response)]
    return [
        _in_lane(msgspec.json.encode({"type": kind, "sequence_number": number, "response": each}), lane)
        for number, (kind, each) in enumerate(told)
    ]


def _told(headers: bytes) -> dict[str, str]:
    """Return the header lines that a caller may want to act on, by their names."""
    return {
        name.decode(): value.strip().decode("latin-1")
        for name, _, value in (line.partition(b":") for line in headers.split(b"\r\n"))
        if name.startswith(_TOLD_HEADERS)
    }


def _message(data: bytes | None, lane: str) -> bytes | None:
    if not data:
        return None
    if data.startswith(_ERROR_BEGINS):
        data = _nested_error(data)
    return _in_lane(data, lane)


def _nested_error(data: bytes) -> bytes:
    """Write a stream's error event, which is flat, as a WebSocket's, which is not."""
    event = msgspec.json.decode(data)
    if isinstance(event.get("error"), dict):
        return data
    error = {"type": "server_error", **{name: event.pop(name, None) for name in ("code", "message", "param")}}
    return msgspec.json.encode({**event, "error": error})


def _in_lane(data: bytes, lane: str) -> bytes:
    """Put the lane into a message; a lane's name needs no escapes."""
    return b'{"stream_id":"%b",%b' % (lane.encode(), data.lstrip()[1:]) if lane else data


def _unfit(field: str, code: str | None = None) -> CallerError:
    return CallerError(
        Kind.INVALID_VALUE, "invalid_field", param=field, provider_code=code, parameters={"field": field}
    )
