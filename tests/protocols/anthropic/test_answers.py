"""Answers between Anthropic's protocol and OpenAI's, whole and streamed, cut at any byte."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatgate.protocols import openai_chat, sse
from chatgate.protocols.anthropic.call import decode_call
from chatgate.protocols.anthropic.decoder import StreamDecoder
from chatgate.protocols.anthropic.dialect import PASSING, AnthropicDialect
from chatgate.protocols.anthropic.message import UNSIGNED, to_completion, to_message
from chatgate.protocols.anthropic.relay import AnthropicRelay, PassingRelay
from chatgate.protocols.openai_stream import DONE, OpenAIRelay, Relay
from chatgate.protocols.resume import Resumption
from chatgate.vocabulary.errors import UpstreamError
from fakes import messages, scripts
from fakes.vendor_schemas import check

Json = dict[str, Any]
CREATED = 1_700_000_000
TEXT = messages.text_block("One two three.")
THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": "sea", "n": 2}}
EMPTY_CALL = {"type": "tool_use", "id": "toolu_2", "name": "stop", "input": {}}


def fed(relay: Relay, pieces: list[bytes]) -> bytes:
    """Pass a whole stream through a relay as the pipeline does."""
    out = b""
    for piece in pieces:
        out += relay.feed(piece)
        if relay.is_over:
            return out
    return out + relay.end()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at some places."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(at)]


def decoded(pieces: list[bytes]) -> bytes:
    """Turn an Anthropic stream into an OpenAI one."""
    decoder = StreamDecoder(CREATED)
    return b"".join(map(decoder.feed, pieces)) + decoder.end()


def chunks(stream: bytes) -> list[Json]:
    """Return the chunks of an OpenAI stream that ends with its mark; each is what the vendor says."""
    events = [event for event in stream.split(b"\n\n") if event and not event.startswith(b":")]
    assert events.pop() == DONE.strip()
    found = [json.loads(event.removeprefix(b"data: ")) for event in events]
    for each in found:
        if each["choices"] and each["choices"][0]["finish_reason"] is not None:  # Elsewhere the schema forgot null.
            check("openai", "CreateChatCompletionStreamResponse", each)
    return found


def without_caller(blocks: list[Json]) -> list[Json]:
    """Return blocks without what only the vendor's schema wants."""
    return [{name: value for name, value in block.items() if name not in ("caller", "citations")} for block in blocks]


# --- OpenAI's answers as Anthropic's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("eos", "end_turn"),
        (None, "end_turn"),
    ],
)
def test_a_whole_answer_becomes_a_message(finish: str | None, stop: str) -> None:
    """Text, usage with what the cache gave, and the reason to stop; it is what the vendor's schema says."""
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    body = scripts.completion("Hello", usage=usage)
    body["choices"][0]["finish_reason"] = finish
    message = json.loads(to_message(json.dumps(body).encode(), "asked"))
    check("anthropic", "Message", message)
    assert (message["model"], message["stop_reason"], message["id"]) == ("gpt-fake-small", stop, "msg_fake")
    assert without_caller(message["content"]) == [messages.text_block("Hello")]
    counts = {name: n for name, n in message["usage"].items() if n is not None}
    assert counts == {
        "input_tokens": 30,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 10,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 3},
    }


def answer_saying(**said: Any) -> bytes:
    """Return a whole OpenAI answer whose message says this."""
    body = scripts.completion("")
    finish = said.pop("finish_reason", "stop")
    stopped_by = said.pop("stop_reason", None)
    body["choices"] = [{"index": 0, "message": {"role": "assistant", **said}, "finish_reason": finish}]
    body["choices"][0]["stop_reason"] = stopped_by
    return json.dumps(body).encode()


def test_thinking_tools_and_refusals_become_blocks() -> None:
    """Reasoning comes first and unsigned, calls come last, and a refusal is told as one."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    empty = {"id": "c2", "type": "function", "function": {"name": "stop", "arguments": ""}}
    body = answer_saying(
        content="I look.", reasoning_content="Hm", tool_calls=[call, empty], finish_reason="tool_calls"
    )
    message = json.loads(to_message(body, "asked"))
    check("anthropic", "Message", message)
    assert without_caller(message["content"]) == [
        {"type": "thinking", "thinking": "Hm", "signature": UNSIGNED},
        messages.text_block("I look."),
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "c2", "name": "stop", "input": {}},
    ]
    refused = json.loads(to_message(answer_saying(content=None, refusal="No."), "asked"))
    check("anthropic", "Message", refused)
    assert (refused["stop_reason"], without_caller(refused["content"])) == ("refusal", [messages.text_block("No.")])


def test_a_stop_sequence_is_told_where_the_server_tells_it() -> None:
    """Only one of the caller's own counts: some servers put other things there."""
    assert (
        json.loads(to_message(answer_saying(content="a", stop_reason="END"), "m", ("END",)))["stop_sequence"] == "END"
    )
    assert json.loads(to_message(answer_saying(content="a", stop_reason="END"), "m"))["stop_reason"] == "end_turn"
    assert (
        json.loads(to_message(answer_saying(content="a", stop_reason=128001), "m", ("END",)))["stop_sequence"] is None
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"choices": []}',
        b'{"choices": [{"message": 1}]}',
        answer_saying(content=None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": '{"a": '}}]),
        answer_saying(content=None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": "[]"}}]),
    ],
)
def test_a_broken_answer_is_never_taken_for_a_message(body: bytes) -> None:
    """Arguments that are no object cannot be a tool's input; another try may give better ones."""
    with pytest.raises(UpstreamError):
        to_message(body, "m")


