"""Chunks become the events of a response in the vendor's order, however they are cut, and so do whole answers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from chatgate.protocols import sse
from chatgate.protocols.responses.encoder import Encoder
from chatgate.protocols.responses.items import unseal
from chatgate.protocols.responses.relay import ResponsesRelay
from chatgate.protocols.responses.session import Session, identity_of, session_of
from chatgate.vocabulary.errors import UpstreamError

DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TOOLS = [
    {"type": "function", "name": "look", "parameters": {"type": "object"}},
    {"type": "custom", "name": "patch"},
    {"type": "namespace", "name": "eyes", "description": "", "tools": [{"type": "function", "name": "see"}]},
]
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_RESPONSE = TypeAdapter(Response)

Json = dict[str, Any]


def session(**fields: Any) -> Session:
    """Return the session of a request with some tools."""
    return session_of({"model": "asked", "input": "Hi", "tools": TOOLS, **fields}, "abc", 1700000000, is_stored=False)


def chunk(delta: Json | None = None, finish: str | None = None, **fields: Any) -> Json:
    """Return a chunk with one choice."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **fields.pop("choice", {})}
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "answered", "choices": [choice], **fields}


def call(name: str | None, arguments: str = "", index: int = 0) -> Json:
    """Return a delta with a piece of a call; with a name it is the first."""
    first = {"id": f"call_{index}", "type": "function"} if name else {}
    return {"tool_calls": [{"index": index, **first, "function": {"name": name, "arguments": arguments}}]}


def stream_of(*chunks: Json) -> bytes:
    """Write a stream with the usage at its end."""
    counted = chunk(usage=USAGE) | {"choices": []}
    return b"".join(sse.event(json.dumps(each).encode()) for each in (*chunks, counted)) + DONE


def events_of(out: bytes) -> list[Json]:
    """Read events as the vendor's client does; each must be valid, and carry its name and its number."""
    events = []
    splitter = sse.EventSplitter()
    for number, event in enumerate(splitter.feed(out)):
        lines = event.decode().split("\n")
        told = json.loads(lines[1].removeprefix("data: "))
        assert lines[0] == f"event: {told['type']}"
        assert told["sequence_number"] == number
        assert _EVENT.validate_python(told).type == told["type"]
        events.append(told)
    assert not splitter.tail
    return events


def run(stream: bytes, places: list[int] | None = None, **fields: Any) -> tuple[bytes, ResponsesRelay]:
    """Pass a stream through a relay, cut at some places."""
    relay = ResponsesRelay(session(**fields))
    edges = [0, *sorted(place % (len(stream) + 1) for place in places or []), len(stream)]
    out = b"".join(relay.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    return out + (b"" if relay.is_over else relay.end()), relay


def kinds(events: list[Json]) -> list[str]:
    """Return the events' names without what they have in common, repetitions of deltas once."""
    names = [event["type"].removeprefix("response.") for event in events]
    return [name for name, _ in itertools.groupby(names)]


def final(events: list[Json]) -> Json:
    """Return the Response object at the end."""
    response: Json = events[-1]["response"]
    assert _RESPONSE.validate_python(response).status == response["status"]
    return response


# --- One after the other ----------------------------------------------------------------------------------------------


def test_a_text() -> None:
    """Words arrive as they are said, and the end repeats them with the counts."""
    out, relay = run(
        stream_of(
            chunk({"role": "assistant"}), chunk({"content": "Good"}), chunk({"content": " day"}), chunk(finish="stop")
        )
    )
    events = events_of(out)
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["delta"] for event in events if event["type"].endswith("delta")] == ["Good", " day"]
    response = final(events)
    assert (response["id"], response["model"], response["status"]) == ("resp_abc", "answered", "completed")
    assert response["output"] == [
        {
            "id": "msg_abc00",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Good day", "annotations": [], "logprobs": []}],
        }
    ]
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 13,
    }
    assert relay.done
    assert relay.usage is not None
    assert relay.final == response


def test_reasoning_words_and_calls_are_items_in_turn() -> None:
    """Each item ends before the next begins, and keeps its place and its id."""
    out, _ = run(
        stream_of(
            chunk({"reasoning_content": "Hm"}),
            chunk({"content": "I look."}),
            chunk(call("look")),
            chunk(call(None, '{"at":')),
            chunk(call(None, '"sky"}')),
            chunk(call("eyes__see", "{}", 1)),
            chunk(finish="tool_calls"),
        )
    )
    events = events_of(out)
    assert kinds(events)[2:] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    thought, said, looked, seen = final(events)["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert "encrypted_content" not in thought
    assert said["content"][0]["text"] == "I look."
    assert (looked["call_id"], looked["name"], looked["arguments"]) == ("call_0", "look", '{"at":"sky"}')
    assert (seen["name"], seen["namespace"], seen["arguments"]) == ("see", "eyes", "{}")
    assert identity_of(seen["id"]) == "abc"


def test_reasoning_is_shown_as_its_summary_where_one_is_asked_for() -> None:
    """Then it has the events of a summary; sealed it can be handed back."""
    out, _ = run(
        stream_of(chunk({"reasoning": "Hm"}), chunk({"content": "Yes"}), chunk(finish="stop")),
        reasoning={"effort": "low", "summary": "auto"},
        include=["reasoning.encrypted_content"],
    )
    events = events_of(out)
    assert kinds(events)[2:8] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
    ]
    thought = final(events)["output"][0]
    assert thought["summary"] == [{"type": "summary_text", "text": "Hm"}]
    assert unseal(thought["encrypted_content"]) == "Hm"


