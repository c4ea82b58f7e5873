"""What the chunks of a stream have in common: a form is proven, and fits nothing that adds more than text."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatgate.protocols.chunk_form import NO_FORM, form_of, is_text
from chatgate.protocols.openai_stream import OpenAIRelay

HEAD = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)


def event(delta: bytes = b'{"content":"one"}', rest: bytes = b"") -> bytes:
    """Write a chunk with one choice."""
    return HEAD + b'"choices":[{"index":0,"delta":' + delta + b',"finish_reason":null' + rest + b"}]}\n\n"


@pytest.mark.parametrize(
    "delta",
    [
        b'{"content":"one"}',
        b'{"role":"assistant","content":"one"}',
        b'{"content":"\\u4e00\\n"}',
        b'{"content":"\xd1\x8f"}',
        b'{"content":"\\ud83d\\ude00"}',
    ],
)
def test_a_piece_of_text_has_a_form(delta: bytes) -> None:
    """What stands before and after the text is the form."""
    form = form_of(event(delta))
    assert form is not None
    assert form.head.endswith(b'"content":"')
    assert form.tail == b'"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize(
    "whole",
    [
        event(b'{"content":""}'),
        event(b'{"content":null}'),
        event(b'{"content": "one"}'),
        event(b'{"role":"assistant"}'),
        event(b'{"content":"one","tool_calls":[]}'),
        event(b'{"content":"one","refusal":"one"}'),
        event(b'{"content":"one","content":"one"}'),
        event(b'{"content":"one"}', b',"delta":{"content" :"one"}'),
        event(b'{"content":"one"}', b',"logprobs":{}'),
        event().replace(b"null", b'"stop"'),
        event().replace(b'"index":0', b'"index":1'),
        event().replace(b'"choices"', b'"others"'),
        HEAD + b'"x":{"content":"one"},"choices":[{"index":0,"delta":{"content" :"one"}}]}\n\n',
        HEAD + b'"choices":[{"delta":{"content":"one"}},{"index":0,"delta":{}}]}\n\n',
        event(b'{"content":"\\"one"}'),
        b'data: {"content":"one',
        b'data: "content":"one"\n\n',
        b": nothing\n\n",
        b"",
    ],
)
def test_what_is_more_or_less_has_none(whole: bytes) -> None:
    """Another place for the text, another choice, something beside it, or something unreadable."""
    assert form_of(whole) is None


@given(text=TEXTS, in_ascii=st.booleans())
def test_whatever_is_text_can_stand_there(text: str, *, in_ascii: bool) -> None:
    """A chunk of a form adds what stands there, and nothing else changes."""
    form = form_of(event())
    assert form is not None
    written = json.dumps(text, ensure_ascii=in_ascii).encode()[1:-1]
    assert bool(is_text(written)) is bool(text)
    chunk = json.loads((form.head + written + form.tail)[6:])
    assert chunk["choices"] == [{"index": 0, "delta": {"content": text}, "finish_reason": None}]


@pytest.mark.parametrize(
    "piece",
    [
        b'"',
        b'a"b',
        b"\\",
        b"a\\",
        b"\\x",
        b"\\u12g4",
        b"\\u123",
        b"\\ud83d",
        b"\\ude00",
        b"\\ud83d\\ud83d",
        b"\n",
        b"a\x00",
        b"",
    ],
)
def test_what_would_end_or_break_the_text_is_none(piece: bytes) -> None:
    """A quotation mark, half an escape, a control character, nothing."""
    assert not is_text(piece)


def test_no_form_fits_nothing() -> None:
    """Not even what it seems to begin with."""
    assert not event().startswith(NO_FORM.head)


class Slow(OpenAIRelay):
    """Decodes every event, as is done for other protocols."""

    __slots__ = ()

    passes_events = False


def chunks(piece: dict[str, Any] | bytes) -> bytes:
    """Write a delta as an event, or what is none as it is."""
    return piece if isinstance(piece, bytes) else event(json.dumps(piece, separators=(",", ":")).encode())


DELTAS = st.one_of(
    st.builds(lambda text: {"content": text}, TEXTS),
    st.builds(lambda text: {"reasoning_content": text}, TEXTS),
    st.builds(
        lambda text: {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": text}}]}, TEXTS
    ),
    st.sampled_from(
        [
            b": comment\n\n",
            event().replace(b"1700000000", b"1700000001"),
            event().replace(b"}\n\n", b',"obfuscation":"x"}\n\n'),
            event().replace(b"null", b'"stop"'),
            HEAD + b'"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n',
            event(b'{"content":"\\ud83d"}'),
            event(b'{"content":"\xff"}'),
            event().replace(b"\n\n", b"\r\n\r\n"),
            event().replace(b"data: ", b"data:"),
            b'data: {"error":{"message":"No."}}\n\n',
            b"data: [DONE]\n\n",
            b"data: {broken\n\n",
        ]
    ),
)


@given(
    deltas=st.lists(st.one_of(DELTAS, st.just(event())), max_size=14),
    places=st.lists(st.integers(0, 4000), max_size=10),
    by_event=st.booleans(),
)
def test_known_forms_make_no_difference(deltas: list[Any], places: list[int], *, by_event: bool) -> None:
    """What the caller gets, what was said, what was counted and how it ended are those of decoding every event."""
    events = [chunks(delta) for delta in ({"content": "first"}, *deltas)]
    stream = b"".join(events)
    at = sorted({0, *(place for place in places if place < len(stream)), len(stream)})
    pieces = events if by_event else [stream[a:b] for a, b in itertools.pairwise(at)]
    quick, slow = OpenAIRelay(hide_usage=True), Slow(hide_usage=True)
    out = b"".join(quick.feed(piece) for piece in pieces)
    assert out == b"".join(slow.feed(piece) for piece in pieces)
    assert quick.end() == slow.end()
    for name in ("begun", "done", "finished", "usage"):
        assert getattr(quick, name) == getattr(slow, name)
    assert repr(quick.error) == repr(slow.error)
    assert quick.transcript.is_resumable == slow.transcript.is_resumable
    if quick.transcript.is_resumable:
        for name in ("id", "created", "model", "texts", "calls", "finish_reasons", "choices", "content_chunks"):
            assert getattr(quick.transcript, name) == getattr(slow.transcript, name), name
