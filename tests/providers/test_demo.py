"""The demo models answer as a provider would, the same every time, and fail when that is their purpose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import openai_chat, openai_errors, sse
from chatgate.providers import demo
from chatgate.providers.demo import Demo
from chatgate.providers.requests import Requests
from chatgate.vocabulary.errors import UpstreamError
from chatgate.vocabulary.exchange import Answer
from chatgate.vocabulary.upstreams import Timeouts

ANSWERING = ("demo/echo", "demo/story", "demo/tools", "demo/slow")
LIMIT_BYTES = 1 << 20


class Pauses:
    """Takes note of pauses instead of making them."""

    def __init__(self) -> None:
        """Start without any."""
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note a pause."""
        self.seconds.append(seconds)


def user(text: Any) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": text}


async def ask(model: str, text: Any = "Hello there, you", pauses: Pauses | None = None, **fields: Any) -> Answer:
    """Put a call to the demo, as the pipeline does."""
    body = json.dumps({"model": model, "messages": [user(text)], **fields}).encode()
    request = Requests(demo.UPSTREAM, Timeouts()).chat(body, "")
    return await Demo(pauses or Pauses()).send(request)


async def whole(model: str, *args: Any, **fields: Any) -> dict[str, Any]:
    """Return a whole answer."""
    answer = await ask(model, *args, **fields)
    assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
    body = await answer.read(LIMIT_BYTES)
    openai_chat.check_answer(body)
    return dict(json.loads(body))


async def pieces(answer: Answer) -> list[bytes]:
    """Return a body's pieces until its end, or until it breaks off."""
    found = []
    try:
        while piece := await answer.next_chunk():
            found.append(piece)
    except UpstreamError as error:
        found.append(error.reason.encode())
    return found


async def stream(model: str, *args: Any, **fields: Any) -> list[Any]:
    """Return the objects of a stream, "[DONE]" for its end mark."""
    answer = await ask(model, *args, stream=True, **fields)
    assert (answer.status, answer.headers[b"content-type"]) == (200, b"text/event-stream")
    data = [sse.data_of(piece) or piece for piece in await pieces(answer)]
    return [json.loads(each) if each.startswith(b"{") else each.decode() for each in data]


def text_of(chunks: list[Any]) -> str:
    """Return the text of a stream."""
    return "".join(choice["delta"].get("content") or "" for chunk in chunks[:-1] for choice in chunk["choices"])


def test_every_model_of_the_contract_exists() -> None:
    """The seven names that are promised."""
    assert tuple(f"demo/{name}" for name in ("echo", "story", "tools", "slow", "429", "500", "cut")) == demo.MODELS


# --- Answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ANSWERING)
async def test_an_answer_has_text_and_counts(model: str) -> None:
    """A whole answer is a chat completion with usage."""
    answer = await whole(model)
    assert (answer["object"], answer["model"], answer["created"]) == ("chat.completion", model, demo.CREATED)
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "stop"
    usage = answer["usage"]
    assert usage["prompt_tokens"] == 3
    assert usage["completion_tokens"] == len(choice["message"]["content"].split())
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("model", ANSWERING)
async def test_a_stream_says_the_same_as_the_whole_answer(model: str) -> None:
    """Word by word it is the same text, with a role first, a finish last, and then the end mark."""
    chunks = await stream(model)
    assert chunks[-1] == "[DONE]"
    assert text_of(chunks) == (await whole(model))["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks[:-1]}) == 1


@pytest.mark.parametrize("model", ANSWERING)
async def test_usage_comes_in_a_stream_when_asked_for(model: str) -> None:
    """The counts of the whole answer come in a chunk of their own before the end mark."""
    *_, last, done = await stream(model, stream_options={"include_usage": True})
    assert (last["choices"], last["usage"], done) == ([], (await whole(model))["usage"], "[DONE]")


@pytest.mark.parametrize("model", demo.MODELS)
@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_the_same_call_gets_the_same_bytes(model: str, fields: dict[str, Any]) -> None:
    """Nothing depends on the time or on chance."""
    assert await pieces(await ask(model, **fields)) == await pieces(await ask(model, **fields))


@pytest.mark.parametrize("text", ["", " ", "Hi", "two\nlines  and   gaps ", "Привет, мир \U0001f6aa", "x" * 5000])
async def test_the_echo_is_the_last_user_text(text: str) -> None:
    """Every character comes back, whole and in a stream."""
    messages = [user("first"), {"role": "assistant", "content": "b"}, user(text), {"role": "system", "content": "s"}]
    assert (await whole("demo/echo", messages=messages))["choices"][0]["message"]["content"] == text
    assert text_of(await stream("demo/echo", messages=messages)) == text


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "b"}], "ab"),
        ([{"type": "text"}, {"type": "text", "text": 5}, None, "x", []], ""),
        (None, ""),
        (5, ""),
        ([], ""),
    ],
)
async def test_the_echo_reads_parts(content: Any, text: str) -> None:
    """Content in parts is its texts; anything else has none."""
    assert (await whole("demo/echo", content))["choices"][0]["message"]["content"] == text


