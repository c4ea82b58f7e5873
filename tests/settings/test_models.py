"""Models and their targets, and what this version leaves unused."""

from __future__ import annotations

from collections.abc import Callable

from chatgate.settings import ModelSettings, Settings, TargetSettings

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
targets = [{ upstream = "openai", model = "gpt-5-mini", weight = 3 },
           { upstream = "backup" }]
fallbacks = ["llama-local", "demo/echo"]
[[models]]
name = "llama-local"
targets = [{ upstream = "backup", model = "llama" }]
"""


def test_models_keep_their_targets_and_fallbacks(load_text: Load) -> None:
    """Names, weights and order survive; an absent target model means the asked name."""
    assert load_text(TEXT).models == (
        ModelSettings(
            "gpt-5-mini",
            (TargetSettings("openai", "gpt-5-mini", 3), TargetSettings("backup", None, 1)),
            ("llama-local", "demo/echo"),
        ),
        ModelSettings("llama-local", (TargetSettings("backup", "llama", 1),), ()),
    )


def test_what_is_not_used_yet_is_said(load_text: Load) -> None:
    """Several targets and fallbacks are accepted, each with a warning that names the model."""
    warnings = load_text(TEXT).warnings
    assert len(warnings) == 2
    assert all("gpt-5-mini" in warning for warning in warnings)
    assert "targets" in warnings[0]
    assert "fallbacks" in warnings[1]


def test_a_target_may_name_the_upstream_of_the_environment(load_text: Load) -> None:
    """Without `[[upstreams]]` there is one named openai."""
    settings = load_text('[[models]]\nname = "m"\ntargets = [{ upstream = "openai" }]')
    assert settings.models[0].targets[0].upstream == settings.upstreams[0].name
