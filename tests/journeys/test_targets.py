"""Which target a call goes to: refused keys, priorities, weights, conversations, windows, room, and second calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from typing import Any

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import WAYS, Heard, Way
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE: Way = ("openai", False)
STREAM: Way = ("openai", True)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_taken_out_and_the_others_go_on(
    upstream: FakeUpstream, start_gateway: StartGateway, status: int
) -> None:
    """The call that met the refusal is answered with the next key, and later ones do not use the refused one."""
    keys = [f"sk-test-{status}-{number}" for number in range(3)]
    config = fleet.upstream("keyed", upstream.base_url, api_keys=keys) + fleet.model("m", [fleet.target("keyed", "m")])
    gateway = await start_gateway({"ROUTE": "api"}, config)
    text = f"Incorrect API key provided: {keys[1]}."
    upstream.on_key(keys[1], scripts.whole(scripts.error_body(text, "invalid_api_key"), status))
    heard = [await hearing.ask(gateway.port, way, "Hi", "m") for way in WAYS * 3]
    assert [each.text for each in heard] == ["Hi"] * len(heard)
    assert sorted(each.attempts or "" for each in heard) == ["1"] * (len(heard) - 1) + ["2"]
    shown = Counter((call.header("authorization") or "").removeprefix("Bearer ") for call in upstream.calls)
    assert shown[keys[1]] == 1
    assert shown[keys[0]] + shown[keys[2]] == len(heard)
    assert abs(shown[keys[0]] - shown[keys[2]]) <= 1
    (line,) = await gateway.logged("key_refused")
    assert (line["upstream"], line["key_number"], line["level"]) == ("keyed", 2, "error")
    assert await gateway.metric("chatgate_target_state", target="keyed/m#2", state="key_refused") == 1
    assert await gateway.metric("chatgate_target_state", state="key_refused") == 1
    assert not any(key in gateway.output() for key in keys)


async def test_the_last_key_is_never_given_up(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """When all keys are refused each call still tries one of them once, and works as soon as it is accepted."""
    keys = ["sk-test-last-1", "sk-test-last-2"]
    config = fleet.upstream("keyed", upstream.base_url, api_keys=keys) + fleet.model("m", [fleet.target("keyed", "m")])
    gateway = await start_gateway({"ROUTE": "api"}, config)
    for key in keys:
        upstream.on_key(key, scripts.refuse_key)
    heard = [await hearing.ask(gateway.port, way, "Hi", "m") for way in WAYS]
    assert [each.code for each in heard] == ["invalid_api_key"] * len(heard)
    assert [each.attempts for each in heard] == ["2", "1", "1", "1"]
    assert not any(key in each.message for each in heard for key in keys)
    for key in keys:
        upstream.on_key(key, scripts.provider)
    assert (await hearing.ask(gateway.port, WHOLE, "Hi", "m")).text == "Hi"


async def test_a_callers_own_key_is_the_callers_trouble(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """What is wrong with it is told to its owner, costs one call, and says nothing about ours."""
    gateway = await start_gateway(
        {"ROUTE": "api"}, fleet.pair("m", upstream.base_url, other.base_url, api_key="sk-test-server-key")
    )
    upstream.on_key("sk-test-own-bad", scripts.refuse_key)
    upstream.on_key("sk-test-own-busy", scripts.whole(scripts.error_body("slow down"), 429, [("Retry-After", "30")]))
    for way in WAYS:
        heard = await hearing.ask(gateway.port, way, "Hi", "m", headers=[http.bearer("sk-test-own-bad")])
        assert (heard.code, heard.attempts) == ("invalid_api_key", "1")
        heard = await hearing.ask(gateway.port, way, "Hi", "m", headers=[http.bearer("sk-test-own-busy")])
        assert (heard.text, heard.attempts, heard.model) == ("Hi", "2", "m-b")  # With our key, to another provider.
        heard = await hearing.ask(gateway.port, way, "Hi", "m")
        assert (heard.text, heard.attempts, heard.model) == ("Hi", "1", "m-a")
    shown = {call.header("authorization") for call in other.calls}
    assert shown == {"Bearer sk-test-server-key"}


async def test_a_key_that_is_too_fast_gives_way_to_the_next(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """A 429 is about one key: the others of the same upstream answer, at once and however often."""
    keys = ["sk-test-pace-1", "sk-test-pace-2"]
    config = fleet.upstream("keyed", upstream.base_url, api_keys=keys)
    names = [f"m{number}" for number in range(20)]
    config += "".join(fleet.model(name, [fleet.target("keyed", name)]) for name in names)
    gateway = await start_gateway({"ROUTE": "api"}, config)
    busy = scripts.whole(scripts.error_body("slow down", "rate_limit_exceeded"), 429, [("Retry-After", "30")])
    upstream.on_key(keys[0], busy)
    heard = await asyncio.gather(*(hearing.ask(gateway.port, WHOLE, "Hi", name) for name in names))
    assert [each.text for each in heard] == ["Hi"] * len(names)
    # More than the budget for repetitions would allow: another key is none.
    assert sum(each.attempts == "2" for each in heard) == len(names)


def weighted(first: str, second: str, **more: Any) -> str:
    """Return a model whose targets have weights of 3 and 1, and another target for when both fail."""
    targets = [
        fleet.target("a", "three", weight=3, priority=1),
        fleet.target("b", "one", weight=1, priority=1),
        fleet.target("b", "spare", priority=2),
    ]
    return fleet.upstream("a", first) + fleet.upstream("b", second) + fleet.model("m", targets, **more)


async def test_weights_are_kept_exactly(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Of 40 calls 30 go to the target of weight 3, in any stretch of them as near to that as whole calls can be."""
    gateway = await start_gateway({"ROUTE": "api"}, weighted(upstream.base_url, other.base_url))
    went = [(await hearing.ask(gateway.port, WAYS[n % 4], f"question {n}", "m")).model for n in range(40)]
    assert Counter(went) == {"three": 30, "one": 10}
    for calls in range(1, 41):
        assert abs(went[:calls].count("three") - 0.75 * calls) < 1


