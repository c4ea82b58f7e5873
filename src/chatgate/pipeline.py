"""The story of a model call, stage by stage. The first file to read.

    arrive     server, endpoints      -                          Envelope
    identify   admission              who is it, from where?     Identified
    decode     protocols              what do they want?         Decoded
    admit      routing, admission     may they, now?             Admitted
    route      routing                which target?              Routed
    call       providers, transport   send                       Answered
    deliver    protocols              in the caller's format     bytes
    settle     telemetry              how did it end?            Settled

`identify` sees the head only, before the body is read. Everything after it runs in one task per call; when the caller
leaves, that task is cancelled, wherever it waits, and the upstream's connection is closed on the way out. A refused
call takes nothing from any limit.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from chatgate.admission.keys import check_key, key_of_head
from chatgate.admission.limits import ratelimit_headers
from chatgate.protocols import openai_chat, openai_errors, sse
from chatgate.providers import failures
from chatgate.refusals import JSON_TYPE, Refusals, limit_reached
from chatgate.vocabulary.chat import Usage
from chatgate.vocabulary.errors import CallerError, GateError, InternalError, Kind, Overloaded, UpstreamError
from chatgate.vocabulary.exchange import (
    Admitted,
    Answered,
    Decoded,
    Identified,
    Operation,
    Outcome,
    Reply,
    Routed,
    Settled,
    Surface,
)
from chatgate.vocabulary.identity import Caller, KeyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from chatgate.admission.addresses import Address, Addresses
    from chatgate.admission.keys import Door
    from chatgate.admission.limits import Limits, Standing
    from chatgate.providers.requests import Requests
    from chatgate.routing import Routing
    from chatgate.telemetry import Redaction
    from chatgate.vocabulary.chat import Asked
    from chatgate.vocabulary.exchange import CallerPort, Endpoint, Envelope, Sender
    from chatgate.vocabulary.upstreams import Target

MAX_ANSWER_BYTES = 32 << 20
"""The longest whole answer that is taken from an upstream."""

MAX_ERROR_BYTES = 64 << 10
"""As much of a provider's error body is read."""

DRAINING = "draining"
"""The message with which the server cancels a call that has outlived the grace of a shutdown."""

_LOG = logging.getLogger(__name__)
_EVENTS_TYPE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
_OK = 200
_CLIENT_CLOSED_REQUEST = 499


# A look at an Enum's member costs more than one at a name of the module.
_PLAIN, _OPENAI, _CHAT = Surface.PLAIN, Surface.OPENAI, Operation.CHAT
_NO_KEY, _PROVIDER_KEY = KeyKind.NONE, KeyKind.PROVIDER
_COMPLETED, _REFUSED, _UPSTREAM_FAILED = Outcome.COMPLETED, Outcome.REFUSED, Outcome.UPSTREAM_FAILED


class Relay(Protocol):
    """Turns an upstream's stream into the caller's."""

    done: bool
    error: UpstreamError | None
    usage: Usage | None

    def feed(self, data: bytes) -> bytes:
        """Return what can be sent now."""

    def end(self) -> bytes:
        """Return what is still to be sent at the upstream's regular end."""


class Dialect(Protocol):
    """A protocol as callers speak it."""

    def decode(self, body: bytes, content_type: str) -> Asked:
        """Read a caller's body. Raises `CallerError`."""

    def relay(self, asked: Asked) -> Relay:
        """Return what turns the upstream's stream into the caller's."""

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
        """Write an error's body."""


class Observer(Protocol):
    """Who is told how calls end."""

    def call(self, settled: Settled) -> None:
        """Take note of the end of a call."""


class _Progress(Struct, gc=False):
    """What is known of a call so far; becomes `Settled` at its end, whatever that is."""

    outcome: Outcome = _REFUSED
    asked_model: str = ""
    upstream: str = ""
    secret: str = ""
    status: int = 0
    code: str = ""
    stream: bool = False
    first_token_at: float | None = None
    usage: Usage | None = None


