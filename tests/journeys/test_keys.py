"""Keys of the gateway, from the command that makes them to the caller who shows them, while a gateway runs."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from fakes import fleet, hearing, scripts
from fakes import http_client as http
from fakes import place as place_of
from fakes.gateway import StartGateway
from fakes.upstream import FakeUpstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

CHAT = "/v1/chat/completions"
OPERATOR = "sk-test-operator-0500"
HEARD_OF_SECONDS = 2.0
"""So soon a running gateway knows of a change."""

PLACES: dict[str, Callable[[str], tuple[http.Headers, str]]] = {
    "authorization": lambda key: ([http.bearer(key)], ""),
    "authorization in lower case": lambda key: ([("authorization", f"bearer {key}")], ""),
    "x-api-key": lambda key: ([("x-api-key", key)], ""),
    "api-key": lambda key: ([("api-key", key)], ""),
    "x-goog-api-key": lambda key: ([("x-goog-api-key", key)], ""),
    "query": lambda key: ([], f"?key={key}"),
}

LETTERS = {
    "en_US": re.compile(r"[A-Za-z]{3}"),
    "zh_CN": re.compile("密钥"),
    "zh_TW": re.compile("金鑰"),
    "ru_RU": re.compile("[\u0430-\u044f]{3}"),
}
"""How a message about a key is told to be in a language."""

MANY = 80
"""So many callers of a gateway that has just started."""


class Place(place_of.Place):
    """A gateway, and the calls that its keys are tried with."""

    def make(self, name: str = "anna", *options: str) -> str:
        """Make a key and return its text."""
        return str(self.keys("create", name, *options)["key"])

    async def status(self, key: str, model: str = "one", *, source: str = "127.0.0.1") -> int:
        """Call with a key, and return the status."""
        headers = [http.bearer(key)] if key else []
        return (await http.post_json(self.port, CHAT, http.chat("Hi", model), headers, source=source)).status

    async def becomes(self, status: int, key: str, model: str = "one") -> None:
        """Wait until calls with a key have this status: a running gateway has two seconds to hear of a change."""
        deadline = time.monotonic() + HEARD_OF_SECONDS
        while (heard := await self.status(key, model)) != status:
            assert time.monotonic() < deadline, f"still {heard}"
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shut(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Place:
    """Run a gateway that only its own keys open."""
    config = '[access]\nanonymous = false\n[server]\nroute = "api"\n' + fleet.QUICK
    config += fleet.upstream("default", upstream_of_file.base_url, api_key=OPERATOR)
    config += "".join(fleet.model(name, [fleet.target("default", f"{name}-sent")]) for name in ("one", "two", "spare"))
    config += fleet.model("failing", [fleet.target("default", "failing-sent")], fallbacks=["spare"])
    config += fleet.model("known", [fleet.target("default", "known-sent")], aliases=["nickname"])
    return Place(await start_gateway({}, config))


@pytest.mark.parametrize("where", PLACES)
async def test_a_key_opens_the_gateway_at_once_wherever_it_is_shown(
    shut: Place, upstream: FakeUpstream, where: str
) -> None:
    """Made while the gateway runs, it works with the very next call; the provider sees the operator's instead."""
    key = shut.make()
    headers, query = PLACES[where](key)
    for surface in ("openai", "plain"):
        path = hearing.PATHS[surface] + query
        response = await http.post_json(shut.port, path, hearing.asking((surface, False), "Hi", "one"), headers)
        assert response.status == 200, response.body
    assert (await http.request(shut.port, "GET", f"/v1/models{query}", headers)).status == 200
    assert [call.header("authorization") for call in upstream.calls] == [f"Bearer {OPERATOR}"] * 2
    assert not any(key.encode() in call.head + call.body for call in upstream.calls)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_plain_api_takes_the_key_in_its_body(shut: Place, upstream: FakeUpstream, *, streamed: bool) -> None:
    """`api_key` in the body is as good as a header, again and again, and two different keys are a mistake."""
    key, other = shut.make(), shut.make("other")
    for _ in range(2):
        heard = await hearing.ask(shut.port, ("plain", streamed), "Hi", "one", api_key=key)
        assert (heard.text, heard.is_whole) == ("Hi", True)
    assert not any(key.encode() in call.head + call.body for call in upstream.calls)
    heard = await hearing.ask(shut.port, ("plain", streamed), "Hi", "one", headers=[http.bearer(other)], api_key=key)
    assert (heard.head.status, heard.code) == (400, "invalid_value")
    heard = await hearing.ask(shut.port, ("plain", streamed), "Hi", "one", headers=[http.bearer(key)], api_key=key)
    assert heard.is_whole


