"""The pieces of a Gemini stream as OpenAI chunks, one piece after the other.

Pure; used for upstreams that speak Gemini's protocol, and by the relay that passes their pieces on unchanged and still
has to know what was said. The protocol has no end mark: an answer is whole when it has said why it ended and its body
is over.
Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent (read 2026-11-23).
"""

from __future__ import annotations

import msgspec

from chatgate.protocols import sse
from chatgate.protocols.gemini.answer import (
    block_reason,
    completion_id,
    error_in,
    openai_call,
    openai_image,
    parts_of,
    response_id,
)
from chatgate.protocols.gemini.counts import finish_reason, to_openai_logprobs, to_openai_usage
from chatgate.protocols.reading import Json

DONE = b"[DONE]"

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Json).decode


class Decoder:
    """Reads the pieces of one answer.

    `identity` and `model` are what they say of themselves, "" before the first one; `is_finished` says that all
    candidates have ended.
    """

    __slots__ = ("_calls", "_created", "_ended", "_frame", "_notes", "_usage", "identity", "is_finished", "model")

    def __init__(self, created: int, *, notes: bool = False) -> None:
        """Start before the first piece; `created` is the Unix time that the chunks bear.

        With `notes` the caller gets the pieces themselves: what is wrong with an answer is theirs to see, and for the
        record it has ended.
        """
        self._created = created
        self._notes = notes
        self._frame: Json = {}
        self._usage: object = None
        self._calls: dict[int, int] = {}
        self._ended: dict[int, bool] = {}
        self.identity = self.model = ""
        self.is_finished = False

    @property
    def is_begun(self) -> bool:
        """Tell whether there was a piece."""
        return bool(self._frame)

    def take(self, data: bytes) -> list[bytes]:
        """Return the data of the chunks for a piece. Raises `UpstreamError` for what is no answer."""
        try:
            piece = _decode(data)
        except _UNREADABLE:
            return []
        if "error" in piece or not self._notes:
            error = error_in(piece)
            if error is not None:
                return [_encode({"error": error})]
        chunks = [] if self._frame else self._begin(piece)
        self._usage = piece.get("usageMetadata") or self._usage  # Each piece has it; only the last one's is looked at.
        if block_reason(piece) is not None:
            self._ended[0] = True
            chunks.append(self._chunk(0, {}, "content_filter"))
        found = piece.get("candidates")
        for place, each in enumerate(found if isinstance(found, list) else ()):
            if isinstance(each, dict):
                index = each.get("index", place)
                chunks += self._candidate(each, index if isinstance(index, int) else place)
        self.is_finished = bool(self._ended) and all(self._ended.values())
        return chunks

    def end(self) -> list[bytes]:
        """Return the data of the chunks that end the answer; nothing when it was cut."""
        if not self.is_finished:
            return []
        counted = self.count()
        return [DONE] if counted is None else [counted, DONE]

    def count(self) -> bytes | None:
        """Return the data of the chunk that tells what was counted so far, None when nothing was."""
        usage = to_openai_usage(self._usage)
        return None if usage is None else _encode({**self._frame, "choices": [], "usage": usage})

    def _begin(self, piece: Json) -> list[bytes]:
        model = piece.get("modelVersion")
        self.model = model if isinstance(model, str) else ""
        self.identity = response_id(piece.get("responseId"))
        self._frame = {
            "id": completion_id(piece.get("responseId")),
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self.model,
        }
        return [self._chunk(0, {"role": "assistant", "content": ""})]

    def _chunk(self, index: int, delta: Json, finish: str | None = None, likely: Json | None = None) -> bytes:
        choice: Json = {"index": index, "delta": delta, "finish_reason": finish}
        if likely is not None:
            choice["logprobs"] = likely
        return _encode({**self._frame, "choices": [choice]})

    def _candidate(self, found: Json, index: int) -> list[bytes]:
        self._ended.setdefault(index, False)
        deltas = [delta for part in parts_of(found) if (delta := self._delta(part, index))]
        chunks = [self._chunk(index, delta) for delta in deltas]
        likely = to_openai_logprobs(found.get("logprobsResult"))
        ended = found.get("finishReason")
        if ended:
            self._ended[index] = True
            finish = finish_reason(ended, calls=index in self._calls)
            chunks.append(self._chunk(index, {}, finish, likely))
        elif likely is not None and deltas:
            chunks[-1] = self._chunk(index, deltas[-1], None, likely)
        return chunks

    def _delta(self, part: Json, index: int) -> Json:
        """Return what a part says; nothing for an empty one."""
        match part:
            case {"functionCall": {"name": str(_)}}:
                number = self._calls.get(index, 0)
                self._calls[index] = number + 1
                return {"tool_calls": [{"index": number, **openai_call(part, self.identity, number)}]}
            case {"text": str(text), "thought": True}:
                return {"reasoning_content": text} if text else {}
            case {"text": str(text)}:
                return {"content": text} if text else {}
            case {"inlineData": {"mimeType": str(kind), "data": str(data)}}:
                return {"images": [openai_image(kind, data)]}
            case _:
                # It has no counterpart: whoever compares answers must see that there was something.
                kinds = sorted(name for name in part if name != "thoughtSignature")
                return {"part": {"type": kinds[0]}} if kinds else {}


class StreamDecoder:
    """Turns the bytes of a Gemini stream, cut anywhere, into those of an OpenAI stream."""

    __slots__ = ("_decoder", "_splitter")

    def __init__(self, created: int) -> None:
        """Start before the first piece; `created` is the Unix time that the chunks bear."""
        self._decoder = Decoder(created)
        self._splitter = sse.EventSplitter()

    def feed(self, data: bytes) -> bytes:
        """Return whole events; comments stay. Raises `UpstreamError`."""
        return b"".join(map(self._take, self._splitter.feed(data)))

    def end(self) -> bytes:
        """Return what is still to be said at the end of the body, where the answer has ended, too."""
        tail = self._splitter.finish()
        said = self._take(tail) if tail else b""
        return said + b"".join(map(sse.event, self._decoder.end()))

    def _take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return event
        return b"".join(map(sse.event, self._decoder.take(data)))


def data_of(event: bytes) -> bytes | None:
    """Return an event's data. An error comes as bare JSON, without the name of a field."""
    return event.strip() if event.lstrip().startswith(b"{") else sse.data_of(event)