class Pipeline:
    """Carries calls through the stages. Built by `app`."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part by its name
        self,
        *,
        dialects: Mapping[Surface, Dialect],
        refusals: Refusals,
        addresses: Addresses,
        door: Door,
        limits: Limits,
        routing: Routing,
        requests: Mapping[str, Requests],
        senders: Mapping[str, Sender],
        redaction: Redaction,
        observers: tuple[Observer, ...],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Take the parts. `requests` and `senders` go by the upstream's name; `clock` is monotonic, in seconds."""
        self._dialects = dialects
        self._refusals = refusals
        self._addresses = addresses
        self._door = door
        self._limits = limits
        self._routing = routing
        self._requests = requests
        self._senders = senders
        self._redaction = redaction
        self._observers = observers
        self._clock = clock
        self._wall_clock = wall_clock

    def locate(self, envelope: Envelope) -> Address:
        """Tell where a call comes from."""
        return self._addresses.caller_address(envelope.peer, envelope.headers.get(b"x-forwarded-for"))

    def standing_of(self, counted_as: int) -> bytes:
        """Return the header lines that tell where a caller stands with the limits."""
        return ratelimit_headers(self._limits.standing(counted_as))

    def take(self, counted_as: int) -> Standing:
        """Take a call from every limit of a caller, or raise `CallerError` when one stands in the way."""
        standing = self._limits.admit(counted_as)
        if not standing.admitted:
            raise limit_reached(standing)
        return standing

    def identify(self, envelope: Envelope, endpoint: Endpoint, address: Address) -> Identified:
        """Tell from the head alone who calls, and let them in.

        Raises `CallerError` when the address may not enter, or the key opens nothing.
        """
        if not address.may_enter:
            raise CallerError(Kind.PERMISSION_DENIED, "address_not_allowed", parameters={"address": address.text})
        key = key_of_head(envelope.headers, envelope.query)
        # The pages and documents are for everyone who may come in, and the plain API may bring its key in the body.
        if endpoint.surface is _OPENAI or (key.kind is not _NO_KEY and endpoint.operation is _CHAT):
            self._door.check(key)
        caller = Caller(address.text, address.counted_as, key)
        return Identified(envelope, endpoint, caller, self._refusals.language_of(envelope.headers))

    async def answer(self, identified: Identified, body: bytes, port: CallerPort) -> None:
        """Carry a call from its body to its end. Never raises, except `CancelledError` when the caller left."""
        progress = _Progress()
        try:
            decoded = self._decode(identified, body)
            progress.asked_model = decoded.asked.chat.asked_model
            progress.stream = decoded.asked.chat.stream
            routed = self._route(self._admit(decoded))
            progress.outcome = _UPSTREAM_FAILED
            progress.upstream = routed.target.upstream.name
            progress.secret = routed.secret
            answered = await self._call(routed)
            try:
                await self._check(answered)
                await self._deliver(answered, port, progress)
            finally:
                answered.answer.close()
        except asyncio.CancelledError as cancelled:
            if cancelled.args[:1] == (DRAINING,):
                progress.outcome = _REFUSED  # By us: it is not the provider's doing.
                self._fail(identified, Overloaded(DRAINING), port, progress)
            else:
                progress.outcome, progress.status = Outcome.CLIENT_LEFT, _CLIENT_CLOSED_REQUEST
                raise
        except GateError as error:
            self._fail(identified, error, port, progress)
        except Exception:  # noqa: BLE001 - the boundary: a fault of ours ends one call, and is logged
            _LOG.exception("A call failed by a fault of ours: %s", identified.envelope.request_id)
            progress.outcome = _REFUSED
            self._fail(identified, InternalError(), port, progress)
        finally:
            self._settle(identified, progress)

    def _decode(self, identified: Identified, body: bytes) -> Decoded:
        """Read the body, and the key in it."""
        content_type = identified.envelope.headers.get(b"content-type", b"").decode("latin-1")
        asked = self._dialects[identified.endpoint.surface].decode(body, content_type)
        caller = identified.caller
        if identified.endpoint.surface is _PLAIN:
            key = check_key(asked.api_key)
            if key.kind is not _NO_KEY and caller.key.kind is not _NO_KEY and key != caller.key:
                parameters = {"first": "Authorization", "second": "api_key"}
                raise CallerError(Kind.INVALID_VALUE, "conflicting_fields", param="api_key", parameters=parameters)
            if caller.key.kind is _NO_KEY:
                self._door.check(key)
                caller = Caller(caller.address, caller.counted_as, key)
        return Decoded(identified, caller, asked)

    def _admit(self, decoded: Decoded) -> Admitted:
        """Ask every guard; the limits come last, so that a refusal by another takes nothing from them."""
        targets = self._routing.targets(decoded.asked.chat.asked_model)
        self._secret(targets[0], decoded)
        return Admitted(decoded, targets, ratelimit_headers(self.take(decoded.caller.counted_as)))

    def _route(self, admitted: Admitted) -> Routed:
        """Choose the target: the first one, until there are several to choose from."""
        target = admitted.targets[0]
        return Routed(admitted, target, self._secret(target, admitted.decoded))

    def _secret(self, target: Target, decoded: Decoded) -> str:
        """Return the key to show upstream: the caller's own only at the default upstream, else the operator's."""
        upstream, key = target.upstream, decoded.caller.key
        if upstream.is_default and key.kind is _PROVIDER_KEY:
            return key.secret
        if upstream.key_needed and not upstream.api_key:
            raise self._refusals.missing_key(decoded.identified.endpoint.surface)
        return upstream.api_key

    async def _call(self, routed: Routed) -> Answered:
        """Send the call; returns when the head of the answer is there."""
        decoded = routed.admitted.decoded
        upstream = routed.target.upstream
        body = openai_chat.encode_request(decoded.asked.chat, routed.target)
        request = self._requests[upstream.name].chat(body, routed.secret)
        return Answered(routed, await self._senders[upstream.name].send(request))

    async def _check(self, answered: Answered) -> None:
        """Raise what the head of the answer says, unless it says success."""
        answer = answered.answer
        if answer.status != _OK:
            raise await self._failure_of(answered)
        content_type = answer.headers.get(b"content-type", b"").lower()
        if content_type.find(b"html") >= 0:
            raise UpstreamError("upstream_bad_answer")
        if answered.routed.admitted.decoded.asked.chat.stream and content_type.startswith(b"application/json"):
            openai_chat.check_answer(await answer.read(MAX_ANSWER_BYTES))  # It may say what is wrong.
            raise UpstreamError("upstream_bad_answer")

    async def _failure_of(self, answered: Answered) -> GateError:
        """Turn a provider's refusal into what the caller is told, without anything secret in it."""
        answer, routed = answered.answer, answered.routed
        try:
            said = openai_errors.read_error(await answer.read(MAX_ERROR_BYTES))
        except UpstreamError:
            said = openai_errors.ProviderError()
        decoded = routed.admitted.decoded
        secret = routed.secret
        message, code, param = (
            self._redaction.text(text, secret) if text else None for text in (said.message, said.code, said.param)
        )
        return failures.failure_of(
            answer.status,
            message=message,
            code=code,
            param=param,
            retry_after_seconds=failures.retry_after(answer.headers, self._wall_clock),
            model=routed.target.sent_model or decoded.asked.chat.asked_model,
            own_key=secret != routed.target.upstream.api_key,
        )

    async def _deliver(self, answered: Answered, port: CallerPort, progress: _Progress) -> None:
        """Hand the answer to the caller in their format: whole, or as it comes."""
        admitted = answered.routed.admitted
        asked = admitted.decoded.asked
        envelope = admitted.decoded.identified.envelope
        dialect = self._dialects[admitted.decoded.identified.endpoint.surface]
        headers = self._refusals.ids_of(envelope) + admitted.headers
        if not asked.chat.stream:
            body = await answered.answer.read(MAX_ANSWER_BYTES)
            body, progress.usage = dialect.encode_whole(asked, body)
            progress.outcome, progress.status = _COMPLETED, _OK
            port.reply(Reply(_OK, headers + JSON_TYPE, body))
            return
        relay = dialect.relay(asked)

        def pass_on(out: bytes) -> None:
            if out:
                if progress.first_token_at is None:
                    progress.first_token_at = self._clock()
                    progress.status = _OK
                    port.start_stream(_OK, headers + _EVENTS_TYPE)
                port.send(out)

        def take(data: bytes) -> bool:
            pass_on(relay.feed(data))
            return not (relay.done or relay.error is not None or port.is_congested)

        try:
            while not relay.done:
                if await answered.answer.forward(take):
                    pass_on(relay.end())
                if relay.error is not None:
                    raise relay.error
                await port.drained()
        finally:
            progress.usage = relay.usage
        progress.outcome = _COMPLETED
        port.finish()
        answered.answer.release()

    def _fail(self, identified: Identified, error: GateError, port: CallerPort, progress: _Progress) -> None:
        """Tell the caller: by an answer of its own, or, once a stream has begun, by the event that ends it."""
        envelope, surface = identified.envelope, identified.endpoint.surface
        if error.provider_message:
            error.provider_message = self._redaction.text(error.provider_message, progress.secret)
        progress.code = error.kind
        if progress.first_token_at is not None:
            port.send(sse.event(self._refusals.body(surface, error, identified.language, envelope.request_id)))
            port.finish()
            return
        standing = self.standing_of(identified.caller.counted_as)
        reply = self._refusals.reply(surface, error, identified.language, envelope, standing)
        progress.status = reply.status
        port.reply(reply)

    def _settle(self, identified: Identified, progress: _Progress) -> None:
        """Tell the observers how the call ended."""
        envelope = identified.envelope
        now = self._clock()
        first = progress.first_token_at
        settled = Settled(
            request_id=envelope.request_id,
            operation=identified.endpoint.operation,
            surface=identified.endpoint.surface,
            address=identified.caller.address,
            asked_model=progress.asked_model,
            upstream=progress.upstream,
            status=progress.status,
            outcome=progress.outcome,
            code=progress.code,
            stream=progress.stream,
            duration_seconds=now - envelope.arrived_at,
            first_token_seconds=None if first is None else first - envelope.arrived_at,
            usage=progress.usage,
        )
        for observer in self._observers:
            observer.call(settled)
