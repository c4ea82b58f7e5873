"""Calls are put to an upstream in well-formed requests that carry nothing of the caller's but the body."""

from __future__ import annotations

import httptools
import pytest

from chatgate import __version__
from chatgate.protocols.counting import Question
from chatgate.providers import spec
from chatgate.providers.requests import Requests
from chatgate.vocabulary.exchange import OutboundRequest
from chatgate.vocabulary.upstreams import Origin, Timeouts, Upstream


class Parsed:
    """A request as an HTTP parser sees it."""

    def __init__(self, request: OutboundRequest) -> None:
        """Parse head and body."""
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.is_complete = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(request.head + request.body)
        self.method = parser.get_method()

    def on_url(self, url: bytes) -> None:
        """Note the target (called by httptools)."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header (called by httptools)."""
        assert name.lower() not in self.headers
        self.headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        """Note a piece of the body (called by httptools)."""
        self.body += body

    def on_message_complete(self) -> None:
        """Note the end (called by httptools)."""
        self.is_complete = True


def requests_to(origin: Origin, base_path: str = "/v1") -> Requests:
    """Return what writes requests to an origin."""
    return Requests(Upstream("up", "openai", origin, base_path), Timeouts(total_seconds=9.0))


ORIGIN = Origin("https", "up.invalid", 443)


def test_a_chat_is_a_post_with_its_length() -> None:
    """The head is complete, the body is the one that was given."""
    request = requests_to(ORIGIN).chat("{ü}".encode(), "sk-test-0123")
    parsed = Parsed(request)
    assert parsed.is_complete
    assert (parsed.method, parsed.url, parsed.body) == (b"POST", b"/v1/chat/completions", "{ü}".encode())
    assert parsed.headers == {
        b"host": b"up.invalid",
        b"user-agent": b"chatgate/" + __version__.encode(),
        b"accept-encoding": b"identity",
        b"content-type": b"application/json",
        b"accept": b"application/json, text/event-stream",
        b"authorization": b"Bearer sk-test-0123",
        b"content-length": b"4",
    }
    assert (request.origin, request.timeouts.total_seconds) == (ORIGIN, 9.0)


def test_the_list_of_models_is_a_get_with_its_own_timeouts() -> None:
    """Nothing but the key goes there, and patience is shorter."""
    timeouts = Timeouts(total_seconds=1.0)
    request = requests_to(ORIGIN, "").models("sk-test-0123", timeouts)
    parsed = Parsed(request)
    assert parsed.is_complete
    assert (parsed.method, parsed.url, parsed.body) == (b"GET", b"/models", b"")
    assert parsed.headers[b"authorization"] == b"Bearer sk-test-0123"
    assert request.timeouts is timeouts


def test_without_a_key_none_is_shown() -> None:
    """An upstream that needs no key gets no empty one."""
    requests = requests_to(ORIGIN)
    for request in (requests.chat(b"{}", ""), requests.models("", Timeouts())):
        assert b"authorization" not in Parsed(request).headers


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ("Authorization: Api-Key {key}", b"authorization", b"Api-Key sk-test-0123"),
        ("api-key: {key}", b"api-key", b"sk-test-0123"),
    ],
)
def test_a_key_is_shown_in_the_providers_way(auth: str, header: bytes, value: bytes) -> None:
    """The line is the provider's, for chats and for the list of models, and is left out without a key."""
    requests = Requests(Upstream("up", "some", ORIGIN, "/v1", auth=auth), Timeouts())
    for request in (requests.chat(b"{}", "sk-test-0123"), requests.models("sk-test-0123", Timeouts())):
        assert Parsed(request).headers[header] == value
    assert header not in Parsed(requests.chat(b"{}", "")).headers


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (Origin("http", "up.invalid", 80), b"up.invalid"),
        (Origin("http", "up.invalid", 443), b"up.invalid:443"),
        (Origin("https", "up.invalid", 8443), b"up.invalid:8443"),
        (Origin("http", "127.0.0.1", 11434), b"127.0.0.1:11434"),
        (Origin("https", "2001:db8::1", 443), b"[2001:db8::1]"),
        (Origin("http", "::1", 8080), b"[::1]:8080"),
        (Origin("https", "up.invalid", 443, proxy="http://user:secret@proxy.invalid:3128"), b"up.invalid"),
    ],
)
def test_the_host_is_named_as_http_wants_it(origin: Origin, host: bytes) -> None:
    """The port is left out where it is the usual one, and IPv6 addresses are in brackets."""
    request = requests_to(origin).chat(b"{}", "")
    assert Parsed(request).headers[b"host"] == host
    assert b"secret" not in request.head


