"""OpenAI's Responses over HTTP: over upstreams that speak chat, and through to those that speak Responses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESPONSES = "/v1/responses"
SERVER_KEY = "sk-test-server-4000"
ALICE, BOB = http.bearer("sk-test-alice-4001"), http.bearer("sk-test-bob-4002")
TEXT = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"
TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": False}

CONFIG = """
[server]
route = "api"
[responses]
store_seconds = 3600
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[upstreams]]
name = "native"
provider = "openai"
base_url = "{native}"
api_key = "{key}"
[[prices]]
model = "priced"
input_usd_per_million = "1"
output_usd_per_million = "2"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "priced"
targets = [{{ upstream = "native", model = "priced" }}]
[[models]]
name = "native"
targets = [{{ upstream = "native", model = "gpt-native-1" }}]
[[models]]
name = "native-first"
targets = [{{ upstream = "native", model = "gpt-native-1", priority = 0 }},
           {{ upstream = "chat", model = "gpt-fake-small", priority = 1 }}]
[[models]]
name = "twice"
targets = [{{ upstream = "chat", model = "a", priority = 0 }}, {{ upstream = "chat", model = "b", priority = 1 }}]
[retry]
max_retries = 0
"""
NATIVE_USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 500,
    "output_tokens_details": {"reasoning_tokens": 100},
    "total_tokens": 1500,
}


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
    """Run a gateway in front of both."""
    return await start_gateway(
        config=CONFIG.format(chat=upstream_of_file.base_url, native=native_of_file.base_url, key=SERVER_KEY)
    )


async def post(gateway: Gateway, model: str, text: Any = "Hi", *headers: tuple[str, str], **more: Any) -> http.Response:
    """Ask for a response."""
    return await http.post_json(gateway.port, RESPONSES, {"model": model, "input": text, **more}, headers)


def events_of(response: http.Response) -> list[dict[str, Any]]:
    """Return the events of a stream, each held against the vendor's schema."""
    assert (response.status, response.header("content-type")) == (200, "text/event-stream; charset=utf-8")
    events = [json.loads(data) for data in response.events()]
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        check("openai", "ResponseStreamEvent", event)
    return events


