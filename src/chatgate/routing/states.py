"""What is known about targets, keys and upstreams: kept once for all models that use them, and across reloads.

Owns which state belongs to whom, and judges nothing. Called by the table, which asks it for candidates, and by the
metrics, which list what there is.

A target is known by the name and origin of its upstream, the key shown there and the model asked for. The number of the
key is not part of that: it changes when the operator puts another key before it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import Candidate, CredentialState, UpstreamState
from chatgate.routing.circuit import Circuit
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

Identity = tuple[str, Origin, str, str | None]
"""What makes two targets the same, whatever their weight and priority. Holds the key, so it is never shown."""

Standing = tuple[Target, Circuit, CredentialState, UpstreamState]
"""A target and the states that it shares."""


def identity(target: Target) -> Identity:
    """Return what a target is known by."""
    return (target.upstream.name, target.upstream.origin, target.api_key, target.sent_model)


class _Known:
    """The states, each under what it is known by."""

    __slots__ = ("candidates", "credentials", "targets", "upstreams")

    def __init__(self) -> None:
        self.upstreams: dict[tuple[str, Origin], UpstreamState] = {}
        self.credentials: dict[tuple[str, Origin, str], CredentialState] = {}
        self.targets: dict[Identity, Standing] = {}
        self.candidates: dict[tuple[str, Identity], Candidate] = {}


class States:
    """The states behind one table."""

    __slots__ = ("_before", "_known", "_make_budget", "_make_circuit", "_make_credential")

    def __init__(
        self,
        make_circuit: Callable[[Target], Circuit],
        make_budget: Callable[[Upstream], RetryBudget],
        make_credential: Callable[[Target], CredentialState] = lambda _: CredentialState(),
        predecessor: States | None = None,
    ) -> None:
        """Start with none.

        The functions make what a target, an upstream or a key gets that is seen for the first time; a key is shown by
        the first target that has it. After a reload, `predecessor` is what the last table used: what stays the same
        keeps its state, the rest is forgotten. A refused key gets another chance then, for the operator has acted.
        """
        self._make_circuit = make_circuit
        self._make_budget = make_budget
        self._make_credential = make_credential
        self._known = _Known()
        # Only what it knew: with the predecessor itself each would keep the one before it alive.
        self._before = predecessor._known if predecessor else _Known()  # noqa: SLF001 - one of its own kind

    def candidate(self, model: str, target: Target, weight: float) -> Candidate:
        """Return a model's candidate for a target, to be asked once for each of the model's targets.

        It is the same object as before a reload when nothing about it has changed, so that conversations find it and
        the calls under way are counted. The account of the balancer begins anew, for it may have to do with others now.
        """
        key = identity(target)
        standing = self._known.targets.get(key)
        if standing is None:
            old = self._before.targets.get(key)
            circuit = old[1] if old else self._make_circuit(target)
            standing = (target, circuit, self._credential(target), self._upstream(target.upstream))
            self._known.targets[key] = standing
        candidate = self._before.candidates.get((model, key))
        if candidate is None or candidate.target != target or candidate.weight != weight:
            candidate = Candidate(target, *standing[1:], weight)
        candidate.current_weight = 0.0
        self._known.candidates[model, key] = candidate
        return candidate

    def targets(self) -> Collection[Standing]:
        """Return every target once, with its states, in the order in which the table asked for them."""
        return self._known.targets.values()

    def _credential(self, target: Target) -> CredentialState:
        key = (target.upstream.name, target.upstream.origin, target.api_key)
        state = self._known.credentials.get(key)
        if state is None:
            state = self._before.credentials.get(key) or self._make_credential(target)
            state.is_refused = False
            self._known.credentials[key] = state
        return state

    def _upstream(self, upstream: Upstream) -> UpstreamState:
        key = (upstream.name, upstream.origin)
        state = self._known.upstreams.get(key)
        if state is None:
            state = self._before.upstreams.get(key)
            if state is None:
                state = UpstreamState(upstream.name, upstream.max_in_flight, self._make_budget(upstream))
            state.cap = upstream.max_in_flight or sys.maxsize
            self._known.upstreams[key] = state
        return state
