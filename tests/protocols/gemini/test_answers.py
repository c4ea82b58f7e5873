"""Gemini's answers as OpenAI's and OpenAI's as Gemini's, whole and streamed, cut anywhere and gone on with."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols import openai_chat, sse
from chatgate.protocols.gemini.answer import to_completion, to_response, usage_in
from chatgate.protocols.gemini.call import decode_call
from chatgate.protocols.gemini.counts import to_gemini_usage, to_openai_usage
from chatgate.protocols.gemini.decoder import StreamDecoder
from chatgate.protocols.gemini.dialect import GeminiDialect
from chatgate.protocols.gemini.relay import GeminiRelay, PassingRelay
from chatgate.protocols.gemini.signatures import UNSIGNED
from chatgate.protocols.openai_stream import DONE, OpenAIRelay, Relay
from chatgate.protocols.resume import Resumption
from chatgate.vocabulary.errors import CallerError, UpstreamError
from fakes import candidates, scripts
from fakes.vendor_schemas import check

Json = dict[str, Any]
TEXT = candidates.text("One two three.")
THOUGHT = {"text": "Hm, so.", "thought": True}
CALL = {"functionCall": {"id": "c1", "name": "look", "args": {"at": "sea"}}, "thoughtSignature": "c2ln"}
SECOND = {"functionCall": {"id": "c2", "name": "other", "args": {}}}
IMAGE = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    """Cut a stream at these places."""
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


def decoded(pieces: Iterable[bytes]) -> bytes:
    """Return the OpenAI stream of a Gemini stream."""
    decoder = StreamDecoder(0)
    return b"".join(map(decoder.feed, pieces)) + decoder.end()


def fed(relay: Relay, pieces: Iterable[bytes]) -> bytes:
    """Return what a caller gets of a stream that ends regularly."""
    return b"".join(map(relay.feed, pieces)) + (b"" if relay.is_over else relay.end())


def gemini_relay(*, in_array: bool = False) -> GeminiRelay:
    """Return a relay for a caller who wants to see thoughts."""
    return GeminiRelay("m", shows_thoughts=True, in_array=in_array)


def passing(*, in_array: bool = False) -> PassingRelay:
    """Return a relay between two that speak Gemini's protocol."""
    return PassingRelay("m", shows_thoughts=True, in_array=in_array)


def parts_of(found: list[Json]) -> list[Json]:
    """Return what the only candidate of a stream's pieces says."""
    parts: list[Json] = candidates.assembled(found)["candidates"][0]["content"]["parts"]
    return parts


def response(*parts: Json, **more: Any) -> bytes:
    """Return the body of a response."""
    return json.dumps(candidates.response(*parts, **more)).encode()


# --- Whole answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SOMETHING_NEW", "stop"),
    ],
)
def test_reasons_to_stop(theirs: str, ours: str) -> None:
    """Each has its word in the other protocol; a new one is taken for the usual end."""
    told = json.loads(to_completion(response(TEXT, finish=theirs), 0))
    assert told["choices"][0]["finish_reason"] == ours


@pytest.mark.parametrize("finish", ["MALFORMED_FUNCTION_CALL", "OTHER", "NO_IMAGE", "MALFORMED_RESPONSE"])
def test_answers_that_failed_are_errors(finish: str) -> None:
    """Whole and streamed: what there is of them is not to be taken for whole."""
    with pytest.raises(UpstreamError) as failed:
        openai_chat.check_answer(to_completion(response(TEXT, finish=finish), 0))
    assert failed.value.provider_code == finish
    relay = OpenAIRelay(hide_usage=True)
    relay.feed(decoded(candidates.events(TEXT, finish=finish)))
    assert relay.error is not None
    assert not relay.done


def test_tokens_are_the_same_either_way() -> None:
    """Thoughts are part of OpenAI's output and beside Gemini's; what tools sent is part of the input."""
    theirs = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 2,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 3,
        "totalTokenCount": 20,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "AUDIO", "tokenCount": 6}],
    }
    ours = to_openai_usage(theirs)
    assert ours == {
        "prompt_tokens": 12,
        "completion_tokens": 8,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 6},
        "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0},
    }
    assert to_gemini_usage(ours) == {
        "promptTokenCount": 12,
        "candidatesTokenCount": 5,
        "totalTokenCount": 20,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
    }
    assert to_openai_usage({}) is None
    assert to_gemini_usage(None) == {}


