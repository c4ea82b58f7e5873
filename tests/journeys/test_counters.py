"""Limits and budgets of a gateway of several workers: as exact as with one, also when its processes die or stall."""

from __future__ import annotations

import asyncio
import bisect
import functools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path

import pytest

from chatgate.app.life import COUNTING_NAME
from fakes import fleet, scripts
from fakes import http_client as http
from fakes.gateway import Gateway
from fakes.site import Site, site
from fakes.upstream import Exchange, FakeUpstream, Tap
from storage.postgres_server import PostgresServer, programs

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

CHAT = "/v1/chat/completions"
WORKERS, FEWER_WORKERS = 4, 2
CONNECTIONS, CALLS_EACH = 400, 2
INPUT, OUTPUT = Decimal(200), Decimal(2000)
"""What a million tokens cost, in dollars."""

PREFIX_CHARACTERS = len("req_") + 12
"""The part of a request's id that is the same for all requests of a process."""


def configuration(upstream: FakeUpstream, workers: int, *limits: str) -> str:
    """Return a configuration of several workers, and a model with a price."""
    config = f"[server]\nworkers = {workers}\n[streams]\non_disconnect = 'cancel'\n" + "".join(limits)
    config += fleet.upstream("a", upstream.base_url) + fleet.model("one", [fleet.target("a", "one")])
    return config + fleet.price("one", INPUT, OUTPUT)


