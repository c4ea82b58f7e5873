"""OpenAI chat: bytes pass through, what decides is read, and a broken answer is never taken for a whole one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import document, openai_chat, sse
from chatgate.protocols.openai_dialect import OpenAIDialect
from chatgate.protocols.openai_stream import DONE, OpenAIRelay
from chatgate.vocabulary.chat import MAX_TOKENS, ChatCall, Message, Usage
from chatgate.vocabulary.errors import CallerError, Kind, UpstreamError
from chatgate.vocabulary.upstreams import Origin, Target, Upstream

TARGET = Target(Upstream("up", "openai", Origin("https", "up.invalid", 443), "/v1"))


def asked(**fields: Any) -> bytes:
    """Write a caller's body."""
    return json.dumps({"model": "gpt-x", "messages": [{"role": "user", "content": "Hi"}], **fields}).encode()


def chunk(**fields: Any) -> dict[str, Any]:
    """Return a chunk of a stream, with one choice unless told otherwise."""
    choices = [{"index": 0, "delta": fields.pop("delta", {}), "finish_reason": fields.pop("finish_reason", None)}]
    return {"id": "c-1", "object": "chat.completion.chunk", "model": "gpt-x-1", "choices": choices, **fields}


def event(content: Any) -> bytes:
    """Write an event."""
    return sse.event(json.dumps(content).encode())


def words(*texts: str) -> list[bytes]:
    """Write the events of some words and of a regular finish, without the end mark."""
    return [*(event(chunk(delta={"content": text})) for text in texts), event(chunk(finish_reason="stop"))]


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
USAGE_EVENT = event(chunk(choices=[], usage=USAGE))


def run(pieces: list[bytes], *, hide_usage: bool = True) -> tuple[bytes, OpenAIRelay]:
    """Pass a whole stream through a relay as the pipeline does."""
    relay = OpenAIRelay(hide_usage=hide_usage)
    out = b""
    for piece in pieces:
        out += relay.feed(piece)
        if relay.done or relay.error:
            return out, relay
    return out + relay.end(), relay


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at some places."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


# --- What a caller asks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        ({"model": None}, "model", "wrong_type"),
        ({"model": 0}, "model", "wrong_type"),
        ({"model": ""}, "model", "invalid_field"),
        ({"model": "x" * 257}, "model", "invalid_field"),
        ({"model": "gpt-x "}, "model", "invalid_field"),
        ({"model": "gpt\r\nx"}, "model", "invalid_field"),
        ({"model": "gpt\u202ex"}, "model", "invalid_field"),
        ({"messages": None}, "messages", "wrong_type"),
        ({"messages": []}, "messages", "invalid_field"),
        ({"messages": {}}, "messages", "wrong_type"),
        ({"messages": "Hi"}, "messages", "wrong_type"),
        ({"messages": [None]}, "messages[0]", "wrong_type"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_field"),
        ({"messages": [{"role": 1, "content": "Hi"}]}, "messages[0].role", "wrong_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "wrong_type"),
        ({"messages": [{"role": "user", "content": {}}]}, "messages[0].content", "wrong_type"),
        ({"messages": [{"role": "user", "content": "a"}] * 3 + [{"role": 2}]}, "messages[3].role", "wrong_type"),
        ({"max_tokens": 0}, "max_tokens", "invalid_field"),
        ({"max_tokens": -1}, "max_tokens", "invalid_field"),
        ({"max_tokens": 1.5}, "max_tokens", "wrong_type"),
        ({"max_tokens": "10"}, "max_tokens", "wrong_type"),
        ({"max_tokens": True}, "max_tokens", "wrong_type"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "invalid_field"),
        ({"n": 0}, "n", "invalid_field"),
        ({"n": 10**6}, "n", "invalid_field"),
        ({"temperature": "1"}, "temperature", "wrong_type"),
        ({"stream": "true"}, "stream", "wrong_type"),
        ({"stream": 1}, "stream", "wrong_type"),
        ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage", "wrong_type"),
        ({"stream_options": []}, "stream_options", "wrong_type"),
        ({"stop": [1]}, "stop[0]", "wrong_type"),
        ({"user": {}}, "user", "wrong_type"),
    ],
)
def test_a_field_that_cannot_be_is_refused_with_its_path(fields: dict[str, Any], param: str, reason: str) -> None:
    """A refusal names the field the way OpenAI does."""
    with pytest.raises(CallerError) as caught:
        openai_chat.decode_request(asked(**fields))
    assert (caught.value.kind, caught.value.param, caught.value.reason) == (Kind.INVALID_VALUE, param, reason)
    assert caught.value.parameters["field"] == param