async def test_the_echo_of_nobody_is_empty() -> None:
    """A dialogue without a user's message has no last user text."""
    answer = await whole("demo/echo", messages=[{"role": "system", "content": "x"}])
    assert answer["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_a_limit_cuts_the_answer(name: str, limit: int) -> None:
    """A word is a token; an answer that is cut says `length`."""
    answer = await whole("demo/story", **{name: limit})
    text = answer["choices"][0]["message"]["content"]
    assert demo.STORY.startswith(text)
    assert len(text.split()) == answer["usage"]["completion_tokens"] == limit
    assert answer["choices"][0]["finish_reason"] == "length"
    chunks = await stream("demo/story", **{name: limit})
    assert text_of(chunks) == text
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


# --- Tools ------------------------------------------------------------------------------------------------------------


def tool(name: str = "look_up", parameters: Any = None) -> dict[str, Any]:
    """Return a tool that is offered."""
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1},
        "factor": {"type": "number"},
        "exact": {"type": "boolean"},
        "unit": {"type": "string", "enum": ["celsius", "kelvin"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "more": {"type": "object"},
        "maybe": {"type": ["null", "string"]},
        "either": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "optional": {"type": "string"},
    },
    "required": ["city", "days", "factor", "exact", "unit", "tags", "more", "maybe", "either", "undescribed"],
}
ARGUMENTS = {
    "city": "demo",
    "days": 1,
    "factor": 1.5,
    "exact": True,
    "unit": "celsius",
    "tags": [],
    "more": {},
    "maybe": "demo",
    "either": None,
    "undescribed": None,
}


async def test_the_first_tool_is_called_with_what_it_requires() -> None:
    """A value of the right type stands for each required parameter, and for no other."""
    answer = await whole("demo/tools", tools=[tool(parameters=SCHEMA), tool("never")])
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "look_up")
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS


async def test_a_tool_call_comes_in_pieces() -> None:
    """First its name, then its arguments, as OpenAI streams them; put together it is the call of the whole answer."""
    chunks = await stream("demo/tools", tools=[tool(parameters=SCHEMA)])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    calls = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    expected = (await whole("demo/tools", tools=[tool(parameters=SCHEMA)]))["choices"][0]["message"]["tool_calls"][0]
    assert (calls[0]["id"], calls[0]["function"]["name"]) == (expected["id"], "look_up")
    assert "".join(call["function"]["arguments"] for call in calls) == expected["function"]["arguments"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert text_of(chunks) == ""


async def test_a_tool_that_has_answered_is_not_called_again() -> None:
    """A client that calls until there is text comes to an end."""
    messages = [user("Rain?"), {"role": "assistant", "tool_calls": []}, {"role": "tool", "content": "No rain."}]
    answer = await whole("demo/tools", tools=[tool()], messages=messages)
    assert answer["choices"][0]["message"]["content"].endswith("No rain.")
    assert answer["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("tools", [None, []])
async def test_without_tools_there_is_a_hint(tools: Any) -> None:
    """The model says what it is for."""
    assert "tool" in (await whole("demo/tools", tools=tools))["choices"][0]["message"]["content"]


async def test_other_models_call_no_tools() -> None:
    """An echo with tools on offer is still an echo."""
    answer = await whole("demo/echo", "Hi", tools=[tool()])
    assert answer["choices"][0]["message"]["content"] == "Hi"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["function", "name", "parameters", "properties", "required", "type", "enum", "$ref", "a"]),
            inner,
            max_size=5,
        )
    ),
)


