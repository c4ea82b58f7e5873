"""How many tokens an Anthropic request has: what asks a provider for that, and what answers a caller.

Source: https://platform.claude.com/docs/en/api/messages-count-tokens (read 2026-11-23).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from chatgate.protocols import token_estimate
from chatgate.protocols.anthropic import errors
from chatgate.protocols.anthropic.call import decode_call
from chatgate.protocols.anthropic.upstream import passed_lines
from chatgate.protocols.counting import Question
from chatgate.vocabulary.chat import Asked
from chatgate.vocabulary.upstreams import Protocol, Target

_SAID = ("system", "messages", "tools")


class AnthropicCounting:
    """Requests of `/v1/messages/count_tokens`."""

    protocol: Protocol = "anthropic"

    def decode(self, body: bytes, parameter: str) -> Asked:  # noqa: ARG002 - a port's method
        """Read a caller's body. Raises `CallerError`, as the call itself would."""
        return decode_call(body, drops_parts=True, needs_limit=False)

    def question(self, asked: Asked, body: bytes, headers: Mapping[bytes, bytes], target: Target) -> Question:  # noqa: ARG002 - a port's method
        """Return what asks an Anthropic upstream."""
        foreign = asked.foreign
        assert foreign is not None  # noqa: S101 - narrows for the type checker; it was decoded as one
        return Question("/messages/count_tokens", foreign.encode_own(target.sent_model), passed_lines(headers))

    def decode_error(self, status: int, body: bytes) -> tuple[int, bytes]:
        """Return the status and the body of a refusal as OpenAI's."""
        return errors.to_openai_error(status, body)

    def estimate(self, body: bytes) -> bytes:
        """Return an answer with about how many tokens a request has that was found to be one."""
        request = msgspec.json.decode(body)
        count = sum(token_estimate.of_json(request.get(name)) for name in _SAID if request.get(name) is not None)
        return msgspec.json.encode({"input_tokens": count + len(request["messages"]) * token_estimate.MESSAGE_TOKENS})