@pytest.mark.parametrize("missing", ["model", "messages"])
def test_a_missing_field_is_named(missing: str) -> None:
    """What is needed and not there is named."""
    body = {name: value for name, value in json.loads(asked()).items() if name != missing}
    with pytest.raises(CallerError) as caught:
        openai_chat.decode_request(json.dumps(body).encode())
    assert (caught.value.param, caught.value.reason) == (missing, "missing_field")


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
        {"messages": [{"role": "tool", "tool_call_id": "x", "content": "42"}]},
        {"messages": [{"role": "oracle", "content": "Hi"}]},
        {"messages": [{"role": "assistant"}]},
        {"max_tokens": None, "stream": None, "stream_options": None, "n": None, "stop": None, "temperature": None},
        {"temperature": 0, "top_p": 1e-9, "seed": -5, "stop": "x"},
        {
            "api_base": "http://evil.invalid",
            "base_url": 5,
            "extra_body": {"model": "y"},
            "__proto__": None,
            "$where": 1,
        },
        {"metadata": {"deep": [[[]]]}, "tools": [{"type": "custom"}], "logit_bias": {"50256": -100}},
    ],
)
def test_what_is_not_ours_to_judge_is_passed_on(fields: dict[str, Any]) -> None:
    """Nulls, unknown fields, unknown roles and new kinds of content go to the provider byte for byte."""
    body = asked(**fields)
    assert openai_chat.encode_request(openai_chat.decode_request(body), TARGET) == body


@given(st.binary(max_size=60))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """Anything is either read or refused."""
    for candidate in (body, asked().replace(b"gpt-x", body), asked().replace(b'"Hi"', body)):
        try:
            openai_chat.decode_request(candidate)
        except CallerError as error:
            assert error.kind in {Kind.INVALID_JSON, Kind.INVALID_VALUE}  # noqa: PT017 - most bytes are refused, not all


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('{"role":"user","content":[{"type":"text","text":"Hi","n":1e999}]}', "body_number_out_of_range"),
        ('{"role":"user","content":"Hi","n":9223372036854775808}', "body_number_out_of_range"),
        ('{{"role":"user","content":{}{}}}'.format("[" * 62, "]" * 62), "body_too_deep"),
        ('{{"role":"user","content":"Hi","x":{}{}}}'.format("[" * 62, "]" * 62), "body_too_deep"),
    ],
)
def test_messages_are_looked_into(message: str, reason: str) -> None:
    """What other parsers may not take is refused wherever it stands in a message; a text may hold anything."""
    with pytest.raises(CallerError) as caught:
        openai_chat.decode_request(b'{"model":"m","messages":[%b]}' % message.encode())
    assert caught.value.reason == reason
    quoted = json.dumps({"role": "user", "content": message})
    openai_chat.decode_request(b'{"model":"m","messages":[%b]}' % quoted.encode())
    allowed = message.replace("[" * 62, "[" * 61).replace("]" * 62, "]" * 61).replace("1e999", "1").replace("808", "8")
    openai_chat.decode_request(b'{"model":"m","messages":[%b]}' % allowed.encode())


_NUMBERS = ["1", "0.7", "1e400", "-1e400", str(2**63), str(-(2**63) - 1), "9" * 400, "0." + "1" * 398, "0." + "1" * 399]


@pytest.mark.parametrize("number", _NUMBERS, ids=lambda number: number[:20])
@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "n", "temperature", "top_p", "seed", "x"])
def test_no_number_escapes_the_checks_because_its_field_is_known(field: str, number: str) -> None:
    """What is no number that others could read is refused in a field that is read here as in any other."""

    def is_json(read: Callable[[bytes], object]) -> bool:
        try:
            read(
                b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"%b":%b}' % (field.encode(), number.encode())
            )
        except CallerError as error:
            return error.kind is not Kind.INVALID_JSON
        return True

    assert is_json(openai_chat.decode_request) is is_json(document.parse)


