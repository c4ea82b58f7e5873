"""Budgets of keys: what is let through, what it costs in the end, and that nothing forgets it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes import place as place_of
from fakes.gateway import Gateway, StartGateway, running
from fakes.hearing import WAYS, Way
from fakes.upstream import Call, Exchange, FakeUpstream, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

OPENAI: Way = ("openai", False)
STREAM: Way = ("openai", True)
PLAIN: Way = ("plain", False)
CHAT = "/v1/chat/completions"
FOLDED_SECONDS = 5.0
"""So soon what was journalled is in the database, with time to spare for a busy machine."""

INPUT, OUTPUT = Decimal(2000), Decimal(10_000)
"""What a million tokens cost, in dollars: so much that a single call is worth a look."""

CONFIG = """
[server]
route = "api"
[streams]
on_disconnect = "cancel"
""" + fleet.QUICK.replace("idle_seconds = 1", "idle_seconds = 20").replace(
    "first_token_seconds = 1", "first_token_seconds = 5"
)

NAMES = ("one", "two", "slow", "left", "unanswered", "silent", "odd", "waiting")


def cost(input_tokens: int, output_tokens: int) -> Decimal:
    """Return the dollars that so many tokens cost."""
    return (INPUT * input_tokens + OUTPUT * output_tokens) / 1_000_000


def most(way: Way, text: str, model: str, max_tokens: int) -> Decimal:
    """Return the upper bound of a call: a token for each byte of its body, and all that may be answered."""
    body = json.dumps(hearing.asking(way, text, model, max_tokens=max_tokens)).encode()
    return cost(len(body), max_tokens)


def priced(name: str) -> str:
    """Return a price."""
    return fleet.price(name, INPUT, OUTPUT)


def configuration(first: str, second: str) -> str:
    """Return a configuration whose models are at the first upstream, `pair` also at the second."""
    config = CONFIG + fleet.upstream("default", first)
    for name in NAMES:
        config += fleet.model(name, [fleet.target("default", name)]) + priced(name)
    config += fleet.pair("pair", first, second) + priced("pair-a") + priced("pair-b")
    return config + fleet.model("unpriced", [fleet.target("default", "unpriced-sent")])


class Place(place_of.Place):
    """A gateway, and the commands that an operator types beside it."""

    async def settled(self, key: str, calls: int) -> dict[str, Any]:
        """Return what `usage` says of a key as soon as it says that many calls; the audit agrees."""
        deadline = time.monotonic() + FOLDED_SECONDS
        while (said := self.usage(key) or {"calls": 0})["calls"] < calls:
            assert time.monotonic() < deadline, said
            await asyncio.sleep(0.1)
        assert said["calls"] == calls
        assert self.run("audit").splitlines()[-1] == "drift 0"
        return said


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Place:
    """Run a gateway with prices."""
    return Place(await start_gateway({}, configuration(upstream_of_file.base_url, other_of_file.base_url)))


def counted(*calls: Call) -> Decimal:
    """Return what calls cost as the fake provider counts: 7 tokens, and one for each word that it repeats."""
    return sum((cost(7, len(call.json()["messages"][-1]["content"].split())) for call in calls), Decimal(0))


@pytest.mark.parametrize("way", WAYS)
async def test_room_for_ten_admits_ten_of_fifty(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Fifty calls at once on money for ten of the largest: ten are made, forty learn that the budget is spent."""
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("one", waits)
    text = "three words here"
    room = most(way, text, "one", 50) * 10 + Decimal("0.000000001")
    key, headers = place.create("--budget-usd", str(room), "--per", "month")
    calls = [
        asyncio.create_task(hearing.ask(place.port, way, text, "one", headers=headers, max_tokens=50))
        for _ in range(50)
    ]
    await upstream.called(10)
    deadline = time.monotonic() + 5
    while sum(call.done() for call in calls) < 40:
        assert time.monotonic() < deadline, [call.result().body for call in calls if call.done()][:1]
        await asyncio.sleep(0.01)
    assert len(upstream.calls) == 10
    tap.let(50)
    heard = await asyncio.gather(*calls)
    assert sum(each.is_whole for each in heard) == len(upstream.calls) == 10
    for each in heard:
        if not each.is_whole:
            assert (each.head.status, each.code) == (429, "insufficient_quota")
            assert each.head.header("x-should-retry") == "false"
            assert each.head.header("retry-after") is None
    said = await place.settled(key, 10)
    assert Decimal(said["cost_usd"]) == counted(*upstream.calls)
    # What was held and not used is there again.
    again = await hearing.ask(place.port, way, text, "one", headers=headers, max_tokens=50)
    assert again.is_whole


