"""Limits on tokens and money: an upper bound is taken first, and what was not used is free as soon as it is known."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

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
TEXT = "a b c"
USED = 7 + 3
"""What the fake provider counts for that text."""

INPUT, OUTPUT = Decimal(2000), Decimal(10_000)
NAMES = ("one", "two", "left", "absurd", "unpriced")
CONFIG = '[server]\nroute = "api"\n[retry]\nmax_retries = 0\n' + fleet.QUICK.replace("seconds = 1\n", "seconds = 10\n")


def configuration(base_url: str, *limits: str) -> str:
    """Return a configuration with models that have a price, and one that has none."""
    config = CONFIG + "".join(limits) + fleet.upstream("default", base_url)
    for name in NAMES:
        config += fleet.model(name, [fleet.target("default", name)])
        if name != "unpriced":
            config += fleet.price(name, INPUT, OUTPUT)
    return config


class Place(place_of.Place):
    """A gateway, and the calls that its limits are tried with."""

    def make(self, *limits: str) -> http.Headers:
        """Make a key with these limits, and return the header that shows it."""
        _, headers = self.create(*[text for limit in limits for text in ("--limit", limit)])
        return headers

    async def ask(
        self,
        way: Way,
        headers: http.Headers,
        model: str = "one",
        *,
        max_tokens: int = 20,
        text: str = TEXT,
        **more: Any,
    ) -> hearing.Heard:
        """Make a call, and return what was heard."""
        return await hearing.ask(self.port, way, text, model, headers=headers, max_tokens=max_tokens, **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["1", "2"], ids=["one worker", "two workers"])
async def place(upstream_of_file: FakeUpstream, start_gateway: StartGateway, request: pytest.FixtureRequest) -> Place:
    """Run a gateway without limits of its own."""
    environment = {"CHATGATE_WORKERS": request.param}
    return Place(await start_gateway(environment, configuration(upstream_of_file.base_url)))


def sent(way: Way, max_tokens: int, model: str = "one", text: str = TEXT) -> int:
    """Return how many tokens a call can count as input at most: a byte is at least one."""
    return len(json.dumps(hearing.asking(way, text, model, max_tokens=max_tokens)).encode())


def tokens(heard: hearing.Heard) -> tuple[str | None, str | None]:
    """Return the limit and what is left of it, as an answer's head says."""
    return heard.head.header("x-ratelimit-limit-tokens"), heard.head.header("x-ratelimit-remaining-tokens")


