"""OpenAI chunks as the pieces of a Gemini stream, one chunk after the other.

Owns what waits: a call of a tool until it is whole, as Gemini's are never cut, and why the answer ended until all of it
is there, as Gemini's streams have no other end mark. Pure; used by the relay to Gemini callers.
Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chatgate.protocols.gemini.answer import Call, Function, call_parts, candidate, images_in, response_of
from chatgate.protocols.gemini.counts import gemini_reason, to_gemini_logprobs
from chatgate.protocols.reading import Json

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.Encoder().encode


class _Delta(Struct, gc=False):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[Call] | None = None
    images: Any = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None


class _Chunk(Struct, gc=False):
    id: Any = None
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class _Open(Struct):
    """A choice that has begun: its calls by their numbers, and why it ended."""

    calls: dict[int, Call]
    is_refused: bool = False
    finish: str | None = None


class Encoder:
    """Writes the pieces of one answer."""

    __slots__ = ("_choices", "_identity", "_model", "_shows_thoughts", "_usage")

    def __init__(self, model: str, *, shows_thoughts: bool) -> None:
        """`model` is reported when the provider names none; `shows_thoughts` says that the caller wants to see them."""
        self._model = model
        self._identity: object = None
        self._shows_thoughts = shows_thoughts
        self._choices: dict[int, _Open] = {}
        self._usage: object = None

    def go_on(self, identity: str, model: str) -> None:
        """Begin in the middle of an answer that somebody else wrote so far, under its id and model."""
        self._identity, self._model = identity, model

    def take(self, data: bytes) -> bytes:
        """Return the piece for a chunk; b"" for what says nothing yet. Raises `UpstreamError` for a broken call."""
        try:
            chunk = _decode(data)
        except _UNREADABLE:
            return b""
        self._identity = self._identity or chunk.id
        if isinstance(chunk.model, str) and chunk.model:
            self._model = chunk.model
        if chunk.usage is not None:
            self._usage = chunk.usage
        candidates = [told for choice in chunk.choices or () if (told := self._choice(choice)) is not None]
        return self._piece(candidates) if candidates else b""

    def end(self) -> bytes:
        """Return the piece that ends the answer."""
        ends = [
            candidate(index, [{"text": ""}], each.finish or "STOP") for index, each in sorted(self._choices.items())
        ]
        return self._piece(ends or [candidate(0, [{"text": ""}], "STOP")], self._usage)

    def _piece(self, candidates: list[Json], usage: object = None) -> bytes:
        return _encode(response_of(self._identity, self._model, candidates, usage))

    def _choice(self, choice: _Choice) -> Json | None:
        """Return what a choice says now, None when that is nothing."""
        known = self._choices.get(choice.index)
        if known is None:
            known = self._choices[choice.index] = _Open({})
        delta = choice.delta or _Delta()
        parts: list[Json] = []
        thought = delta.reasoning_content or delta.reasoning
        if self._shows_thoughts and isinstance(thought, str) and thought:
            parts.append({"text": thought, "thought": True})
        if isinstance(delta.content, str) and delta.content:
            parts.append({"text": delta.content})
        if delta.refusal:
            known.is_refused = True
            parts.append({"text": delta.refusal})
        if delta.images is not None:
            parts += images_in(delta.images)
        for call in delta.tool_calls or ():
            _gather(known.calls, call)
        if choice.finish_reason:
            parts += call_parts(call for _, call in sorted(known.calls.items()))
            known.calls.clear()
            known.finish = gemini_reason(choice.finish_reason, refused=known.is_refused)
        likely = to_gemini_logprobs(choice.logprobs)
        if not parts and likely is None:
            return None
        told = candidate(choice.index, parts)
        return told if likely is None else {**told, "logprobsResult": likely}


def _gather(calls: dict[int, Call], piece: Call) -> None:
    """Put a piece of a call to what there is of it."""
    call = calls.get(piece.index)
    if call is None:
        calls[piece.index] = piece
        return
    function, more = call.function or Function(), piece.function or Function()
    call.id = call.id or piece.id
    call.extra_content = call.extra_content or piece.extra_content
    call.function = Function(function.name or more.name, (function.arguments or "") + (more.arguments or ""))