def slipped(key: str) -> str:
    """Return the key with one letter of its secret mistyped."""
    return key[:40] + ("A" if key[40] != "A" else "B") + key[41:]


@pytest.mark.parametrize("path", [CHAT, "/api", "/v1/models", "/v1/models/one"])
async def test_what_is_no_key_of_this_gateway_opens_nothing(shut: Place, upstream: FakeUpstream, path: str) -> None:
    """None, a provider's, one with a slip, a made-up one: 401 in the shape of the surface, and a challenge."""
    key = shut.make()
    strange = key[:40] + key[40:50][::-1] + key[50:]
    for shown in ("", "none", "sk-test-provider-0500", slipped(key), key[:-1], key + "x", strange, "sk-cg-", "sk-cg-x"):
        headers = [http.bearer(shown)] if shown else []
        if path.startswith("/v1/models"):
            refused = await http.request(shut.port, "GET", path, headers)
        else:
            body = hearing.asking(("plain" if path == "/api" else "openai", False), "Hi", "one")
            refused = await http.post_json(shut.port, path, body, headers)
        if path == "/api":
            code = refused.json()["error"]["code"]
            # The seed's clients are told 400 when they bring no key at all.
            expected = (400, "missing_key") if shown in {"", "none"} else (401, "invalid_api_key")
            assert (refused.status, code) == expected, (shown, refused.body)
            assert set(refused.json()) == {"code", "msg", "data", "error"}
            assert refused.json()["code"] == refused.status
        else:
            error = refused.json()["error"]
            assert (refused.status, error["code"]) == (401, "invalid_api_key"), (shown, refused.body)
            assert set(error) == {"message", "type", "param", "code"}
            assert error["type"] in {"authentication_error", "invalid_request_error"}
            assert refused.header("www-authenticate") == "Bearer"
        assert shown == "" or len(shown) < 8 or shown.encode() not in refused.body
    assert upstream.calls == []


async def test_a_revoked_key_stops_within_two_seconds(shut: Place) -> None:
    """New calls are refused soon, in words that say why; what becomes of those under way is in `test_revoking`."""
    key = shut.make()
    await shut.becomes(200, key)
    shut.keys("revoke", key)
    await shut.becomes(401, key)
    refused = await http.post_json(shut.port, CHAT, http.chat("Hi", "one"), [http.bearer(key)])
    assert "revoked" in refused.json()["error"]["message"]


async def test_a_key_is_switched_off_and_on_again(shut: Place) -> None:
    """`--disable` and `--enable` are heard of while the gateway runs."""
    key = shut.make()
    assert await shut.status(key) == 200
    shut.keys("update", key, "--disable")
    await shut.becomes(401, key)
    shut.keys("update", key, "--enable")
    await shut.becomes(200, key)


async def test_a_key_ends_when_it_is_said_to(shut: Place) -> None:
    """A key expires by itself, by the clock, though nobody touches the database; a later end lets it in again."""
    end = datetime.now(UTC) + timedelta(seconds=1)
    key = shut.make("brief", "--expires", end.isoformat(timespec="milliseconds"))
    assert await shut.status(key) == 200
    await shut.becomes(401, key)
    assert datetime.now(UTC) >= end
    refused = await http.post_json(shut.port, CHAT, http.chat("Hi", "one"), [http.bearer(key)])
    assert "expired" in refused.json()["error"]["message"]
    shut.keys("update", key, "--expires", "1d")
    await shut.becomes(200, key)


async def test_a_key_with_another_secret(shut: Place) -> None:
    """After a rotation the new text works at once, and the old one not much longer; the id stays."""
    made = shut.keys("create", "turning")
    assert await shut.status(made["key"]) == 200
    rotated = shut.keys("rotate", made["id"])
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert await shut.status(rotated["key"]) == 200
    await shut.becomes(401, made["key"])
    assert await shut.status(rotated["key"]) == 200


