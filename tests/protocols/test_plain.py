"""The plain API: three body forms in, both generations of clients out, and streams that add up."""

from __future__ import annotations

import itertools
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import plain, sse
from chatgate.protocols.plain import PlainDialect, PlainRelay
from chatgate.vocabulary.chat import Asked, ChatCall, Message, Usage
from chatgate.vocabulary.errors import CallerError, InternalError, Kind

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain;charset=UTF-8"
DEFAULT = "gpt-default"


def ask(content_type: str = JSON, /, **fields: Any) -> Asked:
    """Decode a call, written as JSON whatever its type says."""
    return plain.decode_request(json.dumps(fields).encode(), content_type, DEFAULT)


def form(**fields: str) -> Asked:
    """Decode a call, written as a form."""
    return plain.decode_request(urlencode(fields).encode(), FORM, DEFAULT)


def refusal(body: bytes, content_type: str = JSON) -> CallerError:
    """Return the refusal of a body."""
    with pytest.raises(CallerError) as caught:
        plain.decode_request(body, content_type, DEFAULT)
    return caught.value


def refused(**fields: Any) -> tuple[Kind, str, str | None]:
    """Return how a call in JSON is refused."""
    error = refusal(json.dumps(fields).encode())
    return error.kind, error.reason, error.param


def turn(role: str, content: str) -> dict[str, str]:
    """Return one earlier message."""
    return {"role": role, "content": content}


# --- What a caller asks -----------------------------------------------------------------------------------------------


def test_the_least_call_gets_the_defaults() -> None:
    """Only `user_content` is needed; the model and 100 tokens are the server's choice."""
    question = (Message("user", "Hi"),)
    assert ask(user_content="Hi") == Asked(
        ChatCall(DEFAULT, stream=False, messages=question, max_tokens=100), "", question
    )


def test_nulls_count_as_absent() -> None:
    """Clients that write null for what they do not use are understood."""
    nothing = dict.fromkeys(plain.FIELDS - {"user_content"})
    assert ask(user_content="Hi", **nothing) == ask(user_content="Hi")


def test_unknown_fields_are_ignored() -> None:
    """Nothing that is not in the table means anything."""
    extras = {"messages": 5, "api_base": "http://evil.invalid", "temperature": "x", "__proto__": {}, "": None}
    assert ask(user_content="Hi", **extras) == ask(user_content="Hi")


def test_every_field_is_read() -> None:
    """All fields at once mean what the table says."""
    asked = ask(
        user_content="Hi",
        sys_content="Be brief.",
        model="gpt-x",
        api_key="sk-test-0123",
        max_tokens=7,
        continuous=[turn("user", "a"), turn("assistant", "b")],
        stream=True,
    )
    assert asked.api_key == "sk-test-0123"
    assert asked.dialogue == (Message("user", "a"), Message("assistant", "b"), Message("user", "Hi"))
    assert asked.chat == ChatCall(
        "gpt-x", stream=True, messages=(Message("system", "Be brief."), *asked.dialogue), max_tokens=7
    )


@pytest.mark.parametrize(
    ("first", "second", "one", "other"),
    [
        ("sys_content", "system_content", "x", "y"),
        ("sys_content", "system_content", "", "y"),
        ("continuous", "continuous_dialogue", [turn("user", "a")], [turn("user", "b")]),
        ("continuous", "continuous_dialogue", [], [turn("user", "b")]),
    ],
)
def test_two_spellings_are_one_field(first: str, second: str, one: Any, other: Any) -> None:
    """Either spelling works, both with one value too, and different values are refused."""
    assert ask(user_content="Hi", **{second: other}) == ask(user_content="Hi", **{first: other})
    assert ask(user_content="Hi", **{first: other, second: other}) == ask(user_content="Hi", **{first: other})
    assert ask(user_content="Hi", **{first: None, second: other}) == ask(user_content="Hi", **{first: other})
    expected = (Kind.INVALID_VALUE, "conflicting_fields", second)
    assert refused(user_content="Hi", **{first: one, second: other}) == expected


