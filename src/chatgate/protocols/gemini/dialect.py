"""Gemini's protocol as the pipeline speaks it: callers' bodies in, responses, pieces and errors out."""

from __future__ import annotations

from chatgate.protocols import openai_chat
from chatgate.protocols.gemini import errors
from chatgate.protocols.gemini.answer import to_response, usage_in
from chatgate.protocols.gemini.call import GeminiCall, decode_call
from chatgate.protocols.gemini.relay import BLANK, GeminiRelay, PassingRelay, framed_error
from chatgate.protocols.openai_stream import Relay
from chatgate.protocols.sse import STREAM_HEAD
from chatgate.vocabulary.chat import Asked, Usage
from chatgate.vocabulary.errors import CallerError, GateError, Kind
from chatgate.vocabulary.upstreams import Protocol

_ARRAY_HEAD = b"content-type: application/json\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class GeminiDialect:
    """Gemini's protocol, answered by OpenAI's."""

    keep_alive = BLANK

    def __init__(self, *, in_array: bool = False, drops_parts: bool = False) -> None:
        """`in_array` says that streams are one array, and not events.

        `drops_parts` says that parts of a call which a target's protocol cannot carry may go missing.
        """
        self._in_array = in_array
        self._drops_parts = drops_parts
        self.stream_head = _ARRAY_HEAD if in_array else STREAM_HEAD

    def at(self, protocol: Protocol) -> GeminiDialect:
        """Return the dialect for upstreams of a protocol: answers in Gemini's own pass through."""
        return _PASSING[self._in_array] if protocol == "gemini" else self

    def decode(self, body: bytes, content_type: str, parameter: str) -> Asked:
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        return decode_call(body, parameter, drops_parts=self._drops_parts)

    def relay(self, asked: Asked) -> GeminiRelay:
        """Return what turns the upstream's stream into the caller's."""
        return GeminiRelay(asked.chat.asked_model, shows_thoughts=_shows_thoughts(asked), in_array=self._in_array)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        usage = openai_chat.check_answer(body)
        return to_response(body, asked.chat.asked_model, shows_thoughts=_shows_thoughts(asked)), usage

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""
        return errors.status_of(kind)

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
        """Write an error's body; `message` is its text in the caller's language."""
        return errors.encode_error(error, message, request_id)

    def encode_error_event(self, error: GateError, message: str, request_id: str, relay: Relay | None = None) -> bytes:
        """Write what ends a stream which broke, where `relay` had come to; None when nothing had."""
        told = errors.encode_error(error, message, request_id)
        if isinstance(relay, GeminiRelay):
            return relay.fail(told)
        return framed_error(told, in_array=self._in_array, begun=False)


class PassingDialect(GeminiDialect):
    """Gemini's protocol, answered by Gemini's: bytes pass through."""

    def relay(self, asked: Asked) -> GeminiRelay:
        """Return what passes the upstream's stream on to the caller."""
        return PassingRelay(asked.chat.asked_model, shows_thoughts=_shows_thoughts(asked), in_array=self._in_array)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, openai_chat.read_usage(usage_in(body))


_PASSING = {in_array: PassingDialect(in_array=in_array) for in_array in (False, True)}


def _shows_thoughts(asked: Asked) -> bool:
    return isinstance(asked.foreign, GeminiCall) and asked.foreign.shows_thoughts
