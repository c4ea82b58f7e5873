"""A stream's way to its caller, over as many targets as it takes.

Owns the one promise of streams: the caller gets the whole answer, or is told that it broke. When an upstream falls
silent or breaks off in the middle, the next target gets the same call; as soon as it has said again what the caller has
already got, the rest goes on from there. A target that says something else cannot go on, and its words reach nobody.

While there is nothing to send, comments keep the connection open, for proxies cut what is silent for too long.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from chatgate.attempts.attempt import Attempt
from chatgate.protocols import document, openai_chat
from chatgate.protocols.resume import Resumption, continued_body
from chatgate.vocabulary.errors import Blame, CallerError, GateError, Remedy, UpstreamError
from chatgate.vocabulary.exchange import Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chatgate.attempts.attempt import Dialect
    from chatgate.attempts.calling import Calling
    from chatgate.attempts.stages import Admitted
    from chatgate.protocols.openai_stream import Relay
    from chatgate.routing.candidates import Candidate
    from chatgate.routing.plan import Plan
    from chatgate.vocabulary.chat import Usage
    from chatgate.vocabulary.exchange import CallerPort

KEEP_ALIVE_SECONDS = 15.0
"""After so long a silence the caller gets a comment: half of the 30 s after which impatient proxies cut."""

_MORE, _NOTHING, _STOP = Verdict.MORE, Verdict.NOTHING, Verdict.STOP


class Teller(Protocol):
    """What knows what the head of an answer says."""

    def __call__(self, admitted: Admitted, plan: Plan | None, attempt: Attempt | None, type_lines: bytes) -> bytes:
        """Return the header lines, with what they say about the target that answers once there is a plan."""


class Stream(Struct, eq=False):
    """One stream. `is_started` tells whether the caller has its head, `first_token_at` when its first word left.

    With `_drains` the answer is begun so that it may outlive its caller.
    """

    _calling: Calling
    _admitted: Admitted
    _dialect: Dialect
    plan: Plan
    _port: CallerPort
    _head_of: Teller
    _clock: Callable[[], float]
    _quiet_since: float
    _drains: bool = False
    attempt: Attempt | None = None
    relay: Relay | None = None
    is_started: bool = False
    first_token_at: float | None = None
    _beginning: asyncio.Future[Attempt] | None = None
    _last: bytes = b""
    _sent: int = 0
    _seen: int = 0
    _resumption: Resumption | None = None

    async def carry(self) -> None:
        """Carry the stream to its end, but for what ends it. Raises the `GateError` by which it broke, if it did."""
        beginning: Awaitable[Attempt] = self._calling.stream(self._admitted, self._dialect, self.plan)
        if self._drains:
            self._beginning = asyncio.ensure_future(beginning)
            beginning = asyncio.shield(self._beginning)
        attempt = await beginning
        relay = self._take_up(attempt)
        first = b"".join(attempt.held)
        if self.is_started or relay.done:
            self._start(self.plan)
            self._send(first)
        else:
            self._sent = 1
            self._start(self.plan, first)
        while not relay.done:
            try:
                await self._forward(attempt, relay)
            except GateError as error:
                if relay.finished:  # All is said; only the end mark is missing.
                    self._send(relay.complete())
                    break
                self._calling.trying.failed(attempt, error, self._admitted)
                attempt = await self._rescue(relay, error)

    def finish(self) -> None:
        """Let the caller see the end, once it is written down."""
        attempt = self.attempt
        assert attempt is not None  # noqa: S101 - narrows for the type checker; it has been carried to its end
        self._port.finish(self._last)
        attempt.answer.release()
        attempt.close()

    async def drain(self) -> None:
        """Read on for the sake of the count alone: the caller has left."""
        attempt, relay = self.attempt, self.relay
        if attempt is None or relay is None:
            assert self._beginning is not None  # noqa: S101 - narrows for the type checker; `can_drain` has said so
            attempt = await self._beginning
            relay = self._take_up(attempt)

        def take(data: bytes) -> Verdict:
            relay.feed(data)
            return _STOP if relay.done or relay.error is not None else _MORE

        await attempt.answer.forward(take)
        attempt.answer.release()

    @property
    def can_drain(self) -> bool:
        """Tell whether there is something to read on: an answer, or one that may still begin."""
        beginning = self._beginning
        return self.attempt is not None or (beginning is not None and not (beginning.done() and beginning.exception()))

    @property
    def got_bytes(self) -> int:
        """Return how much text the caller was sent, for a count that nobody gave; 0 when somebody did."""
        if self.relay is None or self.relay.usage is not None:
            return 0
        transcript = self.relay.transcript
        transcript.read()
        return sum(len(text.encode()) for text in transcript.texts.values())

    @property
    def is_done(self) -> bool:
        """Tell whether the provider has said its last word, to whomever."""
        return self.relay is not None and self.relay.done

    @property
    def serial(self) -> int:
        """Return the number of the attempt that answers, 0 for none."""
        return self.attempt.serial if self.attempt is not None else 0

    @property
    def receipt(self) -> object:
        """Return what that attempt has taken of limits by upstream."""
        return self.attempt.receipt if self.attempt is not None else None

    @property
    def usage(self) -> Usage | None:
        """Return what the provider counted, None when it has not said so."""
        return self.relay.usage if self.relay is not None else None

    def close(self) -> None:
        """End what is still open. May be called again."""
        beginning = self._beginning
        if beginning is not None and not beginning.cancel() and not beginning.cancelled() and not beginning.exception():
            beginning.result().close()
        if self.attempt is not None:
            self.attempt.close()

    def tick(self, now: float) -> None:
        """Send a comment when nothing else has been sent for too long (called by the sweep)."""
        if self._sent != self._seen:
            self._seen = self._sent
            self._quiet_since = now
        elif now - self._quiet_since >= KEEP_ALIVE_SECONDS and not self._port.is_congested:
            self._quiet_since = now
            comment = self._dialect.keep_alive
            if comment:
                self._start(None)
                self._port.send(comment)

    def _take_up(self, attempt: Attempt) -> Relay:
        """Take note that an answer has said its first word."""
        relay = attempt.relay
        assert relay is not None  # noqa: S101 - narrows for the type checker; it is a stream's
        self.attempt, self.relay, self.first_token_at = attempt, relay, self._clock()
        return relay

    def _start(self, plan: Plan | None, first: bytes = b"") -> None:
        """Send the head, with the first of the answer, unless it has been."""
        if not self.is_started:
            self.is_started = True
            head = self._head_of(self._admitted, plan, self.attempt, self._dialect.stream_head)
            self._port.start_stream(200, head, first)

    def _send(self, out: bytes) -> None:
        """Pass something on; what ends the answer is held back for `finish`."""
        if self.relay is not None and self.relay.done:
            self._last += out
        elif out:
            self._sent += 1
            self._port.send(out)

    async def _forward(self, attempt: Attempt, relay: Relay) -> None:
        """Pass the answer on until its end. Raises the `GateError` by which it broke, if it did."""
        answer, port = attempt.answer, self._port
        take, pass_on = self._take_resumed, None
        if self._resumption is None:
            take, pass_on = self._take, self._pass_on if relay.passes_events and port.takes_chunks else None
        while not relay.done:
            if await answer.forward(take, pass_on):
                if self._resumption is not None:
                    self._send(relay.feed(self._resumption.end()))
                if not relay.done:
                    self._send(relay.end())
            if relay.error is not None:
                raise relay.error
            if port.is_congested:
                await port.drained()

    def _take(self, data: bytes) -> Verdict:
        """Pass on what has arrived."""
        relay, port = self.relay, self._port
        assert relay is not None  # noqa: S101 - narrows for the type checker; it is set before
        out = relay.feed(data)
        if relay.done:
            self._last += out
            return _STOP
        if out:
            self._sent += 1
            port.send(out)
        if relay.error is not None or port.is_congested:
            return _STOP
        return _MORE if relay.heard else _NOTHING

    def _pass_on(self, chunk: bytes, start: int) -> bool:
        """Pass a chunk on as it came when it holds just one more piece of the answer."""
        relay, port = self.relay, self._port
        assert relay is not None  # noqa: S101 - narrows for the type checker; it is set before
        if port.is_congested or not relay.goes_on(chunk, start, len(chunk) - 2):
            return False
        self._sent += 1
        port.send_chunk(chunk)
        return True

    def _take_resumed(self, data: bytes) -> Verdict:
        assert self._resumption is not None  # noqa: S101 - narrows for the type checker; it is set before
        return self._take(self._resumption.feed(data))

    async def _rescue(self, relay: Relay, error: GateError) -> Attempt:
        """Let another target go on. Raises the error when none can."""
        relay.forget_tail()
        if not self._calling.rescues or error.remedy is Remedy.PASS_ON or not relay.transcript.is_resumable:
            raise error
        failure = error
        while True:
            try:
                wait_seconds = self.plan.after(failure, self._clock())
            except GateError:
                raise error from None
            await self._calling.wait(wait_seconds)
            try:
                return await self._resume(relay, self.plan.candidate)
            except GateError as another:
                failure = another
                relay.forget_tail()

    async def _resume(self, relay: Relay, candidate: Candidate) -> Attempt:
        """Have a target say again what the caller has got; returns once it has. Raises `GateError`."""
        attempt, resumption = await self._reopen(relay, candidate)
        trying = self._calling.trying

        def take(data: bytes) -> Verdict:
            self._send(relay.feed(resumption.feed(data)))
            if resumption.caught_up or resumption.diverged or relay.done or relay.error is not None:
                return _STOP
            return _MORE if data.find(b"data") >= 0 else _NOTHING  # What has no data is a comment.

        try:
            if await attempt.answer.forward(take):
                self._send(relay.feed(resumption.end()))
                if not relay.done and not resumption.diverged:
                    self._send(relay.end())
            _check_resumed(resumption, relay)
        except GateError as error:
            trying.failed(attempt, error, self._admitted)
            raise
        except BaseException:
            trying.abandon(attempt)
            raise
        candidate.succeeded(attempt.number)
        self.attempt = attempt
        self._resumption = resumption
        return attempt

    async def _reopen(self, relay: Relay, candidate: Candidate) -> tuple[Attempt, Resumption]:
        """Begin the call anew at a target: where it can continue an answer, from there, else from the beginning."""
        admitted, trying = self._admitted, self._calling.trying
        left_seconds = self.plan.left_seconds(self._clock())
        body = self._continued(relay, candidate)
        if body is not None:
            try:
                attempt = await trying.again(admitted, self.plan.attempts, candidate, left_seconds, body)
            except CallerError as error:
                if error.remedy is not Remedy.PASS_ON:
                    raise
                self.plan.go_besides(candidate)
            else:
                return attempt, Resumption(relay.transcript, continued=True)
        attempt = await trying.again(admitted, self.plan.attempts, candidate, left_seconds)
        return attempt, Resumption(relay.transcript)

    def _continued(self, relay: Relay, candidate: Candidate) -> bytes | None:
        """Return the request that has a target go on with what was said, None when it cannot be put so."""
        target = candidate.target
        if target.upstream.continuation is None:
            return None
        call = self._admitted.decoded.asked
        if call.foreign is not None:
            body, _ = call.foreign.encode_chat(target)
        else:
            body = openai_chat.encode_request(call.chat, target)
        asked = document.parse(body)
        return continued_body(asked, relay.transcript, target.upstream.continuation)


def _check_resumed(resumption: Resumption, relay: Relay) -> None:
    """Raise what is wrong with a target that was to go on."""
    if resumption.diverged:
        error = UpstreamError("upstream_diverged")
        # It is well, but says something else.
        error.remedy, error.blame = Remedy.ANOTHER_TARGET, Blame.NOTHING
        raise error
    if relay.error is not None:
        raise relay.error
