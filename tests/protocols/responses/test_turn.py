"""A turn over a WebSocket is read as a request, and its answer is written as the vendor's events."""

from __future__ import annotations

import json

import pytest

from chatgate.protocols.responses import turn
from chatgate.protocols.responses.turn import Recent
from chatgate.vocabulary.errors import CallerError
from chatgate.vocabulary.exchange import Reply


def test_a_request_is_what_would_be_posted() -> None:
    """Its own fields are gone, the stream is a matter of course, and every other byte is as it came."""
    text = (
        b'{"type":"response.create","stream_id":"a","generate":false,"model":"m","stream":false,"x":[1.50,"\\u00eb"]}'
    )
    fields = turn.read_fields(text)
    create = turn.read_create(fields)
    assert turn.lane_of(fields) == "a"
    assert create.prepares
    assert create.body == b'{"model":"m","stream":true,"x":[1.50,"\\u00eb"]}'
    assert not turn.read_create(turn.read_fields(b'{"type":"response.create","generate":null}')).prepares


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (b'{"type":"response.cancel"}', "type"),
        (b'{"type":null}', "type"),
        (b'{"type":"response.create","generate":1}', "generate"),
    ],
)
def test_other_events_are_refused(text: bytes, field: str) -> None:
    """By the field at fault."""
    with pytest.raises(CallerError) as caught:
        turn.read_create(turn.read_fields(text))
    assert caught.value.param == field


def test_events_become_messages() -> None:
    """One each, in the caller's lane; a comment is none, and an error is nested as the vendor has it."""
    events = (
        b'event: response.created\ndata: {"type":"response.created","n":1}\n\n: keep-alive\n\n'
        b'event: error\ndata: {"type":"error","sequence_number":3,"code":"c","message":"m","param":null}\n\n'
    )
    created, comment, error = turn.messages_of(events, "a.b")
    assert created == b'{"stream_id":"a.b","type":"response.created","n":1}'
    assert comment is None
    assert json.loads(error or b"") == {
        "stream_id": "a.b",
        "type": "error",
        "sequence_number": 3,
        "error": {"type": "server_error", "code": "c", "message": "m", "param": None},
    }
    assert turn.messages_of(b'data: {"type":"error","error":{"x":1}}\n\n', "") == [b'{"type":"error","error":{"x":1}}']


def test_a_refusal_tells_its_status_and_its_headers() -> None:
    """Of the headers what a caller may act on, where either client looks for it."""
    headers = (
        b"x-request-id: req_1\r\ncontent-type: application/json\r\nretry-after: 7\r\nx-ratelimit-limit-requests: 1\r\n"
    )
    told = json.loads(turn.error_message(Reply(429, headers, b'{"error":{"message":"Slower"}}'), ""))
    shown = {"x-request-id": "req_1", "retry-after": "7", "x-ratelimit-limit-requests": "1"}
    assert told == {
        "type": "error",
        "status": 429,
        "error": {"message": "Slower", "headers": shown},
        "headers": shown,
    }


def test_a_connection_remembers_the_latest_of_each_lane() -> None:
    """As much as it may; the oldest goes first, and what is too large is not kept at all."""
    recent = Recent(10)
    recent.put("a", "one", b"1234")
    recent.put("b", "two", b"1234")
    assert recent.get("one") == recent.get("two") == b"1234"
    recent.put("a", "three", b"123")
    assert (recent.get("one"), recent.get("three")) == (None, b"123")
    recent.put("c", "four", b"12345")
    assert (recent.get("two"), recent.get("three"), recent.get("four")) == (None, b"123", b"12345")
    recent.put("d", "five", b"12345678901")
    assert [recent.get(each) for each in ("three", "four", "five")] == [None, None, None]


def test_a_connection_that_has_ended_remembers_nothing() -> None:
    """Nor what is still said on it."""
    recent = Recent(10)
    recent.put("a", "one", b"1234")
    recent.end()
    assert recent.get("one") is None
    recent.put("a", "two", b"1234")
    assert recent.get("two") is None