def test_a_custom_tool_gets_its_text() -> None:
    """What the model wrote as JSON comes out as the text in it, once it can be read."""
    out, _ = run(
        stream_of(chunk(call("patch", '{"input":')), chunk(call(None, '"*** \\"a\\""}')), chunk(finish="tool_calls"))
    )
    events = events_of(out)
    assert kinds(events)[2:] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
        "completed",
    ]
    [called] = final(events)["output"]
    assert (called["type"], called["name"], called["input"]) == ("custom_tool_call", "patch", '*** "a"')


def test_a_refusal() -> None:
    """It is a part of the message, with its own events."""
    out, _ = run(
        stream_of(chunk({"content": "Well."}), chunk({"refusal": "No"}), chunk({"refusal": "."}), chunk(finish="stop"))
    )
    events = events_of(out)
    assert kinds(events)[6:] == [
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert final(events)["output"][0]["content"][1] == {"type": "refusal", "refusal": "No."}


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_short_is_incomplete(finish: str, reason: str) -> None:
    """It ends with the event that says so, and why."""
    out, _ = run(stream_of(chunk({"content": "Go"}), chunk(finish=finish)))
    events = events_of(out)
    assert events[-1]["type"] == "response.incomplete"
    response = final(events)
    assert response["incomplete_details"] == {"reason": reason}
    assert response["output"][0]["status"] == "incomplete"


def test_an_answer_without_a_word_is_complete() -> None:
    """There is nothing to show, and the end says so."""
    out, _ = run(stream_of(chunk({"role": "assistant", "content": ""}), chunk(finish="stop")))
    assert kinds(events_of(out)) == ["created", "in_progress", "completed"]


def test_probabilities_and_citations() -> None:
    """They come with the words that they belong to."""
    token = {"token": "Go", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "Go", "logprob": -0.5}]}
    citation = {"start_index": 0, "end_index": 2, "title": "T", "url": "https://a.invalid"}
    out, _ = run(
        stream_of(
            chunk({"content": "Go"}, choice={"logprobs": {"content": [token]}}),
            chunk({"annotations": [{"type": "url_citation", "url_citation": citation}]}),
            chunk(finish="stop"),
        )
    )
    events = events_of(out)
    assert "output_text.annotation.added" in kinds(events)
    part = final(events)["output"][0]["content"][0]
    assert part["annotations"] == [{"type": "url_citation", **citation}]
    assert part["logprobs"][0]["token"] == "Go"
    assert part["logprobs"][0]["bytes"] == []


def test_a_stream_that_breaks_says_so_and_ends_no_call() -> None:
    """Nobody must carry out a call whose arguments are not all there."""
    encoder = Encoder(session())
    out = encoder.take(json.dumps(chunk(call("look", '{"a'))).encode())
    out += encoder.fail("server_error", "It broke.", "upstream_error")
    events = events_of(out)
    assert kinds(events)[-1] == "failed"
    assert "output_item.done" not in kinds(events)
    response = final(events)
    assert response["error"] == {"code": "server_error", "message": "It broke.", "type": "upstream_error"}
    assert response["output"] == []
    assert encoder.end() == encoder.fail("server_error", "", "") == b""


def test_a_failure_before_the_first_word_is_a_whole_sequence() -> None:
    """Clients expect a beginning before the end."""
    assert kinds(events_of(Encoder(session()).fail("server_error", "No.", "overloaded"))) == [
        "created",
        "in_progress",
        "failed",
    ]


def test_a_call_that_never_began_is_a_bad_answer() -> None:
    """Arguments without a name, or for a call that is over, belong to nobody."""
    _, relay = run(stream_of(chunk(call(None, "{}"))))
    assert relay.error is not None
    _, relay = run(stream_of(chunk(call("look")), chunk(call("look", "", 1)), chunk(call(None, "{}", 0))))
    assert relay.error is not None


