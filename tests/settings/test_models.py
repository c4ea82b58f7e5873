"""Models, their targets, and the other models they fall back on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.settings import ModelSettings, Settings, SettingsError, TargetSettings
from chatgate.settings.models import answers_to, find_loops

Load = Callable[..., Settings]

TEXT = """
[[upstreams]]
name = "openai"
provider = "openai"
[[upstreams]]
name = "backup"
base_url = "http://127.0.0.1:8000/v1"
[[models]]
name = "gpt-5-mini"
aliases = ["mini", "default"]
targets = [{ upstream = "openai", model = "gpt-5-mini", weight = 3, context_tokens = 400_000 },
           { upstream = "backup", priority = 10 }]
fallbacks = ["llama", "demo/echo"]
[[models]]
name = "llama-local"
aliases = ["llama"]
balance = "least_loaded"
targets = [{ upstream = "backup", model = "llama" }]
[[models]]
name = "claude-*"
targets = [{ upstream = "backup", model = "anthropic/*" }]
fallbacks = ["mini"]
"""


def chain(names: str, **fallbacks: str) -> str:
    """Return a file with a model for each letter, and for some of them the letters of their fallbacks."""
    return "".join(
        f'[[models]]\nname = "{name}"\ntargets = [{{ upstream = "openai" }}]\n'
        f"fallbacks = {list(fallbacks.get(name, ''))}\n"
        for name in names
    )


def test_models_keep_their_targets_and_fallbacks(load_text: Load) -> None:
    """Names, weights, priorities and order survive; fallbacks that were named by an alias are told by name."""
    settings = load_text(TEXT)
    assert settings.models == (
        ModelSettings(
            "gpt-5-mini",
            (
                TargetSettings("openai", "gpt-5-mini", 3, context_tokens=400_000),
                TargetSettings("backup", None, 1, priority=10),
            ),
            ("llama-local", "demo/echo"),
            ("mini", "default"),
        ),
        ModelSettings("llama-local", (TargetSettings("backup", "llama"),), (), ("llama",), "least_loaded"),
        ModelSettings("claude-*", (TargetSettings("backup", "anthropic/*"),), ("gpt-5-mini",)),
    )
    assert [model.is_wildcard for model in settings.models] == [False, False, True]
    assert settings.warnings == ()


def test_a_target_may_name_the_upstream_of_the_environment(load_text: Load) -> None:
    """Without `[[upstreams]]` there is one named openai."""
    settings = load_text('[[models]]\nname = "m"\ntargets = [{ upstream = "openai" }]')
    assert settings.models[0].targets[0].upstream == settings.upstreams[0].name


@pytest.mark.parametrize(
    ("pattern", "name", "answers"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("a-*", "a-b", True),
        ("a-*", "a", False),
        ("*-a", "b-a", True),
        ("a*a", "aa", True),
        ("a*a", "a", False),
        ("*", "anything/at:all", True),
        ("a.*", "abc", False),
    ],
)
def test_a_wildcard_stands_for_any_text(pattern: str, name: str, *, answers: bool) -> None:
    """What stands around the `*` must be there, without overlap; nothing else has a meaning of its own."""
    assert answers_to(ModelSettings(pattern, ()), name) is answers


def test_a_fallback_needs_a_model_of_its_own(load_text: Load) -> None:
    """A name that only a wildcard would take is unknown, and the pattern is not suggested."""
    text = chain("m", m="n") + '[[models]]\nname = "n*"\ntargets = [{ upstream = "openai" }]'
    with pytest.raises(SettingsError, match="must be the name or an alias of a model") as caught:
        load_text(text)
    assert "n*" not in str(caught.value)


def test_an_alias_of_a_model_with_a_fault_can_still_be_referred_to(load_text: Load) -> None:
    """A fallback to a broken model is no problem of its own, by alias neither."""
    text = chain("m", m="n") + '[[models]]\nname = "x"\naliases = ["n"]\ntargets = 1'
    with pytest.raises(SettingsError) as caught:
        load_text(text)
    assert [problem.key for problem in caught.value.problems] == ["models[1].targets"]


def test_fallbacks_may_meet_again(load_text: Load) -> None:
    """Two ways to the same model are no loop."""
    models = load_text(chain("abcd", a="bc", b="d", c="d")).models
    assert [model.fallbacks for model in models] == [("b", "c"), ("d",), ("d",), ()]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (chain("ab", a="b", b="a"), {"models[0]": "a → b → a"}),
        (chain("abc", a="b", b="c", c="b"), {"models[1]": "b → c → b"}),
        (chain("abcd", a="b", b="a", c="d", d="c"), {"models[0]": "a → b → a", "models[2]": "c → d → c"}),
        (chain("abcde", a="de", d="c", c="b", b="a"), {"models[0]": "a → d → c → b → a"}),
        (
            chain("abcdefghijk", a="b", b="c", c="d", d="e", e="f", f="g", g="h", h="i", i="j", j="k", k="a"),
            {"models[0]": "a → b → c → d → e → f → g → … → k → a"},
        ),
    ],
)
def test_a_loop_is_refused_and_shown(load_text: Load, text: str, shown: Mapping[str, str]) -> None:
    """However many models it leads through, the loop stands in the message; a long one without its middle."""
    with pytest.raises(SettingsError) as caught:
        load_text(text)
    assert {problem.key: problem.problem for problem in caught.value.problems} == {
        f"{model}.fallbacks": f"lead back to the model: {loop}" for model, loop in shown.items()
    }


def test_a_loop_of_thousands_is_no_trouble(load_text: Load) -> None:
    """A chain deeper than Python's stack is read, and a loop through all of it found."""
    item = '[[models]]\nname = "{}"\ntargets = [{{ upstream = "openai" }}]\nfallbacks = ["{}"]\n'
    models = "".join(item.format(index, index + 1) for index in range(1500))
    assert len(load_text(models + item.format(1500, "demo/echo")).models) == 1501
    with pytest.raises(SettingsError, match="0 → 1 → 2"):
        load_text(models + item.format(1500, 0))


@given(st.dictionaries(st.integers(0, 7), st.lists(st.integers(0, 7), max_size=4), max_size=8))
def test_loops_are_found_exactly_where_there_are_some(graph: dict[int, list[int]]) -> None:
    """What is returned are loops, and nothing is exactly when every model can be put before its fallbacks."""
    followers = {str(name): [str(other) for other in others] for name, others in graph.items()}
    loops = find_loops(followers)
    for loop in loops:
        assert loop[0] == loop[-1]
        assert all(after in followers[before] for before, after in pairwise(loop))
    left = {name: set(others) for name, others in followers.items()}
    while ends := [name for name, others in left.items() if not others & left.keys()]:
        for name in ends:
            del left[name]
    assert bool(loops) == bool(left)
