"""A Responses answer becomes the chat's that it means: whole, and streamed however it is cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from chatgate.protocols import sse
from chatgate.protocols.responses.relay import ResponsesRelay
from chatgate.protocols.responses.session import session_of
from chatgate.protocols.responses.upstream import Responses, StreamDecoder
from chatgate.vocabulary.errors import UpstreamError

Json = dict[str, Any]

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
DONE = b"[DONE]"
_CHUNK = TypeAdapter(ChatCompletionChunk)
_COMPLETION = TypeAdapter(ChatCompletion)
_TRANSLATION = Responses(lambda: 1700000000.0, drops_parts=False)


def told_by_us(*deltas: Json, finish: str = "stop", **choice: Any) -> tuple[bytes, Json]:
    """Return the stream that the gateway itself writes for a chat that says this, and its Response object."""
    session = session_of({"model": "asked", "input": "Hi", "stream": True}, "abc", 1700000000, is_stored=False)
    relay = ResponsesRelay(session)
    chunks: list[Json] = [{"choices": [{"index": 0, "delta": delta, **choice}]} for delta in deltas]
    chunks += [{"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}, {"choices": [], "usage": USAGE}]
    chat = b"".join(sse.event(json.dumps({"id": "c-1", "model": "answered", **each}).encode()) for each in chunks)
    out = relay.feed(chat + sse.event(DONE))
    response = [json.loads(sse.data_of(event) or b"{}") for event in sse.EventSplitter().feed(out)][-1]["response"]
    return out, response


def chunks_of(stream: bytes, places: list[int] | None = None) -> list[Json]:
    """Return the chunks that a stream becomes, cut at some places; the mark of the end is the last."""
    decoder = StreamDecoder(1700000000)
    edges = [0, *sorted(place % (len(stream) + 1) for place in places or []), len(stream)]
    out = b"".join(decoder.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges)) + decoder.end()
    *events, last = [sse.data_of(event) for event in sse.EventSplitter().feed(out)]
    assert last == DONE
    chunks = [json.loads(event) for event in events if event]
    for chunk in chunks:
        _CHUNK.validate_python(chunk)
    return chunks


def said_in(chunks: list[Json]) -> Json:
    """Return what the chunks say, put together as a client does."""
    said: Json = {"content": "", "refusal": "", "reasoning_content": "", "calls": {}}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for name in ("content", "refusal", "reasoning_content"):
                said[name] += choice["delta"].get(name) or ""
            for call in choice["delta"].get("tool_calls") or ():
                known = said["calls"].setdefault(call["index"], {"id": call.get("id"), "name": "", "arguments": ""})
                known["name"] += call["function"].get("name") or ""
                known["arguments"] += call["function"].get("arguments") or ""
            said["finish"] = choice["finish_reason"]
        said["usage"] = chunk.get("usage")
    return said


def whole(response: Json) -> Json:
    """Return the completion for a Response."""
    found: Json = json.loads(_TRANSLATION.decode_whole(json.dumps(response).encode()))
    _COMPLETION.validate_python(found)
    return found


def call(index: int, name: str, arguments: str) -> list[Json]:
    """Return the deltas of a call, its arguments in two pieces."""
    begun = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
    middle = len(arguments) // 2
    pieces = (arguments[:middle], arguments[middle:])
    rest = [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces if piece]
    return [{"tool_calls": [begun]}, *rest]


_TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
_ARGUMENTS = st.dictionaries(_TEXT, _TEXT, max_size=2).map(json.dumps)


@given(
    thought=_TEXT | st.just(""),
    words=st.lists(_TEXT, max_size=4),
    calls=st.lists(_ARGUMENTS, max_size=2),
    places=st.lists(st.integers(0, 10**6), max_size=6),
)
def test_what_was_said_comes_back_however_it_is_cut(
    thought: str, words: list[str], calls: list[str], places: list[int]
) -> None:
    """Words, thoughts, calls, the reason to stop and the counts: streamed and whole."""
    deltas: list[Json] = [{"reasoning_content": thought}] if thought else []
    deltas += [{"content": word} for word in words]
    for number, arguments in enumerate(calls):
        deltas += call(number, "look", arguments)
    finish = "tool_calls" if calls else "stop"
    stream, response = told_by_us(*deltas, finish=finish)
    chunks = chunks_of(stream, places)
    assert chunks == chunks_of(stream)
    said = said_in(chunks)
    assert (said["content"], said["reasoning_content"], said["finish"] or finish) == ("".join(words), thought, finish)
    named = [{"id": f"call_{number}", "name": "look", "arguments": each} for number, each in enumerate(calls)]
    assert list(said["calls"].values()) == named
    assert said["usage"] == USAGE
    assert {(each["id"], each["model"], each["created"]) for each in chunks} == {
        ("chatcmpl-abc", "answered", 1700000000)
    }
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    completion = whole(response)
    message = completion["choices"][0]["message"]
    assert (message["content"] or "", message.get("reasoning_content", "")) == ("".join(words), thought)
    assert [each["function"]["arguments"] for each in message.get("tool_calls", [])] == calls
    assert (completion["choices"][0]["finish_reason"], completion["usage"]) == (finish, USAGE)


def test_a_refusal_and_what_was_cut_short() -> None:
    """Each has its own reason to stop."""
    stream, response = told_by_us({"refusal": "No."})
    assert (said_in(chunks_of(stream))["refusal"], whole(response)["choices"][0]["message"]["refusal"]) == ("No.",) * 2
    for finish in ("length", "content_filter"):
        stream, response = told_by_us({"content": "But"}, finish=finish)
        finishes = [each["choices"][0]["finish_reason"] for each in chunks_of(stream) if each["choices"]]
        assert finishes[-1] == finish
        assert whole(response)["choices"][0]["finish_reason"] == finish


def test_probabilities_and_citations() -> None:
    """They are where a chat has them."""
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    stream, response = told_by_us({"content": "Hi"}, logprobs={"content": [token], "refusal": None})
    [found] = [each["choices"][0].get("logprobs") for each in chunks_of(stream) if said_in([each])["content"]]
    assert found["content"] == [token]
    assert whole(response)["choices"][0]["logprobs"]["content"] == [token]
    cited = {"start_index": 0, "end_index": 2, "url": "https://example.org", "title": "Here"}
    annotation = {"type": "url_citation", "url_citation": cited}
    stream, response = told_by_us({"content": "Hi"}, {"annotations": [annotation]})
    deltas = [each["choices"][0]["delta"] for each in chunks_of(stream) if each["choices"]]
    assert [delta["annotations"] for delta in deltas if "annotations" in delta] == [[annotation]]
    assert whole(response)["choices"][0]["message"]["annotations"] == [annotation]


def test_an_error_stays_one() -> None:
    """In a stream, in a whole answer, and as a refusal, which is OpenAI's already."""
    error = {"code": "server_error", "message": "Sorry."}
    failed = {"id": "resp_1", "object": "response", "status": "failed", "error": error, "output": []}
    event = sse.event(json.dumps({"type": "response.failed", "response": failed}).encode())
    out = StreamDecoder(0).feed(event)
    assert json.loads((sse.data_of(out.split(b"\n\n")[-2] + b"\n\n")) or b"")["error"] == error
    assert json.loads(_TRANSLATION.decode_whole(json.dumps(failed).encode())) == {"error": error}
    assert _TRANSLATION.decode_error(429, b'{"error":{}}') == (429, b'{"error":{}}')


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"object":"response"}', b'{"object":"x","output":[]}'])
def test_what_is_no_response_is_a_bad_answer(body: bytes) -> None:
    """It is the upstream's fault, and another one may do better."""
    with pytest.raises(UpstreamError):
        _TRANSLATION.decode_whole(body)
