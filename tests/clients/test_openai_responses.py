"""The current `openai` package uses Responses and embeddings over the gateway as it does at OpenAI."""

from __future__ import annotations

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall, ResponseInputParam
from pydantic import BaseModel

from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-6000"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway that keeps responses, over a provider of chats."""
    config = (
        f'[responses]\nstore_seconds = 600\n[[upstreams]]\nname = "chat"\nbase_url = "{upstream_of_file.base_url}"\n'
    )
    return await start_gateway(config=config)


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """Return a client as an application makes it: only the base URL differs."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


async def test_a_response(client: AsyncOpenAI) -> None:
    """With its text, its counts, and the gateway's request id."""
    answer = await client.responses.create(model="gpt-fake-small", input="Good day", instructions="Be brief.")
    assert (answer.output_text, answer.status, answer.instructions) == ("Good day", "completed", "Be brief.")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
    assert (answer._request_id or "").startswith("req_")


async def test_a_stream(client: AsyncOpenAI) -> None:
    """The package follows the events one by one, and builds the same response from them."""
    for _ in range(2):
        async with client.responses.stream(model="gpt-fake-small", input="a b c") as stream:
            words = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert words == ["a", " b", " c"]
        assert (final.output_text, final.status) == ("a b c", "completed")


@pytest.mark.parametrize("by_id", [True, False])
async def test_a_tool_is_called_and_the_dialogue_goes_on(
    client: AsyncOpenAI,
    upstream: FakeUpstream,
    by_id: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """Whether the client sends everything again, or the response's id alone, the provider is asked the same."""
    function = {"name": "look", "arguments": '{"at":"sea"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": function}],
    }
    called = scripts.completion("")
    called["choices"] = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    upstream.queue(scripts.whole(called))
    first = await client.responses.create(model="gpt-fake-small", input="Look at the sea.", tools=[TOOL])
    [call] = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, call.arguments) == ("look", '{"at":"sea"}')
    result: ResponseInputParam = [{"type": "function_call_output", "call_id": call.call_id, "output": "Waves."}]
    if by_id:
        answer = await client.responses.create(
            model="gpt-fake-small", input=result, tools=[TOOL], previous_response_id=first.id
        )
    else:
        dialogue: ResponseInputParam = [
            {"role": "user", "content": "Look at the sea."},
            {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
            *result,
        ]
        answer = await client.responses.create(model="gpt-fake-small", input=dialogue, tools=[TOOL])
    assert answer.status == "completed"
    sent = (await upstream.called(2)).json()["messages"]
    assert [each["role"] for each in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["function"] == function
    assert sent[2] == {"role": "tool", "tool_call_id": "c1", "content": "Waves."}


class Weather(BaseModel):
    """What a caller wants to read."""

    sky: str


async def test_an_answer_in_a_wanted_form(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """The package sends a schema, and reads the object."""
    answer = await client.responses.parse(model="gpt-fake-small", input='{"sky":"blue"}', text_format=Weather)
    assert answer.output_parsed == Weather(sky="blue")
    assert (await upstream.last_call()).json()["response_format"]["type"] == "json_schema"


async def test_a_kept_response_is_found_and_deleted(client: AsyncOpenAI, gateway: Gateway) -> None:
    """By its own key alone."""
    made = await client.responses.create(model="gpt-fake-small", input="Good day")
    assert (await client.responses.retrieve(made.id)).output_text == "Good day"
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="sk-test-other-6001", max_retries=0) as other:
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made.id)
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(made.id)


async def test_refusals_are_the_packages_errors(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """With the field at fault; a stream that breaks ends with the failed response."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="gpt-fake-small", input="Hi", previous_response_id="resp_none")
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")
    upstream.queue(*[scripts.stream(scripts.text_events("a b c")[:3], end=b"", then="reset", close=False)] * 4)
    stream = await client.responses.create(model="gpt-fake-small", input="a b c", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None


async def test_embeddings(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """In the package's own form, base64, which passes as it is."""
    vector = {"object": "embedding", "index": 0, "embedding": "AACAPgAAgL8="}
    counted = {"prompt_tokens": 3, "total_tokens": 3}
    upstream.queue(scripts.whole({"object": "list", "data": [vector], "model": "embed-1", "usage": counted}))
    answer = await client.embeddings.create(model="embed-1", input="a")
    assert answer.data[0].embedding == [0.25, -1.0]
    assert answer.usage.prompt_tokens == 3