def test_a_body_of_too_many_parts_is_refused() -> None:
    """So it is however plain the parts are; a text may have as many brackets."""
    begin, end = b'{"model":"m","messages":[{"role":"user","content":', b"}]}"
    parts = b",".join([b'{"type":"text"}'] * (document.MAX_NESTED + 1))
    with pytest.raises(CallerError) as caught:
        openai_chat.decode_request(begin + b"[%b]" % parts + end)
    assert caught.value.reason == "invalid_json"
    openai_chat.decode_request(begin + b'"%b"' % parts.replace(b'"', b"") + end)


_TOOL_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "message",
    [
        {
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image_url", "image_url": {"url": "data:", "detail": "x"}},
            ]
        },
        {"content": [{"type": "text", "text": "Hi", "x": {"y": [1.5]}}]},
        {"content": [{"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}]},
        {"content": [5, None, "x", {"type": 5}]},
        {"content": [], "refusal": None, "tool_calls": None, "name": None},
        {"content": None, "tool_calls": [_TOOL_CALL]},
        {"content": None, "tool_calls": [{**_TOOL_CALL, "index": 0}]},
        {"content": None, "tool_calls": "none"},
        {"content": "42", "tool_call_id": 42},
        {"reasoning_content": "Hm", "content": "Hi", "annotations": []},
    ],
)
@pytest.mark.parametrize("after", [{}, {"tools": ["x" * 500]}])
def test_messages_of_every_kind_pass(message: dict[str, Any], after: dict[str, Any]) -> None:
    """Those that the gateway knows by heart as well as those that it does not, byte for byte."""
    body = asked(messages=[{"role": "user", **message}], **after)
    assert openai_chat.encode_request(openai_chat.decode_request(body), TARGET) == body


@pytest.mark.parametrize("again", [b'"model":"m"', b'"mod\\u0065l": "m"', b' "stream" : false', b'"messages" : []'])
@pytest.mark.parametrize("comma", [b",", b", "])
def test_a_field_may_be_there_once(again: bytes, comma: bytes) -> None:
    """Of two models another parser could take the other one, however they are written."""
    body = comma.join(
        [b'{"model":"a"', b'"messages":[{"role":"user","content":"a\\n"}]', b'"stream":true', again + b"}"]
    )
    with pytest.raises(CallerError) as caught:
        openai_chat.decode_request(body)
    assert caught.value.reason == "duplicate_field"


def test_multipart_is_refused_and_everything_else_is_read_as_json() -> None:
    """A form with files is never JSON; a wrong or missing type often is."""
    dialect = OpenAIDialect()
    for content_type in ("", "application/json", "text/plain", "application/x-www-form-urlencoded"):
        assert dialect.decode(asked(), content_type).chat.asked_model == "gpt-x"
    with pytest.raises(CallerError) as caught:
        dialect.decode(asked(), "Multipart/Form-Data; boundary=x")
    assert caught.value.kind is Kind.UNSUPPORTED_MEDIA_TYPE


# --- What is sent upstream --------------------------------------------------------------------------------------------


def test_only_the_models_name_changes() -> None:
    """Where the target has another name for the model, that name is put in and no other byte moves."""
    body = b' {"messages" : [{"role":"user","content":"gpt-x"}],\n "model" : "gpt-x" , "x":1.50}'
    chat = openai_chat.decode_request(body)
    sent = openai_chat.encode_request(chat, Target(TARGET.upstream, 'gpt "y"'))
    assert sent == body.replace(b'"model" : "gpt-x"', b'"model" : "gpt \\"y\\""')


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_obfuscation": False}])
def test_usage_is_always_asked_for_in_a_stream(options: dict[str, bool] | None) -> None:
    """`include_usage` is added beside whatever options the caller has."""
    chat = openai_chat.decode_request(asked(stream=True, stream_options=options))
    assert not chat.wants_usage
    sent = json.loads(openai_chat.encode_request(chat, TARGET))
    assert sent.pop("stream_options") == {**(options or {}), "include_usage": True}
    assert sent == json.loads(asked(stream=True)) | {}


def test_a_stream_that_asks_for_usage_is_passed_on_untouched() -> None:
    """Nothing is to be added, so nothing is."""
    body = asked(stream=True, stream_options={"include_usage": True})
    chat = openai_chat.decode_request(body)
    assert chat.wants_usage
    assert openai_chat.encode_request(chat, TARGET) == body


def test_a_plain_call_is_written_in_the_providers_words() -> None:
    """Renamed parameters and a model's additions go into a body of the gateway's own making, and only there."""
    upstream = Upstream(
        "up",
        "openai",
        TARGET.upstream.origin,
        "/v1",
        renamed={"max_tokens": "max_completion_tokens"},
        additions={"gpt-y": {"reasoning_effort": "none"}},
    )
    chat = ChatCall("gpt-x", stream=True, messages=(Message("user", "Hi"),), max_tokens=7)
    assert json.loads(openai_chat.encode_request(chat, Target(upstream, "gpt-y"))) == {
        "model": "gpt-y",
        "messages": [{"role": "user", "content": "Hi"}],
        "reasoning_effort": "none",
        "max_completion_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    whole = ChatCall("gpt-x", stream=False, messages=(Message("user", "Hi"),))
    assert json.loads(openai_chat.encode_request(whole, Target(upstream))) == {
        "model": "gpt-x",
        "messages": [{"role": "user", "content": "Hi"}],
    }
    assert b"max_completion_tokens" not in openai_chat.encode_request(
        openai_chat.decode_request(asked(max_tokens=5)), Target(upstream, "gpt-y")
    )


def test_a_caller_is_put_in_the_words_of_a_provider_that_knows_no_others() -> None:
    """What it would refuse is named as it names it; the value that counts here is kept, and no other field changes."""
    upstream = Upstream(
        "up",
        "mistral",
        TARGET.upstream.origin,
        "/v1",
        unknown={"max_completion_tokens": "max_tokens", "seed": "random_seed"},
        takes_stream_options=False,
    )

    def sent(**fields: Any) -> dict[str, Any]:
        chat = openai_chat.decode_request(asked(**fields))
        return {**json.loads(openai_chat.encode_request(chat, Target(upstream, "gpt-y"))), "messages": 0}

    plain = {"model": "gpt-y", "messages": 0}
    assert sent(max_completion_tokens=5, seed=7, x=[1.5]) == {**plain, "max_tokens": 5, "random_seed": 7, "x": [1.5]}
    assert sent(max_completion_tokens=5, max_tokens=9) == {**plain, "max_tokens": 5}
    assert sent(max_completion_tokens=None, max_tokens=9) == {**plain, "max_tokens": 9}
    assert sent(stream=True, stream_options={"include_usage": True}) == {**plain, "stream": True}
    assert sent(stream=True) == {**plain, "stream": True}
    body = b' {"messages" : [{"role":"user","content":"Hi"}],\n "model" : "gpt-y" , "max_tokens":1}'
    assert openai_chat.encode_request(openai_chat.decode_request(body), Target(upstream)) == body


# --- Whole answers ----------------------------------------------------------------------------------------------------


def answer(**fields: Any) -> bytes:
    """Write a whole answer."""
    message = {"role": "assistant", "content": "Hello", **fields.pop("message", {})}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return json.dumps({"id": "c-1", "model": "gpt-x-1", "choices": choices, "usage": USAGE, **fields}).encode()


_NO_NUMBERS: list[Any] = [None, "7", -1, 1.5, 2**63, 10**18, [], True]
ABSURD_COUNTS: list[Any] = [
    *(None, 0, "many", [], {}, True, -1, 1e300),
    *({"prompt_tokens": value, "completion_tokens": 1} for value in _NO_NUMBERS),
    {"prompt_tokens": 1},
    {"prompt_tokens": 1, "completion_tokens": MAX_TOKENS + 1},
]


def test_an_answer_is_read() -> None:
    """Text, model and counts come out of a regular answer, which is passed on as it is."""
    assert openai_chat.read_answer(answer()) == openai_chat.WholeAnswer("Hello", "gpt-x-1", Usage(9, 2))
    call = OpenAIDialect().decode(asked(), "")
    assert OpenAIDialect().encode_whole(call, answer()) == (answer(), Usage(9, 2))


@pytest.mark.parametrize("counts", ABSURD_COUNTS, ids=repr)
def test_absurd_counts_are_no_counts_and_spoil_nothing(counts: Any) -> None:
    """A provider that cannot count still answers: whole, in pieces, and passed through."""
    assert openai_chat.check_answer(answer(usage=counts)) is None
    assert openai_chat.read_answer(answer(usage=counts)).text == "Hello"
    data = json.dumps(chunk(delta={"content": "Hello"}, usage=counts)).encode()
    assert openai_chat.read_piece(data) == openai_chat.Piece("Hello", "gpt-x-1")
    out, relay = run([event(chunk(delta={"content": "Hello"}, usage=counts)), *words(), DONE])
    assert (relay.done, relay.error, relay.usage) == (True, None, None)
    assert b"Hello" in out


@pytest.mark.parametrize("counts", [{**USAGE, "extra": {"x": [1]}}, {"prompt_tokens": 9.0, "completion_tokens": 2.0}])
def test_counts_are_whole_numbers_however_written(counts: dict[str, Any]) -> None:
    """9.0 tokens are nine, and details beside the counts do no harm."""
    assert openai_chat.check_answer(answer(usage=counts)) == Usage(9, 2)


@pytest.mark.parametrize(
    ("message", "text"),
    [({"content": None}, ""), ({"content": None, "refusal": "No."}, "No."), ({"content": ""}, ""), ({"x": 1}, "Hello")],
)
def test_an_answer_may_have_no_text(message: dict[str, Any], text: str) -> None:
    """A refusal is the text when there is no other; an empty answer is one too."""
    assert openai_chat.read_answer(answer(message=message)).text == text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"{}",
        b"[]",
        b"null",
        b'{"choices":',
        b'{"choices":null}',
        b'{"choices":5}',
        answer()[:-1],
        b'{"choices":' + b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    """A body that is no answer is the provider's failure, never passed on as a success."""
    for read in (openai_chat.check_answer, openai_chat.read_answer):
        with pytest.raises(UpstreamError) as caught:
            read(body)
        assert caught.value.reason == "upstream_bad_answer"


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"Too bad","code":"x"}}',
        b'{"error":"Too bad"}',
        b'{"error":{"message":"Too bad"},"choices":[]}',
        b'{"error":{"message":"Too bad"},"choices":null}',
        answer(error={"message": "Too bad"}),
    ],
)
def test_an_error_with_a_good_status_is_an_error(body: bytes) -> None:
    """What a provider calls an error is one, whatever its status and whatever stands beside it."""
    for read in (openai_chat.check_answer, openai_chat.read_answer, openai_chat.read_piece):
        with pytest.raises(UpstreamError) as caught:
            read(body)
        assert (caught.value.reason, caught.value.provider_message) == ("upstream_error_event", "Too bad")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"choices":null,"base_resp":{"status_code":1008,"status_msg":"Too bad"}}', "1008"),
        (b'{"code":20012,"message":"Too bad","data":null}', "20012"),
    ],
)
def test_an_error_of_a_shape_of_its_own_is_one_before_the_first_word(body: bytes, code: str) -> None:
    """Where an answer should begin, a provider's own way to say no is understood, whole and streamed."""
    with pytest.raises(UpstreamError) as caught:
        openai_chat.check_answer(body)
    relay = OpenAIRelay(hide_usage=True)
    assert relay.feed(b"data: " + body + b"\n\n") == b""
    for error in (caught.value, relay.error):
        assert error is not None
        assert (error.reason, error.provider_message, error.provider_code) == ("upstream_error_event", "Too bad", code)


