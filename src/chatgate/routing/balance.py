"""Which of several equal candidates gets the next call.

Decides, and remembers nothing but the `current_weight` of each candidate. Does not ask whether a candidate may be used:
it is only shown those that may. Called by the plan of a call, for every new conversation.

Law. As long as the same candidates have been usable from the start, each has got its share of the calls at every
moment, give or take less than one. nginx's smooth weighted round-robin, which serves whoever is owed most, nearly holds
it: with the weights 10, 1, 1, 3, 1, 3, 98, 3, 3, 3 and 98 somebody is a whole call behind after 48 calls. So the same
account is kept, but of those who are owed anything, whoever would be a whole call behind first is served. Earliest
deadline first meets every deadline that can be met, and as the shares add up to one call at a time, all can. When
candidates come and go, what each is owed stays bounded, and from then on calls are spread by weight again.
"""

from __future__ import annotations

from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chatgate.routing.candidates import Candidate

_owed = attrgetter("current_weight")


class Balancer(Protocol):
    """Chooses among candidates."""

    def choose(self, usable: Sequence[Candidate]) -> Candidate:
        """Return who gets the next call, and take note of it. `usable` is never empty; of equals the first wins."""


class SmoothWeighted:
    """Gives each candidate its share of the calls, evenly spread."""

    __slots__ = ()

    def choose(self, usable: Sequence[Candidate]) -> Candidate:
        """Return the candidate whose next call is due first.

        `current_weight` is what a candidate is owed, where a call costs the sum of all weights: it rises by the
        weight with every call, and falls by the cost with each call of its own.
        """
        if len(usable) == 1:
            return usable[0]
        cost = 0.0
        for candidate in usable:
            cost += candidate.weight
            candidate.current_weight += candidate.weight
        chosen = None
        fewest_left = inf
        for candidate in usable:
            owed = candidate.current_weight
            if owed > 0.0:
                calls_left = (cost - owed) / candidate.weight
                if calls_left < fewest_left:
                    chosen = candidate
                    fewest_left = calls_left
        if chosen is None:
            # All who are owed something may not be used now: it goes to whoever has had the least too much.
            chosen = max(usable, key=_owed)
        chosen.current_weight -= cost
        return chosen


class LeastLoaded:
    """Gives a call to who has the fewest under way for its weight."""

    __slots__ = ("_among_equals",)

    def __init__(self) -> None:
        """Spread the calls by weight where the load is equal."""
        self._among_equals = SmoothWeighted()

    def choose(self, usable: Sequence[Candidate]) -> Candidate:
        """Return the candidate with the fewest calls under way in relation to its weight."""
        least = usable[0]
        equals = 0
        for candidate in usable:
            # Loads are compared as products, which are exact where quotients are not.
            load = candidate.in_flight * least.weight
            least_load = least.in_flight * candidate.weight
            if load < least_load:
                least = candidate
                equals = 1
            elif load == least_load:
                equals += 1
        if equals == 1:
            return least
        return self._among_equals.choose(
            [each for each in usable if each.in_flight * least.weight == least.in_flight * each.weight]
        )
