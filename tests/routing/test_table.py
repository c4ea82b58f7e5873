"""Names lead where the configuration says, and nowhere else."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.routing.balance import LeastLoaded, SmoothWeighted
from chatgate.routing.budget import RetryBudget
from chatgate.routing.circuit import Circuit
from chatgate.routing.states import States
from chatgate.routing.table import MAX_MATCHED, ModelSpec, Route, Routing
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

DEFAULT = Upstream("first", "openai", Origin("https", "first.invalid", 443), "/v1", is_default=True)
OTHER = Upstream("other", "openai", Origin("https", "other.invalid", 443), "/v1")
DEMO = Upstream("demo", "demo", Origin("http", "demo.invalid", 80), "/v1")
KEYED = Upstream("keyed", "openai", Origin("https", "keyed.invalid", 443), "/v1", ("sk-test-1", "sk-test-2"))

DEMOS = (ModelSpec("demo/echo", (Target(DEMO),)),)


def fresh_states() -> States:
    """Return a registry that knows nothing yet."""
    return States(lambda _: Circuit(lambda: 0.0), lambda _: RetryBudget())


def routing(*models: ModelSpec, states: States | None = None, default: Upstream = DEFAULT) -> Routing:
    """Return a routing with some models and the demo models."""
    targets = (Target(default),)
    return Routing((*models, *DEMOS), default_targets=targets, reserved_prefix="demo/", states=states or fresh_states())


def each_key(
    upstream: Upstream, sent_model: str | None = None, weight: int = 1, priority: int = 0, window: int | None = None
) -> tuple[Target, ...]:
    """Return a configured target, once for each key."""
    keys = upstream.api_keys or ("",)
    return tuple(Target(upstream, sent_model, key, at, weight, priority, window) for at, key in enumerate(keys, 1))


def names(route: Route) -> list[list[str]]:
    """Return the names of a route's targets, tier by tier."""
    return [[candidate.target.name for candidate in tier] for tier in route.tiers]


def sent(route: Route) -> list[str | None]:
    """Return what a route's targets are asked for."""
    return [candidate.target.sent_model for candidate in route.candidates]


def refusal(routing: Routing, name: str) -> CallerError:
    """Return the refusal of a name."""
    with pytest.raises(CallerError) as caught:
        routing.find(name)
    return caught.value


@pytest.mark.parametrize("name", ["gpt-x", "", "a/b/c", "../x", "*", "demo", "Demo/echo", "demo\\echo", " demo/echo"])
def test_without_named_models_any_name_goes_to_the_default_upstream(name: str) -> None:
    """The name goes there unchanged, and all names share what is known about the target."""
    open_to_all = routing()
    assert open_to_all.is_open
    (candidate,) = open_to_all.find(name).candidates
    assert candidate.target == Target(DEFAULT, None)
    assert open_to_all.find("another").candidates == (candidate,)


def test_the_default_upstream_is_used_with_all_of_its_keys() -> None:
    """Its targets take turns."""
    keyed = Routing(DEMOS, default_targets=each_key(KEYED), reserved_prefix="demo/", states=fresh_states())
    route = keyed.find("gpt-x")
    keys = [route.balancer.choose(route.candidates).target.key_number for _ in range(4)]
    assert keys == [1, 2, 1, 2]


@pytest.mark.parametrize("name", ["demo/", "demo/nothing", "demo/echo ", "demo/echo/x"])
@pytest.mark.parametrize("models", [(), (ModelSpec("*", (Target(OTHER),)),), (ModelSpec("d*", (Target(OTHER),)),)])
def test_the_reserved_prefix_never_leaves_the_house(name: str, models: tuple[ModelSpec, ...]) -> None:
    """A demo model that does not exist is unknown: neither the default upstream nor a wildcard is asked for it."""
    error = refusal(routing(*models), name)
    assert (error.kind, error.reason, error.param) == (Kind.MODEL_NOT_FOUND, "unknown_model", "model")
    assert error.parameters == {"model": name}


