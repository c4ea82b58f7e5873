"""The catalogue of providers is whole, and a broken file of it names itself."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import pytest

from chatgate.providers import spec
from chatgate.vocabulary.upstreams import Continuation

FILES = files("chatgate.providers").joinpath("catalog")


def test_the_catalogue_loads() -> None:
    """What the settings assume is there: OpenAI, and servers that are compatible to it."""
    catalogue = spec.load()
    assert {"openai", "openai_compatible"} <= set(catalogue)
    openai = catalogue["openai"]
    assert openai.key_needed
    assert openai.small_model in openai.parameters.add
    assert openai.parameters.rename == {"max_tokens": "max_completion_tokens"}
    assert catalogue["openai_compatible"].base_url is None
    assert (openai.continuation, catalogue["openai_compatible"].continuation) == (None, None)


@pytest.mark.parametrize("name", spec.load())
def test_every_provider_is_sound(name: str) -> None:
    """Addresses are absolute and lead to https, or to this machine; where a key is needed, it is said where from."""
    provider = spec.load()[name]
    assert provider.title
    for url in (provider.base_url, provider.example_url, provider.keys_url, *provider.also_at):
        if url is not None:
            parts = urlsplit(url)
            assert parts.scheme == ("http" if parts.hostname == "127.0.0.1" else "https"), url
            assert parts.hostname
            assert not url.endswith("/")
    assert not provider.key_needed or (provider.keys_url and provider.key_env)
    assert not (provider.base_url and provider.example_url)


@pytest.mark.parametrize("name", spec.load())
def test_every_file_is_short_and_says_where_it_comes_from(name: str) -> None:
    """A vendor is at most a dozen lines, its differences only, with the pages that they were read on and the day."""
    lines = FILES.joinpath(f"{name}.toml").read_text().splitlines()
    assert len(lines) <= 12
    assert all(len(line) <= 120 for line in lines)
    comments = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    if name != "openai_compatible":
        assert re.search(r"Source: https://\S+", comments)
        assert re.search(r"\((both )?read 20\d\d-\d\d-\d\d\)", comments)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'title = "X"', "protocol"),
        (b'title = "X"\nprotocol = "smoke_signals"', "smoke_signals"),
        (b'title = "X"\nprotocol = "openai_chat"\nkey_neded = true', "key_neded"),
        (b'title = "X"\nprotocol = "openai_chat"\n[parameters]\nrename = 5', "rename"),
        (b'title = "X"\nprotocol = "openai_chat"\nkey_needed = "yes"', "key_needed"),
        (b'title = "X"\nprotocol = "openai_chat"\ncontinuation = "none"', "continuation"),
        (b'title = "X"\nprotocol = "openai_chat"\nauth = "Bearer {key}"', "auth"),
        (b'title = "X"\nprotocol = "openai_chat"\nauth = "Authorization: Bearer"', "auth"),
        (b'title = "X"\nprotocol = "openai_chat"\nauth = "A: {key}\\r\\nB: c"', "auth"),
        (b'title = "X"\nprotocol = "openai_chat"\nfailures = { 402 = "money" }', "money"),
        (b"title = X", "line 1"),
        (b"title = '\xff'", "utf-8"),
    ],
)
def test_a_broken_file_names_itself(tmp_path: Path, content: bytes, said: str) -> None:
    """The start stops with the file's name and what is wrong in it."""
    (tmp_path / "good.toml").write_text('title = "X"\nprotocol = "openai_chat"')
    (tmp_path / "zeta.toml").write_bytes(content)
    with pytest.raises(spec.CatalogueError) as caught:
        spec.load(tmp_path)
    assert "zeta.toml" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("way", get_args(Continuation))
def test_a_provider_may_go_on_with_an_assistants_message(tmp_path: Path, way: str) -> None:
    """Each way of asking for it that the vocabulary knows can stand in the catalogue."""
    (tmp_path / "some.toml").write_text(f'title = "X"\nprotocol = "openai_chat"\ncontinuation = "{way}"')
    assert spec.load(tmp_path)["some"].continuation == way


def test_other_files_are_no_providers(tmp_path: Path) -> None:
    """A README or an editor's backup beside the catalogue is nobody's vendor."""
    (tmp_path / "some.vendor.toml").write_text('title = "X"\nprotocol = "openai_chat"')
    for name in ("README.md", "x.toml~", "toml", "__init__.py"):
        (tmp_path / name).write_text("no TOML {")
    assert list(spec.load(tmp_path)) == ["some.vendor"]
