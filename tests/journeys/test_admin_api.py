"""The admin API over real sockets: every route of its table, whose keys it shows, and what of it reaches the calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from chatgate.administration.desk import NoBody
from chatgate.administration.door import WRONG_KEYS_PER_MINUTE
from chatgate.administration.routes import MAX_BODY_BYTES, PREFIX, ROUTES, Permission, Route
from fakes import fleet, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway, running
from fakes.upstream import FakeUpstream, Tap

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("upstream")]

CHAT = "/v1/chat/completions"
ROOT, ALICE, BOB, LOOKER = (f"test-admin-{name}-0123456789-0123456789" for name in ("root", "alice", "bob", "looker"))
KEYS = f"{PREFIX}keys"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SHAPE = {"message", "type", "param", "code"}

each_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.operation)


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway with an admin API."""

    gateway: Gateway

    async def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        admin: str = ROOT,
        *,
        headers: http.Headers = (),
        source: str = "127.0.0.1",
    ) -> http.Response:
        """Ask for something, with a JSON body where there is a value."""
        body = b"" if value is None else json.dumps(value).encode()
        shown = [*([http.bearer(admin)] if admin else []), *([http.JSON] if body else []), *headers]
        return await http.request(self.gateway.port, method, path, shown, body, source=source)

    async def make(self, admin: str = ROOT, **fields: Any) -> Any:
        """Make a key, and return what is told of it."""
        made = await self.ask("POST", KEYS, {"name": "anna", **fields}, admin)
        assert made.status == 201, made.body
        return made.json()

    async def call(self, key: str) -> http.Response:
        """Call a model with a key."""
        return await http.post_json(self.gateway.port, CHAT, http.chat("Hi", "one"), [http.bearer(key)])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Place:
    """Run a gateway that four may administer."""
    config = "[access]\nanonymous = false\n" + fleet.upstream("default", upstream_of_file.base_url)
    config += fleet.model("one", [fleet.target("default", "one")])
    config += f'[[admins]]\nname = "alice"\nkey = "{ALICE}"\nowner = "alice"\n'
    config += f'[[admins]]\nname = "bob"\nkey = "{BOB}"\nowner = "bob"\n'
    config += f'[[admins]]\nname = "looker"\nkey = "{LOOKER}"\nmay = "read"\n'
    config += fleet.price("one", 1, 1)
    return Place(await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, config))


async def path_of(place: Place, route: Route) -> str:
    """Return a path of a route; where it names a key, there is one."""
    return PREFIX + (route.path.replace("{id}", (await place.make())["id"]) if "{id}" in route.path else route.path)


def refused(response: http.Response, status: int, code: str, param: str | None = None) -> None:
    """See that a refusal is what it should be, in OpenAI's shape, for nobody's cache."""
    assert response.status == status, response.body
    error = response.json()["error"]
    assert set(error) == SHAPE
    assert (error["code"], error["param"]) == (code, param), error
    assert response.header("cache-control") == "no-store"
    assert response.header("x-request-id")


# --- Every route of the table -----------------------------------------------------------------------------------------


@each_route
async def test_no_route_opens_without_an_admin_key(place: Place, route: Route) -> None:
    """Neither without a key, nor with one that callers use; the body is not even looked at."""
    path = await path_of(place, route)
    caller = (await place.make())["key"]
    for admin in ("", caller):
        response = await place.ask(route.method, path, {"x": 1}, admin, source=f"127.0.1.{secrets.randbelow(250) + 1}")
        refused(response, 401, "invalid_api_key")
        assert response.header("www-authenticate") == "Bearer"
    response = await http.request(place.gateway.port, route.method, f"{path}?key={ROOT}", [("x-api-key", ROOT)])
    refused(response, 401, "invalid_api_key")


@each_route
async def test_every_path_knows_its_methods(place: Place, route: Route) -> None:
    """Any other is refused, and the answer says which there are."""
    path = await path_of(place, route)
    allowed = {each.method for each in ROUTES if each.path == route.path}
    allowed |= {"HEAD"} if "GET" in allowed else set()
    for method in set(METHODS) - allowed:
        response = await place.ask(method, path)
        refused(response, 405, "method_not_allowed")
        assert set((response.header("allow") or "").split(", ")) == allowed


@each_route
async def test_every_route_refuses_what_it_does_not_know(place: Place, route: Route) -> None:
    """A parameter or a field that it does not read is named, and nothing is done."""
    path = await path_of(place, route)
    refused(await place.ask(route.method, f"{path}?surprise=1"), 400, "invalid_value", "surprise")
    if route.method != "GET":
        refused(
            await place.ask(route.method, path, {"name": "x", "surprise": 1}),
            400,
            "invalid_value",
            ("surprise" if route.body is not NoBody else "name"),
        )
        response = await place.ask(route.method, path, {"surprise": 1})
        assert response.status == 400
        key = await place.ask("GET", KEYS + "/" + path.split("/")[5]) if "{id}" in route.path else None
        assert key is None or key.json()["version"] == 1