def test_named_models_close_the_list() -> None:
    """With one model named, other names are unknown; the demo models are always there."""
    closed = routing(ModelSpec("gpt-x", (Target(OTHER, "gpt-x-large"), Target(DEFAULT, "gpt-x"))))
    assert not closed.is_open
    assert closed.names == ("gpt-x", "demo/echo")
    assert closed.find("gpt-x").name == "gpt-x"
    assert names(closed.find("gpt-x")) == [["other/gpt-x-large", "first/gpt-x"]]
    assert closed.find("demo/echo").candidates[0].target.upstream is DEMO
    for name in ("gpt-X", "gpt-x ", "gpt-x-large", "*", ""):
        assert refusal(closed, name).kind is Kind.MODEL_NOT_FOUND


def test_a_named_model_may_bear_any_name() -> None:
    """Also one under the reserved prefix, when the configuration says so; that alone does not close the list."""
    own = routing(ModelSpec("demo/mine", (Target(OTHER, "x"),)), ModelSpec("demo/my-*", (Target(OTHER),)))
    assert own.is_open
    assert sent(own.find("demo/mine")) == ["x"]
    assert own.find("demo/my-own").candidates[0].target == Target(OTHER)
    assert own.find("gpt-x").candidates[0].target == Target(DEFAULT)


def test_a_long_name_is_not_repeated_whole() -> None:
    """A refusal holds as much of the name as a person reads."""
    assert len(str(refusal(routing(ModelSpec("x", (Target(OTHER),))), "y" * 5000).parameters["model"])) == 100


def test_an_alias_is_another_name_for_the_same_route() -> None:
    """It is listed after its model, and the target is sent the model's own name."""
    aliased = routing(ModelSpec("gpt-x", (Target(OTHER),), aliases=("fast", "cheap")))
    assert aliased.names == ("gpt-x", "fast", "cheap", "demo/echo")
    assert aliased.find("fast") is aliased.find("cheap") is aliased.find("gpt-x")
    assert sent(aliased.find("fast")) == ["gpt-x"]


def test_tiers_are_used_by_priority() -> None:
    """The lowest number comes first; within a tier the order is that of the configuration."""
    targets = (Target(OTHER, "b", priority=5), Target(OTHER, "a"), Target(DEFAULT, "c", priority=5), Target(DEFAULT))
    route = routing(ModelSpec("m", targets)).find("m")
    assert names(route) == [["other/a", "first/m"], ["other/b", "first/c"]]
    assert [candidate for tier in route.tiers for candidate in tier] == list(route.candidates)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
def test_keys_share_the_weight_of_their_target(keys_a: int, keys_b: int, weight_a: int, weight_b: int) -> None:
    """However many keys an upstream has, its share of the calls is the configured one, to the call."""
    a, b = (
        Upstream(name, "openai", DEFAULT.origin, "/v1", tuple(f"sk-test-{number}" for number in range(keys)))
        for name, keys in (("a", keys_a), ("b", keys_b))
    )
    targets = (*each_key(a, "m", weight_a), *each_key(b, "m", weight_b))
    route = routing(ModelSpec("m", targets)).find("m")
    calls = (weight_a + weight_b) * keys_a * keys_b
    chosen = Counter(route.balancer.choose(route.candidates).target.name for _ in range(calls))
    assert sorted(chosen.values()) == sorted(
        [weight_a * keys_b] * keys_a + [weight_b * keys_a] * keys_b,
    )
    assert sum(count for name, count in chosen.items() if name.startswith("a/")) == weight_a * keys_a * keys_b


def test_the_window_is_the_largest_known() -> None:
    """None when nothing is known."""
    targets = (*each_key(KEYED, "a", window=8000), Target(OTHER, "b", context_tokens=128_000), Target(OTHER, "c"))
    models = routing(ModelSpec("known", targets), ModelSpec("unknown", (Target(OTHER),)))
    assert models.find("known").context_tokens == 128_000
    assert models.find("unknown").context_tokens is None