@pytest.mark.parametrize("question", ["", " ", "\n\t", "\u3000"])
def test_an_empty_question_is_refused(question: str) -> None:
    """A question of nothing but space is none, in every form of body."""
    assert refused(user_content=question) == (Kind.INVALID_VALUE, "empty_field", "user_content")
    for body, content_type in ((question.encode(), TEXT), (urlencode({"user_content": question}).encode(), FORM)):
        assert refusal(body, content_type).reason == "empty_field"


def test_a_missing_question_is_named() -> None:
    """An object without the question, or with null for it, is told so."""
    expected = (Kind.INVALID_VALUE, "missing_field", "user_content")
    assert refused() == refused(user_content=None) == refused(model="gpt-x") == expected
    assert refusal(b"model=gpt-x", FORM).reason == "missing_field"


@pytest.mark.parametrize("limit", [1, 2, 3499, 3500])
def test_max_tokens_has_bounds(limit: int) -> None:
    """From 1 to 3500, in JSON and in a form."""
    assert ask(user_content="Hi", max_tokens=limit).chat.max_tokens == limit
    assert form(user_content="Hi", max_tokens=f" {limit} ").chat.max_tokens == limit


@pytest.mark.parametrize("limit", [0, -1, 3501, 10**9, 2**63 - 1])
def test_max_tokens_out_of_bounds_is_refused(limit: int) -> None:
    """Nothing is clamped in silence; the refusal names the bounds."""
    assert refused(user_content="Hi", max_tokens=limit) == (Kind.INVALID_VALUE, "out_of_range", "max_tokens")
    error = refusal(urlencode({"user_content": "Hi", "max_tokens": limit}).encode(), FORM)
    assert error.reason == "out_of_range"
    assert dict(error.parameters) == {"field": "max_tokens", "low": 1, "high": 3500}


WRONG_VALUES: dict[str, list[Any]] = {
    "max_tokens": ["10", 1.5, 10.0, True, [], {}],
    "user_content": [5, True, [], {}, ["Hi"]],
    "sys_content": [5, [], {}],
    "model": [5, [], False],
    "api_key": [5, [], {}],
    "stream": ["true", 1, 0, []],
    "continuous": ["[]", {}, 5, True],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name in WRONG_VALUES for value in WRONG_VALUES[name]])
def test_a_wrong_type_is_refused(field: str, value: Any) -> None:
    """Nothing is converted in silence; the refusal names the field."""
    fields = {"user_content": "Hi", field: value}
    assert refused(**fields) == (Kind.INVALID_VALUE, "wrong_type", field)


@pytest.mark.parametrize("spelling", ["continuous", "continuous_dialogue"])
@pytest.mark.parametrize(
    ("wrong", "reason", "path"),
    [
        (None, "wrong_type", "[1]"),
        ("Hi", "wrong_type", "[1]"),
        ({"role": "user"}, "missing_field", "[1].content"),
        ({"content": "Hi"}, "missing_field", "[1].role"),
        ({"role": "user", "content": None}, "wrong_type", "[1].content"),
        ({"role": "user", "content": [{"type": "text", "text": "Hi"}]}, "wrong_type", "[1].content"),
        ({"role": "oracle", "content": "Hi"}, "invalid_field", "[1].role"),
        ({"role": "tool", "content": "Hi"}, "invalid_field", "[1].role"),
    ],
)
def test_a_broken_earlier_message_is_named(spelling: str, wrong: Any, reason: str, path: str) -> None:
    """The refusal names the message by its place, in the spelling that was used."""
    fields = {"user_content": "Hi", spelling: [turn("user", "a"), wrong]}
    assert refused(**fields) == (Kind.INVALID_VALUE, reason, spelling + path)


