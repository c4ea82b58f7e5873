"""How many tokens a request has: asked of the provider where it can tell, else estimated.

Owns who is asked. A count costs no money, but is a call like any other for limits on requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chatgate.attempts.attempt import MAX_ERROR_BYTES, lacks_key, secret_for
from chatgate.protocols import openai_errors, token_estimate
from chatgate.protocols.anthropic import errors
from chatgate.protocols.anthropic.call import decode_call
from chatgate.protocols.anthropic.upstream import passed_lines
from chatgate.providers import failures
from chatgate.refusals import JSON_TYPE
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.exchange import Decoded, Reply
from chatgate.vocabulary.upstreams import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.admitting import Admitting
    from chatgate.providers.requests import Requests
    from chatgate.routing.table import Routing
    from chatgate.telemetry import Redaction
    from chatgate.vocabulary.exchange import Identified, Sender
    from chatgate.vocabulary.upstreams import Target

_TIMEOUTS = Timeouts(connect_seconds=3.0, first_token_seconds=10.0, idle_seconds=5.0, total_seconds=15.0)
_ESTIMATED = b"x-chatgate-estimated: true\r\n"
_OK, _BAD_REQUEST, _TOO_LARGE = 200, 400, 413
_SAID = ("system", "messages", "tools")


class Counting:
    """Counts the tokens of Anthropic requests."""

    def __init__(
        self,
        *,
        routing: Routing,
        admitting: Admitting,
        requests: Mapping[str, Requests],
        sender: Sender,
        redaction: Redaction,
    ) -> None:
        """Take the parts. `requests` go by the upstream's name; `sender` carries them as they are."""
        self._routing = routing
        self._admitting = admitting
        self._requests = requests
        self._sender = sender
        self._redaction = redaction

    async def count(self, identified: Identified, body: bytes) -> Reply:
        """Return the count of a request's tokens. Raises `CallerError`, as the call itself would for what it asks."""
        asked = decode_call(body, drops_parts=True, needs_limit=False)
        model, caller = asked.chat.asked_model, identified.caller
        route = self._routing.find(model)
        if not self._admitting.may_ask(caller, model):
            raise CallerError(Kind.PERMISSION_DENIED, "key_model_not_allowed", parameters={"model": model[:100]})
        await self._admitting.take(caller)
        decoded = Decoded(identified, caller, asked)
        for candidate in route.candidates:
            target = candidate.target
            if target.upstream.protocol == "anthropic" and not lacks_key(target, decoded):
                told = await self._ask(decoded, target)
                if told is not None:
                    return Reply(_OK, JSON_TYPE, told)
                break
        return Reply(_OK, JSON_TYPE + _ESTIMATED, msgspec.json.encode({"input_tokens": estimate(body)}))

    async def _ask(self, decoded: Decoded, target: Target) -> bytes | None:
        """Return what a provider answers, None when it does not count now. Raises `CallerError` for its refusal."""
        foreign, secret = decoded.asked.foreign, secret_for(target, decoded)
        assert foreign is not None  # noqa: S101 - narrows for the type checker; it was just decoded as one
        body = foreign.encode_own(target.sent_model)
        lines = passed_lines(decoded.identified.envelope.headers)
        try:
            request = self._requests[target.upstream.name].count_tokens(body, lines, secret, _TIMEOUTS)
            answer = await self._sender.send(request)
            try:
                told = await answer.read(MAX_ERROR_BYTES)
            finally:
                answer.close()
        except UpstreamError:
            return None
        if answer.status not in (_BAD_REQUEST, _TOO_LARGE):
            return told if answer.status == _OK else None
        status, told = errors.to_openai_error(answer.status, told)
        said = openai_errors.read_error(told)
        raise failures.failure_of(
            status,
            message=self._redaction.text(said.message, secret) if said.message else None,
            code=said.code,
            param=None,
            retry_after_seconds=None,
            model=decoded.asked.chat.asked_model,
            own_key=secret != target.api_key,
        )


def estimate(body: bytes) -> int:
    """Return about how many tokens an Anthropic request has that was found to be one."""
    request = msgspec.json.decode(body)
    messages = len(request["messages"])
    return sum(token_estimate.of_json(request.get(name)) for name in _SAID if request.get(name) is not None) + (
        messages * token_estimate.MESSAGE_TOKENS
    )