def test_each_model_has_its_balancer() -> None:
    """As configured, by weight when nothing is said."""
    models = routing(ModelSpec("a", (Target(OTHER),)), ModelSpec("b", (Target(OTHER),), balance="least_loaded"))
    assert isinstance(models.find("a").balancer, SmoothWeighted)
    assert isinstance(models.find("b").balancer, LeastLoaded)


def model(name: str, *fallbacks: str, aliases: tuple[str, ...] = ()) -> ModelSpec:
    """Return a model with one target."""
    return ModelSpec(name, (Target(OTHER),), aliases, fallbacks)


def test_fallbacks_are_tried_in_order_each_once() -> None:
    """The model's own first, then those of the fallbacks; an alias is its model."""
    models = routing(
        model("a", "b", "c"),
        model("b", "d"),
        model("c", "nick", "e"),
        model("d", "demo/echo", aliases=("nick",)),
        model("e"),
    )
    fallbacks = models.find("a").fallbacks
    assert [route.name for route in fallbacks] == ["b", "c", "d", "e", "demo/echo"]
    assert fallbacks[2] is models.find("d")
    assert models.find("e").fallbacks == ()


def test_wildcards_have_fallbacks_too() -> None:
    """Every name that matches has them; each fallback is sent its own name."""
    models = routing(ModelSpec("gpt-*", (Target(OTHER, "x-*"),), fallbacks=("llama",)), model("llama"))
    for name in ("gpt-1", "gpt-2"):
        assert models.find(name).fallbacks == (models.find("llama"),)
    assert sent(models.find("llama")) == ["llama"]


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdef"), max_size=3), min_size=6))
def test_fallbacks_end_or_are_refused(followers: dict[str, list[str]]) -> None:
    """Whoever can come back to itself is refused; else all that can be reached are there, nearest first."""

    def distances(name: str) -> dict[str, int]:
        found: dict[str, int] = {}
        row = set(followers[name])
        while row:
            found |= dict.fromkeys(row, max(found.values(), default=0) + 1)
            row = {each for known in row for each in followers[known]} - set(found)
        return found

    specs = [model(name, *fallbacks) for name, fallbacks in followers.items()]
    if any(name in distances(name) for name in followers):
        with pytest.raises(ValueError, match="cycle"):
            routing(*specs)
        return
    models = routing(*specs)
    for name in followers:
        order = [route.name for route in models.find(name).fallbacks]
        assert len(order) == len(set(order))
        assert set(order) == set(distances(name))
        assert [distances(name)[each] for each in order] == sorted(distances(name).values())


