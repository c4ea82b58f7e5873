"""Ollama's protocol and OpenAI's chat become each other without losing what both can say."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.ollama.answer import CHAT, Times, from_completion, to_completion, to_openai_error
from chatgate.protocols.ollama.call import Clocks, known_name
from chatgate.protocols.ollama.decoder import StreamDecoder
from chatgate.protocols.ollama.encoder import Encoder
from chatgate.protocols.ollama.relay import OllamaRelay, PassingRelay
from chatgate.protocols.ollama.to_chat import to_chat
from chatgate.protocols.ollama.to_ollama import to_ollama
from chatgate.vocabulary.errors import CallerError, UpstreamError

TIMES = Times(1.0, 1.5, 2.0)
CLOCKS = Clocks(lambda: 1_800_000_000.0, lambda: 3.0)
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAME = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
ARGUMENTS = st.dictionaries(NAME, st.integers(-9, 9) | TEXT | st.booleans() | st.none(), max_size=3)
USAGE = st.none() | st.tuples(st.integers(0, 999), st.integers(0, 999))
PICTURES = st.lists(st.sampled_from(["iVBORw0KGgo=", "/9j/4AAQ", "R0lGODlh", "UklGRg=="]), max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    """Return an answer as OpenAI tells it."""
    calls = draw(st.lists(st.tuples(NAME, NAME, ARGUMENTS), max_size=2, unique_by=lambda call: call[0]))
    content = draw(TEXT)
    said: dict[str, Any] = {"role": "assistant", "content": content if content or not calls else None, "refusal": None}
    if thought := draw(TEXT):
        said["reasoning_content"] = thought
    if calls:
        said["tool_calls"] = [
            {
                "id": identity,
                "type": "function",
                "function": {"name": name, "arguments": msgspec.json.encode(arguments).decode()},
            }
            for identity, name, arguments in calls
        ]
    return said


@given(messages(), st.sampled_from(["stop", "length"]), USAGE)
def test_whole_answers_go_there_and_back(said: dict[str, Any], finish: str, counts: tuple[int, int] | None) -> None:
    """What a completion says, an Ollama answer says, and a completion made of that."""
    finish = "tool_calls" if said.get("tool_calls") and finish == "stop" else finish
    completion: dict[str, Any] = {"choices": [{"message": said, "finish_reason": finish}], "model": "m"}
    if counts is not None:
        completion["usage"] = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
    told = from_completion(msgspec.json.encode(completion), CHAT, "m", 1_800_000_000.25, TIMES)
    assert b'"total_duration":1000000000,"prompt_eval_duration":500000000,"eval_duration":500000000' in told
    back = msgspec.json.decode(to_completion(told, 0))
    assert back["choices"][0]["message"] == said
    assert (back["choices"][0]["finish_reason"], back["created"]) == (finish, 1_800_000_000)
    assert back.get("usage") == completion.get("usage")


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Return a request of Ollama's that OpenAI's protocol can carry."""
    dialogue: list[dict[str, Any]] = [{"role": "system", "content": draw(TEXT)}]
    for number in range(draw(st.integers(1, 3))):
        asked: dict[str, Any] = {"role": "user", "content": draw(TEXT)}
        if images := draw(PICTURES):
            asked["images"] = images
        call: dict[str, Any] = {"id": f"c{number}", "function": {"name": draw(NAME), "arguments": draw(ARGUMENTS)}}
        answered: dict[str, Any] = {"role": "assistant", "content": draw(TEXT), "tool_calls": [call]}
        if thought := draw(TEXT):
            answered["thinking"] = thought
        result = {
            "role": "tool",
            "content": draw(TEXT),
            "tool_call_id": call["id"],
            "tool_name": call["function"]["name"],
        }
        dialogue += [asked, answered, result]
    request: dict[str, Any] = {"model": "m", "messages": dialogue, "stream": draw(st.booleans())}
    options = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "temperature": st.floats(0, 2),
                "top_p": st.floats(0, 1),
                "seed": st.integers(0, 99),
                "num_predict": st.integers(1, 99),
                "stop": st.lists(TEXT.filter(bool), min_size=1, max_size=2),
                "top_k": st.integers(1, 99),
                "min_p": st.floats(0, 1),
                "presence_penalty": st.floats(-2, 2),
                "frequency_penalty": st.floats(-2, 2),
            },
        )
    )
    more = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "format": st.just("json") | st.just({"type": "object"}),
                "think": st.sampled_from(["low", "medium", "high"]),
                "logprobs": st.sampled_from([True]),
                "top_logprobs": st.integers(1, 5),
                "tools": st.just([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
            },
        )
    )
    return request | more | ({"options": options} if options else {})


@given(requests())
def test_requests_go_there_and_back(request: dict[str, Any]) -> None:
    """What an Ollama request asks, a chat asks, and an Ollama request made of that; nothing is lost on the way."""
    body, losses = to_chat(request, extended=True)
    assert losses.dropped(drops_parts=False) == ()
    back, losses = to_ollama(msgspec.json.decode(msgspec.json.encode(body)))
    assert losses.dropped(drops_parts=False) == ()
    assert back == msgspec.json.decode(msgspec.json.encode(request))


