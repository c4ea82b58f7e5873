"""Everything a provider can do wrong, and what the caller is told: never a hang, never a 500, never half an answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.scripts import Script
from fakes.upstream import Exchange, FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
SERVER_KEY = "sk-test-server-0400"
ENOUGH = 6
"""More often than any retry would ask."""
TRIES = 3
"""The first one, and two retries."""

CONFIG = """
[timeouts]
connect_seconds = 1
first_token_seconds = 0.6
idle_seconds = 0.6
total_seconds = 3
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway with short deadlines."""
    environment = {"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": SERVER_KEY, "ROUTE": "api"}
    return await start_gateway(environment, CONFIG)


GOOD = json.dumps(scripts.completion("Hi")).encode()
JSON_HEAD = scripts.head(200, [("Content-Type", "application/json"), ("Content-Length", str(len(GOOD)))])
CHUNKED = scripts.head(200, [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")])
END = scripts.framed(b"")
LONG = b"x" * 200_000
HTML = b"<html><body>Bad gateway</body></html>"

BROKEN: list[tuple[str, Script, int, str]] = [
    ("closes at once", scripts.raw(b"", then="close"), 502, "upstream_error"),
    ("resets at once", scripts.raw(b"", then="reset"), 502, "upstream_error"),
    ("says nothing", scripts.silent(), 504, "upstream_timeout"),
    ("stops inside the head", scripts.raw(JSON_HEAD[:30], then="hang"), 504, "upstream_timeout"),
    ("closes inside the head", scripts.raw(JSON_HEAD[:30], then="close"), 502, "upstream_error"),
    ("stops after the head", scripts.raw(JSON_HEAD, then="hang"), 504, "upstream_timeout"),
    ("stops inside the body", scripts.raw(JSON_HEAD + GOOD[:40], then="hang"), 504, "upstream_timeout"),
    ("closes inside the body", scripts.raw(JSON_HEAD + GOOD[:40], then="close"), 502, "upstream_error"),
    ("resets inside the body", scripts.raw(JSON_HEAD + GOOD[:40], then="reset"), 502, "upstream_error"),
    ("answers nothing", scripts.whole(b""), 502, "upstream_error"),
    ("answers HTML", scripts.whole(HTML, 200, [("Content-Type", "text/html")]), 502, "upstream_error"),
    ("answers HTML as JSON", scripts.whole(HTML), 502, "upstream_error"),
    ("answers an array", scripts.whole(b"[]"), 502, "upstream_error"),
    ("answers half of JSON", scripts.whole(GOOD[:-9]), 502, "upstream_error"),
    ("answers 200 with an error", scripts.whole(scripts.error_body("no")), 502, "upstream_error"),
    ("answers 204", scripts.raw(scripts.head(204, [])), 502, "upstream_error"),
    ("is not HTTP", scripts.raw(b"SSH-2.0-OpenSSH\r\n\r\n", then="close"), 502, "upstream_error"),
    (
        "contradicts itself",
        scripts.whole(GOOD, 200, [("Content-Length", "4"), ("content-length", "5")]),
        502,
        "upstream_error",
    ),
    (
        "breaks its chunks",
        scripts.raw(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", then="close"),
        502,
        "upstream_error",
    ),
    (
        "sends an endless head",
        scripts.raw(b"HTTP/1.1 200 OK\r\nX: " + LONG, then="hang"),
        502,
        "upstream_error",
    ),
    ("says only 100", scripts.raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, then="hang"), 502, "upstream_error"),
    ("500", scripts.whole(scripts.error_body("boom", None, "server_error"), 500), 502, "upstream_error"),
    ("502 in HTML", scripts.whole(HTML, 502, [("Content-Type", "text/html")]), 502, "upstream_error"),
    ("503", scripts.whole(scripts.error_body("busy"), 503), 502, "upstream_error"),
    ("504", scripts.whole(b"", 504), 502, "upstream_error"),
    ("599", scripts.whole(b"", 599), 502, "upstream_error"),
    ("999", scripts.raw(b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"), 502, "upstream_error"),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("script", "status", "code"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
async def test_a_failure_before_the_first_word_has_a_status(
    gateway: Gateway, upstream: FakeUpstream, script: Script, status: int, code: str, *, streamed: bool
) -> None:
    """Before a word was passed on, a provider's failure is a status that says so, and the next call is well."""
    upstream.queue(*[script] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", stream=streamed))
    assert (response.status, response.json()["error"]["code"]) == (status, code), response.body
    assert response.json()["error"]["type"] == "upstream_error"
    # A kept connection that closes before it answers is no try: HTTP lets the request be sent again on a new one.
    was_kept = len(upstream.calls[0].connection.calls) > 1
    assert 1 <= len(upstream.calls) <= TRIES + was_kept
    upstream.forget()
    assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200


REFUSALS: list[tuple[int, str | None, int]] = [
    (400, "bad_thing", 400),
    (404, "model_not_found", 404),
    (413, "too_large", 413),
    (422, "odd", 400),
    (429, "rate_limit_exceeded", 429),
    (429, "insufficient_quota", 429),
]


@pytest.mark.parametrize(("said", "code", "status"), REFUSALS)
async def test_a_providers_refusal_keeps_its_meaning(
    gateway: Gateway, upstream: FakeUpstream, said: int, code: str | None, status: int
) -> None:
    """What the caller can mend is a 4xx with the provider's words."""
    upstream.queue(*[scripts.whole(scripts.error_body("because of the moon", code), said)] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status in {status, said}, response.body
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("said", [401, 403])
async def test_a_refused_key_of_the_server_is_not_the_callers_fault(
    gateway: Gateway, upstream: FakeUpstream, said: int
) -> None:
    """The caller is told that the operator has to act, and the key is in nobody's text."""
    text = f"Incorrect API key provided: {SERVER_KEY}. See http://10.0.0.7/keys"
    upstream.queue(*[scripts.whole(scripts.error_body(text, "invalid_api_key"), said)] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status in {401, 403, 502}
    assert SERVER_KEY.encode() not in response.body
    assert SERVER_KEY not in gateway.output()


async def test_a_providers_wait_is_passed_on(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A 429 carries the provider's Retry-After, and one far off tells SDKs not to try again."""
    for wait, should_retry in (("7", None), ("3600", "false")):
        upstream.forget()
        limit = scripts.whole(scripts.error_body("slow down", "rate_limit_exceeded"), 429, [("Retry-After", wait)])
        upstream.queue(*[limit] * ENOUGH)
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
        assert response.status == 429
        assert response.header("retry-after") == wait
        assert response.header("x-should-retry") == should_retry


@pytest.mark.parametrize(
    "wait", ["-5", "abc", "1e99", "99999999999999999999", "nan", "", "Fri, 01 Jan 1999 00:00:00 GMT"]
)
async def test_a_providers_nonsense_about_waiting_does_no_harm(
    gateway: Gateway, upstream: FakeUpstream, wait: str
) -> None:
    """A wait that is no wait is left out or made sensible."""
    upstream.queue(*[scripts.whole(scripts.error_body("slow down"), 429, [("Retry-After", wait)])] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status == 429
    shown = response.header("retry-after")
    assert shown is None or shown.isdigit()


async def test_a_provider_that_is_not_there_is_a_502(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """Nobody listens: the caller is told at once."""
    async with FakeUpstream() as gone:
        address = gone.base_url
    gateway = await start_gateway({"OPENAI_BASE_URL": address, "API_KEY": SERVER_KEY, "ROUTE": "api"})
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")
    response = await http.post_json(gateway.port, "/api", {"user_content": "Hi"})
    assert (response.status, response.json()["error"]["code"]) == (500, "upstream_error")
    assert upstream.calls == []


USAGES: list[Any] = [None, {}, 0, "many", [], {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "7"}]
USAGES += [{"prompt_tokens": 1.5, "completion_tokens": 2}, {"prompt_tokens": 2**63, "completion_tokens": 2**64}]


@pytest.mark.parametrize("usage", USAGES)
@pytest.mark.parametrize("path", [CHAT, "/api"])
async def test_counts_that_are_no_counts_spoil_nothing(
    gateway: Gateway, upstream: FakeUpstream, usage: object, path: str
) -> None:
    """A provider that cannot count has still answered."""
    upstream.queue(scripts.whole({**scripts.completion("Hi there"), "usage": usage}))
    body = http.chat("Hi") if path == CHAT else {"user_content": "Hi"}
    response = await http.post_json(gateway.port, path, body)
    assert response.status == 200, response.body
    assert b"Hi there" in response.body


UNENDING = [
    ("HTML", scripts.head(200, [("Content-Type", "text/html"), ("Transfer-Encoding", "chunked")])),
    ("500", scripts.head(500, [("Content-Type", "text/html"), ("Transfer-Encoding", "chunked")])),
    ("redirect", scripts.head(302, [("Location", "http://127.0.0.1:9/"), ("Content-Length", "1000000")])),
]


@pytest.mark.parametrize("said", [each[1] for each in UNENDING], ids=[each[0] for each in UNENDING])
async def test_nothing_is_kept_open_for_an_answer_that_is_not_wanted(
    gateway: Gateway, upstream: FakeUpstream, said: bytes
) -> None:
    """An answer that is a fault from its head on is left, though its body has no end."""
    upstream.queue(*[scripts.raw(said + b"5\r\n<htm>\r\n", then="hang")] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
    assert response.status in {502, 504}
    assert (await upstream.last_call()).ended == "gateway_left"


PAIR = [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
CLOSING = scripts.head(200, [("Content-Type", "application/json"), ("Connection", "close")])
PECULIAR: list[tuple[str, Script]] = [
    ("informs first", scripts.raw(b"".join(PAIR) + JSON_HEAD + GOOD)),
    (
        "sends chunks",
        scripts.raw(CHUNKED + b"".join(scripts.framed(GOOD[at : at + 7]) for at in range(0, len(GOOD), 7)) + END),
    ),
    ("adds trailers", scripts.raw(CHUNKED + scripts.framed(GOOD) + b"0\r\nX-Checksum: 1\r\n\r\n")),
    ("ends by closing", scripts.raw(CLOSING + GOOD, then="close")),
    ("speaks HTTP/1.0", scripts.raw(CLOSING.replace(b"HTTP/1.1", b"HTTP/1.0") + GOOD, then="close")),
    ("closes after each answer", scripts.raw(JSON_HEAD + GOOD, then="close")),
    ("says more than it stated", scripts.raw(JSON_HEAD + GOOD + b"HTTP/1.1 200 OK\r\n\r\n", then="hang")),
    ("names no type", scripts.raw(scripts.head(200, [("Content-Length", str(len(GOOD)))]) + GOOD)),
    ("sets cookies", scripts.whole(GOOD, 200, [("Set-Cookie", "a=b"), ("Set-Cookie", "c=d"), ("X-Odd", "\xe9")])),
    ("has blanks around", scripts.whole(b"\r\n " + GOOD + b"\n\n")),
]


@pytest.mark.parametrize("script", [each[1] for each in PECULIAR], ids=[each[0] for each in PECULIAR])
async def test_a_peculiar_provider_is_understood(gateway: Gateway, upstream: FakeUpstream, script: Script) -> None:
    """What HTTP allows is no fault: the answer arrives, call after call, and nothing of the head leaks through."""
    upstream.queue(*[script] * 3)
    for _ in range(3):
        response = await http.post_json(gateway.port, CHAT, http.chat("Hi"))
        assert response.status == 200, response.body
        assert response.body.strip() == GOOD
        assert not {"set-cookie", "x-odd", "link"} & {name for name, _ in response.headers}
    assert len(upstream.calls) == 3


async def test_a_provider_that_closes_idle_connections_costs_no_call(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A connection that the provider closed, or reset, while it was idle is not held against the next call."""
    for _ in range(5):
        assert (await http.post_json(gateway.port, CHAT, http.chat("Hi"))).status == 200
        upstream.calls[-1].connection.close()
    assert len(upstream.calls) == 5


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_an_answer_without_an_end_is_ended(gateway: Gateway, upstream: FakeUpstream, *, streamed: bool) -> None:
    """A provider that sends something for ever, but never an answer, is left after the time for all."""

    async def for_ever(exchange: Exchange) -> None:
        await exchange.send(scripts.STREAM_HEAD if streamed else CHUNKED)
        while True:
            await exchange.send(scripts.framed(b": still at it\n\n" if streamed else b" "))
            await asyncio.sleep(0.1)  # The gateway's own clock decides; here is nothing to move.

    upstream.queue(for_ever)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", stream=streamed))
    assert response.status in ({200, 504} if streamed else {504})
    assert b"upstream_timeout" in response.body
    assert b"[DONE]" not in response.body
    assert (await upstream.last_call()).ended == "gateway_left"


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_an_answer_too_large_is_not_swallowed(
    gateway: Gateway, upstream: FakeUpstream, *, streamed: bool
) -> None:
    """Forty mebibytes in one piece are no answer, and do not stay in memory."""

    async def too_much(exchange: Exchange) -> None:
        await exchange.send(
            scripts.STREAM_HEAD + scripts.framed(b"data: ") if streamed else CHUNKED + scripts.framed(b'{"x":"')
        )
        for _ in range(40):
            await exchange.send(scripts.framed(b"x" * (1 << 20)))
            await exchange.drained()
        await exchange.hang()

    upstream.queue(too_much)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", stream=streamed))
    assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")
    assert (await upstream.last_call()).ended == "gateway_left"
    assert gateway.resident_kib() < 200 * 1024


async def test_a_stream_answered_whole_is_refused_properly(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A provider that answers a stream with one JSON object has not streamed: the caller is told, not confused."""
    upstream.queue(*[scripts.raw(JSON_HEAD + GOOD)] * ENOUGH)
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", stream=True))
    assert (response.status, response.json()["error"]["code"]) == (502, "upstream_error")
