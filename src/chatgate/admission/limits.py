"""Decide whether a call may be made now: the one rule of limits, whatever it counts and by whom.

Owns the decision over all rules; `address_limits` and `meters` count, `rules` and `standing` are the nouns, `headers`
tells of it. Does no I/O, holds no lock and awaits nothing: a decision and its record are one step, so no interleaving
of calls can come between. The composition root builds `Limits`; the pipeline asks it once per call, and once per
attempt for what is limited by upstream.

Laws. In no window of a rule's length is more taken than its amount. A call is taken from every rule or from none; a
refused call takes nothing. The wait that a refusal names is exact: whoever waits that long and is alone is admitted, a
nanosecond earlier is not (of slots nobody knows when one will be free). Memory is bounded for each caller and for all.

What a call takes counts from the moment it was admitted. Of tokens and money an upper bound is taken first; when the
call ends, the ticket is settled, and what was not used is free again at once. Should more have been used than was
taken, the rest counts from then on, and nothing is admitted until enough has left the window. A slot in flight is a
lease on the call's ticket: whoever ends the call, in `finally`, settles or releases it, which frees the slot exactly
once. Who counts for other processes does so for those that have died, so no slot outlives its owner.

Rules on the requests of an address alone are the commonest, and are left to `address_limits`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from chatgate.admission.address_limits import AddressLimits
from chatgate.admission.headers import ratelimit_headers, retry_headers
from chatgate.admission.meters import SlotMeter, WindowMeter
from chatgate.admission.rules import (
    IN_FLIGHT,
    NOTHING,
    REQUESTS,
    RESERVED,
    RESOURCES,
    USD,
    WINDOW_SECONDS,
    Bound,
    Facts,
    Identity,
    Rule,
    Subject,
    identity_of,
    lowest_of,
    matcher_of,
    rules_of_key,
    subject_of,
)
from chatgate.admission.standing import UNLIMITED, Gauge, Standing, Ticket
from chatgate.vocabulary.errors import CallerError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = [
    "NOTHING",
    "UNLIMITED",
    "WINDOW_SECONDS",
    "Bound",
    "Facts",
    "Gauge",
    "Limits",
    "Rule",
    "Standing",
    "Ticket",
    "ratelimit_headers",
    "retry_headers",
    "rules_of_key",
]

_SECOND_NS = 1_000_000_000
_ONE_OF_EACH = (1,) * len(RESOURCES)
_OF_NOTHING = NOTHING.amounts
_REQUESTS, _USD = RESOURCES.index(REQUESTS), RESOURCES.index(USD)
_MAX_KEYS = 10_000
"""So many keys' rules are kept prepared."""

_Meters = dict[Identity, "WindowMeter | SlotMeter"]


class _Watch(NamedTuple):
    """A rule, and where what it limits is counted.

    `resource` is an index of `RESOURCES`. `subject_of` returns in whose name a call counts, None or a tuple with a None
    in it when the rule does not hold for it; `is_for` tells whether it holds for a model, None when for all.
    """

    rule: Rule
    amount: int
    meter: WindowMeter | SlotMeter
    resource: int
    window_ns: int
    subject_of: Callable[[Facts], Subject | None]
    is_for: Callable[[str], object] | None


_Counted = tuple[_Watch, "Subject", int, int]
"""A rule that holds for a call: in whose name, how much the call takes, and how much was left before."""


class _Judgement(Struct, gc=False):
    """What all rules together say of a call."""

    counted: list[_Counted]
    reached: tuple[Rule, ...] = ()
    wait_ns: int = 0
    fits: bool = True