async def test_a_lower_priority_is_for_when_the_first_tier_fails(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Both targets of the first tier are tried before the spare one."""
    gateway = await start_gateway({"ROUTE": "api"}, weighted(upstream.base_url, other.base_url))
    boom = scripts.whole(scripts.error_body("boom"), 500)
    upstream.on_model("three", boom)
    other.on_model("one", boom)
    heard = await hearing.ask(gateway.port, STREAM, "Hi", "m")
    assert (heard.text, heard.model, heard.attempts) == ("Hi", "spare", "3")


async def test_the_least_loaded_target_gets_the_call(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """With `balance = "least_loaded"` a target that is slow gets no more while the other one is free."""
    config = fleet.upstream("a", upstream.base_url) + fleet.upstream("b", other.base_url)
    targets = [fleet.target("a", "slow"), fleet.target("b", "quick")]
    gateway = await start_gateway({"ROUTE": "api"}, config + fleet.model("m", targets, balance="least_loaded"))
    tap = Tap()
    upstream.on_model("slow", scripts.stream(scripts.text_events("slow but sure"), tap=tap))
    slow = asyncio.create_task(hearing.ask(gateway.port, STREAM, "Hi", "m"))
    await upstream.called()
    went = [(await hearing.ask(gateway.port, WHOLE, f"question {number}", "m")).model for number in range(10)]
    tap.let(10)
    assert went == ["quick"] * 10
    assert (await slow).text == "slow but sure"


def turns(*texts: str) -> list[dict[str, str]]:
    """Return messages in which the user and the assistant take turns."""
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


async def test_a_conversation_stays_where_it_went(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """Its later turns go to the same key while that is well, whatever else is asked meanwhile, and else to another."""
    keys = [f"sk-test-talk-{number}" for number in range(4)]
    config = fleet.upstream("keyed", upstream.base_url, api_keys=keys) + fleet.model("m", [fleet.target("keyed", "m")])
    gateway = await start_gateway({"ROUTE": "api"}, config)

    async def talk(*texts: str) -> str:
        heard = await hearing.ask(gateway.port, WHOLE, "", "m", messages=turns(*texts))
        assert heard.is_whole
        return upstream.calls[-1].header("authorization") or ""

    first = {number: await talk(f"opening {number}") for number in range(8)}
    assert sorted(Counter(first.values()).values()) == [2, 2, 2, 2]
    for _ in range(3):
        for number in (5, 0, 3, 7, 1, 6, 2, 4):
            assert await talk(f"opening {number}", "well", "go on") == first[number]
            await talk(f"a new one {number}")
    key = first[0].removeprefix("Bearer ")
    upstream.on_key(key, scripts.refuse_key)
    assert await talk("opening 0", "well", "go on") != first[0]


LENGTH = scripts.error_body("This model's maximum context length is 1000 tokens.", "context_length_exceeded")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def windows(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose models take in more or less."""
    config = fleet.upstream("a", upstream_of_file.base_url) + fleet.upstream("b", other_of_file.base_url)
    config += fleet.model("m", [fleet.target("a", "small", context_tokens=1000)], fallbacks=["same", "unknown", "more"])
    config += fleet.model("same", [fleet.target("b", "same", context_tokens=1000)])
    config += fleet.model("unknown", [fleet.target("b", "unknown")])
    config += fleet.model("more", [fleet.target("b", "large", context_tokens=100_000)])
    config += fleet.model("alone", [fleet.target("a", "alone", context_tokens=1000)], fallbacks=["same"])
    return await start_gateway({"ROUTE": "api"}, config)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["status", "event"])