def test_a_success_that_names_a_code_is_an_answer() -> None:
    """A code of 0 beside an answer, and a chunk without choices that reports nothing wrong, are no errors."""
    assert openai_chat.check_answer(answer(base_resp={"status_code": 0, "status_msg": "success"})) == Usage(9, 2)
    relay = OpenAIRelay(hide_usage=True)
    first = b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}],"object":""}\n\n'
    assert relay.feed(first) == first
    assert relay.error is None


@pytest.mark.parametrize("empty", [None, {}, "", False, 0, []])
def test_an_empty_error_is_none(empty: Any) -> None:
    """Some servers name the field in every answer and chunk."""
    assert openai_chat.check_answer(answer(error=empty)) == Usage(9, 2)
    assert openai_chat.read_piece(json.dumps(chunk(choices=[], usage=USAGE, error=empty)).encode()).usage == Usage(9, 2)
    _, relay = run([event(chunk(choices=[], usage=USAGE, error=empty)), DONE])
    assert (relay.done, relay.usage) == (True, Usage(9, 2))


@given(st.binary(max_size=40))
@example(b'{"choices":[{"message":{"content":"\xff"}}]}')
@example(b'{"choices":[{"finish_reason":"\xff"}]}')
@example(b'{"\xff":1,"choices":[]}')
def test_no_bytes_break_the_readers(body: bytes) -> None:
    """Anything a provider sends is either read or is its failure."""
    for candidate in (
        body,
        answer().replace(b"Hello", body),
        answer().replace(b"9", body),
        answer().replace(b"[", body),
    ):
        for read in (openai_chat.check_answer, openai_chat.read_answer, openai_chat.read_piece):
            try:
                read(candidate)
            except UpstreamError as error:
                assert error.kind is Kind.UPSTREAM_ERROR  # noqa: PT017 - most bytes are refused, not all