def test_the_system_message_always_comes_first() -> None:
    """One inside of the dialogue moves to its beginning; `sys_content` takes the place of all of them."""
    dialogue = [turn("user", "a"), turn("system", "old"), turn("assistant", "b"), turn("developer", "older")]
    rest = (Message("user", "a"), Message("assistant", "b"), Message("user", "Hi"))
    kept = ask(user_content="Hi", continuous=dialogue)
    assert kept.chat.messages == (Message("system", "old"), Message("developer", "older"), *rest)
    replaced = ask(user_content="Hi", continuous=dialogue, sys_content="new")
    assert replaced.chat.messages == (Message("system", "new"), *rest)
    assert ask(user_content="Hi", continuous=dialogue, sys_content="").chat == kept.chat
    assert [each.content for each in replaced.dialogue] == ["a", "old", "b", "older", "Hi"]
    assert ask(user_content="Hi", sys_content="new").chat.messages == (Message("system", "new"), Message("user", "Hi"))


@pytest.mark.parametrize("model", ["text-davinci-003", "", None])
def test_the_retired_model_means_the_default(model: str | None) -> None:
    """Old clients name a model that nobody serves any more; they get the server's default."""
    assert ask(user_content="Hi", model=model).chat.asked_model == DEFAULT
    assert form(user_content="Hi", model=model or "").chat.asked_model == DEFAULT


@pytest.mark.parametrize("model", [" gpt-x", "a\nb", "x" * 257, "\u200b", " "])
def test_a_name_that_no_model_has_is_refused(model: str) -> None:
    """Names with blanks around them, control characters, or of great length never reach a provider or the log."""
    assert refused(user_content="Hi", model=model) == (Kind.INVALID_VALUE, "invalid_field", "model")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "invalid_json"),
        (b"[]", "body_not_object"),
        (b"What is 2+2?", "invalid_json"),
        (b'{"user_content":"Hi","user_content":"Ho"}', "duplicate_field"),
        (b'{"user_content":"\\ud800"}', "invalid_json"),
        (b'{"user_content":"\xff"}', "body_not_utf8"),
        (b'{"user_content":"Hi","max_tokens":1e999}', "body_number_out_of_range"),
        (b'{"user_content":"Hi","max_tokens":99999999999999999999}', "body_number_out_of_range"),
    ],
)
@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON; Charset=UTF-8", "application/vnd.x+json", "text/json"]
)
def test_bad_json_is_told_from_bad_values(body: bytes, reason: str, content_type: str) -> None:
    """A body that is declared to be JSON must be."""
    error = refusal(body, content_type)
    assert (error.kind, error.reason) == (Kind.INVALID_JSON, reason)


# --- The other forms of body ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [FORM, "", TEXT, f"{FORM}; charset=utf-8"])
def test_json_is_json_whatever_curl_calls_it(content_type: str) -> None:
    """`curl -d '{…}'` says form, scripts say text or nothing; an object with our field in it is one."""
    assert ask(content_type, user_content="Hi", max_tokens=5) == ask(user_content="Hi", max_tokens=5)
    body = b' \n{"user_content": "Hi", "max_tokens": 5}\n'
    assert plain.decode_request(body, content_type, DEFAULT) == ask(user_content="Hi", max_tokens=5)


def test_broken_json_that_was_called_a_form_is_refused_as_json() -> None:
    """A typo in `curl -d '{…'` is told as such and does not become the question."""
    assert refusal(b'{"user_content": "Hi",}', FORM).reason == "invalid_json"


@pytest.mark.parametrize("content_type", [TEXT, "text/plain", "", FORM])
@pytest.mark.parametrize(
    "question", ["What is 2+2?", "Why?\nHow?", "a=b", "100% & more", "Привет", "{x} != y", "q" * 9999]
)
def test_bare_text_is_the_question(content_type: str, question: str) -> None:
    """`curl -d 'question'` works: nothing in the text is decoded or cut."""
    if content_type in {FORM, ""} and question.startswith("{"):
        return  # Looks like an object, and is told what is wrong with it.
    asked = plain.decode_request(question.encode(), content_type, DEFAULT)
    assert asked == ask(user_content=question)


def test_a_byte_order_mark_is_no_part_of_the_question() -> None:
    """Some editors put one in front of a text."""
    assert plain.decode_request(b"\xef\xbb\xbfHi", TEXT, DEFAULT) == ask(user_content="Hi")