def test_a_stream_has_the_vendors_events_in_the_vendors_order() -> None:
    """Start, ping, a block at a time, the reason with the usage, stop: as in the vendor's own streams."""
    relay = AnthropicRelay("asked")
    found = messages.read(fed(relay, [*scripts.text_events("One two", usage=True), DONE]))
    assert [each["type"] for each in found] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    for each in found:
        if each["type"] != "ping":
            check("anthropic", "MessageStreamEvent", each)
    whole = messages.assembled(found)
    check("anthropic", "Message", whole)
    assert without_caller(whole["content"]) == [messages.text_block("One two")]
    assert (whole["usage"]["input_tokens"], whole["usage"]["output_tokens"]) == (7, 2)
    assert relay.done
    assert relay.usage is not None


def test_streamed_thinking_text_and_parallel_calls_become_blocks() -> None:
    """Each begins when the one before it has ended, and arguments arrive piece by piece."""

    def calling(index: int, **function: str) -> Json:
        more = {"id": f"c{index}", "type": "function"} if "name" in function else {}
        return {"tool_calls": [{"index": index, **more, "function": function}]}

    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Let "},
        {"reasoning_content": "me"},
        {"content": "I look."},
        calling(0, name="look", arguments=""),
        calling(0, arguments='{"at"'),
        calling(0, arguments=": 1}"),
        calling(1, name="stop", arguments=""),
    ]
    events = [scripts.event(scripts.chunk(delta)) for delta in deltas]
    events.append(scripts.event(scripts.chunk({}, finish="tool_calls")))
    found = messages.read(fed(AnthropicRelay("asked"), [*events, DONE]))
    for each in found:
        if each["type"] != "ping":
            check("anthropic", "MessageStreamEvent", each)
    whole = messages.assembled(found)
    assert whole["stop_reason"] == "tool_use"
    assert without_caller(whole["content"]) == [
        {"type": "thinking", "thinking": "Let me", "signature": UNSIGNED},
        messages.text_block("I look."),
        {"type": "tool_use", "id": "c0", "name": "look", "input": {"at": 1}},
        {"type": "tool_use", "id": "c1", "name": "stop", "input": {}},
    ]


def test_a_streamed_refusal_is_told_as_one() -> None:
    """Its words are the text, and the reason to stop says what they are."""
    events = [scripts.chunk({"refusal": "No"}), scripts.chunk({"refusal": "."}), scripts.chunk({}, finish="stop")]
    whole = messages.assembled(messages.read(fed(AnthropicRelay("m"), [*map(scripts.event, events), DONE])))
    assert (whole["stop_reason"], whole["content"][0]["text"]) == ("refusal", "No.")


def test_an_answer_without_words_is_a_message_without_blocks() -> None:
    """It is whole all the same."""
    whole = messages.assembled(
        messages.read(fed(AnthropicRelay("m"), [scripts.event(scripts.chunk({}, finish="stop")), DONE]))
    )
    assert (whole["content"], whole["stop_reason"]) == ([], "end_turn")


def test_arguments_of_a_call_that_is_over_break_the_stream() -> None:
    """They could not be written without telling the caller something wrong."""
    first = scripts.chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]})
    second = scripts.chunk({"tool_calls": [{"index": 1, "id": "b", "function": {"name": "g", "arguments": "{}"}}]})
    late = scripts.chunk({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})
    relay = AnthropicRelay("m")
    relay.feed(b"".join(map(scripts.event, (first, second, late))))
    assert relay.error is not None
    assert not relay.done


def test_a_cut_stream_never_ends_like_a_whole_one() -> None:
    """Without a reason to stop there is neither message_delta nor message_stop."""
    relay = AnthropicRelay("m")
    out = fed(relay, scripts.text_events("One two")[:-1])
    assert relay.error is not None
    assert {each["type"] for each in messages.read(out)}.isdisjoint({"message_delta", "message_stop"})


