"""Gemini's protocol in and out: callers of any protocol, and of the plain API, reach upstreams of any."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fakes import candidates, messages, scripts
from fakes import http_client as http
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream
from fakes.vendor_schemas import check

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
SERVER_KEY = "AIza-test-server-5000"
TEXT = candidates.text("One two three.")
LONG = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"
SIGNATURE = "c2lnbmVk"
LOOK = {
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "OBJECT", "properties": {"at": {"type": "STRING"}}},
}
CALL = {"functionCall": {"id": "fc1", "name": "look", "args": {"at": "sea"}}, "thoughtSignature": SIGNATURE}
FUNCTION = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}},
}

CONFIG = """
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[upstreams]]
name = "google"
provider = "gemini"
base_url = "{google}"
api_key = "{key}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{claude}"
[[prices]]
model = "gem"
input_usd_per_million = "1"
output_usd_per_million = "2"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "gem"
targets = [{{ upstream = "google", model = "gemini-fake-1" }}]
[[models]]
name = "claude"
targets = [{{ upstream = "claude", model = "claude-fake-1" }}]
[[models]]
name = "gem-first"
targets = [{{ upstream = "google", model = "gemini-fake-1", priority = 0 }},
           {{ upstream = "chat", model = "gpt-fake-small", priority = 1 }}]
[[models]]
name = "chat-first"
targets = [{{ upstream = "chat", model = "gpt-fake-small", priority = 0 }},
           {{ upstream = "google", model = "gemini-fake-1", priority = 1 }}]
[[models]]
name = "claude-first"
targets = [{{ upstream = "claude", model = "claude-fake-1", priority = 0 }},
           {{ upstream = "google", model = "gemini-fake-1", priority = 1 }}]
[[models]]
name = "gem-then-claude"
targets = [{{ upstream = "google", model = "gemini-fake-1", priority = 0 }},
           {{ upstream = "claude", model = "claude-fake-1", priority = 1 }}]
[retry]
max_retries = 0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def google_of_file() -> AsyncIterator[FakeUpstream]:
    """Run a fake Google for the tests of this file."""
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def google(google_of_file: FakeUpstream) -> FakeUpstream:
    """Return the fake Google with an empty log."""
    google_of_file.forget()
    return google_of_file


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


def config_of(chat: FakeUpstream, google: FakeUpstream, claude: FakeUpstream) -> str:
    """Return a configuration with all three; Google's and Anthropic's base URLs come without a version."""
    google_url, claude_url = (each.base_url.removesuffix("/v1") for each in (google, claude))
    return CONFIG.format(chat=chat.base_url, google=google_url, claude=claude_url, key=SERVER_KEY)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(
    upstream_of_file: FakeUpstream,
    google_of_file: FakeUpstream,
    claude_of_file: FakeUpstream,
    start_gateway: StartGateway,
) -> Gateway:
    """Run a gateway in front of all three."""
    return await start_gateway(config=config_of(upstream_of_file, google_of_file, claude_of_file))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lenient(
    upstream_of_file: FakeUpstream,
    google_of_file: FakeUpstream,
    claude_of_file: FakeUpstream,
    start_gateway: StartGateway,
) -> Gateway:
    """Run a gateway that leaves out what cannot be carried."""
    config = config_of(upstream_of_file, google_of_file, claude_of_file)
    return await start_gateway(config=config + "[translation]\ndrop_unsupported = true\n")


def asked(text: str = "Hi", **more: Any) -> dict[str, Any]:
    """Return a Gemini request."""
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **more}


def url(model: str, *, stream: bool = False, sse: bool = True) -> str:
    """Return where a Gemini client sends a call."""
    method = ("streamGenerateContent?alt=sse" if sse else "streamGenerateContent") if stream else "generateContent"
    return f"/v1beta/models/{model}:{method}"


async def post(
    gateway: Gateway, model: str, value: Any, *headers: tuple[str, str], stream: bool = False
) -> http.Response:
    """Post a request as a Gemini client does."""
    return await http.post_json(gateway.port, url(model, stream=stream), value, headers)


def whole_of(response: http.Response, *, stream: bool) -> dict[str, Any]:
    """Return the response of a call, however it came; it is one by Google's own description."""
    assert response.status == 200, response.body
    found = candidates.read(response.body) if stream else [response.json()]
    for each in found:
        check("gemini", "GenerateContentResponse", each)
    return candidates.assembled(found)


