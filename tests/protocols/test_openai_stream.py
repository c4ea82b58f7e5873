"""The quick look at how an answer begins sees what the close look sees."""

from __future__ import annotations

import pytest

from chatgate.protocols.openai_operations import CompletionRelay
from chatgate.protocols.openai_stream import DONE, OpenAIRelay

ROLE = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
TEXT = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{"content":"one"},"finish_reason":null}]}\n\n'
END = b'data: {"id":"c","created":1,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
BEGINNINGS = {
    "text": [TEXT],
    "role, then text": [ROLE, TEXT],
    "role and text": [TEXT.replace(b'"content"', b'"role":"assistant","content"')],
    "comment": [b": thinking\n\n", TEXT],
    "nothing that is known": [b'data: {"x":1}\n\n', TEXT],
    "cut": [TEXT[:40], TEXT[40:]],
    "cut after a line": [TEXT[:-1], TEXT[-1:]],
    "cut in the next line": [TEXT[:-1] + b"i", b"d: 7\n\n"],
    "several": [ROLE + TEXT + TEXT],
    "CRLF": [TEXT.replace(b"\n", b"\r\n")],
    "two choices": [ROLE, TEXT.replace(b'"index":0', b'"index":1'), TEXT],
    "another choice": [TEXT.replace(b'"index":0', b'"index":1')],
    "no index": [TEXT.replace(b'"index":0,', b"")],
    "an odd reason": [TEXT.replace(b"null", b'""')],
    "end": [TEXT.replace(b"null", b'"stop"')],
    "refusal": [TEXT.replace(b'"content"', b'"refusal"')],
    "tool call": [TEXT.replace(b'{"content":"one"}', b'{"tool_calls":[{"index":0}]}')],
    "usage": [TEXT.replace(b'"id"', b'"usage":{"prompt_tokens":1,"completion_tokens":1},"id"')],
    "no usage": [TEXT.replace(b'"id"', b'"usage":null,"error":null,"id"')],
    "error": [TEXT.replace(b'"id"', b'"error":{"message":"m","code":"c"},"id"')],
    "an empty error": [TEXT.replace(b'"id"', b'"error":{},"id"')],
    "whole": [END],
    "end mark": [DONE],
}


@pytest.mark.parametrize("relay_type", [OpenAIRelay, CompletionRelay])
@pytest.mark.parametrize("pieces", BEGINNINGS.values(), ids=BEGINNINGS)
def test_how_an_answer_begins_is_seen_by_both_looks(relay_type: type[OpenAIRelay], pieces: list[bytes]) -> None:
    """What is passed on is the same, and so is all that is known after each piece, and after the rest."""
    quick, close = relay_type(hide_usage=True), relay_type(hide_usage=True)
    for piece in [*pieces, TEXT, TEXT, END, DONE]:
        is_over = quick.begun or quick.is_over
        assert (quick.feed(piece) if is_over else quick.begin(piece)) == close.feed(piece)
        assert known(quick) == known(close)


def known(relay: OpenAIRelay) -> list[object]:
    """Return what a relay knows."""
    transcript = relay.transcript
    return [
        *(relay._choices, relay._usual, relay._going_on, relay._suspended),
        *(relay.begun, relay.done, relay.finished, relay.heard, relay.usage, relay.error and relay.error.reason),
        *(relay._splitter.tail, transcript.is_resumable, transcript.texts, transcript.content_chunks),
    ]