def test_a_form_has_all_fields() -> None:
    """Text fields as they are, numbers and truths as text, the dialogue as JSON."""
    texts = {
        "user_content": "a+b = c & d?\n",
        "system_content": "Кратко.",
        "model": "gpt-x",
        "api_key": "sk-test-0123",
    }
    dialogue = [turn("user", "ä=&"), turn("assistant", "b")]
    written = form(**texts, continuous=json.dumps(dialogue), max_tokens="7", stream="True", unknown="y")
    assert written == ask(**texts, continuous=dialogue, max_tokens=7, stream=True)


@given(st.dictionaries(st.sampled_from(["user_content", "sys_content", "api_key"]), st.text(min_size=1)))
@example({"user_content": "100 %"})
def test_a_form_means_what_its_json_means(fields: dict[str, str]) -> None:
    """Any text comes through a form unchanged."""
    fields = {"user_content": "Hi", **{name: text for name, text in fields.items() if text.strip()}}
    assert form(**fields) == ask(**fields)


def test_empty_fields_of_a_form_are_absent() -> None:
    """A browser sends every input, filled in or not."""
    empty = dict.fromkeys(plain.FIELDS - {"user_content"}, "")
    assert form(user_content="Hi", **empty) == ask(user_content="Hi")


@pytest.mark.parametrize(
    ("text", "truth"), [("true", True), ("1", True), ("ON", True), ("yes", True), ("false", False), ("0", False)]
)
def test_a_form_says_yes_in_many_ways(text: str, *, truth: bool) -> None:
    """Checkboxes and scripts write truth differently."""
    assert form(user_content="Hi", stream=text).chat.stream is truth


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("user_content=Hi&max_tokens=ten", "wrong_type"),
        ("user_content=Hi&max_tokens=1.5", "wrong_type"),
        ("user_content=Hi&max_tokens=" + "9" * 5000, "wrong_type"),
        ("user_content=Hi&stream=maybe", "wrong_type"),
        ("user_content=Hi&continuous=5", "wrong_type"),
        ("user_content=Hi&continuous=[", "invalid_json"),
        ("user_content=Hi&user_content=Ho", "duplicate_field"),
        ("user_content=%ff", "body_not_utf8"),
        ("user_content=%ed%a0%80", "body_not_utf8"),
        ("user_content=Hi&api_key=sk-test-0123&x=%ff", "body_not_utf8"),
        ("api_key=sk-test-0123&user_content=a" + "&b" * 200, "invalid_field"),
    ],
)
def test_a_broken_form_is_refused(fields: str, reason: str) -> None:
    """A body that names our fields is a form for good: it never becomes the question, with the key in it."""
    error = refusal(fields.encode(), FORM)
    assert error.reason == reason
    assert "sk-test" not in repr((error.args, error.parameters))


