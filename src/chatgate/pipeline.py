"""The story of a model call, stage by stage. The first file to read.

    arrive     server, endpoints      -                          Envelope
    identify   admitting              who is it, from where?     Identified
    decode     protocols              what do they want?         Decoded
    admit      admitting              may they, now?             Admitted
    call       attempts               which target? send         an answer, or its beginning
    deliver    protocols              in the caller's format     bytes
    settle     accounting, telemetry  what did it cost?          Settled

`identify` sees the head only, before the body is read. Everything after it is one coroutine per call; when the caller
leaves, it is cancelled, wherever it waits, and the upstream's connection is closed on the way out, unless the operator
wants to know what the answer would have cost. A refused call takes nothing from any limit.
"""

from __future__ import annotations

import asyncio
import logging
import string
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from msgspec import Struct

from chatgate.admission.limits import NOTHING, Bound
from chatgate.admission.running import ENDED_REASONS
from chatgate.attempts.stages import Admitted
from chatgate.attempts.stream import Stream
from chatgate.protocols.sse import STREAM_HEAD
from chatgate.refusals import JSON_TYPE, Refusals
from chatgate.vocabulary.errors import CallerError, GateError, InternalError, Kind, Overloaded, UpstreamError
from chatgate.vocabulary.exchange import Decoded, Identified, Outcome, Reply, Settled, Surface
from chatgate.vocabulary.money import format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from chatgate.admission.running import Running
    from chatgate.admitting import Admitting
    from chatgate.attempts.attempt import Attempt
    from chatgate.attempts.calling import Calling
    from chatgate.attempts.leaving import Leaving
    from chatgate.protocols.openai_stream import Relay
    from chatgate.routing.plan import Plan
    from chatgate.vocabulary.chat import Asked, Usage
    from chatgate.vocabulary.exchange import CallerPort, NoteEnd
    from chatgate.vocabulary.upstreams import Protocol as WireProtocol

DRAINING = "draining"
"""The message with which the server cancels a call that has outlived the grace of a shutdown."""

_LOG = logging.getLogger(__name__)
_POINTLESS = b"x-should-retry: false\r\n"
_MAX_DROPPED_CHARACTERS = 1000
_OK = 200
_CLIENT_CLOSED_REQUEST = 499


# A look at an Enum's member costs more than one at a name of the module.
_PLAIN = Surface.PLAIN
_PRODUCTIVE = frozenset({Outcome.COMPLETED, Outcome.CLIENT_LEFT, Outcome.REVOKED})
_COMPLETED, _REFUSED, _UPSTREAM_FAILED = Outcome.COMPLETED, Outcome.REFUSED, Outcome.UPSTREAM_FAILED


class Dialect(Protocol):
    """A protocol as callers speak it."""

    @property
    def stream_head(self) -> bytes:
        """Return the header lines of a stream."""

    @property
    def keep_alive(self) -> bytes:
        """Return what keeps a silent stream open, b"" for nothing."""

    def decode(self, body: bytes, content_type: str, parameter: str) -> Asked:
        """Read a caller's body; `parameter` is what the URL names, else "". Raises `CallerError`."""

    def at(self, protocol: WireProtocol) -> Dialect:
        """Return the dialect for what upstreams of a protocol answer: OpenAI's, or the caller's own."""

    def relay(self, asked: Asked) -> Relay:
        """Return what turns the upstream's stream into the caller's."""

    def encode_whole(self, asked: Asked, body: bytes) -> tuple[bytes, Usage | None]:
        """Turn an upstream's whole answer into the caller's. Raises `UpstreamError`."""

    def status_of(self, kind: Kind) -> int:
        """Return the HTTP status for a situation."""

    def encode_error(self, error: GateError, message: str, request_id: str) -> bytes:
        """Write an error's body."""

    def encode_error_event(self, error: GateError, message: str, request_id: str, relay: Relay | None) -> bytes:
        """Write the event that ends a stream which broke; `relay` wrote what was sent of it, None when nothing was."""


class Memory(Protocol):
    """Who keeps what callers go on from, for the protocols in which they may."""

    async def recall(self, decoded: Decoded) -> int:
        """Put what a call goes on from into it; return how many bytes that is. Raises `GateError`."""

    async def keep(self, decoded: Decoded, answer: bytes | Relay) -> None:
        """Keep an answer, whole or as its stream has ended."""


