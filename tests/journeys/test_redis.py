"""Gateways on several machines that count together in Redis: exact while it is there, and safe while it is not.

Also what they hear of each other by their database alone: that a key was taken away.
"""

from __future__ import annotations

import asyncio
import bisect
import json
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import pytest

from fakes import fleet, scripts
from fakes import http_client as http
from fakes.gateway import Gateway
from fakes.site import Site, site
from fakes.upstream import Exchange, FakeUpstream, Tap
from storage.postgres_server import PostgresServer, programs
from storage.redis.redis_server import RedisServer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

CHAT = "/v1/chat/completions"
WORKERS = 2
MACHINES = 2
CONNECTIONS, CALLS_EACH = 200, 2
INPUT, OUTPUT = Decimal(200), Decimal(2000)
"""What a million tokens cost, in dollars."""

PEPPER = "test-pepper-0123456789-0123456789"
RECOVERY_SECONDS = 5.0
REVOKED_SECONDS = 5.0
SLOT_SECONDS = 30.0
"""So soon a key that was revoked anywhere opens nothing, and what a dead machine had in flight is free."""
SESSIONS = "{chatgate}:sessions"
NO_MONEY = "The gateway cannot keep its accounts right now, and makes no calls without them."


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """Run a database server for the file."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    yield server
    server.remove()


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Run a store for each test, for it does not stay well."""
    server = RedisServer()
    yield server
    server.remove()


def configuration(upstream: FakeUpstream, *limits: str, workers: int = 1) -> str:
    """Return a configuration with a model that has a price."""
    config = f"[server]\nworkers = {workers}\n[streams]\non_disconnect = 'cancel'\n" + "".join(limits)
    config += fleet.upstream("a", upstream.base_url) + fleet.model("one", [fleet.target("a", "one")])
    return config + fleet.price("one", INPUT, OUTPUT)


class Machines:
    """Sites that share a database and a store, each with a data directory of its own."""

    def __init__(self, directory: Path, stack: AsyncExitStack, environment: dict[str, str]) -> None:
        """Make them in a directory, and let `stack` end what runs there."""
        self._directory = directory
        self._stack = stack
        self._environment = environment
        self.sites: list[Site] = []

    def forgo(self, variable: str) -> None:
        """Do without something that the environment names."""
        del self._environment[variable]

    async def start(self, config: str, count: int = MACHINES, workers: int = 1) -> list[Gateway]:
        """Start a gateway on each."""
        for number in range(count):
            home = self._directory / f"machine{number}"
            home.mkdir()
            self.sites.append(await self._stack.enter_async_context(site(home, config, self._environment)))
        gateways = [await place.start() for place in self.sites]
        for gateway in gateways:
            await gateway.logged("started", workers)
        return gateways

    async def stop(self, gateways: list[Gateway]) -> None:
        """End them cleanly."""
        for place, gateway in zip(self.sites, gateways, strict=True):
            await place.stop(gateway)


@pytest.fixture
async def machines(tmp_path: Path, redis: RedisServer, postgres: PostgresServer) -> AsyncIterator[Machines]:
    """Return machines with an empty database and an empty store."""
    name = await asyncio.to_thread(postgres.create)
    environment = {
        "CHATGATE_DATABASE_URL": postgres.url(name),
        "CHATGATE_REDIS_URL": redis.url,
        "CHATGATE_PEPPER": PEPPER,
    }
    async with AsyncExitStack() as stack:
        yield Machines(tmp_path, stack, environment)


async def ask(
    gateway: Gateway, headers: http.Headers = (), model: str = "demo/echo", max_tokens: int = 20
) -> http.Response:
    """Make a call on a connection of its own."""
    return await http.post_json(gateway.port, CHAT, http.chat("Hi", model, max_tokens=max_tokens), headers)


async def storm(
    gateways: list[Gateway], headers: http.Headers = (), model: str = "demo/echo", connections: int = CONNECTIONS
) -> list[http.Response]:
    """Make calls at once, two after another on each of so many connections to each, and return what was answered."""
    body = json.dumps(http.chat("Hi", model, max_tokens=20)).encode()

    async def calls(gateway: Gateway) -> list[http.Response]:
        async with await http.connect(gateway.port) as connection:
            return [await connection.request("POST", CHAT, [http.JSON, *headers], body) for _ in range(CALLS_EACH)]

    async with asyncio.timeout(60):
        found = await asyncio.gather(*[calls(gateway) for _ in range(connections) for gateway in gateways])
    return [answer for each in found for answer in each]


async def test_exactly_a_hundred_of_eight_hundred(
    machines: Machines, redis: RedisServer, upstream: FakeUpstream
) -> None:
    """Over two machines with two workers each; the headers count down over all of them."""
    gateways = await machines.start(
        configuration(upstream, fleet.limit("global", 100), workers=WORKERS), workers=WORKERS
    )
    answers = await storm(gateways)
    assert Counter(answer.status for answer in answers) == {200: 100, 429: 700}
    assert not any(answer.header("x-chatgate-degraded") for answer in answers)
    assert f"counted in {redis.url}" in gateways[0].output()
    left = [int(answer.header("x-ratelimit-remaining-requests") or -1) for answer in answers if answer.status == 200]
    assert sorted(left) == list(range(100))
    await machines.stop(gateways)