def test_a_long_row_of_fallbacks_is_no_trouble() -> None:
    """Nothing recurses."""
    row = [model(f"m{number}", f"m{number + 1}") for number in range(1100)]
    assert len(routing(*row, model("m1100")).find("m0").fallbacks) == 1100


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ((model("a", "nobody"),), "fallback of a .* nobody"),
        ((model("a", "b-*"), model("b-*")), "fallback of a .* b-"),
        ((model("a", "a"),), "cycle"),
        ((model("a"), model("a")), "a names two models"),
        ((model("a-*"), model("a-*")), "a-. names two models"),
        ((model("a"), model("b", aliases=("a",))), "a names two models"),
        ((ModelSpec("a", (Target(OTHER, "a"), Target(OTHER))),), "two targets of a are the same"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_changes_nothing(models: tuple[ModelSpec, ...], message: str) -> None:
    """Unknown fallbacks, loops, names and targets that stand twice: a refused table has not touched the states."""
    states = fresh_states()
    with pytest.raises(ValueError, match=message):
        routing(*models, states=states)
    assert not states.targets()


@pytest.mark.parametrize(
    ("asked", "found", "sent_model"),
    [
        ("gpt-4", "gpt-*", "4"),
        ("gpt-", "gpt-*", ""),
        ("gpt-4-mini", "gpt-*-mini", "small-4"),
        ("gpt--mini", "gpt-*-mini", "small-"),
        ("gpt-mini", "*-mini", None),
        ("o1-x", "o1-*", "tie"),
        ("gpt-4-turbo", "gpt-4-turbo", "exact"),
        ("o1-mini", "*-mini", None),
        ("anything", "*", "any/anything"),
        ("gpt-*", "gpt-*", "*"),
        ("gpt-/../*x", "gpt-*", "/../*x"),
    ],
)
def test_the_most_specific_pattern_wins(asked: str, found: str, sent_model: str | None) -> None:
    """An exact name first, then the longest pattern, of equals the longest start; what matched is put in its place."""
    models = routing(
        ModelSpec("*", (Target(OTHER, "any/*"),)),
        ModelSpec("gpt-*", (Target(OTHER, "*"),)),
        ModelSpec("*-mini", (Target(OTHER),)),
        ModelSpec("*1-x", (Target(OTHER),)),
        ModelSpec("o1-*", (Target(OTHER, "tie"),)),
        ModelSpec("gpt-*-mini", (Target(OTHER, "small-*"),)),
        ModelSpec("gpt-4-turbo", (Target(OTHER, "exact"),)),
    )
    for _ in range(2):
        assert models.find(asked).name == found
        assert sent(models.find(asked)) == [sent_model]
    assert models.names == ("gpt-4-turbo", "demo/echo")
    assert not models.is_open


def test_start_and_end_do_not_overlap() -> None:
    """A name holds both, one after the other."""
    models = routing(ModelSpec("aba*ab", (Target(OTHER),)))
    assert refusal(models, "abab").kind is Kind.MODEL_NOT_FOUND
    assert refusal(models, "aba").kind is Kind.MODEL_NOT_FOUND
    assert models.find("abaab").name == "aba*ab"


def test_a_constant_target_of_a_wildcard_is_one_for_all_names() -> None:
    """Names that are sent on alike share the calls under way."""
    models = routing(ModelSpec("gpt-*", (Target(OTHER, "big"), Target(DEFAULT))))
    assert models.find("gpt-1") is models.find("gpt-2")


def test_what_strangers_ask_for_does_not_pile_up() -> None:
    """Neither names that match nor names that do not, nor long ones; the states stay those of the configuration."""
    states = fresh_states()
    models = routing(ModelSpec("gpt-*", (Target(OTHER, "x-*"),)), states=states)
    for number in range(3 * MAX_MATCHED):
        models.find(f"gpt-{number}")
        refusal(models, f"no-{number}")
    models.find("gpt-" + "x" * 100_000)
    assert len(models._matched) == MAX_MATCHED
    assert max(map(len, models._matched)) < 100
    assert [target.name for target, *_ in states.targets()] == ["other/x-*", "demo/demo/echo"]
    assert len(states._known.candidates) == 2
    assert sent(models.find("gpt-0")) == ["x-0"]


def test_the_names_of_a_wildcard_share_what_is_known_about_it() -> None:
    """A circuit, a key and an upstream each; but not the calls under way."""
    models = routing(ModelSpec("gpt-*", (Target(OTHER, "x-*"),)))
    (one,), (two,) = models.find("gpt-1").candidates, models.find("gpt-2").candidates
    assert one is not two
    assert (one.circuit, one.credential, one.upstream) == (two.circuit, two.credential, two.upstream)


def test_names_asked_for_once_are_spread_by_weight_as_well() -> None:
    """A new name begins where the last one went on; one that is asked for again goes on by itself."""
    targets = (Target(OTHER, "*", weight=3), Target(DEFAULT, "*"))
    models = routing(ModelSpec("gpt-*", targets))

    def called(name: str) -> str:
        route = models.find(name)
        return route.balancer.choose(route.candidates).target.upstream.name

    assert Counter(called(f"gpt-{number}") for number in range(100)) == {"other": 75, "first": 25}
    assert Counter(called("gpt-0") for _ in range(100)) == {"other": 75, "first": 25}


def test_models_of_one_upstream_fail_apart() -> None:
    """Targets without a model of their own are known by the name that is sent."""
    (one,), (two,) = (routing(model("a"), model("b")).find(name).candidates for name in "ab")
    assert one.circuit is not two.circuit
