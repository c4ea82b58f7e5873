"""Loads configurations written in a test, in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from chatgate.settings import Settings, load

Load = Callable[..., Settings]

PROVIDERS = {
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
    "openai": "https://api.openai.com/v1",
    "openai_compatible": None,
    "example": "https://api.example.com/v2",
}

DEMO_MODELS = ("demo/echo", "demo/story")


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Return a function of a file's text, variables and arguments that loads what they say."""

    def load_text(
        text: str | bytes | None = None, environ: Mapping[str, str] | None = None, **arguments: object
    ) -> Settings:
        """Load with `text` as the file; "" means no file, None the one that is there or not."""
        file = tmp_path / "chatgate.toml"
        if text:
            file.write_bytes(text.encode() if isinstance(text, str) else text)
        elif text is not None:
            file.unlink(missing_ok=True)
        surroundings = {"HOME": str(tmp_path / "home"), **(environ or {})}
        return load(arguments, surroundings, tmp_path, PROVIDERS, DEMO_MODELS)

    return load_text