# --- Streams ----------------------------------------------------------------------------------------------------------

_OTHER_EVENTS = st.sampled_from(
    [
        b": keep-alive\n\n",
        b": ping\r\n\r\n",
        b"event: ping\ndata: {}\n\n",
        b"data:" + json.dumps(chunk(delta={"content": "no space"})).encode() + b"\r\r",
        b'data: {"choices":\ndata: [{"delta":{"content":"two lines"}}]}\n\n',
        b'data: {"type":"unknown","usage_hint":1}\n\n',
        event(
            chunk(delta={"content": 'says "error": {"message":"no"} and "finish_reason":"stop" and "usage": {"x":1}'})
        ),
        event(chunk(delta={"content": "[DONE]"})),
        event(chunk(delta={"content": "\x85\u2028\U0001f6aa"})),
        json.dumps(chunk(delta={"content": "é"}), ensure_ascii=False).join(["data: ", "\n\n"]).encode(),
        event(chunk(delta={"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]})),
        event(chunk(choices=[], prompt_filter_results=[{}])),
        event(chunk(usage=None)),
    ]
)
_ENDS = st.sampled_from([DONE, b"data:[DONE]\n\n", b"data: [DONE]\r\n\r\n", b"data: [DONE] \n\n", b"data: [DONE]"])


@given(st.lists(_OTHER_EVENTS, max_size=6), _ENDS, st.lists(st.integers(0, 3000), max_size=12))
def test_a_whole_stream_passes_through_byte_for_byte(events: list[bytes], end: bytes, places: list[int]) -> None:
    """However a stream is cut into pieces, every byte of it arrives, unknown events and comments too."""
    stream = b"".join(events) + b"".join(words("a", "b")) + end
    out, relay = run(cut(stream, places), hide_usage=False)
    assert out == (stream if end.endswith((b"\n\n", b"\r\n\r\n")) else stream + b"\n\n")
    assert (relay.done, relay.error) == (True, None)


@given(st.lists(_OTHER_EVENTS, max_size=4), st.booleans(), st.lists(st.integers(0, 3000), max_size=8))
def test_the_extra_usage_chunk_is_for_those_who_asked(events: list[bytes], hide: bool, places: list[int]) -> None:  # noqa: FBT001 - hypothesis
    """The counts are read in any case; the chunk that carries nothing else is passed on only to whom asked for it."""
    before = b"".join(events) + b"".join(words("a"))
    out, relay = run(cut(before + USAGE_EVENT + DONE, places), hide_usage=hide)
    assert out == before + (b"" if hide else USAGE_EVENT) + DONE
    assert relay.usage == Usage(9, 2)


_UNUSUAL_EVENTS = st.sampled_from(
    [
        *words("a"),
        event(chunk(delta={"content": "b"}, usage=None, error=None)),
        event(chunk(delta={"content": "c"}, usage=USAGE)),
        event(chunk(delta={"content": "d"}, error={"message": "Too bad"})),
        event(chunk(choices=[{"index": 1, "delta": {"content": "e"}, "finish_reason": None}])),
        event(chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}])),
        event(chunk(choices=[{"delta": {"content": "f"}}, {"index": 1, "delta": {"content": "g"}}])),
        b'data: {"choices":[{"index":0,"delta":{"content":"h"},\r"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"i"},\n"finish_reason":null}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"j"},"finish_reason":null}]\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"},"finish_reason":null}]}\n\n',
        b"data: {}\n\n",
        b": keep-alive\n\n",
        USAGE_EVENT,
        DONE,
    ]
)


