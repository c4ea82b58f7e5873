"""Names are mapped to targets as the configuration says, and nowhere else."""

from __future__ import annotations

import pytest

from chatgate.routing import Routing
from chatgate.vocabulary.errors import CallerError, Kind
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

DEFAULT = Upstream("first", "openai", Origin("https", "first.invalid", 443), "/v1", is_default=True)
OTHER = Upstream("other", "openai", Origin("https", "other.invalid", 443), "/v1")
DEMO = Upstream("demo", "demo", Origin("http", "demo.invalid", 80), "/v1")
DEMOS = {"demo/echo": (Target(DEMO),)}


def routing(models: dict[str, tuple[Target, ...]] | None = None) -> Routing:
    """Return a routing with the demo models and some others."""
    return Routing({**(models or {}), **DEMOS}, default_upstream=DEFAULT, reserved_prefix="demo/")


def refusal(routing: Routing, name: str) -> CallerError:
    """Return the refusal of a name."""
    with pytest.raises(CallerError) as caught:
        routing.targets(name)
    return caught.value


@pytest.mark.parametrize("name", ["gpt-x", "", "a/b/c", "../x", "*", "demo", "Demo/echo", "demo\\echo", " demo/echo"])
def test_without_named_models_any_name_goes_to_the_default_upstream(name: str) -> None:
    """The name goes there unchanged."""
    open_to_all = routing()
    assert open_to_all.is_open
    assert open_to_all.targets(name) == (Target(DEFAULT, None),)


@pytest.mark.parametrize("name", ["demo/", "demo/nothing", "demo/echo ", "demo/echo/x"])
def test_the_reserved_prefix_never_leaves_the_house(name: str) -> None:
    """A demo model that does not exist is unknown; it is not asked for at the default upstream."""
    error = refusal(routing(), name)
    assert (error.kind, error.reason, error.param) == (Kind.MODEL_NOT_FOUND, "unknown_model", "model")
    assert error.parameters == {"model": name}


def test_named_models_close_the_list() -> None:
    """With one model named, other names are unknown; the demo models are always there."""
    targets = (Target(OTHER, "gpt-x-large"), Target(DEFAULT, "gpt-x"))
    closed = routing({"gpt-x": targets})
    assert not closed.is_open
    assert closed.names == ("gpt-x", "demo/echo")
    assert closed.targets("gpt-x") is targets
    assert closed.targets("demo/echo") == (Target(DEMO),)
    for name in ("gpt-X", "gpt-x ", "gpt-x-large", "*", ""):
        assert refusal(closed, name).kind is Kind.MODEL_NOT_FOUND


def test_a_named_model_may_bear_any_name() -> None:
    """Also one under the reserved prefix, when the configuration says so; that alone does not close the list."""
    own = routing({"demo/mine": (Target(OTHER, "x"),)})
    assert own.is_open
    assert own.targets("demo/mine") == (Target(OTHER, "x"),)
    assert own.targets("gpt-x") == (Target(DEFAULT),)


def test_a_long_name_is_not_repeated_whole() -> None:
    """A refusal holds as much of the name as a person reads."""
    assert len(str(refusal(routing({"x": (Target(OTHER),)}), "y" * 5000).parameters["model"])) == 100