class Limits:
    """Admits calls by rules. False when there are none."""

    def __init__(
        self,
        rules: Sequence[Rule],
        clock: Callable[[], int],
        *,
        predecessor: Limits | None = None,
        max_callers: int = 100_000,
        exact_up_to: int | None = None,
        seed: int | None = None,
    ) -> None:
        """`clock` returns nanoseconds and never goes back, as `time.monotonic_ns`.

        What the predecessor counts and these rules count too goes on, even where the amounts are others; the calls of
        addresses go on when none of the rules on them has changed. At most `max_callers` callers are remembered one by
        one for each rule. `exact_up_to` and `seed` are as in `address_limits` and `meters`.
        """
        self._clock = clock
        self._max_callers = max_callers
        self._exact_up_to = exact_up_to
        self._seed = seed
        self._own = tuple(rule for rule in rules if _is_of_addresses(rule))
        others = [rule for rule in rules if not _is_of_addresses(rule)]
        self._addresses = AddressLimits(
            self._own, clock, max_callers=max_callers, exact_up_to=exact_up_to or 2048, seed=seed
        )
        self._meters: _Meters = {}
        self._meters_of_keys: _Meters = {}
        if predecessor is not None:
            if predecessor._own == self._own:  # noqa: SLF001 - of the same class
                self._addresses = predecessor._addresses  # noqa: SLF001 - of the same class
            known = predecessor._meters  # noqa: SLF001 - of the same class
            self._meters = {identity: known[identity] for identity in map(identity_of, others) if identity in known}
            self._meters_of_keys = predecessor._meters_of_keys  # noqa: SLF001 - of the same class
        self._admit_address = self._addresses.admit
        self._of_addresses = self._addresses or None
        self._watches = self._watched([rule for rule in others if "upstream" not in rule.scope], self._meters)
        self._of_attempts = self._watched([rule for rule in others if "upstream" in rule.scope], self._meters)
        self._keys: dict[str, tuple[tuple[Rule, ...], tuple[_Watch, ...]]] = {}
        self._reserves = any(rule.resource in RESERVED for rule in rules)

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self._addresses) or bool(self._watches) or bool(self._of_attempts)

    @property
    def limit_attempts(self) -> bool:
        """Tell whether attempts have to be admitted, because something is limited by upstream."""
        return bool(self._of_attempts)

    @property
    def limit_calls(self) -> bool:
        """Tell whether there is any rule that calls have to be admitted by."""
        return bool(self._addresses) or bool(self._watches)

    @property
    def calls(self) -> AddressLimits | None:
        """Return what counts calls where nothing is limited but the calls of addresses, else None."""
        return None if self._watches or self._of_attempts else self._addresses

    def needs_bound(self, more_rules: tuple[Rule, ...] = ()) -> bool:
        """Tell whether tokens or money are limited, so that a call has to say how much it may take."""
        return self._reserves or any(rule.resource in RESERVED for rule in more_rules)

    def admit(self, facts: Facts, bound: Bound = NOTHING, more_rules: tuple[Rule, ...] = ()) -> Standing:
        """Take a call from every rule, or refuse and take nothing.

        `bound` is the most that the call may take of tokens and money. `more_rules` are those of the caller's key, from
        `rules_of_key`; the same tuple for the same key is fastest. Raises `CallerError` when money is limited and the
        model has no price. What the standing's ticket holds has to be settled or released.
        """
        if not more_rules and not self._watches:
            return self._admit_address(facts.address)
        return self._admit(facts, bound, self._watches_for(facts, more_rules), self._of_addresses)

    def admit_attempt(self, facts: Facts, bound: Bound = NOTHING) -> Standing:
        """Take an attempt at `facts.upstream` from the rules by upstream, as `admit` does a call from all others."""
        return self._admit(facts, bound, self._of_attempts, None) if self._of_attempts else UNLIMITED

    def standing(self, facts: Facts, more_rules: tuple[Rule, ...] = ()) -> Standing:
        """Return where the caller stands, and take nothing; `admitted` is said of the smallest call there is."""
        watches = self._watches_for(facts, more_rules)
        if not watches:
            return self._addresses.standing(facts.address)
        now = self._clock()
        base = self._addresses.judge(facts.address, now, 0) if self._addresses else UNLIMITED
        return _standing(base, _judge(facts, _ONE_OF_EACH, watches, now), now, None)

    def retake(
        self, facts: Facts, bound: Bound, more_rules: tuple[Rule, ...], at_ns: int, *, is_attempt: bool
    ) -> Ticket:
        """Have a call hold what it took at a time of others, who are gone: its slots, whether there is room or not.

        Windows have what it took of them.
        """
        now = self._clock()
        watches = self._of_attempts if is_attempt else self._watches_for(facts, more_rules)
        addresses = None if is_attempt else self._of_addresses
        counted = _judge(facts, bound.amounts, watches, now).counted
        for (_, most, meter, _, _, _, _), subject, amount, _ in counted:
            if meter.resource == IN_FLIGHT:
                meter.take(subject, now, amount, most)
        taken = tuple([(watch.meter, subject, amount) for watch, subject, amount, _ in counted])
        return Ticket(at_ns, addresses, facts.address, taken)

    @property
    def addresses(self) -> AddressLimits:
        """Return what counts the calls of addresses."""
        return self._addresses

    @property
    def rules_on_addresses(self) -> tuple[Rule, ...]:
        """Return the rules that it counts by."""
        return self._own

    def meters(self) -> Iterator[WindowMeter]:
        """Yield what counts all else over a window."""
        for meter in (*self._meters.values(), *self._meters_of_keys.values()):
            if isinstance(meter, WindowMeter):
                yield meter

    def meter(self, identity: Identity, *, of_keys: bool) -> WindowMeter:
        """Return what counts this over a window, and make it if there is none yet."""
        meters = self._meters_of_keys if of_keys else self._meters
        meter = meters.get(identity) or meters.setdefault(identity, self._meter(identity, of_keys=of_keys))
        assert isinstance(meter, WindowMeter)  # noqa: S101 - narrows for the type checker: slots have no window
        return meter

    def keep(self, meter: WindowMeter) -> None:
        """Go on with what a meter has counted that others by the same seed had."""
        of_keys, identity = meter.name
        (self._meters_of_keys if of_keys else self._meters)[identity] = meter

    def settle(self, ticket: Ticket, actual: Bound) -> None:
        """Correct what a call that was sent has taken to what it used, and free its slots; a second time is nothing.

        Where `actual.nano_usd` is None, the money stays as it was taken.
        """
        taken = ticket.taken
        ticket.addresses, ticket.taken = None, ()
        now = 0
        for meter, subject, amount in taken:
            if meter.resource == REQUESTS:
                continue
            now = now or self._clock()
            used = 0 if meter.resource == IN_FLIGHT else actual.amounts[RESOURCES.index(meter.resource)]
            if used is None or used == amount:
                continue
            if used < amount:
                meter.give_back(subject, ticket.at_ns, now, amount - used)
            else:
                meter.add(subject, now, used - amount)

    def release(self, ticket: Ticket) -> None:
        """Give back everything that a call has taken which was not sent after all; a second time is nothing."""
        addresses, taken = ticket.addresses, ticket.taken
        ticket.addresses, ticket.taken = None, ()
        now = self._clock()
        if addresses is not None:
            addresses.give_back(ticket.address, ticket.at_ns, now)
        for meter, subject, amount in taken:
            meter.give_back(subject, ticket.at_ns, now, amount)

    def _admit(
        self, facts: Facts, bound: Bound, watches: tuple[_Watch, ...], addresses: AddressLimits | None
    ) -> Standing:
        now = self._clock()
        base = UNLIMITED if addresses is None else addresses.judge(facts.address, now, 1)
        judgement = _judge(facts, _OF_NOTHING if bound is NOTHING else bound.amounts, watches, now)
        if judgement.reached or not base.admitted:
            if addresses is not None and base.admitted:
                base = addresses.judge(facts.address, now, 0)
            return _standing(base, judgement, now, None)
        ticket = base.ticket or Ticket(now, None, facts.address)
        if addresses is not None:
            addresses.record(facts.address, now)
        for (_, most, meter, _, _, _, _), subject, amount, _ in judgement.counted:
            meter.take(subject, now, amount, most)
        ticket.taken = tuple([(watch.meter, subject, amount) for watch, subject, amount, _ in judgement.counted])
        return _standing(base, judgement, now, ticket)

    def _watches_for(self, facts: Facts, rules: tuple[Rule, ...]) -> tuple[_Watch, ...]:
        """Return the configured rules and those of the key, which count apart from configured ones that are alike."""
        key = facts.key
        if not rules or key is None:
            return self._watches
        known = self._keys.get(key)
        if known is None or (known[0] is not rules and known[0] != rules):
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            known = self._keys[key] = rules, self._watched(rules, self._meters_of_keys)
        return self._watches + known[1]

    def _watched(self, rules: Iterable[Rule], meters: _Meters) -> tuple[_Watch, ...]:
        """Give each rule the meter that counts what it limits; of rules on the same, the lowest amount counts."""
        of_keys = meters is self._meters_of_keys
        return tuple(
            [
                _Watch(
                    rule,
                    rule.amount,
                    meters.get(identity) or meters.setdefault(identity, self._meter(identity, of_keys=of_keys)),
                    RESOURCES.index(rule.resource),
                    identity[2],
                    subject_of(rule.scope),
                    None if rule.models is None else matcher_of(rule.models),
                )
                for identity, rule in lowest_of(rules).items()
            ]
        )

    def _meter(self, identity: Identity, *, of_keys: bool) -> WindowMeter | SlotMeter:
        if identity[1] == IN_FLIGHT:
            return SlotMeter()
        return WindowMeter(
            identity,
            of_keys=of_keys,
            exact=self._exact_up_to,
            max_subjects=self._max_callers,
            seed=self._seed,
        )