def test_likelihoods_are_carried() -> None:
    """Of each token and of those that might have been in its place."""
    chosen = {"token": "é", "logProbability": -0.5}
    likely = {
        "chosenCandidates": [chosen],
        "topCandidates": [{"candidates": [chosen, {"token": "x", "logProbability": -2}]}],
    }
    body = candidates.response(TEXT)
    body["candidates"][0]["logprobsResult"] = likely
    completion = to_completion(json.dumps(body).encode(), 0)
    told = json.loads(completion)["choices"][0]["logprobs"]["content"][0]
    assert (told["token"], told["logprob"], told["bytes"]) == ("é", -0.5, [195, 169])
    back = json.loads(to_response(completion, "m", shows_thoughts=False))
    check("gemini", "GenerateContentResponse", back)
    assert back["candidates"][0]["logprobsResult"] == likely


def test_a_refusal_is_a_text_that_was_stopped() -> None:
    """The caller reads it, and sees why there is no more."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "No."}, "finish_reason": "stop"}
    body = json.dumps(scripts.completion("", choices=[choice])).encode()
    told = json.loads(to_response(body, "m", shows_thoughts=False))["candidates"][0]
    assert (told["content"]["parts"], told["finishReason"]) == ([{"text": "No."}], "SAFETY")


def test_thoughts_are_shown_to_who_asked_for_them() -> None:
    """Other callers get the answer alone."""
    completion = to_completion(response(THOUGHT, TEXT), 0)
    for wanted in (True, False):
        told = json.loads(to_response(completion, "m", shows_thoughts=wanted))
        assert told["candidates"][0]["content"]["parts"] == ([THOUGHT, TEXT] if wanted else [TEXT])
    for wanted in (True, False):
        config = {"thinking_config": {"includeThoughts": wanted}}
        body = json.dumps({"contents": [{"parts": [TEXT]}], "generationConfig": config}).encode()
        asked = GeminiDialect().decode(body, "", "m:generateContent")
        told, _ = GeminiDialect().encode_whole(asked, completion)
        assert (b"Hm, so." in told) == wanted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"candidates":5}',
        b'{"candidates":[5]}',
        b'{"candidates":[{"content":{"parts":5}}]}',
        b'{"candidates":[{"content":5}]}',
        b'{"error":{"code":500,"message":"x","status":"INTERNAL"}}',
    ],
)
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    """Whether it is translated or passes."""
    with pytest.raises(UpstreamError):
        openai_chat.check_answer(to_completion(body, 0))


@pytest.mark.parametrize("arguments", ["{", "[]", "5"])
def test_a_call_whose_arguments_are_none_is_a_bad_answer(arguments: str) -> None:
    """Gemini has no place for them: neither whole nor streamed."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    with pytest.raises(UpstreamError):
        to_response(json.dumps(scripts.completion("", choices=choices)).encode(), "m", shows_thoughts=False)
    relay = gemini_relay()
    pieces = [scripts.chunk({"tool_calls": [call]}), scripts.chunk({}, finish="tool_calls")]
    relay.feed(b"".join(map(scripts.event, pieces)) + DONE)
    assert relay.error is not None
    assert not relay.done


def test_a_call_of_nobodys_is_marked_for_the_way_back() -> None:
    """Gemini would refuse it unsigned; the next answer of the same dialogue may be Gemini's."""
    calls = [{"id": each, "type": "function", "function": {"name": "f", "arguments": ""}} for each in "ab"]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls"}]
    told = to_response(json.dumps(scripts.completion("", choices=choices)).encode(), "m", shows_thoughts=False)
    first, second = json.loads(told)["candidates"][0]["content"]["parts"]
    assert (first["thoughtSignature"], "thoughtSignature" in second) == (UNSIGNED, False)
    back = json.loads(to_completion(told, 0))["choices"][0]["message"]["tool_calls"]
    assert back == [{**each, "function": {"name": "f", "arguments": "{}"}} for each in calls]


def test_a_response_that_passes_is_counted() -> None:
    """Also one whose answer failed, which is the caller's to read."""
    for finish in ("STOP", "MALFORMED_FUNCTION_CALL"):
        usage = openai_chat.read_usage(usage_in(response(TEXT, finish=finish)))
        assert usage is not None
        assert (usage.input_tokens, usage.output_tokens) == (9, 4)
    assert openai_chat.written_bytes(response(TEXT, CALL)) == len("One two three." + "look" + "sea")


# --- Streams ----------------------------------------------------------------------------------------------------------

