"""OpenAI chunks as Anthropic events, one chunk after the other.

Owns the order of the events: `message_start`; for each block its start, deltas and stop; `message_delta`;
`message_stop`. Blocks follow each other, as the protocol wants it. Pure; used by the relay to Anthropic callers.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chatgate.protocols.anthropic.message import (
    UNSIGNED,
    message_of,
    stop_fields,
    stop_of,
    text_block,
    to_anthropic_usage,
    tool_block,
)
from chatgate.protocols.reading import Json
from chatgate.vocabulary.errors import UpstreamError

_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'

Block = tuple[str, int]
"""A block that is open: what it holds, and of a tool call its number, else -1."""

TEXT: Block = "text", -1
THINKING: Block = "thinking", -1


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int = 0
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: Any = None
    stop_reason: Any = None


class _Chunk(Struct, gc=False):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Encoder:
    """Writes the events of one message."""

    __slots__ = ("_begun", "_index", "_is_told", "_model", "_open", "_refused", "_stop", "_stops", "_usage")

    def __init__(self, model: str, stops: tuple[str, ...] = ()) -> None:
        """`model` is reported when the provider names none; `stops` are the caller's stop sequences."""
        self._model = model
        self._stops = stops
        self._begun = False
        self._index = -1
        self._open: Block | None = None
        self._refused = False
        self._stop: tuple[object, object] = (None, None)
        self._usage: object = None
        self._is_told = False

    def go_on(self, index: int, open_block: Block | None, *, is_told: bool) -> None:
        """Begin in the middle of a message that somebody else wrote so far.

        `index` is that of its last block, -1 without one, `open_block` what has not been closed, and `is_told` says
        that the `message_delta` with the reason to stop was written.
        """
        self._begun = True
        self._index, self._open, self._is_told = index, open_block, is_told

    def take(self, data: bytes) -> bytes:
        """Return the events for a chunk; b"" for what is none. Raises `UpstreamError` when they cannot be written."""
        try:
            chunk = _decode(data)
        except _UNREADABLE:
            return b""
        out: list[bytes] = []
        if not self._begun:
            self._begin(chunk, out)
        if chunk.usage is not None:
            self._usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._take_choice(choice, out)
        return b"".join(out)

    def end(self) -> bytes:
        """Return the events that end the message."""
        out: list[bytes] = []
        if not self._begun:
            self._begin(_Chunk(), out)
        if not self._is_told:
            self._close(out)
            self._is_told = True
            reason, sequence = stop_of(*self._stop, refused=self._refused, stops=self._stops)
            delta = {**stop_fields(reason, sequence), "container": None}
            out.append(_event("message_delta", {"delta": delta, "usage": to_anthropic_usage(self._usage)}))
        out.append(STOP)
        return b"".join(out)

    def _begin(self, chunk: _Chunk, out: list[bytes]) -> None:
        self._begun = True
        model = chunk.model if isinstance(chunk.model, str) and chunk.model else self._model
        message = message_of(chunk.id, model, [], stop_fields(None, None), chunk.usage)
        out.append(_event("message_start", {"message": message}))

    def _take_choice(self, choice: _Choice, out: list[bytes]) -> None:
        delta = choice.delta
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if isinstance(thought, str) and thought:
                self._enter(THINKING, {"type": "thinking", "thinking": "", "signature": ""}, out)
                self._delta({"type": "thinking_delta", "thinking": thought}, out)
            if isinstance(delta.content, str) and delta.content:
                self._say(delta.content, out)
            if delta.refusal:
                self._refused = True
                self._say(delta.refusal, out)
            for call in delta.tool_calls or ():
                self._take_call(call, out)
        if choice.finish_reason:
            self._stop = choice.finish_reason, choice.stop_reason
            self._close(out)

    def _say(self, text: str, out: list[bytes]) -> None:
        self._enter(TEXT, text_block(""), out)
        self._delta({"type": "text_delta", "text": text}, out)

    def _take_call(self, call: _Call, out: list[bytes]) -> None:
        function = call.function or _Function()
        place: Block = ("tool", call.index)
        if self._open != place:
            if not function.name:
                raise UpstreamError("upstream_bad_answer")  # It goes on with a call that was never begun, or is over.
            identity = call.id or f"call_{call.index}"
            self._enter(place, tool_block(identity, function.name, {}), out)
        if function.arguments:
            self._delta({"type": "input_json_delta", "partial_json": function.arguments}, out)

    def _enter(self, place: Block, block: Json, out: list[bytes]) -> None:
        """Have a block open, and no other."""
        if self._open == place:
            return
        self._close(out)
        self._open = place
        self._index += 1
        out.append(_event("content_block_start", {"index": self._index, "content_block": block}))
        if self._index == 0:
            out.append(_PING)  # As the vendor's own streams have it; it also shows readers that they must skip it.

    def _delta(self, delta: Json, out: list[bytes]) -> None:
        out.append(_event("content_block_delta", {"index": self._index, "delta": delta}))

    def _close(self, out: list[bytes]) -> None:
        if self._open is None:
            return
        if self._open == THINKING:
            self._delta({"type": "signature_delta", "signature": UNSIGNED}, out)
        self._open = None
        out.append(_event("content_block_stop", {"index": self._index}))


def _event(name: str, fields: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields}))