def parts_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what the only candidate says."""
    parts: list[dict[str, Any]] = whole["candidates"][0]["content"]["parts"]
    return parts


# --- Gemini to Gemini -------------------------------------------------------------------------------------------------


async def test_a_call_passes_byte_for_byte(gateway: Gateway, google: FakeUpstream) -> None:
    """Only the model in the URL changes; the key is the operator's."""
    said = json.dumps(candidates.response(TEXT, CALL, newField=[1.0]), indent=1).encode()
    google.queue(scripts.whole(said))
    body = (
        '{ "unheard_of":{"a":[1,2.50,"\\u00eb"]},\n "safetySettings":[],'
        '"contents":[{"parts":[{"text":"ünï","thoughtSignature":"abc"}]}] }'
    ).encode()
    headers = [http.JSON, ("x-goog-api-key", "none"), ("X-Mine", "1")]
    response = await http.request(gateway.port, "POST", url("gem"), headers, body)
    assert (response.status, response.body) == (200, said)
    assert response.header("x-chatgate-dropped") is None
    call = await google.last_call()
    assert call.target == "/v1beta/models/gemini-fake-1:generateContent"
    assert call.body == body
    assert call.header("x-goog-api-key") == SERVER_KEY
    assert not {"authorization", "x-mine"} & {name for name, _ in call.headers}


async def test_a_stream_passes_byte_for_byte(gateway: Gateway, google: FakeUpstream) -> None:
    """Also pieces that nobody here knows, and it is counted and priced all the same."""
    events = candidates.events(TEXT, CALL)
    events.insert(1, candidates.event({"newThing": 1}))
    google.queue(scripts.stream(events, end=b""))
    response = await post(gateway, "gem", asked(), stream=True)
    assert response.body == b"".join(events)
    assert (await google.last_call()).target == "/v1beta/models/gemini-fake-1:streamGenerateContent?alt=sse"
    (line,) = await gateway.logged("call", request_id=response.header("request-id"))
    assert (line["surface"], line["input_tokens"], line["output_tokens"]) == ("gemini", 9, 4)
    assert (line["outcome"], line["cost_usd"], line["target"]) == ("completed", "0.000017", "google/gemini-fake-1")


@pytest.mark.parametrize("model", ["gem", "chat", "demo/echo"])
async def test_a_stream_without_events_is_one_array(gateway: Gateway, google: FakeUpstream, model: str) -> None:
    """As Google answers where the URL does not ask for events; the array is whole at its end."""
    google.queue(candidates.answering(candidates.text("a b c")))
    response = await http.post_json(gateway.port, url(model, stream=True, sse=False), asked("a b c"))
    assert response.header("content-type") == "application/json"
    found = response.json()
    assert len(found) > 1
    assert parts_of(candidates.assembled(found)) == [{"text": "a b c"}]


