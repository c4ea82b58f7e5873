"""The whitelist: who is let in, who is not, and that nobody talks the gateway into another address."""

from __future__ import annotations

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
KEY = "sk-test-server-0700"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway for one address and one network; the test itself comes from 127.0.0.1."""
    environment = {"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": KEY, "ROUTE": "api"}
    return await start_gateway(environment | {"IP_WHITELIST": "127.0.0.1, 127.0.7.0/24"})


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.7.0", "127.0.7.200"])
async def test_who_is_on_the_list_gets_in(gateway: Gateway, upstream: FakeUpstream, source: str) -> None:
    """Addresses and networks of the list are served."""
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"), source=source)).status == 200
    assert len(upstream.calls) == 1


FORGERIES = [
    ("X-Forwarded-For", "127.0.7.1"),
    ("X-Forwarded-For", "127.0.7.1, 127.0.0.1"),
    ("X-Real-IP", "127.0.0.1"),
    ("Forwarded", "for=127.0.0.1"),
    ("CF-Connecting-IP", "127.0.0.1"),
    ("True-Client-IP", "127.0.0.1"),
    ("X-Client-IP", "127.0.0.1"),
]


@pytest.mark.parametrize("forgery", [("X-Nothing", "1"), *FORGERIES])
async def test_who_is_not_on_the_list_stays_out(
    gateway: Gateway, upstream: FakeUpstream, forgery: tuple[str, str]
) -> None:
    """Another address is refused on both surfaces, whatever it claims, and whatever key it shows."""
    headers = [forgery, http.bearer("sk-test-caller-0700")]
    refused = await http.post_json(gateway.port, CHAT, http.chat("Hi"), headers, source="127.0.8.1")
    assert (refused.status, refused.json()["error"]["code"]) == (403, "permission_denied")
    refused = await http.post_json(gateway.port, "/api", {"user_content": "Hi"}, headers, source="127.0.8.1")
    assert refused.status == refused.json()["code"] == 403
    assert upstream.calls == []


async def test_a_stranger_cannot_make_the_gateway_read_megabytes(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A stranger is refused from the head of the request, before its body was sent."""
    async with await http.connect(gateway.port, "127.0.8.2") as connection:
        headers = [http.JSON, ("Content-Length", str(9 * 1024 * 1024))]
        connection.send(http.request_bytes("POST", CHAT, headers, b""))
        assert (await connection.read_response()).status == 403
    assert upstream.calls == []


async def test_behind_a_trusted_proxy_the_callers_address_counts(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Only a configured proxy may say who the caller is; what the caller prepends does not count."""
    config = """
[server]
trusted_proxies = ["127.0.9.0/24"]
[access]
allow = ["203.0.113.7", "2001:db8::/32"]
"""
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "API_KEY": KEY}, config)

    async def status(forwarded: str, source: str) -> int:
        headers = [("X-Forwarded-For", forwarded)]
        return (await http.post_json(gateway.port, CHAT, http.chat("Hi"), headers, source=source)).status

    assert await status("203.0.113.7", "127.0.9.1") == 200
    assert await status("198.51.100.1, 203.0.113.7", "127.0.9.1") == 200
    assert await status("203.0.113.7, 127.0.9.2", "127.0.9.1") == 200
    assert await status("2001:db8::1", "127.0.9.1") == 200
    assert await status("203.0.113.7, 198.51.100.1", "127.0.9.1") == 403
    assert await status("unknown", "127.0.9.1") == 403
    assert await status("203.0.113.7", "127.0.0.1") == 403
    assert len(upstream.calls) == 4


async def test_an_operator_may_refuse_providers_keys(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """With `access.anonymous = false` only keys of this gateway are taken: none, or another's, is refused."""
    config = '[server]\nroute = "api"\n[access]\nanonymous = false\n'
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "API_KEY": KEY}, config)
    for headers in ([], [http.bearer("sk-test-caller-0701")], [http.bearer("none")], [http.bearer("sk-cg-nobody")]):
        refused = await http.post_json(gateway.port, CHAT, http.chat("Hi"), headers)
        assert (refused.status, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        refused = await http.post_json(gateway.port, CHAT, http.chat("Hi", "demo/echo"), headers)
        assert refused.status == 401
        refused = await http.post_json(gateway.port, "/api", {"user_content": "Hi"}, headers)
        assert refused.status in {400, 401}
    assert (await http.request(gateway.port, "GET", "/healthz")).status == 200
    assert upstream.calls == []
