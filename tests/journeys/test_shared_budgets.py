"""Budgets of owners and of all calls: what is let through at once, who counts, and what changes with the file."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from typing import Any

import pytest

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import Way
from fakes.upstream import Exchange, FakeUpstream, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

OPENAI: Way = ("openai", False)
ROOT = "test-admin-root-0123456789-0123456789"
TEXT, MAX_TOKENS = "three words here", 50
INPUT, OUTPUT = Decimal(2000), Decimal(10_000)


def most(way: Way) -> Decimal:
    """Return the upper bound of a call in dollars: a token for each byte of its body, and all that may be answered."""
    body = json.dumps(hearing.asking(way, TEXT, "one", max_tokens=MAX_TOKENS)).encode()
    return (INPUT * len(body) + OUTPUT * MAX_TOKENS) / 1_000_000


COST = (INPUT * 7 + OUTPUT * 3) / 1_000_000
"""What a call turns out to cost: seven tokens of input, and three words."""


def configuration(upstream: FakeUpstream, budgets: str, *, fallback: bool = False) -> str:
    """Return a configuration with budgets; with `fallback` a call may end at an upstream of the operator's own."""
    config = fleet.upstream("default", upstream.base_url, api_key="sk-test-operator")
    config += fleet.upstream("second", upstream.base_url)
    config += fleet.model("one", [fleet.target("default", "one")], fallbacks=["spare"] if fallback else [])
    config += fleet.model("spare", [fleet.target("second", "one")])
    config += fleet.price("one", INPUT, OUTPUT)
    return config + budgets


def budget(scope: str, amount: Decimal, per: str = "month", **more: object) -> str:
    """Return an item of `[[budgets]]`."""
    return fleet.table("budgets", {"scope": scope, "amount_usd": str(amount), "per": per, **more})


async def make(gateway: Gateway, owner: str = "") -> http.Headers:
    """Make a key, and return the header that shows it."""
    value = {"name": "anna", "owner": owner}
    made = await http.post_json(gateway.port, "/admin/api/v1/keys", value, [http.bearer(ROOT)])
    return [http.bearer(made.json()["key"])]


async def ask(gateway: Gateway, headers: http.Headers, way: Way = OPENAI) -> hearing.Heard:
    """Make a call."""
    return await hearing.ask(gateway.port, way, TEXT, "one", headers=headers, max_tokens=MAX_TOKENS)


async def usage(gateway: Gateway) -> Any:
    """Return what was used, in one group."""
    path = "/admin/api/v1/usage?by="
    return (await http.request(gateway.port, "GET", path, [http.bearer(ROOT)])).json()["data"]


async def becomes(gateway: Gateway, headers: http.Headers, code: str) -> None:
    """Wait until a call ends so: a changed file is heard of within two seconds."""
    deadline = time.monotonic() + 5
    while (heard := await ask(gateway, headers)).code != code:
        assert time.monotonic() < deadline, heard.body
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("way", [OPENAI, ("plain", True)])
@pytest.mark.parametrize("scope", ["owner", "global"])
async def test_room_for_ten_admits_ten_of_fifty(
    upstream: FakeUpstream, start_gateway: StartGateway, scope: str, way: Way
) -> None:
    """Fifty calls at once, with five keys of one owner or with none at all: ten are made, and forty refused."""
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    upstream.on_model("one", waits)
    room = most(way) * 10 + Decimal("0.000000001")
    whose = {"owner": "alice"} if scope == "owner" else {}
    config = '[server]\nroute = "api"\n' + configuration(upstream, budget(scope, room, **whose))
    gateway = await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, config)
    keys = [await make(gateway, "alice") for _ in range(5)] if scope == "owner" else [[]]
    calls = [asyncio.create_task(ask(gateway, keys[number % len(keys)], way)) for number in range(50)]
    await upstream.called(10)
    deadline = time.monotonic() + 5
    while sum(call.done() for call in calls) < 40:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert len(upstream.calls) == 10
    tap.let(50)
    heard = await asyncio.gather(*calls)
    assert sum(each.is_whole for each in heard) == len(upstream.calls) == 10
    refused = [each for each in heard if not each.is_whole]
    assert {(each.head.status, each.code) for each in refused} == {(429, "insufficient_quota")}
    assert {each.head.header("x-should-retry") for each in refused} == {"false"}
    assert all((str(room) in each.message) is (scope == "owner") for each in refused)
    assert (await ask(gateway, keys[0], way)).is_whole