@each_route
async def test_every_route_takes_so_much_and_json_only(place: Place, route: Route) -> None:
    """A body that is too large is refused, whole or in pieces, and so is one of another type."""
    path = await path_of(place, route)
    shown = [http.bearer(ROOT), http.JSON]
    large = b'{"name": "' + b"x" * MAX_BODY_BYTES + b'"}'
    refused(await http.request(place.gateway.port, route.method, path, shown, large), 413, "request_too_large")
    async with await http.connect(place.gateway.port) as connection:
        lines = f"{route.method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ROOT}\r\n"
        connection.send(f"{lines}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large))
        refused(await connection.read_response(), 413, "request_too_large")
    if route.method != "GET":
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/jsonl"):
            typed = [http.bearer(ROOT), ("content-type", content_type)]
            response = await http.request(place.gateway.port, route.method, path, typed, b'{"name": "x"}')
            refused(response, 415, "unsupported_media_type")


@each_route
async def test_a_key_for_looking_changes_nothing(place: Place, route: Route) -> None:
    """What it asks for is shown or refused, as the table says."""
    path = await path_of(place, route)
    response = await place.ask(route.method, path, {"name": "x"} if route.body is not NoBody else None, LOOKER)
    if route.permission is Permission.READ:
        assert response.status == 200
    else:
        refused(response, 403, "permission_denied")


@each_route
async def test_every_answer_is_nobody_elses(place: Place, route: Route) -> None:
    """It has an id and is not to be stored; HEAD has the same head and no body."""
    path = await path_of(place, route)
    response = await place.ask(route.method, path, {"name": "x"} if route.body is not NoBody else None)
    assert response.status == route.status
    assert response.header("cache-control") == "no-store"
    assert response.header("x-request-id") == response.header("request-id")
    assert response.header("access-control-allow-origin") is None
    if route.method == "GET":
        head = await place.ask("HEAD", path)
        assert (head.status, head.body) == (200, b"")


async def test_there_is_nothing_else(place: Place) -> None:
    """Unknown paths are unknown, and only to those who may administer; slashes are not guessed."""
    for path in ("keys/", "keys//revoke", "keys/x/y", "keys/x/revoke/", "", "nothing", "keys%2Fx", "../keys"):
        refused(await place.ask("GET", PREFIX + path), 404, "not_found")
        refused(await place.ask("GET", PREFIX + path, admin=""), 401, "invalid_api_key")
    for path in ("x", "%00", "%FF", "x" * 3000, "'; DROP TABLE keys", "..", "x?limit=1"):
        response = await place.ask("GET", f"{KEYS}/{path}".replace(" ", "%20"))
        assert response.status in {400, 404}, path


async def test_without_an_admin_key_there_is_no_admin_api(start_gateway: StartGateway) -> None:
    """Nobody can try keys where none is right, and nothing of it is described."""
    port = (await start_gateway({})).port
    for headers in ([], [http.bearer(ROOT)]):
        response = await http.request(port, "GET", KEYS, headers)
        refused(response, 404, "not_found")
    assert b"/admin" not in (await http.request(port, "GET", "/openapi.json")).body


async def test_it_is_described_where_it_is(place: Place) -> None:
    """With each operation of the table."""
    headers = [http.bearer((await place.make())["key"])]
    paths = (await http.request(place.gateway.port, "GET", "/openapi.json", headers)).json()["paths"]
    told = {
        operation["operationId"]
        for path, item in paths.items()
        if path.startswith(PREFIX)
        for operation in item.values()
    }
    assert told == {route.operation for route in ROUTES}


async def test_who_guesses_waits(place: Place) -> None:
    """After ten wrong keys the address has to wait, with whatever key; another one does not."""
    for _ in range(WRONG_KEYS_PER_MINUTE):
        refused(await place.ask("GET", KEYS, admin="wrong", source="127.0.2.1"), 401, "invalid_api_key")
    response = await place.ask("GET", KEYS, source="127.0.2.1")
    refused(response, 429, "rate_limit_exceeded")
    assert 50 <= int(response.header("retry-after") or 0) <= 60
    assert (await place.ask("GET", KEYS, source="127.0.2.2")).status == 200


@pytest.mark.parametrize(("language", "word"), [("en", "field"), ("zh-CN", "字段"), ("zh-TW", "欄位"), ("ru", "поля")])
async def test_refusals_speak_the_callers_language(place: Place, language: str, word: str) -> None:
    """As everywhere in the gateway."""
    response = await place.ask("PATCH", f"{KEYS}/x", {"surprise": 1}, headers=[("accept-language", language)])
    assert word in response.json()["error"]["message"]


# --- What it does -----------------------------------------------------------------------------------------------------


async def test_a_key_is_made_used_changed_replaced_and_ended(place: Place) -> None:
    """The whole life of a key; each change holds for the very next call, and its text is told twice only."""
    made = await place.make(budgets=[{"amount_usd": "5"}], notes="for Anna")
    assert made["state"] == "active"
    assert made["budgets"] == [{"amount_usd": "5", "per": "month", "warn_at": None}]
    assert (await place.call(made["key"])).status == 200
    path = f"{KEYS}/{made['id']}"
    shown = (await place.ask("GET", path)).json()
    assert {**shown, "key": made["key"]} == made
    changed = await place.ask("PATCH", path, {"enabled": False})
    assert (changed.status, changed.json()["state"], changed.json()["notes"]) == (200, "disabled", "for Anna")
    assert (await place.call(made["key"])).status == 401
    assert (await place.ask("PATCH", path, {"enabled": True})).json()["version"] == 3
    assert (await place.call(made["key"])).status == 200
    rotated = (await place.ask("POST", f"{path}/rotate")).json()
    assert rotated["key"] != made["key"]
    assert (await place.call(made["key"])).status == 401
    assert (await place.call(rotated["key"])).status == 200
    revoked = await place.ask("POST", f"{path}/revoke", {})
    assert (revoked.status, revoked.json()["state"]) == (200, "revoked")
    assert (await place.call(rotated["key"])).status == 401
    assert (await place.ask("POST", f"{path}/revoke")).json() == revoked.json()
    refused(await place.ask("PATCH", path, {"notes": "x"}), 400, "invalid_value")
    refused(await place.ask("POST", f"{path}/rotate"), 400, "invalid_value")
    texts = [response.body for response in (changed, revoked)] + [json.dumps(shown).encode()]
    assert not any(key.encode() in text for key in (made["key"], rotated["key"]) for text in texts)
    log = place.gateway.output()
    assert made["key"] not in log
    assert rotated["key"] not in log


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("allowed_addresses", ["10.0.0.300"]),
        ("language", "fr"),
        ("expires_at", "2020-01-01T00:00:00Z"),
        ("expires_at", "9999-12-31T23:59:59-12:00"),
    ],
)
async def test_what_the_command_refuses_is_refused_here(place: Place, field: str, value: Any) -> None:
    """Addresses, languages and times are held to the same rules."""
    at_fault = f"{field}[0]" if isinstance(value, list) else field
    refused(await place.ask("POST", KEYS, {"name": "x", field: value}), 400, "invalid_value", at_fault)
    path = f"{KEYS}/{(await place.make())['id']}"
    refused(await place.ask("PATCH", path, {field: value}), 400, "invalid_value", at_fault)


