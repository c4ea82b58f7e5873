"""OpenAI chunks as Ollama's lines, one chunk after the other.

Pure but for the clocks. A tool's call is told as a whole, before the last line, since Ollama has no pieces of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatgate.protocols.ollama.answer import (
    UNREADABLE,
    Shape,
    Times,
    counts_of,
    done_reason,
    moment,
    ollama_calls,
    ollama_logprobs,
)

if TYPE_CHECKING:
    from chatgate.protocols.ollama.call import Clocks
    from chatgate.protocols.reading import Json

_encode = msgspec.json.Encoder().encode


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
    reasoning_content: Any = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Encoder:
    """Writes the lines of one answer."""

    __slots__ = ("_began_at", "_calls", "_clocks", "_finish", "_model", "_shape", "_spoke_at", "_usage")

    def __init__(self, shape: Shape, model: str, clocks: Clocks, began_at: float) -> None:
        """`model` is what the caller asked for; `began_at` is when, on the monotonic clock."""
        self._shape = shape
        self._model = model
        self._clocks = clocks
        self._began_at = began_at
        self._spoke_at: float | None = None
        self._calls: dict[int, Json] = {}
        self._finish: object = None
        self._usage: object = None

    def take(self, data: bytes) -> bytes:
        """Return the lines for a chunk; b"" for what is none. Raises `UpstreamError` when they cannot be written."""
        try:
            chunk = _decode(data)
        except UNREADABLE:
            return b""
        if chunk.usage is not None:
            self._usage = chunk.usage
        return b"".join(self._say(choice) for choice in chunk.choices or () if choice.index == 0)

    def end(self) -> bytes:
        """Return the lines that end the answer. Raises `UpstreamError` when a tool's call cannot be told."""
        calls = ollama_calls(list(self._calls.values()))
        told = self._line(self._shape.said("", calls=calls), done=False) if calls else b""
        times = Times(self._began_at, self._spoke_at, self._clocks.monotonic())
        last = self._shape.said("") | {"done_reason": done_reason(self._finish)}
        return told + self._line(last | times.fields() | counts_of(self._usage), done=True)

    def _say(self, choice: _Choice) -> bytes:
        delta = choice.delta or _Delta()
        if choice.finish_reason:
            self._finish = choice.finish_reason
        for call in delta.tool_calls or ():
            self._take_call(call)
        thought = delta.reasoning_content or delta.reasoning
        thinking = thought if isinstance(thought, str) else ""
        content = delta.content if isinstance(delta.content, str) else ""
        content += delta.refusal or ""
        if (thinking or content or delta.tool_calls) and self._spoke_at is None:
            self._spoke_at = self._clocks.monotonic()
        if not thinking and not content:
            return b""
        fields = self._shape.said(content, thinking)
        if logprobs := ollama_logprobs(choice.logprobs):
            fields["logprobs"] = logprobs
        return self._line(fields, done=False)

    def _take_call(self, piece: _Call) -> None:
        call = self._calls.setdefault(piece.index, {"function": {"arguments": ""}})
        if piece.id:
            call["id"] = piece.id
        if piece.function is not None:
            if piece.function.name:
                call["function"]["name"] = piece.function.name
            call["function"]["arguments"] += piece.function.arguments or ""

    def _line(self, fields: Json, *, done: bool) -> bytes:
        created_at = moment(self._clocks.wall())
        return _encode({"model": self._model, "created_at": created_at, **fields, "done": done}) + b"\n"
