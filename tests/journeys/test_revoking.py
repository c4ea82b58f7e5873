"""Keys that are taken away while calls are under way: these end too, honestly, soon, and at their true cost."""

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
from fakes.upstream import Call, Exchange, FakeUpstream, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

ROOT = "test-admin-root-0123456789-0123456789"
KEYS = "/admin/api/v1/keys"
SOON_SECONDS = 5.0
"""So soon a revocation has to act everywhere, whoever made it."""

WORDS = "word " * 60


class Place(place_of.Place):
    """A gateway, and both ways to manage its keys."""

    async def make(self, **fields: Any) -> tuple[str, http.Headers]:
        """Make a key; return its id, and the header that shows it."""
        made = (await self.admin("POST", "", {"name": "anna", **fields})).json()
        return made["id"], [http.bearer(made["key"])]

    async def admin(self, method: str, path: str, value: Any = None) -> http.Response:
        """Ask the admin API."""
        body = b"" if value is None else json.dumps(value).encode()
        return await http.request(self.port, method, KEYS + path, [http.bearer(ROOT), http.JSON], body)

    async def take_away(self, key: str, how: str) -> None:
        """End a key in one of the ways there are."""
        match how:
            case "revoked over HTTP":
                assert (await self.admin("POST", f"/{key}/revoke")).status == 200
            case "replaced over HTTP":
                assert (await self.admin("POST", f"/{key}/rotate")).status == 200
            case "disabled over HTTP":
                assert (await self.admin("PATCH", f"/{key}", {"enabled": False})).status == 200
            case _:
                await asyncio.to_thread(self.run, "keys", "revoke", key)

    async def charged(self, key: str) -> dict[str, Any]:
        """Return what `usage` says of a key as soon as it knows of a call; the audit agrees."""
        deadline = time.monotonic() + 5
        while (found := self.usage(key)) is None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert self.run("audit").splitlines()[-1] == "drift 0"
        return found


def configuration(upstream: FakeUpstream, on_disconnect: str) -> str:
    """Return a configuration with a model that costs a dollar a token."""
    config = f'[access]\nanonymous = false\n[server]\nroute = "api"\n[streams]\non_disconnect = "{on_disconnect}"\n'
    config += fleet.upstream("default", upstream.base_url)
    config += fleet.model("one", [fleet.target("default", "one")])
    return config + fleet.price("one", 1_000_000, 1_000_000)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["cancel", "drain"])
async def place(request: pytest.FixtureRequest, upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Place:
    """Run a gateway, whatever it does with answers whose callers left."""
    config = configuration(upstream_of_file, request.param)
    return Place(await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, config))


async def upstream_left(upstream: FakeUpstream) -> Call:
    """Return the call upstream once the gateway has left it."""
    call = await upstream.last_call()
    assert call.ended == "gateway_left"
    return call


@pytest.mark.parametrize("surface", ["openai", "plain"])
@pytest.mark.parametrize(
    ("how", "word"),
    [
        ("revoked over HTTP", "revoked"),
        ("replaced over HTTP", "secret"),
        ("disabled over HTTP", "switched off"),
        ("revoked by the command", "revoked"),
    ],
)
async def test_a_stream_ends_with_its_key(
    place: Place, upstream: FakeUpstream, surface: hearing.Surface, how: str, word: str
) -> None:
    """By an error event and without the end mark; the provider is left, and what was said is charged."""
    key, headers = await place.make()
    upstream.on_model("one", scripts.stream(scripts.told(WORDS, by="a"), tap=Tap(12)))
    body = hearing.asking((surface, True), "Count", "one", max_tokens=100)
    began_at = time.monotonic()
    async with http.open_stream(place.port, hearing.PATHS[surface], body, headers) as stream:
        await stream.until(b"word")
        await place.take_away(key, how)
        heard = hearing.judged(surface, stream.head, await stream.rest())
    assert time.monotonic() - began_at < SOON_SECONDS
    assert (heard.is_whole, heard.code) == (False, "invalid_api_key")
    assert word in heard.message
    assert b"[DONE]" not in heard.body
    await upstream_left(upstream)
    (line,) = await place.gateway.logged("call", key=key)
    assert (line["outcome"], line["status"], line["code"]) == ("revoked", 200, "invalid_api_key")
    said = await place.charged(key)
    assert 0 < said["output_tokens"] < 60
    assert Decimal(said["cost_usd"]) == said["input_tokens"] + said["output_tokens"]
    assert line["cost_usd"] == said["cost_usd"]


