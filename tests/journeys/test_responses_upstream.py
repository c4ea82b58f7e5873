"""An upstream that speaks Responses and nothing else, for callers of every protocol.

It is a second gateway, which has the events of the vendor's own sequence from a chat.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import pytest_asyncio

from fakes import http_client as http
from fakes import messages, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-server-4100"
BEHIND = """
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[models]]
name = "m"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[retry]
max_retries = 0
"""
CONFIG = """
[server]
route = "api"
[[upstreams]]
name = "native"
provider = "openai_responses"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "{key}"
[[upstreams]]
name = "chat"
base_url = "{chat}"
[[models]]
name = "m"
targets = [{{ upstream = "native", model = "m" }}]
[[models]]
name = "twice"
targets = [{{ upstream = "native", model = "m", priority = 0 }}, {{ upstream = "chat", model = "b", priority = 1 }}]
[[prices]]
model = "m"
input_usd_per_million = "1"
output_usd_per_million = "2"
[retry]
max_retries = 0
"""
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TEXT = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of one that only ever is asked for Responses."""
    behind = await start_gateway(config=BEHIND.format(chat=upstream_of_file.base_url))
    return await start_gateway(config=CONFIG.format(port=behind.port, key=KEY, chat=upstream_of_file.base_url))


def asked(text: str, **more: Any) -> dict[str, Any]:
    """Return a chat."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def post(gateway: Gateway, path: str, body: dict[str, Any]) -> http.Response:
    """Ask, and expect an answer."""
    response = await http.post_json(gateway.port, path, body)
    assert response.status == 200, response.body
    return response


async def test_a_chat(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Whole: its text, the counts, and what it cost."""
    response = await post(gateway, CHAT, asked("Good day", max_tokens=9))
    answer = response.json()
    assert (answer["object"], answer["choices"][0]["message"]["content"]) == ("chat.completion", "Good day")
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (7, 2)
    [line] = await gateway.logged("call", request_id=response.header("x-request-id"))
    assert (line["cost_usd"], line["upstream"], line["outcome"]) == ("0.000011", "native", "completed")
    assert (await upstream.last_call()).json()["max_tokens"] == 9


async def test_a_streamed_chat(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Word by word, with the counts that were asked for."""
    body = asked("a b c", stream=True, stream_options={"include_usage": True})
    *events, last = (await post(gateway, CHAT, body)).events()
    chunks = [json.loads(event) for event in events]
    words = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    assert last == b"[DONE]"
    assert "".join(filter(None, words)) == "a b c"
    assert len([word for word in words if word]) > 1
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 10)
    assert upstream.calls


async def test_a_tool_is_called_and_answers(gateway: Gateway, upstream: FakeUpstream) -> None:
    """There and back, streamed, with the arguments as they come."""
    pieces = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at"'}}]
    rest = [{"index": 0, "function": {"arguments": ':"sea"}'}}]
    chunks = [scripts.chunk({"tool_calls": each}) for each in (pieces, rest)]
    chunks.append(scripts.chunk({}, finish="tool_calls"))
    upstream.queue(scripts.stream([scripts.event(chunk) for chunk in chunks]))
    *events, _ = (await post(gateway, CHAT, asked("Look", tools=[TOOL], stream=True))).events()
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls") or ()]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == ("call_1", "look")
    assert "".join(call["function"].get("arguments") or "" for call in calls) == '{"at":"sea"}'
    assert choices[-1]["finish_reason"] == "tool_calls"
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
    turns = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Waves"},
    ]
    body = asked("Look", tools=[TOOL])
    await post(gateway, CHAT, {**body, "messages": [*body["messages"], *turns]})
    sent = (await upstream.called(2)).json()["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"] == [call]


async def test_anthropics_callers(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Two translations in a row, whole and streamed."""
    body = asked("a b c", max_tokens=9)
    assert (await post(gateway, MESSAGES, body)).json()["content"][0]["text"] == "a b c"
    found = messages.read((await post(gateway, MESSAGES, {**body, "stream": True})).body)
    said = messages.assembled(found)
    assert (said["content"][0]["text"], said["stop_reason"], said["usage"]["output_tokens"]) == ("a b c", "end_turn", 3)
    assert upstream.calls


async def test_plain_callers(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The oldest of the protocols."""
    response = await post(gateway, "/api", {"model": "m", "user_content": "Good day"})
    assert "Good day" in response.body.decode()
    assert upstream.calls


async def test_callers_of_responses_get_it_byte_for_byte(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Nothing is translated between the same."""
    response = await post(gateway, RESPONSES, {"model": "m", "input": "a b c", "stream": True})
    events = [json.loads(event) for event in response.events()]
    assert (events[-1]["type"], events[-1]["response"]["model"]) == ("response.completed", "gpt-fake-small")
    assert upstream.calls


async def test_a_stream_that_breaks_off_goes_on_elsewhere(gateway: Gateway, upstream: FakeUpstream) -> None:
    """At a target that speaks chat."""
    upstream.queue(scripts.telling(TEXT, characters=20), scripts.telling(TEXT))
    *events, last = (await post(gateway, CHAT, {**asked("Tell"), "model": "twice", "stream": True})).events()
    words = [choice["delta"].get("content") or "" for event in events for choice in json.loads(event)["choices"]]
    assert (last, "".join(words)) == (b"[DONE]", TEXT)


async def test_a_refusal_is_the_providers(gateway: Gateway, upstream: FakeUpstream) -> None:
    """With its own words and the caller's status."""
    upstream.queue(scripts.whole(scripts.error_body("No such thing.", "bad_thing"), 400))
    response = await http.post_json(gateway.port, CHAT, asked("Hi"))
    assert (response.status, response.json()["error"]["message"]) == (400, "No such thing.")


async def test_what_it_cannot_carry_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    """By the field's name, before anything is sent."""
    response = await http.post_json(gateway.port, CHAT, asked("Hi", stop=["x"]))
    assert (response.status, response.json()["error"]["param"]) == (400, "stop")
    assert not upstream.calls