def test_what_the_request_said_is_repeated() -> None:
    """The object tells its caller's own parameters back."""
    out, _ = run(
        stream_of(chunk(finish="stop")),
        instructions="Be brief.",
        temperature=0.5,
        max_output_tokens=9,
        metadata={"a": "b"},
        tool_choice="required",
        parallel_tool_calls=False,
        previous_response_id="resp_0",
        user="u",
        text={"format": {"type": "json_object"}},
    )
    response = final(events_of(out))
    told = {name: response[name] for name in ("instructions", "temperature", "max_output_tokens", "metadata", "user")}
    assert told == {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "max_output_tokens": 9,
        "metadata": {"a": "b"},
        "user": "u",
    }
    assert response["tool_choice"] == "required"
    assert response["parallel_tool_calls"] is False
    assert response["previous_response_id"] == "resp_0"
    assert response["text"] == {"format": {"type": "json_object"}}
    assert response["tools"][0]["strict"] is False


# --- Whole answers ----------------------------------------------------------------------------------------------------


def completion(message: Json, finish: str = "stop", **fields: Any) -> bytes:
    """Write a whole completion."""
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "model": "answered", "choices": [choice], "usage": USAGE, **fields}).encode()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{}]}', b'{"choices":[{"message":3}]}']
)
def test_what_is_no_completion_is_a_bad_answer(body: bytes) -> None:
    """It is not taken for an empty one."""
    with pytest.raises(UpstreamError):
        Encoder(session()).whole(body)


def test_parallel_calls_of_a_whole_answer() -> None:
    """They need no numbers."""
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "look", "arguments": "{}"}} for n in range(2)]
    response = Encoder(session()).whole(completion({"content": None, "tool_calls": calls}, "tool_calls"))
    assert [item["call_id"] for item in response["output"]] == ["c0", "c1"]
    assert _RESPONSE.validate_python(response).output[0].type == "function_call"


# --- Laws -------------------------------------------------------------------------------------------------------------

_PIECES = st.text(min_size=1, max_size=4)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["reasoning_content", "content", "refusal"]), _PIECES),
        st.tuples(st.sampled_from(["look", "patch", "eyes__see", "unknown"]), _PIECES),
    ),
    max_size=8,
)
_FINISHES = st.sampled_from(["stop", "tool_calls", "length", "content_filter"])


def _chunks(steps: list[tuple[str, str]], finish: str) -> list[Json]:
    chunks = []
    calls = 0
    for kind, piece in steps:
        if kind in ("reasoning_content", "content", "refusal"):
            chunks.append(chunk({kind: piece}))
        else:
            chunks.extend((chunk(call(kind, "", calls)), chunk(call(None, piece, calls))))
            calls += 1
    return [*chunks, chunk(finish=finish)]


@given(_STEPS, _FINISHES, st.lists(st.integers(0, 10**6), max_size=12), st.sampled_from([None, "auto"]))
def test_every_stream_is_a_valid_sequence_however_it_is_cut(
    steps: list[tuple[str, str]], finish: str, places: list[int], summary: str | None
) -> None:
    """Events are numbered without gaps, items do not overlap, deltas add up, and the end holds all that was done."""
    stream = stream_of(*_chunks(steps, finish))
    out, relay = run(stream, places, reasoning={"summary": summary})
    assert out == run(stream, reasoning={"summary": summary})[0]
    assert relay.done
    events = events_of(out)
    _check_order(events)
    response = final(events)
    assert [event["item"] for event in events if event["type"] == "response.output_item.done"] == response["output"]
    said = "".join(piece for kind, piece in steps if kind == "content")
    texts = [
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
        if part["type"] == "output_text"
    ]
    assert "".join(texts) == said
    called = [item["call_id"] for item in response["output"] if item["type"].endswith("call")]
    assert called == [f"call_{number}" for number in range(len(called))]


def _check_order(events: list[Json]) -> None:
    """Hold a sequence to the vendor's order."""
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    place, item_id, heard = -1, None, ""
    for event in events[2:-1]:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert item_id is None
            place, item_id = place + 1, event["item"]["id"]
        assert event["output_index"] == place
        assert event.get("item_id", item_id) == item_id
        if kind.endswith(".delta"):
            heard += event["delta"]
        elif kind.endswith((".text.done", "_text.done", "refusal.done", "arguments.done", "input.done")):
            whole = next(event[name] for name in ("text", "refusal", "arguments", "input") if name in event)
            assert whole == heard
            heard = ""
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == item_id
            item_id = None
    assert item_id is None


@given(st.text(max_size=8), st.text(max_size=8), _FINISHES, st.integers(0, 2))
def test_a_whole_answer_is_what_its_stream_ends_with(thought: str, said: str, finish: str, calls: int) -> None:
    """Streamed or not, the response is the same."""
    message: Json = {"reasoning_content": thought, "content": said}
    if calls:
        function = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
        message |= {"tool_calls": [{"id": f"c{number}", **function} for number in range(calls)]}
    whole = Encoder(session()).whole(completion(message, finish))
    delta = json.loads(json.dumps(message))
    for number, each in enumerate(delta.get("tool_calls", ())):
        each["index"] = number
    assert final(events_of(run(stream_of(chunk(delta, finish)))[0])) == whole