@pytest.mark.parametrize("way", WAYS)
async def test_only_what_was_used_counts_in_the_end(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Room for one of the largest calls is good for several small ones, until what they used is too much."""
    bound = sent(way, 20) + 20
    headers = place.make(f"tokens={bound + 3 * USED}/hour")
    for number in range(4):
        heard = await place.ask(way, headers)
        assert heard.is_whole, heard.body
        assert tokens(heard) == (str(bound + 3 * USED), str((3 - number) * USED))
    heard = await place.ask(way, headers)
    assert (heard.head.status, heard.code) == (429, "rate_limit_exceeded")
    assert tokens(heard) == (str(bound + 3 * USED), str(bound - USED))
    assert 3500 < int(heard.head.header("retry-after") or 0) <= 3600
    assert len(upstream.calls) == 4


@pytest.mark.parametrize(("resource", "used"), [("input_tokens", 7), ("output_tokens", 3)])
async def test_input_and_output_are_limited_apart(place: Place, resource: str, used: int) -> None:
    """Each kind has a limit of its own, and is settled to its own count."""
    bound = sent(OPENAI, 20) if resource == "input_tokens" else 20
    headers = place.make(f"{resource}={bound + used}/day")
    for _ in range(2):
        assert (await place.ask(OPENAI, headers)).is_whole
    assert (await place.ask(OPENAI, headers)).code == "rate_limit_exceeded"


@pytest.mark.parametrize("way", WAYS)
async def test_calls_at_once_cannot_take_the_same_tokens(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Thirty calls on tokens for four of the largest: four are made, and afterwards there is room again."""
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("two", waits)
    bound = sent(way, 20, "two") + 20
    headers = place.make(f"tokens={4 * bound + bound - 1}/hour", "requests=100/hour")
    calls = [asyncio.create_task(place.ask(way, headers, "two")) for _ in range(30)]
    await upstream.called(4)
    deadline = time.monotonic() + 5
    while sum(call.done() for call in calls) < 26:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert len(upstream.calls) == 4
    tap.let(100)
    assert sum(heard.is_whole for heard in await asyncio.gather(*calls)) == 4
    heard = await place.ask(way, headers, "two")
    assert heard.is_whole
    assert heard.head.header("x-ratelimit-remaining-requests") == "95"


async def test_a_call_that_never_fits_is_told_not_to_come_again(place: Place, upstream: FakeUpstream) -> None:
    """What is larger than the limit alone has no time to wait for; it takes nothing of the other limits."""
    headers = place.make("tokens=150/hour", "requests=5/hour")
    for way in WAYS:
        heard = await place.ask(way, headers, max_tokens=3000)
        assert (heard.head.status, heard.code) == (429, "rate_limit_exceeded")
        assert heard.head.header("retry-after") is None
        assert heard.head.header("x-should-retry") == "false"
        assert "150" in heard.message
    assert upstream.calls == []
    heard = await place.ask(OPENAI, headers, max_tokens=1)
    assert heard.is_whole
    assert heard.head.header("x-ratelimit-remaining-requests") == "4"


async def test_a_provider_that_counts_more_than_could_be_is_believed(place: Place, upstream: FakeUpstream) -> None:
    """What was used beyond the bound counts from then on."""
    usage = {"prompt_tokens": 4000, "completion_tokens": 2000, "total_tokens": 6000}
    upstream.on_model("absurd", scripts.whole(scripts.completion("Hi", usage=usage)))
    headers = place.make("tokens=5000/hour")
    assert (await place.ask(OPENAI, headers, "absurd")).is_whole
    heard = await place.ask(OPENAI, headers)
    assert heard.code == "rate_limit_exceeded"
    assert tokens(heard) == ("5000", "0")


@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_call_gives_its_tokens_back(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """What brought no answer has used nothing."""
    upstream.on_model("two", scripts.whole(scripts.error_body("No."), 400))
    limit = sent(way, 20) + 20
    headers = place.make(f"tokens={limit}/hour")
    for _ in range(3):
        heard = await place.ask(way, headers, "two")
        assert heard.code, heard.body
        assert heard.code != "rate_limit_exceeded"
    heard = await place.ask(way, headers)
    assert heard.is_whole, heard.body


@pytest.mark.parametrize("surface", ["openai", "plain"])
async def test_who_leaves_has_used_what_was_produced(
    place: Place, upstream: FakeUpstream, surface: hearing.Surface
) -> None:
    """Neither all that was set aside, nor nothing."""
    way: Way = (surface, True)
    upstream.on_model("left", scripts.stream(scripts.told("aaaa bbbb cccc dddd", by="a"), tap=Tap(4)))
    headers = place.make("tokens=4000/hour")
    body = hearing.asking(way, TEXT, "left", max_tokens=3000)
    async with http.open_stream(place.port, PATHS[surface], body, headers) as stream:
        await stream.until(b"cccc")
    await upstream.last_call()
    bound = sent(way, 20) + 20
    deadline = time.monotonic() + 1
    while int((heard := await place.ask(way, headers)).head.header("x-ratelimit-remaining-tokens") or 0) < 3000:
        assert time.monotonic() < deadline, heard.head.headers
        await asyncio.sleep(0.05)
    used = 4000 - bound - int(heard.head.header("x-ratelimit-remaining-tokens") or 0)
    asked = sent(way, 3000, "left")
    assert 3 < used <= asked // 4 + 6


@pytest.mark.parametrize("way", WAYS)
async def test_money_is_limited_too(place: Place, way: Way) -> None:
    """A limit in dollars takes the bound, settles to the true cost, and refuses what has no price."""
    most = (INPUT * sent(way, 20) + OUTPUT * 20) / 1_000_000
    true = (INPUT * 7 + OUTPUT * 3) / 1_000_000
    headers = place.make(f"usd={most + true}/hour")
    assert [(await place.ask(way, headers)).code for _ in range(3)] == ["", "", "rate_limit_exceeded"]
    heard = await place.ask(way, headers, "unpriced")
    assert (heard.head.status, heard.code) == (403, "permission_denied")
    assert "price" in heard.message


async def test_configured_limits_on_tokens_hold_for_each_of_their_scope(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """By key, by key and model, by upstream, in all: each is settled to what was used."""
    bound = sent(OPENAI, 20) + 20
    for scope in ("key", "key+model", "upstream", "global"):
        limit = f'[[limits]]\nscope = "{scope}"\nresource = "tokens"\namount = {bound + USED}\nper = "hour"\n'
        place = Place(await start_gateway({}, configuration(upstream.base_url, limit)))
        anna, bert = place.make(), place.make()
        assert [(await place.ask(OPENAI, anna)).code for _ in range(3)] == ["", "", "rate_limit_exceeded"], scope
        apart = {"key": (bert, "one"), "key+model": (anna, "two")}.get(scope)
        if apart is not None:
            assert (await place.ask(OPENAI, *apart)).is_whole, scope
        else:
            assert (await place.ask(OPENAI, bert, "two")).code == "rate_limit_exceeded", scope


@pytest.mark.parametrize("way", [("openai", False), ("openai", True)])
async def test_a_hedge_takes_once_and_gives_everything_back(
    upstream: FakeUpstream, start_gateway: StartGateway, way: Way
) -> None:
    """Of two attempts at once the slower one leaves nothing behind: not its place, nor its tokens."""
    limits = "".join(
        f'[[limits]]\nscope = "{scope}"\nresource = "{resource}"\namount = {amount}\n{per}'
        for scope, resource, amount, per in (
            ("upstream", "in_flight", 1, ""),
            ("upstream", "tokens", 100_000, 'per = "hour"\n'),
            ("key", "in_flight", 1, ""),
        )
    )
    async with FakeUpstream() as other:
        config = CONFIG + "[hedging]\nshare_percent = 50\n" + limits
        config += fleet.pair("pair", upstream.base_url, other.base_url)
        place = Place(await start_gateway({}, config))
        headers = place.make("requests=100/hour")
        for _ in range(25):
            assert (await place.ask(way, headers, "pair")).is_whole
        other.forget()  # On a busy machine, one of these may have been slow enough for it, too.
        upstream.on_model("pair-a", scripts.silent())
        heard = await place.ask(way, headers, "pair")
        assert heard.is_whole, heard.body
        assert len(other.calls) == 1
        await upstream.last_call()
        assert upstream.calls[-1].ended == "gateway_left"
        upstream.forget()
        for _ in range(3):
            heard = await place.ask(way, headers, "pair")
            assert heard.is_whole, heard.body
        assert len(upstream.calls) == 3
        assert heard.head.header("x-ratelimit-remaining-requests") == "71"
