"""OpenAI chat as the pipeline speaks it: callers' bodies in, answers and errors out, bytes passed through."""

from __future__ import annotations

from chatgate.protocols import openai_chat, openai_errors, sse
from chatgate.protocols.openai_stream import OpenAIRelay, Relay
from chatgate.vocabulary.chat import Asked, Usage
from chatgate.vocabulary.errors import CallerError, GateError, Kind
from chatgate.vocabulary.upstreams import Protocol


class OpenAIDialect(sse.EventDialect):
    """OpenAI chat, as the pipeline speaks it."""

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        return Asked(openai_chat.decode_request(body))

    def at(self, protocol: Protocol) -> OpenAIDialect:  # noqa: ARG002 - a port's method
        """Return the dialect for upstreams of a protocol: all answers come as OpenAI's."""
        return self

    def relay(self, asked: Asked) -> Relay:
        """Return what passes the upstream's stream on to the caller."""
        return OpenAIRelay(hide_usage=not asked.chat.wants_usage)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, openai_chat.check_answer(body)

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""
        return openai_errors.status_of(kind)

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:  # noqa: ARG002 - a port's method
        """Write an error's body; `message` is its text in the caller's language."""
        return openai_errors.encode_error(error, message)

    def encode_error_event(
        self,
        error: GateError,
        message: str,
        request_id: str,
        relay: Relay | None = None,  # noqa: ARG002 - a port's method
    ) -> bytes:
        """Write the event that ends a stream which broke."""
        return sse.event(self.encode_error(error, message, request_id))
