"""OpenAI chunks as the events of a response, one chunk after the other; a whole completion as a Response object.

Owns the order of the events: `response.created`, `response.in_progress`; each item in turn, from `output_item.added` to
`output_item.done`; and one that ends it all: `response.completed`, `.incomplete` or `.failed`. Items follow each other.
A whole answer is written by the same hand: its message is one chunk, and the events go nowhere. Pure.
Source: https://developers.openai.com/api/reference/resources/responses/streaming-events (read 2026-11-23).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from chatgate.protocols.responses.output import CallItem, Item, MessageItem, ReasoningItem
from chatgate.protocols.responses.session import to_usage
from chatgate.protocols.responses.tools import Name
from chatgate.vocabulary.errors import UpstreamError

if TYPE_CHECKING:
    from chatgate.protocols.reading import Json
    from chatgate.protocols.responses.session import Session

_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: Any = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    tool_calls: list[_Call] | None = None
    annotations: list[Any] | None = None


class _Choice(Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None
    logprobs: Any = None


class _Chunk(Struct, gc=False):
    model: Any = None
    choices: list[_Choice] | None = None
    usage: Any = None
    service_tier: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


class Encoder:
    """Writes one response. `final` is the Response object, once it has ended."""

    __slots__ = (
        "_begun",
        "_call",
        "_events",
        "_finish",
        "_item",
        "_model",
        "_number",
        "_output",
        "_session",
        "_tier",
        "_usage",
        "final",
    )

    def __init__(self, session: Session) -> None:
        """Start before the first event."""
        self._session = session
        self._begun = False
        self._number = 0
        self._events: list[bytes] = []
        self._output: list[Json] = []
        self._item: Item | None = None
        self._call = -1
        self._model: str | None = None
        self._tier: str | None = None
        self._finish: object = None
        self._usage: Json | None = None
        self.final: Json | None = None

    def take(self, data: bytes) -> bytes:
        """Return the events for a chunk; b"" for what is none. Raises `UpstreamError` when they cannot be written."""
        try:
            chunk = _decode(data)
        except _UNREADABLE:
            return b""
        if self.final is not None:
            return b""
        self._note(chunk)
        self._begin()
        for choice in chunk.choices or ():
            if choice.index == 0:
                self._take_choice(choice, choice.delta)
        return self._flush()

    def end(self) -> bytes:
        """Return the events that end the response as the upstream ended it; b"" when it has ended."""
        if self.final is not None:
            return b""
        self._begin()
        why = _INCOMPLETE.get(self._finish) if isinstance(self._finish, str) else None
        status = "incomplete" if why else "completed"
        self._close(status)
        self._conclude(status, incomplete=why)
        return self._flush()

    def fail(self, code: str, message: str, kind: str) -> bytes:
        """Return the event that says that the response broke; `kind` is the gateway's own code for it."""
        if self.final is not None:
            return b""
        self._begin()
        # What is open stays so: the end of a call would tell its caller to carry it out.
        self._conclude("failed", error={"code": code, "message": message, "type": kind})
        return self._flush()

    def whole(self, body: bytes) -> Json:
        """Return the Response object for a whole completion. Raises `UpstreamError` when it is none."""
        try:
            completion = _decode(body)
            choice = (completion.choices or [])[0]
        except (*_UNREADABLE, IndexError):
            raise UpstreamError("upstream_bad_answer") from None
        if choice.message is None:
            raise UpstreamError("upstream_bad_answer")
        for number, call in enumerate(choice.message.tool_calls or ()):
            call.index = number
        self._note(completion)
        self._take_choice(choice, choice.message)
        self.end()
        assert self.final is not None  # noqa: S101 - narrows for the type checker; it has just ended
        return self.final

    def _note(self, chunk: _Chunk) -> None:
        if isinstance(chunk.model, str) and chunk.model:
            self._model = chunk.model
        if isinstance(chunk.service_tier, str):
            self._tier = chunk.service_tier
        self._usage = to_usage(chunk.usage) or self._usage

    def _take_choice(self, choice: _Choice, delta: _Delta | None) -> None:
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if isinstance(thought, str) and thought:
                self._reasoning().think(thought)
            text = _text_of(delta.content)
            if text:
                self._message().say("output_text", text, _logprobs(choice.logprobs))
            if delta.refusal:
                self._message().say("refusal", delta.refusal, [])
            for annotation in delta.annotations or ():
                if cited := _citation(annotation):
                    self._message().cite(cited)
            for call in delta.tool_calls or ():
                self._take_call(call)
        if choice.finish_reason:
            self._finish = choice.finish_reason
            self._close("incomplete" if choice.finish_reason in _INCOMPLETE else "completed")

    def _take_call(self, call: _Call) -> None:
        function = call.function or _Function()
        index = call.index or 0
        item = self._item
        if not isinstance(item, CallItem) or self._call != index:
            if not function.name:
                raise UpstreamError("upstream_bad_answer")  # It goes on with a call that was never begun, or is over.
            name = self._session.names.get(function.name) or Name(function.name)
            call_id = call.id or f"call_{self._session.identity}{index:02x}"
            item = CallItem(self._next_id("ctc" if name.is_custom else "fc"), self._write_item, call_id, name)
            self._call = index
            self._open(item)
        if function.arguments:
            item.go_on(function.arguments)

    def _message(self) -> MessageItem:
        item = self._item
        if not isinstance(item, MessageItem):
            item = MessageItem(self._next_id("msg"), self._write_item)
            self._open(item)
        return item

    def _reasoning(self) -> ReasoningItem:
        item = self._item
        if not isinstance(item, ReasoningItem):
            summary, sealed = self._session.wants_summary, self._session.wants_sealed
            item = ReasoningItem(self._next_id("rs"), self._write_item, as_summary=summary, sealed=sealed)
            self._open(item)
        return item

    def _next_id(self, kind: str) -> str:
        """End the item that is open, and return the id of the next one."""
        self._close("completed")
        return self._session.item_id(kind, len(self._output))

    def _open(self, item: Item) -> None:
        self._item = item
        item.begin()

    def _close(self, status: str) -> None:
        item = self._item
        if item is not None:
            done = item.end(status)
            self._item = None
            self._output.append(done)

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            for kind in ("created", "in_progress"):
                self._write(kind, response=self._session.response("in_progress", [], model=self._model))

    def _conclude(self, status: str, *, incomplete: str | None = None, error: Json | None = None) -> None:
        self.final = self._session.response(
            status,
            self._output,
            model=self._model,
            usage=self._usage,
            error=error,
            incomplete=incomplete,
            service_tier=self._tier,
        )
        self._write(status, response=self.final)

    def _write_item(self, kind: str, /, **fields: object) -> None:
        self._write(kind, output_index=len(self._output), **fields)

    def _write(self, kind: str, /, **fields: object) -> None:
        name = f"response.{kind}"
        data = _encode({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        self._events.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def _flush(self) -> bytes:
        events, self._events = self._events, []
        return b"".join(events)


def _text_of(content: object) -> str:
    """Return what is said: a text, or the texts of parts, as some servers answer."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


def _logprobs(told: object) -> list[Json]:
    """Return the tokens' probabilities in a response's form, which knows no null."""
    tokens = told.get("content") if isinstance(told, dict) else None
    return [_token(token) for token in tokens or () if isinstance(token, dict)]


def _token(token: Json) -> Json:
    written = {"token": token.get("token"), "bytes": token.get("bytes") or [], "logprob": token.get("logprob")}
    if "top_logprobs" in token:
        written["top_logprobs"] = [_token(other) for other in token["top_logprobs"] or () if isinstance(other, dict)]
    return written


def _citation(annotation: object) -> Json | None:
    """Return a chat's citation as that of a response; None for any other annotation."""
    cited = annotation.get("url_citation") if isinstance(annotation, dict) else None
    return {"type": "url_citation", **cited} if isinstance(cited, dict) else None
