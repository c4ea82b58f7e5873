"""Anthropic's Messages as the pipeline speaks them: callers' bodies in, messages, events and errors out."""

from __future__ import annotations

from chatgate.protocols import openai_chat, sse
from chatgate.protocols.anthropic import errors
from chatgate.protocols.anthropic.call import MessagesCall, decode_call
from chatgate.protocols.anthropic.message import to_completion, to_message
from chatgate.protocols.anthropic.relay import AnthropicRelay, PassingRelay
from chatgate.protocols.openai_stream import Relay
from chatgate.vocabulary.chat import Asked, Usage
from chatgate.vocabulary.errors import CallerError, GateError, Kind
from chatgate.vocabulary.upstreams import Protocol


class AnthropicDialect(sse.EventDialect):
    """Anthropic's Messages, answered by OpenAI's protocol."""

    def __init__(self, *, drops_parts: bool = False) -> None:
        """`drops_parts` says that parts of a call which a target's protocol cannot carry may go missing."""
        self._drops_parts = drops_parts

    def at(self, protocol: Protocol) -> AnthropicDialect:
        """Return the dialect for upstreams of a protocol: answers in Anthropic's own pass through."""
        return PASSING if protocol == "anthropic" else self

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        return decode_call(body, drops_parts=self._drops_parts)

    def relay(self, asked: Asked) -> AnthropicRelay:
        """Return what turns the upstream's stream into the caller's."""
        return AnthropicRelay(asked.chat.asked_model, _stops(asked))

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        usage = openai_chat.check_answer(body)
        return to_message(body, asked.chat.asked_model, _stops(asked)), usage

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""
        return errors.status_of(kind)

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
        """Write an error's body; `message` is its text in the caller's language."""
        return errors.encode_error(error, message, request_id)

    def encode_error_event(
        self,
        error: GateError,
        message: str,
        request_id: str,
        relay: Relay | None = None,  # noqa: ARG002 - a port's method
    ) -> bytes:
        """Write the event that ends a stream which broke."""
        return errors.encode_event(error, message, request_id)


class PassingDialect(AnthropicDialect):
    """Anthropic's Messages, answered by Anthropic's protocol: bytes pass through."""

    def relay(self, asked: Asked) -> AnthropicRelay:
        """Return what passes the upstream's stream on to the caller."""
        return PassingRelay(asked.chat.asked_model, _stops(asked))

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, openai_chat.check_answer(to_completion(body, 0))


PASSING = PassingDialect()


def _stops(asked: Asked) -> tuple[str, ...]:
    return asked.foreign.stops if isinstance(asked.foreign, MessagesCall) else ()
