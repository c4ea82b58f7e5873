"""Balances: what a chat app is told of what its key may spend and has spent."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.place import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

SUBSCRIPTION = "/v1/dashboard/billing/subscription"
USAGE = "/v1/dashboard/billing/usage"
FOLDED_SECONDS = 5.0
"""So soon what was spent is in the database, with time to spare for a busy machine."""

CONFIG = """
[[prices]]
model = "demo/echo"
input_usd_per_million = "2000"
output_usd_per_million = "10000"
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose demo model costs money."""
    return await start_gateway(config=CONFIG)


async def ask(gateway: Gateway, path: str, headers: http.Headers = ()) -> Any:
    """Return what an app is told, its numbers exact."""
    answer = await http.request(gateway.port, "GET", path, headers)
    assert answer.status == 200, answer.body
    return json.loads(answer.body, parse_float=Decimal, parse_int=Decimal)


async def spend(gateway: Gateway, key_id: str, headers: http.Headers) -> Decimal:
    """Make a call, and return what the key has cost in dollars once that is in the database."""
    chat = http.chat("What is left?", model="demo/echo", max_tokens=50)
    answer = await http.post_json(gateway.port, "/v1/chat/completions", chat, headers)
    assert answer.status == 200, answer.body
    deadline = time.monotonic() + FOLDED_SECONDS
    while True:
        found = Place(gateway).usage(key_id)
        if found is not None:
            return Decimal(found["cost_usd"])
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_an_app_shows_what_its_key_may_spend_and_has_spent(gateway: Gateway) -> None:
    """The numbers are those of the ledger, on every path that apps make of a base URL."""
    key_id, headers = Place(gateway).create("--budget-usd", "5.5", "--warn-at", "80")
    assert (await ask(gateway, USAGE, headers))["total_usage"] == 0
    spent = await spend(gateway, key_id, headers)
    assert spent > 0
    now = datetime.now(UTC)
    # As NextChat asks: from the first of the month to tomorrow.
    query = f"?start_date={now:%Y-%m-01}&end_date={now + timedelta(days=1):%Y-%m-%d}"
    for prefix in ("/v1", "", "/v1/v1"):
        told = await ask(gateway, f"{prefix}/dashboard/billing/subscription", headers)
        assert (told["hard_limit_usd"], told["soft_limit_usd"]) == (Decimal("5.5"), Decimal("4.4"))
        assert told["access_until"] == 0
        assert (await ask(gateway, f"{prefix}/dashboard/billing/usage{query}", headers))["total_usage"] == spent * 100


async def test_only_the_days_that_were_asked_for_count(gateway: Gateway) -> None:
    """Today is in what ends today, and yesterday had nothing."""
    key_id, headers = Place(gateway).create()
    spent = await spend(gateway, key_id, headers)
    today = datetime.now(UTC).date()
    yesterday, tomorrow = today - timedelta(days=1), today + timedelta(days=1)
    for query, cents in {
        f"start_date={yesterday}&end_date={tomorrow}": spent * 100,
        f"start_date={yesterday}": spent * 100,
        f"end_date={yesterday - timedelta(days=1)}": 0,
        f"start_date={tomorrow + timedelta(days=1)}": 0,
        "end_date=9999-12-31": spent * 100,
        "": spent * 100,
    }.items():
        assert (await ask(gateway, f"{USAGE}?{query}", headers))["total_usage"] == cents, query
    refused = await http.request(gateway.port, "GET", f"{USAGE}?start_date=soon", headers)
    assert (refused.status, refused.json()["error"]["param"]) == (400, "start_date")


async def test_of_several_budgets_the_one_with_the_least_left_is_told(gateway: Gateway) -> None:
    """What was spent is told for the same one, and so is the key's end."""
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    budgets = ["--budget-usd", "9", "--per", "day", "--budget-usd", "3", "--per", "ever"]
    key_id, headers = Place(gateway).create(*budgets, "--expires", end.isoformat())
    told = await ask(gateway, SUBSCRIPTION, headers)
    assert (told["hard_limit_usd"], told["access_until"]) == (3, int(end.timestamp()))
    spent = await spend(gateway, key_id, headers)
    assert (await ask(gateway, USAGE, headers))["total_usage"] == spent * 100


async def test_without_a_budget_there_is_no_end_to_it(gateway: Gateway) -> None:
    """Neither for a key without one, nor for who has no key of the gateway, and nothing is spent then."""
    _, headers = Place(gateway).create()
    for shown in (headers, [], [http.bearer("sk-test-of-the-caller")]):
        assert (await ask(gateway, SUBSCRIPTION, shown))["hard_limit_usd"] == 100_000_000
        assert await ask(gateway, USAGE, shown) == {"object": "list", "total_usage": 0}


async def test_nobody_learns_of_another_keys_money(gateway: Gateway) -> None:
    """A key that opens nothing is told so, and each key sees its own calls only."""
    key_id, headers = Place(gateway).create()
    _, others = Place(gateway).create()
    assert await spend(gateway, key_id, headers) > 0
    assert (await ask(gateway, USAGE, others))["total_usage"] == 0
    unknown = [http.bearer("sk-cg-0000000000A-" + "0" * 49)]
    for path in (SUBSCRIPTION, USAGE):
        refused = await http.request(gateway.port, "GET", path, unknown)
        assert (refused.status, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert (await http.request(gateway.port, "POST", path, headers)).status == 405


async def test_a_closed_gateway_tells_strangers_nothing(start_gateway: StartGateway) -> None:
    """Where a key is required it is required here."""
    gateway = await start_gateway(config="[access]\nanonymous = false\n")
    for path in (SUBSCRIPTION, USAGE):
        assert (await http.request(gateway.port, "GET", path)).status == 401
