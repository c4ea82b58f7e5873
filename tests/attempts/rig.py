"""The attempts of a gateway without its server: a caller's port in memory, upstreams over real sockets, a moved clock.

It builds the parts as the composition root does, and owns nothing else. The tests of the attempts use it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chatgate.accounting.catalogue import Catalogue
from chatgate.accounting.entries import Entry, Means
from chatgate.accounting.holds import Budget, Holds, Refusal
from chatgate.accounting.journal import Journal
from chatgate.accounting.prices import PriceList
from chatgate.admission.limits import NOTHING, Limits
from chatgate.attempts.attempt import Attempt, Trying
from chatgate.attempts.calling import Calling
from chatgate.attempts.stages import Admitted
from chatgate.attempts.stream import Stream
from chatgate.counters.local import LocalCounters
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.providers.requests import Requests
from chatgate.routing.affinity import Conversations
from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import Candidate
from chatgate.routing.circuit import Circuit
from chatgate.routing.plan import Plan
from chatgate.routing.states import States
from chatgate.routing.table import ModelSpec, Routing
from chatgate.telemetry import Redaction
from chatgate.transport import Transport
from chatgate.vocabulary.exchange import (
    Decoded,
    Endpoint,
    Envelope,
    Identified,
    Operation,
    Outcome,
    Reply,
    Settled,
    Surface,
)
from chatgate.vocabulary.identity import NO_KEY, Caller, Key
from chatgate.vocabulary.upstreams import Origin, Target, Timeouts, Upstream
from fakes.outbound import HandClock
from fakes.upstream import FakeUpstream

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
HEAD, FULL_HEAD = b"head without a model\r\n", b"head\r\n"


class Port:
    """A caller who hears everything, and reads as slowly as the test likes."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self.is_congested = False
        self.heads: list[bytes] = []
        self.sent: list[bytes] = []
        self.is_finished = False
        self.reads: asyncio.Event | None = None

    def reply(self, reply: Reply) -> None:
        """Refuse: streams are not replied to."""
        raise AssertionError(reply)

    def start_stream(self, status: int, headers: bytes, first: bytes = b"") -> None:
        """Hear the head, which comes first and once."""
        assert status == 200
        assert not self.heads
        assert not self.sent
        self.heads.append(headers)
        if first:
            self.send(first)

    def send(self, data: bytes) -> None:
        """Hear a piece."""
        assert self.heads
        assert not self.is_finished
        self.sent.append(data)

    takes_chunks = True

    def send_chunk(self, chunk: bytes) -> None:
        """Hear a piece that is framed."""
        size, _, data = chunk.partition(b"\r\n")
        assert data[int(size, 16) :] == b"\r\n"
        self.send(data[:-2])

    def finish(self, last: bytes = b"") -> None:
        """Hear the end."""
        if last:
            self.send(last)
        assert not self.is_finished
        self.is_finished = True

    def cancel(self, message: str) -> None:
        """Refuse: the calls of these tests are ended by their callers."""
        raise AssertionError(message)

    async def drained(self) -> None:
        """Return when the caller reads again: at once, unless a test has set `reads`."""
        if self.reads is not None:
            await self.reads.wait()
        self.is_congested = False


