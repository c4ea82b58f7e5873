"""Limits of keys and of the configuration: how many calls, how many at once, counted by whom, and given back when."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes import place as place_of
from fakes.gateway import StartGateway
from fakes.hearing import PATHS, WAYS, Way
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

OPENAI: Way = ("openai", False)
STREAM: Way = ("openai", True)
HEARD_OF_SECONDS = 2.0
"""So soon a running gateway knows of a changed key."""
PLACES = 20
PAIRS = ("pair-1", "pair-2", "pair-3", "pair-4")

CONFIG = '[server]\nroute = "api"\n[retry]\nmax_retries = 0\n' + fleet.QUICK.replace(
    "first_token_seconds = 1", "first_token_seconds = 5"
)
NAMES = ("one", "two", "slow", "waiting", "unpriced")


def configuration(first: str, second: str, *limits: str) -> str:
    """Return a configuration of models at the first upstream, one of them with an alias, and pairs at both."""
    config = CONFIG + "".join(limits) + fleet.upstream("default", first)
    config += "".join(fleet.model(name, [fleet.target("default", name)]) for name in NAMES)
    config += fleet.model("known", [fleet.target("default", "known")], aliases=["nickname"])
    return config + "".join(fleet.pair(name, first, second) for name in ("pair", *PAIRS))


class Place(place_of.Place):
    """A gateway, and the calls that its limits are tried with."""

    async def call(
        self, headers: http.Headers, model: str = "one", *, source: str = "127.0.0.1", text: str = "Hi"
    ) -> http.Response:
        """Make a call, and return the whole answer."""
        return await http.post_json(self.port, PATHS["openai"], http.chat(text, model), headers, source=source)

    async def statuses(self, times: int, headers: http.Headers, model: str = "one") -> list[int]:
        """Return the statuses of so many calls, one after the other."""
        return [(await self.call(headers, model)).status for _ in range(times)]

    async def left(self, headers: http.Headers, model: str = "one") -> str | None:
        """Make a call, and return how many are left."""
        return (await self.call(headers, model)).header("x-ratelimit-remaining-requests")


Start = Callable[..., Awaitable[Place]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def start(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Start:
    """Return what starts a gateway with these limits."""

    async def start_one(*limits: str) -> Place:
        return Place(await start_gateway({}, configuration(upstream_of_file.base_url, other_of_file.base_url, *limits)))

    return start_one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(start: Start) -> Place:
    """Run a gateway without limits of its own."""
    return await start()


async def free(place: Place, headers: http.Headers, model: str = "one") -> None:
    """Wait until a call passes, a second at most."""
    deadline = time.monotonic() + 1
    while (response := await place.call(headers, model)).status != 200:
        assert time.monotonic() < deadline, response.body
        await asyncio.sleep(0.02)


async def test_the_limit_of_a_key_is_exact_and_told_in_headers(place: Place, upstream: FakeUpstream) -> None:
    """Three an hour, from whatever address and on either surface; the fourth learns when to come back."""
    _, headers = place.create("--limit", "requests=3/hour")
    seen = []
    for number, path in enumerate((PATHS["openai"], PATHS["plain"], PATHS["openai"])):
        body = {**http.chat("Hi", "one"), "user_content": "Hi"}
        response = await http.post_json(place.port, path, body, headers, source=f"127.0.5.{number + 1}")
        assert response.status == 200, response.body
        assert response.header("x-ratelimit-limit-requests") == "3"
        assert response.header("x-ratelimit-reset-requests")
        seen.append(response.header("x-ratelimit-remaining-requests"))
    assert seen == ["2", "1", "0"]
    for path in PATHS.values():
        refused = await http.post_json(place.port, path, body, headers)
        assert refused.status == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 3590 <= int(refused.header("retry-after") or 0) <= 3600
        assert refused.header("x-should-retry") == "false"
        assert refused.header("x-ratelimit-limit-requests") == "3"
        assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert len(upstream.calls) == 3
    _, others = place.create("--limit", "requests=3/hour")
    assert await place.left(others) == "2"


async def test_a_key_in_the_body_is_limited_alike(place: Place) -> None:
    """The plain API's `api_key` counts, and its answers tell where it stands."""
    _, headers = place.create("--limit", "requests=2/hour")
    key = dict(headers)["Authorization"].removeprefix("Bearer ")
    left = []
    for _ in range(3):
        heard = await hearing.ask(place.port, ("plain", False), "Hi", "one", api_key=key)
        left.append((heard.head.status, heard.head.header("x-ratelimit-remaining-requests")))
    assert left == [(200, "1"), (200, "0"), (429, "0")]


