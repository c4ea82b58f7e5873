"""How often and when a target is tried again: waits that providers name, budgets, fallbacks, the end of patience."""

from __future__ import annotations

import asyncio
import itertools
import time
from email.utils import formatdate

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import WAYS, Way
from fakes.scripts import Script
from fakes.upstream import Call, Exchange, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE: Way = ("openai", False)
STREAM: Way = ("openai", True)
GOOD = scripts.telling("all is well", by="b")
LONE = ("seconds", "milliseconds", "date", "none", "busy", "long", "server", "twice", "thrice", "stream")
"""Models with one target."""
PAIRED = ("left-alone", "long-paired", "fallback-long", "fallback-short", "fallback-down", "fallback-of-fallback")
"""Models with another one to fall back to."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with a model for each test."""
    first, second = upstream_of_file.base_url, other_of_file.base_url
    config = fleet.QUICK
    for way in WAYS:
        for name in (named(each, way) for each in LONE):
            config += fleet.upstream(name, first) + fleet.model(name, [fleet.target(name, name)])
    for name in ("left-alone", "long-paired"):
        config += fleet.pair(name, first, second)
    for name in ("fallback-long", "fallback-short", "fallback-down"):
        config += fleet.upstream(f"{name}-a", first) + fleet.upstream(f"{name}-b", second)
        config += fleet.model(name, [fleet.target(f"{name}-a", f"{name}-a")], fallbacks=[f"{name}-2"])
        config += fleet.model(f"{name}-2", [fleet.target(f"{name}-b", f"{name}-b")])
    config += chain(first, second)
    return await start_gateway({"ROUTE": "api"}, config)


def chain(first: str, second: str) -> str:
    """Return a model whose fallback has two targets and a fallback of its own."""
    text = fleet.upstream("chain-a", first) + fleet.upstream("chain-b", second)
    text += fleet.model("chain", [fleet.target("chain-a", "chain-1")], fallbacks=["chain-2"])
    both = [fleet.target("chain-a", "chain-2a"), fleet.target("chain-b", "chain-2b", priority=1)]
    text += fleet.model("chain-2", both, fallbacks=["chain-3"])
    return text + fleet.model("chain-3", [fleet.target("chain-b", "chain-3")])


def named(name: str, way: Way) -> str:
    """Return the name of a model that is asked for in one way only."""
    return f"{name}-{WAYS.index(way)}"


def refusal(status: int, *headers: tuple[str, str]) -> Script:
    """Refuse with a status and headers."""
    return scripts.whole(scripts.error_body("later", "rate_limit_exceeded"), status, headers)


def gaps(calls: list[Call]) -> list[float]:
    """Return the seconds between calls."""
    return [after.arrived_at - before.arrived_at for before, after in itertools.pairwise(calls)]


async def in_two_seconds(exchange: Exchange) -> None:
    """Refuse until a moment, named as a date in whole seconds: at least one and at most two from now."""
    await refusal(429, ("Retry-After", formatdate(time.time() + 2, usegmt=True)))(exchange)


