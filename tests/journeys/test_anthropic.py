"""Anthropic's protocol in and out: callers of either protocol, and of the plain API, reach upstreams of either."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from chatgate.protocols.anthropic.message import UNSIGNED
from fakes import http_client as http
from fakes import messages, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = "/v1/messages"
CHAT = "/v1/chat/completions"
SERVER_KEY = "sk-ant-test-server-3000"
VERSION = ("anthropic-version", "2023-06-01")
TEXT = messages.text_block("One two three.")
LONG = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {"at": {}}}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea"}}

CONFIG = """
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{claude}"
api_key = "{key}"
[[prices]]
model = "claude"
input_usd_per_million = "1"
output_usd_per_million = "2"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "claude"
targets = [{{ upstream = "claude", model = "claude-fake-1" }}]
[[models]]
name = "claude-first"
targets = [{{ upstream = "claude", model = "claude-fake-1", priority = 0 }},
           {{ upstream = "chat", model = "gpt-fake-small", priority = 1 }}]
[[models]]
name = "chat-first"
targets = [{{ upstream = "chat", model = "gpt-fake-small", priority = 0 }},
           {{ upstream = "claude", model = "claude-fake-1", priority = 1 }}]
[retry]
max_retries = 0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def claude_of_file() -> AsyncIterator[FakeUpstream]:
    """Run a fake Anthropic for the tests of this file."""
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def claude(claude_of_file: FakeUpstream) -> FakeUpstream:
    """Return the fake Anthropic with an empty log."""
    claude_of_file.forget()
    return claude_of_file


def config_of(chat: FakeUpstream, claude: FakeUpstream) -> str:
    """Return a configuration with both; Anthropic's clients write base URLs without the version."""
    return CONFIG.format(chat=chat.base_url, claude=claude.base_url.removesuffix("/v1"), key=SERVER_KEY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, claude_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of both."""
    return await start_gateway(config=config_of(upstream_of_file, claude_of_file))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lenient(upstream_of_file: FakeUpstream, claude_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that leaves out what cannot be carried."""
    config = config_of(upstream_of_file, claude_of_file)
    return await start_gateway(config=config + "[translation]\ndrop_unsupported = true\n")


def asked(model: str, text: str = "Hi", **more: Any) -> dict[str, Any]:
    """Return an Anthropic request."""
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}], **more}


async def post(gateway: Gateway, value: Any, *headers: tuple[str, str], path: str = MESSAGES) -> http.Response:
    """Post a request as an Anthropic client does."""
    return await http.post_json(gateway.port, path, value, [VERSION, *headers])


def content_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of a message without what only the vendor's schema wants."""
    return [
        {name: each for name, each in block.items() if name not in ("caller", "citations")}
        for block in message["content"]
    ]


def refusing(status: int, kind: str, text: str) -> scripts.Script:
    """Refuse as Anthropic does."""
    return scripts.whole(messages.error(kind, text), status, [("Retry-After", "7")])


# --- Anthropic to Anthropic -------------------------------------------------------------------------------------------


async def test_a_call_passes_byte_for_byte(gateway: Gateway, claude: FakeUpstream) -> None:
    """Only the model's name changes, both ways; version and betas go along, the key is the operator's."""
    said = json.dumps(messages.message(TEXT, new_field=[1.0]), indent=1).encode()
    claude.queue(scripts.whole(said))
    body = (
        '{ "model":"claude", "max_tokens":5,"unheard_of":{"a":[1,2.50,"\\u00eb"]},\n'
        '"messages":[{"role":"user","content":[{"type":"text","text":"ünï","cache_control":{"type":"ephemeral"}}]}] }'
    ).encode()
    headers = [http.JSON, ("anthropic-version", "2026-10-21"), ("anthropic-beta", "a-2026, b-2026"), ("X-Mine", "1")]
    response = await http.request(gateway.port, "POST", MESSAGES, headers, body)
    assert (response.status, response.body) == (200, said)
    assert response.header("x-chatgate-dropped") is None
    call = await claude.last_call()
    assert call.target == "/v1/messages"
    assert call.body == body.replace(b'"claude"', b'"claude-fake-1"')
    assert call.header("x-api-key") == SERVER_KEY
    assert call.header("anthropic-version") == "2026-10-21"
    assert call.header("anthropic-beta") == "a-2026, b-2026"
    assert not {"authorization", "x-mine"} & {name for name, _ in call.headers}


