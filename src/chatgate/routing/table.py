"""Which candidates may serve a model.

Prepared when the configuration is read, so that a call costs one look-up. Owns what names mean: aliases, wildcards,
fallbacks, and the tiers of a model's targets. Does not choose among candidates, and knows no caller: what a caller may
be told about a model does not depend on who asks. Called by the pipeline and, at start and reload, by the composition
root.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from math import lcm
from typing import Literal

from msgspec import Struct, structs

from chatgate.routing.balance import Balancer, LeastLoaded, SmoothWeighted
from chatgate.routing.candidates import Candidate
from chatgate.routing.states import States, identity
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Target

Balance = Literal["weighted", "least_loaded"]

MAX_MATCHED = 1000
"""So many names that a wildcard matched are remembered; the oldest is forgotten first, and matched anew when asked."""

MAX_REMEMBERED_LENGTH = 200
"""Names longer than this many characters are matched each time, so that what is remembered stays small."""

_WILDCARD = "*"
_SHOWN_CHARACTERS = 100
_BALANCERS: Mapping[Balance, Balancer] = {"weighted": SmoothWeighted(), "least_loaded": LeastLoaded()}


class ModelSpec(Struct, frozen=True):
    """A model as configured.

    A `*` in `name` stands for any text, also none; there is at most one, and then no alias. `targets` is never empty;
    it holds one target for each key of a configured target, with the weight of the whole. A target whose `sent_model`
    is None is sent the model's name, of a wildcard the name that was asked for; in a wildcard's `sent_model` a `*` is
    replaced by what matched. `fallbacks` are names or aliases of models without wildcards, best first.
    """

    name: str
    targets: tuple[Target, ...]
    aliases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    balance: Balance = "weighted"


class Route:
    """Where calls for a model may go.

    `name` is the configured one, of a wildcard the pattern: there are only as many as the operator wrote. `tiers` are
    the candidates by priority, lowest number first, no tier empty; `candidates` are the same in one row. `fallbacks`
    come after all of them, best first: the model's own, then those of the fallbacks, each once. `context_tokens` is the
    largest window known of a candidate, None when none is known. `only` is the candidate of a model that has just one,
    and `is_last` says that no fallback follows it either.
    `needs_key` says that every candidate wants a key and has none, `takes_keys` that one of them takes the caller's.
    """

    __slots__ = (
        "balancer",
        "candidates",
        "context_tokens",
        "fallbacks",
        "is_last",
        "name",
        "needs_key",
        "only",
        "takes_keys",
        "tiers",
    )

    def __init__(
        self, name: str, tiers: tuple[tuple[Candidate, ...], ...], balancer: Balancer, fallbacks: tuple[Route, ...] = ()
    ) -> None:
        """Take the candidates; `balancer` chooses among those of a tier that may be used."""
        self.name = name
        self.tiers = tiers
        self.balancer = balancer
        self.fallbacks = fallbacks
        self.candidates = tuple(candidate for tier in tiers for candidate in tier)
        self.only = self.candidates[0] if len(self.candidates) == 1 else None
        self.is_last = self.only is not None and not fallbacks
        targets = [candidate.target for candidate in self.candidates]
        self.takes_keys = any(target.upstream.is_default for target in targets)
        self.needs_key = all(target.upstream.key_needed and not target.api_key for target in targets)
        windows = [candidate.target.context_tokens for candidate in self.candidates]
        self.context_tokens = max((window for window in windows if window is not None), default=None)


class Routing:
    """Maps the names that callers ask for to routes."""

    def __init__(
        self, models: Sequence[ModelSpec], *, default_targets: tuple[Target, ...], reserved_prefix: str, states: States
    ) -> None:
        """Prepare the routes.

        When `models` names nothing outside of `reserved_prefix`, every other name goes to `default_targets` unchanged.
        `names` are those that can be listed: of models and aliases, without wildcards. Raises ValueError for names and
        targets that stand twice, unknown fallbacks, and fallbacks that lead back; no state has been touched then.
        """
        self.is_open = all(model.name.startswith(reserved_prefix) for model in models)
        self._reserved_prefix = reserved_prefix
        specs = [*models, ModelSpec(_WILDCARD, default_targets)] if self.is_open else models
        owners = _owners(specs)
        followers = {model.name: _resolved(model, owners) for model in specs}
        # Fallbacks come before those who have them. A loop is a CycleError, which is a ValueError.
        order = tuple(TopologicalSorter(followers).static_order())
        shares = {model.name: _shares(model) for model in specs}
        tiers = {model.name: _tiers(model.name, shares[model.name], states) for model in specs}
        balancers = {model.name: _BALANCERS[model.balance] for model in specs}
        routes: dict[str, Route] = {}
        for name in order:
            fallbacks = tuple(routes[each] for each in _reachable(name, followers))
            routes[name] = Route(name, tiers[name], balancers[name], fallbacks)
        self._routes = {name: routes[owner] for name, owner in owners.items() if _WILDCARD not in owner}
        self.names = tuple(self._routes)
        self._wildcards = sorted(
            (_Wildcard(route) for name, route in routes.items() if _WILDCARD in name), key=_Wildcard.specificity
        )
        self._matched: deque[str] = deque()

    def find(self, asked_model: str) -> Route:
        """Return where calls for a model may go. Raises `CallerError` when nobody serves it."""
        return self._routes.get(asked_model) or self._match(asked_model)

    def _match(self, asked_model: str) -> Route:
        is_reserved = asked_model.startswith(self._reserved_prefix)
        for wildcard in self._wildcards:
            # What the reserved prefix stands for never leaves the house because some pattern is wide enough.
            if is_reserved and not wildcard.start.startswith(self._reserved_prefix):
                continue
            if wildcard.matches(asked_model):
                route = wildcard.route_for(asked_model)
                if len(asked_model) <= MAX_REMEMBERED_LENGTH:
                    if len(self._matched) >= MAX_MATCHED:
                        del self._routes[self._matched.popleft()]
                    self._matched.append(asked_model)
                    self._routes[asked_model] = route
                return route
        raise CallerError(
            Kind.MODEL_NOT_FOUND,
            "unknown_model",
            param="model",
            parameters={"model": asked_model[:_SHOWN_CHARACTERS]},
        )


class _Wildcard:
    """A model whose name is a pattern."""

    __slots__ = ("_end", "_fills", "_route", "start")

    def __init__(self, route: Route) -> None:
        self.start, _, self._end = route.name.partition(_WILDCARD)
        self._route = route
        self._fills = any(_WILDCARD in (candidate.target.sent_model or "") for candidate in route.candidates)

    def specificity(self) -> tuple[int, int]:
        """Return what patterns are ordered by, most specific first: those with most text, then most at the start."""
        return (-len(self.start) - len(self._end), -len(self.start))

    def matches(self, name: str) -> bool:
        """Tell whether the pattern describes a name."""
        return (
            name.startswith(self.start) and name.endswith(self._end) and len(name) >= len(self.start) + len(self._end)
        )

    def route_for(self, name: str) -> Route:
        """Return the route of a name that matches.

        All such names share it, unless a target is sent what matched: then each has candidates of its own, with the
        states of the pattern, of which there are only as many as the operator wrote.
        """
        route = self._route
        if not self._fills:
            return route
        matched = name[len(self.start) : len(name) - len(self._end)]
        tiers = tuple(tuple(_filled(candidate, matched) for candidate in tier) for tier in route.tiers)
        # Names that are asked for only once are spread by weight as well: the next one begins where this one goes on.
        for tier in route.tiers:
            route.balancer.choose(tier)
        return Route(route.name, tiers, route.balancer, route.fallbacks)


def _filled(candidate: Candidate, matched: str) -> Candidate:
    """Return a candidate that is sent what a wildcard matched."""
    sent_model = candidate.target.sent_model
    target = candidate.target
    if sent_model is not None:
        target = structs.replace(target, sent_model=sent_model.replace(_WILDCARD, matched))
    filled = Candidate(target, candidate.circuit, candidate.credential, candidate.upstream, candidate.weight)
    filled.current_weight = candidate.current_weight
    return filled


def _owners(models: Iterable[ModelSpec]) -> dict[str, str]:
    """Map every name and alias to the name of its model."""
    owners: dict[str, str] = {}
    for model in models:
        for name in (model.name, *model.aliases):
            if name in owners:
                raise ValueError(f"{name} names two models")
            owners[name] = model.name
    return owners


def _resolved(model: ModelSpec, owners: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of a model's fallbacks, aliases followed."""
    for name in model.fallbacks:
        if _WILDCARD in owners.get(name, _WILDCARD):
            raise ValueError(f"a fallback of {model.name} is not the name of one model: {name}")
    return tuple(dict.fromkeys(owners[name] for name in model.fallbacks))


