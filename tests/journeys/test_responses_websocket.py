"""OpenAI's Responses over a WebSocket: each turn is a whole call, and the connection remembers what was said on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fakes import gateway as gateway_process
from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream, Tap
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "test-admin-root-0123456789-0123456789"
ENDS = ("response.completed", "response.failed", "response.incomplete", "error")
CONFIG = """
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{chat}"
[[upstreams]]
name = "native"
provider = "openai"
base_url = "{native}"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "native"
targets = [{{ upstream = "native", model = "gpt-native-1" }}]
[[models]]
name = "twice"
targets = [{{ upstream = "chat", model = "a", priority = 0 }}, {{ upstream = "chat", model = "b", priority = 1 }}]
[retry]
max_retries = 0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def native_of_file() -> AsyncIterator[FakeUpstream]:
    """Run a fake provider of Responses for the tests of this file."""
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def native(native_of_file: FakeUpstream) -> FakeUpstream:
    """Return the fake provider of Responses with an empty log."""
    native_of_file.forget()
    return native_of_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, native_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of both, which keeps nothing in its database."""
    config = CONFIG.format(chat=upstream_of_file.base_url, native=native_of_file.base_url)
    return await start_gateway({"CHATGATE_ADMIN_KEY": ROOT}, config)


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, *headers: tuple[str, str], path: str = "/v1/responses") -> AsyncIterator[Talk]:
    """Open a connection."""
    async with connect(f"ws://127.0.0.1:{gateway.port}{path}", additional_headers=headers) as connection:
        yield Talk(connection)


class Talk:
    """A caller's end of a connection."""

    def __init__(self, connection: ClientConnection) -> None:
        """Take what is open."""
        self.connection = connection

    async def send(self, model: str = "chat", text: Any = "Hi", **more: Any) -> None:
        """Ask for a response."""
        await self.connection.send(json.dumps({"type": "response.create", "model": model, "input": text, **more}))

    async def event(self) -> dict[str, Any]:
        """Return the next event."""
        event: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 10))
        if event["type"] != "error":
            check("openai", "ResponseStreamEvent", {name: event[name] for name in event if name != "stream_id"})
        return event

    async def answer(self) -> list[dict[str, Any]]:
        """Return the events of an answer."""
        events = [await self.event()]
        while events[-1]["type"] not in ENDS:
            events.append(await self.event())
        return events

    async def turn(self, model: str = "chat", text: Any = "Hi", **more: Any) -> dict[str, Any]:
        """Ask, and return the last event of the answer."""
        await self.send(model, text, **more)
        return (await self.answer())[-1]


def text_of(event: dict[str, Any]) -> str:
    """Return what a response says."""
    items = event["response"]["output"]
    return "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])


def native_stream(identity: str, text: str, *, item: dict[str, Any] | None = None) -> list[bytes]:
    """Write the events of a provider's own stream."""
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    response = {
        "id": identity,
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-native-1",
        "output": [item or {**message, "content": content}],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
    }
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.completed", "response": response},
    ]
    return [
        f"event: {each['type']}\ndata: {json.dumps({**each, 'sequence_number': number})}\n\n".encode()
        for number, each in enumerate(told)
    ]


# --- Turns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/responses", "/responses", "/v1/v1/responses"])
async def test_several_turns_on_one_connection(gateway: Gateway, upstream: FakeUpstream, path: str) -> None:
    """Each event is a message, in the vendor's order; each turn is a call of its own in the log."""
    async with opened(gateway, http.bearer("sk-test-caller-7000"), path=path) as talk:
        for words in ("a b c", "d e"):
            await talk.send(text=words, stream=False)
            events = await talk.answer()
            assert [event["sequence_number"] for event in events] == list(range(len(events)))
            assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
            assert text_of(events[-1]) == words
            assert events[0]["headers"]["x-chatgate-model"] == "gpt-fake-small"
            assert not {"stream_id", "headers"} & events[-1].keys()
    assert len(upstream.calls) == 2
    sent = (await upstream.last_call()).json()
    assert (sent["stream"], sent["messages"]) == (True, [{"role": "user", "content": "d e"}])
    lines = await gateway.logged("call", 2, operation="chat", surface="responses", outcome="completed")
    assert len({line["request_id"] for line in lines}) == len(lines)
    assert {line["output_tokens"] for line in lines[-2:]} == {2, 3}
    assert lines[-1]["stream"]


async def test_what_is_left_out_is_told(gateway: Gateway) -> None:
    """With the first event."""
    async with opened(gateway) as talk:
        await talk.send(truncation="auto")
        assert (await talk.answer())[0]["headers"]["x-chatgate-dropped"] == "truncation"


