"""Configurations to drill."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatgate.settings import Settings, load

TWO_UPSTREAMS = """
[[upstreams]]
name = "main"
base_url = "https://main.example/v1"
api_keys = ["sk-test-main-1", "sk-test-main-2"]
[[upstreams]]
name = "backup"
base_url = "https://backup.example/v1"
api_key = "sk-test-backup"
[[models]]
name = "gpt"
targets = [{ upstream = "main", model = "gpt-big", context_tokens = 8000 }]
fallbacks = ["llama"]
[[models]]
name = "llama"
targets = [{ upstream = "backup", context_tokens = 32000 }]
"""

ONE_UPSTREAM = """
[[upstreams]]
name = "only"
base_url = "https://only.example/v1"
api_key = "sk-test-only"
[[models]]
name = "gpt"
targets = [{ upstream = "only" }]
"""


def settings_of(text: str, directory: Path) -> Settings:
    """Load a configuration from this text alone."""
    file = directory / "chatgate.toml"
    file.write_text(text)
    providers = {"openai": "https://api.openai.com/v1", "openai_compatible": None}
    return load({}, {"HOME": str(directory)}, directory, providers, ("demo/echo",))


@pytest.fixture
def two_upstreams(tmp_path: Path) -> Settings:
    """Return a model with two keys and a fallback at another upstream."""
    return settings_of(TWO_UPSTREAMS, tmp_path)


@pytest.fixture
def one_upstream(tmp_path: Path) -> Settings:
    """Return a model that has nowhere else to go."""
    return settings_of(ONE_UPSTREAM, tmp_path)
