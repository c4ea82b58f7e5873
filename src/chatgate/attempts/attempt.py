"""One try at one target: from the request to the moment when there is an answer to hand on.

Owns what counts as an answer. A whole one is there when all of it is; a stream when it has said its first word, for
what is wrong with it mostly shows until then, and can be mended as long as the caller has seen nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, cast

from msgspec import Struct, structs

from chatgate.admission.limits import NOTHING
from chatgate.counters.port import Taken
from chatgate.protocols import openai_chat, openai_errors
from chatgate.protocols.openai_media import FormCall
from chatgate.providers import failures
from chatgate.refusals import limit_reached
from chatgate.routing.candidates import LAST_RESORT_SECONDS
from chatgate.vocabulary.chat import Usage
from chatgate.vocabulary.errors import GateError, Kind, Remedy, UpstreamError
from chatgate.vocabulary.exchange import UploadRequest, Verdict
from chatgate.vocabulary.identity import KeyKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from chatgate.attempts.stages import Admitted
    from chatgate.counters.port import Counters
    from chatgate.protocols.openai_stream import Relay
    from chatgate.protocols.translation import Writing, Written
    from chatgate.providers.requests import Requests
    from chatgate.routing.candidates import Candidate
    from chatgate.telemetry import Redaction
    from chatgate.vocabulary.chat import Asked
    from chatgate.vocabulary.exchange import Answer, Decoded, OutboundRequest, Sender, UploadSender
    from chatgate.vocabulary.upstreams import Protocol as WireProtocol
    from chatgate.vocabulary.upstreams import Target, Upstream

MAX_ANSWER_BYTES = 32 << 20
"""The longest whole answer that is taken from an upstream."""

MAX_ERROR_BYTES = 64 << 10
"""As much of a provider's error body is read."""

_OK = 200
_JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8"})
_EVENT_TYPES = frozenset({b"text/event-stream", b"text/event-stream; charset=utf-8"})
_CHAT: WireProtocol = "openai_chat"
_PROVIDER_KEY = KeyKind.PROVIDER
_MORE, _NOTHING, _STOP = Verdict.MORE, Verdict.NOTHING, Verdict.STOP


class Dialect(Protocol):
    """The part of a caller's protocol that speaks of answers."""

    @property
    def stream_head(self) -> bytes:
        """Return the header lines of a stream."""

    @property
    def keep_alive(self) -> bytes:
        """Return what keeps a silent stream open, b"" for nothing."""

    def at(self, protocol: WireProtocol) -> Dialect:
        """Return the dialect for what upstreams of a protocol answer: OpenAI's, or the caller's own."""

    def relay(self, asked: Asked) -> Relay:
        """Return what turns the upstream's stream into the caller's."""

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""


class _NoAnswer:
    """What an attempt has before the head of its answer is there."""

    def close(self) -> None:
        """Hold nothing, so end nothing."""


_NO_ANSWER = cast("Answer", _NoAnswer())


class Attempt(Struct):
    """One try, under way at its candidate.

    `serial` counts the tries of the call from 1. `secret` is the key that is shown there, "" for none, `number` the
    try's number there. `receipt` is what it has taken of limits by upstream. `answer` is there once its head is. A
    whole answer ends up in `body`, and without a `usage` `got_bytes` of text were in it. A stream's `relay` turns it
    into the caller's, who gets `held` of it so far; `can_wait` says that comments are a reason to wait longer for its
    first word. `dropped` are the fields that were left out of what was asked, and `passes_type` says that the answer
    goes on with its own type; with either of them it `is_special`.
    """

    serial: int
    candidate: Candidate
    secret: str
    number: int
    receipt: object = None
    answer: Answer = _NO_ANSWER
    body: bytes = b""
    usage: Usage | None = None
    got_bytes: int = 0
    relay: Relay | None = None
    held: list[bytes] = []
    can_wait: bool = False
    dropped: tuple[str, ...] = ()
    passes_type: bool = False
    is_special: bool = False
    is_open: bool = True
    is_done: ClassVar[bool] = False
    first_token_at: ClassVar[float | None] = None
    """As of a stream: of what is not whole the last word is not known, and of what is the first is not."""

    def hear(self, data: bytes) -> Verdict:
        """Take what has arrived of a stream before its first word, which is enough."""
        relay = self.relay
        assert relay is not None  # noqa: S101 - narrows for the type checker; it is a stream's
        out = relay.begin(data)
        if out:
            self.held.append(out)
        if relay.begun or relay.done or relay.error is not None:
            return _STOP
        return _MORE if self.can_wait else _NOTHING

    def close(self) -> None:
        """End what is still open. May be called again."""
        if self.is_open:
            self.is_open = False
            self.candidate.leave()
            self.answer.close()