async def test_a_dialogue_goes_on_without_being_stored(gateway: Gateway, upstream: FakeUpstream) -> None:
    """By the id of the connection's latest response, which nobody else knows."""
    async with opened(gateway) as talk, opened(gateway) as other:
        first = (await talk.turn(text="One", store=False))["response"]
        second = await talk.turn(text="Two", store=False, previous_response_id=first["id"])
        assert second["response"]["previous_response_id"] == first["id"]
        asked = [message["content"] for message in (await upstream.called(2)).json()["messages"]]
        assert asked == ["One", "One", "Two"]
        for each in (talk, other):
            refused = await each.turn(text="Three", store=False, previous_response_id=first["id"])
            assert (refused["type"], refused["status"]) == ("error", 400)
            assert refused["error"]["code"] == "previous_response_not_found"
        assert text_of(await talk.turn(text="Four", previous_response_id=second["response"]["id"])) == "Four"


async def test_a_response_is_prepared(gateway: Gateway, upstream: FakeUpstream) -> None:
    """No model is asked, and the next turn goes on from it."""
    async with opened(gateway) as talk:
        prepared = await talk.turn(text="Be ready", generate=False, store=False, instructions="Be kind.")
        assert prepared["response"]["output"] == []
        assert upstream.calls == []
        answer = await talk.turn(text="Now", store=False, previous_response_id=prepared["response"]["id"])
        assert text_of(answer) == "Now"
        messages = (await upstream.last_call()).json()["messages"]
        assert [message["content"] for message in messages] == ["Be ready", "Now"]
        again = await talk.turn(text="x", generate=False, previous_response_id="resp_none")
        assert again["error"]["code"] == "previous_response_not_found"
    assert await gateway.logged("call", 2, operation="response_preparation")


async def test_lanes(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Those of different names run beside each other, and every event names its own."""
    tap = Tap()
    upstream.queue(scripts.stream(scripts.text_events("slow answer"), tap=tap))
    async with opened(gateway) as talk:
        await talk.send(text="Slow", stream_id="slow")
        await upstream.called(1)
        quick = await talk.turn(text="Quick", stream_id="quick")
        assert (quick["stream_id"], text_of(quick)) == ("quick", "Quick")
        tap.let(20)
        slow = await talk.answer()
        assert {event["stream_id"] for event in slow} == {"slow"}
        forked = await talk.turn(text="On", stream_id="fork", previous_response_id=quick["response"]["id"])
        assert text_of(forked) == "On"
        for lane in ("", "a b", 3, "x" * 257):
            refused = await talk.turn(stream_id=lane)
            assert (refused["error"]["code"], refused["error"]["param"]) == ("invalid_stream_id", "stream_id")
        for number in range(29):
            assert "response" in await talk.turn("demo/echo", stream_id=f"lane-{number}")
        refused = await talk.turn("demo/echo", stream_id="too.many")
        assert refused["error"]["code"] == "websocket_stream_limit_reached"


async def test_a_provider_of_responses_is_gone_on_from(gateway: Gateway, native: FakeUpstream) -> None:
    """What it does not keep is written out; what it keeps itself is left to it."""
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    native.queue(scripts.stream(native_stream("resp_theirs1", "", item=thought), end=b""))
    native.queue(scripts.stream(native_stream("resp_theirs2", "Two"), end=b""))
    native.queue(scripts.stream(native_stream("resp_theirs3", "Three"), end=b""))
    async with opened(gateway) as talk:
        first = await talk.turn("native", [{"role": "user", "content": "One"}], store=False)
        assert first["response"]["id"] == "resp_theirs1"
        await talk.turn("native", "Two", store=False, previous_response_id="resp_theirs1")
        sent = (await native.called(2)).json()
        assert sent["previous_response_id"] is None
        second = {"type": "message", "role": "user", "content": "Two"}
        assert sent["input"] == [{"role": "user", "content": "One"}, thought, second]
        await talk.turn("native", "Three", previous_response_id="resp_kept_there")
        assert (await native.called(3)).json()["previous_response_id"] == "resp_kept_there"


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ("{", "invalid_json", None),
        ("[]", "invalid_json", None),
        ('{"type":"response.create","type":"response.create"}', "invalid_json", None),
        ('{"model":"chat","input":"Hi"}', "invalid_value", "type"),
        ('{"type":"response.steer","input":"Hi","previous_response_id":"r"}', "invalid_value", "type"),
        ('{"type":"response.create","model":"chat","input":"Hi","generate":"no"}', "invalid_value", "generate"),
        ('{"type":"response.create","input":"Hi"}', "invalid_value", "model"),
        ('{"type":"response.create","model":"chat","input":"Hi","background":true}', "invalid_value", "background"),
        ('{"type":"response.create","model":"nobody","input":"Hi"}', "model_not_found", "model"),
    ],
)
async def test_a_refused_turn_is_an_event(gateway: Gateway, message: str, code: str, param: str | None) -> None:
    """In the vendor's shape, with the request's id; the connection goes on."""
    async with opened(gateway) as talk:
        await talk.connection.send(message)
        refused = await talk.event()
        check("openai", "Error", {**refused["error"], "headers": None} | {"headers": {}})
        assert (refused["error"]["code"], refused["error"]["param"]) == (code, param)
        assert refused["status"] in (400, 404)
        assert refused["headers"]["x-request-id"].startswith("req_")
        assert text_of(await talk.turn(text="Still here")) == "Still here"


async def test_limits_count_turns(start_gateway: StartGateway) -> None:
    """The refusal says how long to wait, where clients look for it."""
    gateway = await start_gateway({"HOUR_LIMIT": "1"})
    async with opened(gateway) as talk:
        assert text_of(await talk.turn("demo/echo", "One")) == "One"
        refused = await talk.turn("demo/echo", "Two")
        assert (refused["status"], refused["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 3000 < int(refused["headers"]["retry-after"]) <= 3600
        assert refused["error"]["headers"] == refused["headers"]


async def test_a_stream_that_breaks_goes_on_elsewhere_or_fails(gateway: Gateway, upstream: FakeUpstream) -> None:
    """As over HTTP; the connection survives both."""
    text = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"
    cut = scripts.stream(scripts.text_events(text)[:9], end=b"", then="reset", close=False)
    upstream.on_model("a", cut)
    upstream.on_model("b", scripts.telling(text, by="b"))
    async with opened(gateway) as talk:
        assert text_of(await talk.turn("twice", text)) == text
        upstream.queue(cut)
        failed = await talk.turn("chat", text)
        assert (failed["type"], failed["response"]["error"]["code"]) == ("response.failed", "server_error")
        upstream.queue(scripts.whole(scripts.error_body("No such thing"), 400))
        refused = await talk.turn("chat", "x")
        assert (refused["status"], "No such thing" in refused["error"]["message"]) == (400, True)
        assert text_of(await talk.turn(text="Still here")) == "Still here"


async def test_who_leaves_ends_their_call(gateway: Gateway, upstream: FakeUpstream) -> None:
    """By closing, or by being lost."""
    for way in ("close", "lost"):
        upstream.queue(scripts.stream(scripts.text_events("one two three"), tap=Tap(2)))
        async with opened(gateway) as talk:
            await talk.send(text="Count")
            await talk.event()
            if way == "lost":
                talk.connection.transport.abort()
        call = await upstream.last_call()
        assert call.ended == "gateway_left"
    assert len(await gateway.logged("call", 2, surface="responses", outcome="client_left")) == 2


# --- Who gets in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([http.bearer("sk-cg-x")], 401),
        ([("Origin", "https://elsewhere.test")], 403),
        ([("Origin", "null")], 403),
    ],
)
async def test_who_may_not_is_told_before_the_upgrade(
    gateway: Gateway, headers: list[tuple[str, str]], status: int
) -> None:
    """In HTTP, in OpenAI's shape."""
    with pytest.raises(InvalidStatus) as caught:
        async with opened(gateway, *headers):
            pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"")["error"]["code"]