@pytest.mark.parametrize("content_type", [TEXT, FORM, ""])
def test_text_that_is_no_utf8_is_refused(content_type: str) -> None:
    """Nothing is guessed about other encodings."""
    error = refusal(b"caf\xe9", content_type)
    assert (error.kind, error.reason) == (Kind.INVALID_JSON, "body_not_utf8")


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/xml",
        "text/html",
        "application/json; charset=utf-16",
        "text/plain; charset=gb2312",
        "application/x-www-form-urlencoded; charset=koi8-r",
        "x" * 5000,
        ",",
    ],
)
def test_other_types_are_refused(content_type: str) -> None:
    """What is not understood is refused by its type, which the refusal names, cut to a sane length."""
    error = refusal(b'{"user_content":"Hi"}', content_type)
    assert (error.kind, error.reason) == (Kind.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
    assert error.parameters["content_type"] == content_type[:100]


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii"])
def test_spellings_of_utf8_are_understood(charset: str) -> None:
    """UTF-8 is written in several ways, and ASCII is a part of it."""
    assert ask(f"application/json; charset={charset}", user_content="Hi") == ask(user_content="Hi")


@given(st.binary(max_size=40), st.sampled_from([JSON, FORM, TEXT, "", "multipart/x", "a;charset=x"]))
@example(b"user_content=%", FORM)
@example(b"&=&user_content", FORM)
@example(b'continuous={"a"', FORM)
@example("max_tokens=٣&user_content=Hi".encode(), FORM)
def test_no_bytes_break_the_reader(body: bytes, content_type: str) -> None:
    """Any body of any type is either read or refused."""
    for candidate in (body, b'{"user_content":"Hi",' + body + b"}", b"user_content=Hi&" + body):
        try:
            plain.decode_request(candidate, content_type, DEFAULT)
        except CallerError as error:
            assert error.kind in {Kind.INVALID_JSON, Kind.INVALID_VALUE, Kind.UNSUPPORTED_MEDIA_TYPE}  # noqa: PT017 - most bytes are refused, not all


# --- What it gets back ------------------------------------------------------------------------------------------------


def completion(text: str, **fields: Any) -> bytes:
    """Write an upstream's whole answer."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return json.dumps({"choices": choices, **fields}).encode()


def test_an_answer_serves_both_generations_of_clients() -> None:
    """The text is in `data.response` and in `current_response`; `result` goes on as the next `continuous`."""
    dialect = PlainDialect(DEFAULT)
    earlier = [turn("system", "Brief."), turn("user", "a"), turn("assistant", "b")]
    asked = ask(user_content="Hi", continuous=earlier, sys_content="New.")
    usage = {"prompt_tokens": 9, "completion_tokens": 12}
    body, counted = dialect.encode_whole(asked, completion("Hello", model="gpt-x-1", usage=usage))
    assert counted == Usage(9, 12)
    written = json.loads(body)
    assert written == {
        "code": 200,
        "msg": "success",
        "data": {"response": "Hello", "model": "gpt-x-1", "usage": {"input_tokens": 9, "output_tokens": 12}},
        "current_response": "Hello",
        "result": [*earlier, turn("user", "Hi"), turn("assistant", "Hello")],
    }
    assert ask(user_content="And?", continuous=written["result"]).dialogue[-2] == Message("assistant", "Hello")


def test_an_answer_without_counts_and_name_says_so() -> None:
    """Unknown counts are null, and the model is the one that was asked for."""
    body, counted = PlainDialect(DEFAULT).encode_whole(ask(user_content="Hi"), completion(""))
    assert counted is None
    assert json.loads(body)["data"] == {"response": "", "model": DEFAULT, "usage": None}


def piece(text: str = "", reason: str | None = None, **fields: Any) -> bytes:
    """Write an event of an upstream's stream."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]
    return sse.event(json.dumps({"choices": choices, "model": "gpt-x-1", **fields}).encode())


DIALOGUE = (Message("user", "Hi"),)
USAGE = piece(choices=[], usage={"prompt_tokens": 9, "completion_tokens": 12})
DONE = b"data: [DONE]\n\n"


def run(pieces: list[bytes]) -> tuple[list[Any], PlainRelay]:
    """Pass a whole stream through a relay; return the objects that the caller gets."""
    relay = PlainRelay("asked", DIALOGUE)
    out = b"".join(map(relay.feed, pieces)) + relay.end()
    splitter = sse.EventSplitter()
    objects = [json.loads(sse.data_of(event) or b"") for event in splitter.feed(out)]
    assert splitter.finish() == b""
    return objects, relay


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at some places."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[begin:end] for begin, end in itertools.pairwise(edges)]


@given(
    st.lists(st.text(max_size=8), max_size=6),
    st.lists(st.integers(0, 2000), max_size=8),
    st.sampled_from([[DONE], [USAGE, DONE], [USAGE], [], [DONE, piece("late")], [DONE[:-2]]]),
)
def test_deltas_add_up_to_the_final_text(texts: list[str], places: list[int], end: list[bytes]) -> None:
    """However the stream was cut, the deltas joined are the text of the last event, which is the success object."""
    stream = b": hello\n\n" + b"".join([*map(piece, texts), piece(reason="stop"), *end])
    objects, relay = run(cut(stream, places))
    assert (relay.done, relay.error) == (True, None)
    assert relay.usage == (Usage(9, 12) if USAGE in end else None)
    *deltas, last = objects
    text = "".join(texts)
    assert [delta["delta"] for delta in deltas] == [each for each in texts if each]
    assert last == json.loads(plain.encode_answer(text, "gpt-x-1", relay.usage, DIALOGUE))


@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.data())
def test_a_stream_cut_anywhere_is_never_whole(texts: list[str], data: st.DataObject) -> None:
    """Cut at any byte before its finish, a stream ends in an error and without the success object."""
    unfinished = b"".join(map(piece, texts))
    stream = unfinished + piece(reason="stop") + DONE
    length = data.draw(st.integers(0, len(stream)))
    objects, relay = run(cut(stream[:length], data.draw(st.lists(st.integers(0, 2000), max_size=5))))
    is_whole = length >= len(unfinished) + len(piece(reason="stop")) - 2  # Its blank line may be missing.
    assert (relay.done, relay.error is None) == (is_whole, is_whole)
    deltas = [found["delta"] for found in objects if "delta" in found]
    assert "".join(texts).startswith("".join(deltas))
    assert sum("code" in found for found in objects) == is_whole


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (sse.event(b'{"error":{"message":"Too bad"}}'), "upstream_error_event"),
        (sse.event(b"not json"), "upstream_cut"),
        (sse.event(b'{"choices":5}'), "upstream_cut"),
        (sse.event(b'{"choices":[{"delta":{"content":"\xff"}}]}'), "upstream_cut"),
        (b"<html></html>", "upstream_cut"),
        (b'{"choices":[]}', "upstream_cut"),
    ],
)
def test_a_broken_stream_ends_in_an_error(broken: bytes, reason: str) -> None:
    """What came before is delivered, nothing after is, and there is no success object."""
    tail = b"" if reason == "upstream_cut" else piece("more") + DONE
    objects, relay = run([piece("a"), broken + tail, tail])
    assert objects == [{"delta": "a"}]
    assert not relay.done
    assert relay.error is not None
    assert relay.error.reason == reason


