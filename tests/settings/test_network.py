"""Addresses, URLs, proxies and paths."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from chatgate.settings.network import (
    read_base_url,
    read_host,
    read_network,
    read_no_proxy,
    read_proxy,
    read_route,
    without_credentials,
)
from chatgate.settings.problems import Refusal
from chatgate.vocabulary.upstreams import Origin


@pytest.mark.parametrize(
    ("text", "route"),
    [
        ("", ""),
        ("/", ""),
        ("api", "api"),
        ("/api/", "api"),
        ("a/b", "a/b"),
        ("v2", "v2"),
        ("model", "model"),
        ("v1x", "v1x"),
        ("~me/._-", "~me/._-"),
        ("chat", "chat"),
    ],
)
def test_a_route_loses_the_slashes_around_it(text: str, route: str) -> None:
    """`api`, `/api` and `/api/` all mean `POST /api`."""
    assert read_route(text) == route


@pytest.mark.parametrize(
    "text",
    [
        *("v1", "/v1/", "v1/chat/completions", "v1/x", "chat/completions", "models", "models/x", "healthz", "readyz"),
        *("metrics", "openapi.json", "a b", "a?b", "a#b", "a%20b", "http://x/api", "a//b", "..", "a/../b", ".", "接口"),
        "api\n",
    ],
)
def test_a_route_that_cannot_be_served_is_refused(text: str) -> None:
    """Paths of the gateway's own, and anything that is no plain path, are refused."""
    with pytest.raises(Refusal):
        read_route(text)


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("https://api.openai.com/v1", Origin("https", "api.openai.com", 443), "/v1"),
        ("HTTPS://API.Example.COM:8443/v1//", Origin("https", "api.example.com", 8443), "/v1"),
        ("http://localhost", Origin("http", "localhost", 80), ""),
        ("http://[::1]:8000/", Origin("http", "::1", 8000), ""),
        ("http://127.0.0.1:1/a/b", Origin("http", "127.0.0.1", 1), "/a/b"),
        ("http://my_service:9/v1", Origin("http", "my_service", 9), "/v1"),
    ],
)
def test_a_base_url_is_an_origin_and_a_path(url: str, origin: Origin, path: str) -> None:
    """Host names are in lower case, ports explicit, paths without a slash at their end."""
    assert read_base_url(url) == (origin, path)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "api.openai.com/v1",
            "//api.openai.com",
            "ftp://x",
            "file:///etc/passwd",
            "https://",
            "https:///v1",
            "https:x",
        ),
        *("http://u:pw-test@x/v1", "http://sk-test@x", "http://x?a=1", "http://x/v1#f", "http://x?", "http://x#"),
        *("http://x:0", "http://x:65536", "http://x:p", "http://x:", "http://[::1", "http://a b", "http://x/\n"),
        *("http://bücher.example", "http://1.2.3.999", "http://a..b", "http://-a", "http://x/v1/chat/completions/"),
        *("http://x/v1/models", "http://[fe80::1%25eth0]/", "http://" + "a" * 300, ""),
    ],
)
def test_a_base_url_that_cannot_be_meant_is_refused(url: str) -> None:
    """Other schemes, credentials, queries, fragments and broken hosts are refused, without repeating the URL."""
    with pytest.raises(Refusal) as caught:
        read_base_url(url)
    assert "test" not in f"{caught.value.problem} {caught.value.hint}"


@pytest.mark.parametrize(
    ("url", "expected", "secrets"),
    [
        ("http://p:3128", "http://p:3128", set()),
        ("HTTP://P/", "http://p:80", set()),
        ("https://p", "https://p:443", set()),
        ("socks5://u:a%3Ab@1.2.3.4", "socks5://u:a%3Ab@1.2.3.4:1080", {"a%3Ab", "a:b"}),
        ("socks5h://token-test@p:1", "socks5h://token-test@p:1", {"token-test"}),
        ("http://u:p@w@[2001:db8::1]:8", "http://u:p@w@[2001:db8::1]:8", {"p@w"}),
    ],
)
def test_a_proxy_keeps_its_credentials_and_gets_a_port(url: str, expected: str, secrets: set[str]) -> None:
    """The four schemes are understood; a password, else the user name, is secret in both spellings."""
    proxy = read_proxy(url)
    assert (proxy.url, set(proxy.secrets)) == (expected, secrets)
    assert not any(secret in f"{proxy!r} {without_credentials(proxy.url)}" for secret in secrets)


