"""The counters of one configuration, in a worker: every question goes to the owner, and what no rule is about nowhere.

Owns how a question is put and an answer understood. `app` makes one for each configuration.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Final, cast

from chatgate.admission.limits import UNLIMITED, Limits
from chatgate.counters.port import Taken
from chatgate.counters.wire import (
    ATTEMPT,
    CALL,
    LOOK,
    Ask,
    Release,
    Settle,
    address_of,
    encode_parts,
    fitting,
    fitting_money,
)
from chatgate.vocabulary.errors import CallerError, GateError, Kind, Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from chatgate.accounting.holds import Budget
    from chatgate.admission.limits import Bound, Facts, Rule, Standing
    from chatgate.counters.link import Link, Receipt

UNAVAILABLE_SECONDS: Final = 10.0
"""What a caller is told to wait while it is not known what budgets have spent."""

_REMEMBERED: Final = 10_000
_GENERATION_BYTES: Final = 8


class SharedCounters:
    """Asks the owner."""

    answer_at_once = False

    def __init__(self, link: Link, rules: tuple[Rule, ...]) -> None:
        """Let the owner know of the rules; `link` is this worker's."""
        self._link = link
        self._generation = hashlib.blake2b(encode_parts(rules), digest_size=_GENERATION_BYTES).digest()
        self._encoded: dict[int, tuple[object, bytes]] = {}
        # Nothing is counted in it: it says what the rules are about.
        self._limits = Limits(rules, time.monotonic_ns)
        self.calls = None if self._limits else self._limits.calls
        link.configure(self._generation, rules)

    @property
    def limit_attempts(self) -> bool:
        """Tell whether something is limited by upstream."""
        return self._limits.limit_attempts

    def needs_bound(self, rules: tuple[Rule, ...]) -> bool:
        """Tell whether tokens or money are limited."""
        return self._limits.needs_bound(rules)

    def take(
        self, facts: Facts, bound: Bound, rules: tuple[Rule, ...], call_id: str = "", budgets: tuple[Budget, ...] = ()
    ) -> Taken | Awaitable[Taken]:
        """Take a call from every limit and every budget, or from none; see `Counters`."""
        if not rules and not budgets and not self._limits.limit_calls:
            return Taken(UNLIMITED)
        return self._take(self._question(CALL, facts, bound, rules, call_id, budgets))

    def take_attempt(self, facts: Facts, bound: Bound) -> Awaitable[Taken]:
        """Take an attempt from the limits by upstream, or from none."""
        return self._take(self._question(ATTEMPT, facts, bound))

    def standing(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing | Awaitable[Standing]:
        """Return where the caller stands."""
        if not rules and not self._limits.limit_calls:
            return UNLIMITED
        return self._look(facts, rules)

    def can_correct(self, receipt: object) -> bool:  # noqa: ARG002 - whatever it is for
        """Say yes: the owner remembers what was taken until it is told of the end."""
        return True

    def settle(self, receipt: object, used: Bound) -> None:
        """Correct what was taken to what was used."""
        taken = cast("Receipt", receipt)
        tokens_in, tokens_out, nano_usd = used.input_tokens, used.output_tokens, used.nano_usd
        self._link.end(taken, Settle(taken.number, fitting(tokens_in), fitting(tokens_out), fitting_money(nano_usd)))

    def release(self, receipt: object) -> None:
        """Give back all that was taken."""
        taken = cast("Receipt", receipt)
        self._link.end(taken, Release(taken.number))

    async def _take(self, question: Ask) -> Taken:
        answer, receipt = await self._link.ask(question)
        if answer.error:
            raise _refusal(answer.error, question.model)
        return Taken(answer.standing, receipt, answer.hold or answer.refusal)

    async def _look(self, facts: Facts, rules: tuple[Rule, ...]) -> Standing:
        answer, _ = await self._link.ask(self._question(LOOK, facts, None, rules))
        if answer.error:
            raise Overloaded(answer.error)
        return answer.standing

    def _question(
        self,
        what: int,
        facts: Facts,
        bound: Bound | None,
        rules: tuple[Rule, ...] = (),
        call_id: str = "",
        budgets: tuple[Budget, ...] = (),
    ) -> Ask:
        return Ask(
            self._link.next_number(),
            what,
            self._generation,
            address_of(facts.address),
            facts.key,
            facts.model,
            facts.upstream,
            fitting(bound.input_tokens) if bound else 0,
            fitting(bound.output_tokens) if bound else 0,
            fitting_money(bound.nano_usd) if bound else 0,
            self._encode(rules) if rules else b"",
            call_id,
            self._encode(budgets) if budgets else b"",
        )

    def _encode(self, parts: tuple[Rule, ...] | tuple[Budget, ...]) -> bytes:
        """Encode what a key has once; the same key's are the same object."""
        known = self._encoded.get(id(parts))
        if known is None:
            if len(self._encoded) >= _REMEMBERED:
                self._encoded.clear()
            # As long as the parts are kept here, their id is nobody else's.
            known = self._encoded[id(parts)] = parts, encode_parts(parts)
        return known[1]


def _refusal(reason: str, model: str) -> GateError:
    if reason == "price_unknown":
        return CallerError(Kind.PERMISSION_DENIED, reason, parameters={"model": model})
    if reason == "accounting_unavailable":
        return Overloaded(reason, retry_after_seconds=UNAVAILABLE_SECONDS)
    return Overloaded(reason)