ANSWER: list[dict[str, Any]] = [
    {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False},
    {"message": {"role": "assistant", "content": "Grüße "}, "done": False},
    {"message": {"role": "assistant", "content": "📦"}, "done": False, "odd": 1},
    {
        "message": {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
        },
        "done": False,
    },
    {
        "message": {"role": "assistant", "content": ""},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 3,
        "eval_count": 4,
    },
]
STREAM = b"".join(
    msgspec.json.encode({"model": "m", "created_at": "2026-11-23T10:00:00Z", **each}) + b"\n" for each in ANSWER
)


def encoder() -> Encoder:
    """Return an encoder for a call that began a second ago."""
    return Encoder(CHAT, "m", CLOCKS, 2.0)


def pieces(cuts: list[int]) -> list[bytes]:
    """Return the stream in pieces."""
    edges = [0, *sorted(min(cut, len(STREAM)) for cut in cuts), len(STREAM)]
    return [STREAM[begin:end] for begin, end in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=9))
def test_a_stream_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    """Cut at any bytes, it decodes to the same chunks, passes as the same bytes, and is heard to the same end."""
    whole = StreamDecoder(0)
    cut, passing = StreamDecoder(0), PassingRelay(encoder())
    expected = whole.feed(STREAM) + whole.end()
    assert b"".join([*map(cut.feed, pieces(cuts)), cut.end()]) == expected
    assert expected.endswith(b"data: [DONE]\n\n")
    assert b"".join(map(passing.feed, pieces(cuts))) == STREAM
    assert (passing.done, passing.error) == (True, None)
    assert passing.usage is not None
    assert (passing.usage.input_tokens, passing.usage.output_tokens) == (3, 4)
    passing.transcript.read()
    assert "Grüße 📦" in passing.transcript.texts.values()


def test_every_cut_short_is_an_error() -> None:
    """Without its last line a stream is not whole, wherever it ends."""
    for end in range(len(STREAM) - 1):
        relay = PassingRelay(encoder())
        relay.feed(STREAM[:end])
        relay.end()
        assert not relay.done
        assert isinstance(relay.error, UpstreamError)
        decoder = StreamDecoder(0)
        assert b"[DONE]" not in decoder.feed(STREAM[:end]) + decoder.end()
    relay = PassingRelay(encoder())
    assert relay.feed(STREAM[:-1]) + relay.end() == STREAM  # Only the line's end is missing.
    assert relay.done


def test_a_stream_goes_there_and_back() -> None:
    """Lines made of chunks made of lines say the same."""
    decoder, relay = StreamDecoder(0), OllamaRelay(encoder())
    told = [msgspec.json.decode(line) for line in relay.feed(decoder.feed(STREAM)).splitlines()]
    assert relay.done
    messages = [each["message"] for each in told]
    assert "".join(each["content"] for each in messages) == "Grüße 📦"
    assert [each["thinking"] for each in messages if "thinking" in each] == ["Hm."]
    [calls] = [each["tool_calls"] for each in messages if "tool_calls" in each]
    assert calls[0]["function"] == {"index": 0, "name": "f", "arguments": {"a": 1}}
    last = told[-1]
    assert (last["done"], last["prompt_eval_count"], last["eval_count"]) == (True, 3, 4)
    assert (last["total_duration"], last["prompt_eval_duration"]) == (1_000_000_000, 1_000_000_000)


def test_lines_that_are_none_reach_nobody() -> None:
    """Empty and broken lines are left out: they would break the caller's reader."""
    relay = PassingRelay(encoder())
    first, rest = STREAM.split(b"\n", 1)
    assert relay.feed(first + b"\n\nnonsense\n[]\n" + rest) == STREAM


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"message":{"content":"half"},"done":false}',
        b'{"done":true}',
        b'{"message":{"tool_calls":[{"function":{}}]},"done":true}',
    ],
)
def test_what_is_no_whole_answer(body: bytes) -> None:
    """It is refused; one that is not done is not whole."""
    with pytest.raises(UpstreamError):
        to_completion(body, 0)


def test_errors() -> None:
    """Ollama's word for an error becomes OpenAI's, with the code that tells a missing model."""
    status, body = to_openai_error(404, b'{"error":"model \'x\' not found"}')
    error = msgspec.json.decode(body)["error"]
    assert (status, error["message"], error["code"]) == (404, "model 'x' not found", "model_not_found")
    assert to_openai_error(502, b"<html>") == (502, b"<html>")


@pytest.mark.parametrize(
    ("asked", "found"),
    [("a", "a"), ("a:latest", "a"), ("b", "b:latest"), ("b:latest", "b:latest"), ("c:7b", "c:7b"), ("c", "c")],
)
def test_names(asked: str, found: str) -> None:
    """A name with the usual tag is the one without it, whichever is known."""
    assert known_name(asked, {"a", "b:latest"}) == found


@pytest.mark.parametrize(
    ("body", "lost"),
    [
        ({"n": 2}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content[0]"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ({"response_format": {"type": "grammar"}}, "response_format"),
    ],
)
def test_what_ollama_cannot_carry(body: dict[str, Any], lost: str) -> None:
    """A part that would be missing is named."""
    _, losses = to_ollama({"model": "m", "messages": [{"role": "user", "content": "x"}], **body})
    assert losses.parts == (lost,)
    with pytest.raises(CallerError) as refused:
        losses.dropped(drops_parts=False)
    assert refused.value.param == lost
