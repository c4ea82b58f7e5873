"""The counters of a gateway that is one process: called directly, and done at once.

Owns that limits and budgets are taken together or not at all. `app` makes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from chatgate.accounting.holds import Refusal
from chatgate.admission.rules import REQUESTS
from chatgate.counters.port import Taken
from chatgate.vocabulary.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.accounting.holds import Budget, Hold
    from chatgate.admission.limits import Bound, Facts, Limits, Rule, Standing, Ticket


class LocalCounters:
    """Counts in this process."""

    answer_at_once = True

    def __init__(
        self, limits: Limits, reserve: Callable[[str, tuple[Budget, ...], int | None], Hold | Refusal]
    ) -> None:
        """`reserve` sets money aside under a call's id, as `Book.reserve`."""
        self.limits = limits
        self.calls = limits.calls
        self._reserve = reserve

    @property
    def limit_attempts(self) -> bool:
        """Tell whether something is limited by upstream."""
        return self.limits.limit_attempts

    def needs_bound(self, rules: tuple[Rule, ...]) -> bool:
        """Tell whether tokens or money are limited."""
        return self.limits.needs_bound(rules)

    def take(
        self, facts: Facts, bound: Bound, rules: tuple[Rule, ...], call_id: str = "", budgets: tuple[Budget, ...] = ()
    ) -> Taken:
        """Take a call from every limit and every budget, or from none; see `Counters`."""
        standing = self.limits.admit(facts, bound, rules)
        if not budgets or not standing.admitted:
            return Taken(standing, standing.ticket)
        try:
            hold = self._reserve(call_id, budgets, bound.nano_usd)
        except GateError:
            self._give_back(standing)
            raise
        if isinstance(hold, Refusal):
            self._give_back(standing)
            return Taken(self.limits.standing(facts, rules), None, hold)
        return Taken(standing, standing.ticket, hold)

    def take_attempt(self, facts: Facts, bound: Bound) -> Taken:
        """Take an attempt from the limits by upstream, or from none."""
        standing = self.limits.admit_attempt(facts, bound)
        return Taken(standing, standing.ticket)

    def standing(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing:
        """Return where the caller stands."""
        return self.limits.standing(facts, rules)

    def can_correct(self, receipt: object) -> bool:
        """Tell whether more was taken than calls, which stay as they are; of several rules it is not asked which."""
        taken = cast("Ticket", receipt).taken
        return len(taken) > 1 or (len(taken) == 1 and taken[0][0].resource != REQUESTS)

    def settle(self, receipt: object, used: Bound) -> None:
        """Correct what was taken to what was used."""
        self.limits.settle(cast("Ticket", receipt), used)

    def release(self, receipt: object) -> None:
        """Give back all that was taken."""
        self.limits.release(cast("Ticket", receipt))

    def _give_back(self, standing: Standing) -> None:
        if standing.ticket is not None:
            self.limits.release(standing.ticket)
