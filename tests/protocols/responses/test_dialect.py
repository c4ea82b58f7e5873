"""Responses as the pipeline speaks them: calls that go on from others, a provider's own events, errors in a stream."""

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
from chatgate.protocols.responses.call import Kept, ResponsesCall
from chatgate.protocols.responses.dialect import ResponsesDialect
from chatgate.protocols.responses.relay import PassingRelay
from chatgate.vocabulary.chat import Asked, OutputDetails, Usage
from chatgate.vocabulary.errors import CallerError, Kind, Remedy, UpstreamError
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

Json = dict[str, Any]

DIALECT = ResponsesDialect(lambda: "abc", lambda: 1700000000.5, keeps=True)
TARGET = Target(
    Upstream(
        "up", "openai", Origin("https", "up.invalid", 443), "/v1", renamed={"max_tokens": "max_completion_tokens"}
    ),
    "sent",
)
SAID = {
    "id": "msg_old00",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Blue", "annotations": []}],
}
KEPT = {"old": Kept([{"role": "user", "content": "Sky?"}], {"id": "resp_old", "output": [SAID]})}


def asked(**fields: Any) -> Asked:
    """Decode a request."""
    return DIALECT.decode(json.dumps({"model": "m", "input": "Why?", **fields}).encode(), "application/json")


def call(**fields: Any) -> ResponsesCall:
    """Return the call of a request."""
    found = asked(**fields).foreign
    assert isinstance(found, ResponsesCall)
    return found


# --- What a caller asks -----------------------------------------------------------------------------------------------


def test_a_call_is_read_as_far_as_everybody_has_to_know() -> None:
    """The model, the stream, the bound; and how the dialogue begins."""
    found = asked(stream=True, max_output_tokens=5, instructions="Be brief.")
    assert (found.chat.asked_model, found.chat.stream, found.chat.max_tokens) == ("m", True, 5)
    assert [(turn.role, turn.content) for turn in found.chat.turns] == [("system", "Be brief."), ("user", "Why?")]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"stream": 1}, "stream"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"previous_response_id": 3}, "previous_response_id"),
        ({"input": 3}, "input"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ],
)
def test_what_cannot_be_read_is_refused(fields: Json, param: str) -> None:
    """Before any target is looked for."""
    with pytest.raises(CallerError) as caught:
        asked(**fields)
    assert caught.value.param == param


def test_a_multipart_body_is_no_request() -> None:
    """It is never JSON."""
    with pytest.raises(CallerError) as caught:
        DIALECT.decode(b"{}", "multipart/form-data")
    assert caught.value.kind is Kind.UNSUPPORTED_MEDIA_TYPE


def test_a_target_gets_the_chat_in_its_own_words() -> None:
    """The model's name, and the parameters that it calls otherwise."""
    body, dropped = call(stream=True, max_output_tokens=5, truncation="auto").encode_chat(TARGET)
    assert json.loads(body) == {
        "model": "sent",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Why?"}],
        "max_completion_tokens": 5,
    }
    assert dropped == ("truncation",)


def test_a_part_that_cannot_be_carried_is_refused_unless_the_operator_allows_it() -> None:
    """Another target may carry it."""
    with pytest.raises(CallerError) as caught:
        call(background=True).encode_chat(TARGET)
    assert (caught.value.param, caught.value.remedy) == ("background", Remedy.ANOTHER_TARGET)
    lenient = ResponsesDialect(lambda: "abc", lambda: 0.0, keeps=False, drops_parts=True)
    found = lenient.decode(b'{"model":"m","input":"Hi","background":true}', "").foreign
    assert isinstance(found, ResponsesCall)
    assert found.encode_chat(TARGET)[1] == ("background",)
    assert not found.wants_kept


def test_a_call_goes_on_from_what_was_kept() -> None:
    """The dialogue before it is written out, for whomever it goes to."""
    going_on = call(previous_response_id="resp_old")
    assert going_on.needed == {"old"}
    going_on.go_on_from(KEPT)
    messages = json.loads(going_on.encode_chat(TARGET)[0])["messages"]
    assert [message["content"] for message in messages] == ["Sky?", "Blue", "Why?"]
    own = json.loads(going_on.encode_own(None))
    assert own["previous_response_id"] is None
    assert own["input"] == [*KEPT["old"].dialogue, {"type": "message", "role": "user", "content": "Why?"}]
    assert going_on.dialogue == own["input"]


def test_a_call_that_nothing_is_known_of_goes_to_who_may_know_it() -> None:
    """A provider of Responses gets the body as it came; a chat cannot go on, and another target may."""
    body = b'{"model": "m", "previous_response_id": "resp_x", "input": "Hi" }'
    found = DIALECT.decode(body, "").foreign
    assert isinstance(found, ResponsesCall)
    found.go_on_from({})
    assert found.encode_own(None) == body
    assert found.encode_own("n") == body.replace(b'"m"', b'"n"')
    with pytest.raises(CallerError) as caught:
        found.encode_chat(TARGET)
    assert (caught.value.param, caught.value.provider_code) == (
        "previous_response_id",
        "previous_response_not_found",
    )


def test_a_reference_is_replaced_by_its_item() -> None:
    """Items of kept responses can be named instead of sent; an unknown one is refused by its path."""
    one = call(input=[{"type": "item_reference", "id": "msg_old00"}, {"role": "user", "content": "Why?"}])
    assert one.needed == {"old"}
    one.go_on_from(KEPT)
    assert [message["content"] for message in json.loads(one.encode_chat(TARGET)[0])["messages"]] == ["Blue", "Why?"]
    other = call(input=[{"type": "item_reference", "id": "msg_else00"}])
    other.go_on_from({})
    with pytest.raises(CallerError) as caught:
        other.encode_chat(TARGET)
    assert caught.value.param == "input[0].id"


