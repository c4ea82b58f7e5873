"""The counters that several machines share, in Redis or Valkey.

Owns what happens to a call with the store there and without it. Without it limits are counted here, each process its
part of them, and the answers say so; a call that counts against a budget is refused. `asking` knows the rules, `fleet`
the store, `money` the budgets. `app` makes one for each configuration.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

from chatgate.accounting.entries import RETRY_AFTER_SECONDS
from chatgate.admission.limits import UNLIMITED, Limits, Standing, Ticket
from chatgate.admission.rules import RESOURCES
from chatgate.counters.asking import Asking, Counted, Share, standing
from chatgate.counters.port import Taken
from chatgate.storage.redis import statements
from chatgate.storage.redis.connection import RedisError
from chatgate.storage.redis.statements import Correction
from chatgate.vocabulary.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chatgate.accounting.holds import Budget
    from chatgate.admission.limits import Bound, Facts, Rule
    from chatgate.counters.fleet import Fleet
    from chatgate.counters.money import SharedMoney
    from chatgate.storage.redis.statements import Money, Took

_FREE = Taken(UNLIMITED)
_REQUESTS = RESOURCES.index("requests")


class _Receipt(Struct, gc=False, eq=False):
    """What a call has taken of limits in the store, and when; nothing is left of it once the call has ended."""

    at_us: int
    counted: Sequence[Counted]


class _PartOf(Struct, gc=False, eq=False):
    """What a call has taken of this process's own part."""

    limits: Limits
    ticket: Ticket


