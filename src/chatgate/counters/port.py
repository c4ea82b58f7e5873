"""What a call asks of its counters, whoever keeps them.

Owns the seam. There is one `Counters` for each configuration. Those that are kept in this process answer at once;
others return what has to be awaited, in a call's own coroutine, and never for longer than they say: then they raise
`Overloaded`. What is asked is plain data, an answer says all there is to say, and the clock is that of whoever counts.

Whoever waits may be cancelled. What was taken for a call that nobody waits for any more is given back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from chatgate.accounting.holds import Budget, Hold, Refusal
from chatgate.admission.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from chatgate.admission.address_limits import AddressLimits
    from chatgate.admission.limits import Bound, Facts, Rule


class Taken(Struct, frozen=True, gc=False):
    """What became of the wish to take a call.

    `standing` is where the caller stands with the limits afterwards, and says whether they admitted the call. `receipt`
    is what they took, to be settled or released, None for nothing; what is in it is the counters' own business. `hold`
    is the money that was set aside, None when there are no budgets or when a limit was reached; when it is a `Refusal`,
    nothing was taken of the limits either.
    """

    standing: Standing
    receipt: object = None
    hold: Hold | Refusal | None = None


class Counters(Protocol):
    """The limits of one configuration, and the budgets."""

    @property
    def answer_at_once(self) -> bool:
        """Tell whether nothing that is returned has to be awaited."""

    @property
    def calls(self) -> AddressLimits | None:
        """Return what counts a call at once that has neither rules nor budgets of its own; None to `take` each."""

    @property
    def limit_attempts(self) -> bool:
        """Tell whether attempts have to be taken, because something is limited by upstream."""

    def needs_bound(self, rules: tuple[Rule, ...]) -> bool:
        """Tell whether tokens or money are limited, so that a call has to say how much it may take."""

    def take(
        self, facts: Facts, bound: Bound, rules: tuple[Rule, ...], call_id: str = "", budgets: tuple[Budget, ...] = ()
    ) -> Taken | Awaitable[Taken]:
        """Take a call from every limit and every budget, or from none.

        `rules` are those of the caller's key. With budgets, `bound.nano_usd` is set aside in each under the call's id,
        until the book settles it. Raises `CallerError` when a limit is in money and the bound has none, and
        `Overloaded` when it cannot be told now; then nothing is taken.
        """

    def take_attempt(self, facts: Facts, bound: Bound) -> Taken | Awaitable[Taken]:
        """Take an attempt at `facts.upstream` from the limits by upstream, or from none. Raises as `take`."""

    def standing(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing | Awaitable[Standing]:
        """Return where the caller stands, and take nothing. Raises `Overloaded` when it cannot be told now."""

    def can_correct(self, receipt: object) -> bool:
        """Tell whether `settle` has anything to do for a receipt."""

    def settle(self, receipt: object, used: Bound) -> None:
        """Correct what was taken of the limits to what was used, and free the slots; a second time is nothing."""

    def release(self, receipt: object) -> None:
        """Give back all that was taken of the limits; a second time is nothing."""