async def test_what_is_too_long_goes_to_a_larger_window(
    windows: Gateway, upstream: FakeUpstream, other: FakeUpstream, way: Way, how: str
) -> None:
    """A refusal for its length is routed to the fallback that can take in more, past those that cannot."""
    event = scripts.either(scripts.whole(LENGTH), scripts.stream([scripts.event(LENGTH)]))
    for name in ("small", "alone"):
        upstream.on_model(name, scripts.whole(LENGTH, 400) if how == "status" else event)
    heard = await hearing.ask(windows.port, way, "Hi", "m")
    assert (heard.text, heard.model, heard.attempts) == ("Hi", "large", "2")
    assert [call.json()["model"] for call in other.calls] == ["large"]
    heard = await hearing.ask(windows.port, way, "Hi", "alone")
    assert "maximum context length" in heard.message
    assert heard.attempts == "1"
    assert len(other.calls) == 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose first upstream takes two calls at a time."""
    config = fleet.upstream("a", upstream_of_file.base_url, max_in_flight=2)
    config += fleet.upstream("b", other_of_file.base_url)
    config += fleet.model("alone", [fleet.target("a", "alone")])
    both = [fleet.target("a", "both"), fleet.target("b", "both", priority=1)]
    return await start_gateway({"ROUTE": "api"}, config + fleet.model("both", both))


async def fill(gateway: Gateway, upstream: FakeUpstream, tap: Tap) -> list[asyncio.Task[Heard]]:
    """Have two calls under way at the first upstream, of either kind."""
    slow = scripts.stream(scripts.text_events("slow"), tap=tap)
    upstream.queue(slow, slow)
    tasks = [asyncio.create_task(hearing.ask(gateway.port, STREAM, "Hi", "alone")) for _ in range(2)]
    await upstream.called(2)
    return tasks


@pytest.mark.parametrize("way", WAYS)
async def test_an_upstream_that_is_full_is_not_called(
    narrow: Gateway, upstream: FakeUpstream, other: FakeUpstream, way: Way
) -> None:
    """The call goes to another target, or is refused at once and told to come back soon; room is used again."""
    tap = Tap()
    tasks = await fill(narrow, upstream, tap)
    assert await narrow.metric("chatgate_upstream_calls_in_flight", upstream="a") == 2
    heard = await hearing.ask(narrow.port, way, "Hi", "alone")
    assert heard.head.status == (503 if way[0] == "openai" else 500)
    assert (heard.code, heard.head.header("retry-after")) == ("overloaded", "1")
    heard = await hearing.ask(narrow.port, way, "Hi", "both")
    assert (heard.text, heard.attempts) == ("Hi", "1")
    assert (len(upstream.calls), len(other.calls)) == (2, 1)
    tap.let(20)
    assert [(await task).text for task in tasks] == ["slow", "slow"]
    heard = await hearing.ask(narrow.port, way, "Hi", "alone")
    assert heard.text == "Hi", heard
    assert await narrow.metric("chatgate_upstream_calls_in_flight") == 0


async def test_a_repetition_finds_no_more_room_than_a_first_call(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """While a call waits to be tried again its place may be taken; then there are still no more than may be."""
    config = fleet.upstream("a", upstream.base_url, max_in_flight=1)
    config += fleet.model("waiting", [fleet.target("a", "waiting")]) + fleet.model(
        "other", [fleet.target("a", "other")]
    )
    gateway = await start_gateway({"ROUTE": "api"}, config)
    busy = scripts.whole(scripts.error_body("busy"), 503, [("retry-after-ms", "400")])
    tap = Tap()
    upstream.on_model("waiting", busy, scripts.provider)
    upstream.on_model("other", scripts.stream(scripts.text_events("slow"), tap=tap))
    waiting = asyncio.create_task(hearing.ask(gateway.port, WHOLE, "Hi", "waiting"))
    await (await upstream.called(1)).over.wait()
    slow = asyncio.create_task(hearing.ask(gateway.port, STREAM, "Hi", "other"))
    await upstream.called(2)
    heard = await waiting
    assert heard.code
    assert len(upstream.calls) == 2
    tap.let(10)
    assert (await slow).text == "slow"


@pytest.mark.parametrize("more", ["", "[hedging]\nshare_percent = 1\n", '[streams]\non_disconnect = "drain"\n'])
async def test_the_room_is_kept_when_all_come_at_once(
    upstream: FakeUpstream, start_gateway: StartGateway, more: str
) -> None:
    """Of thirty calls that arrive at the same moment two are made, whatever else is switched on."""
    config = more + fleet.upstream("a", upstream.base_url, max_in_flight=2)
    gateway = await start_gateway({"ROUTE": "api"}, config + fleet.model("m", [fleet.target("a", "m")]))
    upstream.on_model("m", scripts.silent())
    body = json.dumps(hearing.asking(WHOLE, "Hi", "m")).encode()
    async with contextlib.AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(await http.connect(gateway.port)) for _ in range(30)]
        for caller in callers:
            caller.send(http.request_bytes("POST", hearing.PATHS["openai"], [http.JSON], body))
        reading = [asyncio.create_task(caller.read_response()) for caller in callers]
        await asyncio.wait(reading, timeout=1)
        refused = [task.result().status for task in reading if task.done()]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    assert (refused, len(upstream.calls)) == ([503] * 28, 2)


async def test_a_refusal_for_want_of_room_takes_nothing_from_a_limit(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Who was not served has not had a call."""
    config = '[[limits]]\nscope = "address"\nresource = "requests"\namount = 10\nper = "hour"\n'
    config += fleet.upstream("a", upstream.base_url, max_in_flight=2)
    gateway = await start_gateway({"ROUTE": "api"}, config + fleet.model("alone", [fleet.target("a", "alone")]))
    tap = Tap()
    tasks = await fill(gateway, upstream, tap)
    refused = [await hearing.ask(gateway.port, WHOLE, "Hi", "alone") for _ in range(3)]
    assert [each.code for each in refused] == ["overloaded"] * 3
    assert {each.head.header("x-ratelimit-remaining-requests") for each in refused} == {"8"}
    tap.let(20)
    await asyncio.gather(*tasks)