# --- A provider's own answers -----------------------------------------------------------------------------------------

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 5},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 13,
}


def response(status: str, **fields: Any) -> Json:
    """Return a provider's Response object."""
    return {"id": "resp_theirs", "object": "response", "status": status, "output": [], "future": 1, **fields}


def native(*events: Json) -> bytes:
    """Write a provider's stream."""
    written = []
    for number, event in enumerate(events):
        data = json.dumps({**event, "sequence_number": number})
        written.append(f"event: {event['type']}\ndata: {data}\n\n".encode())
    return b"".join(written)


EVENTS = (
    {"type": "response.created", "response": response("in_progress")},
    {"type": "response.of_the_future", "x": [1]},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Good day"},
    {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {"type": "function_call", "call_id": "c", "name": "f"},
    },
    {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
    {"type": "response.completed", "response": response("completed", usage=USAGE)},
)


def passing(stream: bytes, places: list[int] | None = None) -> tuple[bytes, PassingRelay]:
    """Pass a provider's stream through, cut at some places."""
    relay = DIALECT.at("openai_responses").relay(asked())
    assert isinstance(relay, PassingRelay)
    edges = [0, *sorted(place % (len(stream) + 1) for place in places or []), len(stream)]
    out = b"".join(relay.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    return out + (b"" if relay.is_over else relay.end()), relay


@given(st.lists(st.integers(0, 10**6), max_size=12))
def test_a_providers_events_pass_byte_for_byte(places: list[int]) -> None:
    """Unknown ones too; what was counted is read, and the end is seen."""
    stream = native(*EVENTS)
    out, relay = passing(stream, places)
    assert out == stream
    assert (relay.done, relay.begun, relay.error) == (True, True, None)
    assert relay.usage is not None
    assert relay.usage == Usage(9, 4)
    assert relay.usage.completion_tokens_details == OutputDetails(reasoning_tokens=2)
    assert not relay.transcript.is_resumable
    assert relay.transcript.text == "Good day"
    assert relay.final is None


def test_reasoning_that_is_kept_back_is_a_beginning() -> None:
    """A provider may think for minutes without a word of it; a response that was merely created has not begun."""
    created, thinking = native({"type": "response.created", "response": response("in_progress")}), {"type": "reasoning"}
    _, relay = passing(created)
    assert not relay.begun
    added = native({"type": "response.output_item.added", "output_index": 0, "item": thinking})
    _, relay = passing(created + added)
    assert relay.begun


def test_a_provider_that_breaks_off_or_fails_is_no_end() -> None:
    """A stream without its last event was cut; one that says that it failed, failed."""
    out, relay = passing(native(*EVENTS[:3]))
    assert relay.error is not None
    assert relay.error.reason == "upstream_cut"
    assert out == native(*EVENTS[:3])
    failed = {"type": "response.failed", "response": response("failed", error={"code": "x", "message": "No."})}
    for event in (failed, {"type": "error", "code": "x", "message": "No.", "param": None}):
        _, relay = passing(native(*EVENTS[:3], event))
        assert relay.error is not None
        assert (relay.error.provider_message, relay.error.provider_code) == ("No.", "x")
    told = sse.data_of(relay.fail("server_error", "It broke.", "upstream_error"))
    assert told is not None
    event = json.loads(told)
    assert (event["type"], event["sequence_number"]) == ("response.failed", 4)
    assert (event["response"]["id"], event["response"]["status"]) == ("resp_theirs", "failed")


def test_a_providers_whole_answer_passes() -> None:
    """As it came, with its count; what is none is a bad answer."""
    own = DIALECT.at("openai_responses")
    body = json.dumps(response("completed", usage=USAGE)).encode()
    assert own.encode_whole(asked(), body) == (body, Usage(9, 4))
    for bad in (
        b"",
        b"[]",
        b"{}",
        b'{"object":"response"}',
        b'{"object":"response","output":[],"error":{"message":"x"}}',
    ):
        with pytest.raises(UpstreamError):
            own.encode_whole(asked(), bad)


def test_a_whole_completion_becomes_a_response() -> None:
    """With the count that came with it."""
    choice = {"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    counted = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    body, usage = DIALECT.encode_whole(asked(), json.dumps({"choices": [choice], "usage": counted}).encode())
    assert usage == Usage(1, 2)
    made = TypeAdapter(Response).validate_json(body)
    assert (made.id, made.created_at, made.output_text, made.model) == ("resp_abc", 1700000000, "Hi", "m")


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
def test_every_situation_has_its_event(kind: Kind) -> None:
    """Whatever breaks a stream, its last event is one that clients know; before the first word it is an error alone."""
    error = CallerError(kind, "x", param="p")
    adapter: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    for relay, name in ((None, "error"), (DIALECT.relay(asked()), "response.failed")):
        out = DIALECT.encode_error_event(error, "It broke.", "req_1", relay)
        last = sse.EventSplitter().feed(out)[-1]
        told = json.loads(sse.data_of(last) or b"")
        assert adapter.validate_python(told).type == name
        assert last.startswith(f"event: {name}\n".encode())
        assert (told if relay is None else told["response"]["error"])["message"] == "It broke."