@pytest.mark.parametrize("base_path", ["", "/v1", "/anthropic", "/anthropic/v1"])
def test_anthropics_paths_have_their_version_once(base_path: str) -> None:
    """Base URLs of its clients come without, those of this gateway's other upstreams with it."""
    requests = Requests(Upstream("up", "anthropic", ORIGIN, base_path, protocol="anthropic"), Timeouts())
    root = base_path.removesuffix("/v1").encode()
    assert Parsed(requests.chat(b"{}", "sk-ant-test-0123")).url == root + b"/v1/messages"
    question = Question("/messages/count_tokens", b"{}", b"anthropic-version: x\r\n")
    counted = Parsed(requests.count_tokens(question, "sk-ant-test-0123", Timeouts()))
    assert (counted.url, counted.body) == (root + b"/v1/messages/count_tokens", b"{}")
    assert counted.headers[b"anthropic-version"] == b"x"
    listed = Parsed(requests.models("sk-ant-test-0123", Timeouts()))
    assert listed.url == root + b"/v1/models?limit=1000"
    assert listed.headers[b"anthropic-version"] == b"2023-06-01"


@pytest.mark.parametrize("base_path", ["", "/v1beta", "/v1", "/google", "/google/v1alpha"])
def test_geminis_paths_have_a_version_once(base_path: str) -> None:
    """A base URL may name another version than the usual one; where a call goes is told with it."""
    requests = Requests(Upstream("up", "gemini", ORIGIN, base_path, protocol="gemini"), Timeouts())
    root = base_path if base_path.rpartition("/")[2].startswith("v1") else f"{base_path}/v1beta"
    asked = requests.chat(b"{}", "AIza-test-0123", path="/models/gemini-x:generateContent")
    assert Parsed(asked).url == f"{root}/models/gemini-x:generateContent".encode()
    assert Parsed(requests.models("AIza-test-0123", Timeouts())).url == f"{root}/models?pageSize=1000".encode()


def test_paths_with_callers_models_do_not_pile_up() -> None:
    """However many models callers name, only so many beginnings of requests are kept."""
    requests = Requests(Upstream("up", "gemini", ORIGIN, "", protocol="gemini"), Timeouts())
    for number in range(3000):
        request = requests.chat(b"{}", "", path=f"/models/m{number}:generateContent")
        assert b"/v1beta/models/m%d:generateContent " % number in request.head
    assert requests._begin.cache_info().currsize <= 1024


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("sk-ant-test-0123", {b"x-api-key": b"sk-ant-test-0123"}),
        ("sk-ant-oat-test-0123", {b"authorization": b"Bearer sk-ant-oat-test-0123"}),
        ("", {}),
    ],
)
def test_anthropic_is_shown_keys_in_its_own_way(secret: str, shown: dict[bytes, bytes]) -> None:
    """A key in its header, a login's token as a bearer's."""
    upstream = spec.load()["anthropic"].applied_to(Upstream("up", "anthropic", ORIGIN, ""))
    requests = Requests(upstream, Timeouts())
    headers = Parsed(requests.chat(b"{}", secret)).headers
    assert {name: value for name, value in headers.items() if name in (b"x-api-key", b"authorization")} == shown
