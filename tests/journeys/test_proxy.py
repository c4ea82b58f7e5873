"""Operators who reach providers only through a proxy: the seed's environment names, and who finds out what."""

from __future__ import annotations

import pytest

from fakes import http_client as http
from fakes.gateway import StartGateway
from fakes.proxies import ConnectProxy, Socks5Proxy
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
PASSWORD = "proxy-canary-1300"


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http", "socks5h"])
async def test_calls_go_through_the_proxy_of_the_environment(
    upstream: FakeUpstream, start_gateway: StartGateway, scheme: str, name: str
) -> None:
    """The proxy gets the provider's name and its own password, the provider the call; nobody else sees the password."""
    kind = Socks5Proxy if scheme == "socks5h" else ConnectProxy
    async with kind(password=PASSWORD) as proxy:
        gateway = await start_gateway(
            {
                "OPENAI_BASE_URL": f"http://provider.test:{upstream.port}/v1",
                "API_KEY": "sk-test-server-1300",
                name: f"{scheme}://user:{PASSWORD}@127.0.0.1:{proxy.port}",
            }
        )
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
        assert response.status == 200, response.body
        assert proxy.asked == [("provider.test", upstream.port)]
        assert proxy.credentials == [f"user:{PASSWORD}"]
        call = await upstream.last_call()
        assert call.header("host") == f"provider.test:{upstream.port}"
        assert b"proxy-authorization" not in call.head.lower()
        assert PASSWORD not in gateway.output()
        await gateway.stop_now()
        assert await gateway.ended() == 0


async def test_who_is_named_in_no_proxy_is_reached_directly(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """NO_PROXY keeps a provider next door out of the proxy's sight."""
    async with ConnectProxy() as proxy:
        proxied = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}", "NO_PROXY": "localhost,127.0.0.0/8"}
        gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-1301", **proxied})
        assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200
        assert proxy.asked == []


async def test_a_proxy_that_refuses_is_a_502_without_its_password(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """The caller learns that the provider cannot be reached, and nothing about the way."""
    async with ConnectProxy(password="another") as proxy:
        gateway = await start_gateway(
            {
                "OPENAI_BASE_URL": f"http://provider.test:{upstream.port}/v1",
                "API_KEY": "sk-test-server-1302",
                "HTTPS_PROXY": f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}",
            }
        )
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
        assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")
        assert PASSWORD.encode() not in response.body
        assert str(proxy.port).encode() not in response.body
        assert PASSWORD not in gateway.output()
        assert upstream.calls == []
