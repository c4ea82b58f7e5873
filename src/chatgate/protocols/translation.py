"""Between a caller's protocol and an upstream's: how a call is put to it, and its answers are read.

All protocols meet in OpenAI's chat. An upstream that speaks another one has a `Translation`; a caller who speaks
another one has a dialect whose calls are `Foreign`. Where both speak the same, bytes pass through. Whoever adds a
protocol writes these two, and names them where the gateway is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct

from chatgate.protocols import openai_chat
from chatgate.protocols.losses import Losses
from chatgate.protocols.reading import Json
from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Target


class Written(Struct, frozen=True):
    """A call as an upstream is asked.

    `passes_type` says that the answer goes to the caller with the type that it has.
    `path` is where it goes below the base URL, "" for where chats go. `lines` are header lines that go with it.
    `dropped` are the fields that it goes without. `is_native` says that it is in the caller's own protocol, so that the
    answer is too.
    """

    body: bytes
    lines: bytes = b""
    dropped: tuple[str, ...] = ()
    is_native: bool = False
    path: str = ""
    passes_type: bool = False

    def onto(self, request: OutboundRequest) -> OutboundRequest:
        """Return a request that has the body already, with everything else."""
        head = request.head[:-2] + self.lines + b"\r\n"
        return OutboundRequest(request.origin, head, request.body, request.timeouts, self.is_native)


class Writing(Protocol):
    """How calls are put to upstreams of one protocol."""

    def write(
        self, asked: Asked, headers: Mapping[bytes, bytes], target: Target, chat_body: bytes | None, *, passes: bool
    ) -> Written:
        """Put a call to a target. Raises `CallerError` when it cannot be carried.

        `headers` are the caller's. `chat_body` is an OpenAI chat's body to be sent in place of the call's own, None for
        that. Without `passes` the answer has to come as OpenAI's.
        """


class StreamDecoder(Protocol):
    """Turns an upstream's stream, cut anywhere, into OpenAI's."""

    def feed(self, data: bytes) -> bytes:
        """Return whole events. Raises `UpstreamError`."""

    def end(self) -> bytes:
        """Return what is still to be said at the end of the body."""


class Translation(Writing, Protocol):
    """A protocol as upstreams speak it."""

    def decode_whole(self, body: bytes) -> bytes:
        """Return a whole answer as OpenAI's. Raises `UpstreamError`."""

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""

    def decoder(self) -> StreamDecoder:
        """Return what reads one stream."""


def through_chat(
    asked: Asked,
    target: Target,
    chat_body: bytes | None,
    translate: Callable[[Json], tuple[Json, Losses]],
    *,
    drops_parts: bool,
) -> tuple[bytes, tuple[str, ...]]:
    """Write a call in another protocol by way of OpenAI's chat; return the body, and what it goes without.

    `chat_body` and `drops_parts` are as elsewhere. Raises `CallerError` when it cannot be carried.
    """
    dropped: tuple[str, ...] = ()
    if chat_body is None and asked.foreign is not None:
        chat_body, dropped = asked.foreign.encode_chat(target)
    elif chat_body is None:
        chat_body = openai_chat.encode_request(asked.chat, target)
    request, losses = translate(msgspec.json.decode(chat_body))
    return msgspec.json.encode(request), dropped + losses.dropped(drops_parts=drops_parts)


class ChatWriting:
    """Calls of callers with another protocol, put to upstreams that speak OpenAI's chat."""

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,
        *,
        passes: bool,  # noqa: ARG002 - the same
    ) -> Written:
        """Put a call to a target."""
        if chat_body is not None:
            return Written(chat_body)
        assert asked.foreign is not None  # noqa: S101 - narrows for the type checker; the others are written directly
        body, dropped = asked.foreign.encode_chat(target)
        return Written(body, dropped=dropped)


class PassingWriting:
    """Calls of callers that an upstream understands besides OpenAI's chat: they go there as they are."""

    def __init__(self, path: str) -> None:
        """`path` is where such calls go, below the base URL."""
        self._path = path

    def write(
        self,
        asked: Asked,
        headers: Mapping[bytes, bytes],  # noqa: ARG002 - a port's method
        target: Target,
        chat_body: bytes | None,  # noqa: ARG002 - the same: a stream of these is never gone on with
        *,
        passes: bool,  # noqa: ARG002 - the same
    ) -> Written:
        """Put a call to a target."""
        assert asked.foreign is not None  # noqa: S101 - narrows for the type checker; only these come here
        return Written(asked.foreign.encode_own(target.sent_model), is_native=True, path=self._path)
