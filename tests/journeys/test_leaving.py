"""Callers who leave: what was opened for them is closed, or read to its end for its count when that is wanted."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import PATHS, WAYS, Way
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

STREAM: Way = ("openai", True)
WORDS = 5
TEXT = "one two three four five"
EVENTS = scripts.told(TEXT, by="a", usage=True)
CALLERS = 1000
MODELS = range(CALLERS // 4)
AT_ONCE = 40
BUSY_SECONDS = 15.0
"""Longer than a busy machine lets anything wait that is done at once."""


async def gauges_are_zero(gateway: Gateway, *names: str) -> None:
    """Wait until nothing is under way."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        readings = {name: await gateway.metric(f"chatgate_{name}") for name in names}
        if not any(readings.values()):
            return
        assert time.monotonic() < deadline, readings
        await asyncio.sleep(0.02)


IN_FLIGHT = ("calls_in_flight", "upstream_calls_in_flight")


async def test_a_thousand_callers_leave_nothing_behind(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Whenever a caller leaves, also in the middle of a rescue, the upstream's connection is closed at once."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    gateway = await start_gateway(
        {"ROUTE": "api"},
        "".join(fleet.pair(name, upstream.base_url, other.base_url) for name in ("first", *map("m{}".format, MODELS))),
    )

    async def dawdling(exchange: Exchange) -> None:
        await exchange.send(scripts.STREAM_HEAD)
        for event in EVENTS[: chance.randint(0, len(EVENTS))]:
            await exchange.send(scripts.framed(event))
            await asyncio.sleep(chance.random() * 0.01)
        if chance.random() < 0.5:
            exchange.cut(reset=chance.random() < 0.5)
        else:
            await exchange.hang()

    upstream.on_model("first-a", scripts.telling(TEXT))
    for number in MODELS:
        upstream.on_model(f"m{number}-a", *chance.choices((dawdling, scripts.silent(), scripts.raw(b"", "close")), k=9))
        other.on_model(f"m{number}-b", *chance.choices((dawdling, scripts.silent(), scripts.telling(TEXT)), k=9))
    places = asyncio.Semaphore(AT_ONCE)
    left_at: dict[str, float] = {}

    async def call(number: int) -> None:
        way = chance.choice(WAYS)
        async with places:
            async with await http.connect(gateway.port) as connection:
                body = json.dumps(hearing.asking(way, f"caller {number}", f"m{number // 4}")).encode()
                connection.send(http.request_bytes("POST", PATHS[way[0]], [http.JSON], body))
                reading = asyncio.create_task(connection.read_response())
                await asyncio.wait({reading}, timeout=chance.uniform(0, 0.1))
            left_at[f"caller {number}"] = time.monotonic()
        await asyncio.gather(reading, return_exceptions=True)

    # What is made at first use is made, prices too: until then callers would leave before anything is sent.
    assert (await hearing.ask(gateway.port, STREAM, "Hi", "first")).is_whole
    await asyncio.gather(*(call(number) for number in range(CALLERS)))
    await gauges_are_zero(gateway, *IN_FLIGHT)
    late: list[float] = []
    for made in (*upstream.calls, *other.calls):
        await asyncio.wait_for(made.over.wait(), BUSY_SECONDS)
        if made.ended == "gateway_left":
            late.append(made.ended_at - left_at[made.json()["messages"][-1]["content"]])
    assert len(late) > CALLERS / 10
    # Callers and upstreams live in this process, which a busy machine lets wait now and then.
    assert statistics.median(late) < 1
    assert max(late) < BUSY_SECONDS
    # Who was gone before the first byte was read has made no call.
    lines = await gateway.logged("call", CALLERS * 9 // 10)
    assert len({line["request_id"] for line in lines}) == len(lines) <= CALLERS + 1
    assert (await hearing.ask(gateway.port, STREAM, "Hi", "demo/echo")).is_whole


async def leave(gateway: Gateway, way: Way, model: str, upstream: FakeUpstream, *, after: str = "") -> None:
    """Call, and leave once some words have come, or once the upstream was called."""
    calls = len(upstream.calls)
    surface, _ = way
    async with await http.connect(gateway.port) as connection:
        body = json.dumps(hearing.asking(way, "Count", model)).encode()
        connection.send(http.request_bytes("POST", PATHS[surface], [http.JSON], body))
        await upstream.called(calls + 1)
        if after:
            stream = http.Stream(connection, await connection.read_head())
            await stream.until(after.encode())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def draining(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that reads on for those who left, two at a time."""
    config = fleet.QUICK.replace("idle_seconds = 1", "idle_seconds = 20")
    config = config.replace("first_token_seconds = 1", "first_token_seconds = 20")
    config += '[streams]\non_disconnect = "drain"\ndrain_seconds = 1\ndrain_calls = 2\n'
    config += fleet.upstream("a", upstream_of_file.base_url)
    models = [f"m{number}" for number in range(20)]
    return await start_gateway(
        {"ROUTE": "api"}, config + "".join(fleet.model(name, [fleet.target("a", name)]) for name in models)
    )


@pytest.mark.parametrize("surface", ["openai", "plain"])
async def test_the_count_of_a_stream_is_read_though_its_caller_has_left(
    draining: Gateway, upstream: FakeUpstream, surface: hearing.Surface
) -> None:
    """The upstream sends its last event to us, and the log has the count; the connection is kept."""
    model = "m0" if surface == "openai" else "m1"
    tap = Tap(2)
    upstream.on_model(model, scripts.stream(EVENTS, tap=tap))
    await leave(draining, (surface, True), model, upstream, after="one")
    await gauges_are_zero(draining, "calls_in_flight")
    assert await draining.metric("chatgate_answers_drained") == 1
    assert upstream.calls[0].ended == ""
    tap.let(len(EVENTS))
    assert (await upstream.last_call()).ended == "answered"
    (line,) = await draining.logged("call", model=model)
    assert (line["outcome"], line["status"]) == ("client_left", 499)
    assert (line["input_tokens"], line["output_tokens"]) == (7, WORDS)
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")
    assert upstream.calls[0].connection.is_open


@pytest.mark.parametrize("surface", ["openai", "plain"])
async def test_the_count_of_a_whole_answer_is_read_though_its_caller_has_left(
    draining: Gateway, upstream: FakeUpstream, surface: hearing.Surface
) -> None:
    """The same holds for an answer that is not streamed."""
    model = "m2" if surface == "openai" else "m3"
    tap = Tap()

    async def slow(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.telling(TEXT)(exchange)

    upstream.on_model(model, slow)
    await leave(draining, (surface, False), model, upstream)
    await gauges_are_zero(draining, "calls_in_flight")
    tap.let()
    assert (await upstream.last_call()).ended == "answered"
    (line,) = await draining.logged("call", model=model)
    assert (line["outcome"], line["status"]) == ("client_left", 499)
    assert (line["input_tokens"], line["output_tokens"]) == (7, WORDS)
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")


async def test_no_more_are_read_on_than_there_is_room_for(draining: Gateway, upstream: FakeUpstream) -> None:
    """The third one who leaves takes the upstream along, and each is settled once."""
    taps = [Tap(2) for _ in range(3)]
    for number, tap in enumerate(taps, 4):
        upstream.on_model(f"m{number}", scripts.stream(EVENTS, tap=tap))
        await leave(draining, STREAM, f"m{number}", upstream, after="one")
    assert (await upstream.last_call()).ended == "gateway_left"
    assert [call.ended for call in upstream.calls] == ["", "", "gateway_left"]
    assert await draining.metric("chatgate_answers_drained") == 2
    for tap in taps:
        tap.let(len(EVENTS))
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")
    counts = [(await draining.logged("call", model=f"m{number}"))[0].get("output_tokens") for number in (4, 5, 6)]
    assert counts == [WORDS, WORDS, None]


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_is_not_read_on_for_ever(draining: Gateway, upstream: FakeUpstream, *, streamed: bool) -> None:
    """After its time the upstream's connection is closed, and the call is settled."""
    model = "m7" if streamed else "m8"
    upstream.on_model(
        model, scripts.stream(EVENTS[:2], end=b"", then="hang", close=False) if streamed else scripts.silent()
    )
    await leave(draining, ("openai", streamed), model, upstream, after="one" if streamed else "")
    left_at = time.monotonic()
    call = await upstream.last_call()
    assert call.ended == "gateway_left"
    assert 0.8 < call.ended_at - left_at < 4
    (line,) = await draining.logged("call", model=model)
    assert line["outcome"] == "client_left"
    assert "output_tokens" not in line
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_an_answer_that_breaks_while_it_is_read_on_is_no_trouble(
    draining: Gateway, upstream: FakeUpstream, then: str
) -> None:
    """Nobody is left to be told, so nobody else is asked."""
    model = f"m{9 + (then == 'reset')}"
    tap = Tap()
    upstream.on_model(model, scripts.beginning(EVENTS[:2], tap, scripts.raw(b"", then=then)))
    await leave(draining, STREAM, model, upstream, after="one")
    tap.let()
    await upstream.last_call()
    (line,) = await draining.logged("call", model=model)
    assert line["outcome"] == "client_left"
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")
    assert len(upstream.calls) == 1


async def test_what_has_not_begun_is_read_on_too(draining: Gateway, upstream: FakeUpstream) -> None:
    """A model that thinks before it speaks is paid for its thoughts, though its caller has left meanwhile."""
    tap = Tap(1)
    upstream.on_model("m12", scripts.stream(EVENTS, tap=tap))
    await leave(draining, STREAM, "m12", upstream)
    await gauges_are_zero(draining, "calls_in_flight")
    assert await draining.metric("chatgate_answers_drained") == 1
    tap.let(len(EVENTS))
    assert (await upstream.last_call()).ended == "answered"
    (line,) = await draining.logged("call", model="m12")
    assert (line["outcome"], line["output_tokens"]) == ("client_left", WORDS)
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")


async def test_a_failure_before_the_first_word_is_nobodys_trouble(draining: Gateway, upstream: FakeUpstream) -> None:
    """The caller has left; it is settled once, and the process goes on."""
    tap = Tap()
    upstream.on_model("m13", scripts.beginning(EVENTS[:1], tap, scripts.raw(b"", then="close")))
    await leave(draining, STREAM, "m13", upstream)
    await gauges_are_zero(draining, "calls_in_flight")
    tap.let()
    assert len(await draining.logged("call", model="m13")) == 1
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")


async def test_a_caller_who_leaves_before_the_first_word_leaves_nothing_behind(
    draining: Gateway, upstream: FakeUpstream
) -> None:
    """There is nothing to count yet, or there may be: in either case it ends in time."""
    upstream.on_model("m11", scripts.stream(EVENTS[:1], end=b"", then="hang", close=False))
    await leave(draining, STREAM, "m11", upstream)
    assert (await upstream.last_call()).ended == "gateway_left"
    assert len(await draining.logged("call", model="m11")) == 1
    await gauges_are_zero(draining, *IN_FLIGHT, "answers_drained")


async def test_a_shutdown_does_not_wait_for_those_who_left(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """What is read on for nobody ends with the process, and is settled before."""
    config = '[streams]\non_disconnect = "drain"\n' + fleet.upstream("a", upstream.base_url)
    gateway = await start_gateway({}, config + fleet.model("m", [fleet.target("a", "m")]))
    upstream.on_model("m", scripts.stream(EVENTS[:2], end=b"", then="hang", close=False))
    await leave(gateway, STREAM, "m", upstream, after="one")
    await gauges_are_zero(gateway, "calls_in_flight")
    await gateway.stop_now()
    assert await gateway.ended() == 0
    assert (await upstream.last_call()).ended == "gateway_left"
    (line,) = await gateway.logged("call", model="m")
    assert line["outcome"] == "client_left"