class RedisCounters:
    """Counts in the store."""

    answer_at_once = False
    calls = None

    def __init__(self, rules: Sequence[Rule], fleet: Fleet, money: SharedMoney, clock: Callable[[], int]) -> None:
        """`clock` is that of `Limits`, for the time when there is no store."""
        self._rules = tuple(rules)
        self._asking = Asking(rules)
        self._fleet = fleet
        self._money = money
        self._clock = clock
        self._share: tuple[int, Share] | None = None

    @property
    def limit_attempts(self) -> bool:
        """Tell whether something is limited by upstream."""
        return self._asking.limit_attempts

    def needs_bound(self, rules: tuple[Rule, ...]) -> bool:
        """Tell whether tokens or money are limited."""
        return self._asking.needs_bound(rules)

    def take(
        self, facts: Facts, bound: Bound, rules: tuple[Rule, ...], call_id: str = "", budgets: tuple[Budget, ...] = ()
    ) -> Taken | Awaitable[Taken]:
        """Take a call from every limit and every budget, or from none; see `Counters`."""
        counted = self._asking.of_call(facts, bound, rules)
        if budgets:
            return self._take_with_money(counted, call_id, budgets, bound.nano_usd)
        if not counted:
            return _FREE
        if not self._fleet.is_ready:
            return self._take_part(facts, bound, rules)
        return self._take(counted, facts, bound, rules)

    def take_attempt(self, facts: Facts, bound: Bound) -> Taken | Awaitable[Taken]:
        """Take an attempt from the limits by upstream, or from none."""
        counted = self._asking.of_attempt(facts, bound)
        if not counted:
            return _FREE
        if not self._fleet.is_ready:
            return self._take_part_of_attempt(facts, bound)
        return self._take_attempt(counted, facts, bound)

    def standing(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing | Awaitable[Standing]:
        """Return where the caller stands."""
        counted = self._asking.of_call(facts, None, rules)
        if not counted:
            return UNLIMITED
        return self._standing(counted, facts, rules)

    def can_correct(self, receipt: object) -> bool:  # noqa: ARG002 - whatever it is for
        """Say yes: `settle` knows what there is to tell the store."""
        return True

    def settle(self, receipt: object, used: Bound) -> None:
        """Correct what was taken to what was used."""
        if isinstance(receipt, _PartOf):
            receipt.limits.settle(receipt.ticket, used)
        elif isinstance(receipt, _Receipt):
            self._correct(receipt, used)

    def release(self, receipt: object) -> None:
        """Give back all that was taken."""
        if isinstance(receipt, _PartOf):
            receipt.limits.release(receipt.ticket)
        elif isinstance(receipt, _Receipt):
            self._correct(receipt, None)

    async def _take(self, counted: list[Counted], facts: Facts, bound: Bound, rules: tuple[Rule, ...]) -> Taken:
        try:
            took = await self._ask(counted)
        except RedisError:
            return self._take_part(facts, bound, rules)
        return self._taken(counted, took)

    async def _take_attempt(self, counted: list[Counted], facts: Facts, bound: Bound) -> Taken:
        try:
            took = await self._ask(counted)
        except RedisError:
            return self._take_part_of_attempt(facts, bound)
        return self._taken(counted, took)

    async def _take_with_money(
        self, counted: list[Counted], call_id: str, budgets: tuple[Budget, ...], nano_usd: int | None
    ) -> Taken:
        """Take a call from limits and budgets. Raises `Overloaded` when the store cannot be asked."""
        if nano_usd is None:
            raise ValueError("a call that counts against a budget needs a price")
        for _ in range(2):
            if not self._money.is_known:
                break
            money, names = self._money.ask(call_id, budgets, nano_usd)
            try:
                took = await self._ask(counted, money)
            except statements.UnknownAccounts:
                if not await self._money.load_accounts(names):
                    break
            except RedisError:
                self._money.doubt(money)
                break
            except asyncio.CancelledError:
                # The store may have set it aside, and its answer may never come.
                self._money.doubt(money)
                raise
            else:
                return self._taken_with_money(counted, money, budgets, took)
        raise Overloaded("accounting_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)

    def _taken_with_money(
        self, counted: Sequence[Counted], money: Money, budgets: tuple[Budget, ...], took: Took
    ) -> Taken:
        hold = self._money.hold(money, budgets, took) if took.is_taken else None
        taken = self._taken(counted, took)
        if took.is_taken or not taken.standing.admitted:
            return Taken(taken.standing, taken.receipt, hold)
        return Taken(taken.standing, None, self._money.refusal(money, budgets, took))

    async def _standing(self, counted: list[Counted], facts: Facts, rules: tuple[Rule, ...]) -> Standing:
        if self._fleet.is_ready:
            asks = [each.ask for each in counted]
            try:
                answer = await self._fleet.ask(statements.take(self._fleet.session, 0, asks, looks=True))
            except RedisError:
                pass
            else:
                return standing(counted, statements.took(answer, asks).rooms, is_taken=False)
        share = self._part()
        return _degraded(share.limits.standing(facts, share.of_key(facts.key, rules)))

    async def _ask(self, counted: Sequence[Counted], money: Money | None = None) -> Took:
        """Return what the store made of a call. Raises `RedisError` and `UnknownAccounts`.

        What it took for a call that nobody waits for any more is given back.
        """
        asks = [each.ask for each in counted]

        def give_back(answer: Any) -> None:  # noqa: ANN401 - an answer of the store
            if answer[0] != 1:
                return
            self._correct(self._noted(counted, statements.took(answer, asks, money)), None)

        answer = await self._fleet.ask(
            statements.take(self._fleet.session, self._fleet.patience_us(), asks, money), give_back
        )
        try:
            return statements.took(answer, asks, money)
        except (statements.NoSession, statements.OtherEpoch) as error:
            self._fleet.lose("the server has forgotten what it was told")
            raise RedisError("the session has ended") from error

    def _taken(self, counted: Sequence[Counted], took: Took) -> Taken:
        stands = standing(counted, took.rooms, is_taken=took.is_taken)
        return Taken(stands, self._noted(counted, took) if took.is_taken and counted else None)

    def _noted(self, counted: Sequence[Counted], took: Took) -> _Receipt:
        for _, _, ask in counted:
            if ask.kind == "slots":
                self._fleet.hold_slots(ask.key, ask.amount)
        return _Receipt(took.at_us, counted)

    def _correct(self, receipt: _Receipt, used: Bound | None) -> None:
        """Change what was taken to what was used, and all of it to nothing when that is None."""
        counted, receipt.counted = receipt.counted, ()
        amounts = (0,) * len(RESOURCES) if used is None else used.amounts
        corrections = []
        for _, resource, (kind, key, amount, most, length_us) in counted:
            if kind == "slots":
                corrections.append(Correction(kind, key, -amount, receipt.at_us, most, length_us))
                continue
            actual = amounts[resource]
            if actual is None or actual == amount or (used is not None and resource == _REQUESTS):
                continue
            corrections.append(Correction(kind, key, actual - amount, receipt.at_us, most, length_us))
        if corrections:
            self._fleet.correct(corrections)

    def _part(self) -> Share:
        """Return this process's part of the limits, which begins with nothing taken each time the store is lost."""
        if self._share is None or self._share[0] != self._fleet.times_open:
            self._share = self._fleet.times_open, Share(self._rules, self._clock, self._fleet.processes)
        return self._share[1]

    def _take_part(self, facts: Facts, bound: Bound, rules: tuple[Rule, ...]) -> Taken:
        share = self._part()
        return _part_taken(share.limits, share.limits.admit(facts, bound, share.of_key(facts.key, rules)))

    def _take_part_of_attempt(self, facts: Facts, bound: Bound) -> Taken:
        limits = self._part().limits
        return _part_taken(limits, limits.admit_attempt(facts, bound))


def _part_taken(limits: Limits, stands: Standing) -> Taken:
    return Taken(_degraded(stands), None if stands.ticket is None else _PartOf(limits, stands.ticket))


def _degraded(stands: Standing) -> Standing:
    return stands if stands is UNLIMITED else structs.replace(stands, ticket=None, is_degraded=True)