class _Call(Struct):
    """One call on its way: who asks, what is known of it so far, and what is open for it."""

    identified: Identified
    port: CallerPort
    dialect: Dialect
    settled: Settled
    body_bytes: int
    admitted: Admitted | None = None
    plan: Plan | None = None
    stream: Stream | None = None
    attempt: Attempt | None = None
    is_settled: bool = False


class Pipeline:
    """Carries calls through the stages. Built by `app`."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every part by its name
        self,
        *,
        dialects: Mapping[Surface, Dialect],
        refusals: Refusals,
        admitting: Admitting,
        calling: Calling,
        leaving: Leaving,
        running: Running,
        streams: set[Stream],
        memory: Memory,
        note_end: NoteEnd,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        is_durable: bool,
    ) -> None:
        """Take the parts; `streams` is where those under way are found by whoever looks after silent ones.

        `clock` is monotonic, in seconds; `wall_clock` counts them from the epoch.
        """
        self._dialects = dialects
        self._refusals = refusals
        self._admitting = admitting
        self._calling = calling
        self._leaving = leaving
        self._running = running
        self._memory = memory
        self._note_end = note_end
        self._clock = clock
        self._wall_clock = wall_clock
        self._streams = streams
        self._is_durable = is_durable

    async def answer(self, identified: Identified, body: bytes, port: CallerPort) -> None:
        """Carry a call from its body to its end. Never raises, except `CancelledError` when the caller left."""
        envelope, endpoint = identified.envelope, identified.endpoint
        settled = Settled(
            envelope.request_id,
            endpoint.operation,
            endpoint.surface,
            identified.caller.address,
            "",
            "",
            0,
            _REFUSED,
            "",
            False,  # noqa: FBT003 - in the order of the log's line
            0.0,
        )
        dialect = self._dialects[endpoint.surface]
        call = _Call(identified, port, dialect, settled, len(body))
        try:
            content_type = envelope.headers.get(b"content-type", b"").decode("latin-1")
            asked = dialect.decode(body, content_type, endpoint.parameter)
            if endpoint.surface is _PLAIN:
                identified = self._admitting.with_key_of_body(identified, asked.api_key)
            decoded = Decoded(identified, identified.caller, asked)
            if self._admitting.must_ask(decoded) or asked.foreign is not None:
                decoded = await self._complete(call, decoded)
            call.identified = decoded.identified
            chat = asked.chat
            settled.model, settled.stream = chat.asked_model, chat.stream
            record = decoded.caller.record
            if record is not None:
                settled.key = record.id
                self._running.begin(envelope.request_id, record, port.cancel)
            taken = self._admitting.admit(decoded, settled, call.body_bytes)
            admitted = call.admitted = taken if isinstance(taken, Admitted) else await taken
            plan = call.plan = self._calling.plan(admitted)
            settled.outcome = _UPSTREAM_FAILED
            if chat.stream:
                await self._stream(call, admitted, plan)
            else:
                whole = self._calling.whole(admitted, dialect, plan)
                attempt = call.attempt = await (self._shielded(call, whole) if self._leaving.drains else whole)
                settled.outcome, settled.status = _COMPLETED, _OK
                self._write_down(call, admitted)
                if self._is_durable or asked.foreign is not None:
                    await self._keep(admitted, attempt.body)
                port.reply(Reply(_OK, self._headers_of(admitted, plan, attempt, JSON_TYPE), attempt.body))
        except (Exception, asyncio.CancelledError) as error:
            if not await self._ended(call, error):
                raise
        finally:
            if settled.key:
                self._running.over(envelope.request_id)
            if not call.is_settled:
                self._settle(call)

    async def _ended(self, call: _Call, error: BaseException) -> bool:
        """Say how a call ended that came to no whole answer; False when its cancelling is to go on."""
        settled = call.settled
        if isinstance(error, asyncio.CancelledError):
            if await self._was_ended(call, _reason_of(error)):
                return True
            settled.outcome, settled.status = Outcome.CLIENT_LEFT, _CLIENT_CLOSED_REQUEST
            return self._read_on(call)
        if not isinstance(error, GateError):  # The boundary: a fault of ours ends one call, and is logged.
            _LOG.error("A call failed by a fault of ours: %s", settled.request_id, exc_info=error)
            settled.outcome = _REFUSED
            error = InternalError()
        await self._fail(call, error)
        return True

    async def _was_ended(self, call: _Call, reason: str) -> bool:
        """Tell the caller of a call that was cancelled by us; False when it was the caller who left."""
        if reason == DRAINING:
            call.settled.outcome = _REFUSED  # By us: it is not the provider's doing.
            await self._fail(call, Overloaded(DRAINING))
        elif reason in ENDED_REASONS:
            call.settled.outcome = Outcome.REVOKED
            await self._fail(call, CallerError(Kind.INVALID_KEY, reason))
        else:
            return False
        return True

    async def _complete(self, call: _Call, decoded: Decoded) -> Decoded:
        """Look up what is not known yet: the caller's key, and what the call goes on from. Raises `GateError`."""
        if self._admitting.must_ask(decoded):
            decoded = await self._admitting.know_decoded(decoded)
        if decoded.asked.foreign is not None:
            call.body_bytes += await self._memory.recall(decoded)
        return decoded

    async def _shielded(self, call: _Call, whole: Coroutine[None, None, Attempt]) -> Attempt:
        """Get a whole answer in a task of its own, which may outlive the caller's patience."""
        task = asyncio.ensure_future(whole)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError as cancelled:

            async def read_on() -> None:
                try:
                    attempt = await task
                finally:
                    task.cancel()
                call.attempt = attempt

            is_unwanted = task.done() or _reason_of(cancelled) in ENDED_REASONS
            if is_unwanted or not self._leaving.take(read_on, lambda: self._settle(call)):
                task.cancel()
            else:
                call.is_settled = True
            raise

    async def _stream(self, call: _Call, admitted: Admitted, plan: Plan) -> None:
        """Have a stream carried to the caller."""
        stream = call.stream = Stream(
            self._calling,
            admitted,
            call.dialect,
            plan,
            call.port,
            self._headers_of,
            self._clock,
            self._clock(),
            self._leaving.drains,
        )
        self._streams.add(stream)
        try:
            await stream.carry()
            call.settled.outcome, call.settled.status = _COMPLETED, _OK
            self._write_down(call, admitted)
            if self._is_durable or admitted.decoded.asked.foreign is not None:
                assert stream.relay is not None  # noqa: S101 - narrows for the type checker; it has ended
                await self._keep(admitted, stream.relay)
            stream.finish()
        finally:
            self._streams.discard(stream)
            if stream.is_started:
                call.settled.status = _OK

    async def _keep(self, admitted: Admitted, answer: bytes | Relay) -> None:
        """Wait for the record of a call, and have its answer kept before its caller sees the end of it."""
        if self._is_durable:
            await admitted.entry.synced()
        if admitted.decoded.asked.foreign is not None:
            await self._memory.keep(admitted.decoded, answer)

    def _read_on(self, call: _Call) -> bool:
        """Read a stream to its end whose caller has left, if that is wanted; False when it ends here and now."""
        stream = call.stream
        if stream is None or not stream.can_drain:
            return call.is_settled

        def settle() -> None:
            stream.close()
            self._settle(call)

        if self._leaving.take(stream.drain, settle):
            call.is_settled = True
            return True
        return False

    def _headers_of(self, admitted: Admitted, plan: Plan | None, attempt: Attempt | None, type_lines: bytes) -> bytes:
        """Return the header lines of an answer; without a plan it is not known yet who answers.

        `type_lines` say what it is, unless it has a type of its own.
        """
        headers = self._refusals.ids_of(admitted.decoded.identified.envelope) + admitted.headers
        if plan is None:
            return headers + type_lines
        if attempt is not None and attempt.is_special:
            if attempt.dropped:
                headers += _dropped_line(attempt.dropped)
            if attempt.passes_type:
                type_lines = _passed_type(attempt.answer.headers)
        model = plan.candidate.target.sent_model or admitted.decoded.asked.chat.asked_model
        return headers + _answered_lines(model, len(admitted.entry.sent), type_lines)

    async def _fail(self, call: _Call, error: GateError) -> None:
        """Tell the caller: by an answer of its own, or, once a stream has begun, by the event that ends it."""
        identified, stream, port = call.identified, call.stream, call.port
        envelope, surface = identified.envelope, identified.endpoint.surface
        call.settled.code = error.kind
        if call.admitted is not None:
            await self._write_failure(call, call.admitted, error)
        if stream is not None and stream.is_started:
            said = self._refusals.event(surface, error, identified.language, envelope.request_id, stream.relay)
            if said:  # Otherwise nothing can say so but the end of the connection.
                port.finish(said)
            return
        more = error.standing
        if more is None:
            standing = self._admitting.standing_of(identified.caller, identified.caller.counted_as)
            more = standing if isinstance(standing, bytes) else await standing
        plan, admitted = call.plan, call.admitted
        if plan is not None and admitted is not None:
            sent = len(admitted.entry.sent)
            more += b"x-chatgate-attempts: %d\r\n" % sent
            if isinstance(error, UpstreamError) and (sent > 1 or plan.budget_spent):
                more += _POINTLESS  # What could be tried was tried here.
        reply = self._refusals.reply(surface, error, identified.language, envelope, more)
        call.settled.status = reply.status
        port.reply(reply)

    async def _write_failure(self, call: _Call, admitted: Admitted, error: GateError) -> None:
        """Write down how a call failed, if that is not there yet; what no provider was asked for is given back."""
        entry = admitted.entry
        if not entry.sent:
            if isinstance(error, CallerError):
                call.settled.outcome = _REFUSED
            self._admitting.release(admitted)
        elif not entry.is_settled:
            self._write_down(call, admitted)
        if self._is_durable:
            await entry.synced()

    def _write_down(self, call: _Call, admitted: Admitted) -> None:
        """Tell the book and the limits how the call ended, once, before its caller learns of it.

        Where records must outlive the power, the disk has to be waited for after that.
        """
        settled, entry, answer = call.settled, admitted.entry, call.stream or call.attempt
        if answer is None:
            usage, further = None, None
            charged = entry.settle(settled.outcome, settled.status, settled.code, sent_bytes=call.body_bytes)
        else:
            usage, further = answer.usage, answer.receipt
            charged = entry.settle(
                settled.outcome,
                settled.status,
                settled.code,
                attempt=answer.serial,
                usage_is_final=settled.outcome is _COMPLETED or answer.is_done,
                usage=usage,
                sent_bytes=call.body_bytes,
                got_bytes=answer.got_bytes,
                first_token_at=answer.first_token_at,
            )
        if usage is not None:
            settled.input_tokens, settled.output_tokens = usage.input_tokens, usage.output_tokens
        if charged:
            settled.cost_usd = format_usd(charged)
        receipt = admitted.receipt
        if further is not None or (receipt is not None and self._admitting.can_correct(receipt)):
            self._correct(call, admitted, receipt, further)

    def _correct(self, call: _Call, admitted: Admitted, *receipts: object) -> None:
        """Tell the limits what the call has used of what it took."""
        tokens, used = admitted.entry.tokens, NOTHING
        if call.settled.outcome in _PRODUCTIVE:
            charged = admitted.entry.charged_nano_usd
            used = admitted.bound if tokens is None else Bound(tokens.input_tokens, tokens.output_tokens, charged)
        for receipt in receipts:
            if receipt is not None:
                self._admitting.settle(receipt, used)

    def _settle(self, call: _Call) -> None:
        """Note how the call ended."""
        settled, admitted, plan, stream = call.settled, call.admitted, call.plan, call.stream
        arrived_at = call.identified.envelope.arrived_at
        if admitted is not None:
            if not admitted.entry.is_settled:
                self._write_down(call, admitted)
            if plan is not None:
                candidate = plan.candidate
                settled.attempts = len(admitted.entry.sent)
                settled.target, settled.upstream = candidate.name, candidate.upstream.name
        if stream is not None:
            stream.close()
            if stream.first_token_at is not None:
                settled.first_token_ms = round((stream.first_token_at - arrived_at) * 1000, 3)
        settled.duration_ms = int((self._clock() - arrived_at) * 1_000_000) / 1000
        self._note_end((self._wall_clock(), settled))


def _reason_of(cancelled: asyncio.CancelledError) -> str:
    """Return the message that a call was cancelled with, "" when its caller just left."""
    return str(cancelled.args[0]) if cancelled.args else ""


@lru_cache(maxsize=1024)
def _answered_lines(model: str, attempts: int, type_lines: bytes) -> bytes:
    """Return the lines that say who answered, at which attempt, and what the answer is.

    What a header cannot carry of the model's name is percent-encoded.
    """
    named = quote(model, safe=string.punctuation + " ").encode()
    return b"x-chatgate-model: %b\r\nx-chatgate-attempts: %d\r\n%b" % (named, attempts, type_lines)


def _passed_type(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the lines that say what an answer is which passes as it came."""
    content_type = headers.get(b"content-type", b"application/octet-stream")
    if content_type.startswith(b"text/event-stream"):
        return STREAM_HEAD
    return b"content-type: %b\r\n" % content_type


def _dropped_line(paths: tuple[str, ...]) -> bytes:
    """Return the line that names the fields which the answering target was not sent."""
    named = quote(", ".join(paths), safe=string.punctuation + " ")
    return b"x-chatgate-dropped: %b\r\n" % named[:_MAX_DROPPED_CHARACTERS].encode()