@pytest.fixture
async def place(tmp_path: Path, upstream: FakeUpstream, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    """Return a site with as many workers and with the limits that the test names."""
    async with site(tmp_path, configuration(upstream, *request.param)) as made:
        yield made


async def started(place: Site, workers: int) -> Gateway:
    """Start a gateway and return once all workers take calls."""
    gateway = await place.start()
    await gateway.logged("started", workers)
    return gateway


def children(gateway: Gateway) -> list[int]:
    """Return the processes that the parent has."""
    parent = gateway.process.pid
    return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def name_of(pid: int) -> str:
    """Return what a process is called, "" for one that is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def owner_of(gateway: Gateway) -> int:
    """Return the process that counts."""
    (owner,) = [pid for pid in children(gateway) if name_of(pid) == COUNTING_NAME]
    return owner


def is_replaced(gateway: Gateway, dead: int) -> bool:
    """Tell whether another process counts now."""
    return any(pid != dead and name_of(pid) == COUNTING_NAME for pid in children(gateway))


async def ask(
    gateway: Gateway, headers: http.Headers = (), model: str = "demo/echo", max_tokens: int = 20
) -> http.Response:
    """Make a call on a connection of its own."""
    return await http.post_json(gateway.port, CHAT, http.chat("Hi", model, max_tokens=max_tokens), headers)


async def storm(gateway: Gateway, headers: http.Headers = (), model: str = "demo/echo") -> list[http.Response]:
    """Make 800 calls over 400 connections at once, and return what was answered."""
    body = json.dumps(http.chat("Hi", model, max_tokens=20)).encode()

    async def calls() -> list[http.Response]:
        async with await http.connect(gateway.port) as connection:
            return [await connection.request("POST", CHAT, [http.JSON, *headers], body) for _ in range(CALLS_EACH)]

    async with asyncio.timeout(60):
        found = await asyncio.gather(*[calls() for _ in range(CONNECTIONS)])
    answers = [answer for each in found for answer in each]
    processes = {(answer.header("x-request-id") or "")[:PREFIX_CHARACTERS] for answer in answers}
    assert len(processes) == WORKERS
    return answers


def most(max_tokens: int = 20) -> Decimal:
    """Return the most that a call of `one` can cost: a token for each byte of its body, and all it may be answered."""
    body = json.dumps(http.chat("Hi", "one", max_tokens=max_tokens)).encode()
    return (len(body) * INPUT + max_tokens * OUTPUT) / 1_000_000


async def has_left(gateway: Gateway, headers: http.Headers, left: Decimal) -> bool:
    """Tell whether exactly so much is left of a budget: the largest call that fits is let in, a larger one is not."""
    fitting = bisect.bisect_right(range(200_000), left, key=most) - 1
    refused = await ask(gateway, headers, "one", fitting + 1)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    return (await ask(gateway, headers, "one", fitting)).status == 200


async def spent(place: Site, calls: int) -> Decimal:
    """Return what so many calls have cost by their rows, once all of these have ended; nothing drifts."""
    async with asyncio.timeout(10):
        while (  # noqa: ASYNC110 - rows have no event
            len(rows := await place.rows()) < calls or any(row.state == "dispatched" for row in rows)
        ):
            await asyncio.sleep(0.05)
    assert len(rows) == calls
    await place.audited()
    return Decimal(sum(row.charged_nano_usd for row in rows)) / 1_000_000_000


async def served_again(gateway: Gateway, headers: http.Headers, model: str = "demo/echo") -> http.Response:
    """Return the first answer that is not 503: within a second, and a few more on a busy machine."""
    async with asyncio.timeout(10):
        while (answer := await ask(gateway, headers, model)).status == 503:  # noqa: ASYNC110 - answers have no event
            await asyncio.sleep(0.02)
    assert answer.status == 200
    return answer


async def until(condition: Callable[[], object]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what other processes do has no event
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("place", [(WORKERS, fleet.limit("global", 100))], indirect=True)
async def test_exactly_a_hundred_of_eight_hundred(place: Site) -> None:
    """The others are told to wait for the minute to pass, and every answer tells how many are left."""
    gateway = await started(place, WORKERS)
    answers = await storm(gateway)
    assert Counter(answer.status for answer in answers) == {200: 100, 429: 700}
    left = [int(answer.header("x-ratelimit-remaining-requests") or -1) for answer in answers if answer.status == 200]
    assert sorted(left) == list(range(100))
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert 50 < int(refused.header("retry-after") or 0) <= 60
    pages = [await http.request(gateway.port, "GET", path) for path in ("/openapi.json", "/v1/models")]
    assert [page.header("x-ratelimit-limit-requests") for page in pages] == ["100", "100"]
    await place.stop(gateway)


async def spend_a_dollar(place: Site) -> None:
    """Make eight hundred calls at once, which may cost forty times as much as there is, and do cost more than there is.

    Nothing is spent above it, and nothing below it is withheld, also after a restart.
    """
    gateway = await started(place, WORKERS)
    headers = [http.bearer(await place.make_key("anna", "--budget-usd", "1"))]
    answers = await storm(gateway, headers, "one")
    served = sum(answer.status == 200 for answer in answers)
    assert Counter(answer.status for answer in answers) == {200: served, 429: len(answers) - served}
    assert {answer.json()["error"]["code"] for answer in answers if answer.status == 429} == {"insufficient_quota"}
    cost = await spent(place, served)
    assert cost <= 1
    balance = await http.request(gateway.port, "GET", "/v1/dashboard/billing/usage", headers)
    assert Decimal(str(balance.json()["total_usage"])) == cost * 100
    assert await has_left(gateway, headers, 1 - cost)
    await place.stop(gateway)
    again = await started(place, WORKERS)
    assert await has_left(again, headers, 1 - await spent(place, served + 1))
    await place.stop(again)


@pytest.mark.parametrize("place", [(WORKERS,)], indirect=True)
async def test_a_dollar_is_a_dollar(place: Site) -> None:
    """However many workers spend it."""
    await spend_a_dollar(place)


async def test_a_dollar_is_a_dollar_in_postgresql(tmp_path: Path, upstream: FakeUpstream) -> None:
    """As in SQLite."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = await asyncio.to_thread(PostgresServer, found)
    try:
        url = server.url(await asyncio.to_thread(server.create))
        async with site(tmp_path, configuration(upstream, WORKERS), {"CHATGATE_DATABASE_URL": url}) as place:
            await spend_a_dollar(place)
    finally:
        await asyncio.to_thread(server.remove)


@pytest.mark.parametrize("place", [(FEWER_WORKERS,)], indirect=True)
async def test_a_worker_that_is_killed_gives_back_its_slots_and_no_money(place: Site, upstream: FakeUpstream) -> None:
    """Its slots are free at once, its unfinished calls are spent at their most, and what it did finish at its cost."""
    gateway = await started(place, FEWER_WORKERS)
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    room = most() * 7
    key = await place.make_key("anna", "--limit", "in_flight=4", "--budget-usd", str(room))
    headers = [http.bearer(key)]
    finished = await ask(gateway, headers, "one")
    upstream.on_model("one", waits)
    waiting = [asyncio.create_task(ask(gateway, headers, "one")) for _ in range(4)]
    await upstream.called(5)
    assert (await ask(gateway, headers, "one")).status == 429
    workers = [pid for pid in children(gateway) if name_of(pid) != COUNTING_NAME]
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    gone = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, Exception) for each in gone)
    assert finished.status == 200
    await gateway.logged("started", 2 * FEWER_WORKERS)
    tap.let(50)
    await served_again(gateway, headers, "one")
    cost = await spent(place, 6)
    assert Counter(row.state for row in await place.rows()) == {"settled": 2, "unknown": 4}
    assert await has_left(gateway, headers, room - cost)
    await place.stop(gateway)