async def test_a_limit_for_some_models(place: Place) -> None:
    """`:PATTERN` holds for these only, all of them together."""
    _, headers = place.create("--limit", "requests=2/hour:*o*")
    assert await place.statuses(1, headers, "one") == [200]
    assert await place.statuses(2, headers, "two") == [200, 429]
    assert await place.statuses(3, headers, "slow") == [429] * 3
    assert await place.statuses(2, headers, "waiting") == [200, 200]


async def test_a_changed_limit_takes_effect_and_keeps_the_count(place: Place) -> None:
    """More are let through without forgetting those that were made, and none taken off sets it free."""
    key, headers = place.create("--limit", "requests=2/hour")
    assert await place.statuses(3, headers) == [200, 200, 429]
    place.keys("update", key, "--limit", "requests=3/hour")
    deadline = time.monotonic() + HEARD_OF_SECONDS
    while (await place.call(headers)).status != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert await place.statuses(2, headers) == [429, 429]
    place.keys("update", key, "--limit", "none")
    deadline = time.monotonic() + HEARD_OF_SECONDS
    while (response := await place.call(headers)).status != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert response.header("x-ratelimit-limit-requests") is None


@pytest.mark.parametrize("way", WAYS)
async def test_many_at_once_get_no_more_than_there_are_places(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Of thirty calls at once five are under way; the others are refused, and the places are free again after."""
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("slow", waits)
    _, headers = place.create("--limit", "in_flight=5", "--limit", "requests=1000/hour")
    calls = [asyncio.create_task(hearing.ask(place.port, way, "Hi", "slow", headers=headers)) for _ in range(30)]
    await upstream.called(5)
    deadline = time.monotonic() + 5
    while sum(call.done() for call in calls) < 25:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert len(upstream.calls) == 5
    tap.let(100)
    heard = await asyncio.gather(*calls)
    assert sum(each.is_whole for each in heard) == 5
    refused = [each for each in heard if not each.is_whole]
    assert {(each.head.status, each.code) for each in refused} == {(429, "rate_limit_exceeded")}
    # All or nothing: refused for want of a place, they took none of the thousand.
    assert await place.left(headers) == "994"


async def ends_whole(place: Place, _: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Let a call be answered."""
    assert (await hearing.ask(place.port, way, "Hi", "one", headers=headers)).is_whole


async def ends_failed(place: Place, upstream: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Let a call fail."""
    upstream.on_model("one", scripts.whole(scripts.error_body("No."), 400))
    assert (await hearing.ask(place.port, way, "Hi", "one", headers=headers)).code


async def ends_cut(place: Place, upstream: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Let the upstream end it in the middle."""
    upstream.on_model("one", scripts.raw(scripts.STREAM_HEAD + scripts.framed(scripts.told("a b c")[1]), "close"))
    assert (await hearing.ask(place.port, way, "Hi", "one", headers=headers)).code


async def ends_left(place: Place, upstream: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Leave before anything came."""
    upstream.on_model("one", scripts.silent())
    body = json.dumps(hearing.asking(way, "Hi", "one")).encode()
    async with await http.connect(place.port) as connection:
        connection.send(http.request_bytes("POST", PATHS[way[0]], [http.JSON, *headers], body))
        await upstream.called()


async def ends_left_in_the_middle(place: Place, upstream: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Leave a stream after its first words; a whole answer has none."""
    if not way[1]:
        return
    upstream.on_model("one", scripts.stream(scripts.told("a b c"), tap=Tap(3)))
    body = hearing.asking(way, "Hi", "one")
    async with http.open_stream(place.port, PATHS[way[0]], body, headers) as stream:
        await stream.until(b'"a')


async def ends_with_a_mistake(place: Place, _: FakeUpstream, way: Way, headers: http.Headers) -> None:
    """Ask in a way that is refused."""
    assert (await hearing.ask(place.port, way, "Hi", "nothing", headers=headers)).code
    assert (await http.post_json(place.port, PATHS[way[0]], {"model": 1}, headers)).status == 400


ENDS = (ends_whole, ends_failed, ends_cut, ends_left, ends_left_in_the_middle, ends_with_a_mistake)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_place_is_free_after_every_end(
    place: Place, upstream: FakeUpstream, way: Way, end: Callable[..., Awaitable[None]]
) -> None:
    """However a call ends, the next one finds its place free, again and again."""
    for _ in range(2):
        _, headers = place.create("--limit", "in_flight=1")
        await end(place, upstream, way, headers)
        upstream.forget()
        await free(place, headers)
        assert await place.statuses(3, headers) == [200] * 3


async def test_places_come_back_whatever_happens(place: Place, upstream: FakeUpstream) -> None:
    """After two hundred calls that end in any way, in any order, every one of the places can be had again."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown when the test fails
    chance = random.Random(seed)
    good = scripts.provider
    bad = scripts.whole(scripts.error_body("No."), 400)
    cut = scripts.raw(scripts.STREAM_HEAD + scripts.framed(scripts.told("a b c")[1]), "close")
    upstream.on_model("slow", *chance.choices((good, bad, cut, scripts.silent()), weights=(4, 2, 2, 3), k=200), good)
    _, headers = place.create("--limit", f"in_flight={PLACES}", "--limit", "requests=100000/hour")

    async def call() -> None:
        way = chance.choice(WAYS)
        body = json.dumps(hearing.asking(way, "Hi", "slow")).encode()
        async with await http.connect(place.port) as connection:
            connection.send(http.request_bytes("POST", PATHS[way[0]], [http.JSON, *headers], body))
            reading = asyncio.create_task(connection.read_response())
            await asyncio.wait({reading}, timeout=chance.uniform(0, 0.05))
        await asyncio.gather(reading, return_exceptions=True)

    await asyncio.gather(*(call() for _ in range(200)))
    upstream.forget()
    await free(place, headers)
    upstream.forget()
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("two", waits)
    calls = [asyncio.create_task(place.call(headers, "two")) for _ in range(PLACES)]
    await upstream.called(PLACES)
    assert (await place.call(headers, "one")).status == 429
    tap.let(PLACES)
    assert {(await each).status for each in calls} == {200}


async def test_a_refused_call_gives_back_everything(place: Place, upstream: FakeUpstream) -> None:
    """A budget, a wrong model or a mistake in the body takes nothing from a limit on calls."""
    _, headers = place.create("--limit", "requests=5/hour", "--models", "one,unpriced", "--budget-usd", "1")
    for body, status in (
        (http.chat("Hi", "unpriced"), 403),
        (http.chat("Hi", "two"), 403),
        (http.chat("Hi", "nothing"), 404),
        ({"model": "one"}, 400),
    ):
        assert (await http.post_json(place.port, PATHS["openai"], body, headers)).status == status
    assert upstream.calls == []
    refused = await http.post_json(place.port, PATHS["openai"], http.chat("Hi", "unpriced"), headers)
    assert refused.header("x-ratelimit-remaining-requests") == "5"


async def test_every_key_has_the_configured_limit(start: Start) -> None:
    """`scope = "key"` counts each key for itself, and nobody who shows none."""
    place = await start(fleet.limit("key", 2, per="hour"))
    (_, anna), (_, bert) = place.create(), place.create()
    assert await place.statuses(3, anna) == [200, 200, 429]
    assert await place.statuses(3, bert) == [200, 200, 429]
    assert await place.statuses(4, []) == [200] * 4
    _, tighter = place.create("--limit", "requests=1/hour")
    assert await place.statuses(2, tighter) == [200, 429]


async def test_every_model_has_the_configured_limit(start: Start) -> None:
    """`scope = "model"` counts all callers of a model, by whichever of its names they ask."""
    place = await start(fleet.limit("model", 2, per="hour"))
    _, anna = place.create()
    assert await place.statuses(1, anna, "known") == [200]
    assert await place.statuses(2, [], "nickname") == [200, 429]
    assert await place.statuses(1, anna, "known") == [429]
    assert await place.statuses(3, anna, "two") == [200, 200, 429]


async def test_the_whole_gateway_has_the_configured_limit(start: Start) -> None:
    """`scope = "global"` counts everybody together."""
    place = await start(fleet.limit("global", 3, per="hour"))
    (_, anna), (_, bert) = place.create(), place.create()
    assert [await place.statuses(1, who, model) for who, model in ((anna, "one"), (bert, "two"), ([], "one"))] == [
        [200]
    ] * 3
    assert await place.statuses(1, anna, "two") == [429]


async def test_every_pair_of_key_and_model_has_the_configured_limit(start: Start) -> None:
    """`scope = "key+model"` counts each combination apart."""
    place = await start(fleet.limit("key+model", 1, per="hour"))
    (_, anna), (_, bert) = place.create(), place.create()
    for who in (anna, bert):
        for model in ("one", "two"):
            assert await place.statuses(2, who, model) == [200, 429]
    assert await place.statuses(3, [], "one") == [200] * 3


async def test_several_limits_are_taken_together_or_not_at_all(start: Start, upstream: FakeUpstream) -> None:
    """Who is refused by the narrower one has taken nothing of the wider one."""
    place = await start(
        fleet.limit("global", 4, per="hour"),
        fleet.limit("key+model", 1, per="hour"),
        fleet.limit("model", 3, per="hour"),
    )
    (_, anna), (_, bert) = place.create(), place.create()
    assert await place.statuses(6, anna, "one") == [200] + [429] * 5
    assert await place.statuses(1, bert, "one") == [200]
    assert await place.statuses(1, anna, "two") == [200]
    assert await place.statuses(1, [], "one") == [200]
    assert await place.statuses(1, [], "two") == [429]
    assert len(upstream.calls) == 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two_each(start: Start) -> Place:
    """Run a gateway that makes two calls an hour at each upstream."""
    return await start(fleet.limit("upstream", 2, per="hour"))


@pytest.mark.parametrize(("way", "model"), list(zip(WAYS, PAIRS, strict=True)))
async def test_an_upstream_without_room_is_passed_by(
    two_each: Place, upstream: FakeUpstream, other: FakeUpstream, way: Way, model: str
) -> None:
    """`scope = "upstream"` sends the call to the next one; where there is none, it is the caller's 429."""
    _, headers = two_each.create()
    heard = [await hearing.ask(two_each.port, way, "Hi", model, headers=headers) for _ in range(5)]
    assert [each.head.status for each in heard] == [200] * 4 + [429], heard[-1].body
    assert heard[-1].code == "rate_limit_exceeded"
    assert int(heard[-1].head.header("retry-after") or 0) > 3500
    assert (len(upstream.calls_of(f"{model}-a")), len(other.calls_of(f"{model}-b"))) == (2, 2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ENDS)
async def test_the_place_at_an_upstream_is_free_after_every_end(
    narrow: Place, upstream: FakeUpstream, way: Way, end: Callable[..., Awaitable[None]]
) -> None:
    """However an attempt ends, the next one finds the upstream's only place free."""
    await end(narrow, upstream, way, [])
    upstream.forget()
    await free(narrow, [])
    assert await narrow.statuses(2, []) == [200] * 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow(start: Start) -> Place:
    """Run a gateway that makes one call at a time at each upstream."""
    return await start(fleet.limit("upstream", 1, "in_flight"))


async def test_an_upstream_that_was_passed_by_was_not_called(two_each: Place, other: FakeUpstream) -> None:
    """`x-chatgate-attempts` counts the requests that were sent, not the places where there was no room."""
    heard = [await hearing.ask(two_each.port, OPENAI, "Hi", "pair") for _ in range(5)]
    assert len(other.calls) == 2
    assert [each.attempts for each in heard] == ["1", "1", "1", "1", "0"]


@pytest.mark.parametrize("way", [OPENAI, STREAM])
async def test_a_dead_heat_of_hedges_frees_both_places(
    start: Start, upstream: FakeUpstream, other: FakeUpstream, way: Way
) -> None:
    """When both answers are there at the same time, the one that nobody needs gives its place back too."""
    place = await start(fleet.limit("upstream", 1, "in_flight"), "[hedging]\nshare_percent = 50\n")
    for _ in range(25):  # So many tell it how long an answer usually takes.
        assert (await hearing.ask(place.port, way, "Hi", "pair")).is_whole
    calls = len(other.calls)
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("pair-a", waits)
    other.on_model("pair-b", waits)
    call = asyncio.create_task(hearing.ask(place.port, way, "Hi", "pair"))
    await other.called(calls + 1)
    place.gateway.process.send_signal(signal.SIGSTOP)
    tap.let(2)
    await asyncio.gather(upstream.last_call(), other.last_call())
    place.gateway.process.send_signal(signal.SIGCONT)
    assert (await call).is_whole
    # One place at either upstream makes two for two calls at once.
    upstream.forget()
    other.forget()
    upstream.on_model("pair-a", waits)
    other.on_model("pair-b", waits)
    both = [asyncio.create_task(hearing.ask(place.port, way, "Hi", "pair")) for _ in range(2)]
    try:
        await asyncio.gather(upstream.called(), other.called())
    finally:
        tap.let(4)
        heard = await asyncio.gather(*both)
    assert all(each.is_whole for each in heard), [each.body for each in heard]


async def test_a_reload_keeps_the_counts(start: Start, upstream: FakeUpstream) -> None:
    """Other amounts in the file count on from where it was, and what is under way gives its place back."""
    place = await start(fleet.limit("key", 3, per="hour"), fleet.limit("global", 5, "in_flight"))
    _, headers = place.create("--limit", "in_flight=1")
    _, others = place.create("--limit", "requests=2/hour")
    assert await place.statuses(1, headers) == [200]
    assert await place.statuses(1, others) == [200]
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("slow", waits)
    under_way = asyncio.create_task(place.call(headers, "slow"))
    await upstream.called(3)
    file = place.gateway.directory / "chatgate.toml"
    file.write_text(file.read_text().replace("amount = 3", "amount = 4").replace("amount = 5", "amount = 1"))
    await place.gateway.logged("reloaded")
    assert await place.statuses(1, others) == [429], "the only place of all is taken"
    tap.let()
    assert (await under_way).status == 200
    assert await place.statuses(3, headers) == [200, 200, 429]
    assert await place.statuses(2, others) == [200, 429]