async def spent(place: Site) -> Decimal:
    """Return what all calls have cost by their rows; nothing drifts."""
    await place.audited()
    return Decimal(sum(row.charged_nano_usd for row in await place.rows())) / 1_000_000_000


def most(max_tokens: int) -> Decimal:
    """Return the most that a call of `one` can cost: a token for each byte of its body, and all it may be answered."""
    body = json.dumps(http.chat("Hi", "one", max_tokens=max_tokens)).encode()
    return (len(body) * INPUT + max_tokens * OUTPUT) / 1_000_000


async def has_left(gateway: Gateway, headers: http.Headers, left: Decimal) -> bool:
    """Tell whether exactly so much is left of a budget: the largest call that fits is let in, a larger one is not."""
    fitting = bisect.bisect_right(range(200_000), left, key=most) - 1
    refused = await ask(gateway, headers, "one", fitting + 1)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    return (await ask(gateway, headers, "one", fitting)).status == 200


async def test_four_workers_spend_no_more_than_a_dollar(machines: Machines, upstream: FakeUpstream) -> None:
    """Of eight hundred calls over four hundred connections, which may cost a hundred times as much."""
    gateways = await machines.start(configuration(upstream, workers=WORKERS), workers=WORKERS)
    place = machines.sites[0]
    headers = [http.bearer(await place.make_key("anna", "--budget-usd", "1"))]
    answers = await storm(gateways, headers, "one")
    served = sum(answer.status == 200 for answer in answers)
    assert Counter(answer.status for answer in answers) == {200: served, 429: len(answers) - served}
    await folded(machines, gateways)
    assert len(await place.rows()) == served
    cost = await spent(place)
    assert cost <= 1
    assert await has_left(gateways[1], headers, 1 - cost)
    await machines.stop(gateways)


async def test_a_dollar_is_a_dollar(machines: Machines, redis: RedisServer, upstream: FakeUpstream) -> None:
    """Two hundred calls at once on two machines may cost more than there is; no more is spent, and no less withheld.

    That holds on when the store has lost its memory: what was spent is brought from the ledger, to the last digit, and
    so is what a call may cost that was under way meanwhile.
    """
    gateways = await machines.start(configuration(upstream))
    (place, _), (gateway, other) = machines.sites, gateways
    headers = [http.bearer(await place.make_key("anna", "--budget-usd", "1"))]
    answers = await storm(gateways, headers, "one", 50)
    served = sum(answer.status == 200 for answer in answers)
    assert Counter(answer.status for answer in answers) == {200: served, 429: len(answers) - served}
    assert {answer.json()["error"]["code"] for answer in answers if answer.status == 429} == {"insufficient_quota"}
    await folded(machines, gateways)
    assert len(await place.rows()) == served
    assert await has_left(other, headers, 1 - await spent(place))
    await folded(machines, gateways)
    cost = await spent(place)

    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("one", waits)
    under_way = asyncio.create_task(ask(other, headers, "one", 50))
    await upstream.called(served + 2)
    upstream.on_model("one", scripts.provider)
    redis.kill()
    await gateway.logged("limits_degraded")
    refused = await ask(gateway, headers, "one", 1)
    assert refused.status == 503
    assert refused.json()["error"]["message"].startswith(NO_MONEY)
    redis.start()
    await back(gateway, headers)
    await folded(machines, gateways)
    assert await has_left(gateway, headers, 1 - await spent(place) - most(50))
    tap.let()
    assert (await under_way).status == 200
    await folded(machines, gateways)
    assert cost < await spent(place)
    assert await has_left(gateway, headers, 1 - await spent(place))
    await machines.stop(gateways)


async def folded(machines: Machines, gateways: list[Gateway]) -> None:
    """Return once the database has all that any of them wrote."""
    for place, gateway in zip(machines.sites, gateways, strict=True):
        await place.folded(gateway)


async def back(gateway: Gateway, headers: http.Headers) -> None:
    """Return once an answer is not 503, which is so within the time that recovery may take."""
    back_at = time.monotonic()
    while (await ask(gateway, headers, "one", 1)).status == 503:
        assert time.monotonic() < back_at + RECOVERY_SECONDS, gateway.output()
        await asyncio.sleep(0.05)


