"""Anthropic events as OpenAI chunks, one event after the other.

Pure; used for upstreams that speak Anthropic's protocol, and by the relay that passes their events on unchanged and
still has to know what was said.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming (read 2026-11-23).
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from chatgate.protocols import sse
from chatgate.protocols.anthropic.encoder import TEXT, THINKING, Block
from chatgate.protocols.anthropic.message import completion_id, finish_reason, to_openai_usage
from chatgate.protocols.reading import Json

DONE = b"[DONE]"

_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Event(Struct, gc=False):
    type: str
    index: int = -1
    message: dict[str, Any] | None = None
    content_block: dict[str, Any] | None = None
    delta: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Event).decode


class Decoder:
    """Reads the events of one message.

    `index` is that of the last block which began, -1 before the first, and `open_block` is that block until it ends,
    as the encoder knows it; None for one that has no counterpart.
    """

    __slots__ = ("_calls", "_created", "_frame", "_silent", "_usage", "index", "open_block")

    def __init__(self, created: int) -> None:
        """Start before the first event; `created` is the Unix time that the chunks bear."""
        self._created = created
        self._frame: Json = {}
        self._usage: Json = {}
        self._calls: dict[int, int] = {}
        self._silent: set[int] = set()
        self.index = -1
        self.open_block: Block | None = None

    @property
    def is_begun(self) -> bool:
        """Tell whether the message has begun."""
        return bool(self._frame)

    def take(self, data: bytes) -> list[bytes]:
        """Return the data of the chunks for an event, the end mark among them; nothing for what is no event."""
        try:
            event = _decode(data)
        except _UNREADABLE:
            return []
        match event.type:
            case "content_block_delta":
                chunks = self._delta(event.index, event.delta or {})
            case "message_start":
                chunks = self._start(event.message or {})
            case "content_block_start":
                chunks = self._block(event.index, event.content_block or {})
            case "content_block_stop":
                chunks = self._block_end(event.index)
            case "message_delta":
                self._count(event.usage)
                stop = (event.delta or {}).get("stop_reason")
                chunks = [self._chunk({}, finish_reason(stop))] if stop else []
            case "message_stop":
                chunks = self._end()
            case "error":
                error = event.error if isinstance(event.error, dict) else {}
                chunks = [_encode({"error": {"message": "", **error, "code": error.get("type")}})]
            case _:
                chunks = []
        return chunks

    def _end(self) -> list[bytes]:
        usage = to_openai_usage(self._usage)
        return [DONE] if usage is None else [_encode({**self._frame, "choices": [], "usage": usage}), DONE]

    def _count(self, usage: Json | None) -> None:
        """Take the latest numbers: they are running totals."""
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _chunk(self, delta: Json, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return _encode({**self._frame, "choices": [choice]})

    def _start(self, message: Json) -> list[bytes]:
        self._frame = {
            "id": completion_id(message.get("id")),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": message.get("model") if isinstance(message.get("model"), str) else "",
        }
        self._count(message.get("usage") if isinstance(message.get("usage"), dict) else None)
        return [self._chunk({"role": "assistant", "content": ""})]

    def _block(self, index: int, block: Json) -> list[bytes]:
        self.index = index
        self.open_block = None
        match block:
            case {"type": "text"}:
                self.open_block = TEXT
                said = block.get("text")
                return [self._chunk({"content": said})] if said else []
            case {"type": "thinking"}:
                self.open_block = THINKING
                thought = block.get("thinking")
                return [self._chunk({"reasoning_content": thought})] if thought else []
            case {"type": "tool_use", "id": str(identity), "name": str(name)}:
                number = self._calls[index] = len(self._calls)
                self.open_block = "tool", number
                self._silent.add(index)
                function = {"name": name, "arguments": ""}
                call = {"index": number, "id": identity, "type": "function", "function": function}
                return [self._chunk({"tool_calls": [call]})]
            case _:
                # It has no counterpart: whoever compares answers must see that there was something.
                return [self._chunk({"content_block": {"type": str(block.get("type"))}})]

    def _delta(self, index: int, delta: Json) -> list[bytes]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                return [self._chunk({"content": text})]
            case {"type": "thinking_delta", "thinking": str(thought)}:
                return [self._chunk({"reasoning_content": thought})]
            case {"type": "input_json_delta", "partial_json": str(arguments)} if index in self._calls and arguments:
                self._silent.discard(index)
                return [self._arguments(index, arguments)]
            case _:
                return []

    def _block_end(self, index: int) -> list[bytes]:
        self.open_block = None
        if index not in self._silent:
            return []
        self._silent.discard(index)
        return [self._arguments(index, "{}")]  # A call without arguments has them in OpenAI's protocol all the same.

    def _arguments(self, index: int, arguments: str) -> bytes:
        return self._chunk({"tool_calls": [{"index": self._calls[index], "function": {"arguments": arguments}}]})


class StreamDecoder:
    """Turns the bytes of an Anthropic stream, cut anywhere, into those of an OpenAI stream."""

    __slots__ = ("_decoder", "_splitter")

    def __init__(self, created: int) -> None:
        """Start before the first event; `created` is the Unix time that the chunks bear."""
        self._decoder = Decoder(created)
        self._splitter = sse.EventSplitter()

    def feed(self, data: bytes) -> bytes:
        """Return whole events; what has no counterpart goes, but comments stay. Raises `UpstreamError`."""
        return b"".join(map(self._take, self._splitter.feed(data)))

    def end(self) -> bytes:
        """Return what an event still says that the end of the body cut short of its blank line."""
        tail = self._splitter.finish()
        return self._take(tail) if tail else b""

    def _take(self, event: bytes) -> bytes:
        data = sse.data_of(event)
        if not data:
            return event
        return b"".join(map(sse.event, self._decoder.take(data)))