@pytest.mark.parametrize("surface", ["openai", "plain"])
async def test_a_whole_answer_ends_with_its_key(place: Place, upstream: FakeUpstream, surface: hearing.Surface) -> None:
    """Who waits for one is told at once, as any other call with that key is; the provider is left."""
    tap = Tap()

    async def waits(exchange: Exchange) -> None:
        await tap.passed()
        await scripts.provider(exchange)

    key, headers = await place.make()
    upstream.on_model("one", waits)
    waiting = asyncio.create_task(hearing.ask(place.port, (surface, False), "Hi", "one", headers=headers))
    await upstream.called()
    await place.take_away(key, "revoked over HTTP")
    heard = await waiting
    assert (heard.head.status, heard.code) == (401, "invalid_api_key")
    await upstream_left(upstream)
    (line,) = await place.gateway.logged("call", key=key)
    assert (line["outcome"], line["status"]) == ("revoked", 401)
    said = await place.charged(key)
    assert (said["calls"], said["output_tokens"]) == (1, 0)


async def test_what_is_taken_is_given_back(place: Place, upstream: FakeUpstream) -> None:
    """A slot of the key and what was set aside of its budget are free again when its stream has ended."""
    key, headers = await place.make(
        limits=[{"resource": "in_flight", "amount": 1}], budgets=[{"amount_usd": "1000", "per": "day"}]
    )
    upstream.on_model("one", scripts.stream(scripts.told(WORDS, by="a"), tap=Tap(12)))
    body = hearing.asking(("openai", True), "Count", "one", max_tokens=600)
    async with http.open_stream(place.port, hearing.PATHS["openai"], body, headers) as stream:
        await stream.until(b"word")
        await place.take_away(key, "disabled over HTTP")
        await stream.rest()
    assert (await place.admin("PATCH", f"/{key}", {"enabled": True})).status == 200
    upstream.forget()
    heard = await hearing.ask(place.port, ("openai", False), "Hi", "one", headers=headers, max_tokens=600)
    assert heard.is_whole, heard.body


async def expired(place: Place, headers: http.Headers) -> None:
    """Wait until a key opens nothing any more."""
    deadline = time.monotonic() + 2 * SOON_SECONDS
    while (await http.request(place.port, "GET", "/v1/models", headers)).status == 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_other_calls_go_on(place: Place, upstream: FakeUpstream) -> None:
    """Those of other keys, and those of a key that is changed in another way, or that expires meanwhile."""
    (revoked, _), (changed, headers), (other, other_headers) = [await place.make() for _ in range(3)]
    taps: list[Tap] = []

    async def slowly(exchange: Exchange) -> None:
        taps.append(Tap(3))
        await scripts.stream(scripts.told("one two three", by="a"), tap=taps[-1])(exchange)

    upstream.on_model("one", slowly, slowly)
    body = hearing.asking(("openai", True), "Count", "one")
    async with (
        http.open_stream(place.port, hearing.PATHS["openai"], body, headers) as stream,
        http.open_stream(place.port, hearing.PATHS["openai"], body, other_headers) as another,
    ):
        await stream.until(b"one")
        await another.until(b"one")
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
        assert (await place.admin("PATCH", f"/{changed}", {"notes": "x", "expires_at": end})).status == 200
        await place.take_away(revoked, "revoked over HTTP")
        await expired(place, headers)
        await asyncio.to_thread(place.run, "keys", "update", other, "--notes", "y")
        for tap in taps:
            tap.let(50)
        for each in (stream, another):
            assert hearing.judged("openai", each.head, await each.rest()).is_whole


async def test_the_connection_goes_on(place: Place, upstream: FakeUpstream) -> None:
    """A caller whose stream was ended may call again on it, with a key that is good."""
    (key, headers), (_, good) = await place.make(), await place.make()
    upstream.on_model("one", scripts.stream(scripts.told(WORDS, by="a"), tap=Tap(12)))
    body = json.dumps(hearing.asking(("openai", True), "Count", "one")).encode()
    async with await http.connect(place.port) as connection:
        connection.send(http.request_bytes("POST", hearing.PATHS["openai"], [http.JSON, *headers], body))
        stream = http.Stream(connection, await connection.read_head())
        await stream.until(b"word")
        await place.take_away(key, "revoked over HTTP")
        await stream.rest()
        again = await connection.request("GET", "/v1/models", good)
        assert again.status == 200