async def test_a_page_of_the_gateways_own_may(gateway: Gateway) -> None:
    """Its origin is where it asks."""
    async with opened(gateway, ("Origin", gateway.url)) as talk:
        assert text_of(await talk.turn("demo/echo", "Hi")) == "Hi"


async def test_a_key_that_is_revoked_ends_its_turns(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The one that runs, and those to come; an unknown one gets no connection."""
    made = (
        await http.request(
            gateway.port, "POST", "/admin/api/v1/keys", [http.bearer(ROOT), http.JSON], b'{"name":"anna"}'
        )
    ).json()
    async with opened(gateway, http.bearer(made["key"])) as talk:
        assert text_of(await talk.turn(text="Hello")) == "Hello"
        upstream.queue(scripts.stream(scripts.text_events("one two three"), tap=Tap(2)))
        await talk.send(text="Count")
        await talk.event()
        revoked = await http.request(
            gateway.port, "POST", f"/admin/api/v1/keys/{made['id']}/revoke", [http.bearer(ROOT)]
        )
        assert revoked.status == 200
        assert (await talk.answer())[-1]["type"] == "response.failed"
        assert (await talk.turn())["status"] == 401
        assert (await talk.turn(generate=False))["status"] == 401
    with pytest.raises(InvalidStatus):
        async with opened(gateway, http.bearer(made["key"])):
            pass


async def test_a_shutdown_lets_the_turn_end(upstream: FakeUpstream) -> None:
    """Then the connection is closed because the server goes away, and one without a turn at once."""
    tap = Tap(2)
    upstream.queue(scripts.stream(scripts.text_events("one two three"), tap=tap))
    environment = {"OPENAI_BASE_URL": upstream.base_url, "API_KEY": "sk-test-server-7001"}
    async with gateway_process.running(environment) as gateway, opened(gateway) as talk, opened(gateway) as idle:
        await talk.send("gpt-fake-small", "Count")
        await talk.event()
        gateway.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(idle.connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        tap.let(20)
        assert text_of((await talk.answer())[-1]) == "one two three"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(talk.connection.recv(), 10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