contents = st.lists(st.sampled_from([THOUGHT, TEXT, IMAGE, CALL, SECOND]), min_size=1, max_size=5, unique_by=id).map(
    lambda found: sorted(found, key=[THOUGHT, TEXT, IMAGE, CALL, SECOND].index)
)
places = st.lists(st.integers(0, 10_000), max_size=12)


def signed(parts: list[Json]) -> list[Json]:
    """Return the parts as they come out of a chat: the first call has a signature, if only the mark of none."""
    first = next((part for part in parts if "functionCall" in part), None)
    return [{"thoughtSignature": UNSIGNED, **part} if part is first else part for part in parts]


def without_ids(stream: bytes) -> list[Any]:
    """Return the data of an OpenAI stream's events."""
    return [
        json.loads(each) if each != b"[DONE]" else None
        for each in map(sse.data_of, sse.EventSplitter().feed(stream))
        if each
    ]


@given(contents, st.integers(1, 6), places)
def test_a_stream_cut_at_any_byte_says_the_same(parts: list[Json], pieces: int, at: list[int]) -> None:
    """Whatever the network does to the pieces of a Gemini upstream."""
    stream = b"".join(candidates.events(*parts, pieces=pieces))
    whole = without_ids(decoded([stream]))
    assert whole[-1] is None
    assert whole[-2]["usage"]["completion_tokens"] == 4
    assert without_ids(decoded(cut(stream, at))) == whole


@given(contents, st.integers(1, 6), places, st.booleans())
def test_pieces_that_became_chunks_become_the_same_answer(
    parts: list[Json],
    pieces: int,
    at: list[int],
    in_array: bool,  # noqa: FBT001 - drawn
) -> None:
    """A Gemini answer that came through OpenAI's protocol is the same, as events and as an array."""
    stream = decoded(candidates.events(*parts, pieces=pieces))
    out = fed(gemini_relay(in_array=in_array), cut(stream, at))
    found = json.loads(out) if in_array else candidates.read(out)
    for each in found:
        check("gemini", "GenerateContentResponse", each)
    assert parts_of(found) == signed(parts)
    assert found[-1]["usageMetadata"]["thoughtsTokenCount"] == 1
    whole = json.loads(to_response(to_completion(response(*parts), 0), "m", shows_thoughts=True))
    assert whole["candidates"][0]["content"]["parts"] == signed(parts)


@given(contents, st.integers(1, 6), places)
def test_a_gemini_stream_passes_byte_for_byte(parts: list[Json], pieces: int, at: list[int]) -> None:
    """Also pieces and parts that have no counterpart; what it said is known all the same."""
    events = candidates.events(*parts, {"executableCode": {"code": "1"}}, pieces=pieces)
    stream = b"".join([*events[:-1], candidates.event({"newThing": 1}), events[-1]])
    relay = passing()
    assert fed(relay, cut(stream, at)) == stream
    assert relay.done
    assert relay.usage is not None
    assert (relay.usage.input_tokens, relay.usage.output_tokens) == (9, 4)
    assert not relay.transcript.is_resumable
    told = json.loads(fed(passing(in_array=True), cut(stream, at)))
    assert told == candidates.read(stream)


@given(st.integers(1, 6), st.integers(0, 6), st.booleans(), places)
def test_a_broken_gemini_stream_goes_on_from_a_target_of_another_protocol(
    pieces: int,
    kept: int,
    in_array: bool,  # noqa: FBT001 - drawn
    at: list[int],
) -> None:
    """The caller gets one answer, as if nothing had happened, under the first one's id."""
    first = candidates.events(THOUGHT, TEXT, pieces=pieces)
    relay = passing(in_array=in_array)
    out = b"".join(map(relay.feed, cut(b"".join(first[: min(kept, len(first) - 1)]), at))) + relay.feed(b'data: {"cand')
    relay.forget_tail()
    resumption = Resumption(relay.transcript)
    second = decoded(candidates.events(THOUGHT, TEXT, pieces=pieces + 1)).replace(b"r01", b"r02")
    for event in sse.EventSplitter().feed(second):
        out += relay.feed(resumption.feed(event))
    assert not resumption.diverged
    assert relay.done
    found = json.loads(out) if in_array else candidates.read(out)
    assert parts_of(found) == [THOUGHT, TEXT]
    assert len({each["responseId"] for each in found}) == 1


def test_a_stream_that_did_not_say_why_it_ended_was_cut() -> None:
    """There is no other end mark: neither is it passed off as whole, nor translated into a whole one."""
    events = candidates.events(TEXT, finish=None)
    assert b"[DONE]" not in decoded(events)
    for relay in (passing(), passing(in_array=True)):
        fed(relay, events)
        assert relay.error is not None
        assert relay.error.reason == "upstream_cut"


