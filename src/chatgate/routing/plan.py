"""One call's way through a model's targets, its retries and its fallbacks.

Owns which candidate comes next after a failure, whether it is worth waiting for, and when to give up; tells circuits,
credentials and budgets how it went. The attempts ask it before each try. Every decision is synchronous.

    first     a usable candidate of the model, else of a fallback, else the least bad one
    then      another candidate of the model, the same one again, the next fallback: the first of these that may be
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from chatgate.routing.affinity import may_follow
from chatgate.routing.backoff import delay_seconds, honoured_wait
from chatgate.routing.candidates import SOON_SECONDS
from chatgate.vocabulary.errors import Blame, Overloaded, Remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chatgate.routing.candidates import Candidate
    from chatgate.routing.table import Route
    from chatgate.vocabulary.errors import GateError

_SILENCES = frozenset({"upstream_connect_timeout", "upstream_silent"})


class Plan(Struct, gc=False):
    """The way of one call. `candidate` is where it goes now, `attempts` counts the tries so far.

    Nothing is tried after `give_up_at`; `random` returns numbers from 0 to 1. `budget_spent` says that a further try
    was not allowed because there had been too many of them.
    """

    route: Route
    candidate: Candidate
    max_retries: int
    give_up_at: float
    random: Callable[[], float]
    attempts: int = 1
    budget_spent: bool = False
    _is_forced: bool = False
    _retries: int = 0
    _next_fallback: int = 0
    _route_now: Route | None = None
    _tried: list[Candidate] = []

    @staticmethod
    def begin(
        route: Route,
        now: float,
        *,
        max_retries: int,
        give_up_at: float,
        random: Callable[[], float],
        remembered: Candidate | None = None,
    ) -> Plan:
        """Choose the first candidate; `remembered` is where the conversation went before, None for a new one.

        Raises `Overloaded` when no target has room.
        """
        candidate = None
        if remembered is not None and may_follow(remembered, _first_tier(route, now)) and remembered.is_usable(now):
            candidate = remembered
        if candidate is None:
            candidate = _choose(route, (), now)
        if candidate is not None:
            candidate.upstream.budget.note_call()
            return Plan(route, candidate, max_retries, give_up_at, random)
        plan = Plan(route, route.candidates[0], max_retries, give_up_at, random)
        candidate = plan._fall_back(now, ())
        if candidate is None:
            plan._is_forced = True
            candidate = _least_bad(route)
        plan.candidate = candidate
        candidate.upstream.budget.note_call()
        return plan

    def left_seconds(self, now: float) -> float:
        """Return what is left of the call's time."""
        return self.give_up_at - now

    def can_go_elsewhere(self, now: float) -> bool:
        """Tell whether there is another target that could be tried."""
        return self._has_other(self._present_route(), now) or self._can_fall_back(now)

    def has_other(self, now: float) -> bool:
        """Tell whether a second call may go somewhere beside the first one."""
        return self._has_other(self._present_route(), now)

    def other(self, now: float) -> Candidate | None:
        """Return a candidate that a second call may go to beside the first one, None when there is none."""
        return _choose(self._present_route(), self._all_tried(), now)

    def go_besides(self, candidate: Candidate) -> None:
        """Count a second call that goes on beside the first one."""
        self._go(candidate)

    def after(self, error: GateError, now: float) -> float:
        """Move on to the next candidate after a failure; return how many seconds to wait before it.

        The candidate has been told of the failure. Raises the error when nothing is left to try, or `Overloaded` when
        it was known before that the last target is silent.
        """
        wait = 0.0
        candidate: Candidate | None = None
        if error.remedy is Remedy.LARGER_WINDOW:
            candidate = self._larger(now)
        elif error.remedy is not Remedy.PASS_ON:
            candidate = self._another(error, now)
            if candidate is None and (waited := self._again(error, now)) is not None:
                candidate, wait = self.candidate, waited
            candidate = candidate or self._fall_back(now, self._all_tried())
        if candidate is None or now + wait >= self.give_up_at:
            if self._is_forced and self.candidate.is_silent and error.reason in _SILENCES:
                soon_seconds = max(self.candidate.circuit.retry_at - now, SOON_SECONDS)
                raise Overloaded("upstream_down", retry_after_seconds=soon_seconds) from error
            raise error
        self._go(candidate)
        return wait

    def _go(self, candidate: Candidate) -> None:
        """Count the attempt that begins now."""
        tried = self._all_tried()
        if not any(each.upstream is candidate.upstream for each in tried):
            candidate.upstream.budget.note_call()
        self._tried = [*tried, candidate]
        self.attempts += 1
        self.candidate = candidate

    def _all_tried(self) -> list[Candidate]:
        return self._tried or [self.candidate]

    def _present_route(self) -> Route:
        return self._route_now or self.route

    def _has_other(self, route: Route, now: float) -> bool:
        """Tell whether `_choose` would find one, without choosing."""
        tried = self._all_tried()
        return any(each.is_usable(now) and not _is_among(each, tried) for each in route.candidates)

    def _can_fall_back(self, now: float) -> bool:
        return any(self._has_other(route, now) for route in self.route.fallbacks[self._next_fallback :])

    def _another(self, error: GateError, now: float) -> Candidate | None:
        """Return another candidate of the same model."""
        tried = self._all_tried()
        candidate = _choose(self._present_route(), tried, now)
        if candidate is None or error.blame in {Blame.CREDENTIAL, Blame.PACE}:
            return candidate  # The failure was the key's, not the upstream's.
        is_new = not any(each.upstream is candidate.upstream for each in tried)
        return candidate if is_new or self._may_repeat(candidate, now) else None

    def _again(self, error: GateError, now: float) -> float | None:
        """Return the wait before the same candidate is tried once more, None when it must not be."""
        if error.remedy is not Remedy.RETRY or self._is_forced or self._retries >= self.max_retries:
            return None
        candidate = self.candidate
        if error.blame is not Blame.PACE and not candidate.is_usable(now):
            return None
        wait: float | None = delay_seconds(self._retries + 1, self.random)
        if error.retry_after_seconds is not None:
            left_seconds = self.give_up_at - now
            wait = honoured_wait(error.retry_after_seconds, left_seconds, can_fail_over=self._can_fall_back(now))
        if wait is None or not self._may_repeat(candidate, now):
            return None
        self._retries += 1
        return wait

    def _may_repeat(self, candidate: Candidate, now: float) -> bool:
        if candidate.upstream.budget.try_take(now):
            return True
        self.budget_spent = True
        return False

    def _fall_back(self, now: float, tried: Sequence[Candidate]) -> Candidate | None:
        """Return a usable candidate of the next fallback that has one."""
        fallbacks = self.route.fallbacks
        while self._next_fallback < len(fallbacks):
            route = fallbacks[self._next_fallback]
            self._next_fallback += 1
            candidate = _choose(route, tried, now)
            if candidate is not None:
                self._enter(route)
                return candidate
        return None

    def _larger(self, now: float) -> Candidate | None:
        """Return a candidate that can take in more than the one that could not."""
        known = self.candidate.target.context_tokens or 0
        tried, present = self._all_tried(), self._present_route()
        for route in (present, *self.route.fallbacks):
            for candidate in route.candidates:
                more = candidate.target.context_tokens
                if more is None or more <= known or _is_among(candidate, tried):
                    continue
                if candidate.is_usable(now):
                    if route is not present:
                        self._enter(route)
                    return candidate
        return None

    def _enter(self, route: Route) -> None:
        self._route_now = route
        self._retries = 0