@given(st.lists(_UNUSUAL_EVENTS, max_size=8), st.booleans(), st.lists(st.integers(0, 3000), max_size=8))
def test_events_mean_the_same_however_they_arrive(events: list[bytes], hide: bool, places: list[int]) -> None:  # noqa: FBT001 - hypothesis
    """Whether each comes by itself, as nearly always, or all are cut anywhere, the caller gets the same."""
    begun = [*words("a")[:1], *events]
    (out, relay), (other_out, other) = (
        run(pieces, hide_usage=hide) for pieces in (begun, cut(b"".join(begun), places))
    )
    assert out == other_out
    assert (relay.done, relay.finished, relay.begun, relay.usage) == (
        other.done,
        other.finished,
        other.begun,
        other.usage,
    )
    assert str(relay.error) == str(other.error)
    assert relay.transcript.text == other.transcript.text


def test_usage_beside_a_choice_is_never_hidden() -> None:
    """Some providers put the counts into the last chunk with text; it must arrive."""
    last = event(chunk(delta={"content": "!"}, finish_reason="stop", usage=USAGE))
    out, relay = run([last, DONE])
    assert out == last + DONE
    assert relay.usage == Usage(9, 2)


def test_the_last_counts_count() -> None:
    """Providers that count in every chunk count up; an absurd one at the end takes nothing back."""
    early = event(chunk(delta={"content": "a"}, usage={"prompt_tokens": 9, "completion_tokens": 1}))
    absurd = event(chunk(choices=[], usage={"prompt_tokens": -9, "completion_tokens": 1}))
    out, relay = run([early, USAGE_EVENT, absurd, DONE])
    assert relay.usage == Usage(9, 2)
    assert out == early + DONE