async def test_a_spent_budget_is_said_in_the_shape_of_the_surface(place: Place, upstream: FakeUpstream) -> None:
    """429, `insufficient_quota`, no wait, and words that name the budget, in the caller's language."""
    _, headers = place.create("--budget-usd", "0.01", "--per", "day")
    refused = await http.post_json(place.port, CHAT, http.chat("Hi", "one", max_tokens=100), headers)
    assert refused.status == 429
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
    assert "0.01" in error["message"]
    assert refused.header("x-should-retry") == "false"
    for wish, letters in (("zh-CN", "预算"), ("zh-TW", "預算"), ("ru", "бюджета")):
        spoken = [*headers, ("Accept-Language", wish)]
        for way in (OPENAI, PLAIN):
            heard = await hearing.ask(place.port, way, "Hi", "one", headers=spoken, max_tokens=100)
            assert (heard.head.status, heard.code) == (429, "insufficient_quota")
            assert letters in heard.message
    assert upstream.calls == []


async def test_what_nobody_knows_the_price_of_is_not_free(place: Place, upstream: FakeUpstream) -> None:
    """With a budget a model without a price is refused; without one it is served."""
    _, headers = place.create("--budget-usd", "5")
    for way in WAYS:
        heard = await hearing.ask(place.port, way, "Hi", "unpriced", headers=headers)
        assert (heard.head.status, heard.code) == (403, "permission_denied")
        assert "unpriced" in heard.message
        assert "price" in heard.message
    assert upstream.calls == []
    _, headers = place.create()
    assert (await hearing.ask(place.port, OPENAI, "Hi", "unpriced", headers=headers)).is_whole


async def test_the_demo_models_with_a_budget(place: Place) -> None:
    """They cost nothing, so a budget is no reason to refuse them."""
    _, headers = place.create("--budget-usd", "0.000000001")
    heard = await hearing.ask(place.port, OPENAI, "Hi", "demo/echo", headers=headers)
    assert heard.is_whole, heard.body


