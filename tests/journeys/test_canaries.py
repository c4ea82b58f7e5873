"""Secrets and words: nothing that was said and no key that was shown is found anywhere it does not belong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import pytest_asyncio
from click.testing import CliRunner

from chatgate.cli import main
from fakes import fleet, scripts
from fakes import gateway as gateway_process
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from storage.postgres_server import PostgresServer, programs

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
ENOUGH = 6
"""More often than any retry would ask."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose callers bring their keys."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "ROUTE": "api"})


class Planted:
    """The canaries of one run: each is a text that is found nowhere by chance and says where it was planted."""

    def __init__(self) -> None:
        """Make them."""
        self.server_key = f"sk-test-{self._new('server-key')}"
        self.caller_key = f"sk-test-{self._new('caller-key')}"
        self.gateway_key = f"sk-cg-{self._new('gateway-key')}"
        self.query_key = f"sk-test-{self._new('query-key')}"
        self.prompt = self._new("prompt")
        self.system = self._new("system")
        self.user = self._new("user")
        self.answer = self._new("answer")
        self.garbage = self._new("garbage")
        self.header = self._new("header")

    @staticmethod
    def _new(name: str) -> str:
        return f"canary-{name}-{secrets.token_hex(8)}"

    def found_in(self, places: dict[str, bytes]) -> list[tuple[str, str]]:
        """Return which canary is where, in any of the ways in which a text could have been written down."""
        return [
            (name, place)
            for name, text in vars(self).items()
            for form in _forms(text)
            for place, content in places.items()
            if form in content
        ]


def _forms(text: str) -> Iterator[bytes]:
    data = text.encode()
    yield from (data, base64.b64encode(data).rstrip(b"="), quote(text, safe="").encode(), data.hex().encode())
    yield data[data.index(b"canary") :]


async def test_no_canary_is_found_where_it_does_not_belong(upstream: FakeUpstream) -> None:
    """Keys, prompts and answers are in no log, metric, error or file; only the two sides of the call see them."""
    planted = Planted()
    environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": planted.server_key, "ROUTE": "api"}
    async with gateway_process.running(environment) as gateway:
        await _succeed(gateway, upstream, planted)
        refusals = [each async for each in _refusals(gateway, upstream, planted)]
        places = {f"refusal {number}": each.raw + each.body for number, each in enumerate(refusals)}
        for path in ("/metrics", "/v1/models", "/openapi.json"):
            places[path] = (await http.request(gateway.port, "GET", path)).body
        places["command line"] = gateway.command_line()
        gateway.stop()
        await gateway.ended()
        places |= gateway.files()
    assert {"stdout", "stderr"} <= set(places)
    assert {each.status < 400 for each in refusals} == {False}
    assert planted.found_in(places) == []
    assert not [place for place, content in places.items() if b"/keys?of=" in content]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_no_usable_key_is_kept_or_told(upstream: FakeUpstream, database: str) -> None:
    """What opens the gateway, its admin API or a provider is in no file, log, metric, dump, copy or later answer."""
    names = ("admin", "wrong", "provider", "second-provider", "caller")
    of = {name: f"canary-{name}-{secrets.token_hex(24)}" for name in names}
    made: list[str] = []
    told: dict[str, bytes] = {}
    environment = {
        "CHATGATE_ADMIN_KEY": of["admin"],
        "API_KEY": of["provider"],
        "SECOND_KEY": of["second-provider"],
        "OPENAI_BASE_URL": upstream.base_url,
    }
    upstreams = {"default": "API_KEY", "second": "SECOND_KEY"}
    config = "".join(
        fleet.table("upstreams", {"name": name, "base_url": upstream.base_url, "api_key_env": variable})
        for name, variable in upstreams.items()
    )
    config += fleet.model("one", [fleet.target("default", "one")])
    config += fleet.model("two", [fleet.target("second", "two")])
    with contextlib.ExitStack() as stack:
        if database == "postgresql":
            server = stack.enter_context(_postgresql())
            environment["CHATGATE_DATABASE_URL"] = server.url(server.create())
        async with gateway_process.running(environment, config) as gateway:
            where = ["--data", str(gateway.directory / "data"), "--config", str(gateway.directory / "chatgate.toml")]

            def run(*arguments: str) -> str:
                done = CliRunner().invoke(main, [*arguments, *where], env=environment)
                assert done.exit_code == 0, done.output
                return done.stdout

            async def ask(method: str, path: str, value: object = None, key: str = of["admin"]) -> http.Response:
                body = b"" if value is None else json.dumps(value).encode()
                head = [http.bearer(key), http.JSON]
                return await http.request(gateway.port, method, f"/admin/api/v1/{path}", head, body)

            first = (await ask("POST", "keys", {"name": "anna", "owner": "alice"})).json()
            rotated = (await ask("POST", f"keys/{first['id']}/rotate")).json()
            made += [first["key"], rotated["key"], json.loads(run("keys", "create", "bob", "--json"))["key"]]
            for key in (*made, *of.values()):
                for model in ("demo/echo", "one", "two"):
                    for stream in (False, True):
                        question = http.chat("Hi", model, stream=stream)
                        told[f"{key[:14]} {model} {stream}"] = (
                            await http.post_json(gateway.port, CHAT, question, [http.bearer(key)])
                        ).body
                if key != of["admin"]:
                    told[f"{key[:14]} as an admin key"] = (await ask("GET", "keys", key=key)).body
            told |= await _administered(ask, first["id"], of["wrong"], [made[0], made[1], of["admin"]])
            for path in ("/metrics", "/openapi.json", "/v1/models"):
                told[path] = (await http.request(gateway.port, "GET", path)).body
            copy = gateway.directory / "copy"
            run("backup", str(copy))
            told["dump"] = await asyncio.to_thread(_text_of, copy)
            assert b"anna" in told["dump"]
            told["command line"] = gateway.command_line()
            told |= gateway.files()
            await gateway.stop_now()
            await gateway.ended()
            told |= {f"{name} at the end": content for name, content in gateway.files().items()}
    assert {"stdout", "stderr", "copy", "stdout at the end"} <= set(told)
    assert ("data/chatgate.db" in told) == (database == "sqlite")
    assert any(name.startswith("data/journal/1/") and b"demo/echo" in content for name, content in told.items())
    assert any(b'"event":"key_rotated"' in content for content in told.values())
    shown = {call.header("authorization") for call in upstream.calls}
    assert {f"Bearer {of[name]}" for name in ("provider", "second-provider", "caller")} <= shown
    # The secret alone would do: the rest of a key is no secret, or can be computed.
    assert _found(of | {key: key.split("-")[3][:43] for key in made}, told) == []


