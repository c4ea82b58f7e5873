"""Google's `google-genai` package for Python talks to the gateway as it talks to Google, whoever answers behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from google import genai
from google.genai import errors, types

from fakes import candidates, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "AIza-test-caller-6000"
LONG = "the quick brown fox jumps over the lazy dog and runs into the wide open fields beyond"
SIGNED = {"functionCall": {"name": "look", "args": {"at": "sea"}}, "thoughtSignature": "c2lnbmVk"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> Gateway:
    """Run a gateway in front of an upstream that speaks OpenAI's protocol, and of one that speaks Gemini's."""
    return await start_gateway(
        config=f"""
[[upstreams]]
name = "chat"
base_url = "{upstream_of_file.base_url}"
[[upstreams]]
name = "google"
provider = "gemini"
base_url = "{upstream_of_file.base_url.removesuffix("/v1")}"
[[models]]
name = "chat"
targets = [{{ upstream = "chat", model = "gpt-fake-small" }}]
[[models]]
name = "gem"
targets = [{{ upstream = "google", model = "gemini-fake-1" }}]
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
async def models(gateway: Gateway) -> AsyncIterator[genai.models.AsyncModels]:
    """Return a client as an application makes it: only the base URL differs."""
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=gateway.url))
    async with client.aio as made:
        yield made.models
    client.close()


def look(at: str) -> str:
    """Look somewhere.

    Args:
        at: where to.
    """
    return f"blue {at}"


@pytest.mark.parametrize("model", ["chat", "gem", "demo/echo"])
async def test_an_answer(models: genai.models.AsyncModels, upstream: FakeUpstream, model: str) -> None:
    """An answer is an answer, with usage and an id."""
    if model == "gem":
        upstream.queue(candidates.answering(candidates.text("Hello there")))
    config = types.GenerateContentConfig(system_instruction="Be brief.", temperature=0.5, max_output_tokens=50)
    answer = await models.generate_content(model=model, contents="Hello there", config=config)
    assert answer.text == "Hello there"
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    assert answer.usage_metadata is not None
    assert answer.usage_metadata.prompt_token_count
    assert answer.response_id


@pytest.mark.parametrize("model", ["chat", "gem", "demo/echo"])
async def test_a_stream(models: genai.models.AsyncModels, upstream: FakeUpstream, model: str) -> None:
    """Pieces of text, the last of which says why it ended and what it took."""
    if model == "gem":
        upstream.queue(candidates.answering(candidates.text("a b c")))
    pieces = [each async for each in await models.generate_content_stream(model=model, contents="a b c")]
    assert "".join(each.text or "" for each in pieces) == "a b c"
    assert len(pieces) > 1
    last = pieces[-1]
    assert last.candidates is not None
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    assert last.usage_metadata is not None
    assert last.usage_metadata.total_token_count


@pytest.mark.parametrize("model", ["demo/tools", "gem"])
async def test_a_tool_is_called_and_answers(gateway: Gateway, upstream: FakeUpstream, model: str) -> None:
    """A function of the program's own is called by the package itself, and what it returns leads to an answer."""
    if model == "gem":
        upstream.queue(candidates.answering(SIGNED), candidates.answering(candidates.text("It is blue.")))
    client = genai.Client(api_key=KEY, http_options=types.HttpOptions(base_url=gateway.url))
    async with client.aio as made:
        config = types.GenerateContentConfig(tools=[look])
        answer = await made.chats.create(model=model, config=config).send_message("Look")
    client.close()
    if model == "gem":
        assert answer.text == "It is blue."
        sent = (await upstream.last_call()).json()["contents"]
        assert sent[1]["parts"][0]["thoughtSignature"] == "c2lnbmVk"
        assert sent[2]["parts"][0]["functionResponse"]["response"] == {"result": "blue sea"}
    else:
        assert (answer.text or "").startswith("The tool answered: ")
        assert "blue demo" in (answer.text or "")