@pytest.mark.parametrize("way", WAYS)
async def test_a_call_costs_what_the_provider_counted(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """The bound is only held: a budget for one of the largest calls is good for many, until their true sum is there."""
    text = "a b c"
    true, bound = cost(7, 3), most(way, text, "two", 20)
    key, headers = place.create("--budget-usd", str(bound + 3 * true))
    for _ in range(4):
        assert (await hearing.ask(place.port, way, text, "two", headers=headers, max_tokens=20)).is_whole
    heard = await hearing.ask(place.port, way, text, "two", headers=headers, max_tokens=20)
    assert heard.code == "insufficient_quota"
    said = await place.settled(key, 4)
    assert (said["input_tokens"], said["output_tokens"]) == (28, 12)
    assert Decimal(said["cost_usd"]) == 4 * true == counted(*upstream.calls)


@pytest.mark.parametrize("way", WAYS)
async def test_a_failed_attempt_costs_nothing(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Whoever answers is paid once; where nobody does, nothing is, and all of the budget is there again."""
    bound = most(way, "Hi", "pair", 20)
    key, headers = place.create("--budget-usd", str(bound + cost(7, 1)))
    down = scripts.whole(scripts.error_body("down", kind="server_error"), 500, [("x-should-retry", "false")])
    upstream.on_model("pair-a", down)
    for _ in range(2):
        heard = await hearing.ask(place.port, way, "Hi", "pair", headers=headers, max_tokens=20)
        assert heard.text == "Hi", heard.body
    said = await place.settled(key, 2)
    assert Decimal(said["cost_usd"]) == 2 * cost(7, 1)
    key, headers = place.create("--budget-usd", str(most(way, "Hi", "odd", 20)))
    refusal = scripts.whole(scripts.error_body("No."), 400)
    upstream.on_model("odd", refusal, refusal, refusal, scripts.provider)
    for _ in range(3):
        heard = await hearing.ask(place.port, way, "Hi", "odd", headers=headers, max_tokens=20)
        assert heard.code, heard.body
        assert heard.code != "insufficient_quota"
    assert (await hearing.ask(place.port, way, "Hi", "odd", headers=headers, max_tokens=20)).is_whole
    said = await place.settled(key, 4)
    assert Decimal(said["cost_usd"]) == cost(7, 1)


async def leave(place: Place, way: Way, model: str, headers: http.Headers, upstream: FakeUpstream, words: str) -> int:
    """Call and leave, once some words have come or at once; return how many bytes were asked."""
    calls = len(upstream.calls)
    body = json.dumps(hearing.asking(way, "Count", model, max_tokens=50)).encode()
    async with await http.connect(place.port) as connection:
        connection.send(http.request_bytes("POST", hearing.PATHS[way[0]], [http.JSON, *headers], body))
        await upstream.called(calls + 1)
        if words:
            await http.Stream(connection, await connection.read_head()).until(words.encode())
    return len(body)


@pytest.mark.parametrize("surface", ["openai", "plain"])
async def test_who_leaves_pays_for_what_was_produced(
    place: Place, upstream: FakeUpstream, surface: hearing.Surface
) -> None:
    """More than nothing, and less than all that might have come: the question, and the words that were said."""
    tap = Tap(4)
    upstream.on_model("left", scripts.stream(scripts.told("aaaa bbbb cccc " + "dddd " * 40, by="a"), tap=tap))
    key, headers = place.create("--budget-usd", "100")
    sent_bytes = await leave(place, (surface, True), "left", headers, upstream, "cccc")
    await upstream.last_call()
    said = await place.settled(key, 1)
    # An estimate, four bytes a token, of what was asked and of `aaaa bbbb cccc`.
    assert said["input_tokens"] <= -(-sent_bytes // 4)
    assert 3 <= said["output_tokens"] <= 5
    assert Decimal(said["cost_usd"]) == cost(said["input_tokens"], said["output_tokens"])


async def test_who_leaves_between_two_tries_pays_nothing(place: Place, upstream: FakeUpstream) -> None:
    """A try that failed is not billed, also when its caller has no patience for the next one."""
    busy = scripts.whole(scripts.error_body("busy", kind="server_error"), 503, [("Retry-After", "3")])
    upstream.on_model("waiting", busy)
    key, headers = place.create("--budget-usd", "100")
    body = json.dumps(hearing.asking(OPENAI, "Count", "waiting", max_tokens=50)).encode()
    async with await http.connect(place.port) as connection:
        connection.send(http.request_bytes("POST", CHAT, [http.JSON, *headers], body))
        await upstream.called()
        await upstream.last_call()
        await asyncio.sleep(0.1)
    said = await place.settled(key, 1)
    assert (len(upstream.calls), said["cost_usd"]) == (1, "0")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def draining(upstream_of_file: FakeUpstream, other_of_file: FakeUpstream, start_gateway: StartGateway) -> Place:
    """Run a gateway that reads on for those who left."""
    config = configuration(upstream_of_file.base_url, other_of_file.base_url)
    return Place(await start_gateway({}, config.replace('"cancel"', '"drain"')))


@pytest.mark.parametrize("way", WAYS)
async def test_who_leaves_pays_the_providers_count_where_it_is_read(
    draining: Place, upstream: FakeUpstream, way: Way
) -> None:
    """With `on_disconnect = "drain"` the whole of the answer is counted, and no estimate is made."""
    tap = Tap(3 if way[1] else 0)

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.whole(scripts.completion("one two three"))(exchange)

    upstream.on_model(
        "left", scripts.stream(scripts.told("one two three", by="a", usage=True), tap=tap) if way[1] else waits
    )
    key, headers = draining.create("--budget-usd", "100")
    await leave(draining, way, "left", headers, upstream, "one" if way[1] else "")
    tap.let(20)
    said = await draining.settled(key, 1)
    assert (said["input_tokens"], said["output_tokens"]) == (7, 3)
    assert Decimal(said["cost_usd"]) == cost(7, 3)
    assert upstream.calls[0].ended == "answered"


async def test_who_leaves_pays_nothing_for_an_answer_that_never_came(draining: Place, upstream: FakeUpstream) -> None:
    """The provider failed after its caller had left: that is nobody's bill."""
    tap = Tap()

    async def fails(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.whole(scripts.error_body("No."), 400)(exchange)

    upstream.on_model("odd", fails)
    key, headers = draining.create("--budget-usd", "100")
    await leave(draining, OPENAI, "odd", headers, upstream, "")
    tap.let()
    said = await draining.settled(key, 1)
    assert said["cost_usd"] == "0"


@pytest.mark.parametrize("way", WAYS)
async def test_without_a_count_the_words_are_estimated(place: Place, upstream: FakeUpstream, way: Way) -> None:
    """Four bytes of what the model said are a token: neither what wraps it nor the history is its work."""
    whole = scripts.completion("Hello you two")
    del whole["usage"]
    script = scripts.stream(scripts.told("Hello you two", by="a")) if way[1] else scripts.whole(whole)
    upstream.on_model("odd", script)
    key, headers = place.create("--budget-usd", "1000")
    body = hearing.asking(way, "Hi", "odd", max_tokens=20)
    response = await http.post_json(place.port, hearing.PATHS[way[0]], body, headers)
    assert response.status == 200
    said = await place.settled(key, 1)
    assert 3 <= said["output_tokens"] <= 5


async def test_other_prices_count_from_the_reload_on(
    upstream: FakeUpstream, other: FakeUpstream, start_gateway: StartGateway
) -> None:
    """A price that the operator writes into the file is charged as soon as that is read."""
    place = Place(await start_gateway({}, configuration(upstream.base_url, other.base_url)))
    key, headers = place.create("--budget-usd", "1000")
    assert (await hearing.ask(place.port, STREAM, "Hi", "unpriced", headers=headers, max_tokens=10)).code
    file = place.gateway.directory / "chatgate.toml"
    file.write_text(file.read_text() + priced("unpriced"))
    await place.gateway.logged("reloaded")
    assert (await hearing.ask(place.port, STREAM, "Hi", "unpriced", headers=headers, max_tokens=10)).is_whole
    said = await place.settled(key, 1)
    assert Decimal(said["cost_usd"]) == cost(7, 1)


async def test_a_changed_budget_takes_effect(place: Place, upstream: FakeUpstream) -> None:
    """`keys update` opens and closes it while the gateway runs; what was spent stays spent."""
    key, headers = place.create("--budget-usd", "0.000001")

    async def becomes(code: str) -> None:
        deadline = time.monotonic() + 2
        while (
            heard := await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
        ).code != code:
            assert time.monotonic() < deadline, heard.body
            await asyncio.sleep(0.05)

    await becomes("insufficient_quota")
    place.run("keys", "update", key, "--budget-usd", "50")
    await becomes("")
    calls = len(upstream.calls)
    assert calls == 1
    place.run("keys", "update", key, "--budget-usd", str(cost(7, 1) + most(OPENAI, "Hi", "one", 10) - Decimal("1e-9")))
    await becomes("insufficient_quota")
    place.run("keys", "update", key, "--budget-usd", "none")
    await becomes("")
    said = await place.settled(key, len(upstream.calls))
    assert Decimal(said["cost_usd"]) == counted(*upstream.calls)


async def test_several_budgets_hold_together(place: Place) -> None:
    """The tighter of two periods decides, and a refusal takes nothing of the other."""
    bound = most(OPENAI, "Hi", "one", 10)
    options = ("--budget-usd", str(bound), "--per", "day", "--budget-usd", "90", "--per", "ever")
    key, headers = place.create(*options)
    assert (await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)).is_whole
    for _ in range(3):
        heard = await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
        assert heard.code == "insufficient_quota"
    place.run(
        "keys",
        "update",
        key,
        "--budget-usd",
        str(2 * bound),
        "--per",
        "day",
        "--budget-usd",
        str(bound + cost(7, 1)),
        "--per",
        "ever",
    )
    deadline = time.monotonic() + 2
    while not (heard := await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)).is_whole:
        assert time.monotonic() < deadline, heard.body
        await asyncio.sleep(0.05)
    said = await place.settled(key, 2)
    assert Decimal(said["cost_usd"]) == 2 * cost(7, 1)


async def test_usage_is_what_the_upstream_counted(place: Place, upstream: FakeUpstream) -> None:
    """For every key and model, whole or streamed, `chatgate usage` has the provider's own sums, to the last digit."""
    chance = random.Random(5)
    shown = dict(place.create() for _ in range(3))
    asked: dict[tuple[str, str], list[int]] = {}

    async def call(key: str, model: str, words: int) -> None:
        text = " ".join(["word"] * words)
        heard = await hearing.ask(place.port, chance.choice(WAYS), text, model, headers=shown[key], max_tokens=50)
        assert heard.is_whole

    for _ in range(60):
        key, model, words = chance.choice(list(shown)), chance.choice(["one", "two"]), chance.randint(1, 9)
        asked.setdefault((key, model), []).append(words)
    await asyncio.gather(*(call(*which, words) for which, each in asked.items() for words in each))
    assert len(upstream.calls) == 60
    for key in shown:
        await place.settled(key, sum(len(words) for (who, _), words in asked.items() if who == key))
    groups = {(group["key"], group["model"]): group for group in json.loads(place.run("usage", "--json"))}
    for which, each in asked.items():
        said = groups[which]
        assert (said["calls"], said["input_tokens"], said["output_tokens"]) == (len(each), 7 * len(each), sum(each))
        assert Decimal(said["cost_usd"]) == cost(7 * len(each), sum(each))


async def test_a_soft_threshold_is_told_once(place: Place) -> None:
    """The log warns when a budget has come to its share, and not again."""
    bound = most(OPENAI, "Hi", "one", 10)
    key, headers = place.create("--budget-usd", str(bound * 2), "--warn-at", "50")
    for _ in range(3):
        await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
    lines = await place.gateway.logged("budget_warning", subject=key)
    await asyncio.sleep(0.2)
    assert len(await place.gateway.logged("budget_warning", subject=key)) == len(lines) == 1


async def test_what_was_spent_survives_a_restart(upstream: FakeUpstream, other: FakeUpstream) -> None:
    """A gateway that starts on the data of another one lets nobody spend twice, and answers at once."""
    config = configuration(upstream.base_url, other.base_url)
    bound = most(OPENAI, "Hi", "one", 10)
    async with running({}, config) as gateway:
        place = Place(gateway)
        key, headers = place.create("--budget-usd", str(bound + cost(7, 1)))
        for _ in range(2):
            assert (await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)).is_whole
        heard = await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
        assert heard.code == "insufficient_quota"
        await gateway.stop_now()
        assert await gateway.ended() == 0
        process = subprocess.Popen(  # noqa: ASYNC220
            [
                sys.executable,
                "-m",
                "chatgate",
                "serve",
                "--host",
                "127.0.0.1",
                "--port",
                str(gateway.port),
                "--data",
                str(gateway.directory / "data"),
                "--config",
                str(gateway.directory / "chatgate.toml"),
            ],
            cwd=gateway.directory,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        again = Place(Gateway(process, gateway.port, gateway.directory))
        try:
            await again.gateway._ready()
            heard = await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
            assert (heard.head.status, heard.code) == (429, "insufficient_quota"), heard.body
            place.run("keys", "update", key, "--budget-usd", str(bound + 2 * cost(7, 1)))
            deadline = time.monotonic() + 2
            while not (
                heard := await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
            ).is_whole:
                assert time.monotonic() < deadline, heard.body
                await asyncio.sleep(0.05)
            heard = await hearing.ask(place.port, OPENAI, "Hi", "one", headers=headers, max_tokens=10)
            assert heard.code == "insufficient_quota"
            said = await again.settled(key, 3)
            assert Decimal(said["cost_usd"]) == counted(*upstream.calls) == 3 * cost(7, 1)
        finally:
            await again.gateway.stop_now()
            assert await again.gateway.ended() == 0