def _choose(route: Route, tried: Sequence[Candidate], now: float) -> Candidate | None:
    """Return a usable candidate of a model that was not tried yet; the best tier first."""
    for tier in route.tiers:
        if len(tier) == 1:
            only = tier[0]
            if only.is_usable(now) and not _is_among(only, tried):
                return only
            continue
        usable = [each for each in tier if each.is_usable(now) and not _is_among(each, tried)]
        if usable:
            return route.balancer.choose(usable)
    return None


def _is_among(candidate: Candidate, tried: Sequence[Candidate]) -> bool:
    """Tell whether a target was tried; models that share it have a candidate each, with one circuit."""
    return any(each.circuit is candidate.circuit for each in tried)


def _first_tier(route: Route, now: float) -> tuple[Candidate, ...]:
    """Return the tier that a new conversation would go to."""
    tiers = route.tiers
    return next((tier for tier in tiers if any(each.is_usable(now) for each in tier)), tiers[0])


def _least_bad(route: Route) -> Candidate:
    """Return the candidate to try although none is usable: the last one left is never given up."""
    with_room = [each for each in route.candidates if not each.upstream.is_full]
    if not with_room:
        raise Overloaded("upstream_busy", retry_after_seconds=SOON_SECONDS)
    accepted = [each for each in with_room if not each.credential.is_refused]
    return min(accepted or with_room, key=lambda each: each.circuit.retry_at)