# --- Anthropic's answers as OpenAI's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("from_the_future", "stop"),
    ],
)
def test_a_message_becomes_a_completion(stop: str, finish: str) -> None:
    """It is what OpenAI's schema says, and what the gateway's own reader takes for a whole answer."""
    body = json.dumps(messages.message(THINKING, TEXT, CALL, EMPTY_CALL, stop=stop)).encode()
    completed = to_completion(body, CREATED)
    answer = json.loads(completed)
    check("openai", "CreateChatCompletionResponse", answer)
    assert answer["choices"][0]["finish_reason"] == finish
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": "One two three.",
        "refusal": None,
        "reasoning_content": "Let me see.",
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea","n":2}'}},
            {"id": "toolu_2", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
        ],
    }
    usage = openai_chat.check_answer(completed)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, 4)


def test_a_count_of_input_holds_what_the_cache_gave_and_took() -> None:
    """Anthropic counts these apart, OpenAI and the ledger count them in."""
    usage = {"input_tokens": 3, "cache_read_input_tokens": 40, "cache_creation_input_tokens": 7, "output_tokens": 2}
    answer = json.loads(to_completion(json.dumps(messages.message(TEXT, usage=usage)).encode(), CREATED))
    assert answer["usage"]["prompt_tokens"] == 50
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 40, "cache_write_tokens": 7}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"content": "x"}', b'{"type": "message", "content": [1]}'])
def test_what_is_no_message_is_a_bad_answer(body: bytes) -> None:
    """It is never passed on as one."""
    with pytest.raises(UpstreamError):
        openai_chat.check_answer(to_completion(body, CREATED))


def test_a_stream_of_events_becomes_chunks() -> None:
    """Roles, reasoning, text, calls with streamed arguments, the reason, the usage, the end mark."""
    found = chunks(decoded(messages.events(THINKING, TEXT, CALL, EMPTY_CALL, stop="tool_use")))
    assert {each["id"] for each in found} == {"chatcmpl-01"}
    assert found[-1]["usage"]["prompt_tokens"] == 9
    assert found[-1]["usage"]["completion_tokens"] == 4
    relay = OpenAIRelay(hide_usage=False)
    fed(relay, [decoded(messages.events(THINKING, TEXT, CALL, EMPTY_CALL, stop="tool_use"))])
    relay.transcript.read()
    assert relay.done
    assert relay.transcript.is_resumable
    assert relay.transcript.texts == {
        (0, "content", -1): "One two three.",
        (0, "reasoning_content", -1): "Let me see.",
        (0, "tool_calls", 0): json.dumps(CALL["input"]),
        (0, "tool_calls", 1): "{}",
    }


def test_an_error_event_is_an_error_and_no_end() -> None:
    """What the provider says of it survives, and its type says what may be tried next."""
    broken = [*messages.events(TEXT)[:3], messages.event(messages.error("overloaded_error", "Overloaded"))]
    relay = OpenAIRelay(hide_usage=True)
    relay.feed(decoded(broken))
    assert relay.error is not None
    assert (relay.error.provider_message, relay.error.provider_code) == ("Overloaded", "overloaded_error")
    assert not relay.done


blocks = st.lists(
    st.sampled_from([TEXT, THINKING, CALL, EMPTY_CALL, {**CALL, "id": "toolu_9", "name": "other"}]),
    max_size=4,
    unique_by=lambda block: block.get("id", block["type"]),
).map(lambda found: sorted(found, key=lambda block: ["thinking", "text", "tool_use"].index(block["type"])))
places = st.lists(st.integers(0, 10_000), max_size=12)


@given(blocks, st.integers(1, 6), places)
def test_a_stream_cut_at_any_byte_says_the_same(content: list[Json], pieces: int, at: list[int]) -> None:
    """Whatever the network does to the events of an Anthropic upstream."""
    stream = b"".join(messages.events(*content, pieces=pieces))
    assert chunks(decoded(cut(stream, at))) == chunks(decoded([stream]))


@given(blocks, st.integers(1, 6), places)
def test_events_that_became_chunks_become_the_same_message(content: list[Json], pieces: int, at: list[int]) -> None:
    """An Anthropic answer that came through OpenAI's protocol is the same, but for the signature of its thinking."""
    stream = decoded(messages.events(*content, pieces=pieces))
    message = messages.assembled(messages.read(fed(AnthropicRelay("m"), cut(stream, at))))
    expected = [{**block, "signature": UNSIGNED} if block["type"] == "thinking" else block for block in content]
    assert without_caller(message["content"]) == expected
    whole = json.loads(to_message(to_completion(json.dumps(messages.message(*content)).encode(), 0), "m"))
    assert without_caller(whole["content"]) == expected


# --- Anthropic's answers as they came ---------------------------------------------------------------------------------

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}


