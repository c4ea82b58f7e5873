"""Upstreams: credentials, base URLs, proxies, and which of them callers need a key for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from chatgate.settings import OPENAI_COMPATIBLE, Settings, SettingsError
from chatgate.vocabulary.upstreams import Continuation, Origin

Load = Callable[..., Settings]

TWO = """
[[upstreams]]
name = "first"
base_url = "https://first.example/v1/"
api_key = "sk-test-first"
[[upstreams]]
name = "second"
base_url = "http://second.example:8080"
"""


def test_the_environment_alone_makes_one_upstream(load_text: Load) -> None:
    """Without `[[upstreams]]` there is OpenAI, with API_KEY as its credential."""
    (upstream,) = load_text("", {"API_KEY": "sk-test-1"}).upstreams
    assert (upstream.name, upstream.provider, upstream.is_default) == ("openai", "openai", True)
    assert upstream.origin == Origin("https", "api.openai.com", 443)
    assert (upstream.base_path, upstream.api_key) == ("/v1", "sk-test-1")


def test_another_base_url_is_no_longer_openai(load_text: Load) -> None:
    """OPENAI_BASE_URL may lead to any server that speaks the protocol: OpenAI's own quirks are not assumed there."""
    (upstream,) = load_text("", {"OPENAI_BASE_URL": "http://Box.lan:8000/api/v1/"}).upstreams
    assert (upstream.provider, upstream.origin) == (OPENAI_COMPATIBLE, Origin("http", "box.lan", 8000))
    assert upstream.base_path == "/api/v1"
    (same,) = load_text("", {"OPENAI_BASE_URL": "https://api.openai.com/v1"}).upstreams
    assert same.provider == "openai"


KEY_NEEDED = [
    ("", {}, True),
    ("", {"API_KEY": "sk-test-1"}, True),
    ("", {"API_KEY": "None"}, False),
    ("", {"OPENAI_BASE_URL": "http://box/v1"}, True),
    ("", {"OPENAI_BASE_URL": "http://box/v1", "API_KEY": "sk-test-1"}, False),
    ("", {"OPENAI_BASE_URL": "http://box/v1", "API_KEY": "-"}, False),
    ('[[upstreams]]\nname = "a"\nprovider = "openai"', {}, True),
    ('[[upstreams]]\nname = "a"\nprovider = "openai"\napi_key = "none"', {}, False),
    ('[[upstreams]]\nname = "a"\nprovider = "openai"\nbase_url = "http://box/v1"', {}, False),
    ('[[upstreams]]\nname = "a"\nbase_url = "http://box/v1"', {}, False),
]


@pytest.mark.parametrize(("text", "environ", "needed"), KEY_NEEDED)
def test_a_key_is_needed_at_openai_and_where_nothing_says_otherwise(
    load_text: Load, text: str, environ: dict[str, str], *, needed: bool
) -> None:
    """OpenAI needs a key, so does the seed's set-up without API_KEY; the word none says that no key is needed."""
    assert load_text(text, environ).upstreams[0].key_needed is needed


@pytest.mark.parametrize("word", ["none", "EMPTY", "chatgate", "-"])
def test_a_word_for_no_key_is_no_key(load_text: Load, word: str) -> None:
    """API_KEY=none clears even the file's key, and is no secret."""
    settings = load_text(TWO, {"API_KEY": word})
    assert settings.upstreams[0].api_key == ""
    assert word not in settings.secrets()


def test_the_first_upstream_is_the_default_one(load_text: Load) -> None:
    """Order decides which upstream is the default; the path may be empty."""
    first, second = load_text(TWO).upstreams
    assert (first.is_default, second.is_default) == (True, False)
    assert (first.provider, first.base_path, first.api_key) == (OPENAI_COMPATIBLE, "/v1", "sk-test-first")
    assert (second.origin, second.base_path, second.api_key) == (Origin("http", "second.example", 8080), "", "")


