"""A model's targets, each with what is known about it now.

Several models may share a target, several targets a key, several keys an upstream: what is known about each of these is
kept once, and a candidate points to it. Called by the balancers, which choose among candidates, and by the plan of a
call, which asks them whether they may be used and tells them how it went.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from chatgate.routing.circuit import CLOSED
from chatgate.vocabulary.errors import Blame, Overloaded, Remedy

SOON_SECONDS = 1.0
"""What a caller is told to wait when every target is busy."""

LAST_RESORT_SECONDS = 0.4
"""How long a call may take to connect to a target that is known to be silent, and again to get its first word, when
there is no other one: its caller learns within a second that it is down."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from chatgate.routing.budget import RetryBudget
    from chatgate.routing.circuit import Circuit
    from chatgate.vocabulary.errors import GateError
    from chatgate.vocabulary.upstreams import Target


class UpstreamState:
    """How an upstream is doing: the calls under way there, how many may be, and its retry budget."""

    __slots__ = ("budget", "cap", "in_flight", "name")

    def __init__(self, name: str, max_in_flight: int, budget: RetryBudget) -> None:
        """Start with no call under way; `max_in_flight` is 0 for any number."""
        self.name = name
        self.cap = max_in_flight or sys.maxsize
        self.budget = budget
        self.in_flight = 0

    @property
    def is_full(self) -> bool:
        """Tell whether no further call may go there now."""
        return self.in_flight >= self.cap


class CredentialState:
    """Whether a key of ours is accepted at its upstream."""

    __slots__ = ("_on_refusal", "is_refused")

    def __init__(self, on_refusal: Callable[[], object] | None = None) -> None:
        """Start in good faith; `on_refusal` is called once the key is refused."""
        self.is_refused = False
        self._on_refusal = on_refusal

    def refuse(self) -> None:
        """Take the key out."""
        if not self.is_refused:
            self.is_refused = True
            if self._on_refusal is not None:
                self._on_refusal()


class Candidate:
    """One target of one model.

    `name` is the target's. `in_flight` counts the calls under way at this candidate; `is_silent` says that it failed
    last by saying nothing for too long; `current_weight` belongs to the balancer.
    """

    __slots__ = (
        "circuit",
        "credential",
        "current_weight",
        "in_flight",
        "is_silent",
        "name",
        "target",
        "upstream",
        "weight",
    )

    def __init__(
        self, target: Target, circuit: Circuit, credential: CredentialState, upstream: UpstreamState, weight: float
    ) -> None:
        """Take the target and the states it shares; `weight` is its share of the model's calls."""
        self.target = target
        self.name = target.name
        self.circuit = circuit
        self.credential = credential
        self.upstream = upstream
        self.weight = weight
        self.in_flight = 0
        self.is_silent = False
        self.current_weight = 0.0

    def is_usable(self, now: float) -> bool:
        """Tell whether a call may go there: its key is accepted, its circuit lets it, and its upstream has room."""
        upstream = self.upstream
        return not self.credential.is_refused and self.circuit.retry_at <= now and upstream.in_flight < upstream.cap

    def is_free(self) -> bool:
        """Tell whether it is usable whatever the time is, as nearly always."""
        upstream = self.upstream
        return self.circuit.is_calm and upstream.in_flight < upstream.cap and not self.credential.is_refused

    def enter(self, now: float) -> int:
        """Note that a call goes there now; return its number, to be given when it is told how the call went.

        Raises `Overloaded` when the room that there was has been taken meanwhile.
        """
        upstream = self.upstream
        if upstream.in_flight >= upstream.cap:
            busy = Overloaded("upstream_busy", retry_after_seconds=SOON_SECONDS)
            busy.remedy = Remedy.ANOTHER_TARGET
            raise busy
        self.in_flight += 1
        upstream.in_flight += 1
        circuit = self.circuit
        return circuit.begun if circuit.is_calm else circuit.begin(now)

    def leave(self) -> None:
        """Note that a call there is over, however it ended."""
        self.in_flight -= 1
        self.upstream.in_flight -= 1

    def answered(self, number: int) -> None:
        """Note that a call there is over, and was answered."""
        self.in_flight -= 1
        self.upstream.in_flight -= 1
        if self.is_silent or not self.circuit.is_calm:
            self.succeeded(number)

    def is_last_resort(self, number: int) -> bool:
        """Tell whether a call goes there only because nobody else is left: it is known to be silent.

        The call that is to show whether it still is has all its time.
        """
        return self.is_silent and self.circuit.state is not CLOSED and not self.circuit.is_probe(number)

    def succeeded(self, number: int) -> None:
        """Note that it answers, where that is news."""
        if self.is_silent or not self.circuit.is_calm:
            self.is_silent = False
            self.circuit.succeeded(number)

    def failed(self, error: GateError, now: float, number: int) -> None:
        """Note what a failure says about the target."""
        match error.blame:
            case Blame.TARGET if error.remedy is Remedy.ANOTHER_TARGET and self.is_last_resort(number):
                pass  # It was given no time, so that is no verdict about it.
            case Blame.TARGET:
                self.is_silent = error.remedy is Remedy.ANOTHER_TARGET
                self.circuit.failed(now, number)
            case Blame.PACE:
                self.circuit.cooled(now, error.retry_after_seconds, number)
            case Blame.CREDENTIAL:
                self.credential.refuse()
                self.circuit.abandoned(now, number)
            case Blame.NOTHING:
                self.succeeded(number)