# --- Errors -----------------------------------------------------------------------------------------------------------

STATUSES = {
    Kind.INVALID_JSON: 400,
    Kind.INVALID_VALUE: 400,
    Kind.MISSING_KEY: 400,
    Kind.MODEL_NOT_FOUND: 400,
    Kind.INVALID_KEY: 401,
    Kind.PERMISSION_DENIED: 403,
    Kind.NOT_FOUND: 404,
    Kind.METHOD_NOT_ALLOWED: 405,
    Kind.REQUEST_TIMEOUT: 408,
    Kind.REQUEST_TOO_LARGE: 413,
    Kind.UNSUPPORTED_MEDIA_TYPE: 415,
    Kind.RATE_LIMIT_EXCEEDED: 429,
    Kind.INSUFFICIENT_QUOTA: 429,
    Kind.UPSTREAM_ERROR: 500,
    Kind.UPSTREAM_TIMEOUT: 500,
    Kind.OVERLOADED: 500,
    Kind.INTERNAL_ERROR: 500,
}


@pytest.mark.parametrize("kind", Kind)
def test_every_situation_has_its_status(kind: Kind) -> None:
    """The table of the contract holds, no situation is missing, and the body's code is the status."""
    dialect = PlainDialect(DEFAULT)
    assert dialect.status_of(kind) == STATUSES[kind]
    written = json.loads(dialect.encode_error(CallerError(kind, "any"), "Why.", "req_1"))
    assert written == {
        "code": STATUSES[kind],
        "msg": "failed",
        "data": {"response": "Why."},
        "error": {"code": kind.value, "request_id": "req_1"},
    }


def test_an_error_of_any_class_is_written() -> None:
    """Errors are told by their kind alone."""
    assert json.loads(PlainDialect(DEFAULT).encode_error(InternalError(), "Why.", ""))["code"] == 500


def test_the_dialect_reads_with_the_servers_default_model() -> None:
    """The default that the dialect was made with is the model of calls that name none."""
    dialect = PlainDialect(DEFAULT)
    asked = dialect.decode(f"user_content={quote('Hi & bye')}".encode(), FORM)
    assert (asked.chat.asked_model, asked.dialogue) == (DEFAULT, (Message("user", "Hi & bye"),))
    assert isinstance(dialect.relay(asked), PlainRelay)