async def test_a_key_is_good_for_some_addresses(shut: Place, upstream: FakeUpstream) -> None:
    """From elsewhere it is 403, not 401, on every path; and an update opens more."""
    key = shut.make("homely", "--allow", "127.0.5.0/24", "--allow", "::1")
    assert await shut.status(key, source="127.0.5.77") == 200
    for path in (CHAT, "/api"):
        body = hearing.asking(("plain" if path == "/api" else "openai", False), "Hi", "one")
        refused = await http.post_json(shut.port, path, body, [http.bearer(key)])
        assert (refused.status, refused.json()["error"]["code"]) == (403, "permission_denied"), path
    assert (await http.request(shut.port, "GET", "/v1/models", [http.bearer(key)])).status == 403
    assert (await hearing.ask(shut.port, ("plain", False), "Hi", "one", api_key=key)).code == "permission_denied"
    assert len(upstream.calls) == 1
    shut.keys("update", key, "--allow", "all")
    await shut.becomes(200, key)


async def test_a_key_is_good_for_some_models(shut: Place, upstream: FakeUpstream) -> None:
    """Others are refused with 403, and are not in the list; fallbacks are the configuration's business."""
    key = shut.make("choosy", "--models", "one,fail*,nickname,demo/echo")
    headers = [http.bearer(key)]
    statuses = {
        name: await shut.status(key, name) for name in ("one", "two", "nickname", "known", "demo/echo", "demo/story")
    }
    assert statuses == {"one": 200, "two": 403, "nickname": 200, "known": 403, "demo/echo": 200, "demo/story": 403}
    refused = await http.post_json(shut.port, CHAT, http.chat("Hi", "two"), headers)
    assert refused.json()["error"]["code"] == "permission_denied"
    assert "two" in refused.json()["error"]["message"]
    plain = await hearing.ask(shut.port, ("plain", False), "Hi", "two", headers=headers)
    assert (plain.head.status, plain.code) == (403, "permission_denied")
    listed = (await http.request(shut.port, "GET", "/v1/models", headers)).json()["data"]
    assert {entry["id"] for entry in listed} == {"one", "failing", "nickname", "demo/echo"}
    assert (await http.request(shut.port, "GET", "/v1/models/one", headers)).status == 200
    assert (await http.request(shut.port, "GET", "/v1/models/two", headers)).status == 403
    upstream.on_model("failing-sent", scripts.whole(scripts.error_body("down", kind="server_error"), 500))
    heard = await hearing.ask(shut.port, ("openai", False), "Hi", "failing", headers=headers)
    assert (heard.text, upstream.calls[-1].json()["model"]) == ("Hi", "spare-sent")
    assert await shut.status(key, "spare") == 403


async def test_an_unknown_model_is_not_found_for_a_key(shut: Place) -> None:
    """A name that nothing is behind is 404 for a key that may do all."""
    assert await shut.status(shut.make(), "nothing") == 404


async def message(shut: Place, path: str, headers: http.Headers, **more: Any) -> str:
    """Call a model that the key may not use, and return what is said."""
    surface: hearing.Surface = "plain" if path == "/api" else "openai"
    if path.startswith("/v1/models"):
        return str((await http.request(shut.port, "GET", path, headers)).json()["error"]["message"])
    heard = await hearing.ask(shut.port, (surface, False), "Hi", "two", headers=headers, **more)
    assert heard.head.status in {401, 403}, heard.body
    return heard.message


@pytest.mark.parametrize("language", LETTERS)
@pytest.mark.parametrize("path", [CHAT, "/api", "/v1/models/two"])
async def test_a_key_has_a_language(shut: Place, language: str, path: str) -> None:
    """Its owner is told everything in it, unless the call wishes for another one."""
    key = shut.make("polyglot", "--language", language, "--models", "one")
    for _ in range(2):  # The first time the key is looked up, then it is known.
        assert LETTERS[language].search(await message(shut, path, [http.bearer(key)]))
    wished = "ru_RU" if language != "ru_RU" else "zh_CN"
    headers = [http.bearer(key), ("Accept-Language", wished.replace("_", "-"))]
    assert LETTERS[wished].search(await message(shut, path, headers))


@pytest.mark.parametrize("language", ["zh_TW", "ru_RU"])
async def test_a_key_in_the_body_has_a_language(shut: Place, language: str) -> None:
    """The same holds for a key that came in the plain API's body."""
    key = shut.make("polyglot", "--language", language, "--models", "one")
    for _ in range(2):
        assert LETTERS[language].search(await message(shut, "/api", [], api_key=key))