class _Plain(Struct, frozen=True):
    """What writes and sends a call that needs nothing else."""

    write: Callable[[bytes, str, float | None], OutboundRequest]
    send: Callable[[OutboundRequest, Callable[[float], bool]], Awaitable[Answer]]


class Trying:
    """Makes attempts. One for the whole gateway."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part by its name
        self,
        *,
        requests: Mapping[str, Requests],
        senders: Mapping[str, Sender],
        uploads: UploadSender,
        writings: Mapping[WireProtocol, Writing],
        counters: Counters,
        redaction: Redaction,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        is_durable: bool = False,
    ) -> None:
        """Take the parts. `requests` and `senders` go by the upstream's name; `clock` is monotonic, in seconds.

        `uploads` sends bodies that are still arriving, to whichever upstream.

        `writings` put calls to upstreams that do not speak the caller's protocol; between OpenAI's none is needed.

        `is_durable` says that what is written down has to outlive the power before an upstream is called.
        """
        self._requests = requests
        self._senders = senders
        self._uploads = uploads
        self._writings = writings
        self._counters = counters
        self._limits_attempts = counters.limit_attempts
        self._redaction = redaction
        self._clock = clock
        self._wall_clock = wall_clock
        self._is_durable = is_durable
        # For each upstream that speaks OpenAI's chat, unless something has to be done before a call is sent.
        self._plain = {
            name: _Plain(requests[name].chat, sender.send)
            for name, sender in senders.items()
            if requests[name].upstream.protocol == _CHAT and not (is_durable or self._limits_attempts)
        }

    async def whole(
        self, admitted: Admitted, dialect: Dialect, serial: int, candidate: Candidate, left_seconds: float | None
    ) -> Attempt:
        """Get a whole answer. Raises `GateError`; then the candidate knows of it, and nothing is open.

        `serial` counts the tries of the call from 1. `left_seconds` is what is left of the call's time, None when it
        has just begun.
        """
        asked, upstream = admitted.decoded.asked, candidate.upstream
        plain = self._plain.get(upstream.name) if asked.foreign is None and not candidate.is_silent else None
        if plain is None:
            written = self._written(admitted.decoded, candidate.target)
            receipt = await self._take(admitted, candidate) if self._limits_attempts else None
            dialect = dialect.at(_answers_in(candidate.target.upstream, asked))
            attempt = self._begin(admitted, serial, candidate, receipt)
        else:
            attempt = self._begin(admitted, serial, candidate)
        try:
            if plain is None:
                answer = await self._send(attempt, admitted, left_seconds, written)
            else:
                body = openai_chat.encode_request(asked.chat, candidate.target)
                request = plain.write(body, attempt.secret, left_seconds)
                answer = await plain.send(request, upstream.budget.try_take)
            attempt.answer = answer
            said = answer.whole
            if said is None or answer.headers.get(b"content-type") not in _JSON_TYPES:
                await self._judge_head(attempt, admitted.decoded)
                said = await answer.read(MAX_ANSWER_BYTES)
            attempt.body, attempt.usage = dialect.encode_whole(asked, said)
            if attempt.usage is None:
                attempt.got_bytes = openai_chat.written_bytes(said)
        except GateError as error:
            raise self._failed_before(attempt, error, admitted) from None
        except BaseException:
            self.abandon(attempt)
            raise
        candidate.answered(attempt.number)
        attempt.is_open = False  # The answer was read to its end, so its connection needs no closing.
        return attempt

    async def stream(
        self,
        admitted: Admitted,
        dialect: Dialect,
        serial: int,
        candidate: Candidate,
        left_seconds: float | None,
        *,
        can_wait: bool,
    ) -> Attempt:
        """Get a stream that has said its first word. Raises as `whole` does.

        `can_wait` says that comments are a reason to wait longer for that word, as there is no other target.
        """
        asked, upstream = admitted.decoded.asked, candidate.upstream
        plain = self._plain.get(upstream.name) if asked.foreign is None and not candidate.is_silent else None
        if plain is None:
            written = self._written(admitted.decoded, candidate.target)
            receipt = await self._take(admitted, candidate) if self._limits_attempts else None
            dialect = dialect.at(_answers_in(candidate.target.upstream, asked))
            attempt = self._begin(admitted, serial, candidate, receipt)
        else:
            attempt = self._begin(admitted, serial, candidate)
        relay = attempt.relay = dialect.relay(asked)
        attempt.can_wait = can_wait
        try:
            if plain is None:
                answer = await self._send(attempt, admitted, left_seconds, written)
            else:
                body = openai_chat.encode_request(asked.chat, candidate.target)
                request = plain.write(body, attempt.secret, left_seconds)
                answer = await plain.send(request, upstream.budget.try_take)
            attempt.answer = answer
            if answer.status != _OK or answer.headers.get(b"content-type") not in _EVENT_TYPES:
                await self._judge_head(attempt, admitted.decoded)
            if await answer.forward(attempt.hear) and not relay.done:
                attempt.held.append(relay.end())
            _check_begun(relay)
        except GateError as error:
            raise self._failed_before(attempt, error, admitted) from None
        except BaseException:
            self.abandon(attempt)
            raise
        candidate.succeeded(attempt.number)
        return attempt

    async def again(
        self,
        admitted: Admitted,
        serial: int,
        candidate: Candidate,
        left_seconds: float | None,
        body: bytes | None = None,
    ) -> Attempt:
        """Begin a stream whose relay is another one's, which it goes on with. Raises as `whole` does.

        `body` is an OpenAI chat's, sent in place of the call's own. The answer comes as OpenAI's, whoever calls.
        """
        receipt = await self._take(admitted, candidate) if self._limits_attempts else None
        attempt, decoded = self._begin(admitted, serial, candidate, receipt), admitted.decoded
        try:
            written = self._written(decoded, candidate.target, body, passes=False)
            attempt.answer = await self._send(attempt, admitted, left_seconds, written, body)
            await self._judge_head(attempt, decoded)
        except GateError as error:
            self.failed(attempt, error, admitted)
            raise
        except BaseException:
            self.abandon(attempt)
            raise
        return attempt

    def abandon(self, attempt: Attempt) -> None:
        """Give up a try without a verdict about the target."""
        attempt.candidate.circuit.abandoned(self._clock(), attempt.number)
        self._close(attempt)

    def give_up(self, attempt: Attempt) -> None:
        """Free what a try holds that went well, and that nobody needs any more."""
        self._close(attempt)

    def failed(self, attempt: Attempt, error: GateError, admitted: Admitted) -> None:
        """Give up a try that failed: free the error of secrets, and tell the candidate and the book."""
        if error.reason == "upstream_error_event" and isinstance(error, UpstreamError):
            failures.judge_event(error)
        if error.provider_message:
            error.provider_message = self._redaction.text(error.provider_message, attempt.secret)
        attempt.candidate.failed(error, self._clock(), attempt.number)
        status = error.parameters.get("status", 0)
        admitted.entry.fail(
            attempt.serial,
            error.reason,
            status if isinstance(status, int) else 0,
            abandoned=error.kind is Kind.UPSTREAM_TIMEOUT,  # It may still be at work.
            sent_bytes=admitted.body_bytes,
        )
        self._close(attempt)

    def _failed_before(self, attempt: Attempt, error: GateError, admitted: Admitted) -> GateError:
        """Give up a try that failed before a word of its answer; return what the failure means."""
        if error.reason == "upstream_error_event" and isinstance(error, UpstreamError):
            target = attempt.candidate.target
            if error.provider_message:
                error.provider_message = self._redaction.text(error.provider_message, attempt.secret)
            error = failures.failure_in_answer(
                error,
                model=target.sent_model or admitted.decoded.asked.chat.asked_model,
                own_key=attempt.secret != target.api_key,
                classes=target.upstream.failures,
            )
        foreign = admitted.decoded.asked.foreign
        if isinstance(foreign, FormCall) and not foreign.may_repeat:
            error.remedy = Remedy.PASS_ON  # Part of what was sent is nowhere any more.
        self.failed(attempt, error, admitted)
        return error

    def _close(self, attempt: Attempt) -> None:
        if attempt.receipt is not None:
            self._counters.settle(attempt.receipt, NOTHING)
        attempt.close()

    def _begin(self, admitted: Admitted, serial: int, candidate: Candidate, receipt: object = None) -> Attempt:
        """Write down that an upstream is about to be called. Raises `Overloaded` when that cannot be written."""
        target, key = candidate.target, admitted.decoded.caller.key
        own_key = key.kind is _PROVIDER_KEY and target.upstream.is_default
        number = candidate.enter(self._clock())
        attempt = Attempt(serial, candidate, key.secret if own_key else target.api_key, number, receipt)
        try:
            admitted.entry.dispatch(serial, target, own_key=own_key)
        except GateError:
            self.abandon(attempt)
            raise
        return attempt

    async def _take(self, admitted: Admitted, candidate: Candidate) -> object:
        """Take an attempt from the limits by upstream, or raise `CallerError`; another upstream may have room."""
        facts = structs.replace(admitted.facts, upstream=candidate.target.upstream.name)
        taken = self._counters.take_attempt(facts, admitted.bound)
        if not isinstance(taken, Taken):
            taken = await taken
        if not taken.standing.admitted:
            refusal = limit_reached(taken.standing)
            refusal.remedy = Remedy.ANOTHER_TARGET
            raise refusal
        return taken.receipt

    async def _send(
        self,
        attempt: Attempt,
        admitted: Admitted,
        left_seconds: float | None,
        written: Written | None,
        body: bytes | None = None,
    ) -> Answer:
        """Send the request once it may be sent, and return the answer once its head is there.

        `written` is as from `_written`; where that is None, `body` is sent in place of the call's own.
        """
        if self._is_durable:
            await admitted.entry.synced()
        candidate = attempt.candidate
        target = candidate.target
        name, path = target.upstream.name, ""
        if written is not None:
            body, path, attempt.dropped = written.body, written.path, written.dropped
            attempt.passes_type = written.passes_type
            attempt.is_special = bool(written.dropped) or written.passes_type
        elif body is None:
            body = openai_chat.encode_request(admitted.decoded.asked.chat, target)
        patience_seconds = None
        if candidate.is_silent and candidate.is_last_resort(attempt.number):
            patience_seconds = LAST_RESORT_SECONDS
        request = self._requests[name].chat(body, attempt.secret, left_seconds, patience_seconds, path)
        if written is not None:
            request = written.onto(request)
            if isinstance(request, UploadRequest):
                return await self._uploads.upload(request)
        return await self._senders[name].send(request, candidate.upstream.budget.try_take)

    def _written(
        self, decoded: Decoded, target: Target, body: bytes | None = None, *, passes: bool = True
    ) -> Written | None:
        """Put a call to an upstream whose protocol is not the caller's, or not OpenAI's; None where both are.

        `body` is an OpenAI chat's in place of the call's own. Without `passes` the answer has to come as OpenAI's.
        Raises `CallerError` when the call cannot be put so; before anything is begun, it was not tried there.
        """
        asked, upstream = decoded.asked, target.upstream
        if asked.foreign is None and upstream.protocol == _CHAT:
            return None
        writing = self._writings[_answers_in(upstream, asked) if passes else upstream.protocol]
        return writing.write(asked, decoded.identified.envelope.headers, target, body, passes=passes)

    async def _judge_head(self, attempt: Attempt, decoded: Decoded) -> None:
        """Raise what the head of an answer says, unless it says success."""
        answer = attempt.answer
        if answer.status != _OK:
            raise await self._failure_of(attempt, decoded)
        content_type = answer.headers.get(b"content-type", b"").lower()
        if content_type.find(b"html") >= 0:
            raise UpstreamError("upstream_bad_answer")
        if decoded.asked.chat.stream and content_type.startswith(b"application/json"):
            if attempt.passes_type:
                return
            openai_chat.check_answer(await answer.read(MAX_ANSWER_BYTES))  # It may say what is wrong.
            raise UpstreamError("upstream_bad_answer")

    async def _failure_of(self, attempt: Attempt, decoded: Decoded) -> GateError:
        """Turn a provider's refusal into what the caller is told, without anything secret in it."""
        answer, target, secret = attempt.answer, attempt.candidate.target, attempt.secret
        try:
            said = openai_errors.read_error(await answer.read(MAX_ERROR_BYTES))
        except UpstreamError:
            said = openai_errors.ProviderError()
        message, code, param, kind = (
            self._redaction.text(text, secret) if text else None
            for text in (said.message, said.code, said.param, said.kind)
        )
        return failures.failure_of(
            answer.status,
            message=message,
            code=code,
            param=param,
            retry_after_seconds=failures.retry_after(answer.headers, self._wall_clock) or said.retry_after_seconds,
            model=target.sent_model or decoded.asked.chat.asked_model,
            own_key=secret != target.api_key,
            kind=kind,
            classes=target.upstream.failures,
        )


def _answers_in(upstream: Upstream, asked: Asked) -> WireProtocol:
    """Return the protocol in which an upstream answers a call."""
    return upstream.protocol if asked.foreign is None else upstream.answers_in(asked.foreign.protocol)


def _check_begun(relay: Relay) -> None:
    """Raise what is wrong with a stream that has not said a word."""
    if relay.error is not None:
        raise relay.error
    if not relay.begun:
        raise UpstreamError("upstream_bad_answer")


def secret_for(target: Target, decoded: Decoded) -> str:
    """Return the key to show a target: the caller's own only at the default upstream, else the operator's."""
    key = decoded.caller.key
    return key.secret if key.kind is _PROVIDER_KEY and target.upstream.is_default else target.api_key


def lacks_key(target: Target, decoded: Decoded) -> bool:
    """Tell whether a target wants a key, and nobody has one for it."""
    if target.api_key or not target.upstream.key_needed:
        return False
    key = decoded.caller.key
    return key.kind is not _PROVIDER_KEY or not target.upstream.is_default