async def test_a_frozen_store_costs_a_tenth_of_a_second_once(
    machines: Machines, redis: RedisServer, upstream: FakeUpstream
) -> None:
    """Then each machine counts its half of the limit and says so; money waits, and all is exact again soon after."""
    gateways = await machines.start(configuration(upstream, fleet.limit("global", 20)))
    place, gateway = machines.sites[0], gateways[0]
    headers = [http.bearer(await place.make_key("anna", "--budget-usd", "1"))]
    assert (await ask(gateway, headers, "one", 1)).status == 200
    redis.send_signal(signal.SIGSTOP)
    try:
        for each in gateways:
            began_at = time.monotonic()
            answers = await asyncio.gather(*[ask(each) for _ in range(8)])
            waited = time.monotonic() - began_at
            assert waited < 1.0  # A tenth, and what a busy machine adds to it.
            began_at = time.monotonic()
            answers += [await ask(each) for _ in range(7)]
            assert (time.monotonic() - began_at) / 7 < 0.1
            assert Counter(answer.status for answer in answers) == {200: 10, 429: 5}
            assert {answer.header("x-chatgate-degraded") for answer in answers} == {"limits"}
            assert {answer.header("x-ratelimit-limit-requests") for answer in answers} == {"10"}
            assert await each.metric("chatgate_limits_degraded") == 1
            assert [line["share"] for line in await each.logged("limits_degraded")] == ["1/2"]
        refused = await ask(gateway, headers, "one", 1)
        assert refused.status == 503
        assert refused.json()["error"]["message"].startswith(NO_MONEY)
        # What was asked meanwhile is in the store's mail, and too late by then.
        await asyncio.sleep(1.2)
    finally:
        redis.send_signal(signal.SIGCONT)
    for each in gateways:
        await each.logged("limits_shared")
        assert await each.metric("chatgate_limits_degraded") == 0
    answers = [await ask(each) for _ in range(15) for each in gateways]
    # One call was counted before.
    assert Counter(answer.status for answer in answers) == {200: 19, 429: 11}
    assert not any(answer.header("x-chatgate-degraded") for answer in answers)
    for each in gateways:
        assert len(await each.logged("limits_degraded")) == len(await each.logged("limits_shared")) == 1
    await machines.stop(gateways)


@pytest.mark.parametrize("counted_in", ["redis", "each machine"])
async def test_a_revoked_key_opens_nothing_anywhere(
    machines: Machines, upstream: FakeUpstream, counted_in: str
) -> None:
    """Within five seconds, on machines that never heard of the command, whether they share a Redis or not.

    What is under way with the key ends as a stream does that breaks, and its provider is left.
    """
    if counted_in != "redis":
        machines.forgo("CHATGATE_REDIS_URL")
    gateways = await machines.start(configuration(upstream))
    place = machines.sites[0]
    made = json.loads(await place.command("keys", "create", "anna", "--json"))
    headers = [http.bearer(made["key"])]
    upstream.on_model("one", *[scripts.stream(scripts.told("one two three four"), tap=Tap(2)) for _ in gateways])
    body = http.chat("Hi", "one", stream=True)
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(http.open_stream(each.port, CHAT, body, headers)) for each in gateways
        ]
        for stream in streams:
            await stream.until(b"one")
        revoked_at = time.monotonic()
        await place.command("keys", "revoke", made["id"])
        heard = [await stream.rest() for stream in streams]
        assert time.monotonic() - revoked_at < REVOKED_SECONDS
    for rest in heard:
        assert b"invalid_api_key" in rest
        assert b"[DONE]" not in rest
    for each in gateways:
        assert (await ask(each, headers)).status == 401
    await machines.stop(gateways)
    assert [call.ended for call in upstream.calls] == ["gateway_left"] * MACHINES


def sessions(redis: RedisServer) -> dict[str, float]:
    """Return until when the sessions of all processes last if they are not renewed, in seconds since 1970."""
    said = redis.command("ZRANGE", SESSIONS, 0, -1, "WITHSCORES")
    return {name.decode(): float(ends) / 1_000_000 for name, ends in zip(said[::2], said[1::2], strict=True)}


async def test_what_a_dead_machine_had_in_flight_is_free_again(
    machines: Machines, redis: RedisServer, upstream: FakeUpstream
) -> None:
    """Its session in Redis ends within thirty seconds, and its slots with it; those of the others stay theirs."""
    first, second = await machines.start(configuration(upstream, fleet.limit("global", 3, "in_flight")))
    upstream.on_model("one", *[scripts.stream(scripts.told("one two three four"), tap=Tap(2)) for _ in range(3)])
    body = http.chat("Hi", "one", stream=True)
    async with AsyncExitStack() as stack:
        for each in (first, first, second):
            stream = await stack.enter_async_context(http.open_stream(each.port, CHAT, body))
            await stream.until(b"one")
        assert [(await ask(each)).status for each in (first, second)] == [429, 429]
        machines.sites[0].kill(first)
        known = sessions(redis)
        assert (await ask(second)).status == 429
        # The living one renews its session meanwhile.
        renewed: set[str] = set()
        while not renewed:
            await asyncio.sleep(0.05)
            now = sessions(redis)
            renewed = {name for name, ends in now.items() if ends > known[name]}
        (dead,) = now.keys() - renewed
        assert now[dead] <= known[dead]
        assert 0 < now[dead] - time.time() <= SLOT_SECONDS
        # As if that time had passed.
        redis.command("ZADD", SESSIONS, 1, dead)
        assert [(await ask(second)).status for _ in range(3)] == [200] * 3
        upstream.on_model("one", *[scripts.stream(scripts.told("one two three four"), tap=Tap(2)) for _ in range(3)])
        for status in (200, 200, 429):
            stream = await stack.enter_async_context(http.open_stream(second.port, CHAT, body))
            assert stream.head.status == status
        await second.stop_now()