class Rig:
    """Everything that the attempts need, for a model `m` with a target at each of some fakes, the first one first."""

    def __init__(
        self,
        *fakes: FakeUpstream,
        keys: Sequence[str] = (),
        hedging_share: float = 0.0,
        max_retries: int = 2,
        timeouts: Timeouts | None = None,
    ) -> None:
        """Build; `keys` are those of every upstream, and of several each makes a target of its own."""
        self.clock = HandClock()
        self.slept: list[float] = []
        self.transport = Transport(clock=self.clock)
        self.dialect = OpenAIDialect()
        upstreams = [
            Upstream(name, "openai", Origin("http", "127.0.0.1", fake.port), "/v1", tuple(keys), is_default=name == "a")
            for name, fake in zip("abc", fakes, strict=False)
        ]
        targets = tuple(
            Target(upstream, f"{upstream.name}-model", key, number, priority=priority)
            for priority, upstream in enumerate(upstreams)
            for number, key in enumerate(keys or ("",), 1)
        )
        states = States(lambda _: Circuit(lambda: 0.5), lambda _: RetryBudget())
        routing = Routing(
            [ModelSpec("m", targets)], default_targets=targets[:1], reserved_prefix="demo/", states=states
        )
        self.route = routing.find("m")
        self.trying = Trying(
            uploads=self.transport,
            requests={upstream.name: Requests(upstream, timeouts or Timeouts()) for upstream in upstreams},
            senders={upstream.name: self.transport for upstream in upstreams},
            writings={},
            counters=LocalCounters(Limits([], lambda: int(self.clock() * 1e9)), _no_money),
            redaction=Redaction(keys),
            clock=self.clock,
            wall_clock=lambda: 1_800_000_000.0,
        )
        self.calling = Calling(
            self.trying,
            Conversations(),
            max_retries=max_retries,
            rescues=True,
            total_seconds=1000.0,
            hedging_share=hedging_share,
            clock=self.clock,
            random=lambda: 0.5,
            sleep=self._sleep,
        )
        self.port = Port()
        self._directory = TemporaryDirectory()
        journal = Journal(Path(self._directory.name), self.clock)
        self._means = Means(journal, PriceList([], Catalogue()), Holds(), self.clock, lambda: NOON)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Return the targets."""
        return self.route.candidates

    @property
    def in_flight(self) -> list[int]:
        """Return how many calls are under way at each target."""
        return [candidate.in_flight for candidate in self.candidates]

    def admitted(self, *, stream: bool, key: Key = NO_KEY, messages: Any = None) -> Admitted:
        """Return a call that may be made."""
        envelope = Envelope("req_1", "POST", "/v1/chat/completions", "", {}, "192.0.2.7", self.clock())
        caller = Caller("192.0.2.7", 7, key)
        identified = Identified(envelope, Endpoint(Operation.CHAT, Surface.OPENAI), caller, "en_US")
        messages = messages or [{"role": "user", "content": "Hi"}]
        body = json.dumps({"model": "m", "messages": messages, "stream": stream}).encode()
        decoded = Decoded(identified, caller, self.dialect.decode(body, "application/json"))
        known = Settled(
            "req_1", Operation.CHAT, Surface.OPENAI, caller.address, "m", "", 0, Outcome.REFUSED, "", stream, 0.0
        )
        entry = Entry(self._means, known, "")
        return Admitted(decoded, self.route, entry, None, NOTHING, b"")

    def stream(self) -> Stream:
        """Return a stream that is ready to be carried to `port`."""
        admitted = self.admitted(stream=True)
        plan = self.calling.plan(admitted)
        return Stream(
            self.calling,
            admitted,
            self.dialect,
            plan,
            self.port,
            head_of,
            self.clock,
            self.clock(),
        )

    async def carry(self, stream: Stream | None = None) -> None:
        """Carry a stream, or a new one, and let its caller see the end."""
        stream = stream or self.stream()
        await stream.carry()
        stream.finish()

    def plan(self, *, stream: bool = False) -> tuple[Admitted, Plan]:
        """Return a call and its way."""
        admitted = self.admitted(stream=stream)
        return admitted, self.calling.plan(admitted)

    async def close(self) -> None:
        """End what is open."""
        await self.transport.close()
        self._means.journal.close()
        self._directory.cleanup()

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds


def _no_money(call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None) -> Refusal:
    """Set nothing aside: nobody has a budget here."""
    raise AssertionError(call_id, budgets, nano_usd)


def head_of(admitted: Admitted, plan: Plan | None, attempt: Attempt | None, type_lines: bytes) -> bytes:
    """Return a head that tells whether it is known who answers."""
    del admitted, attempt, type_lines
    return HEAD if plan is None else FULL_HEAD