@pytest.mark.parametrize("language", LETTERS)
async def test_refusals_of_keys_speak_four_languages(shut: Place, language: str) -> None:
    """Each reason says another thing, in each language; on either surface it is the same text."""
    wish = ("Accept-Language", language.replace("_", "-"))
    keys = {
        "unknown": slipped(shut.make()),
        "disabled": shut.make("off"),
        "revoked": shut.make("gone"),
        "elsewhere": shut.make("elsewhere", "--allow", "192.0.2.0/24"),
        "model": shut.make("choosy", "--models", "one"),
    }
    shut.keys("update", keys["disabled"], "--disable")
    shut.keys("revoke", keys["revoked"])
    said = {}
    for why, key in keys.items():
        said[why] = await message(shut, CHAT, [http.bearer(key), wish])
        assert LETTERS[language].search(said[why]), (why, said[why])
        assert await message(shut, "/api", [http.bearer(key), wish]) == said[why]
    assert len(set(said.values())) == len(keys)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_demo_models_ask_for_a_key_too(shut: Place, upstream: FakeUpstream, *, streamed: bool) -> None:
    """Where a key is needed, it is needed for them, and with one they answer."""
    assert await shut.status("", "demo/echo") == 401
    headers = [http.bearer(shut.make())]
    heard = await hearing.ask(shut.port, ("openai", streamed), "Hi", "demo/echo", headers=headers)
    assert (heard.text, heard.is_whole) == ("Hi", True)
    assert upstream.calls == []


async def test_many_keys_are_new_at_once(shut: Place) -> None:
    """After a start every key is new to the gateway: all of their callers get in, though they come together."""
    keys = [shut.make() for _ in range(MANY)]
    statuses = await asyncio.gather(*(shut.status(key) for key in keys))
    assert statuses == [200] * MANY


async def test_the_open_paths_stay_open(shut: Place) -> None:
    """Probes need no key, also where everything else does."""
    for path in ("/healthz", "/readyz"):
        assert (await http.request(shut.port, "GET", path)).status == 200


async def test_without_a_closed_door_keys_and_others_live_side_by_side(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """A provider's key goes to the provider; a gateway's never does; a bad one is refused though none was needed."""
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "API_KEY": OPERATOR, "ROUTE": "api"})
    place = Place(gateway)
    key = place.make()
    assert [await place.status(shown) for shown in ("", "sk-test-own-0500", key)] == [200, 200, 200]
    shown = [call.header("authorization") for call in upstream.calls]
    assert shown == [f"Bearer {OPERATOR}", "Bearer sk-test-own-0500", f"Bearer {OPERATOR}"]
    assert await place.status(slipped(key)) == 401
    place.keys("revoke", key)
    await place.becomes(401, key)
    assert await place.status("") == 200


async def test_no_usable_key_is_left_anywhere(shut: Place) -> None:
    """Neither log, metrics, database nor journal has the text of a key, or its secret."""
    key = shut.make("canary", "--models", "one", "--budget-usd", "5")
    tried = [slipped(key)]
    for where in PLACES.values():
        for shown in (key, *tried):
            headers, query = where(shown)
            for model in ("one", "two", "demo/echo"):
                await http.post_json(shut.port, CHAT + query, http.chat("Hi", model), headers)
            await http.request(shut.port, "GET", f"/v1/models/one{query}", headers)
            await http.request(shut.port, "GET", f"/nowhere{query}", headers)
    await hearing.ask(shut.port, ("plain", True), "Hi", "one", api_key=key)
    rotated = shut.keys("rotate", key)["key"]
    assert await shut.status(rotated) in {200, 403}
    await shut.gateway.logged("call", 10)
    await asyncio.sleep(1.2)  # What is written in the background is written by then.
    files = {**shut.gateway.files(), "metrics": (await http.request(shut.port, "GET", "/metrics")).body}
    assert {"data/chatgate.db", "stdout"} <= set(files)
    for name, content in files.items():
        for shown in (key, rotated, *tried):
            secret = shown.rpartition("-")[2]
            assert secret[:20].encode() not in content, name
            assert secret[-20:].encode() not in content, name