@pytest.mark.parametrize(
    "url",
    ["p:3128", "p", "socks4://p:1", "socks://p", "http://", "http://p/path", "http://p?x", "http://u:pw-test@", ""],
)
def test_a_proxy_that_cannot_be_used_is_refused(url: str) -> None:
    """Missing or other schemes, and paths, are refused, without repeating the URL."""
    with pytest.raises(Refusal) as caught:
        read_proxy(url)
    assert "test" not in f"{caught.value.problem} {caught.value.hint}"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::1", "::1"),
        ("1.2.3.4/32", "1.2.3.4/32"),
    ],
)
def test_addresses_and_blocks_become_canonical(text: str, canonical: str) -> None:
    """IPv4 and IPv6, single and in blocks."""
    assert read_network(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        *("", "1.2.3", "1.2.3.4.5", "256.0.0.1", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/255.0.0.0", "10.0.0.0/"),
        *("/8", "fe80::1%eth0", "localhost", "*", "1.2.3.4:80", "[::1]", "10.0.0.1/8", "2001:db8::1/32", "01.2.3.4"),
    ],
)
def test_what_is_no_address_and_no_block_is_refused(text: str) -> None:
    """Names, ports, zones, netmasks and bits behind the prefix are refused."""
    with pytest.raises(Refusal):
        read_network(text)


def test_a_block_with_bits_behind_its_prefix_gets_both_readings_as_a_hint() -> None:
    """The hint says which two things can have been meant."""
    with pytest.raises(Refusal) as caught:
        read_network("10.0.0.1/8")
    assert caught.value.hint == "write 10.0.0.0/8 or 10.0.0.1"


NO_PROXY = [
    ("example.com", "example.com", 443, True),
    ("example.com", "API.example.com", 443, True),
    ("example.com", "notexample.com", 443, False),
    (".example.com", "api.example.com", 443, True),
    (".example.com", "example.com", 443, True),
    ("*.example.com", "a.b.example.com", 443, True),
    ("*.example.com", "example.org", 443, False),
    ("EXAMPLE.com", "example.com", 443, True),
    ("example.com:8080", "example.com", 8080, True),
    ("example.com:8080", "example.com", 443, False),
    ("10.0.0.0/8", "10.1.2.3", 443, True),
    ("10.0.0.0/8", "11.1.2.3", 443, False),
    ("10.0.0.0/8", "example.com", 443, False),
    ("127.0.0.1", "127.0.0.1", 5000, True),
    ("127.0.0.1:5000", "127.0.0.1", 5000, True),
    ("127.0.0.1:5000", "127.0.0.1", 5001, False),
    ("::1", "::1", 80, True),
    ("[::1]", "::1", 80, True),
    ("[::1]:80", "::1", 80, True),
    ("[::1]:80", "::1", 81, False),
    ("2001:db8::/32", "2001:db8::5", 80, True),
    ("2001:db8::/32", "10.0.0.1", 80, False),
    ("*", "anything.example", 1, True),
    ("a.example, b.example", "b.example", 1, True),
    ("a.example b.example", "b.example", 1, True),
    ("", "a.example", 1, False),
    (",,", "a.example", 1, False),
    ("localhost,example.com.", "example.com", 1, True),
]


@pytest.mark.parametrize(("text", "host", "port", "covered"), NO_PROXY)
def test_no_proxy_covers_hosts_domains_and_networks(text: str, host: str, port: int, *, covered: bool) -> None:
    """A domain stands for itself and what is below it; networks match addresses only; a port narrows."""
    origin = Origin("https", host.lower(), port)
    assert any(exemption.covers(origin) for exemption in read_no_proxy(text)) is covered


@pytest.mark.parametrize("text", ["10.*", "a.example,10.0.0.0/99", "<local>", "a:0", "a:x", "a:99999", "http://a"])
def test_no_proxy_items_that_would_never_match_are_refused(text: str) -> None:
    """An item that is not understood would quietly send calls the wrong way."""
    with pytest.raises(Refusal):
        read_no_proxy(text)


@pytest.mark.parametrize("read", [read_base_url, read_host, read_network, read_no_proxy, read_proxy, read_route])
@bounded(deadline=None)
@given(text=st.one_of(st.text(), st.from_regex(r"(https?://|socks5://)?[\[\]:@/.%a-f0-9*-]{0,20}", fullmatch=True)))
def test_any_text_is_read_or_refused(read: Callable[[str], object], text: str) -> None:
    """No text makes a reader fail in another way than by refusing."""
    with contextlib.suppress(Refusal):
        read(text)
