"""A Responses request becomes the chat that it means, and what a chat cannot carry is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionMessageParam
from pydantic import TypeAdapter

from chatgate.protocols.responses.items import seal, unseal
from chatgate.protocols.responses.request import to_chat
from chatgate.protocols.responses.tools import custom_arguments, custom_input
from chatgate.vocabulary.errors import CallerError

FUNCTION = {
    "type": "function",
    "name": "look",
    "description": "Looks.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": True,
}
CALL = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sky"}'}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "blue"}


def carried(*, extended: bool = True, earlier: tuple[dict[str, Any], ...] = (), **fields: Any) -> dict[str, Any]:
    """Return the chat for a request that it carries whole."""
    body, losses = to_chat({"model": "m", **fields}, extended=extended, earlier=earlier)
    assert losses.dropped(drops_parts=False) == ()
    return body


def lost(*, extended: bool = True, **fields: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts that cannot be carried, and all that the chat goes without."""
    _, losses = to_chat({"model": "m", "input": "Hi", **fields}, extended=extended)
    return losses.parts, losses.dropped(drops_parts=True)


def messages(*items: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """Return the messages for an input."""
    found: list[dict[str, Any]] = carried(input=list(items), **options)["messages"]
    return found


def test_a_text_is_a_question() -> None:
    """The simplest input is a user's message, after the instructions."""
    assert carried(input="Hi", instructions="Be brief.")["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


def test_the_parameters_get_the_names_of_a_chat() -> None:
    """What a chat has too is carried, under its name there."""
    body = carried(
        input="Hi",
        max_output_tokens=50,
        temperature=0.5,
        top_p=0.9,
        stream=True,
        service_tier="flex",
        prompt_cache_key="k",
        safety_identifier="s",
        user="u",
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=3,
        store=False,
        metadata={"a": "b"},
        truncation="disabled",
        previous_response_id="resp_1",
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "stream": True,
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        "logprobs": True,
        "top_logprobs": 3,
    }


def test_parts_of_a_message() -> None:
    """Texts, images, files and sound keep their order; a text alone is sent as a text."""
    parts = [
        {"type": "input_text", "text": "See", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    alone = {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rule"}]}
    assert messages(alone, {"role": "user", "content": parts}) == [
        {"role": "system", "content": "Rule"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
    ]


def test_openai_itself_hears_developers() -> None:
    """Others hear a system, which is what they know."""
    rule = {"role": "developer", "content": "Rule"}
    assert messages(rule, {"role": "user", "content": "Hi"}, extended=False)[0] == rule


def test_a_turn_of_an_assistant_is_one_message() -> None:
    """Thoughts, words and parallel calls of one turn belong together, and results follow their calls at once."""
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]}
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]}
    other = CALL | {"call_id": "call_2"}
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
    assert messages({"role": "user", "content": "Sky?"}, thought, CALL, other, said, RESULT, said, said) == [
        {"role": "user", "content": "Sky?"},
        {
            "role": "assistant",
            "reasoning_content": "Hm",
            "content": "I look.",
            "tool_calls": [call, call | {"id": "call_2"}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
        {"role": "assistant", "content": "I look."},
        {"role": "assistant", "content": "I look."},
    ]


def test_what_went_before_comes_first() -> None:
    """The items of earlier responses stand between the instructions and the input."""
    earlier = ({"role": "user", "content": "One"}, {"role": "assistant", "content": "1"})
    told = [each["content"] for each in carried(input="Two", instructions="Count.", earlier=earlier)["messages"]]
    assert told == ["Count.", "One", "1", "Two"]


def test_tools_become_functions() -> None:
    """A custom tool takes one text, a namespace stands in front of its tools, and a choice names the function."""
    custom = {"type": "custom", "name": "patch", "description": "Patches."}
    space = {"type": "namespace", "name": "eyes", "description": "", "tools": [FUNCTION]}
    body = carried(
        input="Hi",
        tools=[FUNCTION, custom, space],
        tool_choice={"type": "custom", "name": "patch"},
        parallel_tool_calls=False,
    )
    functions = [tool["function"] for tool in body["tools"]]
    assert [function["name"] for function in functions] == ["look", "patch", "eyes__look"]
    assert functions[0] == {name: FUNCTION[name] for name in ("name", "description", "parameters", "strict")}
    assert functions[1]["parameters"]["required"] == ["input"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "patch"}}
    assert body["parallel_tool_calls"] is False
    written = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "*** Begin"}
    [turn] = messages(written)
    assert turn["tool_calls"][0]["function"] == {"name": "patch", "arguments": '{"input":"*** Begin"}'}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]}
    chosen = carried(input="Hi", tools=[FUNCTION], tool_choice=allowed)["tool_choice"]
    named = {"type": "function", "function": {"name": "look"}}
    assert chosen == {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}