async def test_a_stream_passes_byte_for_byte(gateway: Gateway, claude: FakeUpstream) -> None:
    """Also events that nobody here knows, and it is counted and priced all the same."""
    events = messages.events(TEXT, CALL, stop="tool_use")
    events.insert(-1, messages.event({"type": "new_thing", "a": 1}))
    claude.queue(scripts.stream(events, end=b""))
    response = await post(gateway, asked("claude", stream=True))
    assert response.body == b"".join(events)
    (line,) = await gateway.logged("call", request_id=response.header("request-id"))
    assert (line["surface"], line["input_tokens"], line["output_tokens"]) == ("anthropic", 9, 4)
    assert (line["outcome"], line["cost_usd"], line["target"]) == ("completed", "0.000017", "claude/claude-fake-1")


async def test_a_call_costs_the_same_whatever_is_spoken(gateway: Gateway, claude: FakeUpstream) -> None:
    """Whole or streamed, passed or translated: the provider's count is the ledger's."""
    costs = []
    for path, value in (
        (MESSAGES, asked("claude")),
        (MESSAGES, asked("claude", stream=True)),
        (CHAT, http.chat("Hi", "claude")),
        (CHAT, http.chat("Hi", "claude", stream=True)),
        ("/", {"user_content": "Hi", "model": "claude"}),
    ):
        claude.queue(messages.answering(TEXT))
        response = await http.post_json(gateway.port, path, value)
        assert response.status == 200
        (line,) = await gateway.logged("call", request_id=response.header("request-id"))
        costs.append((line["input_tokens"], line["output_tokens"], line["cost_usd"]))
    assert costs == [(9, 4, "0.000017")] * 5


async def test_thinking_of_another_provider_is_not_shown_to_anthropic(gateway: Gateway, claude: FakeUpstream) -> None:
    """A dialogue that moves between providers brings along what only the gateway has signed."""
    ours = [{"type": "thinking", "thinking": "Hm", "signature": UNSIGNED}, TEXT]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": ours}, {"role": "user", "content": "b"}]
    claude.queue(messages.answering(TEXT))
    assert (await post(gateway, asked("claude", messages=turns))).status == 200
    assert (await claude.last_call()).json()["messages"][1]["content"] == [TEXT]


# --- Anthropic to OpenAI ----------------------------------------------------------------------------------------------


async def test_an_anthropic_caller_reaches_an_openai_upstream(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The answer is a message by the vendor's own schema, the request a chat."""
    response = await post(gateway, asked("chat", "Hello there", system="Be brief."))
    message = response.json()
    check("anthropic", "Message", message)
    assert content_of(message) == [messages.text_block("Hello there")]
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 2)
    sent = (await upstream.last_call()).json()
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    assert (sent["model"], sent["max_tokens"]) == ("gpt-fake-small", 50)
    assert response.header("x-chatgate-model") == "gpt-fake-small"


async def test_an_openai_stream_becomes_events(gateway: Gateway, upstream: FakeUpstream) -> None:
    """In the vendor's order, with the usage that the upstream was asked for."""
    response = await post(gateway, asked("chat", "a b c", stream=True))
    found = messages.read(response.body)
    for each in found:
        if each["type"] != "ping":
            check("anthropic", "MessageStreamEvent", each)
    message = messages.assembled(found)
    assert content_of(message) == [messages.text_block("a b c")]
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (7, 3)
    assert (await upstream.last_call()).json()["stream_options"] == {"include_usage": True}


