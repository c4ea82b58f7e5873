"""Requests between Anthropic's protocol and OpenAI's: what both can say arrives, and nothing is lost unnoticed."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.anthropic.from_messages import to_chat
from chatgate.protocols.anthropic.to_messages import MAX_TOKENS_DEFAULT, to_messages
from chatgate.protocols.losses import Losses
from chatgate.vocabulary.errors import CallerError, Kind, Remedy
from chatgate.vocabulary.upstreams import Continuation
from fakes.vendor_schemas import check

Json = dict[str, Any]
HI: Json = {"role": "user", "content": "Hi"}
PIXEL = "iVBORw0KGgo="


def messages(**fields: Any) -> Json:
    """Return an Anthropic request."""
    return {"model": "m", "max_tokens": 64, "messages": [HI], **fields}


def chat(*turns: Json, **fields: Any) -> Json:
    """Return an OpenAI chat's body."""
    return {"model": "m", "messages": list(turns or (HI,)), "max_tokens": 64, **fields}


def to_openai(
    request: Json, *, extended: bool = False, continuation: Continuation | None = None
) -> tuple[Json, Losses]:
    """Translate a request, and hold the result against OpenAI's schema unless it goes beyond that."""
    body, losses = to_chat(request, extended=extended, continuation=continuation)
    if not extended:
        check("openai", "CreateChatCompletionRequest", json.loads(json.dumps(body)))
    return body, losses


def to_anthropic(body: Json) -> tuple[Json, Losses]:
    """Translate a body, and hold the result against Anthropic's schema."""
    request, losses = to_messages(body)
    check("anthropic", "CreateMessageParams", request)
    return request, losses


# --- From Anthropic ---------------------------------------------------------------------------------------------------


def test_a_call_with_everything_that_both_protocols_know_arrives_whole() -> None:
    """System blocks, sampling, stop sequences, the user and the form of the answer have their counterparts."""
    body, losses = to_openai(
        messages(
            system=[{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
            stop_sequences=["END"],
            temperature=0.5,
            top_p=0.9,
            metadata={"user_id": "u1"},
            stream=True,
            output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            service_tier="standard_only",
        )
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief.\n\nBe kind."}, HI],
        "max_tokens": 64,
        "stop": ["END"],
        "temperature": 0.5,
        "top_p": 0.9,
        "user": "u1",
        "stream": True,
        "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
        },
        "service_tier": "default",
    }
    assert losses.dropped(drops_parts=False) == ()


def test_images_and_documents_become_parts() -> None:
    """Pictures come as data or by address, a PDF becomes a file, and a document of text becomes text."""
    body, losses = to_openai(
        messages(
            messages=[
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                        {
                            "type": "document",
                            "title": "a.pdf",
                            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                        },
                        {
                            "type": "document",
                            "context": "A note",
                            "source": {"type": "text", "media_type": "text/plain", "data": "words"},
                        },
                    ],
                }
            ]
        )
    )
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "text", "text": "A note"},
        {"type": "text", "text": "words"},
    ]
    assert losses.parts == ()


TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {"at": {}}}}
FUNCTION = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": TOOL["input_schema"]},
}


def test_tools_their_calls_and_their_results_arrive() -> None:
    """A result becomes a message of its own before the rest of the turn, its image goes into the user's message."""
    body, losses = to_openai(
        messages(
            tools=[TOOL],
            tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
            messages=[
                HI,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "I look."},
                        {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}},
                        {"type": "tool_use", "id": "t2", "name": "look", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": "seen", "is_error": True},
                        {
                            "type": "tool_result",
                            "tool_use_id": "t2",
                            "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/b"}}],
                        },
                        {"type": "text", "text": "And?"},
                    ],
                },
            ],
        )
    )
    assert body["tools"] == [FUNCTION]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert body["parallel_tool_calls"] is False
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}},
                {"id": "t2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "seen"},
        {"role": "tool", "tool_call_id": "t2", "content": "The tool's images and files follow."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://example.com/b"}},
                {"type": "text", "text": "And?"},
            ],
        },
    ]
    assert losses.dropped(drops_parts=False) == ("messages[].content[].is_error",)