def _found(usable: dict[str, str], told: dict[str, bytes]) -> list[tuple[str, str]]:
    """Return which of these texts is where, in any of the ways in which it could have been written down."""
    return [
        (name, place)
        for name, text in usable.items()
        for form in (text.encode(), base64.b64encode(text.encode()).rstrip(b"="), text.encode().hex().encode())
        for place, content in told.items()
        if form in content
    ]


def _text_of(copy: Path) -> bytes:
    """Return what a copy of a database holds, as text where it is compressed."""
    content = copy.read_bytes()
    if content.startswith(b"SQLite"):
        return content
    return subprocess.check_output(["pg_restore", "--file=-", copy])


@contextlib.contextmanager
def _postgresql() -> Iterator[PostgresServer]:
    """Run a database server; skip where there is none."""
    found = programs()
    if found is None or shutil.which("pg_restore") is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    server = PostgresServer(found)
    try:
        yield server
    finally:
        server.remove()


async def _administered(
    ask: Callable[..., Awaitable[http.Response]], key_id: str, wrong_key: str, keys: list[str]
) -> dict[str, bytes]:
    """Ask the admin API for all that may repeat a key, with a key that is right and with one that is not."""
    told = {}
    for number, (method, path, value) in enumerate(
        [
            ("GET", "keys", None),
            ("GET", f"keys/{key_id}", None),
            ("PATCH", f"keys/{key_id}", {"notes": "x"}),
            ("PATCH", f"keys/{key_id}", {"notes": keys[0], "surprise": keys[1]}),
            ("POST", "keys", keys),
            ("GET", "usage", None),
            ("GET", f"usage?key={wrong_key}", None),
            ("POST", f"keys/{key_id}/revoke", None),
            ("POST", f"keys/{key_id}/rotate", None),
        ]
    ):
        told[f"answer {number}"] = (await ask(method, path, value)).body
        told[f"refusal {number}"] = (await ask(method, path, value, wrong_key)).body
    return told


def _chat(planted: Planted, *, stream: bool = False) -> dict[str, object]:
    messages = [{"role": "system", "content": planted.system}, {"role": "user", "content": planted.prompt}]
    return {"model": "gpt-fake-small", "messages": messages, "user": planted.user, "stream": stream}


