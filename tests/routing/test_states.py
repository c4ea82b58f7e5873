"""What is known about a target is shared by all models that use it, and survives a reload."""

from __future__ import annotations

import pytest
from msgspec import structs

from chatgate.routing.budget import RetryBudget
from chatgate.routing.candidates import Candidate, CredentialState
from chatgate.routing.circuit import Circuit
from chatgate.routing.states import States
from chatgate.routing.table import ModelSpec, Routing
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

KEYED = Upstream("keyed", "openai", Origin("https", "keyed.invalid", 443), "/v1", ("sk-test-1", "sk-test-2"))
OTHER = Upstream("other", "openai", Origin("https", "other.invalid", 443), "/v1")


def fresh_states(predecessor: States | None = None) -> States:
    """Return a registry, after a reload with what was known before."""
    return States(lambda _: Circuit(lambda: 0.0), lambda _: RetryBudget(), predecessor=predecessor)


def routing(*models: ModelSpec, states: States) -> Routing:
    """Return a routing with these models."""
    return Routing(models, default_targets=(Target(OTHER),), reserved_prefix="demo/", states=states)


def model(name: str) -> ModelSpec:
    """Return a model with one target."""
    return ModelSpec(name, (Target(OTHER),))


def each_key(upstream: Upstream, sent_model: str, weight: int = 1) -> tuple[Target, ...]:
    """Return a configured target, once for each key."""
    return tuple(Target(upstream, sent_model, key, at, weight) for at, key in enumerate(upstream.api_keys, 1))


def test_models_share_what_is_known_about_a_target() -> None:
    """The circuit of a target, the key's standing and the upstream's; each model has its own candidate."""
    states = fresh_states()
    models = routing(
        ModelSpec("a", each_key(KEYED, "x")), ModelSpec("b", each_key(KEYED, "x")), model("c"), states=states
    )
    (a1, a2), (b1, b2) = models.find("a").candidates, models.find("b").candidates
    assert a1 is not b1
    assert (a1.circuit, a1.credential) == (b1.circuit, b1.credential)
    assert (a2.circuit, a2.credential) == (b2.circuit, b2.credential)
    assert a1.circuit is not a2.circuit
    assert a1.credential is not a2.credential
    assert len({id(each.upstream) for each in (a1, a2, b1, b2)}) == 1
    assert [target.name for target, *_ in states.targets()] == [
        "keyed/x#1",
        "keyed/x#2",
        "other/c",
    ]
    assert [circuit for _, circuit, _, _ in states.targets()][:2] == [a1.circuit, a2.circuit]


def test_whoever_makes_a_state_learns_what_it_is_for() -> None:
    """Each target, upstream and key once, so that a change can be reported by name."""
    circuits: list[str] = []
    upstreams: list[str] = []
    keys: list[str] = []

    def make_circuit(target: Target) -> Circuit:
        circuits.append(target.name)
        return Circuit(lambda: 0.0)

    def make_budget(upstream: Upstream) -> RetryBudget:
        upstreams.append(upstream.name)
        return RetryBudget()

    def make_credential(target: Target) -> CredentialState:
        keys.append(f"{target.upstream.name}#{target.key_number}")
        return CredentialState()

    states = States(make_circuit, make_budget, make_credential)
    routing(ModelSpec("a", each_key(KEYED, "x")), ModelSpec("b", each_key(KEYED, "y")), states=states)
    assert circuits == ["keyed/x#1", "keyed/x#2", "keyed/y#1", "keyed/y#2"]
    assert upstreams == ["keyed"]
    assert keys == ["keyed#1", "keyed#2"]


def reloaded(before: tuple[ModelSpec, ...], after: tuple[ModelSpec, ...]) -> tuple[Candidate, Candidate]:
    """Return the first candidate of the model `m` before and after a reload."""
    states = fresh_states()
    old = routing(*before, states=states).find("m").candidates[0]
    return old, routing(*after, states=fresh_states(states)).find("m").candidates[0]