@pytest.mark.parametrize(("theirs", "ours"), [("auto", "auto"), ("any", "required"), ("none", "none")])
def test_a_choice_of_tools_has_a_counterpart_both_ways(theirs: str, ours: str) -> None:
    """What the one calls `any` the other calls `required`."""
    body, _ = to_openai(messages(tools=[TOOL], tool_choice={"type": theirs}))
    assert body["tool_choice"] == ours
    request, _ = to_anthropic(chat(tools=[FUNCTION], tool_choice=ours))
    assert request["tool_choice"] == {"type": theirs}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"top_k": 5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"mcp_servers": [{"type": "url", "name": "x", "url": "https://example.com"}]}, "mcp_servers"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, "tools[0]"),
        ({"output_config": {"format": {"type": "grammar"}}}, "output_config.format"),
        ({"messages": [HI, {"role": "assistant", "content": "Well,"}]}, "messages"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
            "messages[0].content[0].source",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_what_cannot_be_carried_is_refused_by_its_path(fields: Json, path: str) -> None:
    """The refusal names the field, says that another target may do, and gives way where losses are allowed."""
    _, losses = to_chat(messages(**fields), extended=False, continuation=None)
    with pytest.raises(CallerError) as caught:
        losses.dropped(drops_parts=False)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID_VALUE, path)
    assert caught.value.remedy is Remedy.ANOTHER_TARGET
    assert len(losses.dropped(drops_parts=True)) == 1


def test_what_only_asks_for_a_way_of_working_is_left_out_and_told() -> None:
    """Cache marks, context management and fields that nobody knows here are hints: each kind is told once."""
    mark = {"cache_control": {"type": "ephemeral"}}
    block = {"type": "text", "text": "a", **mark}
    body, losses = to_openai(
        messages(
            system=[block, block],
            tools=[{**TOOL, **mark, "eager_input_streaming": True}],
            messages=[{"role": "user", "content": [block]}],
            context_management={"edits": [{"type": "x"}]},
            metadata={"user_id": "u", "team": "t"},
            from_the_future=1,
            thinking={"type": "disabled"},
        )
    )
    assert body["messages"] == [{"role": "system", "content": "a\n\na"}, {"role": "user", "content": "a"}]
    assert losses.dropped(drops_parts=False) == (
        "system[].cache_control",
        "messages[].content[].cache_control",
        "metadata.team",
        "thinking",
        "tools[].cache_control",
        "tools[].eager_input_streaming",
        "context_management",
        "from_the_future",
    )


