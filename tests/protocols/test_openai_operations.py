"""Legacy completions, embeddings and moderations: bytes pass through, counts are read, what is no answer is none."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import sse
from chatgate.protocols.openai_operations import (
    DEFAULT_COMPLETION_TOKENS,
    DEFAULT_MODERATION_MODEL,
    OPERATIONS,
    OperationCall,
    OperationDialect,
)
from chatgate.vocabulary.chat import Asked, Usage
from chatgate.vocabulary.errors import CallerError, Kind, Remedy, UpstreamError
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

COMPLETIONS, EMBEDDINGS, MODERATIONS = (OperationDialect(operation) for operation in OPERATIONS)
TARGET = Target(Upstream("up", "anthropic", Origin("https", "up.invalid", 443), "/v1", protocol="anthropic"), "sent")


def asked(dialect: OperationDialect, body: bytes) -> Asked:
    """Decode a body."""
    return dialect.decode(body, "application/json")


def call(found: Asked) -> OperationCall:
    """Return the call in it."""
    assert isinstance(found.foreign, OperationCall)
    return found.foreign


def test_what_is_asked_passes_but_for_the_model() -> None:
    """Every other byte stays."""
    body = '{ "input": ["a", "ü"],"model":"m", "x": 1.0 }'.encode()
    found = asked(EMBEDDINGS, body)
    assert (found.chat.asked_model, found.chat.max_tokens, found.chat.stream) == ("m", 0, False)
    assert call(found).encode_own(None) == body
    assert call(found).encode_own("n") == body.replace(b'"m"', b'"n"')


def test_a_completion_is_bounded_and_a_streams_count_is_asked_for() -> None:
    """The most it can take is known before it is sent."""
    found = asked(COMPLETIONS, b'{"model":"m","prompt":"Hi","stream":true,"n":2,"best_of":3}')
    assert (found.chat.max_tokens, found.chat.choices, found.chat.stream) == (DEFAULT_COMPLETION_TOKENS, 3, True)
    assert json.loads(call(found).encode_own(None))["stream_options"] == {"include_usage": True}
    own = b'{"model":"m","prompt":"Hi","stream":true,"max_tokens":7,"stream_options":{"include_usage":true}}'
    found = asked(COMPLETIONS, own)
    assert (found.chat.max_tokens, found.chat.wants_usage) == (7, True)
    assert call(found).encode_own(None) == own


def test_a_moderation_may_leave_the_model_to_the_provider() -> None:
    """Routing and the record need one all the same."""
    found = asked(MODERATIONS, b'{"input":"Hi"}')
    assert found.chat.asked_model == DEFAULT_MODERATION_MODEL
    assert call(found).encode_own(None) == b'{"input":"Hi"}'


@pytest.mark.parametrize(
    ("dialect", "body", "param"),
    [
        (EMBEDDINGS, b'{"input":"a"}', "model"),
        (EMBEDDINGS, b'{"model":"m"}', "input"),
        (EMBEDDINGS, b'{"model":"","input":"a"}', "model"),
        (EMBEDDINGS, b'{"model":3,"input":"a"}', "model"),
        (COMPLETIONS, b'{"model":"m"}', "prompt"),
        (COMPLETIONS, b'{"model":"m","prompt":"a","max_tokens":-1}', "max_tokens"),
        (COMPLETIONS, b'{"model":"m","prompt":"a","n":0}', "n"),
        (MODERATIONS, b"{}", "model"),
        (EMBEDDINGS, b"{", None),
    ],
)
def test_what_cannot_be_read_is_refused(dialect: OperationDialect, body: bytes, param: str | None) -> None:
    """By the field's name."""
    with pytest.raises(CallerError) as caught:
        asked(dialect, body)
    assert caught.value.param == (param if body != b"{}" else "input")


def test_a_multipart_body_is_no_request() -> None:
    """It is never JSON."""
    with pytest.raises(CallerError) as caught:
        EMBEDDINGS.decode(b"{}", "multipart/form-data")
    assert caught.value.kind is Kind.UNSUPPORTED_MEDIA_TYPE


def test_an_upstream_that_does_not_offer_it_is_passed_over() -> None:
    """Another target may."""
    with pytest.raises(CallerError) as caught:
        call(asked(EMBEDDINGS, b'{"model":"m","input":"a"}')).encode_chat(TARGET)
    assert (caught.value.reason, caught.value.remedy) == ("operation_not_offered", Remedy.ANOTHER_TARGET)


COUNTED = {"prompt_tokens": 8, "total_tokens": 8}


@pytest.mark.parametrize(
    ("dialect", "answer", "usage"),
    [
        (EMBEDDINGS, {"data": [{"embedding": "AAAA"}], "usage": COUNTED}, Usage(8, 0)),
        (EMBEDDINGS, {"data": []}, None),
        (MODERATIONS, {"results": [{"flagged": False}]}, Usage(0, 0)),
        (COMPLETIONS, {"choices": [{"text": "a"}], "usage": {**COUNTED, "completion_tokens": 2}}, Usage(8, 2)),
        (COMPLETIONS, {"choices": [{"text": "a"}]}, None),
    ],
)
def test_an_answer_passes_with_its_count(dialect: OperationDialect, answer: Any, usage: Usage | None) -> None:
    """As it came; nobody counts what a moderation takes."""
    body = json.dumps(answer, indent=1).encode()
    assert dialect.encode_whole(asked(COMPLETIONS, b'{"model":"m","prompt":"a"}'), body) == (body, usage)


@pytest.mark.parametrize("dialect", [COMPLETIONS, EMBEDDINGS, MODERATIONS])
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"data":3,"choices":{},"results":null}', b'{"error":{"message":"x"},"data":[]}']
)
def test_what_is_no_answer_is_none(dialect: OperationDialect, body: bytes) -> None:
    """An error with status 200 is no answer either."""
    with pytest.raises(UpstreamError):
        dialect.encode_whole(asked(COMPLETIONS, b'{"model":"m","prompt":"a"}'), body)


CHUNKS = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in ("", "Good", " day")]
END = [{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}]
COUNT = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def events(*chunks: Any) -> bytes:
    """Write a stream without its end mark."""
    return b"".join(sse.event(json.dumps(chunk).encode()) for chunk in chunks)


@given(st.lists(st.integers(0, 10**6), max_size=10))
def test_a_stream_passes_byte_for_byte_but_for_the_count(places: list[int]) -> None:
    """Which is read, and hidden from who did not ask for it."""
    stream = events(*CHUNKS, *END, COUNT) + b"data: [DONE]\n\n"
    relay = COMPLETIONS.relay(asked(COMPLETIONS, b'{"model":"m","prompt":"a","stream":true}'))
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    out = b"".join(relay.feed(stream[begin:end]) for begin, end in itertools.pairwise(edges))
    assert out == events(*CHUNKS, *END) + b"data: [DONE]\n\n"
    assert (relay.done, relay.begun, relay.usage) == (True, True, Usage(1, 2))
    assert not relay.transcript.is_resumable


def test_a_stream_that_was_cut_is_no_whole_one() -> None:
    """It ends as broken."""
    relay = COMPLETIONS.relay(asked(COMPLETIONS, b'{"model":"m","prompt":"a","stream":true}'))
    relay.feed(events(*CHUNKS))
    relay.end()
    assert relay.error is not None
