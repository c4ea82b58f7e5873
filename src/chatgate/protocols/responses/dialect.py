"""OpenAI's Responses as the pipeline speaks them: callers' bodies in, responses, events and errors out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chatgate.protocols import openai_chat, openai_errors, sse
from chatgate.protocols.responses.call import ResponsesCall, decode_call
from chatgate.protocols.responses.decoder import to_completion
from chatgate.protocols.responses.encoder import Encoder
from chatgate.protocols.responses.relay import PassingRelay, ResponsesRelay
from chatgate.vocabulary.errors import CallerError, GateError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.protocols.openai_stream import Relay
    from chatgate.vocabulary.chat import Asked, Usage
    from chatgate.vocabulary.upstreams import Protocol

_CODES = {
    Kind.RATE_LIMIT_EXCEEDED: "rate_limit_exceeded",
    Kind.INVALID_VALUE: "invalid_prompt",
    Kind.REQUEST_TOO_LARGE: "invalid_prompt",
}
"""What the vendor calls the situations that break a response; whatever else there is, is the server's."""


class ResponsesDialect(sse.EventDialect):
    """OpenAI's Responses, answered by OpenAI's chat."""

    def __init__(
        self, new_identity: Callable[[], str], now: Callable[[], float], *, keeps: bool, drops_parts: bool = False
    ) -> None:
        """Take what makes ids, and Unix time; `keeps` and `drops_parts` as in `decode_call`."""
        self._new_identity = new_identity
        self._now = now
        self._keeps = keeps
        self._drops_parts = drops_parts

    def decode(self, body: bytes, content_type: str, parameter: str = "") -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body, whatever it was declared to be, except for the forms that are never JSON."""
        if content_type.lower().startswith("multipart/"):
            raise CallerError(
                Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", parameters={"content_type": content_type[:100]}
            )
        return decode_call(
            body,
            new_identity=self._new_identity,
            now=self._now,
            keeps=self._keeps,
            drops_parts=self._drops_parts,
        )

    def at(self, protocol: Protocol) -> ResponsesDialect:
        """Return the dialect for upstreams of a protocol: answers in Responses pass through."""
        return PASSING if protocol == "openai_responses" else self

    def relay(self, asked: Asked) -> ResponsesRelay:
        """Return what turns the upstream's stream into the caller's."""
        return ResponsesRelay(_call(asked).session)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""
        usage = openai_chat.check_answer(body)
        return msgspec.json.encode(Encoder(_call(asked).session).whole(body)), usage

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
        request_id: str,  # noqa: ARG002 - a port's method
        relay: Relay | None = None,
    ) -> bytes:
        """Write the event that ends a stream which broke, where `relay` had come to; None when nothing had."""
        code = _CODES.get(error.kind, "server_error")
        if isinstance(relay, ResponsesRelay):
            return relay.fail(code, message, error.kind.value)
        told = {"type": "error", "sequence_number": 0, "code": code, "message": message, "param": error.param}
        return b"event: error\n" + sse.event(msgspec.json.encode(told))


class PassingDialect(ResponsesDialect):
    """OpenAI's Responses, answered by a provider that speaks them: bytes pass through."""

    def relay(self, asked: Asked) -> ResponsesRelay:
        """Return what passes the upstream's stream on to the caller."""
        return PassingRelay(_call(asked).session)

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:  # noqa: ARG002 - a port's method
        """Pass an upstream's whole answer on as it is, once it is seen to be one. Raises `UpstreamError`."""
        return body, openai_chat.check_answer(to_completion(body))


PASSING = PassingDialect(lambda: "", lambda: 0.0, keeps=False)


def _call(asked: Asked) -> ResponsesCall:
    assert isinstance(asked.foreign, ResponsesCall)  # noqa: S101 - narrows for the type checker; `decode` made it
    return asked.foreign
