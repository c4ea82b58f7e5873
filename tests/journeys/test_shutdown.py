"""SIGTERM: what is under way ends well, what is new goes elsewhere, and the process ends with 0."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import pytest

from fakes import gateway as gateway_process
from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
EVENTS = scripts.text_events("one two three")


def environment(upstream: FakeUpstream) -> dict[str, str]:
    """Return what a gateway in front of this upstream is started with."""
    return {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-server-0900", "ROUTE": "api"}


async def test_an_idle_gateway_ends_soon(upstream: FakeUpstream) -> None:
    """Nothing is under way: it is over quickly, though callers keep connections open."""
    async with (
        gateway_process.running(environment(upstream)) as gateway,
        await http.connect(gateway.port) as connection,
    ):
        assert (await connection.request("GET", "/healthz")).status == 200
        started = time.monotonic()
        gateway.stop()
        assert await gateway.ended() == 0
        assert time.monotonic() - started < 10


async def test_a_stream_under_way_is_heard_to_its_end(upstream: FakeUpstream) -> None:
    """After SIGTERM the gateway is not ready any more, and still the stream goes on to its regular end."""
    tap = Tap(2)
    upstream.queue(scripts.stream(EVENTS, tap=tap))
    async with gateway_process.running(environment(upstream)) as gateway:
        async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
            await stream.until(b"one")
            gateway.stop()
            await _not_ready(gateway)
            assert gateway.process.poll() is None
            tap.let(20)
            assert await stream.rest() == b"".join(EVENTS) + scripts.DONE
        assert await gateway.ended() == 0


async def test_a_whole_answer_under_way_arrives(upstream: FakeUpstream) -> None:
    """A call that is not streamed is answered too, and told that the connection ends."""
    go_on = asyncio.Event()

    async def slowly(exchange: Exchange) -> None:
        await go_on.wait()
        await scripts.provider(exchange)

    upstream.queue(slowly)
    async with (
        gateway_process.running(environment(upstream)) as gateway,
        await http.connect(gateway.port) as connection,
    ):
        connection.send(http.request_bytes("POST", CHAT, [http.JSON], json.dumps(http.chat("Hi")).encode()))
        await upstream.called()
        gateway.stop()
        await _not_ready(gateway)
        go_on.set()
        response = await connection.read_response()
        assert response.status == 200
        assert response.header("connection") == "close"
        assert await gateway.ended() == 0


async def test_a_second_signal_does_not_wait(upstream: FakeUpstream) -> None:
    """Whoever asks twice means now: streams that are open end with an error event, not as if they were complete."""
    upstream.queue(scripts.stream(EVENTS, tap=Tap(2)))
    async with gateway_process.running(environment(upstream)) as gateway:
        async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
            await stream.until(b"one")
            gateway.stop()
            await _not_ready(gateway)
            gateway.process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            said = await stream.rest()
        assert b"[DONE]" not in said
        assert json.loads(http.events_of(said)[-1])["error"]["code"] == "overloaded"
        assert await gateway.ended() == 0
        assert time.monotonic() - started < 5
        # The log does not blame the provider for it.
        assert '"outcome":"refused","code":"overloaded"' in gateway.output()
    assert (await upstream.last_call()).ended == "gateway_left"


async def test_ctrl_c_is_the_same(upstream: FakeUpstream) -> None:
    """An operator at a terminal gets the same clean end."""
    async with gateway_process.running(environment(upstream)) as gateway:
        gateway.process.send_signal(signal.SIGINT)
        assert await gateway.ended() == 0


async def _not_ready(gateway: Gateway) -> None:
    """Return once the gateway says, or shows by not listening any more, that it takes no new calls."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if (await http.request(gateway.port, "GET", "/readyz")).status == 503:
                return
        except (OSError, asyncio.IncompleteReadError):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the gateway stays ready after SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_the_very_end_changes_nothing(upstream: FakeUpstream, number: signal.Signals) -> None:
    """Whoever goes on asking until the process is gone sees it end with 0 and without a traceback."""
    async with gateway_process.running(environment(upstream)) as gateway:
        while gateway.process.poll() is None:
            gateway.process.send_signal(number)
            await asyncio.sleep(0.0005)
        assert await gateway.ended() == 0
        assert "Traceback" not in gateway.output()