def test_the_environment_overrides_the_default_upstream_only(load_text: Load) -> None:
    """API_KEY and OPENAI_BASE_URL speak about the default upstream and leave the others alone."""
    environ = {"API_KEY": "sk-test-env", "OPENAI_BASE_URL": "http://env.example/v9"}
    first, second = load_text(TWO, environ).upstreams
    assert (first.api_key, first.origin.host, first.base_path) == ("sk-test-env", "env.example", "/v9")
    assert (second.api_key, second.origin.host) == ("", "second.example")
    (bare,) = load_text('[[upstreams]]\nname = "a"\nbase_url = "http://a"', environ).upstreams
    assert bare.api_key == "sk-test-env"


def test_a_provider_of_the_catalogue_brings_its_base_url(load_text: Load) -> None:
    """Naming the vendor is enough; a base URL of its own still wins."""
    item = '[[upstreams]]\nname = "{}"\nprovider = "example"\n'
    first, second = load_text(item.format("a") + item.format("b") + 'base_url = "http://b"').upstreams
    assert (first.provider, first.origin, first.base_path) == (
        "example",
        Origin("https", "api.example.com", 443),
        "/v2",
    )
    assert (second.provider, second.origin) == ("example", Origin("http", "b", 80))
    assert not first.key_needed


def test_a_key_can_be_given_in_four_ways(load_text: Load, tmp_path: Path) -> None:
    """Directly, as a list, through a variable or its file, and through a file beside the configuration."""
    (tmp_path / "key").write_text("sk-test-file\n")
    item = '[[upstreams]]\nname = "a"\nbase_url = "http://a"\n'
    cases = [
        ('api_key = "sk-test-direct"', {}, "sk-test-direct"),
        ('api_keys = ["sk-test-one"]', {}, "sk-test-one"),
        ('api_key_env = "MY_KEY"', {"MY_KEY": "sk-test-env"}, "sk-test-env"),
        ('api_key_env = "MY_KEY"', {"MY_KEY_FILE": "key"}, "sk-test-file"),
        ('api_key_file = "key"', {}, "sk-test-file"),
        ('api_key = ""', {}, ""),
        ("api_keys = []", {}, ""),
    ]
    for line, environ, key in cases:
        settings = load_text(item + line, environ)
        assert settings.upstreams[0].api_key == key, line
        assert settings.secrets() == {key} - {""}


def test_all_keys_are_kept_and_secret(load_text: Load) -> None:
    """Several keys stay in their order, each of them is redacted, and nothing warns of them."""
    text = '[[upstreams]]\nname = "a"\nbase_url = "http://a"\napi_keys = ["sk-test-1", "sk-test-2"]'
    settings = load_text(text)
    assert settings.upstreams[0].api_keys == ("sk-test-1", "sk-test-2")
    assert settings.secrets() == {"sk-test-1", "sk-test-2"}
    assert settings.warnings == ()
    assert load_text(text, {"API_KEY": "sk-test-3"}).upstreams[0].api_keys == ("sk-test-3",)


def test_two_upstreams_may_show_the_same_key(load_text: Load) -> None:
    """One account can be reached in two ways; only within one upstream is a key twice a slip."""
    item = '[[upstreams]]\nname = "{}"\nbase_url = "http://{}"\napi_keys = ["sk-test-1"]\n'
    upstreams = load_text(item.format("a", "a") + item.format("b", "b")).upstreams
    assert [upstream.api_keys for upstream in upstreams] == [("sk-test-1",), ("sk-test-1",)]


def test_an_upstream_may_have_a_cap(load_text: Load) -> None:
    """A cap is kept, 0 means none, and where each of several processes counts for itself the sum is said."""
    text = TWO + "max_in_flight = 8"
    assert [upstream.max_in_flight for upstream in load_text(text).upstreams] == [0, 8]
    assert load_text(text).warnings == ()
    (warning,) = load_text(text, {"CHATGATE_WORKERS": "3"}).warnings
    assert warning.startswith("upstream second:")
    assert "up to 24 calls" in warning


def test_an_upstream_may_say_how_it_goes_on(load_text: Load) -> None:
    """What the file says is told apart from saying nothing, so that "none" can switch off what a provider does."""
    assert load_text(TWO).continuations == {}
    assert load_text(TWO + 'continuation = "none"').continuations == {"second": None}
    for way in get_args(Continuation):
        assert load_text(TWO + f'continuation = "{way}"').continuations == {"second": way}