async def test_pages_hold_every_key_once(place: Place) -> None:
    """Oldest first, from one `next` to the other, until it is null."""
    made = [(await place.make(owner="pages"))["id"] for _ in range(5)]
    found: list[str] = []
    after = ""
    while True:
        page = (await place.ask("GET", f"{KEYS}?owner=pages&limit=2{after}")).json()
        assert len(page["data"]) <= 2
        found += [key["id"] for key in page["data"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == made
    for query in ("limit=0", "limit=501", "limit=x", "after=none-such", "after=", "limit=1&limit=2", "owner=%00"):
        refused(await place.ask("GET", f"{KEYS}?{query}"), 400, "invalid_value", query.partition("=")[0])


async def test_an_owners_admin_sees_and_changes_nothing_of_others(place: Place) -> None:
    """Another's key looks like one that does not exist, also as a page's beginning; own ones cannot be given away."""
    own = await place.make(ALICE)
    assert own["owner"] == "alice"
    others = [await place.make(BOB), await place.make()]
    listed = (await place.ask("GET", KEYS, admin=ALICE)).json()["data"]
    assert own["id"] in {key["id"] for key in listed}
    assert {key["owner"] for key in listed} == {"alice"}
    for other in others:
        path = f"{KEYS}/{other['id']}"
        for method, end, value in (
            ("GET", "", None),
            ("PATCH", "", {"notes": "x"}),
            ("POST", "/revoke", None),
            ("POST", "/rotate", None),
        ):
            mine = await place.ask(method, f"{path}{end}", value, ALICE)
            nobodys = await place.ask(method, f"{KEYS}/none{end}", value, ALICE)
            refused(mine, 404, "not_found")
            assert mine.json() == nobodys.json()
        refused(await place.ask("GET", f"{KEYS}?after={other['id']}", admin=ALICE), 400, "invalid_value", "after")
        assert (await place.ask("GET", path)).json()["version"] == 1
    for response in (
        await place.ask("GET", f"{KEYS}?owner=bob", admin=ALICE),
        await place.ask("POST", KEYS, {"name": "x", "owner": "bob"}, ALICE),
        await place.ask("PATCH", f"{KEYS}/{own['id']}", {"owner": "bob"}, ALICE),
        await place.ask("PATCH", f"{KEYS}/{own['id']}", {"owner": ""}, ALICE),
    ):
        refused(response, 400, "invalid_value", "owner")


async def test_usage_is_told_as_the_command_tells_it(place: Place) -> None:
    """To an owner's admin that of the owner's keys only."""
    keys = {admin: await place.make(admin) for admin in (ALICE, BOB)}
    for key in keys.values():
        assert (await place.call(key["key"])).status == 200
    path = f"{PREFIX}usage?by=owner,key&since=1h"
    deadline = time.monotonic() + 5
    while True:
        told = {admin: (await place.ask("GET", path, admin=admin)).json()["data"] for admin in (ROOT, ALICE, BOB)}
        if {keys[ALICE]["id"], keys[BOB]["id"]} <= {group["key"] for group in told[ROOT]}:
            break
        assert time.monotonic() < deadline, told
        await asyncio.sleep(0.1)
    assert {group["owner"] for group in told[ALICE]} == {"alice"}
    assert {group["owner"] for group in told[BOB]} == {"bob"}
    (group,) = [group for group in told[BOB] if group["key"] == keys[BOB]["id"]]
    assert (group["calls"], group["cost_usd"], group["key_name"]) == (1, "0.000008", "anna")
    for query in ("by=hour", "since=yesterday", "by=key&by=day"):
        refused(await place.ask("GET", f"{PREFIX}usage?{query}"), 400, "invalid_value", query.partition("=")[0])


async def test_each_change_is_one_line_of_the_log(place: Place) -> None:
    """It says who changed which key, and how to find the request."""
    made = await place.make(ALICE)
    path = f"{KEYS}/{made['id']}"
    await place.ask("PATCH", path, {"notes": "secret words", "enabled": True}, ALICE)
    await place.ask("POST", f"{path}/rotate")
    response = await place.ask("POST", f"{path}/revoke")
    events = ("key_created", "key_changed", "key_rotated", "key_revoked")
    lines = {event: (await place.gateway.logged(event, key=made["id"])) for event in events}
    assert {event: [line["by"] for line in found] for event, found in lines.items()} == {
        "key_created": ["alice"],
        "key_changed": ["alice"],
        "key_rotated": ["CHATGATE_ADMIN_KEY"],
        "key_revoked": ["CHATGATE_ADMIN_KEY"],
    }
    assert lines["key_changed"][0]["fields"] == "enabled,notes"
    assert lines["key_revoked"][0]["request_id"] == response.header("x-request-id")
    assert lines["key_revoked"][0]["address"] == "127.0.0.1"
    assert "secret words" not in place.gateway.output()


async def test_several_workers_administer_together(upstream: FakeUpstream) -> None:
    """Whichever worker takes a request, the others know of it within a moment."""
    config = "[access]\nanonymous = false\n[server]\nworkers = 2\n" + fleet.upstream("default", upstream.base_url)
    config += fleet.model("one", [fleet.target("default", "one")])
    async with running({"CHATGATE_ADMIN_KEY": ROOT}, config) as gateway:
        place = Place(gateway)
        made = await place.make()
        assert [(await place.call(made["key"])).status for _ in range(12)] == [200] * 12
        upstream.on_model("one", *[scripts.stream(scripts.told("word " * 9, by="a"), tap=Tap(3)) for _ in range(8)])
        async with contextlib.AsyncExitStack() as stack:
            body, headers = {**http.chat("Hi", "one"), "stream": True}, [http.bearer(made["key"])]
            streams = [
                await stack.enter_async_context(http.open_stream(gateway.port, CHAT, body, headers)) for _ in range(8)
            ]
            began_at = time.monotonic()
            assert (await place.ask("POST", f"{KEYS}/{made['id']}/revoke")).status == 200
            for each in streams:
                heard = await each.rest()
                assert b"invalid_api_key" in heard
                assert b"[DONE]" not in heard
            assert time.monotonic() - began_at < 5
        while 200 in [(await place.call(made["key"])).status for _ in range(12)]:
            assert time.monotonic() - began_at < 5