def test_a_reload_keeps_what_stays_the_same() -> None:
    """The candidate itself when nothing has changed, so that conversations find it; its account begins anew."""
    spec = ModelSpec("m", each_key(KEYED, "x"))
    states = fresh_states()
    route = routing(spec, states=states).find("m")
    route.balancer.choose(route.candidates)
    route.candidates[0].in_flight = 3
    again = routing(spec, model("new"), states=fresh_states(states)).find("m")
    assert again is not route
    assert again.candidates == route.candidates
    assert again.candidates[0].in_flight == 3
    assert [each.current_weight for each in again.candidates] == [0, 0]


def test_a_reload_keeps_the_circuit_of_a_target_with_another_weight() -> None:
    """Such a candidate is a new one, with the old states, whatever number its key has now."""
    one_more = structs.replace(KEYED, api_keys=("sk-test-0", *KEYED.api_keys), max_in_flight=7)
    states = fresh_states()
    before = routing(ModelSpec("m", each_key(KEYED, "x")), states=states).find("m").candidates
    after = routing(ModelSpec("m", each_key(one_more, "x", weight=2)), states=fresh_states(states))
    new, *kept = after.find("m").candidates
    assert [each.circuit for each in kept] == [each.circuit for each in before]
    assert [each.credential for each in kept] == [each.credential for each in before]
    assert not {id(each) for each in kept} & {id(each) for each in before}
    assert new.circuit not in [each.circuit for each in before]
    assert new.upstream is before[0].upstream
    assert new.upstream.cap == 7


def test_a_reload_applies_what_has_changed_about_a_target() -> None:
    """Its window, for example; or its weight in relation to the keys of another."""
    plain, wider = Target(OTHER, "x"), Target(OTHER, "x", context_tokens=8000)
    old, new = reloaded((ModelSpec("m", (plain,)),), (ModelSpec("m", (wider,)),))
    assert (old.target, new.target) == (plain, wider)
    one_key = structs.replace(KEYED, api_keys=("sk-test-1",))
    before, after = (ModelSpec("m", (plain, *each_key(upstream, "x"))) for upstream in (one_key, KEYED))
    old, new = reloaded((before,), (after,))
    assert old.target == new.target
    assert (old.weight, new.weight) == (1, 2)


@pytest.mark.parametrize(
    "changed",
    [
        structs.replace(KEYED, name="renamed"),
        structs.replace(KEYED, origin=Origin("https", "moved.invalid", 443)),
        structs.replace(KEYED, api_keys=("sk-test-3", "sk-test-4")),
    ],
)
def test_a_reload_knows_nothing_of_what_is_new(changed: Upstream) -> None:
    """Another upstream, place or key has to show how it is doing."""
    old, new = reloaded((ModelSpec("m", each_key(KEYED, "x")),), (ModelSpec("m", each_key(changed, "x")),))
    assert new.circuit is not old.circuit
    assert new.credential is not old.credential


def test_a_reload_gives_a_refused_key_another_chance() -> None:
    """The operator has acted; only the provider can tell whether that was enough."""
    states = fresh_states()
    spec = ModelSpec("m", each_key(KEYED, "x"))
    routing(spec, states=states).find("m").candidates[0].credential.is_refused = True
    again = routing(spec, states=fresh_states(states)).find("m").candidates
    assert not any(each.credential.is_refused for each in again)


def test_reloads_do_not_pile_up() -> None:
    """What is no longer configured is forgotten, and comes back as new."""
    states = fresh_states()
    old = routing(model("m"), states=states).find("m").candidates[0]
    without = fresh_states(states)
    routing(model("other"), states=without)
    assert [target.name for target, *_ in without.targets()] == ["other/other"]
    assert routing(model("m"), states=fresh_states(without)).find("m").candidates[0].circuit is not old.circuit