@given(_JSON, st.booleans())
async def test_hostile_tools_are_answered_or_refused(hostile: Any, streamed: bool) -> None:  # noqa: FBT001 - hypothesis
    """Whatever is offered as a tool, the answer is a call of it or a 400 that says why, never a fault."""
    for tools in (hostile, [hostile], [{"type": "function", "function": hostile}], [tool(parameters=hostile)]):
        answer = await ask("demo/tools", tools=tools, stream=streamed)
        assert answer.status in {200, 400}
        body = b"".join(await pieces(answer))
        if answer.status == 400:
            assert openai_errors.message_of(body)
        elif not streamed:
            openai_chat.check_answer(body)


# --- Failing on purpose -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "status"), [("demo/429", 429), ("demo/500", 500)])
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failing_model_fails(model: str, status: int, *, streamed: bool) -> None:
    """It answers with its status and an error in OpenAI's shape, streaming or not."""
    answer = await ask(model, stream=streamed)
    assert (answer.status, answer.headers[b"content-type"]) == (status, b"application/json")
    said = openai_errors.read_error(await answer.read(LIMIT_BYTES))
    assert said.message
    assert said.code == {429: "rate_limit_exceeded", 500: "server_error"}[status]
    assert answer.headers.get(b"retry-after") == (b"1" if status == 429 else None)


@pytest.mark.parametrize("limit", [None, 1, 3, 1000])
async def test_the_cut_model_dies_in_the_middle(limit: int | None) -> None:
    """Some words come and then the connection is gone, however short the answer was to be; there is no finish."""
    *chunks, reason = await stream("demo/cut", max_tokens=limit)
    assert reason == "upstream_cut"
    assert text_of([*chunks, None]) == " ".join(demo.STORY.split(" ")[: min(limit or 5, demo.CUT_AFTER_WORDS)])
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
    with pytest.raises(UpstreamError):
        await (await ask("demo/cut", max_tokens=limit)).read(LIMIT_BYTES)


@pytest.mark.parametrize("body", [{}, {"model": "demo/echo"}, {"model": "demo/echo", "messages": "x"}])
async def test_what_cannot_be_read_is_refused(body: dict[str, Any]) -> None:
    """A provider checks what it gets, and says what is wrong."""
    answer = await Demo(Pauses()).send(Requests(demo.UPSTREAM, Timeouts()).chat(json.dumps(body).encode(), ""))
    assert answer.status == 400
    assert openai_errors.message_of(await answer.read(LIMIT_BYTES))


async def test_a_body_over_the_bound_is_an_error() -> None:
    """`read` takes no more than it was told to."""
    with pytest.raises(UpstreamError) as caught:
        await (await ask("demo/story")).read(100)
    assert caught.value.reason == "upstream_too_large"


# --- Pauses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "start", "word"),
    [
        ("demo/slow", [demo.SLOW_START_SECONDS], demo.SLOW_WORD_SECONDS),
        ("demo/story", [], demo.STORY_WORD_SECONDS),
        ("demo/echo", [], 0.0),
    ],
)
async def test_slow_models_pause_at_each_word(model: str, start: list[float], word: float) -> None:
    """The pauses are made by what was passed in: at the start, and after each word of a stream."""
    pauses = Pauses()
    chunks = await stream(model, "a b c", pauses)
    words = len(text_of(chunks).split())
    assert pauses.seconds == start + [word] * (words if word else 0)


async def test_a_slow_whole_answer_takes_as_long_as_its_stream() -> None:
    """All of the pauses come before the one piece."""
    pauses = Pauses()
    answer = await whole("demo/slow", "a", pauses)
    words = len(answer["choices"][0]["message"]["content"].split())
    assert pauses.seconds == [demo.SLOW_START_SECONDS, demo.SLOW_WORD_SECONDS * words]