@pytest.mark.parametrize(
    "place", [(FEWER_WORKERS, fleet.limit("key", 10_000), fleet.limit("global", 50, "in_flight"))], indirect=True
)
async def test_counting_goes_on_within_a_second_of_a_crash(place: Site) -> None:
    """Meanwhile calls are refused as 503 and none hangs; budgets know what was spent, and none is overspent."""
    gateway = await started(place, FEWER_WORKERS)
    room = Decimal(300)
    headers = [http.bearer(await place.make_key("anna", "--budget-usd", str(room)))]
    statuses: Counter[int] = Counter()
    is_over = False

    async def call_on() -> None:
        while not is_over:
            answer = await ask(gateway, headers, "one")
            statuses[answer.status] += 1
            if answer.status == 503:
                assert answer.json()["error"]["code"] == "overloaded"
                await asyncio.sleep(0.02)

    callers = [asyncio.create_task(call_on()) for _ in range(8)]
    for _ in range(2):
        await asyncio.sleep(0.3)
        dead = owner_of(gateway)
        os.kill(dead, signal.SIGKILL)
        await until(functools.partial(is_replaced, gateway, dead))
        await served_again(gateway, headers, "one")
        statuses[200] += 1
    is_over = True
    await asyncio.gather(*callers)
    assert set(statuses) <= {200, 429, 503}
    assert await has_left(gateway, headers, room - await spent(place, statuses[200]))
    assert "the process that counts limits ended by signal 9" in gateway.output()
    await place.stop(gateway)


@pytest.mark.parametrize("place", [(FEWER_WORKERS,)], indirect=True)
async def test_a_frozen_owner_delays_nobody_for_long(place: Site) -> None:
    """Who needs it is told 503, who does not is served; afterwards nothing is left of what was asked meanwhile."""
    gateway = await started(place, FEWER_WORKERS)
    limited = [http.bearer(await place.make_key("anna", "--limit", "in_flight=1", "--limit", "requests=100/minute"))]
    free = [http.bearer(await place.make_key("bert"))]
    assert (await ask(gateway, limited)).status == 200
    owner = owner_of(gateway)
    os.kill(owner, signal.SIGSTOP)
    try:
        refused = []
        for _ in range(20):
            began_at = time.monotonic()
            refused.append(await ask(gateway, limited))
            assert time.monotonic() - began_at < 2
            assert (await ask(gateway, free)).status == 200
        assert {answer.status for answer in refused} == {503}
        assert {answer.json()["error"]["code"] for answer in refused} == {"overloaded"}
        assert "limits" in refused[0].json()["error"]["message"]
        assert refused[0].header("retry-after") == "1"
    finally:
        os.kill(owner, signal.SIGCONT)
    # Each worker gives back what the owner took late for who had gone.
    left = ""
    async with asyncio.timeout(10):
        while left != "99":
            page = await http.request(gateway.port, "GET", "/v1/models", limited)
            left = page.header("x-ratelimit-remaining-requests") or ""
    answer = await served_again(gateway, limited)
    assert answer.header("x-ratelimit-remaining-requests") == "98"
    assert owner_of(gateway) == owner
    await place.stop(gateway)


@pytest.mark.parametrize(
    "place", [(FEWER_WORKERS, fleet.limit("global", 40), fleet.limit("model", 3, "in_flight"))], indirect=True
)
async def test_the_windows_of_an_owner_that_was_killed_go_on(place: Site, upstream: FakeUpstream) -> None:
    """Of forty calls in a minute, those that the dead have let in count, and so do those that are under way."""
    gateway = await started(place, FEWER_WORKERS)
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("one", *[waits] * 3)
    waiting = [asyncio.create_task(ask(gateway, model="one")) for _ in range(3)]
    await upstream.called(3)
    admitted = 3
    for _ in range(3):
        admitted += sum([(await ask(gateway)).status == 200 for _ in range(8)])
        dead = owner_of(gateway)
        os.kill(dead, signal.SIGKILL)
        await until(functools.partial(is_replaced, gateway, dead))
        answer = await served_again(gateway, ())
        admitted += 1
        assert answer.header("x-ratelimit-remaining-requests") == str(40 - admitted)
        refused = await ask(gateway, model="one")
        assert (refused.status, "at the same time" in refused.json()["error"]["message"]) == (429, True)
    answers = [await ask(gateway) for _ in range(20)]
    assert admitted + sum(answer.status == 200 for answer in answers) == 40
    tap.let(3)
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200] * 3
    await place.stop(gateway)