def text_of(response: dict[str, Any]) -> str:
    """Return what a response says."""
    return "".join(part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"])


def native_response(**more: Any) -> dict[str, Any]:
    """Return a provider's own response."""
    return {"id": "resp_theirs", "object": "response", "status": "completed", "output": [], "new": [1.0], **more}


def native_stream(*texts: str, usage: Any = NATIVE_USAGE, end: str = "response.completed") -> list[bytes]:
    """Write the events of a provider's own stream."""
    told: list[dict[str, Any]] = [{"type": "response.created", "response": native_response(status="in_progress")}]
    told += [{"type": "response.output_text.delta", "item_id": "m", "delta": text} for text in texts]
    if end:
        told.append({"type": end, "response": native_response(usage=usage)})
    return [
        f"event: {each['type']}\ndata: {json.dumps({**each, 'sequence_number': number})}\n\n".encode()
        for number, each in enumerate(told)
    ]


# --- Over a chat ------------------------------------------------------------------------------------------------------


async def test_a_question_is_answered(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The upstream is asked for a chat, and the caller gets a response with the counts."""
    response = await post(
        gateway, "chat", "Good day", ALICE, instructions="Be brief.", max_output_tokens=9, store=False
    )
    assert response.status == 200
    answer = response.json()
    check("openai", "Response", answer)
    assert (text_of(answer), answer["status"], answer["store"]) == ("Good day", "completed", False)
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (7, 2)
    assert response.header("x-chatgate-model") == "gpt-fake-small"
    call = await upstream.last_call()
    assert call.target == "/v1/chat/completions"
    assert call.json() == {
        "model": "gpt-fake-small",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Good day"}],
        "max_tokens": 9,
    }
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    facts = (line["operation"], line["surface"], line["input_tokens"], line["output_tokens"], line["outcome"])
    assert facts == ("chat", "responses", 7, 2, "completed")


@pytest.mark.parametrize("path", [RESPONSES, "/responses", "/v1/v1/responses"])
async def test_a_stream(gateway: Gateway, upstream: FakeUpstream, path: str) -> None:
    """Every event is the vendor's, in the vendor's order, wherever the base URL points."""
    value = {"model": "chat", "input": "a b c", "stream": True}
    events = events_of(await http.post_json(gateway.port, path, value))
    assert [event["type"] for event in events if not event["type"].endswith("delta")] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event["delta"] for event in events if event["type"].endswith("delta")) == "a b c"
    assert text_of(events[-1]["response"]) == "a b c"
    assert events[-1]["response"]["usage"]["total_tokens"] == 10
    assert (await upstream.last_call()).json()["stream_options"] == {"include_usage": True}


async def test_a_tool_is_called_and_its_result_sent_back(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Arguments stream as they come; the next turn is a chat with the call and its result."""
    pieces = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at"'}}]
    rest = [{"index": 0, "function": {"arguments": ':"sea"}'}}]
    chunks = [scripts.chunk({"tool_calls": each}) for each in (pieces, rest)]
    chunks.append(scripts.chunk({}, finish="tool_calls"))
    upstream.queue(scripts.stream([scripts.event(chunk) for chunk in chunks]))
    events = events_of(await post(gateway, "chat", "Look", tools=[TOOL], stream=True))
    [called] = events[-1]["response"]["output"]
    assert (called["type"], called["call_id"], called["arguments"]) == ("function_call", "call_1", '{"at":"sea"}')
    result = {"type": "function_call_output", "call_id": "call_1", "output": "Waves."}
    answer = await post(gateway, "chat", [{"role": "user", "content": "Look"}, called, result], tools=[TOOL])
    assert answer.status == 200
    sent = (await upstream.called(2)).json()
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool"]
    assert sent["messages"][1]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":"sea"}'}


async def test_what_is_lost_is_refused_or_told(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A part is refused by its path before anything is sent; a hint is left out and named."""
    refused = await post(gateway, "chat", background=True)
    assert refused.status == 400
    assert (refused.json()["error"]["param"], refused.json()["error"]["type"]) == (
        "background",
        "invalid_request_error",
    )
    assert upstream.calls == []
    told = await post(gateway, "chat", truncation="auto", tools=[TOOL, {"type": "web_search"}])
    assert (told.status, told.header("x-chatgate-dropped")) == (200, "tools[], truncation")


async def test_a_stream_that_breaks_off_goes_on_elsewhere(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The caller gets one response, whose events have no gap, from two upstreams."""
    upstream.on_model("a", scripts.stream(scripts.text_events(TEXT)[:9], end=b"", then="reset", close=False))
    upstream.on_model("b", scripts.telling(TEXT, by="b"))
    events = events_of(await post(gateway, "twice", TEXT, stream=True))
    assert events[-1]["type"] == "response.completed"
    assert text_of(events[-1]["response"]) == TEXT
    assert len(upstream.calls) == 2


async def test_a_stream_that_cannot_go_on_says_that_it_failed(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Its last event is the response as a failed one, and no call in it is to be carried out."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "look", "arguments": '{"a'}}
    begun = [scripts.event(scripts.chunk({"tool_calls": [call]}))]
    upstream.queue(scripts.stream(begun, end=b"", then="reset", close=False))
    events = events_of(await post(gateway, "chat", tools=[TOOL], stream=True))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert "response.output_item.done" not in {event["type"] for event in events}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", RESPONSES, b"{", (), 400, "invalid_json"),
        ("POST", RESPONSES, b'{"model":"chat","input":3}', (), 400, "invalid_value"),
        ("POST", RESPONSES, b'{"model":"chat","input":"Hi"}', (http.bearer("sk-cg-x"),), 401, "invalid_api_key"),
        ("POST", RESPONSES, b'{"model":"none","input":"Hi"}', (), 404, "model_not_found"),
        ("POST", f"{RESPONSES}/resp_1/else", b"{}", (), 404, "not_found"),
        ("PUT", RESPONSES, b"", (), 405, "method_not_allowed"),
        ("GET", RESPONSES, b"", (), 405, "method_not_allowed"),
        ("POST", f"{RESPONSES}/resp_1", b"", (), 405, "method_not_allowed"),
        (
            "POST",
            RESPONSES,
            b"x",
            (("Content-Type", "multipart/form-data; boundary=x"),),
            415,
            "unsupported_media_type",
        ),
        ("GET", RESPONSES, b"", (("Connection", "Upgrade"), ("Upgrade", "h2c")), 426, "method_not_allowed"),
        ("GET", RESPONSES, b"", (("Connection", "Upgrade"), ("Upgrade", "websocket")), 400, "invalid_value"),
        (
            "GET",
            "/v1/chat/completions",
            b"",
            (("Connection", "Upgrade"), ("Upgrade", "websocket")),
            426,
            "method_not_allowed",
        ),
    ],
)
async def test_every_refusal_has_openais_shape(
    gateway: Gateway,
    method: str,
    path: str,
    body: bytes,
    headers: tuple[tuple[str, str], ...],
    status: int,
    code: str,
) -> None:
    """A client's error class finds what it looks for."""
    response = await http.request(gateway.port, method, path, headers, body)
    assert (response.status, response.json()["error"]["code"]) == (status, code)
    check("openai", "ErrorResponse", response.json())
    if status == 426:
        assert response.header("upgrade") == "HTTP/1.1"  # RFC 9110 section 15.5.22 wants it.
    if status == 405:
        assert response.header("allow") in ("POST", "GET, DELETE")


# --- Through to a provider of Responses -------------------------------------------------------------------------------


async def test_a_call_passes_byte_for_byte(gateway: Gateway, native: FakeUpstream) -> None:
    """Only the model's name changes; what nobody here knows goes both ways."""
    said = json.dumps(native_response(usage=NATIVE_USAGE), indent=1).encode()
    native.queue(scripts.whole(said))
    body = b'{ "model":"native", "input":[{"type":"of_the_future","x":[1,2.50,"\\u00eb"]}],"background":true }'
    response = await http.request(gateway.port, "POST", RESPONSES, [http.JSON], body)
    assert (response.status, response.body) == (200, said)
    assert response.header("x-chatgate-dropped") is None
    call = await native.last_call()
    assert (call.target, call.header("authorization")) == ("/v1/responses", f"Bearer {SERVER_KEY}")
    assert call.body == body.replace(b'"native"', b'"gpt-native-1"')


async def test_a_stream_passes_byte_for_byte_and_is_charged(gateway: Gateway, native: FakeUpstream) -> None:
    """Its count is in the last event, and what it cost in the record."""
    events = native_stream("Good", " day")
    native.queue(scripts.stream(events, end=b""))
    response = await post(gateway, "priced", stream=True)
    assert (response.status, response.body) == (200, b"".join(events))
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["input_tokens"], line["output_tokens"], line["cost_usd"]) == (1000, 500, "0.002")


async def test_a_provider_of_responses_is_replaced_by_a_chat(
    gateway: Gateway, upstream: FakeUpstream, native: FakeUpstream
) -> None:
    """As long as the caller has seen nothing; afterwards its stream ends as a failed one."""
    for stream in (False, True):
        native.queue(scripts.whole(scripts.error_body("Down."), 503))
        response = await post(gateway, "native-first", "Hello", stream=stream)
        answer = events_of(response)[-1]["response"] if stream else response.json()
        assert text_of(answer) == "Hello"
    assert len(upstream.calls) == 2
    native.queue(scripts.stream(native_stream("Good", end=""), end=b"", then="reset", close=False))
    response = await post(gateway, "native-first", stream=True)
    told = [json.loads(data) for data in response.events()]
    assert [event["type"] for event in told][-2:] == ["response.output_text.delta", "response.failed"]
    assert (told[-1]["response"]["id"], told[-1]["sequence_number"]) == ("resp_theirs", 2)
    assert len(upstream.calls) == 2


async def test_other_callers_get_a_chat_from_such_a_provider(gateway: Gateway, native: FakeUpstream) -> None:
    """It speaks both, each in its place."""
    chat = {"model": "native", "messages": [{"role": "user", "content": "Hi"}]}
    response = await http.post_json(gateway.port, "/v1/chat/completions", chat)
    assert response.status == 200
    assert (await native.last_call()).target == "/v1/chat/completions"


# --- Kept for a time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_dialogue_goes_on_by_id(
    gateway: Gateway,
    upstream: FakeUpstream,
    native: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """As soon as the caller has the end of an answer, the next call may go on from it, at any upstream."""
    first = await post(gateway, "chat", "One", ALICE, stream=stream)
    kept = events_of(first)[-1]["response"] if stream else first.json()
    assert kept["store"] is True
    second = await post(gateway, "chat", "Two", ALICE, previous_response_id=kept["id"])
    assert second.json()["previous_response_id"] == kept["id"]
    sent = (await upstream.called(2)).json()["messages"]
    assert [(message["role"], message["content"]) for message in sent] == [
        ("user", "One"),
        ("assistant", "One"),
        ("user", "Two"),
    ]
    native.queue(scripts.whole(native_response()))
    await post(gateway, "native", "Three", ALICE, previous_response_id=second.json()["id"])
    passed = (await native.last_call()).json()
    assert passed["previous_response_id"] is None
    assert len(passed["input"]) == 5
    assert (await http.request(gateway.port, "GET", f"{RESPONSES}/{kept['id']}", [ALICE])).json() == kept


async def test_nobody_sees_what_another_key_asked(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Neither shown, nor gone on from, nor deleted; to its own key it is there until that deletes it."""
    kept = (await post(gateway, "chat", "Secret", ALICE)).json()["id"]
    place = f"{RESPONSES}/{kept}"
    for stranger in ((BOB,), ()):
        for method, path in (
            ("GET", place),
            ("GET", f"{place}/input_items"),
            ("DELETE", place),
            ("POST", f"{place}/cancel"),
        ):
            assert (await http.request(gateway.port, method, path, stranger)).status == 404
        going_on = await post(gateway, "chat", "More", *stranger, previous_response_id=kept)
        assert (going_on.status, going_on.json()["error"]["code"]) == (400, "previous_response_not_found")
    assert len(upstream.calls) == 1
    assert (await http.request(gateway.port, "POST", f"{place}/cancel", [ALICE])).status == 400
    items = await http.request(gateway.port, "GET", f"{place}/input_items?order=asc", [ALICE])
    assert items.json()["data"][0]["content"] == [{"type": "input_text", "text": "Secret"}]
    check("openai", "ResponseItemList", items.json())
    deleted = await http.request(gateway.port, "DELETE", place, [ALICE])
    assert deleted.json() == {"id": kept, "object": "response", "deleted": True}
    assert (await http.request(gateway.port, "GET", place, [ALICE])).status == 404


async def test_a_gateway_keeps_nothing_unless_it_is_told_to(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Neither an answer nor a question is in its files, and whoever asks for one is told why."""
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url})
    response = await post(gateway, "gpt-fake-small", "A rare phrase", ALICE)
    assert response.json()["store"] is False
    shown = await http.request(gateway.port, "GET", f"{RESPONSES}/{response.json()['id']}", [ALICE])
    assert (shown.status, "store_seconds" in shown.json()["error"]["message"]) == (404, True)
    assert not any(b"rare phrase" in content for content in gateway.files().values())


async def test_a_call_that_nobody_wants_kept_is_not(gateway: Gateway) -> None:
    """`store: false` is the caller's to say."""
    response = await post(gateway, "chat", "An unkept phrase", ALICE, store=False)
    path = f"{RESPONSES}/{response.json()['id']}"
    assert (await http.request(gateway.port, "GET", path, [ALICE])).status == 404
    assert not any(b"unkept phrase" in content for content in gateway.files().values())