def _is_of_addresses(rule: Rule) -> bool:
    return rule.scope == ("address",) and rule.resource == REQUESTS and rule.models is None


def _judge(facts: Facts, amounts: Sequence[int | None], watches: tuple[_Watch, ...], now: int) -> _Judgement:
    """Ask every rule, and take nothing. Raises as `Limits.admit`."""
    counted: list[_Counted] = []
    judgement = _Judgement(counted)
    for watch in watches:
        rule, most, meter, resource, _, subject_of, is_for = watch
        subject = subject_of(facts)
        if subject is None or (subject.__class__ is tuple and None in subject):
            continue
        if is_for is not None and not is_for(facts.model):
            continue
        amount = amounts[resource]
        if amount is None:
            raise CallerError(Kind.PERMISSION_DENIED, "price_unknown", parameters={"model": facts.model})
        left = most - meter.used(subject, now)
        if left < amount:
            judgement.reached += (rule,)
            if amount > most:
                judgement.fits = False
            else:
                judgement.wait_ns = max(judgement.wait_ns, meter.wait_ns(subject, now, amount - left))
        counted.append((watch, subject, amount, left))
    return judgement


def _standing(base: Standing, judgement: _Judgement, now: int, ticket: Ticket | None) -> Standing:
    """Add what the meters say to what the rules on addresses have said, after a call was taken or refused."""
    limit, remaining, reset_seconds = base.limit, base.remaining, base.reset_seconds
    tokens: Gauge | None = None
    for (_, most, meter, resource, window_ns, _, _), subject, amount, before in judgement.counted:
        if resource >= _USD:
            continue
        left = before - amount if ticket is not None else max(before, 0)
        if resource == _REQUESTS:
            if limit is not None and left > remaining:
                continue
        elif tokens is not None and left > tokens.remaining:
            continue
        reset = (window_ns if ticket is not None and amount else meter.reset_ns(subject, now)) / _SECOND_NS
        if resource != _REQUESTS:
            if tokens is None or left < tokens.remaining or reset > tokens.reset_seconds:
                tokens = Gauge(most, left, reset)
        elif limit is None or left < remaining or reset > reset_seconds:
            limit, remaining, reset_seconds = most, left, reset
    if ticket is not None:
        return Standing(True, limit, remaining, reset_seconds, 0.0, (), ticket, tokens)  # noqa: FBT003 - faster so
    reached = base.reached + judgement.reached
    wait = max(base.retry_after_seconds, judgement.wait_ns / _SECOND_NS) if judgement.fits else 0.0
    return Standing(not reached, limit, remaining, reset_seconds, wait, reached, None, tokens, judgement.fits)
