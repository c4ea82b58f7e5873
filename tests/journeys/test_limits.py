"""Limits per address: what is let through, what the refusal says and in which language, and who is counted as whom."""

from __future__ import annotations

import asyncio
import time

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
KEY = "sk-test-server-0600"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["1", "2"], ids=["one worker", "two workers"])
async def gateway(
    upstream_of_file: FakeUpstream, start_gateway: StartGateway, request: pytest.FixtureRequest
) -> Gateway:
    """Run a gateway that lets three calls an hour through, per address; each test comes from addresses of its own."""
    environment = {"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": KEY, "ROUTE": "api"}
    environment["CHATGATE_WORKERS"] = request.param
    return await start_gateway(environment | {"HOUR_LIMIT": "3", "DAY_LIMIT": "50"})


async def test_the_limit_is_exact_and_told_in_headers(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Three pass and count down, the fourth is told exactly how long to wait, and never reaches the provider."""
    remaining = []
    for _ in range(3):
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), source="127.0.6.1")
        assert response.status == 200
        assert response.header("x-ratelimit-limit-requests") == "3"
        assert response.header("x-ratelimit-reset-requests")
        remaining.append(response.header("x-ratelimit-remaining-requests"))
    assert remaining == ["2", "1", "0"]
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), source="127.0.6.1")
    assert response.status == 429
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert "3" in error["message"]
    assert 3590 <= int(response.header("retry-after") or 0) <= 3600
    assert 3_590_000 <= int(response.header("retry-after-ms") or 0) <= 3_600_000
    assert response.header("x-should-retry") == "false"
    assert response.header("x-ratelimit-remaining-requests") == "0"
    assert len(upstream.calls) == 3


async def test_both_surfaces_draw_on_one_account(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The plain API and /v1 count together, streamed or not."""
    assert (await http.post_json(gateway.port, "/api", {"user_content": "Hi"}, source="127.0.6.2")).status == 200
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"), source="127.0.6.2")).status == 200
    streamed = await http.post_json(gateway.port, CHAT, http.chat("Hi", stream=True), source="127.0.6.2")
    assert streamed.status == 200
    assert streamed.header("x-ratelimit-remaining-requests") == "0"
    refused = await http.post_json(gateway.port, "/api", {"user_content": "Hi"}, source="127.0.6.2")
    assert refused.status == refused.json()["code"] == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused.header("retry-after") or 0) > 3000
    assert len(upstream.calls) == 3


async def test_addresses_are_counted_apart(gateway: Gateway, upstream: FakeUpstream) -> None:
    """One caller's thirst is not another's drought."""
    for source in ("127.0.6.3", "127.0.6.4"):
        for _ in range(3):
            response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), source=source)
            assert response.status == 200
    assert len(upstream.calls) == 6


async def test_a_forged_address_does_not_help(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Nobody here is a trusted proxy, so what a caller claims about its address is ignored."""
    statuses = []
    for number in range(5):
        headers = [(name, f"198.51.100.{number}") for name in ("X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP")]
        headers.append(("Forwarded", f"for=198.51.100.{number}"))
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), headers, source="127.0.6.5")
        statuses.append(response.status)
    assert statuses == [200, 200, 200, 429, 429]
    assert len(upstream.calls) == 3


async def test_many_at_once_get_no_more(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Thirty calls at the same time on three places: three get them."""

    async def call() -> int:
        return (await http.post_json(gateway.port, CHAT, http.chat("Hi"), source="127.0.6.6")).status

    statuses = await asyncio.gather(*(call() for _ in range(30)))
    assert sorted(statuses) == [200] * 3 + [429] * 27
    assert len(upstream.calls) == 3


async def test_a_malformed_call_costs_nothing(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Only what is admitted is counted; looking around is free."""
    for _ in range(5):
        assert (await http.post_json(gateway.port, CHAT, {"model": 1}, source="127.0.6.7")).status == 400
        assert (await http.request(gateway.port, "GET", "/healthz", source="127.0.6.7")).status == 200
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"), source="127.0.6.7")
    assert response.header("x-ratelimit-remaining-requests") == "2"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize(("language", "letters"), [("zh_CN", ("\u4e00", "\u9fff")), ("ru_RU", ("\u0400", "\u04ff"))])
async def test_the_seeds_limit_per_second_speaks_the_servers_language(
    upstream: FakeUpstream, start_gateway: StartGateway, language: str, letters: tuple[str, str]
) -> None:
    """With SECOND_LIMIT=1 the second call inside a second is refused in LANG, and one a second later passes."""
    environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": KEY, "ROUTE": "api"}
    gateway = await start_gateway(environment | {"SECOND_LIMIT": "1", "LANG": f"{language}.UTF-8"})
    first = await http.post_json(gateway.port, "/api", {"user_content": "Hi"})
    second = await http.post_json(gateway.port, "/api", {"user_content": "Hi"})
    assert (first.status, second.status) == (200, 429)
    low, high = letters
    assert any(low <= letter <= high for letter in second.json()["data"]["response"])
    wait_seconds = int(second.header("retry-after-ms") or 0) / 1000
    assert 0 < wait_seconds <= 1
    assert second.header("retry-after") == "1"
    assert second.header("x-should-retry") is None
    started = time.monotonic()
    await asyncio.sleep(wait_seconds)  # The process under test has its own clock: there is nothing to move.
    third = await http.post_json(gateway.port, "/api", {"user_content": "Hi"})
    assert third.status == 200, time.monotonic() - started
    assert len(upstream.calls) == 2