HEDGED = 25
"""So many calls show what is usual, and more than the 20 that are asked for."""


async def hedging(
    start_gateway: StartGateway, upstream: FakeUpstream, way: Way, *, percent: int, models: tuple[str, str]
) -> Gateway:
    """Run a gateway that knows how long its two targets take."""
    config = f"[hedging]\nshare_percent = {percent}\n"
    config += fleet.upstream("a", upstream.base_url) + fleet.upstream("b", upstream.base_url)
    config += fleet.model("m", [fleet.target("a", models[0]), fleet.target("b", models[1], priority=1)])
    gateway = await start_gateway({"ROUTE": "api"}, config)
    for number in range(HEDGED):
        assert (await hearing.ask(gateway.port, way, f"question {number}", "m")).text == f"question {number}"
    return gateway


@pytest.mark.parametrize("way", WAYS)
async def test_a_late_target_is_overtaken(upstream: FakeUpstream, start_gateway: StartGateway, way: Way) -> None:
    """With hedging a second call goes out when the first is late; the quicker answers, and the other one is ended."""
    models = (f"late-{WAYS.index(way)}", f"quick-{WAYS.index(way)}")
    gateway = await hedging(start_gateway, upstream, way, percent=50, models=models)
    assert len(upstream.calls) <= 1.5 * HEDGED
    upstream.forget()
    upstream.on_model(models[0], scripts.silent())
    heard = await hearing.ask(gateway.port, way, "Be quick", "m")
    assert (heard.text, heard.model, heard.attempts) == ("Be quick", models[1], "2")
    slow, quick = upstream.calls
    assert (slow.json()["model"], quick.json()["model"]) == models
    await asyncio.wait_for(slow.over.wait(), 5)
    assert slow.ended == "gateway_left"
    assert await gateway.metric("chatgate_upstream_calls_in_flight") == 0
    *_, line = await gateway.logged("call", HEDGED + 1)
    assert (line["attempts"], line["target"], line["outcome"]) == (2, f"b/{models[1]}", "completed")


async def test_second_calls_are_bounded(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """When all is slow, at most the share of calls that the operator allows is doubled."""
    models = ("slow-1", "slow-2")
    gateway = await hedging(start_gateway, upstream, WHOLE, percent=10, models=models)
    before = len(upstream.calls)
    tap = Tap()

    async def slow(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    for model in models:
        upstream.on_model(model, slow)
    tasks = [asyncio.create_task(hearing.ask(gateway.port, WHOLE, "Hi", "m")) for _ in range(20)]
    await upstream.called(before + 20)
    await asyncio.sleep(0.5)  # A second call that should not be would be made meanwhile; nothing tells that it is not.
    tap.let(100)
    assert [(await task).text for task in tasks] == ["Hi"] * 20
    assert HEDGED + 20 < len(upstream.calls) <= 1.1 * (HEDGED + 20)
