"""Streams: words arrive as they are said, an end is one of two kinds, and nobody talks to a caller who left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.scripts import Script
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
CONFIG = "[timeouts]\nfirst_token_seconds = 5\nidle_seconds = 1\ntotal_seconds = 30\n[retry]\nmax_retries = 0\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that waits a second for the next word, and asks nobody twice."""
    environment = {"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-0500", "ROUTE": "api"}
    return await start_gateway(environment, CONFIG)


async def test_each_word_arrives_before_the_next_is_said(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Nothing is held back but the role before the first word: each is there while the provider thinks of the next."""
    tap = Tap(2)
    events = scripts.text_events("one two three four")
    upstream.queue(scripts.stream(events, tap=tap))
    async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
        await stream.until(events[0])
        for event in events[1:]:
            await stream.until(event)
            assert stream.so_far.endswith(event)
            tap.let()
        assert await stream.rest() == b"".join(events) + scripts.DONE


EVENTS = scripts.text_events("one two three")
SAID = EVENTS[:3]
MELTED = scripts.event(scripts.error_body("the GPU melted"))
MID_STREAM: list[tuple[str, Callable[[Tap], Script], str]] = [
    ("closed", lambda tap: scripts.stream(SAID, end=b"", close=False, then="close", tap=tap), "upstream_error"),
    ("reset", lambda tap: scripts.stream(SAID, end=b"", close=False, then="reset", tap=tap), "upstream_error"),
    ("ended early", lambda tap: scripts.stream(SAID, end=b"", tap=tap), "upstream_error"),
    (
        "closed inside an event",
        lambda tap: scripts.stream([*SAID, EVENTS[3][:30]], end=b"", close=False, then="close", tap=tap),
        "upstream_error",
    ),
    ("fell silent", lambda tap: scripts.stream(SAID, end=b"", close=False, then="hang", tap=tap), "upstream_timeout"),
    ("an error event", lambda tap: scripts.stream([*SAID, MELTED], tap=tap), "upstream_error"),
    (
        "broken chunks",
        lambda _: scripts.raw(scripts.STREAM_HEAD + b"".join(map(scripts.framed, SAID)) + b"zz\r\n", then="hang"),
        "upstream_error",
    ),
]


@pytest.mark.parametrize(("script", "code"), [each[1:] for each in MID_STREAM], ids=[each[0] for each in MID_STREAM])
async def test_a_stream_that_breaks_ends_with_an_error_and_no_end_mark(
    gateway: Gateway, upstream: FakeUpstream, script: Callable[[Tap], Script], code: str
) -> None:
    """What was said stays said, then comes an error event, no `[DONE]`, and the provider is not asked again."""
    tap = Tap(len(SAID))
    upstream.queue(script(tap))
    async with http.open_stream(gateway.port, CHAT, http.chat("Count", stream=True)) as stream:
        assert stream.head.status == 200
        await stream.until(SAID[-1])  # Before a word has reached the caller, a failure has a status instead.
        tap.let(3)
        said = await stream.rest()
    assert said.startswith(b"".join(SAID))
    assert b"[DONE]" not in said
    *_, last = http.events_of(said)
    assert json.loads(last)["error"]["code"] == code
    assert set(json.loads(last)["error"]) == {"message", "type", "param", "code"}
    assert len(upstream.calls) == 1


FIRST = [
    ("an error event first", scripts.stream([scripts.event(scripts.error_body("no capacity"))])),
    ("nothing at all", scripts.stream([], end=b"")),
    ("only an end mark", scripts.stream([], end=b"", close=False, then="close")),
]


@pytest.mark.parametrize("script", [each[1] for each in FIRST], ids=[each[0] for each in FIRST])
async def test_a_stream_that_breaks_before_the_first_word_has_a_status(
    gateway: Gateway, upstream: FakeUpstream, script: Script
) -> None:
    """A 200 that is no answer is not passed on as one."""
    upstream.queue(*[script] * 6)
    response = await http.post_json(gateway.port, CHAT, http.chat("Count", stream=True))
    assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("path", [CHAT, "/api"])
@pytest.mark.parametrize("when", ["before the head", "before a word", "after a word"])
async def test_a_caller_who_leaves_takes_the_provider_along(
    gateway: Gateway, upstream: FakeUpstream, path: str, when: str
) -> None:
    """When the caller leaves, the connection upstream is closed within a second."""
    tap = Tap(2 if when == "after a word" else 0)
    upstream.queue(scripts.silent() if when == "before the head" else scripts.stream(EVENTS, tap=tap))
    body = http.chat("Count", stream=True) if path == CHAT else {"user_content": "Count", "stream": True}
    async with await http.connect(gateway.port) as connection:
        connection.send(http.request_bytes("POST", path, [http.JSON], json.dumps(body).encode()))
        await upstream.called()
        if when == "after a word":
            stream = http.Stream(connection, await connection.read_head())
            await stream.until(b"one")
    left_at = time.monotonic()
    call = await upstream.last_call()
    assert call.ended == "gateway_left"
    assert call.ended_at - left_at < 1


async def test_a_caller_who_leaves_a_whole_answer_is_noticed(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The same holds for a call that is not streamed."""
    upstream.queue(scripts.silent())
    async with await http.connect(gateway.port) as connection:
        connection.send(http.request_bytes("POST", CHAT, [http.JSON], json.dumps(http.chat("Hi")).encode()))
        await upstream.called()
    assert (await upstream.last_call()).ended == "gateway_left"


async def test_a_slow_reader_slows_the_provider_and_loses_nothing(gateway: Gateway, upstream: FakeUpstream) -> None:
    """75 MiB to a caller who does not read do not pile up in the gateway, and all of them arrive at last."""
    piece = scripts.event(scripts.chunk({"content": "x" * 65_000}))
    many = 1200  # More than the receive buffers of two sockets, which may grow to 32 MiB each.

    async def flood(exchange: Exchange) -> None:
        await exchange.send(scripts.STREAM_HEAD)
        for _ in range(many):
            await exchange.send(scripts.framed(piece))
            await exchange.drained()
        await exchange.send(scripts.framed(EVENTS[-1]) + scripts.framed(scripts.DONE) + scripts.framed(b""))

    # What is loaded at the first call is there before.
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200
    upstream.forget()
    before = gateway.resident_kib()
    upstream.queue(flood)
    async with http.open_stream(gateway.port, CHAT, http.chat("Flood", stream=True)) as stream:
        await asyncio.sleep(0.5)  # The kernel's buffers, ours and the gateway's fill meanwhile.
        assert upstream.calls[0].ended == ""
        assert gateway.resident_kib() - before < 16 * 1024
        said = await stream.rest()
    assert len(said) == many * len(piece) + len(EVENTS[-1]) + len(scripts.DONE)
    assert said.endswith(scripts.DONE)


async def test_a_caller_who_never_reads_and_leaves_is_noticed(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A caller who fell silent with full buffers and then goes takes the provider along too."""

    async def flood(exchange: Exchange) -> None:
        await exchange.send(scripts.STREAM_HEAD)
        while True:
            await exchange.send(scripts.framed(scripts.event(scripts.chunk({"content": "x" * 65_000}))))
            await exchange.drained()

    upstream.queue(flood)
    async with http.open_stream(gateway.port, CHAT, http.chat("Flood", stream=True)):
        await asyncio.sleep(0.3)  # The kernel's buffers, ours and the gateway's fill meanwhile.
    left_at = time.monotonic()
    call = await upstream.last_call()
    assert call.ended == "gateway_left"
    assert call.ended_at - left_at < 1


async def test_many_streams_at_once_do_not_mix(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A hundred callers hear their own words."""

    async def hear(number: int) -> None:
        text = " ".join(f"{number}-{word}" for word in range(20))
        async with http.open_stream(gateway.port, CHAT, http.chat(text, stream=True)) as stream:
            assert await stream.rest() == b"".join(scripts.text_events(text)) + scripts.DONE

    await asyncio.gather(*(hear(number) for number in range(100)))
    assert len(upstream.calls) == 100
