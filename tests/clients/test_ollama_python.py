"""The current `ollama` package for Python talks to the gateway as it talks to Ollama."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from ollama import AsyncClient, ResponseError

from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = [{"role": "user", "content": "Hello there"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of a provider of OpenAI's protocol."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url, "API_KEY": "sk-test-server-6000"})


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncClient]:
    """Return a client as an application makes it: only the host differs."""
    async with AsyncClient(host=gateway.url) as made:
        yield made


async def test_a_chat(client: AsyncClient, upstream: FakeUpstream) -> None:
    """An answer is an answer, with its counts."""
    answer = await client.chat(model="gpt-fake-small", messages=ASK, options={"temperature": 0})
    assert answer.message.content == "Hello there"
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (7, 2)
    assert (answer.total_duration or 0) > 0
    assert (await upstream.last_call()).json()["temperature"] == 0


async def test_a_stream(client: AsyncClient, upstream: FakeUpstream) -> None:
    """Its words come one by one, and it ends by itself."""
    parts = [part async for part in await client.chat(model="gpt-fake-small", messages=ASK, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "Hello there"
    assert [part.done for part in parts][-2:] == [False, True]
    assert (parts[-1].eval_duration or 0) > 0
    said = [part.response async for part in await client.generate(model="gpt-fake-small", prompt="a b c", stream=True)]
    assert "".join(text or "" for text in said) == "a b c"
    assert len(upstream.calls) == 2


async def test_a_tool(client: AsyncClient, upstream: FakeUpstream) -> None:
    """It is called with arguments, and its answer goes back."""

    def weather(place: str) -> str:
        """Tell the weather.

        Args:
            place: where
        """
        return place

    answer = await client.chat(model="demo/tools", messages=ASK, tools=[weather])
    [call] = answer.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", {"place": "demo"})
    dialogue: list[Any] = [*ASK, answer.message, {"role": "tool", "tool_name": "weather", "content": "Sun."}]
    final = await client.chat(model="demo/tools", messages=dialogue, tools=[weather])
    assert final.message.content == "The tool answered: Sun."
    assert upstream.calls == []


async def test_lists(client: AsyncClient, upstream: FakeUpstream) -> None:
    """Models are listed and shown; none is loaded."""
    names = [model.model for model in (await client.list()).models]
    assert {"gpt-fake-small", "demo/echo"} <= set(names)
    assert "completion" in ((await client.show("demo/echo")).capabilities or ())
    assert (await client.ps()).models == []
    assert len(upstream.calls) == 1


async def test_vectors(client: AsyncClient, upstream: FakeUpstream) -> None:
    """Vectors come for texts."""
    upstream.queue(scripts.whole({"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 2}}))
    answer = await client.embed(model="gpt-fake-small", input="a")
    assert ([list(each) for each in answer.embeddings], answer.prompt_eval_count) == ([[0.5]], 2)


async def test_errors(client: AsyncClient, upstream: FakeUpstream) -> None:
    """A refusal has its status and its words, also at the end of a stream."""
    upstream.queue(scripts.whole(scripts.error_body("No such model here.", "model_not_found"), 404))
    with pytest.raises(ResponseError) as refused:
        await client.chat(model="gpt-fake-small", messages=ASK)
    assert refused.value.status_code == 404
    assert "No such model here." in refused.value.error
    with pytest.raises(ResponseError, match=r"\w"):
        async for _ in await client.chat(model="demo/cut", messages=ASK, stream=True):
            pass
