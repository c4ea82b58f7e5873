"""What the events of a stream have in common, so that the next one is known without being decoded.

Most chunks of a long answer differ in one place only: the text that they add. Owns how that place is found, and what
may stand there. Must not judge a stream: the relay has looked at an event before it asks for the form.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec
from msgspec import Struct

_CONTENT: Final = b'"content":"'

is_text: Final = re.compile(
    rb"""(?x: [^"\\\x00-\x1f]++ | \\["\\/bfnrt] | \\u(?![dD][89a-fA-F])[0-9a-fA-F]{4}
    | \\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2} )++"""
).fullmatch
"""Matches some text as JSON (RFC 8259 section 7) writes it between quotation marks, whatever its coding.

The escape of half a surrogate pair is no text."""


class ChunkForm(Struct, frozen=True, gc=False):
    """What stands before and after the text in each event, from `data: ` to the empty line."""

    head: bytes
    tail: bytes


NO_FORM: Final = ChunkForm(b"\n", b"")
"""The form of no event."""


class _Delta(Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: str | None = None


class _Choice(Struct, gc=False):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _Chunk(Struct, gc=False):
    choices: tuple[_Choice]


_decode = msgspec.json.Decoder(_Chunk).decode


def form_of(event: bytes) -> ChunkForm | None:
    """Return the form of an event of one line; None when it adds more than text to the first choice.

    Whatever `is_text` stands between head and tail is what an event of this form adds.
    """
    before, mark, rest = event.partition(_CONTENT)
    text = is_text(rest, 0, max(rest.find(b'"'), 0))
    if not text:
        return None
    form = ChunkForm(before + mark, rest[text.end() :])
    try:
        # What is not the text would not follow: this is the proof.
        found = [_decode((form.head + each + form.tail)[6:]).choices[0].delta.content for each in (b"1", b"2")]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return form if found == ["1", "2"] else None