@given(blocks.map(lambda found: [*found, SEARCH]), st.integers(1, 6), places)
@example([SEARCH, TEXT], 2, [])
def test_an_anthropic_stream_passes_byte_for_byte(content: list[Json], pieces: int, at: list[int]) -> None:
    """Also events and blocks that have no counterpart; what it said is known all the same."""
    stream = b"".join(messages.events(*content, pieces=pieces)).replace(
        b"event: message_stop", b'event: new_thing\ndata: {"type":"new_thing"}\n\nevent: message_stop'
    )
    relay = PassingRelay("m")
    assert fed(relay, cut(stream, at)) == stream
    assert relay.done
    assert relay.finished
    assert relay.usage is not None
    assert (relay.usage.input_tokens, relay.usage.output_tokens) == (9, 4)
    assert not relay.transcript.is_resumable


@given(blocks, st.integers(1, 6), st.integers(0, 40))
def test_a_broken_anthropic_stream_goes_on_from_a_target_of_the_other_protocol(
    content: list[Json], pieces: int, kept: int
) -> None:
    """The caller gets one message in the protocol's order, as if nothing had happened."""
    content = [block for block in content if block["type"] != "thinking"]
    first = messages.events(*content, pieces=pieces)
    kept = min(kept, len(first) - 3)  # Its message_delta has not come.
    relay = PassingRelay("m")
    out = relay.feed(b"".join(first[:kept]) + b"event: content_blo")
    relay.forget_tail()
    assert relay.transcript.is_resumable
    resumption = Resumption(relay.transcript)
    second = decoded(messages.events(*content, pieces=pieces + 1))
    for event in sse.EventSplitter().feed(second):
        out += relay.feed(resumption.feed(event))
    assert not resumption.diverged
    assert relay.done
    assert without_caller(messages.assembled(messages.read(out))["content"]) == content


def test_an_anthropic_stream_without_its_last_event_is_completed() -> None:
    """After the reason to stop nothing is missing but the mark."""
    events = messages.events(TEXT)
    relay = PassingRelay("m")
    out = fed(relay, events[:-1])
    assert relay.done
    assert messages.assembled(messages.read(out))["stop_reason"] == "end_turn"


def test_an_error_event_of_an_anthropic_stream_breaks_it() -> None:
    """It is not passed on as it came: the gateway may go on, and else tells the caller itself."""
    relay = PassingRelay("m")
    out = relay.feed(b"".join(messages.events(TEXT)[:3]))
    out += relay.feed(messages.event(messages.error("overloaded_error", "Overloaded")))
    assert relay.error is not None
    assert b"overloaded" not in out


def test_hidden_thinking_counts_as_a_beginning() -> None:
    """A model that keeps its thoughts back sends only pings for long: that is no silence before the first word."""
    relay = PassingRelay("m")
    start, ping = messages.events(TEXT)[:2]
    thinking = messages.block_events(0, {**THINKING, "thinking": ""})[0]
    states = []
    for event in (start, ping, thinking):
        relay.feed(event)
        states.append((relay.begun, relay.heard))
    assert states == [(False, True), (False, False), (True, True)]


def test_a_whole_message_passes_as_it_came_and_is_counted() -> None:
    """It is read only to see that it is one."""
    asked = decode_call(b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}]}', drops_parts=False)
    body = json.dumps(messages.message(TEXT, SEARCH, new=1), indent=1).encode()
    passed, usage = PASSING.encode_whole(asked, body)
    assert passed == body
    assert usage is not None
    assert usage.output_tokens == 4
    for broken in (b"{}", json.dumps(messages.error("api_error", "x")).encode()):
        with pytest.raises(UpstreamError):
            PASSING.encode_whole(asked, broken)


def test_what_was_written_is_counted_where_nobody_counts() -> None:
    """The ledger's estimate looks at the text of either protocol's answer."""
    whole = json.dumps(messages.message(TEXT, CALL, usage=None)).encode()
    assert openai_chat.written_bytes(whole) == len("One two three." + "look" + "sea")
    assert openai_chat.written_bytes(answer_saying(content="One two three.")) == len("One two three.")


def test_the_dialect_answers_with_what_was_asked() -> None:
    """The stop sequences of the call decide what its end is called, whole and streamed."""
    asked = AnthropicDialect().decode(
        b'{"model":"m","max_tokens":1,"stop_sequences":["END"],"messages":[{"role":"user","content":"x"}]}', ""
    )
    whole, usage = AnthropicDialect().encode_whole(asked, answer_saying(content="a", stop_reason="END"))
    assert json.loads(whole)["stop_reason"] == "stop_sequence"
    assert usage is not None
    last = scripts.chunk({}, finish="stop")
    last["choices"][0]["stop_reason"] = "END"
    events = fed(
        AnthropicDialect().relay(asked), [scripts.event(scripts.chunk({"content": "a"})), scripts.event(last), DONE]
    )
    assert messages.assembled(messages.read(events))["stop_sequence"] == "END"