@pytest.mark.parametrize(
    "broken", [b"data: not json\n\n", b'data: {"choices":[{"delta":{"content":"Hel\n\n', b"data: \xff\n\n"]
)
def test_a_broken_event_is_skipped(broken: bytes) -> None:
    """It would break the caller's reader; the events around it are untouched."""
    out, relay = run([*words("a")[:1], broken, *words("b"), DONE])
    assert out == b"".join([*words("a")[:1], *words("b"), DONE])
    assert (relay.done, relay.error) == (True, None)


@pytest.mark.parametrize(
    ("delta", "begun"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"role": "assistant", "content": None, "refusal": None}, False),
        ({"content": "a"}, True),
        ({"reasoning_content": "hm"}, True),
        ({"tool_calls": [{"index": 0}]}, True),
        ({"something_new": 1}, True),
    ],
)
def test_an_answer_begins_with_its_first_word(delta: dict[str, Any], begun: bool) -> None:  # noqa: FBT001 - a table
    """A role alone is no beginning; text, reasoning, tool calls and whatever is unknown are."""
    relay = OpenAIRelay(hide_usage=True)
    relay.feed(b": wait\n\n" + event(chunk(delta=delta)))
    assert relay.begun is begun


def test_nothing_follows_the_end_mark() -> None:
    """What a provider sends after [DONE] is not passed on, in the same piece or in a later one."""
    for pieces in ([b"".join(words()) + DONE + DONE + b"data: x\n\n"], [*words(), DONE, DONE, b"data: x\n\n"]):
        relay = OpenAIRelay(hide_usage=True)
        out = b"".join(map(relay.feed, pieces)) + relay.end()
        assert out == b"".join(words()) + DONE