async def test_a_call_costs_the_same_whatever_is_spoken(gateway: Gateway, google: FakeUpstream) -> None:
    """Whole or streamed, passed or translated: the provider's count is the ledger's, thoughts among the output."""
    costs = []
    ask = {"model": "gem", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
    for path, value in (
        (url("gem"), asked()),
        (url("gem", stream=True), asked()),
        (url("gem", stream=True, sse=False), asked()),
        (CHAT, ask),
        (CHAT, {**ask, "stream": True}),
        (MESSAGES, ask),
        (MESSAGES, {**ask, "stream": True}),
        ("/v1/responses", {"model": "gem", "input": "Hi"}),
        ("/v1/responses", {"model": "gem", "input": "Hi", "stream": True}),
        ("/", {"user_content": "Hi", "model": "gem"}),
    ):
        google.queue(candidates.answering(TEXT))
        response = await http.post_json(gateway.port, path, value)
        assert response.status == 200, response.body
        (line,) = await gateway.logged("call", request_id=response.header("request-id"))
        costs.append((line["input_tokens"], line["output_tokens"], line["cost_usd"]))
    assert costs == [(9, 4, "0.000017")] * 10


@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocked_question_is_told_as_google_tells_it(
    gateway: Gateway,
    google: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """A Gemini caller reads it in an answer, every other one in a refusal; nobody else is asked."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    said = scripts.stream([candidates.event(blocked)], end=b"") if stream else scripts.whole(blocked)
    google.queue(said, said)
    response = await post(gateway, "gem-first", asked(), stream=stream)
    assert (candidates.read(response.body) if stream else [response.json()]) == [blocked]
    refused = await http.post_json(gateway.port, CHAT, http.chat("Hi", "gem-first", stream=stream))
    assert (refused.status, refused.json()["error"]["code"]) == (400, "content_filter")
    assert len(google.calls) == 2


# --- Gemini to others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gemini_caller_reaches_an_openai_upstream(
    gateway: Gateway,
    upstream: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """The answer is a response by Google's own description, the request a chat."""
    value = asked(
        "Hello there", system_instruction={"parts": [{"text": "Be brief."}]}, generation_config={"top_p": 0.5}
    )
    response = await post(gateway, "chat", value, stream=stream)
    whole = whole_of(response, stream=stream)
    assert parts_of(whole) == [{"text": "Hello there"}]
    assert whole["candidates"][0]["finishReason"] == "STOP"
    usage = whole["usageMetadata"]
    assert (usage["promptTokenCount"], usage["candidatesTokenCount"], usage["totalTokenCount"]) == (7, 2, 9)
    sent = (await upstream.last_call()).json()
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    assert (sent["model"], sent["top_p"], sent.get("stream", False)) == ("gpt-fake-small", 0.5, stream)
    assert response.header("x-chatgate-model") == "gpt-fake-small"
    (line,) = await gateway.logged("call", request_id=response.header("request-id"))
    assert (line["input_tokens"], line["output_tokens"], line["surface"]) == (7, 2, "gemini")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gemini_caller_reaches_an_anthropic_upstream(
    gateway: Gateway,
    claude: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """By way of a chat: text, a tool's call and its result."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea"}}
    claude.queue(messages.answering(messages.text_block("Let me see."), use, stop="tool_use"))
    value = asked(tools=[{"functionDeclarations": [LOOK]}])
    parts = parts_of(whole_of(await post(gateway, "claude", value, stream=stream), stream=stream))
    assert parts[0] == {"text": "Let me see."}
    assert parts[1]["functionCall"] == {"id": "toolu_1", "name": "look", "args": {"at": "sea"}}
    answer = {"functionResponse": {"id": "toolu_1", "name": "look", "response": {"output": "blue"}}}
    value["contents"] += [{"role": "model", "parts": parts}, {"role": "user", "parts": [answer]}]
    claude.queue(messages.answering(messages.text_block("Blue.")))
    assert parts_of(whole_of(await post(gateway, "claude", value, stream=stream), stream=stream)) == [{"text": "Blue."}]
    sent = (await claude.last_call()).json()
    check("anthropic", "CreateMessageParams", sent)
    assert sent["messages"][-1]["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}]
    assert sent["messages"][1]["content"][1] == use


async def test_tools_are_called_across_protocols(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Streamed arguments come as one call, and a result without an id finds it again."""
    function = {"name": "look", "arguments": ""}
    deltas = [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"sea"}'}}]},
    ]
    events = [*map(scripts.event, map(scripts.chunk, deltas)), scripts.event(scripts.chunk({}, finish="tool_calls"))]
    upstream.queue(scripts.stream(events), scripts.provider)
    value = asked(tools=[{"function_declarations": [LOOK]}])
    (part,) = parts_of(whole_of(await post(gateway, "chat", value, stream=True), stream=True))
    assert part["functionCall"] == {"id": "call_1", "name": "look", "args": {"at": "sea"}}
    answer = {"function_response": {"name": "look", "response": {"output": "blue"}}}
    value["contents"] += [{"role": "model", "parts": [part]}, {"role": "user", "parts": [answer]}]
    response = await post(gateway, "chat", value)
    assert (response.status, response.header("x-chatgate-dropped")) == (200, None)
    sent = (await upstream.last_call()).json()
    assert sent["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "blue"}
    assert "extra_content" not in sent["messages"][-2]["tool_calls"][0]
    assert sent["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {"at": {"type": "string"}}}


async def test_what_cannot_be_carried_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The refusal names the field, and no provider is called."""
    response = await post(gateway, "chat", asked(tools=[{"google_search": {}}]))
    error = response.json()["error"]
    check("gemini", "Status", {name: error[name] for name in ("code", "message", "details")})
    assert (response.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert "tools[0].googleSearch" in error["message"]
    assert error["details"][0]["metadata"]["field"] == "tools[0].googleSearch"
    assert upstream.calls == []


async def test_where_the_operator_allows_it_goes_missing(
    lenient: Gateway, upstream: FakeUpstream, google: FakeUpstream
) -> None:
    """And the answer says what did, whichever way."""
    tools = [{"googleSearch": {}}, {"functionDeclarations": [LOOK]}]
    for stream in (False, True):
        response = await post(lenient, "chat", asked("a", tools=tools, cachedContent="cachedContents/1"), stream=stream)
        assert (response.status, response.header("x-chatgate-dropped")) == (200, "tools[].googleSearch, cachedContent")
        assert [each["function"]["name"] for each in (await upstream.last_call()).json()["tools"]] == ["look"]
    google.queue(candidates.answering(TEXT))
    response = await http.post_json(lenient.port, CHAT, http.chat("a", "gem", user="u", logit_bias={"1": 2}))
    assert (response.status, response.header("x-chatgate-dropped")) == (200, "logit_bias, user")


async def test_hints_are_left_out_and_told(gateway: Gateway, upstream: FakeUpstream) -> None:
    """What to filter, how closely to look, and what nobody knows."""
    value = asked(safetySettings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}], labels={"a": "b"})
    value["generationConfig"] = {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
    response = await post(gateway, "chat", value)
    assert response.status == 200
    assert response.header("x-chatgate-dropped") == "generationConfig.mediaResolution, safetySettings, labels"
    assert len(upstream.calls) == 1


# --- Others to Gemini -------------------------------------------------------------------------------------------------


async def test_an_openai_caller_reaches_gemini(gateway: Gateway, google: FakeUpstream) -> None:
    """The answer is a completion by OpenAI's own schema, the request one by Google's description."""
    google.queue(candidates.answering({"text": "Hm", "thought": True}, TEXT, CALL))
    value = http.chat("Hi", "gem", temperature=0.5, tools=[FUNCTION], max_completion_tokens=20, tool_choice="required")
    response = await http.post_json(gateway.port, CHAT, value)
    answer = response.json()
    check("openai", "CreateChatCompletionResponse", answer)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("One two three.", "tool_calls")
    assert choice["message"]["reasoning_content"] == "Hm"
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at":"sea"}'}
    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (9, 4, 13)
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 1
    call = await google.last_call()
    check("gemini", "GenerateContentRequest", call.json())
    assert call.json()["generationConfig"] == {"temperature": 0.5, "maxOutputTokens": 20}
    assert call.json()["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}
    assert call.header("x-goog-api-key") == SERVER_KEY


@pytest.mark.parametrize("stream", [False, True])
async def test_a_calls_signature_comes_back_to_gemini(
    gateway: Gateway,
    google: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """It travels where Google's own OpenAI-compatible address puts it; a call of nobody's gets what stands for one."""
    google.queue(candidates.answering(CALL), candidates.answering(TEXT), candidates.answering(TEXT))
    value = http.chat("Look", "gem", tools=[FUNCTION], stream=stream)
    response = await http.post_json(gateway.port, CHAT, value)
    if stream:
        deltas = [json.loads(each)["choices"] for each in response.events() if each != b"[DONE]"]
        (call,) = [piece for choices in deltas for each in choices for piece in each["delta"].get("tool_calls", ())]
        del call["index"]
    else:
        (call,) = response.json()["choices"][0]["message"]["tool_calls"]
    for extra, signed in ((call["extra_content"], SIGNATURE), (None, "skip_thought_signature_validator")):
        calls = [{**call, "extra_content": extra}, {**call, "id": "fc2", "extra_content": None}]
        results = [{"role": "tool", "tool_call_id": each["id"], "content": "blue"} for each in calls]
        turns = [*value["messages"], {"role": "assistant", "tool_calls": calls}, *results]
        assert (await http.post_json(gateway.port, CHAT, {**value, "messages": turns})).status == 200
        sent = (await google.last_call()).json()["contents"]
        assert sent[1]["parts"][0] == {**CALL, "thoughtSignature": signed}
        assert "thoughtSignature" not in sent[1]["parts"][1]
        assert [each["functionResponse"]["name"] for each in sent[2]["parts"]] == ["look", "look"]


@pytest.mark.parametrize("usage", [True, False])
async def test_a_gemini_stream_becomes_chunks(gateway: Gateway, google: FakeUpstream, usage: bool) -> None:  # noqa: FBT001 - a table's column
    """With the end mark, and with the usage only for those who asked for it."""
    google.queue(candidates.answering(TEXT))
    value = http.chat("Hi", "gem", stream=True, stream_options={"include_usage": usage})
    events = (await http.post_json(gateway.port, CHAT, value)).events()
    assert events.pop() == b"[DONE]"
    chunks = [json.loads(event) for event in events]
    said = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(said) == "One two three."
    assert [chunk["usage"]["total_tokens"] for chunk in chunks if chunk.get("usage")] == [13] * usage


@pytest.mark.parametrize("stream", [False, True])
async def test_an_anthropic_caller_reaches_gemini(
    gateway: Gateway,
    google: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """By way of a chat."""
    google.queue(candidates.answering(TEXT, CALL))
    value = {"model": "gem", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    response = await http.post_json(gateway.port, MESSAGES, value, [("anthropic-version", "2023-06-01")])
    message = messages.assembled(messages.read(response.body)) if stream else response.json()
    check("anthropic", "Message", message)
    assert [each["type"] for each in message["content"]] == ["text", "tool_use"]
    assert (message["stop_reason"], message["content"][1]["input"]) == ("tool_use", {"at": "sea"})
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (9, 4)


async def test_the_plain_api_reaches_gemini(gateway: Gateway, google: FakeUpstream) -> None:
    """Whole and streamed, with its own bounds on the length of an answer."""
    for stream in (False, True):
        google.queue(candidates.answering(TEXT))
        value = {"user_content": "Hi", "sys_content": "Be brief.", "model": "gem", "stream": stream}
        response = await http.post_json(gateway.port, "/", value)
        whole = json.loads(response.events()[-1]) if stream else response.json()
        assert whole["data"]["response"] == "One two three."
        assert whole["data"]["usage"] == {"input_tokens": 9, "output_tokens": 4}
        sent = (await google.last_call()).json()
        assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
        assert sent["generationConfig"] == {"maxOutputTokens": 100}


async def test_a_model_of_the_callers_cannot_leave_its_place_in_the_url(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Where any name goes to the default upstream, slashes, dots and questions in one stay part of it."""
    config = f'[[upstreams]]\nname = "g"\nprovider = "gemini"\nbase_url = "{upstream.base_url.removesuffix("/v1")}"\n'
    gateway = await start_gateway(config=config)
    upstream.queue(candidates.answering(TEXT))
    response = await http.post_json(gateway.port, CHAT, http.chat("Hi", "../../x?a=b#c"), [http.bearer("AIza-mine-1")])
    assert response.status == 200
    call = await upstream.last_call()
    assert call.target == "/v1beta/models/..%2F..%2Fx%3Fa%3Db%23c:generateContent"
    assert call.header("x-goog-api-key") == "AIza-mine-1"
    upstream.queue(scripts.whole({"models": [{"name": "models/gemini-x"}, {"name": "models/gemini-y"}]}))
    listed = (await http.request(gateway.port, "GET", "/v1/models", [http.bearer("AIza-mine-1")])).json()
    assert [each["id"] for each in listed["data"]][:2] == ["gemini-x", "gemini-y"]
    assert (await upstream.last_call()).target == "/v1beta/models?pageSize=1000"


# --- Faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_goes_on_at_a_provider_of_another_protocol(
    gateway: Gateway,
    upstream: FakeUpstream,
    google: FakeUpstream,
    stream: bool,  # noqa: FBT001 - a table's column
) -> None:
    """A provider that is overloaded does not end a call whose model has another one, whatever both speak."""
    google.queue(scripts.whole(candidates.error(503, "UNAVAILABLE", "The model is overloaded."), 503))
    response = await post(gateway, "gem-first", asked("Hello there"), stream=stream)
    assert parts_of(whole_of(response, stream=stream)) == [{"text": "Hello there"}]
    upstream.queue(scripts.whole(scripts.error_body("Broken"), 500))
    google.queue(candidates.answering(TEXT))
    response = await post(gateway, "chat-first", asked(), stream=stream)
    assert parts_of(whole_of(response, stream=stream)) == [TEXT]
    assert response.header("x-chatgate-attempts") == "2"


async def test_an_answer_that_failed_is_asked_for_elsewhere(
    gateway: Gateway, upstream: FakeUpstream, google: FakeUpstream
) -> None:
    """Reasons to stop that say that an answer failed are no reasons to hand it on, where it is read anyway."""
    google.queue(candidates.answering(finish="MALFORMED_FUNCTION_CALL"))
    response = await http.post_json(gateway.port, CHAT, http.chat("Hello there", "gem-first"))
    assert response.json()["choices"][0]["message"]["content"] == "Hello there"
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("model", ["gem-first", "chat-first", "claude-first", "gem-then-claude"])
@pytest.mark.parametrize("path", ["sse", "array", CHAT, MESSAGES])
async def test_a_broken_stream_goes_on_at_a_provider_of_another_protocol(
    gateway: Gateway, upstream: FakeUpstream, google: FakeUpstream, claude: FakeUpstream, model: str, path: str
) -> None:
    """The caller gets one answer, in its own protocol, without a seam."""
    told = {
        google: candidates.events(candidates.text(LONG), pieces=9),
        upstream: scripts.told(LONG, by="x", usage=True),
        claude: messages.events(messages.text_block(LONG), pieces=9),
    }
    first, second = {
        "gem-first": (google, upstream),
        "chat-first": (upstream, google),
        "claude-first": (claude, google),
        "gem-then-claude": (google, claude),
    }[model]
    first.queue(scripts.stream(told[first][:6], end=b"", then="reset", close=False))
    second.queue(*[scripts.stream(told[second], end=scripts.DONE if second is upstream else b"")] * 2)
    if path in ("sse", "array"):
        response = await http.post_json(gateway.port, url(model, stream=True, sse=path == "sse"), asked())
        found = candidates.read(response.body) if path == "sse" else response.json()
        assert parts_of(candidates.assembled(found)) == [{"text": LONG}]
        assert len({each["responseId"] for each in found}) == 1
    else:
        value = {"model": model, "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        response = await http.post_json(gateway.port, path, value)
        if path == MESSAGES:
            message = messages.assembled(messages.read(response.body))
            assert [each["text"] for each in message["content"]] == [LONG]
        else:
            events = response.events()
            assert events.pop() == b"[DONE]"
            deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
            assert "".join(delta.get("content") or "" for delta in deltas) == LONG


@pytest.mark.parametrize("sse", [True, False])
@pytest.mark.parametrize("model", ["chat", "gem"])
async def test_a_stream_that_breaks_ends_with_an_error(
    gateway: Gateway,
    upstream: FakeUpstream,
    google: FakeUpstream,
    model: str,
    sse: bool,  # noqa: FBT001 - a table's column
) -> None:
    """No piece says why the answer ended, and what came before stands."""
    upstream.queue(scripts.stream(scripts.text_events(LONG)[:5], end=b"", then="reset", close=False))
    google.queue(scripts.stream(candidates.events(TEXT, finish=None), end=b""))
    response = await http.post_json(gateway.port, url(model, stream=True, sse=sse), asked())
    *pieces, error = candidates.read(response.body) if sse else response.json()
    assert pieces
    assert not any("finishReason" in each["candidates"][0] for each in pieces)
    assert (error["error"]["code"], error["error"]["status"]) == (502, "UNAVAILABLE")
    assert error["error"]["details"][0]["metadata"]["request_id"] == response.header("request-id")
    if sse:
        assert response.body.rpartition(b"\n\n")[0].rpartition(b"\n")[2].startswith(b'{"error":')
    (line,) = await gateway.logged("call", request_id=response.header("request-id"))
    assert line["outcome"] == "upstream_failed"


def refusing(status: int, word: str, text: str, *details: dict[str, Any]) -> scripts.Script:
    """Refuse as Google does."""
    return scripts.whole(candidates.error(status, word, text, *details), status)


_WRONG_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
_WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}
_DAILY = {
    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}


@pytest.mark.parametrize(
    ("script", "status", "word", "code", "said"),
    [
        (refusing(400, "INVALID_ARGUMENT", "topK is big"), 400, "INVALID_ARGUMENT", None, "topK is big"),
        (refusing(400, "INVALID_ARGUMENT", "API key not valid.", _WRONG_KEY), 401, "UNAUTHENTICATED", None, ""),
        (refusing(400, "FAILED_PRECONDITION", "User location"), 403, "PERMISSION_DENIED", None, "User location"),
        (refusing(403, "PERMISSION_DENIED", "Not yours"), 403, "PERMISSION_DENIED", None, "Not yours"),
        (refusing(404, "NOT_FOUND", "models/x is not found"), 404, "NOT_FOUND", None, "models/x"),
        (refusing(429, "RESOURCE_EXHAUSTED", "Slower", _WAIT), 429, "RESOURCE_EXHAUSTED", None, "Slower"),
        (
            refusing(429, "RESOURCE_EXHAUSTED", "Quota", _DAILY),
            429,
            "RESOURCE_EXHAUSTED",
            "insufficient_quota",
            "Quota",
        ),
        (refusing(503, "UNAVAILABLE", "Full"), 502, "UNAVAILABLE", None, "Full"),
        (
            refusing(
                400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."
            ),
            400,
            "INVALID_ARGUMENT",
            "context_length_exceeded",
            "exceeds",
        ),
        (scripts.whole(b"<html>", 502), 502, "UNAVAILABLE", None, ""),
        (scripts.whole(b'{"usageMetadata":{}}'), 502, "UNAVAILABLE", None, ""),
    ],
)
async def test_a_providers_refusal_is_told(
    gateway: Gateway, google: FakeUpstream, script: Any, status: int, word: str, code: str | None, said: str
) -> None:
    """With its own words where they are for the caller; the same to callers of other protocols."""
    google.queue(script, script)
    response = await post(gateway, "gem", asked())
    error = response.json()["error"]
    assert (response.status, error["code"], error["status"]) == (status, status, word)
    assert said in error["message"]
    openai = await http.post_json(gateway.port, CHAT, http.chat("Hi", "gem"))
    assert openai.status == status
    assert said in openai.json()["error"]["message"]
    if code is not None:
        assert openai.json()["error"]["code"] == code
    if said == "Slower":
        assert response.header("retry-after") == "7"
        assert error["details"][1]["retryDelay"] == "7.000s"


# --- The surface ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", url("chat"), b"{", 400, "INVALID_ARGUMENT"),
        ("POST", url("chat"), b"{}", 400, "INVALID_ARGUMENT"),
        ("POST", url("chat"), b'{"contents":[{"parts":[{"text":5}]}]}', 400, "INVALID_ARGUMENT"),
        ("POST", url("chat"), b'{"contents":{}}', 400, "INVALID_ARGUMENT"),
        ("POST", url("chat"), b'{"contents":[{"parts":[]}],"generationConfig":5}', 400, "INVALID_ARGUMENT"),
        ("POST", url("nobody"), json.dumps(asked()).encode(), 404, "NOT_FOUND"),
        ("GET", url("chat"), b"", 405, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/chat", b"{}", 405, "UNIMPLEMENTED"),
        ("POST", "/v1beta/models/chat:predict", b"{}", 405, "UNIMPLEMENTED"),
        ("POST", "/v1beta/cachedContents", b"{}", 404, "NOT_FOUND"),
        ("GET", "/v1beta/models/nobody", b"", 404, "NOT_FOUND"),
        ("GET", "/v1beta/models?pageSize=0", b"", 400, "INVALID_ARGUMENT"),
    ],
)
async def test_errors_have_the_surfaces_shape(
    gateway: Gateway, method: str, path: str, body: bytes, status: int, word: str
) -> None:
    """Also for paths that do not exist below the version."""
    response = await http.request(gateway.port, method, path, [http.JSON], body)
    error = response.json()["error"]
    assert (response.status, error["code"], error["status"]) == (status, status, word)
    assert error["details"][0]["metadata"]["request_id"] == response.header("x-request-id")


async def test_a_body_that_is_too_large_is_refused_in_the_surfaces_shape(gateway: Gateway) -> None:
    """By its head alone."""
    headers = [http.JSON, ("Content-Length", str(1 << 40))]
    response = await http.request(gateway.port, "POST", url("chat"), headers)
    assert (response.status, response.json()["error"]["code"]) == (413, 413)


async def test_keys_are_shown_in_any_way(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """A caller's own key goes to the default upstream, as that wants to be shown it; none is a 401."""
    base = upstream.base_url.removesuffix("/v1")
    gateway = await start_gateway(config=f'[[upstreams]]\nname = "a"\nprovider = "gemini"\nbase_url = "{base}"\n')
    closed = await start_gateway(config="[access]\nanonymous = false\n")
    refused = await post(closed, "demo/echo", asked())
    assert (refused.status, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    for header, query in (
        (("x-goog-api-key", "AIza-mine-2"), ""),
        (http.bearer("AIza-mine-2"), ""),
        (None, "?key=AIza-mine-2"),
    ):
        upstream.queue(candidates.answering(TEXT))
        headers = [http.JSON] if header is None else [http.JSON, header]
        response = await http.request(
            gateway.port, "POST", url("gemini-x") + query, headers, json.dumps(asked()).encode()
        )
        assert response.status == 200
        call = await upstream.last_call()
        assert call.header("x-goog-api-key") == "AIza-mine-2"
        assert "AIza" not in call.target


async def test_models_are_listed_in_googles_shape(gateway: Gateway) -> None:
    """In pages, and one by one, names with slashes among them."""
    names: list[str] = []
    token = ""
    while True:
        page = (await http.request(gateway.port, "GET", f"/v1beta/models?pageSize=4{token}", [])).json()
        check("gemini", "ListModelsResponse", page)
        names += [each["name"] for each in page["models"]]
        if "nextPageToken" not in page:
            break
        token = f"&pageToken={page['nextPageToken']}"
    assert names[:3] == ["models/chat", "models/gem", "models/claude"]
    assert len(names) == len(set(names)) > 4
    theirs = ("x-goog-api-client", "google-genai-sdk/3.4.0")
    for path in ("/v1beta/models/demo/echo", "/v1/v1beta/models/demo%2Fecho", "/v1/models/demo/echo"):
        one = (await http.request(gateway.port, "GET", path, [theirs])).json()
        check("gemini", "Model", one)
        assert one["name"] == "models/demo/echo"
    assert "models" in (await http.request(gateway.port, "GET", "/v1/models", [theirs])).json()
    assert "data" in (await http.request(gateway.port, "GET", "/v1/models")).json()
    unknown = await http.request(gateway.port, "GET", "/v1/files", [theirs])
    assert (unknown.status, unknown.json()["error"]["status"]) == (404, "NOT_FOUND")


async def test_version_1_is_served_too(gateway: Gateway) -> None:
    """The present package for Python asks for it, beside OpenAI's paths, which stay what they are."""
    for prefix in ("/v1", "", "/v1/v1"):
        response = await http.post_json(gateway.port, f"{prefix}/models/demo/echo:generateContent", asked("Hello"))
        assert parts_of(whole_of(response, stream=False)) == [{"text": "Hello"}]
    refused = await http.post_json(gateway.port, "/v1/models/demo/echo", {})
    assert (refused.status, refused.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_the_demo_models_answer(gateway: Gateway) -> None:
    """Without any provider, as they do for everyone."""
    response = await post(gateway, "demo/echo", asked("Hello there"))
    assert parts_of(whole_of(response, stream=False)) == [{"text": "Hello there"}]
    response = await post(gateway, "demo/tools", asked(tools=[{"functionDeclarations": [LOOK]}]), stream=True)
    (part,) = parts_of(whole_of(response, stream=True))
    assert part["functionCall"]["name"] == "look"
    for model, status in (("demo/429", 429), ("demo/500", 502)):
        assert (await post(gateway, model, asked())).status == status


# --- Counting ---------------------------------------------------------------------------------------------------------


async def test_tokens_are_counted_by_the_provider(gateway: Gateway, google: FakeUpstream) -> None:
    """A Gemini upstream knows best; what it refuses is refused."""
    counted = {"totalTokens": 42, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 42}]}
    google.queue(scripts.whole(counted), scripts.whole(counted))
    response = await http.post_json(gateway.port, "/v1beta/models/gem:countTokens", asked())
    assert (response.status, response.json()) == (200, counted)
    assert response.header("x-chatgate-estimated") is None
    call = await google.last_call()
    assert (call.target, call.json()) == ("/v1beta/models/gemini-fake-1:countTokens", asked())
    assert call.header("x-goog-api-key") == SERVER_KEY
    value = {"generateContentRequest": {"model": "models/gem", **asked()}}
    assert (await http.post_json(gateway.port, "/v1beta/models/gem:countTokens", value)).status == 200
    assert (await google.last_call()).json()["generateContentRequest"]["model"] == "models/gemini-fake-1"
    google.queue(refusing(400, "INVALID_ARGUMENT", "Bad part"))
    refused = await http.post_json(gateway.port, "/v1beta/models/gem:countTokens", asked())
    assert (refused.status, refused.json()["error"]["message"]) == (400, "Bad part")


async def test_tokens_are_estimated_where_no_provider_counts(gateway: Gateway) -> None:
    """The answer says so; a longer dialogue has more of them, and tools and files count."""
    counts = []
    image = {"inlineData": {"mimeType": "image/png", "data": "A" * 400}}
    for value in (
        asked("Hello there, how are you?"),
        asked(LONG, systemInstruction={"parts": [{"text": LONG}]}),
        {
            "generateContentRequest": asked(
                LONG, systemInstruction={"parts": [{"text": LONG}]}, tools=[{"functionDeclarations": [LOOK]}]
            )
        },
        {"contents": [{"parts": [image]}]},
    ):
        response = await http.post_json(gateway.port, "/v1beta/models/chat:countTokens", value)
        check("gemini", "CountTokensResponse", response.json())
        assert response.header("x-chatgate-estimated") == "true"
        counts.append(response.json()["totalTokens"])
    assert counts == sorted(counts)
    assert 5 <= counts[0] <= 20
    assert (await http.post_json(gateway.port, "/v1beta/models/chat:countTokens", {"contents": 5})).status == 400