async def _succeed(gateway: Gateway, upstream: FakeUpstream, planted: Planted) -> None:
    """Make calls that go well, in every form, and one whose caller leaves."""
    shown = [http.bearer(planted.caller_key), ("X-Odd", planted.header), ("Cookie", planted.header)]
    upstream.queue(
        scripts.whole(scripts.completion(planted.answer)), scripts.stream(scripts.text_events(planted.answer))
    )
    for stream in (False, True):
        response = await http.post_json(gateway.port, CHAT, _chat(planted, stream=stream), shown)
        assert planted.answer.encode() in response.body
    for key in ({}, {"api_key": planted.caller_key}):
        upstream.queue(scripts.whole(scripts.completion(planted.answer)))
        plain = {"user_content": planted.prompt, "sys_content": planted.system, **key}
        assert (await http.post_json(gateway.port, "/api", plain)).status == 200
    async with http.open_stream(gateway.port, CHAT, _chat(planted, stream=True)) as left:
        await left.until(b"data:")
    upstream.forget()


async def _refusals(gateway: Gateway, upstream: FakeUpstream, planted: Planted) -> AsyncIterator[http.Response]:
    """Make calls that fail in every way there is, with canaries in all that they say and hear."""
    for status in (400, 401, 403, 404, 429, 500, 503):
        for key, headers in ((planted.server_key, []), (planted.caller_key, [http.bearer(planted.caller_key)])):
            said = f"{key} is wrong, {quote(key)} and Bearer {key}; see http://10.0.0.7/keys?of={key}"
            for path, body in ((CHAT, _chat(planted)), ("/api", {"user_content": planted.prompt})):
                upstream.queue(*[scripts.whole(scripts.error_body(said, "odd"), status)] * ENOUGH)
                yield await http.post_json(gateway.port, path, body, headers)
                upstream.forget()
    garbage = planted.garbage.encode()
    for script in (scripts.whole(garbage), scripts.raw(b"HTTP/1.1 200 \x00" + garbage + b"\r\n\r\n", then="close")):
        upstream.queue(*[script] * ENOUGH)
        yield await http.post_json(gateway.port, CHAT, _chat(planted))
        upstream.forget()
    body = _chat(planted)
    yield await http.post_json(gateway.port, CHAT, body, [http.bearer(planted.gateway_key)])
    yield await http.post_json(gateway.port, f"/v1/{planted.query_key}?key={planted.query_key}", body)
    yield await http.post_json(gateway.port, CHAT, {**body, "messages": planted.prompt})
    yield await http.post_json(gateway.port, CHAT, {**body, "temperature": planted.prompt})
    yield await http.post_json(gateway.port, CHAT, {**body, "stream": planted.prompt})
    yield await http.request(gateway.port, "POST", CHAT, [http.JSON], f'{{"model": "{planted.prompt}'.encode())
    yield await http.post_json(gateway.port, "/api", {"user_content": planted.prompt, "max_tokens": planted.prompt})
    yield await http.post_json(gateway.port, "/api", {"user_content": planted.prompt, "sys_content": [planted.system]})
    yield await http.post_json(gateway.port, "/api", {"user_content": 1, "api_key": planted.caller_key})


@pytest.mark.parametrize("path", [CHAT, "/api"])
@pytest.mark.parametrize("how", ["in a stream", "before a stream", "with status 200", "in its refusal"])
async def test_a_key_that_the_provider_repeats_is_taken_out_of_its_words(
    gateway: Gateway, upstream: FakeUpstream, path: str, how: str
) -> None:
    """A provider's error that quotes the key is passed on without it, whatever keys look like there."""
    for key in (f"{secrets.token_hex(16)}.{secrets.token_hex(8)}", str(uuid.uuid4()), f"AK{secrets.token_hex(12)}"):
        said = scripts.error_body(f"no credit left for {key}, alas")
        saying = {
            "in a stream": scripts.stream([*scripts.text_events("one two")[:2], scripts.event(said)]),
            "before a stream": scripts.stream([scripts.event(said)]),
            "with status 200": scripts.whole(said),
            "in its refusal": scripts.whole(said, 400),
        }
        upstream.queue(*[saying[how]] * ENOUGH)
        body = http.chat("Hi") if path == CHAT else {"user_content": "Hi"}
        response = await http.post_json(
            gateway.port, path, {**body, "stream": how.endswith("a stream")}, [http.bearer(key)]
        )
        assert b"alas" in response.body
        assert key.encode() not in response.body
        assert key.rpartition(".")[2].encode() not in response.body
        upstream.forget()