def test_a_key_of_this_gateway_is_no_credential(load_text: Load) -> None:
    """A chatgate key configured as a provider's is a mix-up, told without repeating the key."""
    with pytest.raises(SettingsError, match="key of this gateway") as caught:
        load_text("", {"API_KEY": "sk-cg-test"})
    assert "sk-cg-test" not in caught.value.render()


def test_nothing_prints_a_secret(load_text: Load) -> None:
    """The tree's representation shows neither keys nor proxy passwords."""
    text = '[[upstreams]]\nname = "a"\nbase_url = "http://a"\napi_key = "sk-test-1"\nproxy = "http://u:pw%20x@p:1"'
    settings = load_text(text)
    assert settings.secrets() == {"sk-test-1", "pw%20x", "pw x"}
    shown = f"{settings!r} {settings} {settings.upstreams!r} {settings.upstreams[0].origin!r}"
    assert not any(secret in shown for secret in settings.secrets())


PROXIES: list[tuple[dict[str, str], str | None]] = [
    ({}, None),
    ({"HTTPS_PROXY": "http://p:3128"}, "http://p:3128"),
    ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:2"}, "http://low:1"),
    ({"ALL_PROXY": "socks5h://p"}, "socks5h://p:1080"),
    ({"all_proxy": "socks5://u:p%40w@[::1]:9"}, "socks5://u:p%40w@[::1]:9"),
    ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://b:2"}, "http://a:1"),
    ({"HTTP_PROXY": "http://p:3128"}, None),
    ({"HTTPS_PROXY": "https://p/", "NO_PROXY": "example.org"}, "https://p:443"),
    ({"HTTPS_PROXY": "http://p", "NO_PROXY": "api.openai.com"}, None),
    ({"HTTPS_PROXY": "http://p", "no_proxy": ".openai.com", "NO_PROXY": ""}, None),
    ({"HTTPS_PROXY": "http://p", "NO_PROXY": "*"}, None),
    ({"HTTPS_PROXY": "http://p", "NO_PROXY": "api.openai.com:80"}, "http://p:80"),
]


@pytest.mark.parametrize(("environ", "proxy"), PROXIES)
def test_an_upstream_without_a_proxy_takes_the_environments(
    load_text: Load, environ: dict[str, str], proxy: str | None
) -> None:
    """HTTPS_PROXY, else ALL_PROXY, in lower or upper case, unless NO_PROXY covers the host."""
    assert load_text("", environ).upstreams[0].origin.proxy == proxy


def test_an_upstreams_own_proxy_wins(load_text: Load) -> None:
    """Each upstream may name a proxy, or none at all; NO_PROXY speaks about the environment's only."""
    item = '[[upstreams]]\nname = "a{}"\nbase_url = "http://a"\n'
    proxies = ['proxy = "socks5://own:1"', 'proxy = "none"', 'proxy = ""', ""]
    text = "".join(f"{item.format(index)}{proxy}\n" for index, proxy in enumerate(proxies))
    found = [upstream.origin.proxy for upstream in load_text(text, {"ALL_PROXY": "http://env:2"}).upstreams]
    assert found == ["socks5://own:1", None, None, "http://env:2"]
    exempt = load_text(text, {"ALL_PROXY": "http://env:2", "NO_PROXY": "*"}).upstreams
    assert [upstream.origin.proxy for upstream in exempt] == ["socks5://own:1", None, None, None]


@pytest.mark.parametrize(
    ("item", "needed"),
    [
        ('provider = "anthropic"', True),
        ('provider = "gemini"', True),
        ('provider = "anthropic"\napi_key = "none"', False),
        ('provider = "anthropic"\nbase_url = "http://127.0.0.1:8080"', False),
    ],
)
def test_vendors_own_addresses_want_a_key(load_text: Load, item: str, needed: bool) -> None:  # noqa: FBT001 - a table's column
    """A server of somebody else's that speaks the protocol may do without."""
    (upstream,) = load_text(f'[[upstreams]]\nname = "a"\n{item}\n').upstreams
    assert upstream.key_needed is needed