async def test_another_owner_has_another_budget(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """Who owns no key with a budget spends on; the tightest of those that hold decides."""
    room = most(OPENAI)
    budgets = budget("owner", room, owner="alice") + budget("global", room + 3 * COST, "ever")
    gateway = await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, configuration(upstream, budgets))
    alice, bob = await make(gateway, "alice"), await make(gateway, "bob")
    assert (await ask(gateway, alice)).is_whole
    assert (await ask(gateway, alice)).code == "insufficient_quota"
    for headers in (bob, await make(gateway), []):
        assert (await ask(gateway, headers)).is_whole
    assert (await ask(gateway, bob)).code == "insufficient_quota"


@pytest.mark.parametrize("fallback", [False, True])
async def test_who_pays_the_provider_spends_nothing_here(
    upstream: FakeUpstream, start_gateway: StartGateway, *, fallback: bool
) -> None:
    """A call by the caller's own key is no money of the operator's, unless it may end at another upstream."""
    config = configuration(upstream, budget("global", most(OPENAI) + COST), fallback=fallback)
    gateway = await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, config)
    own: http.Headers = [http.bearer("sk-test-their-own-key")]
    codes = [(await ask(gateway, own)).code for _ in range(4)]
    assert codes == (["", "", "insufficient_quota", "insufficient_quota"] if fallback else [""] * 4)
    assert [call.header("authorization") for call in upstream.calls] == ["Bearer sk-test-their-own-key"] * len(
        upstream.calls
    )
    if not fallback:
        assert [(await ask(gateway, [])).code for _ in range(3)] == ["", "", "insufficient_quota"]
    calls = len(upstream.calls)
    deadline = time.monotonic() + 5
    while not (groups := (await usage(gateway))) or groups[0]["calls"] < calls:
        assert time.monotonic() < deadline, groups
        await asyncio.sleep(0.1)
    theirs = 2 if fallback else 4
    assert (groups[0]["calls"], groups[0]["own_key_calls"]) == (calls, theirs)
    assert Decimal(groups[0]["own_key_usd"]) == theirs * COST


async def test_a_changed_file_changes_budgets(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """While the gateway runs: raised, lowered, taken away; what was spent stays spent."""
    room = most(OPENAI)
    gateway = await start_gateway(
        {"CHATGATE_ADMIN_KEY": ROOT}, configuration(upstream, budget("owner", room, owner="alice"))
    )
    file = gateway.directory / "chatgate.toml"
    alice = await make(gateway, "alice")
    assert (await ask(gateway, alice)).is_whole
    assert (await ask(gateway, alice)).code == "insufficient_quota"
    file.write_text(configuration(upstream, budget("owner", room + COST, owner="alice")))
    await becomes(gateway, alice, "")
    assert (await ask(gateway, alice)).code == "insufficient_quota"
    file.write_text(configuration(upstream, ""))
    await becomes(gateway, alice, "")
    file.write_text(configuration(upstream, budget("owner", room - COST, owner="alice")))
    await becomes(gateway, alice, "insufficient_quota")


async def test_a_budget_made_late_counts_what_was_spent(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """Of a key by the very next call, of all by the file that is read again: money from before is not there again."""
    gateway = await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, configuration(upstream, ""))
    headers = await make(gateway)
    for _ in range(3):
        assert (await ask(gateway, headers)).is_whole
    deadline = time.monotonic() + 5
    while not (groups := (await usage(gateway))) or groups[0]["calls"] < 3:
        assert time.monotonic() < deadline, groups
        await asyncio.sleep(0.1)
    ((_, shown),) = headers
    key = shown.split("-")[2]
    budgets = [{"amount_usd": str(most(OPENAI) + 3 * COST)}]
    body = json.dumps({"budgets": budgets}).encode()
    path = f"/admin/api/v1/keys/{key}"
    assert (await http.request(gateway.port, "PATCH", path, [http.bearer(ROOT), http.JSON], body)).status == 200
    assert (await ask(gateway, headers)).is_whole
    assert (await ask(gateway, headers)).code == "insufficient_quota"
    (gateway.directory / "chatgate.toml").write_text(
        configuration(upstream, budget("global", most(OPENAI) + 3 * COST, "day"))
    )
    await gateway.logged("reloaded")
    # Within a second, the documents say; a call made before would be let in.
    await asyncio.sleep(1)
    assert (await ask(gateway, [])).code == "insufficient_quota"


async def test_a_threshold_is_told_once(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """With whose budget it is; where the file says 0, never."""
    budgets = budget("owner", most(OPENAI) * 2, owner="alice", warn_at_percent=50)
    budgets += budget("global", most(OPENAI) * 2, warn_at_percent=0)
    gateway = await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, configuration(upstream, budgets))
    alice = await make(gateway, "alice")
    for _ in range(3):
        assert (await ask(gateway, alice)).is_whole
    (line,) = await gateway.logged("budget_warning")
    assert (line["scope"], line["subject"], line["per"], line["percent"]) == ("owner", "alice", "month", 50)