def test_what_ends_an_answer_waits_for_its_end() -> None:
    """Its caller may only see it when the call is written down."""
    *before, last = candidates.events(TEXT)
    relay = passing()
    assert relay.feed(b"".join(before)) == b"".join(before)
    assert relay.feed(last) == b""
    assert (relay.finished, relay.done) == (True, False)
    assert relay.complete() == last


def test_an_error_in_a_stream_is_an_error() -> None:
    """As Google writes it, bare, or as an event's data; it is not passed on."""
    body = candidates.error(503, "UNAVAILABLE", "Overloaded")
    bare = json.dumps(body, indent=1).encode() + b"\n\n"
    for event in (bare, candidates.event(body)):
        relay = OpenAIRelay(hide_usage=True)
        relay.feed(decoded([*candidates.events(TEXT)[:1], event]))
        passed = passing()
        out = passed.feed(candidates.events(TEXT)[0]) + passed.feed(event)
        for broken in (relay, passed):
            assert broken.error is not None
            assert (broken.error.provider_message, broken.error.provider_code) == ("Overloaded", "UNAVAILABLE")
        assert b"Overloaded" not in out


def test_comments_become_what_googles_clients_can_skip() -> None:
    """They would take a comment for an answer that they cannot read."""
    relay = gemini_relay()
    assert relay.feed(b": OPENROUTER PROCESSING\n\n") == b"\n"
    assert GeminiDialect().keep_alive == GeminiDialect(in_array=True).keep_alive == b"\n"


def test_several_candidates_keep_their_places() -> None:
    """An answer is whole when all of them are."""
    chunks = [
        {"choices": [{"index": index, "delta": {"content": said}}]} for index, said in ((0, "a"), (1, "b"), (0, "c"))
    ]
    ends = [
        {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}
        for index, reason in ((1, "length"), (0, "stop"))
    ]
    relay = gemini_relay()
    found = candidates.read(fed(relay, [*map(scripts.event, [*chunks, *ends]), DONE]))
    assert [each["candidates"][0]["index"] for each in found[:-1]] == [0, 1, 0]
    assert [(each["index"], each["finishReason"]) for each in found[-1]["candidates"]] == [
        (0, "STOP"),
        (1, "MAX_TOKENS"),
    ]


def test_what_is_asked_is_in_the_url() -> None:
    """The model, colons of its own included, and whether for a stream; the body says how much."""
    body = b'{"contents":[{"parts":[{"text":"x"}]}],"generation_config":{"maxOutputTokens":7,"candidateCount":2}}'
    chat = decode_call(body, "llama3:8b:streamGenerateContent", drops_parts=False).chat
    assert (chat.asked_model, chat.stream, chat.max_tokens, chat.choices) == ("llama3:8b", True, 7, 2)
    assert not decode_call(body, "demo/echo:generateContent", drops_parts=False).chat.stream


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": {}}, "contents"),
        ({"contents": [{"role": 5}]}, "contents[0].role"),
        ({"contents": [{}], "system_instruction": "S"}, "systemInstruction"),
        ({"contents": [{}], "generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"contents": [{}], "generationConfig": {"candidateCount": 10**9}}, "generationConfig.candidateCount"),
        ({"contents": [{}], "generation_config": {"thinkingConfig": 5}}, "generationConfig.thinkingConfig"),
    ],
)
def test_what_is_no_request_is_refused_by_its_field(body: Json, param: str) -> None:
    """Before anybody is asked, also where bytes would pass."""
    with pytest.raises(CallerError) as refused:
        decode_call(json.dumps(body).encode(), "m:generateContent", drops_parts=True)
    assert refused.value.param == param


def test_a_dialogue_is_known_again_when_it_goes_on() -> None:
    """By its system text and first question: both stay, whatever follows."""
    first = {"systemInstruction": {"parts": [{"text": "S"}]}, "contents": [{"role": "user", "parts": [{"text": "a"}]}]}
    later = {**first, "contents": [*first["contents"], {"role": "model", "parts": [{"text": "b"}]}]}
    turns = [
        list(decode_call(json.dumps(each).encode(), "m:generateContent", drops_parts=False).chat.turns)
        for each in (first, later)
    ]
    assert [each.role for each in turns[1]] == ["system", "user", "assistant"]
    assert [bytes(each.content) for each in turns[0] if not isinstance(each.content, str)] == [
        bytes(each.content) for each in turns[1][:2] if not isinstance(each.content, str)
    ]
