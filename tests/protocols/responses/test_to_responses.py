"""A chat becomes the Responses request that it means, and what that cannot carry is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseInputItemParam
from pydantic import TypeAdapter

from chatgate.protocols.responses.request import to_chat
from chatgate.protocols.responses.to_responses import to_responses
from chatgate.vocabulary.errors import CallerError

Json = dict[str, Any]

QUESTION = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sky"}'}}
_ITEMS = TypeAdapter(list[ResponseInputItemParam])


def carried(*messages: Json, **fields: Any) -> Json:
    """Return the request for a chat that it carries whole; its items are the vendor's."""
    request, losses = to_responses({"model": "m", "messages": list(messages) or [QUESTION], **fields})
    assert losses.dropped(drops_parts=False) == ()
    _ITEMS.validate_python(request["input"])
    return request


def lost(*messages: Json, **fields: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the parts that cannot be carried, and all that the request goes without."""
    _, losses = to_responses({"model": "m", "messages": list(messages) or [QUESTION], **fields})
    return losses.parts, losses.dropped(drops_parts=True)


def test_a_dialogue() -> None:
    """Everybody's words, a call and its result, in their order; nothing is kept there unasked."""
    request = carried(
        {"role": "system", "content": "Be brief."},
        QUESTION,
        {"role": "assistant", "content": "Wait.", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
    )
    assert request == {
        "model": "m",
        "store": False,
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {"type": "message", "role": "user", "content": "Hi"},
            {"type": "message", "role": "assistant", "content": "Wait."},
            {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": '{"at":"sky"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "blue"},
        ],
    }


def test_a_refusal_is_handed_back_as_an_answer() -> None:
    """Only an answer may have more than one text: so it has an id, and is over."""
    parts = [{"type": "text", "text": "Hm."}, {"type": "refusal", "refusal": "No."}]
    [_, item] = carried(QUESTION, {"role": "assistant", "content": parts})["input"]
    assert (item["id"], item["status"]) == ("msg_1", "completed")
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]


def test_parameters_get_their_names_there() -> None:
    """Tools are only strict when they say so: those of Responses are otherwise."""
    request = carried(
        max_completion_tokens=9,
        temperature=0.5,
        stream=True,
        stream_options={"include_usage": True},
        reasoning_effort="low",
        verbosity="low",
        logprobs=True,
        top_logprobs=3,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "look"}},
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
        store=True,
    )
    del request["input"]
    assert request == {
        "model": "m",
        "stream": True,
        "temperature": 0.5,
        "store": True,
        "max_output_tokens": 9,
        "tools": [{"type": "function", "name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": False}],
        "tool_choice": {"type": "function", "name": "look"},
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True},
        },
        "reasoning": {"effort": "low"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 3,
    }


def test_pictures_files_and_sound() -> None:
    """Each has its counterpart."""
    sound = {"data": "AAAA", "format": "wav"}
    parts = [
        {"type": "text", "text": "See"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "file", "file": {"file_data": "data:text/plain;base64,QQ==", "filename": "a.txt"}},
        {"type": "input_audio", "input_audio": sound},
    ]
    [item] = to_responses({"model": "m", "messages": [{"role": "user", "content": parts}]})[0]["input"]
    assert item["content"] == [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": "https://example.org/a.png", "detail": "auto"},
        {"type": "input_file", "file_data": "data:text/plain;base64,QQ==", "filename": "a.txt"},
        {"type": "input_audio", "input_audio": sound},
    ]


def test_what_is_lost_is_named() -> None:
    """Parts are what the answer would hang on; hints it can do without."""
    assert lost(n=2, stop=["x"], logit_bias={"1": 1}) == (("n", "stop", "logit_bias"),) * 2
    assert lost(seed=1, prediction={"type": "content", "content": "x"}) == ((), ("seed", "prediction"))
    assert lost(n=1, stop=None, presence_penalty=0, function_call="none") == ((), ())
    assert lost({**QUESTION, "name": "ann"}) == ((), ("messages[].name",))
    assert lost({"role": "user", "content": [{"type": "video"}]}) == (("messages[0].content[0]",),) * 1 + (
        ("messages[].content[]",),
    )
    assert lost(tools=[{"type": "custom", "custom": {"name": "patch"}}])[0] == ("tools[0]",)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": 5}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages[0].tool_calls[0].function"),
    ],
)
def test_a_wrong_value_is_named(message: Json, param: str) -> None:
    """By its path in the caller's body."""
    with pytest.raises(CallerError) as refused:
        to_responses({"model": "m", "messages": [message]})
    assert refused.value.param == param


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
_SAID = _TEXT | st.lists(_TEXT.map(lambda text: {"type": "text", "text": text}), min_size=2, max_size=3)
_CALLS = st.lists(st.tuples(_TEXT, _TEXT), min_size=1, max_size=2)


@st.composite
def _chats(draw: st.DrawFn) -> Json:
    """Draw a chat of which a Responses request can carry everything."""
    systems = draw(st.lists(_SAID, max_size=2))
    messages: list[Json] = [{"role": "system", "content": said} for said in systems]
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(_SAID)})
        calls = [
            {"id": f"call_{turn}_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(draw(_CALLS))
        ]
        kind = draw(st.sampled_from(("words", "calls", "both")))
        said = draw(_SAID) if kind != "calls" else None
        messages.append({"role": "assistant", "content": said} | ({} if kind == "words" else {"tool_calls": calls}))
        if kind != "words":
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": draw(_SAID)} for call in calls]
    chat: Json = {"model": draw(_TEXT), "messages": messages}
    optional: dict[str, st.SearchStrategy[Any]] = {
        "temperature": st.floats(0, 2),
        "top_p": st.floats(0, 1),
        "max_tokens": st.integers(1, 10**6),
        "stream": st.just(value=True),
        "reasoning_effort": st.sampled_from(["low", "high"]),
        "tool_choice": st.sampled_from(["auto", "required", "none"]),
        "parallel_tool_calls": st.booleans(),
        "prompt_cache_key": _TEXT,
        "verbosity": st.just("low"),
        "response_format": st.just({"type": "json_object"}),
    }
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        chat[name] = draw(optional[name])
    chat["tools"] = [
        {"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": draw(st.booleans())}}
    ]
    return chat


@given(_chats())
def test_there_and_back_is_the_same(chat: Json) -> None:
    """What both can say is not changed by saying it twice."""
    request, losses = to_responses(chat)
    assert losses.dropped(drops_parts=False) == ()
    back, losses = to_chat(request, extended=False)
    assert losses.dropped(drops_parts=False) == ()
    assert back == chat
