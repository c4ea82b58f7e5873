"""How many tokens a request has: asked of the provider where it can tell, else estimated.

Owns who is asked. A count costs no money, but is a call like any other for limits on requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chatgate.attempts.attempt import MAX_ERROR_BYTES, lacks_key, secret_for
from chatgate.protocols import openai_errors
from chatgate.providers import failures
from chatgate.refusals import JSON_TYPE
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.exchange import Decoded, Reply
from chatgate.vocabulary.upstreams import Timeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chatgate.admitting import Admitting
    from chatgate.protocols.counting import CountingProtocol
    from chatgate.providers.requests import Requests
    from chatgate.routing.table import Routing
    from chatgate.telemetry import Redaction
    from chatgate.vocabulary.exchange import Identified, Sender, Surface
    from chatgate.vocabulary.upstreams import Target

_TIMEOUTS = Timeouts(connect_seconds=3.0, first_token_seconds=10.0, idle_seconds=5.0, total_seconds=15.0)
_ESTIMATED = b"x-chatgate-estimated: true\r\n"
_OK, _BAD_REQUEST, _TOO_LARGE = 200, 400, 413


class Counting:
    """Counts the tokens of requests."""

    def __init__(
        self,
        *,
        protocols: Mapping[Surface, CountingProtocol],
        routing: Routing,
        admitting: Admitting,
        requests: Mapping[str, Requests],
        sender: Sender,
        redaction: Redaction,
    ) -> None:
        """Take the parts. `requests` go by the upstream's name; `sender` carries them as they are."""
        self._protocols = protocols
        self._routing = routing
        self._admitting = admitting
        self._requests = requests
        self._sender = sender
        self._redaction = redaction

    async def count(self, identified: Identified, body: bytes) -> Reply:
        """Return the count of a request's tokens. Raises `CallerError`, as the call itself would for what it asks."""
        spoken = self._protocols[identified.endpoint.surface]
        asked = spoken.decode(body, identified.endpoint.parameter)
        model, caller = asked.chat.asked_model, identified.caller
        route = self._routing.find(model)
        if not self._admitting.may_ask(caller, model):
            raise CallerError(Kind.PERMISSION_DENIED, "key_model_not_allowed", parameters={"model": model[:100]})
        await self._admitting.take(caller)
        decoded = Decoded(identified, caller, asked)
        for candidate in route.candidates:
            target = candidate.target
            if target.upstream.protocol == spoken.protocol and not lacks_key(target, decoded):
                told = await self._ask(spoken, decoded, body, target)
                if told is not None:
                    return Reply(_OK, JSON_TYPE, told)
                break
        return Reply(_OK, JSON_TYPE + _ESTIMATED, spoken.estimate(body))

    async def _ask(self, spoken: CountingProtocol, decoded: Decoded, body: bytes, target: Target) -> bytes | None:
        """Return what a provider answers, None when it does not count now. Raises `CallerError` for its refusal."""
        secret = secret_for(target, decoded)
        question = spoken.question(decoded.asked, body, decoded.identified.envelope.headers, target)
        try:
            request = self._requests[target.upstream.name].count_tokens(question, secret, _TIMEOUTS)
            answer = await self._sender.send(request)
            try:
                told = await answer.read(MAX_ERROR_BYTES)
            finally:
                answer.close()
        except UpstreamError:
            return None
        if answer.status not in (_BAD_REQUEST, _TOO_LARGE):
            return told if answer.status == _OK else None
        status, told = spoken.decode_error(answer.status, told)
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
