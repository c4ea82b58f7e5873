"""The current `openai` package for Python, synchronous and not, talks to the gateway as it talks to OpenAI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from fakes import scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "sk-test-caller-2000"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway whose callers bring their keys."""
    return await start_gateway({"OPENAI_BASE_URL": upstream_of_file.base_url})


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    """Return a client as an application makes it: only the base URL differs."""
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as made:
        yield made


def ask(text: str) -> list[ChatCompletionMessageParam]:
    """Return a dialogue of one question."""
    return [{"role": "user", "content": text}]


async def test_a_completion(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """An answer is an answer, with usage and the gateway's request id."""
    answer = await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hello there"))
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    assert (answer._request_id or "").startswith("req_")
    assert (await upstream.last_call()).header("authorization") == f"Bearer {KEY}"


async def test_a_stream(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """A stream yields its words and ends by itself, twice on one connection."""
    for _ in range(2):
        stream = await client.chat.completions.create(model="gpt-fake-small", messages=ask("a b c"), stream=True)
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a b c"
        assert all(chunk.usage is None for chunk in chunks)
    assert len(upstream.calls) == 2


async def test_a_stream_with_usage(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """The last chunk carries the counts when they were asked for."""
    stream = await client.chat.completions.create(
        model="gpt-fake-small", messages=ask("a b c"), stream=True, stream_options={"include_usage": True}
    )
    *_, last = [chunk async for chunk in stream]
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 10
    assert len(upstream.calls) == 1


async def test_raw_responses_show_the_headers(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """`with_raw_response` shows both names of the request id, and parses."""
    raw = await client.chat.completions.with_raw_response.create(model="gpt-fake-small", messages=ask("Hi"))
    assert raw.headers["x-request-id"] == raw.headers["request-id"]
    assert raw.parse().choices[0].message.content == "Hi"
    assert len(upstream.calls) == 1


async def test_models(client: AsyncOpenAI) -> None:
    """Models can be listed, and one can be looked at."""
    listed = [model.id async for model in client.models.list()]
    assert "demo/echo" in listed
    assert (await client.models.retrieve("demo/echo")).id == "demo/echo"


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    """A 404 is the class that says so, with the code."""
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="demo/nothing", messages=ask("Hi"))
    assert caught.value.code == "model_not_found"
    assert (caught.value.request_id or "").startswith("req_")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("demo/nothing")


async def test_a_refused_key_is_an_authentication_error(gateway: Gateway, upstream: FakeUpstream) -> None:
    """No key, an unknown gateway key, and a key that the provider refuses are all the same class."""
    for key in ("none", "sk-cg-test-nobody"):
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
            assert caught.value.code == "invalid_api_key"
    assert upstream.calls == []
    upstream.queue(scripts.refuse_key)
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
    assert KEY not in str(caught.value)
    assert len(upstream.calls) == 1


async def test_a_limit_is_a_rate_limit_error_and_is_not_tried_again(
    upstream: FakeUpstream, start_gateway: StartGateway
) -> None:
    """Waiting an hour is not worth a retry: the client gives up at once, and says how long."""
    gateway = await start_gateway({"OPENAI_BASE_URL": upstream.base_url, "HOUR_LIMIT": "1"})
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) > 3000
    assert len(upstream.calls) == 1


async def test_a_wrong_field_is_a_bad_request(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """A 400 names the field."""
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="gpt-fake-small", messages=[])
    assert (caught.value.code, caught.value.param) == ("invalid_value", "messages")
    assert upstream.calls == []


async def test_a_stream_that_breaks_raises(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """Half an answer is never taken for a whole one: the client raises after the last word."""
    said = scripts.text_events("one two three")[:3]
    upstream.queue(scripts.stream(said, end=b"", close=False, then="close"))
    stream = await client.chat.completions.create(model="gpt-fake-small", messages=ask("Count"), stream=True)
    heard: list[str | None] = []

    async def listen() -> None:
        async for chunk in stream:
            heard.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(openai.APIError) as caught:
        await listen()
    assert heard == ["", "one", " two"]
    assert caught.value.code == "upstream_error"
    await stream.close()


async def test_a_provider_that_fails_is_a_server_error(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """A 502 is the class of servers' faults."""
    upstream.queue(*[scripts.raw(b"", then="close")] * 6)
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_error")


async def test_a_client_that_stops_listening_frees_the_provider(client: AsyncOpenAI, upstream: FakeUpstream) -> None:
    """Closing a stream in the middle closes the connection upstream."""
    upstream.queue(scripts.stream(scripts.text_events("one two three"), tap=Tap(2)))
    stream = await client.chat.completions.create(model="gpt-fake-small", messages=ask("Count"), stream=True)
    await anext(aiter(stream))
    await stream.close()
    assert (await upstream.last_call()).ended == "gateway_left"


async def test_the_synchronous_client(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Most scripts use the synchronous client: whole, streamed, listed and refused."""

    def script() -> None:
        with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
            answer = client.chat.completions.create(model="gpt-fake-small", messages=ask("Hello"))
            assert answer.choices[0].message.content == "Hello"
            with client.chat.completions.create(model="gpt-fake-small", messages=ask("a b"), stream=True) as stream:
                assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "a b"
            assert "demo/echo" in [model.id for model in client.models.list()]
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="demo/nothing", messages=ask("Hi"))

    await asyncio.to_thread(script)
    assert [call.method for call in upstream.calls].count("POST") == 2


async def test_the_legacy_base_url_without_a_version(gateway: Gateway, upstream: FakeUpstream) -> None:
    """Whoever leaves out /v1, or writes it twice, is served the same."""
    for path in ("", "/v1/v1"):
        async with AsyncOpenAI(base_url=f"{gateway.url}{path}", api_key=KEY, max_retries=0) as client:
            answer = await client.chat.completions.create(model="gpt-fake-small", messages=ask("Hi"))
            assert answer.choices[0].message.content == "Hi"
    assert len(upstream.calls) == 2