def _reachable(name: str, followers: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a model's fallbacks, then theirs, and so on, each once. They must not lead back."""
    found: dict[str, None] = {}
    row = deque(followers[name])
    while row:
        each = row.popleft()
        if each not in found:
            found[each] = None
            row.extend(followers[each])
    return list(found)


def _shares(model: ModelSpec) -> list[tuple[Target, float]]:
    """Return a model's targets with their share of its calls, as whole numbers so that no call is lost in rounding.

    The keys of a configured target share its weight evenly.
    """
    is_plain = _WILDCARD not in model.name
    targets = [
        structs.replace(target, sent_model=model.name) if is_plain and target.sent_model is None else target
        for target in model.targets
    ]
    if len({identity(target) for target in targets}) != len(targets):
        raise ValueError(f"two targets of {model.name} are the same")
    destinations = [(target.upstream.name, target.sent_model) for target in targets]
    keys = [destinations.count(destination) for destination in destinations]
    scale = lcm(*keys)
    return [(target, float(target.weight * scale // count)) for target, count in zip(targets, keys, strict=True)]


def _tiers(model: str, shares: Iterable[tuple[Target, float]], states: States) -> tuple[tuple[Candidate, ...], ...]:
    tiers: dict[int, list[Candidate]] = {}
    for target, share in shares:
        tiers.setdefault(target.priority, []).append(states.candidate(model, target, share))
    return tuple(tuple(tiers[priority]) for priority in sorted(tiers))