async def test_tools_are_called_across_protocols(gateway: Gateway, upstream: FakeUpstream) -> None:
    """An OpenAI model's call with streamed arguments is a tool_use, and the tool's result goes back to it."""
    function = {"name": "look", "arguments": ""}
    deltas = [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"sea"}'}}]},
    ]
    events = [*map(scripts.event, map(scripts.chunk, deltas)), scripts.event(scripts.chunk({}, finish="tool_calls"))]
    upstream.queue(scripts.stream(events), scripts.provider)
    first = messages.assembled(messages.read((await post(gateway, asked("chat", stream=True, tools=[TOOL]))).body))
    assert first["stop_reason"] == "tool_use"
    assert content_of(first) == [{**CALL, "id": "call_1"}]
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "blue"}
    turns = [
        {"role": "user", "content": "Look"},
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    response = await post(gateway, asked("chat", messages=turns, tools=[TOOL]))
    assert response.status == 200
    assert [each["role"] for each in (await upstream.last_call()).json()["messages"]] == ["user", "assistant", "tool"]


async def test_what_cannot_be_carried_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The refusal names the field, and no provider is called."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    response = await post(gateway, asked("chat", tools=[search]))
    assert response.status == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert "tools[0]" in response.json()["error"]["message"]
    assert response.header("x-chatgate-attempts") == "0"
    assert upstream.calls == []
    (line,) = await gateway.logged("call", request_id=response.header("request-id"))
    assert (line["outcome"], line["code"]) == ("refused", "invalid_value")


async def test_where_the_operator_allows_it_goes_missing(
    lenient: Gateway, upstream: FakeUpstream, claude: FakeUpstream
) -> None:
    """And the answer says what did."""
    search = {"type": "web_search_20250305", "name": "web_search"}
    for stream in (False, True):
        response = await post(lenient, asked("chat", "a", tools=[search, TOOL], stream=stream))
        assert response.status == 200
        assert response.header("x-chatgate-dropped") == "tools[]"
        assert [each["function"]["name"] for each in (await upstream.last_call()).json()["tools"]] == ["look"]
    claude.queue(messages.answering(TEXT))
    response = await http.post_json(lenient.port, CHAT, http.chat("a", "claude", seed=3, logit_bias={"1": 2}))
    assert (response.status, response.header("x-chatgate-dropped")) == (200, "logit_bias, seed")


async def test_what_one_target_cannot_carry_goes_to_one_that_can(
    gateway: Gateway, upstream: FakeUpstream, claude: FakeUpstream
) -> None:
    """A web search is nothing that an OpenAI chat knows, but the model's other provider does."""
    claude.queue(messages.answering(TEXT))
    response = await post(gateway, asked("chat-first", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    assert response.status == 200
    assert upstream.calls == []
    assert len(claude.calls) == 1
    assert response.header("x-chatgate-attempts") == "1"


async def test_hints_are_left_out_and_told(gateway: Gateway, upstream: FakeUpstream) -> None:
    """As a coding agent's: marks for a cache, context management, adaptive thinking."""
    block = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    response = await post(
        gateway,
        asked("chat", messages=[{"role": "user", "content": [block]}], context_management={"edits": [1]}),
    )
    assert response.status == 200
    assert response.header("x-chatgate-dropped") == "messages[].content[].cache_control, context_management"
    assert len(upstream.calls) == 1


# --- OpenAI and the plain API to Anthropic ----------------------------------------------------------------------------


async def test_an_openai_caller_reaches_an_anthropic_upstream(gateway: Gateway, claude: FakeUpstream) -> None:
    """The answer is a completion by OpenAI's own schema, the request one that Anthropic's schema takes."""
    claude.queue(messages.answering(TEXT, CALL, stop="tool_use"))
    function = {"name": "look", "description": "Looks.", "parameters": TOOL["input_schema"]}
    value = http.chat("Hi", "claude", temperature=0.5, tools=[{"type": "function", "function": function}], seed=1)
    response = await http.post_json(gateway.port, CHAT, value)
    answer = response.json()
    check("openai", "CreateChatCompletionResponse", answer)
    assert answer["choices"][0]["message"]["content"] == "One two three."
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":"sea"}'}
    assert (answer["choices"][0]["finish_reason"], answer["usage"]["total_tokens"]) == ("tool_calls", 13)
    assert response.header("x-chatgate-dropped") == "seed"
    call = await claude.last_call()
    check("anthropic", "CreateMessageParams", call.json())
    assert (call.header("x-api-key"), call.header("anthropic-version")) == (SERVER_KEY, "2023-06-01")
    assert call.json()["tools"] == [TOOL]


@pytest.mark.parametrize("usage", [True, False])
async def test_an_anthropic_stream_becomes_chunks(gateway: Gateway, claude: FakeUpstream, usage: bool) -> None:  # noqa: FBT001 - a table's column
    """With the end mark, and with the usage only for those who asked for it."""
    claude.queue(messages.answering(TEXT))
    value = http.chat("Hi", "claude", stream=True, stream_options={"include_usage": usage})
    events = (await http.post_json(gateway.port, CHAT, value)).events()
    assert events.pop() == b"[DONE]"
    chunks = [json.loads(event) for event in events]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == "One two three."
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")] == [13] * usage


async def test_the_plain_api_reaches_an_anthropic_upstream(gateway: Gateway, claude: FakeUpstream) -> None:
    """Whole and streamed, with its own bounds on the length of an answer."""
    for stream in (False, True):
        claude.queue(messages.answering(TEXT))
        value = {"user_content": "Hi", "sys_content": "Be brief.", "model": "claude", "stream": stream}
        response = await http.post_json(gateway.port, "/", value)
        whole = json.loads(response.events()[-1]) if stream else response.json()
        assert whole["data"]["response"] == "One two three."
        assert whole["data"]["usage"] == {"input_tokens": 9, "output_tokens": 4}
        sent = (await claude.last_call()).json()
        assert (sent["system"], sent["max_tokens"]) == ("Be brief.", 100)


async def test_what_an_anthropic_model_cannot_do_is_refused(gateway: Gateway, claude: FakeUpstream) -> None:
    """In the words of the caller's own protocol."""
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", "claude", logit_bias={"50256": -100}))
    assert (response.status, response.json()["error"]["param"]) == (400, "logit_bias")
    assert claude.calls == []


# --- Faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_goes_on_at_a_provider_of_the_other_protocol(
    gateway: Gateway,
    upstream: FakeUpstream,
    claude: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """A provider that is overloaded does not end a call whose model has another one, whatever both speak."""
    claude.queue(scripts.whole(messages.error("overloaded_error", "Overloaded"), 529))
    response = await post(gateway, asked("claude-first", "Hello there", stream=stream))
    message = messages.assembled(messages.read(response.body)) if stream else response.json()
    assert content_of(message) == [messages.text_block("Hello there")]
    upstream.queue(scripts.whole(scripts.error_body("Broken"), 500))
    claude.queue(messages.answering(TEXT))
    response = await post(gateway, asked("chat-first", stream=stream))
    message = messages.assembled(messages.read(response.body)) if stream else response.json()
    assert content_of(message) == [TEXT]
    assert response.header("x-chatgate-attempts") == "2"


@pytest.mark.parametrize("first", ["claude", "chat"])
@pytest.mark.parametrize("path", [MESSAGES, CHAT])
async def test_a_broken_stream_goes_on_at_a_provider_of_the_other_protocol(
    gateway: Gateway, upstream: FakeUpstream, claude: FakeUpstream, first: str, path: str
) -> None:
    """The caller gets one answer, in its own protocol, without a seam."""
    theirs = messages.events(messages.text_block(LONG), pieces=9)
    ours = scripts.told(LONG, by="x", usage=True)
    if first == "claude":
        claude.queue(scripts.stream(theirs[:6], end=b"", then="reset", close=False))
        upstream.queue(scripts.stream(ours))
    else:
        upstream.queue(scripts.stream(ours[:5], end=b"", then="reset", close=False))
        claude.queue(*[scripts.stream(theirs, end=b"")] * 2)
    value = {**asked(f"{first}-first"), "stream": True}
    response = await http.post_json(gateway.port, path, value)
    if path == MESSAGES:
        message = messages.assembled(messages.read(response.body))
        assert content_of(message) == [messages.text_block(LONG)]
    else:
        events = response.events()
        assert events.pop() == b"[DONE]"
        deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
        assert "".join(delta.get("content") or "" for delta in deltas) == LONG


async def test_an_anthropic_model_is_asked_to_go_on_where_the_stream_broke(
    gateway: Gateway, upstream: FakeUpstream, claude: FakeUpstream
) -> None:
    """It gets the words so far as the beginning of its answer, and only has to say the rest."""
    ours = scripts.told(LONG, by="x")
    upstream.queue(scripts.stream(ours[:8], end=b"", then="reset", close=False))
    said = " ".join(LONG.split(" ")[:7])
    claude.queue(scripts.stream(messages.events(messages.text_block(LONG[len(said) :])), end=b""))
    response = await post(gateway, asked("chat-first", stream=True))
    assert content_of(messages.assembled(messages.read(response.body))) == [messages.text_block(LONG)]
    assert (await claude.last_call()).json()["messages"][-1] == {"role": "assistant", "content": said}


@pytest.mark.parametrize("model", ["chat", "claude"])
async def test_a_stream_that_breaks_ends_with_an_error_event(
    gateway: Gateway, upstream: FakeUpstream, claude: FakeUpstream, model: str
) -> None:
    """There is no message_stop, and what came before stands."""
    upstream.queue(scripts.stream(scripts.text_events(LONG)[:5], end=b"", then="reset", close=False))
    claude.queue(scripts.stream(messages.events(TEXT)[:4], end=b"", then="reset", close=False))
    response = await post(gateway, asked(model, stream=True))
    found = messages.read(response.body)
    assert found[0]["type"] == "message_start"
    assert found[-1]["type"] == "error"
    assert found[-1]["error"]["type"] == "api_error"
    assert found[-1]["request_id"] == response.header("request-id")
    assert "message_stop" not in {each["type"] for each in found}


@pytest.mark.parametrize(
    ("script", "status", "kind", "said"),
    [
        (refusing(400, "invalid_request_error", "max_tokens: big"), 400, "invalid_request_error", "max_tokens: big"),
        (refusing(401, "authentication_error", f"bad {SERVER_KEY}"), 401, "authentication_error", ""),
        (refusing(402, "billing_error", "Pay"), 402, "billing_error", "Pay"),
        (refusing(400, "invalid_request_error", "Your credit balance is too low"), 402, "billing_error", "credit"),
        (refusing(404, "not_found_error", "model: x"), 404, "not_found_error", "model: x"),
        (refusing(429, "rate_limit_error", "Slower"), 429, "rate_limit_error", "Slower"),
        (refusing(529, "overloaded_error", "Full"), 502, "api_error", "Full"),
        (scripts.whole(b"<html>", 502), 502, "api_error", ""),
        (scripts.whole(b'{"type":"message"}'), 502, "api_error", ""),
    ],
)
async def test_a_providers_refusal_is_told(
    gateway: Gateway, claude: FakeUpstream, script: Any, status: int, kind: str, said: str
) -> None:
    """With its own words where they are for the caller, never with a key; the same to callers of both protocols."""
    claude.queue(script, script)
    response = await post(gateway, asked("claude"))
    body = response.json()
    assert (response.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert said in body["error"]["message"]
    assert SERVER_KEY.encode() not in response.body
    openai = await http.post_json(gateway.port, CHAT, http.chat("Hi", "claude"))
    assert openai.status == (429 if status == 402 else status)
    assert said in openai.json()["error"]["message"]
    assert SERVER_KEY.encode() not in openai.body
    if status == 429:
        assert response.header("retry-after") == "7"


# --- The surface ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind"),
    [
        ("POST", MESSAGES, b"{", 400, "invalid_request_error"),
        ("POST", "/messages", b"{}", 400, "invalid_request_error"),
        ("POST", "/v1/v1/messages", json.dumps(asked("nobody")).encode(), 404, "not_found_error"),
        ("GET", MESSAGES, b"", 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", b"{}", 404, "not_found_error"),
        ("GET", "/v1/nothing", b"", 404, "not_found_error"),
        ("GET", "/v1/models/nobody", b"", 404, "not_found_error"),
    ],
)
async def test_errors_have_the_surfaces_shape(
    gateway: Gateway, method: str, path: str, body: bytes, status: int, kind: str
) -> None:
    """Also for paths that do not exist, when an Anthropic client asks for them."""
    response = await http.request(gateway.port, method, path, [http.JSON, VERSION], body)
    assert (response.status, response.json()["error"]["type"]) == (status, kind)
    assert response.json()["request_id"] == response.header("request-id") == response.header("x-request-id")


async def test_a_body_that_is_too_large_is_refused_in_the_surfaces_shape(gateway: Gateway) -> None:
    """By its head alone."""
    headers = [http.JSON, ("Content-Length", str(1 << 40))]
    response = await http.request(gateway.port, "POST", MESSAGES, headers)
    assert (response.status, response.json()["error"]["type"]) == (413, "request_too_large")


async def test_keys_are_shown_in_either_header(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """A caller's own key goes to the default upstream, as that wants to be shown it; none is a 401."""
    config = f'[[upstreams]]\nname = "a"\nprovider = "anthropic"\nbase_url = "{upstream.base_url}"\n'
    gateway = await start_gateway(config=config)
    keyless = await start_gateway(config='[[upstreams]]\nname = "a"\nprovider = "anthropic"\n')
    refused = await post(keyless, asked("claude-fake-1"))
    assert (refused.status, refused.json()["error"]["type"]) == (401, "authentication_error")
    for header in (("x-api-key", "sk-ant-test-mine-3001"), http.bearer("sk-ant-test-mine-3001")):
        upstream.queue(messages.answering(TEXT))
        assert (await post(gateway, asked("claude-fake-1"), header)).status == 200
        assert (await upstream.last_call()).header("x-api-key") == "sk-ant-test-mine-3001"
    upstream.queue(messages.answering(TEXT))
    assert (await post(gateway, asked("claude-fake-1"), http.bearer("sk-ant-oat-test-3002"))).status == 200
    assert (await upstream.last_call()).header("authorization") == "Bearer sk-ant-oat-test-3002"


async def test_models_are_listed_in_the_callers_shape(gateway: Gateway) -> None:
    """The version's header decides on a path that two protocols share."""
    theirs = (await http.request(gateway.port, "GET", "/v1/models?limit=3", [VERSION])).json()
    check("anthropic", "ListResponse_ModelInfo_", theirs)
    assert [each["id"] for each in theirs["data"]] == ["chat", "claude", "claude-first"]
    one = (await http.request(gateway.port, "GET", "/models/demo/echo", [VERSION])).json()
    assert (one["type"], one["id"]) == ("model", "demo/echo")
    ours = (await http.request(gateway.port, "GET", "/v1/models")).json()
    assert ours["object"] == "list"


async def test_the_probes_of_coding_agents_are_answered(gateway: Gateway) -> None:
    """They look whether anybody is there before they ask."""
    for path in ("/", "/api/hello"):
        assert (await http.request(gateway.port, "HEAD", path, [VERSION])).status == 200


async def test_the_demo_models_answer(gateway: Gateway) -> None:
    """Without any provider, as they do for everyone."""
    response = await post(gateway, asked("demo/echo", "Hello there"))
    assert content_of(response.json()) == [messages.text_block("Hello there")]
    response = await post(gateway, asked("demo/tools", stream=True, tools=[TOOL]))
    message = messages.assembled(messages.read(response.body))
    assert (message["stop_reason"], content_of(message)[0]["name"]) == ("tool_use", "look")
    for model, status in (("demo/429", 429), ("demo/500", 502)):
        assert (await post(gateway, asked(model))).status == status


# --- Counting ---------------------------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_the_provider(gateway: Gateway, claude: FakeUpstream) -> None:
    """An Anthropic upstream knows best; what it refuses is refused."""
    claude.queue(scripts.whole({"input_tokens": 42}))
    value = {"model": "claude", "messages": [{"role": "user", "content": "Hi"}]}
    response = await post(gateway, value, ("anthropic-beta", "x"), path="/v1/messages/count_tokens")
    assert (response.status, response.json()) == (200, {"input_tokens": 42})
    assert response.header("x-chatgate-estimated") is None
    call = await claude.last_call()
    assert (call.target, call.json()["model"]) == ("/v1/messages/count_tokens", "claude-fake-1")
    assert (call.header("x-api-key"), call.header("anthropic-beta")) == (SERVER_KEY, "x")
    claude.queue(scripts.whole(messages.error("invalid_request_error", "Bad block"), 400))
    refused = await post(gateway, value, path="/v1/messages/count_tokens")
    assert (refused.status, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "Bad block" in refused.json()["error"]["message"]


async def test_tokens_are_estimated_where_no_provider_counts(gateway: Gateway, claude: FakeUpstream) -> None:
    """The answer says so; a longer dialogue has more of them, and tools count."""
    counts = []
    for value in (
        {"model": "chat", "messages": [{"role": "user", "content": "Hello there, how are you?"}]},
        {"model": "chat", "messages": [{"role": "user", "content": LONG}], "system": LONG},
        {"model": "demo/echo", "messages": [{"role": "user", "content": LONG}], "system": LONG, "tools": [TOOL] * 3},
    ):
        response = await post(gateway, value, path="/messages/count_tokens")
        check("anthropic", "CountMessageTokensResponse", response.json())
        assert response.header("x-chatgate-estimated") == "true"
        counts.append(response.json()["input_tokens"])
    assert counts == sorted(counts)
    assert 5 <= counts[0] <= 20
    claude.queue(scripts.whole(messages.error("overloaded_error", "Full"), 529))
    value = {"model": "claude", "messages": [{"role": "user", "content": "Hi"}]}
    assert (await post(gateway, value, path="/v1/messages/count_tokens")).header("x-chatgate-estimated") == "true"
    assert (await post(gateway, {"model": "chat"}, path="/v1/messages/count_tokens")).status == 400