def test_servers_that_take_more_than_openai_names_get_more() -> None:
    """The reasoning of earlier turns and `top_k` go to compatible servers; OpenAI itself would refuse the call."""
    turn = {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"}]}
    request = messages(top_k=3, messages=[HI, turn, HI])
    body, losses = to_openai(request, extended=True)
    assert body["top_k"] == 3
    assert body["messages"][1]["reasoning_content"] == "Hm"
    assert losses.dropped(drops_parts=False) == ()
    body, losses = to_openai(request)
    assert losses.parts == ("top_k",)
    assert "reasoning_content" not in body["messages"][1]


def test_the_beginning_of_an_answer_goes_where_it_can_be_continued() -> None:
    """A dialogue that ends with the assistant's words is put in the way of the upstream."""
    request = messages(messages=[HI, {"role": "assistant", "content": "Well,"}])
    prefixed, losses = to_openai(request, extended=True, continuation="prefix")
    assert (prefixed["messages"][-1]["prefix"], losses.parts) == (True, ())
    partial, losses = to_openai(request, extended=True, continuation="partial")
    assert (partial["messages"][-1].get("partial"), losses.parts) == (True, ())
    continued, _ = to_openai(request, extended=True, continuation="continue_final_message")
    assert (continued["continue_final_message"], continued["add_generation_prompt"]) == (True, False)


def test_a_long_id_of_a_user_is_hashed() -> None:
    """Coding agents send more than OpenAI takes; the same user still gets the same id."""
    long = {"user_id": "u" * 200}
    first, second = (to_openai(messages(metadata=long))[0]["user"] for _ in range(2))
    assert first == second
    assert len(first) == 64


@pytest.mark.parametrize(
    "fields",
    [
        {"thinking": {"type": "adaptive"}},
        {"thinking": {"type": "disabled"}},
        {"thinking": {"type": "enabled", "budget_tokens": 2048}, "output_config": {"effort": "high"}},
    ],
)
def test_thinking_that_has_no_counterpart_is_told(fields: Json) -> None:
    """Also a budget beside an effort, which alone is carried."""
    body, losses = to_openai(messages(**fields))
    assert losses.dropped(drops_parts=False) == ("thinking",)
    assert body.get("reasoning_effort") == fields.get("output_config", {}).get("effort")


@pytest.mark.parametrize(
    ("budget", "effort"), [(1024, "low"), (4096, "low"), (4097, "medium"), (16384, "medium"), (16385, "high")]
)
def test_a_budget_of_thinking_becomes_an_effort(budget: int, effort: str) -> None:
    """OpenAI's protocol has words for it, no numbers."""
    body, _ = to_openai(messages(thinking={"type": "enabled", "budget_tokens": budget}))
    assert body["reasoning_effort"] == effort


# --- To Anthropic -----------------------------------------------------------------------------------------------------


def test_a_chat_arrives_at_an_anthropic_model() -> None:
    """Roles, stops, limits, tools and their results are put in Anthropic's way; results of one round in one turn."""
    request, losses = to_anthropic(
        chat(
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    {
                        "type": "file",
                        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call:1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
                    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": ""}},
                ],
            },
            {"role": "tool", "tool_call_id": "call:1", "content": "seen"},
            {"role": "tool", "tool_call_id": "c2", "content": ""},
            {"role": "user", "content": "And?"},
            max_completion_tokens=99,
            stop="END",
            user="u1",
            tools=[FUNCTION],
            parallel_tool_calls=False,
            reasoning_effort="minimal",
            response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
            service_tier="auto",
            stream_options={"include_usage": True},
        )
    )
    assert request == {
        "model": "m",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
                    {
                        "type": "document",
                        "title": "a.pdf",
                        "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": 1}},
                    {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "seen"},
                    {"type": "tool_result", "tool_use_id": "c2"},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u1"},
        "tools": [TOOL],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        "service_tier": "auto",
    }
    assert losses.dropped(drops_parts=False) == ()


def test_a_call_without_a_limit_gets_one() -> None:
    """Anthropic's protocol cannot do without."""
    request, _ = to_anthropic({"model": "m", "messages": [HI]})
    assert request["max_tokens"] == MAX_TOKENS_DEFAULT


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    ],
)
def test_what_an_anthropic_model_cannot_do_is_refused_by_its_path(fields: Json, path: str) -> None:
    """A setting whose loss would change the answer is not left out in silence."""
    assert to_messages(chat(**fields))[1].parts == (path,)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"logprobs": False},
        {"presence_penalty": 0},
        {"frequency_penalty": 0.0},
        {"logit_bias": {}},
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
    ],
)
def test_settings_that_ask_for_nothing_are_no_loss(fields: Json) -> None:
    """Clients write out defaults."""
    assert to_messages(chat(**fields))[1].dropped(drops_parts=False) == ()


def test_hints_of_openai_callers_are_told() -> None:
    """A seed, a name, a cache key and a late system message are not refused."""
    _, losses = to_anthropic(
        chat(
            {"role": "user", "content": "Hi", "name": "Ann"},
            {"role": "system", "content": "Be kind."},
            seed=1,
            prompt_cache_key="k",
            store=True,
        )
    )
    assert losses.dropped(drops_parts=False) == (
        "messages[].name",
        "messages[] (moved to the beginning)",
        "seed",
        "prompt_cache_key",
        "store",
    )


# --- Both ways --------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
inputs = st.dictionaries(names, st.one_of(texts, st.integers(-1000, 1000), st.booleans(), st.none()), max_size=3)
images = st.one_of(
    st.builds(lambda data: {"type": "base64", "media_type": "image/png", "data": data}, st.just(PIXEL)),
    st.builds(lambda name: {"type": "url", "url": f"https://example.com/{name}"}, names),
)


@st.composite
def user_contents(draw: st.DrawFn) -> Any:
    """Draw a text, or a text among images."""
    if draw(st.booleans()):
        return draw(texts)
    blocks: list[Json] = [{"type": "image", "source": draw(images)} for _ in range(draw(st.integers(1, 2)))]
    return [{"type": "text", "text": draw(texts)}, *blocks]


