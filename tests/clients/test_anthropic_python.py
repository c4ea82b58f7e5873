"""The current `anthropic` package for Python talks to the gateway as it talks to Anthropic, whoever answers behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anthropic
import pytest
import pytest_asyncio
from anthropic import Anthropic, AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from fakes import messages, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-ant-test-caller-4000"
LOOK: ToolParam = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
}
LONG = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of an upstream that speaks OpenAI's protocol, with a model that fails over to a demo."""
    return await start_gateway(
        config=f"""
[[upstreams]]
name = "chat"
base_url = "{upstream_of_file.base_url}"
[[upstreams]]
name = "claude"
provider = "anthropic"
base_url = "{upstream_of_file.base_url}"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "claude"
targets = [{{ upstream = "claude", model = "claude-fake-1" }}]
[retry]
max_retries = 0
[[limits]]
scope = "address+model"
resource = "requests"
amount = 40
per = "hour"
"""
    )


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncAnthropic]:
    """Return a client as an application makes it: only the base URL differs."""
    async with AsyncAnthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as made:
        yield made


def ask(text: str) -> list[MessageParam]:
    """Return a dialogue of one question."""
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("model", ["chat", "claude", "demo/echo"])
async def test_a_message(client: AsyncAnthropic, upstream: FakeUpstream, model: str) -> None:
    """An answer is an answer, with usage and the gateway's request id."""
    if model == "claude":
        upstream.queue(messages.answering(messages.text_block("Hello there")))
    answer = await client.messages.create(model=model, max_tokens=50, messages=ask("Hello there"))
    (block,) = answer.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert (block.text, answer.stop_reason) == ("Hello there", "end_turn")
    assert answer.usage.input_tokens
    assert (answer._request_id or "").startswith("req_")


@pytest.mark.parametrize("model", ["chat", "claude", "demo/story"])
async def test_a_stream(client: AsyncAnthropic, upstream: FakeUpstream, model: str) -> None:
    """The helper yields the text and puts the message together."""
    if model == "claude":
        upstream.queue(messages.answering(messages.text_block("a b c")))
    async with client.messages.stream(model=model, max_tokens=12, messages=ask("a b c")) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        whole = await stream.get_final_message()
    assert text
    assert "".join(block.text for block in whole.content if block.type == "text") == text
    assert whole.stop_reason == ("max_tokens" if model == "demo/story" else "end_turn")
    assert whole.usage.output_tokens


async def test_a_tool_is_called_and_answers(client: AsyncAnthropic) -> None:
    """Streamed arguments arrive whole, and the tool's result leads to an answer."""
    dialogue = ask("Look")
    async with client.messages.stream(model="demo/tools", max_tokens=50, messages=dialogue, tools=[LOOK]) as stream:
        first = await stream.get_final_message()
    assert first.stop_reason == "tool_use"
    (call,) = (block for block in first.content if block.type == "tool_use")
    assert (call.name, call.input) == ("look", {"at": "demo"})
    dialogue += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "blue"}]},
    ]
    second = await client.messages.create(model="demo/tools", max_tokens=50, messages=dialogue, tools=[LOOK])
    assert second.content[0].type == "text"
    assert second.content[0].text == "The tool answered: blue"


async def test_thinking(client: AsyncAnthropic, upstream: FakeUpstream) -> None:
    """Reasoning of an OpenAI-compatible model is a thinking block."""
    deltas = [{"reasoning_content": "Let me"}, {"reasoning_content": " see."}, {"content": "Seen."}]
    events = [*map(scripts.event, map(scripts.chunk, deltas)), scripts.event(scripts.chunk({}, finish="stop"))]
    upstream.queue(scripts.stream(events))
    async with client.messages.stream(model="chat", max_tokens=50, messages=ask("Hi")) as stream:
        whole = await stream.get_final_message()
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert whole.content[0].type == "thinking"
    assert whole.content[0].thinking == "Let me see."


async def test_errors_are_the_classes_that_say_so(client: AsyncAnthropic, upstream: FakeUpstream) -> None:
    """By status and type, with the request id; the provider's words are in the message."""
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="nobody", max_tokens=5, messages=ask("Hi"))
    assert (missing.value.request_id or "").startswith("req_")
    with pytest.raises(anthropic.BadRequestError, match=r"tools\[0\]"):
        await client.messages.create(
            model="chat",
            max_tokens=5,
            messages=ask("Hi"),
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
        )
    upstream.queue(scripts.whole(scripts.error_body("No such thing", "bad"), 400))
    with pytest.raises(anthropic.BadRequestError, match="No such thing"):
        await client.messages.create(model="chat", max_tokens=5, messages=ask("Hi"))
    upstream.queue(scripts.whole(messages.error("rate_limit_error", "Slower"), 429))
    with pytest.raises(anthropic.RateLimitError, match="Slower"):
        await client.messages.create(model="claude", max_tokens=5, messages=ask("Hi"))
    upstream.queue(scripts.whole(b"", 500))
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(model="chat", max_tokens=5, messages=ask("Hi"))


async def test_a_stream_that_breaks_is_an_error(client: AsyncAnthropic, upstream: FakeUpstream) -> None:
    """The words that came stand, and the message is not taken for whole."""
    upstream.queue(scripts.stream(scripts.text_events(LONG)[:6], end=b"", then="reset", close=False))
    said: list[str] = []

    async def listen() -> None:
        async with client.messages.stream(model="chat", max_tokens=50, messages=ask("Hi")) as stream:
            async for text in stream.text_stream:
                said.append(text)  # noqa: PERF401 - what came before the error is looked at

    with pytest.raises(anthropic.APIStatusError) as broken:
        await listen()
    assert LONG.startswith("".join(said))
    assert said
    body = broken.value.body
    assert isinstance(body, dict)
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")


async def test_a_limit_is_told_with_its_wait(gateway: Gateway) -> None:
    """The library waits as long as it is told, so it is told not to where that would be long."""
    with Anthropic(base_url=gateway.url, api_key=KEY, max_retries=2) as client:

        def call_on() -> None:
            for _ in range(50):
                client.messages.create(model="demo/echo", max_tokens=5, messages=ask("Hi"))

        with pytest.raises(anthropic.RateLimitError) as limited:
            call_on()
        assert limited.value.response.headers["x-should-retry"] == "false"
        assert int(limited.value.response.headers["retry-after"]) > 60


async def test_models_and_counts(client: AsyncAnthropic) -> None:
    """Pages follow each other, one model can be looked at, and tokens can be counted."""
    names = [model.id async for model in client.models.list(limit=2)]
    assert names[:2] == ["chat", "claude"]
    assert len(names) == len(set(names)) > 4
    assert (await client.models.retrieve("demo/echo")).lifecycle == "active"
    counted = await client.messages.count_tokens(model="chat", messages=ask(LONG), tools=[LOOK])
    assert 20 < counted.input_tokens < 100