async def test_thoughts_are_shown_to_who_wants_them(models: genai.models.AsyncModels, upstream: FakeUpstream) -> None:
    """The reasoning of an OpenAI-compatible model is a thought, for those who asked to see it."""
    deltas = [{"reasoning_content": "Let me see."}, {"content": "Seen."}]
    events = [*map(scripts.event, map(scripts.chunk, deltas)), scripts.event(scripts.chunk({}, finish="stop"))]
    for wanted in (True, False):
        upstream.queue(scripts.stream(events))
        thinking = types.ThinkingConfig(include_thoughts=wanted, thinking_level=types.ThinkingLevel.LOW)
        stream = await models.generate_content_stream(
            model="chat", contents="Hi", config=types.GenerateContentConfig(thinking_config=thinking)
        )
        parts = [part for each in [each async for each in stream] for part in each.parts or ()]
        assert [part.text for part in parts if part.thought] == ["Let me see."] * wanted
        assert (await upstream.last_call()).json()["reasoning_effort"] == "low"


async def test_errors_are_the_classes_that_say_so(models: genai.models.AsyncModels, upstream: FakeUpstream) -> None:
    """By status and word; the provider's words are in the message."""
    with pytest.raises(errors.ClientError) as missing:
        await models.generate_content(model="nobody", contents="Hi")
    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
    search = types.GenerateContentConfig(tools=[types.Tool(google_search=types.GoogleSearch())])
    with pytest.raises(errors.ClientError, match=r"tools\[0\]\.googleSearch"):
        await models.generate_content(model="chat", contents="Hi", config=search)
    upstream.queue(scripts.whole(candidates.error(429, "RESOURCE_EXHAUSTED", "Slower"), 429))
    with pytest.raises(errors.ClientError, match="Slower"):
        await models.generate_content(model="gem", contents="Hi")
    upstream.queue(scripts.whole(b"", 500))
    with pytest.raises(errors.ServerError) as failed:
        await models.generate_content(model="chat", contents="Hi")
    assert failed.value.code == 502


@pytest.mark.parametrize("model", ["chat", "gem"])
async def test_a_stream_that_breaks_is_an_error(
    models: genai.models.AsyncModels, upstream: FakeUpstream, model: str
) -> None:
    """The words that came stand, and the answer is not taken for whole."""
    events = scripts.text_events(LONG)[:6] if model == "chat" else candidates.events(candidates.text(LONG), finish=None)
    upstream.queue(scripts.stream(events, end=b"", then="reset", close=False))
    said: list[str] = []

    async def listen() -> None:
        async for each in await models.generate_content_stream(model=model, contents="Hi"):
            said.append(each.text or "")  # noqa: PERF401 - what came before the error is looked at

    with pytest.raises(errors.ServerError) as broken:
        await listen()
    assert LONG.startswith("".join(said))
    assert said
    assert (broken.value.code, broken.value.status) == (502, "UNAVAILABLE")


async def test_models_and_counts(models: genai.models.AsyncModels) -> None:
    """Pages follow each other, one model can be looked at, and tokens can be counted."""
    names = [model.name async for model in await models.list(config={"page_size": 2})]
    assert names[:2] == ["models/chat", "models/gem"]
    assert len(names) == len(set(names)) > 4
    assert (await models.get(model="demo/echo")).name == "models/demo/echo"
    counted = await models.count_tokens(model="chat", contents=LONG)
    assert counted.total_tokens is not None
    assert 10 < counted.total_tokens < 40


async def test_a_limit_is_told_with_its_wait(models: genai.models.AsyncModels) -> None:
    """In the details where Google's own clients look for it."""

    async def call_on() -> None:
        for _ in range(50):
            await models.generate_content(model="demo/story", contents="Hi", config={"max_output_tokens": 1})

    with pytest.raises(errors.ClientError) as limited:
        await call_on()
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
    reason, wait = limited.value.details["error"]["details"]
    assert reason["reason"] == "RATE_LIMIT_EXCEEDED"
    assert float(wait["retryDelay"].removesuffix("s")) > 60