@st.composite
def dialogues(draw: st.DrawFn) -> list[Json]:
    """Draw turns that both protocols can say, in their simplest form: users and assistants in turn, a user last."""
    turns: list[Json] = [{"role": "user", "content": draw(user_contents())}]
    for _ in range(draw(st.integers(0, 2))):
        calls = [
            {"type": "tool_use", "id": f"t{number}", "name": draw(names), "input": draw(inputs)}
            for number in range(draw(st.integers(0, 2)))
        ]
        said = draw(texts)
        if not calls:
            turns += [{"role": "assistant", "content": said}, {"role": "user", "content": draw(user_contents())}]
            continue
        answers = [{"type": "tool_result", "tool_use_id": call["id"], "content": draw(texts)} for call in calls]
        turns += [
            {"role": "assistant", "content": [{"type": "text", "text": said}, *calls]},
            {"role": "user", "content": answers},
        ]
    return turns


requests = st.fixed_dictionaries(
    {"model": names, "max_tokens": st.integers(1, 9999), "messages": dialogues()},
    optional={
        "system": texts,
        "temperature": st.floats(0, 1),
        "top_p": st.floats(0, 1),
        "stop_sequences": st.lists(texts, min_size=1, max_size=4),
        "stream": st.booleans(),
        "metadata": st.fixed_dictionaries({"user_id": names}),
        "output_config": st.fixed_dictionaries({"effort": st.sampled_from(["low", "medium", "high", "xhigh", "max"])}),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
    },
)
tools = st.lists(
    st.fixed_dictionaries(
        {"name": names, "input_schema": st.just({"type": "object", "properties": {"a": {"type": "string"}}})},
        optional={"description": texts, "strict": st.booleans()},
    ),
    min_size=1,
    max_size=3,
)
choices = st.one_of(
    st.sampled_from([{"type": "auto"}, {"type": "any"}, {"type": "none"}]),
    st.builds(lambda name: {"type": "tool", "name": name}, names),
)


@given(requests, st.none() | tools, choices)
def test_what_both_can_say_survives_the_way_there_and_back(
    request: Json, offered: list[Json] | None, choice: Json
) -> None:
    """A request that OpenAI's protocol can carry is the same one after it was carried, and nothing was lost."""
    if offered:
        request = {**request, "tools": offered, "tool_choice": choice}
    body, there = to_chat(request, extended=False, continuation=None)
    back, losses = to_messages(body)
    assert (there.dropped(drops_parts=False), losses.dropped(drops_parts=False)) == ((), ())
    assert back == request


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "role"]) | names, inner)
    ),
    max_leaves=8,
)
types = st.sampled_from(
    [
        "text",
        "image",
        "document",
        "tool_use",
        "tool_result",
        "thinking",
        "base64",
        "url",
        "function",
        "image_url",
        "file",
    ]
)
blocks = st.dictionaries(
    st.sampled_from(
        ["type", "text", "source", "id", "name", "input", "content", "tool_use_id", "thinking", "function"]
    ),
    anything | types,
).flatmap(lambda block: types.map(lambda kind: {**block, "type": kind}))
odd_messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
        optional={"content": anything | st.lists(blocks, max_size=3), "tool_calls": anything, "tool_call_id": anything},
    ),
    min_size=1,
    max_size=3,
)
fields = st.dictionaries(
    st.sampled_from(
        [
            "system",
            "tools",
            "tool_choice",
            "metadata",
            "thinking",
            "output_config",
            "stop_sequences",
            "service_tier",
            "stop",
            "response_format",
            "reasoning_effort",
            "user",
            "n",
            "temperature",
            "top_k",
            "container",
            "max_tokens",
        ]
    ),
    anything,
)


@given(odd_messages, fields)
def test_whatever_is_asked_is_carried_or_refused(turns: list[Json], odd: Json) -> None:
    """No value, wherever it stands, makes the translations fail in another way than by a refusal."""
    for translate in (
        lambda request: to_chat(request, extended=True, continuation=None),
        lambda request: to_chat(request, extended=False, continuation="prefix"),
        to_messages,
    ):
        with contextlib.suppress(CallerError):
            body, losses = translate({**odd, "model": "m", "messages": turns})
            assert json.dumps(body)
            assert isinstance(losses.dropped(drops_parts=True), tuple)