@given(st.lists(_OTHER_EVENTS, max_size=3), st.data())
def test_a_stream_cut_anywhere_is_never_whole(events: list[bytes], data: st.DataObject) -> None:
    """Cut at any byte before its finish, a stream ends in an error and never in [DONE]; no half event is passed on."""
    unfinished = b"".join(events) + b"".join(words("a", "b")[:-1])
    stream = b"".join(events) + b"".join(words("a", "b")) + DONE
    length = data.draw(st.integers(0, len(stream)))
    out, relay = run(cut(stream[:length], data.draw(st.lists(st.integers(0, 3000), max_size=5))))
    finish = unfinished + words()[0]
    assert relay.done is (relay.error is None)
    if length < len(finish) - 2:  # Its blank line may be missing.
        assert relay.error is not None
        assert relay.error.reason == "upstream_cut"
        assert not out.endswith(DONE)
        assert stream.startswith(out.removesuffix(b"\n\n").removesuffix(b"\n"))
    else:
        assert relay.done
        assert out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "content_filter"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_a_finished_stream_gets_the_end_mark_that_it_lacks(reason: str, separators: tuple[str, str]) -> None:
    """A regular end after a finish reason is complete, however the provider writes its JSON."""
    last = b"data: " + json.dumps(chunk(finish_reason=reason), separators=separators).encode() + b"\n\n"
    out, relay = run([last])
    assert (out, relay.done, relay.error) == (last + DONE, True, None)


@pytest.mark.parametrize("reason", [None, "", 0, False])
def test_an_empty_finish_reason_is_no_finish(reason: Any) -> None:
    """Some providers write an empty reason into every chunk; a stream of those that ends was cut."""
    for end in ([], [USAGE_EVENT]):
        out, relay = run([event(chunk(delta={"content": "a"}, finish_reason=reason)), *end])
        assert not relay.done
        assert relay.error is not None
        assert relay.error.reason == "upstream_cut"
        assert DONE not in out
    if reason is None or reason == "":
        assert not openai_chat.read_piece(json.dumps(chunk(finish_reason=reason)).encode()).finished


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": "Too bad", "type": "server_error"}},
        {"error": "Too bad"},
        {"error": {"message": "Too bad"}, "choices": []},
        chunk(finish_reason="error", error={"code": 502, "message": "Too bad"}),
    ],
)
@pytest.mark.parametrize("before", [[], words("a")[:1], words("a")])
def test_an_error_event_ends_the_stream(error: dict[str, Any], before: list[bytes]) -> None:
    """What came before it is passed on, the provider's event is not, and nothing after it is."""
    relay = OpenAIRelay(hide_usage=True)
    out = relay.feed(b"".join(before) + event(error) + event(chunk(delta={"content": "more"})) + DONE)
    assert out == b"".join(before)
    assert not relay.done
    assert relay.error is not None
    assert (relay.error.reason, relay.error.provider_message) == ("upstream_error_event", "Too bad")
    assert relay.feed(DONE) == relay.end() == b""


@pytest.mark.parametrize("stream", [b"", b"\n", b": nothing\n\n", b"<html></html>", b'{"choices":[]}', b"data: x"])
def test_a_stream_of_nothing_was_cut(stream: bytes) -> None:
    """An empty body, comments only, or something that is no stream is not an answer."""
    out, relay = run([stream])
    assert relay.error is not None
    assert relay.error.reason == "upstream_cut"
    assert out in (b"", stream)


def test_pieces_say_what_the_plain_api_needs() -> None:
    """Text, refusals, the model and the finish are read; chunks without choices are empty."""
    read = openai_chat.read_piece
    assert read(json.dumps(chunk(delta={"content": "a"})).encode()).text == "a"
    assert read(json.dumps(chunk(delta={"refusal": "No."})).encode()).text == "No."
    assert read(json.dumps(chunk(delta=None)).encode()) == openai_chat.Piece(model="gpt-x-1")
    assert read(json.dumps(chunk(finish_reason="stop")).encode()).finished
    assert read(b'{"choices":null}') == read(b'{"choices":[]}') == read(b"{}") == openai_chat.Piece()
