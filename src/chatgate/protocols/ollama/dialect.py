"""Ollama's protocol as the pipeline speaks it: callers' bodies in, objects, lines and errors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chatgate.protocols import openai_chat, openai_errors
from chatgate.protocols.ollama.answer import CHAT, Times, from_completion, to_completion
from chatgate.protocols.ollama.call import OllamaCall, decode_call
from chatgate.protocols.ollama.encoder import Encoder
from chatgate.protocols.ollama.relay import OllamaRelay, PassingRelay
from chatgate.vocabulary.errors import CallerError, GateError, Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from chatgate.protocols.ollama.call import Clocks
    from chatgate.protocols.openai_stream import Relay
    from chatgate.vocabulary.chat import Asked, Usage
    from chatgate.vocabulary.upstreams import Protocol


_LINES_HEAD = b"content-type: application/x-ndjson\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class OllamaDialect:
    """Ollama's chats or completions, answered by OpenAI's protocol. Streams are lines, which have no comments."""

    stream_head = _LINES_HEAD
    keep_alive = b""

    def __init__(
        self, protocol: Protocol, known: Collection[str], clocks: Clocks, *, drops_parts: bool = False
    ) -> None:
        """`known` are the names of the gateway's models.

        `drops_parts` says that parts of a call which a target's protocol cannot carry may go missing.
        """
        self._protocol: Protocol = protocol
        self._known = known
        self._clocks = clocks
        self._drops_parts = drops_parts
        self._passing = self if isinstance(self, PassingDialect) else PassingDialect(protocol, known, clocks)

    def at(self, protocol: Protocol) -> OllamaDialect:
        """Return the dialect for upstreams of a protocol: answers in Ollama's own pass through."""
        return self._passing if protocol == self._protocol else self

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        refuse_form(content_type)
        began_at = self._clocks.monotonic()
        return decode_call(body, self._protocol, self._known, began_at, drops_parts=self._drops_parts)

    def relay(self, asked: Asked) -> OllamaRelay:
        """Return what turns the upstream's stream into the caller's."""
        return OllamaRelay(self._encoder(asked))

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        usage = openai_chat.check_answer(body)
        call = asked.foreign
        assert isinstance(call, OllamaCall)  # noqa: S101 - narrows for the type checker; `decode` made it
        times = Times(call.began_at, None, self._clocks.monotonic())
        return from_completion(body, call.shape, call.model, self._clocks.wall(), times), usage

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""
        return openai_errors.status_of(kind)

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:  # noqa: ARG002 - a port's method
        """Write an error's body; `message` is its text in the caller's language."""
        return msgspec.json.encode({"error": message})

    def encode_error_event(
        self,
        error: GateError,
        message: str,
        request_id: str,
        relay: Relay | None = None,  # noqa: ARG002 - a port's method
    ) -> bytes:
        """Write the line that ends a stream which broke."""
        return self.encode_error(error, message, request_id) + b"\n"

    def _encoder(self, asked: Asked) -> Encoder:
        call = asked.foreign
        if not isinstance(call, OllamaCall):
            return Encoder(CHAT, asked.chat.asked_model, self._clocks, self._clocks.monotonic())
        return Encoder(call.shape, call.model, self._clocks, call.began_at)


class PassingDialect(OllamaDialect):
    """Ollama's chats or completions, answered by Ollama's protocol: bytes pass through."""

    def relay(self, asked: Asked) -> OllamaRelay:
        """Return what passes the upstream's stream on to the caller."""
        return PassingRelay(self._encoder(asked))

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, openai_chat.check_answer(to_completion(body, 0))


def refuse_form(content_type: str) -> None:
    """Raise `CallerError` for a body that is declared to be a form with files."""
    if content_type.lower().startswith("multipart/"):
        raise CallerError(
            Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
        )