async def test_a_wait_that_is_named_is_waited(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that says when it will take calls again gets the call then, and not before, in whatever unit."""
    waits = {
        "seconds": (refusal(429, ("Retry-After", "1")), 1.0),
        "milliseconds": (refusal(429, ("retry-after-ms", "300"), ("Retry-After", "60")), 0.3),
        "date": (in_two_seconds, 0.9),
        "server": (refusal(503, ("Retry-After", "1")), 1.0),
    }
    each_way = [(way, name) for way in WAYS for name in waits]
    for way, name in each_way:
        upstream.on_model(named(name, way), waits[name][0], GOOD)
    heard = await asyncio.gather(*(hearing.ask(gateway.port, way, "Hi", named(name, way)) for way, name in each_way))
    assert [each.text for each in heard] == ["all is well"] * len(each_way)
    assert [each.attempts for each in heard] == ["2"] * len(each_way)
    for way, name in each_way:
        (gap,) = gaps(upstream.calls_of(named(name, way)))
        seconds = waits[name][1]
        assert 0.99 * seconds <= gap < seconds + 3, name  # Timers are as exact as a millisecond.


@pytest.mark.parametrize("way", WAYS)
async def test_a_wait_that_is_too_long_is_the_callers(gateway: Gateway, upstream: FakeUpstream, way: Way) -> None:
    """Nobody is kept waiting for an answer that cannot come in time: the caller learns how long it would take."""
    upstream.on_model(named("long", way), refusal(429, ("Retry-After", "3600")))
    heard = await hearing.ask(gateway.port, way, "Hi", named("long", way))
    assert (heard.head.status, heard.head.header("retry-after")) == (429, "3600")
    assert heard.head.header("x-should-retry") == "false"
    assert len(upstream.calls) == 1


async def test_a_busy_target_is_left_alone_for_its_time(
    gateway: Gateway, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    """After a 429 the next calls go to the other target at once, without asking the first one."""
    upstream.on_model("left-alone-a", refusal(429, ("Retry-After", "30")))
    other.on_model("left-alone-b", GOOD)
    heard = [await hearing.ask(gateway.port, WHOLE, "Hi", "left-alone") for _ in range(3)]
    assert [each.attempts for each in heard] == ["2", "1", "1"]
    assert len(upstream.calls) == 1


async def test_a_long_wait_is_not_waited_where_another_target_is(
    gateway: Gateway, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    """Failing over costs less than the wait."""
    for name in ("long-paired", "fallback-long"):
        upstream.on_model(f"{name}-a", refusal(429, ("Retry-After", "8")))
        other.on_model(f"{name}-b", GOOD)
        heard = await hearing.ask(gateway.port, WHOLE, "Hi", name)
        assert (heard.text, heard.attempts, heard.model) == ("all is well", "2", f"{name}-b")
        assert len(upstream.calls_of(f"{name}-a")) == 1
        (call,) = other.calls_of(f"{name}-b")
        assert call.arrived_at - upstream.calls[-1].arrived_at < 1


async def test_a_short_wait_is_waited_though_there_is_a_fallback(
    gateway: Gateway, upstream: FakeUpstream, other: FakeUpstream
) -> None:
    """A wait that is shorter than failing over costs keeps the call where its prompt is known."""
    upstream.on_model("fallback-short-a", refusal(429, ("retry-after-ms", "100")), GOOD)
    heard = await hearing.ask(gateway.port, WHOLE, "Hi", "fallback-short")
    assert (heard.text, heard.attempts, heard.model) == ("all is well", "2", "fallback-short-a")
    assert other.calls == []


@pytest.mark.parametrize("way", WAYS)
async def test_a_failure_is_tried_again_twice(gateway: Gateway, upstream: FakeUpstream, way: Way) -> None:
    """The only target gets two more chances, with a short wait before each, and the caller learns of the last one."""
    boom = scripts.whole(scripts.error_body("boom"), 500)
    upstream.on_model(named("twice", way), boom, boom, GOOD)
    heard = await hearing.ask(gateway.port, way, "Hi", named("twice", way))
    assert (heard.text, heard.attempts) == ("all is well", "3")
    assert all(0.02 <= gap < 2 for gap in gaps(upstream.calls))
    upstream.on_model(named("thrice", way), boom)
    heard = await hearing.ask(gateway.port, way, "Hi", named("thrice", way))
    assert (heard.code, heard.attempts) == ("upstream_error", "3")
    assert "boom" in heard.message
    assert heard.head.header("x-should-retry") == "false"
    assert len(upstream.calls_of(named("thrice", way))) == 3


async def test_a_silence_is_not_tried_again(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The caller has waited once; the same target would only keep them waiting again."""
    for way in WAYS:
        upstream.on_model(named("none", way), scripts.silent())
    heard = await asyncio.gather(*(hearing.ask(gateway.port, way, "Hi", named("none", way)) for way in WAYS))
    assert [(each.code, each.attempts) for each in heard] == [("upstream_timeout", "1")] * len(WAYS)
    assert len(upstream.calls) == len(WAYS)


@pytest.mark.parametrize("way", WAYS)
async def test_a_fallback_comes_after_the_retries(
    gateway: Gateway, upstream: FakeUpstream, other: FakeUpstream, way: Way
) -> None:
    """When every target of a model has failed, the next model answers, and is the one that is named."""
    upstream.on_model("fallback-down-a", scripts.whole(scripts.error_body("boom"), 500))
    other.on_model("fallback-down-b", GOOD)
    heard = await hearing.ask(gateway.port, way, "Hi", "fallback-down")
    assert heard.text == "all is well"
    assert heard.model == "fallback-down-b"
    assert heard.attempts == str(len(upstream.calls) + 1)
    assert len(other.calls) == 1


async def test_fallbacks_have_fallbacks(gateway: Gateway, upstream: FakeUpstream, other: FakeUpstream) -> None:
    """The whole chain is gone along, target by target, before the caller hears of it."""
    boom = scripts.whole(scripts.error_body("boom"), 500)
    for model in ("chain-1", "chain-2a"):
        upstream.on_model(model, boom)
    other.on_model("chain-2b", boom)
    other.on_model("chain-3", GOOD)
    heard = await hearing.ask(gateway.port, STREAM, "Hi", "chain")
    assert (heard.text, heard.model) == ("all is well", "chain-3")
    asked = sorted(upstream.calls + other.calls, key=lambda call: call.arrived_at)
    order = list(dict.fromkeys(call.json()["model"] for call in asked))
    assert order == ["chain-1", "chain-2a", "chain-2b", "chain-3"]
    assert heard.attempts == str(len(asked))


async def test_when_all_are_down_the_caller_learns_at_once(start_gateway: StartGateway) -> None:
    """Nobody listens at any of several targets and fallbacks: that takes no sum of timeouts to find out."""
    async with FakeUpstream() as one, FakeUpstream() as two:
        urls = [one.base_url, two.base_url]
    config = "".join(fleet.pair(f"m{number}", *urls) for number in range(3))
    config += fleet.model("all", [fleet.target("m0-a", "x")], fallbacks=["m0", "m1", "m2"])
    gateway = await start_gateway({"ROUTE": "api"}, config)
    for way in WAYS:
        began_at = time.monotonic()
        heard = await hearing.ask(gateway.port, way, "Hi", "all")
        assert heard.code == "upstream_error"
        assert time.monotonic() - began_at < 3  # It is well below one; a busy machine may take its time.


async def test_what_is_known_to_be_silent_costs_no_caller_its_timeout(start_gateway: StartGateway) -> None:
    """The next callers, one by one, learn at once that nothing answers; once it answers again, they have it."""
    async with FakeUpstream() as upstream:
        config = fleet.QUICK.replace("first_token_seconds = 1", "first_token_seconds = 4")
        config += fleet.upstream("one", upstream.base_url) + fleet.model("mute", [fleet.target("one", "mute")])
        gateway = await start_gateway({"ROUTE": "api"}, config)
        upstream.on_model("mute", scripts.silent())
        first = await asyncio.gather(*(hearing.ask(gateway.port, WHOLE, "Hi", "mute") for _ in range(5)))
        assert [each.code for each in first] == ["upstream_timeout"] * 5
        for way in WAYS:
            began_at = time.monotonic()
            heard = await hearing.ask(gateway.port, way, "Hi", "mute")
            took_seconds = time.monotonic() - began_at
            assert heard.code == "overloaded"
            assert float(heard.head.header("retry-after") or 0) >= 1
            assert took_seconds < 3  # It is half a second; a busy machine may take its time, but not the timeout's.
        upstream.on_model("mute", GOOD)
        assert (await hearing.ask(gateway.port, WHOLE, "Hi", "mute")).text == "all is well"


async def opening_and_closing(exchange: Exchange) -> None:
    """Begin an answer, and close."""
    await exchange.send(scripts.STREAM_HEAD + scripts.framed(scripts.told("x")[0]))
    exchange.cut()


def failing_by_turns() -> Script:
    """Refuse, and keep the connection; the next time close it: what is sent over a kept one may meet that."""
    turns = itertools.cycle([scripts.whole(scripts.error_body("boom"), 500), scripts.raw(b"", then="close")])

    async def script(exchange: Exchange) -> None:
        await next(turns)(exchange)

    return script


async def test_a_flood_on_upstreams_that_are_down_is_not_multiplied(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Ten seconds of 200 calls a second reach upstreams that fail all of them as at most a quarter more."""
    seconds, per_second = 10, 200
    boom = scripts.whole(scripts.error_body("boom"), 500)
    downs = {
        (upstream, "down-0"): boom,
        (upstream, "down-1"): refusal(429),
        (other, "down-2"): scripts.raw(b"", then="close"),
        (other, "down-3"): opening_and_closing,
        (upstream, "down-4"): failing_by_turns(),
        (other, "down-5"): failing_by_turns(),
    }
    config = fleet.QUICK + fleet.upstream("one", upstream.base_url) + fleet.upstream("two", other.base_url)
    for (fake, name), script in downs.items():
        fake.on_model(name, script)
        config += fleet.model(name, [fleet.target("one" if fake is upstream else "two", name)])
    gateway = await start_gateway({"ROUTE": "api"}, config)
    loop = asyncio.get_running_loop()
    began_at = loop.time()
    tasks = []
    for number in range(seconds * per_second):
        # The rate is the point here, and no clock of the gateway's can be moved from outside.
        await asyncio.sleep(max(0.0, began_at + number / per_second - loop.time()))
        way = WAYS[number // len(downs) % 4]
        tasks.append(asyncio.create_task(hearing.ask(gateway.port, way, "Hi", f"down-{number % len(downs)}")))
    heard = await asyncio.gather(*tasks)
    assert all(each.code in {"upstream_error", "rate_limit_exceeded"} for each in heard)
    for fake in (upstream, other):
        assert len(heard) / 2 <= len(fake.calls) <= 1.25 * len(heard) / 2
    assert await gateway.metric("chatgate_upstream_calls_in_flight") == 0
