"""Ollama's lines as OpenAI chunks, one line after the other.

Pure; used for upstreams that speak Ollama's protocol, and by the relay that passes their lines on unchanged and still
has to know what was said.
"""

from __future__ import annotations

import msgspec

from chatgate.protocols import sse
from chatgate.protocols.ollama.answer import (
    UNREADABLE,
    calls_of,
    created_of,
    error_of,
    finish_reason,
    identity_of,
    openai_logprobs,
    usage_of,
)
from chatgate.protocols.reading import Json
from chatgate.protocols.sse import MAX_EVENT_BYTES
from chatgate.vocabulary.errors import UpstreamError

DONE = b"[DONE]"

_encode = msgspec.json.Encoder().encode


class LineSplitter:
    """Cuts a byte stream into lines, each with its end: joined again they are the stream."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        """Start with nothing held back."""
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that are complete now. Raises `UpstreamError` when one grows too long."""
        *lines, self._tail = (self._tail + data).split(b"\n")
        if len(self._tail) > MAX_EVENT_BYTES:
            raise UpstreamError("upstream_too_large")
        return [line + b"\n" for line in lines]

    def finish(self) -> bytes:
        """Return what is left at the end of the stream: a line without its end, or b""."""
        tail, self._tail = self._tail, b""
        return tail


class Decoder:
    """Reads the lines of one answer, to a chat or to a completion."""

    __slots__ = ("_begun_calls", "_created", "_frame")

    def __init__(self, created: int) -> None:
        """Start before the first line; `created` is the Unix time for answers that bear none."""
        self._created = created
        self._frame: Json = {}
        self._begun_calls = 0

    def take(self, line: bytes) -> list[bytes]:
        """Return the data of the chunks for a line, the end mark among them; nothing for what is no object.

        Raises `UpstreamError` for calls that are none.
        """
        try:
            answer = msgspec.json.decode(line, type=Json)
        except UNREADABLE:
            return []
        if (error := error_of(answer)) is not None:
            return [_encode({"error": error})]
        chunks = [] if self._frame else [self._begin(answer)]
        message = answer.get("message")
        if "response" in answer:
            message = {"content": answer["response"], "thinking": answer.get("thinking")}
        if isinstance(message, dict):
            delta = self._delta(message)
            logprobs = openai_logprobs(answer.get("logprobs"))
            if delta or logprobs:
                chunks.append(self._chunk(delta, logprobs=logprobs))
        if answer.get("done") is True:
            chunks += self._end(answer)
        return chunks

    def _begin(self, answer: Json) -> bytes:
        self._frame = {
            "id": identity_of(answer),
            "object": "chat.completion.chunk",
            "created": created_of(answer, self._created),
            "model": answer.get("model") if isinstance(answer.get("model"), str) else "",
        }
        return self._chunk({"role": "assistant", "content": ""})

    def _delta(self, message: Json) -> Json:
        delta: Json = {}
        if isinstance(message.get("thinking"), str) and message["thinking"]:
            delta["reasoning_content"] = message["thinking"]
        if isinstance(message.get("content"), str) and message["content"]:
            delta["content"] = message["content"]
        calls = calls_of(message, self._frame["id"], self._begun_calls)
        if calls:
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls, self._begun_calls)]
            self._begun_calls += len(calls)
        return delta

    def _end(self, answer: Json) -> list[bytes]:
        finish = finish_reason(answer.get("done_reason"), has_calls=self._begun_calls > 0)
        chunks = [self._chunk({}, finish)]
        usage = usage_of(answer)
        if usage is not None:
            chunks.append(_encode({**self._frame, "choices": [], "usage": usage}))
        return [*chunks, DONE]

    def _chunk(self, delta: Json, finish: str | None = None, logprobs: Json | None = None) -> bytes:
        choice: Json = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return _encode({**self._frame, "choices": [choice]})


class StreamDecoder:
    """Turns the bytes of an Ollama stream, cut anywhere, into those of an OpenAI stream."""

    __slots__ = ("_decoder", "_splitter")

    def __init__(self, created: int) -> None:
        """Start before the first line; `created` is the Unix time for answers that bear none."""
        self._decoder = Decoder(created)
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> bytes:
        """Return whole events. Raises `UpstreamError`."""
        return b"".join(map(self._take, self._splitter.feed(data)))

    def end(self) -> bytes:
        """Return what a line still says that came without its end."""
        tail = self._splitter.finish()
        return self._take(tail) if tail else b""

    def _take(self, line: bytes) -> bytes:
        return b"".join(map(sse.event, self._decoder.take(line)))
