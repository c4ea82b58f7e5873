"""Thousands of callers who leave at every moment: nothing stays open behind them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
CALLS = 5000
AT_ONCE = 40
SEED = 20261123


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-1000"})


async def test_a_storm_of_callers_who_leave_leaves_nothing_behind(gateway: Gateway, upstream: FakeUpstream) -> None:
    """After 5 000 calls, most of them abandoned at random moments, only idle connections are open and all is well."""
    choose = random.Random(SEED)
    upstream.on_model("never", scripts.silent())
    upstream.on_model(
        "words", scripts.stream(scripts.text_events("one two three four five six"), tap=Tap(3), then="hang")
    )
    bodies = {
        model: http.request_bytes("POST", CHAT, [http.JSON], json.dumps(http.chat("Hi", model, stream=stream)).encode())
        for model, stream in (("never", False), ("words", True), ("quick", False), ("stream", True))
    }
    places = asyncio.Semaphore(AT_ONCE)
    answered = 0

    async def call(model: str, patience_seconds: float) -> None:
        nonlocal answered
        async with places, await http.connect(gateway.port) as connection:
            connection.send(bodies[model])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_seconds):
                    assert (await connection.read_response()).status == 200
                    answered += 1

    models = choose.choices(list(bodies), weights=[3, 3, 2, 2], k=CALLS)
    await asyncio.gather(*(call(model, choose.uniform(0, 0.08)) for model in models))
    assert answered < CALLS // 2, "too few of them left"

    await asyncio.wait_for(asyncio.gather(*(call.over.wait() for call in upstream.calls)), 5)
    answers = await asyncio.gather(*(http.post_json(gateway.port, CHAT, http.chat("Hi")) for _ in range(100)))
    assert [answer.status for answer in answers] == [200] * 100
    assert upstream.open_connections <= AT_ONCE + 100
    held = [each for each in upstream.connections if each.is_open and each.calls[-1].ended != "answered"]
    assert held == []
    assert await _in_flight(gateway) == 0


async def _in_flight(gateway: Gateway) -> float:
    """Return the gateway's own count of calls in flight."""
    metrics = (await http.request(gateway.port, "GET", "/metrics")).body.decode()
    found = [line for line in metrics.splitlines() if "in_flight" in line and not line.startswith("#")]
    assert found, metrics
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)
