"""The one that counts for several workers: limits, and what budgets have spent and hold.

Owns who has taken what, and what becomes of it when a worker ends. Decides by the same objects as a gateway of one
process, so that nothing is different but the way there. Does no I/O: `hosting` hands it what workers say, and takes
their answers. What the database says is spent is `readings`' to find out.

Laws. What a worker has taken ends with its connection: slots are free at once; what else was reserved stays taken, and
money that was held is spent, as both may have been used. What is late is answered all the same: the worker gives back
what nobody waits for. Until it is known what budgets have spent, nothing is set aside. Whoever succeeds an owner that
died goes on with its counts: windows are in the `notes`, slots and money are what the workers say, and nobody is
answered before all of them have said it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Final, cast

from msgspec import Struct

from chatgate.accounting.holds import Budget, Hold, Holds, Refusal
from chatgate.admission.limits import Bound, Limits, Rule, Ticket
from chatgate.counters.local import LocalCounters
from chatgate.counters.port import Taken
from chatgate.counters.readings import Readings
from chatgate.counters.wire import (
    ATTEMPT,
    LOOK,
    Answer,
    Ask,
    Configure,
    Hello,
    Order,
    Release,
    Request,
    Retake,
    Settle,
    Spend,
    budgets_of,
    rules_of,
)
from chatgate.vocabulary.errors import GateError, Overloaded

SILENT_SECONDS: Final = 30.0
"""A worker that says nothing for so long has ended, or as good as that: it says every ten seconds that it lives."""

GATHERING_SECONDS: Final = 1.0
"""How long a new owner waits for the workers of the one before it. One that does not come has died as well."""

_REMEMBERED: Final = 10_000
_GENERATIONS: Final = 4
"""So many configurations of a worker are kept: calls that began under an older one are few, and have the newest."""

if TYPE_CHECKING:
    from chatgate.counters.notes import Notes

_FAULT: Final = "overloaded"

_LOG = logging.getLogger(__name__)


class _Receipt(Struct, gc=False):
    counters: LocalCounters
    ticket: Ticket
    bound: Bound


class Member:
    """A worker that is connected."""

    def __init__(self, say: Callable[[Order], None], now: float) -> None:
        """`say` sends it something."""
        self.say = say
        self.heard_at = now
        self.generations: dict[bytes, LocalCounters] = {}
        self.receipts: dict[int, _Receipt] = {}
        self.holds: dict[str, Hold] = {}
        self.process = 0


class Owner:
    """Counts. `readings` is to be asked after each message whether it has something to do."""

    def __init__(
        self, clock: Callable[[], float], clock_ns: Callable[[], int], wall_clock: Callable[[], datetime], notes: Notes
    ) -> None:
        """`clock` is monotonic, in seconds, `clock_ns` the same in nanoseconds, `wall_clock` gives aware times.

        What is in the `notes` goes on.
        """
        self._clock = clock
        self._clock_ns = clock_ns
        self._wall_clock = wall_clock
        self._today = wall_clock().date()
        self.holds = Holds()
        self.members: set[Member] = set()
        self.readings = Readings(self.members, self.holds, clock)
        self._notes = notes
        self._newest, awaited = notes.read(clock_ns)
        self._awaited = set(awaited)
        self._gathers_until = clock() + GATHERING_SECONDS
        self._early: list[tuple[Member, Ask]] = []
        self._generations: dict[bytes, LocalCounters] = {}
        self._rules: dict[bytes, tuple[Rule, ...]] = {}
        self._budgets: dict[bytes, tuple[Budget, ...]] = {}

    def join(self, say: Callable[[Order], None]) -> Member:
        """Take a worker in; `say` sends it something."""
        member = Member(say, self._clock())
        self.members.add(member)
        self.readings.note_joined(member)
        return member

    def leave(self, member: Member) -> None:
        """End what a worker has taken; again is nothing."""
        if member not in self.members:
            return
        self.members.remove(member)
        self._notes.left(member.process)
        self._notes.write()
        for taken in member.receipts.values():
            taken.counters.settle(taken.ticket, taken.bound)
        for hold in member.holds.values():
            self.holds.settle(hold.call_id, hold.amount_nano_usd)
        self.readings.note_left(has_spent=bool(member.holds))
        member.receipts.clear()
        member.holds.clear()
        self._forget_generations()

    def tick(self) -> list[Member]:
        """Do what is due by the clock, and return whose connections are to be ended; to be called every second."""
        now, wall_now = self._clock(), self._wall_clock()
        if wall_now.date() != self._today:
            self._today = wall_now.date()
            self.holds.forget(wall_now)
        self.readings.tick()
        if self._awaited and now >= self._gathers_until:
            self._begin()
        return [member for member in self.members if now - member.heard_at >= SILENT_SECONDS]

    def hear(self, member: Member, requests: Iterable[Request]) -> None:
        """Do what a worker says, in its order. Never raises: a fault of ours costs one request."""
        member.heard_at = self._clock()
        for request in requests:
            try:
                self._hear(member, request)
            except Exception:  # noqa: BLE001 - the boundary: a fault of ours must not end what counts for all
                _LOG.exception("A request to the counters failed by a fault of ours")
                if isinstance(request, Ask):
                    member.say(Answer(request.number, _FAULT))
        # What is said goes out in a later turn of the loop.
        self._notes.write()

    def _hear(self, member: Member, request: Request) -> None:
        match request:
            case Ask() if self._awaited:
                self._early.append((member, request))
            case Ask():
                member.say(self._answer(member, request))
            case Settle() | Release():
                self._end(member, request)
            case Retake():
                self._retake(member, request)
            case Spend():
                hold = member.holds.pop(request.call_id, None)
                if hold is not None:
                    self.holds.settle(request.call_id, request.cost_nano_usd)
                    self.readings.note_spent(member, hold.accounts, request.cost_nano_usd)
            case Hello():
                for hold in request.holds:
                    self._take_over(member, hold)
                self._know(member, request.process)
            case Configure():
                self._configure(member, request)
            case _:
                self.readings.hear(member, request)

    def _end(self, member: Member, request: Settle | Release) -> None:
        taken = member.receipts.pop(request.number, None)
        if taken is None:
            return
        ticket, now_ns = taken.ticket, self._clock_ns()
        if isinstance(request, Release):
            self._notes.ended(ticket, None, now_ns)
            taken.counters.release(ticket)
        else:
            used = Bound(request.input_tokens, request.output_tokens, request.nano_usd)
            self._notes.ended(ticket, used, now_ns)
            taken.counters.settle(ticket, used)

    def _know(self, member: Member, process: int) -> None:
        """Take note of which process a worker is, and that it has said all that it has of owners before."""
        if process != member.process:
            self._notes.left(member.process)
            self._notes.joined(process)
        member.process = process
        if self._awaited:
            self._awaited.discard(process)
            if not self._awaited:
                self._begin()

    def _begin(self) -> None:
        """Answer who has asked meanwhile, and everybody from now on."""
        self._awaited.clear()
        early, self._early = self._early, []
        for member, ask in early:
            if member in self.members:
                self.hear(member, [ask])

    def _retake(self, member: Member, told: Retake) -> None:
        """Go on with what an owner before this one took for a call that is under way."""
        ask, counters = told.ask, self._counters_of(member, told.ask)
        rules, is_attempt = self._rules_of(ask.rules), ask.what == ATTEMPT
        ticket = counters.limits.retake(ask.facts, ask.bound, rules, told.at_ns, is_attempt=is_attempt)
        member.receipts[ask.number] = _Receipt(counters, ticket, ask.bound)

    def _answer(self, member: Member, ask: Ask) -> Answer:
        counters = self._counters_of(member, ask)
        facts, bound, rules = ask.facts, ask.bound, self._rules_of(ask.rules)
        try:
            if ask.what == LOOK:
                taken = Taken(counters.standing(facts, rules))
            elif ask.what == ATTEMPT:
                taken = counters.take_attempt(facts, bound)
            else:
                taken = counters.take(facts, bound, rules, ask.call_id, self._budgets_of(ask.budgets))
        except GateError as error:
            return Answer(ask.number, error.reason)
        ticket = cast("Ticket | None", taken.receipt)
        if ticket is not None:
            member.receipts[ask.number] = _Receipt(counters, ticket, bound)
            self._notes.took(ticket)
        hold, refusal = taken.hold, None
        if isinstance(hold, Refusal):
            hold, refusal = None, hold
        if hold is not None:
            member.holds[hold.call_id] = hold
        standing = taken.standing
        return Answer(
            ask.number,
            "",
            standing.admitted,
            standing.limit,
            standing.remaining,
            standing.reset_seconds,
            standing.retry_after_seconds,
            standing.reached,
            standing.tokens,
            standing.fits,
            ticket is not None,
            hold,
            refusal,
            0 if ticket is None else ticket.at_ns,
        )

    @staticmethod
    def _counters_of(member: Member, ask: Ask) -> LocalCounters:
        """Return what counts by the rules that a question names, or by the newest when they are forgotten."""
        return member.generations.get(ask.generation) or next(reversed(member.generations.values()))

    def _reserve(self, call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None) -> Hold | Refusal:
        if nano_usd is None:
            raise ValueError("a call that counts against a budget needs a price")
        if not self.readings.is_loaded:
            raise Overloaded("accounting_unavailable")
        return self.holds.reserve(call_id, budgets, nano_usd, self._wall_clock())

    def _take_over(self, member: Member, hold: Hold) -> None:
        """Count what a worker has set aside already, by an owner before this one or by another connection."""
        for other in self.members:
            if other.holds.pop(hold.call_id, None) is not None:
                break
        else:
            self.holds.adopt(hold)
        member.holds[hold.call_id] = hold
        self.readings.want()

    def _configure(self, member: Member, told: Configure) -> None:
        """Have the rules of a generation, which goes on with what the ones before have counted."""
        counters = self._generations.get(told.generation)
        if counters is None:
            self._newest = Limits(told.rules, self._clock_ns, predecessor=self._newest, seed=self._notes.seed)
            self._notes.follow(self._newest)
            counters = self._generations[told.generation] = LocalCounters(self._newest, self._reserve)
        member.generations.pop(told.generation, None)
        member.generations[told.generation] = counters
        while len(member.generations) > _GENERATIONS:
            del member.generations[next(iter(member.generations))]
        self._forget_generations()

    def _forget_generations(self) -> None:
        """Keep what somebody uses, and the newest, which a worker that starts again will."""
        used = {generation for member in self.members for generation in member.generations}
        for generation in list(self._generations)[:-1]:
            if generation not in used:
                del self._generations[generation]

    def _rules_of(self, encoded: bytes) -> tuple[Rule, ...]:
        """Return a key's rules; the same ones are the same object, as is fastest."""
        rules = self._rules.get(encoded)
        if rules is None:
            if len(self._rules) >= _REMEMBERED:
                self._rules.clear()
            rules = self._rules[encoded] = rules_of(encoded)
        return rules

    def _budgets_of(self, encoded: bytes) -> tuple[Budget, ...]:
        budgets = self._budgets.get(encoded)
        if budgets is None:
            if len(self._budgets) >= _REMEMBERED:
                self._budgets.clear()
            budgets = self._budgets[encoded] = budgets_of(encoded)
        return budgets