def test_tools_of_the_provider_are_an_offer() -> None:
    """They are left out and reported beside others; alone, or when one is asked for, the call hangs on them."""
    search = {"type": "web_search"}
    assert lost(tools=[FUNCTION, search]) == ((), ("tools[]",))
    assert lost(tools=[search])[0] == ("tools[0]",)
    assert lost(tools=[FUNCTION, search], tool_choice=search)[0] == ("tool_choice",)
    grammar = {"type": "custom", "name": "p", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}}
    body, losses = to_chat({"model": "m", "input": "Hi", "tools": [grammar]}, extended=True)
    assert losses.dropped(drops_parts=False) == ("tools[].format",)
    assert "start: x" in body["tools"][0]["function"]["description"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"input": [{"type": "web_search_call", "id": "w"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x.invalid"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [CALL, RESULT | {"output": [{"type": "input_image", "image_url": "data:,"}]}]},
            "input[1].output[0]",
        ),
    ],
)
def test_what_would_be_another_question_is_refused(fields: dict[str, Any], path: str) -> None:
    """A part that a chat does not have is named by its path."""
    assert lost(**fields)[0] == (path,)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"truncation": "auto"}, "truncation"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"client_metadata": {"a": "b"}}, "client_metadata"),
        ({"reasoning": {"mode": "pro"}}, "reasoning.mode"),
        ({"include": ["file_search_call.results"]}, "include[]"),
        ({"tools": [FUNCTION | {"output_schema": {"type": "object"}}]}, "tools[].output_schema"),
        ({"input": [{"role": "assistant", "content": "a", "phase": "commentary"}]}, "input[].phase"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}, CALL, RESULT]}, "input[]"),
    ],
)
def test_what_the_call_can_do_without_is_reported(fields: dict[str, Any], path: str) -> None:
    """A hint that a chat does not have is left out, and said so."""
    assert lost(**fields) == ((), (path,))


def test_reasoning_goes_back_to_those_who_take_it() -> None:
    """Sealed by the gateway it is handed back as it was; other upstreams do not get it, and the caller is told."""
    item = {"type": "reasoning", "summary": [], "encrypted_content": seal("Hm, 天")}
    [turn, _] = messages(item, CALL, RESULT)
    assert turn["reasoning_content"] == "Hm, 天"
    assert lost(input=[item, CALL, RESULT], extended=False) == ((), ("input[]",))


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"input": 3}, "input", "wrong_type"),
        ({"input": None}, "input", "missing_field"),
        ({"input": ["Hi"]}, "input[0]", "wrong_type"),
        ({"input": [{"role": "user"}]}, "input[0].content", "wrong_type"),
        ({"input": [{"role": "robot", "content": "a"}]}, "input[0].role", "invalid_field"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
            "missing_field",
        ),
        ({"input": [{"type": "function_call", "call_id": "c", "arguments": "{}"}]}, "input[0].name", "missing_field"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "missing_field"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id", "unknown_item"),
        ({"input": "Hi", "instructions": 3}, "instructions", "wrong_type"),
        ({"input": "Hi", "tools": {}}, "tools", "wrong_type"),
        ({"input": "Hi", "tools": [{"type": "function"}]}, "tools[0].name", "missing_field"),
        ({"input": "Hi", "tools": [FUNCTION], "tool_choice": 3}, "tool_choice", "wrong_type"),
        ({"input": "Hi", "text": "json"}, "text", "wrong_type"),
        ({"input": "Hi", "reasoning": "low"}, "reasoning", "wrong_type"),
        ({"input": "Hi", "include": "x"}, "include", "wrong_type"),
    ],
)
def test_what_cannot_be_read_is_refused(fields: dict[str, Any], param: str, reason: str) -> None:
    """The refusal names the field."""
    with pytest.raises(CallerError) as caught:
        to_chat({"model": "m", **fields}, extended=True)
    assert (caught.value.param, caught.value.reason) == (param, reason)


@given(st.text())
def test_what_is_sealed_and_what_is_put_in_comes_out(text: str) -> None:
    """Reasoning and the input of custom tools survive the way there and back."""
    assert unseal(seal(text)) == text
    assert custom_input(custom_arguments(text)) == text


@pytest.mark.parametrize("content", [None, "", "gAAA", "chatgate:*", "chatgate:/w=="])
def test_what_others_sealed_is_not_read(content: str | None) -> None:
    """Only what this gateway wrote is reasoning."""
    assert unseal(content) == ""


_TEXTS = st.text(max_size=5)
_IDS = st.sampled_from(["c1", "c2"])
_PARTS = st.lists(
    st.one_of(
        st.builds(lambda text: {"type": "input_text", "text": text}, _TEXTS),
        st.just({"type": "input_image", "image_url": "data:,", "detail": "auto"}),
    ),
    max_size=3,
)
_ITEMS = st.one_of(
    st.builds(lambda text: {"role": "user", "content": text}, st.one_of(_TEXTS, _PARTS)),
    st.builds(
        lambda text: {"role": "assistant", "type": "message", "content": [{"type": "output_text", "text": text}]},
        _TEXTS,
    ),
    st.builds(lambda call_id: CALL | {"call_id": call_id}, _IDS),
    st.builds(lambda call_id: RESULT | {"call_id": call_id}, _IDS),
    st.builds(lambda text: {"type": "reasoning", "summary": [], "encrypted_content": seal(text)}, _TEXTS),
)


@given(st.lists(_ITEMS, min_size=1, max_size=8))
def test_every_input_becomes_messages_that_the_vendor_takes(items: list[dict[str, Any]]) -> None:
    """Whatever the order of items is: the messages are valid, and hold every text, call and result in its order."""
    body, _ = to_chat({"model": "m", "input": items}, extended=True)
    TypeAdapter(list[ChatCompletionMessageParam]).validate_python(body["messages"])
    calls = [call["id"] for message in body["messages"] for call in message.get("tool_calls", ())]
    assert calls == [item["call_id"] for item in items if item.get("type") == "function_call"]
    results = [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]
    assert results == [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    users = [message for message in body["messages"] if message["role"] == "user"]
    assert len(users) == sum(item.get("role") == "user" for item in items)
