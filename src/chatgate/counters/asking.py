"""What is asked of a store for a call, and what its answer says of the limits.

Owns which rules hold for a call, and where a caller stands by what a store says. Pure: `redis` asks. Decides as
`admission.limits` does, with what somebody else has counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from msgspec import structs

from chatgate.admission.limits import Bound, Facts, Gauge, Limits, Rule, Standing
from chatgate.admission.rules import (
    IN_FLIGHT,
    REQUESTS,
    RESERVED,
    RESOURCES,
    USD,
    Subject,
    lowest_of,
    matcher_of,
    subject_of,
)
from chatgate.storage.redis.statements import Ask, Kind, Room, limit_key
from chatgate.vocabulary.errors import CallerError
from chatgate.vocabulary.errors import Kind as ErrorKind

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence


_MICROSECONDS = 1_000_000
_NANOSECONDS_OF_ONE = 1_000
_ONE_OF_EACH = (1,) * len(RESOURCES)
_REQUESTS, _USD = RESOURCES.index(REQUESTS), RESOURCES.index(USD)
_MAX_KEYS = 10_000

_RETRY_SECONDS = 1.0
"""Of slots nobody knows when one will be free."""


class _Watch(NamedTuple):
    """A rule: what it counts, where, and for whom it holds, as `Limits` has it."""

    rule: Rule
    resource: int
    kind: Kind
    length_us: int
    name: tuple[Hashable, ...]
    subject_of: Callable[[Facts], Subject | None]
    is_for: Callable[[str], object] | None


class Counted(NamedTuple):
    """A rule that holds for a call, and what is asked of it."""

    rule: Rule
    resource: int
    ask: Ask


class Asking:
    """The rules of one configuration. False when there are none."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        """Prepare the rules."""
        self._of_calls = _watched([rule for rule in rules if "upstream" not in rule.scope], "rule")
        self._of_attempts = _watched([rule for rule in rules if "upstream" in rule.scope], "rule")
        self._of_keys: dict[str, tuple[tuple[Rule, ...], tuple[_Watch, ...]]] = {}
        self._reserves = any(rule.resource in RESERVED for rule in rules)

    def __bool__(self) -> bool:
        """Tell whether there is any rule."""
        return bool(self._of_calls or self._of_attempts)

    @property
    def limit_attempts(self) -> bool:
        """Tell whether something is limited by upstream."""
        return bool(self._of_attempts)

    def needs_bound(self, rules: tuple[Rule, ...] = ()) -> bool:
        """Tell whether tokens or money are limited."""
        return self._reserves or any(rule.resource in RESERVED for rule in rules)

    def of_call(self, facts: Facts, bound: Bound | None, rules: tuple[Rule, ...]) -> list[Counted]:
        """Return what a call asks of the rules; `bound` is None for the smallest call there is.

        `rules` are those of the caller's key. Raises `CallerError` when money is limited and the model has no price.
        """
        return _counted(self._of_calls + self._watches_of(facts.key, rules), facts, bound)

    def of_attempt(self, facts: Facts, bound: Bound) -> list[Counted]:
        """Return what an attempt asks of the rules by upstream. Raises as `of_call`."""
        return _counted(self._of_attempts, facts, bound)

    def _watches_of(self, key: str | None, rules: tuple[Rule, ...]) -> tuple[_Watch, ...]:
        """Return a key's own rules, which count apart from configured ones that are alike."""
        if not rules or key is None:
            return ()
        known = self._of_keys.get(key)
        if known is None or (known[0] is not rules and known[0] != rules):
            if len(self._of_keys) >= _MAX_KEYS:
                self._of_keys.clear()
            known = self._of_keys[key] = rules, _watched(rules, "key")
        return known[1]


def standing(counted: Sequence[Counted], rooms: Sequence[Room], *, is_taken: bool) -> Standing:
    """Return where a caller stands after a call that was taken, or before one that was not."""
    limit: int | None = None
    remaining, reset_seconds, wait_us, fits = 0, 0.0, 0, True
    tokens: Gauge | None = None
    reached: tuple[Rule, ...] = ()
    for (rule, resource, ask), room in zip(counted, rooms, strict=True):
        before = ask.most - room.used
        if not is_taken and before < ask.amount:
            reached += (rule,)
            if ask.amount > ask.most:
                fits = False
            else:
                wait_us = max(wait_us, round(_RETRY_SECONDS * _MICROSECONDS) if ask.kind == "slots" else room.wait_us)
        if resource >= _USD:
            continue
        left = before - ask.amount if is_taken else max(before, 0)
        reset = (ask.length_us if is_taken and ask.amount else room.reset_us) / _MICROSECONDS
        if resource == _REQUESTS:
            if limit is None or (left, -reset) < (remaining, -reset_seconds):
                limit, remaining, reset_seconds = ask.most, left, reset
        elif tokens is None or (left, -reset) < (tokens.remaining, -tokens.reset_seconds):
            tokens = Gauge(ask.most, left, reset)
    return Standing(
        not reached,
        limit,
        remaining,
        reset_seconds,
        wait_us / _MICROSECONDS if fits else 0.0,
        reached,
        None,
        tokens,
        fits,
    )


class Share:
    """The limits of one process while nobody counts for all: a part of each, and at least one of everything."""

    def __init__(self, rules: Sequence[Rule], clock: Callable[[], int], processes: int) -> None:
        """Begin with nothing taken; `clock` is that of `Limits`."""
        self._processes = processes
        self._keys: dict[str, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {}
        self.limits = Limits(self._parts(rules), clock)

    def of_key(self, key: str | None, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        """Return this process's part of a key's own rules."""
        if not rules or key is None:
            return ()
        known = self._keys.get(key)
        if known is None or (known[0] is not rules and known[0] != rules):
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            known = self._keys[key] = rules, self._parts(rules)
        return known[1]

    def _parts(self, rules: Iterable[Rule]) -> tuple[Rule, ...]:
        return tuple([structs.replace(rule, amount=max(rule.amount // self._processes, 1)) for rule in rules])


def _watched(rules: Iterable[Rule], whose: str) -> tuple[_Watch, ...]:
    """Prepare rules; of those on the same, the lowest amount counts."""
    return tuple(
        [
            _Watch(
                rule,
                RESOURCES.index(rule.resource),
                "slots" if rule.resource == IN_FLIGHT else "window",
                identity[2] // _NANOSECONDS_OF_ONE,
                (whose, *identity),
                subject_of(rule.scope),
                None if rule.models is None else matcher_of(rule.models),
            )
            for identity, rule in lowest_of(rules).items()
        ]
    )


def _counted(watches: Iterable[_Watch], facts: Facts, bound: Bound | None) -> list[Counted]:
    amounts = _ONE_OF_EACH if bound is None else bound.amounts
    counted = []
    for rule, resource, kind, length_us, name, subject_for, is_for in watches:
        subject = subject_for(facts)
        if subject is None or (subject.__class__ is tuple and None in subject):
            continue
        if is_for is not None and not is_for(facts.model):
            continue
        amount = amounts[resource]
        if amount is None:
            raise CallerError(ErrorKind.PERMISSION_DENIED, "price_unknown", parameters={"model": facts.model})
        counted.append(Counted(rule, resource, Ask(kind, limit_key(name, subject), amount, rule.amount, length_us)))
    return counted
